// What the reader has set: all of it stands in the address, so that a reload or a link shows the same.

export type ViewName = "timeline" | "flame" | "calls" | "scopes" | "metrics" | "compare";
export type Theme = "auto" | "light" | "dark";

export interface State {
  view: ViewName;
  capture: number;
  filter: string;
  /** Nanoseconds; null is the whole capture. */
  from: number | null;
  to: number | null;
  /** The selected scope. */
  ref: string;
  /** The selected path, by its text. */
  path: string;
  search: string;
  /** Column, with `-` before it for descending. */
  sort: string;
  layout: "icicle" | "flame";
  /** Rows of the call table: as a tree, or each path alone. */
  shape: "tree" | "flat";
  theme: Theme;
}

export type Key = keyof State;
type Listener = (changed: ReadonlySet<Key>) => void;

const INITIAL: State = {
  view: "timeline", capture: 0, filter: "", from: null, to: null, ref: "", path: "", search: "", sort: "",
  layout: "icicle", shape: "tree", theme: "auto",
};
const VIEWS: readonly string[] = ["timeline", "flame", "calls", "scopes", "metrics", "compare"];
/** A range changes with every frame of a movement; browsers allow some hundred changes of the address in half a minute. */
const WRITE_AFTER_MS = 200;

export class Store {
  readonly token: string;
  private state: State;
  private readonly listeners: Listener[] = [];
  private writing: number | undefined;

  constructor() {
    const fragment = new URLSearchParams(location.hash.slice(1));
    this.token = fragment.get("token") ?? remembered();
    remember(this.token);
    this.state = parse(fragment);
    window.addEventListener("hashchange", () => this.replace(parse(new URLSearchParams(location.hash.slice(1)))));
    window.addEventListener("pagehide", () => this.write("replace"));
  }

  get now(): Readonly<State> {
    return this.state;
  }

  onChange(listener: Listener): void {
    this.listeners.push(listener);
  }

  /** Changes some of it. Another view is a step that the browser's "back" undoes. */
  set(patch: Partial<State>): void {
    const isStep = patch.view !== undefined && patch.view !== this.state.view;
    if (isStep) this.write("replace");
    if (!this.replace({ ...this.state, ...patch })) return;
    if (isStep) {
      this.write("push");
    } else {
      window.clearTimeout(this.writing);
      this.writing = window.setTimeout(() => this.write("replace"), WRITE_AFTER_MS);
    }
  }

  /** The address of what is shown. */
  address(): string {
    return `${location.pathname}${location.search}#${this.fragment()}`;
  }

  private replace(next: State): boolean {
    const changed = new Set<Key>();
    for (const key of Object.keys(next) as Key[]) {
      if (next[key] !== this.state[key]) changed.add(key);
    }
    if (changed.size === 0) return false;
    this.state = next;
    for (const listener of this.listeners) listener(changed);
    return true;
  }

  private write(how: "push" | "replace"): void {
    window.clearTimeout(this.writing);
    const address = this.address();
    if (`${location.pathname}${location.search}${location.hash}` === address) return;
    if (how === "push") history.pushState(null, "", address);
    else history.replaceState(null, "", address);
  }

  private fragment(): string {
    const fragment = new URLSearchParams();
    if (this.token !== "") fragment.set("token", this.token);
    for (const key of Object.keys(INITIAL) as Key[]) {
      const value = this.state[key];
      if (value === null || value === INITIAL[key]) continue;
      fragment.set(key, typeof value === "number" ? String(Math.round(value)) : value);
    }
    return fragment.toString();
  }
}

/** Whatever the address says that makes no sense is as if it were not there. */
function parse(fragment: URLSearchParams): State {
  const text = (key: Key): string => fragment.get(key) ?? "";
  const choice = <Choice extends string>(key: Key, choices: readonly Choice[], initial: Choice): Choice =>
    choices.find((one) => one === fragment.get(key)) ?? initial;
  const from = time(fragment.get("from"));
  const to = time(fragment.get("to"));
  const hasRange = from !== null && to !== null && to > from;
  return {
    view: choice("view", VIEWS as readonly ViewName[], INITIAL.view),
    capture: fragment.get("capture") === "1" ? 1 : 0,
    filter: text("filter"),
    from: hasRange ? from : null,
    to: hasRange ? to : null,
    ref: text("ref"),
    path: text("path"),
    search: text("search"),
    sort: text("sort"),
    layout: choice("layout", ["icicle", "flame"], INITIAL.layout),
    shape: choice("shape", ["tree", "flat"], INITIAL.shape),
    theme: choice("theme", ["auto", "light", "dark"], INITIAL.theme),
  };
}

function time(text: string | null): number | null {
  const ns = text === null || text === "" ? Number.NaN : Number(text);
  return Number.isFinite(ns) && Math.abs(ns) < 2 ** 53 ? ns : null;
}

const TOKEN = "kastor-token";

// A page opened from a file may have no storage; the token is then what the address says.
function remembered(): string {
  try {
    return sessionStorage.getItem(TOKEN) ?? "";
  } catch {
    return "";
  }
}

function remember(token: string): void {
  if (token === "") return;
  try {
    sessionStorage.setItem(TOKEN, token);
  } catch {
    // as above
  }
}
