// The line of facts on the capture, and what is missing from it.

import { element } from "../parts/dom";
import { neutral } from "../model/text";
import { briefCount, bytes, count, duration, moment, unixNs } from "../model/units";
import type { Capture } from "../source/contract";

export function captureFacts(capture: Capture): HTMLElement[] {
  const fact = (value: string, name: string, title: string, kind = ""): HTMLElement =>
    element("span", { class: `fact ${kind}`.trim(), title }, [element("b", { text: value }), ` ${name}`]);
  const made = [
    fact(duration(capture.durationNs), "long", `begins at ${moment(unixNs(capture.startUnixNs))}`),
    fact(briefCount(capture.scopes), capture.scopes === 1 ? "scope" : "scopes", `${count(capture.scopes)} scopes`),
  ];
  if (capture.failed > 0) made.push(fact(briefCount(capture.failed), "failed", `${count(capture.failed)} scopes failed`, "is-failed"));
  if (capture.metrics > 0) made.push(fact(briefCount(capture.metrics), "metrics", `${count(capture.metrics)} series or events of metrics`));
  if (capture.processes.length > 1) made.push(fact(count(capture.processes.length), "processes", capture.processes.map((process) => neutral(process.label)).join("\n")));
  const missing = whatIsMissing(capture);
  if (missing.length > 0) made.push(element("span", { class: "fact is-missing", title: missing.join("\n"), text: `⚠ ${missing.join("; ")}` }));
  return made;
}

function whatIsMissing(capture: Capture): string[] {
  const missing: string[] = [];
  if (capture.missing) missing.push(neutral(capture.missing));
  else if (capture.missingEvents !== null && capture.missingEvents > 0) missing.push(`${briefCount(capture.missingEvents)} ${capture.missingEvents === 1 ? "event is" : "events are"} missing`);
  if (!capture.missing && capture.damagedPlaces > 0) missing.push(`${count(capture.damagedPlaces)} damaged ${capture.damagedPlaces === 1 ? "place" : "places"} left out`);
  if (!capture.missing && capture.tornBytes > 0) missing.push(`${bytes(capture.tornBytes)} torn off at the end`);
  if (capture.isIndexOnly) missing.push("too large to read whole: zoom in to see scopes");
  return missing;
}
