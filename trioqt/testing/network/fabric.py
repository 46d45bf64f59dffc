"""What lies between the hosts of a simulated network: how long things take, what is lost, and in which order.

It carries packets without looking into them.  What a packet means is known where it is received.
"""

from __future__ import annotations

import heapq
import math
import random
from collections import deque
from collections.abc import Callable
from typing import Any, Protocol

import attrs
import trio

from trioqt.links.interrupts import protected
from trioqt.testing.network.checksums import checksum, datagram_checksum
from trioqt.testing.network.socket_files import SocketFiles
from trioqt.testing.network.trace import Trace

__all__ = ["Conditions", "Fabric", "Packet", "Path", "Station", "Timer"]

Address = tuple[str, int]


def _probability(instance: object, attribute: attrs.Attribute[Any], value: float) -> None:
    if not 0 <= value <= 1:
        raise ValueError(f"{attribute.name} is a probability, 0 to 1, not {value}")


def _seconds(instance: object, attribute: attrs.Attribute[Any], value: float) -> None:
    if not 0 <= value < math.inf:
        raise ValueError(f"{attribute.name} is in seconds, 0 or more, not {value}")


def _whole(instance: object, attribute: attrs.Attribute[Any], value: object) -> None:
    if not isinstance(value, int):
        raise TypeError(f"{attribute.name} is an int, not {value!r}")


def _positive(instance: object, attribute: attrs.Attribute[Any], value: float) -> None:
    if not value > 0:
        raise ValueError(f"{attribute.name} is more than 0, not {value}")


@attrs.frozen(kw_only=True)
class Conditions:
    """How one direction of a link carries packets.

    Attributes:
      latency: One-way delay, in seconds.
      jitter: Up to so many seconds more, evenly spread; packets may overtake each other then.
      loss: The part of the packets that is lost, 0 to 1.
      bandwidth: Bytes a second.
      queue: Bytes that may wait for a link of limited bandwidth; more is lost.
      duplication: The part of the datagrams that arrives twice.
      reordering: The part of the datagrams that is overtaken: it takes twice the latency, and 1 ms.
      mtu: Bytes of the largest IP packet.  Larger datagrams go in fragments, and are lost if one of those is.
    """

    latency: float = attrs.field(default=0.0, validator=_seconds)
    jitter: float = attrs.field(default=0.0, validator=_seconds)
    loss: float = attrs.field(default=0.0, validator=_probability)
    bandwidth: float = attrs.field(default=math.inf, validator=_positive)
    queue: float = attrs.field(default=1 << 20, validator=_positive)
    duplication: float = attrs.field(default=0.0, validator=_probability)
    reordering: float = attrs.field(default=0.0, validator=_probability)
    mtu: int = attrs.field(default=1500, validator=[_whole, _positive])


class Packet:
    """Anything that one host sends to another."""

    __slots__ = (
        "again",
        "data",
        "departed",
        "edge",
        "encrypted",
        "hops",
        "interface",
        "kind",
        "lost",
        "sender",
        "seq",
        "source",
        "target",
    )

    def __init__(
        self, kind: str, source: Address, target: Address, data: bytes = b"", sender: Any = None, seq: int = 0
    ) -> None:
        self.kind: str = kind
        self.source: Address = source
        self.target: Address = target
        self.data: bytes = data
        # Who repeats it if it is lost.  Knowing at once that it is saves the timers that a real sender needs to find
        # out: nothing runs while all goes well.
        self.sender: Any = sender
        self.seq: int = seq
        self.edge: int = 0
        self.hops: int = 64
        """How many routers it might still pass, of which there are none here."""
        self.interface: int = 0
        """The number of the interface that it comes in by."""
        self.departed: float = -1.0
        """When it was sent, if that was not just now."""
        self.lost: bool = False
        self.again: bool = False
        """Its sender repeats it."""
        self.encrypted: bool = False
        """Its content is another in each run."""


Flight = tuple[Packet, float, bool]
"""| packet | when it was sent | is it sent again? |: one packet may be under way twice, the first time and again."""


class Station(Protocol):
    """What the fabric needs of a host."""

    name: str
    is_up: bool

    def receive(self, packet: Packet) -> None: ...


