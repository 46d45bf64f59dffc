"""Law 6 for every public coroutine: cancelled means it did not happen, at every single place.

Each test walks one scenario, in a ``trio.run`` of its own for each place, so they are plain functions.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

import pytest

from tests.cancel.kit import Case, Medium
from tests.cancel.scenarios import CASES, EXCUSED, OF_THE_KERNEL, SENDS, SITUATIONS, public_coroutines
from trioqt.testing import cancel_everywhere

# Two schedules where they cost least.  What the kernel does in the second one, the simulated network does too.
SEEDS: dict[Medium, tuple[int, ...]] = {
    "memory": (0, 1),
    "virtual": (0, 1),
    "loopback": (0,),
    "distant": (0,),
    "tls": (0,),
}


@pytest.mark.parametrize("case", CASES, ids=str)
def test_no_place_of_it_loses_or_leaks_anything(case: Case, record_property: Callable[[str, object], None]) -> None:
    """Cancelled at every place of its schedules, the scenario keeps every byte, connection, event and slot."""
    report = cancel_everywhere(case.scenario(), points="any", seeds=SEEDS[case.medium])
    record_property("cancel_everywhere", [report.places, report.missed, report.diverged])

    report.raise_if_failed()
    assert report.places > 0
    assert report.scheduler_pinned
    # The kernel may be late on a loaded machine, so over loopback a run may leave the schedule.  It is then counted.
    # Nowhere else is there a kernel.
    assert report.complete or case.medium == "loopback"


def test_every_public_coroutine_is_walked() -> None:
    """Whoever adds a public coroutine adds its scenarios."""
    assert {case.coroutine for case in CASES} == public_coroutines()


@pytest.mark.parametrize("coroutine", sorted(public_coroutines()))
def test_it_is_walked_in_every_situation(coroutine: str) -> None:
    """At once, waiting, its peer finishing or resetting, beside a second task; a send with a full queue, too."""
    walked = {case.situation for case in CASES if case.coroutine == coroutine}
    excused = set(EXCUSED.get(coroutine, {}))

    assert walked | excused == {*SITUATIONS, *(["full queue"] if coroutine in SENDS else [])}
    assert not walked & excused


def test_what_is_walked_on_the_kernel_is_walked_on_the_simulated_network() -> None:
    """So the walks on the simulated one, where no place is ever missed, leave nothing out."""
    kernel, simulated = (
        {(case.coroutine, case.situation, case.variant) for case in CASES if case.medium == medium}
        for medium in ("loopback", "virtual")
    )

    assert simulated == {walk for walk in kernel if walk[0] not in OF_THE_KERNEL}
    assert {coroutine for coroutine, _, _ in kernel - simulated} == set(OF_THE_KERNEL)


def test_every_scenario_has_a_name_of_its_own() -> None:
    """A failure names its scenario, and the name finds it."""
    names = Counter(str(case) for case in CASES)

    assert [name for name, count in names.items() if count > 1] == []
