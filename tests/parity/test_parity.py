"""One specification, two networks: what a case does on the kernel's loopback it does on the simulated network.

A case says its whole outcome as one literal, so whoever reads it needs to run neither.  Files called ``cases_*.py``
are found by their name.
"""

from __future__ import annotations

import importlib
import os
import socket
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import trio
from trio.testing import MockClock

from tests.parity.cases_kit import CASES, Case, Place

for file in sorted(Path(__file__).parent.glob("cases_*.py")):
    importlib.import_module(f"tests.parity.{file.stem}")

# Where the simulated network means to differ: the name of the case, and why.
DELIBERATE: dict[str, str] = {
    "a_connection_lasts_until_its_last_duplicate_is_closed": "a simulated socket has no descriptor to duplicate",
    "a_shutdown_is_for_all_duplicates": "the same",
    "a_duplicate_is_a_socket_of_its_own": "the same",
    "the_name_that_a_closed_socket_leaves_behind_refuses": "a path is no file, so none is left",
    "the_name_that_a_closed_socket_leaves_behind_is_taken": "the same: it is free again",
    "a_path_in_no_directory_cannot_be_bound": "the same: there are no directories",
    "a_closed_socket_cannot_become_writable": "told as other calls tell it, not as a wrong descriptor (ValueError)",
}

# A kernel sends what is left over for a window too small for it only when its persist timer fires, 200 ms after the
# last answer (TCP_RTO_MIN in the kernel's tcp.h); until then a sender that looks full may not be.
KERNELS_MOMENT = 0.3

# Some dozens of 28,000 ports are in use on a busy machine: one draw in a thousand is unlucky.
ATTEMPTS = 4


def _has_ipv6() -> bool:
    try:
        with socket.socket(socket.AF_INET6) as sock:
            sock.bind(("::1", 0))
    except OSError:
        return False
    return True


async def _run(case: Case, place: Place) -> object:
    with trio.fail_after(5), place.closing:
        return await case.body(place)


def on_the_kernel(case: Case, directory: str) -> object:
    """What ``case`` gives on loopback.

    It shares its ports with every process of the machine: one of them may hold just the port that is free for IPv6 and
    is to be bound for IPv4 too.  So a result that differs is asked for again; a wrong expectation differs each time.
    """
    for number in range(ATTEMPTS):
        place = Place(f"{directory}/{number}", moment=KERNELS_MOMENT, has_ipv6=_has_ipv6())
        os.mkdir(place.directory)
        result = trio.run(_run, case, place)
        if result == case.expected:
            break
    return result


def on_the_simulated_network(case: Case, directory: str) -> object:
    """What ``case`` gives between two sockets of one simulated host."""
    from trioqt.testing import VirtualNetwork

    async def main() -> object:
        async with VirtualNetwork():
            try:
                return await _run(case, Place(directory))
            except NotImplementedError as exc:
                return f"not simulated: {exc}"

    return trio.run(main, clock=MockClock(autojump_threshold=0))


@pytest.fixture
def directory() -> Iterator[str]:
    """A directory with a short name: an AF_UNIX path has at most 107 bytes (unix(7)), pytest's own can be longer."""
    with tempfile.TemporaryDirectory() as name:
        yield name


@pytest.mark.parametrize("stack", [on_the_kernel, on_the_simulated_network], ids=["kernel", "simulated"])
@pytest.mark.parametrize("case", CASES, ids=str)
def test_it_gives_what_the_specification_says(case: Case, stack: Callable[[Case, str], Any], directory: str) -> None:
    """The same calls, the same results and the same errno, on the kernel and in memory."""
    result = stack(case, directory)

    if stack is on_the_simulated_network and case.name in DELIBERATE:
        assert result != case.expected, f"{case} no longer differs; take it out of DELIBERATE"
    else:
        assert result == case.expected


def test_the_specification_is_complete() -> None:
    """All its files were found, and together they are broad."""
    assert len(CASES) >= 300
    assert {case.theme for case in CASES} == {
        "addresses",
        "ends",
        "errors",
        "listening",
        "names",
        "options",
        "pressure",
        "streams",
        "trio",
        "udp",
        "unix",
    }


def test_every_case_has_a_name_of_its_own() -> None:
    """A name in DELIBERATE means one case, and one that exists."""
    names = Counter(case.name for case in CASES)

    assert [name for name, count in names.items() if count > 1] == []
    assert DELIBERATE.keys() - names.keys() == set()
