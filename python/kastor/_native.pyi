"""The native part of kastor. Programs import these names from `kastor`."""

from collections.abc import Callable, Iterable, Sequence
from os import PathLike
from types import TracebackType
from typing import Any, Final, TypeVar, final

from typing_extensions import disjoint_base

__all__ = [
    "Capture",
    "Carried",
    "Chrome",
    "Context",
    "DISABLED",
    "DisabledContext",
    "Flushed",
    "Folded",
    "JsonLines",
    "LogReporter",
    "MockClock",
    "OpenScope",
    "Otlp",
    "Perfetto",
    "Prometheus",
    "Recording",
    "Report",
    "Scope",
    "SimpleReporter",
    "Statsd",
    "TelemetryContext",
    "_FREE_THREADED",
    "_Flow",
    "_after_fork_in_child",
    "_after_fork_in_parent",
    "_at_exit",
    "_before_fork",
    "_copy",
    "_finalize_worker",
    "_stack",
    "_swap",
    "attach",
    "carry",
    "cli",
    "context_from_environment",
    "current_traceparent",
    "enable",
    "prometheus_text",
]

_Function = TypeVar("_Function", bound=Callable[..., Any])

DISABLED: Final[DisabledContext]
"""The one disabled context."""

def enable(
    *reporters: object,
    strict: bool | None = None,
    interval: float = 10.0,
    queue_bytes: int | None = None,
    exit_flush: float | None = None,
    capture_repr: bool = False,
    clock: MockClock | None = None,
    sample: float = 1.0,
    sample_parent: bool = True,
    overhead_budget: float | None = None,
) -> Context:
    """Makes an enabled context, whatever the environment says. Without a reporter it still adds up.

    `strict`: whether names must have the recommended form; by default `KASTOR_TELEMETRY_STRICT_SCOPES=1` decides.
    `interval`: seconds between the aggregates that background reporters get. `queue_bytes`: bound on what waits for them,
    16 MiB by default. `exit_flush`: seconds that the end of the process may wait for them, 1 by default. `capture_repr`:
    whether values that are not copied are kept as their `repr`. `clock`: for tests.

    `sample`: the share of all traces that `Otlp` and `JsonLines` export, from 0 to 1, decided by the trace id; every trace by
    default. Sums and other reporters get everything. `sample_parent`: whether under a parent from elsewhere its decision holds instead.
    `overhead_budget`: what the scopes of one path may cost, as a share of one processor above 0 and up to 1; what costs more is
    added up only, then switched off, and restored when it is calm (`stats()["degraded"]`). None by default.

    A share that is none is a ValueError.
    """

def TelemetryContext(*reporters: object) -> Context | DisabledContext:
    """An enabled context if `KASTOR_TELEMETRY` or `DEBUG` is `1`, `KASTOR_TELEMETRY` is not `0`, and there is a reporter;
    otherwise the disabled one. The environment is read at the call. `KASTOR_CAPTURE` names a folder for a capture that an
    enabled one gets besides."""

def context_from_environment(prefixes: list[str], reporters: Iterable[object]) -> Context | DisabledContext:
    """`TelemetryContext` for variables that begin with any of the prefixes."""

def attach(traceparent: str | None) -> Scope:
    """Makes a remote scope the parent of what is opened inside a `with` block. Text that is no W3C `traceparent` is ignored."""

def carry(function: _Function) -> _Function:
    """A function that runs under the scope that is current now, on whatever thread."""

def current_traceparent() -> str | None:
    """The W3C `traceparent` of the current scope; None outside of any."""

def cli() -> int:
    """Runs the command `kastor` with `sys.argv`; gives its exit code."""

