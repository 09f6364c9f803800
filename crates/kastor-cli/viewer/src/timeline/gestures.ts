// Hands on the timeline: wheel, drag, two fingers, keys. They say what is meant; the timeline does it.

export interface Gestures {
  /** `share` of the width stays in its place. */
  zoom(factor: number, share: number): void;
  /** Moves by pixels, with the hand. */
  drag(x: number, y: number): void;
  /** Moves by a share of the width. */
  pan(share: number): void;
  scroll(pixels: number): void;
  click(x: number, y: number): void;
  doubleClick(x: number, y: number): void;
  hover(x: number, y: number): void;
  leave(): void;
  /** A range is being drawn from one x to another; it is meant when `isDone`. */
  mark(fromX: number, toX: number, isDone: boolean): void;
  whole(): void;
  /** To the next box: -1 or 1 along its row or across rows. */
  walk(along: number, across: number): void;
  open(): void;
  cancel(): void;
}

/** A press that moves less than this is a click. */
const CLICK_PIXELS = 4;

export function listen(canvas: HTMLCanvasElement, gestures: Gestures): void {
  wheel(canvas, gestures);
  pointers(canvas, gestures);
  keys(canvas, gestures);
}

function wheel(canvas: HTMLCanvasElement, gestures: Gestures): void {
  canvas.addEventListener("wheel", (event) => {
    event.preventDefault();
    const unit = event.deltaMode === WheelEvent.DOM_DELTA_LINE ? 16 : event.deltaMode === WheelEvent.DOM_DELTA_PAGE ? 400 : 1;
    const [x, y] = [event.deltaX * unit, event.deltaY * unit];
    if (event.altKey) gestures.scroll(y);
    else if (event.shiftKey) gestures.pan(((x || y) / canvas.clientWidth) * 1.2);
    // A pinch on a touch pad arrives as a wheel with "control"; its steps are small.
    else if (event.ctrlKey || event.metaKey) gestures.zoom(Math.exp(limited(y) * 0.01), share(canvas, event));
    else if (Math.abs(x) > Math.abs(y)) gestures.pan(x / canvas.clientWidth);
    else gestures.zoom(Math.exp(limited(y) * 0.0022), share(canvas, event));
  }, { passive: false });
}

function pointers(canvas: HTMLCanvasElement, gestures: Gestures): void {
  const held = new Map<number, { x: number; y: number }>();
  let moved = 0;
  let markFrom: number | null = null;
  let pressed = { x: 0, y: 0 };
  canvas.addEventListener("pointerdown", (event) => {
    if (event.button !== 0 && event.button !== 1) return;
    canvas.focus({ preventScroll: true });
    canvas.setPointerCapture(event.pointerId);
    const at = place(canvas, event);
    held.set(event.pointerId, at);
    pressed = at;
    moved = held.size > 1 ? Infinity : 0;
    markFrom = event.shiftKey && event.pointerType === "mouse" ? at.x : null;
    if (event.button === 1) event.preventDefault();
  });
  canvas.addEventListener("pointermove", (event) => {
    const at = place(canvas, event);
    const before = held.get(event.pointerId);
    if (before === undefined) {
      if (event.pointerType !== "touch") gestures.hover(at.x, at.y);
      return;
    }
    moved = Math.max(moved, Math.hypot(at.x - pressed.x, at.y - pressed.y));
    if (held.size === 2) {
      const [other] = [...held].filter(([id]) => id !== event.pointerId).map(([, where]) => where);
      if (other !== undefined) pinch(before, at, other);
    } else if (moved >= CLICK_PIXELS) {
      gestures.leave();
      if (markFrom !== null) gestures.mark(markFrom, at.x, false);
      else gestures.drag(at.x - before.x, at.y - before.y);
    } else {
      return; // the way so far counts when it turns out to be no click
    }
    held.set(event.pointerId, at);
  });
  const release = (event: PointerEvent): void => {
    if (!held.delete(event.pointerId)) return;
    const at = place(canvas, event);
    if (markFrom !== null && moved >= CLICK_PIXELS) gestures.mark(markFrom, at.x, event.type === "pointerup");
    else if (moved < CLICK_PIXELS && event.type === "pointerup") gestures.click(at.x, at.y);
    markFrom = null;
  };
  canvas.addEventListener("pointerup", release);
  canvas.addEventListener("pointercancel", release);
  canvas.addEventListener("pointerleave", () => gestures.leave());
  canvas.addEventListener("dblclick", (event) => {
    const at = place(canvas, event);
    gestures.doubleClick(at.x, at.y);
  });

  function pinch(before: { x: number }, now: { x: number }, other: { x: number }): void {
    const [old, next] = [Math.max(Math.abs(before.x - other.x), 12), Math.max(Math.abs(now.x - other.x), 12)];
    gestures.zoom(old / next, (now.x + other.x) / 2 / canvas.clientWidth);
    gestures.drag((now.x - before.x) / 2, 0);
  }
}

function keys(canvas: HTMLCanvasElement, gestures: Gestures): void {
  canvas.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    if (act(event)) event.preventDefault();
  });

  function act(event: KeyboardEvent): boolean {
    if (event.shiftKey) {
      switch (event.key) {
        case "ArrowLeft": gestures.walk(-1, 0); return true;
        case "ArrowRight": gestures.walk(1, 0); return true;
        case "ArrowUp": gestures.walk(0, -1); return true;
        case "ArrowDown": gestures.walk(0, 1); return true;
      }
    }
    switch (event.key) {
      case "w": case "W": case "+": case "=": gestures.zoom(0.6, 0.5); return true;
      case "s": case "S": case "-": gestures.zoom(1 / 0.6, 0.5); return true;
      case "a": case "A": case "ArrowLeft": gestures.pan(-0.2); return true;
      case "d": case "D": case "ArrowRight": gestures.pan(0.2); return true;
      case "ArrowUp": gestures.scroll(-60); return true;
      case "ArrowDown": gestures.scroll(60); return true;
      case "PageUp": gestures.scroll(-canvas.clientHeight * 0.9); return true;
      case "PageDown": gestures.scroll(canvas.clientHeight * 0.9); return true;
      case "0": case "Home": gestures.whole(); return true;
      case "Enter": gestures.open(); return true;
      case "Escape": gestures.cancel(); return true;
      default: return false;
    }
  }
}

function place(canvas: HTMLCanvasElement, event: MouseEvent): { x: number; y: number } {
  const box = canvas.getBoundingClientRect();
  return { x: event.clientX - box.left, y: event.clientY - box.top };
}

function share(canvas: HTMLCanvasElement, event: MouseEvent): number {
  return Math.max(0, Math.min(1, place(canvas, event).x / Math.max(canvas.clientWidth, 1)));
}

function limited(delta: number): number {
  return Math.max(-240, Math.min(240, delta));
}
