"""Addresses: what is one, which are equal, and how the system's socket calls spell them."""

from __future__ import annotations

import copy
import ipaddress
import pickle
import socket
from ipaddress import IPv4Address, IPv6Address
from typing import Any, Literal

import attrs
import pytest
from hypothesis import assume, given, strategies as st

from trioqt.core.addresses import (
    HostAddress,
    NetworkLayerProtocol,
    from_sockaddr,
    host_address,
    parse_address,
    to_sockaddr,
)

IPV4 = st.ip_addresses(v=4)
IPV6 = st.ip_addresses(v=6)
ANY_ADDRESS = st.ip_addresses().map(HostAddress)
PORT = st.integers(0, 65535)
SCOPE = st.sampled_from(["", "%eth0", "%eth0.5", "%7", "%br-lan"])


# ---- What is an address ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given_text", "text"),
    [
        ("10.0.0.1", "10.0.0.1"),
        ("2001:DB8:0:0:0:0:0:1", "2001:db8::1"),
        ("FE80::1%Eth0", "fe80::1%Eth0"),
        ("::FFFF:A00:1", "::ffff:10.0.0.1"),
        ("::ffff:10.0.0.1", "::ffff:10.0.0.1"),
        ("::ffff:10.0.0.1%eth0", "::ffff:10.0.0.1%eth0"),
        ("", ""),
        ("*", "*"),
    ],
)
def test_the_text_is_canonical(given_text: str, text: str) -> None:
    """Lower case and compressed, the same on every Python; a scope is a name, so its case is kept."""
    assert HostAddress(given_text).text == text
    assert str(HostAddress(given_text)) == text


@given(ip=IPV4 | IPV6, scope=SCOPE)
def test_the_text_makes_the_same_address_again(ip: IPv4Address | IPv6Address, scope: str) -> None:
    """What is printed can be typed in, and ``ip`` gives back what went in, scope included."""
    ip = ip if isinstance(ip, IPv4Address) else IPv6Address(f"{ip}{scope}")
    address = HostAddress(ip)

    assert HostAddress(address.text).text == address.text
    assert address.ip == ip
    assert eval(repr(address)).text == address.text


@given(IPV4 | IPV6)
def test_an_address_is_made_from_whatever_is_one(ip: IPv4Address | IPv6Address) -> None:
    """Text, an ``ipaddress`` object and an address give equal addresses; an address is handed on as it is."""
    address = HostAddress(str(ip))

    assert address == HostAddress(ip) == HostAddress(address) == host_address(str(ip)) == host_address(ip)
    assert host_address(address) is address


@pytest.mark.parametrize(
    "text",
    [
        "localhost",
        "256.1.1.1",
        "127.1",
        "010.0.0.1",
        "10.0.0.1/8",
        " 10.0.0.1",
        "10.0.0.1%eth0",
        "::1%",
        "::1%a b",
        "::1%a\n",
        "::1%a/b",
        "::1%a%b",
        "[::1]",
        "1::2::3",
        "**",
    ],
)
def test_text_that_spells_no_address_is_refused(text: str) -> None:
    """The message repeats the text; for ``parse_address`` such a text is a host name, for a resolver to judge."""
    with pytest.raises(ValueError) as caught:
        HostAddress(text)

    assert str(caught.value) == f"not an IP address: {text!r}"
    assert parse_address(text) is None


def test_an_interface_is_no_address() -> None:
    """``IPv4Interface`` is an ``IPv4Address`` to Python, and prints with its network: refused, not cut."""
    with pytest.raises(ValueError, match="not an IP address"):
        HostAddress(ipaddress.ip_interface("10.0.0.1/8"))


@pytest.mark.parametrize("value", [None, 2130706433, b"127.0.0.1", ("127.0.0.1", 80)])
def test_a_value_of_another_type_is_refused(value: Any) -> None:
    """A number or bytes could be meant as an address; guessing is not ours."""
    for make in (HostAddress, host_address, parse_address):
        with pytest.raises(TypeError, match="an address is a str"):
            make(value)


