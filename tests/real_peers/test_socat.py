"""socat on the other side: a program that keeps a connection half open, and one that resets on request."""

from __future__ import annotations

import errno
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import trio

from tests.peers import peer_command
from tests.real_peers.programs import Program, running
from trioqt import ConnectionFinished, ErrorKind, HostAddress, SocketError, SocketState, TcpServer, TcpSocket

# A socat address and ours for both families.
BOTH_FAMILIES = pytest.mark.parametrize(("family", "host"), [("4", "127.0.0.1"), ("6", "::1")])

# After one direction has ended, socat gives the other one this long.  By default it is half a second.
PATIENCE = "-t15"

# About half a megabyte.  Reversed by tac, which can say nothing before our end.
LINES = [b"%d: a line that stays whole\n" % number for number in range(15_000)]


@pytest.fixture
def socat() -> str:
    return peer_command("socat")


def at(host: str, port: int) -> str:
    """An address as socat writes it."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


@asynccontextmanager
async def socat_listening(socat: str, family: str, host: str, *arguments: str) -> AsyncIterator[tuple[Program, int]]:
    """A socat that serves one connection, and its port, which the system chose."""
    listen = f"TCP{family}-LISTEN:0,bind=[{host}]" if family == "6" else f"TCP{family}-LISTEN:0,bind={host}"
    command = [argument.replace("LISTEN", listen) for argument in arguments]
    async with running(socat, PATIENCE, "-d", "-d", *command) as program:
        port = (await program.err.line_with("listening on")).rpartition(":")[2]
        yield program, int(port)


# ---- half-close --------------------------------------------------------------------------------


@BOTH_FAMILIES
async def test_a_client_that_has_finished_still_gets_its_answer(socat: str, family: str, host: str) -> None:
    """socat sends what it read and finishes; our server begins to answer only then, and the whole answer arrives."""
    ends: list[tuple[bytes, SocketState]] = []

    async def tac(sock: TcpSocket) -> None:
        lines = [line async for line in sock.lines()]
        ends.append((await sock.receive_some(), sock.state()))
        for line in reversed(lines):
            await sock.send_all(line)

    with trio.fail_after(20):
        async with TcpServer() as server, trio.open_nursery() as nursery:
            await server.listen(host)
            await nursery.start(server.serve, tac)
            address = f"TCP{family}:{at(host, server.server_port())}"
            async with running(socat, PATIENCE, "-", address) as program:
                async with trio.open_nursery() as talk:

                    @talk.start_soon
                    async def ask() -> None:
                        await program.stdin.send_all(b"".join(LINES))
                        await program.stdin.aclose()

                    answer = await program.out.everything()
                status = await program.process.wait()
            server.close()

    assert (answer, status) == (b"".join(reversed(LINES)), 0)
    assert ends == [(b"", SocketState.CONNECTED)]


@BOTH_FAMILIES
async def test_our_client_gets_the_answer_that_comes_after_its_end(socat: str, family: str, host: str) -> None:
    """send_eof ends the question; socat's tac answers nothing before that, and everything after it."""
    with trio.fail_after(20):
        async with socat_listening(socat, family, host, "LISTEN", "EXEC:tac") as (program, port):
            async with TcpSocket() as sock:
                await sock.connect_to_host(host, port)
                for line in LINES:
                    await sock.send_all(line)
                await sock.send_eof()
                answer = [line async for line in sock.lines()]
                state, error = sock.state(), sock.error()
            status = await program.process.wait()

    assert answer == LINES[::-1]
    assert (state, error, status) == (SocketState.CONNECTED, None, 0)


async def test_both_directions_end_one_after_the_other_and_not_together(socat: str) -> None:
    """socat finishes first, hears our later lines all the same, and ends with status 0 when we end."""
    with trio.fail_after(20):
        async with TcpServer() as server:
            await server.listen("localhost")
            async with running(socat, PATIENCE, "-", f"TCP:{at('localhost', server.server_port())}") as program:
                async with await server.accept() as sock:
                    await program.stdin.aclose()
                    assert [line async for line in sock.lines()] == []
                    await sock.send_all(b"one\n")
                    first = await program.out.line()
                    await sock.send_all(b"two\n")
                    second = await program.out.line()
                rest = await program.out.everything()
                status = await program.process.wait()

    assert (first, second, rest, status) == ("one", "two", b"", 0)


# ---- resets ------------------------------------------------------------------------------------

