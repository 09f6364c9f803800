"""What is not a time per turn: import, threads, memory per open level, deep nesting. Each in a process of its own."""

from __future__ import annotations

import json
import subprocess
import sys
import time

LEVELS = """
import json, sys, time, tracemalloc
import kastor

def resident():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * 4096

def opened(tele, scopes):
    for i in range(len(scopes)):
        scopes[i] = scope = tele("level")
        scope.__enter__()
    return scopes

def opened_with_2_keywords(tele, scopes):
    for i in range(len(scopes)):
        scopes[i] = scope = tele("level", rows=1, table="x")
        scope.__enter__()
    return scopes

def close(scopes):
    for scope in reversed(scopes):
        scope.__exit__(None, None, None)

tele = kastor.enable()
out = {}
for name, nest in (("0", opened), ("2", opened_with_2_keywords)):
    weights = []
    for count in (20_000, 20_000, 2_000):
        room = [None] * count
        tracemalloc.start()
        before = tracemalloc.get_traced_memory()[0]
        nest(tele, room)
        weights.append(tracemalloc.get_traced_memory()[0] - before)
        tracemalloc.stop()
        close(room)
        del room
    # Of the second row, when names and paths are known and the free list is full; without what does not grow with depth.
    out["traced_" + name] = (weights[1] - weights[2]) / 18_000

def nested_ns():
    best = float("inf")
    for _ in range(20):
        start = time.perf_counter()
        scopes = opened(tele, [None] * 2_000)
        close(scopes)
        best = min(best, time.perf_counter() - start)
    return best * 1e9

out["nested_2000_ns"] = nested_ns()
count = 400_000
room = [None] * count
before = resident()
opened(tele, room)
out["resident"] = (resident() - before) / count
close(room)
print(json.dumps(out))
"""

THREADS = """
import os
def threads():
    return len(os.listdir("/proc/self/task"))
before = threads()
import kastor
print(threads() - before)
"""


def program(code: str) -> str:
    done = subprocess.run([sys.executable, "-P", "-c", code], capture_output=True, text=True, check=True)
    return done.stdout


def start_ms(code: str) -> float:
    start = time.perf_counter()
    subprocess.run([sys.executable, "-P", "-c", code], check=True)
    return (time.perf_counter() - start) * 1e3


def weigh(rounds: int) -> dict[str, float]:
    """Figures by name; times are minima of interleaved starts, in ms unless the name says otherwise."""
    pairs = [(start_ms("pass"), start_ms("import kastor")) for _ in range(rounds)]
    figures = json.loads(program(LEVELS))
    return {
        "import_ms": min(pair[1] for pair in pairs) - min(pair[0] for pair in pairs),
        "threads_after_import": float(program(THREADS)),
        "bytes_per_level": figures["traced_0"],
        "bytes_per_level_2_keywords": figures["traced_2"],
        "resident_bytes_per_level": figures["resident"],
        "levels_2000_ms": figures["nested_2000_ns"] / 1e6,
    }
