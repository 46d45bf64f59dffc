"""Many datagrams by one call of the system: what comes is the same as one by one, and nothing depends on it."""

from __future__ import annotations

import ctypes
import errno
import os
import socket
import struct
import sys
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import attrs
import pytest
import trio

from trioqt import ErrorKind, ErrorOccurred, NetworkDatagram, SocketError, UdpSocket
from trioqt.links import many_datagrams
from trioqt.links.datagram import CROWD, MOST_KNOWN, NativeDatagramLink
from trioqt.links.many_datagrams import AT_ONCE, ManyDatagrams, many_of_this_run
from trioqt.links.native import KernelSocket

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="only Linux has recvmmsg")


@attrs.frozen
class Ends:
    """A link, and somebody who sends to it."""

    link: NativeDatagramLink
    sender: socket.socket
    calls: list[int]
    """How many datagrams each call for many was to take at most."""

    def send(self, *data: bytes) -> None:
        """To the link's socket."""
        sock: Any = self.link.native()
        address = sock.getsockname()
        for one in data:
            self.sender.sendto(one, (self.sender.getsockname()[0], *address[1:]))

    def receive(self, most: int = 64) -> list[NetworkDatagram]:
        """What is there."""
        arrived = deque[NetworkDatagram]()
        assert self.link.try_receive(arrived, most) is None
        return list(arrived)

    def crowd(self) -> None:
        """A crowd has come, and so the next is taken by the batch."""
        self.send(*[b"crowd"] * CROWD)
        assert len(self.receive()) == CROWD
        self.calls.clear()


def udp(host: str) -> socket.socket:
    """A plain one that is bound there."""
    sock = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_DGRAM)
    sock.bind((host, 0))
    return sock


@contextmanager
def linked(monkeypatch: pytest.MonkeyPatch, own: str = "127.0.0.1", other: str = "127.0.0.1") -> Iterator[Ends]:
    """Both are closed in the end."""
    calls: list[int] = []
    real = ManyDatagrams.receive

    def counted(many: ManyDatagrams, descriptor: int, most: int) -> list[tuple[bytes, bytes]]:
        if descriptor != -1:
            calls.append(most)
        return real(many, descriptor, most)

    monkeypatch.setattr(ManyDatagrams, "receive", counted)
    family = socket.AF_INET6 if ":" in own else socket.AF_INET
    with KernelSocket(family, socket.SOCK_DGRAM) as sock, udp(other) as sender:
        sock.setblocking(False)
        if family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, "." not in other)
        link = NativeDatagramLink(sock)
        sock.try_bind((own, 0))
        yield Ends(link, sender, calls)


# ---- the same as one by one --------------------------------------------------------------------


@pytest.mark.parametrize(("own", "other"), [("127.0.0.1", "127.0.0.1"), ("0.0.0.0", "127.0.0.1"), ("::1", "::1")])
async def test_what_comes_by_the_batch_is_what_comes_one_by_one(
    monkeypatch: pytest.MonkeyPatch, own: str, other: str
) -> None:
    """Data, both addresses, the interface and the hop limit, and the order."""
    sizes = [0, 1, 64, 1472, 9000, 65000]
    sent = [bytes([number]) * size for number, size in enumerate(sizes)]
    with linked(monkeypatch, own, other) as ends:
        ends.send(*sent)
        one_by_one = ends.receive()
        assert ends.calls == []

        ends.send(*sent)
        together = ends.receive()
        assert ends.calls == [64, 64 - len(sizes)]

    assert [datagram.data for datagram in one_by_one] == sent
    assert together == one_by_one
    assert one_by_one[0].hop_limit > 0
    assert one_by_one[0].interface_index > 0


async def test_what_ipv4_sends_to_a_socket_for_both(monkeypatch: pytest.MonkeyPatch) -> None:
    """The sender's address is the mapped one, as one by one."""
    with linked(monkeypatch, "::", "127.0.0.1") as ends:
        sock: Any = ends.link.native()
        address = "127.0.0.1", sock.getsockname()[1]
        batches = []
        for _ in range(2):
            for number in range(CROWD):
                ends.sender.sendto(bytes([number]), address)
            batches.append(ends.receive())

    assert len(ends.calls) == 2
    assert batches[1] == batches[0]
    assert batches[0][0].sender_address.text == "::ffff:127.0.0.1"
    assert batches[0][0].destination_address.text == "::ffff:127.0.0.1"


