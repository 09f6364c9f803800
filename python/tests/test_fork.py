"""A forked child: nothing hangs, nothing of its own is lost, nothing of the parent's comes twice (R7)."""

import multiprocessing
import os
import subprocess
import sys
import textwrap

import pytest

from support import environment, quiet

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")

HEAD = """
    import json, os, sys, threading, time, traceback
    import kastor

    class Recorder:
        def __init__(self):
            self.events = []
        def record_timing(self, scope, duration, **metadata):
            self.events.append((scope, metadata["parent_scope"]))
        def record_metric(self, scope, value, **metadata):
            self.events.append((scope, value))

    def in_child(body):
        '''Forks; the child sends what `body` returns, as JSON, and leaves by os._exit.'''
        read, write = os.pipe()
        pid = os.fork()
        if pid == 0:
            code = 0
            try:
                os.write(write, json.dumps(body()).encode())
            except BaseException:
                traceback.print_exc()
                code = 1
            sys.stdout.flush()
            os._exit(code)
        os.close(write)
        with open(read) as file:
            text = file.read()
        _, status = os.waitpid(pid, 0)
        assert os.waitstatus_to_exitcode(status) == 0, status
        return json.loads(text)
"""


def program(body):
    return textwrap.dedent(HEAD) + textwrap.dedent(body)


def test_a_child_records_its_own_and_only_its_own():
    quiet(
        program("""
        recorder = Recorder()
        tele = kastor.enable(recorder)
        with tele("parent"):
            pass
        def body():
            recorder.events.clear()
            with tele("child"):
                tele.count("items", 2)
            return recorder.events
        assert in_child(body) == [["child.items", 2], ["child", None]]
        assert recorder.events == [("parent", None)]
        """)
    )


def test_a_scope_opened_before_the_fork_closes_silently_in_the_child_and_is_the_parent_of_its_scopes():
    quiet(
        program("""
        recorder = Recorder()
        tele = kastor.enable(recorder)
        outer = tele("outer")
        outer.__enter__()
        def body():
            with tele("inner"):
                pass
            outer.__exit__(None, None, None)
            with tele("after"):
                pass
            return recorder.events
        assert in_child(body) == [["outer.inner", "outer"], ["after", None]]
        outer.__exit__(None, None, None)
        assert recorder.events == [("outer", None)]
        """)
    )


def test_aggregates_of_a_child_start_at_zero():
    quiet(
        program("""
        tele = kastor.enable()
        for _ in range(10):
            with tele("parents.scope"):
                pass
        def body():
            before = str(tele.report())
            with tele("childs.scope"):
                pass
            return [before, str(tele.report())]
        before, after = in_child(body)
        assert "parents.scope" not in before + after and "childs.scope" in after
        assert "childs.scope" not in str(tele.report())
        """)
    )


def test_ids_of_parent_and_children_differ():
    quiet(
        program("""
        tele = kastor.enable()
        def ids():
            got = []
            for _ in range(50):
                with tele("a"):
                    got.append(kastor.current_traceparent())
            return got
        ids()
        children = [in_child(ids) for _ in range(4)]
        got = ids() + sum(children, [])
        assert len(set(got)) == len(got) == 250
        """)
    )


def test_flush_and_shutdown_in_a_child_return():
    quiet(
        program("""
        tele = kastor.enable(kastor.Recording(), kastor.Background(Recorder()))
        with tele("a"):
            pass
        def body():
            start = time.monotonic()
            with tele("b"):
                pass
            tele.flush(5)
            tele.shutdown(5)
            return time.monotonic() - start
        assert in_child(body) < 6
        tele.shutdown(5)
        """)
    )


def test_a_background_reporter_serves_a_child():
    quiet(
        program("""
        recorder = Recorder()
        tele = kastor.enable(kastor.Background(recorder))
        with tele("parent"):
            pass
        tele.flush(5)
        def body():
            recorder.events.clear()
            for _ in range(100):
                with tele("child"):
                    pass
            tele.flush(5)
            return recorder.events
        assert in_child(body) == [["child", None]] * 100
        assert recorder.events == [("parent", None)]
        tele.shutdown(5)
        """)
    )


