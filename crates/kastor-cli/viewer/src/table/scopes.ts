// Single scopes as a table: the slowest or the earliest of the range that is looked at.

import { button, element } from "../parts/dom";
import type { Paths } from "../model/paths";
import type { Key } from "../model/state";
import { brief } from "../model/text";
import { count, duration, exactDuration } from "../model/units";
import type { View, Viewer } from "../model/viewer";
import type { List } from "../source/contract";
import type { ListQuery } from "../source/source";
import { laneName } from "../timeline/layout";
import { position } from "../timeline/axis";
import { Grid, nextSort, type Column } from "./grid";

const MOST_ROWS = 1000;

export class ScopesView implements View {
  readonly element: HTMLElement;
  private readonly grid: Grid;
  private readonly columns: readonly Column[];
  private readonly note = element("p", { class: "view-note", role: "status" });
  private readonly whole: HTMLButtonElement;
  private list: List = { rows: [], total: 0 };
  private paths: Paths | null = null;
  private lanes = new Map<number, string>();
  private asked = "";

  constructor(private readonly viewer: Viewer) {
    this.columns = this.makeColumns();
    this.grid = new Grid("Single scopes", this.columns, {
      sort: (key) => viewer.store.set({ sort: nextSort(key, this.sort, this.columns) }),
      select: (row) => viewer.store.set({ ref: this.list.rows[row]?.ref ?? "", path: "" }),
      open: (row) => this.inTimeline(row),
    }, false);
    this.whole = button("Whole capture", () => viewer.store.set({ from: null, to: null }), { class: "plain" });
    this.element = element("section", { class: "scopes-view", "aria-label": "Scopes" }, [
      element("div", { class: "view-bar" }, [this.note, this.whole]), this.grid.element,
    ]);
  }

  update(changed: ReadonlySet<Key> | "all"): void {
    const { capture, store, version, range } = this.viewer;
    const key = JSON.stringify([version, capture.index, store.now.filter, this.sort, range]);
    if (key !== this.asked) {
      this.asked = key;
      void this.load(key);
    } else if (changed === "all" || changed.has("search")) {
      this.arrange();
    } else if (changed.has("ref")) {
      this.mark();
    }
  }

  private get sort(): string {
    const { sort } = this.viewer.store.now;
    return ["duration", "-duration", "start", "-start"].includes(sort) ? sort : "-duration";
  }

  private async load(key: string): Promise<void> {
    const { capture, store, range } = this.viewer;
    const { filter } = store.now;
    // In the address "-" is "large ones first"; in the question a plain "duration" is "the slowest first".
    const sorts: Record<string, ListQuery["sort"]> = { "-duration": "duration", duration: "-duration", start: "start", "-start": "-start" };
    const sort = sorts[this.sort] ?? "duration";
    try {
      const query: ListQuery = { capture: capture.index, filter, sort, limit: MOST_ROWS, ...range };
      const [paths, list] = await Promise.all([this.viewer.paths(capture.index), this.viewer.wait(this.viewer.source.list(query))]);
      if (key !== this.asked) return;
      this.paths = paths;
      this.list = list;
      this.lanes = new Map(capture.lanes.map((lane) => [lane.id, laneName(lane)]));
      this.viewer.frame.refuseFilter(null);
      this.arrange();
    } catch (error) {
      if (key !== this.asked) return;
      this.asked = "";
      if (filter !== "") this.viewer.frame.refuseFilter(error instanceof Error ? error.message : String(error));
      else this.viewer.frame.fail(error);
    }
  }

  private arrange(): void {
    const { store } = this.viewer;
    const words = store.now.search.trim().toLowerCase();
    const order: number[] = [];
    this.list.rows.forEach((row, at) => {
      if (words === "" || this.paths!.rawText(row.path).toLowerCase().includes(words)) order.push(at);
    });
    const { rows, total } = this.list;
    const isPart = store.now.from !== null;
    this.whole.hidden = !isPart;
    const where = isPart ? " in the part of the timeline that is seen" : "";
    if (total === null) this.note.textContent = `${count(rows.length)} scopes${where}, of those that were read`;
    else this.note.textContent = rows.length < total ? `${count(rows.length)} of ${count(total)} scopes${where}` : `${count(total)} scopes${where}`;
    this.grid.show({ order }, this.sort, order.length > 0 ? "" : store.now.filter === "" && words === "" ? "There are no scopes here." : "No scope fits.");
    this.mark();
  }

  private mark(): void {
    const { ref } = this.viewer.store.now;
    this.grid.select(ref === "" ? -1 : this.list.rows.findIndex((row) => row.ref === ref));
  }

  private inTimeline(row: number): void {
    const scope = this.list.rows[row];
    if (scope === undefined) return;
    const room = Math.max(scope.durationNs * 0.5, 10);
    this.viewer.store.set({ view: "timeline", ref: scope.ref, path: "", from: scope.startNs - room, to: scope.startNs + scope.durationNs + room });
  }

  private makeColumns(): Column[] {
    return [
      {
        key: "path", title: "Path", width: "minmax(240px, 1fr)", isText: true, isSortable: false,
        fill: (row, cell) => {
          const text = this.paths!.text(this.list.rows[row]!.path);
          cell.append(element("span", { class: "path long", text }));
          cell.title = text;
        },
      },
      {
        key: "duration", title: "Duration", width: "minmax(90px, 120px)",
        fill: (row, cell) => {
          cell.textContent = duration(this.list.rows[row]!.durationNs);
          cell.title = exactDuration(this.list.rows[row]!.durationNs);
        },
      },
      {
        key: "start", title: "Start", width: "minmax(110px, 150px)", hint: "Since the capture began",
        fill: (row, cell) => { cell.textContent = position(this.list.rows[row]!.startNs); },
      },
      {
        key: "lane", title: "Lane", width: "minmax(110px, 180px)", isText: true, isSortable: false,
        fill: (row, cell) => { cell.textContent = this.lanes.get(this.list.rows[row]!.lane) ?? ""; },
      },
      {
        key: "error", title: "Outcome", width: "minmax(110px, 200px)", isText: true, isSortable: false,
        fill: (row, cell) => {
          const { errorType } = this.list.rows[row]!;
          if (errorType !== null) cell.append(element("span", { class: "failed-badge", text: brief(errorType || "failed", 80) }));
        },
      },
    ];
  }
}
