import type { Source } from "./source";
export function embeddedSource(): Source | null { return null; }
