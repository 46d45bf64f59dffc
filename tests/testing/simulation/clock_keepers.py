"""A module that has kept the functions that tell the time, as modules do, before anybody simulated."""

from __future__ import annotations

import dataclasses
import datetime
import time
from collections.abc import Callable
from datetime import date, datetime as DateTime
from time import monotonic, time as seconds

import attrs


def by_name() -> float:
    return seconds()


def by_default(clock: Callable[[], float] = monotonic) -> float:
    return clock()


def by_keyword(*, clock: Callable[[], float] = time.time) -> float:
    return clock()


def made() -> Callable[[], float]:
    clock = time.time

    def from_outside() -> float:
        return clock()

    return from_outside


by_closure = made()


class Keeper:
    clock = time.monotonic
    static = staticmethod(time.time)

    @classmethod
    def by_class(cls, clock: Callable[[], float] = time.time) -> float:
        return clock()


class Holder:
    def __init__(self) -> None:
        self.clock = time.time


holder = Holder()


registry = {"clock": time.time}


@dataclasses.dataclass
class Stamp:
    at: float = dataclasses.field(default_factory=time.time)
    when: DateTime = dataclasses.field(default_factory=DateTime.utcnow)


@attrs.define
class AttrsStamp:
    at: float = attrs.field(factory=time.time)
    when: DateTime = attrs.field(factory=DateTime.now)


def asked() -> dict[str, float]:
    """What each of them says, in seconds: of the wall clock, or of the one that counts."""
    stamp, attrs_stamp = Stamp(), AttrsStamp()
    return {
        "by name": by_name(),
        "by default": by_default(),
        "by keyword": by_keyword(),
        "by closure": by_closure(),
        "attribute of a class": Keeper.clock(),
        "attribute of its object": Keeper().clock(),  # type: ignore[misc]  # mypy: it would bind itself
        "static method": Keeper.static(),
        "default of a class method": Keeper.by_class(),
        "attribute of an object": holder.clock(),
        "value of a dict": registry["clock"](),
        "dataclass": stamp.at,
        "dataclass, utcnow": stamp.when.replace(tzinfo=datetime.UTC).timestamp(),
        "attrs": attrs_stamp.at,
        "attrs, now": attrs_stamp.when.timestamp(),
        "now": DateTime.now(datetime.UTC).timestamp(),
        "today": float(date.today().toordinal()),
    }


COUNTING = ("by default", "attribute of a class", "attribute of its object")
