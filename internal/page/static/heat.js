// The heat map: a row of lanes for each peer, with the numbers under the pointer, by arrow keys, and in words.
import { $, el, set, setText } from "./dom.js";
import { hideTip, showTip, tipIsOf } from "./tip.js";
import { count, short } from "./format.js";

// A lane has the colour of the last step that it reaches.
const STEPS = {
  age: { at: [0, 5, 30, 120, 600, 3600], labels: ["in step", "< 5 s", "5 s", "30 s", "2 m", "10 m", "1 h +"] },
  entries: { at: [1, 10, 100, 1000, 10000, 100000], labels: ["in step", "1", "10", "100", "1k", "10k", "100k +"] },
};

let measure = "age";

export function setMeasure(m) {
  measure = m;
  showLegend();
}

// level is 0 for a lane in step, else 1 to 6.
function level(lane) {
  if (!lane || lane.in_flight) return 0;
  const value = measure === "age" ? lane.age_seconds : lane.entries;
  return Math.max(1, STEPS[measure].at.filter((from) => value >= from).length);
}

export function showLegend() {
  $("legend").replaceChildren(...STEPS[measure].labels.map((text, i) => el("li", {}, el("span", { class: "cell", "data-level": i, "aria-hidden": "true" }), text)));
}

export function showLaneNumbers(lanes) {
  const head = $("lane-numbers");
  if (head.childElementCount === lanes) return;
  head.replaceChildren(...Array.from({ length: lanes }, (_, i) => el("span", {}, i % 4 === 0 ? String(i) : "")));
}

function say(peer, number) {
  const lane = peer.lanes.find((l) => l.lane === number);
  const name = `${peer.id}, lane ${number}: `;
  if (peer.condition === "snapshot") return name + "waits for the snapshot";
  if (!lane) return name + "in step";
  return name + laneState(lane, true);
}

export function laneState(lane, numbers) {
  if (lane.in_flight) return "a push is on its way";
  const parts = numbers ? [`${count(lane.entries, "entry", "entries")} behind, oldest ${short(lane.age_seconds)}`] : [];
  if (lane.pushing) parts.push("is caught up now");
  else if (lane.failures > 0) parts.push(`${count(lane.failures, "failure")} in a row`);
  else if (!numbers) parts.push("waits");
  return parts.join(", ");
}

// strip returns the row of one peer, with update(peer).
export function strip(lanes) {
  const cells = Array.from({ length: lanes }, () => el("span", { class: "cell" }));
  const row = el("div", { class: "strip", tabindex: "0", role: "group" }, ...cells);
  let peer = null;
  let at = null;
  function show() {
    if (at === null || !peer) return;
    cells.forEach((c, i) => c.classList.toggle("at", i === at));
    showTip(cells[at], say(peer, at), row);
  }
  function leave() {
    at = null;
    cells.forEach((c) => c.classList.remove("at"));
    hideTip(row);
  }
  row.addEventListener("pointermove", (event) => {
    const box = row.getBoundingClientRect();
    at = Math.min(lanes - 1, Math.max(0, Math.floor(((event.clientX - box.left) / box.width) * lanes)));
    show();
  });
  row.addEventListener("pointerleave", leave);
  row.addEventListener("blur", leave);
  row.addEventListener("focus", () => {
    if (!row.matches(":focus-visible")) return;
    at ??= Math.max(0, peer?.lanes.find((l) => !l.in_flight)?.lane ?? 0);
    show();
  });
  row.addEventListener("keydown", (event) => {
    const move = { ArrowLeft: -1, ArrowRight: 1, Home: -lanes, End: lanes }[event.key];
    if (move === undefined) return;
    event.preventDefault();
    at = Math.min(lanes - 1, Math.max(0, (at ?? 0) + move));
    show();
  });
  function update(p) {
    peer = p;
    const by = new Map(p.lanes.map((l) => [l.lane, l]));
    cells.forEach((c, i) => {
      const lane = by.get(i);
      set(c, "data-level", level(lane));
      set(c, "data-now", lane?.in_flight ? "flight" : lane?.pushing ? "pushing" : null);
    });
    set(row, "aria-label", summary(p));
    if (tipIsOf(row)) show();
  }
  return { element: row, update };
}

function summary(p) {
  if (p.condition === "snapshot") return `Lanes of ${p.id}: they wait for the snapshot.`;
  if (p.lanes_lagging === 0) return `Lanes of ${p.id}: all in step.`;
  const worst = p.lanes.reduce((a, b) => (b.age_seconds > a.age_seconds ? b : a));
  return `Lanes of ${p.id}: ${p.lanes_lagging} lag, ${count(p.entries_lagging, "entry", "entries")} behind; lane ${worst.lane} the longest, ` +
    `${short(worst.age_seconds)}. Left and right arrow keys read the lanes.`;
}

// showLaneTable is the same in a table, for who rather reads; only while it is open.
export function showLaneTable(view) {
  if (!$("as-table").open) return;
  const rows = view.peers.flatMap((p) => (p.condition === "snapshot" ? [] : p.lanes.map((l) => [p.id, String(l.lane), l.in_flight ? "–" : String(l.entries), l.in_flight ? "–" : short(l.age_seconds), laneState(l, false)])));
  const body = $("lane-rows");
  if (rows.length === 0) {
    body.replaceChildren(el("tr", {}, el("td", { colspan: "5" }, "No lane lags.")));
    return;
  }
  while (body.rows.length > rows.length) body.deleteRow(-1);
  rows.forEach((texts, i) => {
    let row = body.rows[i];
    if (!row || row.cells.length !== texts.length) {
      const made = el("tr", {}, ...texts.map(() => el("td")));
      if (row) row.replaceWith(made);
      else body.append(made);
      row = made;
    }
    texts.forEach((text, j) => setText(row.cells[j], text));
  });
}
