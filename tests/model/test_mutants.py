"""The model can fail: mistakes of the real sockets are noticed when they are put back."""

from __future__ import annotations

import pytest

from tests.model.mutants import MUTANTS, GivesUp
from tests.model.play import play
from tests.model.world import Wrong
from trioqt import TcpSocket

# A kernel delivers what it holds, also in front of a reset, if it holds little.
CASES = [(mutant, medium) for mutant in MUTANTS for medium in ("virtual", "loopback")]
CASES.remove((GivesUp, "loopback"))


@pytest.mark.parametrize(("mutant", "medium"), CASES)
def test_a_mutant_is_noticed_by_a_plan_that_the_real_socket_passes(mutant: type[TcpSocket], medium: str) -> None:
    """A model that never fails shows nothing."""
    plan = MUTANTS[mutant]

    play(plan, medium)
    with pytest.raises(Wrong):
        play(plan, medium, mutant)
