"""``trioqt demo``: it is a true check, so it must see a byte that is lost or wrong and a connection that is left."""

from __future__ import annotations

import itertools
import os
import random
import re
import signal
import sys
from collections import Counter
from collections.abc import Awaitable, Callable

import pytest
import trio
import trio.testing

from tests.cli.commands import call_trioqt, on_terminal, read_line, read_rest, run_trioqt, running_trioqt
from trioqt import TcpSocket
from trioqt.cli.demo import PATIENCE, READING, Report, echo, make_clients, run_demo, show_demo
from trioqt.cli.demo_client import BrokenPromiseError, Client
from trioqt.cli.demo_kinds import KINDS
from trioqt.testing import VirtualNetwork

ENDINGS = {
    "talks": "in order",
    "streams": "in order",
    "half-closes": "in order",
    "is cut short": "in order",
    "is cancelled": "cancelled",
    "gets reset": "reset",
}


# ---- all is well ---------------------------------------------------------------------------


async def test_every_byte_comes_back_and_nothing_is_left() -> None:
    """Two clients of each kind against a true echo: each ends as its kind does, and the books agree."""
    clients = make_clients(12, 0, seed=1)

    report = await run_demo(clients, 0)

    assert report.problems() == []
    assert (report.connections_open, report.descriptors_left) == (0, 0)
    assert [client.kind for client in clients] == list(ENDINGS) * 2
    assert [client.ending for client in clients] == list(ENDINGS.values()) * 2
    for client in clients:
        assert client.sent > 0
        if client.kind == "is cancelled":
            assert client.back + len(client.owed) == client.sent
        else:
            assert (client.back, len(client.owed)) == (client.sent, 0)


async def test_calls_really_are_cancelled() -> None:
    """The clients that are cut short are: over a few seeds some of their calls do not get through."""
    clients = [client for seed in range(5) for client in make_clients(6, 0, seed) if client.kind == "is cut short"]

    report = await run_demo(tuple(clients), 0)

    assert report.problems() == []
    assert sum(client.cuts for client in clients) > 0


async def test_the_events_of_each_client_are_told_in_order() -> None:
    """From Connected to how it ended, with what only its kind does in between."""
    clients = make_clients(6, 0, seed=2)
    told: dict[str, list[str]] = {kind: [] for kind in KINDS}

    await run_demo(clients, 0, tell=lambda client, text: told[client.kind].append(text))

    ends = {client.kind: f"{client.ending}: {client.sent:,} bytes sent, {client.back:,} back" for client in clients}
    orderly = ["Connected", "ReadChannelFinished", "Disconnected"]
    assert told["talks"] == [*orderly, ends["talks"]]
    assert told["streams"] == [*orderly, ends["streams"]]
    assert Counter(told["half-closes"]) == Counter([*orderly, "has finished sending", ends["half-closes"]])
    assert told["is cancelled"] == [*orderly, ends["is cancelled"]]
    assert told["gets reset"] == [
        "Connected",
        "ErrorOccurred REMOTE_HOST_CLOSED",
        "ReadChannelFinished",
        "Disconnected",
        ends["gets reset"],
    ]


def test_the_seed_decides_who_says_what() -> None:
    """The same seed, the same words; another seed, others."""

    def words(seed: int) -> list[bytes]:
        return [client.words(10, 20) for client in make_clients(3, 1, seed)]

    assert words(1) == words(1)
    assert words(1) != words(2)
    assert len(set(words(1))) == 3


# ---- something is wrong --------------------------------------------------------------------


async def corrupt(sock: TcpSocket) -> None:
    """Say it back with the first byte of every piece changed."""
    async for chunk in sock:
        await sock.send_all(bytes([chunk[0] ^ 1]) + chunk[1:])


async def lose_one(sock: TcpSocket) -> None:
    """Say it back without the last byte of the first piece."""
    await sock.send_all((await sock.receive_some())[:-1])
    await echo(sock)


async def double_one(sock: TcpSocket) -> None:
    """Say it back with one byte too many at the end."""
    async for chunk in sock:
        await sock.send_all(chunk)
    await sock.send_all(b"!")


async def leave(sock: TcpSocket) -> None:
    """Say only the first byte back."""
    await sock.send_all((await sock.receive_some())[:1])


def clients_that(*kinds: str, seed: int) -> tuple[Client, ...]:
    """One client of each of these kinds."""
    return tuple(client for client in make_clients(len(KINDS), 0, seed) if client.kind in kinds)


