"""Every program of the how-to pages, as a reader runs it: in a process of its own, from the root of the repository."""

from __future__ import annotations

import ast
import itertools
import re
import runpy
import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import trio
import trio.testing

from docs import blocks
from trioqt import ErrorKind, SocketError, TcpServer, TcpSocket
from trioqt.testing import VirtualNetwork

ROOT = Path(__file__).parents[1]
PAGES = sorted((ROOT / "docs" / "howto").glob("*.md"))
PROGRAMS = sorted((ROOT / "docs" / "howto").glob("*.py"))

# It waits for clients; its test is below.
SERVER = "systemd_socket.py"

LIKE_SYSTEMD = """
import os, sys
os.dup2(int(sys.argv[1]), 3)
os.environ.update(LISTEN_FDS="1", LISTEN_PID=str(os.getpid()))
os.execv(sys.executable, [sys.executable, sys.argv[2]])
"""


def outputs() -> dict[str, str]:
    """What the pages say that a program prints."""
    found: dict[str, str] = {}
    for page in PAGES:
        text = page.read_text()
        for name, output in re.findall(
            r"^<!-- output: (\S+) -->\n\n```text\n(.*?)^```$", text, re.MULTILINE | re.DOTALL
        ):
            found[name] = output
    return found


FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)


@pytest.mark.parametrize("path", PROGRAMS, ids=lambda path: path.stem)
def test_a_program_of_a_how_to_is_shown_whole(path: Path) -> None:
    """On a page, without leaving out any of it; or in parts, a function at a time."""
    name = str(path.relative_to(ROOT))
    shown = [block.words for page in PAGES for block in blocks.blocks_of(page.read_text()) if block.words[0] == name]
    parts = {part for words in shown for part in words[1:]}
    functions = {each.name for each in ast.parse(path.read_text()).body if isinstance(each, FUNCTIONS)}

    assert (name,) in shown or functions <= parts


@pytest.mark.parametrize("path", [path for path in PROGRAMS if path.name != SERVER], ids=lambda path: path.stem)
def test_a_program_of_a_how_to_runs_and_prints_what_its_page_says(path: Path) -> None:
    """Nothing else, no warning either; that the page is up to date is checked with all blocks."""
    name = str(path.relative_to(ROOT))
    command = [sys.executable, "-W", "error", name]

    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60)

    assert (done.returncode, done.stderr) == (0, "")
    if name in outputs():
        assert done.stdout == outputs()[name]


def test_the_program_before_and_after_qt_print_the_same() -> None:
    """The page shows the output of one."""
    runs = [
        subprocess.run(
            [sys.executable, f"docs/howto/qt_{when}.py"], cwd=ROOT, capture_output=True, text=True, timeout=60
        )
        for when in ("before", "after")
    ]

    assert [done.stdout for done in runs] == ["b'HELLO\\n'\n"] * 2


async def test_who_stays_connected_may_have_tasks_of_its_own(virtual_network: VirtualNetwork) -> None:
    """A nursery makes a group of what its tasks raise; the loop takes that for a loss too, and a bug for a bug."""
    stay_connected = runpy.run_path(str(ROOT / "docs" / "howto" / "reconnect.py"))["stay_connected"]
    calls = list[TcpSocket]()
    lines = list[bytes]()

    async def hang_up_on_the_first(sock: TcpSocket) -> None:
        calls.append(sock)
        if len(calls) == 1:
            sock.abort(reset=True)
        else:
            await sock.send_all(b"welcome\n")

    async def use(sock: TcpSocket) -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(trio.sleep, 1)
            lines.append(await sock.receive_line())
        raise PermissionError("enough")

    async with TcpServer() as server, trio.open_nursery() as nursery:
        await server.listen("127.0.0.1", 4000)
        await nursery.start(server.serve, hang_up_on_the_first)
        with pytest.raises(PermissionError, match="enough"):
            await stay_connected("127.0.0.1", 4000, use)
        nursery.cancel_scope.cancel()

    assert (len(calls), lines) == (2, [b"welcome\n"])


