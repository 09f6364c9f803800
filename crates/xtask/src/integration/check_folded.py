"""Reads folded stacks as flame graph tools do, and compares them with the self times that the program's report had."""

import sys

from reading import Expected, Faults

folder = sys.argv[1]
expected, faults = Expected(folder), Faults()
stacks = {}
with open(f"{folder}/stacks.folded", encoding="utf-8", newline="\n") as file:
    for line in file:
        # inferno and flamegraph.pl take everything behind the last space for the number.
        stack, _, number = line.rstrip("\n").rpartition(" ")
        faults.equal(f"{line!r}: spaces in the stack", stack.count(" "), 0)
        faults.equal(f"{line!r}: seen before", stack in stacks, False)
        stacks[stack] = int(number)
faults.equal("stacks", len(stacks), len(expected.folded))

# The report was made later: with a real clock its line from ticks to time may be another one, and round otherwise.
def tolerance(time):
    return 1 + 1e-5 * time if expected.tolerance_ns else 0


total = sum(expected.folded.values())
faults.near("total", sum(stacks.values()), total, len(stacks) * tolerance(total / len(stacks)))
for path, time in expected.folded.items():
    if path.isascii() and path.isprintable():
        faults.near(path, stacks.get(path.replace(".", ";"), -1), time, tolerance(time))
faults.finish(f"{len(stacks)} stacks")
