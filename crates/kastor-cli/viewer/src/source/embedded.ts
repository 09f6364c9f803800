// The source within the page itself: what `kastor view --html` wrote into it. Nothing here asks anybody.

import { Paths } from "../model/paths";
import type {
  Arrow, Diff, DiffRow, Lane, LaneColumns, List, Metrics, Overview, PathColumns, Points, ScopeDetail, Series, Side, TimelineColumns, TreeColumns,
} from "./contract";
import { parseFilter, type Subject } from "./filter";
import { SourceError, type ListQuery, type PointsQuery, type Range, type Source, type TimelineQuery } from "./source";
import { ScopeTable, type PackedScopes } from "./table";

interface EmbeddedCapture {
  paths: PathColumns;
  tree: TreeColumns;
  series: Series[];
  points: Record<string, Points>;
  scopes: PackedScopes;
  arrows: [fromPlace: number, toPlace: number][];
}

interface Embedded {
  format: number;
  overview: Overview;
  diff: Diff | null;
  captures: EmbeddedCapture[];
}

const FORMAT = 1;
const MOST_ARROWS = 500;
const MOST_FILTERS = 8;

/** The source in this page, if it has one. */
export function embeddedSource(): Source | null {
  const data = document.getElementById("kastor-data");
  if (data === null) return null;
  return new EmbeddedSource(JSON.parse(data.textContent ?? "") as Embedded);
}

class EmbeddedSource implements Source {
  readonly hasPerfetto = false;
  private readonly opened = new Map<number, Promise<Opened>>();

  constructor(private readonly data: Embedded) {
    if (data.format !== FORMAT) throw new SourceError(`This page holds a capture in format ${data.format}, which it does not know.`);
  }

  async overview(): Promise<Overview> {
    return this.data.overview;
  }

  async paths(capture: number): Promise<PathColumns> {
    return this.capture(capture).paths;
  }

  async timeline(query: TimelineQuery): Promise<TimelineColumns> {
    const opened = await this.open(query.capture);
    const wanted = opened.wanted(query.filter);
    const lanes = timelineLanes(opened.table, query, wanted);
    return { from: query.from, to: query.to, lanes, arrows: this.arrows(opened.table, query, wanted), isDensity: false, truncated: false };
  }

  async tree(capture: number, filter: string): Promise<TreeColumns> {
    if (filter.trim() === "") return this.capture(capture).tree;
    const opened = await this.open(capture);
    return sums(opened.table, opened.wanted(filter), opened.paths.length);
  }

  async diff(filter: string): Promise<Diff> {
    const { diff } = this.data;
    if (diff === null) throw new SourceError("This page holds one capture: there is nothing to compare it with.");
    if (filter.trim() === "") return diff;
    const [now, base] = await Promise.all([this.sides(0, filter), this.sides(1, filter)]);
    return { rows: diff.rows.map((row) => filtered(row, base, now)) };
  }

  async metrics(capture: number): Promise<Metrics> {
    return { series: this.capture(capture).series };
  }

  async points({ capture, series, from, to }: PointsQuery): Promise<Points> {
    const points = this.capture(capture).points[String(series)] ?? { t: [], value: [], min: [], max: [] };
    // The last before the range counts: its value holds on into it.
    const after = points.t.findIndex((time) => time > from);
    const first = after < 0 ? points.t.length - 1 : Math.max(after - 1, 0);
    const beyond = points.t.findIndex((time) => time > to);
    const last = beyond < 0 ? points.t.length : beyond;
    const cut = <One>(column: One[]): One[] => column.slice(Math.max(first, 0), last);
    return { t: cut(points.t), value: cut(points.value), min: cut(points.min), max: cut(points.max) };
  }

