"""What can go wrong on a simulated network, as values.

A fault is a small frozen object: it can be printed, compared, stored, and shrunk.  It says what becomes of a link or a
host while it lasts, and keeps nothing of its own: so faults overlap, and end, in any order.  `VirtualNetwork.begin`
begins one.

Where a fault takes two hosts, None stands for every other host.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from types import TracebackType
from typing import Any, ClassVar, Self

import attrs
import trio

from trioqt.links.interrupts import protected
from trioqt.testing.network.fabric import Conditions, Packet
from trioqt.testing.network.host import DESCRIPTOR_LIMIT, World

__all__ = [
    "Crash",
    "Degraded",
    "DescriptorsExhausted",
    "Fault",
    "Hold",
    "HostState",
    "Isolated",
    "KINDS",
    "Latency",
    "LinkState",
    "Loss",
    "NameServerDown",
    "Partition",
    "Pause",
    "ResetConnections",
    "Skew",
    "Trouble",
]


@attrs.frozen
class LinkState:
    """One direction of a link, with the faults that act on it.

    Attributes:
      blocked: What is sent is lost.
      held: What is sent waits.
    """

    conditions: Conditions
    blocked: bool = False
    held: bool = False


@attrs.frozen
class HostState:
    """A host, with the faults that act on it.

    Attributes:
      is_down: It has crashed.
      has_names: The name server answers it.
      descriptor_limit: So many sockets it can have.
      seconds_ahead: So much later it is on its clock.
      clock_rate: So many times as fast as it should its clock goes.
    """

    is_down: bool = False
    has_names: bool = True
    descriptor_limit: int = DESCRIPTOR_LIMIT
    seconds_ahead: float = 0.0
    clock_rate: float = 1.0


@attrs.frozen(repr=False)
class Fault:
    """Something that is wrong for a while.

    One of your own overrides what it needs of these, and can be planned and stored like the others.
    """

    lasts: ClassVar[bool] = True
    """False: it happens at an instant, and has no end."""

    def __repr__(self) -> str:
        words: list[str] = []
        by_name = False
        for field in sorted(attrs.fields(type(self)), key=lambda field: field.kw_only):
            value = getattr(self, field.name)
            if value == field.default:
                by_name = True
            else:
                words.append(f"{field.name}={value!r}" if by_name or field.kw_only else repr(value))
        return f"{type(self).__name__}({', '.join(words)})"

    def hosts(self) -> tuple[str, ...]:
        """The hosts that it names."""
        return ()

    # `net` is the `VirtualNetwork`, which begins faults and so is not known here; Any lets one of your own say so.

    def begin(self, net: Any) -> None:
        """It begins; after this, links and hosts are as `change` and `change_host` say."""

    def end(self, net: Any) -> None:
        """It is over; links and hosts are as they were already."""

    def change(self, source: str, target: str, state: LinkState) -> LinkState:
        """What becomes of the direction from ``source`` to ``target``; of several faults the last to begin has the
        last word.
        """
        return state

    def change_host(self, host: str, state: HostState) -> HostState:
        """What becomes of a host; of several faults the last to begin has the last word."""
        return state


# ---- what the attributes may be ----------------------------------------------------------------


def _name(instance: object, attribute: attrs.Attribute[Any], value: object) -> None:
    if not isinstance(value, str):
        raise TypeError(f"{attribute.name} is the name of a host, not {value!r}")


def _name_or_none(instance: object, attribute: attrs.Attribute[Any], value: object) -> None:
    if value is not None:
        _name(instance, attribute, value)


def _flag(instance: object, attribute: attrs.Attribute[Any], value: object) -> None:
    if not isinstance(value, bool):
        raise TypeError(f"{attribute.name} is True or False, not {value!r}")


def _count(instance: object, attribute: attrs.Attribute[Any], value: object) -> None:
    if not isinstance(value, int) or isinstance(value, bool):
        raise TypeError(f"{attribute.name} is a whole number, not {value!r}")
    if value < 0:
        raise ValueError(f"{attribute.name} is 0 or more, not {value}")


def _number(value: float) -> float:
    """One spelling of a number, so that what is equal prints alike."""
    given: Any = value
    if isinstance(given, bool) or not isinstance(given, int | float):
        raise TypeError(f"a number is wanted, not {value!r}")
    return float(value)


def _number_or_none(value: float | None) -> float | None:
    return None if value is None else _number(value)


# ---- on links ----------------------------------------------------------------------------------


@attrs.frozen(repr=False)
class _Between(Fault):
    a: str | None = attrs.field(validator=_name_or_none)
    b: str | None = attrs.field(validator=_name_or_none)

    def hosts(self) -> tuple[str, ...]:
        return tuple(name for name in (self.a, self.b) if name is not None)

    def _leads(self, source: str, target: str) -> bool:
        """From a to b?  A host's way to itself is meant only where it is named twice."""
        if source == target:
            return self.a == self.b == source
        return self.a in (None, source) and self.b in (None, target)


