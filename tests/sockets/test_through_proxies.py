"""Connections by way of a proxy: what is told, what is refused as what, what is left."""

from __future__ import annotations

import contextlib
import errno
import logging
import socket
import ssl
import traceback
from collections.abc import AsyncIterator, Iterator, Sequence
from typing import Any

import attrs
import pytest
import trio
import trio.testing

from tests.certificates import Contexts
from tests.links.scripted import Answer, ScriptedNetwork, names as scripted_names
from tests.networks import Network, RawListener
from trioqt import (
    Connected,
    ErrorKind,
    ErrorOccurred,
    Event,
    HostAddress,
    HostFound,
    NetworkProxy,
    ProxyAuthenticationRequired,
    ProxyKind,
    ProxyQuery,
    SocketError,
    SocketState,
    SslServer,
    SslSocket,
    StateChanged,
    TcpServer,
    TcpSocket,
    set_application_proxy,
    set_application_proxy_factory,
)
from trioqt.core.network_proxy import LONGEST_CHAIN
from trioqt.links.through_proxy import ANSWER_TIME
from trioqt.testing import ScriptedProxy, SignalSpy

UNCONNECTED, HOST_LOOKUP, CONNECTING, CONNECTED, BOUND, LISTENING, CLOSING = SocketState
KINDS = [ProxyKind.SOCKS5, ProxyKind.HTTP]
NONE = NetworkProxy(ProxyKind.NONE)


@pytest.fixture(params=KINDS, ids=lambda kind: kind.name)
def kind(request: pytest.FixtureRequest) -> ProxyKind:
    """Each language in turn."""
    given: ProxyKind = request.param
    return given


ADDRESSES = {"far.test": ["127.0.0.1"], "peer.example": ["127.0.0.1"], "two.test": ["127.0.0.2", "127.0.0.1"]}


class Names(trio.abc.HostnameResolver):
    """Knows a few names."""

    async def getaddrinfo(self, host: Any, port: Any, *hints: Any) -> list[Any]:
        await trio.lowlevel.checkpoint()
        name = host.decode() if isinstance(host, bytes) else host
        if name in ADDRESSES:
            return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port)) for address in ADDRESSES[name]]
        raise socket.gaierror(socket.EAI_NONAME, "no such host")

    async def getnameinfo(self, sockaddr: Any, flags: int) -> tuple[str, str]:
        raise NotImplementedError


def know_names() -> None:
    """far.test is this machine."""
    trio.socket.set_custom_hostname_resolver(Names())


async def start(nursery: trio.Nursery, kind: ProxyKind, **script: Any) -> ScriptedProxy:
    know_names()
    proxy: ScriptedProxy = await nursery.start(ScriptedProxy(kind, **script).serve)
    return proxy


@contextlib.asynccontextmanager
async def echoing(nursery: trio.Nursery) -> AsyncIterator[int]:
    """A server that says back what comes; its port."""

    async def echo(sock: TcpSocket) -> None:
        async for chunk in sock:
            await sock.send_all(chunk)

    know_names()
    async with TcpServer() as server:
        await server.listen("127.0.0.1")
        nursery.start_soon(server.serve, echo)
        yield server.server_port()


async def must_fail(sock: TcpSocket, kind: ErrorKind, host: str = "far.test", port: int = 80) -> SocketError:
    """It is raised, told, and over."""
    know_names()
    with pytest.raises(SocketError) as caught:
        await sock.connect_to_host(host, port)

    assert caught.value.kind is kind
    assert (sock.error(), sock.error_string()) == (kind, str(caught.value))
    assert (sock.state(), sock.local_port(), sock.peer_port(), sock.socket_descriptor()) == (UNCONNECTED, 0, 0, -1)
    return caught.value


# ---- what is told --------------------------------------------------------------------------


async def test_an_address_is_found_and_the_peer_is_the_target(
    network: Network, autojump_clock: trio.testing.MockClock, nursery: trio.Nursery, kind: ProxyKind
) -> None:
    """The same as without a proxy: peer_address() is the host's, not the proxy's."""
    async with (
        echoing(nursery) as port,
        TcpSocket() as sock,
        SignalSpy(sock, StateChanged, HostFound, Connected) as spy,
    ):
        proxy = await start(nursery, kind)
        sock.set_proxy(proxy.network_proxy())
        await sock.connect_to_host("127.0.0.1", port)

        assert list(spy) == [
            *(StateChanged(HOST_LOOKUP), StateChanged(CONNECTING), HostFound()),
            *(StateChanged(CONNECTED), Connected()),
        ]
        assert (sock.peer_name(), sock.peer_address(), sock.peer_port()) == (
            *("127.0.0.1", HostAddress("127.0.0.1")),
            port,
        )
        await sock.send_all(b"ping")
        assert await sock.receive_exactly(4) == b"ping"
        await sock.disconnect_from_host()
        nursery.cancel_scope.cancel()

    assert proxy.seen[-1] == f"CONNECT 127.0.0.1:{port}"


async def test_a_name_is_left_to_the_proxy_and_no_address_is_known(
    network: Network, autojump_clock: trio.testing.MockClock, nursery: trio.Nursery, kind: ProxyKind
) -> None:
    """No HostFound, for nothing was found here; the name is what there is to say."""
    async with (
        echoing(nursery) as port,
        TcpSocket() as sock,
        SignalSpy(sock, StateChanged, HostFound, Connected) as spy,
    ):
        proxy = await start(nursery, kind)
        sock.set_proxy(proxy.network_proxy())
        await sock.connect_to_host("far.test", port)

        assert list(spy) == [
            *(StateChanged(HOST_LOOKUP), StateChanged(CONNECTING)),
            *(StateChanged(CONNECTED), Connected()),
        ]
        assert (sock.peer_name(), sock.peer_address(), sock.peer_port()) == ("far.test", HostAddress.NULL, port)
        assert f"to far.test:{port}" in repr(sock)
        await sock.send_all(b"ping")
        assert await sock.receive_exactly(4) == b"ping"
        nursery.cancel_scope.cancel()

    assert proxy.seen[-1] == f"CONNECT far.test:{port}"


