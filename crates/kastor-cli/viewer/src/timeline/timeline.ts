// The timeline: what ran when, on which thread.

import { element, iconButton, ICONS } from "../parts/dom";
import { palette, type Palette } from "../parts/palette";
import { Surface } from "../parts/surface";
import { SMALL_FONT } from "../parts/label";
import { Tooltip } from "../parts/tooltip";
import type { Key } from "../model/state";
import { neutral } from "../model/text";
import { count, duration, quantity } from "../model/units";
import type { View, Viewer } from "../model/viewer";
import type { Series } from "../source/contract";
import { paintArrows } from "./arrows";
import { position } from "./axis";
import type { Boxes } from "./boxes";
import { Camera } from "./camera";
import { listen, type Gestures } from "./gestures";
import { LaneLabels } from "./labels";
import { LanePainter, parts, type Scene } from "./lanes";
import { Layout, ROW, type Item } from "./layout";
import { paintGround, paintOutline, paintRuler } from "./ground";
import { Minimap } from "./minimap";
import { Tiles, type Tile } from "./tiles";
import { Tracks } from "./tracks";

/** Metrics that have a track; all of them stand in the view of metrics. */
const MOST_TRACKS = 40;

interface Hit {
  item: Item;
  boxes: Boxes;
  box: number;
  level: number;
}

export class Timeline implements View, Gestures {
  readonly element: HTMLElement;
  private readonly camera = new Camera();
  private readonly tiles: Tiles;
  private readonly tracks: Tracks;
  private readonly layout = new Layout();
  private readonly painter = new LanePainter();
  private readonly tooltip = new Tooltip();
  private readonly surface: Surface;
  private readonly ruler: Surface;
  private readonly minimap: Minimap;
  private readonly laneLabels: LaneLabels;
  private readonly scroller = element("div", { class: "scroller", tabindex: "-1" });
  private readonly extent = element("div", { class: "extent" });
  private readonly canvas: HTMLCanvasElement;
  private readonly status = element("p", { class: "empty" });
  private readonly note = element("p", { class: "lanes-note", role: "status" });
  private colours: Palette;
  private series: Series[] = [];
  private matches: Uint8Array | null = null;
  private hovered: { x: number; y: number } | null = null;
  private marked: { from: number; to: number } | null = null;
  private laidOut = "";
  private hasArrows = true;
  private isPlaced = false;

  constructor(private readonly viewer: Viewer, private readonly onFirstPicture: () => void) {
    this.colours = palette(viewer.isDark);
    this.canvas = element("canvas", {
      class: "lanes", tabindex: "0", role: "application", "aria-roledescription": "timeline",
      "aria-label": "Timeline of scopes. W and S zoom, A and D move, shift with arrows walks from scope to scope, enter opens.",
    });
    const rulerCanvas = element("canvas", { class: "ruler", "aria-hidden": "true" });
    const mapCanvas = element("canvas", { class: "minimap", "aria-hidden": "true", title: "The whole capture: drag to choose a part" });
    const mapBox = element("div", { class: "map-box" }, [mapCanvas]);
    const rulerBox = element("div", { class: "ruler-box" }, [rulerCanvas]);
    const lanesBox = element("div", { class: "lanes-box" }, [this.canvas]);
    const arrows = element("button", { type: "button", class: "toggle", text: "Arrows", "aria-pressed": "true", title: "Show where a context was carried from thread to thread" });
    arrows.addEventListener("click", () => {
      this.hasArrows = !this.hasArrows;
      arrows.setAttribute("aria-pressed", String(this.hasArrows));
      this.surface.request();
    });
    const corner = element("div", { class: "corner", role: "toolbar", "aria-label": "Timeline" }, [
      iconButton("Zoom in (W)", ICONS.zoomIn, () => this.zoom(0.5)),
      iconButton("Zoom out (S)", ICONS.zoomOut, () => this.zoom(2)),
      iconButton("Show the whole capture (0)", ICONS.whole, () => this.whole()),
      arrows,
    ]);
    this.scroller.append(this.extent);
    this.status.hidden = this.note.hidden = true;
    this.element = element("section", { class: "timeline", "aria-label": "Timeline" }, [
      corner, mapBox, rulerBox, this.scroller, lanesBox, this.status, this.note,
    ]);
    this.laneLabels = new LaneLabels(this.extent, (key) => {
      this.layout.fold(key);
      this.relayout(true);
    });
    this.tiles = new Tiles(viewer, () => this.arrived());
    this.tracks = new Tracks(viewer, () => this.trackArrived());
    this.surface = new Surface((context, width, height) => this.paint(context, width, height), this.canvas, lanesBox, () => this.relayout());
    this.ruler = new Surface((context, width, height) => paintRuler(context, width, height, this.camera, this.colours), rulerCanvas, rulerBox);
    this.minimap = new Minimap(mapBox, mapCanvas, this.camera, () => this.moved());
    this.scroller.addEventListener("scroll", () => this.scrolled());
    // An address with a range says what is to be seen; a selected scope need not be in it.
    this.isPlaced = viewer.store.now.from !== null;
    listen(this.canvas, this);
    listen(rulerCanvas, { ...delegates(this), click: () => {}, doubleClick: () => this.whole(), hover: () => {}, leave: () => {} });
  }

