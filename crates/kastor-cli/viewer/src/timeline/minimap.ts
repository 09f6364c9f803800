// The whole capture in a strip: how busy it was when, where something failed, and which part is seen below.
//
// A drag on the strip chooses a part; a click moves the part there.

import { Surface } from "../parts/surface";
import { hatch } from "../parts/hatch";
import type { Palette } from "../parts/palette";
import type { Camera } from "./camera";
import type { Tile } from "./tiles";

export class Minimap {
  readonly surface: Surface;
  private palette: Palette | null = null;
  private tile: Tile | null = null;
  private durationNs = 1;
  private busy: Float32Array = new Float32Array(0);
  private failed: Uint8Array = new Uint8Array(0);
  private drawn: HTMLCanvasElement | null = null;
  private marking: { from: number; to: number } | null = null;

  constructor(box: HTMLElement, canvas: HTMLCanvasElement, private readonly camera: Camera, private readonly onMove: () => void) {
    this.surface = new Surface((context, width, height) => this.paint(context, width, height), canvas, box, () => this.add());
    this.listen(canvas);
  }

  show(tile: Tile | null, durationNs: number, palette: Palette): void {
    if (palette !== this.palette) this.drawn = null;
    const isNew = tile !== this.tile || durationNs !== this.durationNs;
    this.tile = tile;
    this.durationNs = Math.max(durationNs, 1);
    this.palette = palette;
    if (isNew) this.add();
    this.surface.request();
  }

  /** Adds up how much of each pixel the outermost scopes fill. */
  private add(): void {
    this.drawn = null;
    const width = Math.max(Math.ceil(this.surface.width), 1);
    this.busy = new Float32Array(width);
    this.failed = new Uint8Array(width);
    if (this.tile === null) return;
    const pixels = width / this.durationNs;
    for (const boxes of this.tile.lanes.values()) {
      for (let at = 0; at < boxes.start.length; at += 1) {
        const from = Math.max(boxes.start[at]! * pixels, 0);
        const to = Math.min(boxes.end[at]! * pixels, width);
        if (boxes.failed[at]! > 0) this.failed[Math.min(Math.floor(from), width - 1)] = 1;
        if (at >= boxes.begins[1]!) continue;
        for (let x = Math.floor(from); x < to && x < width; x += 1) {
          this.busy[x]! += Math.min(to, x + 1) - Math.max(from, x);
        }
      }
    }
  }

  private paint(context: CanvasRenderingContext2D, width: number, height: number): void {
    const { palette } = this;
    if (palette === null) return;
    this.drawn ??= this.draw(palette, width, height);
    if (this.drawn !== null) context.drawImage(this.drawn, 0, 0, width, height);
    const from = (this.camera.from / this.durationNs) * width;
    const to = (this.camera.to / this.durationNs) * width;
    this.window(context, width, height, from, to);
    if (this.marking !== null) {
      context.fillStyle = palette.selection;
      context.globalAlpha = 0.2;
      context.fillRect(this.marking.from, 0, this.marking.to - this.marking.from, height);
      context.globalAlpha = 1;
    }
  }

  /** What does not change with every frame, as a picture. */
  private draw(palette: Palette, width: number, height: number): HTMLCanvasElement | null {
    const picture = document.createElement("canvas");
    const { scale } = this.surface;
    picture.width = Math.max(1, Math.round(width * scale));
    picture.height = Math.max(1, Math.round(height * scale));
    const context = picture.getContext("2d", { alpha: false });
    if (context === null) return null;
    context.scale(scale, scale);
    context.fillStyle = palette.band;
    context.fillRect(0, 0, width, height);
    const most = Math.max(1e-9, this.busy.reduce((one, other) => Math.max(one, other), 0));
    const base = height - 2;
    context.beginPath();
    context.moveTo(0, base);
    for (let x = 0; x < this.busy.length; x += 1) {
      const y = base - (this.busy[x]! / most) * (height - 10);
      context.lineTo(x, y);
      context.lineTo(x + 1, y);
    }
    context.lineTo(this.busy.length, base);
    context.fillStyle = palette.density;
    context.globalAlpha = 0.75;
    context.fill();
    context.globalAlpha = 1;
    for (let x = 0; x < this.failed.length; x += 1) {
      if (this.failed[x] === 0) continue;
      context.fillStyle = palette.failure;
      context.fillRect(x - 1, 0, 3, 5);
      context.fillStyle = hatch(context, palette.failureLine, this.surface.scale);
      context.fillRect(x - 1, 0, 3, 5);
    }
    return picture;
  }

  private window(context: CanvasRenderingContext2D, width: number, height: number, from: number, to: number): void {
    const { palette } = this;
    if (palette === null || (from <= 0 && to >= width)) return;
    const [left, right] = to - from < 3 ? [(from + to) / 2 - 1.5, (from + to) / 2 + 1.5] : [from, to];
    context.fillStyle = palette.isDark ? "rgb(0 0 0 / 0.5)" : "rgb(255 255 255 / 0.68)";
    context.fillRect(0, 0, left, height);
    context.fillRect(right, 0, width - right, height);
    context.strokeStyle = palette.selection;
    context.lineWidth = 1.5;
    context.strokeRect(left, 0.75, right - left, height - 1.5);
  }

  private listen(canvas: HTMLCanvasElement): void {
    let pressed: number | null = null;
    const x = (event: PointerEvent): number => {
      const box = canvas.getBoundingClientRect();
      return Math.max(0, Math.min(box.width, event.clientX - box.left));
    };
    canvas.addEventListener("pointerdown", (event) => {
      if (event.button !== 0) return;
      canvas.setPointerCapture(event.pointerId);
      pressed = x(event);
    });
    canvas.addEventListener("pointermove", (event) => {
      if (pressed === null) return;
      this.marking = { from: pressed, to: x(event) };
      this.surface.request();
    });
    canvas.addEventListener("pointerup", (event) => {
      if (pressed === null) return;
      const to = x(event);
      const time = (at: number): number => (at / this.surface.width) * this.durationNs;
      if (Math.abs(to - pressed) > 4) {
        this.camera.go({ from: time(Math.min(pressed, to)), to: time(Math.max(pressed, to)) });
      } else {
        const half = this.camera.span / 2;
        this.camera.go({ from: time(to) - half, to: time(to) + half });
      }
      pressed = null;
      this.marking = null;
      this.onMove();
    });
    canvas.addEventListener("pointercancel", () => {
      pressed = null;
      this.marking = null;
      this.surface.request();
    });
    canvas.addEventListener("dblclick", () => {
      this.camera.goWhole();
      this.onMove();
    });
    canvas.addEventListener("wheel", (event) => {
      event.preventDefault();
      this.camera.zoom(Math.exp(Math.max(-240, Math.min(240, event.deltaY)) * 0.0022), 0.5);
      this.onMove();
    }, { passive: false });
  }
}
