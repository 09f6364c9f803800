"""Functions that run inside a scope: what `@tele("name")` makes of them.

Each call opens a scope of its own. A generator's scope is current only while the generator runs: its flow is put in
place when it is resumed, and taken away when it yields.
"""

from functools import partial, wraps

from kastor._native import _copy, _swap

# Of code objects; `inspect` has the same numbers, and takes long to import.
_GENERATOR, _COROUTINE, _ASYNC_GENERATOR = 0x20, 0x80, 0x200


def decorate(scope, function):
    """The function, with every call inside a scope like `scope`."""
    if isinstance(function, (staticmethod, classmethod)):
        return type(function)(decorate(scope, function.__func__))
    kind = _kind(function)
    if kind & _ASYNC_GENERATOR:
        return _async_generator(scope, function)
    if kind & _COROUTINE:
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


class _Flow:
    """The flow of one generator: its scope, and whatever is open inside it between two resumes."""

    __slots__ = ("inner", "outer", "scope")

    def __init__(self, scope):
        self.scope = _copy(scope)
        self.inner = None
        self.outer = None

    def start(self):
        self.outer = _swap(None)
        _swap(self.outer)
        self.scope.__enter__()

    def suspend(self):
        self.inner = _swap(self.outer)
        self.outer = None

    def resume(self):
        self.outer = _swap(self.inner)
        self.inner = None

    def end(self, *error):
        self.scope.__exit__(*error)
        _swap(self.outer)
        self.outer = None


def _generator(scope, function):
    @wraps(function)
    def in_scope(*args, **kwargs):
        flow = _Flow(scope)
        flow.start()
        try:
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
                except GeneratorExit:
                    flow.resume()
                    generator.close()
                    raise
                except BaseException as error:
                    flow.resume()
                    step, sent = generator.throw, error
                else:
                    flow.resume()
        except BaseException as error:
            flow.end(type(error), error, error.__traceback__)
            raise

    return in_scope


def _async_generator(scope, function):
    @wraps(function)
    async def in_scope(*args, **kwargs):
        flow = _Flow(scope)
        flow.start()
        try:
            generator = function(*args, **kwargs)
            step, sent = generator.asend, None
            while True:
                try:
                    item = await step(sent)
                except StopAsyncIteration:
                    flow.end(None, None, None)
                    return
                flow.suspend()
                try:
                    step, sent = generator.asend, (yield item)
                except GeneratorExit:
                    flow.resume()
                    await generator.aclose()
                    raise
                except BaseException as error:
                    flow.resume()
                    step, sent = generator.athrow, error
                else:
                    flow.resume()
        except BaseException as error:
            flow.end(type(error), error, error.__traceback__)
            raise

    return in_scope
