"""The scenarios of cancellation once more, with a Ctrl-C at their lines: what it ends did not happen either.

The walk over all lines of all of them takes many minutes; every day a sample of each scenario is enough, because those
of one verb share most of their lines.  ``nox -s soak`` walks them whole.
"""

from __future__ import annotations

import ast
import contextlib
import functools
import inspect
import os
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any

import pytest
import trio

import trioqt.core
import trioqt.links
import trioqt.links.interrupts
import trioqt.sockets
from tests.cancel.kit import GOOD, Case, OneHost, adopt, connect_now
from tests.cancel.scenarios import CASES
from tests.sockets.arrivals import open_descriptors
from tests.sockets.every_call import SERVER_CALLS, SOCKET_CALLS
from trioqt import (
    SocketError,
    SocketState,
    StateChanged,
    TcpServer,
    TcpSocket,
    local_host_name,
    network_interfaces,
)
from trioqt.testing import Probe, interrupt_everywhere

SOAK = bool(os.environ.get("TRIOQT_SOAK"))

# What is walked.  The file in which a caller's own code is called stands for that code, which can be interrupted.
INTERRUPTIBLE = Path(trioqt.links.interrupts.__file__)
PACKAGES = [Path(package.__path__[0]) for package in (trioqt.core, trioqt.links, trioqt.sockets)]
CODE = [path for package in PACKAGES for path in sorted(package.glob("*.py")) if path != INTERRUPTIBLE]


def waits(kind: type, name: str) -> bool:
    """Has it scenarios of its own, because it waits or gives what does?"""
    coroutine = inspect.iscoroutinefunction(getattr(kind, name))
    return coroutine or f"{kind.__name__}.{name}" in {case.coroutine for case in CASES}


def has_a_nursery(case: Case) -> bool:
    """Does what is interrupted open a nursery of the scenario's own?  That makes a group of whatever comes out."""
    return case.coroutine.startswith("TcpServer.") or case.variant.startswith("parent cancelled")


def has_company(case: Case) -> bool:
    """Does what is interrupted end by a cancellation of its surroundings as well?  A nursery of the scenario's
    own makes a group of the two, as it should, and the walk knows only interrupts that come alone.
    """
    return (case.coroutine, case.variant) == ("TcpServer.__aexit__", "twice")


# Where another task connects than the one that is interrupted, the one may have come further than the other knows.
WALKED = [case for case in CASES if case.variant != "started" and not has_company(case)]


@pytest.mark.parametrize("case", WALKED, ids=str)
def test_no_line_of_it_loses_or_leaks_anything(case: Case) -> None:
    """Interrupted at a line, or at the next checkpoint if the line is protected, the scenario keeps every byte,
    connection, event and slot, and its sockets work on.
    """
    report = interrupt_everywhere(case.scenario(), code=CODE, groups=has_a_nursery(case), sample=None if SOAK else 5)

    report.raise_if_failed()
    assert report.cancelled + report.finished > 0
    assert report.missed == 0 or case.medium == "loopback"


# ---- whole programs ----------------------------------------------------------------------------------------------


async def answer(stream: trio.SocketStream) -> None:
    """What a client of ours talks to."""
    async with stream:
        with contextlib.suppress(trio.BrokenResourceError):
            async for chunk in stream:
                await stream.send_all(chunk)


async def be_a_client(port: int) -> None:
    """It connects, sends more than the system takes at once, receives it, watches, finishes."""
    async with TcpSocket() as sock, sock.events() as events:
        await sock.connect_to_host(GOOD, port)
        assert await anext(events) == StateChanged(SocketState.HOST_LOOKUP)
        sock.write(b"one\n")
        assert await sock.receive_line() == b"one\n"
        await sock.send_all(bytes(300_000))
        await sock.send_eof()
        received = 0
        async for chunk in sock:
            received += len(chunk)
        assert received == 300_000
        await sock.disconnect_from_host()


async def client(probe: Probe) -> None:
    """Ours, beside a plain server."""
    listeners = await trio.open_tcp_listeners(0, host=GOOD)
    async with listeners[0] as listener, trio.open_nursery() as nursery:
        nursery.start_soon(functools.partial(trio.serve_listeners, answer, [listener]))
        await probe.subject(be_a_client, listener.socket.getsockname()[1])
        nursery.cancel_scope.cancel()


