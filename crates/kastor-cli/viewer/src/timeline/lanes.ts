// Draws the boxes of the lanes that are seen: fills, failures, names.

import { hatch } from "../parts/hatch";
import { Labels, LABEL_FONT, SMALL_FONT } from "../parts/label";
import type { Palette } from "../parts/palette";
import type { Paths } from "../model/paths";
import { briefCount, duration } from "../model/units";
import type { Range } from "../source/source";
import type { Boxes } from "./boxes";
import { Brush } from "../parts/brush";
import { ROW, type Layout } from "./layout";
import type { Tile, Tiles } from "./tiles";

/** Narrower boxes are drawn this wide, to be seen at all. */
const LEAST_WIDTH = 1;
/** A box from this width on ends a pixel early, so that neighbours stay apart. */
const APART_FROM = 4;
/** Narrow failures closer together than this are one mark. */
const FAILURE_GAP = 3;
const LABEL_FROM = 26;
const MOST_LABELS = 1500;
const INSET = 1;

export interface Scene {
  range: Range;
  width: number;
  height: number;
  scrollTop: number;
  scale: number;
  palette: Palette;
  layout: Layout;
  tiles: Tiles;
  paths: Paths | null;
  /** Paths that are searched for; all others are drawn faintly. */
  matches: Uint8Array | null;
}

interface Label {
  x: number;
  y: number;
  width: number;
  boxes: Boxes;
  box: number;
}

export class LanePainter {
  readonly labels = new Labels();
  private readonly small = new Labels();
  private readonly brush = new Brush();
  private readonly pending: Label[] = [];
  private fills: Uint8Array = new Uint8Array(0);

  paint(context: CanvasRenderingContext2D, scene: Scene): void {
    const { palette, layout, scrollTop, height, tiles, range } = scene;
    const colours = palette.fills.length;
    const [faint, failed, hatched, dense] = [colours, colours + 1, colours + 2, colours + 3];
    this.brush.begin(colours + 8);
    this.pending.length = 0;
    this.fills = scene.paths?.fills ?? new Uint8Array(0);
    const first = Math.max(layout.at(scrollTop), 0);
    for (let at = first; at < layout.items.length; at += 1) {
      const item = layout.items[at]!;
      const top = item.top - scrollTop;
      if (top > height) break;
      if (item.kind !== "lane") continue;
      for (const [tile, from, to] of parts(tiles, range)) {
        const boxes = tile.lanes.get(item.lane.id);
        if (boxes === undefined) continue;
        const rows = Math.min(item.rows, boxes.levels);
        const firstRow = Math.max(0, Math.floor(-top / ROW));
        const lastRow = Math.min(rows, Math.ceil((height - top) / ROW));
        for (let level = firstRow; level < lastRow; level += 1) {
          const y = top + 3 + level * ROW;
          if (tile.isDensity) this.density(scene, boxes, y, from, to, dense);
          else this.row(scene, boxes, level, y, from, to, faint, failed, hatched);
        }
      }
    }
    palette.fills.forEach((fill, colour) => this.brush.paint(context, colour, fill));
    this.brush.paint(context, faint, palette.isDark ? "#2b3442" : "#e4e8ee");
    this.brush.paint(context, failed, palette.failure);
    this.brush.paint(context, hatched, hatch(context, palette.failureLine, scene.scale));
    for (let shade = 0; shade < 4; shade += 1) {
      context.globalAlpha = 0.35 + shade * 0.2;
      this.brush.paint(context, dense + shade, palette.density);
    }
    context.globalAlpha = 1;
    this.names(context, scene);
  }

