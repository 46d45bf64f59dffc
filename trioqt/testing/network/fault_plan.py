"""Faults at given times, as one value: it prints, compares, is stored as JSON, and shrinks under hypothesis."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable
from typing import Any, Final, Self

import attrs

from trioqt.links.interrupts import protected
from trioqt.testing.network.fabric import Fabric, Timer
from trioqt.testing.network.faults import KINDS, Fault, Trouble

__all__ = ["FaultPlan", "Planned"]

# Of the JSON.  Another one as soon as an old reader would misunderstand a new file.
VERSION: Final = 1

INFINITY = {"number": "inf"}


def _seconds(value: float) -> float:
    given: Any = value
    if isinstance(given, bool) or not isinstance(given, int | float):
        raise TypeError(f"a time is in seconds, not {value!r}")
    if not 0 <= value < math.inf:
        raise ValueError(f"a time is in seconds, 0 or more, not {value}")
    return float(value)


def _seconds_or_none(value: float | None) -> float | None:
    return None if value is None else _seconds(value)


@attrs.frozen(repr=False)
class Planned:
    """One fault of a plan.

    Attributes:
      at: When it begins, in seconds from the beginning of the plan.
      until: When it ends; None: with the plan.  A fault that is over in an instant has None.

    Raises:
      TypeError, ValueError: It would end before it begins, or ends and does not last.
    """

    fault: Fault = attrs.field(validator=attrs.validators.instance_of(Fault))
    at: float = attrs.field(converter=_seconds)
    until: float | None = attrs.field(default=None, converter=_seconds_or_none)

    def __attrs_post_init__(self) -> None:
        if self.until is None:
            return
        if not self.fault.lasts:
            raise ValueError(f"{self.fault!r} has no end")
        if self.until <= self.at:
            raise ValueError(f"{self.fault!r} begins at {self.at:g}, so it cannot end at {self.until:g}")

    def __repr__(self) -> str:
        until = "" if self.until is None else f", {self.until!r}"
        return f"Planned({self.fault!r}, {self.at!r}{until})"

    def __str__(self) -> str:
        until = "" if not self.fault.lasts else " to the end" if self.until is None else f" to {self.until:g}"
        return f"{self.at:g}{until}: {self.fault!r}"


def _in_order(faults: Iterable[Planned]) -> tuple[Planned, ...]:
    planned = tuple(faults)
    for each in planned:
        if not isinstance(each, Planned):
            raise TypeError(f"a plan has Planned(fault, at, until) in it, not {each!r}")
    return tuple(sorted(planned, key=lambda each: each.at))


@attrs.frozen(repr=False)
class FaultPlan:
    """Which faults there are, and when; `VirtualNetwork.begin` begins it.

    The order in which faults of the same time are given is kept.  ``str()`` has one fault a line, and ``repr()`` is
    Python.  A host that a plan names need not be there yet when its fault begins.

    Attributes:
      faults: In the order of their beginnings.
    """

    faults: tuple[Planned, ...] = attrs.field(default=(), converter=_in_order)

    def __repr__(self) -> str:
        if not self.faults:
            return "FaultPlan()"
        lines = "".join(f"    {planned!r},\n" for planned in self.faults)
        return f"FaultPlan([\n{lines}])"

    def __str__(self) -> str:
        return "\n".join(map(str, self.faults)) or "no faults"

    @property
    def duration(self) -> float:
        """Seconds until the last fault is over; infinity if one lasts as long as the plan."""
        return max((_last_moment(planned) for planned in self.faults), default=0.0)

    # ---- JSON ----------------------------------------------------------------------------------

    def to_json(self) -> str:
        """A text that `from_json` understands, also in later versions; one fault a line.

        Raises:
          ValueError: A fault of your own has an attribute that is no name, number, bool or None.
        """
        lines = ",\n".join(f"  {json.dumps(_to_plain(planned), allow_nan=False)}" for planned in self.faults)
        return (
            f'{{"version": {VERSION}, "faults": [\n{lines}\n]}}' if lines else f'{{"version": {VERSION}, "faults": []}}'
        )

    @classmethod
    def from_json(cls, text: str, *, kinds: Iterable[type[Fault]] = ()) -> Self:
        """The plan that was stored.

        Args:
          kinds: Faults of your own that may be in it.

        Raises:
          ValueError: It is no plan, of a later version, or has faults of an unknown kind; it says where.
        """
        known = {kind.__name__: kind for kind in (*kinds, *KINDS)}
        stored = json.loads(text)
        if not isinstance(stored, dict) or not isinstance(stored.get("faults"), list):
            raise ValueError('a plan is {"version": ..., "faults": [...]}')
        if stored.get("version") != VERSION:
            raise ValueError(f"this is a plan of version {stored.get('version')!r}; {VERSION} is understood")
        faults = []
        for number, plain in enumerate(stored["faults"], 1):
            try:
                faults.append(_from_plain(plain, known))
            except (TypeError, ValueError) as exc:
                raise ValueError(f"fault {number} of the plan: {exc}") from exc
        return cls(faults)


def _last_moment(planned: Planned) -> float:
    if not planned.fault.lasts:
        return planned.at
    return math.inf if planned.until is None else planned.until


def _to_plain(planned: Planned) -> dict[str, Any]:
    fault = planned.fault
    # What has its default is left out: so an attribute that comes later does not change what is stored.
    values = {
        field.name: _stored(getattr(fault, field.name))
        for field in attrs.fields(type(fault))
        if getattr(fault, field.name) != field.default
    }
    for name, value in values.items():
        if value is not INFINITY and not isinstance(value, str | int | float | None):
            raise ValueError(f"{name} of {fault!r} cannot be stored")
    times = {"at": planned.at} if planned.until is None else {"at": planned.at, "until": planned.until}
    return {**times, "kind": type(fault).__name__, "with": values}


def _stored(value: Any) -> Any:
    """JSON has no infinity, which means no limit."""
    return INFINITY if value == math.inf else value


def _from_plain(plain: Any, known: dict[str, type[Fault]]) -> Planned:
    if not isinstance(plain, dict) or "kind" not in plain or "at" not in plain:
        raise ValueError('a fault is {"at": ..., "until": ..., "kind": ..., "with": {...}}')
    unknown = plain.keys() - {"at", "until", "kind", "with"}
    if unknown:
        raise ValueError(f"what is {', '.join(sorted(unknown))}?")
    kind = known.get(plain["kind"]) if isinstance(plain["kind"], str) else None
    if kind is None:
        raise ValueError(f"there is no kind of fault {plain['kind']!r}; there are {', '.join(sorted(known))}")
    values = plain.get("with", {})
    if not isinstance(values, dict):
        raise ValueError(f"the attributes of {kind.__name__} are not {values!r}")
    values = {name: math.inf if value == INFINITY else value for name, value in values.items()}
    fields = {field.name: field for field in attrs.fields(kind)}
    if values.keys() - fields.keys():
        raise ValueError(f"{kind.__name__} has no {', '.join(sorted(values.keys() - fields.keys()))}")
    missing = [name for name, field in fields.items() if field.default is attrs.NOTHING and name not in values]
    if missing:
        raise ValueError(f"{kind.__name__} lacks {', '.join(missing)}")
    return Planned(kind(**values), plain["at"], plain.get("until"))


@protected
class Course:
    """One planned fault on its way: it waits, lasts, or is over."""

    __slots__ = ("_begin", "_coming", "_going", "_planned", "_trouble")

    def __init__(self, planned: Planned, fabric: Fabric, begin: Callable[[Fault], Trouble]) -> None:
        self._planned = planned
        self._begin = begin
        self._trouble: Trouble | None = None
        # Both on the timetable from the start: what happens at one time happens in the order of the plan.
        self._coming = Timer(fabric, self._come)
        self._going = Timer(fabric, self.stop)
        if planned.at:
            self._coming.set(planned.at)
        else:
            self._come()
        if planned.until is not None:
            self._going.set(planned.until)

    def _come(self) -> None:
        self._trouble = self._begin(self._planned.fault)

    def stop(self) -> None:
        """It is over, or does not begin at all."""
        self._coming.stop()
        self._going.stop()
        if self._trouble is not None:
            self._trouble.end()
