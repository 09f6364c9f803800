// The boxes of a lane in typed columns, a row for each level, each row in the order of time.

import type { LaneColumns } from "../source/contract";

export class Boxes {
  readonly levels: number;
  /** The boxes of level n are those from `begins[n]` up to `begins[n + 1]`. */
  readonly begins: Int32Array;
  readonly start: Float64Array;
  readonly end: Float64Array;
  readonly path: Int32Array;
  readonly count: Float64Array;
  readonly failed: Float64Array;
  readonly refs: string[];
  /** The most scopes a nanosecond in a box: what density is relative to. */
  readonly mostDense: number;

  constructor(columns: LaneColumns) {
    const length = columns.start.length;
    const order = inOrder(columns);
    this.start = new Float64Array(length);
    this.end = new Float64Array(length);
    this.path = new Int32Array(length);
    this.count = new Float64Array(length);
    this.failed = new Float64Array(length);
    this.refs = new Array<string>(length);
    let levels = 0;
    let mostDense = 0;
    for (let at = 0; at < length; at += 1) {
      const from = order === null ? at : order[at]!;
      this.start[at] = columns.start[from]!;
      this.end[at] = columns.start[from]! + columns.duration[from]!;
      this.path[at] = columns.path[from]!;
      this.count[at] = columns.count[from]!;
      this.failed[at] = columns.failed[from]!;
      this.refs[at] = columns.ref[from] ?? "";
      levels = Math.max(levels, columns.level[from]! + 1);
      mostDense = Math.max(mostDense, this.count[at]! / Math.max(columns.duration[from]!, 1));
    }
    this.levels = levels;
    this.mostDense = mostDense;
    this.begins = new Int32Array(levels + 1);
    for (let at = 0; at < length; at += 1) this.begins[columns.level[at]! + 1]! += 1;
    for (let level = 0; level < levels; level += 1) this.begins[level + 1]! += this.begins[level]!;
  }

  /** The first box of a level that ends after `time`. */
  firstAfter(level: number, time: number): number {
    let low = this.begins[level]!;
    let high = this.begins[level + 1]!;
    while (low < high) {
      const middle = (low + high) >> 1;
      if (this.end[middle]! > time) high = middle;
      else low = middle + 1;
    }
    return low;
  }

  /** The box of a level at `time`, or the nearest within `tolerance`; -1 if there is none. */
  at(level: number, time: number, tolerance: number): number {
    if (level < 0 || level >= this.levels) return -1;
    const end = this.begins[level + 1]!;
    const first = this.firstAfter(level, time - tolerance);
    let best = -1;
    let nearest = tolerance;
    for (let at = first; at < end && this.start[at]! <= time + tolerance; at += 1) {
      const distance = Math.max(this.start[at]! - time, time - this.end[at]!, 0);
      if (distance === 0) return at;
      if (distance <= nearest) {
        nearest = distance;
        best = at;
      }
    }
    return best;
  }

  levelOf(box: number): number {
    let level = 0;
    while (level + 1 < this.levels && this.begins[level + 1]! <= box) level += 1;
    return level;
  }

  find(ref: string): number {
    return ref === "" ? -1 : this.refs.indexOf(ref);
  }
}

/** The order by level, then start; null if the columns have it. */
function inOrder(columns: LaneColumns): Uint32Array | null {
  const { level, start } = columns;
  let isOrdered = true;
  for (let at = 1; at < start.length && isOrdered; at += 1) {
    isOrdered = level[at - 1]! < level[at]! || (level[at - 1] === level[at] && start[at - 1]! <= start[at]!);
  }
  if (isOrdered) return null;
  const order = Uint32Array.from({ length: start.length }, (_, at) => at);
  return order.sort((one, other) => level[one]! - level[other]! || start[one]! - start[other]!);
}