async def server(probe: Probe) -> None:
    """Ours, as on the first page, beside two plain clients; the second closes it."""

    async def echo(sock: TcpSocket) -> None:
        async for chunk in sock:
            await sock.send_all(chunk)

    async def be_a_server() -> None:
        async with TcpServer() as ours:
            await ours.listen(GOOD)
            nursery.start_soon(talk, ours)
            await ours.serve(echo)

    async def talk(ours: TcpServer[TcpSocket]) -> None:
        port = ours.server_port()
        for _ in range(2):
            with contextlib.suppress(OSError, trio.BrokenResourceError):
                async with await trio.open_tcp_stream(GOOD, port) as stream:
                    await stream.send_all(b"hello")
                    await stream.receive_some()
        ours.close()

    async with trio.open_nursery() as nursery:
        await probe.subject(be_a_server)


@pytest.mark.parametrize("survives", [True, False])
@pytest.mark.parametrize("around", [contextlib.nullcontext, OneHost])
@pytest.mark.parametrize("program", [client, server])
def test_a_program_ends_by_it_or_goes_on(
    program: Callable[[Probe], Awaitable[None]],
    around: Callable[[float], AbstractAsyncContextManager[object]],
    survives: bool,
) -> None:
    """Either way it comes out of our blocks as itself, not in a group, and nothing is left behind."""

    async def scenario(probe: Probe) -> None:
        async with around(0):
            await program(probe)

    report = interrupt_everywhere(scenario, code=CODE, survives=survives, sample=None if SOAK else 40)

    report.raise_if_failed()
    assert report.cancelled + report.finished > 0


# ---- what does not wait ------------------------------------------------------------------------------------------

ARRIVED = b"one\ntwo\n"

# What these take out of what has arrived, or put in front of it; the others leave it.
TAKEN: dict[str, Callable[[Any], bytes]] = {
    **dict.fromkeys(["get_char", "read", "read_all", "read_line"], lambda result: result),
    "skip": lambda count: ARRIVED[:count],
}
WRITTEN = {"put_char": b"x", "write": b"x"}
SYNC = {name: args for name, args in SOCKET_CALLS.items() if not waits(TcpSocket, name)}
SERVER_SYNC = {name: args for name, args in SERVER_CALLS.items() if not waits(TcpServer, name)}


def is_idle(sock: TcpSocket) -> bool:
    return not (sock._receiving or sock._sending or sock._parked or sock._watching or sock._subscriptions)


async def connect_and_call(name: str, before: Callable[[TcpSocket], object], probe: Probe) -> None:
    """Call a method that does not wait; then what had arrived is there or was handed over, and it works on."""

    async def call() -> object:
        with contextlib.suppress(SocketError):  # what cannot be done now is refused
            return getattr(sock, name)(*SYNC[name])
        return None

    async with OneHost(0), TcpSocket() as sock:
        peer = adopt(sock)
        peer.send_now(ARRIVED)
        sock.bytes_available()
        before(sock)
        result = await probe.subject(call)
        probe.expect(not probe.cancelled, "it is not torn")
        probe.expect(is_idle(sock), "nobody is busy")
        if name == "abort":
            probe.expect(sock.state() is SocketState.UNCONNECTED, "it has ended")
        else:
            if sock.is_transaction_started():
                sock.commit_transaction()
            taken = TAKEN[name](result) if name in TAKEN else b""
            put_back = b"x" if name == "unget_char" else b""
            probe.expect(taken + sock.read_all() == put_back + ARRIVED, "every byte is there, once")
            await sock.send_all(b"!")
            probe.expect(await peer.receive() == WRITTEN.get(name, b"") + b"!", "it sends, once")
        peer.close()


def begin(sock: TcpSocket) -> None:
    sock.start_transaction()


def do_nothing(sock: TcpSocket) -> None:
    pass


@pytest.mark.parametrize("name", sorted(SYNC))
def test_what_does_not_wait_is_not_torn(name: str) -> None:
    """Every method of a socket that is no coroutine, at each of its lines: it is done, and the Ctrl-C follows."""
    before = begin if name in ("commit_transaction", "rollback_transaction") else do_nothing
    report = interrupt_everywhere(functools.partial(connect_and_call, name, before), code=CODE)

    report.raise_if_failed()
    assert report.complete
    assert report.places == report.finished > 0


