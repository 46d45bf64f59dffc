"""Real datagram programs on the other side: Qt's QUdpSocket, socat, and dig with a name server of ours."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import attrs
import pytest
import trio

from tests.peers import peer_command, peer_module, without_peer
from tests.real_peers.name_server import serve_names
from tests.real_peers.programs import ROOT, Program, running
from tests.unused_ports import unused_port
from trioqt import HostAddress, SocketOption, UdpSocket

HOST, GROUP, EVERYBODY = "127.0.0.1", "239.83.17.61", "127.255.255.255"

MESSAGES = [b"hello", b"", b"with\0zero", bytes(60_000), b"last"]


@pytest.fixture
def python() -> str:
    """A Python that has Qt."""
    return peer_module("PySide6.QtNetwork")


@pytest.fixture
def socat() -> str:
    return peer_command("socat")


@attrs.frozen
class QtPeer:
    """The program ``qt_datagrams.py``, which says there what it understands and what it tells."""

    program: Program
    port: int

    async def hear(self, key: str) -> dict[str, Any]:
        """Wait until it tells something that has ``key``."""
        while True:
            news: dict[str, Any] = json.loads(await self.program.out.line())
            if key in news:
                return news

    async def datagram(self) -> dict[str, Any]:
        """The next that it has received."""
        return await self.hear("data")

    async def say(self, *words: object) -> None:
        """Tell it what to do, and wait until it has done it."""
        await self.program.say(" ".join(map(str, words)))
        await self.hear("done")


@asynccontextmanager
async def qt(python: str, host: str, group: str = "") -> AsyncIterator[QtPeer]:
    arguments = [host, group] if group else [host]
    async with running(python, str(Path(__file__).with_name("qt_datagrams.py")), *arguments) as program:
        port = json.loads(await program.out.line())["bound"]
        yield QtPeer(program, port)


@asynccontextmanager
async def bound(host: HostAddress | str = HOST) -> AsyncIterator[UdpSocket]:
    with trio.fail_after(20):
        async with UdpSocket() as sock:
            await sock.bind(host)
            yield sock


# ---- Qt ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
async def test_qt_hears_what_we_send_and_its_answers_come_back(python: str, host: str) -> None:
    """Each datagram whole, with the same addresses and hop limit as we know of; its ``makeReply`` finds us."""
    async with bound(host) as sock, qt(python, host) as peer:
        for data in MESSAGES:
            await sock.send_datagram(data, host, peer.port)
            heard = await peer.datagram()
            await peer.say("reply", data[::-1].hex() or "-")
            answer = await sock.receive_datagram()

            assert bytes.fromhex(heard["data"]) == data
            assert heard["sender"] == [host, sock.local_port()]
            assert heard["hop_limit"] == 64
            assert answer.data == data[::-1]
            assert (answer.sender_address, answer.sender_port) == (HostAddress(host), peer.port)


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
async def test_we_hear_what_qt_sends_and_our_answers_come_back(python: str, host: str) -> None:
    """The other way round, from a socket of ours that has every address."""
    async with bound(HostAddress.ANY) as sock, qt(python, host) as peer:
        for data in MESSAGES:
            await peer.say("send", host, sock.local_port(), data.hex() or "-")
            question = await sock.receive_datagram()
            await sock.send_datagram(question.make_reply(data[::-1]))
            heard = await peer.datagram()

            assert question.data == data
            assert question.sender_address == HostAddress(host)
            assert question.destination_address == HostAddress(host)
            assert (question.hop_limit, question.interface_index) == (64, 1)
            assert bytes.fromhex(heard["data"]) == data[::-1]
            assert heard["sender"] == [host, sock.local_port()]


async def test_two_virtual_connections(python: str) -> None:
    """Qt's and ours, each with the other as its only peer."""
    async with bound() as sock, qt(python, HOST) as peer:
        await sock.connect_to_host(HOST, peer.port)
        await peer.say("connect", HOST, sock.local_port())
        for data in MESSAGES[:3]:
            await peer.say("write", data.hex() or "-")
            assert await sock.wait_for_ready_read()
            assert sock.read_all() == data
            sock.write(data)
            assert bytes.fromhex((await peer.datagram())["data"]) == data