  update(changed: ReadonlySet<Key> | "all"): void {
    const { store, capture } = this.viewer;
    this.colours = palette(this.viewer.isDark);
    const isAll = changed === "all";
    if (isAll || changed.has("capture")) {
      this.camera.bound(capture.durationNs);
      this.laidOut = "";
      this.layout.forget();
      void this.learn();
    }
    if (isAll || changed.has("capture") || changed.has("from") || changed.has("to")) this.follow();
    if (isAll || changed.has("search") || changed.has("capture")) {
      this.matches = this.viewer.pathsNow(capture.index)?.matching(store.now.search) ?? null;
    }
    if (!isAll && changed.has("ref") && store.now.ref !== "") this.isPlaced = false;
    this.relayout();
    this.request();
  }

  /** Shows a range with a little room around it. */
  private show(from: number, to: number): void {
    const room = Math.max((to - from) * 0.15, 5);
    this.camera.go({ from: from - room, to: to + room });
    this.moved();
  }

  // What hands do.

  zoom(factor: number, share = 0.5): void {
    this.camera.zoom(factor, share);
    this.moved();
  }

  drag(x: number, y: number): void {
    this.camera.pan(-x / Math.max(this.surface.width, 1), true);
    this.scroller.scrollTop -= y;
    this.moved();
  }

  pan(share: number): void {
    this.camera.pan(share);
    this.moved();
  }

  scroll(pixels: number): void {
    this.scroller.scrollTop += pixels;
  }

  whole(): void {
    this.camera.goWhole();
    this.moved();
  }

  mark(fromX: number, toX: number, isDone: boolean): void {
    this.marked = { from: Math.min(fromX, toX), to: Math.max(fromX, toX) };
    if (isDone) {
      this.camera.go({ from: this.timeAt(this.marked.from), to: this.timeAt(this.marked.to) });
      this.marked = null;
      this.moved();
    }
    this.request();
  }

  hover(x: number, y: number): void {
    this.hovered = { x, y };
    this.describe();
    this.request();
  }

  leave(): void {
    this.hovered = null;
    this.tooltip.hide();
    this.request();
  }

  click(x: number, y: number): void {
    const hit = this.hit(x, y);
    if (hit === null) {
      this.viewer.store.set({ ref: "", path: "" });
      return;
    }
    const many = hit.boxes.count[hit.box]! > 1;
    if (many || hit.boxes.refs[hit.box] === "") this.show(hit.boxes.start[hit.box]!, hit.boxes.end[hit.box]!);
    else this.select(hit.boxes, hit.box);
  }

