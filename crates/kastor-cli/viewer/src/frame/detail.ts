// The panel at the side: everything about one scope, or the sums of one path.

import { button, copy, element, iconButton, ICONS } from "../parts/dom";
import type { Key } from "../model/state";
import { neutral } from "../model/text";
import { count, duration, exactDuration, moment, percent, unixNs } from "../model/units";
import type { Viewer } from "../model/viewer";
import type { Attribute, ScopeDetail } from "../source/contract";
import { laneName } from "../timeline/layout";
import { position } from "../timeline/axis";

/** Longer values are shown in part; what is copied is whole. */
const MOST_SHOWN = 2000;
const MOST_ROWS = 500;

export class Detail {
  readonly element: HTMLElement;
  private readonly title = element("h2", { text: "" });
  private readonly content = element("div", { class: "detail-content" });
  private shown = "";
  private text = "";

  constructor(private readonly viewer: Viewer) {
    const head = element("header", {}, [
      this.title,
      iconButton("Copy all of it", ICONS.copy, () => void this.copy(this.text, "Copied.")),
      iconButton("Close", ICONS.close, () => viewer.store.set({ ref: "", path: "" })),
    ]);
    this.element = element("aside", { class: "detail", "aria-label": "Details" }, [head, this.content]);
    this.element.hidden = true;
    this.element.addEventListener("keydown", (event) => {
      if (event.key === "Escape") viewer.store.set({ ref: "", path: "" });
    });
  }

  update(changed: ReadonlySet<Key> | "all"): void {
    const { ref, path, filter, view } = this.viewer.store.now;
    const { capture, version } = this.viewer;
    const key = JSON.stringify(ref !== "" ? [version, capture.index, ref] : path !== "" ? [version, capture.index, filter, path, view === "compare"] : "");
    if (key === this.shown && changed !== "all") return;
    this.shown = key;
    this.element.hidden = ref === "" && path === "";
    if (ref !== "") void this.showScope(key, ref);
    else if (path !== "") void this.showPath(key, path);
  }

  private async showScope(key: string, ref: string): Promise<void> {
    const { capture } = this.viewer;
    try {
      const [paths, scope] = await Promise.all([this.viewer.paths(capture.index), this.viewer.source.scope(capture.index, ref)]);
      if (key !== this.shown) return;
      const path = paths.text(scope.path);
      const lane = scope.lane === null ? undefined : capture.lanes.find((one) => one.id === scope.lane);
      const process = capture.processes.find((one) => one.id === scope.process);
      const facts: [string, string, string?][] = [
        ["Duration", duration(scope.durationNs), exactDuration(scope.durationNs)],
        ["Start", position(scope.startNs), exactDuration(scope.startNs)],
        ["Time", moment(unixNs(scope.startUnixNs))],
        ["Lane", lane === undefined ? neutral(scope.threadName ?? "") || String(scope.thread) : laneName(lane)],
        ["Process", process === undefined ? String(scope.process) : `${neutral(process.label)} (pid ${process.pid})`],
        ["Depth", count(scope.depth)],
        ["Trace", neutral(scope.traceId)],
        ["Scope id", neutral(scope.spanId)],
        ...(scope.parentSpanId === null ? [] : [["Parent id", neutral(scope.parentSpanId)] as [string, string]]),
      ];
      this.title.textContent = paths.name(scope.path);
      this.text = scopeText(path, facts, scope);
      const { parentRef } = scope;
      this.content.replaceChildren(
        this.pathLine(path),
        ...(scope.errorType === null ? [] : [failure(scope.errorType)]),
        this.facts(facts),
        element("div", { class: "actions" }, [
          button("Show in timeline", () => this.inTimeline(scope, ref)),
          parentRef === null || parentRef === "" ? null : button("Go to parent", () => this.go(parentRef)),
          button("Calls of this path", () => this.viewer.store.set({ view: "calls", ref: "", path: paths.rawText(scope.path) })),
        ]),
        ...this.attributes("Attributes", scope.attributes),
        ...this.events(scope),
        ...this.links(scope),
        ...this.children(scope),
        ...((scope.droppedItems ?? 0) > 0 ? [element("p", { class: "soft", text: `${count(scope.droppedItems!)} attributes, events or links were dropped when it was recorded.` })] : []),
      );
    } catch (error) {
      if (key === this.shown) this.fail("Scope", error);
    }
  }

