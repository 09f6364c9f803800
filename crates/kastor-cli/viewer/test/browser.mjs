// The page in a real browser, as a reader uses it: `node browser.mjs PROGRAM CHROMIUM FOLDER`.
//
// PROGRAM is the command `kastor`; captures are made with it and written to FOLDER. Each check is a sentence; whatever a
// page does wrong on the way (an error, something its policy forbids) fails the check it happened in.

import assert from "node:assert/strict";
import { spawn, spawnSync } from "node:child_process";
import { existsSync, mkdirSync, rmSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath, pathToFileURL } from "node:url";
import * as captures from "./captures.mjs";
import { firstPicture, newPage, open } from "./chromium.mjs";

const [program, chromium, folder, only = ""] = process.argv.slice(2);
if (folder === undefined) {
  console.error("usage: node browser.mjs PROGRAM CHROMIUM FOLDER [CHECK]");
  process.exit(2);
}
const MILLION = 1_000_000;
/** Filters are read twice: by the program in Rust, by the page alone in TypeScript. */
const FILTERS = [
  "token", "DOCUMENT", "path:demo.*", "path:demo.document", "path:*t?k*", "error", "-error", "error:utf", "error:UTF-8 -decode",
  "duration>20us", "duration<=20us", "duration>0.02ms token", "attr:file", "attr:file=binary-?.bin", "attr:file=*.ts -error",
  "attr:bytes=4", "thread:worker-*", "thread:main", "process:1", "\"error\"", "path:\"demo.document\"", "demo -\"document\"",
  "-\"error\"", "duration>1e1us", "duration>1", "duration:1ms", "process:x", "colour:red", "path:", "\"open",
];
const sources = join(fileURLToPath(new URL(".", import.meta.url)), "../src/timeline");
const file = (name) => join(folder, name);

mkdirSync(folder, { recursive: true });
for (const old of ["documents", "run.kcap", "base.kcap", "live"]) rmSync(file(old), { recursive: true, force: true });
const unreadable = captures.documents(file("documents"), sources);
captures.record(program, file("documents"), file("base.kcap"));
captures.record(program, file("documents"), file("run.kcap"));

const browser = await open(chromium);
const servers = [];
let passed = 0;
const failed = [];

try {
  await run();
} finally {
  for (const server of servers) server.stop();
  await browser.close();
}
console.log(`${passed} checks of the viewer passed${failed.length > 0 ? `, ${failed.length} failed` : ""}`);
for (const { name, error } of failed) console.error(`FAILED ${name}\n${error.stack ?? error}`);
process.exit(failed.length === 0 && passed > 0 ? 0 : 1);

