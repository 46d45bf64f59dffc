"""The comparison notices: a trace in which one compared entry is altered is not the same any more."""

from __future__ import annotations

import collections
import contextlib
import copy
import functools
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import trio

from tests.conformance import rules
from tests.conformance.catalogue import (
    Result,
    all_scenarios,
    expected_differences,
    judge,
    judge_all,
    judge_recorded,
    recorded,
    shared_names,
)
from tests.conformance.comparison import compare, show
from tests.conformance.deviations import DEVIATIONS
from tests.conformance.entries import end_of, is_call, is_signal
from tests.conformance.rules import NOT_COMPARED, RULES
from tests.conformance.trace import Entry
from tests.conformance.trioqt_backend import run
from trioqt import ErrorKind, SocketError, TcpSocket, UdpSocket

# Here Qt's sockets are being destroyed when their signals come, and their getters cannot be asked.
SILENT = ("server_destroy", "tcp_destroyed_when_connected")

# Here Qt crashes, so there is nothing beside what comes after.
CRASHED = {"server_pause_not_listening", "ssl_start_server_unconnected"}

SAME = sorted(set(all_scenarios()) - {deviation.scenario for deviation in DEVIATIONS} - CRASHED)

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
        if show(entries[following]) != show(entries[index]):
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
        if "inside" not in entries[index]:  # which Qt leaves out
            yield entries[:index] + entries[index + 1 :]


def with_one_signal_twice(entries: list[Entry]) -> Iterator[list[Entry]]:
    for index in compared_signals(entries):
        yield entries[: index + 1] + entries[index:]


def with_another_result(entries: list[Entry]) -> Iterator[list[Entry]]:
    for index, entry in enumerate(entries):
        if entry["k"] in ("call", "ret") and "ret" in entry:
            yield altered(entries, index, ret="something else")


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


def with_something_else_beside_bytes_written(entries: list[Entry]) -> Iterator[list[Entry]]:
    for index, entry in enumerate(entries):
        if entry["k"] == "signal" and entry["name"] == "bytes_written":
            yield altered(entries, index, state="ListeningState")
            yield altered(entries, index, error="TemporaryError")
            yield altered(entries, index, avail=entry["avail"] + 100)


def with_the_opposite_result(entries: list[Entry]) -> Iterator[list[Entry]]:
    """Of what says yes or no, as a wait does."""
    for index, entry in enumerate(entries):
        if entry["k"] not in ("call", "ret"):
            continue
        if entry.get("ret") in (True, False) and isinstance(entry["ret"], bool):
            yield altered(entries, index, ret=not entry["ret"])
        elif entry.get("ret") in ([True, False], [False, True]):
            yield altered(entries, index, ret=entry["ret"][::-1])


def with_an_end_that_returns_at_once(entries: list[Entry]) -> Iterator[list[Entry]]:
    for start, entry in enumerate(entries):
        end = end_of(entries, start) if is_call(entry, "disconnect_from_host", "close", "abort") else start
        if any(is_signal(other) and other["obj"] == entry["obj"] for other in entries[start:end]):
            yield [*entries[: start + 1], entries[end], *entries[start + 1 : end], *entries[end + 1 :]]


def with_what_nobody_accounts_for(entries: list[Entry]) -> Iterator[list[Entry]]:
    """A stand-in did something in place of Qt's object, or found a law broken."""
    whats = ("another socket", "the attempt was cancelled", "it goes on in a task")
    for index, entry in enumerate(entries):
        if is_call(entry, "close", "connect_to_host", "wait_for_connected", "disconnect_from_host"):
            for extra in (*({"k": "instead", "what": what} for what in whats), {"k": "broken", "what": "law 2"}):
                yield [*entries[:index], {**extra, "obj": entry["obj"]}, *entries[index:]]


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
    with_something_else_beside_bytes_written,
    with_the_opposite_result,
    with_an_end_that_returns_at_once,
    with_what_nobody_accounts_for,
    with_an_exception,
]


@pytest.mark.parametrize("name", SAME)
def test_every_altered_entry_is_noticed(name: str) -> None:
    entries, qt = list(judge_recorded(name).entries), recorded(name)[0]
    assert compare(qt, entries).differences == ()

    missed = [
        (alteration.__name__, number)
        for alteration in ALTERATIONS
        if name not in SILENT or alteration not in (with_another_state, with_another_error, with_more_bytes)
        for number, changed in enumerate(alteration(entries))
        if compare(qt, changed).differences == ()
    ]

    assert missed == []


def test_no_rule_changes_what_a_peer_saw_or_how_a_program_waited() -> None:
    """Bytes delivered and bytes lost are never the same."""
    for name, result in judge_all().items():
        qt, ours = copy.deepcopy(recorded(name)[0]), copy.deepcopy(list(result.entries))
        seen = [beside(qt), beside(ours)]

        for rule in RULES:
            rule.apply(qt, ours)

            assert [beside(qt), beside(ours)] == seen, (name, rule.name)


def beside(entries: list[Entry]) -> list[Entry]:
    return [copy.deepcopy(entry) for entry in entries if entry["k"] in ("peer", "wait_timeout")]


def test_no_rule_is_made_for_one_scenario() -> None:
    """What happens in one scenario only is a deviation, and on the list."""
    touched: collections.Counter[str] = collections.Counter()
    for result in judge_all().values():
        touched.update(name for name, count in result.comparison.touched.items() if count)

    assert [rule.name for rule in RULES if touched[rule.name] < 2] == []


