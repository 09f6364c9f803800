// The small card at the pointer.

import { element } from "./dom";

const GAP = 14;

export class Tooltip {
  private readonly card = element("div", { class: "tooltip", role: "presentation" });

  constructor() {
    this.card.hidden = true;
    document.body.append(this.card);
  }

  /** Shows a title and lines of name and value at a place of the window. */
  show(x: number, y: number, title: string, lines: readonly (readonly [string, string])[], note = ""): void {
    const rows = lines.flatMap(([name, value]) => [element("dt", { text: name }), element("dd", { text: value })]);
    this.card.replaceChildren(
      element("strong", { text: title }),
      element("dl", {}, rows),
      ...(note === "" ? [] : [element("p", { text: note })]),
    );
    this.card.hidden = false;
    const { offsetWidth: width, offsetHeight: height } = this.card;
    const left = x + GAP + width > window.innerWidth ? Math.max(4, x - GAP - width) : x + GAP;
    const top = y + GAP + height > window.innerHeight ? Math.max(4, y - GAP - height) : y + GAP;
    this.card.style.transform = `translate(${Math.round(left)}px, ${Math.round(top)}px)`;
  }

  hide(): void {
    this.card.hidden = true;
  }
}
