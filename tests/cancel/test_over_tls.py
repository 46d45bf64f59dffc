"""Law 6 over TLS: the scenarios of one connection once more, with TLS between the socket and the network."""

from __future__ import annotations

from collections.abc import Callable

import attrs
import pytest

from tests.cancel import ending, receiving, sending, watching
from tests.cancel.kit import Case
from trioqt.testing import cancel_everywhere

EVERYTHING = (*receiving.CASES, *sending.CASES, *ending.CASES, *watching.CASES)

# One of each kind: what a variant adds is above TLS, but for bytes that are queued or unread at an end.
VARIANTS = ("", "queued", "unread", "not half-open", "watched")
# These go the ways of others.
LEFT_OUT = ("wait_send_all_might_not_block", "wait_for_bytes_written", "lines", "__anext__", "receive_until", "events")
CASES = tuple(
    attrs.evolve(case, medium="tls")
    for case in EVERYTHING
    if case.medium == "virtual" and case.variant in VARIANTS and case.situation != "second task"
    if not case.coroutine.endswith(LEFT_OUT)
)


@pytest.mark.parametrize("case", CASES, ids=str)
def test_no_place_of_it_loses_or_leaks_anything(case: Case, record_property: Callable[[str, object], None]) -> None:
    """Cancelled at every place: TLS holds nothing back, tears no message and is no end by itself."""
    report = cancel_everywhere(case.scenario(), points="any", seeds=(0,))
    record_property("cancel_everywhere", [report.places, report.missed, report.diverged])

    report.raise_if_failed()
    assert report.places > 0
    assert report.complete
