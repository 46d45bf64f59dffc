"""What goes beside a datagram, to the system's bytes and back; and what a link does when the system is odd."""

from __future__ import annotations

import errno
import os
import socket
import struct
from collections import deque
from typing import Any

import pytest
import trio
from hypothesis import given, strategies as st

from trioqt.core.addresses import HostAddress, from_sockaddr
from trioqt.core.datagram import NetworkDatagram
from trioqt.links.datagram import NativeDatagramLink, _ancillary, _header, _route

IP, IP6 = socket.IPPROTO_IP, socket.IPPROTO_IPV6
IPV4, IPV6 = socket.AF_INET, socket.AF_INET6


# ---- what comes --------------------------------------------------------------------------------


@given(
    source=st.tuples(st.ip_addresses(v=4).map(str), st.integers(0, 65535)),
    destination=st.ip_addresses(v=4),
    interface=st.integers(0, 2**31 - 1),
    hops=st.integers(0, 255),
)
def test_what_ipv4_says(source: tuple[str, int], destination: Any, interface: int, hops: int) -> None:
    """| interface | local address | address in the header |, and the time to live as an int, or a byte as on BSD."""
    info = struct.pack("=I4s4s", interface, bytes(4), destination.packed)
    for spelled in (struct.pack("=i", hops), bytes([hops])):
        header = _header(source, ((IP, 8, info), (IP, socket.IP_TTL, spelled)), 53)

        assert NetworkDatagram(b"", **header) == NetworkDatagram(
            b"", source[0], source[1], destination, 53, hops, interface
        )


@given(destination=st.ip_addresses(v=6), interface=st.integers(1, 2**31 - 1), hops=st.integers(0, 255))
def test_what_ipv6_says(destination: Any, interface: int, hops: int) -> None:
    """| address | interface |; one that is local to a link has the interface in its text."""
    info = destination.packed + struct.pack("=I", interface)
    header = _header(
        ("::1", 5, 0, 0), ((IP6, socket.IPV6_PKTINFO, info), (IP6, socket.IPV6_HOPLIMIT, struct.pack("=i", hops))), 53
    )

    scope = interface if destination.is_link_local else 0
    assert header["destination_address"] == from_sockaddr((str(destination), 53, 0, scope))
    assert (header["hop_limit"], header["interface_index"]) == (hops, interface)


def test_what_nobody_asked_for_is_passed_over() -> None:
    """A time stamp, somebody's credentials; and without anything the rest is unknown."""
    header = _header(("10.0.0.1", 5), ((socket.SOL_SOCKET, 29, bytes(16)), (IP, 99, b"x")), 53)

    assert NetworkDatagram(b"", **header) == NetworkDatagram(b"", "10.0.0.1", 5, "", 53)


# ---- what goes ---------------------------------------------------------------------------------

PKTINFO_LO = (IP, 8, struct.pack("=I", 1) + socket.inet_aton("10.0.0.1") + bytes(4))


# fmt: off
SAID: list[Any] = [
    (4, "",               0, -1, ()),
    (4, "10.0.0.1",       1, -1, (PKTINFO_LO,)),
    (4, "::ffff:10.0.0.1", 1, -1, (PKTINFO_LO,)),
    (4, "",               0, 7,  ((IP, socket.IP_TTL, struct.pack("=i", 7)),)),
    (4, "",               0, 0,  ((IP, socket.IP_TTL, bytes(4)),)),
    (4, "fe80::1%eth0",   0, -1, ()),
    (4, "fe80::1%eth0",   3, -1, ((IP, 8, struct.pack("=I", 3) + bytes(8)),)),
    (6, "fe80::1%eth0",   0, -1,
     ((IP6, socket.IPV6_PKTINFO, socket.inet_pton(IPV6, "fe80::1") + bytes(4)),)),
    (6, "",               2, 255,
     ((IP6, socket.IPV6_PKTINFO, bytes(16) + struct.pack("=I", 2)),
      (IP6, socket.IPV6_HOPLIMIT, struct.pack("=i", 255)))),
    (6, "10.0.0.1",       0, -1, ()),
    (4, "0.0.0.0",        0, -1, ()),
    (4, "*",              0, -1, ()),
    (6, "::",             0, -1, ()),
    (6, "*",              0, -1, ()),
]
# fmt: on


