"""Who has collected answers, and must send them when other tasks get their turn: one task for a whole run.

A task for each socket and each block of lines, which the drainer would be, costs 20 us; to wake this one costs 4, once
for all sockets that collect in the same turn.  Mostly the answers have gone by then, with the last of them.
"""

from __future__ import annotations

from typing import Final, Protocol

import trio

from trioqt.links.interrupts import protected

__all__ = ["CORKS_TASK", "Corked", "corks_of_this_run"]

CORKS_TASK: Final = "trioqt's collected answers"


class Corked(Protocol):
    """One who collects."""

    def _uncork(self) -> None:
        """Send what was collected, if it is still there.  Never raises."""


@protected
class Corks:
    """Those of one run."""

    __slots__ = ("_corked", "_task", "_waits")

    def __init__(self) -> None:
        self._corked: dict[Corked, None] = {}
        self._task: trio.lowlevel.Task | None = None
        self._waits = False

    def add(self, sock: Corked) -> None:
        """``sock`` collects from now on."""
        self._corked[sock] = None
        if self._waits:
            assert self._task is not None
            self._waits = False
            trio.lowlevel.reschedule(self._task)
        elif self._task is None:
            self._task = trio.lowlevel.spawn_system_task(self._send, name=CORKS_TASK)

    async def _send(self) -> None:
        try:
            while True:
                self._uncork_all()
                self._waits = True
                await trio.lowlevel.wait_task_rescheduled(self._stop)
        finally:
            self._waits, self._task = False, None
            self._uncork_all()  # who was added in the step of that end

    def _uncork_all(self) -> None:
        corked, self._corked = self._corked, {}
        for sock in corked:
            sock._uncork()

    def _stop(self, _: object) -> trio.lowlevel.Abort:
        """The run ends."""
        self._waits = False
        return trio.lowlevel.Abort.SUCCEEDED


CORKS = trio.lowlevel.RunVar[Corks]("corks")


def corks_of_this_run() -> Corks:
    """Whoever collects is added there."""
    try:
        return CORKS.get()
    except LookupError:
        corks = Corks()
        CORKS.set(corks)
        return corks
