"""Both prologues, whatever a proxy says: a typed error or a result, and never a byte too many."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence

import attrs
import pytest
from hypothesis import given, settings, strategies as st

from tests.core.prologues import play
from trioqt import ErrorKind, HostAddress, SocketError
from trioqt.core import http_connect, socks5
from trioqt.core.network_proxy import Credentials
from trioqt.core.proxies import Prologue, Send, Target, target_of

TARGET = target_of("example.org", 443)
CREDENTIALS = Credentials("user", "hunter2")

# Pieces of what proxies say, so that chance gets beyond the first byte.
SOCKS_WORDS = (b"\x05", b"\x00", b"\xff", b"\x02", b"\x01\x00", b"\x05\x00", b"\x00\x01", b"\x7f\x00\x00\x01\x00\x50")
HTTP_WORDS = (
    *(b"HTTP/1.1 ", b"HTTP/1.0 ", b"200", b"407", b"100", b"503", b" OK", b"\r\n", b"\n", b"\r\n\r\n", b":", b","),
    *(
        b"Proxy-Authenticate: ",
        b"Basic ",
        b"Digest ",
        b'realm="x"',
        b"nonce=",
        b'"',
        b"\\",
        b"=",
        b"qop=auth",
        b"stale=true",
    ),
    *(b"Content-Length: ", b"Transfer-Encoding: chunked", b"Connection: close", b"0", b"5", b"hello", b"\xff", b"\0"),
)


def speech(words: Sequence[bytes]) -> st.SearchStrategy[bytes]:
    """What a proxy may say on one connection."""
    return st.lists(st.sampled_from(words) | st.binary(max_size=8), max_size=40).map(b"".join)


Begin = Callable[[Target, Credentials | None], Prologue]


@pytest.mark.parametrize(("begin", "words"), [(socks5.connect, SOCKS_WORDS), (http_connect.connect, HTTP_WORDS)])
def test_nothing_that_a_proxy_says_makes_it_raise_anything_else(begin: Begin, words: Sequence[bytes]) -> None:
    """On as many connections as it asks for; a program that knows two passwords, and then none."""

    @settings(max_examples=400, deadline=None)
    @given(st.lists(speech(words), min_size=1, max_size=3), st.sampled_from([None, CREDENTIALS]))
    def fuzz(said: list[bytes], credentials: Credentials | None) -> None:
        answers = [Credentials("user", f"hunter{count}") for count in range(50)]
        connections = [*said, *itertools.repeat(b"", 100)]
        told = ""
        try:
            play(begin(TARGET, credentials), *connections, answers=[*answers, None])
        except SocketError as error:
            told = str(error)

        assert "hunter" not in told

    fuzz()


@pytest.mark.parametrize("begin", [socks5.connect, http_connect.connect])
def test_what_is_sent_is_in_no_repr(begin: Begin) -> None:
    """A step that is printed, or stands in a traceback with its locals, does not show a password."""
    assert repr(Send(b"hunter2")) == "Send()"
    assert "hunter2" not in repr(CREDENTIALS)
    assert "hunter2" not in repr(attrs.asdict(TARGET))


@pytest.mark.parametrize(
    "host",
    [
        *("a b", "a\r\nHost: evil", "a\n", "\0", "a/b", "a@b", "a#b", "a?b", "a:b", "[a]", "", "x" * 256),
        *("\udc80", "ä" * 300, "a..ä", ".", "..", "a..b", ".a", "x" * 64, f"{'x' * 64}.test", "a.b.."),
    ],
)
def test_a_name_that_could_say_something_else_is_refused_before_anything_is_sent(host: str) -> None:
    """What a program took out of a URL must not become a header of ours."""
    with pytest.raises(SocketError) as caught:
        target_of(host, 80)

    assert caught.value.kind is ErrorKind.HOST_NOT_FOUND


@pytest.mark.parametrize(
    "host", ["example.org", "example.org.", "under_score.test", "10.0.0.1.nip.io", "bücher.example", f"{'x' * 63}.test"]
)
def test_names_that_resolvers_know_are_taken(host: str) -> None:
    assert target_of(host, 80).host == host.encode("idna").decode()


def test_every_address_is_one_of_them_to_a_proxy() -> None:
    """ANY has no bytes of its own."""
    assert target_of(HostAddress.ANY, 80) == Target(HostAddress.ANY_IPV4, 80)
