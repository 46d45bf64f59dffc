"""What programs that have never heard of trioqt tell of a bad network, and when.

A quarter of a second one way, an eighth for a look-up: the times are exact, as in test_third_party.py.
"""

from __future__ import annotations

import contextlib
import errno
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import httpcore
import pytest
import trio
import trio_websocket

from trioqt.testing import VirtualNetwork
from trioqt.testing.network.faults import DescriptorsExhausted, NameServerDown

PORT = 4000


@contextlib.asynccontextmanager
async def slow_network() -> AsyncIterator[VirtualNetwork]:
    """A network with the hosts "server" and "client"; the block is on the client."""
    async with VirtualNetwork(latency=0.25, name_latency=0.125) as net:
        with net.host("server"):
            pass
        with net.host("client"):
            yield net


@contextlib.asynccontextmanager
async def served(net: VirtualNetwork, serve: Callable[..., Awaitable[Any]], *args: Any) -> AsyncIterator[trio.Nursery]:
    """While ``serve(*args)`` runs on the host "server"."""
    async with trio.open_nursery() as nursery:
        with net.host("server"):
            await nursery.start(serve, *args)
        yield nursery
        nursery.cancel_scope.cancel()


async def answer_nothing(stream: trio.SocketStream) -> None:
    """A server that is there, and that is all."""
    await trio.sleep_forever()


async def echo(stream: trio.SocketStream) -> None:
    """What comes goes back, until the end."""
    async for data in stream:
        await stream.send_all(data)


def causes(error: OSError) -> list[int | None]:
    """Of trio's error, when it has tried every address: what each of them came to."""
    assert isinstance(error.__cause__, ExceptionGroup)
    return [cause.errno for cause in error.__cause__.exceptions if isinstance(cause, OSError)]


async def test_trio_is_refused_after_a_round_trip(autojump_clock: object) -> None:
    """Nobody listens, and the host says so."""
    async with slow_network():
        with pytest.raises(OSError, match="all attempts to connect to server:4000 failed") as caught:
            await trio.open_tcp_stream("server", PORT)

        assert causes(caught.value) == [errno.ECONNREFUSED]
        assert trio.current_time() == 0.625


async def test_trio_gives_up_when_linux_does(autojump_clock: object) -> None:
    """Nothing comes through: seven attempts, 1, 2, 4, 8, 16 and 32 seconds apart, and 64 seconds after the last."""
    async with slow_network() as net:
        with net.partition("client", "server"), pytest.raises(OSError, match="all attempts") as caught:
            await trio.open_tcp_stream("server", PORT)

        assert causes(caught.value) == [errno.ETIMEDOUT]
        assert trio.current_time() == 0.125 + 127
        assert [event.note for event in net.trace() if event.kind == "lost"] == ["SYN"] * 7


async def test_trio_tries_the_next_address_after_a_quarter_of_a_second(autojump_clock: object) -> None:
    """Happy eyeballs: the first address says nothing, so the second is tried beside it, and is connected."""
    async with VirtualNetwork(latency=0.25, name_latency=0.125) as net:
        with net.host("gone", addresses=["fd00::9"]):
            pass
        with net.host("server", addresses=["10.1.0.1"]):
            net.set_name("service", "fd00::9", "10.1.0.1")
        with net.host("client", addresses=["10.1.0.2", "fd00::2"]):
            async with served(net, trio.serve_tcp, echo, PORT):
                with net.partition("client", "gone"):
                    async with await trio.open_tcp_stream("service", PORT) as stream:
                        peer = stream.socket.getpeername()
                        connected = trio.current_time()

    assert peer == ("10.1.0.1", PORT)
    assert connected == 0.125 + 0.25 + 0.5


async def test_httpcore_says_that_it_was_refused(autojump_clock: object) -> None:
    """As ConnectError, after a round trip."""
    async with slow_network(), httpcore.AsyncConnectionPool() as pool:
        with pytest.raises(httpcore.ConnectError):
            await pool.request("GET", f"http://server:{PORT}/")

        assert trio.current_time() == 0.625


async def test_httpcore_says_that_there_is_no_such_name(autojump_clock: object) -> None:
    """As ConnectError too, after the look-up."""
    async with slow_network(), httpcore.AsyncConnectionPool() as pool:
        with pytest.raises(httpcore.ConnectError, match="no such name"):
            await pool.request("GET", f"http://nobody:{PORT}/")

        assert trio.current_time() == 0.125


async def test_httpcore_connects_no_longer_than_it_may(autojump_clock: object) -> None:
    """Its own time-out counts the seconds of the mock clock."""
    async with slow_network() as net, httpcore.AsyncConnectionPool() as pool:
        with net.partition("client", "server"), pytest.raises(httpcore.ConnectTimeout):
            await pool.request("GET", f"http://server:{PORT}/", extensions={"timeout": {"connect": 5}})

        assert trio.current_time() == 5


async def test_httpcore_reads_no_longer_than_it_may(autojump_clock: object) -> None:
    """A server that takes the request and says nothing."""
    async with slow_network() as net, served(net, trio.serve_tcp, answer_nothing, PORT):
        async with httpcore.AsyncConnectionPool() as pool:
            with pytest.raises(httpcore.ReadTimeout):
                await pool.request("GET", f"http://server:{PORT}/", extensions={"timeout": {"read": 3}})

            assert trio.current_time() == 0.625 + 3


