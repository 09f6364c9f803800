"""kastor's limits in Python, and whether this run kept them."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from typing import Callable

#: The limits differ: from 3.14 on calls of Python functions are cheaper, ordinary method lookups too.
RECENT = sys.version_info >= (3, 14)


@dataclass
class Line:
    """One row of the gate: what, the limit as text, the figure as text, and whether it was kept."""

    what: str
    limit: str
    figure: str
    kept: bool


class Figures:
    """The minima of a run, by (peer, case), and the weights by name."""

    def __init__(self, minima: dict[tuple[str, str], float], weights: dict[str, float]) -> None:
        self.minima = minima
        self.weights = weights

    def ns(self, case: str, peer: str = "kastor") -> float:
        return self.minima[peer, case]


def at_most(what: str, limit: float, figure: float, unit: str, digits: int = 1) -> Line:
    return Line(what, f"≤ {limit:.{digits}f} {unit}", f"{figure:.{digits}f} {unit}", figure <= limit)


def lines(figures: Figures) -> list[Line]:
    """Every Python row of the specification's table of speed, and the project's further limits."""
    ns, weight = figures.ns, figures.weights
    variable = ns("contextvar set and reset", "floor")
    null = ns("nullcontext", "floor")
    otel = "opentelemetry SDK, no-op processor"
    plain, two, beside, beside_two = (400, 480, 650, 800) if RECENT else (550, 650, 650, 800)
    got = [
        at_most("disabled scope", 38 if RECENT else 30, ns("disabled scope"), "ns"),
        at_most("disabled scope, 2 keywords", 45 if RECENT else 35, ns("disabled scope, 2 keywords"), "ns"),
        at_most("disabled scope, in `nullcontext()`s of the same run", 1.0, ns("disabled scope") / null, "×", 2),
        at_most("enabled scope, native reporter", 1.2 * variable + 60, ns("scope, native reporter"), "ns"),
        at_most("enabled scope, native reporter, 2 keywords", 1.2 * variable + 100, ns("scope, native reporter, 2 keywords"), "ns"),
        at_most("enabled scope, no-op Python reporter", plain, ns("scope, Python reporter"), "ns"),
        at_most("enabled scope, no-op Python reporter, 2 keywords", two, ns("scope, Python reporter, 2 keywords"), "ns"),
        at_most("enabled scope, Python and native reporter", beside, ns("scope, both reporters"), "ns"),
        at_most("enabled scope, Python and native reporter, 2 keywords", beside_two, ns("scope, both reporters, 2 keywords"), "ns"),
        at_most("count, native", 20, ns("count"), "ns"),
        at_most("count, native, 2 labels", 60, ns("count, 2 labels"), "ns"),
        at_most("gauge, native", 20, ns("gauge"), "ns"),
        at_most("gauge, native, 2 labels", 60, ns("gauge, 2 labels"), "ns"),
        at_most("memory per level, allocated by Python", 96, weight["bytes_per_level"], "B", 0),
        at_most("2,000 levels, opened and closed", 1.0, weight["levels_2000_ms"], "ms", 3),
        at_most("`import kastor` above an empty interpreter", 10, weight["import_ms"], "ms"),
        at_most("threads started by `import kastor`", 0, weight["threads_after_import"], "", 0),
    ]  # fmt: skip
    if (otel, "scope") in figures.minima:
        ratio = ns("scope", otel) / ns("scope, native reporter")
        got.append(Line("native reporter, times faster than the OpenTelemetry SDK", "≥ 40 ×", f"{ratio:.1f} ×", ratio >= 40))
    else:
        got.append(Line("native reporter, times faster than the OpenTelemetry SDK", "≥ 40 ×", "not installed", False))
    return got


def show(got: list[Line], write: Callable[[str], object] = print) -> bool:
    """Prints the lines; true if every limit was kept."""
    width = max(len(line.what) for line in got)
    for line in got:
        verdict = "kept" if line.kept else "MISSED"
        write(f"{line.what:<{width}}  {line.limit:>12}  {line.figure:>12}  {verdict}")
    missed = sum(not line.kept for line in got)
    write(f"\n{len(got)} limits, {missed} missed")
    return missed == 0
