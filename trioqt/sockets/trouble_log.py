"""What a server logs of its troubles: a bounded number of records for each kind, with a count of what was left out.

Peers can make a server fail as often as they like, so what they cost in the log must not depend on them.
"""

from __future__ import annotations

import logging
import math
import sys
import traceback
from collections.abc import Hashable

import attrs
import trio

__all__ = ["PERIOD", "RECORDS", "TroubleLog"]

# At most so many records of one kind in a period, in seconds; the last of them says how many were left out.  500
# failing handlers wrote 3,500 lines, and a server out of descriptors wrote one a second for as long as it was.
RECORDS = 10
PERIOD = 60.0

# So many kinds are told apart, for a handler can raise a new class each time; the others share one.
KINDS = 100
OTHERS = "others"


@attrs.define
class _Period:
    """What has been told of one kind since its first record."""

    over: float
    next: float = -math.inf
    told: int = 0
    left_out: int = 0
    last: tuple[int, str] = (logging.NOTSET, "")


class TroubleLog:
    """The records of one server.

    Args:
      nursery: Where the task lives that tells, at the end of a period, what was left out in it.  There is none while
        nothing was.
    """

    def __init__(self, logger: logging.Logger, nursery: trio.Nursery) -> None:
        self._logger = logger
        self._nursery = nursery
        self._periods: dict[Hashable, _Period] = {}
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
        if kind not in self._periods and len(self._periods) >= KINDS:
            self._forget_old(now)
            if len(self._periods) >= KINDS:
                kind = OTHERS
        period = self._periods.get(kind)
        if period is None or now >= period.over:
            if period is not None:
                self._sum_up(period)
            period = self._periods[kind] = _Period(now + PERIOD)
        if period.told < RECORDS - 1 and now >= period.next:
            period.told += 1
            period.next = now + spacing
            self._write(level, message, exc)
            return
        period.left_out += 1
        period.last = (level, message)
        if not self._is_waiting:
            self._is_waiting = True
            self._nursery.start_soon(self._wait)

    def end(self) -> None:
        """Tell now what was left out: nothing more will come."""
        for period in self._periods.values():
            self._sum_up(period)
        self._periods.clear()

    async def _wait(self) -> None:
        while due := [period.over for period in self._periods.values() if period.left_out]:
            await trio.sleep_until(min(due))
            self._forget_old(trio.current_time())
        self._is_waiting = False

    def _forget_old(self, now: float) -> None:
        for kind, period in list(self._periods.items()):
            if now >= period.over:
                self._sum_up(period)
                del self._periods[kind]

    def _sum_up(self, period: _Period) -> None:
        if period.left_out:
            level, message = period.last
            self._write(level, f"{message} (the last of {period.left_out:,} records that were left out)", None)
            period.left_out = 0

    def _write(self, level: int, message: str, exc: BaseException | None) -> None:
        try:
            self._logger.log(level, "%s", message, exc_info=exc)
        except Exception:  # of a handler of the program's: a full disk must not end a server
            if logging.raiseExceptions and sys.stderr is not None:  # as logging itself tells of it
                traceback.print_exc()
