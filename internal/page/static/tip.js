// The one tooltip: beside what the pointer or the keyboard is at.
import { $, setText } from "./dom.js";

let owner = null;

export function showTip(target, text, from = target) {
  const tip = $("tip");
  owner = from;
  setText(tip, text);
  tip.hidden = false;
  const at = target.getBoundingClientRect();
  const size = tip.getBoundingClientRect();
  const left = Math.min(Math.max(8, at.left + at.width / 2 - size.width / 2), innerWidth - size.width - 8);
  const above = at.top - size.height - 8;
  tip.style.left = `${Math.max(8, left)}px`;
  tip.style.top = `${above < 8 ? at.bottom + 8 : above}px`;
}

export function hideTip(from) {
  if (from && owner !== from) return;
  owner = null;
  $("tip").hidden = true;
}

export const tipIsOf = (from) => owner === from;

addEventListener("scroll", () => hideTip(), { passive: true });
addEventListener("keydown", (event) => {
  if (event.key === "Escape") hideTip();
});
