// SPDX-License-Identifier: MPL-2.0
// Times, sizes and shares as people read them.

const clock = new Intl.DateTimeFormat(undefined, { hour: "2-digit", minute: "2-digit", second: "2-digit", hourCycle: "h23" });
const day = new Intl.DateTimeFormat(undefined, { weekday: "short", day: "numeric", month: "short" });

const DAY = 86_400_000;

/** The time of day; with the day where it is not today. */
export function moment(time) {
  const at = new Date(time);
  if (Number.isNaN(at.getTime())) return "";
  const today = new Date().toDateString() === at.toDateString();
  return today ? clock.format(at) : `${day.format(at)}, ${clock.format(at)}`;
}

/** The time of day alone. */
export function timeOfDay(time) {
  const at = new Date(time);
  return Number.isNaN(at.getTime()) ? "" : clock.format(at);
}

/** How long ago, for people: `now`, `40 s ago`, `5 min ago`, `3 h ago`, else the day. */
export function ago(time, now = Date.now()) {
  const ms = now - new Date(time).getTime();
  if (Number.isNaN(ms)) return "";
  if (ms < 5_000) return "now";
  if (ms < DAY) return `${span(ms / 1000)} ago`;
  return day.format(new Date(time));
}

/** A stretch of time in seconds in its largest unit. */
export function span(seconds) {
  const s = Math.max(0, seconds);
  if (s < 60) return `${Math.round(s)} s`;
  if (s < 3_600) return `${Math.round(s / 60)} min`;
  if (s < 86_400) return `${Math.round(s / 3_600)} h`;
  return `${Math.round(s / 86_400)} d`;
}

/** What is left until `time`, as whole seconds; never less than none. */
export function left(time, now = Date.now()) {
  return Math.max(0, Math.ceil((new Date(time).getTime() - now) / 1000));
}

/** Bytes with a unit. */
export function bytes(count) {
  const units = ["B", "kB", "MB", "GB", "TB"];
  let value = Number(count) || 0;
  let unit = 0;
  while (value >= 1000 && unit < units.length - 1) {
    value /= 1000;
    unit += 1;
  }
  return `${value >= 100 || unit === 0 ? Math.round(value) : value.toFixed(1)} ${units[unit]}`;
}

/** A share of one as per cent, or nothing where it is not known. */
export function percent(share) {
  if (typeof share !== "number" || !Number.isFinite(share)) return "";
  return `${Math.round(Math.min(1, Math.max(0, share)) * 100)} %`;
}

/** `1 camera`, `3 cameras`. */
export function count(number, one, many = `${one}s`) {
  return `${number} ${number === 1 ? one : many}`;
}
