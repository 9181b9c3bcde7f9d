(limit) => {
  // What Gradio has no option for: a sentence for a file that is too large (the server would refuse it before any code of
  // ours is asked), pictures dropped anywhere on the page, and names for parts that have none.
  const input = () => document.querySelector("#upload input[type=file]");

  const refused = (files) => {
    const file = [...(files || [])].find((one) => one.size > limit);
    if (!file) return false;
    window.mgpoRefused = { name: file.name, size: file.size };
    document.querySelector("#too-large").click();
    return true;
  };
  const halt = (event) => { event.preventDefault(); event.stopImmediatePropagation(); };

  document.addEventListener("change", (event) => {
    if (event.target.type === "file" && refused(event.target.files)) { halt(event); event.target.value = ""; }
  }, true);
  document.addEventListener("dragover", (event) => {
    if ([...event.dataTransfer.types].includes("Files")) event.preventDefault();
  });
  document.addEventListener("drop", (event) => {
    const files = event.dataTransfer.files;
    if (!files.length) return;
    if (refused(files)) halt(event);
    else if (!event.target.closest("#upload") && input()) {
      halt(event);
      input().files = files;
      input().dispatchEvent(new Event("change", { bubbles: true }));
    }
  }, true);

  const name = () => {
    const place = document.querySelector("#picture .annotator-container");
    place?.setAttribute("role", "group");
    place?.setAttribute("aria-label", "Draw the box with the mouse here, or type its numbers below");
    const canvas = document.querySelector("#picture canvas");
    canvas?.setAttribute("role", "img");
    canvas?.setAttribute("aria-label", "The picture with the box on it");
    for (const one of document.querySelectorAll("#examples button[aria-label^=Thumbnail]"))
      one.setAttribute("aria-label", `Example: ${one.querySelector("img").alt}`);
  };
  name();
  for (const part of document.querySelectorAll("#picture, #examples"))
    new MutationObserver(name).observe(part, { childList: true, subtree: true });
}
