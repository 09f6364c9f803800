"""A Python reporter on a thread of its own."""

import os
import threading
import time
from collections import deque

_TIMING, _METRIC = 0, 1
#: As for reporters that run inline.
_FAILURES_UNTIL_SUSPENDED = 5
_FIRST_SUSPENSION_S, _LONGEST_SUSPENSION_S = 1.0, 60.0
#: How long a fork waits for threads to end.
_FORK_BUDGET_S = 0.05


class Background:
    """Runs `reporter` on a thread, behind a queue of at most `max_events`; what finds no room is dropped and counted.

    `wait` is how long, in seconds, an emitting thread may wait for room before it drops. The thread is a daemon and starts
    with the first event; before a fork it ends if it is idle, and starts again with the next event. Flush the context, or let
    the interpreter end in order, to have everything delivered. A reporter that fails several times in a row is left out for
    a while, and tried again.
    """

    def __init__(self, reporter, *, max_events=10_000, wait=0.0):
        if max_events < 1:
            raise ValueError("max_events must be at least 1")
        self.reporter = reporter
        self.max_events = max_events
        self.wait = wait
        self._begin()

    def _begin(self):
        self._queue = deque()
        # Reentrant: a finaliser or a signal handler that emits may run while this very thread holds it.
        self._changed = threading.Condition(threading.RLock())
        self._thread = None
        self._is_resting = False
        self._process = os.getpid()
        self._accepted = 0
        self._done = 0
        self._dropped = 0
        self._left_out = 0
        self._reentrant = 0
        self._failures = 0
        self._in_a_row = 0
        self._suspensions = 0
        self._suspended_until = None

    def record_timing(self, scope, duration, /, **metadata):
        """Queues a timing; drops it if there is no room."""
        self._put((_TIMING, scope, duration, metadata))

    def record_metric(self, scope, value, /, **metadata):
        """Queues a metric; drops it if there is no room."""
        self._put((_METRIC, scope, value, metadata))

    def stats(self):
        """Events that were accepted, delivered, that wait; that were dropped, left out while the reporter was suspended, or
        recorded by itself; its failures, and whether it is suspended."""
        with self._changed:
            return {
                "accepted": self._accepted,
                "delivered": self._done - self._failures - self._left_out,
                "queued": self._accepted - self._done,
                "dropped": self._dropped,
                "left_out": self._left_out,
                "reentrant": self._reentrant,
                "failures": self._failures,
                "is_suspended": self._suspended_until is not None,
            }

    def flush(self, timeout=5.0):
        """Waits until everything accepted so far was delivered; true if it was within `timeout` seconds."""
        return self._kastor_flush(timeout)[0] == 0

    def _kastor_flush(self, timeout):
        """Events that are pending, and that the reporter did not get so far."""
        if self._process != os.getpid():
            self._begin()
        if threading.current_thread() is self._thread:
            return self._accepted - self._done, self._dropped + self._left_out + self._reentrant
        deadline = time.monotonic() + timeout
        with self._changed:
            wanted = self._accepted
            while self._done < wanted:
                left = deadline - time.monotonic()
                if left <= 0:
                    break
                self._changed.wait(left)
            return max(wanted - self._done, 0), self._dropped + self._left_out + self._reentrant

    def _kastor_accounts(self):
        """For the context's `stats()`: delivered, dropped by reason, queued, failures, whether it is suspended."""
        stats = self.stats()
        reasons = {
            "queue_full": stats["dropped"],
            "reporter_failed": stats["failures"],
            "reporter_suspended": stats["left_out"],
            "reentrant": stats["reentrant"],
        }
        return stats["delivered"], reasons, stats["queued"], stats["failures"], stats["is_suspended"]

    def _put(self, event):
        if self._process != os.getpid():
            # A forked child: what waits is the parent's, and the thread is not here.
            self._begin()
        with self._changed:
            if threading.current_thread() is self._thread:
                # What the reporter itself records would come back to it for ever.
                self._reentrant += 1
                return
            if len(self._queue) >= self.max_events and self.wait > 0:
                deadline = time.monotonic() + self.wait
                while len(self._queue) >= self.max_events:
                    left = deadline - time.monotonic()
                    if left <= 0:
                        break
                    self._changed.wait(left)
            if len(self._queue) >= self.max_events:
                self._dropped += 1
                return
            if self._thread is None:
                thread = _Worker(self)
                try:
                    thread.start()
                except RuntimeError:
                    # The interpreter is ending, or there are too many threads.
                    self._dropped += 1
                    return
                self._thread = thread
            self._queue.append(event)
            self._accepted += 1
            self._changed.notify_all()

    def _run(self):
        while True:
            with self._changed:
                while not self._queue:
                    if self._is_resting:
                        self._thread, self._is_resting = None, False
                        return
                    self._changed.wait()
                kind, scope, value, metadata = self._queue.popleft()
            failed, is_tried = False, self._may_try()
            if is_tried:
                try:
                    if kind == _TIMING:
                        method = getattr(self.reporter, "record_timing", None)
                    else:
                        method = getattr(self.reporter, "record_metric", None)
                    if method is not None:
                        method(scope, value, **metadata)
                except BaseException:
                    # There is nobody here to whom even a SystemExit could go on.
                    failed = True
                    self._fail()
            with self._changed:
                if not is_tried:
                    self._left_out += 1
                elif not failed and self._in_a_row:
                    self._in_a_row, self._suspensions, self._suspended_until = 0, 0, None
                self._done += 1
                self._changed.notify_all()

    def _rest(self):
        """Lets the thread end as soon as nothing waits; the next event starts another one."""
        with self._changed:
            self._is_resting = True
            self._changed.notify_all()

    def _may_try(self):
        return self._suspended_until is None or time.monotonic() >= self._suspended_until

    def _fail(self):
        with self._changed:
            self._failures += 1
            self._in_a_row += 1
            count, is_suspended = self._failures, self._in_a_row >= _FAILURES_UNTIL_SUSPENDED
            if is_suspended:
                pause = min(_FIRST_SUSPENSION_S * 2**self._suspensions, _LONGEST_SUSPENSION_S)
                self._suspensions = min(self._suspensions + 1, 20)
                self._suspended_until = time.monotonic() + pause
        if count <= 3 or count & (count - 1) == 0 or self._in_a_row == _FAILURES_UNTIL_SUSPENDED:
            import logging

            words = "reporter %s failed (%d so far)" + ("; it is left out for a while" if is_suspended else "")
            name = type(self.reporter).__qualname__
            logging.getLogger("kastor").error(words, name, count, exc_info=count <= 3)


class _Worker(threading.Thread):
    """The thread of a `Background`."""

    def __init__(self, background):
        super().__init__(name="kastor-background", daemon=True)
        self.background = background

    def run(self):
        self.background._run()


def _end_idle_workers():
    """Before a fork: the interpreter warns of one where there are other threads. One that is stuck stays; it is right then."""
    deadline = time.monotonic() + _FORK_BUDGET_S
    this = threading.current_thread()
    workers = [thread for thread in threading.enumerate() if isinstance(thread, _Worker) and thread is not this]
    for worker in workers:
        worker.background._rest()
    for worker in workers:
        worker.join(max(deadline - time.monotonic(), 0))
        # Up to 3.12 the interpreter is done with a thread a little before the system is.
        while os.path.exists(f"/proc/self/task/{worker.native_id}") and time.monotonic() < deadline:
            time.sleep(0)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_end_idle_workers)
