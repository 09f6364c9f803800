"""`@tele("name")` on all four kinds of functions, and on the disabled context."""

import asyncio
import concurrent.futures
import contextlib
import contextvars
import functools
import gc
import inspect
import pickle
import types

import pytest

import kastor
from support import TIMING_KEYS, current_path, quiet, run


def plain():
    """Doc."""


async def coroutine():
    """Doc."""


def generator():
    """Doc."""
    yield


async def async_generator():
    """Doc."""
    yield


KINDS = {
    plain: inspect.isfunction,
    coroutine: inspect.iscoroutinefunction,
    generator: inspect.isgeneratorfunction,
    async_generator: inspect.isasyncgenfunction,
}


@pytest.mark.parametrize("function", KINDS, ids=lambda f: f.__name__)
def test_the_disabled_context_returns_the_function(function):
    off = kastor.TelemetryContext()
    assert off("a", k=1)(function) is function
    assert off.time("a")(function) is function


@pytest.mark.parametrize("function", KINDS, ids=lambda f: f.__name__)
def test_the_decorated_function_looks_like_the_original(tele, function):
    decorated = tele("a")(function)
    assert decorated is not function and decorated.__wrapped__ is function
    for name in ("__name__", "__qualname__", "__module__", "__doc__"):
        assert getattr(decorated, name) == getattr(function, name)
    assert inspect.signature(decorated) == inspect.signature(function)


@pytest.mark.parametrize("function", KINDS, ids=lambda f: f.__name__)
def test_the_decorated_function_is_of_the_same_kind(tele, function):
    assert KINDS[function](tele("a")(function))


def test_a_function(tele, recorder):
    @tele("f", k=1)
    def add(a, b=2, *rest, c, **more):
        assert current_path(tele, recorder) == "f"
        return (a, b, rest, c, more)

    assert add(1, c=3) == (1, 2, (), 3, {})
    assert add(1, 5, 6, 7, c=3, d=4) == (1, 5, (6, 7), 3, {"d": 4})
    assert recorder.scopes == ["f", "f"] and recorder.timings[0].metadata["k"] == 1


def test_a_recursive_function_has_a_scope_per_call(tele, recorder):
    @tele("f")
    def down(n):
        return n and down(n - 1)

    down(2)
    assert recorder.scopes == ["f.f.f", "f.f", "f"]


def test_a_function_that_raises(tele, recorder):
    error = ValueError("mine")

    @tele("f")
    def function():
        raise error

    with pytest.raises(ValueError) as caught:
        function()
    assert caught.value is error and recorder.only().metadata["error_type"] == "ValueError"


def test_methods_class_methods_and_static_methods(tele, recorder):
    class Thing:
        @tele("method")
        def method(self, x):
            return (self, x)

        @classmethod
        @tele("class_method")
        def class_method(cls, x):
            return (cls, x)

        @staticmethod
        @tele("static_method")
        def static_method(x):
            return x

        @property
        @tele("property")
        def value(self):
            return 5

    thing = Thing()
    assert thing.method(1) == (thing, 1) and Thing.class_method(2) == (Thing, 2)
    assert thing.static_method(3) == 3 and thing.value == 5
    assert recorder.scopes == ["method", "class_method", "static_method", "property"]


def test_a_coroutine_function_opens_its_scope_when_it_runs(tele, recorder):
    @tele("c")
    async def job():
        await asyncio.sleep(0)
        return current_path(tele, recorder)

    async def main():
        made = job()
        assert current_path(tele, recorder) is None
        assert await made == "c"
        assert current_path(tele, recorder) is None

    run(main())
    assert recorder.scopes == ["c"]


def test_a_coroutine_that_is_never_awaited_has_no_event(tele, recorder):
    @tele("c")
    async def job():
        pass

    made = job()
    made.close()
    assert recorder.events == []


def test_a_cancelled_coroutine_is_cancelled(tele, recorder):
    @tele("c")
    async def job():
        await asyncio.sleep(60)

    async def main():
        task = asyncio.create_task(job())
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    run(main())
    assert recorder.only().metadata["error_type"] == "cancelled"


