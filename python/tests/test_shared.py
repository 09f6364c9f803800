"""One scope object in the hands of several threads at once: every event once, nothing raised but what is said."""

import sys
import threading
from collections import deque

import pytest

import kastor

THREADS = 4
ROUNDS = 300


@pytest.fixture(autouse=True)
def threads_change_often():
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before)


@pytest.fixture
def recording():
    return kastor.Recording(max_bytes=64 << 20)


@pytest.fixture
def tele(recording, recorder):
    return kastor.enable(recording, recorder)


def at_once(work):
    """Runs `work` in several threads, which begin together: what each returned."""
    answers, barrier = [], threading.Barrier(THREADS)

    def run():
        barrier.wait(60)
        answers.append(work())

    threads = [threading.Thread(target=run) for _ in range(THREADS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert len(answers) == THREADS
    return answers


def test_a_scope_that_all_of_them_leave_closes_once(tele, recorder):
    for _ in range(ROUNDS):
        scope = tele("shared", key="value")
        scope.__enter__()
        assert at_once(lambda: scope.__exit__(None, None, None)) == [None] * THREADS
    assert [event.scope for event in recorder.timings] == ["shared"] * ROUNDS


def test_what_all_of_them_attach_is_there(tele, recorder):
    for number in range(ROUNDS):
        scope = tele("shared", first=1)

        def attach():
            name = f"by_{threading.get_ident()}"
            scope.set(**{name: number})
            scope.event("moment", by=name)
            scope.fail("Failed")
            return name

        with scope:
            names = at_once(attach)
        metadata = recorder.timings.pop().metadata
        assert {name: metadata.get(name) for name in names} == dict.fromkeys(names, number)
        assert (metadata["first"], metadata["error_type"]) == (1, "Failed")


def test_attaching_to_a_scope_that_is_being_left_is_in_time_or_nothing(tele, recorder):
    for _ in range(ROUNDS):
        scope = tele("shared", first=1)
        scope.__enter__()
        turns = deque([lambda: scope.__exit__(None, None, None)] + [lambda: scope.set(late=[1], other=2)] * 3)
        at_once(lambda: turns.popleft()())
        metadata = recorder.timings.pop().metadata
        assert metadata["first"] == 1
        assert metadata.get("late", [1]) == [1] and metadata.get("other", 2) == 2


def test_a_scope_that_all_of_them_enter_opens_once_at_a_time(tele, recorder):
    opened = 0
    for _ in range(ROUNDS):
        scope = tele("shared", key="value")

        def enter():
            try:
                scope.__enter__()
            except RuntimeError as error:
                assert "open already" in str(error)
                return 0
            return 1

        opened += sum(at_once(enter))
        scope.__exit__(None, None, None)
    assert (opened, len(recorder.timings)) == (ROUNDS, ROUNDS)


def test_contexts_that_go_while_others_are_looked_for(tele):
    def work():
        for _ in range(ROUNDS // 10):
            made = kastor.enable(kastor.Recording(max_bytes=1 << 16))
            with made("short"):
                pass
            del made
            kastor._native._after_fork_in_child()
        return True

    assert all(at_once(work))