# Closing sends a reset.  Without shut-close, socat would shut the connection down first, which is a clean end.
RESETTING = "linger=0,shut-close"


@BOTH_FAMILIES
async def test_a_reset_by_socat_comes_behind_what_it_said_and_harms_nobody_else(
    socat: str, family: str, host: str
) -> None:
    """Bytes first, then the error, which ends the handler and no more: the next connection is served."""
    heard: list[bytes] = []
    errors: list[BaseException | None] = []

    async def listen(sock: TcpSocket) -> None:
        async for line in sock.lines():
            heard.append(line)

    with trio.fail_after(20):
        async with TcpServer() as server, server.events(ConnectionFinished) as ends, trio.open_nursery() as nursery:
            await server.listen(host)
            await nursery.start(server.serve, listen)
            address = f"TCP{family}:{at(host, server.server_port())}"
            for options in (f",{RESETTING}", ""):
                async with running(socat, "-u", "-", f"{address}{options}") as program:
                    await program.say("first", "second")
                    await program.stdin.aclose()
                    await program.process.wait()
                    finished = await anext(ends)
                    assert finished.peer == HostAddress(host)
                    errors.append(finished.error)
            server.close()

    reset, clean = errors
    assert heard == [b"first\n", b"second\n"] * 2
    assert clean is None
    assert isinstance(reset, SocketError)
    assert (reset.kind, reset.errno) == (ErrorKind.REMOTE_HOST_CLOSED, errno.ECONNRESET)


async def test_what_socat_said_before_its_reset_can_be_read_after_it(socat: str) -> None:
    """The reset has arrived, and the line before it is still there; then the failure is told, every time."""
    with trio.fail_after(20):
        async with TcpServer() as server:
            await server.listen("127.0.0.1")
            address = f"TCP:{at('127.0.0.1', server.server_port())},{RESETTING}"
            async with running(socat, "-u", "-", address) as program, await server.accept() as sock:
                await program.say("last words")
                await program.stdin.aclose()
                await sock.wait_for_disconnected()
                state, error = sock.state(), sock.error()
                line = await sock.receive_line()
                with pytest.raises(SocketError) as first:
                    await sock.receive_line()
                with pytest.raises(SocketError) as second:
                    await sock.send_all(b"hello?")

    assert (state, error) == (SocketState.UNCONNECTED, ErrorKind.REMOTE_HOST_CLOSED)
    assert line == b"last words\n"
    assert first.value.kind is second.value.kind is ErrorKind.REMOTE_HOST_CLOSED


@BOTH_FAMILIES
@pytest.mark.parametrize("ending", ["abort", "an exception"])
async def test_queued_bytes_that_we_drop_are_a_reset_to_socat(socat: str, family: str, host: str, ending: str) -> None:
    """socat is stuck, so bytes are queued here; dropping them must not look like an end to it."""
    with trio.fail_after(20):
        async with socat_listening(socat, family, host, "-u", "LISTEN", "-") as (program, port):
            async with TcpSocket() as sock:
                await sock.connect_to_host(host, port)
                size = sock.write(bytes(32_000_000))
                dropped = sock.bytes_to_write()
                if ending == "abort":
                    sock.abort()
                else:
                    with pytest.raises(ZeroDivisionError):
                        async with sock:
                            _ = 1 / 0
            arrived = len(await program.out.everything())
            said = await program.err.everything()

    assert dropped > 0
    assert arrived <= size - dropped
    assert b"Connection reset by peer" in said


@BOTH_FAMILIES
async def test_a_clean_end_of_ours_is_a_clean_end_to_socat(socat: str, family: str, host: str) -> None:
    """The same with a block that is left normally: everything that was queued arrives, and socat is content."""
    data = b"".join(LINES) * 10

    with trio.fail_after(20):
        async with socat_listening(socat, family, host, "-u", "LISTEN", "-") as (program, port):
            async with trio.open_nursery() as nursery:
                queued: list[int] = []

                @nursery.start_soon
                async def send() -> None:
                    async with TcpSocket() as sock:
                        await sock.connect_to_host(host, port)
                        sock.write(data)
                        queued.append(sock.bytes_to_write())

                arrived = await program.out.everything()
            said = await program.err.everything()
            status = await program.process.wait()

    assert queued[0] > 0  # leaving the block had to send the rest
    assert arrived == data
    assert b"reset" not in said
    assert status == 0
