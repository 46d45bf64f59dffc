"""A server survives its handlers' bugs, and a test does not: it fails at its end unless it has taken them."""

from __future__ import annotations

import re
import subprocess
import sys
import textwrap
import traceback
from collections.abc import Callable
from pathlib import Path

import pytest
import trio

from trioqt import ErrorKind, SocketError, TcpServer, TcpSocket
from trioqt.sockets.survived_bugs import KEPT, SurvivedBugs, take_bugs, tell_bug
from trioqt.testing import Probe, VirtualNetwork, cancel_everywhere, simulate


class Bug(Exception):
    """Of a handler, or of a socket factory."""


async def divide(sock: TcpSocket) -> None:
    """A handler with a bug."""
    raise Bug("in the handler")


async def visit(
    net: VirtualNetwork,
    clients: int = 1,
    handler: Callable[[TcpSocket], object] = divide,
    factory: Callable[[], TcpSocket] = TcpSocket,
) -> None:
    """So many clients come to a server, and see the end of their connections."""
    async with TcpServer(factory) as server, trio.open_nursery() as nursery:
        await server.listen("127.0.0.1")
        await nursery.start(server.serve, handler)
        for _ in range(clients):
            with trio.socket.socket() as peer:
                await peer.connect(("127.0.0.1", server.server_port()))
                try:
                    await peer.recv(1)
                except ConnectionResetError:
                    pass
        nursery.cancel_scope.cancel()


# ---- simulate ------------------------------------------------------------------------------------


def test_a_handlers_bug_fails_the_run_with_its_traceback() -> None:
    """In a group, with the note of every failing run."""
    with pytest.RaisesGroup(Bug) as caught:
        simulate(visit, seed=5)

    text = "".join(traceback.format_exception(caught.value))
    assert caught.value.message == "handlers or socket factories of a server failed"
    assert "in divide" in text
    assert "simulate: seed 5 failed" in text


def test_a_factorys_bug_does_too() -> None:
    """It ends a connection as well."""

    def make() -> TcpSocket:
        raise Bug("in the factory")

    with pytest.RaisesGroup(Bug):
        simulate(visit, 1, divide, make)


def test_what_was_taken_is_nobodys_failure() -> None:
    """``net.handler_failures()``: oldest first, and each once."""
    taken: list[list[Exception]] = []

    async def main(net: VirtualNetwork) -> None:
        await visit(net, 3)
        taken.extend((net.handler_failures(), net.handler_failures()))

    simulate(main)

    assert [[type(bug) for bug in bugs] for bugs in taken] == [[Bug] * 3, []]


def test_what_came_after_it_was_taken_fails() -> None:
    """Taking is no licence for the rest."""

    async def main(net: VirtualNetwork) -> None:
        await visit(net, 2)
        net.handler_failures()
        await visit(net, 1)

    with pytest.RaisesGroup(Bug):
        simulate(main)


def test_trouble_of_peers_and_networks_fails_nothing() -> None:
    """It is no bug."""

    async def handler(sock: TcpSocket) -> None:
        raise SocketError(ErrorKind.REMOTE_HOST_CLOSED, "gone")

    simulate(visit, 3, handler)


def test_a_run_that_fails_by_itself_has_a_note_of_them() -> None:
    """Its own failure comes out as it is; the bug may be why."""

    async def main(net: VirtualNetwork) -> None:
        await visit(net)
        raise LookupError("no answer")

    with pytest.raises(LookupError) as caught:
        simulate(main)

    notes = "\n".join(caught.value.__notes__)
    assert "before it, handlers or socket factories of a server failed:" in notes
    assert "in divide" in notes


def test_of_very_many_a_hundred_are_kept_and_the_others_counted() -> None:
    """Each keeps its frames alive."""
    with pytest.raises(ExceptionGroup) as caught:
        simulate(visit, KEPT + 20)

    assert caught.value.message == "handlers or socket factories of a server failed, 20 more are not shown"
    assert len(caught.value.exceptions) == KEPT


def test_a_run_within_a_run_of_tests_keeps_them_to_itself() -> None:
    """The plug-in around this test hears nothing of them; and the other way round."""
    with SurvivedBugs().collecting() as outer:
        with pytest.RaisesGroup(Bug):
            simulate(visit)
        assert outer.take() == []
        tell_bug(Bug("of the outer one"))
        simulate(visit, 0)
        assert [str(bug) for bug in outer.take()] == ["of the outer one"]