  private async showPath(key: string, text: string): Promise<void> {
    const { capture, store } = this.viewer;
    try {
      const { filter } = store.now;
      const [paths, tree] = await Promise.all([this.viewer.paths(capture.index), this.viewer.tree(capture.index, filter)]);
      if (key !== this.shown) return;
      const path = paths.find(text);
      const row = path < 0 ? -1 : tree.path.indexOf(path);
      const shown = neutral(text);
      const facts: [string, string, string?][] = [];
      if (row >= 0) {
        const calls = tree.calls[row]!;
        const total = tree.totalNs[row]!;
        const time = (name: string, ns: number): void => void facts.push([name, duration(ns), exactDuration(ns)]);
        facts.push(["Calls", count(calls)]);
        if (tree.errors[row]! > 0) facts.push(["Failed", `${count(tree.errors[row]!)} (${percent(tree.errors[row]! / Math.max(calls, 1))})`]);
        time("Total", total);
        time("Self", tree.selfNs[row]!);
        if (calls > 0) time("Mean", total / calls);
        time("Min", tree.minNs[row]!);
        time("p50", tree.p50Ns[row]!);
        time("p95", tree.p95Ns[row]!);
        time("p99", tree.p99Ns[row]!);
        time("Max", tree.maxNs[row]!);
      }
      this.title.textContent = path < 0 ? (shown.split(".").pop() ?? shown) : paths.name(path);
      this.text = [shown, ...facts.map(([name, value]) => `${name}\t${value}`)].join("\n");
      const term = `path:${quoted(text)}`;
      this.content.replaceChildren(
        this.pathLine(shown),
        facts.length > 0 ? this.facts(facts) : element("p", { class: "soft", text: "Nothing with this path has closed here." }),
        element("div", { class: "actions" }, [
          button("In timeline", () => store.set({ view: "timeline", filter: term })),
          button("Slowest scopes", () => store.set({ view: "scopes", filter: term, sort: "-duration" })),
          button("Flame graph", () => store.set({ view: "flame" })),
        ]),
      );
    } catch (error) {
      if (key === this.shown) this.fail("Path", error);
    }
  }

  private pathLine(path: string): HTMLElement {
    const shown = path.length > MOST_SHOWN ? `… ${path.slice(-MOST_SHOWN)}` : path;
    return element("p", { class: "path-line" }, [
      element("code", { text: shown }),
      iconButton("Copy the path", ICONS.copy, () => void this.copy(path, "Path copied."), { class: "small" }),
    ]);
  }

  private facts(facts: readonly [string, string, string?][]): HTMLElement {
    return element("dl", { class: "facts" }, facts.flatMap(([name, value, exact]) => [
      element("dt", { text: name }), element("dd", exact === undefined ? { text: value } : { text: value, title: exact }),
    ]));
  }

  private attributes(title: string, attributes: readonly Attribute[]): HTMLElement[] {
    if (attributes.length === 0) return [];
    return [element("h3", { text: title }), this.table(attributes)];
  }

  private table(attributes: readonly Attribute[]): HTMLElement {
    const rows = attributes.slice(0, MOST_ROWS).map(([key, type, value]) => {
      const text = String(value);
      const harmless = neutral(text);
      const copyable = iconButton(`Copy ${neutral(key)}`, ICONS.copy, () => void this.copy(text, "Value copied."), { class: "small" });
      const filter = iconButton(`Only scopes with this ${neutral(key)}`, ICONS.filter, () => this.add(`attr:${quoted(`${key}=${text}`)}`), { class: "small" });
      return element("tr", {}, [
        element("th", { scope: "row", text: neutral(key) }),
        element("td", { class: type, title: type }, [
          element("span", { class: "value", text: harmless.length > MOST_SHOWN ? `${harmless.slice(0, MOST_SHOWN)}…` : harmless }),
          element("span", { class: "row-tools" }, [filter, copyable]),
        ]),
      ]);
    });
    if (attributes.length > MOST_ROWS) {
      rows.push(element("tr", {}, [element("td", { colspan: "2", text: `and ${count(attributes.length - MOST_ROWS)} more` })]));
    }
    return element("table", { class: "attributes" }, [element("tbody", {}, rows)]);
  }