@final
class Context:
    """An enabled context: `with tele("name", key=value): ...`. A copy of it is the context itself."""

    def __copy__(self) -> Context: ...
    def __deepcopy__(self, memo: Any, /) -> Context: ...
    @property
    def is_enabled(self) -> bool:
        """Whether events are taken at the moment."""

    def __call__(self, name: str, /, **metadata: Any) -> Scope:
        """A scope, to be entered with `with`, or to decorate a function with."""

    def time(self, name: str, /, **metadata: Any) -> Scope:
        """A scope; the same as calling the context."""

    def metric(self, name: str, /, value: Any, **metadata: Any) -> None:
        """Records an event under the current scope. Any value may be given; it is not added up."""

    def count(self, name: str, /, increment: float = 1, **labels: Any) -> None:
        """Adds to a counter under the current scope."""

    def gauge(self, name: str, /, value: float, **labels: Any) -> None:
        """Sets a gauge under the current scope."""

    def histogram(self, name: str, /, value: float, **labels: Any) -> None:
        """Adds a value to a distribution under the current scope."""

    def describe(self, name: str, unit: str = "", help: str = "") -> None:
        """Sets unit and help text of all metrics of a name."""

    def set(self, /, **attributes: Any) -> None:
        """Sets attributes of the innermost open scope of this context; the last value of a key counts."""

    def event(self, name: str, /, **attributes: Any) -> None:
        """Adds a point event to the innermost open scope of this context."""

    def link(self, traceparent: str) -> None:
        """Adds a link to another scope to the innermost open scope of this context. What is no `traceparent` is left out."""

    def fail(self, error: BaseException | type[BaseException] | str) -> None:
        """Marks the innermost open scope of this context as failed."""

    def discard(self) -> None:
        """Lets the innermost open scope of this context close without an event."""

    def attach(self, traceparent: str | None) -> Scope:
        """Makes a remote scope the parent of what is opened inside a `with` block."""

    def carry(self, function: _Function) -> _Function:
        """A function that runs under the scope that is current now, on whatever thread."""

    def set_enabled(self, is_enabled: bool) -> None:
        """Switches the context off, or on again. Scopes that are open still close, without an event."""

    def switch_scopes(self, pattern: str, is_on: bool) -> None:
        """Switches scopes by a pattern over their names (`*`, `?`). One that is off is in no path, depth or parent."""

    def record_paths(self, pattern: str, is_recorded: bool) -> None:
        """Chooses by a pattern over paths what reporters get; the rest is aggregated alone."""

    def flush(self, timeout: float = 5.0) -> Flushed:
        """Brings what was emitted before the call to every reporter, or says after `timeout` seconds what is pending."""

    def persist(self, timeout: float = 5.0) -> Flushed:
        """Makes durable what was emitted before the call, where a reporter can; that it is delivered is not waited for."""

    def shutdown(self, timeout: float = 5.0) -> Flushed:
        """Flushes, and disables the context for ever; what comes later is dropped and counted."""

    def stats(self) -> dict[str, Any]:
        """What was emitted, and for every reporter what was delivered, dropped and why, queued and spooled; `degraded` has
        the paths beyond the overhead budget, as dicts of `path`, `is_off`, `calls_per_second`, `share` (of a processor)."""

    def report(self) -> Report:
        """The exact aggregates of everything that closed so far."""

    def open_scopes(self) -> list[OpenScope]:
        """The scopes that are open now, of any context, thread and task, longest first."""

    def reporters(self) -> list[Any]:
        """The reporters that the context was made with."""

