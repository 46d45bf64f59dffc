"""``trioqt connect``: a connection by hand, or in a pipe."""

from __future__ import annotations

import contextlib
import os
import random
import re
import signal
import subprocess
from collections.abc import AsyncIterator, Iterator

import pytest
import trio

from tests.cli.commands import (
    TRIOQT,
    Ended,
    call_trioqt,
    events_of,
    on_terminal,
    read_line,
    read_rest,
    run_trioqt,
    running_trioqt,
)
from tests.networks import Loopback, RawListener, RawPeer
from tests.peers import peer_command

CONNECTING = ["StateChanged HOST_LOOKUP", "StateChanged CONNECTING", "HostFound", "StateChanged CONNECTED", "Connected"]


async def echo_one(listener: RawListener) -> None:
    """Say one connection's bytes back, to its end."""
    with await listener.accept() as peer:
        while piece := await peer.sock.recv(65536):
            await peer.send(piece)


async def run_against_echo(network: Loopback, *options: str, stdin: bytes) -> Ended:
    """Run the command against a server that says everything back."""
    with await network.raw_listener() as listener:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(echo_one, listener)
            return await run_trioqt("connect", *options, "127.0.0.1", str(listener.port), stdin=stdin)


# ---- in a pipe -----------------------------------------------------------------------------


async def test_a_line_from_a_pipe_goes_to_the_peer_and_back(network: Loopback) -> None:
    """``printf 'x\\n' | trioqt connect``: sends, finishes, prints the answer, tells every event, ends with 0."""
    ended = await run_against_echo(network, stdin=b"x\n")

    assert (ended.status, ended.out) == (0, b"x\n")
    assert events_of(ended.err) == [
        *CONNECTING,
        "BytesWritten 2",
        "ReadyRead",
        "ErrorOccurred REMOTE_HOST_CLOSED: the peer closed the connection, which is a good end",
        "StateChanged CLOSING",
        "StateChanged UNCONNECTED",
        "ReadChannelFinished",
        "Disconnected",
    ]


async def test_half_open_tells_the_end_of_the_peer_as_no_error(network: Loopback) -> None:
    """With --half-open the same exchange has the events of a half-open socket."""
    ended = await run_against_echo(network, "--half-open", stdin=b"x\n")

    assert (ended.status, ended.out) == (0, b"x\n")
    assert events_of(ended.err) == [
        *CONNECTING,
        "BytesWritten 2",
        "ReadyRead",
        "ReadChannelFinished",
        "StateChanged CLOSING",
        "StateChanged UNCONNECTED",
        "Disconnected",
    ]


@pytest.mark.parametrize("option", ["--half-open", "--no-half-open"])
async def test_any_bytes_go_through_unchanged(network: Loopback, option: str) -> None:
    """Two megabytes of all byte values, NUL and broken UTF-8 included, come out as they went in."""
    data = bytes(range(256)) + random.Random(0).randbytes(2_000_000)

    ended = await run_against_echo(network, option, stdin=data)

    assert ended.status == 0
    assert ended.out == data


async def test_an_empty_input_is_an_end_at_once(network: Loopback) -> None:
    """``trioqt connect ... < /dev/null`` finishes sending and prints what the peer has to say."""
    async with running_trioqt_to(network) as (process, peer):
        assert process.stdin is not None
        await process.stdin.aclose()
        heard = await peer.receive_to_end()
        await peer.send(b"nothing?\n")
        peer.close()
        out = await read_rest(process.stdout)
        status = await process.wait()

    assert (heard, out, status) == (b"", b"nothing?\n", 0)


async def test_it_sends_to_a_program_that_answers_at_the_end_of_its_input(network: Loopback) -> None:
    """socat with sort behind it: sort sees the end of our stdin, answers, and its answer is printed."""
    socat = peer_command("socat")
    listening = [socat, "-d", "-d", "TCP-LISTEN:0,bind=127.0.0.1", "EXEC:sort"]
    async with running_trioqt(command=listening) as process:
        while not (match := re.search(rb"listening on .*:(\d+)$", line := await read_line(process.stderr))):
            assert line, "socat ended"
        ended = await run_trioqt("connect", "127.0.0.1", match[1].decode(), stdin=b"pear\nfig\napple\n")
        status = await process.wait()

    assert (ended.status, ended.out) == (0, b"apple\nfig\npear\n")
    assert status == 0


# ---- who ends first ------------------------------------------------------------------------


@contextlib.asynccontextmanager
async def running_trioqt_to(
    network: Loopback, *options: str, stdout: int = subprocess.PIPE
) -> AsyncIterator[tuple[trio.Process, RawPeer]]:
    """The command, connected to a scripted peer."""
    with await network.raw_listener() as listener:
        arguments = ("connect", *options, "127.0.0.1", str(listener.port))
        async with running_trioqt(*arguments, stdout=stdout) as process:
            with await listener.accept() as peer:
                yield process, peer