@pytest.mark.parametrize(("version", "source", "interface", "hops", "wanted"), SAID)
def test_what_is_said_of_one_datagram(
    version: int, source: str, interface: int, hops: int, wanted: tuple[Any, ...]
) -> None:
    """In the words of the version of IP that it goes by; a source of the other one is left out."""
    assert _ancillary(version, source, interface, hops) == wanted


# fmt: off
SPELLED: list[Any] = [
    (IPV4, "10.0.0.1",        ("10.0.0.1", 53)),
    (IPV4, "::ffff:10.0.0.1", ("10.0.0.1", 53)),
    (IPV4, "*",               ("0.0.0.0", 53)),
    (IPV6, "fd00::1",         ("fd00::1", 53, 0, 0)),
    (IPV6, "10.0.0.1",        ("::ffff:10.0.0.1", 53, 0, 0)),
    (IPV6, "::ffff:10.0.0.1", ("::ffff:10.0.0.1", 53, 0, 0)),
    (IPV6, "*",               ("::", 53, 0, 0)),
    (IPV6, "fe80::1%3",       ("fe80::1", 53, 0, 3)),
]
# fmt: on


@pytest.mark.parametrize(("family", "address", "target"), SPELLED)
def test_an_address_as_a_socket_of_a_family_is_told_it(family: int, address: str, target: Any) -> None:
    """IPv4 in IPv6 is mapped, and back; every address is this machine."""
    assert _route(family, "", (address, 53, "", 0, -1), None) == (target, ())


def test_ipv6_cannot_be_reached_from_ipv4() -> None:
    """There is no way to there, whether or not the system would say so in these words."""
    with pytest.raises(OSError) as caught:
        _route(IPV4, "", ("fd00::1", 53, "", 0, -1), None)

    assert caught.value.errno == errno.ENETUNREACH


@pytest.mark.parametrize(("own", "there"), [("127.0.0.1", "127.0.0.9"), ("::1", "::1")])
def test_an_answer_that_stays_on_this_machine_needs_no_word_of_that(own: str, there: str) -> None:
    """A socket with one address sends from there, and by the only way there is."""
    family = IPV6 if ":" in own else IPV4

    assert _route(family, own, (there, 53, own, 1, -1), None)[1] == ()


@pytest.mark.parametrize("there", ["10.0.0.9", "169.254.1.1", "224.0.0.251", "255.255.255.255"])
def test_an_answer_goes_back_by_the_interface_by_which_it_was_asked(there: str) -> None:
    """There may be several ways; without an interface a socket with one address needs no word of that."""
    assert _route(IPV4, "10.0.0.1", (there, 53, "10.0.0.1", 4, -1), None)[1] == _ancillary(4, "10.0.0.1", 4, -1)
    assert _route(IPV4, "10.0.0.1", (there, 53, "10.0.0.2", 4, -1), None)[1] == _ancillary(4, "10.0.0.2", 4, -1)
    assert _route(IPV4, "10.0.0.1", (there, 53, "10.0.0.1", 0, -1), None)[1] == ()


def test_by_an_interface_that_was_asked_for_it_goes_from_the_sockets_address() -> None:
    """IPv4's address and interface are told together; of IPv6, Linux keeps the address by itself."""
    assert _route(IPV4, "10.0.0.1", ("10.0.0.9", 53, "", 4, -1), None)[1] == _ancillary(4, "10.0.0.1", 4, -1)
    assert _route(IPV4, "", ("10.0.0.9", 53, "", 4, -1), None)[1] == _ancillary(4, "", 4, -1)
    assert _route(IPV6, "fd00::1", ("fd00::9", 53, "", 4, -1), None)[1] == _ancillary(6, "", 4, -1)


def test_what_goes_to_a_peer_goes_by_the_peers_version() -> None:
    """The mapped address of a peer is one of IPv4."""
    for peer, version in ((("::ffff:10.0.0.9", 53, 0, 0), 4), (("fd00::9", 53, 0, 0), 6)):
        assert _route(IPV6, "", ("", 0, "", 0, 9), peer) == (None, _ancillary(version, "", 0, 9))


# ---- a link ------------------------------------------------------------------------------------


