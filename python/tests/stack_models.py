"""Two models of what the scope stack has to be, and random histories in which it is compared with them.

`Stacks` is the reference: one list per context, no chains, no marks on cells. `FLOW` is a second one for asyncio programs: an
immutable tuple in a context variable of its own, so that CPython itself takes the snapshots.

    python stack_models.py all 1000000 7        a million operations of each kind, seed 7; then the limits
"""

import asyncio
import contextlib
import contextvars
import gc
import random
import sys
import threading
import time
import tracemalloc

import kastor
from kastor._native import _stack


class Uninterested:
    """Makes the context keep names beyond what records keep."""

    def record_metric(self, scope, value, **metadata):
        pass


tele = kastor.enable(Uninterested())
NAMES = [f"s{i}" for i in range(1000)]
OTHERS = [contextvars.ContextVar(f"other{i}") for i in range(40)]


def path():
    return [name for name, _ in _stack()]


def is_here(names):
    return path() == names


def current():
    stack = _stack()
    return stack[-1] if stack else None


def unfinished():
    """Scopes that ended because nobody could leave them any more; this file fails none otherwise."""
    return sum(scope["errors"] for scope in tele.report().as_dict()["scopes"])


class Stacks:
    """The semantics. A context is named by its id(), as in the native code; `serial` is what really tells them apart."""

    class Scope:
        def __init__(self, name, serial, address, depth):
            self.name, self.opened, self.address, self.depth = name, serial, address, depth
            self.over, self.left, self.leaked = False, None, False

    def __init__(self):
        self.lists = {}

    def counting(self, serial):
        return [scope for scope in self.lists[serial] if not scope.over]

    def open(self, serial, address, name):
        below = self.counting(serial)
        scope = self.Scope(name, serial, address, below[-1].depth + 1 if below else 0)
        self.lists[serial] = below + [scope]
        return scope

    def leave(self, serial, address, scope):
        here, scope.left = self.counting(serial), serial
        if scope.address == address and scope in here and len(here) - here.index(scope) - 1 <= 64:
            here.remove(scope)  # POP: out of this list only
            self.lists[serial] = here
        else:
            scope.over = True  # OVER: out of all lists


class Box:
    """A context under test, or None for the thread's own."""

    made = 0

    def __init__(self, context):
        Box.made += 1
        self.serial, self.context = Box.made, context
        self.run = context.run if context is not None else lambda f, *args: f(*args)
        self.address = id(context)


def generator(name):
    try:
        with tele(name):
            yield 1
            yield 2
    except KeyError:
        pass


