"""The benchmarks run, and notice wrong bytes.  How fast anything was never decides a test."""

from __future__ import annotations

import importlib
import json
import os
import re
import select
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from benchmarks.speed.chart import chart
from benchmarks.speed.measure import Memory, Sample, Taken
from benchmarks.speed.pages import CHART, FIGURES, PAGES, fill, write_docs
from benchmarks.speed.peers.common import ANSWER, BLOCK, MIB, REQUEST, Task
from benchmarks.speed.processes import OPENSSL, build_generator, certificate
from benchmarks.speed.results import as_json, summarise
from benchmarks.speed.rows import ALONE, MODES, PEERS, QUICK, WHOLE, read_row
from benchmarks.speed.tables import duration, human, row_table
from tests.peers import peer_command, peer_module, without_peer

ROOT = Path(__file__).parents[1]

# One of each kind, with numbers that nobody has measured.
TINY = (
    *("echo:3x200", "lines:2x3x20", "accept:2", "client:2", "send:2", "receive:2", "idle:5"),
    *("events:2", "busy:3", "udp:2x3x100"),
    *("tls-echo:2x20000", "tls-accept:2", "tls-send:2", "tls-receive:2", "tls-idle:2"),
)

# A package that calls itself trioqt, and whose echo changes one byte in five messages.
DISHONEST = """
import trio

class TcpSocket:
    def __init__(self, stream):
        self.stream = stream
        self.messages = 0

    async def receive_some(self):
        self.messages += 1
        data = await self.stream.receive_some()
        return data[:-1] + b"?" if self.messages % 5 == 0 else data

    async def send_all(self, data):
        await self.stream.send_all(data)

class TcpServer:
    async def __aenter__(self):
        return self

    async def __aexit__(self, *exc_info):
        pass

    async def listen(self, host, *, backlog):
        self.listeners = await trio.open_tcp_listeners(0, host=host, backlog=backlog)

    def server_port(self):
        return self.listeners[0].socket.getsockname()[1]

    async def serve(self, handler):
        await trio.serve_listeners(lambda stream: handler(TcpSocket(stream)), self.listeners)
"""


def peer_headers() -> None:
    """What the generator needs for TLS."""
    if not OPENSSL.exists():
        without_peer("libssl-dev", f"no {OPENSSL}")


def run_command(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "benchmarks.speed", "--rounds", "1", *arguments]
    return subprocess.run(command, cwd=ROOT, env=os.environ | environment, capture_output=True, text=True, timeout=300)


# ---- the command ---------------------------------------------------------------------------


@pytest.mark.parametrize("name", TINY)
def test_every_peer_of_a_row_answers_with_the_right_bytes(name: str, tmp_path: Path) -> None:
    """One short round: each server answers, the load generator accepts what it says, and the figures are there."""
    peer_command("gcc")
    row = read_row(name)
    if row.mode.tls:
        peer_headers()
    file = tmp_path / "figures.json"

    done = run_command("--row", name, "--seconds", "0.05", "--json", str(file))

    assert done.returncode == 0, done.stdout + done.stderr
    figures = json.loads(file.read_text())["rows"][name]
    assert figures["failed"] == {}
    assert [*figures["servers"], *figures["missing"]] != []
    assert sorted([*figures["servers"], *figures["missing"]]) == sorted(row.mode.peers)
    for server, result in figures["servers"].items():
        (sample,) = result["samples"]
        assert row.mode.less_is_better or sample["work"] > 0, server
        assert f"\n{server} " in done.stdout
    for server in figures["missing"]:
        for package in PEERS[server.removesuffix(ALONE)].needs:
            peer_module(package)  # it skips the test, and says which peer it was
        pytest.fail(f"{server} is missing, and its packages are there")


def test_a_peer_whose_package_is_missing_is_left_out_and_named(tmp_path: Path) -> None:
    """The others are measured, and the run is a success."""
    peer_command("gcc")
    (tmp_path / "uvloop.py").write_text("raise ImportError('no uvloop on this machine')")
    file = tmp_path / "figures.json"

    options = ["--row", "echo:1", "--servers", "uvloop-s", "--seconds", "0.05", "--json", str(file)]
    done = run_command(*options, PYTHONPATH=str(tmp_path))

    assert done.returncode == 0, done.stdout + done.stderr
    figures = json.loads(file.read_text())["rows"]["echo:1"]
    assert list(figures["servers"]) == ["trio"]
    assert figures["missing"] == {"uvloop-streams": "no uvloop on this machine"}
    assert re.search("^uvloop-streams +not measured: no uvloop on this machine$", done.stdout, re.MULTILINE)


