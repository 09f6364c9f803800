// Metrics below the lanes: their values over the same time.

import { Labels, SMALL_FONT } from "../parts/label";
import type { Viewer } from "../model/viewer";
import { quantity } from "../model/units";
import type { Points } from "../source/contract";
import type { Range } from "../source/source";
import type { Item } from "./layout";
import type { Scene } from "./lanes";

interface Known extends Range {
  points: Points;
  fineness: number;
}

type Track = Extract<Item, { kind: "track" }>;

export class Tracks {
  private readonly known = new Map<number, Known>();
  private readonly flat = new Set<number>();
  private readonly asking = new Set<number>();
  private readonly labels = new Labels();
  private key = "";

  constructor(private readonly viewer: Viewer, private readonly onArrival: () => void) {}

  paint(context: CanvasRenderingContext2D, scene: Scene): void {
    const { layout, scrollTop, height } = scene;
    for (let at = Math.max(layout.at(scrollTop), 0); at < layout.items.length; at += 1) {
      const item = layout.items[at]!;
      if (item.top - scrollTop > height) break;
      if (item.kind === "track") this.track(context, scene, item);
    }
  }

  /** Whether the whole of a series is known, and is less than two values. */
  isFlat(series: number): boolean {
    return this.flat.has(series);
  }

  /** The value of a series at a time. */
  valueAt(series: number, time: number): number | null {
    const points = this.known.get(series)?.points;
    if (points === undefined) return null;
    const at = lastBefore(points.t, time);
    return at < 0 ? null : (points.value[at] ?? null);
  }

  private track(context: CanvasRenderingContext2D, scene: Scene, item: Track): void {
    const { range, width, palette, scrollTop } = scene;
    const known = this.points(item.series.id, range, width);
    if (known === null || known.points.t.length === 0) {
      if (known !== null) note(context, scene, item, "no values over time");
      return;
    }
    const { t, value, min, max } = known.points;
    const [low, high] = extent(known.points);
    const top = item.top - scrollTop + 8;
    const bottom = item.top - scrollTop + item.height - 6;
    const toX = (time: number): number => Math.max(-10, Math.min(width + 10, ((time - range.from) / (range.to - range.from)) * width));
    const toY = (one: number): number => bottom - ((one - low) / (high - low || 1)) * (bottom - top);
    const first = Math.max(lastBefore(t, range.from), 0);
    context.save();
    context.beginPath();
    context.rect(0, top - 6, width, bottom - top + 8);
    context.clip();
    // A value holds until the next: steps, with the spread of what was joined behind them.
    const line = new Path2D();
    const area = new Path2D();
    let isBegun = false;
    let y = bottom;
    for (let at = first; at < t.length && t[at]! <= range.to + (range.to - range.from) * 0.05; at += 1) {
      const one = value[at];
      if (one === null || one === undefined || !Number.isFinite(one)) continue;
      const x = toX(t[at]!);
      if (!isBegun) {
        y = toY(one);
        line.moveTo(x, y);
        area.moveTo(x, bottom);
        area.lineTo(x, y);
        isBegun = true;
      } else {
        line.lineTo(x, y);
        area.lineTo(x, y);
        y = toY(one);
        line.lineTo(x, y);
        area.lineTo(x, y);
      }
      const [least, most] = [min[at], max[at]];
      if (typeof least === "number" && typeof most === "number" && most > least) {
        line.moveTo(x, toY(least));
        line.lineTo(x, toY(most));
        line.moveTo(x, y);
      }
    }
    if (isBegun) {
      const lastTime = t[t.length - 1]!;
      const end = toX(Math.max(lastTime, Math.min(range.to, this.viewer.capture.durationNs)));
      line.lineTo(end, y);
      area.lineTo(end, y);
      area.lineTo(end, bottom);
      area.closePath();
    }
    context.fillStyle = palette.trackFill;
    context.fill(area);
    context.strokeStyle = palette.track;
    context.lineWidth = 1.25;
    context.stroke(line);
    context.restore();
    this.scaleTexts(context, scene, top, bottom, quantity(high, item.series.unit), quantity(low, item.series.unit));
  }