@final
class DisabledContext:
    """The disabled context: the same interface, and nothing behind it. It is its own scope."""

    is_enabled: bool
    def __copy__(self) -> DisabledContext: ...
    def __deepcopy__(self, memo: Any, /) -> DisabledContext: ...
    def __call__(self, name: Any, /, **metadata: Any) -> Any:
        """Called with a function, as a decorator, it gives the function; otherwise itself."""

    def __enter__(self) -> DisabledContext: ...
    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None, /
    ) -> None: ...
    def time(self, name: Any, /, **metadata: Any) -> DisabledContext:
        """The context itself."""

    def metric(self, *arguments: Any, **metadata: Any) -> None:
        """Does nothing."""

    def count(self, *arguments: Any, **labels: Any) -> None:
        """Does nothing."""

    def gauge(self, *arguments: Any, **labels: Any) -> None:
        """Does nothing."""

    def histogram(self, *arguments: Any, **labels: Any) -> None:
        """Does nothing."""

    def describe(self, *arguments: Any, **options: Any) -> None:
        """Does nothing."""

    def set(self, *arguments: Any, **attributes: Any) -> None:
        """Does nothing."""

    def event(self, *arguments: Any, **attributes: Any) -> None:
        """Does nothing."""

    def link(self, *arguments: Any, **options: Any) -> None:
        """Does nothing."""

    def fail(self, *arguments: Any, **options: Any) -> None:
        """Does nothing."""

    def discard(self, *arguments: Any, **options: Any) -> None:
        """Does nothing."""

    def attach(self, traceparent: Any, /) -> DisabledContext:
        """The context itself."""

    def carry(self, function: _Function, /) -> _Function:
        """The function."""

    def set_enabled(self, is_enabled: bool) -> None:
        """Does nothing: this context is disabled for ever."""

    def switch_scopes(self, pattern: str, is_on: bool) -> None:
        """Does nothing."""

    def record_paths(self, pattern: str, is_recorded: bool) -> None:
        """Does nothing."""

    def flush(self, timeout: float = 5.0) -> Flushed:
        """Nothing is pending."""

    def persist(self, timeout: float = 5.0) -> Flushed:
        """Nothing is pending."""

    def shutdown(self, timeout: float = 5.0) -> Flushed:
        """Nothing is pending."""

    def stats(self) -> dict[str, Any]:
        """Accounts of nothing."""

    def report(self) -> Report:
        """An empty report."""

    def open_scopes(self) -> list[OpenScope]:
        """The scopes that are open now, of any other context."""

    def reporters(self) -> list[Any]:
        """None."""

@final
class Scope:
    """A scope: enter it with `with`, or decorate a function with it."""

    def __enter__(self) -> Context:
        """Opens the scope: a ValueError if its name is not valid, a RuntimeError if it is open already."""

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None, /
    ) -> None:
        """Closes the scope. It raises nothing and holds back no exception; a second time it does nothing."""

    def __call__(self, function: _Function, /) -> _Function:
        """The function, with every call inside a scope of its own like this one."""

    def set(self, /, **attributes: Any) -> None:
        """Sets attributes; the last value of a key counts."""

    def event(self, name: str, /, **attributes: Any) -> None:
        """Adds a point event."""

    def link(self, traceparent: str) -> None:
        """Adds a link to another scope, by its traceparent. What is no traceparent is left out."""

    def fail(self, error: BaseException | type[BaseException] | str) -> None:
        """Marks the scope as failed: by an exception, its class, or a text."""

    def discard(self) -> None:
        """Lets the scope close without an event."""

    def traceparent(self) -> str | None:
        """The scope's traceparent while it is open, for another process; None before and after."""

@final
class Flushed:
    """The outcome of `flush` and `shutdown`: true if nothing is pending."""

    @property
    def is_complete(self) -> bool:
        """Whether nothing is pending."""

    @property
    def pending(self) -> int:
        """Events that are pending, of all reporters."""

    @property
    def reporters(self) -> list[tuple[str, int, int]]:
        """Background reporters as (name, events that are pending, events that it did not get so far)."""

    def __bool__(self) -> bool: ...

@final
class OpenScope:
    """A scope that has not closed yet."""

    @property
    def scope(self) -> str:
        """The full path."""

    @property
    def thread(self) -> str:
        """Name of the thread it was opened on; empty if that has ended."""

    @property
    def thread_id(self) -> int:
        """The operating system's number of that thread."""

    @property
    def open_for(self) -> float:
        """How long it has been open, in seconds."""

@final
class Report:
    """What a context has aggregated up to one moment. It prints as tables, and shows itself in notebooks."""

    @property
    def text(self) -> str:
        """Tables of the call tree and of the metrics."""

    def as_dict(self) -> dict[str, Any]:
        """`{"scopes": [...], "metrics": [...]}`; durations in seconds, as the keys say. With `"degraded"`, as in `stats()`,
        if a path is beyond the overhead budget."""

    def scope(self, path: str) -> dict[str, Any] | None:
        """The figures of the scopes of one path, as in `as_dict`; None if none closed under it."""

    def metric(self, path: str) -> dict[str, Any] | None:
        """The figures of the first series of one metric, as in `as_dict`; None if there is none."""

    def to_json(self) -> str:
        """The same as JSON text."""

    def _repr_html_(self) -> str: ...

