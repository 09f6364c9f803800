"""Every way in which a process or an interpreter can end: no crash, no hang, no byte on stderr that nobody meant (R8)."""

import os
import signal
import sys

import pytest

from support import python, quiet

DEEP = os.environ.get("KASTOR_DEEP") == "1"
HEAD = """
import asyncio, atexit, gc, os, signal, sys, threading, time
import kastor

class Recorder:
    def record_timing(self, scope, duration, **metadata): pass
    def record_metric(self, scope, value, **metadata): pass

tele = kastor.enable(Recorder(), kastor.Recording(), kastor.SimpleReporter())
with tele("a", k=1):
    tele.count("c")
"""

EXITS = {
    "end of the program": "",
    "sys.exit": "sys.exit(0)",
    "SystemExit inside a scope": "with tele('open'): sys.exit(0)",
    "open scope": "scope = tele('open'); scope.__enter__()",
    "open scope without a handle": "tele('open').__enter__()",
    "many open scopes": "scopes = [tele('s') for _ in range(10000)]; [s.__enter__() for s in scopes]",
    "os._exit": "os._exit(0)",
    "os._exit inside a scope": "with tele('open'): os._exit(0)",
    "emitting atexit": "atexit.register(lambda: [tele('late').__enter__(), tele.count('late')])",
    "flush atexit": "atexit.register(tele.flush, 1)",
    "shutdown atexit": "atexit.register(tele.shutdown, 1)",
    "shutdown, then more": "tele.shutdown(1); tele('after').__enter__(); tele.count('after')",
    "emitting from __del__ at the end": (
        "class Dies:\n    def __del__(self):\n        with tele('del'): tele.count('c')\n"
        "keep = Dies(); cycle = [Dies()]; cycle.append(cycle); sys.keep = Dies()"
    ),
    "context in a cycle": "tele.__class__; cycle = [tele]; cycle.append(cycle)",
    "context in sys": "sys.tele = tele; sys.scope = tele('x'); sys.scope.__enter__()",
    "suspended generator": "def g():\n    with tele('g'): yield\nkept = g(); next(kept)",
    "suspended async generator": (
        "async def ag():\n    with tele('ag'): yield\nkept = ag()\nasync def main(): await kept.__anext__()\nasyncio.run(main())"
    ),
    "pending task": (
        "async def job():\n    with tele('job'): await asyncio.sleep(60)\n"
        "async def main():\n    task = asyncio.create_task(job()); await asyncio.sleep(0)\nasyncio.run(main())"
    ),
    "daemon threads that emit": (
        "def emit():\n    while True:\n        with tele('d', k=1): tele.count('c')\n"
        "for _ in range(4): threading.Thread(target=emit, daemon=True).start()\ntime.sleep(0.05)"
    ),
    "a daemon thread inside a scope": (
        "def wait():\n    with tele('d'): time.sleep(60)\n"
        "threading.Thread(target=wait, daemon=True).start(); time.sleep(0.02)"
    ),
    "threads that end before": (
        "def emit():\n    with tele('t'): pass\n"
        "threads = [threading.Thread(target=emit) for _ in range(50)]\n[t.start() for t in threads]; [t.join() for t in threads]"
    ),
    "non-daemon thread that outlives the main one": (
        "def emit():\n    time.sleep(0.05)\n    with tele('t'): tele.count('c')\nthreading.Thread(target=emit).start()"
    ),
    "background reporter": "b = kastor.enable(kastor.Background(Recorder()))\nfor _ in range(1000):\n    with b('x'): pass",
    "background reporter, not flushed, daemon emits": (
        "b = kastor.enable(kastor.Background(Recorder()))\ndef emit():\n    while True:\n        with b('x'): pass\n"
        "threading.Thread(target=emit, daemon=True).start(); time.sleep(0.05)"
    ),
    "decorated function at exit": "f = tele('f')(lambda: None); atexit.register(f)",
    "attached": "guard = tele.attach('00-' + 'a' * 32 + '-' + 'b' * 16 + '-01'); guard.__enter__()",
    "modules cleared": "sys.modules.clear()",
    "reimported": "del sys.modules['kastor']; import kastor as again; again.enable(Recorder())('x').__enter__()",
    "garbage collector off": "gc.disable(); cycle = [tele('x')]; cycle.append(cycle)",
    "frozen garbage": "gc.freeze(); scope = tele('x'); scope.__enter__()",
}