async def test_a_wrong_byte_is_seen_by_every_kind_that_hears_it() -> None:
    """Each client says which byte it was, and the report has a line for each."""
    clients = clients_that(*(set(KINDS) - {"is cancelled"}), seed=3)

    report = await run_demo(clients, 0, handler=corrupt)

    assert [client.ending for client in clients] == [""] * 5
    assert [problem.partition(" (")[0] for problem in report.problems()] == [
        f"#{client.number} {client.kind}: byte 1 came back wrong" for client in clients
    ]


async def test_a_wrong_byte_makes_the_status_1(capsys: pytest.CaptureFixture[str]) -> None:
    """The summary tells of it, the reason is on stderr, and nothing says that all is well."""
    status = await show_demo(1, 0, 3, handler=corrupt)

    out, err = capsys.readouterr()
    assert status == 1
    assert re.search(r"^talks +1 .* 1 FAILED$", out, re.MULTILINE)
    assert re.fullmatch(r"Error: #1 talks: byte 1 came back wrong \([\d,]+ bytes had not come back\)\n", err)
    assert "all is well" not in out


async def test_a_lost_byte_is_seen() -> None:
    """What comes after it is not what should come, or the end comes too soon."""
    clients = clients_that("streams", "half-closes", seed=4)

    report = await run_demo(clients, 0, handler=lose_one)

    assert len(report.problems()) == 2


async def test_a_byte_too_many_is_seen() -> None:
    """By the kinds that listen to the end."""
    clients = clients_that("streams", "half-closes", "is cut short", seed=5)

    report = await run_demo(clients, 0, handler=double_one)

    assert [client.problem for client in clients] == [f"byte {client.sent + 1:,} came back wrong" for client in clients]
    assert len(report.problems()) == 3


async def test_a_server_that_leaves_early_is_seen() -> None:
    """Nobody waits for what will not come, and nobody takes the end for a good one."""
    clients = clients_that(*(set(KINDS) - {"is cancelled"}), seed=6)

    report = await run_demo(clients, 0, handler=leave)

    assert [client.ending for client in clients] == [""] * 5
    assert len(report.problems()) == 5


async def test_answers_that_never_come_end_the_demo_all_the_same(mock_clock: trio.testing.MockClock) -> None:
    """When its patience is over, it says who is still waiting, and whose connections are still there."""

    async def say_nothing(sock: TcpSocket) -> None:
        await trio.sleep_forever()

    clients = clients_that("talks", "is cut short", "gets reset", seed=7)
    report = await run_until_patience_ends(clients, say_nothing, mock_clock)

    assert [problem.partition(" (")[0] for problem in report.problems()] == [
        *(f"#{client.number} {client.kind}: it did not come to an end" for client in clients),
        "still open: 3 connections",
    ]


async def test_a_connection_that_is_left_open_is_counted(mock_clock: trio.testing.MockClock) -> None:
    """A handler that stays when its client has gone keeps its connection, and the demo fails for it."""
    gone = trio.Event()

    async def never_end(sock: TcpSocket) -> None:
        await echo(sock)
        await trio.sleep_forever()

    clients = clients_that("talks", seed=8)
    async with trio.open_nursery() as nursery:
        reports: list[Report] = []

        async def run() -> None:
            reports.append(await run_demo(clients, 0, handler=never_end, tell=lambda client, text: tell(text)))
            nursery.cancel_scope.cancel()

        def tell(text: str) -> None:
            if text.startswith("in order"):
                gone.set()

        nursery.start_soon(run)
        await gone.wait()
        await lose_patience(mock_clock)

    assert reports[0].problems() == ["still open: 1 connection"]


async def test_a_descriptor_that_is_left_is_counted() -> None:
    """Whatever the run opened and did not close, a file too."""
    left: list[int] = []

    async def keep_one(sock: TcpSocket) -> None:
        left.append(os.open(os.devnull, os.O_RDONLY))
        await echo(sock)

    report = await run_demo(clients_that("talks", seed=9), 0, handler=keep_one)
    os.close(left[0])

    assert report.problems() == ["left: 1 descriptor"]


async def send_and_be_cancelled(self: TcpSocket, data: bytes) -> None:
    """What ``send_all`` must not be: sent, and cancelled all the same."""
    self.write(data)
    await trio.lowlevel.checkpoint()


async def receive_and_be_cancelled(self: TcpSocket, max_bytes: int | None = None) -> bytes:
    """What ``receive_some`` must not be: the bytes are taken, and it is cancelled all the same."""
    if await self.wait_for_ready_read():
        data = self.read(max_bytes or 65536)
        await trio.lowlevel.checkpoint()
        return data
    return b""


