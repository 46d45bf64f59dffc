"""The functions of `time` and `datetime` that ask what time it is, following trio's clock within a simulation.

Each of them asks first whether its caller is in a simulation whose clock this is, and calls the real one if not.
"""

from __future__ import annotations

import datetime
import functools
import sys
import time
import uuid
import warnings
from collections.abc import Callable
from typing import Any, Final

import trio.testing

from trioqt.testing.simulation.replacing import Setting, TypeEntry
from trioqt.testing.simulation.worlds import World, here, is_bystander, sleep_here

__all__ = ["WALL_CLOCK", "types", "uuid_settings"]

NANOSECONDS: Final = 1_000_000_000

Simulated = Callable[..., Any]


def _following(name: str, real: Callable[..., Any], simulated: Simulated) -> Callable[..., Any]:
    """``simulated(world, *args)`` for whoever is in a simulation, and the real function for everybody else."""

    @functools.wraps(real)
    def asked(*args: Any, **kwargs: Any) -> Any:
        world = here()
        if world is None or is_bystander(frame := sys._getframe(1)):
            return real(*args, **kwargs)
        if world.epoch is None:
            world.note(name, frame)
            return real(*args, **kwargs)
        return simulated(world, *args, **kwargs)

    return asked


def _time(world: World) -> float:
    assert world.epoch is not None
    return world.epoch + world.wall()


def _time_ns(world: World) -> int:
    assert world.epoch is not None
    return round(world.epoch * NANOSECONDS) + round(world.wall() * NANOSECONDS)


def _monotonic(world: World) -> float:
    return world.monotonic()


def _monotonic_ns(world: World) -> int:
    return round(world.monotonic() * NANOSECONDS)


_real_localtime, _real_gmtime, _real_ctime = time.localtime, time.gmtime, time.ctime
_real_asctime, _real_strftime, _real_sleep = time.asctime, time.strftime, time.sleep


def _localtime(world: World, seconds: float | None = None, /) -> time.struct_time:
    return _real_localtime(_time(world) if seconds is None else seconds)


def _gmtime(world: World, seconds: float | None = None, /) -> time.struct_time:
    return _real_gmtime(_time(world) if seconds is None else seconds)


def _ctime(world: World, seconds: float | None = None, /) -> str:
    return _real_ctime(_time(world) if seconds is None else seconds)


def _asctime(world: World, *when: Any) -> str:
    return _real_asctime(*when or (_localtime(world),))


def _strftime(world: World, text: str, *when: Any) -> str:
    return _real_strftime(text, *when or (_localtime(world),))


def _sleep(world: World, seconds: float, /) -> None:
    """A worker thread sleeps while the run goes on.

    While trio's own does, no task runs, and for everybody's deadlines it is later afterwards; it takes no real time.
    """
    sleep_beside = sleep_here()
    if seconds > 0 and sleep_beside is not None:
        sleep_beside(seconds)
    elif seconds > 0 and world.is_own_thread() and isinstance(world.clock, trio.testing.MockClock):
        world.sleep_counts()
        world.let_woken_threads_run()
        world.clock.jump(seconds)
    else:
        _real_sleep(seconds)


WALL_CLOCK: dict[Any, Any] = {
    real: _following(f"time.{real.__name__}", real, simulated)
    for real, simulated in (
        (time.time, _time),
        (time.time_ns, _time_ns),
        (time.monotonic, _monotonic),
        (time.monotonic_ns, _monotonic_ns),
        (time.perf_counter, _monotonic),
        (time.perf_counter_ns, _monotonic_ns),
        (time.localtime, _localtime),
        (time.gmtime, _gmtime),
        (time.ctime, _ctime),
        (time.asctime, _asctime),
        (time.strftime, _strftime),
        (time.sleep, _sleep),
    )
}
"""| a function of `time` | what stands in for it |"""


# ---- clocks by number ----------------------------------------------------------------------------------------------