def test_text_that_spells_an_address_is_found() -> None:
    """``parse_address`` gives what the constructor gives, the special texts included."""
    assert parse_address("10.0.0.1") == HostAddress("10.0.0.1")
    assert parse_address("fe80::1%eth0") == HostAddress("fe80::1%eth0")
    assert parse_address("*") == HostAddress.ANY
    assert parse_address("") == HostAddress.NULL


# ---- Known addresses ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("address", "text", "protocol", "is_loopback"),
    [
        (HostAddress.NULL, "", NetworkLayerProtocol.UNKNOWN, False),
        (HostAddress.ANY, "*", NetworkLayerProtocol.ANY_IP, False),
        (HostAddress.ANY_IPV4, "0.0.0.0", NetworkLayerProtocol.IPV4, False),
        (HostAddress.ANY_IPV6, "::", NetworkLayerProtocol.IPV6, False),
        (HostAddress.LOCAL_HOST, "127.0.0.1", NetworkLayerProtocol.IPV4, True),
        (HostAddress.LOCAL_HOST_IPV6, "::1", NetworkLayerProtocol.IPV6, True),
        (HostAddress.BROADCAST, "255.255.255.255", NetworkLayerProtocol.IPV4, False),
    ],
)
def test_the_known_addresses_are_what_qt_says(
    address: HostAddress, text: str, protocol: NetworkLayerProtocol, is_loopback: bool
) -> None:
    """Seven values and their families, all different."""
    assert (address.text, address.protocol(), address.is_loopback(), address.is_multicast()) == (
        text,
        protocol,
        is_loopback,
        False,
    )


def test_the_three_any_addresses_are_three_values() -> None:
    """Qt prints Any as 0.0.0.0; here it is ``*``, so that its text makes it again and not one of the others."""
    known = {HostAddress.NULL, HostAddress.ANY, HostAddress.ANY_IPV4, HostAddress.ANY_IPV6}

    assert len(known) == 4
    assert HostAddress(str(HostAddress.ANY)) == HostAddress.ANY


def test_the_null_address_has_no_ip_and_any_has_that_of_a_dual_stack_socket() -> None:
    """``ipaddress`` has neither; a dual-stack socket is bound to ``::``, so that is what ANY shows."""
    with pytest.raises(ValueError, match="the null address has no ip"):
        _ = HostAddress.NULL.ip

    assert HostAddress.ANY.ip == IPv6Address("::")


# ---- Equality ----------------------------------------------------------------------------------


@given(IPV4)
def test_a_mapped_address_equals_its_ipv4_form(ip: IPv4Address) -> None:
    """A dual-stack server sees 10.0.0.1 as ::ffff:10.0.0.1; whoever counts or lists peers means one machine."""
    plain, mapped, scoped = HostAddress(ip), HostAddress(f"::ffff:{ip}"), HostAddress(f"::ffff:{ip}%eth0.5")

    assert plain == mapped == scoped
    assert len({plain, mapped, scoped}) == 1
    assert mapped.protocol() is NetworkLayerProtocol.IPV6
    assert (plain.is_loopback(), plain.is_multicast()) == (ip.is_loopback, ip.is_multicast)
    assert (mapped.is_loopback(), mapped.is_multicast()) == (ip.is_loopback, ip.is_multicast)


@given(ANY_ADDRESS, ANY_ADDRESS)
def test_other_addresses_are_equal_only_if_their_ip_is(one: HostAddress, two: HostAddress) -> None:
    """Nothing else is folded together."""

    def plain(address: HostAddress) -> IPv4Address | IPv6Address:
        return getattr(address.ip, "ipv4_mapped", None) or address.ip

    assert (one == two) is (plain(one) == plain(two))
    assert one != two or hash(one) == hash(two)


def test_a_scope_makes_a_different_address() -> None:
    """fe80::1 on one cable and on another are two machines.  An address is no text either."""
    assert len({HostAddress("fe80::1"), HostAddress("fe80::1%eth0"), HostAddress("fe80::1%eth0.5")}) == 3
    assert HostAddress("10.0.0.1") != "10.0.0.1"  # type: ignore[comparison-overlap]


