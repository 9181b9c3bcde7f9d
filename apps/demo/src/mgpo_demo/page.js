(limit) => {
  // What Gradio has no option for: a sentence for a file that is too large (the server would refuse it before any code of
  // ours is asked), images dropped anywhere on the page, a box that is drawn, moved and resized without choosing between
  // two tools first, and names for parts that have none.
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

  let chosen = false; // a tool chosen by hand holds for one box
  const tool = (event) => {
    if (event.target.closest("#image .canvas-control")) chosen = event.isTrusted;
    if (!event.target.matches("#image canvas")) return;
    const place = event.target.getBoundingClientRect();
    const width = Number(getComputedStyle(document.documentElement).getPropertyValue("--image-width"));
    const [x1, y1, x2, y2] = document.querySelector("#numbers :is(input, textarea)").value.split(",")
      .map((value) => (parseFloat(value) / width) * place.width);
    const [x, y, near] = [event.clientX - place.left, event.clientY - place.top, 10];
    const held = x > x1 - near && x < x2 + near && y > y1 - near && y < y2 + near; // false where there is no box
    const button = document.querySelectorAll("#image .canvas-control button")[held ? 1 : 0];
    if (!chosen && !button.classList.contains("selected")) button.click();
    chosen = false;
  };
  document.addEventListener("pointerdown", tool, true);

  const name = () => {
    const place = document.querySelector("#image .annotator-container");
    place?.setAttribute("role", "group");
    place?.setAttribute("aria-label", "Draw the box with the mouse here, or type its numbers below");
    const canvas = document.querySelector("#image canvas");
    canvas?.setAttribute("role", "img");
    canvas?.setAttribute("aria-label", "The image with the box on it");
    for (const one of document.querySelectorAll("#examples button[aria-label^=Thumbnail]"))
      one.setAttribute("aria-label", `Example: ${one.querySelector("img").alt}`);
  };
  name();
  new MutationObserver(name).observe(document.body, { childList: true, subtree: true }); // the annotator comes later
}