if hasattr(time, "clock_gettime"):  # not on Windows
    _MONOTONIC = {
        getattr(time, name)
        for name in ("CLOCK_MONOTONIC", "CLOCK_MONOTONIC_RAW", "CLOCK_BOOTTIME", "CLOCK_UPTIME_RAW")
        if hasattr(time, name)
    }
    _real_gettime, _real_gettime_ns = time.clock_gettime, time.clock_gettime_ns

    def _gettime(world: World, clock: int, /) -> float:
        if clock == time.CLOCK_REALTIME:
            return _time(world)
        return _monotonic(world) if clock in _MONOTONIC else _real_gettime(clock)

    def _gettime_ns(world: World, clock: int, /) -> int:
        if clock == time.CLOCK_REALTIME:
            return _time_ns(world)
        return _monotonic_ns(world) if clock in _MONOTONIC else _real_gettime_ns(clock)

    WALL_CLOCK[_real_gettime] = _following("time.clock_gettime", _real_gettime, _gettime)
    WALL_CLOCK[_real_gettime_ns] = _following("time.clock_gettime_ns", _real_gettime_ns, _gettime_ns)


# ---- datetime ------------------------------------------------------------------------------------------------------


def _moment(world: World) -> int:
    """Microseconds since 1970; the system's clock is cut off there, not rounded."""
    return _time_ns(world) // 1000


def _now(world: World, cls: Any, tz: datetime.tzinfo | None = None) -> Any:
    seconds, micro = divmod(_moment(world), 1_000_000)
    return cls.fromtimestamp(seconds, tz).replace(microsecond=micro)


def _utcnow(world: World, cls: Any) -> Any:
    seconds, micro = divmod(_moment(world), 1_000_000)
    return cls.fromtimestamp(seconds, datetime.UTC).replace(microsecond=micro, tzinfo=None)


def _today(world: World, cls: Any) -> Any:
    return _now(world, cls) if issubclass(cls, datetime.datetime) else cls.fromtimestamp(_time(world))


def _of_type(cls: type, name: str, simulated: Simulated) -> Setting:
    entry = TypeEntry(cls, name)
    real = entry.kept

    def asked(called_on: Any, *args: Any, **kwargs: Any) -> Any:
        world = here()
        if world is None or is_bystander(frame := sys._getframe(1)):
            return real.__get__(None, called_on)(*args, **kwargs)
        if world.epoch is None:
            world.note(f"datetime.{cls.__name__}.{name}", frame)
            return real.__get__(None, called_on)(*args, **kwargs)
        return simulated(world, called_on, *args, **kwargs)

    asked.__name__, asked.__qualname__, asked.__doc__ = name, f"{cls.__name__}.{name}", real.__doc__
    return entry.put, classmethod(asked), real


def _taken(cls: type, name: str, simulated: Simulated) -> None:
    """As a method that was taken from the type before, such as the factory of a field."""
    real = getattr(cls, name)

    def on_type(world: World, *args: Any, **kwargs: Any) -> Any:
        return simulated(world, cls, *args, **kwargs)

    WALL_CLOCK[real] = _following(f"datetime.{cls.__name__}.{name}", real, on_type)


for _cls, _name, _simulated in (
    (datetime.datetime, "now", _now),
    (datetime.datetime, "utcnow", _utcnow),
    (datetime.datetime, "today", _today),
    (datetime.date, "today", _today),
):
    _taken(_cls, _name, _simulated)


@functools.cache
def types() -> list[Setting]:
    """Methods of types: how to set them, to what, and to what afterwards.

    Empty where they cannot be set; a RuntimeWarning says so, once a process.
    """
    try:
        return [
            _of_type(datetime.datetime, "now", _now),
            _of_type(datetime.datetime, "utcnow", _utcnow),
            _of_type(datetime.date, "today", _today),
        ]
    except (AttributeError, ImportError, IndexError, KeyError, TypeError) as exc:
        warnings.warn(
            f"this Python's datetime cannot be made to follow trio's clock, and stays real: {exc!r}",
            RuntimeWarning,
            stacklevel=4,
        )
        return []


def uuid_settings() -> list[Setting]:
    """The same for `uuid`, whose `uuid1` would ask the system for the time, and now asks `time`.

    It never gives out a time before the last one either, which may have been a real one.
    """
    names = ("_generate_time_safe", "_UuidCreate", "_last_timestamp", "_last_timestamp_v6", "_last_timestamp_v7")
    found = vars(uuid)
    return [(functools.partial(setattr, uuid, name), None, found[name]) for name in names if name in found]