async def test_a_name_is_looked_up_here_if_the_proxy_is_not_to(
    network: Network, autojump_clock: trio.testing.MockClock, nursery: trio.Nursery, kind: ProxyKind
) -> None:
    async with echoing(nursery) as port, TcpSocket() as sock, SignalSpy(sock, HostFound) as spy:
        proxy = await start(nursery, kind)
        there = proxy.network_proxy()
        sock.set_proxy(NetworkProxy(kind, there.host, there.port, looks_up_names=False))
        await sock.connect_to_host("far.test", port)

        assert (list(spy), sock.peer_address()) == ([HostFound()], HostAddress("127.0.0.1"))
        await must_fail_elsewhere(sock)
        nursery.cancel_scope.cancel()

    assert proxy.seen[-1] == f"CONNECT 127.0.0.1:{port}"


async def must_fail_elsewhere(sock: TcpSocket) -> None:
    """A name that is not known here is the target's trouble, not the proxy's."""
    await sock.disconnect_from_host()
    error = await must_fail(sock, ErrorKind.HOST_NOT_FOUND, "unknown.test")
    assert "proxy" not in str(error)


async def test_the_local_address_is_what_the_proxy_says(
    network: Network, autojump_clock: trio.testing.MockClock, nursery: trio.Nursery
) -> None:
    """SOCKS5 says its own end; HTTP does not, so there it is that of the connection to the proxy."""
    answer = b"\x05\x00" + b"\x05\x00\x00\x04" + bytes(15) + b"\x07\x12\x34"
    socks = await start(nursery, ProxyKind.SOCKS5, says=[answer])
    http = await start(nursery, ProxyKind.HTTP, says=[b"HTTP/1.1 200 OK\r\n\r\n"])

    async with TcpSocket() as one, TcpSocket() as other:
        one.set_proxy(socks.network_proxy())
        other.set_proxy(http.network_proxy())
        await one.connect_to_host("far.test", 80)
        await other.connect_to_host("far.test", 80)

        assert (one.local_address(), one.local_port()) == (HostAddress("::7"), 0x1234)
        assert (other.local_address(), other.local_port() > 0) == (HostAddress("127.0.0.1"), True)
    nursery.cancel_scope.cancel()


async def test_bytes_behind_the_last_answer_are_the_first_of_the_connection(
    network: Network, autojump_clock: trio.testing.MockClock, nursery: trio.Nursery, kind: ProxyKind
) -> None:
    """A host that speaks first, through a proxy that puts it all into one piece."""
    async with echoing(nursery) as port, TcpSocket() as sock:
        proxy = await start(nursery, kind, early=b"220 welcome\r\n")
        sock.set_proxy(proxy.network_proxy())
        await sock.connect_to_host("far.test", port)
        await sock.send_all(b"ping")

        assert await sock.receive_line() == b"220 welcome\r\n"
        assert await sock.receive_exactly(4) == b"ping"
        nursery.cancel_scope.cancel()


async def test_answers_in_pieces_of_one_byte_come_to_the_same(
    network: Network, autojump_clock: trio.testing.MockClock, nursery: trio.Nursery, kind: ProxyKind
) -> None:
    async with echoing(nursery) as port, TcpSocket() as sock:
        proxy = await start(nursery, kind, piece=1, user="user", password="secret", early=b"early")
        sock.set_proxy(proxy.network_proxy())
        await sock.connect_to_host("far.test", port)

        assert await sock.receive_exactly(5) == b"early"
        nursery.cancel_scope.cancel()


async def test_what_is_written_before_is_sent_once_it_is_connected(
    network: Network, autojump_clock: trio.testing.MockClock, nursery: trio.Nursery, kind: ProxyKind
) -> None:
    """The proxy gets none of it."""
    async with echoing(nursery) as port, TcpSocket() as sock:
        proxy = await start(nursery, kind)
        sock.set_proxy(proxy.network_proxy())
        await nursery.start(sock.connect_to_host, "far.test", port)
        sock.write(b"early")
        await sock.wait_for_connected()

        assert await sock.receive_exactly(5) == b"early"
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize("half_open", [True, False])
async def test_the_far_end_closes_as_if_there_were_no_proxy(
    network: Network, autojump_clock: trio.testing.MockClock, nursery: trio.Nursery, kind: ProxyKind, half_open: bool
) -> None:
    proxy = await start(nursery, kind)
    with await network.raw_listener() as listener:
        async with TcpSocket(half_open=half_open) as sock:
            sock.set_proxy(proxy.network_proxy())
            await sock.connect_to_host("127.0.0.1", listener.port)
            with await listener.accept() as peer:
                await peer.send(b"bye")
                peer.finish()
                assert await sock.receive_exactly(3) == b"bye"
                assert await sock.receive_some() == b""
                if half_open:
                    await sock.send_all(b"and you")
                    await sock.disconnect_from_host()
                    assert await peer.receive_to_end() == b"and you"
                else:
                    await sock.wait_for_disconnected()
                    assert sock.error() is ErrorKind.REMOTE_HOST_CLOSED
    nursery.cancel_scope.cancel()


async def test_a_proxy_that_is_killed_takes_the_connection_with_it(
    network: Network, autojump_clock: trio.testing.MockClock, nursery: trio.Nursery, kind: ProxyKind
) -> None:
    async with echoing(nursery) as port, TcpSocket() as sock:
        proxy = await start(nursery, kind)
        sock.set_proxy(proxy.network_proxy())
        await sock.connect_to_host("far.test", port)
        await sock.send_all(b"ping")
        await sock.receive_exactly(4)
        proxy.end_connections()

        with pytest.raises(SocketError) as caught:
            await sock.receive_exactly(1)
        assert caught.value.kind is ErrorKind.REMOTE_HOST_CLOSED
        nursery.cancel_scope.cancel()


async def test_a_bound_socket_connects_to_the_proxy_from_there(
    network: Network, autojump_clock: trio.testing.MockClock, nursery: trio.Nursery, kind: ProxyKind
) -> None:
    """And asks again, where the proxy wants a password, from wherever it can."""
    async with echoing(nursery) as port, TcpSocket() as sock:
        proxy = await start(nursery, kind, user="user", password="secret")
        sock.set_proxy(proxy.network_proxy("", ""))
        sock.set_proxy_authenticator(knows("user", "secret"))
        await sock.bind("127.0.0.1")
        await sock.connect_to_host("far.test", port)
        await sock.send_all(b"ping")

        assert await sock.receive_exactly(4) == b"ping"
        nursery.cancel_scope.cancel()


