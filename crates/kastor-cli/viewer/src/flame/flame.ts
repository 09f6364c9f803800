// A flame graph or, upside down, an icicle graph: how the time of all calls is shared out.

import { element } from "../parts/dom";
import { Labels, LABEL_FONT, SMALL_FONT } from "../parts/label";
import { palette, type Palette } from "../parts/palette";
import { Surface } from "../parts/surface";
import { Tooltip } from "../parts/tooltip";
import { Brush } from "../parts/brush";
import { FlameTree } from "./tree";

const ROW = 22;
const LEAST_WIDTH = 0.4;
const SPEED = 0.28;

/** What is drawn: nodes by number, a parent before its children. */
export interface FlameData {
  length: number;
  parent(node: number): number;
  self(node: number): number;
  name(node: number): string;
  /** What stands behind the name where there is room. */
  note(node: number, tree: FlameTree): string;
  /** The root's name. */
  whole: string;
  /** The colour of a node. */
  colour(node: number, palette: Palette): string;
  /** What the card at the pointer says. */
  describe(node: number, tree: FlameTree): { lines: [string, string][]; note: string };
}

export class Flame {
  readonly element: HTMLElement;
  private tree = new FlameTree(0, () => -1, () => 0);
  private data: FlameData | null = null;
  private matches: Uint8Array | null = null;
  private isIcicle = true;
  private colours: Palette = palette(false);
  private focus = 0;
  private active = 0;
  private window = { from: 0, to: 1 };
  private hovered = -1;
  private readonly surface: Surface;
  private readonly canvas: HTMLCanvasElement;
  private readonly scroller = element("div", { class: "scroller", tabindex: "-1" });
  private readonly extent = element("div", { class: "extent" });
  private readonly labels = new Labels();
  private readonly small = new Labels();
  private readonly brush = new Brush();
  private readonly tooltip = new Tooltip();
  private readonly isStill = window.matchMedia("(prefers-reduced-motion: reduce)");

  /** `onFocus` gets a node, or -1 for the root; `onActive` what a reader who hears the page should know. */
  constructor(private readonly onFocus: (node: number) => void, private readonly onActive: (text: string) => void) {
    this.canvas = element("canvas", {
      tabindex: "0", role: "application", "aria-roledescription": "flame graph",
      "aria-label": "Flame graph. Arrows walk through the calls, enter focuses, escape shows all.",
    });
    const box = element("div", { class: "flame-box" }, [this.canvas]);
    this.scroller.append(this.extent);
    this.element = element("div", { class: "flame" }, [this.scroller, box]);
    this.surface = new Surface((context, width, height) => this.paint(context, width, height), this.canvas, box);
    this.scroller.addEventListener("scroll", () => this.surface.request());
    this.listen();
  }

  show(data: FlameData): void {
    this.data = data;
    this.tree = new FlameTree(data.length, (node) => data.parent(node), (node) => data.self(node));
    this.focus = this.active = this.tree.root;
    this.hovered = -1;
    this.window = { from: 0, to: 1 };
    this.resize();
  }

  look(isDark: boolean, layout: "icicle" | "flame", matches: Uint8Array | null): void {
    this.colours = palette(isDark);
    this.matches = matches;
    const isIcicle = layout === "icicle";
    if (isIcicle !== this.isIcicle) {
      this.isIcicle = isIcicle;
      this.scroller.scrollTop = isIcicle ? 0 : this.scroller.scrollHeight;
    }
    this.surface.request();
  }

  /** Makes a node as wide as the picture; -1 is the root. */
  focusOn(node: number): void {
    const next = node >= 0 && node < this.tree.length && this.tree.weight[node]! > 0 ? node : this.tree.root;
    if (next === this.focus) return;
    this.focus = this.active = next;
    if (this.isStill.matches) this.window = this.aim();
    this.surface.request();
  }

  /** How much of the whole is in nodes that match, counting what is inside of one only once. */
  matchedShare(): number {
    const { matches, tree } = this;
    if (matches === null) return 0;
    const covered = new Uint8Array(tree.length + 1);
    let sum = 0;
    for (let node = 0; node < tree.length; node += 1) {
      const above = covered[tree.parent[node]!]!;
      if (above === 1 || matches[node] === 1) covered[node] = 1;
      if (above === 0 && matches[node] === 1) sum += tree.width(node);
    }
    return sum;
  }

  private resize(): void {
    const height = `${(this.tree.deepest + 1) * ROW + 8}px`;
    this.extent.style.height = height;
    this.element.style.setProperty("--height", `calc(${height} + 0.5rem)`);
    this.scroller.scrollTop = this.isIcicle ? 0 : this.scroller.scrollHeight;
    this.surface.request();
  }

  private aim(): { from: number; to: number } {
    const from = this.focus === this.tree.root ? 0 : this.tree.x[this.focus]!;
    const width = this.focus === this.tree.root ? 1 : this.tree.width(this.focus);
    return { from, to: from + width };
  }

