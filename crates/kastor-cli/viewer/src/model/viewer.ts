// What all views share: the source, the state, and answers that were asked for once already.

import type { Capture, Diff, Metrics, Overview, TreeColumns } from "../source/contract";
import type { Range, Source } from "../source/source";
import { Paths } from "./paths";
import type { Key, Store } from "./state";

/** One way to look at a capture. */
export interface View {
  readonly element: HTMLElement;
  /** It is shown now; or what it shows has changed: the state, the capture, the colours. */
  update(changed: ReadonlySet<Key> | "all"): void;
  /** Zooms by a factor, where that means anything. */
  zoom?(factor: number): void;
}

/** What the frame around the views does for them. */
export interface Frame {
  /** Tells everybody, readers who hear the page too. */
  say(text: string): void;
  /** What went wrong, for everybody to see; null takes it away. */
  fail(error: unknown): void;
  /** The filter was not understood (or was: null). */
  refuseFilter(message: string | null): void;
  busy(isBusy: boolean): void;
}

export class Viewer {
  isDark = false;
  overview: Overview = { format: 1, live: false, captures: [] };
  /** Grows with every change of a capture that is being written. */
  version = 0;
  private readonly answers = new Map<string, Promise<unknown>>();
  private readonly knownPaths = new Map<number, Paths>();
  private waiting = 0;

  constructor(readonly source: Source, readonly store: Store, readonly frame: Frame) {}

  /** The capture that is looked at. */
  get capture(): Capture {
    const captures = this.overview.captures;
    const capture = captures.find((one) => one.index === this.store.now.capture) ?? captures[0];
    if (capture === undefined) throw new Error("there is no capture");
    return capture;
  }

  get isComparing(): boolean {
    return this.overview.captures.length > 1;
  }

  /** The range that is looked at. */
  get range(): Range {
    const { from, to } = this.store.now;
    return from !== null && to !== null ? { from, to } : { from: 0, to: Math.max(this.capture.durationNs, 1) };
  }

  /** Everything may be new. */
  async refresh(): Promise<void> {
    const overview = await this.source.overview();
    this.answers.clear();
    this.knownPaths.clear();
    this.overview = overview;
    this.version += 1;
  }

  /** The paths, where they have arrived already. */
  pathsNow(capture: number): Paths | null {
    return this.knownPaths.get(capture) ?? null;
  }

  paths(capture: number): Promise<Paths> {
    return this.once(`paths ${capture}`, async () => {
      const paths = new Paths(await this.source.paths(capture));
      this.knownPaths.set(capture, paths);
      return paths;
    });
  }

  tree(capture: number, filter: string): Promise<TreeColumns> {
    return this.once(`tree ${capture} ${filter}`, () => this.source.tree(capture, filter));
  }

  diff(filter: string): Promise<Diff> {
    return this.once(`diff ${filter}`, () => this.source.diff(filter));
  }

  metrics(capture: number): Promise<Metrics> {
    return this.once(`metrics ${capture}`, () => this.source.metrics(capture));
  }

  /** Awaits something while the page shows that it does. */
  async wait<Answer>(asked: Promise<Answer>): Promise<Answer> {
    this.waiting += 1;
    this.frame.busy(true);
    try {
      return await asked;
    } finally {
      this.waiting -= 1;
      this.frame.busy(this.waiting > 0);
    }
  }

  private once<Answer>(key: string, ask: () => Promise<Answer>): Promise<Answer> {
    const known = this.answers.get(key);
    if (known !== undefined) return known as Promise<Answer>;
    // Filters make new answers; a reader who types would collect them.
    if (this.answers.size > 40) this.answers.clear();
    const asked = this.wait(ask());
    this.answers.set(key, asked);
    asked.catch(() => this.answers.delete(key));
    return asked;
  }
}