@pytest.mark.parametrize("address", [HostAddress.NULL, HostAddress.ANY, HostAddress("fe80::1%eth0")])
def test_an_address_is_a_value(address: HostAddress) -> None:
    """It survives pickle and copy, prints as what makes it, and cannot be changed."""
    for twin in (pickle.loads(pickle.dumps(address)), copy.copy(address), copy.deepcopy(address)):
        assert (twin, twin.text) == (address, address.text)
    assert repr(address) == f"HostAddress('{address.text}')"
    with pytest.raises(attrs.exceptions.FrozenInstanceError):
        address.text = "10.0.0.1"  # type: ignore[misc]
    with pytest.raises(AttributeError):
        address.port = 80  # type: ignore[attr-defined]


# ---- Where an address lies ---------------------------------------------------------------------


@given(IPV4 | IPV6)
def test_loopback_and_multicast_are_as_the_registries_say(ip: IPv4Address | IPv6Address) -> None:
    """127.0.0.0/8 and ::1; 224.0.0.0/4 and ff00::/8; a mapped address is what its IPv4 form is."""
    address = HostAddress(ip)

    assert address.is_loopback() == (address.is_in_subnet("127.0.0.0/8") or address.is_in_subnet("::1"))
    assert address.is_multicast() == (address.is_in_subnet("224.0.0.0/4") or address.is_in_subnet("ff00::/8"))


@pytest.mark.parametrize("text", ["127.0.0.1", "127.255.0.3", "::ffff:127.0.0.1", "::1", "::1%lo"])
def test_these_are_loopback(text: str) -> None:
    """The ones that a check for "only from this machine" must not miss."""
    assert HostAddress(text).is_loopback() is True


@given(st.data(), st.sampled_from([4, 6]))
def test_a_subnet_is_what_ipaddress_says(data: st.DataObject, version: Literal[4, 6]) -> None:
    """With a prefix or, for IPv4, a netmask, and whatever is beyond it; the scope plays no part."""
    start = data.draw(st.ip_addresses(v=version))
    network = ipaddress.ip_network(f"{start}/{data.draw(st.integers(0, start.max_prefixlen))}", strict=False)
    inside = st.integers(int(network.network_address), int(network.broadcast_address)).map(type(start))
    ip = data.draw(inside | st.ip_addresses(v=version))
    scope = "" if version == 4 else data.draw(SCOPE)
    assume(version == 4 or not IPv6Address(ip).ipv4_mapped)  # the next test's

    address = HostAddress(f"{ip}{scope}")

    assert address.is_in_subnet(f"{start}/{network.prefixlen}") is (ip in network)
    if version == 4:
        assert address.is_in_subnet(f"{start}/{network.netmask}") is (ip in network)
        assert address.is_in_subnet("::/0") is False
    else:
        assert address.is_in_subnet("0.0.0.0/0") is False


@given(ip=IPV4, start=IPV4, bits=st.integers(0, 32))
def test_a_mapped_address_lies_where_its_ipv4_form_lies(ip: IPv4Address, start: IPv4Address, bits: int) -> None:
    """An access list that names 10.0.0.0/8 holds on a dual-stack server too, whichever way it is written."""
    expected = ip in ipaddress.ip_network(f"{start}/{bits}", strict=False)
    answers = {
        address.is_in_subnet(subnet)
        for address in (HostAddress(ip), HostAddress(f"::ffff:{ip}"))
        for subnet in (f"{start}/{bits}", f"::ffff:{start}/{bits + 96}")
    }

    assert answers == {expected}
    assert HostAddress(f"::ffff:{ip}").is_in_subnet("::/0") is False


@pytest.mark.parametrize("address", [HostAddress.NULL, HostAddress.ANY])
def test_what_is_not_one_address_lies_nowhere(address: HostAddress) -> None:
    """Not even in everything."""
    assert [address.is_in_subnet(subnet) for subnet in ("0.0.0.0/0", "::/0")] == [False, False]


def test_subnet_without_a_mask_is_one_address() -> None:
    """As Qt's parseSubnet has it."""
    assert HostAddress("10.0.0.1").is_in_subnet("10.0.0.1") is True
    assert HostAddress("10.0.0.2").is_in_subnet("10.0.0.1") is False