async def test_the_longest_datagram_is_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    """65,507 bytes by IPv4; and a short one that comes into its place is short."""
    longest = os.urandom(65507)
    with linked(monkeypatch) as ends:
        ends.crowd()
        ends.send(longest, b"")
        assert [datagram.data for datagram in ends.receive()] == [longest, b""]
        ends.send(*[b"x"] * CROWD)
        assert [datagram.data for datagram in ends.receive()] == [b"x"] * CROWD


async def test_senders_that_come_in_turns_are_told_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    """More than are remembered, so some are forgotten and learnt again."""
    with linked(monkeypatch) as ends, monkeypatch.context() as patch:
        patch.setattr("trioqt.links.datagram.MOST_KNOWN", 3)
        ends.crowd()
        senders = [udp("127.0.0.1") for _ in range(8)]
        sock: Any = ends.link.native()
        for _ in range(2):
            for sender in senders:
                sender.sendto(b"x", sock.getsockname())
        ports = [sender.getsockname()[1] for sender in senders]
        for sender in senders:
            sender.close()

        assert [datagram.sender_port for datagram in ends.receive()] == ports * 2
        assert len(ends.link._heads) <= 3
    assert MOST_KNOWN == 1024


async def test_ipv4_and_ipv6_in_turns_leave_nothing_of_each_other(monkeypatch: pytest.MonkeyPatch) -> None:
    """All sockets of a run share the room; what the longer address has left in it is no part of the shorter one."""
    with linked(monkeypatch) as four, linked(monkeypatch, "::1", "::1") as six:
        for _ in range(3):
            for ends in (four, six):
                ends.crowd()
                ends.send(*[b"x"] * CROWD)
                assert len(set(map(attrs.astuple, ends.receive()))) == 1
        assert len(four.link._heads) == len(six.link._heads) == 1


async def test_a_batch_ends_where_there_is_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    """What was not asked for stays with the system; and more than one call can take come by several."""
    with linked(monkeypatch) as ends:
        ends.crowd()
        sent = [bytes([number]) for number in range(AT_ONCE + 8)]
        ends.send(*sent)

        assert [datagram.data for datagram in ends.receive(5)] == sent[:5]
        assert not ends.link.is_drained()
        assert [datagram.data for datagram in ends.receive(64)] == sent[5:]
        assert ends.link.is_drained()
    assert ends.calls == [5, 64, 64 - AT_ONCE, 64 - AT_ONCE - 3]


async def test_who_gets_one_at_a_time_is_not_asked_for_many(monkeypatch: pytest.MonkeyPatch) -> None:
    """A crowd that has thinned out is none; an empty look says nothing of that."""
    with linked(monkeypatch) as ends:
        ends.crowd()
        assert ends.receive() == []
        ends.send(b"x")
        assert len(ends.receive()) == 1
        assert len(ends.calls) == 3
        ends.send(b"x")
        assert len(ends.receive()) == 1
    assert len(ends.calls) == 3


async def test_a_connected_link_passes_over_strangers_by_the_batch_too(monkeypatch: pytest.MonkeyPatch) -> None:
    """Who had sent before there was a peer is not heard."""
    with linked(monkeypatch) as ends, udp("127.0.0.1") as stranger:
        ends.crowd()
        sock: Any = ends.link.native()
        for number in range(4):
            stranger.sendto(b"?", sock.getsockname())
            ends.send(bytes([number]))
        ends.link.connect(ends.sender.getsockname())

        assert [datagram.data for datagram in ends.receive()] == [bytes([number]) for number in range(4)]
    assert ends.calls


# ---- errors ------------------------------------------------------------------------------------


