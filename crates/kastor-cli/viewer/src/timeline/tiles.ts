// The parts of the timeline that have arrived: the whole in little detail, and the neighbourhood of what is seen.
//
// One question is under way at a time. What is asked for is wider than what is seen, so that a movement shows boxes
// before the next answer is there.

import type { Arrow, Lane, TimelineColumns } from "../source/contract";
import type { Range } from "../source/source";
import type { Viewer } from "../model/viewer";
import { Boxes } from "./boxes";

export interface Tile extends Range {
  lanes: Map<number, Boxes>;
  arrows: Arrow[];
  isDensity: boolean;
  truncated: boolean;
  moreLanes: readonly Lane[];
  /** Pixels a nanosecond it was made for. */
  fineness: number;
  /** Every box is one scope: closer cannot show more. */
  isExact: boolean;
}

/** How many spans are asked for: the one seen and one to each side. */
const WIDTH = 3;

export class Tiles {
  whole: Tile | null = null;
  detail: Tile | null = null;
  private key = "";
  private isAsking = false;
  private failure: { key: string; from: number; to: number } | null = null;
  private aborter = new AbortController();

  constructor(private readonly viewer: Viewer, private readonly onArrival: () => void) {}

  /** Whether the newest question for the whole was refused: nothing will come. */
  get isRefused(): boolean {
    return this.failure?.key === this.key && !this.isAsking;
  }

  /** The tile that shows the range best. */
  best(range: Range): Tile | null {
    const { detail, whole } = this;
    if (detail !== null && detail.from < range.to && detail.to > range.from) return detail;
    return whole;
  }

  /** Asks for what is missing to see `range` on `pixels`. */
  want(range: Range, pixels: number): void {
    const { capture, store } = this.viewer;
    const key = `${this.viewer.version} ${capture.index} ${store.now.filter}`;
    if (key !== this.key) {
      // What is old is seen until what is new has arrived, unless it is of another capture.
      this.aborter.abort();
      this.aborter = new AbortController();
      this.isAsking = false;
      if (key.split(" ")[1] !== this.key.split(" ")[1]) this.whole = null;
      this.detail = null;
      this.key = key;
      void this.ask(key, { from: 0, to: Math.max(capture.durationNs, 1) }, pixels, true);
      return;
    }
    if (this.isAsking || this.whole === null) return;
    const seen = { from: Math.max(range.from, 0), to: Math.min(range.to, capture.durationNs) };
    if (seen.to <= seen.from || this.suffices(this.whole, seen, range, pixels) || this.suffices(this.detail, seen, range, pixels)) return;
    const span = range.to - range.from;
    const side = (span * (WIDTH - 1)) / 2;
    const asked = { from: Math.max(0, range.from - side), to: Math.min(capture.durationNs, range.to + side) };
    if (this.failure?.key === key && this.failure.from === asked.from && this.failure.to === asked.to) return;
    void this.ask(key, asked, (pixels * (asked.to - asked.from)) / span, false);
  }

  private suffices(tile: Tile | null, seen: Range, range: Range, pixels: number): boolean {
    if (tile === null || tile.from > seen.from || tile.to < seen.to) return false;
    return tile.isExact || tile.fineness >= (pixels / (range.to - range.from)) * 0.7;
  }

  private async ask(key: string, range: Range, pixels: number, isWhole: boolean): Promise<void> {
    this.isAsking = true;
    const signal = this.aborter.signal;
    const { store, capture } = this.viewer;
    const { filter } = store.now;
    try {
      const query = { capture: capture.index, filter, from: range.from, to: range.to, pixels: Math.ceil(pixels) };
      const columns = await this.viewer.wait(this.viewer.source.timeline(query, signal));
      if (key !== this.key) return;
      const tile = made(columns, range, pixels);
      if (isWhole) this.whole = tile;
      else this.detail = tile;
      this.failure = null;
      this.viewer.frame.refuseFilter(null);
    } catch (error) {
      if (key !== this.key || signal.aborted) return;
      this.failure = { key, ...range };
      if (filter !== "" && isWhole) this.viewer.frame.refuseFilter(message(error));
      else this.viewer.frame.fail(error);
    } finally {
      if (key === this.key) {
        this.isAsking = false;
        this.onArrival();
      }
    }
  }
}

function made(columns: TimelineColumns, range: Range, pixels: number): Tile {
  const lanes = new Map<number, Boxes>();
  let isExact = !columns.isDensity && !columns.truncated;
  for (const lane of columns.lanes) {
    const boxes = new Boxes(lane);
    lanes.set(lane.id, boxes);
    isExact = isExact && boxes.count.every((count) => count <= 1);
  }
  const { isDensity, truncated } = columns;
  const arrows = columns.arrows ?? [];
  return { ...range, lanes, arrows, isDensity, truncated, moreLanes: columns.moreLanes ?? [], fineness: pixels / (range.to - range.from), isExact };
}

function message(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}
