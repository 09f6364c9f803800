"""A Python reporter on a thread of its own."""

import os
import queue
import threading
import time
import weakref

_TIMING, _METRIC, _MARK = 0, 1, 2
#: As for reporters that run inline.
_FAILURES_UNTIL_SUSPENDED = 5
_FIRST_SUSPENSION_S, _LONGEST_SUSPENSION_S = 1.0, 60.0
#: How long a fork waits for threads to end.
_FORK_BUDGET_S = 0.05
#: How long a thread that has nothing to do stays.
_IDLE_S = 5.0
#: How often an emitting thread that may wait looks for room.
_LOOK_S = 0.001


class Background:
    """Runs `reporter` on a thread, behind a queue of at most `max_events`; what finds no room is dropped and counted.

    `wait` is how long, in seconds, an emitting thread may wait for room before it drops. The thread is a daemon and starts
    with the first event; it ends when it has had nothing to do for five seconds, and before a fork, and starts again with the
    next event. Flush the context, or let the interpreter end in order, to have everything delivered. A reporter that fails
    several times in a row is left out for a while, and tried again.
    """

    # An emitting thread takes no lock that is held while anything else runs: a finaliser, a signal handler or a callback of
    # the collector may emit at any place here, and may raise. The queue does in one step what it does.

    def __init__(self, reporter, *, max_events=10_000, wait=0.0):
        if max_events < 1:
            raise ValueError("max_events must be at least 1")
        if not 0 <= wait < float("inf"):
            raise ValueError("wait must be a number of seconds, 0 or more")
        self.reporter = reporter
        self.max_events = max_events
        self.wait = wait
        self._begin()
        _ALL.add(self)

    def _begin(self):
        self._queue = queue.SimpleQueue()
        # Of the counts that several threads change, and of the thread; held for a moment alone, and reentrant.
        self._lock = threading.RLock()
        self._thread = None
        self._process = os.getpid()
        self._in_hand = 0
        self._marks = 0
        self._dropped = 0
        # The thread's alone from here on.
        self._done = 0
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
        self._notice_fork()
        queued, done = self._queued(), self._done
        return {
            "accepted": done + queued,
            "delivered": done - self._failures - self._left_out,
            "queued": queued,
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
        self._notice_fork()
        waiting = self._queued()
        # Inside a reporter that is served it returns at once: two that wait for each other would wait for nothing.
        # With a thread it is asked even if nothing seems to wait: it may just have taken the last event out.
        is_asked = timeout > 0 and (waiting or self._thread is not None)
        if is_asked and not isinstance(threading.current_thread(), _Worker):
            before, reached = self._done, threading.Lock()
            reached.acquire()
            with self._lock:
                self._marks += 1
            self._queue.put((_MARK, reached, None, None))
            self._ensure_thread()
            if reached.acquire(timeout=min(timeout, threading.TIMEOUT_MAX)):
                waiting = 0
            else:
                waiting = max(waiting - (self._done - before), 1)
        return waiting, self._dropped + self._left_out + self._reentrant

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

    def _queued(self):
        return self._waiting() + self._in_hand

    def _waiting(self):
        return max(self._queue.qsize() - self._marks, 0)

    def _notice_fork(self):
        """In a forked child: what waits is the parent's, and the thread is not here."""
        if self._process != os.getpid():
            self._begin()

    def _put(self, event):
        self._notice_fork()
        thread = self._thread
        if thread is not None and thread.ident == threading.get_ident():
            # What the reporter itself records would come back to it for ever.
            self._reentrant += 1
            return
        if self._waiting() >= self.max_events and not self._finds_room():
            with self._lock:
                self._dropped += 1
            return
        self._queue.put(event)
        # Asked again: it may have ended meanwhile.
        if self._thread is None:
            self._ensure_thread()

    def _finds_room(self):
        deadline = time.monotonic() + self.wait
        while self._waiting() >= self.max_events:
            left = deadline - time.monotonic()
            if left <= 0:
                return False
            time.sleep(min(left, _LOOK_S))
        return True

    def _ensure_thread(self):
        with self._lock:
            if self._thread is not None:
                return
            thread = self._thread = _Worker(self)
        try:
            # Not with the lock: this waits for the thread, which may emit before it says that it runs.
            thread.start()
        except BaseException as error:
            if thread.ident is None:
                self._thread = None
            if not isinstance(error, RuntimeError):
                raise
            # The interpreter is ending, or there are too many threads: what waits is tried again with the next event.

    def _run(self):
        this = threading.current_thread()
        with self._lock:
            if self._thread is None:
                # What started it was interrupted.
                self._thread = this
            if self._thread is not this:
                return
        while True:
            try:
                kind, name, value, metadata = self._queue.get(timeout=_IDLE_S)
            except queue.Empty:
                if self._may_end():
                    return
                continue
            if kind == _MARK:
                with self._lock:
                    self._marks -= 1
                if name is None:
                    if self._may_end():
                        return
                else:
                    name.release()
                continue
            self._in_hand = 1
            try:
                self._deliver(kind, name, value, metadata)
            finally:
                # Before the next one is waited for: finalizers of what it held may emit.
                del name, value, metadata
                self._done += 1
                self._in_hand = 0

    def _deliver(self, kind, scope, value, metadata):
        if self._suspended_until is not None and time.monotonic() < self._suspended_until:
            self._left_out += 1
            return
        try:
            method = getattr(self.reporter, "record_timing" if kind == _TIMING else "record_metric", None)
            if method is not None:
                method(scope, value, **metadata)
        except BaseException:
            # There is nobody here to whom even a SystemExit could go on.
            self._failures += 1
            self._in_a_row += 1
            try:
                self._tell()
            except BaseException:
                # The program's logging fails too.
                pass
        else:
            if self._in_a_row:
                self._in_a_row, self._suspensions, self._suspended_until = 0, 0, None

    def _tell(self):
        """Says what failed, and leaves a reporter out that fails again and again."""
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

    def _may_end(self):
        """Whether nothing waits: then the next event starts another thread."""
        with self._lock:
            # In this order: what is put meanwhile is seen here, or finds no thread.
            this, self._thread = self._thread, None
            if self._queue.qsize() == 0:
                return True
            self._thread = this
            return False

    def _rest(self):
        """Lets the thread end as soon as nothing waits; the next event starts another one."""
        with self._lock:
            self._marks += 1
        self._queue.put((_MARK, None, None, None))


class _Worker(threading.Thread):
    """The thread of a `Background`."""

    def __init__(self, background):
        super().__init__(name="kastor-background", daemon=True)
        self.background = background

    def run(self):
        self.background._run()


#: Those that a forked child has too.
_ALL = weakref.WeakSet()


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


def _begin_in_child():
    for background in list(_ALL):
        background._begin()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_end_idle_workers, after_in_child=_begin_in_child)