@pytest.mark.parametrize(
    ("call", "broken"), [("send_all", send_and_be_cancelled), ("receive_some", receive_and_be_cancelled)]
)
async def test_a_cancelled_call_that_happened_is_seen(
    call: str, broken: Callable[..., object], monkeypatch: pytest.MonkeyPatch, mock_clock: trio.testing.MockClock
) -> None:
    """Were a cancelled send sent, or did a cancelled receive take bytes, the demo would fail."""
    clients = tuple(client for seed in range(5) for client in clients_that("is cut short", seed=seed))
    monkeypatch.setattr(TcpSocket, call, broken)

    report = await run_until_patience_ends(clients, echo, mock_clock)

    assert len(report.problems()) > 0
    for problem in report.problems():
        assert re.search("came back wrong|did not come to an end", problem)


async def run_until_patience_ends(
    clients: tuple[Client, ...],
    handler: Callable[[TcpSocket], Awaitable[object]],
    clock: trio.testing.MockClock,
) -> Report:
    """Run the demo; whenever nothing can happen any more, let the time go by that it waits for something."""
    reports: list[Report] = []
    async with trio.open_nursery() as nursery:

        async def run() -> None:
            reports.append(await run_demo(clients, 0, handler=handler))
            nursery.cancel_scope.cancel()

        nursery.start_soon(run)
        await lose_patience(clock)
    return reports[0]


async def lose_patience(clock: trio.testing.MockClock) -> None:
    """Let everything happen that can, then the time that the demo waits for it; again and again."""
    while True:
        await trio.testing.wait_all_tasks_blocked()
        clock.jump(PATIENCE)


@pytest.mark.parametrize(
    ("heard", "problem"),
    [
        ([b"abX"], "byte 3 came back wrong"),
        ([b"ab", b"cd", b"eX"], "byte 6 came back wrong"),
        ([b"abcdefX"], "byte 7 came back wrong"),
        ([b"bc"], "byte 1 came back wrong"),
    ],
)
def test_the_books_name_the_wrong_byte(heard: list[bytes], problem: str) -> None:
    """Counted from 1 over everything that came back."""
    client = Client(1, "talks", KINDS["talks"], random.Random(0), 0)
    client.owed += b"abcdef"

    with pytest.raises(BrokenPromiseError) as caught:
        for data in heard:
            client.hear(data)

    assert str(caught.value) == problem


# ---- slowly --------------------------------------------------------------------------------


async def test_slowly_each_client_is_explained_and_comes_when_the_one_before_has_gone(
    autojump_clock: trio.testing.MockClock, capsys: pytest.CaptureFixture[str]
) -> None:
    """First what the next one will do, then time to read it, then what happens to it, and nothing of another."""
    async with VirtualNetwork():
        status = await show_demo(6, 10, 1, slow=True)

    title, *lines = capsys.readouterr().out.splitlines()
    pattern = re.compile(r" *([\d.]+)  #(\d) +([a-z-]+(?: [a-z]+)*)  +(.+)")
    events = [match.groups() for line in lines if (match := pattern.match(line))]
    assert (status, title) == (0, "one server, 6 clients, about 10 seconds each, one after the other, seed 1")
    assert [kind for kind, _ in itertools.groupby(kind for _, _, kind, _ in events)] == list(KINDS)
    for kind, behave in KINDS.items():
        told = [(float(time), text) for time, _, each, text in events if each == kind]
        connected = [text for _, text in told].index("Connected")
        explanation = " ".join(text for _, text in told[:connected])
        assert explanation == f"next: {behave.__doc__}"
        assert {time for time, _ in told[:connected]} == {told[0][0]}
        assert READING <= told[connected][0] - told[0][0] <= READING + 5
        assert told[-1][1].startswith(f"{ENDINGS[kind]}: ")
    assert lines[-1].startswith("all is well: ")


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ([], (50, 10.0, False)),
        (["--slow"], (6, 10.0, True)),
        (["--slow", "--clients", "2", "--seconds", "3"], (2, 3.0, True)),
        (["--clients", "7"], (7, 10.0, False)),
    ],
)
def test_slowly_there_is_one_client_of_each_kind_unless_told(
    arguments: list[str], expected: tuple[int, float, bool], monkeypatch: pytest.MonkeyPatch
) -> None:
    """And fifty when it is not slow."""
    asked: list[tuple[int, float, bool]] = []

    async def note(count: int, seconds: float, seed: int, *, slow: bool) -> int:
        await trio.lowlevel.checkpoint()
        asked.append((count, seconds, slow))
        return 0

    # By its name in full: trioqt.cli.demo is also the command.
    monkeypatch.setattr(sys.modules["trioqt.cli.demo"], "show_demo", note)

    assert call_trioqt("demo", *arguments).exit_code == 0
    assert asked == [expected]


