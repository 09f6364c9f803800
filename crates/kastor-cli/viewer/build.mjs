// Builds the page: `node build.mjs [FOLDER]` writes viewer.js, viewer.css and index.html to dist/ or to FOLDER.
//
// The output depends on the sources and the locked packages alone, so that a second build can be compared byte by byte.

import { build } from "esbuild";
import { mkdir, readFile, writeFile } from "node:fs/promises";
import { dirname, join, resolve } from "node:path";
import { fileURLToPath } from "node:url";

const here = dirname(fileURLToPath(import.meta.url));
const out = resolve(process.argv[2] ?? join(here, "dist"));

await mkdir(out, { recursive: true });
const result = await build({
  absWorkingDir: here,
  entryPoints: { viewer: "src/main.ts" },
  outdir: out,
  bundle: true,
  write: false,
  format: "iife",
  target: ["chrome111", "firefox115", "safari16.4"],
  minify: true,
  charset: "ascii",
  legalComments: "none",
  banner: { js: "/* kastor view; with uPlot, MIT, Leon Sorokin */", css: "/* kastor view; with uPlot, MIT, Leon Sorokin */" },
});
for (const file of result.outputFiles) {
  // Inside of a page of its own (--html) the script stands between tags: it must not hold what ends or hides one.
  if (/<\/script|<!--/i.test(file.text)) {
    throw new Error(`${file.path}: holds "</script" or "<!--", which ends the script in a page`);
  }
  await writeFile(file.path, file.text.endsWith("\n") ? file.text : `${file.text}\n`);
}
await writeFile(join(out, "index.html"), await readFile(join(here, "index.html")));