def test_an_echo_that_changes_a_byte_fails_the_run(tmp_path: Path) -> None:
    """A fast server that answers wrongly is not fast."""
    peer_command("gcc")
    package = tmp_path / "trioqt"
    package.mkdir()
    (package / "__init__.py").write_text(DISHONEST)

    options = ["--row", "echo:1", "--servers", "send_all@", "--seconds", "0.5", "--against", str(tmp_path)]
    done = run_command(*options)

    assert done.returncode == 1, done.stdout + done.stderr
    assert "wrong bytes came back" in done.stderr
    assert f"trioqt-send_all@{tmp_path.name}" in done.stderr


def test_a_look_into_a_server_shows_its_functions() -> None:
    """With cProfile, which every Python has."""
    peer_command("gcc")

    done = run_command("--row", "echo:1", "--servers", "trio", "--seconds", "0.1", "--look", "cprofile")

    assert done.returncode == 0, done.stdout + done.stderr
    assert "echo:1, trio, cprofile: " in done.stdout
    assert "(receive_some)" in done.stdout


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--row", "dance:1"], "a row is like echo:30x700"),
        (["--seconds", "-1"], "rounds and seconds must be positive"),
        (["--seconds", "0"], "rounds and seconds must be positive"),
        (["--row", "echo:1", "--write-docs"], "the documentation shows a run of everything"),
        (["--quick", "--write-docs"], "the documentation shows a run of everything"),
        (["--row", "echo:1", "--look", "perf"], "--look needs --row with one row"),
    ],
)
def test_what_makes_no_sense_is_refused_before_anything_is_measured(options: list[str], said: str) -> None:
    """With a word, and the usage."""
    done = run_command(*options)

    assert (done.returncode, done.stdout) == (2, "")
    assert said in done.stderr


# ---- rows ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "name", "numbers", "title"),
    [
        ("echo", "echo:1", (1, 1, 64), "echo of 64 bytes, 1 connection"),
        ("echo:30x700", "echo:30x700", (30, 1, 700), "echo of 700 bytes, 30 connections"),
        ("echo:7x64", "echo:7", (7, 1, 64), "echo of 64 bytes, 7 connections"),
        ("lines:3", "lines:3x16", (3, 16, 0), "16 pipelined lines, 3 connections"),
        ("lines:3x40x200", "lines:3x40x200", (3, 40, 200), "40 pipelined lines of 200 bytes, 3 connections"),
        ("client:8", "client:8", (8, 1, 64), "connect + ask + close, 8 at once"),
        ("busy:5000", "busy:5000", (5000, 1, 64), "echo of 64 bytes, 1 connection beside 5,000 idle ones"),
        ("udp:10x16", "udp:10x16", (10, 16, 64), "echo of datagrams of 64 bytes, 10 sockets, 16 in flight on each"),
    ],
)
def test_a_row_has_one_name_however_it_is_spelled(
    text: str, name: str, numbers: tuple[int, int, int], title: str
) -> None:
    """What is not said is as in the table; the title says all of it."""
    row = read_row(text)

    assert (row.name, (row.count, row.number, row.size), row.title) == (name, numbers, title)


@pytest.mark.parametrize(
    "text", ["", "echo:", "echo:0", "echo:1x2x3", "client:1x64", "lines:1x2x3x4", "echo:1x0", "a:1"]
)
def test_what_is_no_row_is_refused(text: str) -> None:
    """A number too many, or one that is nothing, too."""
    with pytest.raises(ValueError):
        read_row(text)


def test_the_rows_that_are_run_are_rows() -> None:
    """By their own names, the quick ones among the others, and each goal is of a server that takes part."""
    rows = [read_row(name) for name in WHOLE]

    assert [row.name for row in rows] == list(WHOLE)
    assert set(QUICK) < set(WHOLE)
    assert {name.partition(":")[0] for name in WHOLE} == set(MODES)
    assert [row.name for row in rows if not set(row.goals) <= set(row.mode.peers)] == []