def test_where_nobody_collects_them_nothing_can_be_taken() -> None:
    """A program that is no test: they are in the log."""
    program = """
        import trio
        from trioqt import TcpServer
        from trioqt.testing import VirtualNetwork

        async def divide(sock):
            1 / 0

        async def main():
            async with VirtualNetwork() as net, TcpServer() as server, trio.open_nursery() as nursery:
                await server.listen("127.0.0.1")
                await nursery.start(server.serve, divide)
                with trio.socket.socket() as peer:
                    await peer.connect(("127.0.0.1", server.server_port()))
                    await peer.recv(1)
                nursery.cancel_scope.cancel()
                try:
                    net.handler_failures()
                except RuntimeError as exc:
                    print(exc)

        trio.run(main)
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program.replace("await peer.recv(1)", "await trio.sleep(0.1)"))],
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )

    assert done.stdout.startswith("handler failures are collected by simulate and by the pytest plug-in")
    assert "ZeroDivisionError" in done.stderr


# ---- the walks -----------------------------------------------------------------------------------


def test_a_bug_that_a_server_survives_is_a_problem_of_the_walk() -> None:
    """A handler that fails when its neighbour is cancelled would pass unseen otherwise."""

    async def scenario(probe: Probe) -> None:
        async with VirtualNetwork() as net:
            await probe.subject(trio.lowlevel.checkpoint)
            await visit(net)

    report = cancel_everywhere(scenario)

    assert not report.ok
    problems = {problem.text for failure in report.failures for problem in failure.problems}
    assert {text.split(", at ")[0] for text in problems} == {"Bug(in the handler)"}
    assert all("divide" in text for text in problems)
    assert take_bugs() == []


# ---- the plug-in, in a pytest of its own ---------------------------------------------------------

TESTS = """
import pytest, trio
from trioqt import TcpServer
from trioqt.testing import both_networks, simulate

class Bug(Exception):
    pass

async def fail(sock):
    raise Bug("in the handler")

async def visit():
    async with TcpServer() as server, trio.open_nursery() as nursery:
        await server.listen("127.0.0.1")
        await nursery.start(server.serve, fail)
        with trio.socket.socket() as peer:
            await peer.connect(("127.0.0.1", server.server_port()))
            try:
                await peer.recv(1)
            except ConnectionResetError:
                pass
        nursery.cancel_scope.cancel()

@pytest.mark.trio
async def test_real_bad():
    await visit()

def test_run_bad():
    trio.run(visit)

async def test_virtual_bad(virtual_network):
    await visit()

@both_networks
async def test_both_bad(network):
    await visit()

@pytest.mark.trio
async def test_real_good(handler_failures):
    await visit()
    assert [str(bug) for bug in handler_failures()] == ["in the handler"]

def test_run_good(handler_failures):
    trio.run(visit)
    assert len(handler_failures()) == 1

async def test_virtual_good(virtual_network):
    await visit()
    assert len(virtual_network.handler_failures()) == 1

@both_networks
async def test_both_good(network):
    await visit()
    assert len(network.handler_failures()) == 1

def test_own_failure():
    trio.run(visit)
    assert False, "by itself"

@pytest.mark.xfail(raises=ExceptionGroup, strict=True)
def test_expected():
    trio.run(visit)
"""


def test_in_pytest_a_test_fails_that_does_not_take_them(tmp_path: Path) -> None:
    """On the kernel's network and on a simulated one, async or not; with the traceback, or a note of it."""
    (tmp_path / "test_it.py").write_text(TESTS)
    (tmp_path / "pytest.ini").write_text("[pytest]\n")
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-p", "no:randomly", "-rA", "-q"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False)
    summary = done.stdout[done.stdout.index("short test summary") :]
    outcomes = dict(reversed(found) for found in re.findall(r"^([A-Z]+) test_it\.py::(\S+)", summary, re.MULTILINE))

    bad = ["test_real_bad", "test_run_bad", "test_virtual_bad", "test_both_bad[virtual]", "test_both_bad[kernel]"]
    good = [
        "test_real_good",
        "test_run_good",
        "test_virtual_good",
        "test_both_good[virtual]",
        "test_both_good[kernel]",
    ]
    assert outcomes == {
        **dict.fromkeys([*bad, "test_own_failure"], "FAILED"),
        **dict.fromkeys(good, "PASSED"),
        "test_expected": "XFAIL",
    }, done.stdout
    assert done.stdout.count("ExceptionGroup: handlers or socket factories of a server failed") >= 5
    assert 'test_it.py", line 10, in fail' in done.stdout
    assert "before it, handlers or socket factories of a server failed" in done.stdout
