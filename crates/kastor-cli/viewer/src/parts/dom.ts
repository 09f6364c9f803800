// Elements without markup: text goes in as text, styles by class.

type Child = Node | string | null;

export interface Properties {
  class?: string;
  text?: string;
  title?: string;
  [attribute: `aria-${string}` | `data-${string}`]: string;
  role?: string;
  id?: string;
  tabindex?: string;
  type?: string;
  for?: string;
  href?: string;
  target?: string;
  rel?: string;
  value?: string;
  placeholder?: string;
  scope?: string;
  spellcheck?: string;
  autocomplete?: string;
  colspan?: string;
}

export function element<Tag extends keyof HTMLElementTagNameMap>(
  tag: Tag, properties: Properties = {}, children: readonly Child[] = [],
): HTMLElementTagNameMap[Tag] {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (name === "class") made.className = value;
    else if (name === "text") made.textContent = value;
    else made.setAttribute(name, value);
  }
  for (const child of children) {
    if (child !== null) made.append(child);
  }
  return made;
}

export function button(text: string, act: () => void, properties: Properties = {}): HTMLButtonElement {
  const made = element("button", { type: "button", text, ...properties });
  made.addEventListener("click", act);
  return made;
}

/** A picture in lines, of one path on a square of 16. */
export function icon(path: string): SVGSVGElement {
  const space = "http://www.w3.org/2000/svg";
  const svg = document.createElementNS(space, "svg");
  svg.setAttribute("viewBox", "0 0 16 16");
  svg.setAttribute("class", "icon");
  svg.setAttribute("aria-hidden", "true");
  const line = document.createElementNS(space, "path");
  line.setAttribute("d", path);
  svg.append(line);
  return svg;
}

export function iconButton(name: string, path: string, act: () => void, properties: Properties = {}): HTMLButtonElement {
  const made = element("button", { type: "button", "aria-label": name, title: name, ...properties }, [icon(path)]);
  made.addEventListener("click", act);
  return made;
}

export const ICONS = {
  close: "M4 4l8 8M12 4l-8 8",
  copy: "M6 5.5V3.5a1 1 0 0 1 1-1h5.5a1 1 0 0 1 1 1V9a1 1 0 0 1-1 1h-2M3.5 6h5a1 1 0 0 1 1 1v5.5a1 1 0 0 1-1 1h-5a1 1 0 0 1-1-1V7a1 1 0 0 1 1-1z",
  help: "M5.8 6a2.2 2.2 0 1 1 3.2 2c-.7.4-1 .8-1 1.5M8 12v.2M8 1.8a6.2 6.2 0 1 1 0 12.4 6.2 6.2 0 0 1 0-12.4z",
  sun: "M8 5.2a2.8 2.8 0 1 1 0 5.6 2.8 2.8 0 0 1 0-5.6zM8 1v1.6M8 13.4V15M1 8h1.6M13.4 8H15M3 3l1.1 1.1M11.9 11.9L13 13M13 3l-1.1 1.1M4.1 11.9L3 13",
  moon: "M13.5 9.6A5.9 5.9 0 0 1 6.4 2.5 5.9 5.9 0 1 0 13.5 9.6z",
  auto: "M8 1.8a6.2 6.2 0 1 1 0 12.4A6.2 6.2 0 0 1 8 1.8zM8 2v12M8 4.5h4.6M8 7h5.9M8 9.5h5.9M8 12h4.2",
  zoomIn: "M7 2.5a4.5 4.5 0 1 1 0 9 4.5 4.5 0 0 1 0-9zM10.3 10.3L14 14M7 5v4M5 7h4",
  zoomOut: "M7 2.5a4.5 4.5 0 1 1 0 9 4.5 4.5 0 0 1 0-9zM10.3 10.3L14 14M5 7h4",
  whole: "M2 5V2.5h2.5M14 5V2.5h-2.5M2 11v2.5h2.5M14 11v2.5h-2.5M4.5 8h7",
  search: "M7 2.5a4.5 4.5 0 1 1 0 9 4.5 4.5 0 0 1 0-9zM10.3 10.3L14 14",
  filter: "M2 3h12L9.5 8.5V13l-3-1.5v-3z",
  out: "M6.5 3h-3a1 1 0 0 0-1 1v8.5a1 1 0 0 0 1 1H12a1 1 0 0 0 1-1v-3M9 2.5h4.5V7M13.2 2.8L7.5 8.5",
  up: "M8 13V3.5M4 7l4-4 4 4",
} as const;

/** Copies text; says how it went. */
export async function copy(text: string): Promise<boolean> {
  try {
    await navigator.clipboard.writeText(text);
    return true;
  } catch {
    // No permission, or a page from a file: the old way, by a selection.
    const area = element("textarea", { class: "copying", "aria-hidden": "true" });
    area.value = text;
    document.body.append(area);
    area.select();
    const isCopied = document.execCommand("copy");
    area.remove();
    return isCopied;
  }
}
