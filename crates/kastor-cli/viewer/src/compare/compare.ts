// Two captures side by side: a flame graph coloured by what changed, and a table with a judgement for each path.

import { element } from "../parts/dom";
import { changeColour } from "../parts/palette";
import { Flame, type FlameData } from "../flame/flame";
import type { Key } from "../model/state";
import { neutral } from "../model/text";
import { change, count, duration } from "../model/units";
import type { View, Viewer } from "../model/viewer";
import type { DiffRow, Judgement, Side } from "../source/contract";
import { Grid, marked, nextSort, type Column } from "../table/grid";

const WORDS: Record<Judgement, string> = {
  slower: "slower", faster: "faster", same: "same", new: "new", gone: "gone", few: "few calls", unclear: "unclear",
};
/** The order of a sort by judgement: what needs looking at first. */
const WEIGHT: Record<Judgement, number> = { slower: 6, new: 5, faster: 4, gone: 3, unclear: 2, few: 1, same: 0 };

export class CompareView implements View {
  readonly element: HTMLElement;
  private readonly flame: Flame;
  private readonly grid: Grid;
  private readonly columns: readonly Column[];
  private readonly note = element("p", { class: "view-note", role: "status" });
  private readonly legend: HTMLElement;
  private readonly chips: HTMLButtonElement[];
  private rows: DiffRow[] = [];
  private only: Judgement | null = null;
  private shown = "";

  constructor(private readonly viewer: Viewer) {
    this.flame = new Flame((node) => this.choose(node), (text) => viewer.frame.say(text));
    this.columns = this.makeColumns();
    this.grid = new Grid("Changes by path", this.columns, {
      sort: (key) => viewer.store.set({ sort: nextSort(key, this.sort, this.columns) }),
      select: (row) => this.choose(row),
    }, false);
    this.chips = (["slower", "faster", "new", "gone", "unclear", "few", "same"] as const).map((judgement) => {
      const made = element("button", { type: "button", class: `chip ${judgement}`, "aria-pressed": "false", "data-judgement": judgement });
      made.addEventListener("click", () => {
        this.only = this.only === judgement ? null : judgement;
        this.arrange();
      });
      return made;
    });
    const steps = [-0.5, -0.2, -0.08, 0, 0.08, 0.25, 1].map((ratio) => {
      const step = element("span", { class: "legend-step" });
      step.dataset["ratio"] = String(ratio);
      return step;
    });
    this.legend = element("div", { class: "legend", role: "img", "aria-label": "Colours from blue, faster, over grey, same, to orange, slower" }, [
      element("span", { text: "faster" }), ...steps, element("span", { text: "slower" }),
    ]);
    this.element = element("section", { class: "compare-view", "aria-label": "Comparison" }, [
      element("div", { class: "view-bar" }, [
        element("div", { class: "chips", role: "group", "aria-label": "Show only" }, this.chips), this.legend, this.note,
      ]),
      this.flame.element,
      this.grid.element,
    ]);
  }

  update(changed: ReadonlySet<Key> | "all"): void {
    const { store, version } = this.viewer;
    const key = `${version} ${store.now.filter}`;
    if (key !== this.shown) {
      this.shown = key;
      void this.load(key);
      return;
    }
    if (changed === "all" || changed.has("sort") || changed.has("search")) this.arrange();
    this.look(changed);
  }

  private get sort(): string {
    const { sort } = this.viewer.store.now;
    const key = sort.replace(/^-/, "");
    return this.columns.some((column) => column.key === key) ? sort : "-judgement";
  }

  private async load(key: string): Promise<void> {
    const { filter } = this.viewer.store.now;
    try {
      const diff = await this.viewer.diff(filter);
      if (key !== this.shown) return;
      this.rows = diff.rows;
      this.flame.show(this.data());
      this.viewer.frame.refuseFilter(null);
      this.arrange();
      this.look("all");
    } catch (error) {
      if (key !== this.shown) return;
      this.shown = "";
      if (filter !== "") this.viewer.frame.refuseFilter(error instanceof Error ? error.message : String(error));
      else this.viewer.frame.fail(error);
    }
  }