@attrs.frozen(repr=False)
class _OnLink(_Between):
    one_way: bool = attrs.field(default=False, validator=_flag, kw_only=True)

    def change(self, source: str, target: str, state: LinkState) -> LinkState:
        if self._leads(source, target) or (not self.one_way and self._leads(target, source)):
            return self.change_direction(state)
        return state

    def change_direction(self, state: LinkState) -> LinkState:
        """What becomes of one direction that it acts on."""
        raise NotImplementedError


@attrs.frozen(repr=False)
class Partition(_OnLink):
    """Nothing comes through between two hosts, and nobody is told.

    What is under way when it begins is lost too, except for acknowledgements.  A connection lives on if its end comes
    before TCP gives up, after some fifteen minutes; one whose program has closed it gives up after one.

    Attributes:
      one_way: Only from ``a`` to ``b``.
    """

    def change_direction(self, state: LinkState) -> LinkState:
        return attrs.evolve(state, blocked=True)


@attrs.frozen(repr=False)
class Hold(_OnLink):
    """What is sent between two hosts waits, and departs in its order at the end; nothing is lost.

    A sender does not know that, and repeats.  A link keeps 10,000 packets; more are lost.

    Attributes:
      one_way: Only from ``a`` to ``b``.
    """

    def change_direction(self, state: LinkState) -> LinkState:
        return attrs.evolve(state, held=True)


@attrs.frozen(repr=False)
class Degraded(_OnLink):
    """A link is worse, or better, than it was: any of the attributes of `Conditions`; None: as it is without this.

    Attributes:
      one_way: Only from ``a`` to ``b``.
      latency, jitter, loss, bandwidth, queue, duplication, reordering: Those of `Conditions`.
    """

    latency: float | None = attrs.field(default=None, converter=_number_or_none, kw_only=True)
    jitter: float | None = attrs.field(default=None, converter=_number_or_none, kw_only=True)
    loss: float | None = attrs.field(default=None, converter=_number_or_none, kw_only=True)
    bandwidth: float | None = attrs.field(default=None, converter=_number_or_none, kw_only=True)
    queue: float | None = attrs.field(default=None, converter=_number_or_none, kw_only=True)
    duplication: float | None = attrs.field(default=None, converter=_number_or_none, kw_only=True)
    reordering: float | None = attrs.field(default=None, converter=_number_or_none, kw_only=True)

    def __attrs_post_init__(self) -> None:
        Conditions(**self._changes())

    def change_direction(self, state: LinkState) -> LinkState:
        return attrs.evolve(state, conditions=attrs.evolve(state.conditions, **self._changes()))

    def _changes(self) -> dict[str, Any]:
        values = {field.name: getattr(self, field.name) for field in attrs.fields(Conditions) if field.name != "mtu"}
        return {name: value for name, value in values.items() if value is not None}