async def test_the_peer_ends_first_while_stdin_is_an_open_pipe(network: Loopback) -> None:
    """Nobody closes the pipe, and yet the process ends, having printed what came."""
    async with running_trioqt_to(network) as (process, peer):
        await peer.send(b"bye\n")
        peer.close()
        out = await read_rest(process.stdout)
        status = await process.wait()

    assert (out, status) == (b"bye\n", 0)


async def test_the_peer_ends_first_while_stdin_is_a_terminal(network: Loopback) -> None:
    """Nobody presses a key, and yet the process ends."""
    with await network.raw_listener() as listener:
        async with on_terminal("connect", "127.0.0.1", str(listener.port)) as terminal:
            with await listener.accept() as peer:
                await terminal.type("hello\n")
                heard = await peer.receive(6)
                await peer.send(b"bye\n")
            await terminal.show_all()
            status = await terminal.process.wait()

    assert (heard, status) == (b"hello\n", 0)
    assert "bye" in terminal.shown
    assert "StateChanged \x1b[36m\x1b[1mUNCONNECTED\x1b[0m" in terminal.shown


async def test_on_a_terminal_all_of_it_is_in_order_and_a_good_end_is_not_red(network: Loopback) -> None:
    """What came is shown behind the event that tells of it, and before those that came later."""
    with await network.raw_listener() as listener:
        async with on_terminal("connect", "127.0.0.1", str(listener.port)) as terminal:
            with await listener.accept() as peer:
                await peer.send(b"x" * 200_000 + b"\nbye\n")
            await terminal.show_all()
            status = await terminal.process.wait()

    places = [terminal.shown.index(text) for text in ("ReadyRead", "xxx", "bye", "ErrorOccurred", "UNCONNECTED")]
    assert status == 0
    assert places == sorted(places)
    assert "\x1b[31m" not in terminal.shown
    assert "\x1b[32mErrorOccurred\x1b[0m REMOTE_HOST_CLOSED: the peer closed the connection, which is a good end" in (
        terminal.shown
    )


async def test_a_lost_connection_stays_red(network: Loopback) -> None:
    """It has the same name in Qt, and is no good end."""
    with await network.raw_listener() as listener:
        async with on_terminal("connect", "127.0.0.1", str(listener.port)) as terminal:
            with await listener.accept() as peer:
                await terminal.show("Connected")
                peer.reset()
            await terminal.show_all()
            status = await terminal.process.wait()

    assert status == 1
    assert "\x1b[31m\x1b[1mREMOTE_HOST_CLOSED" in terminal.shown
    assert "good end" not in terminal.shown


async def test_half_open_goes_on_sending_after_the_peer_has_finished(network: Loopback) -> None:
    """The peer says all it has first; what stdin gives later still reaches it, to the end of stdin."""
    async with running_trioqt_to(network, "--half-open") as (process, peer):
        await peer.send(b"first\n")
        peer.finish()
        while (line := await read_line(process.stderr)) and b"ReadChannelFinished" not in line:
            pass
        assert process.stdin is not None
        await process.stdin.send_all(b"later\n")
        await process.stdin.aclose()
        heard = await peer.receive_to_end()
        out = await read_rest(process.stdout)
        status = await process.wait()

    assert b"ReadChannelFinished" in line
    assert (heard, out, status) == (b"later\n", b"first\n", 0)


async def test_a_reset_is_an_error_and_what_came_before_is_printed(network: Loopback) -> None:
    """Bytes first, then the error: one line on stderr, status 1, although stdin is open."""
    async with running_trioqt_to(network) as (process, peer):
        await peer.send(b"last words\n")
        first = await read_line(process.stdout)
        peer.reset()
        err = await read_rest(process.stderr)
        status = await process.wait()

    assert (first, status) == (b"last words\n", 1)
    assert events_of(err)[-1] == "Error: the connection was lost: Connection reset by peer"


# ---- signals -------------------------------------------------------------------------------


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
async def test_a_signal_ends_it_while_it_waits_for_stdin_and_the_peer(
    network: Loopback, number: signal.Signals, status: int
) -> None:
    """No traceback; the peer sees the end, the last events are told, the status tells of the signal."""
    async with running_trioqt_to(network) as (process, peer):
        err = b""
        while (line := await read_line(process.stderr)) and not line.endswith(b"  Connected\n"):
            err += line
        process.send_signal(number)
        heard = await peer.receive_to_end()
        rest = await read_rest(process.stderr)
        ended = await process.wait()

    assert heard == b""
    assert events_of(err + line) == CONNECTING
    assert events_of(rest) == ["StateChanged UNCONNECTED", "ReadChannelFinished", "Disconnected"]
    assert ended == status


