// The last minutes: writes, latency, outcomes, and what waits.
import { $, el, keyed, set, setText } from "./dom.js";
import { chart } from "./chart.js";
import { compact, count, milliseconds, number, short, words } from "./format.js";

let parts = null;

function tile(id, title, unit, graphic, fact = "") {
  const big = el("span", { class: "big" }, "–");
  const small = el("span", { class: "unit" }, unit);
  const more = el("p", { class: "more" }, fact);
  $(id).replaceChildren(el("h2", {}, title), el("p", { class: "figure" }, big, small), ...(graphic ? [graphic.element] : []), more);
  return { big, small, more, graphic };
}

function build() {
  return {
    rate: tile("tile-rate", "Replicated writes", "/s", chart("area", "Replicated writes a second")),
    latency: tile("tile-latency", "Written to quorum", "p50", chart("band", "Milliseconds from written to quorum")),
    quorum: tile("tile-quorum", "Quorums", "met", chart("bars", "Entries by outcome")),
    waiting: tile("tile-waiting", "On the way", "entries", null),
  };
}

export function showTiles(view) {
  parts ??= build();
  const { recent } = view;
  const end = new Date(recent.end);
  const minutes = Math.round((recent.met.length * recent.step_seconds) / 60);
  const common = { end, step: recent.step_seconds };
  const { minute } = recent;

  const perSecond = recent.met.map((n) => (n === null ? null : n / recent.step_seconds));
  setText(parts.rate.big, minute.met_per_second >= 100 ? number(Math.round(minute.met_per_second)) : String(minute.met_per_second));
  setText(parts.rate.more, `${count(minute.met, "entry", "entries")} in the last minute`);
  parts.rate.graphic.update([{ values: perSecond, name: "met" }], {
    ...common, floor: 1, unknown: true,
    scale: (v) => `${compact(v)}/s`,
    say: (i) => (perSecond[i] === null ? "not known" : `${number(Math.round(perSecond[i] * 10) / 10)} writes/s`),
    words: `${minute.met_per_second} a second in the last minute, ${minutes} minutes shown`,
  });

  setText(parts.latency.big, milliseconds(minute.p50_ms));
  setText(parts.latency.more, `p99 ${milliseconds(minute.p99_ms)} · last minute`);
  parts.latency.graphic.update([{ values: recent.p99_ms, name: "p99" }, { values: recent.p50_ms, name: "p50" }], {
    ...common, floor: 10, unknown: false,
    scale: (v) => `${milliseconds(v)}, log`,
    say: (i) => (recent.p50_ms[i] === null ? "no quorum was met" : `p50 ${milliseconds(recent.p50_ms[i])}, p99 ${milliseconds(recent.p99_ms[i])}`),
    words: `p50 ${milliseconds(minute.p50_ms)} and p99 ${milliseconds(minute.p99_ms)} in the last minute, ${minutes} minutes shown`,
  });

  const missed = Object.values(minute.not_met).reduce((a, b) => a + b, 0);
  const all = minute.met + missed;
  const share = all === 0 ? "–" : missed === 0 ? "100 %" : `${(Math.floor((minute.met / all) * 1000) / 10).toFixed(1)} %`;
  const why = Object.entries(minute.not_met).map(([reason, n]) => `${words(reason)} ${number(n)}`).join(", ");
  setText(parts.quorum.big, share);
  set($("tile-quorum"), "data-health", missed > 0 ? "fails" : "ok");
  setText(parts.quorum.more, all === 0 ? "nothing was decided in the last minute" : missed === 0 ? "none missed in the last minute" : `${number(missed)} missed: ${why}`);
  parts.quorum.graphic.update([{ values: recent.not_met, name: "missed" }, { values: recent.met, name: "met" }], {
    ...common, floor: 1, unknown: true,
    scale: (v) => `${compact(v)} in ${recent.step_seconds} s`,
    say: (i) => (recent.met[i] === null ? "not known" : `${number(recent.met[i])} met, ${number(recent.not_met[i])} missed`),
    words: `${number(minute.met)} met and ${number(missed)} missed in the last minute${why ? ` (${why})` : ""}, ${minutes} minutes shown`,
  });

  const { undispatched, undecided } = view;
  setText(parts.waiting.big, compact(undispatched.entries + undecided.entries));
  const wait = (w) => (w.entries === 0 ? "–" : `${compact(w.entries)} · ${short(w.oldest_age_seconds)}`);
  const worst = Math.max(0, ...view.peers.filter((p) => p.state === "active").map((p) => p.oldest_age_seconds));
  const rows = [
    ["not dispatched", wait(undispatched)], ["without a verdict", wait(undecided)],
    ["oldest at a peer", worst > 0 ? short(worst) : "–"], ["oldest transaction", view.oldest_xmin_seconds > 0 ? short(view.oldest_xmin_seconds) : "–"],
  ];
  keyed(parts.waiting.more, rows, (row) => row[0], (row) => el("span", { class: "row" }, el("span", {}, row[0]), el("b")), (e, row) => setText(e.lastElementChild, row[1]));
}
