// The page around the views: its header, its boxes for filter and search, the panel at the side.

import { button, element, icon, iconButton, ICONS } from "../parts/dom";
import type { Key, Store, ViewName } from "../model/state";
import { neutral } from "../model/text";
import { Viewer, type Frame, type View } from "../model/viewer";
import { SourceError, type Source } from "../source/source";
import { CompareView } from "../compare/compare";
import { FlameView } from "../flame/calls";
import { MetricsView } from "../metrics/metrics";
import { CallsView } from "../table/calls";
import { ScopesView } from "../table/scopes";
import { Timeline } from "../timeline/timeline";
import { Detail } from "./detail";
import { captureFacts } from "./facts";
import { Help } from "./help";
import { openInPerfetto } from "./perfetto";
import { apply, isDark, next, onSystemChange } from "./theme";

const TABS: readonly [ViewName, string, string][] = [
  ["timeline", "Timeline", "What ran when"],
  ["flame", "Flame graph", "How the time of all calls is shared out"],
  ["calls", "Calls", "The call tree as a table"],
  ["scopes", "Scopes", "The slowest single scopes"],
  ["metrics", "Metrics", "Counters, gauges, distributions"],
  ["compare", "Compare", "What changed between the two captures"],
];
/** A filter is asked for when the reader pauses. */
const TYPE_PAUSE_MS = 350;
const MESSAGE_MS = 6000;

export class Page implements Frame {
  readonly viewer: Viewer;
  private readonly views = new Map<ViewName, View>();
  private readonly detail: Detail;
  private readonly help = new Help();
  private readonly tabs = new Map<ViewName, HTMLButtonElement>();
  private readonly tabList = element("div", { class: "tabs", role: "tablist", "aria-label": "Views" });
  private readonly main = element("div", { class: "main", id: "main" });
  private readonly facts = element("div", { class: "facts-line" });
  private readonly captures = element("div", { class: "choice captures", role: "group", "aria-label": "Capture" });
  private readonly filter = element("input", {
    type: "search", placeholder: "Filter:  path:db.*  error  duration>1ms", "aria-label": "Filter", spellcheck: "false", autocomplete: "off", id: "filter",
    "aria-describedby": "filter-error",
  });
  private readonly filterError = element("p", { class: "filter-error", id: "filter-error", role: "alert" });
  private readonly search = element("input", {
    type: "search", placeholder: "Search names", "aria-label": "Search names", spellcheck: "false", autocomplete: "off", id: "search",
  });
  private readonly themeButton: HTMLButtonElement;
  private readonly spoken = element("p", { class: "spoken", role: "status", "aria-live": "polite" });
  private readonly alert = element("div", { class: "alert", role: "alert" });
  private readonly progress = element("div", { class: "progress", "aria-hidden": "true" });
  private hiding: number | undefined;

  constructor(private readonly root: HTMLElement, source: Source, private readonly store: Store, private readonly onFirstPicture: () => void) {
    this.viewer = new Viewer(source, store, this);
    this.detail = new Detail(this.viewer);
    this.themeButton = iconButton("Theme", ICONS.auto, () => store.set({ theme: next(store.now.theme) }));
    this.applyTheme();
    this.build();
    this.listen();
  }

  /** Asks for the capture and shows it. */
  async start(): Promise<void> {
    try {
      await this.viewer.wait(this.viewer.refresh());
      if (this.viewer.overview.captures.length === 0) throw new SourceError("There is no capture to show.");
    } catch (error) {
      this.main.replaceChildren(element("div", { class: "empty large" }, [
        element("h2", { text: "Nothing to show" }), element("p", { text: message(error) }),
      ]));
      return;
    }
    this.captureChoice();
    this.showView("all");
    if (this.viewer.overview.live) void this.live();
  }

  // What views ask of the page.

  say(text: string): void {
    this.spoken.textContent = text;
    this.toast(text, false);
  }

  fail(error: unknown): void {
    if (error === null || error === undefined) {
      this.alert.hidden = true;
      return;
    }
    this.toast(message(error), true);
  }

  refuseFilter(refusal: string | null): void {
    this.filterError.textContent = refusal === null ? "" : neutral(refusal);
    this.filterError.hidden = refusal === null;
    this.filter.setAttribute("aria-invalid", String(refusal !== null));
  }

  busy(isBusy: boolean): void {
    this.progress.classList.toggle("busy", isBusy);
    this.main.setAttribute("aria-busy", String(isBusy));
  }

