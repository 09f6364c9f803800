"""Loads a trace into Perfetto's own engine and asks it in SQL.

The engine is the library that Debian's chromium-shell has for its tests. Its interface is nobody's promise: three C++
methods are called by their mangled names, with vectors and strings laid out as libc++ does it. Exit code 77 says that this
library is another one than was known; the caller then skips.
"""

import ctypes
import struct
import sys

from reading import Expected, Faults

UNKNOWN = 77
CLASS = "_ZN4base4test22TestTraceProcessorImpl"
PARSE = CLASS + "10ParseTraceERKNSt3__16vectorIcNS2_9allocatorIcEEEE"
QUERY = (
    "_ZNK4base4test22TestTraceProcessorImpl12ExecuteQueryERKNSt3__112basic_string"
    "IcNS2_11char_traitsIcEENS2_9allocatorIcEEEE"
)


class Engine:
    def __init__(self, library, trace):
        try:
            self.library = ctypes.CDLL(library, mode=ctypes.RTLD_GLOBAL)
            for name in (CLASS + "C1Ev", PARSE, QUERY):
                getattr(self.library, name).restype = ctypes.c_void_p
        except (OSError, AttributeError) as error:
            print(error)
            sys.exit(UNKNOWN)
        self.object = ctypes.create_string_buffer(4096)
        getattr(self.library, CLASS + "C1Ev")(self.object)
        with open(trace, "rb") as file:
            content = file.read()
        # A vector is begin, end, end of the memory.
        self.content = ctypes.create_string_buffer(content, len(content))
        begin = ctypes.addressof(self.content)
        vector = (ctypes.c_uint64 * 3)(begin, begin + len(content), begin + len(content))
        status = (ctypes.c_uint64 * 2)()
        getattr(self.library, PARSE)(status, self.object, vector)
        if status[0] != 1:
            sys.exit(f"the engine does not take {trace}: status {status[0]:#x}")

    def ask(self, sql):
        """The rows of an answer, as dictionaries of texts."""
        text = ctypes.create_string_buffer(sql.encode())
        # A string is (capacity << 1 | 1), length, characters.
        string = (ctypes.c_uint64 * 3)((len(text) + 1) & ~1 | 1, len(text) - 1, ctypes.addressof(text))
        answer = (ctypes.c_uint64 * 6)()
        getattr(self.library, QUERY)(answer, self.object, string)
        error = read_string(ctypes.addressof(answer) + 24)
        if error:
            sys.exit(f"{sql}: {error}")
        head, *rows = [
            [read_string(at) for at in range(*(ctypes.c_uint64 * 2).from_address(row), 24)]
            for row in range(answer[0], answer[1], 24)
        ]
        return [dict(zip(head, row)) for row in rows]


def read_string(address):
    raw = ctypes.string_at(address, 24)
    if raw[0] & 1:
        _, length, at = struct.unpack("<QQQ", raw)
        return ctypes.string_at(at, length).decode()
    return raw[1 : 1 + (raw[0] >> 1)].decode()


folder, library, file = sys.argv[1:]
expected, faults = Expected(folder), Faults()
engine = Engine(library, f"{folder}/{file}")
is_json = file.endswith(".json")
key = "args.span_id" if is_json else "debug.span_id"
span = f"(SELECT string_value FROM args WHERE arg_set_id = s.arg_set_id AND key = '{key}')"

errors = engine.ask("SELECT name, value FROM stats WHERE severity != 'info' AND value > 0")
faults.equal("what the engine complains about", errors, [])
slices = engine.ask(
    f"""SELECT s.id, s.name, s.ts, s.dur, s.depth, s.category, s.parent_id, s.track_id, {span} AS span_id
        FROM slice s WHERE {span} IS NOT NULL ORDER BY s.ts"""
)
by_id = {row["span_id"]: row for row in slices}
faults.equal("scopes", sorted(by_id), sorted(expected.scopes))
faults.equal("none twice", len(slices), len(by_id))
tolerance = expected.tolerance_ns
# The two formats have other zeros.
zero = min(scope["begin_ns"] for scope in expected.scopes.values())
first = min(int(row["ts"]) for row in slices)
names = {row["id"]: row["span_id"] for row in slices}
for span_id, scope in expected.scopes.items():
    row = by_id.get(span_id)
    if row is None:
        continue
    what = scope["path"]
    faults.equal(f"{what}: name", row["name"], scope["name"])
    faults.near(f"{what}: begin", int(row["ts"]) - first, scope["begin_ns"] - zero, tolerance)
    faults.near(f"{what}: duration", int(row["dur"]), scope["duration_ns"], 2 * tolerance)
    faults.equal(f"{what}: failed", "failed" in row["category"], scope["error_type"] is not None)
    parent = expected.scopes.get(scope["parent_span_id"])
    is_same_thread = parent is not None and parent["thread"] == scope["thread"]
    is_same_track = is_same_thread and by_id[parent["span_id"]]["track_id"] == row["track_id"]
    if is_same_track:
        faults.equal(f"{what}: parent", names.get(row["parent_id"]), scope["parent_span_id"])
if not is_json:
    faults.near("the first slice is at its Unix time", first, zero, tolerance)

flows = engine.ask("SELECT slice_out, slice_in FROM flow")
arrows = {(names.get(row["slice_out"]), names.get(row["slice_in"])) for row in flows}
faults.equal("arrows that are missing", expected.carried() - arrows, set())

values = engine.ask("SELECT t.name, c.ts, c.value FROM counter c JOIN counter_track t ON c.track_id = t.id ORDER BY c.ts")
for metric in expected.metrics:
    if isinstance(metric["value"], (int, float)):
        # Of JSON the track has the argument's name besides.
        named = (metric["path"], f"{metric['path']} value")
        match = [it for it in values if it["name"] in named and float(it["value"]) == metric["value"]]
        faults.equal(f"{metric['path']} = {metric['value']}", len(match), 1)
for series in expected.series:
    match = [float(it["value"]) for it in values if it["name"].startswith(expected.series_name(series))]
    faults.equal(expected.series_name(series), match[-1:], [series["value"]])
threads = {row["name"] for row in engine.ask("SELECT DISTINCT name FROM thread WHERE name IS NOT NULL")}
faults.equal("threads that are missing", {scope["thread"] for scope in expected.scopes.values()} - threads, set())
processes = {row["name"]: row["pid"] for row in engine.ask("SELECT name, pid FROM process WHERE name IS NOT NULL")}
faults.equal("process", processes.get(expected.process), str(expected.pid))
faults.finish(f"{len(slices)} slices, {len(flows)} flows, {len(values)} counter values, by SQL")