  /**
   * The boxes of a level between two times. Boxes that touch and look alike become one rectangle; of those that begin
   * in the same pixel of the screen the first is drawn. So a row costs no more than its pixels, whatever is in it.
   */
  private row(
    scene: Scene, boxes: Boxes, level: number, y: number, from: number, to: number,
    faint: number, failed: number, hatched: number,
  ): void {
    const { range, width, matches } = scene;
    const { start, end, path, count, failed: failures } = boxes;
    const brush = this.brush;
    const pixels = width / (range.to - range.from);
    const origin = range.from;
    const height = ROW - INSET * 2;
    const top = y;
    const stop = boxes.begins[level + 1]!;
    const { scale } = scene;
    let runColour = -1;
    let runFrom = 0;
    let runTo = 0;
    let lastPixel = -1e9;
    let failedTo = -1e9;
    for (let at = boxes.firstAfter(level, from); at < stop; at += 1) {
      const begins = start[at]!;
      if (begins >= to) break;
      let left = ((begins < from ? from : begins) - origin) * pixels;
      const ends = end[at]!;
      let right = ((ends > to ? to : ends) - origin) * pixels;
      const isNarrow = right - left < APART_FROM;
      const isFailed = failures[at]! > 0;
      if (isNarrow) {
        const pixel = Math.floor(left * scale);
        if (pixel === lastPixel && (right - left) * scale < 1 && !(isFailed && left >= failedTo)) continue;
        lastPixel = pixel;
      }
      if (right - left < LEAST_WIDTH) right = left + LEAST_WIDTH;
      else if (!isNarrow) right -= 1;
      if (left < -1) left = -1;
      if (right > width + 1) right = width + 1;
      const number = path[at]!;
      const isOut = matches !== null && (number < 0 || matches[number] === 0);
      const colour = isOut ? faint : isFailed && count[at]! <= 1 ? failed : this.fill(number);
      if (isNarrow && colour === runColour && left <= runTo + 0.5) {
        if (right > runTo) runTo = right;
      } else {
        if (runColour >= 0) brush.add(runColour, runFrom, top, runTo - runFrom, height);
        if (isNarrow) {
          runColour = colour;
          // What is drawn wider than it is must not cover the box before.
          runFrom = left;
          runTo = right;
        } else {
          runColour = -1;
          brush.add(colour, left, top, right - left, height);
          if (right - left >= LABEL_FROM && this.pending.length < MOST_LABELS) {
            this.pending.push({ x: left, y: top, width: right - left, boxes, box: at });
          }
        }
      }
      if (isFailed && !isOut && (!isNarrow || left >= failedTo)) {
        failedTo = isNarrow ? left + FAILURE_GAP : right;
        const shown = Math.max(right - left, 2);
        if (count[at]! > 1) {
          brush.add(failed, left, top + height * 0.5, shown, height * 0.5);
          brush.add(hatched, left, top + height * 0.5, shown, height * 0.5);
        } else {
          if (shown > right - left) brush.add(failed, left, top, shown, height);
          brush.add(hatched, left, top, shown, height);
        }
      }
    }
    if (runColour >= 0) brush.add(runColour, runFrom, top, runTo - runFrom, height);
  }

  /** Blocks of a capture that is too large to read: darker where more was recorded. */
  private density(scene: Scene, boxes: Boxes, y: number, from: number, to: number, dense: number): void {
    const { range, width } = scene;
    const pixels = width / (range.to - range.from);
    for (let at = boxes.firstAfter(0, from); at < boxes.begins[1]! && boxes.start[at]! < to; at += 1) {
      const left = Math.max((boxes.start[at]! - range.from) * pixels, -1);
      const right = Math.min((boxes.end[at]! - range.from) * pixels, width + 1);
      const share = boxes.count[at]! / Math.max(boxes.end[at]! - boxes.start[at]!, 1) / boxes.mostDense;
      const shade = Math.min(3, Math.floor(Math.sqrt(share) * 4));
      this.brush.add(dense + shade, left, y, Math.max(right - left, LEAST_WIDTH), ROW - INSET * 2);
    }
  }

  private names(context: CanvasRenderingContext2D, scene: Scene): void {
    const { palette, paths } = scene;
    if (paths === null) return;
    context.textBaseline = "middle";
    context.font = LABEL_FONT;
    context.fillStyle = palette.boxText;
    const further: { text: string; x: number; y: number }[] = [];
    for (const { x, y, width, boxes, box } of this.pending) {
      const room = width - 8;
      const many = boxes.count[box]!;
      const path = boxes.path[box]!;
      const name = many > 1 ? `${paths.name(path)} ×${briefCount(many)}` : paths.name(path);
      const isOut = scene.matches !== null && scene.matches[path] === 0;
      if (isOut) continue;
      const text = this.labels.fitting(context, name, room);
      if (text === "") continue;
      const isPlain = boxes.failed[box] === 0;
      const used = this.labels.width(context, text);
      if (!isPlain) {
        // Letters on lines cannot be read: failures have their names on plain ground.
        context.fillStyle = palette.failure;
        context.fillRect(x + 2, y + 2, used + 5, ROW - INSET * 2 - 4);
        context.fillStyle = palette.boxText;
      }
      context.fillText(text, x + 4, y + ROW / 2 - 0.5);
      if (room - used > 64 && isPlain && text === name) {
        further.push({ text: duration(boxes.end[box]! - boxes.start[box]!), x: x + 4 + used + 8, y });
      }
    }
    context.font = SMALL_FONT;
    context.globalAlpha = 0.72;
    for (const { text, x, y } of further) {
      this.small.width(context, text);
      context.fillText(text, x, y + ROW / 2);
    }
    context.globalAlpha = 1;
  }

  private fill(path: number): number {
    if (path < 0 || path >= this.fills.length) return 0;
    return this.fills[path]!;
  }
}

/** The detail where there is some; the whole beside it. */
export function parts(tiles: Tiles, range: Range): [tile: Tile, from: number, to: number][] {
  const { whole } = tiles;
  const detail = tiles.best(range);
  if (detail === null) return [];
  if (whole === null || detail === whole) return [[detail, range.from, range.to]];
  const made: [Tile, number, number][] = [];
  if (range.from < detail.from) made.push([whole, range.from, detail.from]);
  made.push([detail, Math.max(range.from, detail.from), Math.min(range.to, detail.to)]);
  if (range.to > detail.to) made.push([whole, detail.to, range.to]);
  return made;
}
