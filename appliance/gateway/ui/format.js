// Values for people.

export function size(bytes) {
  if (bytes == null) return "–";
  let value = bytes;
  for (const unit of ["B", "KiB", "MiB", "GiB"]) {
    if (value < 1024) return `${unit === "B" ? value : value.toFixed(1)} ${unit}`;
    value /= 1024;
  }
  return `${value.toFixed(1)} TiB`;
}

export function duration(seconds) {
  if (seconds < 1) return `${Math.round(seconds * 1000)} ms`;
  if (seconds < 10) return `${Number(seconds.toFixed(1))} s`;
  if (seconds < 60) return `${Math.round(seconds)} s`;
  if (seconds < 600) return joined(seconds, 60, "min", "s");
  if (seconds < 3600) return `${Math.round(seconds / 60)} min`;
  if (seconds < 86400) return joined(seconds / 60, 60, "h", "min");
  return joined(seconds / 3600, 24, "d", "h");
}

function joined(value, base, large, small) {
  const rest = Math.floor(value % base);
  return `${Math.floor(value / base)} ${large}${rest ? ` ${rest} ${small}` : ""}`;
}

export function ago(time) {
  const seconds = Math.max(0, (Date.now() - Date.parse(time)) / 1000);
  return seconds < 2 ? "just now" : `${duration(Math.floor(seconds))} ago`;
}

export function moment(time) {
  return new Date(time).toLocaleString(undefined, { dateStyle: "medium", timeStyle: "medium" });
}

export function number(value) {
  if (value >= 1000) return Math.round(value).toLocaleString();
  if (value >= 100 || Number.isInteger(value)) return String(Math.round(value));
  return value < 10 ? value.toFixed(value < 1 ? 2 : 1) : value.toFixed(1);
}

export const count = (value, noun) => `${value} ${noun}${value === 1 ? "" : "s"}`;