class Fuzz:
    """Random operations on explicit contexts; after each the stacks are compared with the model's."""

    def __init__(self, seed):
        self.seed, self.rng, self.model = seed, random.Random(seed), Stacks()
        self.boxes, self.opened, self.generators = [], [], []
        self.checks, self.reused, self.addresses = 0, 0, set()
        self.begin(None)

    def begin(self, first):
        self.add(first)
        for _ in range(6):
            self.add(contextvars.Context())

    def add(self, context, stack=()):
        box = Box(context)
        self.reused += box.address in self.addresses
        self.addresses.add(box.address)
        self.model.lists[box.serial] = list(stack)
        self.boxes.append(box)
        return box

    def drop_one(self):
        dead = self.boxes.pop(self.rng.randrange(1, len(self.boxes) - 1))
        del self.model.lists[dead.serial]

    def check(self, box):
        self.checks += 1
        got = box.run(path)
        while len(want := self.model.counting(box.serial)) > len(got) and want[-1].leaked:
            want[-1].over = True  # a lost one may end as soon as it is on top, and only then
        assert got == [scope.name for scope in want], (self.seed, self.checks)
        top = box.run(current)
        assert top == ((want[-1].name, want[-1].depth) if want else None), (self.seed, self.checks)
        for scope in want:  # the promise, stated apart from the model: no ghost where it was opened, none where it was left
            assert scope.left is None or box.serial not in (scope.opened, scope.left), (self.seed, self.checks)

    def way_in(self, box):
        """How to run something in the context of a box: straight, through another one, or on another thread."""
        how = self.rng.random()
        if how < 0.05:
            outer = self.rng.choice(self.boxes)
            if outer is not box and None not in (outer.context, box.context):
                return lambda f, *args: outer.run(box.run, f, *args)
        elif how < 0.051 and box.context is not None:

            def on_thread(f, *args):
                def quiet():
                    with contextlib.suppress(StopIteration):
                        box.run(f, *args)

                thread = threading.Thread(target=quiet)
                thread.start()
                thread.join()

            return on_thread
        return box.run

    def step(self, number):
        rng = self.rng
        box, limit = rng.choice(self.boxes), rng.choice((4, 12, 80))
        run = self.way_in(box)
        self.check(box)
        what = rng.random()
        name = NAMES[number % 1000]
        if what < 0.34 and len(self.opened) < limit:
            scope = tele(name, key=number) if number & 1 else tele(name)
            run(scope.__enter__)
            self.opened.append((scope, self.model.open(box.serial, box.address, name), box))
        elif what < 0.62 and self.opened:
            box = self.leave_one(box, run)
        elif what < 0.78:  # a copy takes the place of another context, which dies; its address is reused soon
            box = self.copy_one(box, number)
        elif what < 0.80:
            box = self.add(contextvars.Context())
            self.drop_one()
        elif what < 0.88:
            box.run(rng.choice(OTHERS).set, number)
        elif what < 0.89 and len(self.opened) > 3:
            self.opened.pop(rng.randrange(len(self.opened)))[1].leaked = True
        elif what < 0.95 and len(self.generators) < 6:
            made = generator(name)
            run(next, made)
            self.generators.append((made, self.model.open(box.serial, box.address, name)))
        elif self.generators:
            self.end_generator(box, run)
        self.check(box)
        self.check(rng.choice(self.boxes))

    def leave_one(self, box, run):
        rng, kind = self.rng, self.rng.random()
        at = len(self.opened) - 1 if kind < 0.5 else rng.randrange(len(self.opened))
        scope, twin, home = self.opened.pop(at)
        if kind < 0.8 and home in self.boxes:
            box, run = home, home.run
            self.check(box)
        run(scope.__exit__, None, None, None)
        self.model.leave(box.serial, box.address, twin)
        return box

    def copy_one(self, box, number):
        by_copy_context = number & 1 or box.context is None
        copied = box.run(contextvars.copy_context) if by_copy_context else box.context.copy()
        copy = self.add(copied, self.model.counting(box.serial))
        if len(self.boxes) > 8:
            self.drop_one()
        return copy

    def end_generator(self, box, run):
        ended, twin = self.generators.pop(self.rng.randrange(len(self.generators)))
        kind = self.rng.randrange(4)
        if kind == 0:
            run(ended.close)
        elif kind == 1:
            with contextlib.suppress(StopIteration):
                run(ended.throw, KeyError)
        elif kind == 2:
            run(next, ended)
            run(next, ended, None)
        else:
            holder = [ended]
            del ended
            run(holder.clear)
        self.model.leave(box.serial, box.address, twin)

    def forget(self):
        """Forgets everything leaked, so that stacks stay short."""
        self.boxes.clear()
        self.opened.clear()
        self.generators.clear()
        self.model.lists.clear()
        self.begin(contextvars.Context())


def fuzz(operations, seed):
    history = Fuzz(seed)
    for number in range(operations):
        history.step(number)
        if number % 20_000 == 19_999:
            history.forget()
    return history.checks, history.reused


FLOW = contextvars.ContextVar("reference", default=())


class Both:
    """One scope on the stack under test and in the reference."""

    def __init__(self, program):
        self.program, self.name, self.over = program, program.next_name(), False

    def __enter__(self):
        self.scope = self.program.tele(self.name)
        self.scope.__enter__()
        self.token = FLOW.set((*FLOW.get(), self))

    def __exit__(self, *error):
        self.scope.__exit__(*error)
        here = [scope for scope in FLOW.get() if not scope.over]
        try:
            FLOW.reset(self.token)  # raises if this is not the context that opened it
            self.over = here.index(self) < len(here) - 65
            here.remove(self)
            FLOW.set(tuple(here))
        except ValueError:
            self.over = True
        self.program.agree()