  private look(changed: ReadonlySet<Key> | "all"): void {
    const { layout, search, path } = this.viewer.store.now;
    for (const step of this.legend.querySelectorAll<HTMLElement>(".legend-step")) {
      step.style.background = changeColour(this.viewer.isDark, Number(step.dataset["ratio"]));
    }
    this.flame.look(this.viewer.isDark, layout, this.matching(search));
    if (changed === "all" || changed.has("path")) {
      const row = path === "" ? -1 : this.rows.findIndex((one) => one.path === path);
      this.flame.focusOn(row);
      this.grid.select(row, row >= 0);
    }
  }

  private matching(search: string): Uint8Array | null {
    const words = search.trim().toLowerCase();
    if (words === "") return null;
    return Uint8Array.from(this.rows, (row) => (row.path.toLowerCase().includes(words) ? 1 : 0));
  }

  private arrange(): void {
    const { search } = this.viewer.store.now;
    const matches = this.matching(search);
    const numbers = new Map<Judgement, number>();
    for (const row of this.rows) {
      if (row.judgement !== null) numbers.set(row.judgement, (numbers.get(row.judgement) ?? 0) + 1);
    }
    for (const chip of this.chips) {
      const judgement = chip.dataset["judgement"] as Judgement;
      const number = numbers.get(judgement) ?? 0;
      chip.textContent = `${WORDS[judgement]} ${count(number)}`;
      chip.hidden = number === 0;
      chip.setAttribute("aria-pressed", String(this.only === judgement));
    }
    const sign = this.sort.startsWith("-") ? -1 : 1;
    const value = valueOf(this.sort.replace(/^-/, ""));
    const order = this.rows.map((_, at) => at).filter((at) => {
      const row = this.rows[at]!;
      return (row.base !== null || row.new !== null) && (matches === null || matches[at] === 1) && (this.only === null || row.judgement === this.only);
    });
    order.sort((one, other) => {
      const [left, right] = [value(this.rows[one]!), value(this.rows[other]!)];
      const by = left < right ? -1 : left > right ? 1 : 0;
      return sign * by || impact(this.rows[other]!) - impact(this.rows[one]!) || one - other;
    });
    const [now, base] = this.viewer.overview.captures;
    this.note.textContent = base === undefined ? "" : `${neutral(base.label)} → ${neutral(now?.label ?? "")}`;
    this.grid.show({ order }, this.sort, order.length > 0 ? "" : "No path fits.");
  }

  private choose(row: number): void {
    this.viewer.store.set({ path: this.rows[row]?.path ?? "", ref: "" });
  }

  private data(): FlameData {
    const { rows } = this;
    return {
      length: rows.length,
      whole: "all",
      parent: (row) => rows[row]!.parent,
      // As wide as the larger side, so that neither what is new nor what is gone disappears.
      self: (row) => Math.max(rows[row]!.base?.selfNs ?? 0, rows[row]!.new?.selfNs ?? 0),
      name: (row) => neutral(rows[row]!.name) || "(empty)",
      note(row) {
        const { base, new: now } = rows[row]!;
        return base === null || now === null ? "" : `${duration(base.totalNs)} → ${duration(now.totalNs)}`;
      },
      colour: (row, palette) => changeColour(palette.isDark, shownChange(rows[row]!)),
      describe(row) {
        const { base, new: now, judgement, changeRatio } = rows[row]!;
        const lines: [string, string][] = [];
        if (judgement !== null) lines.push(["judgement", WORDS[judgement]]);
        if (changeRatio !== null) lines.push(["mean call", change(changeRatio)]);
        lines.push(["total", `${side(base, (one) => one.totalNs)} → ${side(now, (one) => one.totalNs)}`]);
        lines.push(["self", `${side(base, (one) => one.selfNs)} → ${side(now, (one) => one.selfNs)}`]);
        lines.push(["calls", `${base === null ? "–" : count(base.calls)} → ${now === null ? "–" : count(now.calls)}`]);
        return { lines, note: neutral(rows[row]!.path).slice(-300) };
      },
    };
  }

