// Light or dark: as the system has it, or as the reader chose.

import type { Theme } from "../model/state";

const dark = window.matchMedia("(prefers-color-scheme: dark)");

export function isDark(theme: Theme): boolean {
  return theme === "auto" ? dark.matches : theme === "dark";
}

/** Puts the theme on the page. */
export function apply(theme: Theme): void {
  document.documentElement.dataset["theme"] = isDark(theme) ? "dark" : "light";
}

export function onSystemChange(act: () => void): void {
  dark.addEventListener("change", act);
}

export function next(theme: Theme): Theme {
  return theme === "auto" ? "light" : theme === "light" ? "dark" : "auto";
}
