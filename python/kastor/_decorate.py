"""Functions that run inside a scope: what `@tele("name")` makes of them.

Each call opens a scope of its own. A generator's scope is current only while the generator runs: its flow is put in
place when it is resumed, and taken away when it yields. A signal handler may raise anywhere: whatever happened before, `end`
leaves the scope once and puts the caller's flow in place.
"""

import sys
from functools import partial, wraps

from kastor._native import _copy, _Flow, _swap

# Of code objects; `inspect` has the same numbers, and takes long to import.
_GENERATOR, _COROUTINE, _ITERABLE_COROUTINE, _ASYNC_GENERATOR = 0x20, 0x80, 0x100, 0x200


def decorate(scope, function):
    """The function, with every call inside a scope like `scope`."""
    if isinstance(function, (staticmethod, classmethod)):
        return type(function)(decorate(scope, function.__func__))
    if not callable(function):
        what = type(function).__name__
        raise TypeError(f"a scope decorates functions, not a {what}: put @tele(...) below the decorator that makes the {what}")
    kind = _kind(function)
    if kind & _ASYNC_GENERATOR:
        return _async_generator(scope, function)
    if kind & (_COROUTINE | _ITERABLE_COROUTINE):
        return _coroutine(scope, function)
    if kind & _GENERATOR:
        return _generator(scope, function)
    return _function(scope, function)


def _kind(function):
    """The flags of the code that runs when the function is called."""
    while isinstance(function, partial):
        function = function.func
    function = getattr(function, "__func__", function)
    if getattr(function, "_is_coroutine_mark", None) is not None:
        # What `inspect.markcoroutinefunction` leaves.
        return _COROUTINE
    code = getattr(function, "__code__", None)
    if code is None and not isinstance(function, type):
        code = getattr(getattr(type(function), "__call__", None), "__code__", None)
    return getattr(code, "co_flags", 0)


def _function(scope, function):
    @wraps(function)
    def in_scope(*args, **kwargs):
        with _copy(scope):
            return function(*args, **kwargs)

    return in_scope


def _coroutine(scope, function):
    @wraps(function)
    async def in_scope(*args, **kwargs):
        with _copy(scope):
            return await function(*args, **kwargs)

    return in_scope


def carried(scope, function):
    """A coroutine function that runs under `scope`; None for any other function."""
    if not _kind(function) & (_COROUTINE | _ITERABLE_COROUTINE):
        return None

    @wraps(function)
    async def under_scope(*args, **kwargs):
        outer = _swap(scope)
        try:
            return await function(*args, **kwargs)
        finally:
            _swap(outer)

    return under_scope


def _first_step(generator):
    """The first step of an asynchronous generator that the event loop is not told of: the one around it closes it."""
    hooks = sys.get_asyncgen_hooks()
    sys.set_asyncgen_hooks(None, None)
    try:
        return generator.asend(None)
    finally:
        sys.set_asyncgen_hooks(*hooks)


def _generator(scope, function):
    @wraps(function)
    def in_scope(*args, **kwargs):
        flow = _Flow(_copy(scope))
        try:
            flow.start()
            generator = function(*args, **kwargs)
            step, sent = generator.send, None
            while True:
                try:
                    item = step(sent)
                except StopIteration as stop:
                    flow.end(None, None, None)
                    return stop.value
                flow.suspend()
                try:
                    step, sent = generator.send, (yield item)
                except BaseException as error:
                    flow.resume()
                    step, sent = generator.throw, error
                else:
                    flow.resume()
        except BaseException as error:
            # It may be the very error, whose traceback refers to this frame.
            step = sent = None
            flow.end(type(error), error, error.__traceback__)
            raise

    return in_scope


def _async_generator(scope, function):
    @wraps(function)
    async def in_scope(*args, **kwargs):
        flow = _Flow(_copy(scope))
        try:
            flow.start()
            generator = function(*args, **kwargs)
            step, sent = _first_step, generator
            while True:
                try:
                    item = await step(sent)
                except StopAsyncIteration:
                    flow.end(None, None, None)
                    return
                flow.suspend()
                try:
                    step, sent = generator.asend, (yield item)
                except BaseException as error:
                    flow.resume()
                    step, sent = generator.athrow, error
                else:
                    flow.resume()
        except BaseException as error:
            # It may be the very error, whose traceback refers to this frame.
            step = sent = None
            flow.end(type(error), error, error.__traceback__)
            raise

    return in_scope
