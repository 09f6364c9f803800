"""Measures kastor's Python face, its peers and the floors below them, in one interleaved run.

    python python/benches/run.py [--gate] [--json FILE] [--quick] [--only TEXT]

Minima and medians are nanoseconds per turn without the empty loop. `--gate` prints every limit with its figure and exits
with 1 if one was missed. A peer that is not installed is left out and named below the table.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
from typing import Any

from gate import Figures, lines, show
from harness import Case, Row, measure
from peers import PEERS, SCOPE, SCOPE_2, NoOpReporter, available
from weigh import weigh

import kastor

ROUNDS = 60
QUICK_ROUNDS = 8


def ours() -> tuple[list[Case], list[Counted]]:
    """kastor's cases, and the contexts that counted their scopes."""
    off = kastor.TelemetryContext()
    cases = [
        Case("kastor", "disabled scope", SCOPE, {"tele": off}),
        Case("kastor", "disabled scope, 2 keywords", SCOPE_2, {"tele": off}),
        Case("kastor", "disabled count", "tele.count('c')", {"tele": off}),
    ]
    counted = []

    def scopes(name: str, *reporters: object, other_variables: int = 0) -> None:
        context = Counted(kastor.enable(*reporters))
        counted.append(context)
        for suffix, statement in (("", SCOPE), (", 2 keywords", SCOPE_2)):
            names = {"tele": context.tele}
            cases.append(Case("kastor", f"scope, {name}{suffix}", statement, names, context.add, other_variables))

    scopes("no reporter")
    scopes("native reporter", recording())
    scopes("native reporter, 8 other variables", recording(), other_variables=8)
    scopes("Python reporter", NoOpReporter())
    scopes("both reporters", recording(), NoOpReporter())
    metrics = {"tele": kastor.enable(recording())}
    cases += [
        Case("kastor", "count", "tele.count('c')", metrics),
        Case("kastor", "count, 2 labels", "tele.count('c', a='x', b=1)", metrics),
        Case("kastor", "gauge", "tele.gauge('g', 1.5)", metrics),
        Case("kastor", "gauge, 2 labels", "tele.gauge('g', 1.5, a='x', b=1)", metrics),
        Case("kastor", "metric event", "tele.metric('m', 1.5)", metrics),
        Case("kastor", "count, Python reporter", "tele.count('c')", {"tele": kastor.enable(NoOpReporter())}),
    ]
    return cases, counted


def recording() -> object:
    """A native reporter that keeps the last records and nothing else."""
    return kastor.Recording(max_bytes=1 << 20)


class Counted:
    """How many scopes were run on a context, to be compared with how many it counted."""

    def __init__(self, tele: Any) -> None:
        self.tele = tele
        self.run = 0

    def add(self, turns: int) -> None:
        self.run += turns

    def check(self) -> None:
        scope = self.tele.report().scope("a.b")
        calls = scope["calls"] if scope is not None else 0
        if calls != self.run:
            raise SystemExit(f"{self.run} scopes were run and {calls} counted")


def machine() -> dict[str, object]:
    model = platform.processor()
    if os.path.exists("/proc/cpuinfo"):
        with open("/proc/cpuinfo") as file:
            model = next((line.split(":", 1)[1].strip() for line in file if line.startswith("model name")), model)
    return {"python": platform.python_version(), "cpu": model, "cores": os.cpu_count(), "system": platform.platform()}


def table(rows: list[Row]) -> None:
    null = next(row.ns_min for row in rows if row.case == "nullcontext")
    width = max(len(row.peer) for row in rows), max(len(row.case) for row in rows)
    print(f"{'':<{width[0]}}  {'ns per turn':<{width[1]}}  {'minimum':>9}  {'median':>9}  × nullcontext")
    for row in rows:
        print(f"{row.peer:<{width[0]}}  {row.case:<{width[1]}}  {row.ns_min:9.1f}  {row.ns_median:9.1f}  {row.ns_min / null:9.2f}")


def main() -> int:
    parser = argparse.ArgumentParser(description="Measures kastor in Python, its peers and the floors, in one run.")
    parser.add_argument("--gate", action="store_true", help="print every limit with its figure; exit 1 if one is missed")
    parser.add_argument("--json", metavar="FILE", help="write rows, weights and machine to FILE")
    parser.add_argument("--quick", action="store_true", help="few rounds: to see that it runs")
    parser.add_argument("--only", metavar="TEXT", help="peers whose name contains TEXT; the floors and kastor always run")
    arguments = parser.parse_args()
    rounds = QUICK_ROUNDS if arguments.quick else ROUNDS

    others, notes = available()
    if arguments.only is not None:
        others = [case for case in others if case.peer == "floor" or arguments.only in case.peer]
    cases, counted = ours()
    rows = measure([*cases, *others], rounds)
    for context in counted:
        context.check()
    weights = weigh(rounds=5 if arguments.quick else 20)
    table(rows)
    print()
    for name, figure in weights.items():
        print(f"{name:<28} {figure:10.2f}")
    print()
    for name, note in notes.items():
        print(f"{name} ({note}): {PEERS[name][1]}")
    print(", ".join(str(value) for value in machine().values()))
    if arguments.json:
        document = {"machine": machine(), "rounds": rounds, "peers": notes, "rows": [vars(row) for row in rows], "weights": weights}
        with open(arguments.json, "w", encoding="utf-8") as file:
            json.dump(document, file, indent=1)
    if not arguments.gate:
        return 0
    print()
    minima = {(row.peer, row.case): row.ns_min for row in rows}
    return 0 if show(lines(Figures(minima, weights))) else 1


if __name__ == "__main__":
    sys.exit(main())
