"""A Python reporter on a thread of its own."""

import os
import threading
import time
from collections import deque

_TIMING, _METRIC = 0, 1


class Background:
    """Runs `reporter` on a thread, behind a queue of at most `max_events`; what finds no room is dropped and counted.

    `wait` is how long, in seconds, an emitting thread may wait for room before it drops. The thread is a daemon and starts
    with the first event. Flush the context, or let the interpreter end in order, to have everything delivered.
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
        self._process = os.getpid()
        self._accepted = 0
        self._done = 0
        self._dropped = 0
        self._failures = 0

    def record_timing(self, scope, duration, /, **metadata):
        """Queues a timing; drops it if there is no room."""
        self._put((_TIMING, scope, duration, metadata))

    def record_metric(self, scope, value, /, **metadata):
        """Queues a metric; drops it if there is no room."""
        self._put((_METRIC, scope, value, metadata))

    def stats(self):
        """Events that were accepted, delivered, that wait, that were dropped; and failures of the reporter."""
        return {
            "accepted": self._accepted,
            "delivered": self._done - self._failures,
            "queued": self._accepted - self._done,
            "dropped": self._dropped,
            "failures": self._failures,
        }

    def flush(self, timeout=5.0):
        """Waits until everything accepted so far was delivered; true if it was within `timeout` seconds."""
        return self._kastor_flush(timeout)[0] == 0

    def _kastor_flush(self, timeout):
        if self._process != os.getpid():
            self._begin()
        if threading.current_thread() is self._thread:
            return self._accepted - self._done, self._dropped
        deadline = time.monotonic() + timeout
        with self._changed:
            wanted = self._accepted
            while self._done < wanted:
                left = deadline - time.monotonic()
                if left <= 0:
                    break
                self._changed.wait(left)
            return max(wanted - self._done, 0), self._dropped

    def _put(self, event):
        if self._process != os.getpid():
            # A forked child: what waits is the parent's, and the thread is not here.
            self._begin()
        with self._changed:
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
                thread = threading.Thread(target=self._run, name="kastor-background", daemon=True)
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
                    self._changed.wait()
                kind, scope, value, metadata = self._queue.popleft()
            try:
                if kind == _TIMING:
                    method = getattr(self.reporter, "record_timing", None)
                else:
                    method = getattr(self.reporter, "record_metric", None)
                if method is not None:
                    method(scope, value, **metadata)
            except BaseException:
                self._fail()
            finally:
                with self._changed:
                    self._done += 1
                    self._changed.notify_all()

    def _fail(self):
        self._failures += 1
        count = self._failures
        if count <= 3 or count & (count - 1) == 0:
            import logging

            name = type(self.reporter).__qualname__
            logging.getLogger("kastor").error("reporter %s failed (%d so far)", name, count, exc_info=count <= 3)
