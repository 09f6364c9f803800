// Numbers as people read them. A thin space stands between number and unit.

const SPACE = "\u202f";
const GROUPED = new Intl.NumberFormat("en-US", { maximumFractionDigits: 0 });

const SECOND = 1e9;

/** `1.23 ms`: three digits that count. */
export function duration(ns: number): string {
  if (!Number.isFinite(ns)) return "–";
  const sign = ns < 0 ? "−" : "";
  const size = Math.abs(ns);
  if (size < 999.5) return `${sign}${digits(size)}${SPACE}ns`;
  if (size < 999.5e3) return `${sign}${digits(size / 1e3)}${SPACE}µs`;
  if (size < 999.5e6) return `${sign}${digits(size / 1e6)}${SPACE}ms`;
  if (size < 120 * SECOND) return `${sign}${digits(size / SECOND)}${SPACE}s`;
  const seconds = Math.round(size / SECOND);
  if (seconds < 7200) return `${sign}${Math.floor(seconds / 60)}${SPACE}min ${seconds % 60}${SPACE}s`;
  return `${sign}${Math.floor(seconds / 3600)}${SPACE}h ${Math.floor((seconds % 3600) / 60)}${SPACE}min`;
}

/** Nanoseconds, all of them: `1,234,567 ns`. */
export function exactDuration(ns: number): string {
  return `${GROUPED.format(ns)}${SPACE}ns`;
}

/** `1,234,567`. */
export function count(number: number): string {
  return GROUPED.format(number);
}

/** `1.23 M`: for where there is little room. */
export function briefCount(number: number): string {
  const size = Math.abs(number);
  if (size < 10_000) return GROUPED.format(number);
  if (size < 999.5e3) return `${digits(number / 1e3)}${SPACE}k`;
  if (size < 999.5e6) return `${digits(number / 1e6)}${SPACE}M`;
  return `${digits(number / 1e9)}${SPACE}G`;
}

/** `12.3 %`. */
export function percent(ratio: number): string {
  if (!Number.isFinite(ratio)) return "–";
  const hundredths = ratio * 100;
  const size = Math.abs(hundredths);
  if (size > 0 && size < 0.01) return `<0.01${SPACE}%`;
  return `${hundredths.toFixed(size < 1 ? 2 : size < 99.95 ? 1 : 0).replace("-", "−")}${SPACE}%`;
}

/** `+12.3 %`, `−4.0 %`. */
export function change(ratio: number): string {
  return ratio > 0 ? `+${percent(ratio)}` : percent(ratio);
}

/** A value of a metric with its unit. */
export function quantity(value: number | null, unit: string | null): string {
  if (value === null || !Number.isFinite(value)) return "–";
  switch (unit ?? "") {
    case "ns": return duration(value);
    case "us": case "µs": return duration(value * 1e3);
    case "ms": return duration(value * 1e6);
    case "s": return duration(value * 1e9);
    case "By": case "bytes": case "B": return bytes(value);
    case "": case "1": return plain(value);
    default: return `${plain(value)}${SPACE}${unit}`;
  }
}

/** `1.5 MiB`. */
export function bytes(size: number): string {
  const units = ["B", "KiB", "MiB", "GiB", "TiB"];
  let rest = size;
  let unit = 0;
  while (Math.abs(rest) >= 1024 && unit < units.length - 1) {
    rest /= 1024;
    unit += 1;
  }
  return `${unit === 0 ? GROUPED.format(rest) : digits(rest)}${SPACE}${units[unit]}`;
}

/** A number without a unit, whole where it is whole. */
export function plain(value: number): string {
  const size = Math.abs(value);
  if (Number.isInteger(value) && size < 1e15) return size < 1e7 ? GROUPED.format(value) : briefCount(value);
  if (size >= 1e6) return briefCount(value);
  if (size >= 1000) return GROUPED.format(value);
  if (size !== 0 && size < 1e-3) return value.toExponential(2);
  return digits(value);
}

/** The wall-clock time of nanoseconds since 1970, in the reader's time zone, with all its digits. */
export function moment(unixNs: bigint): string {
  const ms = Number(unixNs / 1_000_000n);
  const date = new Date(ms);
  if (Number.isNaN(date.getTime())) return "–";
  const two = (part: number): string => String(part).padStart(2, "0");
  const rest = String(unixNs % 1_000_000_000n).padStart(9, "0");
  return (
    `${date.getFullYear()}-${two(date.getMonth() + 1)}-${two(date.getDate())} ` +
    `${two(date.getHours())}:${two(date.getMinutes())}:${two(date.getSeconds())}.${rest}`
  );
}

/** Nanoseconds since 1970 as text in JSON. Anything but digits is 0. */
export function unixNs(text: string): bigint {
  return /^\d{1,20}$/.test(text) ? BigInt(text) : 0n;
}

function digits(size: number): string {
  const whole = Math.abs(size);
  if (whole >= 99.95 || size === 0) return size.toFixed(0);
  if (Number.isInteger(size) && whole < 10) return String(size);
  return size.toFixed(whole >= 9.995 ? 1 : 2);
}