async def test_a_group_with_qt_in_it(python: str) -> None:
    """Each hears the other through the group."""
    async with bound(HostAddress.ANY_IPV4) as sock, qt(python, "0.0.0.0", GROUP) as peer:
        sock.join_multicast_group(GROUP, "lo")
        sock.set_multicast_interface("lo")
        sock.set_socket_option(SocketOption.MULTICAST_TTL, 3)
        await sock.send_datagram(b"to all", GROUP, peer.port)
        heard = await peer.datagram()
        await peer.say("send", GROUP, sock.local_port(), b"to you all".hex())
        answer = await sock.receive_datagram()

    assert (bytes.fromhex(heard["data"]), heard["hop_limit"]) == (b"to all", 3)
    assert heard["destination"][0] == GROUP
    assert (answer.data, answer.hop_limit) == (b"to you all", 1)
    assert answer.destination_address == HostAddress(GROUP)


async def test_broadcasts_with_qt(python: str) -> None:
    """In both directions, on the loopback's own network."""
    async with bound(HostAddress.ANY_IPV4) as sock, qt(python, "0.0.0.0") as peer:
        await sock.send_datagram(b"to all", EVERYBODY, peer.port)
        heard = await peer.datagram()
        await peer.say("send", EVERYBODY, sock.local_port(), b"to you all".hex())
        answer = await sock.receive_datagram()

    assert (bytes.fromhex(heard["data"]), heard["destination"][0]) == (b"to all", EVERYBODY)
    assert (answer.data, answer.destination_address) == (b"to you all", HostAddress(EVERYBODY))


async def test_a_steady_exchange_with_qt(python: str) -> None:
    """U-058: five hundred numbers there and back; nothing is lost on loopback."""
    async with bound() as sock, qt(python, HOST) as peer:
        for number in range(500):
            await sock.send_datagram(number.to_bytes(4, "big"), HOST, peer.port)
            await peer.datagram()
            await peer.say("reply", (number + 1).to_bytes(4, "big").hex())
            answer = await sock.receive_datagram()
            assert int.from_bytes(answer.data, "big") == number + 1


# ---- socat -------------------------------------------------------------------------------------


@asynccontextmanager
async def socat_at(socat: str, address: str) -> AsyncIterator[Program]:
    """A socat that writes what it receives, and sends what it reads, a line a datagram."""
    async with running(socat, "-d", "-d", "-", address) as program:
        await program.err.line_with("starting data transfer loop")
        yield program


@pytest.mark.parametrize(("family", "host"), [("4", "127.0.0.1"), ("6", "[::1]")])
async def test_socat_talks_to_us(socat: str, family: str, host: str) -> None:
    """What it sends is a datagram a line; our answer goes to the port it sent from."""
    async with bound(HostAddress.ANY) as sock:
        async with socat_at(socat, f"UDP{family}:{host}:{sock.local_port()}") as program:
            for line in ("one", "two"):
                await program.say(line)
                question = await sock.receive_datagram()
                await sock.send_datagram(question.make_reply(question.data.upper()))
                assert await program.out.line() == line.upper()


async def test_socat_hears_us(socat: str) -> None:
    """It takes what comes at its port."""
    async with bound() as sock:
        port = unused_port()
        async with socat_at(socat, f"UDP4-RECV:{port},bind={HOST}") as program:
            for line in (b"one\n", b"two\n"):
                await sock.send_datagram(line, HOST, port)
                assert await program.out.line() == line.decode().strip()


async def test_broadcasts_with_socat(socat: str) -> None:
    """To it and from it."""
    async with bound(HostAddress.ANY_IPV4) as sock:
        port = unused_port()
        async with (
            socat_at(socat, f"UDP4-RECV:{port}") as receiver,
            socat_at(socat, f"UDP4-DATAGRAM:{EVERYBODY}:{sock.local_port()},broadcast") as sender,
        ):
            await sock.send_datagram(b"to all\n", EVERYBODY, port)
            assert await receiver.out.line() == "to all"
            await sender.say("to you all")
            datagram = await sock.receive_datagram()

    assert (datagram.data, datagram.destination_address) == (b"to you all\n", HostAddress(EVERYBODY))