# ---- the command ---------------------------------------------------------------------------


async def test_the_command_prints_events_and_a_summary_and_ends_with_0() -> None:
    """In a pipe: plain lines, a row for each kind with what it sent and got back, and the verdict."""
    ended = await run_trioqt("demo", "--clients", "8", "--seconds", "1", "--seed", "5")

    title, *lines = ended.out.decode().splitlines()
    rows = [re.split(r" {2,}", line) for line in lines if not re.match(r" +\d+\.\d\d  #\d", line)]
    assert (ended.status, ended.err) == (0, b"")
    assert title == "one server, 8 clients, about 1 second, seed 5"
    assert b"\x1b" not in ended.out
    assert sum(line.endswith("  Connected") for line in lines) == 8
    assert rows[0] == ["a client that ...", "clients", "sent", "back", "how they ended"]
    assert [(row[0], row[1]) for row in rows[1:8]] == [
        *((kind, "2" if kind in ("talks", "streams") else "1") for kind in ENDINGS),
        ("all", "8"),
    ]
    for row in rows[1:7]:
        assert row[4].partition(";")[0] == f"{row[1]} {ENDINGS[row[0]]}"
        assert row[3] == row[2] or row[0] == "is cancelled"
    assert rows[8:10] == [["connections still open: 0"], ["descriptors left: 0"]]
    assert rows[10] == [
        f"all is well: {rows[7][3]} bytes came back and were compared, none was lost, none was wrong",
    ]
    assert len(rows) == 11


async def test_on_a_terminal_a_live_table_is_followed_by_the_summary() -> None:
    """Each client has its mark, at first that it is to come; at the end the cursor is back and the summary stays."""
    async with on_terminal("demo", "--clients", "12", "--seconds", "0.5", "--seed", "5") as terminal:
        await terminal.show_all()
        status = await terminal.process.wait()

    live, summary = re.sub(r"\x1b\[[0-9;]*[A-Za-z]", "", terminal.shown.replace("\x1b[?25h", "<end>")).split("<end>")
    lines = summary.splitlines()
    assert status == 0
    assert re.findall(r"│ (\S+) +│ +0 │", live.partition("to come")[0]) == ["··"] * 6
    assert terminal.shown.count("\x1b[?25l") == 1
    assert sum(line.startswith("├─") for line in lines) == 2
    assert any(re.fullmatch(r"│ all +│ +12 │.*│", line) for line in lines)
    assert lines[-1].startswith("all is well: ")


async def test_a_terminal_without_unicode_gets_a_plain_picture() -> None:
    """On an ASCII terminal, and a narrow one, nothing is drawn that it cannot show."""
    async with on_terminal("demo", "--clients", "12", "--seconds", "0.5", ascii_only=True) as terminal:
        await terminal.show_all()
        status = await terminal.process.wait()

    live = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", terminal.shown)
    assert status == 0
    assert re.findall(r"\| (\S+) +\| +0 \|", live.partition("to come")[0]) == [".."] * 6
    assert terminal.shown.isascii()
    assert "Traceback" not in terminal.shown


async def test_ctrl_c_ends_the_demo_and_gives_the_terminal_back() -> None:
    """Status 130, no traceback, and the cursor is shown again."""
    async with on_terminal("demo", "--seconds", "100") as terminal:
        await terminal.show("connected")
        await terminal.type("\x03")
        await terminal.show_all()
        status = await terminal.process.wait()

    assert status == 130
    assert "Traceback" not in terminal.shown
    assert terminal.shown.count("\x1b[?25l") == terminal.shown.count("\x1b[?25h") == 1


async def test_a_signal_ends_the_demo_in_a_pipe() -> None:
    """The same for SIGINT to a process without a terminal."""
    async with running_trioqt("demo", "--seconds", "20") as process:
        first = await read_line(process.stdout)
        while b"Connected" not in await read_line(process.stdout):
            pass
        process.send_signal(signal.SIGINT)
        await read_rest(process.stdout)
        err = await read_rest(process.stderr)
        status = await process.wait()

    assert first.startswith(b"one server, 50 clients, about 20 seconds, seed ")
    assert (err, status) == (b"", 130)


async def test_a_reader_that_goes_away_ends_the_demo() -> None:
    """``trioqt demo | head -3``: one line on stderr, status 1."""
    async with running_trioqt("demo", "--seconds", "20") as process:
        await read_line(process.stdout)
        assert process.stdout is not None
        await process.stdout.aclose()
        err = await read_rest(process.stderr)
        status = await process.wait()

    assert (err, status) == (b"Error: stdout was closed\n", 1)
