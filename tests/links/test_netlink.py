"""The kernel's interfaces: what Linux answers, what a sandbox refuses, and what no answer may do to us."""

from __future__ import annotations

import errno
import ipaddress
import json
import os
import re
import socket
import struct
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import attrs
import pytest
from hypothesis import given, strategies as st

from tests.peers import peer_command, without_peer
from trioqt import HostAddress, InterfaceAddress, InterfaceFlag, NetworkInterface
from trioqt.links import netlink
from trioqt.links.netlink import addresses_in, kernel_interfaces, links_in

UP = InterfaceFlag.IS_UP | InterfaceFlag.IS_RUNNING
NEW_LINK, NEW_ADDRESS, ERROR, DONE, CHANGED = 16, 20, 2, 3, 0x10


def attribute(kind: int, value: bytes) -> bytes:
    return struct.pack("=HH", len(value) + 4, kind) + value + bytes(-len(value) % 4)


def link(index: int, name: bytes, flags: int = 0x1043, mtu: int = 1500, hardware: bytes = b"\2\0\0\0\0\1") -> bytes:
    """What is behind the header: | structure | hardware address | name | MTU |."""
    known = attribute(1, hardware) + attribute(3, name + b"\0") + attribute(4, struct.pack("=I", mtu))
    return struct.pack("=BxHiII", 0, 1, index, flags, 0) + known


def address(index: int, prefix: int, **known: str) -> bytes:
    """Attributes by name: address, local, broadcast."""
    family = socket.AF_INET6 if ":" in "".join(known.values()) else socket.AF_INET
    kinds = {"address": 1, "local": 2, "broadcast": 4}
    packed = b"".join(attribute(kinds[name], socket.inet_pton(family, text)) for name, text in known.items())
    return struct.pack("=BBBBI", family, prefix, 0, 0, index) + packed


def message(kind: int, body: bytes = b"", *, flags: int = 2, sequence: int = 1) -> bytes:
    return struct.pack("=IHHII", 16 + len(body), kind, flags, sequence, 0) + body + bytes(-len(body) % 4)


@attrs.define(eq=False)
class Kernel:
    """Answers in this order; after the last, it has no more to say."""

    answers: list[bytes]
    asked: list[int] = attrs.Factory(list)
    closed: bool = False

    def setblocking(self, blocking: bool) -> None:
        assert not blocking

    def send(self, data: bytes) -> None:
        self.asked.append(struct.unpack_from("=IH", data)[1])

    def recv(self, size: int) -> bytes:
        if not self.answers:
            raise BlockingIOError
        return self.answers.pop(0)

    def __enter__(self) -> Kernel:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.closed = True


def with_answers(monkeypatch: pytest.MonkeyPatch, *answers: bytes) -> Kernel:
    kernel = Kernel(list(answers))
    monkeypatch.setattr(socket, "socket", lambda *_: kernel)
    return kernel


# ---- The real ones -----------------------------------------------------------------------------


def test_they_are_what_ip_tells_of_this_machine() -> None:
    """Name, index, hardware address, MTU, flags and addresses, as iproute2 shows them."""
    told = subprocess.run([peer_command("ip"), "-j", "address"], capture_output=True, text=True, check=True)
    expected: list[Any] = []
    for entry in json.loads(told.stdout):
        addresses = {(each["local"], each["prefixlen"], broadcast_of(each)) for each in entry.get("addr_info", [])}
        flags = entry["flags"]
        kinds = "UP" in flags, "LOOPBACK" in flags, "BROADCAST" in flags, "MULTICAST" in flags, "POINTOPOINT" in flags
        expected.append((entry["ifname"], entry["ifindex"], entry["mtu"], entry.get("address", ""), kinds, addresses))

    found: list[Any] = []
    for interface in kernel_interfaces():
        addresses = {
            (str(each.address).partition("%")[0], each.prefix_length, str(each.broadcast))
            for each in interface.addresses
        }
        kinds = (
            InterfaceFlag.IS_UP in interface.flags,
            InterfaceFlag.IS_LOOPBACK in interface.flags,
            InterfaceFlag.CAN_BROADCAST in interface.flags,
            InterfaceFlag.CAN_MULTICAST in interface.flags,
            InterfaceFlag.IS_POINT_TO_POINT in interface.flags,
        )
        found.append((interface.name, interface.index, interface.mtu, interface.hardware_address, kinds, addresses))
        assert interface.is_complete

    assert found == expected


