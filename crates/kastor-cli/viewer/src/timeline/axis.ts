// Round times for the lines of the axis, and how they are written.

import { duration } from "../model/units";
import type { Range } from "../source/source";

export interface Tick {
  at: number;
  text: string;
}

export interface Ticks {
  step: number;
  ticks: Tick[];
  /** What stands before all texts, where they count from a time and not from the start. */
  anchor: string;
}

const UNITS: readonly [ns: number, name: string][] = [[1e9, "s"], [1e6, "ms"], [1e3, "µs"], [1, "ns"]];

/** Ticks at least `room` pixels apart. */
export function ticks(range: Range, width: number, room: number): Ticks {
  const least = ((range.to - range.from) * room) / Math.max(width, 1);
  const power = 10 ** Math.floor(Math.log10(Math.max(least, 1)));
  const step = [1, 2, 5, 10].map((factor) => factor * power).find((one) => one >= least) ?? power * 10;
  const first = Math.ceil(range.from / step);
  const last = Math.floor(range.to / step);
  // Far from the start and close up, only the difference from a round time before can be read.
  const reach = Math.max(Math.abs(range.from), Math.abs(range.to));
  const isFar = reach / step > 9_999;
  const base = isFar ? Math.floor(range.from / (step * 1000)) * step * 1000 : 0;
  const [unit, name] = UNITS.find(([ns]) => step * (isFar ? 1 : 1) >= ns || (!isFar && reach >= ns * 10 && step >= ns / 1000)) ?? [1, "ns"];
  const places = Math.max(0, Math.min(9, Math.ceil(-Math.log10(step / unit) - 1e-9)));
  const made: Tick[] = [];
  for (let index = first; index <= last && made.length < 500; index += 1) {
    const at = index * step;
    const value = (at - base) / unit;
    made.push({ at, text: `${isFar ? "+" : ""}${value.toFixed(places)}\u202f${name}` });
  }
  return { step, ticks: made, anchor: isFar ? position(base) : "" };
}

/** A time since the start, with the digits that a duration would not show. */
export function position(ns: number): string {
  if (Math.abs(ns) < 1e9) return duration(ns);
  const seconds = (ns / 1e9).toFixed(9).replace(/0+$/, "").replace(/\.$/, "");
  return `${seconds}\u202fs`;
}
