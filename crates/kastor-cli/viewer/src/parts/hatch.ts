// Slanted lines over what failed: to be seen without any colour.

const SIZE = 6;
const made = new Map<string, CanvasPattern | null>();

export function hatch(context: CanvasRenderingContext2D, colour: string, scale: number): CanvasPattern | string {
  const key = `${colour} ${scale}`;
  let pattern = made.get(key);
  if (pattern === undefined) {
    const tile = document.createElement("canvas");
    tile.width = tile.height = Math.round(SIZE * scale);
    const pen = tile.getContext("2d");
    if (pen === null) return colour;
    const side = tile.width;
    pen.strokeStyle = colour;
    pen.lineWidth = 1.5 * scale;
    pen.beginPath();
    for (const shift of [-side, 0, side]) {
      pen.moveTo(shift - 1, side + 1);
      pen.lineTo(shift + side + 1, -1);
    }
    pen.stroke();
    pattern = context.createPattern(tile, "repeat");
    pattern?.setTransform(new DOMMatrix().scale(1 / scale));
    made.set(key, pattern);
  }
  return pattern ?? colour;
}
