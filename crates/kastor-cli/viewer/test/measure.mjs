// How quick the page is: `node measure.mjs URL [CHROMIUM]` opens it, zooms and pans for a while, and prints one line of
// JSON: {firstPictureMs, drawP95Ms, frames, pageErrors, cspViolations, requests}.
//
// `firstPictureMs` counts from the moment the page began to load to the end of the first drawing with data; `drawP95Ms` is
// of the page's own drawing by frame, of all canvases, while the camera moves.

import { firstPicture, newPage, open } from "./chromium.mjs";

const STEPS = 12;
const FRAMES_A_STEP = 14;

const [url, executablePath = process.env["KASTOR_CHROMIUM"] ?? "/usr/bin/chromium"] = process.argv.slice(2);
if (url === undefined) {
  console.error("usage: node measure.mjs URL [CHROMIUM]");
  process.exit(2);
}

const browser = await open(executablePath);
try {
  const { page, faults } = await newPage(browser.context);
  await page.goto(url);
  const firstPictureMs = await firstPicture(page, 120_000);
  const box = await page.locator("canvas.lanes").boundingBox();
  if (box === null) throw new Error("the timeline is not shown");
  await page.locator("canvas.lanes").focus();
  await page.evaluate(() => window.kastorViewer.drawTimes.splice(0));
  // Into a place and out again, wandering, by wheel, keys and hand; each movement is let run out, as a reader does.
  for (let step = 0; step < STEPS; step += 1) {
    const x = box.x + box.width * (0.2 + 0.6 * ((step * 0.37) % 1));
    await page.mouse.move(x, box.y + 60);
    for (let notch = 0; notch < 4; notch += 1) await page.mouse.wheel(0, -160);
    await frames(page);
    await page.keyboard.press("d");
    await frames(page);
    await page.mouse.down();
    for (let move = 1; move <= 8; move += 1) await page.mouse.move(x + (step % 2 === 0 ? 25 : -25) * move, box.y + 60);
    await page.mouse.up();
    await page.keyboard.press("a");
    await frames(page);
    if (step % 3 === 2) {
      await page.keyboard.press("0");
      await frames(page);
      await frames(page);
    }
  }
  const times = await page.evaluate(() => [...window.kastorViewer.drawTimes]);
  times.sort((one, other) => one - other);
  const { pageErrors, cspViolations, requests } = await faults.collect();
  const others = requests.filter((one) => one !== url && one.split("#")[0] !== url.split("#")[0] && !one.startsWith("data:"));
  console.log(JSON.stringify({
    firstPictureMs: round(firstPictureMs),
    drawP95Ms: round(times[Math.max(0, Math.ceil(times.length * 0.95) - 1)] ?? Number.NaN),
    drawP50Ms: round(times[Math.floor(times.length / 2)] ?? Number.NaN),
    drawMaxMs: round(times[times.length - 1] ?? Number.NaN),
    frames: times.length,
    pageErrors,
    cspViolations,
    requests: others.length,
  }));
  if (times.length < STEPS * 4) throw new Error(`only ${times.length} frames were drawn`);
} finally {
  await browser.close();
}

function frames(page) {
  return page.evaluate((count) => new Promise((resolve) => {
    const next = (left) => (left === 0 ? resolve() : requestAnimationFrame(() => next(left - 1)));
    next(count);
  }), FRAMES_A_STEP);
}

function round(ms) {
  return Math.round(ms * 100) / 100;
}
