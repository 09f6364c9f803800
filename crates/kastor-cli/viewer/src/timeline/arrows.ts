// Carried contexts: from where a scope was handed over to where it went on.

import type { Palette } from "../parts/palette";
import type { Arrow } from "../source/contract";
import type { Scene } from "./lanes";
import { ROW, type Layout } from "./layout";

/** Ends closer together than this are no arrow that anybody could see. */
const LEAST_LENGTH = 6;
/** Of arrows from one row to another that lie closer together than this, the first stands for all. */
const LEAST_GAP = 16;

export function paintArrows(
  context: CanvasRenderingContext2D, scene: Scene, arrows: readonly Arrow[], isSelected: (arrow: Arrow) => boolean,
): void {
  const chosen: Arrow[] = [];
  const others: Arrow[] = [];
  for (const arrow of arrows) (isSelected(arrow) ? chosen : others).push(arrow);
  stroke(context, scene, others, scene.palette, LEAST_GAP, scene.matches === null ? 0.55 : 0.2, 1);
  stroke(context, scene, chosen, scene.palette, 0, 1, 2);
}

function stroke(
  context: CanvasRenderingContext2D, scene: Scene, arrows: readonly Arrow[], palette: Palette,
  gap: number, alpha: number, width: number,
): void {
  if (arrows.length === 0) return;
  const { range, scrollTop, height } = scene;
  const pixels = scene.width / (range.to - range.from);
  const heads = new Path2D();
  const ends = new Map<string, number>();
  context.beginPath();
  for (const arrow of arrows) {
    const fromY = middle(scene.layout, arrow.fromLane, arrow.fromLevel, scrollTop);
    const toY = middle(scene.layout, arrow.toLane, arrow.toLevel, scrollTop);
    if (fromY === null || toY === null) continue;
    if (Math.max(fromY, toY) < 0 || Math.min(fromY, toY) > height) continue;
    const fromX = limited((arrow.fromNs - range.from) * pixels);
    const toX = limited((arrow.toNs - range.from) * pixels);
    if (Math.max(fromX, toX) < 0 || Math.min(fromX, toX) > scene.width) continue;
    const rows = `${fromY} ${toY}`;
    if (Math.abs(toX - (ends.get(rows) ?? -Infinity)) < gap) continue;
    ends.set(rows, toX);
    if (Math.hypot(toX - fromX, toY - fromY) < LEAST_LENGTH) continue;
    const bend = Math.max(14, Math.min(60, Math.abs(toX - fromX) * 0.5));
    context.moveTo(fromX, fromY);
    context.bezierCurveTo(fromX + bend, fromY, toX - bend, toY, toX - 3, toY);
    heads.moveTo(toX, toY);
    heads.lineTo(toX - 6, toY - 3.5);
    heads.lineTo(toX - 6, toY + 3.5);
    heads.closePath();
  }
  context.globalAlpha = alpha;
  context.strokeStyle = palette.arrow;
  context.fillStyle = palette.arrow;
  context.lineWidth = width;
  context.stroke();
  context.fill(heads);
  context.globalAlpha = 1;
}

function middle(layout: Layout, lane: number, level: number, scrollTop: number): number | null {
  const item = layout.items[layout.places.get(lane) ?? -1];
  if (item?.kind !== "lane") return null;
  return item.top - scrollTop + 3 + Math.min(level, item.rows - 1) * ROW + ROW / 2 - 1;
}

function limited(x: number): number {
  return Math.max(-20_000, Math.min(20_000, x));
}
