"use strict";
(() => {
  const items = [...document.querySelectorAll("main > *")]; // cards, or rows of them where there are several runs
  const buttons = [...document.querySelectorAll("[data-filter]")];
  const find = document.getElementById("find");
  const count = document.getElementById("count");
  const allSeen = document.getElementById("all-seen");
  const allTokens = document.getElementById("all-tokens");
  const run = document.getElementById("run");
  const nothing = document.getElementById("nothing");
  let filter = "all";

  function passes(item, name) {
    const chosen = run && run.value && item.querySelectorAll(".card");
    const one = chosen ? [...chosen].find((card) => card.dataset.run === run.value) : item;
    if (name === "changed") return item.dataset.changed === "1";
    return Boolean(one) && (name === "all" || one.dataset[name] === "1");
  }

  function show() {
    const words = find.value.toLowerCase().split(/\s+/).filter(Boolean);
    let shown = 0;
    for (const item of items) {
      const text = words.length ? item.textContent.toLowerCase() : "";
      const fits = passes(item, filter) && words.every((word) => text.includes(word));
      item.hidden = !fits;
      shown += fits ? 1 : 0;
    }
    count.textContent = `${shown} of ${items.length} shown`;
    nothing.hidden = shown > 0;
  }

  function recount() {
    for (const button of buttons) {
      button.querySelector("b").textContent = items.filter((item) => passes(item, button.dataset.filter)).length;
    }
    show();
  }

  function choose(button) {
    filter = button.dataset.filter;
    for (const other of buttons) other.setAttribute("aria-pressed", String(other === button));
    show();
  }

  function flip(button, apply) {
    const on = button.getAttribute("aria-pressed") !== "true";
    button.setAttribute("aria-pressed", String(on));
    apply(on);
  }

  const flipSeen = () => flip(allSeen, (on) => document.querySelectorAll(".as-seen").forEach((box) => { box.checked = on; }));
  const flipTokens = () => flip(allTokens, (on) => document.querySelectorAll(".token-view").forEach((view) => { view.open = on; }));

  function step(by) {
    const visible = items.filter((item) => !item.hidden);
    if (!visible.length) return;
    const here = visible.findIndex((item) => item.contains(document.activeElement));
    const next = here < 0 ? (by > 0 ? 0 : visible.length - 1) : Math.min(visible.length - 1, Math.max(0, here + by));
    const scroll = () => visible[next].scrollIntoView({ block: "start" });
    visible[next].focus({ preventScroll: true });
    scroll();
    requestAnimationFrame(() => requestAnimationFrame(scroll)); // heights are estimates until items come into view
  }

  buttons.forEach((button) => button.addEventListener("click", () => choose(button)));
  find.addEventListener("input", show);
  if (run) run.addEventListener("change", recount);
  allSeen.addEventListener("click", flipSeen);
  if (allTokens) allTokens.addEventListener("click", flipTokens);
  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    if (event.target === find) {
      if (event.key === "Escape") { find.value = ""; show(); find.blur(); }
      return;
    }
    if (event.target === run) return; // letters and digits choose among its options
    if (event.key === "j") step(1);
    else if (event.key === "k") step(-1);
    else if (event.key === "s") flipSeen();
    else if (event.key === "t" && allTokens) flipTokens();
    else if (event.key === "/") { event.preventDefault(); find.focus(); }
    else if (buttons[Number(event.key) - 1]) choose(buttons[Number(event.key) - 1]);
  });
  show();
})();
