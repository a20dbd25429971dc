// The workers, and what each has.
import { $, el, keyed, set, setText } from "./dom.js";
import { count, short } from "./format.js";

const KINDS = [
  ["fan_outs", "fan-out"], ["batches", "batch", "batches"], ["retries", "catch-up"], ["lanes", "lane"], ["repairs", "repair"],
  ["redeliveries", "redelivery", "redeliveries"], ["snapshots", "snapshot"],
];

export function showWorkers(view) {
  const list = view.workers.map((w) => ({ ...w, here: w.id === view.served_by }));
  const rest = view.leases_of_nobody_named;
  if (KINDS.some(([key]) => rest[key] > 0)) {
    list.push({ id: "", host: "nobody named", version: "", running_seconds: 0, silent_seconds: 0, alive: true, leases: rest, nobody: true });
  }
  $("no-workers").hidden = view.workers.length > 0;
  setText($("worker-count"), view.workers.length === 0 ? "" : `${view.workers.filter((w) => w.alive).length} alive`);
  keyed($("workers"), list, (w) => w.id, makeWorker, (e, w) => e.update(w));
}

function makeWorker() {
  const name = el("h3");
  const badge = el("span", { class: "badge" });
  const about = el("p", { class: "about" });
  const leases = el("ul", { class: "leases", "aria-label": "What it has" });
  const row = el("li", { class: "worker" }, el("div", { class: "who" }, name, badge), about, leases);
  row.update = (w) => {
    setText(name, w.host || w.id);
    set(row, "data-alive", w.alive ? "yes" : "no");
    setText(badge, w.nobody ? "leases" : w.alive ? (w.here ? "this page" : "alive") : `silent ${short(w.silent_seconds)}`);
    const facts = w.nobody
      ? ["leased to a job that took over from another, or to a worker that died: taken over when the lease ends"]
      : [w.version, w.host ? `up ${short(w.running_seconds)}` : "", w.host ? w.id : ""].filter(Boolean);
    setText(about, facts.join(" · "));
    const held = KINDS.filter(([key]) => w.leases[key] > 0).map(([key, one, many]) => count(w.leases[key], one, many));
    keyed(leases, held.length > 0 ? held : ["nothing at the moment"], (_) => held.indexOf(_), () => el("li"), (e, text) => {
      setText(e, text);
      set(e, "data-idle", held.length > 0 ? null : "yes");
    });
  };
  return row;
}