@final
class MockClock:
    """Time that stands still until it is moved: `enable(..., clock=clock)`."""

    def __new__(cls) -> MockClock: ...
    def advance(self, seconds: float) -> None:
        """Moves monotonic and wall-clock time ahead by so many seconds."""

@disjoint_base
class SimpleReporter:
    """Keeps the newest entries of every path in memory, and sums over all of them."""

    def __new__(cls, max_entries_per_scope: int = 1000) -> SimpleReporter: ...
    def record_timing(self, scope: str, duration: float, /, **metadata: Any) -> None:
        """Keeps a timing that was measured elsewhere; `duration` in seconds."""

    def record_metric(self, scope: str, value: Any, /, **metadata: Any) -> None:
        """Keeps a metric that was recorded elsewhere."""

    def get_report(self) -> str:
        """A text for people: the tree of the timings, then the metrics, over everything since the last reset."""

    def print_report(self) -> None:
        """Prints the report; nothing if nothing was recorded."""

    def as_dict(self) -> dict[str, Any]:
        """`{"timings": {path: [(duration, metadata)]}, "metrics": {path: [(value, metadata)]}}`: copies, safe for JSON."""

    def to_json(self) -> str:
        """The same as JSON text."""

    def reset(self) -> None:
        """Forgets everything, sums included."""

@final
class LogReporter:
    """Writes every event to the logger `kastor.events`, at level `DEBUG`, and at `WARNING` for a scope that failed."""

    def __new__(cls) -> LogReporter: ...
    def record_timing(self, scope: str, duration: float, /, **metadata: Any) -> None:
        """Writes a timing that was measured elsewhere; `duration` in seconds."""

    def record_metric(self, scope: str, value: Any, /, **metadata: Any) -> None:
        """Writes a metric that was recorded elsewhere."""

@final
class Recording:
    """Keeps up to `max_bytes` of records. It runs in the background: flush the context before reading."""

    def __new__(cls, max_bytes: int = ...) -> Recording: ...
    def __len__(self) -> int: ...
    def __bool__(self) -> bool: ...
    @property
    def bytes(self) -> int:
        """Bytes of records kept."""

    @property
    def dropped(self) -> int:
        """Events that found no room."""

    def clear(self) -> None:
        """Forgets everything."""

    def timings(self) -> list[dict[str, Any]]:
        """The scopes that closed, one dict each, thread by thread."""

    def metrics(self) -> list[dict[str, Any]]:
        """The plain metrics, one dict each, thread by thread."""

    def record_timing(self, scope: str, duration: float, /, **metadata: Any) -> None:
        """Keeps a timing that was measured elsewhere; `duration` in seconds."""

    def record_metric(self, scope: str, value: Any, /, **metadata: Any) -> None:
        """Keeps a metric that was recorded elsewhere."""

# The exporters hide what is secret: `redact_keys` hides further keys, `allow_keys` shows some, `redact=False` shows all.

@final
class Capture:
    """Writes a capture: one file if `path` ends in `.kcap`, else a folder with a file for each process.

    `max_file_bytes`: of a file before the next (256 MiB). `max_files`: that a process keeps (16). `max_folder_bytes`: of all
    processes together (8 GiB). `zstd`: compresses, at a level from 1 to 19. `durable_on_flush`, `durable_every` (seconds):
    when it survives the end of the machine, too.
    """

    def __new__(
        cls,
        path: str | PathLike[str],
        *,
        max_file_bytes: int | None = None,
        max_files: int | None = None,
        max_folder_bytes: int | None = None,
        zstd: int | None = None,
        durable_on_flush: bool = False,
        durable_every: float | None = None,
        redact: bool = True,
        redact_keys: Sequence[str] = ...,
        allow_keys: Sequence[str] = ...,
    ) -> Capture: ...
    @property
    def path(self) -> str:
        """Where it was asked to be: a file or a folder."""

    def files(self) -> list[str]:
        """The files that this process wrote and kept, the newest last."""

    def last_error(self) -> str | None:
        """The newest failure in this process, in words."""

    def record_timing(self, scope: str, duration: float, /, **metadata: Any) -> None:
        """Writes a timing that was measured elsewhere; `duration` in seconds."""

    def record_metric(self, scope: str, value: Any, /, **metadata: Any) -> None:
        """Writes a metric that was recorded elsewhere."""