async def test_ctrl_c_in_a_terminal_ends_it(network: Loopback) -> None:
    """The key that a person presses, with a thread waiting for that person's next line."""
    with await network.raw_listener() as listener:
        async with on_terminal("connect", "127.0.0.1", str(listener.port)) as terminal:
            with await listener.accept() as peer:
                await terminal.show("Connected")
                await terminal.type("\x03")
                heard = await peer.receive_to_end()
                await terminal.show_all()
                status = await terminal.process.wait()

    assert (heard, status) == (b"", 130)
    assert "Traceback" not in terminal.shown


async def test_a_signal_ends_it_while_nobody_reads_its_output(network: Loopback) -> None:
    """stdout is a full pipe, so a thread hangs in a write: that keeps neither the loop nor the exit."""
    with full_pipe() as stdout:
        async with running_trioqt_to(network, stdout=stdout) as (process, peer):
            await peer.send(b"what nobody reads")
            while (line := await read_line(process.stderr)) and b"ReadyRead" not in line:
                pass
            process.send_signal(signal.SIGINT)
            err = await read_rest(process.stderr)
            status = await process.wait()

    assert b"ReadyRead" in line
    assert events_of(err) == ["StateChanged UNCONNECTED", "ReadChannelFinished", "Disconnected"]
    assert status == 130


@contextlib.contextmanager
def full_pipe() -> Iterator[int]:
    """The writing end of a pipe that takes no more."""
    reading, writing = os.pipe()
    try:
        os.set_blocking(writing, False)
        with contextlib.suppress(BlockingIOError):
            while True:
                os.write(writing, bytes(4096))
        os.set_blocking(writing, True)
        yield writing
    finally:
        os.close(writing)
        os.close(reading)


# ---- what is refused -----------------------------------------------------------------------


async def test_a_refused_port_is_told_in_one_line(network: Loopback) -> None:
    """After the events of the attempt: what was tried and why not, and status 1."""
    port = await network.unused_port()

    ended = await run_trioqt("connect", "127.0.0.1", str(port))

    assert (ended.status, ended.out) == (1, b"")
    assert events_of(ended.err) == [
        *CONNECTING[:3],
        "StateChanged UNCONNECTED",
        "ErrorOccurred CONNECTION_REFUSED",
        f"Error: cannot connect to 127.0.0.1 port {port}: Connection refused",
    ]


async def test_an_unknown_host_is_told_in_one_line() -> None:
    """A name that no resolver needs to be asked for: its label is too long."""
    name = "x" * 64 + ".invalid"

    ended = await run_trioqt("connect", name, "80")

    lines = events_of(ended.err)
    assert (ended.status, ended.out) == (1, b"")
    assert lines[:-1] == [CONNECTING[0], "StateChanged UNCONNECTED", "ErrorOccurred HOST_NOT_FOUND"]
    assert lines[-1].startswith(f"Error: cannot connect to {name} port 80: ")


@pytest.mark.parametrize("port", ["0", "65536", "-1", "http", "", "１"])  # noqa: RUF001
def test_a_port_that_is_none_is_told_in_one_line(port: str) -> None:
    """Nothing is tried, and the status is 1."""
    result = call_trioqt("connect", "--", "127.0.0.1", port)

    message = f"Error: a port is a number from 1 to 65535, not {port!r}\n"
    assert (result.exit_code, result.stdout, result.stderr) == (1, "", message)


async def test_a_reader_that_goes_away_is_told_in_one_line(network: Loopback) -> None:
    """``trioqt connect ... | head -1``: when more comes and nobody reads it, one line and status 1."""
    async with running_trioqt_to(network) as (process, peer):
        assert process.stdout is not None
        await process.stdout.aclose()
        await peer.send(b"anybody?\n")
        err = await read_rest(process.stderr)
        status = await process.wait()

    assert (events_of(err)[-1], status) == ("Error: stdout was closed", 1)


@pytest.mark.parametrize(
    ("redirection", "status", "last"), [("<&-", 0, "Disconnected"), (">&-", 1, "Error: stdout is closed")]
)
async def test_a_stream_that_was_closed_from_the_beginning(
    network: Loopback, redirection: str, status: int, last: str
) -> None:
    """Without stdin it only listens; without stdout it does not begin.  Its sockets are not mistaken for either."""
    with await network.raw_listener() as listener:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(echo_one, listener)
            shell = ["sh", "-c", f'exec "$@" {redirection}', "sh", *TRIOQT]
            ended = await run_trioqt("connect", "127.0.0.1", str(listener.port), command=shell)
            nursery.cancel_scope.cancel()

    assert (ended.status, ended.out, events_of(ended.err)[-1]) == (status, b"", last)
