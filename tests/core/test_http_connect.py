"""HTTP CONNECT, byte by byte: what is sent, what is understood, and what each refusal means."""

from __future__ import annotations

import base64
import re

import pytest

from tests.core.prologues import play
from trioqt import ErrorKind, SocketError
from trioqt.core import http_connect
from trioqt.core.http_connect import BODY_SIZE, HEAD_SIZE
from trioqt.core.network_proxy import Credentials
from trioqt.core.proxies import target_of

TARGET = target_of("example.org", 443)
CREDENTIALS = Credentials("user", "secret")
OPEN = b"HTTP/1.1 200 Connection established\r\n\r\n"
BASIC = b'Proxy-Authenticate: Basic realm="lab"\r\n'


def wanted(*headers: bytes, version: bytes = b"1.1", body: bytes = b"", length: bool = True) -> bytes:
    """A 407."""
    lines = [*headers, *([b"Content-Length: %d\r\n" % len(body)] if length else [])]
    return b"HTTP/" + version + b" 407 Proxy Authentication Required\r\n" + b"".join(lines) + b"\r\n" + body


def shown(request: bytes) -> str:
    """What a request shows for the password."""
    lines = [line for line in request.decode().split("\r\n") if line.startswith("Proxy-Authorization: ")]
    return lines[0].removeprefix("Proxy-Authorization: ") if lines else ""


@pytest.mark.parametrize(
    ("host", "named"),
    [("example.org", "example.org:443"), ("10.0.0.1", "10.0.0.1:443"), ("fe80::1%2", "[fe80::1]:443")],
)
def test_the_request_names_the_target_twice_and_no_password(host: str, named: str) -> None:
    """RFC 9110: the authority is the target, and Host says the same."""
    played = play(http_connect.connect(target_of(host, 443), CREDENTIALS), OPEN + b"hello")

    lines = [f"CONNECT {named} HTTP/1.1", f"Host: {named}", "Proxy-Connection: keep-alive", "User-Agent: trioqt", ""]
    assert played.sent == ["".join(f"{line}\r\n" for line in lines).encode()]
    assert played.rest == b"hello"


@pytest.mark.parametrize(
    "head",
    [
        b"HTTP/1.0 200 OK\r\n\r\n",
        b"HTTP/1.1 200\r\n\r\n",
        b"HTTP/1.1 200 \n\n",
        b"HTTP/1.1 200 OK\nVia: x\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n",  # to be ignored, RFC 9110
        b"HTTP/1.1 201 Created\r\n\r\n",
        b"HTTP/1.1 299 Whatever\r\n\r\n",
        b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n" + OPEN,
        b"HTTP/1.1 200 " + "schön".encode("latin-1") + b"\r\nX-Folded: a\r\n b\r\n\r\n",
    ],
)
def test_any_2xx_opens_the_tunnel_and_nothing_behind_it_is_read(head: bytes) -> None:
    """RFC 9110 section 9.3.6; a body it announces is none."""
    assert play(http_connect.connect(TARGET, None), head + b"abc").rest == b"abc"


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (403, ErrorKind.SOCKET_ACCESS),
        (404, ErrorKind.HOST_NOT_FOUND),
        (405, ErrorKind.SOCKET_ACCESS),
        (503, ErrorKind.CONNECTION_REFUSED),
        (300, ErrorKind.PROXY_PROTOCOL),
        (400, ErrorKind.PROXY_PROTOCOL),
        (502, ErrorKind.PROXY_PROTOCOL),
        (999, ErrorKind.PROXY_PROTOCOL),
        (101, ErrorKind.PROXY_PROTOCOL),
    ],
)
def test_every_other_status_has_its_kind(status: int, kind: ErrorKind) -> None:
    """Qt's."""
    with pytest.raises(SocketError) as caught:
        play(http_connect.connect(TARGET, None), b"HTTP/1.1 %d Because\x1b[2J\r\n\r\n" % status)

    assert caught.value.kind is kind
    assert str(caught.value).isprintable()


