"""What can go wrong on a simulated network, as values.

A fault is a small frozen object: it can be printed, compared, stored, and shrunk.  It changes links or a host while it
lasts, and knows nothing of sockets.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import attrs

from trioqt.testing.fabric import Conditions

if TYPE_CHECKING:
    from trioqt.testing.virtual_network import VirtualNetwork

__all__ = ["Fault", "LinkState", "Partition"]


@attrs.frozen
class LinkState:
    """One direction of a link, with the faults that act on it."""

    conditions: Conditions
    blocked: bool = False
    held: bool = False


@attrs.frozen
class Fault:
    """Something that is wrong for a while."""

    def begin(self, net: VirtualNetwork) -> None:
        """It begins; after this links are asked through `change`."""

    def end(self, net: VirtualNetwork) -> None:
        """It is over; links are as they were already."""

    def change(self, source: str, target: str, state: LinkState) -> LinkState:
        """What becomes of the direction from ``source`` to ``target``; of several faults the last to begin has the
        last word.
        """
        return state


@attrs.frozen
class Partition(Fault):
    """Nothing comes through between two hosts, and nobody is told.

    Attributes:
      one_way: Only from ``a`` to ``b``.
    """

    a: str
    b: str
    one_way: bool = False

    def change(self, source: str, target: str, state: LinkState) -> LinkState:
        cut = (source, target) == (self.a, self.b) or (not self.one_way and (source, target) == (self.b, self.a))
        return attrs.evolve(state, blocked=True) if cut else state
