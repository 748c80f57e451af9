// What a chart says under the pointer, and with the arrow keys; without it the browser shows each slot's title. All pages
// work without scripts.
"use strict";

for (const figure of document.querySelectorAll("figure.chart")) {
  const tip = figure.querySelector(".tip");
  let on = null;

  const shown = () => [...figure.querySelectorAll("svg")].find((svg) => svg.getBoundingClientRect().width > 0);

  const show = (slot) => {
    if (on) on.classList.remove("on");
    on = slot;
    tip.hidden = !slot;
    if (!slot) return;
    slot.classList.add("on");
    tip.textContent = slot.dataset.tip;
    const { left, width } = slot.getBoundingClientRect();
    const frame = figure.getBoundingClientRect();
    tip.style.left = left + width / 2 > frame.left + frame.width / 2 ? "5rem" : "auto";
    tip.style.right = tip.style.left === "auto" ? ".5rem" : "auto";
  };

  for (const slot of figure.querySelectorAll(".slot")) {
    slot.querySelector("title").remove(); // the tip says the same
    slot.addEventListener("pointerenter", () => show(slot));
  }
  figure.addEventListener("pointerleave", () => show(null));
  figure.addEventListener("blur", () => show(null));
  figure.addEventListener("keydown", (event) => {
    const slots = [...shown().querySelectorAll(".slot")];
    const last = slots.length - 1;
    const at = slots.indexOf(on);
    const to = { ArrowRight: Math.min(at + 1, last), ArrowLeft: at < 0 ? last : Math.max(at - 1, 0), Home: 0, End: last }[event.key];
    if (event.key === "Escape") show(null);
    if (to === undefined) return;
    event.preventDefault();
    show(slots[to]);
  });
}

// On a phone the menu is wider than the window: the page that is open is to be seen in it.
const menu = document.querySelector(".top nav ul");
const here = menu?.querySelector("[aria-current]");
if (here) menu.scrollLeft = here.offsetLeft - menu.clientWidth / 2 + here.offsetWidth / 2;