@pytest.mark.parametrize(
    ("said", "kind"),
    [
        (b"", ErrorKind.PROXY_CONNECTION_CLOSED),
        (b"HTTP", ErrorKind.PROXY_CONNECTION_CLOSED),
        (b"HTTP/1.1 200 OK\r\n", ErrorKind.PROXY_CONNECTION_CLOSED),
        (b"HTTP/1.1 200 OK\r\n\r", ErrorKind.PROXY_CONNECTION_CLOSED),
        (b"HTTP/1.1 100 Continue\r\n\r\n", ErrorKind.PROXY_CONNECTION_CLOSED),
        (b"This is not HTTP", ErrorKind.PROXY_PROTOCOL),
        (b"This is not HTTP\r\n\r\n", ErrorKind.PROXY_PROTOCOL),
        (b"\x05\x00", ErrorKind.PROXY_PROTOCOL),
        (b"\r\n\r\n" + OPEN, ErrorKind.PROXY_PROTOCOL),
        (b"HTTP/2.0 200 OK\r\n\r\n", ErrorKind.PROXY_PROTOCOL),
        (b"HTTP/1.1 20 OK\r\n\r\n", ErrorKind.PROXY_PROTOCOL),
        (b"HTTP/1.1 200 OK\r\nno colon\r\n\r\n", ErrorKind.PROXY_PROTOCOL),
        (b"HTTP/1.1 200 OK\r\n: no name\r\n\r\n", ErrorKind.PROXY_PROTOCOL),
        (b"HTTP/1.1 200 OK\r\nX: a\rb\r\n\r\n", ErrorKind.PROXY_PROTOCOL),
        (b"HTTP/1.1 200 OK\r\nX: " + b"x" * HEAD_SIZE + b"\r\n\r\n", ErrorKind.PROXY_PROTOCOL),
        (b"HTTP/1.1 100 Continue\r\n\r\n" * HEAD_SIZE, ErrorKind.PROXY_PROTOCOL),
        (b"HTTP/1.1 407 Auth\r\n\r\n", ErrorKind.PROXY_PROTOCOL),
        (wanted(b"Proxy-Authenticate: Frobnicator\r\n"), ErrorKind.PROXY_PROTOCOL),
        (wanted(b"Proxy-Authenticate: NTLM, Negotiate abc==\r\n"), ErrorKind.PROXY_PROTOCOL),
        (wanted(b'Proxy-Authenticate: Digest realm="a"\r\n'), ErrorKind.PROXY_PROTOCOL),
    ],
)
def test_what_makes_no_sense_and_what_is_cut_short_has_its_kind(said: bytes, kind: ErrorKind) -> None:
    with pytest.raises(SocketError) as caught:
        play(http_connect.connect(TARGET, None), said)

    assert caught.value.kind is kind


@pytest.mark.parametrize("body", [b"", b"<html>please</html>", bytes(BODY_SIZE)])
def test_the_password_is_shown_when_it_is_wanted_on_the_same_connection(body: bytes) -> None:
    """As Qt does.  What comes with the 407 is passed over, to the byte."""
    played = play(http_connect.connect(TARGET, CREDENTIALS), wanted(BASIC, body=body) + OPEN + b"hello")

    (sent,) = played.sent
    assert sent.count(b"CONNECT example.org:443 HTTP/1.1\r\n") == 2
    assert shown(sent) == f"Basic {base64.b64encode(b'user:secret').decode()}"
    assert (played.rest, played.realms) == (b"hello", [])


@pytest.mark.parametrize("chunks", [b"0\r\n\r\n", b"5;ext=1\r\nhello\r\n0\r\nTrailer: x\r\n\r\n", b"5\nhello\n0\n\n"])
def test_a_body_in_chunks_is_passed_over_too(chunks: bytes) -> None:
    said = wanted(BASIC, b"Transfer-Encoding: chunked\r\n", length=False) + chunks

    assert play(http_connect.connect(TARGET, CREDENTIALS), said + OPEN + b"hello").rest == b"hello"


@pytest.mark.parametrize(
    "said",
    [
        wanted(BASIC, b"Connection: close\r\n"),
        wanted(BASIC, b"Proxy-Connection: Close\r\n"),
        wanted(BASIC, version=b"1.0"),
        wanted(BASIC, length=False),
        wanted(BASIC, b"Content-Length: x\r\n", length=False),
        wanted(BASIC, b"Content-Length: 3\r\n", body=b"", length=True),  # two that differ
        wanted(BASIC, body=bytes(BODY_SIZE + 1)),
        wanted(BASIC, b"Transfer-Encoding: gzip\r\n", length=False),
        wanted(BASIC, b"Transfer-Encoding: chunked\r\n", length=False) + b"no number\r\n",
        wanted(BASIC, b"Transfer-Encoding: chunked\r\n", length=False) + b"fffffff\r\n",
        wanted(BASIC, b"Transfer-Encoding: chunked\r\n", length=False) + b"1\r\nab\r\n",
        wanted(BASIC, b"Transfer-Encoding: chunked\r\n", length=False) + b"1" * 300,
        wanted(BASIC, b"Transfer-Encoding: chunked\r\n", length=False) + b"0\r\n" + b"T: x\r\n" * BODY_SIZE,
        wanted(BASIC, body=b"hello")[:-2],
        wanted(BASIC, body=b"hello"),  # and it closes without a word
    ],
)
def test_a_connection_that_does_not_stay_is_replaced_by_another(said: bytes) -> None:
    """407 with the connection closed, announced or not."""
    played = play(http_connect.connect(TARGET, CREDENTIALS), said, OPEN + b"hello")

    assert shown(played.sent[-1]).startswith("Basic ")
    assert (len(played.sent), played.rest) == (2, b"hello")