  private events(scope: ScopeDetail): HTMLElement[] {
    if (scope.events.length === 0) return [];
    const items = scope.events.slice(0, MOST_ROWS).map((event) =>
      element("li", {}, [
        element("p", {}, [
          element("b", { text: neutral(event.name) }),
          element("span", { class: "soft", text: ` after ${duration(event.atNs - scope.startNs)}` }),
        ]),
        event.attributes.length > 0 ? this.table(event.attributes) : null,
      ]));
    return [element("h3", { text: `Events (${count(scope.events.length)})` }), element("ol", { class: "events" }, items)];
  }

  private links(scope: ScopeDetail): HTMLElement[] {
    if (scope.links.length === 0) return [];
    const items = scope.links.slice(0, MOST_ROWS).map(({ traceId, spanId }) => element("li", {}, [element("code", { text: `${neutral(traceId)} / ${neutral(spanId)}` })]));
    return [element("h3", { text: `Links (${count(scope.links.length)})` }), element("ul", { class: "links" }, items)];
  }

  private children(scope: ScopeDetail): HTMLElement[] {
    const refs = scope.childRefs ?? [];
    if (refs.length === 0) return [];
    return [element("div", { class: "actions" }, [button(`Go to first of ${count(refs.length)} inside`, () => this.go(refs[0]!))])];
  }

  private inTimeline(scope: ScopeDetail, ref: string): void {
    const room = Math.max(scope.durationNs * 0.5, 10);
    this.viewer.store.set({ view: "timeline", ref, from: scope.startNs - room, to: scope.startNs + scope.durationNs + room });
  }

  private go(ref: string): void {
    this.viewer.store.set({ ref, path: "" });
  }

  private add(term: string): void {
    const { filter } = this.viewer.store.now;
    if (!filter.includes(term)) this.viewer.store.set({ filter: `${filter} ${term}`.trim() });
  }

  private fail(title: string, error: unknown): void {
    this.title.textContent = title;
    this.text = "";
    this.content.replaceChildren(element("p", { class: "soft", text: neutral(error instanceof Error ? error.message : String(error)) }));
  }

  private async copy(text: string, said: string): Promise<void> {
    this.viewer.frame.say((await copy(text)) ? said : "The browser did not allow to copy.");
  }
}

/** The value of a filter's term, in quotes where it needs them; a quote itself can only be "any character". */
function quoted(text: string): string {
  return /[\s":]/.test(text) || text === "" ? `"${text.replaceAll('"', "?")}"` : text;
}

function failure(type: string): HTMLElement {
  return element("p", { class: "failure" }, [element("span", { class: "failed-badge", text: "failed" }), ` ${neutral(type).slice(0, MOST_SHOWN)}`]);
}

function scopeText(path: string, facts: readonly [string, string, string?][], scope: ScopeDetail): string {
  const lines = [path];
  if (scope.errorType !== null) lines.push(`failed\t${neutral(scope.errorType)}`);
  for (const [name, value, exact] of facts) lines.push(`${name}\t${exact ?? value}`);
  for (const [key, , value] of scope.attributes) lines.push(`${neutral(key)}\t${neutral(String(value))}`);
  for (const event of scope.events) {
    lines.push(`event ${neutral(event.name)}\t+${event.atNs - scope.startNs} ns`);
    for (const [key, , value] of event.attributes) lines.push(`  ${neutral(key)}\t${neutral(String(value))}`);
  }
  for (const link of scope.links) lines.push(`link\t${neutral(link.traceId)}/${neutral(link.spanId)}`);
  return lines.join("\n");
}
