"""What a server logs of its troubles: a bounded number of records for each kind, with a count of what was left out.

Peers can make a server fail as often as they like, so what they cost in the log must not depend on them.
"""

from __future__ import annotations

import contextlib
import logging
import sys
import traceback
from collections import deque
from collections.abc import Hashable

import attrs
import trio

from trioqt.core.errors import traceback_of
from trioqt.links.interrupts import protected

__all__ = ["PERIOD", "RECORDS", "TroubleLog"]

# At most so many records of one kind in any period, in seconds; the last of them says how many were left out.  500
# failing handlers wrote 3,500 lines, and a server out of descriptors wrote one a second for as long as it was.
RECORDS = 10
PERIOD = 60.0

# So many kinds are told apart, for a handler can raise a new class each time; the others share one.
KINDS = 100
OTHERS = "others"


@protected
@attrs.define
class _Kind:
    """What has been told of one kind of trouble, and what has not."""

    told: deque[float] = attrs.field(factory=deque)
    """When, in the last period."""
    left_out: int = 0
    due: float = 0.0
    """When it is time to say so."""
    last: tuple[int, str] = (logging.NOTSET, "")

    def forget(self, now: float) -> None:
        """What was told a period ago does not count any more."""
        while self.told and self.told[0] + PERIOD <= now:
            self.told.popleft()

    def has_room(self, now: float, spacing: float) -> bool:
        """May one more be told, with one kept for what is left out?"""
        self.forget(now)
        return len(self.told) < RECORDS - 1 and not (self.told and now < self.told[-1] + spacing)


@protected
class TroubleLog:
    """The records of one server.

    Args:
      nursery: Where the task lives that tells, a period after something was left out, how much was.  There is none
        while nothing was.
    """

    def __init__(self, logger: logging.Logger, nursery: trio.Nursery) -> None:
        self._logger = logger
        self._nursery: trio.Nursery | None = nursery
        self._kinds: dict[Hashable, _Kind] = {}
        self._is_waiting = False

    def tell(
        self, kind: Hashable, level: int, message: str, *, exc: BaseException | None = None, spacing: float = 0.0
    ) -> None:
        """Log ``message``, with the traceback of ``exc``, if that is within the bounds.

        Args:
          kind: Of the trouble; each has bounds of its own.
          spacing: So many seconds lie between two records of this kind.
        """
        now = trio.current_time()
        entry = self._kinds.get(kind)
        if entry is None:
            if len(self._kinds) >= KINDS:
                self._forget_old(now)
            entry = self._kinds.setdefault(kind if len(self._kinds) < KINDS else OTHERS, _Kind())
        if entry.has_room(now, spacing):
            entry.told.append(now)
            self._write(level, message, exc)
            return
        if not entry.left_out:
            entry.due = now + PERIOD
        entry.left_out += 1
        entry.last = (level, message)
        if not self._is_waiting and self._nursery is not None:
            self._is_waiting = True
            self._nursery.start_soon(self._wait)

    def end(self) -> None:
        """Tell what was left out: the block has ended.  What comes later is told, or left out until the next call."""
        self._nursery = None
        for entry in list(self._kinds.values()):
            self._sum_up(entry)

    async def _wait(self) -> None:
        while due := [entry.due for entry in self._kinds.values() if entry.left_out]:
            await trio.sleep_until(min(due))
            now = trio.current_time()
            for entry in list(self._kinds.values()):
                if entry.left_out and now >= entry.due:
                    entry.forget(now)
                    entry.told.append(now)
                    self._sum_up(entry)
        self._is_waiting = False

    def _forget_old(self, now: float) -> None:
        for kind, entry in list(self._kinds.items()):
            entry.forget(now)
            if not entry.told and not entry.left_out:
                del self._kinds[kind]

    def _sum_up(self, entry: _Kind) -> None:
        if entry.left_out:
            level, message = entry.last
            count, entry.left_out = entry.left_out, 0
            self._write(level, f"{message} (the last of {count:,} records that were left out)", None)

    def _write(self, level: int, message: str, exc: BaseException | None) -> None:
        try:
            self._logger.log(level, "%s", message, exc_info=exc)
        except Exception:  # of a handler of the program's: a full disk must not end a server
            if exc is not None and traceback_of(exc) is None:
                self._write(level, f"{message} by {type(exc).__name__}, which cannot be shown", None)
            elif logging.raiseExceptions and sys.stderr is not None:  # as logging itself tells of it
                with contextlib.suppress(Exception):  # that may be broken, or closed, as well
                    print(f"cannot log: {message}", file=sys.stderr)
                    traceback.print_exc()
