// Text from outside, made harmless to look at: what controls, hides or reorders text is shown as its number.
//
// The page never builds markup from text (everything goes through textContent), so this is about what a reader sees: a
// name must not seem to be another one. The characters are those that the command line escapes.

const DANGEROUS = new RegExp(
  "[\\u0000-\\u001f\\u007f-\\u009f\\u00ad\\u061c\\u180e\\u200b-\\u200f\\u2028-\\u202e\\u2060-\\u206f\\ufeff\\ufff9-\\ufffb\\ud800-\\udfff" +
    "\\u{e0000}-\\u{e007f}]",
  "gu",
);

/** `text` with every dangerous character as `\u{…}`: one line, left to right as written. */
export function neutral(text: string): string {
  return text.replace(DANGEROUS, (character) => `\\u{${(character.codePointAt(0) ?? 0).toString(16)}}`);
}

/** `text`, neutral and at most `most` characters long. */
export function brief(text: string, most: number): string {
  const harmless = neutral(text.length > most * 2 ? text.slice(0, most * 2) : text);
  return harmless.length > most || text.length > most * 2 ? `${harmless.slice(0, most - 1)}…` : harmless;
}
