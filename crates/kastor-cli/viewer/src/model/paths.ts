// The paths of a capture: a tree in columns. A path is a number; its text is put together when somebody wants to read it.

import type { PathColumns } from "../source/contract";
import { FILLS, fillOf } from "../parts/palette";
import { neutral } from "./text";

/** Names that get a colour with an eye on the others; further ones get theirs by themselves. */
const MOST_BALANCED = 2000;
/** Characters of a path's text that are shown; the middle of a longer one is left out. */
const MOST_SHOWN = 4096;

export class Paths {
  readonly length: number;
  /** The colour of each path, by its name. */
  readonly fills: Uint8Array;
  private readonly parents: Int32Array;
  private readonly shown = new Map<number, string>();

  constructor(private readonly columns: PathColumns) {
    this.length = columns.names.length;
    this.parents = new Int32Array(this.length);
    for (let path = 0; path < this.length; path += 1) {
      const parent = columns.parents[path] ?? -1;
      // A parent comes before its children, so following parents always ends.
      this.parents[path] = parent >= 0 && parent < path ? parent : -1;
    }
    this.fills = fillsOf(columns.names);
  }

  fill(path: number): number {
    return this.fills[path] ?? 0;
  }

  parent(path: number): number {
    return this.parents[path] ?? -1;
  }

  /** The last part of a path as recorded. */
  rawName(path: number): string {
    return this.columns.names[path] ?? "";
  }

  /** The last part of a path, harmless to show. */
  name(path: number): string {
    const known = this.shown.get(path);
    if (known !== undefined) return known;
    const raw = this.columns.names[path];
    const name = raw === undefined ? "(unknown)" : neutral(raw) || "(empty)";
    if (this.shown.size > 200_000) this.shown.clear();
    this.shown.set(path, name);
    return name;
  }

  /** The whole path as recorded. */
  rawText(path: number): string {
    const known = this.columns.texts?.[path];
    if (known !== undefined) return known;
    const parts: string[] = [];
    for (let at = path; at >= 0 && at < this.length; at = this.parents[at] ?? -1) parts.push(this.columns.names[at] ?? "");
    return parts.reverse().join(".");
  }

  /** The whole path, harmless to show. */
  text(path: number): string {
    if (path < 0 || path >= this.length) return "(unknown)";
    const text = neutral(this.rawText(path));
    if (text.length <= MOST_SHOWN) return text;
    return `${text.slice(0, MOST_SHOWN / 2)} … ${text.slice(-MOST_SHOWN / 2)}`;
  }

  /** The path with this text; -1 if there is none. */
  find(text: string): number {
    for (let path = 0; path < this.length; path += 1) {
      const name = this.columns.names[path] ?? "";
      if (text.endsWith(name) && this.rawText(path) === text) return path;
    }
    return -1;
  }

  /** For each path, whether its last part contains `words`, without regard to case. Null if there are no words. */
  matching(words: string): Uint8Array | null {
    const wanted = words.trim().toLowerCase();
    if (wanted === "") return null;
    const matches = new Uint8Array(this.length);
    for (let path = 0; path < this.length; path += 1) {
      if (this.columns.names[path]?.toLowerCase().includes(wanted)) matches[path] = 1;
    }
    if (!wanted.includes(".")) return matches;
    for (let path = 0; path < this.length; path += 1) {
      if (matches[path] === 0 && this.rawText(path).toLowerCase().includes(wanted)) matches[path] = 1;
    }
    return matches;
  }
}

/** Colours by name: each its own if it can be had, else one that the fewest others have. */
function fillsOf(names: readonly string[]): Uint8Array {
  const fills = new Uint8Array(names.length);
  const known = new Map<string, number>();
  const used = new Array<number>(FILLS).fill(0);
  names.forEach((name, path) => {
    let fill = known.get(name);
    if (fill === undefined) {
      fill = fillOf(name);
      if (known.size < MOST_BALANCED) {
        const least = Math.min(...used);
        for (let step = 0; step < FILLS && used[fill]! > least; step += 1) fill = (fill + 3) % FILLS;
        used[fill]! += 1;
        known.set(name, fill);
      }
    }
    fills[path] = fill;
  });
  return fills;
}
