// A tree in columns, each node as wide as its own weight and its children together. Nothing here is recursive: a tree may
// be as deep as it likes.
//
// Nodes are numbers; a parent has a smaller one than its children. Behind the last stands the root of all.

export class FlameTree {
  readonly length: number;
  readonly weight: Float64Array;
  /** Beginning of each node on a line from 0 to 1. */
  readonly x: Float64Array;
  readonly depth: Int32Array;
  readonly parent: Int32Array;
  deepest = 0;
  private readonly begins: Int32Array;
  private readonly children: Int32Array;

  constructor(length: number, parentOf: (node: number) => number, selfOf: (node: number) => number) {
    this.length = length;
    const root = length;
    this.parent = new Int32Array(length + 1).fill(-1);
    this.weight = new Float64Array(length + 1);
    this.x = new Float64Array(length + 1);
    this.depth = new Int32Array(length + 1);
    this.begins = new Int32Array(length + 2);
    this.children = new Int32Array(length);
    for (let node = 0; node < length; node += 1) {
      const parent = parentOf(node);
      this.parent[node] = parent >= 0 && parent < node ? parent : root;
      this.weight[node] = Math.max(selfOf(node), 0) || 0;
    }
    for (let node = length - 1; node >= 0; node -= 1) this.weight[this.parent[node]!]! += this.weight[node]!;
    this.collectChildren();
    this.place();
  }

  get root(): number {
    return this.length;
  }

  /** The width of a node on the line. */
  width(node: number): number {
    const all = this.weight[this.root]!;
    return all > 0 ? this.weight[node]! / all : 0;
  }

  /** The children, widest first. */
  childrenOf(node: number): Int32Array {
    return this.children.subarray(this.begins[node]!, this.begins[node + 1]!);
  }

  /** A node and everything above it, the root first. */
  lineage(node: number): number[] {
    const line: number[] = [];
    for (let at = node; at >= 0; at = this.parent[at]!) line.push(at);
    return line.reverse();
  }

  private collectChildren(): void {
    for (let node = 0; node < this.length; node += 1) this.begins[this.parent[node]! + 1]! += 1;
    for (let node = 0; node <= this.length; node += 1) this.begins[node + 1]! += this.begins[node]!;
    const next = this.begins.slice();
    for (let node = 0; node < this.length; node += 1) {
      const parent = this.parent[node]!;
      this.children[next[parent]!] = node;
      next[parent]! += 1;
    }
    for (let node = 0; node <= this.length; node += 1) {
      if (this.begins[node + 1]! - this.begins[node]! < 2) continue;
      this.childrenOf(node).sort((one, other) => this.weight[other]! - this.weight[one]! || one - other);
    }
  }

  private place(): void {
    const all = this.weight[this.root]! || 1;
    const arrange = (node: number): void => {
      let x = this.x[node]!;
      for (const child of this.childrenOf(node)) {
        this.x[child] = x;
        x += this.weight[child]! / all;
      }
    };
    this.depth[this.root] = 0;
    arrange(this.root);
    for (let node = 0; node < this.length; node += 1) {
      const depth = this.depth[this.parent[node]!]! + 1;
      this.depth[node] = depth;
      if (this.weight[node]! > 0 && depth > this.deepest) this.deepest = depth;
      arrange(node); // a parent comes before its children, so its own place is known
    }
  }
}