@final
class Chrome:
    """Writes a trace in Chrome's JSON, to a file that is made or emptied. Flush the context before reading it.

    `max_bytes`: of the file (1 GiB); what comes later is dropped and counted. `ids`: whether scopes show trace id and span id.
    """

    def __new__(
        cls,
        path: str | PathLike[str],
        *,
        max_bytes: int | None = None,
        ids: bool = False,
        process_name: str | None = None,
        redact: bool = True,
        redact_keys: Sequence[str] = ...,
        allow_keys: Sequence[str] = ...,
    ) -> Chrome: ...
    def record_timing(self, scope: str, duration: float, /, **metadata: Any) -> None:
        """Writes a timing that was measured elsewhere; `duration` in seconds."""

    def record_metric(self, scope: str, value: Any, /, **metadata: Any) -> None:
        """Writes a metric that was recorded elsewhere."""

@final
class Folded:
    """Keeps a file of folded stacks up to date, for flame graphs: it is replaced at every interval and flush. It takes
    sums, and no single events. `unit`: `ns` or `us`."""

    def __new__(cls, path: str | PathLike[str], *, unit: str = "ns") -> Folded: ...
@final
class JsonLines:
    """Appends scopes as spans, and sums as metrics, to a file: OTLP's JSON, one request a line.

    `max_file_bytes`: of a file before a new one is begun, without a bound by default; `old_files` older ones are kept.
    `resource`: attributes of everything. `duration_unit`: `s` or `ns`.
    """

    def __new__(
        cls,
        path: str | PathLike[str],
        *,
        max_file_bytes: int | None = None,
        old_files: int = 3,
        service_name: str | None = None,
        resource: dict[str, str] | None = None,
        duration_unit: str = "s",
        redact: bool = True,
        redact_keys: Sequence[str] = ...,
        allow_keys: Sequence[str] = ...,
    ) -> JsonLines: ...
    def record_timing(self, scope: str, duration: float, /, **metadata: Any) -> None:
        """Writes a timing that was measured elsewhere; `duration` in seconds."""

    def record_metric(self, scope: str, value: Any, /, **metadata: Any) -> None:
        """Writes a metric that was recorded elsewhere."""

@final
class Otlp:
    """Sends scopes as spans, and sums as metrics, to an OpenTelemetry collector.

    Without an `endpoint` the variables `OTEL_*` decide, and the arguments that are given win over them; with one they are not
    read. `protocol`: `http/protobuf` or `http/json`. `compression`: `none`, `gzip` or `zstd`. `timeout`: seconds of an attempt
    (10). `traces=False`, `metrics=False`: not these. `resource`: attributes of everything. `spool`: a folder for requests
    until they are delivered, of at most `spool_max_bytes` (512 MiB). `give_up_after`: seconds after which a request is dropped
    without a spool (300). `linger`: seconds that a request may wait for more (1). `tail_sampling`: keeps whole
    traces that failed, were slow or are rare, and this share of all others. `certificate`, `client_certificate`,
    `client_key`: files (PEM).
    """

    def __new__(
        cls,
        endpoint: str | None = None,
        *,
        protocol: str | None = None,
        compression: str | None = None,
        headers: dict[str, str] | None = None,
        timeout: float | None = None,
        traces: bool | None = None,
        metrics: bool | None = None,
        service_name: str | None = None,
        resource: dict[str, str] | None = None,
        spool: str | PathLike[str] | None = None,
        spool_max_bytes: int | None = None,
        give_up_after: float | None = None,
        linger: float | None = None,
        max_request_bytes: int | None = None,
        tail_sampling: float | None = None,
        duration_unit: str | None = None,
        certificate: str | PathLike[str] | None = None,
        client_certificate: str | PathLike[str] | None = None,
        client_key: str | PathLike[str] | None = None,
        redact: bool = True,
        redact_keys: Sequence[str] = ...,
        allow_keys: Sequence[str] = ...,
    ) -> Otlp: ...
    def record_timing(self, scope: str, duration: float, /, **metadata: Any) -> None:
        """Sends a timing that was measured elsewhere; `duration` in seconds."""

    def record_metric(self, scope: str, value: Any, /, **metadata: Any) -> None:
        """Sends a metric that was recorded elsewhere."""