async def listen_and_call(name: str, probe: Probe) -> None:
    """The same of a server, with one connection pending and one that comes after."""

    async def call() -> object:
        with contextlib.suppress(SocketError):
            return getattr(server, name)(*args)
        return None

    async with OneHost(0), TcpServer() as server:
        args = (TcpSocket(),) if name == "add_pending_connection" else SERVER_SYNC[name]
        await server.listen(GOOD)
        first = connect_now(GOOD, server.server_port())
        await server.wait_for_new_connection()
        taken = await probe.subject(call)
        probe.expect(not probe.cancelled, "it is not torn")
        server.resume_accepting()
        if name == "close":
            probe.expect(server.connection_count() == 0, "what was pending has ended")
            await server.listen(GOOD)
        with connect_now(GOOD, server.server_port()), first:
            left = [] if name == "close" else [1]
            left += [1] if name == "add_pending_connection" else []
            for _ in range(len(left) + 1 - isinstance(taken, TcpSocket)):
                (await server.accept()).abort()
            if isinstance(taken, TcpSocket):
                taken.abort()
        probe.expect(server.connection_count() == 0, "every slot is free")


@pytest.mark.parametrize("name", sorted(SERVER_SYNC))
def test_nor_is_that_of_a_server(name: str) -> None:
    report = interrupt_everywhere(functools.partial(listen_and_call, name), code=CODE)

    report.raise_if_failed()
    assert report.complete
    assert report.places == report.finished > 0


async def ask_the_machine(ask: Callable[[], object], simulated: bool, probe: Probe) -> None:
    """What it answers is whole, and no descriptor stays open."""

    async def call() -> object:
        return ask()

    async with OneHost(0) if simulated else contextlib.nullcontext():
        expected, before = ask(), open_descriptors()
        answer = await probe.subject(call)
        probe.expect(not probe.cancelled, "it is not torn")
        probe.expect(answer == expected, "it is whole")
        probe.expect(open_descriptors() == before, "no descriptor stays open")


@pytest.mark.parametrize("simulated", [False, True])
@pytest.mark.parametrize("ask", [network_interfaces, local_host_name])
def test_nor_is_what_the_machine_is_asked(ask: Callable[[], object], simulated: bool) -> None:
    """At each line, also between the kernel's answers."""
    report = interrupt_everywhere(functools.partial(ask_the_machine, ask, simulated), code=CODE)

    report.raise_if_failed()
    assert report.complete
    assert report.places == report.finished > 0


def test_every_public_method_is_walked() -> None:
    """What waits has scenarios of its own; what does not is called as it is."""
    walked = {case.coroutine for case in CASES}
    sync = {f"TcpSocket.{name}" for name in SYNC} | {f"TcpServer.{name}" for name in SERVER_SYNC}
    everything = {f"TcpSocket.{name}" for name in SOCKET_CALLS} | {f"TcpServer.{name}" for name in SERVER_CALLS}

    assert everything <= walked | sync


# ---- that nothing can be forgotten -------------------------------------------------------------------------------


# Bases of what has nothing of its own that a call changes.
VALUES = {"ABC", "ExceptionGroup", "Protocol", "TypedDict"}


def classes_of(path: Path) -> list[ast.ClassDef]:
    return [node for node in ast.parse(path.read_text(encoding="utf-8")).body if isinstance(node, ast.ClassDef)]


@pytest.mark.parametrize("path", [path for path in CODE if path.parent.name != "core"], ids=lambda path: path.name)
def test_every_class_that_changes_is_protected(path: Path) -> None:
    """So a new method cannot be forgotten.  What has no methods but those that attrs makes has nothing to protect."""
    for node in classes_of(path):
        marks = [ast.unparse(decorator) for decorator in node.decorator_list]
        bases = {ast.unparse(base).partition("[")[0] for base in node.bases}
        is_value = any(mark.startswith("attrs.") for mark in marks) or bases & VALUES

        assert is_value or "protected" in marks, f"{node.name} is neither a value nor @protected"
