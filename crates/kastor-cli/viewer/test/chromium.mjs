// Chromium without a window, and what a page did wrong in it.

import { chromium } from "playwright-core";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";

const ARGUMENTS = [
  "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
  "--disable-component-update", "--disable-sync",
];

/** A browser with a profile of its own, which is gone when it is closed. */
export async function open(executablePath, options = {}) {
  const profile = mkdtempSync(join(tmpdir(), "kastor-viewer-"));
  const context = await chromium.launchPersistentContext(profile, {
    executablePath, args: ARGUMENTS, viewport: { width: 1280, height: 800 }, colorScheme: "light", hasTouch: true,
    permissions: ["clipboard-read", "clipboard-write"], ...options,
  });
  return {
    context,
    async close() {
      await context.close();
      rmSync(profile, { recursive: true, force: true });
    },
  };
}

/** A page whose errors, broken policies and requests are written down. */
export async function newPage(context) {
  const page = await context.newPage();
  const faults = { pageErrors: [], cspViolations: [], requests: [] };
  page.on("pageerror", (error) => faults.pageErrors.push(String(error.stack ?? error)));
  page.on("console", (message) => {
    const text = message.text();
    if (/Content Security Policy/i.test(text)) faults.cspViolations.push(text);
  });
  page.on("request", (request) => faults.requests.push(request.url()));
  await page.addInitScript(() => {
    window.violations = [];
    document.addEventListener("securitypolicyviolation", (event) => {
      window.violations.push(`${event.violatedDirective}: ${event.blockedURI || event.sample} (${event.sourceFile}:${event.lineNumber})`);
    });
  });
  faults.collect = async () => {
    faults.cspViolations.push(...(await page.evaluate(() => window.violations.splice(0)).catch(() => [])));
    return faults;
  };
  return { page, faults };
}

/** Waits until the timeline was drawn with data. */
export async function firstPicture(page, timeout = 60_000) {
  await page.waitForFunction(() => window.kastorViewer?.firstPictureMs !== null && window.kastorViewer !== undefined, null, { timeout, polling: 10 });
  return page.evaluate(() => window.kastorViewer.firstPictureMs);
}