  private scaleTexts(context: CanvasRenderingContext2D, scene: Scene, top: number, bottom: number, high: string, low: string): void {
    context.font = SMALL_FONT;
    context.textBaseline = "middle";
    for (const [text, y] of [[high, top + 3], [low, bottom - 5]] as const) {
      const width = this.labels.width(context, text);
      context.globalAlpha = 0.8;
      context.fillStyle = scene.palette.background;
      context.fillRect(4, y - 7, width + 6, 14);
      context.globalAlpha = 1;
      context.fillStyle = scene.palette.faintText;
      context.fillText(text, 7, y);
    }
  }

  private points(series: number, range: Range, width: number): Known | null {
    const { capture, version } = this.viewer;
    const key = `${version} ${capture.index}`;
    if (key !== this.key) {
      this.key = key;
      this.known.clear();
      this.asking.clear();
      this.flat.clear();
    }
    const known = this.known.get(series) ?? null;
    const fineness = width / (range.to - range.from);
    const covers = known !== null && known.from <= Math.max(range.from, 0) && known.to >= Math.min(range.to, capture.durationNs);
    if ((!covers || known.fineness < fineness * 0.5) && !this.asking.has(series) && this.asking.size < 4) {
      this.asking.add(series);
      // First the whole, which tells whether there is a course to draw at all; then what is seen and its neighbourhood.
      const span = known === null ? Infinity : range.to - range.from;
      const asked = { from: Math.max(0, range.from - span), to: Math.min(Math.max(capture.durationNs, 1), range.to + span) };
      void this.ask(key, series, asked, Math.ceil(width * 3));
    }
    return known;
  }

  private async ask(key: string, series: number, range: Range, pixels: number): Promise<void> {
    try {
      const points = await this.viewer.source.points({ capture: this.viewer.capture.index, series, pixels, ...range });
      if (key !== this.key) return;
      if (points.t.length < 2 && range.from <= 0 && range.to >= this.viewer.capture.durationNs) this.flat.add(series);
      const isAll = points.t.length < pixels / 4;
      this.known.set(series, { points, ...range, fineness: isAll ? Infinity : pixels / (range.to - range.from) });
    } catch (error) {
      if (key !== this.key) return;
      // Asking again with every frame would help nobody.
      this.known.set(series, { points: { t: [], value: [], min: [], max: [] }, from: 0, to: Infinity, fineness: Infinity });
      this.viewer.frame.fail(error);
    }
    this.asking.delete(series);
    this.onArrival();
  }
}

function extent(points: Points): [number, number] {
  let low = Infinity;
  let high = -Infinity;
  for (const values of [points.value, points.min, points.max]) {
    for (const one of values) {
      if (one === null || !Number.isFinite(one)) continue;
      low = Math.min(low, one);
      high = Math.max(high, one);
    }
  }
  if (low > high) return [0, 1];
  if (low > 0 && low < high * 0.6) low = 0;
  return low === high ? [Math.min(low, 0), Math.max(high, low + 1)] : [low, high];
}

/** Index of the last time that is not after `time`; -1 if there is none. */
function lastBefore(times: readonly number[], time: number): number {
  let low = 0;
  let high = times.length;
  while (low < high) {
    const middle = (low + high) >> 1;
    if (times[middle]! <= time) low = middle + 1;
    else high = middle;
  }
  return low - 1;
}

function note(context: CanvasRenderingContext2D, scene: Scene, item: Track, text: string): void {
  context.font = SMALL_FONT;
  context.textBaseline = "middle";
  context.fillStyle = scene.palette.faintText;
  context.fillText(text, 8, item.top - scene.scrollTop + item.height / 2);
}
