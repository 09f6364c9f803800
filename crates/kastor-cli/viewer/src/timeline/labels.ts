// The names at the left of the lanes: elements, made for what is seen, that fold their lane.

import { element } from "../parts/dom";
import { neutral } from "../model/text";
import { count } from "../model/units";
import type { Item, Layout } from "./layout";

export class LaneLabels {
  private shown = new Map<string, { node: HTMLElement; item: Item }>();

  constructor(private readonly box: HTMLElement, private readonly onFold: (key: string) => void) {}

  /** Shows the labels between two heights. */
  show(layout: Layout, from: number, to: number): void {
    const next = new Map<string, { node: HTMLElement; item: Item }>();
    for (let at = Math.max(layout.at(Math.max(from, 0)), 0); at < layout.items.length; at += 1) {
      const item = layout.items[at]!;
      if (item.top > to) break;
      const known = this.shown.get(item.key);
      next.set(item.key, known !== undefined && isSame(known.item, item) ? known : { node: this.made(item), item });
    }
    for (const [key, { node }] of this.shown) {
      if (next.get(key)?.node !== node) node.remove();
    }
    for (const { node, item } of next.values()) {
      node.style.top = `${item.top}px`;
      node.style.height = `${item.height}px`;
      if (!node.isConnected) this.box.append(node);
    }
    this.shown = next;
  }

  private made(item: Item): HTMLElement {
    if (item.kind === "track") {
      return element("div", { class: "label track", title: neutral(item.series.help ?? "") || item.name }, [
        element("span", { class: "name", text: item.name }),
        element("span", { class: "note", text: item.series.type }),
      ]);
    }
    const isLane = item.kind === "lane";
    const note = isLane ? laneNote(item) : item.note;
    const made = element("button", {
      type: "button",
      class: !isLane ? "label heading" : item.rows === 1 ? "label lane short" : "label lane",
      title: `${item.name}\n${note}`,
      "aria-expanded": String(!item.isFolded),
    }, [
      element("span", { class: "fold", "aria-hidden": "true", text: item.isFolded ? "▸" : "▾" }),
      element("span", { class: "name", text: item.name }),
      element("span", { class: "note", text: note }),
    ]);
    made.addEventListener("click", () => this.onFold(item.key));
    return made;
  }
}

function laneNote(item: Extract<Item, { kind: "lane" }>): string {
  const { scopes, failed } = item.lane;
  const parts = [`${count(scopes)} ${scopes === 1 ? "scope" : "scopes"}`];
  if (failed > 0) parts.push(`${count(failed)} failed`);
  if (item.isFolded && item.levels > item.rows) parts.push(`${item.rows} of ${item.levels} levels`);
  return parts.join(" · ");
}

function isSame(one: Item, other: Item): boolean {
  if (one.kind !== other.kind || one.name !== other.name) return false;
  if (one.kind === "lane" && other.kind === "lane") {
    return one.isFolded === other.isFolded && one.lane === other.lane && one.levels === other.levels && one.rows === other.rows;
  }
  if (one.kind === "heading" && other.kind === "heading") return one.isFolded === other.isFolded && one.note === other.note;
  return true;
}
