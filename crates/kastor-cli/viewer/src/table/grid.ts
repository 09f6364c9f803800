// A table of any length: only the rows that are seen exist. Rows are numbers; columns say what stands in them.
//
// It is one stop for the tab key; inside, arrows move, left and right fold and unfold, enter opens.

import { element } from "../parts/dom";

export const ROW = 27;
/** Browsers end a page's height somewhere above this many rows. */
const MOST_ROWS = 500_000;
const SPARE = 8;
/** Pixels between columns and beside all of them, at most: as the style sheet has it. */
const GAP = 10;
const EDGE = 30;

export interface Column {
  key: string;
  title: string;
  hint?: string;
  /** A width of a CSS grid. */
  width: string;
  isText?: boolean;
  /** Whether the header sorts by it; first by large values, texts by small ones. */
  isSortable?: boolean;
  fill(row: number, cell: HTMLElement): void;
}

export interface Rows {
  /** What is shown, from top to bottom. */
  order: ArrayLike<number>;
  level?(row: number): number;
  /** Null for rows with nothing inside. */
  isOpen?(row: number): boolean | null;
  isFaint?(row: number): boolean;
}

export interface GridActions {
  sort(key: string): void;
  select(row: number): void;
  open?(row: number): void;
  toggle?(row: number): void;
}

export class Grid {
  readonly element: HTMLElement;
  private readonly header = element("div", { class: "grid-header", role: "row", "aria-rowindex": "1" });
  private readonly body = element("div", { class: "grid-body", role: "rowgroup" });
  private readonly note = element("p", { class: "grid-note" });
  private rows: Rows = { order: [] };
  private selected = -1;
  private readonly shown = new Map<number, HTMLElement>();
  private frame = 0;
  private readonly id = `grid-${Math.random().toString(36).slice(2, 8)}`;

  constructor(name: string, private readonly columns: readonly Column[], private readonly actions: GridActions, isTree: boolean) {
    const inner = element("div", { class: "grid-inner", role: "presentation" }, [
      element("div", { class: "grid-head", role: "rowgroup" }, [this.header]), this.body, this.note,
    ]);
    this.element = element("div", { class: "grid", role: isTree ? "treegrid" : "grid", tabindex: "0", "aria-label": name }, [inner]);
    this.element.style.setProperty("--columns", columns.map((column) => column.width).join(" "));
    // As wide as its columns have to be at least; what stands in them makes no row wider than the others.
    const least = columns.reduce((sum, { width }) => sum + Number(/\d+/.exec(width)?.[0] ?? 0) + GAP, EDGE);
    this.element.style.setProperty("--least", `${least}px`);
    this.header.append(...columns.map((column, at) => this.headerCell(column, at)));
    this.note.hidden = true;
    this.element.addEventListener("scroll", () => this.request());
    new ResizeObserver(() => this.request()).observe(this.element);
    this.element.addEventListener("keydown", (event) => {
      if (event.target !== this.element || event.ctrlKey || event.metaKey || event.altKey) return;
      if (this.key(event.key)) event.preventDefault();
    });
    this.body.addEventListener("click", (event) => this.clicked(event));
    this.body.addEventListener("dblclick", (event) => {
      const row = rowOf(event);
      if (row >= 0) (this.actions.open ?? this.actions.toggle)?.(row);
    });
  }

  /** Shows other rows. The selected row and, where it can be, the place stay. */
  show(rows: Rows, sort: string, note = ""): void {
    this.rows = rows;
    const length = Math.min(rows.order.length, MOST_ROWS);
    this.body.style.height = `${length * ROW}px`;
    const more = rows.order.length > length ? `The first ${MOST_ROWS.toLocaleString("en-US")} rows are shown. ` : "";
    this.note.textContent = more + note;
    this.note.hidden = this.note.textContent === "";
    this.element.setAttribute("aria-rowcount", String(length + 1));
    this.sortMarks(sort);
    this.clear();
    this.paint();
  }