  doubleClick(x: number, y: number): void {
    const hit = this.hit(x, y);
    if (hit !== null) this.show(hit.boxes.start[hit.box]!, hit.boxes.end[hit.box]!);
  }

  walk(along: number, across: number): void {
    const selected = this.selected();
    if (selected === null) {
      this.selectFirst();
      return;
    }
    const { boxes, box, level, lane } = selected;
    let next = -1;
    let target = boxes;
    let targetLane = lane;
    if (along !== 0) {
      const candidate = box + along;
      if (candidate >= boxes.begins[level]! && candidate < boxes.begins[level + 1]!) next = candidate;
    } else {
      const tile = this.tiles.best(this.camera);
      const time = Math.max(boxes.start[box]!, this.camera.from);
      next = boxes.at(level + across, across > 0 ? time : boxes.start[box]!, across > 0 ? boxes.end[box]! - time : 0);
      if (next < 0 && tile !== null) {
        // Beyond the lane's last row, the nearest of the next lane.
        const order = this.layout.items.flatMap((item) => (item.kind === "lane" ? [item.lane.id] : []));
        targetLane = order[order.indexOf(lane) + across] ?? lane;
        target = tile.lanes.get(targetLane) ?? boxes;
        if (target !== boxes) next = target.at(across > 0 ? 0 : target.levels - 1, time, this.camera.span);
      }
    }
    if (next < 0) {
      this.viewer.frame.say("no further scope here");
      return;
    }
    this.select(target, next);
    this.reveal(targetLane, target.levelOf(next), target.start[next]!, target.end[next]!);
  }

  open(): void {
    const selected = this.selected();
    if (selected !== null) this.show(selected.boxes.start[selected.box]!, selected.boxes.end[selected.box]!);
    else this.selectFirst();
  }

  cancel(): void {
    this.marked = null;
    this.viewer.store.set({ ref: "", path: "" });
    this.request();
  }

  // What follows from it.

  private select(boxes: Boxes, box: number): void {
    const paths = this.viewer.pathsNow(this.viewer.capture.index);
    const ref = boxes.refs[box] ?? "";
    this.isPlaced = true;
    this.viewer.store.set({ ref, path: "" });
    const name = paths?.name(boxes.path[box]!) ?? "";
    const failed = boxes.failed[box]! > 0 ? ", failed" : "";
    const many = boxes.count[box]! > 1 ? `, ${count(boxes.count[box]!)} scopes` : "";
    this.viewer.frame.say(`${name}${many}, ${duration(boxes.end[box]! - boxes.start[box]!)}${failed}`);
  }

  private selectFirst(): void {
    const tile = this.tiles.best(this.camera);
    for (const item of this.layout.items) {
      if (item.kind !== "lane" || tile === null) continue;
      const boxes = tile.lanes.get(item.lane.id);
      const box = boxes?.at(0, this.camera.from, this.camera.span) ?? -1;
      if (boxes === undefined || box < 0) continue;
      this.select(boxes, box);
      return;
    }
  }

  private selected(): { boxes: Boxes; box: number; level: number; lane: number } | null {
    const { ref } = this.viewer.store.now;
    if (ref === "") return null;
    for (const [tile] of parts(this.tiles, this.camera)) {
      for (const [lane, boxes] of tile.lanes) {
        const box = boxes.find(ref);
        if (box >= 0) return { boxes, box, level: boxes.levelOf(box), lane };
      }
    }
    return null;
  }

  /** Scrolls and moves until a scope is seen. */
  private reveal(lane: number, level: number, from: number, to: number): void {
    if (this.layout.reveal(lane, level)) this.relayout(true);
    const item = this.layout.items[this.layout.places.get(lane) ?? -1];
    if (item !== undefined) {
      const y = item.top + level * ROW;
      const { scrollTop } = this.scroller;
      if (y < scrollTop || y + ROW > scrollTop + this.surface.height) this.scroller.scrollTop = y - this.surface.height / 3;
    }
    const { aimed } = this.camera;
    const span = aimed.to - aimed.from;
    if (to < aimed.from || from > aimed.to || to - from > span * 4 || to - from < span / 400) this.show(from, to);
  }

