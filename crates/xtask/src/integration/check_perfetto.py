"""Decodes a Perfetto trace with the classes that PyPI's `perfetto` has, and compares every field with what was recorded."""

import sys

from perfetto.protos.perfetto.trace.perfetto_trace_pb2 import Trace, TracePacket, TrackEvent
from reading import Expected, Faults

folder = sys.argv[1]
expected, faults = Expected(folder), Faults()
trace = Trace()
with open(f"{folder}/trace.perfetto-trace", "rb") as file:
    trace.ParseFromString(file.read())


def unknown_fields(packet):
    """The classes are newer than any reader: a field that they do not know is a mistake."""
    from google.protobuf.unknown_fields import UnknownFieldSet

    messages = [packet]
    while messages:
        message = messages.pop()
        yield from UnknownFieldSet(message)
        for field, value in message.ListFields():
            if field.message_type is not None:
                messages.extend(value if field.is_repeated else [value])


tracks, events, names = {}, [], {}
for packet in trace.packet:
    faults.equal("unknown fields", list(unknown_fields(packet)), [])
    if packet.sequence_flags & TracePacket.SEQ_INCREMENTAL_STATE_CLEARED:
        names.clear()
        faults.equal("default clock", packet.trace_packet_defaults.timestamp_clock_id, 1)
    for kind in ("event_categories", "event_names", "debug_annotation_names"):
        names.update({(kind, entry.iid): entry.name for entry in getattr(packet.interned_data, kind)})
    if packet.HasField("track_descriptor"):
        tracks[packet.track_descriptor.uuid] = packet.track_descriptor
    if packet.HasField("track_event"):
        events.append((packet.timestamp, packet.track_event, dict(names)))

# As the engine does it: sorted by time, in the order of the file where times are equal.
events.sort(key=lambda event: event[0])


def value_of(annotation):
    return getattr(annotation, annotation.WhichOneof("value"))


slices, points, counters, stacks = [], [], [], {}
for at, event, named in events:
    arguments = {named["debug_annotation_names", it.name_iid]: value_of(it) for it in event.debug_annotations}
    entry = {
        "name": named.get(("event_names", event.name_iid)),
        "begin": at,
        "track": event.track_uuid,
        "categories": [named["event_categories", iid] for iid in event.category_iids],
        "args": arguments,
        "flows": list(event.flow_ids),
    }
    stack = stacks.setdefault(event.track_uuid, [])
    if event.type == TrackEvent.TYPE_SLICE_BEGIN:
        entry["above"] = stack[-1] if stack else None
        stack.append(entry)
        slices.append(entry)
    elif event.type == TrackEvent.TYPE_SLICE_END:
        stack.pop()["end"] = at
    elif event.type == TrackEvent.TYPE_INSTANT:
        points.append(entry)
    else:
        field = event.WhichOneof("counter_value_field")
        counters.append((tracks[event.track_uuid].name, at, getattr(event, field)))
for stack in stacks.values():
    faults.equal("slices without end", [entry["name"] for entry in stack], [])

process = next(track for track in tracks.values() if track.HasField("process"))
faults.equal("process", (process.process.pid, process.process.process_name), (expected.pid, expected.process))
by_id = {entry["args"]["span_id"]: entry for entry in slices}
faults.equal("scopes", sorted(by_id), sorted(expected.scopes))
tolerance = expected.tolerance_ns
instants = {}
for point in points:
    instants.setdefault(point["name"], []).append(point)
for span_id, scope in expected.scopes.items():
    found = by_id.get(span_id)
    if found is None:
        continue
    what = scope["path"]
    faults.equal(f"{what}: name", found["name"], scope["name"])
    faults.near(f"{what}: begin", found["begin"], scope["begin_ns"], tolerance)
    faults.near(f"{what}: duration", found["end"] - found["begin"], scope["duration_ns"], 2 * tolerance)
    categories = ["scope", "failed"] if scope["error_type"] is not None else ["scope"]
    faults.equal(f"{what}: categories", found["categories"], categories)
    attributes = dict(scope["attributes"], trace_id=scope["trace_id"], span_id=span_id)
    if scope["error_type"] is not None:
        attributes["error_type"] = scope["error_type"]
    faults.equal(f"{what}: annotations", found["args"], attributes)
    track = tracks[found["track"]]
    thread = track if track.HasField("thread") else tracks[track.parent_uuid]
    faults.equal(f"{what}: thread", (thread.thread.thread_name, thread.thread.tid), (scope["thread"], scope["tid"]))
    faults.equal(f"{what}: process", thread.parent_uuid, process.uuid)
    above, parent = found["above"], by_id.get(scope["parent_span_id"])
    if parent is not None and parent["track"] == found["track"]:
        faults.equal(f"{what}: the slice around it", above and above["args"]["span_id"], scope["parent_span_id"])
    for point in scope["points"]:
        match = [it for it in instants.get(point["name"], []) if abs(it["begin"] - point["at_ns"]) <= tolerance]
        faults.equal(f"{what}: {point['name']}", [it["args"] for it in match], [point["attributes"]])
for source, target in expected.carried():
    shared = set(by_id[source]["flows"]) & set(by_id[target]["flows"])
    faults.equal(f"flows from {source} to {target}", len(shared), 1)

for metric in expected.metrics:
    if isinstance(metric["value"], (int, float)):
        match = [it for it in counters if it[0] == metric["path"] and it[2] == metric["value"]]
        faults.equal(f"{metric['path']} = {metric['value']}", len(match), 1)
        for _, at, _ in match:
            faults.near(f"{metric['path']}: time", at, metric["at_ns"], tolerance)
    else:
        values = [it["args"]["value"] for it in instants.get(metric["path"], [])]
        faults.equal(metric["path"], values, [metric["value"]])
for series in expected.series:
    values = [it[2] for it in counters if it[0] == expected.series_name(series)]
    faults.equal(expected.series_name(series), values[-1:], [series["value"]])
    if series["unit"] and series["type"] != "histogram":
        units = {track.counter.unit_name for track in tracks.values() if track.name == expected.series_name(series)}
        faults.equal(f"{series['path']}: unit", units, {series["unit"]})
faults.finish(f"{len(slices)} slices, {len(points)} instants, {len(counters)} counter values on {len(tracks)} tracks")
