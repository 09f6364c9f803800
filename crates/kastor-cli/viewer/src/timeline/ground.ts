// What stands behind and around the boxes: lines of time, borders of lanes, the ruler, the frame of what is selected.

import { SMALL_FONT } from "../parts/label";
import type { Palette } from "../parts/palette";
import type { Range } from "../source/source";
import { ticks } from "./axis";
import type { Boxes } from "./boxes";
import type { Scene } from "./lanes";
import { ROW } from "./layout";

/** Pixels that the text of a tick needs. */
const TICK_ROOM = 110;

export function paintGround(context: CanvasRenderingContext2D, scene: Scene, durationNs: number): void {
  const { palette: colours, width, height, layout, scrollTop, range } = scene;
  const pixels = width / (range.to - range.from);
  context.fillStyle = colours.background;
  context.fillRect(0, 0, width, height);
  for (let at = Math.max(layout.at(scrollTop), 0); at < layout.items.length; at += 1) {
    const item = layout.items[at]!;
    const top = item.top - scrollTop;
    if (top > height) break;
    if (item.kind === "heading") {
      context.fillStyle = colours.band;
      context.fillRect(0, top, width, item.height);
    }
    context.fillStyle = colours.line;
    context.fillRect(0, top + item.height - 1, width, 1);
  }
  context.fillStyle = colours.line;
  for (const { at } of ticks(range, width, TICK_ROOM).ticks) context.fillRect(Math.round((at - range.from) * pixels), 0, 1, height);
  // Before the start and after the end there is nothing to see, and that can be seen.
  const start = -range.from * pixels;
  const end = (durationNs - range.from) * pixels;
  context.fillStyle = colours.band;
  if (start > 0) context.fillRect(0, 0, start, height);
  if (end < width) context.fillRect(end, 0, width - end, height);
}

/** A frame around one box. */
export function paintOutline(
  context: CanvasRenderingContext2D, scene: Scene, lane: number, boxes: Boxes, box: number, level: number, line: number,
): void {
  const { layout, range, width, scrollTop } = scene;
  const item = layout.items[layout.places.get(lane) ?? -1];
  if (item?.kind !== "lane" || level >= item.rows) return;
  const pixels = width / (range.to - range.from);
  const left = Math.max((boxes.start[box]! - range.from) * pixels, -4);
  const right = Math.min((boxes.end[box]! - range.from) * pixels, width + 4);
  if (right < 0 || left > width) return;
  const y = item.top - scrollTop + 3 + level * ROW;
  context.strokeStyle = scene.palette.selection;
  context.lineWidth = line;
  context.strokeRect(left - 1, y - 1, Math.max(right - left, 2) + 1, ROW);
}

export function paintRuler(context: CanvasRenderingContext2D, width: number, height: number, range: Range, colours: Palette): void {
  context.fillStyle = colours.background;
  context.fillRect(0, 0, width, height);
  const { ticks: marks, anchor } = ticks(range, width, TICK_ROOM);
  context.font = SMALL_FONT;
  context.textBaseline = "middle";
  let free = 0;
  if (anchor !== "") {
    context.fillStyle = colours.text;
    context.fillText(anchor, 6, height / 2);
    free = context.measureText(anchor).width + 14;
  }
  for (const { at, text } of marks) {
    const x = Math.round(((at - range.from) / (range.to - range.from)) * width);
    context.fillStyle = colours.strongLine;
    context.fillRect(x, height - 6, 1, 6);
    if (x + 4 < free || x + 4 > width - 30) continue;
    context.fillStyle = colours.faintText;
    context.fillText(text, x + 4, height / 2 - 1);
  }
  context.fillStyle = colours.strongLine;
  context.fillRect(0, height - 1, width, 1);
}
