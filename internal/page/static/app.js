// Reads how the fleet stands every two seconds while somebody looks, and shows it.
import { $, el, keyed, set, setText } from "./dom.js";
import { act, onChange } from "./actions.js";
import { setMeasure, showLaneTable, showLegend } from "./heat.js";
import { showPeers } from "./peers.js";
import { showTiles } from "./tiles.js";
import { showWorkers } from "./workers.js";
import { clock, short } from "./format.js";

const EVERY = 2000;
const TIMEOUT = 6000;
// What is older than this is said to be old.
const OLD = 6;

const WORDS = { ok: "All is well", warns: "Somebody should look", fails: "Replication is in trouble" };

let latest = null; // { view, at }
let problem = ""; // why the last reading failed
let timer = 0;
let asking = null; // the request on its way

async function read() {
  clearTimeout(timer);
  asking?.abort();
  const mine = new AbortController();
  asking = mine;
  const giveUp = setTimeout(() => mine.abort(), TIMEOUT);
  try {
    const response = await fetch("api/page", { signal: mine.signal, cache: "no-store" });
    const answer = await response.json().catch(() => ({}));
    if (response.status === 401 || response.status === 403) throw new Error("you are not logged in any more: load the page again");
    if (!response.ok) throw new Error(answer.error ?? `the worker answered ${response.status}`);
    latest = { view: answer, at: Date.now() };
    problem = "";
    show();
  } catch (error) {
    if (asking !== mine) return; // a newer one is on its way
    problem = error instanceof TypeError || error.name === "AbortError" ? "the worker that serves this page does not answer" : error.message;
  } finally {
    clearTimeout(giveUp);
    if (asking === mine) {
      asking = null;
      showLive();
      if (!document.hidden) timer = setTimeout(read, EVERY);
    }
  }
}

function show() {
  const { view } = latest;
  set($("main"), "data-loaded", "yes");
  set($("verdict"), "data-health", view.health);
  setText($("word"), WORDS[view.health] ?? view.health);
  setText($("summary"), view.summary);
  document.title = view.health === "ok" ? "quorumbox" : `${view.health === "fails" ? "✖" : "▲"} quorumbox`;
  keyed($("warnings"), view.warnings, (w) => w.code + w.text.replace(/\d+/g, ""), makeWarning, (e, w) => {
    set(e, "data-health", w.health);
    setText(e.firstElementChild, w.text);
  });
  showTiles(view);
  showPeers(view, $("order").value);
  showLaneTable(view);
  showWorkers(view);
  setText($("foot"), `Served by ${view.served_by}. Read from the database once a second at most, however many look.`);
}

function makeWarning(w) {
  const button = w.code === "fan_out_paused" ? el("button", { type: "button", onclick: () => act("fanOuts") }, "Resume…") : null;
  return el("li", {}, el("span"), button);
}

// showLive says whether what is shown is of now.
function showLive() {
  const age = latest ? (Date.now() - latest.at) / 1000 : Infinity;
  const old = problem !== "" || age > OLD;
  const live = $("live");
  set(live, "data-state", document.hidden ? "resting" : old ? "stale" : "live");
  setText($("live-text"), latest ? `${old ? "as of" : "live"} ${clock(new Date(latest.at))}` : "no data");
  const stale = $("stale");
  if (old && (problem !== "" || latest)) {
    const what = problem || "the worker that serves this page does not answer";
    setText($("stale-why"), latest ? `What you see is old: ${what}. Trying again.` : `Nothing can be shown: ${what}. Trying again.`);
    setText($("stale-age"), latest ? `${short(age)} old` : "");
  }
  stale.hidden = !(old && (problem !== "" || latest));
  document.body.toggleAttribute("data-stale", old && latest !== null);
}

document.addEventListener("visibilitychange", () => {
  if (!document.hidden) {
    read();
    return;
  }
  clearTimeout(timer);
  asking?.abort();
  asking = null;
});
for (const radio of document.querySelectorAll("input[name=measure]")) {
  radio.addEventListener("change", () => {
    setMeasure(radio.value);
    if (latest) show();
  });
}
$("order").addEventListener("change", () => latest && show());
$("as-table").addEventListener("toggle", () => latest && showLaneTable(latest.view));
onChange(read);
showLegend();
setInterval(() => {
  if (!document.hidden) showLive();
}, 1000);
read();
