"""Trio's scheduler is held still for a block, and let go after it."""

from __future__ import annotations

import random
import subprocess
import sys
import warnings

import pytest
import trio
import trio._core._run

from trioqt.testing import Probe, cancel_everywhere, determinism
from trioqt.testing.determinism import missing_private_names, pinned_scheduler

# Twelve tasks take turns; what they print is the order.  The list of garbage shifts the heap, as another history would.
PROGRAM = """
import sys, trio
from trioqt.testing.determinism import pinned_scheduler

garbage = [object() for _ in range(int(sys.argv[1]))]

async def main():
    async def turn(number):
        for _ in range(3):
            await trio.lowlevel.checkpoint()
            print(number, end=" ")
    async with trio.open_nursery() as nursery:
        for number in range(12):
            nursery.start_soon(turn, number)

with pinned_scheduler() as reseed:
    reseed(int(sys.argv[2]))
    trio.run(main)
"""


def schedule(shift: int, seed: int) -> str:
    command = [sys.executable, "-c", PROGRAM, str(shift), str(seed)]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def test_a_seed_gives_one_schedule_in_every_process() -> None:
    same = {schedule(shift, seed=7) for shift in (0, 1001)}

    assert len(same) == 1
    assert schedule(0, seed=8) not in same


def test_the_scheduler_is_as_random_as_before_afterwards() -> None:
    coin: random.Random = trio._core._run._r
    before = (coin.getstate(), trio._core._run._ALLOW_DETERMINISTIC_SCHEDULING)

    with pinned_scheduler() as reseed:
        reseed(1)
        assert trio._core._run._ALLOW_DETERMINISTIC_SCHEDULING

    assert (coin.getstate(), trio._core._run._ALLOW_DETERMINISTIC_SCHEDULING) == before


def test_this_trio_has_the_private_names() -> None:
    """When this fails, trio has moved them: the walk still works, and says that it is not pinned."""
    assert missing_private_names() == ()


def test_without_the_private_names_a_warning_comes_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(determinism, "_COIN", "_gone")
    monkeypatch.setattr(determinism, "_warned", False)

    async def scenario(probe: Probe) -> None:
        await probe.subject(trio.sleep, 1)

    with pytest.warns(RuntimeWarning, match=r"no trio\._core\._run\._gone") as caught:
        report = cancel_everywhere(scenario)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        cancel_everywhere(scenario)

    assert missing_private_names() == ("trio._core._run._gone",)
    assert len(caught) == 1
    assert caught[0].filename.endswith("cancel_everywhere.py")
    assert report.ok
    assert not report.scheduler_pinned
