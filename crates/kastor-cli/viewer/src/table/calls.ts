// The call tree as a table: every column sorts it, as a tree or each path alone.

import { button, element } from "../parts/dom";
import type { Paths } from "../model/paths";
import type { Key } from "../model/state";
import { count, duration, exactDuration, percent } from "../model/units";
import type { View, Viewer } from "../model/viewer";
import type { TreeColumns } from "../source/contract";
import { Forest } from "./forest";
import { Grid, marked, nextSort, type Column } from "./grid";

/** Rows that are open at first. */
const FIRST_ROWS = 60;
/** Opening everything stops here. */
const MOST_OPEN = 200_000;

type Number = "calls" | "errors" | "totalNs" | "selfNs" | "minNs" | "maxNs" | "p50Ns" | "p95Ns" | "p99Ns";

export class CallsView implements View {
  readonly element: HTMLElement;
  private readonly grid: Grid;
  private readonly columns: readonly Column[];
  private readonly shapes: HTMLButtonElement[];
  private readonly note = element("p", { class: "view-note", role: "status" });
  private readonly tools: HTMLElement;
  private paths: Paths | null = null;
  private tree: TreeColumns | null = null;
  private rows = new Int32Array(0);
  private allNs = 0;
  private forest: Forest | null = null;
  private open = new Set<number>();
  private shown = "";

  constructor(private readonly viewer: Viewer) {
    this.columns = this.makeColumns();
    this.grid = new Grid("Calls by path", this.columns, {
      sort: (key) => viewer.store.set({ sort: nextSort(key, this.sort, this.columns) }),
      select: (path) => viewer.store.set({ path: this.paths?.rawText(path) ?? "", ref: "" }),
      toggle: (path) => this.toggle(path),
    }, true);
    this.shapes = (["tree", "flat"] as const).map((shape) => {
      const made = element("button", { type: "button", text: shape === "tree" ? "Tree" : "Flat", "data-shape": shape });
      made.addEventListener("click", () => viewer.store.set({ shape }));
      return made;
    });
    this.tools = element("span", { class: "tools" }, [
      button("Open all", () => this.openAll(true), { class: "plain" }),
      button("Fold all", () => this.openAll(false), { class: "plain" }),
    ]);
    this.element = element("section", { class: "calls-view", "aria-label": "Calls" }, [
      element("div", { class: "view-bar" }, [
        element("div", { class: "choice", role: "group", "aria-label": "Rows" }, this.shapes), this.tools, this.note,
      ]),
      this.grid.element,
    ]);
  }

  update(changed: ReadonlySet<Key> | "all"): void {
    const { store, capture, version } = this.viewer;
    const key = `${version} ${capture.index} ${store.now.filter}`;
    if (key !== this.shown) {
      this.shown = key;
      void this.load(key);
    } else if (changed === "all" || ["sort", "search", "shape"].some((one) => changed.has(one as Key))) {
      this.arrange();
    } else if (changed.has("path")) {
      this.mark();
    }
  }

  private get sort(): string {
    const { sort } = this.viewer.store.now;
    const key = sort.replace(/^-/, "");
    return this.columns.some((column) => column.key === key) ? sort : "-total";
  }

  private async load(key: string): Promise<void> {
    const { store, capture } = this.viewer;
    const { filter } = store.now;
    try {
      const [paths, tree] = await Promise.all([this.viewer.paths(capture.index), this.viewer.tree(capture.index, filter)]);
      if (key !== this.shown) return;
      this.paths = paths;
      this.tree = tree;
      this.rows = new Int32Array(paths.length).fill(-1);
      this.allNs = 0;
      tree.path.forEach((path, row) => {
        if (path < 0 || path >= paths.length) return;
        this.rows[path] = row;
        if (paths.parent(path) < 0) this.allNs += tree.totalNs[row]!;
      });
      this.open.clear();
      this.viewer.frame.refuseFilter(null);
      this.arrange();
      this.openFirst();
    } catch (error) {
      if (key !== this.shown) return;
      this.shown = "";
      if (filter !== "") this.viewer.frame.refuseFilter(error instanceof Error ? error.message : String(error));
      else this.viewer.frame.fail(error);
    }
  }

  private number(path: number, what: Number): number {
    const row = this.rows[path] ?? -1;
    return row < 0 ? -1 : (this.tree?.[what][row] ?? -1);
  }