def test_a_childs_accounts_begin_at_nothing():
    quiet(
        program("""
        background = kastor.Background(Recorder())
        tele = kastor.enable(background)
        for _ in range(100):
            with tele("parent"):
                pass
        assert in_child(lambda: [background.stats()["accepted"], tele.stats()["reporters"][0]["delivered"]]) == [0, 0]
        assert tele.flush(30) and background.stats()["delivered"] == 100
        tele.shutdown(5)
        """),
        options=("-W", "error", "-W", "ignore::DeprecationWarning"),
    )


def test_forks_beside_emitting_threads_never_hang():
    """Python 3.12 warns of any thread at a fork; here the emitting threads are the program's own."""
    quiet(
        program("""
        tele = kastor.enable(Recorder(), kastor.Recording(), kastor.SimpleReporter())
        stop = threading.Event()
        def emit():
            while not stop.is_set():
                with tele("a", k=1):
                    tele.count("c")
                    tele.gauge("g", 1, label="x")
        threads = [threading.Thread(target=emit) for _ in range(8)]
        for thread in threads:
            thread.start()
        def body():
            for _ in range(20):
                with tele("child"):
                    tele.count("c")
            tele.flush(2)
            return True
        for _ in range(40):
            assert in_child(body)
        stop.set()
        for thread in threads:
            thread.join()
        tele.shutdown(5)
        """),
        timeout=120,
        options=("-W", "error", "-W", "ignore::DeprecationWarning"),
    )


def test_idle_threads_of_ours_cause_no_warning():
    # Up to 3.14 an interpreter that is told to raise the warning swallows it: it has to be caught.
    quiet(
        program("""
        import warnings
        recorder = Recorder()
        background = kastor.Background(recorder)
        tele = kastor.enable(kastor.Recording(), background)
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            for name in ["a", "b"]:
                with tele(name):
                    pass
                assert tele.flush(5).is_complete
                assert in_child(lambda: 5) == 5
        assert [str(warning.message) for warning in caught] == []
        assert recorder.events == [("a", None), ("b", None)]
        """)
    )


def test_a_thread_that_is_busy_at_a_fork_delivers_what_it_has():
    quiet(
        program("""
        import warnings
        entered, go_on = threading.Event(), threading.Event()
        class Slow(Recorder):
            def record_timing(self, scope, duration, **metadata):
                entered.set()
                assert go_on.wait(30)
                super().record_timing(scope, duration, **metadata)
        recorder = Slow()
        tele = kastor.enable(kastor.Background(recorder))
        for name in ["a", "b"]:
            with tele(name):
                pass
        assert entered.wait(30)
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            assert in_child(lambda: 5) == 5
        assert len(caught) == (sys.version_info >= (3, 12))
        go_on.set()
        assert tele.flush(30).is_complete
        with tele("c"):
            pass
        assert tele.flush(30).is_complete
        assert recorder.events == [("a", None), ("b", None), ("c", None)]
        """)
    )


def test_a_child_that_leaves_by_the_interpreters_end_is_quiet():
    quiet(
        program("""
        tele = kastor.enable(Recorder(), kastor.Recording())
        with tele("a"):
            pass
        pid = os.fork()
        if pid == 0:
            with tele("b"):
                pass
            sys.exit(0)
        assert os.waitpid(pid, 0)[1] == 0
        """)
    )


def test_grandchildren():
    quiet(
        program("""
        recorder = Recorder()
        tele = kastor.enable(recorder, kastor.Recording())
        def grandchild():
            recorder.events.clear()
            with tele("grandchild"):
                pass
            tele.flush(2)
            return recorder.events
        def child():
            recorder.events.clear()
            with tele("child"):
                got = in_child(grandchild)
            return [got, recorder.events]
        assert in_child(child) == [[["child.grandchild", "child"]], [["child", None]]]
        """)
    )