def test_the_readme_names_every_kind_of_row_and_every_peer() -> None:
    """benchmarks/speed/README.md."""
    text = (ROOT / "benchmarks" / "speed" / "README.md").read_text()

    assert [mode for mode in MODES if f"`{mode}:" not in text] == []
    assert [name for name in PEERS if name.startswith("trioqt-w") and f"`{name}`" not in text] == []
    assert [peer for name, peer in PEERS.items() if "trioqt" not in name and f"`{name}`" not in text] == []


@pytest.mark.parametrize("name", PEERS)
def test_a_peer_can_do_all_that_its_rows_ask(name: str) -> None:
    """It has a function for each."""
    for package in PEERS[name].needs:
        peer_module(package)

    can = importlib.import_module(f"benchmarks.speed.peers.{PEERS[name].module}").MODES[name]

    takes_part = [mode for mode in MODES.values() if name in {peer.removesuffix(ALONE) for peer in mode.peers}]
    assert {mode.server for mode in takes_part} == set(can)


# ---- the load generator --------------------------------------------------------------------

Handler = Callable[[socket.socket], None]
Change = Callable[[bytes], bytes]


def as_it_is(data: bytes) -> bytes:
    return data


def spoilt(data: bytes) -> bytes:
    """One bit of the last byte is another."""
    return data[:-1] + bytes([data[-1] ^ 1])


@contextmanager
def serving(handler: Handler, *, tls: bool = False) -> Iterator[int]:
    """The port of a server that has a thread for each connection, and ends with them."""
    context = Task(certificate=str(certificate())).tls() if tls else None
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def accept() -> None:
            while True:
                try:
                    sock, _ = listener.accept()
                except OSError:
                    return
                threads.append(threading.Thread(target=handle, args=(sock,), daemon=True))
                threads[-1].start()

        def handle(plain: socket.socket) -> None:
            # Both are closed; the one that is wrapped has lost its descriptor.
            try:
                with plain, context.wrap_socket(plain, server_side=True) if context else plain as sock:
                    handler(sock)
            except OSError:
                pass  # the generator has ended

        threads = [threading.Thread(target=accept, daemon=True)]
        threads[0].start()
        yield listener.getsockname()[1]
        listener.shutdown(socket.SHUT_RDWR)
        for thread in threads:
            thread.join()


def load(mode: str, port: int, *commands: str, **settings: int) -> tuple[int, list[str], str]:
    """The status of the generator, what it answered, and what it complained about."""
    peer_command("gcc")
    command = [str(build_generator()), mode, f"port={port}", *(f"{name}={value}" for name, value in settings.items())]
    script = "".join(f"{line}\n" for line in commands)
    done = subprocess.run(command, input=script, capture_output=True, text=True, timeout=60)
    return done.returncode, done.stdout.splitlines(), done.stderr


def echoing(change: Change) -> Handler:
    def handler(sock: socket.socket) -> None:
        while data := sock.recv(65536):
            sock.sendall(change(data))

    return handler


def sending(change: Change) -> Handler:
    def handler(sock: socket.socket) -> None:
        while True:
            sock.sendall(change(BLOCK))

    return handler


