// The page of `kastor view`: finds out where its data comes from, and shows it.

import "uplot/dist/uPlot.min.css";
import "./style.css";
import { Page } from "./frame/page";
import { Store } from "./model/state";
import { drawTimes } from "./parts/surface";
import { embeddedSource } from "./source/embedded";
import { HttpSource } from "./source/http";

declare global {
  interface Window {
    /** For tests and measurements. */
    kastorViewer: { drawTimes: number[]; firstPictureMs: number | null; readonly view: string };
  }
}

function start(): void {
  const root = document.getElementById("app");
  if (root === null) throw new Error("the page has no place to draw in");
  const store = new Store();
  window.kastorViewer = {
    drawTimes,
    firstPictureMs: null,
    get view() {
      return store.now.view;
    },
  };
  try {
    const source = embeddedSource() ?? new HttpSource(store.token);
    const page = new Page(root, source, store, () => {
      window.kastorViewer.firstPictureMs ??= performance.now();
    });
    void page.start();
  } catch (error) {
    root.textContent = error instanceof Error ? error.message : String(error);
  }
}

if (document.readyState === "loading") document.addEventListener("DOMContentLoaded", start);
else start();