class Programs:
    """Random asyncio programs on a context; `is_here(names)` says whether its stack is these scopes, outermost first."""

    def __init__(self, seed, tele, is_here, names):
        self.rng, self.tele, self.is_here, self.names = random.Random(seed), tele, is_here, names
        self.opened, self.checks, self.shared, self.tasks, self.errors = 0, 0, [], set(), []

    def next_name(self):
        self.opened += 1
        return self.names[self.opened % len(self.names)]

    def agree(self):
        self.checks += 1
        want = [scope.name for scope in FLOW.get() if not scope.over]
        assert self.is_here(want), want

    async def stepping(self):
        with Both(self):
            for _ in range(3):
                self.agree()
                await asyncio.sleep(0)
                yield

    def resumed(self):
        with Both(self):
            self.agree()
            yield
            self.agree()
            yield

    def spawn(self, coroutine):
        task = asyncio.create_task(coroutine)
        self.tasks.add(task)

        def done(task):
            self.tasks.discard(task)
            if not task.cancelled() and task.exception() and not isinstance(task.exception(), KeyError):
                self.errors.append(task.exception())

        task.add_done_callback(done)
        return task

    async def body(self, depth):
        for _ in range(self.rng.randrange(1, 5)):
            self.agree()
            await self.one(self.rng.randrange(13), depth)
            self.agree()
            await asyncio.sleep(0)

    async def one(self, what, depth):
        rng = self.rng
        if what < 3 and depth < 5:
            with Both(self):
                await self.body(depth + 1)
        elif what == 3 and depth < 5:
            self.spawn(self.body(depth + 1))
        elif what == 4 and depth < 5:
            await asyncio.wait([self.spawn(self.body(depth + 1))])
        elif what == 5:
            async for _ in self.stepping():
                self.agree()
                if rng.random() < 0.5:
                    break
        elif what == 6 and len(self.shared) < 20:
            self.shared.append(self.resumed())
            next(self.shared[-1])
        elif what == 7 and self.shared:
            ended = self.shared.pop(rng.randrange(len(self.shared)))
            with contextlib.suppress(StopIteration):
                rng.choice((ended.close, lambda: next(ended), lambda: None))()
            ended = None
        elif what == 8 and rng.random() < 0.05:
            await asyncio.to_thread(self.agree)
        elif what == 9:
            asyncio.get_running_loop().call_soon(self.agree)
        elif what == 10 and self.tasks and rng.random() < 0.2:
            rng.choice(sorted(self.tasks, key=id)).cancel()
        elif what == 11:
            contextvars.copy_context().run(lambda both: [both.__enter__(), self.agree()], Both(self))
        elif what == 12 and rng.random() < 0.2:
            with Both(self):
                raise KeyError

    async def until(self, checks):
        while self.checks < checks:
            with contextlib.suppress(KeyError, asyncio.CancelledError):
                with Both(self):
                    await self.body(0)
            while self.tasks and self.rng.random() < 0.7:
                await asyncio.sleep(0)
            self.agree()

    def run(self, operations):
        loop = asyncio.new_event_loop()

        def note(loop, context):
            if isinstance(context.get("exception"), AssertionError):
                self.errors.append(context["exception"])

        loop.set_exception_handler(note)
        while self.checks < operations:  # a fresh context now and then: what leaks into it would make stacks ever longer
            main = self.until(self.checks + 5000)
            loop.run_until_complete(loop.create_task(main, context=contextvars.Context()))
        for task in list(self.tasks):
            task.cancel()
        while self.shared:  # what is suspended ends here, and not in the context in which the collector happens to come
            self.shared.pop().close()
        loop.run_until_complete(asyncio.sleep(0.01))
        loop.run_until_complete(loop.shutdown_asyncgens())
        loop.run_until_complete(loop.shutdown_default_executor())
        loop.close()
        gc.collect()
        assert not [error for error in self.errors if isinstance(error, AssertionError)], self.errors[:3]
        return self.checks


def deep(count):
    """Opens and leaves so many levels on a stack of 256 KiB; returns ns per level for each order of leaving."""
    out, before = {}, unfinished()

    def body():
        for order in ("last first", "first first", "random", "by the context's death"):
            scopes = [tele("deep") for _ in range(count)]
            start = time.perf_counter()
            for scope in scopes:
                scope.__enter__()
            if order == "first first":
                scopes.reverse()
            if order == "random":
                random.Random(1).shuffle(scopes)
            if not order.startswith("by"):
                while scopes:
                    scopes.pop().__exit__(None, None, None)
                assert path() == []
            scopes.clear()
            out[order] = round((time.perf_counter() - start) / count * 1e9)

    def run():
        contextvars.Context().run(body)
        gc.collect()  # the tokens of the outermost levels hold the context, so the collector frees the last chain
        out["checked"] = unfinished() == before + count

    threading.stack_size(1 << 18)
    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    threading.stack_size(0)
    assert out.pop("checked")
    return out


def bytes_per_level(make):
    def body():
        hold, scopes = [None] * 2000, []
        for _ in range(100):
            scope = tele("m")
            scope.__enter__()
            scopes.append(scope)
        tracemalloc.start()
        before = tracemalloc.get_traced_memory()[0]
        for at in range(2000):
            hold[at] = make()
            hold[at].__enter__()
        used = tracemalloc.get_traced_memory()[0] - before
        tracemalloc.stop()
        for scope in reversed(scopes + hold):
            scope.__exit__(None, None, None)
        return round(used / 2000)

    return contextvars.Context().run(body)


if __name__ == "__main__":
    kind = sys.argv[1] if sys.argv[1:] else "all"
    operations = int(sys.argv[2]) if sys.argv[2:] else 200_000
    seed = int(sys.argv[3]) if sys.argv[3:] else 1
    print(sys.version.split()[0], kind)
    if kind in ("histories", "all"):
        print("  explicit contexts: checks, addresses reused", contextvars.Context().run(fuzz, operations, seed))
    if kind in ("programs", "all"):
        print("  asyncio programs: checks", contextvars.Context().run(Programs(seed, tele, is_here, NAMES).run, operations))
    if kind in ("limits", "all"):
        print("  ns per level", deep(1_000_000))
        print("  bytes per level", bytes_per_level(lambda: tele("m")), bytes_per_level(lambda: tele("m", a=1, b=2)))
