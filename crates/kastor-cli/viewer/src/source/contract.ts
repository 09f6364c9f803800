// What the program and the page tell each other: plain data, as it stands in JSON.
//
// Times are nanoseconds since the capture's start. What does not fit a double exactly (wall-clock time, ids) is text.

export interface Overview {
  format: number;
  live: boolean;
  /** Grows with a capture that is being written. */
  version?: number;
  captures: Capture[];
}

export interface Capture {
  /** 0 is the capture that is looked at; 1, if it is there, is what it is compared with. */
  index: number;
  label: string;
  startUnixNs: string;
  durationNs: number;
  scopes: number;
  failed: number;
  metrics: number;
  /** Null where only the index was read. */
  missingEvents: number | null;
  damagedPlaces: number;
  tornBytes: number;
  isIndexOnly: boolean;
  /** What is missing, in words. */
  missing?: string | null;
  processes: Process[];
  lanes: Lane[];
}

export interface Process {
  id: number;
  pid: number;
  instanceId: string;
  label: string;
}

/** A thread, or a row of scopes beside it that do not nest with the thread's own. */
export interface Lane {
  id: number;
  process: number;
  thread: number | string;
  kind: "thread" | "task";
  name: string;
  levels: number;
  scopes: number;
  failed: number;
}

/** The paths of a capture: a path is its index here. */
export interface PathColumns {
  names: string[];
  parents: number[];
  texts?: string[];
}

/** Boxes of one lane, ordered by level, then by start. */
export interface LaneColumns {
  id: number;
  start: number[];
  duration: number[];
  level: number[];
  path: number[];
  /** Scopes in the box: more than one where each is narrower than a pixel. */
  count: number[];
  failed: number[];
  ref: string[];
}

export interface Arrow {
  fromLane: number;
  fromLevel: number;
  fromNs: number;
  toLane: number;
  toLevel: number;
  toNs: number;
}

export interface TimelineColumns {
  from: number;
  to: number;
  lanes: LaneColumns[];
  arrows: Arrow[];
  /** The range was so large that only the index of blocks was read. */
  isDensity: boolean;
  truncated: boolean;
  /** Lanes that came about in what was read of a capture of which only the index is known. */
  moreLanes?: Lane[];
}

/** Sums by path, in columns. */
export interface TreeColumns {
  path: number[];
  calls: number[];
  errors: number[];
  totalNs: number[];
  selfNs: number[];
  minNs: number[];
  maxNs: number[];
  p50Ns: number[];
  p95Ns: number[];
  p99Ns: number[];
  exact: boolean;
}

export type Judgement = "same" | "slower" | "faster" | "new" | "gone" | "few" | "unclear";

export interface Side {
  calls: number;
  errors: number;
  totalNs: number;
  selfNs: number;
}

export interface DiffRow {
  path: string;
  name: string;
  /** Index of the parent's row, which comes before; -1 for a root. */
  parent: number;
  base: Side | null;
  new: Side | null;
  judgement: Judgement | null;
  /** Change of the mean call: 0.1 is 10 % slower. */
  changeRatio: number | null;
  lowRatio?: number | null;
  highRatio?: number | null;
}

export interface Diff {
  rows: DiffRow[];
}

export interface Series {
  id: number;
  path: number | string;
  name: string;
  labels: Record<string, string>;
  type: "counter" | "gauge" | "histogram" | "event";
  /** Null where nobody said. */
  unit: string | null;
  help: string | null;
  calls: number;
  sum: number | null;
  last: number | null;
  min: number | null;
  max: number | null;
  p50: number | null;
  p95: number | null;
  p99: number | null;
}

export interface Metrics {
  series: Series[];
  /** Series beyond what an answer may hold. */
  leftOut?: number;
}

export interface Points {
  t: number[];
  value: (number | null)[];
  min: (number | null)[];
  max: (number | null)[];
}

export type Value = string | number | boolean | null;
export type Attribute = [key: string, type: string, value: Value];

export interface ScopeEvent {
  name: string;
  atNs: number;
  attributes: Attribute[];
}

export interface ScopeDetail {
  path: number;
  name: string;
  startNs: number;
  durationNs: number;
  startUnixNs: string;
  process: number;
  thread: number | string;
  /** Null where only the scope's own block was read. */
  lane: number | null;
  level: number | null;
  traceId: string;
  spanId: string;
  parentSpanId: string | null;
  depth: number;
  errorType: string | null;
  attributes: Attribute[];
  events: ScopeEvent[];
  links: { traceId: string; spanId: string }[];
  parentRef: string | null;
  /** Attributes, events and links that found no room in the record. */
  droppedItems?: number;
  processLabel?: string;
  threadName?: string;
  childRefs?: string[];
}

export interface ListRow {
  ref: string;
  path: number;
  startNs: number;
  durationNs: number;
  lane: number;
  level: number;
  errorType: string | null;
}

export interface List {
  rows: ListRow[];
  /** Null where only some blocks were read. */
  total: number | null;
}