  async scope(capture: number, ref: string): Promise<ScopeDetail> {
    const { table, paths, lanes, startUnixNs } = await this.open(capture);
    const place = /^\d{1,9}$/.test(ref) ? Number(ref) : -1;
    if (place < 0 || place >= table.count) throw new SourceError(`There is no scope '${ref}' in this page.`);
    const { errorType, attributes, events, links, parentSpanId } = table.details(place);
    const parent = table.parent[place]!;
    const lane = table.laneOf(place, lanes);
    return {
      path: table.path[place]!,
      name: paths.rawName(table.path[place]!),
      startNs: table.start[place]!,
      durationNs: table.duration[place]!,
      startUnixNs: String(startUnixNs + BigInt(Math.round(table.start[place]!))),
      process: lane?.process ?? 0,
      thread: lane?.thread ?? 0,
      lane: table.lane[place]!,
      level: table.level[place]!,
      traceId: table.traceId(place),
      spanId: table.spanId(place),
      parentSpanId: parent >= 0 ? table.spanId(parent) : parentSpanId,
      depth: table.depth[place]!,
      errorType: table.isFailed(place) ? (errorType ?? "") : null,
      attributes, events, links,
      parentRef: parent >= 0 ? String(parent) : null,
    };
  }

  async list({ capture, filter, sort, limit, from, to }: ListQuery): Promise<List> {
    const opened = await this.open(capture);
    const { table } = opened;
    const wanted = opened.wanted(filter);
    const places: number[] = [];
    for (let place = 0; place < table.count; place += 1) {
      const start = table.start[place]!;
      if (start <= to && start + table.duration[place]! >= from && (wanted === null || wanted[place] === 1)) places.push(place);
    }
    const sign = sort === "duration" || sort === "-start" ? -1 : 1;
    const column = sort.endsWith("duration") ? table.duration : table.start;
    places.sort((one, other) => sign * (column[one]! - column[other]!) || one - other);
    const rows = places.slice(0, limit).map((place) => ({
      ref: String(place),
      path: table.path[place]!,
      startNs: table.start[place]!,
      durationNs: table.duration[place]!,
      lane: table.lane[place]!,
      level: table.level[place]!,
      errorType: table.isFailed(place) ? (table.details(place).errorType ?? "failed") : null,
    }));
    return { rows, total: places.length };
  }

  perfetto(): Promise<ArrayBuffer> {
    return Promise.reject(new SourceError("A page in a file cannot make a trace. Use `kastor convert --to perfetto`."));
  }

  changes(): Promise<number> {
    return new Promise(() => {}); // it never changes
  }

  private capture(index: number): EmbeddedCapture {
    const at = this.data.overview.captures.findIndex((capture) => capture.index === index);
    const capture = this.data.captures[at];
    if (capture === undefined) throw new SourceError(`This page has no capture ${index}.`);
    return capture;
  }

  private open(index: number): Promise<Opened> {
    let opened = this.opened.get(index);
    if (opened === undefined) {
      const overview = this.data.overview.captures.find((capture) => capture.index === index);
      opened = ScopeTable.unpack(this.capture(index).scopes).then((table) =>
        new Opened(table, new Paths(this.capture(index).paths), overview?.lanes ?? [], overview?.processes ?? [], BigInt(overview?.startUnixNs ?? 0)));
      this.opened.set(index, opened);
    }
    return opened;
  }

  private arrows(table: ScopeTable, query: TimelineQuery, wanted: Uint8Array | null): Arrow[] {
    const seen = this.capture(query.capture).arrows.filter(([from, to]) => {
      const at = table.start[to]!;
      return at >= query.from && at <= query.to && (wanted === null || (wanted[from] === 1 && wanted[to] === 1));
    });
    // They are in the order of lanes: where there are too many, those that are left out are so evenly.
    const step = Math.max(1, Math.ceil(seen.length / MOST_ARROWS));
    return seen.filter((_, at) => at % step === 0).map(([from, to]) => {
      const at = table.start[to]!;
      const fromNs = Math.min(Math.max(at, table.start[from]!), table.start[from]! + table.duration[from]!);
      return {
        fromLane: table.lane[from]!, fromLevel: table.level[from]!, fromNs,
        toLane: table.lane[to]!, toLevel: table.level[to]!, toNs: at,
      };
    });
  }