  // What the page is made of.

  private build(): void {
    this.filterError.hidden = true;
    this.alert.hidden = true;
    for (const [name, title, hint] of TABS) {
      const tab = element("button", { type: "button", role: "tab", class: "tab", text: title, title: hint, id: `tab-${name}`, "aria-controls": "main", "aria-selected": "false" });
      tab.addEventListener("click", () => this.store.set({ view: name, sort: "" }));
      this.tabs.set(name, tab);
      this.tabList.append(tab);
    }
    this.tabList.addEventListener("keydown", (event) => this.tabKey(event));
    const perfetto = element("button", { type: "button", class: "with-icon", title: "Send this capture to Perfetto's page, in a window of its own" }, [icon(ICONS.out), "Perfetto"]);
    perfetto.addEventListener("click", () => void this.perfetto());
    perfetto.hidden = !this.viewer.source.hasPerfetto;
    const boxed = (input: HTMLInputElement, path: string): HTMLElement => element("div", { class: `box box-${input.id}` }, [icon(path), input]);
    const header = element("header", { class: "top" }, [
      element("div", { class: "brand" }, [element("h1", { text: "kastor" }), this.captures, this.facts]),
      element("div", { class: "tools" }, [perfetto, this.themeButton, iconButton("Keys and filters (?)", ICONS.help, () => this.help.open())]),
      element("nav", { class: "views", "aria-label": "Views" }, [this.tabList]),
      element("div", { class: "boxes", role: "search" }, [
        element("div", { class: "filter-area" }, [boxed(this.filter, ICONS.filter), this.filterError]), boxed(this.search, ICONS.search),
      ]),
      this.progress,
    ]);
    const skip = element("a", { class: "skip", href: "#main", text: "To the view" });
    skip.addEventListener("click", (event) => {
      event.preventDefault();
      this.main.querySelector<HTMLElement>("[tabindex='0']")?.focus();
    });
    this.main.setAttribute("role", "tabpanel");
    this.main.append(element("div", { class: "empty", text: "Reading the capture…" }));
    this.root.replaceChildren(
      skip, header, element("main", { class: "work" }, [this.main, this.detail.element]), this.alert, this.spoken, this.help.element,
    );
  }

  private listen(): void {
    this.store.onChange((changed) => this.changed(changed));
    let typing: number | undefined;
    const typed = (input: HTMLInputElement, key: "filter" | "search"): void => {
      const write = (): void => {
        window.clearTimeout(typing);
        this.store.set({ [key]: input.value });
      };
      input.addEventListener("input", () => {
        window.clearTimeout(typing);
        typing = window.setTimeout(write, key === "filter" ? TYPE_PAUSE_MS : 120);
      });
      input.addEventListener("change", write);
      input.addEventListener("keydown", (event) => {
        if (event.key === "Escape") {
          input.value = "";
          write();
          input.blur();
        } else if (event.key === "Enter") {
          write();
        }
      });
    };
    typed(this.filter, "filter");
    typed(this.search, "search");
    onSystemChange(() => this.changed(new Set<Key>(["theme"])));
    document.addEventListener("keydown", (event) => this.shortcut(event));
  }

  private changed(changed: ReadonlySet<Key>): void {
    if (changed.has("theme")) this.applyTheme();
    if (this.viewer.overview.captures.length === 0) return;
    if (changed.has("filter")) this.refuseFilter(null);
    if (changed.has("capture")) this.captureChoice();
    this.showView(changed.has("view") ? "all" : changed);
  }

  private showView(changed: ReadonlySet<Key> | "all"): void {
    const { now } = this.store;
    const name = now.view === "compare" && !this.viewer.isComparing ? "timeline" : now.view;
    for (const [one, tab] of this.tabs) {
      const isShown = one === name;
      tab.hidden = one === "compare" && !this.viewer.isComparing;
      tab.setAttribute("aria-selected", String(isShown));
      tab.tabIndex = isShown ? 0 : -1;
    }
    this.main.setAttribute("aria-labelledby", `tab-${name}`);
    for (const [input, value] of [[this.filter, now.filter], [this.search, now.search]] as const) {
      if (document.activeElement !== input && input.value !== value) input.value = value;
    }
    let view = this.views.get(name);
    if (view === undefined) {
      view = this.made(name);
      this.views.set(name, view);
    }
    if (this.main.firstElementChild !== view.element) this.main.replaceChildren(view.element);
    view.update(changed);
    this.detail.update(changed);
  }

