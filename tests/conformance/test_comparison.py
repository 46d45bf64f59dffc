"""The comparison notices: a trace in which one compared entry is altered is not the same any more."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator

import pytest

from tests.conformance.catalogue import all_scenarios, recorded, shared_names
from tests.conformance.comparison import compare
from tests.conformance.deviations import DEVIATIONS
from tests.conformance.trace import Entry
from tests.conformance.trioqt_backend import run

# Here Qt's sockets are being destroyed when their signals come, and their getters cannot be asked.
SILENT = ("server_destroy", "tcp_destroyed_when_connected")

# Here Qt crashes, so there is nothing beside what comes after.
CRASHED = "server_pause_not_listening"

SAME = sorted(set(all_scenarios()) - {deviation.scenario for deviation in DEVIATIONS} - {CRASHED})

Alteration = Callable[[list[Entry]], Iterator[list[Entry]]]


def altered(entries: list[Entry], index: int, **values: object) -> list[Entry]:
    changed = copy.deepcopy(entries)
    changed[index].update(values)
    return changed


def compared_signals(entries: list[Entry]) -> list[int]:
    """Where the signals are; ``bytes_written`` is compared by what it adds up to."""
    return [index for index, entry in enumerate(entries) if entry["k"] == "signal" and entry["name"] != "bytes_written"]


def with_another_order(entries: list[Entry]) -> Iterator[list[Entry]]:
    for index in compared_signals(entries):
        following = next((at for at in compared_signals(entries) if at > index), None)
        if following is None or entries[following]["obj"] != entries[index]["obj"]:
            continue
        if entries[following] != entries[index]:
            changed = copy.deepcopy(entries)
            changed[index], changed[following] = changed[following], changed[index]
            yield changed


def with_another_state(entries: list[Entry]) -> Iterator[list[Entry]]:
    for index in compared_signals(entries):
        if "state" in entries[index]:
            yield altered(entries, index, state="ListeningState")


def with_another_error(entries: list[Entry]) -> Iterator[list[Entry]]:
    for index in compared_signals(entries):
        if "error" in entries[index]:
            yield altered(entries, index, error="TemporaryError")


def with_more_bytes(entries: list[Entry]) -> Iterator[list[Entry]]:
    for index in compared_signals(entries):
        if "avail" in entries[index]:
            yield altered(entries, index, avail=entries[index]["avail"] + 1)


def with_one_signal_less(entries: list[Entry]) -> Iterator[list[Entry]]:
    for index in compared_signals(entries):
        yield entries[:index] + entries[index + 1 :]


def with_one_signal_twice(entries: list[Entry]) -> Iterator[list[Entry]]:
    for index in compared_signals(entries):
        yield entries[: index + 1] + entries[index:]


def with_another_result(entries: list[Entry]) -> Iterator[list[Entry]]:
    for index, entry in enumerate(entries):
        if entry["k"] in ("call", "ret") and "ret" in entry:
            yield altered(entries, index, ret="something else")


NOT_COMPARED = {"is_open", "open_mode", "is_readable", "is_writable", "error_string"}


def with_another_value(entries: list[Entry]) -> Iterator[list[Entry]]:
    for index, entry in enumerate(entries):
        if entry["k"] == "query" and entry["fn"] not in NOT_COMPARED:
            other = entry["value"] + 1 if isinstance(entry["value"], int) else "something else"
            yield altered(entries, index, value=other)


def with_another_sight_of_the_peer(entries: list[Entry]) -> Iterator[list[Entry]]:
    for index, entry in enumerate(entries):
        if entry["k"] == "peer":
            yield altered(entries, index, data=["something else", "eof"])


def with_other_sums_written(entries: list[Entry]) -> Iterator[list[Entry]]:
    """Of what was recorded when it was written."""
    writing = [i for i, entry in enumerate(entries) if entry["k"] == "call" and entry["fn"] in ("write", "put_char")]
    for index, entry in enumerate(entries):
        if entry["k"] == "signal" and entry["name"] == "bytes_written" and writing and index > writing[0]:
            for count in (entry["args"][0] - 1, entry["args"][0] + 1):
                yield altered(entries, index, args=[count])
            yield [*entries, entry]


def with_an_exception(entries: list[Entry]) -> Iterator[list[Entry]]:
    for index, entry in enumerate(entries):
        if entry["k"] == "call" and entry.get("ret", ...) is None:
            call = {key: value for key, value in entry.items() if key != "ret"}
            raised = {"k": "ret", "obj": entry["obj"], "fn": entry["fn"], "raised": "AttributeError"}
            yield [*entries[:index], call, raised, *entries[index + 1 :]]


ALTERATIONS: list[Alteration] = [
    with_another_order,
    with_another_state,
    with_another_error,
    with_more_bytes,
    with_one_signal_less,
    with_one_signal_twice,
    with_another_result,
    with_another_value,
    with_another_sight_of_the_peer,
    with_other_sums_written,
    with_an_exception,
]


@pytest.mark.parametrize("name", SAME)
def test_every_altered_entry_is_noticed(name: str) -> None:
    entries, _ = run(all_scenarios()[name])
    qt = recorded(name)[0]
    assert compare(qt, entries).differences == ()

    missed = [
        (alteration.__name__, number)
        for alteration in ALTERATIONS
        if name not in SILENT or alteration not in (with_another_state, with_another_error, with_more_bytes)
        for number, changed in enumerate(alteration(entries))
        if compare(qt, changed).differences == ()
    ]

    assert missed == []


@pytest.mark.parametrize(
    "alteration", [with_another_order, with_another_state, with_another_error, with_another_result, with_another_value]
)
def test_each_of_these_alterations_was_made_in_at_least_twenty_shared_scenarios(alteration: Alteration) -> None:
    made = [name for name in SAME if name in shared_names() and any(True for _ in alteration(recorded(name)[0]))]

    assert len(made) >= 20
