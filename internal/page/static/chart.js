// Small time series: one graphic with its numbers under the pointer, by arrow keys, and in words.
import { el, set, setText, svg } from "./dom.js";
import { hideTip, showTip, tipIsOf } from "./tip.js";
import { clock } from "./format.js";

const WIDTH = 240;
const HEIGHT = 56;

// chart returns an element with update(series, options). A series has values (null: not known) and a class. Lines share the scale; bars are stacked.
export function chart(kind, label) {
  const plot = svg("svg", { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, preserveAspectRatio: "none", "aria-hidden": "true" });
  const cursor = svg("line", { class: "cursor", y1: 0, y2: HEIGHT, visibility: "hidden" });
  const top = el("span", { class: "scale" });
  const spot = el("span", { class: "spot" });
  const figure = el("div", { class: `chart ${kind}`, tabindex: "0", role: "group", "aria-label": label }, plot, top, spot);
  let state = null;
  let at = null;

  function show() {
    if (at === null || !state) return;
    const n = state.length;
    at = Math.min(Math.max(0, at), n - 1);
    const x = ((at + 0.5) / n) * WIDTH;
    cursor.setAttribute("x1", x);
    cursor.setAttribute("x2", x);
    cursor.setAttribute("visibility", "visible");
    spot.style.left = `${(x / WIDTH) * 100}%`;
    const when = new Date(state.end.getTime() - (n - at) * state.step * 1000);
    showTip(spot, `${clock(when)}  ${state.say(at)}`, figure);
  }
  function leave() {
    at = null;
    cursor.setAttribute("visibility", "hidden");
    hideTip(figure);
  }
  figure.addEventListener("pointermove", (event) => {
    const box = figure.getBoundingClientRect();
    at = state ? Math.floor(((event.clientX - box.left) / box.width) * state.length) : null;
    show();
  });
  figure.addEventListener("pointerleave", leave);
  figure.addEventListener("blur", leave);
  figure.addEventListener("keydown", (event) => {
    const move = { ArrowLeft: -1, ArrowRight: 1, Home: -Infinity, End: Infinity }[event.key];
    if (move === undefined || !state) return;
    event.preventDefault();
    at = at === null ? state.length - 1 : at + move;
    show();
  });

  function update(series, options) {
    const n = series[0].values.length;
    state = { length: n, end: options.end, step: options.step, say: options.say };
    let highest = options.floor;
    for (let i = 0; i < n; i++) {
      const values = series.map((s) => s.values[i] ?? 0);
      highest = Math.max(highest, kind === "bars" ? values.reduce((a, b) => a + b, 0) : Math.max(...values));
    }
    // Latencies differ by powers of ten: of those the height is the logarithm.
    const share = kind === "band" ? (v) => Math.log(Math.max(1, v)) / Math.log(highest) : (v) => v / highest;
    const y = (v) => HEIGHT - share(v) * (HEIGHT - 4);
    const parts = [];
    if (kind === "bars") {
      for (let i = 0; i < n; i++) {
        let base = 0;
        for (const s of series) {
          const v = s.values[i] ?? 0;
          if (v <= 0) continue;
          const high = Math.max(1, y(base) - y(base + v));
          parts.push(svg("rect", { class: s.name, x: (i / n) * WIDTH, width: (WIDTH / n) * 0.8, y: y(base) - high, height: high }));
          base += v;
        }
      }
    } else {
      if (kind === "band") parts.push(...between(series[0], series[1], n, y));
      for (const s of series) parts.push(...line(s, n, y, kind === "area"));
    }
    const unknown = series[0].values.findIndex((v) => v !== null);
    const from = unknown < 0 ? n : unknown;
    if (from > 0 && options.unknown) parts.push(svg("rect", { class: "unknown", x: 0, y: 0, width: (from / n) * WIDTH, height: HEIGHT }));
    plot.replaceChildren(...parts, cursor);
    setText(top, options.scale(highest));
    set(figure, "aria-label", `${label}: ${options.words}. Left and right arrow keys read the points.`);
    if (tipIsOf(figure)) show();
  }
  return { element: figure, update };
}

// between fills what is between two lines, where both are known.
function between(upper, lower, n, y) {
  const parts = [];
  let run = [];
  const flush = () => {
    if (run.length > 1) {
      const there = run.map((i) => `${(((i + 0.5) / n) * WIDTH).toFixed(1)},${y(upper.values[i]).toFixed(1)}`);
      const back = run.toReversed().map((i) => `${(((i + 0.5) / n) * WIDTH).toFixed(1)},${y(lower.values[i]).toFixed(1)}`);
      parts.push(svg("path", { class: "fill", d: `M${there.join(" L")} L${back.join(" L")} Z` }));
    }
    run = [];
  };
  for (let i = 0; i < n; i++) {
    if (upper.values[i] === null || lower.values[i] === null) flush();
    else run.push(i);
  }
  flush();
  return parts;
}

// line draws the runs of known values; with the area under them if filled.
function line(s, n, y, filled) {
  const parts = [];
  let run = [];
  const flush = () => {
    if (run.length === 0) return;
    const points = run.map(([i, v]) => `${(((i + 0.5) / n) * WIDTH).toFixed(1)},${y(v).toFixed(1)}`);
    if (filled) {
      const x0 = ((run[0][0] + 0.5) / n) * WIDTH;
      const x1 = ((run[run.length - 1][0] + 0.5) / n) * WIDTH;
      parts.push(svg("path", { class: `fill ${s.name}`, d: `M${x0},${HEIGHT} L${points.join(" L")} L${x1},${HEIGHT} Z` }));
    }
    const d = points.length === 1 ? `M${points[0]} h1` : `M${points.join(" L")}`;
    parts.push(svg("path", { class: `line ${s.name}`, d, "vector-effect": "non-scaling-stroke" }));
    run = [];
  };
  for (let i = 0; i < n; i++) {
    if (s.values[i] === null) flush();
    else run.push([i, s.values[i]]);
  }
  flush();
  return parts;
}