def test_the_loopback_interface_is_there_and_leaves_no_descriptor_open() -> None:
    """Every machine has it."""
    before = os.listdir("/proc/self/fd")
    loopback = next(each for each in kernel_interfaces() if InterfaceFlag.IS_LOOPBACK in each.flags)

    assert InterfaceAddress(HostAddress.LOCAL_HOST, 8, HostAddress("127.255.255.255")) in loopback.addresses
    assert loopback.flags == UP | InterfaceFlag.IS_LOOPBACK
    assert os.listdir("/proc/self/fd") == before


# ---- What the kernel may say -------------------------------------------------------------------


def test_an_answer_in_several_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Messages may be spread over answers, and answers to older questions lie between them."""
    kernel = with_answers(
        monkeypatch,
        message(NEW_LINK, link(7, b"old0"), sequence=0) + message(NEW_LINK, link(2, b"eth0")),
        message(NEW_LINK, link(1, b"lo", flags=0x49, mtu=65536, hardware=bytes(6))) + message(DONE),
        message(NEW_ADDRESS, address(2, 24, address="192.0.2.1", local="192.0.2.1", broadcast="192.0.2.255")),
        message(NEW_ADDRESS, address(1, 128, address="::1"))
        + message(NEW_ADDRESS, address(2, 64, address="fe80::1"))
        + message(DONE),
    )

    found = kernel_interfaces()

    assert found == [
        NetworkInterface(
            "lo",
            1,
            "00:00:00:00:00:00",
            UP | InterfaceFlag.IS_LOOPBACK,
            65536,
            (InterfaceAddress(HostAddress("::1"), 128),),
        ),
        NetworkInterface(
            "eth0",
            2,
            "02:00:00:00:00:01",
            UP | InterfaceFlag.CAN_BROADCAST | InterfaceFlag.CAN_MULTICAST,
            1500,
            (
                InterfaceAddress(HostAddress("192.0.2.1"), 24, HostAddress("192.0.2.255")),
                InterfaceAddress(HostAddress("fe80::1%eth0"), 64),
            ),
        ),
    ]
    assert (kernel.asked, kernel.closed) == ([18, 22], True)


def test_what_changed_while_it_was_told_is_asked_for_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """The kernel marks such an answer, and half of it may be of before; of three such answers the last one counts."""
    torn = message(NEW_LINK, link(1, b"torn"), flags=2 | CHANGED) + message(DONE)
    whole = message(NEW_LINK, link(1, b"whole"), sequence=2) + message(DONE, sequence=2)
    kernel = with_answers(monkeypatch, torn, whole, message(DONE))

    assert [each.name for each in kernel_interfaces()] == ["whole"]
    assert kernel.asked == [18, 18, 22]

    always = [
        message(NEW_LINK, link(1, b"torn%d" % number), flags=2 | CHANGED, sequence=number)
        + message(DONE, sequence=number)
        for number in (1, 2, 3)
    ]
    kernel = with_answers(monkeypatch, *always, message(DONE))

    assert [each.name for each in kernel_interfaces()] == ["torn3"]
    assert kernel.asked == [18, 18, 18, 22]


def test_our_end_of_a_tunnel_is_the_local_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """There ADDRESS is the other end; and it has no hardware address and no broadcast."""
    found = addresses_in(
        [(NEW_ADDRESS, address(3, 32, address="10.0.0.2", local="10.0.0.1"))],
        links_in([(NEW_LINK, link(3, b"tun0", flags=0x1051, hardware=b""))]),
    )

    assert found == [
        NetworkInterface(
            "tun0",
            3,
            "",
            UP | InterfaceFlag.IS_POINT_TO_POINT | InterfaceFlag.CAN_MULTICAST,
            1500,
            (InterfaceAddress(HostAddress("10.0.0.1"), 32),),
        )
    ]


@pytest.mark.parametrize(
    ("address_", "prefix", "broadcast"),
    [
        ("127.0.0.1", 8, "127.255.255.255"),
        ("192.0.2.9", 30, "192.0.2.11"),
        ("192.0.2.9", 31, ""),
        ("192.0.2.9", 32, ""),
    ],
)
def test_a_broadcast_address_that_nobody_has_set(address_: str, prefix: int, broadcast: str) -> None:
    """Linux answers to it all the same; a network of one or two has none."""
    (found,) = addresses_in(
        [(NEW_ADDRESS, address(3, prefix, address=address_))], links_in([(NEW_LINK, link(3, b"lo"))])
    )

    assert found.addresses == (InterfaceAddress(HostAddress(address_), prefix, HostAddress(broadcast)),)


@pytest.mark.parametrize(("name", "scope"), [(b"eth0", "eth0"), (b"a%b", "3"), (b"\xff\xfe", "3"), (b"", "3")])
def test_a_name_that_would_spoil_an_address_is_no_scope(name: bytes, scope: str) -> None:
    """Linux lets nearly anything be a name; then the number is the scope."""
    (found,) = addresses_in([(NEW_ADDRESS, address(3, 64, address="fe80::1"))], links_in([(NEW_LINK, link(3, name))]))

    assert (os.fsencode(found.name), found.addresses[0].address.text) == (name, f"fe80::1%{scope}")


def test_an_address_of_an_interface_that_has_come_in_between_is_left_out() -> None:
    """Nobody knows yet what it is called."""
    found = addresses_in([(NEW_ADDRESS, address(9, 24, address="192.0.2.9"))], links_in([(NEW_LINK, link(1, b"lo"))]))

    assert [(each.name, each.addresses) for each in found] == [("lo", ())]


# ---- What is refused ---------------------------------------------------------------------------


def refuse(code: int) -> Any:
    def make(*_: object) -> Any:
        raise OSError(code, os.strerror(code))

    return make


NAMES_ONLY = [NetworkInterface("lo", 1, is_complete=False), NetworkInterface("en0", 4, is_complete=False)]


@pytest.mark.parametrize("code", [errno.EACCES, errno.EPERM, errno.EAFNOSUPPORT])
def test_where_it_may_not_be_asked_names_and_indices_are_told(monkeypatch: pytest.MonkeyPatch, code: int) -> None:
    """A sandbox, or Android: the value says that it is not complete."""
    monkeypatch.setattr(socket, "socket", refuse(code))
    monkeypatch.setattr(socket, "if_nameindex", lambda: [(4, "en0"), (1, "lo")])

    assert kernel_interfaces() == NAMES_ONLY


def test_other_systems_tell_names_and_indices(monkeypatch: pytest.MonkeyPatch) -> None:
    """As much as the standard library has."""
    monkeypatch.setattr(sys, "platform", "darwin")
    monkeypatch.setattr(socket, "socket", refuse(errno.EAFNOSUPPORT))
    monkeypatch.setattr(socket, "if_nameindex", lambda: [(4, "en0"), (1, "lo")])

    assert kernel_interfaces() == NAMES_ONLY


def test_an_error_of_the_kernels_closes_the_question(monkeypatch: pytest.MonkeyPatch) -> None:
    """The number is in the answer, negative."""
    kernel = with_answers(monkeypatch, message(ERROR, struct.pack("=i", -errno.EPERM)))
    monkeypatch.setattr(socket, "if_nameindex", lambda: [(4, "en0"), (1, "lo")])

    assert kernel_interfaces() == NAMES_ONLY
    assert kernel.closed


@pytest.mark.parametrize("code", [errno.EMFILE, errno.ENOBUFS])
def test_a_machine_that_has_run_out_of_something_says_so(monkeypatch: pytest.MonkeyPatch, code: int) -> None:
    """Names alone would look like a machine without addresses."""
    monkeypatch.setattr(socket, "socket", refuse(code))

    with pytest.raises(OSError, match=os.strerror(code)):
        kernel_interfaces()


# ---- Whatever comes ----------------------------------------------------------------------------

BODIES = st.one_of(st.binary(max_size=80), st.builds(lambda tail: link(1, b"lo") + tail, st.binary(max_size=40)))
MESSAGES = st.lists(st.tuples(st.sampled_from([NEW_LINK, NEW_ADDRESS, 99]), BODIES), max_size=5)


@given(MESSAGES, MESSAGES)
def test_no_message_makes_it_fail(links: Sequence[tuple[int, bytes]], addresses: Sequence[tuple[int, bytes]]) -> None:
    """Newer kernels say more than we know, and a torn message says nothing."""
    found = addresses_in(addresses, links_in(links))

    assert all(isinstance(interface, NetworkInterface) for interface in found)


@given(st.binary(max_size=200))
def test_no_answer_makes_it_fail_or_hang(data: bytes) -> None:
    """Lengths of 0, and lengths that lie, end the answer."""
    assert len(list(netlink.split(data))) <= len(data) // 16


# ---- Another machine ---------------------------------------------------------------------------

# A namespace of its own: a tunnel to one other end, a network of two, and more interfaces than one answer holds.
MANY = """
set -e
ip link set lo up
ip link add veth0 type veth peer name veth1
ip address add 10.9.0.1 peer 10.9.0.2 dev veth0
ip address add 2001:db8::5 peer 2001:db8::6 dev veth0
ip address add 192.0.2.9/31 dev veth1
ip address add 192.0.2.129/26 dev veth1
ip address add 192.0.2.65/26 broadcast + dev veth1
ip link set veth0 mtu 1400 up
for number in $(seq 1 40); do
    ip link add left$number type veth peer name right$number
    ip address add 10.1.$number.1/24 broadcast + dev left$number
