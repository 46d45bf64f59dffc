"""The bugs that servers have survived, for who must not be blind to them: a test.

A server logs a handler's bug and serves on.  In a test nobody reads the log, so who runs tests collects them here.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from trioqt.links.interrupts import protected

__all__ = ["SurvivedBugs", "take_bugs", "tell_bug"]

# So many are kept, with their tracebacks and all that these keep alive; of the others there is a count.
KEPT = 100


@protected
class SurvivedBugs:
    """What has been collected, and nobody has taken."""

    def __init__(self) -> None:
        self._bugs: list[Exception] = []
        self.more: int = 0
        """How many more there were than are kept."""

    def add(self, bug: Exception) -> None:
        if len(self._bugs) < KEPT:
            self._bugs.append(bug)
        else:
            self.more += 1

    def take(self) -> list[Exception]:
        """Those that have come since the last call, oldest first; what is taken is nobody's failure any more."""
        taken, self._bugs, self.more = self._bugs, [], 0
        return taken

    def take_all(self) -> ExceptionGroup[Exception] | None:
        """The same in one exception, if there are any."""
        more = f", {self.more:,} more are not shown" if self.more else ""
        taken = self.take()
        return ExceptionGroup(f"handlers or socket factories of a server failed{more}", taken) if taken else None

    @contextmanager
    def collecting(self) -> Iterator[SurvivedBugs]:
        """In this block they come here, and not to whoever collected them before."""
        _collectors.append(self)
        try:
            yield self
        finally:
            _collectors.remove(self)


_collectors: list[SurvivedBugs] = []


def tell_bug(bug: Exception) -> None:
    """A server has survived it."""
    if _collectors:
        _collectors[-1].add(bug)


def take_bugs() -> list[Exception]:
    """What whoever collects them has got since the last call, oldest first.

    Raises:
      RuntimeError: nobody does.
    """
    if not _collectors:
        raise RuntimeError("handler failures are collected by simulate and by the pytest plug-in, and neither runs")
    return _collectors[-1].take()
