"""The timing loop that all cases share, and how its rounds are interleaved."""

from __future__ import annotations

import contextvars
import gc
import random
import statistics
import time
from dataclasses import dataclass, field
from typing import Any, Callable

BATCH_S = 0.002


@dataclass
class Case:
    """One statement, run in a loop of its own: `for _ in range(n): statement`."""

    peer: str
    name: str
    statement: str
    names: dict[str, Any] = field(default_factory=dict)
    #: Called after every batch with its number of turns.
    after: Callable[[int], None] | None = None
    #: Other context variables that are set around the loop.
    other_variables: int = 0

    def __post_init__(self) -> None:
        source = f"def loop(turns, clock, {', '.join(self.names)}):\n    turns = range(turns)\n    start = clock()\n"
        source += f"    for _ in turns:\n        {self.statement}\n    return clock() - start\n"
        space: dict[str, Any] = {}
        exec(compile(source, f"<{self.peer}/{self.name}>", "exec"), space)
        self._loop = space["loop"]
        self._context = contextvars.Context()
        for number in range(self.other_variables):
            self._context.run(contextvars.ContextVar(f"other{number}").set, number)
        self.turns = 1
        self.batches_ns: list[float] = []

    def batch(self) -> float:
        """Seconds for `turns` turns."""
        seconds = self._context.run(self._loop, self.turns, time.perf_counter, *self.names.values())
        if self.after is not None:
            self.after(self.turns)
        return seconds


@dataclass
class Row:
    """What was measured: nanoseconds per turn, without the loop's own."""

    peer: str
    case: str
    ns_min: float
    ns_median: float


def measure(cases: list[Case], rounds: int, seed: int = 1) -> list[Row]:
    """Runs every case `rounds` times, in another order each round, and takes off the empty loop."""
    empty = Case("floor", "empty loop", "pass", {"unused": None})
    everything = [empty, *cases]
    for case in everything:
        case.turns = 1
        while (seconds := case.batch()) < BATCH_S / 20:
            case.turns *= 2
        # The least of several, so that one interruption does not make all batches of a case too short.
        seconds = min(seconds, *(case.batch() for _ in range(4)))
        case.turns = max(1, int(case.turns * BATCH_S / seconds))
    order = random.Random(seed)
    collecting = gc.isenabled()
    for _ in range(rounds):
        order.shuffle(everything)
        for case in everything:
            gc.collect(0)
            gc.disable()
            try:
                case.batches_ns.append(case.batch() / case.turns * 1e9)
            finally:
                if collecting:
                    gc.enable()
    loop_min, loop_median = min(empty.batches_ns), statistics.median(empty.batches_ns)
    rows = [Row("floor", "empty loop", loop_min, loop_median)]
    for case in cases:
        least, middle = min(case.batches_ns), statistics.median(case.batches_ns)
        rows.append(Row(case.peer, case.name, least - loop_min, middle - loop_median))
    return rows
