"""The names of `pollux.telemetry` and `gemini_batch.telemetry`, which those two drop-ins export.

The module that was published under these names decided by its environment whether it is on, and so do these:

- on, if `POLLUX_TELEMETRY`, `GEMINI_BATCH_TELEMETRY` or `DEBUG` is exactly `1` when `TelemetryContext` is called, unless
  `KASTOR_TELEMETRY` is `0`;
- strict scope names, if `POLLUX_TELEMETRY_STRICT_SCOPES` or `GEMINI_BATCH_TELEMETRY_STRICT_SCOPES` is exactly `1` when the
  context is made.

New programs use `kastor.TelemetryContext`, which reads `KASTOR_TELEMETRY` and `DEBUG`.
"""

from __future__ import annotations

import os
import warnings
from typing import Any, ContextManager, Protocol, runtime_checkable

from . import _native
from .reporters import TelemetryReporter

__all__ = [
    "CALL_COUNT",
    "DEPTH",
    "END_MONOTONIC_S",
    "END_WALL_TIME_S",
    "METRIC_TYPE",
    "PARENT_SCOPE",
    "START_MONOTONIC_S",
    "START_WALL_TIME_S",
    "TelemetryContext",
    "TelemetryContextProtocol",
    "TelemetryReporter",
    "tele_scope",
]

# Keys of the metadata that reporters get.
DEPTH = "depth"
PARENT_SCOPE = "parent_scope"
CALL_COUNT = "call_count"
METRIC_TYPE = "metric_type"
START_MONOTONIC_S = "start_monotonic_s"
END_MONOTONIC_S = "end_monotonic_s"
START_WALL_TIME_S = "start_wall_time_s"
END_WALL_TIME_S = "end_wall_time_s"

#: Each has the two variables `…_TELEMETRY` and `…_TELEMETRY_STRICT_SCOPES`.
_PREFIXES = ["POLLUX", "GEMINI_BATCH"]


@runtime_checkable
class TelemetryContextProtocol(Protocol):
    """What every context offers, enabled or not; for annotations."""

    @property
    def is_enabled(self) -> bool:
        """False for the disabled context: hot code can skip what it would only compute for telemetry."""

    def __call__(self, name: str, /, **metadata: Any) -> ContextManager[Any]:
        """Opens a scope."""

    def time(self, name: str, /, **metadata: Any) -> ContextManager[Any]:
        """Opens a scope: another name for calling the context."""

    def metric(self, name: str, /, value: Any, **metadata: Any) -> None:
        """Records a value under the current scope's path and `name`."""

    def count(self, name: str, /, increment: float = 1, **metadata: Any) -> None:
        """Adds to a counter."""

    def gauge(self, name: str, /, value: float, **metadata: Any) -> None:
        """Sets a gauge."""


class _Made(type):
    """A class whose instances are contexts of the native module, which has no classes for programs to derive from."""

    def __instancecheck__(cls, instance: object) -> bool:
        return isinstance(instance, cls.native_class)


class _EnabledTelemetryContext(metaclass=_Made):
    """`_EnabledTelemetryContext(*reporters)` is an enabled context, whatever the environment says of being enabled."""

    native_class = type(_native.enable())

    def __new__(cls, *reporters: Any) -> Any:
        return _native.enable(*reporters, strict=_is_set("TELEMETRY_STRICT_SCOPES"))


class _NoOpTelemetryContext(metaclass=_Made):
    """`_NoOpTelemetryContext()` is the one disabled context."""

    native_class = type(_native.TelemetryContext())

    def __new__(cls) -> Any:
        return _NO_OP_SINGLETON


_NO_OP_SINGLETON = _native.TelemetryContext()
_SimpleReporter = _native.SimpleReporter


def TelemetryContext(*reporters: Any) -> TelemetryContextProtocol:
    """A context that reports to `reporters`, if the environment enables telemetry and there is one; else the disabled one."""
    return _native.context_from_environment(_PREFIXES, reporters)


def tele_scope(*arguments: Any, **metadata: Any) -> ContextManager[Any]:
    """`tele_scope(ctx, name, **metadata)` is `ctx(name, **metadata)`. Deprecated: write `with tele("scope"):`."""
    warnings.warn(
        'tele_scope(ctx, name) is deprecated and will be removed in a future major version; use `with tele("scope"):`',
        DeprecationWarning,
        stacklevel=2,
    )
    given = list(arguments)
    if len(given) > 2:
        raise TypeError(f"tele_scope() takes 2 positional arguments but {len(given)} were given")
    # Both were ordinary parameters, so programs may pass them by name; beyond these, every keyword is metadata.
    for parameter in ("ctx", "name")[len(given) :]:
        if parameter not in metadata:
            raise TypeError(f"tele_scope() is missing the argument {parameter!r}")
        given.append(metadata.pop(parameter))
    context, name = given
    return context(name, **metadata)


def _is_set(suffix: str) -> bool:
    return any(os.environ.get(f"{prefix}_{suffix}") == "1" for prefix in _PREFIXES)
