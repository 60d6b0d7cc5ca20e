"use strict";
const root = document.documentElement;
const all = (selector, within = document) => [...within.querySelectorAll(selector)];
for (const control of all(".needs-script")) control.hidden = false;

const theme = document.getElementById("theme");
const themes = ["auto", "light", "dark"];
theme.addEventListener("click", () => {
  const next = themes[(themes.indexOf(root.dataset.theme ?? "auto") + 1) % themes.length];
  root.dataset.theme = next;
  theme.textContent = `Theme: ${next}`;
});

document.addEventListener("change", ({ target }) => {
  const layer = target.dataset.layer;
  if (!layer) return;
  root.classList.toggle(`hide-${layer}`, !target.checked);
  for (const twin of all(`input[data-layer="${layer}"]`)) twin.checked = target.checked;
});

const dialog = document.querySelector("dialog");
const faces = all("button.face");
let shown = 0;
const show = (index) => {
  shown = (index + faces.length) % faces.length;
  const face = faces[shown];
  dialog.querySelector(".enlarged").replaceChildren(...all("img, svg", face).map((part) => part.cloneNode(true)));
  dialog.querySelector("p").textContent = face.closest("figure").querySelector("figcaption").textContent;
  if (!dialog.open) dialog.showModal();
};
for (const [index, face] of faces.entries()) face.addEventListener("click", () => show(index));
dialog.addEventListener("click", ({ target }) => {
  const step = target.dataset.step;
  if (step) show(shown + Number(step));
  else if (target === dialog || target.dataset.close !== undefined) dialog.close();
});
dialog.addEventListener("keydown", ({ key }) => {
  if (key === "ArrowLeft") show(shown - 1);
  if (key === "ArrowRight") show(shown + 1);
});
dialog.addEventListener("close", () => faces[shown].focus());

let folded = [];
addEventListener("beforeprint", () => {
  folded = all("details:not([open])");
  for (const one of folded) one.open = true;
});
addEventListener("afterprint", () => {
  for (const one of folded) one.open = false;
});
