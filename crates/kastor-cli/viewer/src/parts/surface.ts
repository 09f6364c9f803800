// A canvas that fills its element, sharp on every screen, drawn at most once a frame and only when asked to.

/** How long the page's own drawing took, by frame, all canvases together, newest last: for whoever measures. */
export const drawTimes: number[] = [];
const MOST_TIMES = 10_000;
let newestFrame = -1;

export type Draw = (context: CanvasRenderingContext2D, width: number, height: number) => void;

export class Surface {
  readonly canvas: HTMLCanvasElement;
  width = 0;
  height = 0;
  /** Pixels of the screen in one of the page. */
  scale = 1;
  private readonly context: CanvasRenderingContext2D;
  private frame = 0;

  constructor(private readonly draw: Draw, canvas: HTMLCanvasElement, box: HTMLElement, onResize: () => void = () => {}) {
    this.canvas = canvas;
    const context = canvas.getContext("2d", { alpha: false });
    if (context === null) throw new Error("this browser has no canvas to draw on");
    this.context = context;
    new ResizeObserver(() => {
      if (this.fit(box)) onResize();
    }).observe(box);
  }

  /** Draws with the next frame. */
  request(): void {
    if (this.frame !== 0) return;
    this.frame = requestAnimationFrame((time) => {
      this.frame = 0;
      this.now(time);
    });
  }

  /** Takes the size of its box; false if that has none, because it is not shown. */
  fit(box: HTMLElement): boolean {
    const { clientWidth: width, clientHeight: height } = box;
    const scale = window.devicePixelRatio || 1;
    if (width === 0 || height === 0) return false;
    if (width === this.width && height === this.height && scale === this.scale) return true;
    this.width = width;
    this.height = height;
    this.scale = scale;
    this.canvas.width = Math.round(width * scale);
    this.canvas.height = Math.round(height * scale);
    this.canvas.style.width = `${width}px`;
    this.canvas.style.height = `${height}px`;
    this.now(performance.now()); // a canvas of a new size is empty: no frame may show that
    return true;
  }

  private now(frame: number): void {
    if (this.width === 0 || !this.canvas.isConnected) return;
    const started = performance.now();
    this.context.setTransform(this.scale, 0, 0, this.scale, 0, 0);
    this.draw(this.context, this.width, this.height);
    remember(frame, performance.now() - started);
  }
}

/** Canvases that are drawn for the same frame of the screen are told its time alike. */
function remember(frame: number, ms: number): void {
  if (frame === newestFrame && drawTimes.length > 0) {
    drawTimes[drawTimes.length - 1]! += ms;
    return;
  }
  newestFrame = frame;
  drawTimes.push(ms);
  if (drawTimes.length > MOST_TIMES) drawTimes.splice(0, MOST_TIMES / 10);
}
