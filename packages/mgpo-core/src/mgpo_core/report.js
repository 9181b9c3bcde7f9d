"use strict";
(() => {
  const cards = [...document.querySelectorAll(".card")];
  const buttons = [...document.querySelectorAll("[data-filter]")];
  const find = document.getElementById("find");
  const count = document.getElementById("count");
  const allSeen = document.getElementById("all-seen");
  const allTokens = document.getElementById("all-tokens");
  let filter = "all";

  function show() {
    const words = find.value.toLowerCase().split(/\s+/).filter(Boolean);
    let shown = 0;
    for (const card of cards) {
      const text = words.length ? card.textContent.toLowerCase() : "";
      const fits = (filter === "all" || card.dataset[filter] === "1") && words.every((word) => text.includes(word));
      card.hidden = !fits;
      shown += fits ? 1 : 0;
    }
    count.textContent = `${shown} of ${cards.length} shown`;
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
    const visible = cards.filter((card) => !card.hidden);
    if (!visible.length) return;
    const here = visible.findIndex((card) => card.contains(document.activeElement));
    const next = here < 0 ? (by > 0 ? 0 : visible.length - 1) : Math.min(visible.length - 1, Math.max(0, here + by));
    visible[next].focus({ preventScroll: true });
    visible[next].scrollIntoView({ block: "start" });
  }

  buttons.forEach((button) => button.addEventListener("click", () => choose(button)));
  find.addEventListener("input", show);
  allSeen.addEventListener("click", flipSeen);
  allTokens.addEventListener("click", flipTokens);
  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    if (event.target === find) {
      if (event.key === "Escape") { find.value = ""; show(); find.blur(); }
      return;
    }
    if (event.key === "j") step(1);
    else if (event.key === "k") step(-1);
    else if (event.key === "s") flipSeen();
    else if (event.key === "t") flipTokens();
    else if (event.key === "/") { event.preventDefault(); find.focus(); }
    else if (buttons[Number(event.key) - 1]) choose(buttons[Number(event.key) - 1]);
  });
  show();
})();