@protected
class Timer:
    """Something that is to happen at a time, unless it is called off."""

    __slots__ = ("_action", "_fabric", "due")

    def __init__(self, fabric: Fabric, action: Callable[[], None]) -> None:
        self._fabric = fabric
        self._action = action
        self.due: float = math.inf

    def set(self, delay: float, *, asleep: bool = False) -> None:
        """It is to happen so many seconds from now, and not when it was to before.

        Args:
          asleep: But only if something goes wrong meanwhile, here or anywhere.
        """
        self.stop()
        self.due = self._fabric.now() + delay
        if asleep:
            self._fabric.asleep[self] = None
        else:
            self._fabric.at(self.due, self._expire, self)

    def wake(self) -> None:
        """Something has gone wrong."""
        if self in self._fabric.asleep:
            self.set(max(0.0, self.due - self._fabric.now()))

    def stop(self) -> None:
        """It will not happen."""
        self.due = math.inf
        self._fabric.asleep.pop(self, None)

    def is_set(self) -> bool:
        """Whether it is going to happen."""
        return self.due < math.inf

    def _expire(self, timer: Timer) -> None:
        self.due = math.inf
        self._action()


@protected
class Path:
    """One direction between two hosts."""

    __slots__ = (
        "_busy_until",
        "_is_limited",
        "_is_unruly",
        "_parked",
        "_released",
        "blocked",
        "conditions",
        "direct",
        "fabric",
        "held",
        "jitter",
        "latency",
        "loss",
        "source",
        "target",
    )

    def __init__(self, fabric: Fabric, source: Station, target: Station, conditions: Conditions) -> None:
        self.fabric: Fabric = fabric
        self.source: Station = source
        self.target: Station = target
        self.conditions: Conditions = conditions
        self._busy_until = 0.0
        self._parked: list[tuple[Packet, bool]] = []
        self._released: dict[object, Callable[[], None]] = {}
        self.set(conditions)

    def set(self, conditions: Conditions, *, blocked: bool = False, held: bool = False) -> None:
        """From now on it carries packets like this; ``blocked``: none at all; ``held``: none until it is released."""
        self._stretch_backlog(conditions.bandwidth)
        self.conditions = conditions
        self.latency: float = conditions.latency
        self.jitter: float = conditions.jitter
        self.loss: float = conditions.loss
        self.blocked: bool = blocked
        self.held: bool = held
        self._is_limited = conditions.bandwidth < math.inf
        self._is_unruly = bool(conditions.reordering or conditions.duplication)
        # Nothing in the way: what is sent has arrived when the call returns, as on a kernel's loopback interface.
        self.direct: bool = conditions == Conditions(mtu=conditions.mtu) and not blocked and not held
        if not held and self._parked:
            parked, self._parked = self._parked, []
            for packet, again in parked:
                packet.again = again
                self.send(packet)
        if not held and self._released:
            released, self._released = self._released, {}
            for action in released.values():
                action()

    def _stretch_backlog(self, bandwidth: float) -> None:
        """What waits for a link of limited bandwidth goes with the new one."""
        backlog = max(self._busy_until - self.fabric.now(), 0.0)
        if backlog:
            ratio = self.conditions.bandwidth / bandwidth
            self._busy_until = self.fabric.now() + backlog * ratio

    def send(self, packet: Packet) -> None:
        """Send it.  If it is lost, or held, its sender is told."""
        if self.direct and self.target.is_up and self.source.is_up:
            self.fabric.arrive_now(packet, self)
        elif self.held:
            now = packet.departed = self.fabric.now()
            self._park((packet, now, packet.again))
        else:
            self._depart(packet)

    def delay(self) -> float:
        """How long a packet that departs now will take."""
        return self.latency + self.fabric.random.random() * self.jitter if self.jitter else self.latency

    def is_stopped(self) -> bool:
        """Does nothing come through now?"""
        return self.blocked or self.held or not self.target.is_up or not self.source.is_up

    def on_release(self, key: object, action: Callable[[], None]) -> None:
        """To be called when the path is no longer held; the latest for a key."""
        self._released[key] = action

    def _depart(self, packet: Packet) -> None:
        fabric = self.fabric
        now = packet.departed = fabric.now()
        flight = packet, now, packet.again
        if self.blocked or not self.source.is_up or (self.loss and self._is_lost(packet)):
            self._lose(flight)
            return
        when = now + self.latency
        if self.jitter:
            when += fabric.random.random() * self.jitter
        if self._is_limited:
            conditions = self.conditions
            begin = max(now, self._busy_until)
            if (begin - now) * conditions.bandwidth + len(packet.data) > max(conditions.queue, len(packet.data)):
                self._lose(flight)
                return
            self._busy_until = begin + (len(packet.data) + HEADERS) / conditions.bandwidth
            when += self._busy_until - now
        if self._is_unruly and packet.kind == "UDP":
            conditions = self.conditions
            if conditions.reordering and fabric.random.random() < conditions.reordering:
                when += conditions.latency + 0.001
            if conditions.duplication and fabric.random.random() < conditions.duplication:
                fabric.at(when + self.delay(), self.arrive, flight)
        packet.lost = False
        fabric.at(when, self.arrive, flight)

    def arrive(self, flight: Flight) -> None:
        """It has come to the far end of the path."""
        packet = flight[0]
        target = self.target
        if self.blocked or not target.is_up:
            self._lose(flight)
        elif self.held:
            self._park(flight)
        else:
            if packet.kind not in ACKNOWLEDGEMENTS:
                self.fabric.trace.deliveries += 1
                self._note(packet.kind, flight)
            target.receive(packet)

    def _is_lost(self, packet: Packet) -> bool:
        # A datagram larger than the MTU goes in fragments, each with 20 bytes of IP header, and needs them all.
        fragments = 1 if packet.kind != "UDP" else -(-(len(packet.data) + 8) // max(self.conditions.mtu - 20, 8))
        survives = (1 - self.loss) ** fragments
        lost: bool = self.fabric.random.random() >= survives
        return lost

    def _lose(self, flight: Flight) -> None:
        packet = flight[0]
        packet.lost = True
        self._note("lost", flight, packet.kind)
        if packet.sender is not None:
            packet.sender.repeat_later(packet.departed)

    def _park(self, flight: Flight) -> None:
        packet, _, again = flight
        if len(self._parked) >= PARKED_LIMIT:
            self._lose(flight)
            return
        self._note("held", flight, packet.kind)
        self._parked.append((packet, again))
        if packet.sender is not None:
            packet.sender.repeat_later(packet.departed)

    def _note(self, kind: str, flight: Flight, note: str = "") -> None:
        packet, departed, again = flight
        trace, now, size = self.fabric.trace, self.fabric.now(), len(packet.data)
        source, target = self.source.name, self.target.name
        if not size or packet.encrypted:
            content = 0
        elif packet.kind == "UDP":
            content = datagram_checksum(packet.data)
        else:
            content = checksum(packet.data)
        trace.add((now, kind, source, packet.source[1], target, packet.target[1], size, note, content, departed, again))


# The last of a handshake, and "are you sure?" (RFC 5961); those of data are no packets at all.
ACKNOWLEDGEMENTS = ("ACK", "CHALLENGE")

# IP and TCP, without options; counted for bandwidth.
HEADERS = 40

# A held path keeps so many packets; more are lost, as in a switch that runs out of memory.
PARKED_LIMIT = 10_000

# Far above any descriptor that there is, so a call that reaches the kernel with one fails (EBADF).
FIRST_DESCRIPTOR = 1_000_000

Entry = tuple[float, int, Callable[[Any], None], Any]


@protected
class Fabric(trio.abc.Instrument):
    """The timetable of everything under way, and what makes it happen.

    One heap ordered by time and then by order of planning: so ties never depend on the scheduler.
    """

    def __init__(self, seed: int, trace: Trace) -> None:
        self.random: random.Random = random.Random(str(seed))  # of a number its sign would not count
        self.trace = trace
        self.socket_files: SocketFiles = SocketFiles()
        self.default_latency: float = 0.0
        self.in_trouble: bool = False
        """A fault lasts."""
        self.asleep: dict[Timer, None] = {}
        self._entries: list[Entry] = []
        self._count = 0
        self._descriptors = 0
        self._now: Callable[[], float] = lambda: 0.0
        self._time = 0.0
        self._due = math.inf  # when the first entry is
        self._alarm: trio.CancelScope | None = None
        self._failure: BaseException | None = None
        self._life: trio.CancelScope = trio.CancelScope(shield=True)
        self._instant: deque[tuple[Path, Flight]] = deque()
        self._delivering = False

    def now(self) -> float:
        """Trio's time; 0.0 outside of the run."""
        # While things are delivered it stands still, and a mock clock takes 2 us to tell.
        return self._time if self._delivering else self._now()

    def next_descriptor(self) -> int:
        """A number for a socket."""
        self._descriptors += 1
        return FIRST_DESCRIPTOR + self._descriptors

    def at(self, when: float, action: Callable[[Any], None], argument: Any) -> None:
        """At that time ``action(argument)`` is to be called."""
        self._count += 1
        heapq.heappush(self._entries, (when, self._count, action, argument))
        if when < self._due:
            self._due = when
            if self._alarm is not None:
                self._alarm.deadline = when

    def arrive_now(self, packet: Packet, path: Path) -> None:
        """It takes no time.  But one thing after the other: what a delivery sends arrives when it is done."""
        if self._delivering:
            self._instant.append((path, (packet, self._time, packet.again)))
        else:
            self._time = self._now()
            self._instant.append((path, (packet, self._time, packet.again)))
            self._delivering = True
            try:
                self._deliver_instant()
            finally:
                self._delivering = False

    def _deliver_instant(self) -> None:
        while self._instant:
            path, flight = self._instant.popleft()
            path.arrive(flight)

    def begin_trouble(self) -> None:
        """From now on a peer may be silent because it is gone."""
        self.in_trouble = True
        for timer in list(self.asleep):
            timer.wake()

    def end_trouble(self) -> None:
        """Who is silent has nothing to say.  What was awake looks once more."""
        self.in_trouble = False

    def in_flight(self) -> int:
        """How many packets and timers there are that will do something."""
        return sum(self._is_live(entry) for entry in self._entries)

    async def run(self) -> None:
        """Make everything happen in its time, until `stop`: clean-up under a shield needs a network too."""
        self._now = trio.lowlevel.current_clock().current_time
        trio.lowlevel.add_instrument(self)
        try:
            with self._life:
                await self._keep_alarm()
        finally:
            trio.lowlevel.remove_instrument(self)
            self._alarm = None
            if self._failure is not None:
                raise self._failure

    def stop(self) -> None:
        """Nothing more is to happen."""
        self._life.cancel(reason="the simulated network ends")

    async def _keep_alarm(self) -> None:
        while self._failure is None:
            self._run_due()
            self._due = self.next_time()
            # The deadline brings trio's loop, and the mock clock, to the next time on the table.  Then `after_io_wait`
            # comes first and moves it on, so it hardly ever passes: cancelling this scope, and entering another, would
            # take as long as all the rest of a delivery.
            with trio.CancelScope(deadline=self._due) as self._alarm:
                await trio.sleep_forever()

    def after_io_wait(self, timeout: float) -> None:
        """Trio's loop has come to a time: what is due happens, before any task runs."""
        if self._due <= self._now() and self._alarm is not None:
            try:
                self._run_due()
                self._due = self._alarm.deadline = self.next_time()
            except BaseException as exc:  # trio would log it and go on
                self._failure = exc
                self._alarm.deadline = -math.inf

    def next_time(self) -> float:
        """When the next thing will happen; infinity if nothing will."""
        entries = self._entries
        while entries and not self._is_live(entries[0]):
            heapq.heappop(entries)
        return entries[0][0] if entries else math.inf

    def _run_due(self) -> None:
        entries = self._entries
        now = self._time = self._now()
        self._delivering = True
        try:
            while entries and entries[0][0] <= now:
                entry = heapq.heappop(entries)
                if self._is_live(entry):
                    entry[2](entry[3])
                    self._deliver_instant()
        finally:
            self._delivering = False

    @staticmethod
    def _is_live(entry: Entry) -> bool:
        timer = entry[3]
        return type(timer) is not Timer or timer.due == entry[0]
