// The metrics of a capture: a card for each series, with its values over time where there are some.

import uPlot from "uplot";
import { element } from "../parts/dom";
import { palette } from "../parts/palette";
import type { Key } from "../model/state";
import { neutral } from "../model/text";
import { count, duration, quantity } from "../model/units";
import type { View, Viewer } from "../model/viewer";
import type { Points, Series } from "../source/contract";

/** Cards at once; a search finds the others. */
const MOST_CARDS = 200;
const CHART_HEIGHT = 150;
const PIXELS = 1200;
const SYNC = "kastor-metrics";

interface Card {
  series: Series;
  node: HTMLElement;
  box: HTMLElement;
  points: Points | null;
  chart: uPlot | null;
  isAsked: boolean;
}

export class MetricsView implements View {
  readonly element: HTMLElement;
  private readonly cardsBox = element("div", { class: "cards" });
  private readonly note = element("p", { class: "view-note", role: "status" });
  private readonly empty = element("p", { class: "empty" });
  private cards: Card[] = [];
  private series: Series[] = [];
  private leftOut = 0;
  private shown = "";
  private readonly seen: IntersectionObserver;

  constructor(private readonly viewer: Viewer) {
    this.element = element("section", { class: "metrics-view", "aria-label": "Metrics" }, [
      element("div", { class: "view-bar" }, [this.note]), this.cardsBox, this.empty,
    ]);
    this.empty.hidden = true;
    this.seen = new IntersectionObserver((entries) => {
      for (const entry of entries) {
        const card = this.cards.find((one) => one.node === entry.target);
        if (entry.isIntersecting && card !== undefined && !card.isAsked) void this.ask(card);
      }
    }, { root: this.cardsBox, rootMargin: "300px" });
    new ResizeObserver(() => this.resize()).observe(this.cardsBox);
  }

  update(changed: ReadonlySet<Key> | "all"): void {
    const { capture, version } = this.viewer;
    const key = `${version} ${capture.index}`;
    if (key !== this.shown) {
      this.shown = key;
      void this.load(key);
    } else if (changed !== "all" && changed.has("search")) {
      this.arrange();
    } else if (changed === "all" || changed.has("theme")) {
      for (const card of this.cards) this.draw(card);
    }
  }

  private async load(key: string): Promise<void> {
    try {
      const { series, leftOut } = await this.viewer.metrics(this.viewer.capture.index);
      if (key !== this.shown) return;
      this.series = series;
      this.leftOut = leftOut ?? 0;
      this.arrange();
    } catch (error) {
      if (key !== this.shown) return;
      this.shown = "";
      this.viewer.frame.fail(error);
    }
  }

  private arrange(): void {
    const words = this.viewer.store.now.search.trim().toLowerCase();
    const fitting = this.series.filter((one) => words === "" || fullName(one).toLowerCase().includes(words));
    this.seen.disconnect();
    for (const { chart } of this.cards) chart?.destroy();
    this.cards = fitting.slice(0, MOST_CARDS).map((series) => this.card(series));
    this.cardsBox.replaceChildren(...this.cards.map(({ node }) => node));
    for (const { node } of this.cards) this.seen.observe(node);
    const shown = this.cards.length < fitting.length ? `, the first ${MOST_CARDS} are shown: search for others` : "";
    const leftOut = this.leftOut > 0 ? `; ${count(this.leftOut)} further ones are too many to show` : "";
    this.note.textContent = `${count(fitting.length)} series${shown}${leftOut}`;
    this.empty.hidden = fitting.length > 0;
    this.empty.textContent = this.series.length === 0 ? "This capture has no metrics." : "No metric fits the search.";
  }

  private card(series: Series): Card {
    const labels = Object.entries(series.labels).map(([key, value]) =>
      element("span", { class: "tag" }, [`${neutral(key)} = `, element("b", { text: neutral(value) })]));
    const facts = factsOf(series).map(([name, value]) => element("div", {}, [element("dt", { text: name }), element("dd", { text: value })]));
    const box = element("div", { class: "chart" });
    const path = this.viewer.pathsNow(this.viewer.capture.index);
    const where = typeof series.path === "number" ? (series.path >= 0 ? (path?.text(series.path) ?? "") : "") : neutral(series.path);
    const node = element("article", { class: "card", "aria-label": fullName(series) }, [
      element("header", {}, [
        element("h3", { text: neutral(series.name) }),
        element("span", { class: "kind", text: series.type }),
      ]),
      where === "" || where === neutral(series.name) ? null : element("p", { class: "where", text: where }),
      labels.length === 0 ? null : element("p", { class: "tags" }, labels),
      series.help ? element("p", { class: "card-help", text: neutral(series.help) }) : null,
      element("dl", { class: "facts" }, facts),
      box,
    ]);
    return { series, node, box, points: null, chart: null, isAsked: false };
  }