def counting(change: Change) -> Handler:
    def handler(sock: socket.socket) -> None:
        total, due = 0, MIB
        while data := sock.recv(65536):
            total += len(data)
            if total >= due:
                due = (total // MIB + 1) * MIB
                sock.sendall(change(total.to_bytes(8, "big")))

    return handler


@pytest.mark.parametrize(
    ("mode", "make", "settings"),
    [
        ("echo", echoing, {}),
        ("echo", echoing, {"size": 100_000}),
        ("lines", echoing, {"batch": 3}),
        ("lines", echoing, {"batch": 2, "size": 500}),
        ("accept", echoing, {}),
        ("send", sending, {}),
        ("receive", counting, {}),
        ("echo", echoing, {"tls": 1}),
        ("echo", echoing, {"tls": 1, "size": 100_000}),
        ("accept", echoing, {"tls": 1}),
        ("send", sending, {"tls": 1}),
        ("receive", counting, {"tls": 1}),
    ],
    ids=lambda value: (
        "-".join(map(str, value.items())) if isinstance(value, dict) else getattr(value, "__name__", value)
    ),
)
def test_one_wrong_bit_of_a_server_is_noticed(
    mode: str, make: Callable[[Change], Handler], settings: dict[str, int]
) -> None:
    """And without it the same server is accepted, so it was that bit."""
    script = ("open 2", "go 0.05")
    peer_command("gcc")
    if tls := "tls" in settings:
        build_generator()
        peer_headers()

    with serving(make(as_it_is), tls=tls) as port:
        right = load(mode, port, *script, **settings)
    with serving(make(spoilt), tls=tls) as port:
        wrong = load(mode, port, *script, **settings)

    assert right[0] == 0, right
    assert right[1][0] == "open 2"
    assert right[1][1].startswith("done ")
    assert wrong[:2] == (1, ["open 2"])
    assert re.match("load: (wrong bytes|sent)", wrong[2]), wrong


@contextmanager
def answering_datagrams(answer: Callable[[bytes], bytes | None]) -> Iterator[int]:
    """The port of a server that says that for each datagram, or nothing."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.bind(("127.0.0.1", 0))

        def serve() -> None:
            while True:
                data, address = sock.recvfrom(65536)
                if not data:
                    return
                if (told := answer(data)) is not None:
                    sock.sendto(told, address)

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield sock.getsockname()[1]
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as last:
            last.sendto(b"", sock.getsockname())
        thread.join()


def test_one_wrong_bit_of_a_datagram_is_noticed() -> None:
    """As of a stream."""
    with answering_datagrams(as_it_is) as port:
        right = load("datagrams", port, "open 2", "go 0.05", batch=3)
    with answering_datagrams(spoilt) as port:
        wrong = load("datagrams", port, "open 2", "go 0.05", batch=3)

    assert (right[0], right[2]) == (0, "")
    assert wrong == (1, ["open 2"], "load: wrong bytes came back (datagram 0)\n")


@pytest.mark.parametrize("batch", [1, 3])
def test_lost_datagrams_are_counted_and_others_sent(batch: int) -> None:
    """Each second one; they are no work, and nothing waits for them for ever."""
    answered = []

    def half(data: bytes) -> bytes | None:
        if data[0] % 2:
            return None
        answered.append(data)
        return data

    with answering_datagrams(half) as port:
        status, answers, complaint = load("datagrams", port, "open 1", "begin", "go 0.3", "report", batch=batch)

    work, (count, _, lost) = int(answers[2].split()[1]), map(int, answers[3].split()[3:])
    assert (status, complaint) == (0, "")
    assert 1 <= work == count <= len(answered)
    assert lost >= 1


@pytest.mark.parametrize("change", [as_it_is, spoilt])
def test_one_wrong_bit_of_a_client_is_noticed(change: Change) -> None:
    """Of what it asks; what it is answered it checks itself."""
    peer_command("gcc")
    command = [str(build_generator()), "client", "port=0"]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as generator:
        assert generator.stdin is not None
        assert generator.stdout is not None
        assert generator.stderr is not None
        port = int(generator.stdout.readline().split()[1])
        generator.stdin.write("open 1\ngo 0.2\n")
        generator.stdin.flush()
        answers = []
        with socket.create_connection(("127.0.0.1", port)) as sock:
            sock.sendall(change(REQUEST))
            answers.append(sock.recv(100))
        generator.stdin.close()
        complaint = generator.stderr.read()
        status = generator.wait(30)

    expected = (0, [ANSWER], "") if change is as_it_is else (1, [b""], "load: wrong bytes came from a client\n")
    assert (status, answers, complaint) == expected


def test_an_answer_takes_as_long_as_the_server_lets_it_wait() -> None:
    """Both quantiles, within the width of a bucket; only answers after ``begin`` count."""

    def late(sock: socket.socket) -> None:
        while data := sock.recv(65536):
            time.sleep(0.05)
            sock.sendall(data)

    with serving(late) as port:
        status, answers, _ = load("echo", port, "open 1", "go 0.01", "begin", "go 0.3", "report")

    word, p50, p99, count, starved, lost = answers[-1].split()
    assert (status, word, starved, lost) == (0, "report", "0", "0")
    assert 1 <= int(count) <= 7
    assert 0.048 <= float(p50) <= float(p99)


def test_a_connection_without_an_answer_in_time_is_starved() -> None:
    """One is answered at once, the other when the first has been silent: when the time is over."""
    first: list[socket.socket] = []

    def unfair(sock: socket.socket) -> None:
        if not first:
            first.append(sock)
            echoing(as_it_is)(sock)
            return
        data = sock.recv(65536)
        while select.select(first, [], [], 0.3)[0]:
            time.sleep(0.01)
        sock.sendall(data)
        sock.recv(65536)

    with serving(unfair) as port:
        status, answers, complaint = load("echo", port, "open 2", "begin", "go 1", "report")

    assert (status, complaint) == (0, "")
    assert answers[-1].split()[-2:] == ["1", "0"]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["dance"], "usage: load MODE NAME=NUMBER..."),
        (["echo", "speed=1"], "no setting speed=1"),
        (["echo", "port=70000"], "out of range: port=70000"),
        (["echo", "size=0"], "size=0 is for lines"),
        (["lines", "size=1"], "a line of one byte says nothing"),
    ],
)
def test_the_generator_refuses_what_it_does_not_know(arguments: list[str], said: str) -> None:
    """Rather than measure something else."""
    peer_command("gcc")

    done = subprocess.run([str(build_generator()), *arguments], input="", capture_output=True, text=True, timeout=30)

    assert done.returncode == 1
    assert said in done.stderr


# ---- figures and pages ---------------------------------------------------------------------


def samples(*merits: float) -> list[Sample]:
    """Rounds of a CPU-second in two of the clock."""
    return [Sample(work=int(merit), seconds=2.0, cpu=1.0, waited=0.5, p50=1 / merit, p99=9 / merit) for merit in merits]


def test_a_ratio_is_the_median_of_those_within_a_round() -> None:
    """Not the ratio of the medians: the machine's speed drifts between the rounds."""
    taken = Taken(read_row("echo:10"), {"trio": samples(100, 200, 400), "trioqt-write": samples(300, 300, 800)})

    result = summarise(taken)["servers"]["trioqt-write"]

    assert (result["ratio"], result["low"], result["high"]) == (2.0, 1.5, 3.0)
    assert (result["merit"], result["rate"], result["waited"]) == (300, 150, 0.25)
    assert (result["p50"], result["p99"]) == (1 / 300, 9 / 300)
    assert (result["goal"], result["reached"]) == (1.85, True)


def test_of_memory_less_is_better() -> None:
    """A goal is reached from above."""
    taken = Taken(read_row("idle:2000"), {"trio": [Memory(6000, 5000)], "trioqt": [Memory(9000, 4000)]})

    result = summarise(taken)["servers"]["trioqt"]

    assert (result["first"], result["merit"], result["ratio"]) == (9000, 4000, 0.8)
    assert (result["goal"], result["reached"]) == (0.6, False)


def test_a_busy_connection_is_compared_with_the_same_server_alone() -> None:
    """Each with its own, and one of another checkout with that."""
    names = ["trio", "trioqt-write", "trioqt-write@old"]
    row = read_row("busy:10")
    taken = Taken(row, {})
    for at, name in enumerate(names):
        plain, _, folder = name.partition("@")
        alone = plain + ALONE + (f"@{folder}" if folder else "")
        taken.samples |= {alone: samples(100 * (at + 1)), name: samples(90 * (at + 1))}

    servers = summarise(taken)["servers"]

    assert [servers[name]["ratio"] for name in names] == [0.9, 0.9, 0.9]


def test_the_worst_round_tells_how_many_were_starved() -> None:
    """Since it is said that nobody was."""
    rounds = samples(100, 100, 100)
    for sample, starved in zip(rounds, (0, 7, 3), strict=True):
        sample.starved = starved

    result = summarise(Taken(read_row("echo:100"), {"trio": rounds}))["servers"]["trio"]

    assert result["starved"] == 7


def test_a_table_on_the_terminal() -> None:
    """What was measured, what was missing, and what failed."""
    taken = Taken(read_row("echo:1"), {"trio": samples(20_000), "trioqt-write": samples(30_000), "pyside6": []})
    taken.missing["pyside6"] = "No module named 'PySide6'"

    lines = row_table("echo:1", summarise(taken)).splitlines()

    assert lines[0] == "echo:1: echo of 64 bytes, 1 connection; trips"
    assert " ".join(lines[-2].split()) == "trioqt-write 15k 30k 0% 1.50 1.50..1.50 33 us 300 us 25% >=1.40 yes"
    assert lines[-1].split(maxsplit=1) == ["pyside6", "not measured: No module named 'PySide6'"]


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.0, "0"), (9_999.4, "9,999"), (12_345.0, "12.3k"), (999_999.0, "1M"), (1.5e6, "1.5M"), (3.1e9, "3.1G")],
)
def test_a_number_for_people(value: float, text: str) -> None:
    """Three digits, where there are more than four."""
    assert human(value) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.0000012, "1.2 us"), (0.000085, "85 us"), (0.0012, "1.2 ms"), (0.25, "250 ms"), (2.14, "2.1 s")],
)
def test_a_duration_for_people(seconds: float, text: str) -> None:
    """In the unit that has a digit before the point."""
    assert duration(seconds) == text