done
ip -j address > "$1"
exec "$2" -c 'import trioqt; print(trioqt.network_interfaces())'
"""


def test_they_are_what_ip_tells_of_a_machine_with_many(tmp_path: Path) -> None:
    """The kernel tells them in several answers; each has its own addresses, and of a tunnel our end."""
    command = [peer_command("unshare"), "--net", "sh", "-c", MANY, "sh", str(tmp_path / "told"), sys.executable]
    if subprocess.run([*command[:2], "true"], capture_output=True).returncode:
        without_peer("unshare", "it may not make a network namespace")
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr

    shown = {
        entry["ifname"]: {
            f"InterfaceAddress(address=HostAddress('{each['local']}{scope_of(entry, each)}'), "
            f"prefix_length={each['prefixlen']}, broadcast=HostAddress('{broadcast_of(each)}'))"
            for each in entry["addr_info"]
        }
        for entry in json.loads((tmp_path / "told").read_text())
    }
    found: dict[str, set[str]] = {}
    for text in done.stdout.split("NetworkInterface(")[1:]:
        name = text.partition("name='")[2].partition("'")[0]
        found[name] = set(re.findall(r"InterfaceAddress\(.*?\)\)", text))

    assert len(shown) == 83
    assert found == shown


def broadcast_of(each: Any) -> str:
    """What ip shows if somebody has set it; where nobody has, the last address of a network that has one."""
    if each["family"] != "inet" or each["prefixlen"] > 30:
        return ""
    network = ipaddress.IPv4Interface(f"{each['local']}/{each['prefixlen']}").network
    return str(each.get("broadcast", network.broadcast_address))


def scope_of(entry: Any, each: Any) -> str:
    return f"%{entry['ifname']}" if each["scope"] == "link" and each["family"] == "inet6" else ""
