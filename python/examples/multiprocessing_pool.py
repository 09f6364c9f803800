"""One trace over several processes: the parent hands its place to the workers as a W3C `traceparent`.

Each process has a context of its own. A worker attaches the text that it got, so its scopes belong to the parent's trace;
what it measured travels back as an ordinary return value.

    python multiprocessing_pool.py [spawn|forkserver|fork]
"""

import multiprocessing
import os
import sys

import kastor
from kastor.testing import RecordingReporter

recording = RecordingReporter()
tele = kastor.enable(recording)


def work(job: tuple[str | None, int]) -> tuple[str, int, list[str]]:
    """Runs in a worker: the trace id, the process and the paths of what it did."""
    traceparent, number = job
    recording.clear()
    with tele.attach(traceparent):
        with tele("work", number=number):
            trace = (kastor.current_traceparent() or "").split("-")[1]
            with tele("square"):
                tele.count("squared", number * number)
    tele.flush(1)
    return trace, os.getpid(), recording.scopes


def main() -> None:
    method = sys.argv[1] if len(sys.argv) > 1 else "spawn"
    context = multiprocessing.get_context(method)
    with tele("main"):
        here = kastor.current_traceparent()
        assert here is not None
        with context.Pool(2) as pool:
            answers = pool.map(work, [(here, number) for number in range(8)])
            pool.close()
            pool.join()
    traces = {trace for trace, _, _ in answers}
    processes = {process for _, process, _ in answers}
    print(f"{len(answers)} jobs in {len(processes)} processes by {method}, {len(traces)} trace")
    assert traces == {here.split("-")[1]}
    assert os.getpid() not in processes
    assert recording.scopes == ["main"]
    tele.shutdown(1)


if __name__ == "__main__":
    main()