@pytest.mark.parametrize("kind", EXITS)
def test_an_exit_is_quiet(kind):
    quiet(HEAD + EXITS[kind] + "\n", timeout=30)


@pytest.mark.parametrize("number", range(4000 if DEEP else 20))
def test_exits_beside_emitting_daemon_threads_again_and_again(number):
    """The dangerous one: finalisation while other threads are inside native code, after another while each time."""
    emitting = EXITS["daemon threads that emit"].replace("0.05", f"{number % 40 / 4000}")
    quiet(HEAD + emitting + "\n", timeout=60)


BUSY = """
import logging

class Fails(Recorder):
    def record_timing(self, scope, duration, **metadata): raise ValueError
class Finalized:
    def __del__(self): tele.count("deleted")
class Told:
    def __repr__(self): return "x".join(str(number) for number in range(50))
class Number:
    def __float__(self): return float(sum(range(50)))

simple = kastor.SimpleReporter()
both = kastor.enable(Recorder(), simple)
told = kastor.enable(kastor.Recording(), capture_repr=True)
failing = kastor.enable(Fails())
logging.getLogger("kastor").addHandler(logging.NullHandler())
logging.getLogger("kastor").propagate = False
background = kastor.enable(kastor.Background(Recorder()))

def work():
    for _ in range(100):
        with tele("w"): pass

@tele("decorated")
def decorated(): work()

def busy():
    while True:
        pass

def emit():
    nonce = time.monotonic_ns() % 9999
    BODY

def emit_always():
    while True:
        emit()

for _ in range(4): threading.Thread(target=emit_always, daemon=True).start()
time.sleep(PAUSE)
"""

#: What daemon threads are at when the interpreter ends.
BODIES = {
    "scopes that fail": "try:\n        with tele('d', k=1): raise KeyError(1)\n    except KeyError: pass",
    "late attributes": "with tele('d') as t, tele('e', **{f'k{nonce}': [1]}) as t: t.metric('m', object(), x=1)",
    "point events": "s = tele('d')\n    with s: s.set(a=1, b=[2]); s.event('x', c=object())",
    "objects with finalizers": "with tele('d', k=Finalized()): tele.metric('m', Finalized(), v=Finalized())",
    "objects with a repr": "with told('d', k=Told()): told.metric('m', 1, v=Told())",
    "numbers of a class": "tele.gauge('g', Number(), v=2); tele.count('c', Number())",
    "reporters that fail": "with failing('d'): pass",
    "a carried function": "kastor.carry(work)()",
    "a carried function of a scope": "with tele('x'): carried = kastor.carry(busy)\n    carried()",
    "a decorated function": "decorated()",
    "flushes": "tele.flush(1)",
    "reports": "str(both.report()); both.report().as_dict(); both.stats(); simple.as_dict(); both.open_scopes()",
    "a background reporter": "with background('d', k=1): background.count('c'); background.flush(0.01); background.stats()",
    "contexts": "with kastor.enable(Recorder())('x'): pass",
    "many paths": "with tele(f'p{nonce}', **{f'k{nonce}': 1}): tele.count('c', label=str(nonce % 100))",
}


@pytest.mark.parametrize("kind", BODIES)
def test_exits_while_daemon_threads_are_at_it_are_quiet(kind):
    """Up to 3.13 the interpreter unwinds such a thread wherever it waits for the GIL, through what waits for its answer."""
    code = BUSY.replace("BODY", BODIES[kind])
    for number in range(400 if DEEP else 5):
        quiet(HEAD + code.replace("PAUSE", f"{0.001 + number % 20 / 1000}"), timeout=60)


@pytest.mark.skipif(not DEEP, reason="thousands of exits take minutes: KASTOR_DEEP=1")
@pytest.mark.parametrize("kind", EXITS)
def test_exits_of_a_kind_are_quiet_again_and_again(kind):
    for _ in range(60):
        quiet(HEAD + EXITS[kind] + "\n", timeout=60)


def test_an_unhandled_exception_leaves_pythons_own_words_and_no_others():
    done = python(HEAD + "with tele('open'):\n    raise KeyError('mine')\n")
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1] == "KeyError: 'mine'" and done.stderr.count("Traceback") == 1


