"""The clock of one simulated host: trio's, with the faults that act on it.

Nothing here asks the time; whoever reads the clock says what trio's shows.
"""

from __future__ import annotations

from trioqt.links.interrupts import protected

__all__ = ["HostClock"]


@protected
class HostClock:
    """Two clocks, as a machine has them: one that only counts, and one on the wall that is set right."""

    __slots__ = ("_counted", "_is_wrong", "_rate", "_right", "_seconds", "_since")

    def __init__(self) -> None:
        self._seconds = 0.0
        self._rate = 1.0
        self._is_wrong = False
        self._since = 0.0  # trio's time when it was last changed
        self._counted = 0.0  # what it had counted then
        self._right = 0.0  # what it had counted too much when it was last right

    def change(self, now: float, seconds: float, rate: float) -> None:
        """From now on it is so many seconds ahead, and goes so many times as fast as it should.

        When nothing is wrong any more the wall clock is right again at once.  The one that counts never goes back.
        """
        if (seconds, rate) == (self._seconds, self._rate):
            return
        self._counted = self.elapsed(now)
        self._since = now
        if not self._is_wrong:
            self._right = self._counted - now
        self._seconds, self._rate = seconds, rate
        self._is_wrong = (seconds, rate) != (0.0, 1.0)

    def elapsed(self, now: float) -> float:
        """What it has counted."""
        return self._counted + (now - self._since) * self._rate

    def shown(self, now: float) -> float:
        """What the wall shows, in seconds since trio's 0."""
        if not self._is_wrong:
            return now
        return now + self._seconds + (self.elapsed(now) - now - self._right)
