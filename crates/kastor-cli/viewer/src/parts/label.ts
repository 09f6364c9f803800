// Text in boxes: cut to their width without measuring the same text twice.

export const LABEL_FONT = "12px system-ui, -apple-system, 'Segoe UI', Roboto, 'Noto Sans', sans-serif";
export const SMALL_FONT = "11px system-ui, -apple-system, 'Segoe UI', Roboto, 'Noto Sans', sans-serif";
const MOST_KNOWN = 20_000;

export class Labels {
  private readonly widths = new Map<string, number>();

  /** What of `text` fits into `room` pixels; empty if that would be no use. */
  fitting(context: CanvasRenderingContext2D, text: string, room: number): string {
    if (room < 12) return "";
    // No letter is narrower than 2 pixels: of a text that is far too long only the beginning is measured.
    const begin = text.length > room / 2 + 1 ? text.slice(0, Math.ceil(room / 2) + 1) : text;
    const width = this.width(context, begin);
    if (width <= room && begin.length === text.length) return text;
    let keep = Math.floor((begin.length * (room - 8)) / Math.max(width, 1));
    while (keep > 0) {
      const cut = `${text.slice(0, keep)}…`;
      if (keep < 2) return "";
      if (this.width(context, cut) <= room) return cut;
      keep -= 1;
    }
    return "";
  }

  width(context: CanvasRenderingContext2D, text: string): number {
    const known = this.widths.get(text);
    if (known !== undefined) return known;
    if (this.widths.size > MOST_KNOWN) this.widths.clear();
    const width = context.measureText(text).width;
    this.widths.set(text, width);
    return width;
  }
}
