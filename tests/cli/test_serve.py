"""``trioqt serve echo``: a server that a script can start, find, and stop."""

from __future__ import annotations

import select
import signal

import pytest
import trio

from tests.cli.commands import call_trioqt, read_line, read_rest, run_trioqt, running_trioqt
from tests.networks import Loopback
from trioqt import HostAddress
from trioqt.core.addresses import location


async def port_of(process: trio.Process) -> int:
    """The port that it prints first, to 127.0.0.1."""
    line = await read_line(process.stdout)
    start, _, port = line.decode().rpartition(":")
    assert start == "listening on 127.0.0.1"
    return int(port)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
async def test_a_signal_ends_the_server_and_its_connections_with_status_0(
    network: Loopback, number: signal.Signals
) -> None:
    """It prints where it listens at once, says back what it hears, and says how many it served when told to stop."""
    async with running_trioqt("serve", "echo") as process:
        port = await port_of(process)
        with await network.raw_connect(port) as first, await network.raw_connect(port) as second:
            await first.send(bytes(range(256)))
            await second.send(b"hello")
            answers = [await first.receive(256), await second.receive(5)]
            process.send_signal(number)
            ends = [await first.receive_to_end(), await second.receive_to_end()]
        rest = [await read_rest(process.stdout), await read_rest(process.stderr)]
        status = await process.wait()

    assert answers == [bytes(range(256)), b"hello"]
    assert ends == [b"", b""]
    assert rest == [b"served 2 connections\n", b""]
    assert status == 0


async def test_a_signal_leaves_no_question_unanswered(network: Loopback) -> None:
    """Fifty have asked, and are not even accepted perhaps; one has connected and asks a moment later."""
    async with running_trioqt("serve", "echo") as process:
        port = await port_of(process)
        peers = [await network.raw_connect(port) for _ in range(50)]
        late = await network.raw_connect(port)
        for number, peer in enumerate(peers):
            await peer.send(b"question %d" % number)
        process.send_signal(signal.SIGTERM)
        await late.send(b"one more")
        answers = [await peer.receive_to_end() for peer in (*peers, late)]
        for peer in (*peers, late):
            peer.close()
        rest = [await read_rest(process.stdout), await read_rest(process.stderr)]
        status = await process.wait()

    assert answers == [*(b"question %d" % number for number in range(50)), b"one more"]
    assert (rest, status) == ([b"served 51 connections\n", b""], 0)


async def test_a_second_signal_cuts_who_does_not_listen(network: Loopback) -> None:
    """One client takes nothing, and could hold the server for the whole grace: its connection is reset."""
    async with running_trioqt("serve", "echo") as process:
        port = await port_of(process)
        with await network.raw_connect(port) as deaf:
            async with trio.open_nursery() as nursery:

                async def talk() -> None:
                    with pytest.raises((ConnectionResetError, BrokenPipeError)):
                        await deaf.send(bytes(100_000_000))

                nursery.start_soon(talk)
                await until_refused(network, port, process)
                process.send_signal(signal.SIGTERM)
        status = await process.wait()

    assert status == 0


async def until_refused(network: Loopback, port: int, process: trio.Process) -> None:
    """Stop it, and wait until it has heard."""
    process.send_signal(signal.SIGTERM)
    while True:
        try:
            (await network.raw_connect(port)).reset()
        except ConnectionRefusedError:
            return
        await trio.lowlevel.checkpoint()


async def test_a_client_that_finishes_hears_the_rest_and_the_end(network: Loopback) -> None:
    """Echo keeps half-closed connections until all is said back."""
    async with running_trioqt("serve", "echo") as process:
        with await network.raw_connect(await port_of(process)) as peer:
            await peer.send(b"x" * 300_000)
            peer.finish()
            heard = await peer.receive_to_end()

    assert heard == b"x" * 300_000


async def test_max_connections_lets_a_further_client_wait(network: Loopback) -> None:
    """With a limit of one the second client is answered when the first has gone, and not before."""
    async with running_trioqt("serve", "echo", "--max-connections", "1") as process:
        port = await port_of(process)
        with await network.raw_connect(port) as first, await network.raw_connect(port) as second:
            await second.send(b"second")
            await first.send(b"first")
            heard_first = await first.receive(5)
            heard_meanwhile = select.select([second.sock], [], [], 0)[0]
            first.close()
            heard_second = await second.receive(6)

    assert (heard_first, heard_meanwhile, heard_second) == (b"first", [], b"second")


async def test_a_port_in_use_is_told_in_one_line(network: Loopback) -> None:
    """No traceback: what was tried, why not, and status 1."""
    with await network.raw_listener() as other:
        port = other.port
        ended = await run_trioqt("serve", "echo", "--port", str(port))

    message = f"Error: cannot listen on 127.0.0.1 port {port}: Address already in use\n"
    assert (ended.status, ended.out, ended.err.decode()) == (1, b"", message)


async def test_the_host_may_be_a_name_and_the_port_chosen(network: Loopback) -> None:
    """``--host localhost --port N`` listens there."""
    port = await network.unused_port()
    async with running_trioqt("serve", "echo", "--host", "localhost", "--port", str(port)) as process:
        line = await read_line(process.stdout)

    assert line.decode() in (f"listening on 127.0.0.1:{port}\n", f"listening on [::1]:{port}\n")


def test_an_ipv6_address_is_printed_in_brackets() -> None:
    """As in a URL, so that the port can be told from the address."""
    assert location(HostAddress("::1"), 80) == "[::1]:80"
    assert location(HostAddress("127.0.0.1"), 80) == "127.0.0.1:80"


async def test_a_silent_client_is_reset_after_the_idle_limit(network: Loopback) -> None:
    """The server goes on, and counts it as served."""
    async with running_trioqt("serve", "echo", "--idle-limit", "0.05") as process:
        with await network.raw_connect(await port_of(process)) as peer:
            with pytest.raises(ConnectionResetError):
                await peer.receive_to_end()
            process.send_signal(signal.SIGINT)
        rest = await read_rest(process.stdout)

    assert rest == b"served 1 connection\n"


def test_there_are_limits_unless_told() -> None:
    """The help names them."""
    words = call_trioqt("serve", "echo", "--help").stdout.split()
    defaults = [words[at + 1] for at, word in enumerate(words) if word == "[default:"]

    assert defaults == ["127.0.0.1]", "1000;", "300;", "10.0;"]


@pytest.mark.parametrize("limit", ["0", "-1", "nan", "long"])
def test_an_idle_limit_that_is_no_time_is_a_usage_error(limit: str) -> None:
    """click says so, with its status 2."""
    result = call_trioqt("serve", "echo", "--idle-limit", limit)

    assert (result.exit_code, result.stdout) == (2, "")
    assert "Error: Invalid value for '--idle-limit'" in result.stderr


@pytest.mark.parametrize("limit", ["0", "-1", "many"])
def test_a_limit_that_is_no_limit_is_a_usage_error(limit: str) -> None:
    """click says so, with its status 2."""
    result = call_trioqt("serve", "echo", "--max-connections", limit)

    assert (result.exit_code, result.stdout) == (2, "")
    assert "Error: Invalid value for '--max-connections'" in result.stderr
