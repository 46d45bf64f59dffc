"""One wait for all kernel sockets of a run that are busy at the same time.  A shortcut: nothing depends on it.

With trio's own wait each socket is armed in trio's epoll, and disarmed when it wakes, for every message.  Here each is
registered once, edge-triggered, in an epoll of our own, and one task waits for that.  So a message costs no system call
of its own but ``recv`` and ``send``, and no wait through trio's layers.  That pays once a few sockets wake together,
and costs where each wakes alone, because the task comes on top; so it is tried when waits come from changing sockets,
and kept up while it brings enough of them at once.

An edge is told once, so who waits here must have found the socket empty: ``Watched.drained``, which an edge takes back.
Whatever an edge can say besides that bytes came (the peer's end, an error, urgent data, at which ``recv`` stops short)
leaves that in doubt for good, and such a socket waits in trio's own way from then on, which looks at what is so.

Only Linux has epoll; elsewhere, and where epoll fails, every socket waits in trio's own way.
"""

from __future__ import annotations

import contextlib
import os
import select
import sys
import weakref
from collections.abc import Awaitable
from typing import Final, cast

import outcome
import trio

from trioqt.links.interrupts import protected

__all__ = ["POLLER_TASK", "Poller", "Watched", "poller_of_this_run"]

POLLER_TASK: Final = "trioqt's poller"

# What one step takes at most; more than so many sockets come with the next, after who was woken has had its turn.
AT_ONCE: Final = 1024

# So many looks are counted before it is judged whether they bring enough; fewer if nobody is left before.
TRIAL: Final = 16

# How many tasks it must wake on average.  Who finds bytes without waiting, as after a ``send_all``, gains nothing here.
ENOUGH: Final = 3

# After so many waits that each came from another socket than the one before it is tried; and if it did not pay after
# twice as many, up to the most.
FEWEST_CHANGES, MOST_CHANGES = 16, 4096

if sys.platform == "linux":
    PLAIN: Final = select.EPOLLIN
    EDGES: Final = select.EPOLLIN | select.EPOLLRDHUP | select.EPOLLPRI | select.EPOLLET


@protected
class Woken:
    """What a task wakes with, as an outcome.  Trio would make a new one for each, for 0.5 us."""

    __slots__ = ()

    def unwrap(self) -> None:
        """What its wait returns."""


WOKEN = cast("outcome.Outcome[None]", Woken())


@protected
class Watched:
    """What the poller knows of a link, and a link of its wait there."""

    __slots__ = ("__weakref__", "descriptor", "drained", "only_levels", "task")

    def __init__(self) -> None:
        self.drained: bool = True
        """The last ``recv`` took all there was, and nothing has come since, as far as one knows."""
        self.descriptor: int = -1
        """By which it is registered with the poller; -1: it is not."""
        self.only_levels: bool = False
        """It cannot wait for edges any more."""
        self.task: trio.lowlevel.Task | None = None
        """Which waits for the next edge."""

    def fileno(self) -> int:
        """The socket's descriptor."""
        raise NotImplementedError

    def wait_for_edge(self) -> Awaitable[None]:
        """Wait until the poller wakes this; to be awaited at once.

        No coroutine of its own: of an idle connection that is 211 bytes of 3,800.
        """
        if self.task is not None:
            raise trio.BusyResourceError("another task waits for this socket")
        self.task = trio.lowlevel.current_task()
        return trio.lowlevel.wait_task_rescheduled(self)  # noqa: ASYNC105  (the caller awaits it)

    def __call__(self, _: object) -> trio.lowlevel.Abort:
        """The task is cancelled: trio calls what it was given then.  A bound method would be 64 bytes more."""
        self.task = None
        return trio.lowlevel.Abort.SUCCEEDED


