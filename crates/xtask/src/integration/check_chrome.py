"""Reads a Chrome trace with Python's own JSON, and compares every field with what was recorded."""

import json
import sys

from reading import Expected, Faults

folder = sys.argv[1]
expected, faults = Expected(folder), Faults()
with open(f"{folder}/trace.json", encoding="utf-8") as file:
    events = json.load(file)


def of(phase):
    return [event for event in events if event["ph"] == phase]


def ns(us):
    return round(us * 1000)


metadata = {(event["name"], event["tid"]): event["args"] for event in of("M")}
faults.equal("process", metadata["process_name", 0]["name"], expected.process)
zero_ns = int(metadata["kastor_clock", 0]["zero_unix_ns"])
tolerance = expected.tolerance_ns
slices = {event["args"]["span_id"]: event for event in of("X")}
faults.equal("scopes", sorted(slices), sorted(expected.scopes))
for span_id, scope in expected.scopes.items():
    found = slices.get(span_id)
    if found is None:
        continue
    what = scope["path"]
    faults.equal(f"{what}: name", found["name"], scope["name"])
    faults.equal(f"{what}: pid", found["pid"], expected.pid)
    faults.near(f"{what}: begin", zero_ns + ns(found["ts"]), scope["begin_ns"], tolerance)
    faults.near(f"{what}: duration", ns(found["dur"]), scope["duration_ns"], 2 * tolerance)
    faults.equal(f"{what}: category", found["cat"], "scope" if scope["error_type"] is None else "scope,failed")
    attributes = dict(scope["attributes"], trace_id=scope["trace_id"], span_id=span_id)
    if scope["error_type"] is not None:
        attributes["error_type"] = scope["error_type"]
    faults.equal(f"{what}: args", found["args"], attributes)
    thread = metadata["thread_name", found["tid"]]["name"]
    faults.equal(f"{what}: thread", thread.split(" (")[0], scope["thread"])
    if found["tid"] < 1_000_000_000:
        faults.equal(f"{what}: tid", found["tid"], scope["tid"])
    for point in scope["points"]:
        match = [
            it["args"]
            for it in of("i")
            if it["name"] == point["name"] and abs(zero_ns + ns(it["ts"]) - point["at_ns"]) <= tolerance
        ]
        faults.equal(f"{what}: {point['name']}", match, [point["attributes"]])

begins = {event["id"]: event for event in of("s")}
arrows = set()
for end in of("f"):
    begin = begins.get(end["id"])
    faults.equal("an arrow has a beginning", begin is not None, True)
    if begin:
        at = [{span for span, it in slices.items() if (it["tid"], it["ts"]) == (e["tid"], e["ts"])} for e in (begin, end)]
        arrows.update((a, b) for a in at[0] for b in at[1])
faults.equal("arrows that are missing", expected.carried() - arrows, set())

counters = [(event["name"], zero_ns + ns(event["ts"]), event["args"]["value"]) for event in of("C")]
for metric in expected.metrics:
    if isinstance(metric["value"], (int, float)):
        match = [it for it in counters if it[0] == metric["path"] and it[2] == metric["value"]]
        faults.equal(f"{metric['path']} = {metric['value']}", len(match), 1)
for series in expected.series:
    values = [it[2] for it in counters if it[0] == expected.series_name(series)]
    faults.equal(expected.series_name(series), values[-1:], [series["value"]])
faults.finish(f"{len(slices)} slices, {len(begins)} arrows, {len(counters)} counter values")