def test_the_documentation_says_what_was_measured() -> None:
    """Page, README and chart are what the JSON makes; ``--write-docs`` puts a new run into all of them."""
    figures = json.loads((ROOT / FIGURES).read_text())

    for page in PAGES:
        text = (ROOT / page).read_text()
        assert fill(text, figures) == text, page
        assert "<!-- speed: " in text, page
    assert chart(figures) == (ROOT / CHART).read_text()


def test_new_figures_reach_every_page(tmp_path: Path) -> None:
    """Tables and chart show them, and the rest of a page stays."""
    rows = {"echo:1": {"trio": samples(100), "trioqt-write": samples(777)}}
    figures = as_json({name: summarise(Taken(read_row(name), taken)) for name, taken in rows.items()}, 5, 0.5)
    for page in (*PAGES, FIGURES):
        (tmp_path / page).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / page).write_text((ROOT / page).read_text())

    write_docs(figures, tmp_path)

    for page in PAGES:
        old, new = ((root / page).read_text() for root in (ROOT, tmp_path))
        assert "| 7.77 |" in new
        assert "medians of 5 rounds of 0.5 s" in new
        section = re.compile("<!-- speed: \\w+ -->.*?<!-- speed: end -->", re.DOTALL)
        assert section.sub("", new) == section.sub("", old)
    assert ">7.77</text>" in (tmp_path / CHART).read_text()
    written: dict[str, Any] = json.loads((tmp_path / FIGURES).read_text())
    assert written["rows"]["echo:1"]["servers"]["trioqt-write"]["ratio"] == 7.77
    assert "samples" not in written["rows"]["echo:1"]["servers"]["trioqt-write"]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (
            lambda row: row["missing"].update(pyside6="not here"),
            "not written, since a server failed or is missing: busy:5000",
        ),
        (
            lambda row: row["failed"].update(pyside6="died"),
            "not written, since a server failed or is missing: busy:5000",
        ),
        (lambda row: row.clear(), "not written, since these rows are not there: busy:5000"),
    ],
    ids=["missing", "failed", "absent"],
)
def test_the_documentation_shows_everything_or_stays(
    change: Callable[[dict[str, Any]], None], said: str, tmp_path: Path
) -> None:
    """A part of the figures of an earlier run is not written, nor is a run in which somebody was out."""
    rows = {
        name: summarise(Taken(read_row(name), {"trio": [Memory(6000, 5000)] if "idle" in name else samples(100)}))
        for name in WHOLE
    }
    change(rows["busy:5000"])
    file = tmp_path / "figures.json"
    file.write_text(json.dumps(as_json({name: row for name, row in rows.items() if row}, 5, 0.5)))
    before = (ROOT / FIGURES).read_text()

    done = run_command("--from-json", str(file), "--write-docs")

    assert done.returncode == 1
    assert said in done.stderr
    assert (ROOT / FIGURES).read_text() == before


def test_a_page_cannot_ask_for_a_table_that_there_is_not() -> None:
    """A wrong name is not left as it is."""
    with pytest.raises(KeyError):
        fill("<!-- speed: beauty -->\n\n<!-- speed: end -->", {"rows": {}})


# ---- the simulated network -----------------------------------------------------------------


def test_the_benchmark_of_the_simulated_network_completes() -> None:
    """Two scenarios and a crowd, small; it says what it was to say."""
    program = ROOT / "benchmarks" / "network.py"

    done = subprocess.run(
        [sys.executable, str(program), "--rounds", "1", "--trips", "20", "--connections", "50"],
        capture_output=True,
        text=True,
        timeout=120,
    )

    assert done.returncode == 0, done.stdout + done.stderr
    names = [line[:28].rstrip() for line in done.stdout.splitlines()]
    assert names[1:4] == ["trio.sleep", "deliveries, our sockets", "deliveries, trio's streams"]
    assert "50 connections held at once" in done.stdout