  private step(): boolean {
    const aim = this.aim();
    const far = Math.abs(aim.from - this.window.from) + Math.abs(aim.to - this.window.to);
    if (far < (aim.to - aim.from) * 0.002) {
      this.window = aim;
      return false;
    }
    this.window.from += (aim.from - this.window.from) * SPEED;
    this.window.to += (aim.to - this.window.to) * SPEED;
    return true;
  }

  private top(depth: number, height: number): number {
    const all = Math.max((this.tree.deepest + 1) * ROW + 8, height);
    const y = this.isIcicle ? 4 + depth * ROW : all - 4 - (depth + 1) * ROW;
    return y - this.scroller.scrollTop;
  }

  private paint(context: CanvasRenderingContext2D, width: number, height: number): void {
    const { tree, data, colours } = this;
    const isMoving = this.step();
    context.fillStyle = colours.background;
    context.fillRect(0, 0, width, height);
    if (data === null || !(tree.weight[tree.root]! > 0)) return;
    const notes: { node: number; x: number; y: number; room: number }[] = [];
    const labels: { node: number; text: string; x: number; y: number; width: number; isFaint: boolean }[] = [];
    const styles = new Map<string, number>();
    this.brush.begin(8);
    const styleOf = (style: string): number => {
      const known = styles.get(style);
      if (known !== undefined) return known;
      const next = styles.size;
      styles.set(style, next);
      this.brush.reserve(next + 1);
      return next;
    };
    const rest = styleOf(colours.isDark ? "#222a36" : "#eceff4");
    const faint = colours.isDark ? "#2b3442" : "#e4e8ee";
    this.visit(width, height, (node, left, right, y) => {
      const isRoot = node === tree.root;
      const isFaint = this.matches !== null && (isRoot || this.matches[node] !== 1);
      const style = isRoot ? (colours.isDark ? "#323c4c" : "#dbe1ea") : isFaint ? faint : data.colour(node, colours);
      const shown = right - left > 3 ? right - left - 1 : Math.max(right - left, LEAST_WIDTH);
      this.brush.add(styleOf(style), left, y, shown, ROW - 1);
      if (right - left > 22) {
        labels.push({ node, text: isRoot ? data.whole : data.name(node), x: left, y, width: right - left, isFaint: isFaint || isRoot });
      }
    }, (left, right, y) => this.brush.add(rest, left, y, right - left, ROW - 1));
    for (const [style, number] of styles) this.brush.paint(context, number, style);
    context.font = LABEL_FONT;
    context.textBaseline = "middle";
    for (const { node, text, x, y, width: room, isFaint } of labels) {
      const cut = this.labels.fitting(context, text, room - 8);
      if (cut === "") continue;
      context.fillStyle = isFaint ? colours.text : colours.boxText;
      context.fillText(cut, x + 4, y + ROW / 2);
      const used = this.labels.width(context, cut);
      if (node < tree.length && cut === text && room - used > 110) notes.push({ node, x: x + used + 12, y, room: room - used - 18 });
    }
    context.font = SMALL_FONT;
    context.globalAlpha = 0.72;
    for (const { node, x, y, room } of notes) {
      context.fillText(this.small.fitting(context, data.note(node, tree), room), x, y + ROW / 2);
    }
    context.globalAlpha = 1;
    this.outline(context, width, height, this.hovered, 1.5);
    if (this.canvas.matches(":focus-visible")) this.outline(context, width, height, this.active, 2);
    else if (this.focus !== tree.root) this.outline(context, width, height, this.focus, 2);
    if (isMoving) this.surface.request();
  }

  /** Calls back for each node that can be seen, and once for all children of a node that are too narrow. */
  private visit(
    width: number, height: number,
    see: (node: number, left: number, right: number, y: number) => void,
    seeRest: (left: number, right: number, y: number) => void,
  ): void {
    const { tree } = this;
    const { from, to } = this.window;
    const pixels = width / (to - from);
    const pending: number[] = [tree.root];
    while (pending.length > 0) {
      const node = pending.pop()!;
      const begin = node === tree.root ? 0 : tree.x[node]!;
      const share = node === tree.root ? 1 : tree.width(node);
      const left = Math.max((begin - from) * pixels, -2);
      const right = Math.min((begin + share - from) * pixels, width + 2);
      const y = this.top(tree.depth[node]!, height);
      if (y > -ROW && y < height) see(node, left, right, y);
      const below = this.top(tree.depth[node]! + 1, height);
      if (this.isIcicle ? below > height : below < -ROW) continue;
      const children = tree.childrenOf(node);
      for (let at = this.firstSeen(children, from); at < children.length; at += 1) {
        const child = children[at]!;
        const childLeft = (tree.x[child]! - from) * pixels;
        if (childLeft > width) break;
        if (tree.width(child) * pixels < LEAST_WIDTH) {
          const last = children[children.length - 1]!;
          const end = Math.min((tree.x[last]! + tree.width(last) - from) * pixels, width);
          if (end - childLeft > LEAST_WIDTH && below > -ROW && below < height) seeRest(Math.max(childLeft, 0), end, below);
          break; // the widest come first
        }
        pending.push(child);
      }
    }
  }

