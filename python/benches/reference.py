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
_top: contextvars.ContextVar["_Scope | _Holder | None"] = contextvars.ContextVar("reference_top", default=None)

NEW, OPEN, CLOSED = range(3)


class _Holder:
    """Stands for an open scope in a chain from which a scope below it was taken out."""

    __slots__ = ("scope", "below")

    def __init__(self, scope: "_Scope", below: "_Scope | _Holder | None") -> None:
        self.scope = scope
        self.below = below


class _Scope:
    """One `tele("name", …)`: context manager, or decorator."""

    __slots__ = (
        "context", "name", "metadata", "path", "depth", "parent", "below", "token", "over", "state", "start", "wall",
        "error", "__weakref__",
    )  # fmt: skip

    def __init__(self, context: "Telemetry", name: object, metadata: dict[str, Any]) -> None:
        self.context = context
        self.name = name
        self.metadata = metadata
        self.state = NEW
        self.over = False
        self.error: str | None = None

    @property
    def scope(self) -> "_Scope":
        return self

    def __enter__(self) -> "Telemetry":
        if self.state == OPEN:
            raise RuntimeError("this scope is open already; make a new one with tele(name)")
        name = checked(self.name, self.context.strict)
        top = _top.get()
        below = _counting(top)
        if below is None:
            self.path, self.depth, self.parent = name, 0, None
        else:
            parent = below.scope
            self.path, self.depth, self.parent = f"{parent.path}.{name}", parent.depth + 1, parent.path
        self.below = below
        self.over = False
        self.error = None
        self.state = OPEN
        self.token = _top.set(self)
        self.wall = time.time()
        self.start = time.perf_counter()
        return self.context

    def __exit__(self, kind: type[BaseException] | None, error: object, traceback: object) -> None:
        end = time.perf_counter()
        if self.state != OPEN:
            return
        self.state = CLOSED
        self._leave()
        if self.error is None and kind is not None and not issubclass(kind, GeneratorExit):
            cancelled = issubclass(kind, asyncio.CancelledError)
            self.error = "cancelled" if cancelled else _qualified(kind)
        self.context._timing(self, end)

    def _leave(self) -> None:
        """Takes the scope out of the current context's chain, or marks it over for everybody."""
        token, self.token = self.token, None
        try:
            before = _top.get()
            _top.reset(token)
        except ValueError:
            self.over = True
            return
        if before is self:
            return
        above: list[_Scope] = []
        node = _counting(before)
        while node is not None and node.scope is not self and len(above) <= MOST_ABOVE:
            above.append(node.scope)
            node = _counting(node.below)
        if node is None or node.scope is not self or len(above) > MOST_ABOVE:
            self.over = True
            _top.set(before)
            return
        chain = _counting(node.below)
        for scope in reversed(above):
            chain = _Holder(scope, chain)
        _top.set(chain)

    def __call__(self, function: Callable[..., Any]) -> Callable[..., Any]:
        context, name, metadata = self.context, self.name, self.metadata

        def fresh() -> "_Scope":
            return _Scope(context, name, metadata)

        if inspect.isasyncgenfunction(function):
            return functools.wraps(function)(functools.partial(_async_generator, fresh, function))
        if inspect.iscoroutinefunction(function):

            @functools.wraps(function)
            async def coroutine(*args: Any, **kwargs: Any) -> Any:
                with fresh():
                    return await function(*args, **kwargs)

            return coroutine
        if inspect.isgeneratorfunction(function):

            @functools.wraps(function)
            def generator(*args: Any, **kwargs: Any) -> Any:
                return (yield from _generator(fresh, function(*args, **kwargs)))

            return generator

        @functools.wraps(function)
        def plain(*args: Any, **kwargs: Any) -> Any:
            with fresh():
                return function(*args, **kwargs)

        return plain


def _counting(node: "_Scope | _Holder | None") -> "_Scope | _Holder | None":
    while node is not None and node.scope.over:
        node = node.below
    return node


def _generator(fresh: Callable[[], _Scope], inner: Any) -> Any:
    """Runs a generator in a context of its own, so that its scope is current only while it runs."""
    flow = contextvars.copy_context()
    scope = fresh()
    flow.run(scope.__enter__)
    step, sent = inner.send, None
    while True:
        try:
            yielded = flow.run(step, sent)
        except BaseException as error:
            stopped = isinstance(error, StopIteration)
            flow.run(scope.__exit__, *((None,) * 3 if stopped else (type(error), error, error.__traceback__)))
            if stopped:
                return error.value
            raise
        try:
            step, sent = inner.send, (yield yielded)
        except BaseException as error:
            step, sent = inner.throw, error


async def _async_generator(fresh: Callable[[], _Scope], function: Any, *args: Any, **kwargs: Any) -> Any:
    with fresh():
        async for item in function(*args, **kwargs):
            yield item


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

    def _timing(self, scope: _Scope, end: float) -> None:
        duration = max(0.0, end - scope.start)
        metadata = {
            "depth": scope.depth,
            "parent_scope": scope.parent,
            "call_count": scope.depth,
            "start_monotonic_s": scope.start,
            "end_monotonic_s": end,
            "start_wall_time_s": scope.wall,
            "end_wall_time_s": scope.wall + duration,
        }
        if scope.error is not None:
            metadata["error_type"] = scope.error
        for key, value in scope.metadata.items():
            metadata[TIMING_COLLISIONS.get(key, "name_" if key == "name" else key)] = value
        self._deliver("record_timing", scope.path, duration, metadata)

    def _metric(self, name: object, value: object, kind: str | None, user: dict[str, Any]) -> None:
        name = checked(name, self.strict)
        top = _counting(_top.get())
        parent = top.scope if top is not None else None
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
    return top.scope.path if top is not None else None
