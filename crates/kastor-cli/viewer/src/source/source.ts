// Where the page's data comes from: the program that serves it, or the page's own file.

import type {
  Diff, List, Metrics, Overview, PathColumns, Points, ScopeDetail, TimelineColumns, TreeColumns,
} from "./contract";

export interface Range {
  from: number;
  to: number;
}

export interface TimelineQuery extends Range {
  capture: number;
  pixels: number;
  filter: string;
}

export interface PointsQuery extends Range {
  capture: number;
  series: number;
  pixels: number;
}

export interface ListQuery extends Range {
  capture: number;
  filter: string;
  sort: "duration" | "start" | "-duration" | "-start";
  limit: number;
}

export interface Source {
  /** Whether `perfetto` can be asked. */
  readonly hasPerfetto: boolean;
  overview(): Promise<Overview>;
  paths(capture: number): Promise<PathColumns>;
  timeline(query: TimelineQuery, signal?: AbortSignal): Promise<TimelineColumns>;
  tree(capture: number, filter: string): Promise<TreeColumns>;
  diff(filter: string): Promise<Diff>;
  metrics(capture: number): Promise<Metrics>;
  points(query: PointsQuery, signal?: AbortSignal): Promise<Points>;
  scope(capture: number, ref: string): Promise<ScopeDetail>;
  list(query: ListQuery): Promise<List>;
  perfetto(capture: number, filter: string): Promise<ArrayBuffer>;
  /** Waits until the capture being written has more than version `since`, and returns the version it has. */
  changes(since: number, signal: AbortSignal): Promise<number>;
}

/** What a source refused, in words for the reader. */
export class SourceError extends Error {
  constructor(message: string, readonly at: number | null = null) {
    super(message);
  }
}
