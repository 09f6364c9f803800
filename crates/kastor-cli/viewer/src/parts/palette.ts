// The colours of what is drawn. Scopes get one of a few fills by their name, all of which take dark text and stay apart
// for readers who see no red or green (after Paul Tol's "light" scheme, with its orange and pink kept for failures).

export interface Palette {
  isDark: boolean;
  background: string;
  band: string;
  line: string;
  strongLine: string;
  text: string;
  faintText: string;
  boxText: string;
  failure: string;
  failureLine: string;
  selection: string;
  arrow: string;
  track: string;
  trackFill: string;
  density: string;
  fills: readonly string[];
}

const LIGHT: Palette = {
  isDark: false,
  background: "#ffffff",
  band: "#f5f7fa",
  line: "#e3e8ef",
  strongLine: "#c3ccd8",
  text: "#17202c",
  faintText: "#566274",
  boxText: "#10161f",
  failure: "#ee8866",
  failureLine: "#7a1f00",
  selection: "#0b3fb5",
  arrow: "#6b3fa0",
  track: "#2563a8",
  trackFill: "#2563a833",
  density: "#77aadd",
  fills: ["#77aadd", "#99ddff", "#5ec4a6", "#c9d66b", "#e3d27a", "#b9a7e0", "#8fc7d9", "#a9cf9a", "#c5cbd6", "#d9bfe6"],
};

const DARK: Palette = {
  isDark: true,
  background: "#12161d",
  band: "#171c25",
  line: "#262e3b",
  strongLine: "#3b4658",
  text: "#e8edf4",
  faintText: "#9aa7b9",
  boxText: "#0c1117",
  failure: "#f0875f",
  failureLine: "#5a1500",
  selection: "#ffffff",
  arrow: "#cdb2f5",
  track: "#7db7f0",
  trackFill: "#7db7f033",
  density: "#5d8fc4",
  fills: ["#6a9fd6", "#86c8ea", "#4fb698", "#b9c65c", "#d3c268", "#a996d8", "#7bb7ca", "#97c088", "#aab2c0", "#c8abd8"],
};

export const FILLS = LIGHT.fills.length;

export function palette(isDark: boolean): Palette {
  return isDark ? DARK : LIGHT;
}

/** Which fill a name has by itself: the same everywhere. */
export function fillOf(name: string): number {
  let hash = 0x811c9dc5;
  for (let at = 0; at < name.length && at < 64; at += 1) {
    hash = Math.imul(hash ^ name.charCodeAt(at), 0x01000193);
  }
  hash ^= hash >>> 15;
  return (hash >>> 0) % FILLS;
}

/** From blue (faster) over grey (same) to orange (slower): apart for every kind of colour vision. */
export function changeColour(isDark: boolean, ratio: number): string {
  // A factor of two, or a half, has the full colour.
  const strength = Math.max(-1, Math.min(1, Math.log2(Math.max(1 + ratio, 1e-6))));
  const middle = isDark ? [122, 132, 147] : [222, 227, 234];
  const end = strength > 0 ? (isDark ? [255, 150, 60] : [235, 120, 20]) : isDark ? [70, 150, 255] : [60, 130, 230];
  const share = Math.sqrt(Math.abs(strength));
  const mixed = middle.map((from, channel) => Math.round(from + ((end[channel] ?? from) - from) * share));
  return `rgb(${mixed.join(" ")})`;
}