async function run() {
  const one = await serve([file("run.kcap")]);
  const two = await serve([file("run.kcap"), "--base", file("base.kcap")]);

  await check("a capture is drawn, and the token stays in the fragment", one, async ({ page, faults }) => {
    assert.ok((await firstPicture(page)) > 0);
    assert.ok(await colours(page, "canvas.lanes") > 4, "the timeline shows boxes");
    assert.ok(await colours(page, "canvas.minimap") > 2, "the strip shows the whole");
    assert.match(await page.locator(".facts-line").innerText(), /scopes/);
    assert.deepEqual(faults.requests.filter((url) => url.replace(/#.*/, "").includes("token")), []);
    assert.deepEqual(faults.requests.filter((url) => !url.startsWith(one.origin) && !url.startsWith("data:")), []);
  });

  await check("wheel, keys, drag and two fingers zoom and pan, and the address follows", one, async ({ page }) => {
    await firstPicture(page);
    const whole = await range(page);
    const box = await page.locator("canvas.lanes").boundingBox();
    const middle = { x: box.x + box.width / 2, y: box.y + 100 };
    await page.mouse.move(middle.x, middle.y);
    for (let notch = 0; notch < 5; notch += 1) await page.mouse.wheel(0, -120);
    const near = await settled(page, (now) => now !== null);
    assert.ok(near.to - near.from > 0);
    await page.mouse.down();
    await page.mouse.move(middle.x + 40, middle.y, { steps: 4 });
    await page.mouse.move(middle.x + 120, middle.y, { steps: 4 });
    await page.mouse.up();
    const dragged = await settled(page, (now) => now.from < near.from);
    assert.ok(Math.abs(dragged.to - dragged.from - (near.to - near.from)) < 5, "a drag keeps the span");
    await page.locator("canvas.lanes").focus();
    await page.keyboard.press("w");
    const nearer = await settled(page, (now) => now.to - now.from < dragged.to - dragged.from);
    await page.keyboard.press("d");
    const right = await settled(page, (now) => now.from > nearer.from);
    await page.keyboard.press("ArrowLeft");
    await settled(page, (now) => now.from < right.from);
    await page.keyboard.press("s");
    const far = await settled(page, (now) => now.to - now.from > right.to - right.from);
    await pinch(page, middle, 60, 200);
    await settled(page, (now) => now.to - now.from < (far.to - far.from) * 0.8);
    await page.keyboard.press("0");
    assert.deepEqual(await settled(page, (now) => now === null), whole);
  });

  await check("a reload of an address shows the same range, view, filter, search and order", one, async ({ page }) => {
    await firstPicture(page);
    await page.locator("#filter").fill("error");
    await page.keyboard.press("Enter");
    await page.getByRole("tab", { name: "Scopes" }).click();
    const rows = await grid(page, ".scopes-view");
    assert.equal(rows.length, unreadable * 2, "documents that are no text fail, and their decoding");
    await page.getByRole("button", { name: "Start" }).click();
    await page.locator("[aria-sort=descending] >> text=Start").waitFor();
    const sorted = await grid(page, ".scopes-view");
    await page.waitForTimeout(300); // the address is written when the reader pauses
    const address = page.url();
    assert.match(address, /filter=error/);
    await page.reload();
    await page.locator(".scopes-view .grid-row").first().waitFor();
    assert.equal(page.url(), address);
    assert.equal(await page.locator("#filter").inputValue(), "error");
    assert.deepEqual(await grid(page, ".scopes-view"), sorted);
    await page.goto(`${one.url}&view=timeline&from=1000000&to=2000000&search=token`);
    await page.reload();
    await firstPicture(page);
    assert.deepEqual(await range(page), { from: 1_000_000, to: 2_000_000 });
    assert.equal(await page.locator("#search").inputValue(), "token");
  });

  await check("a filter that is none is told, and where", one, async ({ page }) => {
    await firstPicture(page);
    await page.locator("#filter").fill("duration>soon");
    await page.keyboard.press("Enter");
    await page.locator(".filter-error").waitFor();
    assert.match(await page.locator(".filter-error").innerText(), /soon/);
    assert.equal(await page.locator("#filter").getAttribute("aria-invalid"), "true");
    await page.locator("#filter").fill("");
    await page.keyboard.press("Enter");
    await page.locator(".filter-error").waitFor({ state: "hidden" });
    await page.goto("about:blank");
    await page.goto(`${one.url}&filter=${encodeURIComponent("colour:red")}`);
    await page.locator(".filter-error").waitFor();
    // Nothing is said to be on its way once the answers are there: the error and the timeline have one each.
    await page.locator(".timeline > .empty").waitFor({ state: "hidden" });
  });

  await check("the flame graph shows, searches, focuses and turns round", one, async ({ page }) => {
    await page.goto(`${one.url}&view=flame`);
    await page.locator(".flame-box canvas").waitFor();
    await drawn(page, ".flame-box canvas", 4);
    await page.locator("#search").fill("token");
    await page.locator(".view-note", { hasText: "of the time" }).waitFor();
    await page.locator("#search").fill("");
    await page.locator(".flame-box canvas").focus();
    await page.keyboard.press("ArrowDown");
    await page.keyboard.press("ArrowDown");
    await page.keyboard.press("Enter");
    await page.locator(".detail h2").waitFor();
    assert.match(page.url() + (await page.locator(".path-line code").innerText()), /demo\./);
    await page.getByRole("button", { name: "Flame", exact: true }).click();
    assert.equal(await page.getByRole("button", { name: "Flame", exact: true }).getAttribute("aria-pressed"), "true");
    await page.locator(".flame-box canvas").focus();
    await page.keyboard.press("Escape");
    await page.locator(".detail").waitFor({ state: "hidden" });
  });

  await check("the call tree sorts by every column, folds, and has the numbers of the report", one, async ({ page }) => {
    await page.goto(`${one.url}&view=calls&shape=flat`);
    await page.locator(".calls-view .grid-row").first().waitFor();
    for (const title of ["Calls", "Failed", "Total", "Of parent", "Self", "Mean", "Min", "p50", "p95", "p99", "Max", "Path"]) {
      await page.getByRole("columnheader", { name: title, exact: true }).getByRole("button").click();
      const sort = await page.getByRole("columnheader", { name: title, exact: true }).getAttribute("aria-sort");
      assert.ok(["ascending", "descending"].includes(sort), `${title} is marked as sorted`);
    }
    await page.getByRole("columnheader", { name: "Self", exact: true }).getByRole("button").click();
    const shown = await page.$$eval(".calls-view .grid-row", (rows) => rows.map((row) => ({
      path: row.children[0].title,
      calls: row.children[1].textContent,
      self: Number(row.children[5].title.replace(/[^\d]/g, "")),
      total: Number(row.children[3].title.replace(/[^\d]/g, "")),
    })).sort((one, other) => other.self - one.self));
    const tree = await page.evaluate(rowsInOrder, ".calls-view");
    assert.deepEqual(tree.map((text) => text.path), shown.map((row) => row.path), "the largest self time stands first");
    const report = JSON.parse(output(["report", file("run.kcap"), "--json"]));
    const expected = new Map(callsOf(report).map((row) => [row.path, row]));
    assert.ok(shown.length > 5);
    for (const row of shown) {
      assert.equal(row.calls, String(expected.get(row.path).calls), row.path);
      assert.equal(row.total, expected.get(row.path).total, row.path);
    }
    await page.getByRole("button", { name: "Tree", exact: true }).click();
    await page.getByRole("button", { name: "Fold all" }).click();
    await page.waitForFunction(() => document.querySelectorAll(".calls-view .grid-row").length === 1);
    await page.locator(".calls-view .grid").focus();
    await page.keyboard.press("ArrowDown");
    await page.keyboard.press("ArrowRight");
    await page.waitForFunction(() => document.querySelectorAll(".calls-view .grid-row").length > 3);
    assert.equal(await page.locator(".calls-view .grid-row").first().getAttribute("aria-expanded"), "true");
  });

  await check("a scope tells its attributes, and gives them away by copying", one, async ({ page }) => {
    await page.goto(`${one.url}&view=scopes&filter=${encodeURIComponent("path:demo.document attr:file=binary-1.bin")}`);
    await page.locator(".scopes-view .grid-row").first().click();
    await page.locator(".attributes").waitFor();
    assert.match(await page.locator(".attributes").innerText(), /binary-1\.bin/);
    assert.match(await page.locator(".failure").innerText(), /failed/);
    await page.locator(".detail > header").getByRole("button", { name: "Copy all of it" }).click();
    await page.locator(".alert").waitFor();
    const copied = await page.evaluate(() => navigator.clipboard.readText());
    assert.match(copied, /^demo\.document\n/);
    assert.match(copied, /file\tbinary-1\.bin/);
    await page.getByRole("button", { name: "Show in timeline" }).click();
    await page.locator("canvas.lanes").waitFor();
    assert.notEqual(await settled(page, (now) => now !== null), null);
  });

  await check("a page can be used with keys alone, and says aloud what is selected", one, async ({ page }) => {
    await firstPicture(page);
    await page.keyboard.press("Tab");
    assert.equal(await focused(page), "a.skip");
    await page.keyboard.press("Enter");
    assert.match(await focused(page), /^canvas/);
    const outline = await page.evaluate(() => getComputedStyle(document.activeElement).outlineStyle);
    assert.notEqual(outline, "none", "the focus can be seen");
    await page.keyboard.press("Shift+ArrowRight");
    await page.locator(".detail h2").waitFor();
    const first = await page.locator(".spoken").innerText();
    assert.match(first, /demo, /);
    await page.keyboard.press("Shift+ArrowDown");
    await page.waitForFunction((before) => document.querySelector(".spoken").textContent !== before, first);
    await page.keyboard.press("Escape");
    await page.locator(".detail").waitFor({ state: "hidden" });
    await page.keyboard.press("3");
    await page.locator(".calls-view").waitFor();
    await page.keyboard.press("?");
    assert.ok(await page.locator("dialog.help").evaluate((dialog) => dialog.open));
    await page.keyboard.press("Escape");
    assert.ok(!(await page.locator("dialog.help").evaluate((dialog) => dialog.open)));
    await page.keyboard.press("/");
    assert.equal(await page.evaluate(() => document.activeElement.id), "search");
    const unnamed = await page.$$eval("button, input, canvas, [role=grid], [role=treegrid]", (elements) => elements
      .filter((one) => one.getAttribute("aria-hidden") !== "true")
      .filter((one) => !(one.getAttribute("aria-label") || one.textContent.trim()))
      .map((one) => one.outerHTML.slice(0, 120)));
    assert.deepEqual(unnamed, [], "everything that can be used has a name");
  });

  await check("at 200 % zoom nothing is cut off or on top of another", one, async ({ page }) => {
    await page.setViewportSize({ width: 640, height: 400 });
    for (const view of ["timeline", "flame", "calls", "scopes", "metrics"]) {
      await page.goto(`${one.url}&view=${view}`);
      await page.reload();
      await page.locator(".main > section").waitFor();
      const wide = await page.evaluate(() => document.documentElement.scrollWidth - document.documentElement.clientWidth);
      assert.ok(wide <= 0, `${view} is ${wide} px too wide`);
      const covered = await page.evaluate(() => {
        const parts = [...document.querySelectorAll(".top button:not([hidden]), .top input")].filter((part) => part.offsetParent !== null);
        const boxes = parts.map((part) => part.getBoundingClientRect());
        return boxes.flatMap((one, at) => boxes.slice(at + 1).map((other, next) => [one, other, at, at + 1 + next]))
          .filter(([one, other]) => Math.min(one.right, other.right) - Math.max(one.left, other.left) > 2 && Math.min(one.bottom, other.bottom) - Math.max(one.top, other.top) > 2)
          .map(([, , at, next]) => `${parts[at].outerHTML.slice(0, 80)} / ${parts[next].outerHTML.slice(0, 80)}`);
      });
      assert.deepEqual(covered, [], view);
      const main = await page.locator(".main").boundingBox();
      assert.ok(main.height > 150, `${view} has ${main.height} px left`);
    }
  });

  await check("with little height the view keeps its width beside the panel", one, async ({ page }) => {
    await page.setViewportSize({ width: 1200, height: 420 });
    await page.goto(`${one.url}&view=flame&path=demo.document`);
    await page.reload();
    await page.locator(".detail .facts").waitFor();
    assert.ok((await page.locator(".main").boundingBox()).width > 700);
  });

  await check("light and dark can be chosen, and the choice is in the address", one, async ({ page }) => {
    await firstPicture(page);
    const ground = () => page.evaluate(() => getComputedStyle(document.body).backgroundColor);
    const light = await ground();
    const theme = page.getByRole("button", { name: /^Theme/ });
    await theme.click();
    await theme.click();
    assert.equal(await page.evaluate(() => document.documentElement.dataset.theme), "dark");
    assert.notEqual(await ground(), light);
    await page.waitForFunction(() => location.hash.includes("theme=dark"));
    await page.reload();
    assert.equal(await page.evaluate(() => document.documentElement.dataset.theme), "dark");
  });

  await check("two captures are compared: judged in a table, coloured in a flame graph", two, async ({ page }) => {
    await page.goto(`${two.url}&view=compare`);
    await page.locator(".compare-view .grid-row").first().waitFor();
    await drawn(page, ".compare-view canvas", 2);
    const words = await page.$$eval(".compare-view .judgement", (cells) => cells.map((cell) => cell.textContent));
    assert.ok(words.length > 5);
    for (const word of words) assert.ok(["same", "slower", "faster", "unclear", "few calls", "new", "gone"].includes(word), word);
    const chip = page.locator(".chip:not([hidden])").first();
    const number = Number(/\d+$/.exec(await chip.innerText())[0]);
    await chip.click();
    await page.waitForFunction((count) => document.querySelectorAll(".compare-view .grid-row").length === count, number);
    await chip.click();
    await page.getByRole("columnheader", { name: "Self" }).getByRole("button").click();
    await page.locator(".compare-view .grid-row").first().click();
    await page.locator(".detail").waitFor();
    await page.getByRole("button", { name: /^base:/ }).click();
    await page.getByRole("tab", { name: "Timeline" }).click();
    await drawn(page, "canvas.lanes", 4);
    assert.match(page.url(), /capture=1/);
  });

  await check("metrics stand in cards", one, async ({ page }) => {
    await page.goto(`${one.url}&view=metrics`);
    await page.locator(".card").first().waitFor();
    const names = await page.$$eval(".card h3", (titles) => titles.map((title) => title.textContent));
    assert.ok(names.includes("file_bytes") && names.includes("documents"), names.join());
    await page.locator("#search").fill("file_bytes");
    await page.waitForFunction(() => document.querySelectorAll(".card").length === 1);
    assert.match(await page.locator(".card .facts").innerText(), /p95/);
  });

  await check("a series with values over time is a chart, and a track below the lanes", one, async ({ page }) => {
    // The demonstration is over before its sums were written twice: the values are the test's, the chart is the page's.
    await page.route("**/api/points?*", (route) => {
      const t = Array.from({ length: 80 }, (_, at) => at * 20_000);
      const value = t.map((_, at) => (at * 7) % 30);
      return route.fulfill({ json: { t, value, min: value.map((one) => one - 1), max: value.map((one) => one + 1) } });
    });
    await page.goto(`${one.url}&view=metrics`);
    await page.reload();
    await page.locator(".card .uplot canvas").first().waitFor();
    await drawn(page, ".card .uplot canvas", 3);
    await page.locator(".card .u-over").first().hover();
    await page.locator(".card .u-legend .u-value", { hasText: /\d/ }).first().waitFor();
    await page.keyboard.press("1");
    await page.locator(".label.track").first().waitFor();
    assert.ok((await page.locator(".label.track").count()) > 1);
  });

  await check("without its token a page says what to do", one, async ({ page }) => {
    await page.goto("about:blank");
    await page.goto(`${one.origin}/#token=00000000000000000000000000000000`);
    await page.locator(".empty.large").waitFor();
    assert.match(await page.locator(".empty.large").innerText(), /token/);
  });

  await check("Perfetto gets the trace by its messages", one, async ({ page }) => {
    await firstPicture(page);
    // Perfetto's page is in the internet: a page of ours speaks its part of the conversation.
    await page.context().route("https://ui.perfetto.dev/**", (route) => route.fulfill({
      contentType: "text/html",
      body: `<script>addEventListener("message", (event) => {
        if (event.data === "PING") event.source.postMessage("PONG", event.origin);
        else document.title = event.data.perfetto.title + " " + event.data.perfetto.buffer.byteLength;
      })</script>`,
    }));
    const [perfetto] = await Promise.all([page.waitForEvent("popup"), page.getByRole("button", { name: "Perfetto" }).click()]);
    await perfetto.waitForFunction(() => /^run\.kcap \d{4,}$/.test(document.title));
    await perfetto.close();
    await page.context().unroute("https://ui.perfetto.dev/**");
  });

  await live();
  await html();
  await filters(one, pathToFileURL(file("run.html")).href);
  await hostile();
}

/** A capture that is being written. */
async function live() {
  captures.record(program, file("documents"), file("live"));
  const served = await serve(["--live", file("live")]);
  await check("a capture that is being written is followed", served, async ({ page }) => {
    await firstPicture(page);
    await page.locator(".live").waitFor();
    const before = await page.locator(".facts-line").innerText();
    captures.record(program, file("documents"), file("live"));
    await page.waitForFunction((text) => document.querySelector(".facts-line").innerText !== text, before);
    const scopes = (text) => Number(/([\d,]+)\s+scopes/.exec(text)[1].replaceAll(",", ""));
    const after = await page.locator(".facts-line").innerText();
    assert.equal(scopes(after), 2 * scopes(before));
  });
  served.stop();
}

/** One file, opened from disk. */
async function html() {
  const out = file("run.html");
  output(["view", file("run.kcap"), "--base", file("base.kcap"), "--html", out]);
  const address = pathToFileURL(out).href;
  await check("one file holds everything and asks nobody", { url: `${address}#` }, async ({ page, faults }) => {
    await firstPicture(page);
    assert.ok(await colours(page, "canvas.lanes") > 4);
    await page.mouse.move(700, 300);
    for (let notch = 0; notch < 4; notch += 1) await page.mouse.wheel(0, -120);
    await settled(page, (now) => now !== null);
    await page.keyboard.press("4");
    await page.getByRole("button", { name: "Whole capture" }).click();
    await page.getByRole("tab", { name: "Calls" }).click();
    await page.locator(".calls-view .grid-row").nth(3).waitFor();
    const expected = new Map(callsOf(JSON.parse(output(["report", file("run.kcap"), "--json"]))).map((row) => [row.path, row]));
    for (const row of await page.evaluate(rowsInOrder, ".calls-view")) {
      assert.equal(row.total, expected.get(row.path).total, row.path);
    }
    await page.locator("#filter").fill("error");
    await page.keyboard.press("Enter");
    await page.getByRole("tab", { name: "Scopes" }).click();
    await page.waitForFunction((count) => document.querySelectorAll(".scopes-view .grid-row").length === count, unreadable * 2);
    await page.locator(".scopes-view .grid-row", { hasText: "demo.document" }).first().click();
    await page.locator(".attributes, .failure").first().waitFor();
    await page.locator("#filter").fill("attr:file=binary-2.bin path:demo.document");
    await page.keyboard.press("Enter");
    await page.waitForFunction(() => document.querySelectorAll(".scopes-view .grid-row").length === 1);
    await page.locator("#filter").fill("nothing:such");
    await page.keyboard.press("Enter");
    await page.locator(".filter-error").waitFor();
    await page.locator("#filter").fill("");
    await page.keyboard.press("Enter");
    await page.getByRole("tab", { name: "Compare" }).click();
    await page.locator(".compare-view .grid-row").first().waitFor();
    await page.getByRole("tab", { name: "Metrics" }).click();
    await page.locator(".card").first().waitFor();
    assert.deepEqual(faults.requests.filter((url) => url.split("#")[0] !== address && !url.startsWith("data:")), []);
  });
}

async function filters(served, address) {
  await check("a filter means the same in one file as with the program", served, async ({ page }) => {
    const told = async (url, filter) => {
      await page.goto("about:blank");
      await page.goto(`${url}view=scopes&filter=${encodeURIComponent(filter)}`);
      await page.waitForFunction(() => /scopes/.test(document.querySelector(".scopes-view .view-note")?.textContent ?? "") || document.querySelector(".filter-error:not([hidden])"));
      return page.evaluate(() => document.querySelector(".filter-error:not([hidden])")?.textContent ?? document.querySelector(".scopes-view .view-note").textContent);
    };
    const answers = new Set();
    for (const filter of FILTERS) {
      const [program, alone] = [await told(`${served.url}&`, filter), await told(`${address}#`, filter)];
      assert.equal(alone, program, filter);
      answers.add(program);
    }
    assert.ok(answers.size > 12, "the filters are different ones");
  });
}

/** What nobody should have written. */
async function hostile() {
  captures.writeHostileNames(file("names.kcap"));
  captures.writePaths(file("wide.kcap"), Array.from({ length: MILLION }, (_, at) => [at + 1, 0, `path ${at}`]));
  captures.writePaths(file("deep.kcap"), Array.from({ length: MILLION }, (_, at) => [at + 1, at, "d"]));
  captures.truncate(file("run.kcap"), file("torn.kcap"));
  captures.flip(file("run.kcap"), file("flipped.kcap"));
  captures.writeFuture(file("future.kcap"));
  const every = ["timeline", "flame", "calls", "scopes", "metrics"];

  for (const name of ["names", "wide", "deep", "torn", "flipped"]) {
    const served = await serve([file(`${name}.kcap`)]);
    await check(`hostile capture '${name}' is shown in every view`, served, async ({ page }) => {
      await firstPicture(page, 180_000);
      for (const view of every) {
        await page.keyboard.press(String(every.indexOf(view) + 1));
        await page.locator(`.${view === "timeline" ? "timeline" : `${view}-view`}`).waitFor();
        if (["calls", "scopes"].includes(view)) await page.locator(`.${view}-view .grid-row`).first().waitFor({ timeout: 120_000 });
      }
      if (name === "names") await harmless(page);
      if (name === "wide") {
        assert.ok((await page.evaluate(() => document.querySelectorAll("*").length)) < 5000, "only what is seen exists");
      }
      assert.equal(await page.evaluate(() => window.hit), undefined, "no name was run");
    });
    served.stop();
    if (name !== "names") continue;
    output(["view", file("names.kcap"), "--html", file("names.html")]);
    await check("hostile names in one file are text", { url: `${pathToFileURL(file("names.html")).href}#` }, async ({ page }) => {
      await firstPicture(page);
      await page.keyboard.press("3");
      await page.locator(".calls-view .grid-row").first().waitFor();
      await harmless(page);
    });
  }
  await check("a capture of a later version is refused in words", null, async () => {
    const ran = spawnSync(program, ["view", file("future.kcap"), "--html", file("future.html")], { encoding: "utf8", timeout: 60_000 });
    assert.notEqual(ran.status, 0);
    assert.match(ran.stderr, /version/);
    assert.ok(!existsSync(file("future.html")));
  });
}

/** Hostile names stand on the page as text, and nothing else came of them. */
async function harmless(page) {
  await page.keyboard.press("3");
  await page.locator(".calls-view .grid-row").first().waitFor();
  const { text, elements } = await page.evaluate(() => ({
    text: document.querySelector(".calls-view").innerText,
    elements: document.querySelectorAll(".calls-view img, .calls-view b, .calls-view script").length,
  }));
  assert.equal(elements, 0, "no name became an element");
  assert.match(text, /<img src=x onerror/);
  assert.match(text, /\\u\{1b\}\[31mred/);
  assert.match(text, /\\u\{202e\}gnp/);
  assert.doesNotMatch(text, /[\u0000-\u0008\u000b-\u001f\u007f-\u009f\u200b-\u200f\u202a-\u202e\u2066-\u2069\ufeff]/);
  assert.equal(await page.evaluate(() => window.hit), undefined);
}

/** Runs one check on a page of its own. */
async function check(name, served, act) {
  if (!name.includes(only)) return;
  let opened = null;
  const started = performance.now();
  try {
    if (served === null) {
      await act();
    } else {
      opened = await newPage(browser.context);
      await opened.page.goto(served.url);
      await act(opened);
      const { pageErrors, cspViolations } = await opened.faults.collect();
      assert.deepEqual(pageErrors, [], "errors of the page");
      assert.deepEqual(cspViolations, [], "violations of the page's policy");
    }
    passed += 1;
    console.log(`ok ${name} (${((performance.now() - started) / 1000).toFixed(1)} s)`);
  } catch (error) {
    failed.push({ name, error });
    const pageErrors = opened?.faults.pageErrors ?? [];
    if (pageErrors.length > 0) error.stack = `${error.stack}\nerrors of the page: ${pageErrors.join("\n")}`;
    if (opened !== null) {
      const picture = file(`failed-${failed.length}.png`);
      await opened.page.screenshot({ path: picture, timeout: 5000 }).then(() => console.log(`picture: ${picture}`), () => {});
    }
    console.log(`FAILED ${name}`);
  } finally {
    await opened?.page.close();
  }
}

/** Starts `kastor view` and waits for its address. */
async function serve(words) {
  const child = spawn(program, ["view", ...words, "--no-open"], { stdio: ["ignore", "pipe", "pipe"] });
  const server = { child, stop: () => child.kill("SIGTERM") };
  servers.push(server);
  const url = await new Promise((resolve, reject) => {
    let said = "";
    const hear = (bytes) => {
      said += bytes;
      const found = /http:\/\/127\.0\.0\.1:\d+\/#token=\w+/.exec(said);
      if (found !== null) resolve(found[0]);
    };
    child.stdout.on("data", hear);
    child.stderr.on("data", hear);
    child.on("error", reject);
    child.on("exit", (status) => reject(new Error(`kastor view ended with ${status}: ${said}`)));
  });
  return Object.assign(server, { url, origin: new URL(url).origin });
}

function output(words) {
  const ran = spawnSync(program, words, { encoding: "utf8", maxBuffer: 1 << 28 });
  if (ran.status !== 0) throw new Error(`kastor ${words.join(" ")}: status ${ran.status}\n${ran.stderr}`);
  return ran.stdout;
}

/** Rows of a report's tree: path, calls, total. */
function callsOf(report) {
  const rows = [];
  const pending = [...report.scopes];
  while (pending.length > 0) {
    const scope = pending.pop();
    rows.push({ path: scope.path, calls: scope.calls, total: scope.total_ns });
    pending.push(...(scope.children ?? scope.scopes ?? []));
  }
  return rows;
}

/** Runs in the page: rows of a table from top to bottom. */
function rowsInOrder(view) {
  return [...document.querySelectorAll(`${view} .grid-row`)]
    .sort((one, other) => Number(one.getAttribute("aria-rowindex")) - Number(other.getAttribute("aria-rowindex")))
    .map((row) => ({ path: row.children[0].title, total: Number(row.children[3].title.replace(/[^\d]/g, "")) }));
}

async function grid(page, view) {
  await page.locator(`${view} .grid-row`).first().waitFor();
  return page.$$eval(`${view} .grid-row`, (rows) => rows
    .sort((one, other) => Number(one.getAttribute("aria-rowindex")) - Number(other.getAttribute("aria-rowindex")))
    .map((row) => row.innerText));
}

/** How many colours a canvas shows. */
function colours(page, selector) {
  return page.$eval(selector, (canvas) => {
    const { data } = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height);
    const seen = new Set();
    for (let at = 0; at < data.length; at += 4) seen.add((data[at] << 16) | (data[at + 1] << 8) | data[at + 2]);
    return seen.size;
  });
}

async function drawn(page, selector, least) {
  for (let left = 100; left > 0; left -= 1) {
    if ((await colours(page, selector)) > least) return;
    await page.waitForTimeout(50);
  }
  assert.fail(`${selector} stays empty`);
}

/** The range in the address; null is the whole. */
function range(page) {
  return page.evaluate(() => {
    const fragment = new URLSearchParams(location.hash.slice(1));
    return fragment.has("from") ? { from: Number(fragment.get("from")), to: Number(fragment.get("to")) } : null;
  });
}

/** The range, once it is as wanted and stays. */
async function settled(page, isWanted) {
  let before;
  for (let left = 100; left > 0; left -= 1) {
    await page.waitForTimeout(60);
    const now = await range(page);
    if (isWanted(now) && JSON.stringify(now) === JSON.stringify(before)) return now;
    before = now;
  }
  assert.fail(`the range did not come to what was expected: ${JSON.stringify(before)}`);
}

function focused(page) {
  return page.evaluate(() => `${document.activeElement.localName}.${document.activeElement.className}`);
}

/** Two fingers move apart. */
async function pinch(page, middle, from, to) {
  const session = await page.context().newCDPSession(page);
  const points = (half) => [{ x: middle.x - half, y: middle.y, id: 1 }, { x: middle.x + half, y: middle.y, id: 2 }];
  await session.send("Input.dispatchTouchEvent", { type: "touchStart", touchPoints: points(from) });
  for (let step = 1; step <= 6; step += 1) {
    await session.send("Input.dispatchTouchEvent", { type: "touchMove", touchPoints: points(from + ((to - from) * step) / 6) });
  }
  await session.send("Input.dispatchTouchEvent", { type: "touchEnd", touchPoints: [] });
  await session.detach();
}
