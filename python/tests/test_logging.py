"""What native threads have to say: through Python's `logging`, from a thread that is attached alone."""

import logging

import pytest

import kastor
from support import quiet

SECOND_INTERPRETER = """
try:
    import _interpreters as interpreters
except ImportError:
    import _xxsubinterpreters as interpreters
interpreters.destroy(interpreters.create())
"""

#: A port on which nobody listens.
NOBODY = "http://127.0.0.1:9"


def test_a_process_that_had_a_second_interpreter_is_as_safe_as_another():
    printed = quiet(
        SECOND_INTERPRETER
        + f"""
import logging, kastor
logging.getLogger("kastor").addHandler(logging.NullHandler())
logging.getLogger("kastor").propagate = False
tele = kastor.enable(kastor.Otlp({NOBODY!r}), exit_flush=0)
for _ in range(3):
    with tele("a"): pass
    tele.flush(0.3)
tele.shutdown(0)
print("alive")
"""
    )
    assert printed == "alive\n"


def test_loggers_of_the_parts_are_below_kastor(caplog):
    tele = kastor.enable(kastor.Otlp(NOBODY), exit_flush=0)
    with caplog.at_level(logging.DEBUG, "kastor"), tele("a"):
        pass
    for _ in range(60):
        if caplog.records:
            break
        tele.flush(0.5)
    tele.shutdown(0)
    names = {record.name for record in caplog.records}
    assert names and all(name == "kastor" or name.startswith("kastor.") for name in names), names


def test_ctrl_c_that_comes_while_something_is_logged_is_not_lost():
    class Interrupts(logging.Filter):
        def filter(self, record):
            logger.removeFilter(self)
            raise KeyboardInterrupt

    logger = logging.getLogger("kastor")
    tele = kastor.enable(kastor.Otlp(NOBODY), exit_flush=0)
    with tele("a"):
        pass
    logger.addFilter(Interrupts())
    with pytest.raises(KeyboardInterrupt):
        for _ in range(60):
            # What its thread has to say is said by the next one.
            tele.flush(0.5)
    tele.shutdown(0)


def test_a_context_that_was_shut_down_keeps_nobody_waiting_at_exit():
    quiet(
        f"""
        import logging, threading, time, kastor
        logging.disable(logging.CRITICAL)
        tele = kastor.enable(kastor.Otlp({NOBODY!r}), exit_flush=30)
        with tele("a"): pass
        # Its frame keeps the context beyond the end of the interpreter.
        threading.Thread(target=lambda kept=tele: time.sleep(60), daemon=True).start()
        tele.shutdown(0)
        """,
        timeout=20,
    )


def test_a_reporter_is_called_by_its_class():
    tele = kastor.enable(kastor.Otlp(NOBODY), exit_flush=0)
    assert [reporter["name"] for reporter in tele.stats()["reporters"]] == ["Otlp"]
    tele.shutdown(0)