  /** Marks a row; scrolls there if asked to. */
  select(row: number, isRevealed = false): void {
    const before = this.selected;
    this.selected = row;
    for (const one of [before, row]) this.shown.get(one)?.classList.toggle("selected", one === row);
    this.shown.get(before)?.setAttribute("aria-selected", "false");
    this.shown.get(row)?.setAttribute("aria-selected", "true");
    if (isRevealed) this.reveal(row);
    this.active();
  }

  /** The rows are drawn anew with what their columns say now. */
  repaint(): void {
    this.clear();
    this.paint();
  }

  private headerCell(column: Column, at: number): HTMLElement {
    const cell = element("div", {
      role: "columnheader", class: column.isText ? "cell text" : "cell", "data-column": column.key, "aria-colindex": String(at + 1),
    });
    if (column.isSortable === false) {
      cell.append(element("span", { text: column.title, ...(column.hint ? { title: column.hint } : {}) }));
      return cell;
    }
    const sort = element("button", { type: "button", text: column.title, ...(column.hint ? { title: column.hint } : {}) });
    sort.addEventListener("click", () => this.actions.sort(column.key));
    cell.append(sort);
    return cell;
  }

  private sortMarks(sort: string): void {
    const key = sort.replace(/^-/, "");
    for (const cell of this.header.children) {
      const isSorted = (cell as HTMLElement).dataset["column"] === key;
      if (isSorted) cell.setAttribute("aria-sort", sort.startsWith("-") ? "descending" : "ascending");
      else cell.removeAttribute("aria-sort");
    }
  }

  private request(): void {
    if (this.frame !== 0) return;
    this.frame = requestAnimationFrame(() => {
      this.frame = 0;
      this.paint();
    });
  }

  private clear(): void {
    this.shown.clear();
    this.body.replaceChildren();
  }

  private paint(): void {
    const height = this.element.clientHeight;
    if (height === 0) return;
    const { scrollTop } = this.element;
    const length = Math.min(this.rows.order.length, MOST_ROWS);
    const first = Math.max(0, Math.min(Math.floor(scrollTop / ROW) - SPARE, length));
    const last = Math.min(length, Math.ceil((scrollTop + height) / ROW) + SPARE);
    const wanted = new Set<number>();
    for (let at = first; at < last; at += 1) wanted.add(this.rows.order[at]!);
    for (const [row, node] of this.shown) {
      if (wanted.has(row)) continue;
      node.remove();
      this.shown.delete(row);
    }
    for (let at = first; at < last; at += 1) {
      const row = this.rows.order[at]!;
      if (this.shown.has(row)) continue;
      const node = this.rowNode(row, at);
      this.shown.set(row, node);
      this.body.append(node);
    }
    this.active();
  }

  private rowNode(row: number, at: number): HTMLElement {
    const { rows } = this;
    const node = element("div", {
      role: "row", class: "grid-row", id: `${this.id}-${row}`, "data-row": String(row), "aria-rowindex": String(at + 2),
      "aria-selected": String(row === this.selected),
    });
    node.style.top = `${at * ROW}px`;
    if (row === this.selected) node.classList.add("selected");
    if (rows.isFaint?.(row)) node.classList.add("faint");
    if (at % 2 === 1) node.classList.add("odd");
    const level = rows.level?.(row);
    const isOpen = rows.isOpen?.(row) ?? null;
    if (level !== undefined) node.setAttribute("aria-level", String(level + 1));
    if (isOpen !== null) node.setAttribute("aria-expanded", String(isOpen));
    this.columns.forEach((column, index) => {
      const cell = element("div", {
        role: index === 0 ? "rowheader" : "gridcell", class: column.isText ? "cell text" : "cell", "aria-colindex": String(index + 1),
      });
      if (index === 0 && level !== undefined) {
        // Deep rows are not moved out of sight: from some level on the level itself is told.
        cell.style.setProperty("--level", String(Math.min(level, 30)));
        cell.append(element("span", {
          class: isOpen === null ? "twig" : "twig fold", "aria-hidden": "true", text: isOpen === null ? "" : isOpen ? "▾" : "▸",
        }));
        if (level > 30) cell.append(element("span", { class: "deep", text: `${level} ` }));
      }
      column.fill(row, cell);
      node.append(cell);
    });
    return node;
  }

