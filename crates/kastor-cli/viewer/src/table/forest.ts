// Which rows of a tree are shown, in which order: siblings sorted, what is folded left out. Without recursion.

export interface ForestShape {
  length: number;
  parent(node: number): number;
  /** Negative if the one comes first. */
  compare(one: number, other: number): number;
  /** Nodes that may be shown; what is above them is shown too. Null for all. */
  isWanted: ((node: number) => boolean) | null;
}

export class Forest {
  /** Nodes that have something inside that could be shown. */
  readonly hasChildren: Uint8Array;
  readonly depth: Int32Array;
  private readonly begins: Int32Array;
  private readonly children: Int32Array;
  private readonly isKept: Uint8Array;

  constructor(private readonly shape: ForestShape) {
    const { length } = shape;
    this.hasChildren = new Uint8Array(length);
    this.depth = new Int32Array(length);
    this.isKept = new Uint8Array(length);
    const parents = new Int32Array(length);
    for (let node = 0; node < length; node += 1) {
      const parent = shape.parent(node);
      parents[node] = parent >= 0 && parent < node ? parent : -1;
      if (parents[node]! >= 0) this.depth[node] = this.depth[parents[node]!]! + 1;
      this.isKept[node] = shape.isWanted === null || shape.isWanted(node) ? 1 : 0;
    }
    for (let node = length - 1; node >= 0; node -= 1) {
      if (this.isKept[node] === 1 && parents[node]! >= 0) {
        this.isKept[parents[node]!] = 1;
        this.hasChildren[parents[node]!] = 1;
      }
    }
    // Roots are the children of a node behind the last.
    this.begins = new Int32Array(length + 2);
    const of = (node: number): number => (parents[node]! < 0 ? length : parents[node]!);
    for (let node = 0; node < length; node += 1) if (this.isKept[node] === 1) this.begins[of(node) + 1]! += 1;
    for (let node = 0; node <= length; node += 1) this.begins[node + 1]! += this.begins[node]!;
    this.children = new Int32Array(this.begins[length + 1]!);
    const next = this.begins.slice();
    for (let node = 0; node < length; node += 1) {
      if (this.isKept[node] === 0) continue;
      this.children[next[of(node)]!] = node;
      next[of(node)]! += 1;
    }
  }

  get roots(): Int32Array {
    return this.childrenOf(this.shape.length);
  }

  childrenOf(node: number): Int32Array {
    return this.children.subarray(this.begins[node]!, this.begins[node + 1]!);
  }

  /** All that is shown, where these nodes are open. */
  order(isOpen: (node: number) => boolean): number[] {
    const shown: number[] = [];
    const sorted = (nodes: Int32Array): Int32Array => nodes.slice().sort((one, other) => this.shape.compare(other, one));
    const pending = Array.from(sorted(this.roots));
    while (pending.length > 0) {
      const node = pending.pop()!;
      shown.push(node);
      if (this.hasChildren[node] === 0 || !isOpen(node)) continue;
      for (const child of sorted(this.childrenOf(node))) pending.push(child);
    }
    return shown;
  }
}
