"""The model can fail: mistakes of the real sockets are noticed when they are put back."""

from __future__ import annotations

import pytest

from tests.model.mutants import MUTANTS
from tests.model.play import play
from tests.model.world import Wrong
from trioqt import TcpSocket


@pytest.mark.parametrize("medium", ["virtual", "loopback"])
@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.__name__)
def test_a_mutant_is_noticed_by_a_plan_that_the_real_socket_passes(mutant: type[TcpSocket], medium: str) -> None:
    """A model that never fails shows nothing."""
    plan = MUTANTS[mutant]

    play(plan, medium)
    with pytest.raises(Wrong):
        play(plan, medium, mutant)