async def test_a_group_with_socat_in_it(socat: str) -> None:
    """To it and from it, over the loopback interface."""
    async with bound(HostAddress.ANY_IPV4) as sock:
        sock.join_multicast_group(GROUP, "lo")
        sock.set_multicast_interface("lo")
        port = unused_port()
        async with (
            socat_at(socat, f"UDP4-RECV:{port},ip-add-membership={GROUP}:{HOST}") as receiver,
            socat_at(socat, f"UDP4-DATAGRAM:{GROUP}:{sock.local_port()},ip-multicast-if={HOST}") as sender,
        ):
            await sock.send_datagram(b"to all\n", GROUP, port)
            assert await receiver.out.line() == "to all"
            await sender.say("to you all")
            datagram = await sock.receive_datagram()

    assert (datagram.data, datagram.destination_address) == (b"to you all\n", HostAddress(GROUP))


# ---- dig ---------------------------------------------------------------------------------------

NAMES = {"one.example": "192.0.2.1", "six.example": "2001:db8::6"}


@pytest.mark.parametrize("host", ["127.0.0.1", "127.0.0.53", "::1"])
@pytest.mark.parametrize(
    ("arguments", "answer"),
    [
        (["one.example", "A"], "192.0.2.1\n"),
        (["six.example", "AAAA"], "2001:db8::6\n"),
        (["one.example", "AAAA"], ""),
        (["nobody.example", "A"], ""),
    ],
)
async def test_dig_is_content_with_a_name_server_of_ours(host: str, arguments: list[str], answer: str) -> None:
    """It asks one of many addresses, and takes an answer from that address only."""
    dig = peer_command("dig")
    async with bound(HostAddress.ANY) as sock, trio.open_nursery() as nursery:
        nursery.start_soon(serve_names, sock, NAMES)
        command = [dig, f"@{host}", "-p", str(sock.local_port()), "+short", "+tries=1", "+time=10", "+noedns"]
        done = await trio.run_process([*command, *arguments], capture_stdout=True)
        nursery.cancel_scope.cancel()

    assert done.stdout.decode() == answer


async def test_dig_knows_that_there_is_no_such_name() -> None:
    """NXDOMAIN, with the question it asked."""
    dig = peer_command("dig")
    async with bound() as sock, trio.open_nursery() as nursery:
        nursery.start_soon(serve_names, sock, NAMES)
        command = [dig, f"@{HOST}", "-p", str(sock.local_port()), "+tries=1", "+time=10", "+noedns", "nobody.example"]
        done = await trio.run_process(command, capture_stdout=True)
        nursery.cancel_scope.cancel()

    assert "status: NXDOMAIN" in done.stdout.decode()


# ---- several interfaces ------------------------------------------------------------------------

# Two ends of a cable, in a network of its own that needs no privilege to be made.
CABLE = """
ip link set lo up
ip link add one type veth peer name two
ip addr add 10.83.17.1/24 dev one
ip addr add 10.83.17.2/24 dev two
ip addr add fd83::1/64 dev one nodad
ip addr add fd83::2/64 dev two nodad
ip link set one up
ip link set two up
for name in all one two; do
    echo 1 >/proc/sys/net/ipv4/conf/$name/accept_local # or what comes from this machine is a forgery
    echo 0 >/proc/sys/net/ipv4/conf/$name/rp_filter
done
exec "$0" -m tests.real_peers.two_interfaces
"""


def test_a_machine_with_several_interfaces() -> None:
    """Groups of both families by interface, link-local addresses, and broadcasts, on a cable between two interfaces."""
    unshare, _ = peer_command("unshare"), peer_command("ip")
    namespace = [unshare, "--user", "--map-root-user", "--net"]
    if os.geteuid() == 0:
        namespace = [unshare, "--net"]
    attempt = subprocess.run([*namespace, "true"], capture_output=True, text=True)
    if attempt.returncode != 0:
        without_peer("network-namespace", attempt.stderr.strip())

    done = subprocess.run(
        [*namespace, "sh", "-ec", CABLE, sys.executable], capture_output=True, text=True, cwd=ROOT, timeout=50
    )

    assert (done.returncode, done.stdout.splitlines()) == (0, ["all of it holds"]), done.stderr