@protected
class Poller:
    """The epoll of a run, and who waits for it."""

    __slots__ = ("_changes", "_epoll", "_last", "_looks", "_pid", "_wait", "_watched", "_woken", "shares")

    def __init__(self) -> None:
        self.shares: bool = False
        """Do sockets that begin to wait do so here?"""
        self._epoll: select.epoll | None = None
        self._pid = os.getpid()
        # By descriptor, and weak: a connection that somebody drops without closing it is collected as ever.
        self._watched: dict[int, weakref.ref[Watched]] = {}
        self._last = 0  # the identity of the link that began to wait last
        self._changes = 0  # how often that was another than before
        self._wait = FEWEST_CHANGES  # how many of these there must be
        self._looks = self._woken = 0  # in this trial

    def wait(self, watched: Watched) -> Awaitable[None]:
        """Wait until something comes, for a link that is drained."""
        if self.shares:
            if watched.descriptor != -1 or self._take_in(watched):
                return watched.wait_for_edge()
        else:
            if id(watched) != self._last:
                self._last = id(watched)
                self._changes += 1
                if self._changes >= self._wait:  # see whether it pays now
                    self._changes = self._looks = self._woken = 0
                    self.shares = True
            if watched.descriptor != -1:
                self.forget(watched)  # its edges would wake us for nothing
        return trio.lowlevel.wait_readable(watched.fileno())  # noqa: ASYNC105  (the caller awaits it)

    def wake(self, watched: Watched) -> None:
        """The task that waits, if one does, wakes with ``trio.ClosedResourceError``."""
        task, watched.task = watched.task, None
        if task is not None:
            trio.lowlevel.reschedule(task, outcome.Error(trio.ClosedResourceError("another task closed this socket")))

    def forget(self, watched: Watched) -> None:
        """Its edges are not told any more; before its descriptor is closed.

        The kernel forgets it by itself only once the last descriptor of the same socket is closed, in whatever process.
        """
        descriptor, watched.descriptor = watched.descriptor, -1
        known = self._watched.get(descriptor)
        if known is None or known() is not watched:
            return  # somebody has closed the descriptor below us, and the number is another's now
        del self._watched[descriptor]
        # A forked process has the same epoll, and must leave it to the one that uses it.
        if self._epoll is not None and os.getpid() == self._pid:
            with contextlib.suppress(OSError, ValueError):
                self._epoll.unregister(descriptor)
            if not self._watched:
                self._end()  # nobody is left to wait for

    def _take_in(self, watched: Watched) -> bool:
        """Register it; False if it has to wait in trio's own way."""
        if watched.only_levels:
            return False
        descriptor = watched.fileno()
        try:
            if self._epoll is None:
                self._epoll = select.epoll()
                trio.lowlevel.spawn_system_task(self._run, self._epoll, name=POLLER_TASK)
            # If something is there already, that is an edge.
            self._epoll.register(descriptor, EDGES)
        except (OSError, ValueError):  # the system has no more room for it
            watched.only_levels = True
            if self._epoll is not None and not self._watched:
                self._end()
            return False
        self._watched[descriptor] = weakref.ref(watched)
        watched.descriptor = descriptor
        return True

    async def _run(self, epoll: select.epoll) -> None:
        try:
            while self._epoll is epoll:
                await trio.lowlevel.wait_readable(epoll.fileno())
                # While many are busy the next look needs no wait through trio's epoll, but only a turn of the others.
                while self._epoll is epoll and self._deliver(epoll) >= ENOUGH:
                    await trio.lowlevel.checkpoint()
        except trio.ClosedResourceError:  # nobody is left
            pass
        except (OSError, ValueError):  # somebody has closed all descriptors, ours too
            self._wait = sys.maxsize
        finally:
            if self._epoll is epoll:
                self._end()

    def _deliver(self, epoll: select.epoll) -> int:
        """Wake who has waited for what came; how many tasks that were."""
        woken = 0
        events = epoll.poll(0, AT_ONCE)
        for descriptor, what in events:
            known = self._watched.get(descriptor)
            watched = None if known is None else known()
            if watched is None:
                continue
            watched.drained = False
            if what != PLAIN:
                watched.only_levels = True
                self.forget(watched)
            task = watched.task
            if task is not None:
                watched.task = None
                trio.lowlevel.reschedule(task, WOKEN)
                woken += 1
        if events:
            self._count(woken)
        return woken

    def _count(self, woken: int) -> None:
        """One more look; enough of them are judged."""
        self._looks += 1
        self._woken += woken
        if self._looks >= TRIAL:
            self._judge()

    def _judge(self) -> None:
        """Did it pay?"""
        if self._woken >= max(self._looks, 1) * ENOUGH:
            self._wait = FEWEST_CHANGES
        elif self.shares:
            self.shares = False
            self._wait = min(2 * self._wait, MOST_CHANGES)
        self._looks = self._woken = 0

    def _end(self) -> None:
        """Nobody is left, or the run ends, or the epoll has failed: who waits here goes on in trio's own way."""
        epoll, self._epoll = self._epoll, None
        assert epoll is not None
        if self.shares:
            # A trial that is cut short counts: where each connection has ended before the next comes, no other kind
            # would come, and the epoll and its task would be made anew for each 17th of them.
            self._judge()
            self.shares = False
        for known in self._watched.values():
            watched = known()
            if watched is not None:
                watched.descriptor = -1
                task, watched.task = watched.task, None
                if task is not None:
                    trio.lowlevel.reschedule(task, WOKEN)
        self._watched.clear()
        if not epoll.closed:
            trio.lowlevel.notify_closing(epoll.fileno())
            epoll.close()


POLLER = trio.lowlevel.RunVar[Poller]("poller")


def poller_of_this_run() -> Poller | None:
    """The poller, where there can be one."""
    if sys.platform != "linux":
        return None
    try:
        return POLLER.get()
    except LookupError:
        poller = Poller()
        POLLER.set(poller)
        return poller
    except RuntimeError:  # outside of a run
        return None