@final
class Perfetto:
    """Writes a trace for Perfetto (`ui.perfetto.dev`), to a file that is made or emptied. Flush the context before reading it.

    `max_bytes`: of the file (1 GiB); what comes later is dropped and counted. `ids`: whether scopes show trace id and span id.
    """

    def __new__(
        cls,
        path: str | PathLike[str],
        *,
        max_bytes: int | None = None,
        ids: bool = False,
        process_name: str | None = None,
        redact: bool = True,
        redact_keys: Sequence[str] = ...,
        allow_keys: Sequence[str] = ...,
    ) -> Perfetto: ...
    def record_timing(self, scope: str, duration: float, /, **metadata: Any) -> None:
        """Writes a timing that was measured elsewhere; `duration` in seconds."""

    def record_metric(self, scope: str, value: Any, /, **metadata: Any) -> None:
        """Writes a metric that was recorded elsewhere."""

@final
class Prometheus:
    """Serves the sums of the context that it was given to last. It listens from its making until it is closed, or until
    itself and its context are gone. It takes sums, and no single events.

    `listen`: `HOST:PORT`, or `PORT` of the loopback address; port 0 is any that is free. `bearer_token`: what a request has to
    show. `allow_hosts`: names that requests may be for, besides `localhost` and addresses. `least_interval`: seconds between
    two collections (1). `max_connections`: at the same time (16).
    """

    def __new__(
        cls,
        listen: str = "127.0.0.1:0",
        *,
        bearer_token: str | None = None,
        allow_hosts: Sequence[str] = ...,
        least_interval: float | None = None,
        max_connections: int | None = None,
        redact: bool = True,
        redact_keys: Sequence[str] = ...,
        allow_keys: Sequence[str] = ...,
    ) -> Prometheus: ...
    @property
    def address(self) -> str:
        """`HOST:PORT` where it listens; of port 0, the port that was free."""

    def close(self) -> None:
        """Ends it: the port is free on return. A second time it does nothing."""

@final
class Statsd:
    """Sends sums and plain metrics to a StatsD agent at `HOST:PORT`, or at `unix:PATH`.

    `prefix`: what names begin with. `tags`: of every line. `plain`: lines without tags, for servers that know none.
    `max_datagram_bytes`: 1,432, or 8,192 on a Unix socket.
    """

    def __new__(
        cls,
        address: str,
        *,
        prefix: str | None = None,
        tags: dict[str, str] | None = None,
        plain: bool = False,
        max_datagram_bytes: int | None = None,
        redact: bool = True,
        redact_keys: Sequence[str] = ...,
        allow_keys: Sequence[str] = ...,
    ) -> Statsd: ...
    def lines(self) -> dict[str, int]:
        """What became of the lines so far: `sent`, `refused` by the system, `too_large` for a datagram."""

    def record_timing(self, scope: str, duration: float, /, **metadata: Any) -> None:
        """Sends a timing that was measured elsewhere; `duration` in seconds."""

    def record_metric(self, scope: str, value: Any, /, **metadata: Any) -> None:
        """Sends a metric that was recorded elsewhere."""

def prometheus_text(tele: Context | DisabledContext) -> str:
    """The sums of a context in Prometheus' text format; what is secret is left out."""

@final
class Carried:
    """What `carry` makes: it runs its function under the scope that was current."""

    @property
    def __wrapped__(self) -> Callable[..., Any]: ...
    def __call__(self, *arguments: Any, **named: Any) -> Any: ...

# What the package's own modules and tests use.

_FREE_THREADED: bool

def _copy(scope: Scope) -> Scope: ...
def _swap(value: Any) -> Any: ...
@final
class _Flow:
    def __new__(cls, scope: Any) -> _Flow: ...
    def start(self) -> None: ...
    def suspend(self) -> None: ...
    def resume(self) -> None: ...
    def end(self, class_: Any, error: Any, _traceback: Any) -> None: ...

def _stack() -> list[Any]: ...
def _at_exit() -> None: ...
def _before_fork() -> None: ...
def _after_fork_in_parent() -> None: ...
def _after_fork_in_child() -> None: ...
def _finalize_worker(_module: Any = None) -> None: ...