# What the rules are made of, and the rule to which each belongs.
CLAUSES = {
    "drop_attempts": "waits",
    "end_at_once": "sent at once",
    "find_losses_in_write": "sent at once",
    "keep_the_error": "errors",
    "move_behind": "in slots",
    "nothing_is_no_error": "errors",
    "say_operation": "errors",
    "say_why": "errors",
    "spell_datagrams": "spelling",
    "tell_inside": "in slots",
    "tell_once": "errors",
}


@pytest.mark.parametrize("clause", CLAUSES)
def test_no_clause_of_a_rule_is_made_for_one_scenario(clause: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without it at least two deviate that otherwise do not."""
    touched = [result for result in judge_all().values() if result.comparison.touched[CLAUSES[clause]]]
    monkeypatch.setattr(rules, clause, lambda *entries: 0)

    deviating = [result.name for result in touched if all(deviates(run, result) for run in recorded(result.name))]

    assert len(set(deviating) & set(SAME)) >= 2


def deviates(qt: list[Entry], result: Result) -> bool:
    return compare(qt, result.entries).differences != ()


def test_what_is_told_inside_of_its_own_slot_is_left_out_only_where_qt_leaves_it_out() -> None:
    """A second ready_read of ours, told while a slot of the first one acts, is behind one that Qt has told as well."""
    name = "tcp_loop_in_ready_read_slot"
    qt, (ours, _) = recorded(name)[0], run(all_scenarios()[name])
    inside = next(entry for entry in ours if "inside" in entry)

    assert compare(qt, ours).differences == ()
    assert compare([*qt[:1], inside, *qt[1:]], ours).differences == ()
    assert compare(qt, [entry for entry in ours if entry is not inside]).differences == ()
    assert compare(qt, [*ours, {key: value for key, value in inside.items() if key != "inside"}]).differences != ()


# ---- what is wrong with the sockets themselves is noticed -----------------------------------------


async def starting_only(sock: TcpSocket | UdpSocket) -> None:
    """A disconnect_from_host() that is not awaited."""

    async def end() -> None:
        with contextlib.suppress(SocketError, trio.ClosedResourceError):
            if isinstance(sock, UdpSocket):
                await disconnect_datagrams(sock)
            else:
                await disconnect_from_host(sock)

    trio.lowlevel.spawn_system_task(end)
    await trio.lowlevel.checkpoint()


disconnect_from_host = TcpSocket.disconnect_from_host
disconnect_datagrams = UdpSocket.disconnect_from_host

# In these it is called when there is no connection, so that there is nothing to wait for.
NOTHING_TO_END = {"tcp_close_unconnected", "tcp_disconnect_in_error_slot"}


def test_an_end_that_is_not_awaited_is_noticed_wherever_there_is_something_to_end(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Each scenario that disconnects, whether it deviates otherwise or not."""
    names = {name for name in all_scenarios() if any(is_call(e, "disconnect_from_host") for e in recorded(name)[0])}
    monkeypatch.setattr(TcpSocket, "disconnect_from_host", starting_only)
    monkeypatch.setattr(UdpSocket, "disconnect_from_host", starting_only)

    same = {name for name in names if judged(name) == expected_differences(name)}

    assert len(names) >= 40
    assert same == NOTHING_TO_END


def test_an_error_that_is_raised_and_not_told_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Law 4 in the task in which an attempt runs, which nobody waits for."""
    connect_to_host = TcpSocket.connect_to_host

    async def connect(sock: TcpSocket, *args: Any, **kwargs: Any) -> None:
        await connect_to_host(sock, *args, **kwargs)
        raise SocketError(ErrorKind.NETWORK, "nobody was told")

    monkeypatch.setattr(TcpSocket, "connect_to_host", connect)

    line = '{"k": "broken", "obj": "client", "what": "law 4: connect_to_host raised NETWORK, and no event told it"}'
    assert f"client: +{line}" in judged("tcp_connect_ok_ip_string")


def test_an_attempt_that_returns_and_has_not_connected_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Law 2, where what the program sees is as in Qt: the same signals, a moment later."""
    connect_to_host = TcpSocket.connect_to_host

    async def connect(sock: TcpSocket, *args: Any, **kwargs: Any) -> None:
        trio.lowlevel.spawn_system_task(functools.partial(connect_to_host, sock, *args, **kwargs))
        await trio.lowlevel.checkpoint()

    monkeypatch.setattr(TcpSocket, "connect_to_host", connect)

    what = "law 2: connect_to_host returned, and CONNECTED was not told"
    assert any(what in line for line in judged("tcp_connect_ok_ip_string"))


def test_a_third_wait_without_news_is_held_to_what_is_right() -> None:
    """Row 13: true while bytes that came were not seen, then false."""
    name = "tcp_three_waits_after_one_piece"
    entries, _ = run(all_scenarios()[name])
    waits = [index for index, entry in enumerate(entries) if is_call(entry, "wait_for_ready_read")]
    given = [entries[end_of(entries, index)]["ret"] for index in waits]

    assert given == [True, False, False, False, True]
    assert judged(name) == ()
    for index in waits:
        end = end_of(entries, index)
        assert compare(recorded(name)[0], altered(entries, end, ret=not entries[end]["ret"])).differences != ()


def judged(name: str) -> tuple[str, ...]:
    return judge(name, all_scenarios()[name], recorded(name)).differences


@pytest.mark.parametrize(
    "alteration", [with_another_order, with_another_state, with_another_error, with_another_result, with_another_value]
)
def test_each_of_these_alterations_was_made_in_at_least_twenty_shared_scenarios(alteration: Alteration) -> None:
    made = [name for name in SAME if name in shared_names() and any(True for _ in alteration(recorded(name)[0]))]

    assert len(made) >= 20