@attrs.frozen(repr=False)
class Loss(_OnLink):
    """A part of the packets between two hosts is lost.

    Attributes:
      rate: How many of them, 0 to 1.
      one_way: Only from ``a`` to ``b``.
    """

    rate: float = attrs.field(converter=_number)

    def __attrs_post_init__(self) -> None:
        Conditions(loss=self.rate)

    def change_direction(self, state: LinkState) -> LinkState:
        return attrs.evolve(state, conditions=attrs.evolve(state.conditions, loss=self.rate))


@attrs.frozen(repr=False)
class Latency(_OnLink):
    """Packets between two hosts take so long.  Those under way arrive when they would have.

    Attributes:
      latency: One way, in seconds.
      jitter: Up to so many seconds more; None: as it is without this.
      one_way: Only from ``a`` to ``b``.
    """

    latency: float = attrs.field(converter=_number)
    jitter: float | None = attrs.field(default=None, converter=_number_or_none)

    def __attrs_post_init__(self) -> None:
        Conditions(latency=self.latency, jitter=self.jitter or 0.0)

    def change_direction(self, state: LinkState) -> LinkState:
        old = state.conditions
        jitter = old.jitter if self.jitter is None else self.jitter
        return attrs.evolve(state, conditions=attrs.evolve(old, latency=self.latency, jitter=jitter))


@attrs.frozen(repr=False)
class ResetConnections(_Between):
    """Every TCP connection between two hosts is reset, at both ends and at once, as by a firewall that loses its state.

    Programs see what Linux makes of a reset: ECONNRESET; EPIPE where the peer has finished already; ECONNREFUSED where
    there is no connection yet.
    """

    lasts: ClassVar[bool] = False

    def begin(self, net: World) -> None:
        ends = [(host, end) for host in net.everybody() for end in list(host.connections.values())]
        for host, end in ends:
            path = host.path_to(end.remote[0])
            if path is not None and (
                self._leads(host.name, path.target.name) or self._leads(path.target.name, host.name)
            ):
                host.note("reset", port=end.local[1], note=f"from {path.target.name}:{end.remote[1]}")
                end.receive(Packet("RST", end.remote, end.local))


# ---- on hosts ----------------------------------------------------------------------------------


@attrs.frozen(repr=False)
class _OnHost(Fault):
    host: str = attrs.field(validator=_name)

    def hosts(self) -> tuple[str, ...]:
        return (self.host,)

    def change_host(self, host: str, state: HostState) -> HostState:
        return self.change_this_host(state) if host == self.host else state

    def change_this_host(self, state: HostState) -> HostState:
        """What becomes of the host that it acts on."""
        return state


@attrs.frozen(repr=False)
class Isolated(_OnHost):
    """A host is cut from everybody else, the name server included; it still reaches itself."""

    def change(self, source: str, target: str, state: LinkState) -> LinkState:
        cut = source != target and self.host in (source, target)
        return attrs.evolve(state, blocked=True) if cut else state

    def change_this_host(self, state: HostState) -> HostState:
        return attrs.evolve(state, has_names=False)


@attrs.frozen(repr=False)
class Crash(_OnHost):
    """A host loses its power, and starts again at the end.

    Its sockets vanish and nobody is told; what comes for it is lost.  Its programs that `VirtualNetwork.run_on` runs
    are cancelled, and run again from their beginning when it starts; what any other task on it calls fails, mostly with
    ENETDOWN.  But a system task, whose error would end trio's run, waits until its socket is closed.

    After the start a peer that still believes in an old connection is answered by a reset.
    """

    def change_this_host(self, state: HostState) -> HostState:
        return attrs.evolve(state, is_down=True, has_names=False)


@attrs.frozen(repr=False)
class Pause(_OnHost):
    """A host stands still: what is sent to it, by it, and on it over IP, waits until the end; nothing is lost.

    Only its network can be stopped.  Its programs go on, on the one clock that everybody has.
    """

    def change(self, source: str, target: str, state: LinkState) -> LinkState:
        return attrs.evolve(state, held=True) if self.host in (source, target) else state

    def change_this_host(self, state: HostState) -> HostState:
        return attrs.evolve(state, has_names=False)


