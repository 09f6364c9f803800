// What hands and keys can do, in a dialogue.

import { button, element } from "../parts/dom";

const TIMELINE: readonly (readonly [string, string])[] = [
  ["wheel · W / S · + / −", "zoom in and out at the pointer"],
  ["drag · A / D · ← / →", "move; two fingers zoom"],
  ["shift + wheel", "move sideways"],
  ["alt + wheel · ↑ / ↓", "scroll through the lanes"],
  ["shift + drag", "zoom to a part"],
  ["double click · enter", "zoom to a scope"],
  ["shift + arrows", "walk from scope to scope"],
  ["0", "the whole capture"],
  ["esc", "select nothing"],
];
const EVERYWHERE: readonly (readonly [string, string])[] = [
  ["1 … 6", "another view"],
  ["/", "search"],
  ["F", "filter"],
  ["?", "this help"],
];
const FILTER: readonly (readonly [string, string])[] = [
  ["query", "the path contains it"],
  ["path:db.*", "the path fits; * is any text, ? one character"],
  ["attr:user", "has this attribute"],
  ["attr:user=7", "has it with this value"],
  ["error · error:timeout", "failed; with this in the error"],
  ["duration>1ms duration<5s", "by time: ns, us, ms, s"],
  ["process:PID thread:worker-*", "by where it ran"],
  ["-error", "a minus turns a term round"],
  ["path:\"with spaces\"", "quotes keep spaces"],
];

export class Help {
  readonly element: HTMLDialogElement;

  constructor() {
    const close = button("Close", () => this.element.close(), { class: "primary" });
    this.element = element("dialog", { class: "help", "aria-labelledby": "help-title" }, [
      element("h2", { id: "help-title", text: "Keys and filters" }),
      element("div", { class: "help-columns" }, [
        element("section", {}, [element("h3", { text: "Timeline" }), list(TIMELINE), element("h3", { text: "Everywhere" }), list(EVERYWHERE)]),
        element("section", {}, [element("h3", { text: "Filter: all terms have to hold" }), list(FILTER)]),
      ]),
      element("footer", {}, [close]),
    ]);
    this.element.addEventListener("click", (event) => {
      if (event.target === this.element) this.element.close();
    });
  }

  open(): void {
    if (!this.element.open) this.element.showModal();
  }
}

function list(rows: readonly (readonly [string, string])[]): HTMLElement {
  return element("dl", { class: "keys" }, rows.flatMap(([key, what]) => [element("dt", {}, [element("kbd", { text: key })]), element("dd", { text: what })]));
}
