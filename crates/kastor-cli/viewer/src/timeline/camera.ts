// The range of time that is seen, and how it moves: smoothly towards where it was sent, within the capture.

import type { Range } from "../source/source";

/** No closer than this: recorded times are whole nanoseconds. */
const LEAST_SPAN_NS = 20;
/** How much of the way to its aim the camera goes in a frame of 1/60 s. */
const SPEED = 0.3;

export class Camera {
  from = 0;
  to = 1;
  private aim: Range = { from: 0, to: 1 };
  private whole: Range = { from: 0, to: 1 };
  private readonly isStill = window.matchMedia("(prefers-reduced-motion: reduce)");

  get span(): number {
    return this.to - this.from;
  }

  get aimed(): Range {
    return this.aim;
  }

  get isWhole(): boolean {
    return this.aim.from <= this.whole.from && this.aim.to >= this.whole.to;
  }

  /** The capture's extent; a little is seen beyond both ends. */
  bound(durationNs: number): void {
    const margin = Math.max(durationNs * 0.01, 1);
    this.whole = { from: -margin, to: durationNs + margin };
  }

  jump(range: Range): void {
    this.aim = this.within(range);
    this.from = this.aim.from;
    this.to = this.aim.to;
  }

  go(range: Range): void {
    this.aim = this.within(range);
    if (this.isStill.matches) this.jump(this.aim);
  }

  goWhole(): void {
    this.go(this.whole);
  }

  /** Makes the span `factor` times as long; the time at `share` of the width stays where it is. */
  zoom(factor: number, share: number): void {
    const span = this.aim.to - this.aim.from;
    const next = Math.max(LEAST_SPAN_NS, Math.min(span * factor, this.whole.to - this.whole.from));
    const fixed = this.aim.from + span * share;
    this.go({ from: fixed - next * share, to: fixed + next * (1 - share) });
  }

  /** Moves by a share of the span; at once, where a hand holds it. */
  pan(share: number, isHeld = false): void {
    const span = this.aim.to - this.aim.from;
    const range = { from: this.aim.from + span * share, to: this.aim.to + span * share };
    if (isHeld) this.jump(range);
    else this.go(range);
  }

  /** One frame onward; false when it has arrived. */
  step(): boolean {
    const far = Math.abs(this.aim.from - this.from) + Math.abs(this.aim.to - this.to);
    const aimSpan = this.aim.to - this.aim.from;
    if (far < aimSpan * 0.002) {
      this.from = this.aim.from;
      this.to = this.aim.to;
      return false;
    }
    // The logarithm of the span moves evenly, so that zooming far looks as fast as zooming a little. What stays in its
    // place during a zoom then does so in every frame.
    const span = this.span;
    const next = Math.exp(Math.log(span) + (Math.log(aimSpan) - Math.log(span)) * SPEED);
    const change = span - aimSpan;
    const done = Math.abs(change) > aimSpan * 1e-6 ? (span - next) / change : SPEED;
    this.from += (this.aim.from - this.from) * done;
    this.to = this.from + next;
    return true;
  }

  private within(range: Range): Range {
    const span = Math.min(Math.max(range.to - range.from, LEAST_SPAN_NS), this.whole.to - this.whole.from);
    const from = Math.min(Math.max(range.from, this.whole.from), this.whole.to - span);
    return { from, to: from + span };
  }
}
