// What an operator can do: asked first, done by POST, and told how it ended.
import { $, el, setText } from "./dom.js";
import { count, words } from "./format.js";

const ACTIONS = {
  pause: (p) => ({
    title: `Pause ${p.id}?`, yes: "Pause", path: `peers/${encodeURIComponent(p.id)}/pause`,
    text: "No worker pushes anything to it until it is resumed. What is written meanwhile waits for it, and it gives no acknowledgement for a quorum.",
  }),
  resume: (p) => ({
    title: `Resume ${p.id}?`, yes: "Resume", path: `peers/${encodeURIComponent(p.id)}/resume`,
    text: "It is pushed what waits for it, in order.",
  }),
  resync: (p) => ({
    title: `Resync ${p.id}?`, yes: "Resync", typed: p.id, path: `peers/${encodeURIComponent(p.id)}/resync`, body: { confirm: p.id }, danger: true,
    text: "All that the store knows is deleted there and written again by a snapshot. Until that is done the peer has only a part of the memories and gives no acknowledgement for a quorum.",
  }),
  retry: (p, cls) => ({
    title: `Retry what ${p.id} refuses?`, yes: "Retry", path: "refusals/retry", body: { peer: p.id, class: cls },
    text: `${count(p.refused.find((r) => r.class === cls)?.entries ?? 0, "entry", "entries")} refused with ${words(cls)} are tried again now, some at a time.`,
  }),
  fanOuts: () => ({
    title: "Resume the queue fan_out?", yes: "Resume", path: "fan-out/resume",
    text: "What waits is pushed and decided, by all workers.",
  }),
};

let changed = () => {};

// onChange is called when something was done, so that the page reads anew.
export function onChange(f) {
  changed = f;
}

export function act(name, peer, cls) {
  const action = ACTIONS[name](peer, cls);
  const dialog = $("dialog");
  setText($("dialog-title"), action.title);
  setText($("dialog-text"), action.text);
  setText($("dialog-yes"), action.yes);
  $("dialog-yes").classList.toggle("danger", Boolean(action.danger));
  $("dialog-problem").hidden = true;
  const input = $("dialog-input");
  $("dialog-typed").hidden = !action.typed;
  setText($("dialog-want"), action.typed ?? "");
  input.value = "";
  const check = () => {
    $("dialog-yes").disabled = Boolean(action.typed) && input.value !== action.typed;
  };
  input.oninput = check;
  check();
  $("dialog-no").onclick = () => dialog.close();
  $("dialog-form").onsubmit = (event) => {
    event.preventDefault();
    perform(action);
  };
  dialog.showModal();
  (action.typed ? input : $("dialog-yes")).focus();
}

async function perform(action) {
  const yes = $("dialog-yes");
  const problem = $("dialog-problem");
  yes.disabled = true;
  problem.hidden = true;
  try {
    const response = await fetch(`api/page/${action.path}`, {
      method: "POST",
      headers: { "Content-Type": "application/json" },
      body: JSON.stringify(action.body ?? {}),
      signal: AbortSignal.timeout(15000),
    });
    const answer = await response.json().catch(() => ({}));
    if (!response.ok) throw new Error(answer.error ?? `the worker answered ${response.status} ${response.statusText}`);
    $("dialog").close();
    toast(answer.message, answer.changed ? "done" : "same");
    changed();
  } catch (error) {
    const away = error instanceof TypeError || error.name === "TimeoutError";
    setText(problem, away ? "The worker that serves this page does not answer. It is not known whether it was done: look again when it does." : error.message);
    problem.hidden = false;
    yes.disabled = false;
  }
}

function toast(text, kind) {
  const e = el("p", { class: "toast", "data-kind": kind }, text);
  $("toasts").append(e);
  setTimeout(() => e.remove(), 8000);
}
