"""Law 6 at every boundary: each public coroutine, in each situation, cancelled everywhere."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator

import pytest

import trioqt
from tests.cancel import connecting, ending, receiving, sending, serving, watching
from tests.cancel.kit import Case, Situation
from trioqt.testing import cancel_everywhere

CASES: list[Case] = [
    case for module in (connecting, receiving, sending, ending, watching, serving) for case in module.CASES
]

CLASSES = (trioqt.TcpSocket, trioqt.TcpServer)

# Where a situation cannot be: a coroutine that neither receives nor sends never meets a full queue, and so on.
SENDS = {"send_all", "wait_send_all_might_not_block", "wait_for_bytes_written", "send_eof"}
RECEIVES = {
    "receive_some",
    "__anext__",
    "receive_line",
    "receive_until",
    "receive_exactly",
    "wait_for_ready_read",
    "lines",
}


def public_coroutines() -> Iterator[str]:
    """Every async method of the public classes, the protocols' own included."""
    for cls in CLASSES:
        for name in dir(cls):
            if not name.startswith("_") or name in ("__aenter__", "__aexit__", "__anext__"):
                if inspect.iscoroutinefunction(getattr(cls, name)):
                    yield f"{cls.__name__}.{name}"


def test_every_public_coroutine_is_in_the_list() -> None:
    """A new coroutine needs its scenarios here."""
    assert set(public_coroutines()) - {case.coroutine for case in CASES} == set()


@pytest.mark.parametrize("name", sorted(SENDS | RECEIVES))
def test_what_receives_and_sends_is_tried_in_every_situation(name: str) -> None:
    """At once, waiting, at the peer's end and reset, on a full queue, beside a second task."""
    tried: set[Situation] = {case.situation for case in CASES if case.coroutine == f"TcpSocket.{name}"}

    wanted: set[Situation] = {"answered at once", "has to wait", "peer finishes", "peer resets", "second task"}
    if name in SENDS:
        wanted.add("full queue")
    assert wanted - tried == set()


@pytest.mark.parametrize("case", CASES, ids=str)
def test_a_coroutine_cancelled_at_every_boundary_keeps_its_word(
    case: Case, record_property: Callable[[str, object], None]
) -> None:
    """Nothing lost, nothing doubled, nothing left: whatever the moment."""
    report = cancel_everywhere(case.scenario())

    record_property("cancel_everywhere", [report.places, report.missed, report.diverged])
    report.raise_if_failed()
    assert report.places > 0
