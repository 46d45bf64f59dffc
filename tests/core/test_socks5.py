"""SOCKS5, byte by byte: what is sent, what is understood, and what each refusal means."""

from __future__ import annotations

import pytest

from tests.core.prologues import play
from trioqt import ErrorKind, HostAddress, SocketError
from trioqt.core import socks5
from trioqt.core.network_proxy import Credentials
from trioqt.core.proxies import Reported, target_of

TARGET = target_of("10.0.0.1", 80)
CREDENTIALS = Credentials("user", "secret")
REPLY = b"\x05\x00\x00\x01\x7f\x00\x00\x01\x12\x34"


@pytest.mark.parametrize(
    ("host", "on_the_wire"),
    [
        ("10.0.0.1", b"\x01\x0a\x00\x00\x01"),
        ("::1", b"\x04" + bytes(15) + b"\x01"),
        ("fe80::1%2", b"\x04\xfe\x80" + bytes(13) + b"\x01"),
        ("example.org", b"\x03\x0bexample.org"),
        ("bücher.example", b"\x03\x15xn--bcher-kva.example"),
    ],
)
def test_the_target_is_sent_as_an_address_or_as_a_name(host: str, on_the_wire: bytes) -> None:
    """A name goes to the proxy as it is, in ASCII; an interface of ours means nothing there."""
    played = play(socks5.connect(target_of(host, 0x1234), None), b"\x05\x00" + REPLY)

    assert played.sent == [b"\x05\x01\x00" + b"\x05\x01\x00" + on_the_wire + b"\x12\x34"]


@pytest.mark.parametrize(
    ("address", "reported"),
    [
        (b"\x01\x7f\x00\x00\x01", "127.0.0.1"),
        (b"\x04" + bytes(15) + b"\x01", "::1"),
        (b"\x03\x05proxy", ""),
        (b"\x03\x00", ""),
    ],
)
def test_the_proxy_reports_its_own_end_and_nothing_behind_it_is_read(address: bytes, reported: str) -> None:
    """What comes behind the last answer is the connection's."""
    played = play(socks5.connect(TARGET, None), b"\x05\x00\x05\x00\x00" + address + b"\x12\x34" + b"hello")

    assert played.reported == Reported(HostAddress(reported), 0x1234)
    assert played.rest == b"hello"


def test_a_name_and_a_password_are_the_only_method_offered_if_there_are_any() -> None:
    """As Qt does; RFC 1929 gives the lengths."""
    played = play(socks5.connect(TARGET, CREDENTIALS), b"\x05\x02\x01\x00" + REPLY)

    (sent,) = played.sent
    assert sent.startswith(b"\x05\x01\x02" + b"\x01\x04user\x06secret" + b"\x05\x01")
    assert played.realms == []


def test_a_proxy_that_wants_a_password_is_asked_again_on_a_new_connection() -> None:
    """It must close the first one, RFC 1928 section 3."""
    played = play(socks5.connect(TARGET, None), b"\x05\xff", b"\x05\x02\x01\x00" + REPLY, answers=[CREDENTIALS])

    first, second = played.sent
    assert first == b"\x05\x01\x00"
    assert second.startswith(b"\x05\x01\x02\x01\x04user\x06secret")
    assert played.realms == [""]


def test_a_wrong_password_is_asked_for_again_until_there_is_nothing_new() -> None:
    """A program that says the same again has given up."""
    wrong, wronger = Credentials("user", "wrong"), Credentials("user", "wronger")
    answers = [wronger, wronger]

    with pytest.raises(SocketError) as caught:
        play(socks5.connect(TARGET, wrong), b"\x05\x02\x01\x01", b"\x05\x02\x01\x01", answers=answers)

    assert caught.value.kind is ErrorKind.PROXY_AUTHENTICATION_REQUIRED
    assert "wrong" not in str(caught.value)
    assert answers == [wronger, wronger]


@pytest.mark.parametrize("said", [b"\x05\xff", b"\x05\x02\x01\x01"])
def test_without_an_answer_there_is_no_connection(said: bytes) -> None:
    credentials = None if said == b"\x05\xff" else CREDENTIALS

    with pytest.raises(SocketError) as caught:
        play(socks5.connect(TARGET, credentials), said, answers=[None])

    assert caught.value.kind is ErrorKind.PROXY_AUTHENTICATION_REQUIRED


@pytest.mark.parametrize(
    ("reply", "kind"),
    [
        (1, ErrorKind.NETWORK),
        (2, ErrorKind.SOCKET_ACCESS),
        (3, ErrorKind.NETWORK),
        (4, ErrorKind.HOST_NOT_FOUND),
        (5, ErrorKind.CONNECTION_REFUSED),
        (6, ErrorKind.NETWORK),
        (7, ErrorKind.UNSUPPORTED_SOCKET_OPERATION),
        (8, ErrorKind.UNSUPPORTED_SOCKET_OPERATION),
        (9, ErrorKind.UNKNOWN),
        (99, ErrorKind.UNKNOWN),
    ],
)
def test_every_reply_has_its_kind(reply: int, kind: ErrorKind) -> None:
    """Qt's; the rest of such a reply need not come."""
    with pytest.raises(SocketError) as caught:
        play(socks5.connect(TARGET, None), b"\x05\x00\x05" + bytes([reply]))

    assert caught.value.kind is kind