async def test_what_the_network_says_is_told_by_the_batch_too(monkeypatch: pytest.MonkeyPatch) -> None:
    """A refusal is one event and one error, and the datagrams around it come."""
    async with UdpSocket() as sock, UdpSocket() as peer:
        await peer.bind("127.0.0.1")
        await sock.connect_to_host("127.0.0.1", peer.local_port())
        await peer.disconnect_from_host()
        await peer.bind("127.0.0.1", sock.peer_port())
        await peer.connect_to_host("127.0.0.1", sock.local_port())
        for _ in range(CROWD):
            peer.write(b"crowd")
        for _ in range(CROWD):
            await sock.receive_datagram()
        link = sock._link
        assert isinstance(link, NativeDatagramLink)
        assert link._crowded

        await peer.aclose()
        sock.write(b"nobody is there")
        async with sock.events(ErrorOccurred) as events:
            with pytest.raises(SocketError) as caught:
                await sock.receive_datagram()
            assert (await events.__anext__()).kind is ErrorKind.CONNECTION_REFUSED
        assert caught.value.errno == errno.ECONNREFUSED
        assert link._crowded


async def test_a_descriptor_that_is_none_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    """As one by one."""
    with linked(monkeypatch) as ends:
        ends.crowd()
        sock: Any = ends.link.native()
        sock.close()
        exc = ends.link.try_receive(deque(), 64)

    assert exc is not None
    assert exc.errno == errno.EBADF


@pytest.mark.parametrize("number", [errno.ENOSYS, errno.EPERM])
async def test_a_sandbox_that_does_not_know_the_call(monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    """Then all come one by one."""
    asked = []

    def refuse(*args: Any) -> int:
        asked.append(args)
        ctypes.set_errno(number)
        return -1

    class Library:
        recvmmsg = staticmethod(refuse)

    def library(name: None, use_errno: bool) -> Any:
        return Library

    refuse.argtypes = []  # type: ignore[attr-defined]
    monkeypatch.setattr(ctypes, "CDLL", library)
    with linked(monkeypatch) as ends:
        ends.crowd()
        ends.send(*[b"x"] * 5)
        assert [datagram.data for datagram in ends.receive()] == [b"x"] * 5
        ends.send(*[b"y"] * 5)
        assert [datagram.data for datagram in ends.receive()] == [b"y"] * 5
    assert ends.calls == []
    assert len(asked) == 1


async def test_a_c_library_without_the_call(monkeypatch: pytest.MonkeyPatch) -> None:
    """So it is on other systems."""

    def library(name: None, use_errno: bool) -> Any:
        return object()

    monkeypatch.setattr(ctypes, "CDLL", library)
    assert many_of_this_run() is None


@pytest.mark.parametrize(("module", "name", "value"), [(sys, "platform", "darwin"), (sys, "byteorder", "big")])
async def test_a_machine_that_it_is_not_laid_out_for(
    monkeypatch: pytest.MonkeyPatch, module: Any, name: str, value: str
) -> None:
    """Nobody guesses there."""
    with monkeypatch.context() as patch:
        patch.setattr(module, name, value)
        assert many_of_this_run() is None


async def test_all_sockets_of_a_run_share_the_room() -> None:
    """2 MiB of addresses, of which only what was filled is memory; a run in another thread has its own."""
    many = many_of_this_run()

    async def main() -> ManyDatagrams | None:
        return many_of_this_run()

    assert many is not None
    assert many_of_this_run() is many
    assert await trio.to_thread.run_sync(trio.run, main) not in (many, None)


def test_outside_of_a_run_there_is_none() -> None:
    """The room belongs to one."""
    assert many_of_this_run() is None


# ---- the system's bytes ------------------------------------------------------------------------


def test_ancillary_data_that_are_cut_off_end_there() -> None:
    """What has no whole header is none, and a length of nothing is not gone round for ever."""
    name = struct.pack("=H2s4s", socket.AF_INET, (53).to_bytes(2, "big"), bytes([10, 0, 0, 1])).ljust(32, b"\0")
    whole = struct.pack("=Qii4s4x", 20, 0, 2, b"\x40\0\0\0")
    for rest in (b"", b"\1\2\3", struct.pack("=Qii", 0, 0, 0), struct.pack("=Qii", 5, 0, 0)):
        source, ancillary = many_datagrams.opened(name + whole + rest)
        assert source == ("10.0.0.1", 53)
        assert ancillary == ((0, 2, b"\x40\0\0\0"),)