@attrs.frozen(repr=False)
class DescriptorsExhausted(_OnHost):
    """A host can have no more than so many sockets: ``socket()`` and ``accept()`` fail with EMFILE.

    Those that it has stay.

    Attributes:
      limit: How many; 0: none can be made, even after others are closed.
    """

    limit: int = attrs.field(default=0, validator=_count)

    def change_this_host(self, state: HostState) -> HostState:
        return attrs.evolve(state, descriptor_limit=min(state.descriptor_limit, self.limit))


@attrs.frozen(repr=False)
class NameServerDown(Fault):
    """The name server does not answer: look-ups fail with EAI_AGAIN, after ten seconds.

    Attributes:
      host: Only this host cannot reach it.
    """

    host: str | None = attrs.field(default=None, validator=_name_or_none)

    def hosts(self) -> tuple[str, ...]:
        return () if self.host is None else (self.host,)

    def change_host(self, host: str, state: HostState) -> HostState:
        return attrs.evolve(state, has_names=False) if self.host in (None, host) else state


@attrs.frozen(repr=False)
class Skew(_OnHost):
    """A host's clock is wrong: what the standard library tells its programs of the time, where that is simulated.

    Only what they read: deadlines and `trio.sleep` go by trio's clock, which everybody has.  Several add up.  At the
    end the clock on the wall is set right at once; the one that only counts (`time.monotonic`) never goes back.

    Attributes:
      seconds: So much later it is there; less than 0: earlier.
      rate: So many times as fast as it should it goes.
    """

    seconds: float = attrs.field(default=0.0, converter=_number, kw_only=True)
    rate: float = attrs.field(default=1.0, converter=_number, kw_only=True)

    def __attrs_post_init__(self) -> None:
        if not math.isfinite(self.seconds):
            raise ValueError(f"a clock is so many seconds ahead, not {self.seconds}")
        if not 0 < self.rate < math.inf:
            raise ValueError(f"the rate of a clock is more than 0, not {self.rate}")

    def change_this_host(self, state: HostState) -> HostState:
        return attrs.evolve(
            state, seconds_ahead=state.seconds_ahead + self.seconds, clock_rate=state.clock_rate * self.rate
        )


KINDS: tuple[type[Fault], ...] = (
    Partition, Hold, Loss, Latency, Degraded, ResetConnections,
    Isolated, Crash, Pause, DescriptorsExhausted, NameServerDown, Skew,
)  # fmt: skip
"""Every kind of fault there is here."""


# ---- how long ----------------------------------------------------------------------------------


@protected
class Trouble:
    """A fault, or a plan of faults, that has begun: it lasts until `end`, or the end of a ``with`` or ``async with``
    block, or for good.
    """

    __slots__ = ("_check", "_end")

    def __init__(self, end: Callable[[], None], check: Callable[[], None] | None = None) -> None:
        self._end: Callable[[], None] | None = end
        self._check = check

    def end(self) -> None:
        """It is over.  Once more does nothing.

        Raises: ValueError: A plan names a host that there has never been; it is over all the same.
        """
        if self._end is not None:
            self._stop()
            if self._check is not None:
                self._check()

    def _stop(self) -> None:
        if self._end is not None:
            end, self._end = self._end, None
            end()

    def __enter__(self) -> Self:
        if self._end is None:
            raise RuntimeError("this fault is over; begin another")
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if exc_type is None:
            self.end()
        else:
            self._stop()  # that exception is what matters

    async def __aenter__(self) -> Self:
        """Cancelled: it is over."""
        self.__enter__()
        try:
            await trio.lowlevel.checkpoint()
        except BaseException:
            self._stop()
            raise
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Cancelled: it is over all the same."""
        self.__exit__(exc_type, exc, traceback)
        if exc_type is None:
            await trio.lowlevel.checkpoint()