async def test_httpcore_says_that_the_connection_was_reset(autojump_clock: object) -> None:
    """As ReadError, in the middle of waiting for an answer."""
    async with slow_network() as net, served(net, trio.serve_tcp, answer_nothing, PORT) as nursery:
        async with httpcore.AsyncConnectionPool() as pool:

            async def reset() -> None:
                await trio.sleep(2)
                net.reset_connections("client", "server")

            nursery.start_soon(reset)
            with pytest.raises(httpcore.ReadError, match="Connection reset by peer"):
                await pool.request("GET", f"http://server:{PORT}/")

            assert trio.current_time() == 2


async def serve_websocket_echo(*, task_status: trio.TaskStatus[object]) -> None:
    """What comes goes back, message by message."""

    async def answer(request: trio_websocket.WebSocketRequest) -> None:
        connection = await request.accept()
        with contextlib.suppress(trio_websocket.ConnectionClosed):
            while True:
                await connection.send_message(await connection.get_message())

    await trio_websocket.serve_websocket(answer, None, PORT, None, task_status=task_status)


async def test_a_websocket_outlives_a_partition(autojump_clock: object) -> None:
    """What is sent while nothing comes through comes when something does, in order, and nothing twice."""
    async with slow_network() as net, served(net, serve_websocket_echo):
        async with trio_websocket.open_websocket("server", PORT, "/", use_ssl=False) as connection:
            with net.partition("client", "server"):
                for number in range(10):
                    await connection.send_message(str(number))
                    await trio.sleep(1)
            healed = trio.current_time()
            answers = [await connection.get_message() for _ in range(10)]
            answered = trio.current_time()

    assert answers == [str(number) for number in range(10)]
    assert healed == 1.125 + 10
    # The sender waits twice as long each time: at most as long again as nothing came through.
    assert healed + 0.5 < answered < healed + 10


async def test_a_websocket_hears_of_its_reset(autojump_clock: object) -> None:
    """trio-websocket takes it for the end: code 1006, which is never sent over a connection (RFC 6455, 7.4.1)."""
    async with slow_network() as net, served(net, serve_websocket_echo) as nursery:
        # open_websocket (0.12) never closes a socket that was reset, on the kernel's network neither: so it is ours.
        async with await trio.open_tcp_stream("server", PORT) as stream:
            connection = await trio_websocket.wrap_client_stream(nursery, stream, "server", "/")
            net.reset_connections("client", "server")
            with pytest.raises(trio_websocket.ConnectionClosed) as caught:
                await connection.get_message()

    assert caught.value.reason is not None
    assert caught.value.reason.code == 1006
    assert trio.current_time() == 1.125


async def test_trio_hears_of_a_crash_when_the_host_is_up_again(autojump_clock: object) -> None:
    """Nobody says that the server has crashed.  Its next life knows nothing of the connection, and resets it; a new
    one it takes.
    """
    async with slow_network() as net, trio.open_nursery() as nursery:
        await nursery.start(net.run_on, "server", trio.serve_tcp, echo, PORT)
        async with await trio.open_tcp_stream("server", PORT) as stream:
            with net.crash("server"):
                await stream.send_all(b"is anybody there?")
                with trio.move_on_after(60) as waiting:
                    await stream.receive_some()
            with pytest.raises(trio.BrokenResourceError):
                await stream.receive_some()
        heard = trio.current_time()
        async with await trio.open_tcp_stream("server", PORT) as stream:
            await stream.send_all(b"hello")
            answer = await stream.receive_some()
        nursery.cancel_scope.cancel()

    assert waiting.cancelled_caught
    # The sender waits twice as long each time, so it takes at most as long again until it finds out.
    assert 60.625 < heard < 2 * 60.625
    assert answer == b"hello"


async def test_trio_serves_on_when_there_are_descriptors_again(
    autojump_clock: object, caplog: pytest.LogCaptureFixture
) -> None:
    """trio.serve_tcp meets EMFILE, says so in its log, and tries again ten times a second; the client waits for it."""
    async with slow_network() as net, served(net, trio.serve_tcp, echo, PORT):
        async with await trio.open_tcp_stream("server", PORT) as stream:
            with net.begin(DescriptorsExhausted("server")):
                await stream.send_all(b"hello")
                with trio.move_on_after(10):
                    await stream.receive_some()
            healed = trio.current_time()
            answer = await stream.receive_some()
            answered = trio.current_time()

    assert answer == b"hello"
    # The connection is complete at 0.875, so the server has tried for 9.75 seconds; it succeeds at the next attempt.
    assert healed == 0.625 + 10
    assert [record.message for record in caplog.records] == [
        "accept returned EMFILE (Too many open files); retrying in 0.1 seconds"
    ] * 98
    assert healed + 0.25 < answered <= healed + 0.25 + 0.1


async def test_trio_says_that_the_name_server_does_not_answer(autojump_clock: object) -> None:
    """EAI_AGAIN after ten seconds, as long as Linux asks."""
    async with slow_network() as net:
        with net.begin(NameServerDown()), pytest.raises(socket.gaierror) as caught:
            await trio.open_tcp_stream("server", PORT)

        assert caught.value.errno == socket.EAI_AGAIN
        assert trio.current_time() == 10
