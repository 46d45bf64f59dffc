"""The two clocks of a simulated TCP connection: when to repeat what was lost, and when to ask a silent peer.

While nothing is wrong neither runs, so an idle network stays idle.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Final, Protocol

from trioqt.links.interrupts import protected
from trioqt.testing.network.fabric import Fabric, Path, Timer
from trioqt.testing.network.host import Host

__all__ = ["KeepAlive", "Retry", "Watched"]

# Linux: TCP_RTO_MAX, in seconds.
MAX_TIMEOUT: Final = 120.0


@protected
class Retry:
    """When to repeat, and how often: pauses that double."""

    __slots__ = ("_fabric", "_stalled_at", "_timer", "count")

    def __init__(self, fabric: Fabric, repeat: Callable[[], None]) -> None:
        self._fabric = fabric
        self._timer = Timer(fabric, repeat)
        self._stalled_at = 0.0
        self.count: int = 0
        """How often it was repeated since the peer last acknowledged something."""

    def is_set(self) -> bool:
        return self._timer.is_set()

    def set(self, pause: float, limit: float, departed: float) -> None:
        """Repeat what departed then, or just now if that is negative.

        Args:
          pause: Before the first repetition.
          limit: How long to go on in all (TCP_USER_TIMEOUT); it shortens the last pause.
        """
        if not self.count:
            self._stalled_at = self._fabric.now()
        age = self._fabric.now() - departed if departed >= 0 else 0.0
        pause = min(pause * 2**self.count, MAX_TIMEOUT)
        self._timer.set(max(min(pause - age, self.time_left(limit)), 0.0))

    def time_left(self, limit: float) -> float:
        """Until the limit ends it."""
        return limit - (self._fabric.now() - self._stalled_at)

    def progress(self) -> bool:
        """The peer has acknowledged something: what comes to a stop now is a new story.  True: it is set."""
        self.count = 0
        self._stalled_at = self._fabric.now()
        return self._timer.due < math.inf

    def stop(self) -> None:
        self._timer.stop()


class Settings(Protocol):
    """The socket options about silent peers."""

    keep_alive: bool

    @property
    def user_timeout(self) -> float: ...
    @property
    def keep_alive_times(self) -> tuple[float, float, int]:
        """| idle | interval | count |, in seconds."""


class Watched(Protocol):
    """What `KeepAlive` needs of its connection."""

    @property
    def host(self) -> Host: ...
    @property
    def peer(self) -> Watched | None: ...
    @property
    def path(self) -> Path | None:
        """To the peer."""

    @property
    def settings(self) -> Settings: ...
    def is_connected(self) -> bool: ...
    def is_gone(self) -> bool: ...
    def ask(self) -> None:
        """Send a segment that wants an answer."""

    def owes_nothing(self) -> bool:
        """Is all that was sent acknowledged?"""

    def give_up_peer(self) -> None:
        """It is silent for too long."""


@protected
class KeepAlive:
    """Whether a silent peer is still there (SO_KEEPALIVE)."""

    __slots__ = ("_heard_at", "_probes", "_timer", "_watched")

    def __init__(self, watched: Watched) -> None:
        self._watched = watched
        self._timer = Timer(watched.host.fabric, self._probe)
        self._heard_at = 0.0
        self._probes = 0

    def heard(self) -> None:
        """The peer has said something."""
        self._heard_at = self._watched.host.fabric.now()
        self._probes = 0

    def start(self) -> None:
        """Count from now, as the options want it."""
        self.heard()
        self._probe_in(self._watched.settings.keep_alive_times[0])

    def wake(self) -> None:
        """Something has gone wrong."""
        self._timer.wake()

    def stop(self) -> None:
        self._timer.stop()

    def _probe_in(self, delay: float) -> None:
        """While nothing is wrong every probe is answered, so none is sent: an idle network stays idle."""
        peer, fabric = self._watched.peer, self._watched.host.fabric
        is_well = not fabric.in_trouble and not (peer is not None and peer.is_gone())
        self._timer.set(delay, asleep=is_well)

    def _probe(self) -> None:
        watched = self._watched
        idle, interval, count = watched.settings.keep_alive_times
        path, peer = watched.path, watched.peer
        if not watched.is_connected() or path is None or peer is None:
            return
        if not watched.owes_nothing():
            self._probe_in(idle)  # what waits for an answer already needs no question (Linux: tcp_keepalive_timer)
            return
        silent = watched.host.fabric.now() - self._heard_at
        if not path.is_stopped() and not peer.host.path(watched.host).is_stopped():
            if peer.is_gone():
                watched.ask()  # the answer is a reset
            else:
                self._probes = 0
                self._probe_in(until_next(silent, idle))
        elif not self._probes and not is_multiple(silent, idle):
            self._probe_in(until_next(silent, idle))  # the last probe was answered, before this trouble
        elif self._is_silent_too_long(silent, count):
            watched.give_up_peer()
        else:
            self._probes += 1
            self._probe_in(interval)

    def _is_silent_too_long(self, silent: float, count: int) -> bool:
        """By the questions without an answer; but as Linux has it, by TCP_USER_TIMEOUT if there is one."""
        limit = self._watched.settings.user_timeout
        return self._probes > 0 and silent > limit - 1e-6 if limit else self._probes >= count


def until_next(time: float, period: float) -> float:
    """The rest of the period; of one that is over to a microsecond, the next one too.

    A pause that is too short to move the clock would be set again and again at the same time.
    """
    rest = period - time % period
    return rest if rest > 1e-6 else rest + period


def is_multiple(time: float, period: float) -> bool:
    """To a microsecond."""
    rest = time % period
    return time > period / 2 and min(rest, period - rest) < 1e-6