  private share(path: number): number {
    const parent = this.paths?.parent(path) ?? -1;
    const all = parent < 0 ? this.allNs : this.number(parent, "totalNs");
    const own = this.number(path, "totalNs");
    return own < 0 || all <= 0 ? Number.NaN : own / all;
  }

  private compare(): (one: number, other: number) => number {
    const { sort, paths } = this;
    const sign = sort.startsWith("-") ? -1 : 1;
    const value = this.valueOf(sort.replace(/^-/, ""));
    if (value === null) return (one, other) => sign * (paths!.name(one) < paths!.name(other) ? -1 : paths!.name(one) > paths!.name(other) ? 1 : one - other);
    return (one, other) => sign * ((value(one) || 0) - (value(other) || 0)) || one - other;
  }

  private valueOf(key: string): ((path: number) => number) | null {
    const numbers: Record<string, Number> = {
      calls: "calls", errors: "errors", total: "totalNs", self: "selfNs", min: "minNs", max: "maxNs", p50: "p50Ns", p95: "p95Ns", p99: "p99Ns",
    };
    const number = numbers[key];
    if (number !== undefined) return (path) => this.number(path, number);
    if (key === "share") return (path) => this.share(path);
    if (key === "mean") return (path) => this.number(path, "totalNs") / Math.max(this.number(path, "calls"), 1);
    return null;
  }

  private arrange(): void {
    const { paths, tree } = this;
    if (paths === null || tree === null) return;
    const { search, shape } = this.viewer.store.now;
    for (const choice of this.shapes) choice.setAttribute("aria-pressed", String(choice.dataset["shape"] === shape));
    this.tools.hidden = shape === "flat";
    const matches = paths.matching(search);
    const compare = this.compare();
    const isWanted = (path: number): boolean => this.rows[path]! >= 0 && this.number(path, "calls") > 0 && (matches === null || matches[path] === 1);
    const found = matches === null ? "" : `${count(countOf(paths.length, isWanted))} paths match.`;
    const isExact = tree.exact ? "" : "Percentiles are of the scopes that fit the filter.";
    this.note.textContent = [found, isExact].filter((text) => text !== "").join(" ");
    const empty = tree.path.length > 0 ? "" : this.viewer.store.now.filter === "" ? "This capture has no scopes." : "No scope fits the filter.";
    if (shape === "flat") {
      this.forest = null;
      const order = Int32Array.from({ length: paths.length }, (_, path) => path).filter(isWanted).sort(compare);
      this.grid.show({ order }, this.sort, empty || (order.length === 0 ? "No path fits the search." : ""));
    } else {
      this.forest = new Forest({ length: paths.length, parent: (path) => paths.parent(path), compare, isWanted });
      if (matches !== null) this.openMatches(isWanted);
      this.refold(empty, matches);
    }
    this.mark();
  }

  private refold(note = "", matches: Uint8Array | null = this.paths?.matching(this.viewer.store.now.search) ?? null): void {
    const { forest } = this;
    if (forest === null) return;
    const order = forest.order((path) => this.open.has(path));
    this.grid.show({
      order,
      level: (path) => forest.depth[path]!,
      isOpen: (path) => (forest.hasChildren[path] === 0 ? null : this.open.has(path)),
      isFaint: (path) => matches !== null && matches[path] !== 1,
    }, this.sort, note || (order.length === 0 ? "No path fits the search." : ""));
  }

  /** At first everything that takes much of the time is open. */
  private openFirst(): void {
    const { forest, paths } = this;
    if (forest === null || paths === null) return;
    let rows = forest.roots.length;
    const waiting = Array.from(forest.roots);
    while (waiting.length > 0 && rows < FIRST_ROWS) {
      let largest = 0;
      for (let at = 1; at < waiting.length; at += 1) {
        if (this.number(waiting[at]!, "totalNs") > this.number(waiting[largest]!, "totalNs")) largest = at;
      }
      const [path] = waiting.splice(largest, 1);
      if (path === undefined || forest.hasChildren[path] === 0) continue;
      const children = forest.childrenOf(path);
      if (rows + children.length > FIRST_ROWS * 4) continue;
      this.open.add(path);
      rows += children.length;
      waiting.push(...children);
    }
    this.refold();
    this.mark();
  }