  private moved(): void {
    const { aimed } = this.camera;
    this.viewer.store.set(this.camera.isWhole ? { from: null, to: null } : { from: aimed.from, to: aimed.to });
    this.request();
  }

  private follow(): void {
    const { from, to } = this.viewer.store.now;
    const { aimed } = this.camera;
    if (from === null || to === null) {
      if (!this.camera.isWhole || this.viewer.overview.live || aimed.to - aimed.from <= 1) this.camera.goWhole();
      if (this.tiles.whole === null) this.camera.jump(this.camera.aimed);
    } else if (Math.abs(from - aimed.from) > 1 || Math.abs(to - aimed.to) > 1) {
      if (this.tiles.whole === null) this.camera.jump({ from, to });
      else this.camera.go({ from, to });
    }
  }

  private async learn(): Promise<void> {
    const { capture } = this.viewer;
    try {
      const [paths, metrics] = await Promise.all([
        this.viewer.paths(capture.index),
        capture.metrics > 0 ? this.viewer.metrics(capture.index) : Promise.resolve({ series: [] }),
      ]);
      if (capture !== this.viewer.capture) return;
      this.matches = paths.matching(this.viewer.store.now.search);
      this.series = metrics.series.filter((one) => one.type !== "histogram").slice(0, MOST_TRACKS);
      this.relayout(true);
    } catch (error) {
      this.viewer.frame.fail(error);
    }
  }

  private arrived(): void {
    const { whole, detail } = this.tiles;
    for (const tile of [whole, detail]) {
      if (tile === null || tile.isDensity) continue;
      for (const lane of tile.moreLanes) {
        if (this.layout.seeLane(lane)) this.laidOut = "";
      }
      for (const [lane, boxes] of tile.lanes) {
        if (this.layout.see(lane, boxes.levels)) this.laidOut = "";
      }
    }
    this.relayout();
    this.request();
    if (whole !== null) this.placeSelected();
  }

  /** A series with a single value has no course to draw: the view of metrics shows it. */
  private trackArrived(): void {
    const drawn = this.series.filter((one) => !this.tracks.isFlat(one.id));
    if (drawn.length < this.series.length) {
      this.series = drawn;
      this.relayout(true);
    }
    this.surface.request();
  }

  /** A scope that was chosen elsewhere, or that the address names, is brought into sight. */
  private placeSelected(): void {
    const { ref } = this.viewer.store.now;
    if (this.isPlaced || ref === "") return;
    this.isPlaced = true;
    void this.viewer.source.scope(this.viewer.capture.index, ref).then(
      ({ lane, level, startNs, durationNs }) => {
        if (lane !== null && level !== null) this.reveal(lane, level, startNs, startNs + durationNs);
        else this.show(startNs, startNs + durationNs);
      },
      () => {}, // the panel beside tells what is wrong with it
    );
  }

  private relayout(isNew = false): void {
    const { capture, version } = this.viewer;
    const key = `${version} ${capture.index} ${this.series.length}`;
    if (isNew || key !== this.laidOut) {
      this.laidOut = key;
      this.layout.make(capture, this.series);
      this.extent.style.height = `${this.layout.height}px`;
    }
    this.scrolled();
    if (!this.isPlaced && this.tiles.whole !== null) this.placeSelected();
  }

  private scrolled(): void {
    const { scrollTop } = this.scroller;
    // The pictures stand beside the scroll bar, not below it.
    this.element.style.setProperty("--scrollbar", `${this.scroller.offsetWidth - this.scroller.clientWidth}px`);
    this.laneLabels.show(this.layout, scrollTop - 100, scrollTop + Math.max(this.surface.height, 400) + 100);
    this.request();
  }

