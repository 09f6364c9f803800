"""The specification in plain Python: what kastor's scopes and metrics mean, without native code.

It was written for two purposes. As a *peer* in the benchmark it shows what the same behaviour costs without the native
module. As an *oracle* in the tests it says what a history of operations must deliver. It is not part of the package.

Left out: background and native reporters, aggregates, events, links, fork, and the text report. What is there behaves as
`docs/semantics.md` and `docs/python.md` say: paths, depth, parents, metadata and their order, key collisions, strict names,
out-of-order exits, scopes left in another context, failing reporters, decorators.
"""

from __future__ import annotations

import asyncio
import contextvars
import functools
import inspect
import logging
import re
import threading
import time
from typing import Any, Callable

RECOMMENDED_NAME = re.compile(r"[a-z][a-z0-9_]*(\.[a-z][a-z0-9_]*)*\Z")
BUILT_IN_TIMING_KEYS = (
    "depth",
    "parent_scope",
    "call_count",
    "start_monotonic_s",
    "end_monotonic_s",
    "start_wall_time_s",
    "end_wall_time_s",
)
#: Keys that would collide with the parameters of the method that delivers them.
TIMING_COLLISIONS = {"scope": "scope_", "self": "self_", "duration": "duration_"}
METRIC_COLLISIONS = {"scope": "scope_", "self": "self_", "value": "value_"}
#: A scope left below more than this many others is not taken out, but marked over.
MOST_ABOVE = 64
FAILURES_BEFORE_SUSPENSION = 5

logger = logging.getLogger("kastor.reference")
_top: contextvars.ContextVar["_Entry | _Holder | None"] = contextvars.ContextVar("reference_top", default=None)

class _Entry:
    """One entry of a scope: a node of the chain that the ContextVar holds.

    A scope object may be entered again after it was left, while contexts copied inside it still hold its first entry; so
    each entry is an object of its own.
    """

    __slots__ = ("below", "depth", "entry", "over", "parent", "path", "start", "token", "wall")

    def __init__(self, name: str, below: "_Entry | _Holder | None") -> None:
        self.below = below
        self.entry = self
        self.over = False
        if below is None:
            self.path, self.depth, self.parent = name, 0, None
        else:
            self.path, self.depth, self.parent = f"{below.entry.path}.{name}", below.entry.depth + 1, below.entry.path


class _Holder:
    """Stands for an open scope's entry in a chain from which a scope below it was taken out."""

    __slots__ = ("below", "entry")

    def __init__(self, entry: _Entry, below: "_Entry | _Holder | None") -> None:
        self.entry = entry
        self.below = below


