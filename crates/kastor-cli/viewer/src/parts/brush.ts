// Collects rectangles by colour, so that a frame changes the colour a dozen times and not ten thousand.

export class Brush {
  private readonly batches: { rectangles: Float32Array; length: number }[] = [];

  /** Forgets everything; `colours` are numbers below this. */
  begin(colours: number): void {
    this.reserve(colours);
    for (const batch of this.batches) batch.length = 0;
  }

  /** Makes room for more colours. */
  reserve(colours: number): void {
    while (this.batches.length < colours) this.batches.push({ rectangles: new Float32Array(1024), length: 0 });
  }

  add(colour: number, x: number, y: number, width: number, height: number): void {
    const batch = this.batches[colour]!;
    const at = batch.length;
    if (at + 4 > batch.rectangles.length) {
      const larger = new Float32Array(batch.rectangles.length * 2);
      larger.set(batch.rectangles);
      batch.rectangles = larger;
    }
    const { rectangles } = batch;
    rectangles[at] = x;
    rectangles[at + 1] = y;
    rectangles[at + 2] = width;
    rectangles[at + 3] = height;
    batch.length = at + 4;
  }

  paint(context: CanvasRenderingContext2D, colour: number, style: string | CanvasPattern): void {
    const { rectangles, length } = this.batches[colour]!;
    if (length === 0) return;
    context.fillStyle = style;
    for (let at = 0; at < length; at += 4) {
      context.fillRect(rectangles[at]!, rectangles[at + 1]!, rectangles[at + 2]!, rectangles[at + 3]!);
    }
  }
}