def test_coroutines_side_by_side_do_not_see_each_other(tele, recorder):
    @tele("job")
    async def job(n):
        for _ in range(n):
            with tele("step"):
                await asyncio.sleep(0)

    async def main():
        with tele("main"):
            await asyncio.gather(job(1), job(2), job(3))

    run(main())
    assert sorted(set(recorder.tree)) == [("main", None), ("main.job", "main"), ("main.job.step", "main.job")]
    assert len(recorder.timings) == 10


def test_a_decorated_generators_scope_is_current_only_while_it_runs(tele, recorder):
    @tele("g")
    def items():
        assert current_path(tele, recorder) == "main.g"
        yield 1
        with tele("inner"):
            yield 2
        assert current_path(tele, recorder) == "main.g"

    with tele("main"):
        got = items()
        assert current_path(tele, recorder) == "main"
        for _ in got:
            assert current_path(tele, recorder) == "main"
            with tele("body"):
                pass
    assert recorder.tree == [
        ("main.body", "main"), ("main.g.inner", "main.g"), ("main.body", "main"), ("main.g", "main"), ("main", None),
    ] or recorder.tree == [
        ("main.body", "main"), ("main.body", "main"), ("main.g.inner", "main.g"), ("main.g", "main"), ("main", None),
    ]  # fmt: skip


def test_a_decorated_generator_shares_all_other_context_variables_with_its_caller(tele):
    variable = contextvars.ContextVar("variable", default=0)

    @tele("g")
    def items():
        seen = [variable.get()]
        variable.set(1)
        yield
        seen.append(variable.get())
        yield seen

    got = items()
    next(got)
    assert variable.get() == 1
    variable.set(2)
    assert next(got) == [0, 2]
    got.close()


def test_a_decorated_generator_can_be_advanced_and_closed_anywhere(tele, recorder):
    @tele("g")
    def items():
        for _ in range(3):
            yield current_path(tele, recorder)

    for end in ("close", "exhaust"):
        got = items()
        with tele("first"):
            assert next(got) == "first.g"
        with tele("second"):
            assert contextvars.copy_context().run(next, got) == "first.g"
            assert current_path(tele, recorder) == "second"
        got.close() if end == "close" else contextvars.Context().run(list, got)
        assert current_path(tele, recorder) is None
    assert recorder.scopes.count("first.g") == 2


def test_an_undecorated_generators_scope_stays_current_for_the_code_that_advances_it(tele, recorder):
    def items():
        with tele("g"):
            yield 1

    got = items()
    next(got)
    assert current_path(tele, recorder) == "g"
    got.close()
    assert current_path(tele, recorder) is None


def test_a_generator_passes_send_throw_close_and_its_value(tele, recorder):
    closed = []

    @tele("g")
    def echo():
        try:
            got = yield "ready"
            while got != "stop":
                try:
                    got = yield got
                except KeyError as error:
                    got = yield f"caught {error}"
            return "value"
        finally:
            closed.append(True)

    def caller():
        return (yield from echo())

    g = caller()
    assert next(g) == "ready" and g.send(5) == 5 and g.throw(KeyError("k")) == "caught 'k'"
    with pytest.raises(StopIteration) as stopped:
        g.send("stop")
    assert stopped.value.value == "value" and closed == [True]
    g = echo()
    next(g)
    g.close()
    assert closed == [True, True]
    assert [list(e.metadata) for e in recorder.timings] == [TIMING_KEYS, TIMING_KEYS]


def test_a_generator_that_raises_fails_its_scope(tele, recorder):
    @tele("g")
    def broken():
        yield 1
        raise ValueError("mine")

    with pytest.raises(ValueError, match="mine"):
        list(broken())
    assert recorder.only().metadata["error_type"] == "ValueError"