@pytest.mark.parametrize(
    ("said", "kind"),
    [
        (b"\x04\x04\x04\x04", ErrorKind.PROXY_PROTOCOL),
        (b"HTTP/1.1 400 Bad Request\r\n\r\n", ErrorKind.PROXY_PROTOCOL),
        (b"\x05\x7f", ErrorKind.SOCKET_ACCESS),
        (b"\x05\x02", ErrorKind.SOCKET_ACCESS),
        (b"\x05\x00\x04\x00", ErrorKind.PROXY_PROTOCOL),
        (b"\x05\x00\x05\x00\x00\x02", ErrorKind.PROXY_PROTOCOL),
        (b"", ErrorKind.PROXY_CONNECTION_CLOSED),
        (b"\x05", ErrorKind.PROXY_CONNECTION_CLOSED),
        *[(b"\x05\x00" + REPLY[:length], ErrorKind.PROXY_CONNECTION_CLOSED) for length in range(len(REPLY))],
    ],
)
def test_what_makes_no_sense_and_what_is_cut_short_has_its_kind(said: bytes, kind: ErrorKind) -> None:
    with pytest.raises(SocketError) as caught:
        play(socks5.connect(TARGET, None), said)

    assert caught.value.kind is kind


def test_a_password_in_another_version_makes_no_sense() -> None:
    with pytest.raises(SocketError) as caught:
        play(socks5.connect(TARGET, CREDENTIALS), b"\x05\x02\x05\x00")

    assert caught.value.kind is ErrorKind.PROXY_PROTOCOL


@pytest.mark.parametrize("credentials", [Credentials("u" * 256, "=p="), Credentials("u", "ü" * 128)])
def test_a_name_or_a_password_that_does_not_fit_is_not_cut(credentials: Credentials) -> None:
    """256 bytes; there is one byte for each length."""
    with pytest.raises(SocketError) as caught:
        play(socks5.connect(TARGET, credentials), b"\x05\x02")

    assert caught.value.kind is ErrorKind.PROXY_AUTHENTICATION_REQUIRED
    assert credentials.password not in str(caught.value)


def test_listening_gets_two_replies_one_for_the_place_and_one_for_the_peer() -> None:
    played = play(socks5.bind(target_of("0.0.0.0", 0), None), b"\x05\x00" + REPLY + b"later")
    then = play(socks5.bound_peer(), b"\x05\x00\x00\x01\x0a\x00\x00\x02\x00\x50" + b"hi")

    assert played.sent == [b"\x05\x01\x00" + b"\x05\x02\x00\x01" + bytes(6)]
    assert (played.reported, played.rest) == (Reported(HostAddress("127.0.0.1"), 0x1234), b"later")
    assert (then.reported, then.rest) == (Reported(HostAddress("10.0.0.2"), 80), b"hi")


def test_datagrams_are_asked_for_by_a_connection_of_their_own() -> None:
    played = play(socks5.associate(None), b"\x05\x00" + REPLY)

    assert played.sent == [b"\x05\x01\x00" + b"\x05\x03\x00\x01" + bytes(6)]
    assert played.reported == Reported(HostAddress("127.0.0.1"), 0x1234)


@pytest.mark.parametrize("host", ["10.0.0.1", "::1"])
@pytest.mark.parametrize("data", [b"", b"hello", bytes(65000)])
def test_a_datagram_comes_out_as_it_went_in(host: str, data: bytes) -> None:
    wrapped = socks5.wrap_datagram(target_of(host, 53), data)

    assert socks5.unpack_datagram(wrapped) == (HostAddress(host), 53, data)


def test_a_datagram_to_a_name_has_the_name_in_front() -> None:
    assert socks5.wrap_datagram(target_of("a.test", 53), b"x") == b"\0\0\0\x03\x06a.test\x00\x35x"
    assert socks5.unpack_datagram(b"\0\0\0\x03\x06a.test\x00\x35x") == (HostAddress.NULL, 53, b"x")


@pytest.mark.parametrize(
    "datagram",
    [
        b"",
        b"\0\0\0",
        b"\0\0\x01\x01\x7f\0\0\x01\0\x35part",  # a fragment
        b"\0\0\0\x02\x7f\0\0\x01\0\x35x",
        b"\0\0\0\x01\x7f\0\0\x01\0",
        b"\0\0\0\x03\xffshort",
    ],
)
def test_what_is_no_whole_datagram_is_dropped(datagram: bytes) -> None:
    """RFC 1928 section 7: fragments may be dropped; garbage is nobody's datagram."""
    assert socks5.unpack_datagram(datagram) is None
