"""What the scripts of this folder share: the expectations of a workload, and a list of what was not as expected."""

import json
import sys


class Expected:
    """What `trace_workload` says that it did."""

    def __init__(self, folder):
        with open(f"{folder}/expected.json", encoding="utf-8") as file:
            found = json.load(file)
        self.tolerance_ns = found["tolerance_ns"]
        self.pid = found["pid"]
        self.process = found["process"]
        self.scopes = {scope["span_id"]: scope for scope in found["scopes"]}
        self.metrics = found["metrics"]
        self.series = found["series"]
        self.folded = found["folded"]

    def series_name(self, series):
        labels = ", ".join(f'{key}="{value}"' for key, value in series["labels"].items())
        name = series["path"] + (f"{{{labels}}}" if labels else "")
        return name + (" (values)" if series["type"] == "histogram" else "")

    def carried(self):
        """(from, to) for every parent on another thread and every link."""
        edges = set()
        for scope in self.scopes.values():
            parent = self.scopes.get(scope["parent_span_id"])
            if parent and parent["thread"] != scope["thread"]:
                edges.add((parent["span_id"], scope["span_id"]))
            edges.update((link, scope["span_id"]) for link in scope["links"])
        return edges


class Faults:
    """Collects what differs; `finish` prints it, or the sentence that all is well."""

    def __init__(self):
        self.found = []
        self.compared = 0

    def equal(self, what, found, expected):
        self.compared += 1
        if found != expected:
            self.found.append(f"{what}: {found!r} instead of {expected!r}")

    def near(self, what, found, expected, tolerance):
        self.compared += 1
        if abs(found - expected) > tolerance:
            self.found.append(f"{what}: {found} instead of {expected}, more than {tolerance} apart")

    def finish(self, sentence):
        for fault in self.found[:20]:
            print(fault)
        if self.found:
            sys.exit(f"{len(self.found)} of {self.compared} comparisons differ")
        print(f"{sentence}; {self.compared} comparisons")
