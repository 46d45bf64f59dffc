"""One UDP message as a value: what it takes, what it refuses, and its answer."""

from __future__ import annotations

import copy
import pickle
from ipaddress import IPv4Address
from typing import Any

import attrs
import pytest
from hypothesis import given, strategies as st

from trioqt.core.addresses import HostAddress
from trioqt.core.datagram import NetworkDatagram, with_header

ADDRESS = st.ip_addresses().map(HostAddress) | st.sampled_from([HostAddress.NULL, HostAddress.BROADCAST])
PORT = st.integers(0, 65535)
DATAGRAM = st.builds(
    NetworkDatagram,
    st.binary(max_size=9),
    ADDRESS,
    PORT,
    ADDRESS,
    PORT,
    st.integers(-1, 255),
    st.integers(0, 2**31 - 1),
    st.booleans(),
)


def test_what_is_left_out_is_unknown() -> None:
    """U-059: no address, no port, no hop limit, no interface."""
    datagram = NetworkDatagram(b"data")

    assert attrs.astuple(datagram, recurse=False) == (
        b"data",
        HostAddress.NULL,
        0,
        HostAddress.NULL,
        0,
        -1,
        0,
        False,
    )


@pytest.mark.parametrize("data", [b"a\0b", bytearray(b"a\0b"), memoryview(b"xa\0b")[1:], memoryview(b"a.\0.b.")[::2]])
def test_its_data_are_what_was_there_then(data: Any) -> None:
    """Whatever holds bytes is copied, so that it may be used again."""
    datagram = NetworkDatagram(data)

    assert datagram.data == b"a\0b"
    assert type(datagram.data) is bytes


def test_an_address_may_be_spelled() -> None:
    """As wherever an address is wanted."""
    datagram = NetworkDatagram(b"", "10.0.0.1", 1, IPv4Address("10.0.0.2"), 2)

    assert (datagram.sender_address, datagram.destination_address) == (HostAddress("10.0.0.1"), HostAddress("10.0.0.2"))


@pytest.mark.parametrize(
    ("values", "error"),
    [
        ({"data": "text"}, TypeError),
        ({"data": None}, TypeError),
        ({"data": 5}, TypeError),
        ({"sender_address": "a name"}, ValueError),
        ({"destination_address": 5}, TypeError),
        ({"sender_port": -1}, ValueError),
        ({"destination_port": 65536}, ValueError),
        ({"destination_port": "53"}, TypeError),
        ({"destination_port": 1.5}, TypeError),
        ({"hop_limit": -2}, ValueError),
        ({"hop_limit": 256}, ValueError),
        ({"interface_index": -1}, ValueError),
        ({"interface_index": "lo"}, TypeError),
        ({"truncated": 5}, TypeError),
    ],
)
def test_what_no_datagram_can_have_is_refused(values: dict[str, Any], error: type[Exception]) -> None:
    """When it is made, not when it is sent."""
    with pytest.raises(error):
        NetworkDatagram(**{"data": b"", **values})


def test_it_cannot_be_changed() -> None:
    """``attrs.evolve`` makes another."""
    datagram = NetworkDatagram(b"one")

    with pytest.raises(attrs.exceptions.FrozenInstanceError):
        datagram.data = b"two"  # type: ignore[misc]

    assert attrs.evolve(datagram, data=b"two") == NetworkDatagram(b"two")


@given(datagram=DATAGRAM)
def test_equal_datagrams_are_one_value(datagram: NetworkDatagram) -> None:
    """Copied, pickled, or made in the way of the links, which leaves the checks out."""
    values = {field.name: getattr(datagram, field.name) for field in attrs.fields(NetworkDatagram)}
    made = with_header(values.pop("data"), values)

    for other in (copy.copy(datagram), pickle.loads(pickle.dumps(datagram)), made):
        assert other == datagram
        assert hash(other) == hash(datagram)


def test_an_answer_goes_back_the_way_it_came() -> None:
    """U-053: the two ends change places, by the same interface; how far it may go is not the asker's to say."""
    question = NetworkDatagram(b"?", "10.0.0.1", 5000, "10.0.0.2", 53, hop_limit=3, interface_index=7, truncated=True)

    assert question.make_reply(b"!") == NetworkDatagram(b"!", "10.0.0.2", 53, "10.0.0.1", 5000, interface_index=7)


@pytest.mark.parametrize("group", ["239.1.2.3", "255.255.255.255", "ff02::1", "::ffff:224.0.0.1", ""])
def test_no_answer_comes_from_a_group(group: str) -> None:
    """It is nobody's address, so the system chooses one."""
    question = NetworkDatagram(b"?", "10.0.0.1", 5000, group, 53)

    assert question.make_reply(b"!") == NetworkDatagram(b"!", "", 53, "10.0.0.1", 5000)


@given(datagram=DATAGRAM, data=st.binary(max_size=9))
def test_the_answer_to_an_answer_has_the_first_destination(datagram: NetworkDatagram, data: bytes) -> None:
    """Whatever the datagram, an answer can be made and is as good as one that was checked."""
    reply = datagram.make_reply(data)

    assert reply == NetworkDatagram(**{field.name: getattr(reply, field.name) for field in attrs.fields(type(reply))})
    assert (reply.destination_address, reply.destination_port) == (datagram.sender_address, datagram.sender_port)
    assert reply.sender_address in (datagram.destination_address, HostAddress.NULL)


@pytest.mark.parametrize("data", ["text", None, 5])
def test_an_answer_has_bytes_too(data: Any) -> None:
    """It is checked as any other."""
    with pytest.raises(TypeError):
        NetworkDatagram(b"").make_reply(data)