class _Scope:
    """One `tele("name", …)`: context manager, or decorator."""

    __slots__ = ("context", "entry", "metadata", "name")

    def __init__(self, context: "Telemetry", name: object, metadata: dict[str, Any]) -> None:
        self.context = context
        self.name = name
        self.metadata = metadata
        self.entry: _Entry | None = None

    def __enter__(self) -> "Telemetry":
        if self.entry is not None:
            raise RuntimeError("this scope is open already; make a new one with tele(name)")
        self.entry = entry = _Entry(checked(self.name, self.context.strict), _counting(_top.get()))
        entry.token = _top.set(entry)
        entry.wall = time.time()
        entry.start = time.perf_counter()
        return self.context

    def __exit__(self, kind: type[BaseException] | None, error: object, traceback: object) -> None:
        end = time.perf_counter()
        entry, self.entry = self.entry, None
        if entry is None:
            return
        _leave(entry)
        failure = None
        if isinstance(kind, type) and not issubclass(kind, GeneratorExit):
            failure = "cancelled" if issubclass(kind, asyncio.CancelledError) else _qualified(kind)
        self.context._timing(entry, end, failure, self.metadata)

    def __call__(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """As a decorator: every call has a scope of its own."""
        context, name, metadata = self.context, self.name, self.metadata

        def fresh() -> _Scope:
            return _Scope(context, name, metadata)

        if inspect.isasyncgenfunction(function):

            @functools.wraps(function)
            async def async_generator(*args: Any, **kwargs: Any) -> Any:
                own = _Resumed(fresh())
                inner = function(*args, **kwargs)
                step = functools.partial(inner.asend, None)
                while True:
                    try:
                        item = await own.awaiting(step())
                    except StopAsyncIteration:
                        own.close(None)
                        return
                    except BaseException as error:
                        own.close(error)
                        raise
                    try:
                        step = functools.partial(inner.asend, (yield item))
                    except BaseException as error:
                        step = functools.partial(inner.athrow, error)

            return async_generator
        if inspect.iscoroutinefunction(function):

            @functools.wraps(function)
            async def coroutine(*args: Any, **kwargs: Any) -> Any:
                with fresh():
                    return await function(*args, **kwargs)

            return coroutine
        if inspect.isgeneratorfunction(function):

            @functools.wraps(function)
            def generator(*args: Any, **kwargs: Any) -> Any:
                own = _Resumed(fresh())
                inner = function(*args, **kwargs)
                step = functools.partial(inner.send, None)
                while True:
                    try:
                        item = own.resume(step)
                    except StopIteration as stop:
                        own.close(None)
                        return stop.value
                    except BaseException as error:
                        own.close(error)
                        raise
                    try:
                        step = functools.partial(inner.send, (yield item))
                    except BaseException as error:
                        step = functools.partial(inner.throw, error)

            return generator

        @functools.wraps(function)
        def plain(*args: Any, **kwargs: Any) -> Any:
            with fresh():
                return function(*args, **kwargs)

        return plain


class _Resumed:
    """The scope of a decorated generator, current only while the generator runs: it is swapped in per resume."""

    def __init__(self, scope: _Scope) -> None:
        self.scope = scope
        self.top = _top.get()
        self.resume(scope.__enter__)

    def resume(self, step: Callable[[], Any]) -> Any:
        outside = _top.get()
        _top.set(self.top)
        try:
            return step()
        finally:
            self.top = _top.get()
            _top.set(outside)

    async def awaiting(self, awaitable: Any) -> Any:
        return await _Awaiting(self, awaitable)

    def close(self, error: BaseException | None) -> None:
        kind = type(error) if error is not None else None
        self.resume(functools.partial(self.scope.__exit__, kind, error, None))


class _Awaiting:
    """Awaits something, resuming it with the scope swapped in."""

    def __init__(self, own: _Resumed, awaitable: Any) -> None:
        self.own = own
        self.iterator = awaitable.__await__()

    def __await__(self) -> Any:
        step = functools.partial(self.iterator.send, None)
        while True:
            try:
                waited_for = self.own.resume(step)
            except StopIteration as stop:
                return stop.value
            try:
                step = functools.partial(self.iterator.send, (yield waited_for))
            except BaseException as error:
                step = functools.partial(self.iterator.throw, error)


def _leave(entry: _Entry) -> None:
    """Takes the entry out of the current context's chain, or marks it over for everybody."""
    before = _top.get()
    try:
        _top.reset(entry.token)
    except ValueError:
        # Another context than the one that opened it, which cannot be written from here.
        entry.over = True
        return
    finally:
        entry.token = None
    if before is entry:
        return
    above: list[_Entry] = []
    node = _counting(before)
    while node is not None and node.entry is not entry and len(above) <= MOST_ABOVE:
        above.append(node.entry)
        node = _counting(node.below)
    if node is None or node.entry is not entry or len(above) > MOST_ABOVE:
        entry.over = True
        _top.set(before)
        return
    chain = _counting(node.below)
    for other in reversed(above):
        chain = _Holder(other, chain)
    _top.set(chain)


def _counting(node: _Entry | _Holder | None) -> _Entry | _Holder | None:
    """The first entry from here on that is not over."""
    while node is not None and node.entry.over:
        node = node.below
    return node


def checked(name: object, strict: bool) -> str:
    """The name, or a ValueError that says what is wrong with it."""
    if not isinstance(name, str) or not name:
        raise ValueError("a scope or metric name must be a non-empty string")
    if strict and not RECOMMENDED_NAME.match(name):
        raise ValueError(f"{name!r} is not of the recommended form: lowercase segments of letters, digits and _")
    return name


def _qualified(kind: type[BaseException]) -> str:
    return kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"


class Telemetry:
    """An enabled context."""

    is_enabled = True

    def __init__(self, *reporters: object, strict: bool = False) -> None:
        self.strict = strict
        self._reporters = reporters
        self._failures = dict.fromkeys(map(id, reporters), 0)
        self._guard = threading.local()

    def __call__(self, name: object, /, **metadata: Any) -> _Scope:
        return _Scope(self, name, metadata)

    time = __call__

    def metric(self, name: object, value: object, /, **metadata: Any) -> None:
        self._metric(name, value, None, metadata)

    def count(self, name: object, /, increment: float = 1, **metadata: Any) -> None:
        self._metric(name, increment, "counter", metadata)

    def gauge(self, name: object, value: object, /, **metadata: Any) -> None:
        self._metric(name, value, "gauge", metadata)

    def histogram(self, name: object, value: object, /, **metadata: Any) -> None:
        self._metric(name, value, "histogram", metadata)

    def _timing(self, entry: _Entry, end: float, failure: str | None, user: dict[str, Any]) -> None:
        duration = max(0.0, end - entry.start)
        metadata = {
            "depth": entry.depth,
            "parent_scope": entry.parent,
            "call_count": entry.depth,
            "start_monotonic_s": entry.start,
            "end_monotonic_s": end,
            "start_wall_time_s": entry.wall,
            "end_wall_time_s": entry.wall + duration,
        }
        if failure is not None:
            metadata["error_type"] = failure
        for key, value in user.items():
            metadata[TIMING_COLLISIONS.get(key, "name_" if key == "name" else key)] = value
        self._deliver("record_timing", entry.path, duration, metadata)

    def _metric(self, name: object, value: object, kind: str | None, user: dict[str, Any]) -> None:
        name = checked(name, self.strict)
        top = _counting(_top.get())
        parent = top.entry if top is not None else None
        metadata: dict[str, Any] = {
            "depth": parent.depth + 1 if parent is not None else 0,
            "parent_scope": parent.path if parent is not None else None,
        }
        if kind is not None:
            metadata["metric_type"] = kind
        for key, item in user.items():
            metadata[METRIC_COLLISIONS.get(key, "name_" if key == "name" else key)] = item
        self._deliver("record_metric", f"{parent.path}.{name}" if parent is not None else name, value, metadata)

    def _deliver(self, method: str, path: str, value: object, metadata: dict[str, Any]) -> None:
        escaped: BaseException | None = None
        for reporter in self._reporters:
            if self._failures[id(reporter)] >= FAILURES_BEFORE_SUSPENSION:
                continue
            record = getattr(reporter, method, None)
            if record is None:
                continue
            try:
                record(path, value, **metadata)
                self._failures[id(reporter)] = 0
            except Exception:
                self._failures[id(reporter)] += 1
                logger.exception("%s failed in %s", type(reporter).__name__, method)
            except BaseException as error:
                error.__context__ = escaped
                escaped = error
        if escaped is not None:
            raise escaped


class Recorder:
    """A reporter that keeps everything."""

    def __init__(self) -> None:
        self.timings: list[tuple[str, float, dict[str, Any]]] = []
        self.metrics: list[tuple[str, object, dict[str, Any]]] = []

    def record_timing(self, scope: str, duration: float, **metadata: Any) -> None:
        self.timings.append((scope, duration, metadata))

    def record_metric(self, scope: str, value: object, **metadata: Any) -> None:
        self.metrics.append((scope, value, metadata))


def current_path() -> str | None:
    """The path of the innermost open scope of this flow, or None."""
    top = _counting(_top.get())
    return top.entry.path if top is not None else None
