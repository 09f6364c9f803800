// What stands where from top to bottom: headings, lanes with a row a level, tracks of metrics.

import type { Capture, Lane, Series } from "../source/contract";
import { neutral } from "../model/text";

export const ROW = 20;
const LANE_GAP = 7;
const HEADING = 26;
const TRACK = 54;
/** Rows of a lane that are shown before somebody asks for all. */
const FEW_LEVELS = 24;

export type Item =
  | { kind: "heading"; key: string; top: number; height: number; name: string; note: string; isFolded: boolean }
  | {
      kind: "lane"; key: string; top: number; height: number; name: string; lane: Lane;
      /** Rows that are shown. */
      rows: number; levels: number; isFolded: boolean;
    }
  | { kind: "track"; key: string; top: number; height: number; name: string; series: Series };

export class Layout {
  items: Item[] = [];
  height = 0;
  /** Index of a lane's item by the lane's id. */
  readonly places = new Map<number, number>();
  /** Levels that were seen in boxes, where more than the overview knew of. */
  private readonly seen = new Map<number, number>();
  private readonly more = new Map<number, Lane>();
  private readonly folded = new Set<string>();
  private readonly unfolded = new Set<string>();

  /** A lane that the overview does not have; true if it is new. */
  seeLane(lane: Lane): boolean {
    if (this.more.has(lane.id)) return false;
    this.more.set(lane.id, lane);
    return true;
  }

  /** Another capture: what was seen of the last one means nothing. */
  forget(): void {
    this.more.clear();
    this.seen.clear();
  }

  /** A box on this level was seen; true if the layout has to be made anew. */
  see(lane: number, levels: number): boolean {
    if ((this.seen.get(lane) ?? 0) >= levels) return false;
    this.seen.set(lane, levels);
    return true;
  }

  fold(key: string): void {
    const item = this.items.find((one) => one.key === key);
    if (item === undefined || item.kind === "track") return;
    const [from, into] = item.isFolded ? [this.folded, this.unfolded] : [this.unfolded, this.folded];
    from.delete(key);
    into.add(key);
  }

  /** Shows a lane with the row of this level. */
  reveal(lane: number, level: number): boolean {
    const item = this.items[this.places.get(lane) ?? -1];
    if (item?.kind !== "lane" || level < item.rows) return false;
    this.folded.delete(item.key);
    this.unfolded.add(item.key);
    return true;
  }

  make(capture: Capture, series: readonly Series[]): void {
    this.items = [];
    this.places.clear();
    let top = 0;
    const add = (item: Item): void => {
      this.items.push(item);
      top += item.height;
    };
    const byProcess = new Map<number, Lane[]>();
    for (const lane of inOrder([...capture.lanes, ...this.more.values()])) {
      const lanes = byProcess.get(lane.process);
      if (lanes === undefined) byProcess.set(lane.process, [lane]);
      else lanes.push(lane);
    }
    const processes = new Map(capture.processes.map((process) => [process.id, process]));
    for (const [id, lanes] of byProcess) {
      const process = processes.get(id);
      const key = `process ${id}`;
      const isFolded = this.folded.has(key);
      if (byProcess.size > 1) {
        const name = neutral(process?.label || `process ${process?.pid ?? id}`);
        const pid = process === undefined || name.includes(String(process.pid)) ? "" : `pid ${process.pid} · `;
        const note = `${pid}${lanes.length} ${lanes.length === 1 ? "lane" : "lanes"}`;
        add({ kind: "heading", key, top, height: HEADING, name, note, isFolded });
        if (isFolded) continue;
      }
      for (const lane of lanes) this.addLane(lane, top, add);
    }
    if (series.length > 0) {
      const key = "tracks";
      const isFolded = this.folded.has(key);
      const note = `${series.length} over time`;
      add({ kind: "heading", key, top, height: HEADING, name: "Metrics", note, isFolded });
      if (!isFolded) {
        for (const one of series) {
          const name = `${neutral(one.name)}${labelText(one)}`;
          add({ kind: "track", key: `track ${one.id}`, top, height: TRACK, name, series: one });
        }
      }
    }
    this.height = top;
  }

  /** The index of the item at a height, or -1. */
  at(y: number): number {
    if (y < 0 || y >= this.height) return -1;
    let low = 0;
    let high = this.items.length - 1;
    while (low < high) {
      const middle = (low + high + 1) >> 1;
      if (this.items[middle]!.top <= y) low = middle;
      else high = middle - 1;
    }
    return low;
  }

  private addLane(lane: Lane, top: number, add: (item: Item) => void): void {
    const key = `lane ${lane.id}`;
    const levels = Math.max(lane.levels, this.seen.get(lane.id) ?? 0, 1);
    const isDeep = levels > FEW_LEVELS;
    const isFolded = this.folded.has(key) || (isDeep && !this.unfolded.has(key));
    const rows = !isFolded ? levels : this.folded.has(key) && !isDeep ? 1 : Math.min(levels, FEW_LEVELS);
    this.places.set(lane.id, this.items.length);
    add({
      kind: "lane", key, top, height: rows * ROW + LANE_GAP, name: laneName(lane), lane, rows, levels,
      isFolded: rows < levels,
    });
  }
}

const byName = new Intl.Collator("en", { numeric: true });

/** The main thread first, the others by name, each followed by its tasks. */
function inOrder(lanes: readonly Lane[]): Lane[] {
  const names = new Map<string, string>();
  const threadOf = (lane: Lane): string => `${lane.process} ${lane.thread}`;
  for (const lane of lanes) {
    if (lane.kind === "thread") names.set(threadOf(lane), lane.name);
  }
  const rank = (lane: Lane): [number, string] => {
    const name = names.get(threadOf(lane)) ?? lane.name;
    return [name === "main" ? 0 : 1, name];
  };
  const ranked = lanes.map((lane, at) => ({ lane, at, rank: rank(lane) }));
  ranked.sort((one, other) =>
    one.lane.process - other.lane.process || one.rank[0] - other.rank[0] || byName.compare(one.rank[1], other.rank[1]) ||
    byName.compare(threadOf(one.lane), threadOf(other.lane)) || one.at - other.at);
  return ranked.map(({ lane }) => lane);
}

export function laneName(lane: Lane): string {
  const name = neutral(lane.name) || `thread ${lane.thread}`;
  return lane.kind === "task" && !/task/i.test(name) ? `${name} · tasks` : name;
}

export function labelText(series: Series): string {
  const labels = Object.entries(series.labels);
  if (labels.length === 0) return "";
  return ` {${labels.map(([key, value]) => `${neutral(key)}=${neutral(value)}`).join(", ")}}`;
}
