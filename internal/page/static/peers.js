// One row for each peer: who it is, its lanes, its numbers, what is wrong, and what can be done.
import { $, el, keyed, set, setText } from "./dom.js";
import { count, number, short, words } from "./format.js";
import { act } from "./actions.js";
import { showLaneNumbers, strip } from "./heat.js";

const WORDS = { in_step: "in step", lagging: "lagging", paused: "paused", absent: "absent", lost: "lost", snapshot: "snapshot" };

// How much a peer needs somebody to look at it.
function need(p) {
  const weight = { lost: 0, absent: 0, in_step: 1, paused: 2, lagging: 4, snapshot: 3 }[p.condition] ?? 0;
  return weight + (p.refusals > 0 ? 1 : 0) + (p.failures > 0 ? 2 : 0);
}

export function showPeers(view, order) {
  const list = [...view.peers];
  if (order === "worst") list.sort((a, b) => need(b) - need(a) || b.oldest_age_seconds - a.oldest_age_seconds || (a.id < b.id ? -1 : 1));
  showLaneNumbers(view.lanes);
  $("no-peers").hidden = list.length > 0;
  const inStep = list.filter((p) => p.in_step && p.state === "active").length;
  const active = list.filter((p) => p.state === "active").length;
  setText($("peer-count"), list.length === 0 ? "" : `${inStep} of ${active} in step`);
  keyed($("peers"), list, (p) => p.id, (p) => makePeer(p, view.lanes), (e, p) => e.update(p));
}

function makePeer(first, lanes) {
  let peer = first;
  const badge = el("span", { class: "badge" });
  const heat = strip(lanes);
  const bar = el("progress", { max: "1", "aria-label": `Snapshot of ${first.id}` });
  const barText = el("span", { class: "bar-text" });
  const snapshot = el("div", { class: "snapshot" }, bar, barText);
  const oldest = el("dd");
  const missing = el("dd");
  const pause = el("button", { type: "button", onclick: () => act(peer.paused ? "resume" : "pause", peer) });
  const resync = el("button", { type: "button", onclick: () => act("resync", peer) }, "Resync…");
  const notes = el("ul", { class: "notes" });
  const row = el("li", { class: "peer" },
    el("div", { class: "who" }, el("h3", { title: first.id }, first.id), badge),
    el("div", { class: "lanes" }, heat.element, snapshot),
    el("dl", { class: "facts" }, el("div", {}, el("dt", {}, "oldest"), oldest), el("div", {}, el("dt", {}, "behind"), missing)),
    el("div", { class: "buttons" }, pause, resync),
    notes,
  );
  row.update = (p) => {
    peer = p;
    set(row, "data-condition", p.condition);
    setText(badge, WORDS[p.condition] ?? p.condition);
    heat.update(p);
    showSnapshot(p, snapshot, bar, barText);
    setText(oldest, p.oldest_age_seconds > 0 ? short(p.oldest_age_seconds) : "–");
    setText(missing, p.entries_lagging > 0 ? number(p.entries_lagging) : "–");
    const there = p.state === "active";
    pause.hidden = resync.hidden = !there;
    setText(pause, p.paused ? "Resume" : "Pause");
    set(pause, "aria-label", `${p.paused ? "Resume" : "Pause"} ${p.id}`);
    set(resync, "aria-label", `Resync ${p.id} by a snapshot`);
    keyed(notes, notesOf(p), (n) => n.key, makeNote, (e, n) => e.update(n, p));
    notes.hidden = notes.childElementCount === 0;
  };
  return row;
}

function showSnapshot(p, box, bar, text) {
  const s = p.snapshot;
  box.hidden = !s;
  if (!s) return;
  if (s.total > 0) set(bar, "value", Math.min(1, s.pushed / s.total));
  else set(bar, "value", null);
  const parts = [`${s.phase}: ${number(s.pushed)}${s.total > 0 ? ` of about ${number(s.total)}` : ""} in ${short(s.running_seconds)}`];
  if (s.waits_seconds > 0) parts.push(`waits ${short(s.waits_seconds)} for older pushes`);
  setText(text, parts.join(" · "));
}

// notesOf are the lines under a peer: what it failed with and what to do, what it refuses, what waits for it.
function notesOf(p) {
  const notes = [];
  const error = p.last_error;
  if (p.state === "absent" || p.state === "lost") {
    const why = p.state === "lost" ? "not configured, and the log is not kept for it any more" : "not configured; what it misses is kept";
    notes.push({ key: "away", kind: "hint", strong: why, text: `\`worker peers remove ${p.id}\` forgets it` });
  }
  if (p.paused) {
    notes.push({ key: "paused", kind: "hint", strong: "paused by an operator", text: "it is pushed nothing and gives no acknowledgement" });
  }
  if (error && !p.in_step && p.state === "active") {
    const next = p.paused ? "" : p.pushing ? " · is caught up now" : p.next_try_seconds > 0 ? ` · next try in ${short(p.next_try_seconds)}` : " · next try is due";
    notes.push({ key: "error", kind: p.failures > 0 ? "error" : "hint", strong: `${words(error.class)} ${short(error.age_seconds)} ago${next}`, text: error.hint });
  } else if (error && p.state === "active" && error.age_seconds < 600) {
    notes.push({ key: "error", kind: "past", strong: `last error ${words(error.class)}, ${short(error.age_seconds)} ago`, text: "" });
  }
  for (const r of p.refused) {
    const next = r.next_try_seconds > 0 ? `next try in ${short(r.next_try_seconds)}` : "next try is due";
    notes.push({ key: `refused-${r.class}`, kind: "refused", strong: `refuses ${count(r.entries, "entry", "entries")}: ${words(r.class)}`, text: `${r.hint ? `${r.hint}; ` : ""}${next}`, refused: r });
  }
  const rest = [];
  if (p.repairs > 0) rest.push(count(p.repairs, "repair"));
  if (p.doubts > 0) rest.push(`${count(p.doubts, "push", "pushes")} in doubt`);
  if (rest.length > 0) notes.push({ key: "rest", kind: "past", strong: rest.join(", "), text: "" });
  return notes;
}

function makeNote(first) {
  let peer = null;
  const strong = el("strong");
  const text = el("span");
  const retry = first.refused ? el("button", { type: "button", onclick: () => act("retry", peer, first.refused.class) }, "Retry") : null;
  const note = el("li", { class: "note" }, el("span", { class: "note-text" }, strong, " ", text), retry);
  note.update = (n, p) => {
    peer = p;
    set(note, "data-kind", n.kind);
    setText(strong, n.strong);
    setText(text, n.text);
    if (retry) set(retry, "aria-label", `Retry what ${p.id} refuses with ${words(n.refused.class)}`);
  };
  return note;
}