# ---- names and passwords -------------------------------------------------------------------


class knows:
    """An authenticator that gives these answers in turn, and the last one for ever."""

    def __init__(self, *answers: Any) -> None:
        self.answers = [answers] if all(isinstance(answer, str) for answer in answers) else list(answers)
        self.asked: list[tuple[ProxyKind, str]] = []

    async def __call__(self, proxy: NetworkProxy, realm: str) -> tuple[str, str] | None:
        await trio.lowlevel.checkpoint()
        self.asked.append((proxy.kind, realm))
        answer: tuple[str, str] | None = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        return answer


REALMS = {ProxyKind.SOCKS5: "", ProxyKind.HTTP: "scripted"}


async def test_a_password_that_is_right_asks_nobody(
    network: Network, autojump_clock: trio.testing.MockClock, nursery: trio.Nursery, kind: ProxyKind
) -> None:
    async with echoing(nursery) as port, TcpSocket() as sock, SignalSpy(sock, ProxyAuthenticationRequired) as spy:
        proxy = await start(nursery, kind, user="user", password="secret")
        authenticator = knows(None)
        sock.set_proxy_authenticator(authenticator)
        sock.set_proxy(proxy.network_proxy())
        await sock.connect_to_host("far.test", port)

        assert (list(spy), authenticator.asked) == ([], [])
        nursery.cancel_scope.cancel()


async def test_whoever_knows_it_is_asked_again_while_it_is_wrong(
    network: Network, autojump_clock: trio.testing.MockClock, nursery: trio.Nursery, kind: ProxyKind
) -> None:
    """Each question is told as an event too."""
    async with echoing(nursery) as port, TcpSocket() as sock, SignalSpy(sock, ProxyAuthenticationRequired) as spy:
        proxy = await start(nursery, kind, user="user", password="secret")
        there = proxy.network_proxy("user", "wrong")
        authenticator = knows(("user", "wronger"), ("user", "secret"))
        sock.set_proxy_authenticator(authenticator)
        sock.set_proxy(there)
        await sock.connect_to_host("far.test", port)

        assert authenticator.asked == [(kind, REALMS[kind])] * 2
        assert list(spy) == [ProxyAuthenticationRequired(there, REALMS[kind])] * 2
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize("answers", [(None,), (("user", "wrong"),), (("a", "b"), ("c", "d"), ("c", "d"))])
@pytest.mark.parametrize("password", ["", "wrong"])
async def test_it_gives_up_when_there_is_nothing_new(
    network: Network,
    autojump_clock: trio.testing.MockClock,
    nursery: trio.Nursery,
    kind: ProxyKind,
    answers: Sequence[Any],
    password: str,
) -> None:
    """None, or what has been refused already.  First the state, then the error, as with any attempt."""
    async with TcpSocket() as sock, SignalSpy(sock) as spy:
        proxy = await start(nursery, kind, user="user", password="secret")
        authenticator = knows(*answers) if len(answers) > 1 else knows(answers[0])
        sock.set_proxy(proxy.network_proxy("user" if password else "", password))
        sock.set_proxy_authenticator(authenticator)
        error = await must_fail(sock, ErrorKind.PROXY_AUTHENTICATION_REQUIRED)

        asked = len(authenticator.asked)
        told: list[Event] = [event for event in spy if not isinstance(event, ProxyAuthenticationRequired)]
        assert told == [
            *(StateChanged(HOST_LOOKUP), StateChanged(CONNECTING), StateChanged(UNCONNECTED)),
            ErrorOccurred(ErrorKind.PROXY_AUTHENTICATION_REQUIRED, str(error)),
        ]
        assert len(spy) - len(told) == asked > 0
        nursery.cancel_scope.cancel()


async def test_without_anybody_to_ask_it_is_told_once(
    network: Network, autojump_clock: trio.testing.MockClock, nursery: trio.Nursery, kind: ProxyKind
) -> None:
    async with TcpSocket() as sock, SignalSpy(sock, ProxyAuthenticationRequired) as spy:
        proxy = await start(nursery, kind, user="user", password="secret")
        sock.set_proxy(proxy.network_proxy("", ""))
        await must_fail(sock, ErrorKind.PROXY_AUTHENTICATION_REQUIRED)

        assert len(spy) == 1
        nursery.cancel_scope.cancel()


async def mistake_of(sock: TcpSocket, nursery: trio.Nursery, answer: Any) -> Exception:
    """What an attempt ends with whose authenticator answers that."""

    async def authenticator(proxy: NetworkProxy, realm: str) -> Any:
        return answer

    proxy = await start(nursery, ProxyKind.SOCKS5, user="user", password="secret")
    sock.set_proxy(proxy.network_proxy("", ""))
    sock.set_proxy_authenticator(authenticator)
    with pytest.raises((TypeError, ValueError)) as caught:
        await sock.connect_to_host("far.test", 80)
    return caught.value


@pytest.mark.parametrize("answer", ["user", ("user",), ("user", 1), ["user", "secret"], ("user", "\udc80")])
async def test_an_answer_that_is_none_is_a_mistake_of_the_program(
    network: Network, autojump_clock: trio.testing.MockClock, nursery: trio.Nursery, answer: Any
) -> None:
    """It goes out as it is, and the attempt is dropped."""
    async with TcpSocket() as sock:
        mistake = await mistake_of(sock, nursery, answer)

        assert "secret" not in str(mistake)
        assert (sock.state(), sock.socket_descriptor()) == (UNCONNECTED, -1)
        nursery.cancel_scope.cancel()