def test_a_generator_that_is_dropped_closes_its_scope_without_failure(tele, recorder):
    @tele("g")
    def items():
        yield 1
        yield 2

    got = items()
    next(got)
    del got
    gc.collect()
    assert list(recorder.only().metadata) == TIMING_KEYS
    items()
    gc.collect()
    assert recorder.scopes == ["g"]


def test_generators_taken_in_turns_do_not_see_each_other(tele, recorder):
    def make(name):
        @tele(name)
        def items():
            for _ in range(3):
                assert current_path(tele, recorder) == f"main.{name}"
                yield

        return items()

    with tele("main"):
        for _ in zip(make("a"), make("b"), make("c")):
            assert current_path(tele, recorder) == "main"
    assert sorted(recorder.tree) == [("main", None), ("main.a", "main"), ("main.b", "main"), ("main.c", "main")]


def test_an_async_generator(tele, recorder):
    @tele("ag")
    async def items():
        assert current_path(tele, recorder) == "main.ag"
        yield 1
        await asyncio.sleep(0)
        assert current_path(tele, recorder) == "main.ag"
        yield 2

    async def main():
        with tele("main"):
            got = []
            async for item in items():
                assert current_path(tele, recorder) == "main"
                got.append(item)
            return got

    assert run(main()) == [1, 2]
    assert recorder.tree == [("main.ag", "main"), ("main", None)]


def test_an_async_generator_passes_asend_athrow_and_aclose(tele, recorder):
    @tele("ag")
    async def echo():
        got = yield "ready"
        while True:
            try:
                got = yield got
            except KeyError as error:
                got = yield f"caught {error}"

    async def main():
        g = echo()
        assert await g.__anext__() == "ready" and await g.asend(5) == 5
        assert await g.athrow(KeyError("k")) == "caught 'k'"
        await g.aclose()
        with pytest.raises(StopAsyncIteration):
            await g.__anext__()

    run(main())
    assert list(recorder.only().metadata) == TIMING_KEYS


def test_an_async_generator_that_raises_fails_its_scope(tele, recorder):
    @tele("ag")
    async def broken():
        yield 1
        raise ValueError("mine")

    async def main():
        async for _ in broken():
            pass

    with pytest.raises(ValueError, match="mine"):
        run(main())
    assert recorder.only().metadata["error_type"] == "ValueError"


@pytest.mark.parametrize("ending", ["aclose", "break"])
def test_an_async_generator_that_is_left_early(tele, recorder, ending):
    inner_closed = []

    @tele("ag")
    async def items():
        try:
            yield 1
            yield 2
        finally:
            inner_closed.append(True)

    async def main():
        g = items()
        async for _ in g:
            break
        if ending == "aclose":
            await g.aclose()
        del g
        gc.collect()
        await asyncio.sleep(0.01)
        assert current_path(tele, recorder) is None

    run(main())
    assert inner_closed == [True] and list(recorder.only().metadata) == TIMING_KEYS


def test_a_partial_and_a_callable_object_can_be_decorated(tele, recorder):
    class Callable:
        def __call__(self, x):
            return x + 1

    assert tele("a")(functools.partial(max, 3))(5) == 5
    assert tele("b")(Callable())(1) == 2
    assert tele("c")(len)("four") == 4
    assert recorder.scopes == ["a", "b", "c"]


def test_one_scope_object_decorates_many_functions(tele, recorder):
    scope = tele("shared")
    one, two = scope(lambda: two()), scope(lambda: 5)
    assert one() == 5
    assert recorder.scopes == ["shared.shared", "shared"]


def test_a_decorated_function_serves_threads_at_once(tele, recorder):
    @tele("f")
    def work(n):
        with tele("inner"):
            return n

    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        assert list(pool.map(work, range(200))) == list(range(200))
    assert sorted(set(recorder.tree)) == [("f", None), ("f.inner", "f")] and len(recorder.timings) == 400


@pytest.mark.parametrize("kind", KINDS, ids=lambda f: f.__name__)
def test_decorators_stack(tele, recorder, kind):
    assert KINDS[kind](tele("outer")(tele("inner")(kind)))