@pytest.mark.parametrize(
    "subnet", ["", "*", "10.0.0.0/", "10.0.0.0/33", "10.0.0.0/255.0.255.0", "fe80::%eth0/10", "::/129", "localhost"]
)
def test_text_that_is_no_subnet_is_refused(subnet: str) -> None:
    """A mistyped entry of an access list must not quietly mean nobody, whatever address it meets."""
    for address in (HostAddress.LOCAL_HOST, HostAddress.NULL):
        with pytest.raises(ValueError, match="not a subnet"):
            address.is_in_subnet(subnet)


def test_a_number_is_no_subnet() -> None:
    """``ipaddress`` would take it for an address."""
    with pytest.raises(TypeError, match="a subnet is a str"):
        HostAddress.LOCAL_HOST.is_in_subnet(8)  # type: ignore[arg-type]


# ---- Socket calls ------------------------------------------------------------------------------


@given(ip=IPV4 | IPV6, port=PORT)
def test_an_address_goes_through_a_socket_call_unchanged(ip: IPv4Address | IPv6Address, port: int) -> None:
    """What we bind is what getsockname tells us: same text, so the mapped form stays mapped."""
    address = HostAddress(ip)
    sockaddr = to_sockaddr(address, port)

    assert sockaddr == ((address.text, port) if ip.version == 4 else (address.text, port, 0, 0))
    assert from_sockaddr(sockaddr).text == address.text


def test_scope_is_the_interface_by_name_to_people_and_by_number_to_the_system() -> None:
    """fe80::1%lo goes out as the loopback's number, and comes back by name; a number is taken as it is."""
    index, name = socket.if_nameindex()[0]

    assert to_sockaddr(HostAddress(f"fe80::1%{name}"), 80) == ("fe80::1", 80, 0, index)
    assert to_sockaddr(HostAddress(f"fe80::1%{index}"), 80) == ("fe80::1", 80, 0, index)
    assert from_sockaddr(("fe80::1", 80, 0, index)) == HostAddress(f"fe80::1%{name}")
    assert from_sockaddr((f"fe80::1%{name}", 80, 0, index)) == HostAddress(f"fe80::1%{name}")


@given(st.integers(2**20, 2**32 - 1))
def test_an_interface_that_the_system_does_not_know_stays_a_number(index: int) -> None:
    """It may have gone between the packet and the question; the address is still told."""
    address = from_sockaddr(("fe80::1", 80, 0, index))

    assert address.text == f"fe80::1%{index}"
    assert to_sockaddr(address, 80) == ("fe80::1", 80, 0, index)


@pytest.mark.parametrize("scope", ["no-such-one", str(2**32), "9" * 5000])
def test_an_unknown_interface_is_the_systems_error(scope: str) -> None:
    """The machine may have such an interface tomorrow, so it is an OSError and not a wrong argument."""
    with pytest.raises(OSError):
        to_sockaddr(HostAddress(f"fe80::1%{scope}"), 80)


def test_any_binds_both_families_and_null_binds_none() -> None:
    """``::`` on a dual-stack socket is every address; the null address is nothing to give to the system."""
    assert to_sockaddr(HostAddress.ANY, 80) == ("::", 80, 0, 0)
    assert to_sockaddr(HostAddress.ANY_IPV4, 80) == ("0.0.0.0", 80)
    with pytest.raises(ValueError, match="the null address cannot be bound or connected to"):
        to_sockaddr(HostAddress.NULL, 80)


@pytest.mark.parametrize("port", [-1, 65536])
def test_port_outside_its_range_is_refused(port: int) -> None:
    """Python's own OverflowError would come later, from the middle of a connect."""
    with pytest.raises(ValueError, match="a port is 0 to 65535"):
        to_sockaddr(HostAddress.LOCAL_HOST, port)


@pytest.mark.parametrize("port", ["80", 80.0, None])
def test_a_port_is_an_int(port: Any) -> None:
    """A service name would need a look-up."""
    with pytest.raises(TypeError, match="a port is an int"):
        to_sockaddr(HostAddress.LOCAL_HOST, port)