async def test_a_client_does_not_hurry_to_a_server_that_accepts_and_hangs_up(virtual_network: VirtualNetwork) -> None:
    """An accept is no sign of life; a connection that held for a while is, and then the pauses are short again."""
    reconnect = runpy.run_path(str(ROOT / "docs" / "howto" / "reconnect.py"))
    came, enough = list[float](), trio.Event()

    async def hang_up(sock: TcpSocket) -> None:
        came.append(trio.current_time())
        if len(came) == 20:
            await trio.sleep(1000)
        if len(came) == 22:
            enough.set()

    async def use(sock: TcpSocket) -> None:
        assert await sock.receive_some() == b""
        raise SocketError(ErrorKind.REMOTE_HOST_CLOSED, "it hung up")

    async with TcpServer() as server, trio.open_nursery() as nursery:
        await server.listen("127.0.0.1", 4000)
        await nursery.start(server.serve, hang_up)
        nursery.start_soon(reconnect["stay_connected"], "127.0.0.1", 4000, use)
        await enough.wait()
        nursery.cancel_scope.cancel()

    pauses = [later - earlier for earlier, later in itertools.pairwise(came)]
    assert all(15 <= pause <= 31 for pause in pauses[7:19])
    assert pauses[19] > 1000
    assert pauses[20] < 2


async def test_a_request_that_is_cancelled_or_fails_leaves_the_pool_as_it_was(virtual_network: VirtualNetwork) -> None:
    """Its place is free again, nobody reads the answer that it had asked for, and nothing is left open."""
    names = runpy.run_path(str(ROOT / "docs" / "howto" / "pool.py"))
    answers: list[bytes] = []
    ended: list[str] = []

    async def answer_late(sock: TcpSocket) -> None:
        async for line in sock.lines():
            await trio.sleep(1)
            await sock.send_all(line)

    async def ask(pool: Any, question: bytes, patience: float) -> None:
        with trio.move_on_after(patience) as scope:
            async with pool.connection() as sock:
                await sock.send_all(question)
                answers.append(await sock.receive_line())
                if question == b"raises\n":
                    raise ValueError(question)
        if scope.cancelled_caught:
            ended.append(question.decode().strip())

    async with TcpServer() as server, trio.open_nursery() as nursery:
        await server.listen("127.0.0.1", 4000)
        await nursery.start(server.serve, answer_late)
        async with names["Pool"]("127.0.0.1", 4000, size=2) as pool:
            async with trio.open_nursery() as clients:
                for question in (b"one\n", b"two\n"):
                    clients.start_soon(ask, pool, question, 0.5)  # with a connection
                await trio.testing.wait_all_tasks_blocked()
                clients.start_soon(ask, pool, b"three\n", 0.25)  # for want of one
            with pytest.raises(ValueError, match="raises"):
                await ask(pool, b"raises\n", 60)
            async with trio.open_nursery() as clients:
                for question in (b"four\n", b"five\n", b"six\n"):
                    clients.start_soon(ask, pool, question, 60)
            assert server.connection_count() == 2
        await trio.sleep(60)
        assert server.connection_count() == 0
        nursery.cancel_scope.cancel()

    assert (ended[0], sorted(ended)) == ("three", ["one", "three", "two"])
    assert (answers[0], sorted(answers)) == (b"raises\n", [b"five\n", b"four\n", b"raises\n", b"six\n"])


def test_a_server_listens_on_the_socket_that_systemd_passes() -> None:
    """As systemd does it: descriptor 3, and two variables; SIGTERM ends it."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        passed = listening.fileno()
        command = [sys.executable, "-c", LIKE_SYSTEMD, str(passed), f"docs/howto/{SERVER}"]
        server = subprocess.Popen(command, cwd=ROOT, pass_fds=[passed], stderr=subprocess.PIPE)
        with server:
            with socket.create_connection(listening.getsockname(), timeout=60) as client:
                client.sendall(b"hello\n")
                answer = client.recv(100)
            server.send_signal(signal.SIGTERM)
            _, err = server.communicate(timeout=60)

    assert (answer, server.returncode, err) == (b"hello\n", 0, b"")


def test_without_systemd_it_says_so() -> None:
    """Instead of taking any descriptor that is number 3."""
    done = subprocess.run([sys.executable, f"docs/howto/{SERVER}"], cwd=ROOT, capture_output=True, text=True)

    assert (done.returncode, done.stderr) == (1, "systemd passed no socket, or more than one\n")