  private async ask(card: Card): Promise<void> {
    card.isAsked = true;
    const { capture } = this.viewer;
    try {
      const query = { capture: capture.index, series: card.series.id, from: 0, to: Math.max(capture.durationNs, 1), pixels: PIXELS };
      card.points = await this.viewer.source.points(query);
      this.draw(card);
    } catch (error) {
      card.box.replaceChildren(element("p", { class: "chart-note", text: error instanceof Error ? error.message : String(error) }));
    }
  }

  private draw(card: Card): void {
    const { points, box, series } = card;
    card.chart?.destroy();
    card.chart = null;
    box.replaceChildren();
    // A single value is no course over time.
    if (points === null || points.t.length < 2) return;
    const colours = palette(this.viewer.isDark);
    const unit = series.unit;
    const seconds = points.t.map((ns) => ns / 1e9);
    const hasSpread = points.min.some((low, at) => low !== null && low !== points.max[at]);
    const axis = { stroke: colours.faintText, grid: { stroke: colours.line, width: 1 }, ticks: { stroke: colours.line, width: 1 }, font: "11px system-ui, sans-serif" };
    const line = { stroke: colours.track, width: 1.5, points: { show: points.t.length < 40, size: 5, fill: colours.track }, paths: stepped() };
    card.chart = new uPlot({
      width: Math.max(box.clientWidth, 120),
      height: CHART_HEIGHT,
      padding: [8, 12, 0, 0],
      cursor: { sync: { key: SYNC }, points: { size: 7 } },
      legend: { show: true, live: true },
      scales: { x: { time: false } },
      axes: [
        { ...axis, values: (_, values) => values.map((one) => duration(one * 1e9)), space: 80, size: 28 },
        { ...axis, values: (_, values) => values.map((one) => quantity(one, unit)), size: 62 },
      ],
      series: [
        { label: "at", value: (_, one) => (one === null || one === undefined ? "–" : duration(one * 1e9)) },
        { ...line, label: "value", fill: colours.trackFill, value: (_, one) => quantity(one ?? null, unit) },
        ...(hasSpread ? (["min", "max"] as const).map((label) => ({
          label, stroke: colours.arrow, width: 0.75, points: { show: false }, value: (_: uPlot, one: number | null) => quantity(one ?? null, unit),
        })) : []),
      ],
    }, [seconds, points.value, ...(hasSpread ? [points.min, points.max] : [])], box);
  }

  private resize(): void {
    for (const { chart, box } of this.cards) {
      if (chart !== null && box.clientWidth > 0 && chart.width !== box.clientWidth) chart.setSize({ width: box.clientWidth, height: CHART_HEIGHT });
    }
  }
}

/** A value holds until the next. */
function stepped(): uPlot.Series.PathBuilder {
  const make = uPlot.paths.stepped;
  if (make === undefined) throw new Error("uPlot was built without steps");
  return make({ align: 1 });
}

function fullName(series: Series): string {
  return [series.name, ...Object.entries(series.labels).map(([key, value]) => `${key}=${value}`)].join(" ");
}

function factsOf(series: Series): [string, string][] {
  const { unit } = series;
  const facts: [string, string | null][] = [];
  const add = (name: string, value: number | null): void => {
    if (value !== null && value !== undefined) facts.push([name, quantity(value, unit)]);
  };
  switch (series.type) {
    case "counter":
      add("sum", series.sum);
      break;
    case "gauge":
      add("last", series.last);
      add("min", series.min);
      add("max", series.max);
      break;
    default:
      if (series.sum !== null && series.calls > 0) add("mean", series.sum / series.calls);
      add("min", series.min);
      add("p50", series.p50);
      add("p95", series.p95);
      add("p99", series.p99);
      add("max", series.max);
      add("sum", series.sum);
  }
  facts.push(["calls", count(series.calls)]);
  return facts as [string, string][];
}