async def test_the_password_is_in_nothing_that_can_be_read(
    network: Network,
    autojump_clock: trio.testing.MockClock,
    nursery: trio.Nursery,
    kind: ProxyKind,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Wrong ones, right ones and those of an authenticator: no event, message, traceback, repr or record has them."""
    caplog.set_level(logging.DEBUG)
    async with TcpSocket() as sock, SignalSpy(sock) as spy:
        proxy = await start(nursery, kind, user="user", password="right-hunter2")
        there = proxy.network_proxy("user", "wrong-hunter2")
        sock.set_proxy(there)
        sock.set_proxy_authenticator(knows("user", "wronger-hunter2"))
        error = await must_fail(sock, ErrorKind.PROXY_AUTHENTICATION_REQUIRED)

        texts = [repr(there), repr(sock), repr(sock.proxy()), *map(repr, spy), str(spy), caplog.text]
        behind: BaseException | None = error
        while behind is not None:
            texts += traceback.TracebackException.from_exception(behind, capture_locals=True).format()
            behind = behind.__cause__ or behind.__context__
        assert [text for text in texts if "hunter2" in text] == []
        nursery.cancel_scope.cancel()


async def test_an_attempt_that_is_cancelled_shows_no_password_either(
    network: Network, autojump_clock: trio.testing.MockClock, nursery: trio.Nursery, kind: ProxyKind
) -> None:
    """Its traceback begins where the proxy is waited for, behind what it was told, and goes out with the time-out."""
    wants = b'HTTP/1.1 407 who\r\nProxy-Authenticate: Basic realm=""\r\nContent-Length: 0\r\n\r\n'
    words = [b"\5\2"] if kind is ProxyKind.SOCKS5 else [wants]

    async def say_no_more(listener: RawListener) -> None:
        with await listener.accept() as peer:
            for word in words:
                await peer.receive(1)
                await peer.send(word)
            with contextlib.suppress(OSError):
                await peer.receive_to_end()
            await trio.sleep_forever()

    know_names()
    with await network.raw_listener() as listener:
        nursery.start_soon(say_no_more, listener)
        async with TcpSocket() as sock:
            sock.set_proxy(NetworkProxy(kind, "127.0.0.1", listener.port, "user", "hunter2"))
            with pytest.raises(trio.TooSlowError) as caught:
                with trio.fail_after(ANSWER_TIME / 2):
                    await sock.connect_to_host("far.test", 80)

            assert shown_in(caught.value) == []
            assert (sock.state(), sock.socket_descriptor()) == (UNCONNECTED, -1)
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize("answer", [("user", b"hunter2"), ("user", "hunter2\udc80"), ["user", "hunter2"], "hunter2"])
async def test_a_wrong_answer_of_an_authenticator_is_not_shown(
    network: Network, autojump_clock: trio.testing.MockClock, nursery: trio.Nursery, answer: Any
) -> None:
    """It is the program's mistake, and its password all the same."""
    async with TcpSocket() as sock:
        mistake = await mistake_of(sock, nursery, answer)

        assert shown_in(mistake) == []
        nursery.cancel_scope.cancel()


class Awaitable:
    """Shows its password in its repr, and fails when it is awaited."""

    def __repr__(self) -> str:
        return "hunter2"

    def __await__(self) -> Iterator[Any]:
        raise KeyError("nobody is there")


@pytest.mark.parametrize("answer", [("user", "hunter2"), "hunter2", None, Awaitable(), KeyError("nobody is there")])
async def test_an_authenticator_that_is_no_async_function_shows_nothing(
    network: Network, autojump_clock: trio.testing.MockClock, nursery: trio.Nursery, answer: Any
) -> None:
    """What it answers at once is a mistake, what it raises goes out; and neither is in a variable of ours."""

    def authenticator(proxy: NetworkProxy, realm: str) -> Any:
        if isinstance(answer, Exception):
            raise answer
        return answer

    async with TcpSocket() as sock:
        proxy = await start(nursery, ProxyKind.SOCKS5, user="user", password="hunter2")
        sock.set_proxy(proxy.network_proxy("", ""))
        sock.set_proxy_authenticator(authenticator)
        with pytest.raises(KeyError if isinstance(answer, Awaitable | KeyError) else TypeError) as caught:
            await sock.connect_to_host("far.test", 80)

        assert shown_in(caught.value) == []
        assert (sock.state(), sock.socket_descriptor()) == (UNCONNECTED, -1)
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize("answer", ["socks5://user:hunter2@host", ["socks5://user:hunter2@host"], {"hunter2": 1}])
async def test_a_wrong_answer_of_a_factory_is_not_shown(network: Network, answer: Any) -> None:
    """URLs are a likely mistake, and have passwords in them."""
    async with TcpSocket() as sock:
        set_application_proxy_factory(lambda query: answer)
        with pytest.raises(TypeError) as caught:
            await sock.connect_to_host("far.test", 80)

        assert shown_in(caught.value) == []


def shown_in(error: BaseException) -> list[str]:
    """Where in an exception, in what is behind it, and in the variables of our frames the password is."""
    texts: list[str] = []
    behind: BaseException | None = error
    while behind is not None:
        told = traceback.TracebackException.from_exception(behind, capture_locals=True)
        texts += [repr(behind.args), str(behind)]
        texts += [f"{frame.name}: {frame.locals}" for frame in told.stack if not frame.filename.startswith(HERE)]
        behind = behind.__cause__ or behind.__context__
    return [text for text in texts if "hunter2" in text]


HERE = __file__.rpartition("/")[0]


# ---- all that can go wrong -----------------------------------------------------------------


async def test_a_proxy_that_refuses_the_connection(
    network: Network, autojump_clock: trio.testing.MockClock, kind: ProxyKind
) -> None:
    async with TcpSocket() as sock:
        sock.set_proxy(NetworkProxy(kind, "127.0.0.1", await network.unused_port()))
        error = await must_fail(sock, ErrorKind.PROXY_CONNECTION_REFUSED)

    assert f"the {kind.name} proxy 127.0.0.1:" in str(error)


async def test_a_proxy_whose_name_is_unknown(
    network: Network, autojump_clock: trio.testing.MockClock, kind: ProxyKind
) -> None:
    """The name is looked up once the target is on its way, so the attempt fails in CONNECTING."""
    async with TcpSocket() as sock, SignalSpy(sock, StateChanged) as spy:
        sock.set_proxy(NetworkProxy(kind, "unknown.test", 1080))
        await must_fail(sock, ErrorKind.PROXY_NOT_FOUND, "127.0.0.1")

        assert [event.state for event in spy] == [HOST_LOOKUP, CONNECTING, UNCONNECTED]


@pytest.mark.parametrize(
    ("number", "error"),
    [
        (errno.ETIMEDOUT, ErrorKind.PROXY_CONNECTION_TIMEOUT),
        (errno.ECONNREFUSED, ErrorKind.PROXY_CONNECTION_REFUSED),
        (errno.ECONNRESET, ErrorKind.PROXY_CONNECTION_CLOSED),
        (errno.ENETUNREACH, ErrorKind.NETWORK),
    ],
)
async def test_a_proxy_that_cannot_be_reached(
    autojump_clock: trio.testing.MockClock, kind: ProxyKind, number: int, error: ErrorKind
) -> None:
    """All its addresses are tried, and the last one says why; the system's number is kept."""
    script = ScriptedNetwork({"10.0.0.8": Answer(130, number), "10.0.0.9": Answer(130, number)})
    scripted_names({"proxy.test": ["10.0.0.8", "10.0.0.9"]})
    async with TcpSocket() as sock:
        sock.set_proxy(NetworkProxy(kind, "proxy.test", 1080))
        with pytest.raises(SocketError) as caught:
            await sock.connect_to_host("10.0.0.1", 80)

        assert (caught.value.kind, caught.value.errno) == (error, number)
        assert isinstance(caught.value.__cause__, SocketError)
        assert isinstance(caught.value.__cause__.__cause__, ExceptionGroup)
    assert script.open_sockets() == []


@pytest.mark.parametrize("password", ["", "secret"])
async def test_a_proxy_that_closes_early(
    network: Network, autojump_clock: trio.testing.MockClock, nursery: trio.Nursery, kind: ProxyKind, password: str
) -> None:
    proxy = await start(nursery, kind, says=[b"", b"\x05" if kind is ProxyKind.SOCKS5 else b"HTTP/1.1 200 OK\r\n"])
    async with TcpSocket() as sock:
        sock.set_proxy(proxy.network_proxy("user" if password else "", password))
        await must_fail(sock, ErrorKind.PROXY_CONNECTION_CLOSED)
        await must_fail(sock, ErrorKind.PROXY_CONNECTION_CLOSED)
    nursery.cancel_scope.cancel()


async def test_a_proxy_that_resets_the_connection(
    network: Network, autojump_clock: trio.testing.MockClock, nursery: trio.Nursery, kind: ProxyKind
) -> None:
    """The system's reason is the cause."""

    async def reset(listener: RawListener) -> None:
        peer = await listener.accept()
        await peer.receive(1)
        peer.reset()

    with await network.raw_listener() as listener:
        nursery.start_soon(reset, listener)
        async with TcpSocket() as sock:
            sock.set_proxy(NetworkProxy(kind, "127.0.0.1", listener.port))
            error = await must_fail(sock, ErrorKind.PROXY_CONNECTION_CLOSED)

    causes = [error.__cause__, error.__cause__ and error.__cause__.__cause__]
    assert any(isinstance(cause, ConnectionResetError) for cause in causes)


async def test_a_proxy_that_says_nothing_is_given_up(
    network: Network, autojump_clock: trio.testing.MockClock, nursery: trio.Nursery, kind: ProxyKind
) -> None:
    proxy = await start(nursery, kind, says=[None])
    async with TcpSocket() as sock:
        sock.set_proxy(proxy.network_proxy())
        before = trio.current_time()
        await must_fail(sock, ErrorKind.PROXY_CONNECTION_TIMEOUT)

        assert trio.current_time() - before == pytest.approx(ANSWER_TIME)
    nursery.cancel_scope.cancel()


async def test_a_proxy_that_dribbles_is_given_up_as_soon(
    network: Network, autojump_clock: trio.testing.MockClock, nursery: trio.Nursery
) -> None:
    """A byte now and then does not make the answer's time longer."""

    async def dribble(listener: RawListener) -> None:
        with await listener.accept() as peer:
            await peer.send(b"HTTP/1.1 200 OK\r\n")
            with contextlib.suppress(OSError):
                while True:
                    await trio.sleep(ANSWER_TIME / 4)
                    await peer.send(b"X: y\r\n")

    with await network.raw_listener() as listener:
        nursery.start_soon(dribble, listener)
        async with TcpSocket() as sock:
            sock.set_proxy(NetworkProxy(ProxyKind.HTTP, "127.0.0.1", listener.port))
            before = trio.current_time()
            await must_fail(sock, ErrorKind.PROXY_CONNECTION_TIMEOUT)

            assert trio.current_time() - before == pytest.approx(ANSWER_TIME)
    nursery.cancel_scope.cancel()


async def test_a_program_that_takes_its_time_with_the_password_has_it(
    network: Network, autojump_clock: trio.testing.MockClock, nursery: trio.Nursery, kind: ProxyKind
) -> None:
    """People are no proxies."""

    async def slow(proxy: NetworkProxy, realm: str) -> tuple[str, str]:
        await trio.sleep(10 * ANSWER_TIME)
        return "user", "secret"

    async with echoing(nursery) as port, TcpSocket() as sock:
        proxy = await start(nursery, kind, user="user", password="secret")
        sock.set_proxy(proxy.network_proxy("", ""))
        sock.set_proxy_authenticator(slow)
        await sock.connect_to_host("far.test", port)

        assert sock.state() is CONNECTED
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize("words", [b"\x04\x04\x04\x04", b"SSH-2.0-x\r\n", bytes(100_000), b"\r\n" * 50_000])
async def test_a_proxy_that_makes_no_sense(
    network: Network, autojump_clock: trio.testing.MockClock, nursery: trio.Nursery, kind: ProxyKind, words: bytes
) -> None:
    proxy = await start(nursery, kind, says=[words])
    async with TcpSocket() as sock:
        sock.set_proxy(proxy.network_proxy())
        await must_fail(sock, ErrorKind.PROXY_PROTOCOL)
    nursery.cancel_scope.cancel()


@pytest.mark.parametrize(
    ("host", "error"), [("unknown.test", ErrorKind.HOST_NOT_FOUND), ("far.test", ErrorKind.CONNECTION_REFUSED)]
)
async def test_what_the_proxy_finds_of_the_host_is_the_hosts_trouble(
    network: Network,
    autojump_clock: trio.testing.MockClock,
    nursery: trio.Nursery,
    kind: ProxyKind,
    host: str,
    error: ErrorKind,
) -> None:
    """The same kinds as without a proxy."""
    proxy = await start(nursery, kind)
    async with TcpSocket() as sock:
        sock.set_proxy(proxy.network_proxy())
        await must_fail(sock, error, host, await network.unused_port())
    nursery.cancel_scope.cancel()


async def test_a_host_of_several_addresses_is_tried_once(
    network: Network, autojump_clock: trio.testing.MockClock, nursery: trio.Nursery, kind: ProxyKind
) -> None:
    """As in Qt: what the proxy says of the first address is the answer."""
    async with echoing(nursery) as port, TcpSocket() as sock:
        proxy = await start(nursery, kind)
        there = proxy.network_proxy()
        sock.set_proxy(NetworkProxy(kind, there.host, there.port, looks_up_names=False))
        await must_fail(sock, ErrorKind.CONNECTION_REFUSED, "two.test", port)

        assert [line for line in proxy.seen if "CONNECT" in line] == [f"CONNECT 127.0.0.2:{port}"]
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize("host", ["", "a b", "a\r\nX: y", "\0", "a..b", f"{'x' * 64}.test"])
async def test_a_name_that_is_none_never_gets_to_the_proxy(
    network: Network, autojump_clock: trio.testing.MockClock, nursery: trio.Nursery, kind: ProxyKind, host: str
) -> None:
    proxy = await start(nursery, kind)
    async with TcpSocket() as sock:
        sock.set_proxy(proxy.network_proxy())
        await must_fail(sock, ErrorKind.HOST_NOT_FOUND, host)

    assert proxy.seen == []
    nursery.cancel_scope.cancel()


@pytest.mark.parametrize("bound", [False, True])
@pytest.mark.parametrize("kind", [ProxyKind.HTTP_CACHING, ProxyKind.FTP_CACHING])
async def test_a_kind_without_tunnels_is_refused_and_nothing_begins(
    network: Network, autojump_clock: trio.testing.MockClock, kind: ProxyKind, bound: bool
) -> None:
    """Told inside of the call, and the state does not change."""
    async with TcpSocket() as sock:
        if bound:
            await sock.bind("127.0.0.1")
        before, valid = sock.state(), sock.is_valid()
        async with SignalSpy(sock) as spy:
            sock.set_proxy(NetworkProxy(kind, "127.0.0.1", 9))
            with pytest.raises(SocketError) as caught:
                await sock.connect_to_host("127.0.0.1", 80)

            assert caught.value.kind is ErrorKind.UNSUPPORTED_SOCKET_OPERATION
            assert list(spy) == [ErrorOccurred(caught.value.kind, str(caught.value))]
            assert (sock.state(), sock.is_valid(), sock.error()) == (before, valid, caught.value.kind)


# ---- which proxy ---------------------------------------------------------------------------


async def test_a_new_socket_has_the_default(network: Network) -> None:
    async with TcpSocket() as sock, TcpServer() as server:
        assert sock.proxy() == server.proxy() == NetworkProxy(ProxyKind.DEFAULT)
        assert sock.protocol_tag() == server.protocol_tag() == ""


@pytest.mark.parametrize(
    ("call", "argument"),
    [
        ("set_proxy", "socks5://host"),
        ("set_proxy", None),
        ("set_protocol_tag", b"http"),
        ("set_proxy_authenticator", "x"),
    ],
)
async def test_what_is_no_proxy_is_refused(network: Network, call: str, argument: object) -> None:
    async with TcpSocket() as sock, TcpServer() as server:
        for thing in (sock, server):
            with pytest.raises(TypeError):
                getattr(thing, call)(argument)

    for function in (set_application_proxy, set_application_proxy_factory):
        with pytest.raises(TypeError):
            function("socks5://host")  # type: ignore[arg-type]


async def test_the_applications_proxy_is_for_those_without_one_and_not_for_this_machine(
    network: Network, autojump_clock: trio.testing.MockClock, nursery: trio.Nursery, kind: ProxyKind
) -> None:
    async with echoing(nursery) as port:
        proxy = await start(nursery, kind)
        set_application_proxy(proxy.network_proxy())
        seen: dict[tuple[str, ProxyKind], int] = {}
        spelled = (
            "127.0.0.1",
            "127.1.2.3",
            "::ffff:127.0.0.1",
            "127.1",
            "0x7f.1",
            "2130706433",
            "LocalHost.",
            "localhost",
        )
        for host in ("far.test", *spelled):
            for own in (ProxyKind.DEFAULT, ProxyKind.NONE):
                before = len(proxy.seen)
                async with TcpSocket() as sock:
                    sock.set_proxy(NetworkProxy(own))
                    with contextlib.suppress(SocketError):  # not all lead somewhere
                        await sock.connect_to_host(host, port)
                seen[host, own] = len(proxy.seen) - before
        set_application_proxy(NONE)
        async with TcpSocket() as sock:
            await sock.connect_to_host("far.test", port)
            before = len(proxy.seen)

        assert [key for key, count in seen.items() if count] == [("far.test", ProxyKind.DEFAULT)]
        assert len(proxy.seen) == before
        nursery.cancel_scope.cancel()


async def test_a_sockets_own_proxy_is_used_for_this_machine_too(
    network: Network, autojump_clock: trio.testing.MockClock, nursery: trio.Nursery, kind: ProxyKind
) -> None:
    async with echoing(nursery) as port, TcpSocket() as sock:
        proxy = await start(nursery, kind)
        sock.set_proxy(proxy.network_proxy())
        await sock.connect_to_host("127.0.0.1", port)

        assert proxy.seen[-1:] == [f"CONNECT 127.0.0.1:{port}"]
        nursery.cancel_scope.cancel()


async def test_a_factory_is_asked_once_and_the_first_that_can_is_taken(
    network: Network, autojump_clock: trio.testing.MockClock, nursery: trio.Nursery, kind: ProxyKind
) -> None:
    queries: list[ProxyQuery] = []

    def factory(query: ProxyQuery) -> list[NetworkProxy]:
        queries.append(query)
        return [NetworkProxy(ProxyKind.HTTP_CACHING, "127.0.0.1", 9), proxy.network_proxy(), NONE]

    async with echoing(nursery) as port, TcpSocket() as sock, TcpSocket() as other:
        proxy = await start(nursery, kind)
        set_application_proxy_factory(factory)
        sock.set_protocol_tag("smtp")
        await sock.connect_to_host("far.test", port)
        await other.connect_to_host("127.0.0.1", port)

        assert queries == [ProxyQuery("far.test", port, "smtp", "tcp")]
        assert proxy.seen[-1:] == [f"CONNECT far.test:{port}"]
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize("answer", [[], [NONE], [NetworkProxy(ProxyKind.DEFAULT)]])
async def test_a_factory_may_say_that_there_is_none(
    network: Network, autojump_clock: trio.testing.MockClock, nursery: trio.Nursery, answer: list[NetworkProxy]
) -> None:
    async with echoing(nursery) as port, TcpSocket() as sock:
        set_application_proxy_factory(lambda query: answer)
        await sock.connect_to_host("far.test", port)

        assert sock.peer_address() == HostAddress("127.0.0.1")
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize("answer", [None, "socks5://host", ["socks5://host"], NONE, 1])
async def test_a_factory_that_answers_anything_else_is_a_mistake(network: Network, answer: Any) -> None:
    """Told before anything has begun; so is what it raises."""

    def raises(query: ProxyQuery) -> list[NetworkProxy]:
        raise KeyError(query.host)

    async with TcpSocket() as sock, SignalSpy(sock) as spy:
        set_application_proxy_factory(lambda query: answer)
        with pytest.raises(TypeError):
            await sock.connect_to_host("far.test", 80)
        set_application_proxy_factory(raises)
        with pytest.raises(KeyError):
            await sock.connect_to_host("far.test", 80)

        assert (sock.state(), list(spy)) == (UNCONNECTED, [])


async def test_none_of_a_factorys_can_do_it(network: Network, autojump_clock: trio.testing.MockClock) -> None:
    """The message names them."""
    async with TcpSocket() as sock:
        set_application_proxy_factory(lambda query: [NetworkProxy(ProxyKind.FTP_CACHING, "cache.test", 9)])
        error = await must_fail(sock, ErrorKind.UNSUPPORTED_SOCKET_OPERATION)

    assert "FTP_CACHING proxy cache.test:9" in str(error)


def test_the_applications_proxy_is_that_of_one_run() -> None:
    """Another trio.run has its own, which is none at first; and outside there is none to set."""

    async def set_one() -> None:
        set_application_proxy(NetworkProxy(ProxyKind.SOCKS5, "127.0.0.1", 1))

    async def find() -> ProxyKind | None:
        async with TcpSocket() as sock:
            found = sock._choose_proxy("tcp", "far.test", 80)
            return None if found is None else found.kind

    async def set_and_find() -> ProxyKind | None:
        await set_one()
        return await find()

    assert trio.run(set_and_find) is ProxyKind.SOCKS5
    assert trio.run(find) is None
    with pytest.raises(RuntimeError):
        set_application_proxy(NONE)


# ---- TLS -----------------------------------------------------------------------------------


@contextlib.asynccontextmanager
async def echoing_by_tls(nursery: trio.Nursery, tls: Contexts) -> AsyncIterator[int]:
    """The same as ``echoing``, encrypted; its port."""

    async def echo(sock: SslSocket) -> None:
        async for chunk in sock:
            await sock.send_all(chunk)

    know_names()
    async with SslServer(tls.server) as server:
        await server.listen("127.0.0.1")
        nursery.start_soon(server.serve, echo)
        yield server.server_port()


def with_tls(proxy: NetworkProxy, context: ssl.SSLContext, host: str = "peer.example") -> NetworkProxy:
    return attrs.evolve(proxy, host=host, context=context)


@pytest.mark.parametrize("to_proxy", [False, True])
async def test_tls_goes_through_a_proxy_and_to_one(
    network: Network,
    autojump_clock: trio.testing.MockClock,
    nursery: trio.Nursery,
    kind: ProxyKind,
    tls: Contexts,
    to_proxy: bool,
) -> None:
    """Inside of each other, with a certificate for the host, and one for the proxy."""
    async with echoing_by_tls(nursery, tls) as port, SslSocket(context=tls.client) as sock:
        proxy = await start(nursery, kind, context=tls.server if to_proxy else None, user="user", password="secret")
        there = proxy.network_proxy("", "")
        sock.set_proxy(with_tls(there, tls.client) if to_proxy else there)
        sock.set_proxy_authenticator(knows("user", "secret"))
        await sock.connect_to_host_encrypted("peer.example", port)
        await sock.send_all(b"ping")

        assert await sock.receive_exactly(4) == b"ping"
        assert (sock.is_encrypted(), sock.peer_name(), sock.peer_port()) == (True, "peer.example", port)
        await sock.send_eof()
        assert await sock.receive_some() == b""
        await sock.disconnect_from_host()
        nursery.cancel_scope.cancel()


async def test_each_encrypted_connection_goes_by_the_proxy_of_its_time(
    network: Network, autojump_clock: trio.testing.MockClock, nursery: trio.Nursery, kind: ProxyKind, tls: Contexts
) -> None:
    """A bad proxy after a good one, and the good one again."""
    nobody = NetworkProxy(kind, network.host, await network.unused_port())
    async with echoing_by_tls(nursery, tls) as port, SslSocket(context=tls.client) as sock:
        proxy = await start(nursery, kind)
        results: list[object] = []
        for chosen in (proxy.network_proxy(), nobody, proxy.network_proxy()):
            sock.set_proxy(chosen)
            try:
                await sock.connect_to_host_encrypted("peer.example", port)
            except SocketError as error:
                results.append((error.kind, sock.is_encrypted()))
            else:
                results.append(sock.is_encrypted())
                await sock.disconnect_from_host()

        assert results == [True, (ErrorKind.PROXY_CONNECTION_REFUSED, False), True]
        nursery.cancel_scope.cancel()


async def test_a_plain_connection_by_tls_to_the_proxy_is_not_encrypted_to_its_end(
    network: Network, autojump_clock: trio.testing.MockClock, nursery: trio.Nursery, kind: ProxyKind, tls: Contexts
) -> None:
    """is_encrypted() is about the host."""
    async with echoing(nursery) as port, SslSocket() as sock:
        proxy = await start(nursery, kind, context=tls.server, early=b"early ")
        sock.set_proxy(with_tls(proxy.network_proxy(), tls.client))
        await sock.connect_to_host("far.test", port)
        await sock.send_all(b"ping")

        assert await sock.receive_exactly(10) == b"early ping"
        assert not sock.is_encrypted()
        await sock.disconnect_from_host()
        nursery.cancel_scope.cancel()


async def test_a_chain_with_tls_to_each(
    network: Network, autojump_clock: trio.testing.MockClock, nursery: trio.Nursery, kind: ProxyKind, tls: Contexts
) -> None:
    """TLS over TLS over TLS."""
    async with echoing_by_tls(nursery, tls) as port, SslSocket(context=tls.client) as sock:
        first = await start(nursery, ProxyKind.HTTP, context=tls.server)
        second = await start(nursery, kind, context=tls.server)
        way = with_tls(first.network_proxy(), tls.client)
        sock.set_proxy(attrs.evolve(with_tls(second.network_proxy(), tls.client), via=way))
        await sock.connect_to_host_encrypted("peer.example", port)
        await sock.send_all(b"ping")

        assert await sock.receive_exactly(4) == b"ping"
        assert first.seen == [f"CONNECT peer.example:{second.network_proxy().port}"]
        nursery.cancel_scope.cancel()


async def test_a_proxy_whose_certificate_is_not_trusted_is_told_nothing(
    network: Network, autojump_clock: trio.testing.MockClock, nursery: trio.Nursery, kind: ProxyKind, tls: Contexts
) -> None:
    """Or is for another name: the password does not go there."""
    async with TcpSocket() as sock:
        proxy = await start(nursery, kind, context=tls.server, user="user", password="secret")
        for context, host in ((ssl.create_default_context(), "peer.example"), (tls.client, "far.test")):
            sock.set_proxy(with_tls(proxy.network_proxy(), context, host))
            error = await must_fail(sock, ErrorKind.SSL_HANDSHAKE_FAILED)
            assert f"no TLS with the {kind.name} proxy {host}" in str(error)

    assert proxy.seen == []
    nursery.cancel_scope.cancel()


@pytest.mark.parametrize(
    ("says", "error"),
    [
        (b"HTTP/1.1 400 Bad Request\r\n\r\n", ErrorKind.SSL_HANDSHAKE_FAILED),
        (b"", ErrorKind.PROXY_CONNECTION_CLOSED),
        (None, ErrorKind.PROXY_CONNECTION_TIMEOUT),
    ],
)
async def test_a_proxy_that_speaks_no_tls(
    network: Network,
    autojump_clock: trio.testing.MockClock,
    nursery: trio.Nursery,
    kind: ProxyKind,
    tls: Contexts,
    says: bytes | None,
    error: ErrorKind,
) -> None:
    async with TcpSocket() as sock:
        proxy = await start(nursery, kind, says=[says])
        sock.set_proxy(with_tls(proxy.network_proxy(), tls.client))
        await must_fail(sock, error)
    nursery.cancel_scope.cancel()


# ---- chains --------------------------------------------------------------------------------


@pytest.mark.parametrize("outer", KINDS, ids=lambda kind: kind.name)
async def test_a_proxy_behind_a_proxy(
    network: Network, autojump_clock: trio.testing.MockClock, nursery: trio.Nursery, kind: ProxyKind, outer: ProxyKind
) -> None:
    """Each is asked for the next, with passwords of their own."""
    async with echoing(nursery) as port, TcpSocket() as sock:
        first = await start(nursery, outer, user="one", password="1", piece=3)
        second = await start(nursery, kind, user="two", password="2", early=b"early")
        there = second.network_proxy("", "")
        sock.set_proxy(NetworkProxy(kind, "far.test", there.port, via=first.network_proxy()))
        sock.set_proxy_authenticator(knows("two", "2"))
        await sock.connect_to_host("far.test", port)
        await sock.send_all(b"ping")

        assert await sock.receive_exactly(9) == b"earlyping"
        assert f"CONNECT far.test:{there.port}" in first.seen
        assert second.seen[-1] == "name and password" if kind is ProxyKind.HTTP else f"CONNECT far.test:{port}"
        nursery.cancel_scope.cancel()


async def test_the_longest_chain_carries(
    network: Network, autojump_clock: trio.testing.MockClock, nursery: trio.Nursery, kind: ProxyKind
) -> None:
    """Sixteen times the same proxy, which reaches itself."""
    async with echoing(nursery) as port, TcpSocket() as sock:
        proxy = await start(nursery, kind)
        chain = proxy.network_proxy()
        for _ in range(LONGEST_CHAIN - 1):
            chain = attrs.evolve(proxy.network_proxy(), via=chain)
        sock.set_proxy(chain)
        await sock.connect_to_host("far.test", port)
        await sock.send_all(b"ping")

        assert await sock.receive_exactly(4) == b"ping"
        assert len([seen for seen in proxy.seen if seen.startswith("CONNECT")]) == LONGEST_CHAIN
        nursery.cancel_scope.cancel()


async def test_the_way_to_a_proxy_is_looked_up_here_if_the_first_one_is_not_to(
    network: Network, autojump_clock: trio.testing.MockClock, nursery: trio.Nursery, kind: ProxyKind
) -> None:
    async with echoing(nursery) as port, TcpSocket() as sock:
        first, second = await start(nursery, kind), await start(nursery, kind)
        way = first.network_proxy()
        way = NetworkProxy(kind, way.host, way.port, looks_up_names=False)
        sock.set_proxy(NetworkProxy(kind, "far.test", second.network_proxy().port, via=way))
        await sock.connect_to_host("far.test", port)

        assert first.seen[-1] == f"CONNECT 127.0.0.1:{second.network_proxy().port}"
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize(
    ("host", "error"),
    [("unknown.test", ErrorKind.PROXY_NOT_FOUND), ("127.0.0.1", ErrorKind.PROXY_CONNECTION_REFUSED)],
)
async def test_a_second_proxy_that_the_first_cannot_reach_is_the_proxys_trouble(
    network: Network,
    autojump_clock: trio.testing.MockClock,
    nursery: trio.Nursery,
    kind: ProxyKind,
    host: str,
    error: ErrorKind,
) -> None:
    """Not the host's, which nobody has asked for yet."""
    async with TcpSocket() as sock:
        first = await start(nursery, kind)
        second = NetworkProxy(ProxyKind.SOCKS5, host, await network.unused_port(), via=first.network_proxy())
        sock.set_proxy(second)
        await must_fail(sock, error)
        nursery.cancel_scope.cancel()
