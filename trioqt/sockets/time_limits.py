"""When a connection is ended because no byte moves on it: a server's ``idle_limit`` and ``stall_limit``.

No connection has a timer or a task of its own.  One task looks after all of a server's, and each connection has one
entry in its queue: when it could be over a limit at the earliest.  Only then is it looked at; if a byte has moved
meanwhile, it gets a later entry.  So a busy connection costs one look in each limit's time, and a byte nothing but a
look at the clock.
"""

from __future__ import annotations

import errno
import heapq
import math

import trio

from trioqt.core.states import Input
from trioqt.links.base import Link
from trioqt.links.interrupts import protected
from trioqt.links.timed import TimedLink
from trioqt.sockets.traffic import Traffic

__all__ = ["TimeLimits"]

# So many are looked at before other tasks get their turn.
LOOKS_AT_ONCE = 64

# Entries of connections that have ended are swept out once there are more of them than others, and than this.
SWEEP_SIZE = 64

Entry = tuple[float, int, Traffic, TimedLink]
"""| when to look | a number that makes it unique | the socket | its link then |"""


@protected
class TimeLimits:
    """The limits of one server, and who watches them.

    Args:
      idle_limit: So many seconds may pass without a byte moving; None: any number.
      stall_limit: So many may while one is due.
    """

    __slots__ = ("_entries", "_idle_limit", "_number", "_scope", "_stall_limit", "_text", "_watched")

    def __init__(self, idle_limit: float | None, stall_limit: float | None) -> None:
        self._idle_limit = math.inf if idle_limit is None else idle_limit
        self._stall_limit = math.inf if stall_limit is None else stall_limit
        limits = {"idle_limit": idle_limit, "stall_limit": stall_limit}
        self._text = ", ".join(f"{name} {limit:g} s" for name, limit in limits.items() if limit is not None)
        self._entries: list[Entry] = []  # a heap
        self._number = 0
        self._watched: dict[int, TimedLink] = {}  # by the socket's id
        self._scope: trio.CancelScope | None = None  # of the task

    def __str__(self) -> str:
        return self._text

    def timed(self, link: Link) -> Link:
        """What an accepted connection has in place of ``link``."""
        return TimedLink(link, self._text)

    def watch(self, sock: Traffic, nursery: trio.Nursery) -> None:
        """``sock`` was accepted; the task, if there must be one, runs in ``nursery``."""
        link = sock._timed
        if link is None:
            return  # it has ended already
        self._watched[id(sock)] = link
        self._put(sock, link, link.moved_at + min(self._idle_limit, self._stall_limit))
        if self._scope is None:
            # Shielded as the accept task is: a shielded body may still want to be served.
            self._scope = trio.CancelScope(shield=True)
            nursery.start_soon(self._run, self._scope)

    def forget(self, sock: Traffic) -> None:
        """Its connection has ended."""
        if self._watched.pop(id(sock), None) is None:
            return
        if not self._watched:
            self._entries.clear()
            if self._scope is not None:
                self._scope.cancel(reason="there are no connections")
                self._scope = None
        elif len(self._entries) > 2 * len(self._watched) + SWEEP_SIZE:
            self._entries = [entry for entry in self._entries if self._is_watched(entry)]
            heapq.heapify(self._entries)

    def _put(self, sock: Traffic, link: TimedLink, when: float) -> None:
        self._number += 1
        heapq.heappush(self._entries, (when, self._number, sock, link))

    def _is_watched(self, entry: Entry) -> bool:
        _, _, sock, link = entry
        # A connection that set_socket_descriptor put in the place of this one is somebody else's.
        return self._watched.get(id(sock)) is link and sock._timed is link

    async def _run(self, scope: trio.CancelScope) -> None:
        """Look at each connection when its time comes, while there are any.

        An entry that is put is never due before the first one: it is looked at a whole limit later, at the latest then.
        """
        with scope:
            while self._entries:
                await trio.sleep_until(self._entries[0][0])
                # Whoever sends at this very moment is in time.  In the first turn it sends, in the second a task that
                # waits for it receives.
                await trio.lowlevel.checkpoint()
                await trio.lowlevel.checkpoint()
                await self._look_at_due(trio.current_time())
        if self._scope is scope:
            self._scope = None

    async def _look_at_due(self, now: float) -> None:
        looks = 0
        while self._entries and self._entries[0][0] <= now:
            entry = heapq.heappop(self._entries)
            if self._is_watched(entry):
                self._look(entry[2], entry[3], now)
                looks += 1
                if looks % LOOKS_AT_ONCE == 0:
                    await trio.lowlevel.checkpoint()

    def _look(self, sock: Traffic, link: TimedLink, now: float) -> None:
        """End the connection if it is over a limit; else look again when it could be."""
        due, why = self._over(sock, link, now)
        if due <= now:
            self._take_unread(sock, link)
            if sock._timed is not link:
                return  # and that found that it had ended
            due, why = self._over(sock, link, now)
        if due <= now:
            sock._fail(TimeoutError(errno.ETIMEDOUT, why), Input.READ_FAILED)
        else:
            self._put(sock, link, due)

    def _take_unread(self, sock: Traffic, link: TimedLink) -> None:
        """Take what the system holds and nobody has read: that is movement.

        So is what cannot be taken here: it has come behind a full buffer, or somebody has just begun to wait for it.

        What is queued is not offered to the system once more.  It would take some: Linux calls itself full while half
        of ``unsent_limit`` is free, whatever the peer does.
        """
        before = link.moved_at
        sock._pull(len(sock._read_buffer) + 1)
        if link.moved_at != before or sock._room() <= 0 or link.is_waited_on():
            link.correct(before)

    def _over(self, sock: Traffic, link: TimedLink, now: float) -> tuple[float, str]:
        """When it is over a limit if nothing moves, and what is said then; nothing may be due before ``now``."""
        idle = link.moved_at + self._idle_limit
        due = [(now, "something is due")]  # or may be, from now on
        if sock._queue:
            due.append((max(link.moved_at, link.queued_at), f"{len(sock._queue):,} bytes wait to be sent"))
        if self._waits_for_rest(sock, link):
            due.append((max(link.moved_at, link.asked_at), "the rest of what has begun is due"))
        since, what = min(due)
        stall = since + self._stall_limit
        if stall < idle:
            return stall, f"no byte moved for {self._stall_limit:g} s while {what}"
        return idle, f"no byte moved for {self._idle_limit:g} s"

    def _waits_for_rest(self, sock: Traffic, link: TimedLink) -> bool:
        """Is a task in a receive_... that has a part of what it wants?"""
        waits = sock._parked or (link.is_waited_on() and not sock._watcher_waits)
        return sock._receiving and waits and sock._read_buffer.held > 0