PRE_FORK_SERVER = """
    import signal
    recorder = Recorder()
    tele = kastor.enable(recorder, kastor.Recording())
    with tele("load"):
        pass
    tele.flush(5)
    pipes, workers = [], []
    for number in range(4):
        jobs, reply = os.pipe(), os.pipe()
        pid = os.fork()
        if pid == 0:
            recorder.events.clear()
            os.close(jobs[1])
            with open(jobs[0]) as requests:
                for line in requests:
                    with tele("request", worker=number):
                        tele.count("bytes", len(line))
            tele.shutdown(5)
            os.write(reply[1], json.dumps(recorder.events).encode())
            os._exit(0)
        os.close(jobs[0]), os.close(reply[1])
        pipes.append((jobs[1], reply[0]))
        workers.append(pid)
    # A worker inherits the writing ends of those before it: give the last ones their end first.
    for write, _ in pipes:
        os.write(write, b"request\\n" * 25)
    for (write, read), pid in reversed(list(zip(pipes, workers))):
        os.close(write)
        with open(read) as file:
            events = json.loads(file.read())
        assert events == [["request.bytes", 8], ["request", None]] * 25, events
        assert os.waitpid(pid, 0)[1] == 0
    assert recorder.events == [("load", None)]
    tele.shutdown(5)
"""


def test_a_pre_fork_server():
    quiet(program(PRE_FORK_SERVER))


WORKER = """
import kastor, os

class Recorder:
    def __init__(self):
        self.events = []
    def record_timing(self, scope, duration, **metadata):
        self.events.append((scope, metadata["parent_scope"]))

recorder = Recorder()
tele = kastor.enable(recorder, kastor.Recording())

def work(n):
    recorder.events.clear()
    with tele("work"):
        with tele("step"):
            pass
    tele.flush(2)
    return recorder.events

def carried(arguments):
    traceparent, n = arguments
    with tele.attach(traceparent), tele("work"):
        return kastor.current_traceparent()
"""

MAIN = """
import multiprocessing, sys
import worker

if __name__ == "__main__":
    context = multiprocessing.get_context(sys.argv[1])
    with worker.tele("main"):
        here = worker.kastor.current_traceparent()
        with context.Pool(2) as pool:
            inherits = sys.argv[1] == "fork"
            path = "main.work" if inherits else "work"
            want = [(path + ".step", path), (path, "main" if inherits else None)]
            assert pool.map(worker.work, range(20)) == [want] * 20, pool.map(worker.work, range(2))
            there = pool.map(worker.carried, [(here, n) for n in range(10)])
            pool.close()
            pool.join()
        assert {text.split("-")[1] for text in there} == {here.split("-")[1]}, there
        assert len(set(there)) == 10
        process = context.Process(target=worker.work, args=(1,))
        process.start()
        process.join(30)
        assert process.exitcode == 0
    assert worker.recorder.events == [("main", None)], worker.recorder.events
    worker.tele.shutdown(5)
    print("well")
"""


@pytest.mark.parametrize("method", multiprocessing.get_all_start_methods())
def test_multiprocessing(method, tmp_path):
    (tmp_path / "worker.py").write_text(WORKER)
    (tmp_path / "main.py").write_text(MAIN)
    done = subprocess.run(
        [sys.executable, "-W", "error", "-W", "ignore:This process:DeprecationWarning", "main.py", method],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=120,
        env=environment(),
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "well\n", "")


def test_a_process_pool_executor_with_carry_over_traceparent(tmp_path):
    (tmp_path / "worker.py").write_text(WORKER)
    out = quiet(
        """
        import concurrent.futures, multiprocessing, worker
        if __name__ == "__main__":
            context = multiprocessing.get_context("forkserver")
            with concurrent.futures.ProcessPoolExecutor(2, mp_context=context) as pool:
                assert list(pool.map(worker.work, range(4))) == [[("work.step", "work"), ("work", None)]] * 4
            print("well")
        """,
        folder=tmp_path,
    )
    assert out == "well\n"


def test_fork_in_c_is_survived_too():
    """A library that forks by itself never calls Python's hooks."""
    quiet(
        program("""
        import ctypes
        libc = ctypes.CDLL(None)
        recorder = Recorder()
        tele = kastor.enable(recorder, kastor.Recording())
        with tele("parent"):
            pass
        tele.flush(5)
        read, write = os.pipe()
        pid = ctypes.PyDLL(None).fork()
        if pid == 0:
            recorder.events.clear()
            with tele("child"):
                pass
            tele.flush(1)
            os.write(write, json.dumps(recorder.events).encode())
            os._exit(0)
        os.close(write)
        with open(read) as file:
            assert json.load(file) == [["child", None]]
        assert os.waitpid(pid, 0)[1] == 0
        """)
    )