  private request(): void {
    this.surface.request();
    this.ruler.request();
  }

  private timeAt(x: number): number {
    return this.camera.from + (x / Math.max(this.surface.width, 1)) * this.camera.span;
  }

  private hit(x: number, y: number): Hit | null {
    const top = y + this.scroller.scrollTop;
    const item = this.layout.items[this.layout.at(top)];
    if (item?.kind !== "lane") return null;
    const level = Math.floor((top - item.top - 3) / ROW);
    if (level < 0 || level >= item.rows) return null;
    const time = this.timeAt(x);
    const tolerance = (3 / Math.max(this.surface.width, 1)) * this.camera.span;
    for (const [tile, from, to] of parts(this.tiles, this.camera)) {
      if (time < from - tolerance || time > to + tolerance) continue;
      const boxes = tile.lanes.get(item.lane.id);
      const box = boxes?.at(level, time, tolerance) ?? -1;
      if (boxes !== undefined && box >= 0) return { item, boxes, box, level };
    }
    return null;
  }

  private describe(): void {
    if (this.hovered === null) return;
    const { x, y } = this.hovered;
    const hit = this.hit(x, y);
    this.canvas.classList.toggle("over", hit !== null);
    const bounds = this.canvas.getBoundingClientRect();
    const [left, top] = [bounds.left + x, bounds.top + y];
    if (hit === null) {
      this.describeTrack(left, top);
      return;
    }
    const { boxes, box } = hit;
    const paths = this.viewer.pathsNow(this.viewer.capture.index);
    const many = boxes.count[box]!;
    const path = boxes.path[box]!;
    const isDensity = path < 0 && boxes.refs[box] === "";
    const lines: [string, string][] = [];
    if (isDensity) lines.push(["records", count(many)]);
    else if (many > 1) lines.push(["scopes", count(many)]);
    lines.push([many > 1 ? "spanning" : "duration", duration(boxes.end[box]! - boxes.start[box]!)], ["start", position(boxes.start[box]!)]);
    if (boxes.failed[box]! > 0) lines.push(many > 1 ? ["failed", count(boxes.failed[box]!)] : ["outcome", "failed"]);
    const title = isDensity ? "Not read yet" : (paths?.name(path) ?? "…");
    const note = isDensity ? "Zoom in to see scopes." : many > 1 ? "Click to zoom in." : (paths?.text(path) ?? "");
    this.tooltip.show(left, top, title, lines, note === title ? "" : shortened(note));
  }

  private describeTrack(left: number, top: number): void {
    const item = this.hovered === null ? undefined : this.layout.items[this.layout.at(this.hovered.y + this.scroller.scrollTop)];
    if (item?.kind !== "track" || this.hovered === null) {
      this.tooltip.hide();
      return;
    }
    const time = this.timeAt(this.hovered.x);
    const value = this.tracks.valueAt(item.series.id, time);
    if (value === null) {
      this.tooltip.hide();
      return;
    }
    this.tooltip.show(left, top, item.name, [["value", quantity(value, item.series.unit)], ["at", position(time)]], neutral(item.series.help ?? ""));
  }

  // What is drawn.