  private made(name: ViewName): View {
    switch (name) {
      case "timeline": return new Timeline(this.viewer, this.onFirstPicture);
      case "flame": return new FlameView(this.viewer);
      case "calls": return new CallsView(this.viewer);
      case "scopes": return new ScopesView(this.viewer);
      case "metrics": return new MetricsView(this.viewer);
      case "compare": return new CompareView(this.viewer);
    }
  }

  private captureChoice(): void {
    const { captures } = this.viewer.overview;
    const { capture } = this.viewer;
    document.title = `${neutral(capture.label)} – kastor view`;
    this.facts.replaceChildren(...(this.viewer.overview.live ? [element("span", { class: "live", text: "live" })] : []), ...captureFacts(capture));
    if (captures.length === 1) {
      this.captures.replaceChildren(element("span", { class: "capture-name", text: neutral(capture.label), title: neutral(capture.label) }));
      return;
    }
    this.captures.replaceChildren(...captures.map((one) => button(`${one.index === 0 ? "new" : "base"}: ${neutral(one.label)}`, () => {
      this.store.set({ capture: one.index, ref: "", from: null, to: null });
    }, { "aria-pressed": String(one.index === capture.index), title: neutral(one.label) })));
  }

  /** A capture that is being written: shows it anew whenever there is more of it. */
  private async live(): Promise<void> {
    let version = this.viewer.overview.version ?? 0;
    for (;;) {
      try {
        const next = await this.viewer.source.changes(version, new AbortController().signal);
        if (next === version) continue;
        version = next;
        await this.viewer.refresh();
        this.captureChoice();
        this.showView("all");
      } catch (error) {
        this.fail(error);
        return;
      }
    }
  }

  private async perfetto(): Promise<void> {
    const { capture, source } = this.viewer;
    try {
      const name = neutral(capture.label);
      await openInPerfetto(name, "kastor.perfetto-trace", () => this.viewer.wait(source.perfetto(capture.index, this.store.now.filter)));
    } catch (error) {
      this.fail(error);
    }
  }

  private applyTheme(): void {
    const { theme } = this.store.now;
    apply(theme);
    this.viewer.isDark = isDark(theme);
    const name = { auto: "Theme: as the system", light: "Theme: light", dark: "Theme: dark" }[theme];
    this.themeButton.replaceChildren(icon({ auto: ICONS.auto, light: ICONS.sun, dark: ICONS.moon }[theme]));
    this.themeButton.setAttribute("aria-label", name);
    this.themeButton.title = name;
  }

  private tabKey(event: KeyboardEvent): void {
    const step = event.key === "ArrowRight" ? 1 : event.key === "ArrowLeft" ? -1 : 0;
    if (step === 0) return;
    const shown = TABS.map(([name]) => name).filter((name) => this.tabs.get(name)?.hidden === false);
    const at = shown.indexOf(this.store.now.view);
    const view = shown[(at + step + shown.length) % shown.length];
    if (view === undefined) return;
    event.preventDefault();
    this.store.set({ view, sort: "" });
    this.tabs.get(view)?.focus();
  }

  private shortcut(event: KeyboardEvent): void {
    if (event.ctrlKey || event.metaKey || event.altKey || event.defaultPrevented) return;
    const target = event.target as HTMLElement;
    if (target instanceof HTMLInputElement || this.help.element.open) return;
    const tab = TABS[Number(event.key) - 1];
    if (tab !== undefined && this.tabs.get(tab[0])?.hidden === false) this.store.set({ view: tab[0], sort: "" });
    else if (event.key === "/") this.search.focus();
    else if (event.key === "f" || event.key === "F") this.filter.focus();
    else if (event.key === "?") this.help.open();
    else return;
    event.preventDefault();
  }

  private toast(text: string, isFailure: boolean): void {
    if (!isFailure && !/^(Copied|Path copied|Value copied|The browser)/.test(text)) return;
    window.clearTimeout(this.hiding);
    this.alert.classList.toggle("is-failure", isFailure);
    this.alert.replaceChildren(element("p", { text: neutral(text) }));
    if (isFailure) this.alert.append(iconButton("Close", ICONS.close, () => { this.alert.hidden = true; }));
    else this.hiding = window.setTimeout(() => { this.alert.hidden = true; }, MESSAGE_MS / 3);
    this.alert.hidden = false;
  }
}

function message(error: unknown): string {
  return error instanceof Error ? neutral(error.message) : neutral(String(error));
}
