// Numbers and times as people read them. A missing value is a dash.

const NONE = "–";

const clock = new Intl.DateTimeFormat(undefined, {
  hour: "2-digit",
  minute: "2-digit",
  second: "2-digit",
  hourCycle: "h23",
});
const whole = new Intl.NumberFormat("en");

export const count = (n) => (n == null ? NONE : whole.format(n));

export const time = (seconds) => (seconds == null ? NONE : clock.format(seconds * 1000));

export const minute = (seconds) => time(seconds).slice(0, 5);

export function ms(value) {
  if (value == null) return NONE;
  if (value >= 120_000) return `${(value / 60_000).toFixed(1)} min`;
  if (value >= 1000) return `${(value / 1000).toFixed(value >= 10_000 ? 0 : 1)} s`;
  return `${value >= 10 ? value.toFixed(0) : value.toFixed(1)} ms`;
}

export const span = (seconds) => {
  if (seconds == null) return NONE;
  if (seconds < 100) return ms(seconds * 1000);
  if (seconds < 5400) return `${Math.round(seconds / 60)} min`;
  return seconds < 172_800 ? `${(seconds / 3600).toFixed(1)} h` : `${Math.round(seconds / 86_400)} d`;
};

export function rate(value) {
  if (value == null) return NONE;
  return value >= 100 ? value.toFixed(0) : value.toFixed(1);
}

export function loss(value) {
  if (value == null) return NONE;
  return Math.abs(value) >= 1000 || (value !== 0 && Math.abs(value) < 0.001)
    ? value.toExponential(2)
    : value.toPrecision(4);
}

export const bytes = (n) => {
  const units = ["B", "KiB", "MiB", "GiB"];
  let at = 0;
  for (; n >= 1024 && at < units.length - 1; at++) n /= 1024;
  return `${at && n < 100 ? n.toFixed(1) : n.toFixed(0)} ${units[at]}`;
};

export const words = (name) => name.replaceAll("_", " ");

// A model's name without the part that all of them share.
export const short = (id) => (id.length > 28 ? `${id.slice(0, 10)}…${id.slice(-14)}` : id);
