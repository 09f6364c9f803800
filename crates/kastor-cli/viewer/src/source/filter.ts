// The filter, for a page without a server: read and decided as the program does it.
//
// Terms are parted by spaces, unless these stand in double quotes; all have to hold; a minus turns one round.

import { SourceError } from "./source";

/** What a filter asks of a scope. */
export interface Subject {
  /** The whole path in small letters. */
  path(): string;
  rawPath(): string;
  durationNs: number;
  isFailed: boolean;
  errorType(): string;
  /** Texts of all attributes with this key. */
  attribute(key: string): string[];
  pid: number;
  thread: string;
}

export type Filter = (scope: Subject) => boolean;

const UNITS: readonly [string, number][] = [["ns", 1], ["us", 1e3], ["µs", 1e3], ["ms", 1e6], ["min", 60e9], ["s", 1e9]];
const MOST_CHARACTERS = 4096;

/** Throws what is wrong with it. Null wants everything. */
export function parseFilter(text: string): Filter | null {
  if (text.length > MOST_CHARACTERS) throw new SourceError(`a filter of ${text.length} characters; ${MOST_CHARACTERS} are allowed`, 0);
  const terms = words(text).map((word) => {
    const isNegated = word.text.length > 1 && word.text.startsWith("-");
    const term = made(isNegated ? word.text.slice(1) : word.text, isNegated ? word.quoteAt - 1 : word.quoteAt, word.at);
    return isNegated ? (scope: Subject): boolean => !term(scope) : term;
  });
  if (terms.length === 0) return null;
  return (scope) => terms.every((term) => term(scope));
}

interface Word {
  text: string;
  at: number;
  /** Where quoted text begins: what is quoted is no operator. */
  quoteAt: number;
}

function words(text: string): Word[] {
  const found: Word[] = [];
  let open: Word | null = null;
  let quotedFrom = -1;
  Array.from(text).forEach((character, at) => {
    if (character === '"') {
      quotedFrom = quotedFrom < 0 ? at : -1;
      open ??= { text: "", at, quoteAt: Infinity };
      open.quoteAt = Math.min(open.quoteAt, open.text.length);
    } else if (/\s/.test(character) && quotedFrom < 0) {
      if (open !== null) found.push(open);
      open = null;
    } else {
      open ??= { text: "", at, quoteAt: Infinity };
      open.text += character;
    }
  });
  if (quotedFrom >= 0) throw new SourceError('a quote that is not closed: add a " at the end', quotedFrom);
  if (open !== null) found.push(open);
  return found.filter((word) => word.text !== "");
}

function made(text: string, quoteAt: number, at: number): Filter {
  const bound = /^duration([<>])=*(.*)$/s.exec(text);
  if (bound !== null) {
    const ns = durationNs(bound[2] ?? "", at);
    return bound[1] === ">" ? (scope) => scope.durationNs > ns : (scope) => scope.durationNs < ns;
  }
  if (text === "error" && quoteAt > 0) return (scope) => scope.isFailed;
  const colon = text.indexOf(":");
  if (colon < 0 || colon >= quoteAt) {
    const wanted = text.toLowerCase();
    return (scope) => scope.path().includes(wanted);
  }
  const [key, value] = [text.slice(0, colon), text.slice(colon + 1)];
  const needed = (): string => {
    if (value === "") throw new SourceError(`nothing after '${key}:'`, at);
    return value;
  };
  switch (key) {
    case "path": {
      const fits = glob(needed());
      return (scope) => fits(scope.rawPath());
    }
    case "thread": {
      const fits = glob(value);
      return (scope) => fits(scope.thread);
    }
    case "error": {
      const wanted = needed().toLowerCase();
      return (scope) => scope.isFailed && scope.errorType().toLowerCase().includes(wanted);
    }
    case "process": {
      const pid = /^\+?\d+$/.test(value) ? Number(value) : Number.NaN;
      if (!(pid < 2 ** 32)) throw new SourceError(`'${value}' is no number of a process`, at);
      return (scope) => scope.pid === pid;
    }
    case "attr": {
      const equals = needed().indexOf("=");
      if (equals < 0) return (scope) => scope.attribute(value).length > 0;
      const [name, fits] = [value.slice(0, equals), glob(value.slice(equals + 1))];
      return (scope) => scope.attribute(name).some(fits);
    }
    case "duration":
      throw new SourceError("a duration is compared: duration>1ms or duration<5s", at);
    default:
      throw new SourceError(`no term '${key}:'; there are path: attr: error: process: thread: and duration> duration<, and "quotes" for a text`, at);
  }
}

function durationNs(text: string, at: number): number {
  const unit = UNITS.find(([name]) => text.endsWith(name));
  const number = unit === undefined ? "" : text.slice(0, -unit[0].length).trim();
  const isNumber = /^\+?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?$/i.test(number) && Number.isFinite(Number(number));
  if (unit === undefined || !isNumber) throw new SourceError(`'${text}' is no duration: try 250us, 1.5ms or 2s`, at);
  return Math.round(Number(number) * unit[1]);
}

/** A pattern in which `*` is any text and `?` any character. In time linear in the text for each star. */
export function glob(pattern: string): (text: string) => boolean {
  const wanted = Array.from(pattern);
  return (text) => {
    const given = Array.from(text);
    let [at, in_, star, retry] = [0, 0, -1, 0];
    while (in_ < given.length) {
      if (at < wanted.length && wanted[at] === "*") {
        star = at;
        at += 1;
        retry = in_;
      } else if (at < wanted.length && (wanted[at] === "?" || wanted[at] === given[in_])) {
        at += 1;
        in_ += 1;
      } else if (star >= 0) {
        at = star + 1;
        retry += 1;
        in_ = retry;
      } else {
        return false;
      }
    }
    while (wanted[at] === "*") at += 1;
    return at === wanted.length;
  };
}