  /** The sums of one capture by the text of the path. */
  private async sides(index: number, filter: string): Promise<Map<string, Side>> {
    const [tree, { paths }] = await Promise.all([this.tree(index, filter), this.open(index)]);
    const sides = new Map<string, Side>();
    tree.path.forEach((path, row) => {
      const side = { calls: tree.calls[row]!, errors: tree.errors[row]!, totalNs: tree.totalNs[row]!, selfNs: tree.selfNs[row]! };
      sides.set(paths.rawText(path), side);
    });
    return sides;
  }
}

/** A capture with its table unpacked. */
class Opened {
  readonly lanes: ReadonlyMap<number, Lane>;
  private readonly threads: ReadonlyMap<number, string>;
  private readonly pids: ReadonlyMap<number, number>;
  private readonly filters = new Map<string, Uint8Array | null>();

  constructor(
    readonly table: ScopeTable, readonly paths: Paths, lanes: readonly Lane[], processes: readonly { id: number; pid: number }[],
    readonly startUnixNs: bigint,
  ) {
    this.lanes = new Map(lanes.map((lane) => [lane.id, lane]));
    // Lanes of tasks have names of their own; a filter asks for the thread's.
    const names = new Map(lanes.filter((lane) => lane.kind === "thread").map((lane) => [`${lane.process} ${lane.thread}`, lane.name]));
    this.threads = new Map(lanes.map((lane) => [lane.id, names.get(`${lane.process} ${lane.thread}`) ?? lane.name]));
    this.pids = new Map(processes.map((process) => [process.id, process.pid]));
  }

  /** For each scope whether the filter wants it; null if it wants all. */
  wanted(text: string): Uint8Array | null {
    const known = this.filters.get(text);
    if (known !== undefined) return known;
    const filter = parseFilter(text);
    let wanted: Uint8Array | null = null;
    if (filter !== null) {
      wanted = new Uint8Array(this.table.count);
      for (let place = 0; place < wanted.length; place += 1) wanted[place] = filter(this.subject(place)) ? 1 : 0;
    }
    if (this.filters.size >= MOST_FILTERS) this.filters.clear();
    this.filters.set(text, wanted);
    return wanted;
  }

  private subject(place: number): Subject {
    const { table, paths } = this;
    const lane = table.laneOf(place, this.lanes);
    return {
      path: () => paths.rawText(table.path[place]!).toLowerCase(),
      rawPath: () => paths.rawText(table.path[place]!),
      durationNs: table.duration[place]!,
      isFailed: table.isFailed(place),
      errorType: () => table.details(place).errorType ?? "",
      attribute: (key) => table.details(place).attributes.filter(([name]) => name === key).map(([, , value]) => String(value)),
      pid: this.pids.get(lane?.process ?? -1) ?? -1,
      thread: this.threads.get(table.lane[place]!) ?? "",
    };
  }
}

/** The boxes of a range: scopes as they are, and runs of those that are narrower than a pixel. */
function timelineLanes(table: ScopeTable, { from, to, pixels }: TimelineQuery, wanted: Uint8Array | null): LaneColumns[] {
  const lanes = new Map<number, LaneColumns>();
  const pixelNs = (to - from) / Math.max(pixels, 1);
  for (const { lane, level, begin, end } of table.rows) {
    let columns = lanes.get(lane);
    if (columns === undefined) {
      columns = { id: lane, start: [], duration: [], level: [], path: [], count: [], failed: [], ref: [] };
      lanes.set(lane, columns);
    }
    row(table, columns, level, begin, end, { from, to }, pixelNs, wanted);
  }
  return [...lanes.values()];
}