def test_a_switched_off_context_still_runs_the_function(tele, recorder):
    @tele("f")
    def function():
        return 5

    tele.set_enabled(False)
    assert function() == 5 and recorder.events == []
    tele.set_enabled(True)
    assert function() == 5 and recorder.scopes == ["f"]


def test_contextlib_and_wraps_go_together_with_a_decorator(tele, recorder):
    @contextlib.contextmanager
    @tele("manager")
    def manager():
        yield 5

    with manager() as value:
        assert value == 5 and current_path(tele, recorder) is None
    assert recorder.scopes == ["manager"]


def test_the_disabled_scope_is_no_obstacle_for_copying_and_pickling_a_function():
    off = kastor.TelemetryContext()
    assert pickle.loads(pickle.dumps(off("a")(plain))) is plain


@pytest.mark.parametrize("make", [lambda: kastor.enable(), lambda: kastor.TelemetryContext()], ids=["on", "off"])
def test_above_classmethod_and_staticmethod(make):
    tele = make()

    class Thing:
        @tele("of.class")
        @classmethod
        def of_class(cls):
            return cls

        @tele("of.nobody")
        @staticmethod
        def of_nobody():
            return 7

    assert (Thing.of_class(), Thing().of_class(), Thing.of_nobody()) == (Thing, Thing, 7)


def test_above_a_property_is_refused_while_it_is_on_and_nothing_while_it_is_off():
    made = property(lambda self: 7)
    with pytest.raises(TypeError, match="below the decorator that makes the property"):
        kastor.enable()("a")(made)
    assert kastor.DISABLED("a")(made) is made


def test_a_generator_based_coroutine_can_be_awaited():
    @types.coroutine
    def steps():
        yield
        return 7

    tele = kastor.enable()
    decorated = tele("steps")(steps)

    async def main():
        return await decorated()

    assert run(main()) == 7
    assert tele.report().scope("steps")["calls"] == 1


@pytest.mark.parametrize("is_decorated", [False, True])
def test_a_generator_exit_that_is_thrown_in_is_the_bodys_to_answer(is_decorated):
    def body():
        try:
            yield 1
        except GeneratorExit:
            yield 2

    function = kastor.enable()("body")(body) if is_decorated else body
    generator = function()
    assert (next(generator), generator.throw(GeneratorExit())) == (1, 2)


def test_the_end_of_the_loop_closes_decorated_asynchronous_generators_without_a_word():
    quiet("""
        import asyncio, kastor
        tele = kastor.enable()
        @tele("items")
        async def items():
            try:
                for number in range(10): yield number
            finally:
                await asyncio.sleep(0.01)
        async def main():
            global kept
            kept = [items() for _ in range(3)]
            assert [await one.__anext__() for one in kept] == [0] * 3
        asyncio.run(main())
        scope = tele.report().scope("items")
        assert (scope["calls"], scope["errors"]) == (3, 0), scope
        """)


@pytest.mark.parametrize("kind", ["def", "async def"])
def test_an_interruption_leaves_the_callers_stack_as_it_was(kind):
    quiet(
        f"""
        import asyncio, signal, kastor
        from kastor._native import _stack
        class Stop(BaseException): pass
        def handler(*_): raise Stop
        signal.signal(signal.SIGALRM, handler)
        tele = kastor.enable()
        @tele("rows")
        {kind} rows():
            while True: yield 1
        async def advance_async():
            async for _ in rows(): pass
        def advance():
            for _ in rows(): pass
        for number in range(400):
            with tele("outer"):
                try:
                    signal.setitimer(signal.ITIMER_REAL, 0.00002 + number % 97 * 0.000003)
                    if {kind!r} == "def": advance()
                    else: advance_async().send(None)
                except Stop: pass
                signal.setitimer(signal.ITIMER_REAL, 0)
                assert _stack() == [("outer", 0)], _stack()
        """,
        # A step that was interrupted before it was awaited.
        options=("-W", "error", "-W", "ignore::RuntimeWarning"),
    )