@pytest.mark.skipif(sys.platform == "win32", reason="signals as Unix has them")
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_no_signal_handler_is_installed(number):
    quiet(
        f"""
        import signal
        before = {{n: signal.getsignal(n) for n in signal.valid_signals()}}
        import kastor
        tele = kastor.enable(kastor.Recording())
        with tele("a"): pass
        assert before == {{n: signal.getsignal(n) for n in signal.valid_signals()}}
        mask = signal.pthread_sigmask(signal.SIG_BLOCK, [])
        assert {int(number)} not in mask
        """
    )


@pytest.mark.skipif(sys.platform == "win32", reason="signals as Unix has them")
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_a_signal_ends_the_process_as_if_kastor_were_not_there(number):
    done = python(HEAD + f"with tele('open'):\n    os.kill(os.getpid(), {int(number)})\n    time.sleep(5)\n")
    assert (done.returncode, done.stderr) == (-number, "")


@pytest.mark.skipif(sys.platform == "win32", reason="signals as Unix has them")
def test_an_interrupt_leaves_as_a_keyboard_interrupt_and_closes_the_scopes():
    quiet(
        """
        import kastor, os, signal
        scopes = []
        class Reporter:
            def record_timing(self, scope, duration, **metadata):
                scopes.append((scope, metadata["error_type"]))
        tele = kastor.enable(Reporter())
        signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background job inherits that it is ignored
        try:
            with tele("a"), tele("b"):
                os.kill(os.getpid(), signal.SIGINT)
                for _ in range(1000000): pass
        except KeyboardInterrupt:
            pass
        assert scopes == [("a.b", "KeyboardInterrupt"), ("a", "KeyboardInterrupt")], scopes
        """
    )


@pytest.mark.skipif(sys.platform == "win32", reason="signals as Unix has them")
def test_hundreds_of_interrupts_anywhere_leave_no_scope_behind():
    quiet(
        """
        import gc, random, signal, time
        import kastor
        tele = kastor.enable()
        def handler(*_): raise KeyboardInterrupt
        signal.signal(signal.SIGALRM, handler)
        caught, until = 0, time.monotonic() + 20
        while caught < 300 and time.monotonic() < until:
            try:
                signal.setitimer(signal.ITIMER_REAL, random.uniform(5e-5, 2e-4))
                while True:
                    with tele("a"):
                        with tele("b", k=1): pass
            except KeyboardInterrupt:
                signal.setitimer(signal.ITIMER_REAL, 0)
                caught += 1
            assert kastor.current_traceparent() is None
        assert caught > 50
        """
    )


INSIDE = """
try:
    import kastor
    tele = kastor.enable()
    with tele("sub"): pass
except ImportError as error:
    assert "interpreter" in str(error), error
"""
SUBINTERPRETER = """
import sys
try:
    import _interpreters as interpreters      # from 3.13 on
    run, failed = interpreters.exec, interpreters.InterpreterError
except ImportError:
    import _xxsubinterpreters as interpreters
    run, failed = interpreters.run_string, interpreters.RunFailedError
import kastor
tele = kastor.enable()
with tele("main"): pass
identity = interpreters.create()
try:
    outcome = run(identity, sys.argv[1])
except failed as error:
    raise SystemExit(f"the import failed, and not cleanly: {error}")
assert outcome is None, outcome
interpreters.destroy(identity)
with tele("main"): pass
assert tele.report().as_dict()["scopes"][0]["calls"] == 2
"""


def test_a_subinterpreter_works_or_refuses_cleanly():
    quiet(SUBINTERPRETER, INSIDE, options=())


def test_importing_starts_no_thread_and_opens_nothing():
    out = quiet(
        """
        import os, threading
        def state():
            return len(os.listdir("/proc/self/task")), len(os.listdir("/proc/self/fd"))
        before = state()
        import kastor
        print(before == state(), threading.active_count())
        tele = kastor.enable()
        with tele("a"): tele.count("c")
        print(before == state())
        """
    )
    assert out == "True 1\nTrue\n" or not os.path.exists("/proc/self/task")


def test_the_module_can_be_reloaded_and_imported_by_many_threads():
    quiet(
        """
        import importlib, threading
        errors = []
        def load():
            try:
                import kastor
                kastor.enable()("a").__enter__()
            except BaseException as error:
                errors.append(error)
        threads = [threading.Thread(target=load) for _ in range(16)]
        for thread in threads: thread.start()
        for thread in threads: thread.join()
        assert errors == []
        import kastor
        importlib.reload(kastor)
        """
    )
