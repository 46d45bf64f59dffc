"""The scenarios can fail: nine mutants of the real classes are each caught, on either network."""

from __future__ import annotations

import pytest

from tests.cancel.kit import Medium
from tests.cancel.mutants import MUTANTS
from tests.cancel.scenarios import find_case
from trioqt import TcpServer, TcpSocket, UdpSocket
from trioqt.testing import cancel_everywhere


@pytest.mark.parametrize("medium", ["loopback", "virtual"])
@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.__name__)
def test_a_mutant_is_caught_by_a_scenario_that_the_real_class_passes(mutant: type, medium: Medium) -> None:
    """A scenario that never fails shows nothing; this one fails as soon as the mistake is there."""
    name, kind = MUTANTS[mutant]
    case = find_case(f"{name}, {medium}")
    if issubclass(mutant, TcpSocket):
        mutated = case.scenario(mutant, TcpServer)
    elif issubclass(mutant, UdpSocket):
        mutated = case.scenario(udp_class=mutant)
    else:
        assert issubclass(mutant, TcpServer)
        mutated = case.scenario(TcpSocket, mutant)

    report, real = cancel_everywhere(mutated, seeds=(0,)), cancel_everywhere(case.scenario(), seeds=(0,))

    assert real.ok, str(real)
    assert report.complete or medium == "loopback"
    assert not report.ok
    assert all(failure.boundary is not None for failure in report.failures), "the mutant works when nobody cancels"
    assert kind == "" or report.count_problems()[kind] > 0, str(report)