  private active(): void {
    if (this.shown.has(this.selected)) this.element.setAttribute("aria-activedescendant", `${this.id}-${this.selected}`);
    else this.element.removeAttribute("aria-activedescendant");
  }

  private clicked(event: MouseEvent): void {
    const row = rowOf(event);
    if (row < 0) return;
    if ((event.target as HTMLElement).classList.contains("fold")) {
      this.actions.toggle?.(row);
      return;
    }
    this.select(row);
    this.actions.select(row);
  }

  private key(key: string): boolean {
    const { order } = this.rows;
    const length = Math.min(order.length, MOST_ROWS);
    const at = Array.prototype.indexOf.call(order, this.selected);
    const page = Math.max(1, Math.floor(this.element.clientHeight / ROW) - 2);
    const go = (next: number): boolean => {
      const row = order[Math.max(0, Math.min(length - 1, next))];
      if (row === undefined) return true;
      this.select(row, true);
      this.actions.select(row);
      return true;
    };
    const isOpen = at < 0 ? null : (this.rows.isOpen?.(this.selected) ?? null);
    switch (key) {
      case "ArrowDown": return go(at + 1);
      case "ArrowUp": return go(at < 0 ? 0 : at - 1);
      case "PageDown": return go(at + page);
      case "PageUp": return go(at - page);
      case "Home": return go(0);
      case "End": return go(length - 1);
      case "ArrowRight":
        if (isOpen === false) this.actions.toggle?.(this.selected);
        else if (isOpen === true) go(at + 1);
        return true;
      case "ArrowLeft":
        if (isOpen === true) this.actions.toggle?.(this.selected);
        else if (at > 0 && this.rows.level !== undefined) {
          const level = this.rows.level(this.selected);
          for (let above = at - 1; above >= 0; above -= 1) {
            if (this.rows.level(order[above]!) < level) return go(above);
          }
        }
        return true;
      case "Enter": case " ":
        if (at >= 0) (this.actions.open ?? this.actions.toggle)?.(this.selected);
        return true;
      default: return false;
    }
  }

  private reveal(row: number): void {
    const at = Array.prototype.indexOf.call(this.rows.order, row);
    if (at < 0) return;
    const top = at * ROW;
    const head = this.header.offsetHeight;
    const { scrollTop, clientHeight } = this.element;
    if (top < scrollTop) this.element.scrollTop = top;
    else if (top + ROW + head > scrollTop + clientHeight) this.element.scrollTop = top + ROW + head - clientHeight;
    this.paint();
  }
}

function rowOf(event: MouseEvent): number {
  const row = (event.target as HTMLElement).closest<HTMLElement>(".grid-row")?.dataset["row"];
  return row === undefined ? -1 : Number(row);
}

/** The next order when a header is pressed: the other way round if it was this column already. */
export function nextSort(key: string, now: string, columns: readonly Column[]): string {
  if (now === key) return `-${key}`;
  if (now === `-${key}`) return key;
  return columns.find((column) => column.key === key)?.isText ? key : `-${key}`;
}

/** The search words in a name, marked. */
export function marked(name: string, words: string): Node[] {
  const wanted = words.trim().toLowerCase();
  const at = wanted === "" ? -1 : name.toLowerCase().indexOf(wanted);
  if (at < 0) return [document.createTextNode(name)];
  return [
    document.createTextNode(name.slice(0, at)),
    element("mark", { text: name.slice(at, at + wanted.length) }),
    document.createTextNode(name.slice(at + wanted.length)),
  ];
}