function row(
  table: ScopeTable, columns: LaneColumns, level: number, begin: number, end: number, range: Range, pixelNs: number, wanted: Uint8Array | null,
): void {
  const { start, duration } = table;
  let place = begin;
  const first = (): void => {
    let high = end;
    while (place < high) {
      const middle = (place + high) >> 1;
      if (start[middle]! + duration[middle]! > range.from) high = middle;
      else place = middle + 1;
    }
  };
  first();
  const times = new Map<number, number>();
  while (place < end && start[place]! < range.to) {
    if (wanted !== null && wanted[place] === 0) {
      place += 1;
      continue;
    }
    const pixel = Math.floor((start[place]! - range.from) / pixelNs);
    let [last, count, failed, best] = [place, 1, table.isFailed(place) ? 1 : 0, place];
    if (duration[place]! < pixelNs) {
      times.clear();
      let bestTime = 0;
      for (let next = place; next < end && duration[next]! < pixelNs && Math.floor((start[next]! - range.from) / pixelNs) === pixel; next += 1) {
        if (wanted !== null && wanted[next] === 0) continue;
        if (next > place) {
          count += 1;
          failed += table.isFailed(next) ? 1 : 0;
          last = next;
        }
        const time = (times.get(table.path[next]!) ?? 0) + duration[next]!;
        times.set(table.path[next]!, time);
        if (time > bestTime) [bestTime, best] = [time, next];
      }
    }
    columns.start.push(start[place]!);
    columns.duration.push(start[last]! + duration[last]! - start[place]!);
    columns.level.push(level);
    columns.path.push(table.path[best]!);
    columns.count.push(count);
    columns.failed.push(failed);
    columns.ref.push(count > 1 ? "" : String(place));
    place = last + 1;
  }
}

/** Sums by path of the scopes that a filter wants. */
function sums(table: ScopeTable, wanted: Uint8Array | null, paths: number): TreeColumns {
  const durations = new Map<number, number[]>();
  const [errors, self] = [new Float64Array(paths), new Float64Array(paths)];
  for (let place = 0; place < table.count; place += 1) {
    if (wanted !== null && wanted[place] === 0) continue;
    const path = table.path[place]!;
    const known = durations.get(path);
    if (known === undefined) durations.set(path, [table.duration[place]!]);
    else known.push(table.duration[place]!);
    errors[path]! += table.isFailed(place) ? 1 : 0;
    self[path]! += table.self[place]!;
  }
  const columns: TreeColumns = {
    path: [], calls: [], errors: [], totalNs: [], selfNs: [], minNs: [], maxNs: [], p50Ns: [], p95Ns: [], p99Ns: [], exact: false,
  };
  for (const [path, times] of [...durations].sort(([one], [other]) => one - other)) {
    times.sort((one, other) => one - other);
    const at = (share: number): number => times[Math.min(times.length - 1, Math.ceil(times.length * share) - 1)]!;
    columns.path.push(path);
    columns.calls.push(times.length);
    columns.errors.push(errors[path]!);
    columns.totalNs.push(times.reduce((sum, time) => sum + time, 0));
    columns.selfNs.push(self[path]!);
    columns.minNs.push(times[0]!);
    columns.maxNs.push(times[times.length - 1]!);
    columns.p50Ns.push(at(0.5));
    columns.p95Ns.push(at(0.95));
    columns.p99Ns.push(at(0.99));
  }
  return columns;
}

/** A row of the comparison for what a filter wants. A judgement stays only where it was made on the same calls. */
function filtered(row: DiffRow, base: ReadonlyMap<string, Side>, now: ReadonlyMap<string, Side>): DiffRow {
  const [before, after] = [base.get(row.path) ?? null, now.get(row.path) ?? null];
  const isWhole = before?.calls === row.base?.calls && after?.calls === row.new?.calls;
  const mean = (side: Side | null): number => (side === null || side.calls === 0 ? Number.NaN : side.totalNs / side.calls);
  const ratio = mean(after) / mean(before) - 1;
  return isWhole && (before !== null || after !== null)
    ? { ...row, base: before, new: after }
    : { ...row, base: before, new: after, judgement: null, changeRatio: Number.isFinite(ratio) ? ratio : null, lowRatio: null, highRatio: null };
}
