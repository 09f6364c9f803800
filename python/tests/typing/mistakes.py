"""What type checkers must refuse; each such line is marked."""

import kastor

tele = kastor.enable(strict="yes")  # wrong
kastor.enable(sample="0.1")  # wrong
kastor.enable(overhead_budget=[0.01])  # wrong
tele.count("items", "three")  # wrong
tele.gauge("ratio")  # wrong
tele.counter("items")  # wrong
tele.flush("soon")  # wrong
tele(5)  # wrong
kastor.SimpleReporter(max_entries="ten")  # wrong
kastor.Capture()  # wrong
kastor.Otlp("http://a", "http/json")  # wrong
number: int = tele.report().text  # wrong


@tele("add")
def add(a: int) -> int:
    return a


text: str = add(1)  # wrong
add("one")  # wrong
