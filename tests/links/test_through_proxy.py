"""The driver of a prologue, over a link that gives bytes as it likes: cut anywhere, it comes to the same."""

from __future__ import annotations

import errno
from collections.abc import Awaitable, Callable

import pytest
import trio
from hypothesis import given, settings, strategies as st

from trioqt import ErrorKind, NetworkProxy, ProxyKind, SocketError
from trioqt.core.network_proxy import Credentials
from trioqt.links.base import Bytes, Link, NativeSocket, Sockaddr
from trioqt.links.through_proxy import ProxiedLink, connect_through

SOCKS = NetworkProxy(ProxyKind.SOCKS5, "proxy", 1080, "user", "secret")
HTTP = NetworkProxy(ProxyKind.HTTP, "proxy", 3128, "user", "secret")
SAID = {
    ProxyKind.SOCKS5: b"\x05\x02" + b"\x01\x00" + b"\x05\x00\x00\x03\x05other\x12\x34",
    ProxyKind.HTTP: (
        b"HTTP/1.1 100 Continue\r\n\r\n"
        b'HTTP/1.1 407 Auth\r\nProxy-Authenticate: Digest realm="a", nonce="b", qop="auth"\r\n'
        b"Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n"
        b"HTTP/1.1 200 OK\r\nVia: 1.1 other\r\n\r\n"
    ),
}


class Pieces(Link):
    """Gives what is left of ``pieces``, one each time it is asked after a wait, and takes so much at a time."""

    def __init__(self, pieces: list[bytes], takes: int = 7) -> None:
        self.pieces = [piece for piece in pieces if piece]
        self.takes = takes
        self.sent = b""
        self.has_waited = False
        self.closed = 0
        self.fails: OSError | None = None

    def can_be_asked(self) -> bool:
        return True

    def is_drained(self) -> bool:
        return not self.has_waited

    def look_again(self) -> None:
        self.has_waited = True

    def try_receive(self, max_bytes: int) -> bytes | None:
        assert max_bytes > 0
        if self.fails is not None:
            raise self.fails
        if not self.pieces:
            return b""
        if not self.has_waited:
            return None
        piece, rest = self.pieces[0][:max_bytes], self.pieces[0][max_bytes:]
        if rest:
            self.pieces[0] = rest
        else:
            del self.pieces[0]
            self.has_waited = False
        return piece

    async def wait_receivable(self, max_bytes: int) -> None:
        await trio.lowlevel.checkpoint()
        self.has_waited = True

    def wake(self) -> None: ...

    async def look(self) -> None: ...

    def try_send(self, data: Bytes) -> int:
        taken = bytes(data[: self.takes]) if len(self.sent) % 2 else b""  # as often as not it takes nothing at once
        self.sent += taken
        return len(taken)

    async def wait_sendable(self) -> None:
        await trio.lowlevel.checkpoint()

    async def send(self, data: Bytes) -> int:
        await trio.lowlevel.checkpoint()
        taken = bytes(data[: self.takes])
        self.sent += taken
        return len(taken)

    async def finish_sending(self) -> None: ...

    def close(self, *, reset: bool = False, waited_on: bool = True) -> None:
        self.closed += 1

    def has_goodbye(self) -> bool:
        return False

    async def say_goodbye(self, *, linger: float = 0) -> None: ...

    def drop_unread(self) -> None: ...

    def most_unread(self) -> int:
        return 65536

    def local_address(self) -> Sockaddr | None:
        return ("10.0.0.1", 50000)

    def peer_address(self) -> Sockaddr | None:
        return ("10.0.0.2", 1080)

    def native(self) -> NativeSocket | None:
        return None


def connect(proxy: NetworkProxy, *links: Pieces) -> ProxiedLink:
    """Connect by way of these, one for each connection to the proxy."""
    remaining = list(links)

    async def reach(host: str, port: int) -> Link:
        await trio.lowlevel.checkpoint()
        assert (host, port) == (proxy.host, proxy.port)
        return remaining.pop(0)

    async def nobody(proxy: NetworkProxy, realm: str) -> Credentials | None:
        return None

    async def run() -> ProxiedLink:
        return await connect_through(proxy, "far.test", 80, reach, nobody)

    return trio.run(run)


