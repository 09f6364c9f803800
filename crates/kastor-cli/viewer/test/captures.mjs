// Captures for the page to open: recorded by the real program, or written byte by byte as docs/format.md has them.

import { spawnSync } from "node:child_process";
import { copyFileSync, mkdirSync, readdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";

/** What a name may try on a page and on a reader's eyes. */
export const HOSTILE_NAMES = [
  "<img src=x onerror=\"window.hit=1\">",
  "</script><script>window.hit=1</script>",
  "\u001b[31mred\u001b[0m\u0007",
  "\u202egnp.exe\u202c",
  "zero\u200bwidth\ufeff",
  "line\nend\r\ttab",
  "\u0000null",
  "javascript:window.hit=1",
  "${window.hit=1}{{window.hit=1}}",
  "__proto__",
  "x".repeat(4000),
  "",
];

/** A folder with documents: sources, three that are no text, one whose name is markup. Returns how many are no text. */
export function documents(folder, sources) {
  mkdirSync(folder, { recursive: true });
  for (const entry of readdirSync(sources, { withFileTypes: true })) {
    if (entry.isFile()) copyFileSync(join(sources, entry.name), join(folder, entry.name));
  }
  for (const number of [1, 2, 3]) writeFileSync(join(folder, `binary-${number}.bin`), Buffer.from([0xff, 0xfe, 0x80, number]));
  writeFileSync(join(folder, "<b onclick=alert(1)>\u202e.txt"), "hostile names are names\n");
  return 3;
}

/** Runs the demonstration on these documents into a capture. */
export function record(program, documentsFolder, capture) {
  const ran = spawnSync(program, ["demo", documentsFolder, "--json", "--repeat", "1", "--threads", "2", "--capture", capture], { encoding: "utf8" });
  if (ran.status !== 0) throw new Error(`kastor demo: status ${ran.status}\n${ran.stderr}`);
  return JSON.parse(ran.stdout);
}

/** A capture with these paths (number, number above, name), and one scope of a microsecond under each. */
export function writePaths(file, paths) {
  writeFileSync(file, capture(1, paths));
}

/** Paths whose names are hostile, one inside the other and side by side. */
export function writeHostileNames(file) {
  const paths = HOSTILE_NAMES.map((name, at) => [at + 1, 0, name]);
  HOSTILE_NAMES.forEach((name, at) => paths.push([HOSTILE_NAMES.length + at + 1, at + 1, name]));
  writePaths(file, paths);
}

/** A capture of a version that nobody has written yet. */
export function writeFuture(file) {
  writeFileSync(file, capture(9999, [[1, 0, "later"]]));
}

/** A capture without its end. */
export function truncate(from, to) {
  const bytes = readFileSync(from);
  writeFileSync(to, bytes.subarray(0, Math.floor(bytes.length * 0.6) + 3));
}

/** A capture with a bit turned in every few hundred bytes, after its first frame. */
export function flip(from, to) {
  const bytes = Buffer.from(readFileSync(from));
  for (let at = 700; at < bytes.length; at += 977) bytes[at] ^= 1 << at % 8;
  writeFileSync(to, bytes);
}

const START_NS = 1_795_168_800_000_000_000n;
const MOST_IN_BLOCK = 20_000;

function capture(version, paths) {
  const frames = [frame(1, 0, session(version))];
  let events = 0;
  for (let from = 0, sequence = 1; from < paths.length; from += MOST_IN_BLOCK, sequence += 1) {
    const part = paths.slice(from, from + MOST_IN_BLOCK);
    const names = Buffer.concat(part.map(([number, above, name]) => {
      const text = Buffer.from(name);
      return Buffer.concat([words(number, above, text.length, 0), text, Buffer.alloc(-text.length & 7)]);
    }));
    frames.push(frame(3, sequence, names));
    const records = Buffer.concat(part.map(([number]) =>
      Buffer.concat([words(number), Buffer.from([0, 1, 4, 0]), words(number, 0, number, 1000), Buffer.alloc(8)])));
    events += part.length;
    const head = Buffer.concat([
      longs(99n), words(1, part.length, 0, 0),
      longs(0n, 1000n, 1000n, 0n, 0n, START_NS), real(1), words(records.length, 0), longs(BigInt(sequence), BigInt(events)),
    ]);
    frames.push(frame(5, sequence, Buffer.concat([head, records])));
  }
  return Buffer.concat(frames);
}

function session(version) {
  return Buffer.concat([Buffer.from("kastor c"), words(version, 1), longs(7n, 0n), words(42, 1), longs(START_NS)]);
}

function frame(kind, sequence, payload) {
  let head = Buffer.concat([
    Buffer.from([0x9e, 0x4b, 0x46, 0x72]), words(payload.length), longs(BigInt(sequence)), Buffer.from([kind, 0, 0, 0, 0, 0, 0, 0]), words(crc32c(payload)),
  ]);
  head = Buffer.concat([head, words(crc32c(head)), payload]);
  return Buffer.concat([head, Buffer.alloc(-head.length & 7)]);
}

function words(...numbers) {
  const bytes = Buffer.alloc(numbers.length * 4);
  numbers.forEach((number, at) => bytes.writeUInt32LE(number >>> 0, at * 4));
  return bytes;
}

function longs(...numbers) {
  const bytes = Buffer.alloc(numbers.length * 8);
  numbers.forEach((number, at) => bytes.writeBigUInt64LE(number, at * 8));
  return bytes;
}

function real(number) {
  const bytes = Buffer.alloc(8);
  bytes.writeDoubleLE(number);
  return bytes;
}

const TABLE = Uint32Array.from({ length: 256 }, (_, byte) => {
  let check = byte;
  for (let bit = 0; bit < 8; bit += 1) check = check & 1 ? (check >>> 1) ^ 0x82f63b78 : check >>> 1;
  return check >>> 0;
});

function crc32c(bytes) {
  let check = 0xffffffff;
  for (const byte of bytes) check = TABLE[(check ^ byte) & 255] ^ (check >>> 8);
  return ~check >>> 0;
}