  private makeColumns(): Column[] {
    const { viewer } = this;
    const pair = (key: string, title: string, hint: string, of: (one: Side) => number, text: (value: number) => string): Column => ({
      key, title, hint, width: "minmax(130px, 170px)",
      fill: (at, cell) => {
        const { base, new: now } = this.rows[at]!;
        const [left, right] = [base === null ? "–" : text(of(base)), now === null ? "–" : text(of(now))];
        cell.append(element("span", { class: "before", text: left }), element("span", { class: "to", text: " → " }), element("span", { text: right }));
      },
    });
    return [
      {
        key: "path", title: "Path", width: "minmax(240px, 1fr)", isText: true,
        fill: (at, cell) => {
          const text = neutral(this.rows[at]!.path);
          cell.append(element("span", { class: "path long" }, marked(text, viewer.store.now.search)));
          cell.title = text.slice(-1000);
        },
      },
      {
        key: "judgement", title: "Judgement", width: "minmax(90px, 110px)", isText: true, hint: "As `kastor diff` judges: a change that is no noise, and reaches the threshold",
        fill: (at, cell) => {
          const { judgement } = this.rows[at]!;
          if (judgement !== null) cell.append(element("span", { class: `judgement ${judgement}`, text: WORDS[judgement] }));
        },
      },
      {
        key: "change", title: "Change", width: "minmax(84px, 100px)", hint: "Of the mean call",
        fill: (at, cell) => {
          const { changeRatio } = this.rows[at]!;
          cell.textContent = changeRatio === null ? "" : change(changeRatio);
        },
      },
      {
        key: "interval", title: "Between", width: "minmax(130px, 160px)", hint: "The interval in which the true change lies", isSortable: false,
        fill: (at, cell) => {
          const { lowRatio, highRatio } = this.rows[at]!;
          if (typeof lowRatio === "number" && typeof highRatio === "number") cell.textContent = `${change(lowRatio)} … ${change(highRatio)}`;
        },
      },
      pair("mean", "Mean call", "Total by calls", (one) => one.totalNs / Math.max(one.calls, 1), duration),
      pair("self", "Self", "Total less the calls inside", (one) => one.selfNs, duration),
      pair("total", "Total", "Time in the scope and everything inside it", (one) => one.totalNs, duration),
      pair("calls", "Calls", "Scopes that closed", (one) => one.calls, count),
      pair("errors", "Failed", "Scopes that failed", (one) => one.errors, count),
    ];
  }
}

/** What the colour shows: a change that was judged to be one. */
function shownChange(row: DiffRow): number {
  switch (row.judgement) {
    case "slower": case "faster": return row.changeRatio ?? 0;
    case "new": return 1;
    case "gone": return -0.5;
    default: return 0;
  }
}

/** By how much time a path changed. */
function impact(row: DiffRow): number {
  return Math.abs((row.new?.totalNs ?? 0) - (row.base?.totalNs ?? 0));
}

function valueOf(key: string): (row: DiffRow) => number | string {
  const of = (what: (one: Side) => number) => (row: DiffRow): number => (row.new === null ? 0 : what(row.new)) || (row.base === null ? 0 : what(row.base));
  switch (key) {
    case "path": return (row) => row.path;
    case "change": return (row) => row.changeRatio ?? -Infinity;
    case "mean": return of((one) => one.totalNs / Math.max(one.calls, 1));
    case "self": return of((one) => one.selfNs);
    case "total": return of((one) => one.totalNs);
    case "calls": return of((one) => one.calls);
    case "errors": return of((one) => one.errors);
    default: return (row) => (row.judgement === null ? -1 : WEIGHT[row.judgement]);
  }
}

function side(one: Side | null, of: (side: Side) => number): string {
  return one === null ? "–" : duration(of(one));
}

