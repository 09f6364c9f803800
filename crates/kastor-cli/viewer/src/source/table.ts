// The scopes that a page carries in itself: columns of numbers, and a line of text for each scope that has more to tell.

import type { Attribute, Lane, ScopeEvent } from "./contract";

export interface PackedScopes {
  count: number;
  traceCount: number;
  rows: [lane: number, level: number, scopes: number][];
  table: string;
  details: string;
}

export interface Details {
  errorType: string | null;
  attributes: Attribute[];
  events: ScopeEvent[];
  links: { traceId: string; spanId: string }[];
  parentSpanId: string | null;
}

export interface Row {
  lane: number;
  level: number;
  begin: number;
  end: number;
}

const NOTHING: Details = { errorType: null, attributes: [], events: [], links: [], parentSpanId: null };
const HIGH = 2 ** 32;
export const FAILED = 1;
/** Its time is no part of its parent's. */
export const DETACHED = 2;

/** A scope is its place in the table: lane by lane, level by level, by time. */
export class ScopeTable {
  readonly start: Float64Array;
  readonly duration: Float64Array;
  /** Time that is no child's. */
  readonly self: Float64Array;
  readonly path: Uint32Array;
  /** The parent's place, or -1. */
  readonly parent: Int32Array;
  readonly depth: Uint32Array;
  readonly flags: Uint8Array;
  readonly lane: Int32Array;
  readonly level: Int32Array;
  readonly rows: Row[] = [];
  private readonly trace: Int32Array;
  private readonly spanLow: Uint32Array;
  private readonly spanHigh: Uint32Array;
  private readonly traces: Uint8Array;
  private readonly lines: string[];
  private readonly lineOf: Int32Array;

  private constructor(readonly count: number, packed: PackedScopes, bytes: ArrayBuffer, details: string) {
    const wanted = count * 41 + packed.traceCount * 16;
    if (bytes.byteLength !== wanted) throw new Error(`this page is damaged: its table has ${bytes.byteLength} bytes instead of ${wanted}`);
    let at = 0;
    const column = (): Uint32Array => {
      const made = new Uint32Array(bytes, at, count);
      at += count * 4;
      return made;
    };
    const [startLow, startHigh, durationLow, durationHigh] = [column(), column(), column(), column()];
    this.path = column();
    const parentSteps = column();
    this.depth = column();
    const traceSteps = column();
    this.spanLow = column();
    this.spanHigh = column();
    this.flags = new Uint8Array(bytes, at, count);
    this.traces = new Uint8Array(bytes, at + count, packed.traceCount * 16);
    this.start = new Float64Array(count);
    this.duration = new Float64Array(count);
    this.parent = new Int32Array(count);
    this.trace = new Int32Array(count);
    this.lane = new Int32Array(count);
    this.level = new Int32Array(count);
    this.takeRows(packed.rows);
    let [parent, trace] = [0, 0];
    for (const { begin, end } of this.rows) {
      let start = 0;
      for (let place = begin; place < end; place += 1) {
        start += startHigh[place]! * HIGH + startLow[place]!;
        this.start[place] = start;
        this.duration[place] = durationHigh[place]! * HIGH + durationLow[place]!;
        parent = (parent + parentSteps[place]!) | 0;
        trace = (trace + traceSteps[place]!) | 0;
        this.parent[place] = parent > 0 && parent <= count ? parent - 1 : -1;
        this.trace[place] = trace;
      }
    }
    this.self = this.selfTimes();
    this.lines = details === "" ? [] : details.split("\n").filter((line) => line !== "");
    this.lineOf = new Int32Array(count).fill(-1);
    this.lines.forEach((line, index) => {
      const place = Number(/^\[\s*(\d+)/.exec(line)?.[1] ?? -1);
      if (place >= 0 && place < count) this.lineOf[place] = index;
    });
  }

  static async unpack(packed: PackedScopes): Promise<ScopeTable> {
    const [bytes, details] = await Promise.all([inflate(packed.table), inflate(packed.details)]);
    return new ScopeTable(packed.count, packed, bytes, new TextDecoder().decode(details));
  }

  details(place: number): Details {
    const line = this.lines[this.lineOf[place] ?? -1];
    if (line === undefined) return NOTHING;
    const [, errorType, attributes, events, links, parentSpanId] = JSON.parse(line) as unknown[];
    return {
      errorType: (errorType as string | null | undefined) ?? null,
      attributes: (attributes as Attribute[] | undefined) ?? [],
      events: (events as ScopeEvent[] | undefined) ?? [],
      links: (links as Details["links"] | undefined) ?? [],
      parentSpanId: (parentSpanId as string | null | undefined) ?? null,
    };
  }

  isFailed(place: number): boolean {
    return (this.flags[place]! & FAILED) !== 0;
  }

  spanId(place: number): string {
    return hex(this.spanHigh[place]!) + hex(this.spanLow[place]!);
  }

  traceId(place: number): string {
    const at = this.trace[place]! * 16;
    return Array.from(this.traces.subarray(at, at + 16), (byte) => byte.toString(16).padStart(2, "0")).join("");
  }

  /** How the scopes are spread over lanes, for those that want their lane. */
  laneOf(place: number, lanes: ReadonlyMap<number, Lane>): Lane | undefined {
    return lanes.get(this.lane[place]!);
  }

  private takeRows(rows: PackedScopes["rows"]): void {
    let begin = 0;
    for (const [lane, level, scopes] of rows) {
      const end = begin + scopes;
      this.rows.push({ lane, level, begin, end });
      this.lane.fill(lane, begin, end);
      this.level.fill(level, begin, end);
      begin = end;
    }
    if (begin !== this.count) throw new Error(`this page is damaged: its rows hold ${begin} scopes instead of ${this.count}`);
  }

  private selfTimes(): Float64Array {
    const self = this.duration.slice();
    for (let place = 0; place < this.count; place += 1) {
      const parent = this.parent[place]!;
      if (parent >= 0 && (this.flags[place]! & DETACHED) === 0) self[parent]! -= this.duration[place]!;
    }
    for (let place = 0; place < this.count; place += 1) self[place] = Math.max(self[place]!, 0);
    return self;
  }
}

async function inflate(base64: string): Promise<ArrayBuffer> {
  if (base64 === "") return new ArrayBuffer(0);
  const text = atob(base64);
  const packed = new Uint8Array(text.length);
  for (let at = 0; at < text.length; at += 1) packed[at] = text.charCodeAt(at);
  const stream = new Blob([packed]).stream().pipeThrough(new DecompressionStream("gzip"));
  return new Response(stream).arrayBuffer();
}

function hex(number: number): string {
  return number.toString(16).padStart(8, "0");
}