  private paint(context: CanvasRenderingContext2D, width: number, height: number): void {
    const isMoving = this.camera.step();
    this.tiles.want(this.camera.aimed, Math.ceil(width * Math.min(this.surface.scale, 2)));
    const scene: Scene = {
      range: { from: this.camera.from, to: this.camera.to },
      width, height, scrollTop: this.scroller.scrollTop, scale: this.surface.scale,
      palette: this.colours, layout: this.layout, tiles: this.tiles,
      paths: this.viewer.pathsNow(this.viewer.capture.index), matches: this.matches,
    };
    paintGround(context, scene, this.viewer.capture.durationNs);
    this.painter.paint(context, scene);
    this.tracks.paint(context, scene);
    const chosen = this.selected();
    if (this.hasArrows) {
      const arrows = this.tiles.best(this.camera)?.arrows ?? [];
      const [start, end] = chosen === null ? [NaN, NaN] : [chosen.boxes.start[chosen.box]!, chosen.boxes.end[chosen.box]!];
      paintArrows(context, scene, arrows, (arrow) =>
        chosen !== null &&
        ((arrow.toLane === chosen.lane && arrow.toLevel === chosen.level && arrow.toNs >= start && arrow.toNs <= end) ||
          (arrow.fromLane === chosen.lane && arrow.fromLevel === chosen.level && arrow.fromNs >= start && arrow.fromNs <= end)));
    }
    if (chosen !== null) paintOutline(context, scene, chosen.lane, chosen.boxes, chosen.box, chosen.level, 2);
    this.pointer(context, scene);
    this.tell(scene);
    this.minimap.show(this.tiles.whole, this.viewer.capture.durationNs, this.colours);
    if (isMoving) this.request();
    if (this.tiles.whole !== null) this.onFirstPicture();
  }

  private pointer(context: CanvasRenderingContext2D, scene: Scene): void {
    if (this.marked !== null) {
      const { from, to } = this.marked;
      context.globalAlpha = 0.15;
      context.fillStyle = this.colours.selection;
      context.fillRect(from, 0, to - from, scene.height);
      context.globalAlpha = 1;
      context.font = SMALL_FONT;
      context.fillStyle = this.colours.text;
      context.textBaseline = "middle";
      context.fillText(duration(this.timeAt(to) - this.timeAt(from)), from + 6, 12);
    }
    if (this.hovered === null) return;
    context.fillStyle = this.colours.strongLine;
    context.fillRect(Math.round(this.hovered.x), 0, 1, scene.height);
    const hit = this.hit(this.hovered.x, this.hovered.y);
    if (hit !== null && hit.item.kind === "lane") paintOutline(context, scene, hit.item.lane.id, hit.boxes, hit.box, hit.level, 1.5);
  }

  /** Says so where there is nothing to draw. */
  private tell(scene: Scene): void {
    const { whole } = this.tiles;
    const { capture, store } = this.viewer;
    let text = "";
    if (whole === null) text = "Reading…";
    else if (capture.scopes === 0 && capture.lanes.length === 0) text = "This capture has no scopes.";
    else if (store.now.filter !== "" && isEmpty(whole)) text = "No scope fits the filter.";
    put(this.status, text);
    const shown = scene.tiles.best(this.camera);
    put(this.note, shown?.isDensity
      ? "Seen from afar: how much was recorded when. Zoom in to see scopes."
      : shown?.truncated ? "There is more here than can be drawn: deeper levels are left out. Zoom in to see them." : "");
  }
}

function put(place: HTMLElement, text: string): void {
  if (place.textContent !== text) place.textContent = text;
  place.hidden = text === "";
}

function isEmpty(tile: Tile): boolean {
  for (const boxes of tile.lanes.values()) {
    if (boxes.start.length > 0) return false;
  }
  return true;
}

/** The end of a path says most. */
function shortened(text: string): string {
  return text.length > 300 ? `… ${text.slice(-300)}` : text;
}

function delegates(timeline: Timeline): Gestures {
  return {
    zoom: (factor, share) => timeline.zoom(factor, share),
    drag: (x) => timeline.drag(x, 0),
    pan: (share) => timeline.pan(share),
    scroll: (pixels) => timeline.scroll(pixels),
    click: () => {},
    doubleClick: () => {},
    hover: () => {},
    leave: () => {},
    mark: (from, to, isDone) => timeline.mark(from, to, isDone),
    whole: () => timeline.whole(),
    walk: () => {},
    open: () => {},
    cancel: () => timeline.cancel(),
  };
}
