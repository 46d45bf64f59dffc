"""A whole day's trouble on twenty hosts comes out the same wherever it is played again."""

from __future__ import annotations

import os

import pytest

from tests.testing.simulation import twenty_hosts
from trioqt.testing.simulation.replay import assert_replays
from trioqt.testing.simulation.simulate import Settings, Simulation

# Beside this one; `nox -s soak` wants nine.
PROCESSES = int(os.environ.get("TRIOQT_SOAK", "2"))

# A day on which connections are refused, reset and too slow.
SEED = 2


def play(seed: int) -> tuple[str, dict[str, int], list[str]]:
    settings = Settings(network=twenty_hosts.network)
    finished = Simulation(twenty_hosts.main, (), seed, settings, f"seed {seed}", "").run()
    kinds = sorted({str(event).split()[1] for event in finished.events})
    return finished.digest, finished.result, kinds


def test_much_goes_wrong_and_much_goes_well() -> None:
    """Else the other tests would prove little."""
    _, tally, kinds = play(seed=SEED)

    assert tally["ok"] > 80
    assert len(tally) >= 4
    assert {"DATA", "FIN", "RST", "SYN", "SYN-ACK", "crash", "fault", "heal", "lookup", "lost", "restart"} <= set(kinds)


@pytest.mark.parametrize("process", range(PROCESSES))
def test_it_replays_in_other_processes(process: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Event by event, in a process with another hash seed and another heap: three processes with this one."""
    monkeypatch.setenv("PYTHONHASHSEED", str(100 + process))

    assert_replays(twenty_hosts.main, seed=SEED, network=twenty_hosts.network)


def test_ten_seeds_give_ten_days() -> None:
    """No two digests are the same."""
    assert len({play(seed)[0] for seed in range(10)}) == 10
