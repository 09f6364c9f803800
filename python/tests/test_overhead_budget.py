"""The overhead budget: a path that costs more than the program allowed is degraded, visibly, and restored when it is calm.

One call within a second is about 1e-7 of a processor's time: a budget of 1e-12 is exceeded by any call, and one of 0.9 by none
of these tests. Time is moved by hand; a flush weighs when a second has passed.
"""

import json
import logging
import math

import pytest

import kastor
from support import Recorder, quiet

TINY = 1e-12


class Budgeted:
    """A context with a budget, a clock, and a reporter of each kind."""

    def __init__(self, share):
        self.clock, self.recording, self.recorder = kastor.MockClock(), kastor.Recording(), Recorder()
        self.tele = kastor.enable(self.recording, self.recorder, clock=self.clock, overhead_budget=share)

    def hot(self, times):
        for _ in range(times):
            with self.tele("budget.hot"):
                pass

    def weigh(self):
        """A second passes, and what happened in it is weighed."""
        self.clock.advance(1)
        assert self.tele.flush(10)

    @property
    def degraded(self):
        return [(entry["path"], entry["is_off"]) for entry in self.tele.stats()["degraded"]]

    @property
    def calls(self):
        return self.tele.report().scope("budget.hot")["calls"]


@pytest.fixture
def budgeted():
    return Budgeted(TINY)


def test_a_path_beyond_the_budget_is_added_up_only(budgeted):
    budgeted.hot(3)
    budgeted.weigh()
    assert budgeted.degraded == [("budget.hot", False)]
    budgeted.hot(4)
    assert budgeted.tele.flush(10)
    assert (len(budgeted.recording), len(budgeted.recorder.timings), budgeted.calls) == (3, 3, 7)
    dropped = [account["dropped"] for account in budgeted.tele.stats()["reporters"]]
    assert dropped == [{"sampled": 4}, {"sampled": 4}], "visibly, for native and for Python reporters"


def test_stats_report_and_log_say_so(budgeted, caplog):
    budgeted.hot(3)
    with caplog.at_level(logging.WARNING, logger="kastor"):
        budgeted.weigh()
    line = "over the overhead budget: budget.hot: aggregated only; 3 calls/s, about 0.00 % of a processor"
    assert [record.getMessage() for record in caplog.records] == [line]
    report = budgeted.tele.report()
    assert str(report).endswith(line + "\n") and "budget.hot: aggregated only" in report._repr_html_()
    (shown,) = budgeted.tele.stats()["degraded"]
    assert report.as_dict()["degraded"] == json.loads(report.to_json())["degraded"] == [shown]
    assert shown["calls_per_second"] == 3 and 3e-9 < shown["share"] < 1e-2


def test_a_path_that_is_calm_again_is_recorded_again(budgeted):
    budgeted.hot(1)
    budgeted.weigh()
    budgeted.weigh()
    assert budgeted.degraded == []
    budgeted.hot(1)
    assert budgeted.tele.flush(10)
    assert (len(budgeted.recording), len(budgeted.recorder.timings)) == (2, 2)
    assert "degraded" not in budgeted.tele.report().as_dict()


def test_a_path_that_costs_too_much_even_so_is_switched_off_and_tried_again_after_a_while(budgeted):
    for _ in range(2):
        budgeted.hot(1)
        budgeted.weigh()
    assert budgeted.degraded == [("budget.hot", True)]
    with budgeted.tele("budget.hot"), budgeted.tele("budget.inner"):
        pass
    assert budgeted.calls == 2 and budgeted.tele.report().scope("budget.inner")["calls"] == 1, "it is transparent"
    for _ in range(10):
        budgeted.weigh()
    assert ("budget.hot", False) in budgeted.degraded
    budgeted.hot(1)
    assert budgeted.calls == 3


def test_what_is_within_the_budget_is_left_alone():
    budgeted = Budgeted(0.9)
    budgeted.hot(100)
    budgeted.weigh()
    assert (budgeted.degraded, len(budgeted.recording), len(budgeted.recorder.timings)) == ([], 100, 100)


def test_without_a_budget_nothing_is_degraded():
    budgeted = Budgeted(None)
    budgeted.hot(100)
    budgeted.weigh()
    assert (budgeted.degraded, len(budgeted.recording)) == ([], 100)
    assert kastor.DISABLED.stats()["degraded"] == []


def test_a_scope_counts_as_what_one_costs_in_python(budgeted):
    """Several times what the core alone takes; and by estimate, so within wide bounds."""
    budgeted.hot(1000)
    budgeted.weigh()
    (shown,) = budgeted.tele.stats()["degraded"]
    assert 5e-8 * 1000 < shown["share"] < 1e-5 * 1000


def test_the_rules_of_the_program_outlive_what_the_budget_did(budgeted):
    budgeted.tele.record_paths("budget.kept", False)
    for _ in range(2):
        with budgeted.tele("budget.kept"):
            pass
        budgeted.weigh()
        budgeted.weigh()
    assert budgeted.degraded == [] and len(budgeted.recording) == 0


def test_a_hot_path_is_degraded_without_anybody_asking():
    """By the collector, in real time; and the program ends and forks as it does without."""
    code = """
    import logging, os, time, kastor
    logging.getLogger("kastor").addHandler(logging.NullHandler())
    tele = kastor.enable(overhead_budget=1e-9)
    end = time.monotonic() + 30
    while not tele.stats()["degraded"] and time.monotonic() < end:
        with tele("hot"):
            pass
    print(tele.stats()["degraded"][0]["path"], flush=True)
    child = os.fork()
    if child == 0:
        with tele("child"):
            pass
        os._exit(0 if tele.stats()["timings"] == 1 else 1)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
    """
    assert quiet(code) == "hot\n0\n"


@pytest.mark.parametrize("share", [0, -0.1, 1.0001, math.nan, math.inf, -math.inf])
def test_a_budget_that_is_no_share_is_refused_with_what_to_write_instead(share):
    with pytest.raises(ValueError, match="^overhead_budget is .*: it is a share of one processor, above 0 and up to 1; "):
        kastor.enable(overhead_budget=share)