def cut(data: bytes, at: list[int]) -> list[bytes]:
    places = sorted({place % (len(data) + 1) for place in at})
    return [data[start:end] for start, end in zip([0, *places], [*places, len(data)], strict=True)]


@pytest.mark.parametrize("proxy", [SOCKS, HTTP], ids=lambda proxy: proxy.kind.name)
def test_cut_at_every_single_place_it_comes_to_the_same(proxy: NetworkProxy) -> None:
    """And what is behind the last answer is left, whole."""
    data = SAID[proxy.kind] + b"the rest"
    for place in range(len(data) + 1):
        below = Pieces(cut(data, [place]))
        link = connect(proxy, below)

        assert link.peer_address() == ("", 80)
        assert link.local_address() == (("", 0x1234) if proxy is SOCKS else ("10.0.0.1", 50000))
        assert b"".join(below.pieces) == b"the rest"
        assert below.closed == 0


@pytest.mark.parametrize("proxy", [SOCKS, HTTP], ids=lambda proxy: proxy.kind.name)
def test_cut_at_any_places_it_comes_to_the_same(proxy: NetworkProxy) -> None:
    @settings(max_examples=100, deadline=None)
    @given(st.lists(st.integers(0, 1000), max_size=30), st.integers(1, 20))
    def fuzz(places: list[int], takes: int) -> None:
        below = Pieces(cut(SAID[proxy.kind] + b"the rest", places), takes)
        connect(proxy, below)

        assert b"".join(below.pieces) == b"the rest"
        assert b"secret" in below.sent or proxy is HTTP

    fuzz()


@pytest.mark.parametrize("proxy", [SOCKS, HTTP], ids=lambda proxy: proxy.kind.name)
def test_ended_at_any_place_it_is_a_proxy_that_closed(proxy: NetworkProxy) -> None:
    """Every link that was opened is closed; a 407 whose connection ends makes one more, which says nothing here."""
    data = SAID[proxy.kind]
    for length in range(len(data)):
        first, second = Pieces([data[:length]]), Pieces([])
        with pytest.raises(SocketError) as caught:
            connect(proxy, first, second)

        assert caught.value.kind is ErrorKind.PROXY_CONNECTION_CLOSED
        assert first.closed == 1
        assert second.closed <= 1


@pytest.mark.parametrize("proxy", [SOCKS, HTTP], ids=lambda proxy: proxy.kind.name)
def test_a_system_that_fails_is_the_cause(proxy: NetworkProxy) -> None:
    """The message names the proxy, and not the password."""
    below = Pieces([])
    below.fails = ConnectionResetError(errno.ECONNRESET, "reset")

    with pytest.raises(SocketError) as caught:
        connect(proxy, below)

    assert caught.value.kind is ErrorKind.PROXY_CONNECTION_CLOSED
    assert caught.value.__cause__ is below.fails
    assert str(caught.value) == f"the proxy closed the connection ({proxy})"
    assert below.closed == 1


CALLS: list[Callable[[Link], object]] = [
    lambda link: link.can_be_asked(),
    lambda link: link.is_drained(),
    lambda link: link.try_receive(5),
    lambda link: link.try_send(b"hello"),
    lambda link: link.has_goodbye(),
    lambda link: link.most_unread(),
    lambda link: link.native(),
]


WAITS: list[Callable[[Link], Awaitable[object]]] = [
    lambda link: link.wait_receivable(1),
    lambda link: link.wait_sendable(),
    lambda link: link.look(),
    lambda link: link.finish_sending(),
    lambda link: link.say_goodbye(),
    lambda link: link.send(b"hello"),
]


def test_the_link_is_what_lies_below_but_for_its_addresses() -> None:
    """Each call gives what the same call gives below."""
    one, other = Pieces([b"hello, world"]), Pieces([b"hello, world"])
    link = ProxiedLink(one, ("10.9.9.9", 80), None)
    for each in (link, other):
        each.look_again()

    assert [call(link) for call in CALLS] == [call(other) for call in CALLS]
    assert link.peer_address() == ("10.9.9.9", 80)
    assert link.local_address() == other.local_address()

    async def wait(wait: Awaitable[object]) -> object:
        return await wait

    for make in WAITS:
        assert trio.run(wait, make(link)) == trio.run(wait, make(other))
    link.wake()
    link.close()
    assert (one.closed, one.sent) == (1, other.sent)