  /** The first child that ends after `x`. */
  private firstSeen(children: Int32Array, x: number): number {
    let low = 0;
    let high = children.length;
    while (low < high) {
      const middle = (low + high) >> 1;
      const child = children[middle]!;
      if (this.tree.x[child]! + this.tree.width(child) > x) high = middle;
      else low = middle + 1;
    }
    return low;
  }

  private outline(context: CanvasRenderingContext2D, width: number, height: number, node: number, line: number): void {
    if (node < 0) return;
    const { from, to } = this.window;
    const pixels = width / (to - from);
    const begin = node === this.tree.root ? 0 : this.tree.x[node]!;
    const share = node === this.tree.root ? 1 : this.tree.width(node);
    const left = Math.max((begin - from) * pixels, 1);
    const right = Math.min((begin + share - from) * pixels, width) - 1;
    context.strokeStyle = this.colours.selection;
    context.lineWidth = line;
    context.strokeRect(left, this.top(this.tree.depth[node]!, height) + 0.5, Math.max(right - left, 2), ROW - 2);
  }

  private nodeAt(x: number, y: number): number {
    const { width, height } = this.surface;
    let found = -1;
    this.visit(width, height, (node, left, right, top) => {
      if (x >= left && x < right && y >= top && y < top + ROW) found = node;
    }, () => {});
    return found;
  }

  private listen(): void {
    const { canvas } = this;
    let touchY: number | null = null;
    canvas.addEventListener("pointermove", (event) => {
      if (touchY !== null) {
        this.scroller.scrollTop -= event.clientY - touchY;
        touchY = event.clientY;
        return;
      }
      const box = canvas.getBoundingClientRect();
      const node = this.nodeAt(event.clientX - box.left, event.clientY - box.top);
      canvas.classList.toggle("over", node >= 0);
      if (node < 0 || node === this.tree.root || this.data === null) {
        this.tooltip.hide();
      } else {
        const { lines, note } = this.data.describe(node, this.tree);
        this.tooltip.show(event.clientX, event.clientY, this.data.name(node), lines, note);
      }
      if (node !== this.hovered) {
        this.hovered = node;
        this.surface.request();
      }
    });
    canvas.addEventListener("pointerleave", () => {
      this.hovered = -1;
      this.tooltip.hide();
      this.surface.request();
    });
    canvas.addEventListener("pointerdown", (event) => {
      if (event.pointerType === "touch") touchY = event.clientY;
    });
    for (const end of ["pointerup", "pointercancel"] as const) canvas.addEventListener(end, () => { touchY = null; });
    canvas.addEventListener("click", (event) => {
      const box = canvas.getBoundingClientRect();
      const node = this.nodeAt(event.clientX - box.left, event.clientY - box.top);
      if (node >= 0) this.choose(node);
    });
    canvas.addEventListener("wheel", (event) => {
      this.scroller.scrollTop += event.deltaY;
      event.preventDefault();
    }, { passive: false });
    canvas.addEventListener("keydown", (event) => {
      if (event.ctrlKey || event.metaKey || event.altKey) return;
      if (this.key(event.key)) event.preventDefault();
    });
    for (const kind of ["focus", "blur"] as const) canvas.addEventListener(kind, () => this.surface.request());
  }

  private key(key: string): boolean {
    const { tree, active } = this;
    const outward = this.isIcicle ? "ArrowUp" : "ArrowDown";
    const inward = this.isIcicle ? "ArrowDown" : "ArrowUp";
    switch (key) {
      case outward: return this.activate(tree.parent[active]!);
      case inward: return this.activate(tree.childrenOf(active)[0] ?? -1);
      case "ArrowLeft": case "ArrowRight": {
        const parent = tree.parent[active]!;
        if (parent < 0) return true;
        const siblings = tree.childrenOf(parent);
        const next = siblings.indexOf(active) + (key === "ArrowLeft" ? -1 : 1);
        return this.activate(siblings[next] ?? -1);
      }
      case "Enter": case " ": this.choose(active); return true;
      case "Escape": case "0": case "Home": this.choose(tree.root); return true;
      default: return false;
    }
  }

  private activate(node: number): boolean {
    if (node < 0 || !(this.tree.weight[node]! > 0)) return true;
    this.active = node;
    const y = this.top(this.tree.depth[node]!, this.surface.height);
    if (y < 0 || y + ROW > this.surface.height) this.scroller.scrollTop += y - this.surface.height / 2;
    this.onActive(this.spoken(node));
    this.surface.request();
    return true;
  }

  private spoken(node: number): string {
    if (this.data === null || node === this.tree.root) return this.data?.whole ?? "";
    const { lines } = this.data.describe(node, this.tree);
    return `${this.data.name(node)}, ${lines.map(([name, value]) => `${name} ${value}`).join(", ")}`;
  }

  private choose(node: number): void {
    // What has the focus already gives it back.
    const next = node === this.focus && node !== this.tree.root ? this.tree.parent[node]! : node;
    this.focusOn(next === this.tree.root ? -1 : next);
    this.onFocus(next === this.tree.root ? -1 : next);
  }
}