  private openMatches(isWanted: (path: number) => boolean): void {
    const { paths } = this;
    if (paths === null) return;
    for (let path = 0; path < paths.length && this.open.size < MOST_OPEN; path += 1) {
      if (!isWanted(path)) continue;
      for (let above = paths.parent(path); above >= 0 && !this.open.has(above); above = paths.parent(above)) this.open.add(above);
    }
  }

  private openAll(isOpen: boolean): void {
    this.open.clear();
    const length = this.paths?.length ?? 0;
    for (let path = 0; isOpen && path < length && this.open.size < MOST_OPEN; path += 1) {
      if (this.forest?.hasChildren[path] === 1) this.open.add(path);
    }
    this.refold();
  }

  private toggle(path: number): void {
    if (this.forest === null || this.forest.hasChildren[path] === 0) return;
    if (!this.open.delete(path)) this.open.add(path);
    this.refold();
  }

  private mark(): void {
    const { path } = this.viewer.store.now;
    const found = path === "" ? -1 : (this.paths?.find(path) ?? -1);
    let isNew = false;
    for (let above = found < 0 ? -1 : this.paths!.parent(found); above >= 0; above = this.paths!.parent(above)) {
      if (!this.open.has(above)) {
        this.open.add(above);
        isNew = true;
      }
    }
    if (isNew && this.forest !== null) this.refold();
    this.grid.select(found, isNew);
  }

  private makeColumns(): Column[] {
    const time = (key: string, title: string, what: Number, hint: string): Column => ({
      key, title, hint, width: "minmax(76px, 92px)",
      fill: (path, cell) => {
        const ns = this.number(path, what);
        cell.textContent = ns < 0 ? "" : duration(ns);
        if (ns >= 0) cell.title = exactDuration(ns);
      },
    });
    return [
      {
        key: "name", title: "Path", width: "minmax(220px, 1fr)", isText: true,
        fill: (path, cell) => {
          const { store } = this.viewer;
          const isFlat = store.now.shape === "flat";
          const name = isFlat ? this.paths!.text(path) : this.paths!.name(path);
          cell.append(element("span", { class: isFlat ? "path long" : "path" }, marked(name, store.now.search)));
          cell.title = this.paths!.text(path);
        },
      },
      { key: "calls", title: "Calls", width: "minmax(64px, 92px)", hint: "Scopes that closed", fill: (path, cell) => number(cell, this.number(path, "calls")) },
      {
        key: "errors", title: "Failed", width: "minmax(58px, 76px)", hint: "Scopes that failed",
        fill: (path, cell) => {
          const errors = this.number(path, "errors");
          if (errors > 0) cell.append(element("span", { class: "failed-badge", text: count(errors) }));
          else number(cell, errors);
        },
      },
      time("total", "Total", "totalNs", "Time in the scope and everything inside it"),
      {
        key: "share", title: "Of parent", width: "minmax(96px, 130px)", hint: "Share of the parent's total; beyond 100 % where children ran side by side",
        fill: (path, cell) => {
          const share = this.share(path);
          if (Number.isNaN(share)) return;
          const bar = element("span", { class: "bar", "aria-hidden": "true" });
          bar.style.setProperty("--share", String(Math.min(share, 1)));
          cell.append(bar, element("span", { class: "over-bar", text: percent(share) }));
        },
      },
      time("self", "Self", "selfNs", "Total less the total of the calls inside"),
      {
        key: "mean", title: "Mean", width: "minmax(76px, 92px)", hint: "Total by calls",
        fill: (path, cell) => {
          const calls = this.number(path, "calls");
          cell.textContent = calls > 0 ? duration(this.number(path, "totalNs") / calls) : "";
        },
      },
      time("min", "Min", "minNs", "The shortest call"),
      time("p50", "p50", "p50Ns", "Half of the calls took no longer"),
      time("p95", "p95", "p95Ns", "95 % of the calls took no longer"),
      time("p99", "p99", "p99Ns", "99 % of the calls took no longer"),
      time("max", "Max", "maxNs", "The longest call"),
    ];
  }
}

function number(cell: HTMLElement, value: number): void {
  cell.textContent = value < 0 ? "" : count(value);
  if (value === 0) cell.classList.add("zero");
}

function countOf(length: number, isWanted: (at: number) => boolean): number {
  let found = 0;
  for (let at = 0; at < length; at += 1) if (isWanted(at)) found += 1;
  return found;
}
