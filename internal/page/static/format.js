// How numbers, ages and words are written.

const grouped = new Intl.NumberFormat("en-US");

export const number = (n) => grouped.format(n);

export const count = (n, one, many = one + "s") => `${number(n)} ${n === 1 ? one : many}`;

// short writes a length of time as one says it: 340 ms, 4 s, 2 m 10 s, 3 h 05 m, 2 d 4 h.
export function short(seconds) {
  const s = Math.floor(seconds);
  if (seconds < 1) return `${Math.round(seconds * 1000)} ms`;
  if (s < 60) return `${s} s`;
  if (s < 3600) return s % 60 === 0 ? `${s / 60} m` : `${Math.floor(s / 60)} m ${String(s % 60).padStart(2, "0")} s`;
  if (s < 86400) return `${Math.floor(s / 3600)} h ${String(Math.floor((s % 3600) / 60)).padStart(2, "0")} m`;
  return `${Math.floor(s / 86400)} d ${Math.floor((s % 86400) / 3600)} h`;
}

// milliseconds writes a latency.
export function milliseconds(ms) {
  if (ms === null || ms === undefined) return "–";
  if (ms < 10) return `${ms.toFixed(1)} ms`;
  if (ms < 1000) return `${Math.round(ms)} ms`;
  return ms < 10000 ? `${(ms / 1000).toFixed(1)} s` : short(ms / 1000);
}

// compact writes a large number in few characters.
export function compact(n) {
  if (n < 10000) return number(Math.round(n));
  if (n < 1e6) return `${Math.round(n / 1000)}k`;
  return `${(n / 1e6).toFixed(1)}M`;
}

export const words = (code) => code.replaceAll("_", " ");

export const clock = (date) => date.toLocaleTimeString([], { hour: "2-digit", minute: "2-digit", second: "2-digit", hourCycle: "h23" });