def test_without_a_password_the_program_is_asked() -> None:
    played = play(http_connect.connect(TARGET, None), wanted(BASIC) + OPEN, answers=[CREDENTIALS])

    assert (shown(played.sent[0]).startswith("Basic "), played.realms) == (True, ["lab"])


def test_a_wrong_password_is_asked_for_again_until_there_is_nothing_new() -> None:
    """Each try is one request, and the last answer is the same again."""
    wrong, wronger = Credentials("user", "wrong"), Credentials("user", "wronger")

    with pytest.raises(SocketError) as caught:
        play(http_connect.connect(TARGET, wrong), wanted(BASIC) * 3, answers=[wronger, wronger])

    assert caught.value.kind is ErrorKind.PROXY_AUTHENTICATION_REQUIRED
    assert "wrong" not in str(caught.value)


def test_a_401_says_that_the_password_was_wrong_if_one_was_shown() -> None:
    """As tinyproxy says it, with no challenge of its own.  To who has shown none it makes no sense."""
    refused = b"HTTP/1.1 401 Unauthorized\r\nConnection: close\r\n\r\n"

    played = play(
        http_connect.connect(TARGET, Credentials("user", "wrong")), wanted(BASIC) + refused, OPEN, answers=[CREDENTIALS]
    )
    with pytest.raises(SocketError) as caught:
        play(http_connect.connect(TARGET, CREDENTIALS), refused)

    assert shown(played.sent[1]) == f"Basic {base64.b64encode(b'user:secret').decode()}"
    assert played.realms == ["lab"]
    assert caught.value.kind is ErrorKind.PROXY_PROTOCOL


def test_a_program_that_has_no_password_gives_up() -> None:
    with pytest.raises(SocketError) as caught:
        play(http_connect.connect(TARGET, None), wanted(BASIC), answers=[None])

    assert caught.value.kind is ErrorKind.PROXY_AUTHENTICATION_REQUIRED


def test_basic_has_no_colon_in_a_name() -> None:
    """RFC 7617: it would be taken for the end of the name, and the rest for a part of the password."""
    with pytest.raises(SocketError) as caught:
        play(http_connect.connect(TARGET, Credentials("a:b", "secret")), wanted(BASIC))

    assert caught.value.kind is ErrorKind.PROXY_AUTHENTICATION_REQUIRED
    assert "secret" not in str(caught.value)


def test_a_nonce_that_is_too_old_is_replaced_without_asking_anybody() -> None:
    """stale=true: the password was right, so the program is not asked."""
    first = wanted(b'Proxy-Authenticate: Digest realm="lab", nonce="one", qop="auth"\r\n')
    second = wanted(b'Proxy-Authenticate: Digest realm="lab", nonce="two", qop="auth", stale=TRUE\r\n')

    played = play(http_connect.connect(TARGET, CREDENTIALS), first + second + OPEN)

    (sent,) = played.sent
    assert [sent.count(f'nonce="{nonce}"'.encode()) for nonce in ("one", "two")] == [1, 1]
    assert played.realms == []


def test_the_uses_of_one_nonce_are_counted() -> None:
    """RFC 7616, 3.4: a second answer to it is the second, whatever the proxy has found wrong with the first."""
    digest = wanted(b'Proxy-Authenticate: Digest realm="lab", nonce="one", qop="auth"\r\n')
    another = wanted(b'Proxy-Authenticate: Digest realm="lab", nonce="two", qop="auth"\r\n')
    answers = [Credentials("user", "second"), Credentials("user", "third")]

    played = play(http_connect.connect(TARGET, CREDENTIALS), digest + digest + another + OPEN, answers=answers)

    assert re.findall(rb'nonce="([a-z]+)", .* nc=([0-9]+),', played.sent[0]) == [
        (b"one", b"00000001"),
        (b"one", b"00000002"),
        (b"two", b"00000001"),
    ]


def test_a_proxy_whose_nonces_are_always_too_old_is_not_asked_for_ever() -> None:
    """It is then the password that it does not want."""
    stale = wanted(b'Proxy-Authenticate: Digest realm="lab", nonce="one", qop="auth", stale=true\r\n')

    with pytest.raises(SocketError) as caught:
        play(http_connect.connect(TARGET, CREDENTIALS), stale * 100, answers=[None])

    assert caught.value.kind is ErrorKind.PROXY_AUTHENTICATION_REQUIRED