class Scripted:
    """A socket that answers as the test says."""

    def __init__(self, *answers: Any, family: int = IPV4) -> None:
        self.answers = deque(answers)
        self.family = family
        self.refused: list[tuple[int, int]] = []
        self.closed = 0

    def setsockopt(self, level: int, option: int, value: Any) -> None:
        self.refused.append((level, option))
        raise OSError(errno.ENOPROTOOPT, "an older kernel")

    def getsockopt(self, level: int, option: int) -> int:
        return 0

    def getsockname(self) -> Any:
        return ("10.0.0.1", 53) if self.family == IPV4 else ("::", 53, 0, 0)

    def getpeername(self) -> Any:
        return ("10.0.0.9", 5)

    def try_connect(self, address: Any) -> None:
        pass

    def try_receive_message(self, max_bytes: int, max_ancillary: int) -> Any:
        answer = self.answers.popleft() if self.answers else BlockingIOError()
        if isinstance(answer, Exception):
            raise answer
        data, source = answer
        return data, [], 0, source

    def option_bytes(self, level: int, option: int, size: int) -> bytes:
        answer = self.answers.popleft()
        if isinstance(answer, Exception):
            raise answer
        data: bytes = answer
        return data

    def close(self) -> None:
        self.closed += 1


FRIEND, STRANGER = ("10.0.0.9", 5), ("10.0.0.8", 5)


def link_over(*answers: Any) -> NativeDatagramLink:
    sock: Any = Scripted(*answers)
    return NativeDatagramLink(sock)


def test_a_kernel_without_the_options_has_its_datagrams_all_the_same() -> None:
    """What is not known is not known."""
    link = link_over((b"x", FRIEND))
    arrived = deque[NetworkDatagram]()

    assert link.try_receive(arrived, 64) is None
    assert list(arrived) == [NetworkDatagram(b"x", FRIEND[0], FRIEND[1], "", 53)]
    sock: Any = link.native()
    assert len(sock.refused) >= 3


def test_a_batch_ends_where_there_is_no_more_or_enough() -> None:
    """Drained is what has nothing more, for all that is known; a full batch is not."""
    link = link_over(*[(bytes([number]), FRIEND) for number in range(5)])
    arrived = deque[NetworkDatagram]()

    link.try_receive(arrived, 3)
    assert (len(arrived), link.is_drained()) == (3, False)
    link.try_receive(arrived, 3)
    assert (len(arrived), link.is_drained()) == (5, True)


def test_what_had_arrived_before_an_error_is_kept() -> None:
    """And the error is given back, not raised."""
    error = OSError(errno.ECONNREFUSED, os.strerror(errno.ECONNREFUSED))
    link = link_over((b"1", FRIEND), error, (b"2", FRIEND))
    arrived = deque[NetworkDatagram]()

    assert link.try_receive(arrived, 64) is error
    assert [datagram.data for datagram in arrived] == [b"1"]
    assert not link.is_drained()
    assert link.try_receive(arrived, 64) is None
    assert [datagram.data for datagram in arrived] == [b"1", b"2"]


def test_a_connected_link_passes_over_what_others_had_sent_before() -> None:
    """They count as taken, so a batch of strangers is bounded too."""
    link = link_over((b"1", STRANGER), (b"2", FRIEND), (b"3", STRANGER), (b"4", FRIEND))
    link.connect(FRIEND)
    arrived = deque[NetworkDatagram]()

    link.try_receive(arrived, 3)

    assert [datagram.data for datagram in arrived] == [b"2"]
    assert link.peer_address() == FRIEND


@pytest.mark.parametrize("answer", [OSError(errno.ENOPROTOOPT, "no such option"), b"", bytes(32)])
def test_a_kernel_that_does_not_count_what_it_dropped(answer: Any) -> None:
    """An older Linux refuses, or answers with fewer numbers."""
    assert link_over(answer).dropped() is None


async def test_a_closed_link_waits_for_nothing() -> None:
    """It is closed once, however often that is asked for."""
    link = link_over()
    link.close()
    link.close()

    sock: Any = link.native()
    assert sock.closed == 1
    with pytest.raises(trio.ClosedResourceError):
        await link.wait_receivable()
    with pytest.raises(trio.ClosedResourceError):
        await link.wait_sendable()


def test_the_memory_of_senders_is_bounded() -> None:
    """A flood invents addresses; those that are remembered are so many at most."""
    for number in range(3000):
        _header((f"10.1.{number // 250}.{number % 250}", 5), (), 53)

    assert _header.cache_info().currsize <= 1024
    assert _header(("10.1.0.0", 5), (), 53)["sender_address"] == HostAddress("10.1.0.0")
