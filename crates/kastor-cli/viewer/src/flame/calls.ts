// The flame graph of one capture.

import { element } from "../parts/dom";
import type { Palette } from "../parts/palette";
import type { Paths } from "../model/paths";
import type { Key } from "../model/state";
import { count, duration, percent } from "../model/units";
import type { View, Viewer } from "../model/viewer";
import type { TreeColumns } from "../source/contract";
import { Flame, type FlameData } from "./flame";
import type { FlameTree } from "./tree";

export class FlameView implements View {
  readonly element: HTMLElement;
  private readonly flame: Flame;
  private readonly note = element("p", { class: "view-note", role: "status" });
  private readonly empty = element("p", { class: "empty" });
  private readonly layouts: HTMLButtonElement[];
  private paths: Paths | null = null;
  private shown = "";

  constructor(private readonly viewer: Viewer) {
    this.flame = new Flame((node) => this.choose(node), (text) => viewer.frame.say(text));
    this.layouts = (["icicle", "flame"] as const).map((layout) => {
      const made = element("button", { type: "button", text: layout === "icicle" ? "Icicle" : "Flame", "data-layout": layout });
      made.addEventListener("click", () => viewer.store.set({ layout }));
      return made;
    });
    const all = element("button", { type: "button", class: "plain", text: "Show all" });
    all.addEventListener("click", () => this.choose(-1));
    this.empty.hidden = true;
    this.element = element("section", { class: "flame-view", "aria-label": "Flame graph" }, [
      element("div", { class: "view-bar" }, [
        element("div", { class: "choice", role: "group", "aria-label": "Direction" }, this.layouts), all, this.note,
      ]),
      this.flame.element,
      this.empty,
    ]);
  }

  update(changed: ReadonlySet<Key> | "all"): void {
    const { store, capture, version } = this.viewer;
    const key = `${version} ${capture.index} ${store.now.filter}`;
    if (key !== this.shown) {
      this.shown = key;
      void this.load(key);
    } else {
      this.look(changed);
    }
  }

  private async load(key: string): Promise<void> {
    const { store, capture } = this.viewer;
    const { filter } = store.now;
    try {
      const [paths, tree] = await Promise.all([this.viewer.paths(capture.index), this.viewer.tree(capture.index, filter)]);
      if (key !== this.shown) return;
      this.paths = paths;
      this.flame.show(data(paths, tree));
      this.empty.hidden = tree.calls.some((calls) => calls > 0);
      this.empty.textContent = filter === "" ? "This capture has no scopes." : "No scope fits the filter.";
      this.viewer.frame.refuseFilter(null);
      this.look("all");
    } catch (error) {
      if (key !== this.shown) return;
      this.shown = "";
      if (filter !== "") this.viewer.frame.refuseFilter(error instanceof Error ? error.message : String(error));
      else this.viewer.frame.fail(error);
    }
  }

  private look(changed: ReadonlySet<Key> | "all"): void {
    const { store } = this.viewer;
    const { layout, search, path } = store.now;
    for (const choice of this.layouts) choice.setAttribute("aria-pressed", String(choice.dataset["layout"] === layout));
    if (this.paths === null) return;
    this.flame.look(this.viewer.isDark, layout, this.paths.matching(search));
    if (changed === "all" || changed.has("path")) this.flame.focusOn(path === "" ? -1 : this.paths.find(path));
    this.note.textContent = search.trim() === "" ? "" : `“${search.trim()}”: ${percent(this.flame.matchedShare())} of the time`;
  }

  private choose(node: number): void {
    this.viewer.store.set({ path: node < 0 ? "" : (this.paths?.rawText(node) ?? ""), ref: "" });
  }
}

function data(paths: Paths, tree: TreeColumns): FlameData {
  const rows = new Int32Array(paths.length).fill(-1);
  tree.path.forEach((path, row) => {
    if (path >= 0 && path < rows.length) rows[path] = row;
  });
  return {
    length: paths.length,
    whole: "all",
    parent: (path) => paths.parent(path),
    self: (path) => tree.selfNs[rows[path]!] ?? 0,
    name: (path) => paths.name(path),
    note: (path, flame) => `${duration(tree.totalNs[rows[path]!] ?? flame.weight[path]!)} · ${percent(flame.width(path))}`,
    colour: (path: number, colours: Palette): string => colours.fills[paths.fill(path)]!,
    describe(path: number, flame: FlameTree) {
      const row = rows[path]!;
      const lines: [string, string][] = [];
      if (row >= 0) {
        const calls = tree.calls[row]!;
        lines.push(["total", duration(tree.totalNs[row]!)], ["self", duration(tree.selfNs[row]!)], ["calls", count(calls)]);
        if (calls > 0) lines.push(["mean call", duration(tree.totalNs[row]! / calls)]);
        if (tree.errors[row]! > 0) lines.push(["failed", count(tree.errors[row]!)]);
      }
      lines.push(["of all", percent(flame.width(path))]);
      const text = paths.text(path);
      return { lines, note: text.length > 300 ? `… ${text.slice(-300)}` : text };
    },
  };
}
