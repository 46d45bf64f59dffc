"""A socket that speaks TLS, from the start or later: what it tells, what it negotiates, how it ends."""

from __future__ import annotations

import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import partial

import pytest
import trio
import trio.testing

from tests.certificates import Contexts
from tests.networks import Network, RawPeer, TlsPeer
from tests.sockets.arrivals import until
from trioqt import (
    Connected,
    Disconnected,
    Encrypted,
    ErrorKind,
    ErrorOccurred,
    HostFound,
    ModeChanged,
    ReadChannelFinished,
    SocketError,
    SocketState,
    SslErrorKind,
    SslErrors,
    SslMode,
    SslSocket,
    StateChanged,
)

NAME = "peer.example"
GREETING = b"220 ready\r\n"


@asynccontextmanager
async def encrypted(
    network: Network, tls: Contexts, *, server: ssl.SSLContext | None = None, **options: bool
) -> AsyncIterator[tuple[SslSocket, TlsPeer]]:
    """A client of ours, encrypted, and the standard library's server at its other end."""
    async with SslSocket(context=tls.client, **options) as sock:  # type: ignore[arg-type]
        sock, peer = await connect_pair(network, sock, tls.server if server is None else server)
        with peer:
            yield sock, peer
            sock.abort()


async def connect_pair(network: Network, sock: SslSocket, context: ssl.SSLContext) -> tuple[SslSocket, TlsPeer]:
    peers: list[TlsPeer] = []
    with await network.raw_listener() as listener:

        async def accept() -> None:
            peers.append(await TlsPeer.over(await listener.accept(), context, server_side=True))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(accept)
            await sock.connect_to_host_encrypted(network.host, listener.port, server_hostname=NAME)
    return sock, peers[0]


def only(tls: Contexts, version: ssl.TLSVersion) -> ssl.SSLContext:
    """The server's context, a copy as far as it can be, for one version."""
    context = tls.new_server()
    context.minimum_version = context.maximum_version = version
    return context


async def refusal(call: Callable[[], Awaitable[object]]) -> tuple[ErrorKind, str]:
    """How the SocketError that ``call`` ends with describes itself."""
    with pytest.raises(SocketError) as refused:
        await call()
    return refused.value.kind, refused.value.message


# ---- becoming encrypted ------------------------------------------------------------------------


async def test_a_client_tells_the_steps_in_qts_order(network: Network, tls: Contexts) -> None:
    """The mode changes between the state and ``Connected``; what was negotiated is known until the next connection."""
    sock = SslSocket(context=tls.client)
    async with sock.events() as events, sock:
        before = (sock.mode(), sock.is_encrypted(), sock.session_protocol(), sock.session_cipher())
        _, peer = await connect_pair(network, sock, tls.server)
        during = (sock.mode(), sock.is_encrypted(), sock.session_protocol())
        cipher, certificate, chain = sock.session_cipher(), sock.peer_certificate(), sock.peer_certificate_chain()
        with peer:
            await sock.disconnect_from_host()
        after = (sock.mode(), sock.is_encrypted(), sock.session_protocol())
    seen = [event async for event in events]

    assert seen == [
        StateChanged(SocketState.HOST_LOOKUP),
        StateChanged(SocketState.CONNECTING),
        HostFound(),
        StateChanged(SocketState.CONNECTED),
        ModeChanged(SslMode.CLIENT),
        Connected(),
        Encrypted(),
        StateChanged(SocketState.CLOSING),
        StateChanged(SocketState.UNCONNECTED),
        ReadChannelFinished(),
        Disconnected(),
    ]
    assert before == (SslMode.UNENCRYPTED, False, None, None)
    assert during == (SslMode.CLIENT, True, "TLSv1.3")
    assert after == (SslMode.CLIENT, False, "TLSv1.3")
    assert cipher is not None
    assert cipher[1] == "TLSv1.3"
    assert chain[0] == certificate


async def test_what_is_written_before_the_handshake_goes_out_encrypted(network: Network, tls: Contexts) -> None:
    """While connecting, and while it shakes hands; nothing of it is seen by who listens on the wire."""
    with await network.raw_listener() as listener:
        async with SslSocket(context=tls.client) as sock, trio.open_nursery() as nursery:
            await nursery.start(
                partial(sock.connect_to_host_encrypted, server_hostname=NAME), network.host, listener.port
            )
            sock.write(b"secret one ")
            raw = await listener.accept()
            await sock.wait_for_connected()
            sock.write(b"secret two")
            queued = sock.bytes_to_write()
            await trio.testing.wait_all_tasks_blocked()
            hello = raw.receive_now(65536)
            unread = sock.read_all()
            peer = await TlsPeer.over(raw, tls.server, server_side=True, arrived=hello)
            with peer:
                assert await peer.receive(21) == b"secret one secret two"
                sock.abort()

    assert queued == 21
    assert b"secret" not in hello
    assert unread == b""


async def test_waiting_for_encryption(network: Network, tls: Contexts) -> None:
    """From another task: through look-up, connecting and the handshake; at once when it is done; else a mistake."""
    async with SslSocket(context=tls.client) as sock, trio.open_nursery() as nursery:
        idle = await refusal(sock.wait_for_encrypted)
        waited = []

        async def wait() -> None:
            await until(lambda: sock.state() is not SocketState.UNCONNECTED)
            await sock.wait_for_encrypted()
            waited.append(sock.is_encrypted())

        nursery.start_soon(wait)
        _, peer = await connect_pair(network, sock, tls.server)
        await sock.wait_for_encrypted()
        with peer:
            await trio.testing.wait_all_tasks_blocked()
            sock.abort()

    assert idle[0] is ErrorKind.OPERATION
    assert waited == [True]


async def test_a_cancelled_handshake_leaves_nothing(network: Network, tls: Contexts) -> None:
    """The peer sees the end, and the socket can connect anew."""
    async with SslSocket(context=tls.client) as sock:
        with await network.raw_listener() as listener:
            with trio.CancelScope() as scope:
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(
                        partial(sock.connect_to_host_encrypted, server_hostname=NAME), network.host, listener.port
                    )
                    with await listener.accept() as raw:
                        await sock.wait_for_connected()
                        scope.cancel()
                        with trio.CancelScope(shield=True):
                            await until(lambda: sock.state() is SocketState.UNCONNECTED)
                            await raw.receive_to_end()
        _, peer = await connect_pair(network, sock, tls.server)
        with peer:
            assert sock.is_encrypted()
            sock.abort()


async def test_a_plain_connection_after_an_encrypted_one_is_plain(network: Network, tls: Contexts) -> None:
    """Nothing of TLS is left."""
    async with SslSocket(context=tls.client) as sock:
        _, peer = await connect_pair(network, sock, tls.server)
        with peer:
            sock.abort()
        with await network.raw_listener() as listener:
            await sock.connect_to_host(network.host, listener.port)
            with await listener.accept() as raw:
                sock.write(b"plain")
                got = await raw.receive(5)
                found = (sock.mode(), sock.is_encrypted(), sock.session_protocol(), sock.peer_certificate_chain())
                sock.abort()

    assert got == b"plain"
    assert found == (SslMode.UNENCRYPTED, False, None, ())


async def test_wrong_arguments_are_refused_before_anything_is_touched(network: Network, tls: Contexts) -> None:
    """No name where one is checked, a name that is none, a context that is none."""
    for bad, error in ((5, TypeError), ("", ValueError), (".a", ValueError), ("a\0b", ValueError)):
        async with SslSocket(context=tls.client) as sock:
            with pytest.raises(error):
                await sock.connect_to_host_encrypted(network.host, 1, server_hostname=bad)  # type: ignore[arg-type]
            assert sock.state() is SocketState.UNCONNECTED
    async with SslSocket(context=tls.server) as sock:
        with pytest.raises(ValueError, match="a client needs a context for clients"):
            await sock.connect_to_host_encrypted(network.host, 1, server_hostname=NAME)
        assert sock.state() is SocketState.UNCONNECTED
    async with SslSocket(context=tls.client) as sock:
        with pytest.raises(ValueError, match="a server needs a context for servers"):
            await sock.start_server_encryption()
    with pytest.raises(TypeError):
        SslSocket(context="context")  # type: ignore[arg-type]
    async with SslSocket() as sock:
        assert await refusal(sock.start_server_encryption) == (
            ErrorKind.SSL_INVALID_USER_DATA,
            "cannot begin TLS: a server needs a context",
        )
        assert (await refusal(partial(sock.start_client_encryption, server_hostname=NAME)))[0] is ErrorKind.OPERATION


# ---- a handshake that fails --------------------------------------------------------------------


async def failure(network: Network, tls: Contexts, script: Callable[[RawPeer], Awaitable[None]]) -> list[object]:
    """What a client tells that meets a peer of that script."""
    sock = SslSocket(context=tls.client)
    async with sock.events() as events, sock:
        with await network.raw_listener() as listener:
            async with trio.open_nursery() as nursery:

                @nursery.start_soon
                async def _() -> None:
                    with await listener.accept() as raw:
                        await raw.sock.recv(65536)
                        await script(raw)

                kind, message = await refusal(
                    partial(sock.connect_to_host_encrypted, network.host, listener.port, server_hostname=NAME)
                )
        assert (sock.error(), sock.error_string()) == (kind, message)
    told = [event async for event in events]
    return [kind, message, *told[told.index(Connected()) + 1 :]]


async def test_a_peer_that_speaks_no_tls_is_a_protocol_failure(network: Network, tls: Contexts) -> None:
    """Found as by a write: no CLOSING, as in Qt; and the message says what is the matter."""
    message = "the TLS handshake failed: the peer does not speak TLS"

    found = await failure(network, tls, lambda raw: raw.send(b"HTTP/1.0 400 Bad Request\r\n\r\n"))

    assert found == [
        ErrorKind.SSL_HANDSHAKE_FAILED,
        message,
        ErrorOccurred(ErrorKind.SSL_HANDSHAKE_FAILED, message),
        StateChanged(SocketState.UNCONNECTED),
        ReadChannelFinished(),
        Disconnected(),
    ]


def alert(level: int, what: int) -> bytes:
    """A record with an alert, RFC 8446 section 6."""
    return bytes([21, 3, 3, 0, 2, level, what])


@pytest.mark.parametrize(
    ("what", "message"),
    [
        (40, "the peer refuses the handshake: no cipher in common, or no certificate"),
        (47, "the peer says: illegal parameter"),
        (49, "the peer says: access denied"),
        (80, "the peer says: internal error"),
        (109, "the peer says: missing extension"),
        (110, "the peer says: unsupported extension"),
        (115, "the peer says: unknown psk identity"),
        (120, "the peer speaks none of the protocols that were offered (ALPN)"),
        (255, "TLS failed: unknown error"),
    ],
)
async def test_what_the_peer_says_in_an_alert_is_told(network: Network, tls: Contexts, what: int, message: str) -> None:
    """In words, also where Python has no name for it."""
    found = await failure(network, tls, lambda raw: raw.send(alert(2, what)))

    assert found[:2] == [ErrorKind.SSL_HANDSHAKE_FAILED, f"the TLS handshake failed: {message}"]


@pytest.mark.parametrize("how", ["end", "close_notify"])
async def test_a_peer_that_closes_in_the_handshake_has_closed(network: Network, tls: Contexts, how: str) -> None:
    """REMOTE_HOST_CLOSED and the ordinary sequence, as in Qt."""
    message = "the TLS handshake failed: the peer ended the connection during the TLS handshake"

    async def finish(raw: RawPeer) -> None:
        if how == "close_notify":
            await raw.send(alert(1, 0))
            await raw.receive_to_end()
        raw.finish()

    found = await failure(network, tls, finish)

    assert found == [
        ErrorKind.REMOTE_HOST_CLOSED,
        message,
        ErrorOccurred(ErrorKind.REMOTE_HOST_CLOSED, message),
        StateChanged(SocketState.CLOSING),
        StateChanged(SocketState.UNCONNECTED),
        ReadChannelFinished(),
        Disconnected(),
    ]


async def test_a_bad_certificate_is_told_before_the_failure(network: Network, tls: Contexts) -> None:
    """``SslErrors``, then the failure with CLOSING, as in Qt; and the peer is told by an alert."""
    sock = SslSocket()  # which trusts the system's authorities
    alerts = []
    async with sock.events() as events, sock:
        with await network.raw_listener() as listener:
            async with trio.open_nursery() as nursery:

                @nursery.start_soon
                async def _() -> None:
                    raw = await listener.accept()
                    with raw, pytest.raises(ssl.SSLError) as refused:
                        await TlsPeer.over(raw, tls.server, server_side=True)
                    alerts.append(refused.value.reason)

                kind, message = await refusal(
                    partial(sock.connect_to_host_encrypted, network.host, listener.port, server_hostname=NAME)
                )
        found = sock.ssl_handshake_errors()
    told = [event async for event in events]

    assert kind is ErrorKind.SSL_HANDSHAKE_FAILED
    assert message.startswith("the TLS handshake failed: the peer's certificate is refused: ")
    assert found[0].kind is SslErrorKind.UNABLE_TO_GET_LOCAL_ISSUER_CERTIFICATE
    assert told[told.index(Connected()) + 1 :] == [
        SslErrors(found),
        ErrorOccurred(kind, message),
        StateChanged(SocketState.CLOSING),
        StateChanged(SocketState.UNCONNECTED),
        ReadChannelFinished(),
        Disconnected(),
    ]
    assert alerts == ["TLSV1_ALERT_UNKNOWN_CA"]


# ---- ends --------------------------------------------------------------------------------------


async def test_a_truncated_stream_is_told_apart_from_one_that_has_ended(network: Network, tls: Contexts) -> None:
    """Behind what arrived: ``b""`` for a close_notify, REMOTE_HOST_CLOSED for a bare end of TCP, again and again."""
    async with encrypted(network, tls) as (sock, peer):
        await peer.send(b"whole")
        peer.finish()
        whole = [await sock.receive_exactly(5), await sock.receive_some(), await sock.receive_some()]
    async with encrypted(network, tls) as (sock, peer):
        await peer.send(b"part")
        RawPeer.finish(peer)
        part = await sock.receive_exactly(4)
        truncated = [await refusal(sock.receive_some) for _ in range(2)]

    assert whole == [b"whole", b"", b""]
    assert part == b"part"
    message = "the connection was lost: the peer ended without a close_notify: the stream may be cut short"
    assert truncated == [(ErrorKind.REMOTE_HOST_CLOSED, message)] * 2


async def test_a_context_may_say_that_truncation_is_an_end(network: Network, tls: Contexts) -> None:
    """Its option is the program's choice."""
    client = tls.new_client()
    client.options |= ssl.OP_IGNORE_UNEXPECTED_EOF
    async with encrypted(network, Contexts(client, tls.server, tls.authority)) as (sock, peer):
        RawPeer.finish(peer)

        assert await sock.receive_some() == b""


async def test_what_comes_behind_a_close_notify_is_dropped(network: Network, tls: Contexts) -> None:
    """Nobody can have meant it to be under TLS."""
    async with encrypted(network, tls) as (sock, peer):
        await peer.send(b"last")
        peer._say_close()
        await RawPeer.send(peer, b"injected")

        assert [await sock.receive_some(4), await sock.receive_some(), sock.read_all()] == [b"last", b"", b""]


async def test_a_half_close_of_tls_1_3_leaves_the_other_direction(network: Network, tls: Contexts) -> None:
    """The peer reads to the end and answers after that."""
    async with encrypted(network, tls) as (sock, peer):
        await sock.send_all(b"question")
        await sock.send_eof()
        question = await peer.receive_to_end()
        await peer.send(b"answer")
        peer.finish()

        assert question == b"question"
        assert [await sock.receive_exactly(6), await sock.receive_some()] == [b"answer", b""]


async def test_before_tls_1_3_there_is_no_half_close(network: Network, tls: Contexts) -> None:
    """It is refused, and everything goes on."""
    async with encrypted(network, tls, server=only(tls, ssl.TLSVersion.TLSv1_2)) as (sock, peer):
        refused = await refusal(sock.send_eof)
        await sock.send_all(b"and on")

        message = "cannot finish sending: before TLS 1.3 a connection has no half-close"
        assert refused == (ErrorKind.UNSUPPORTED_SOCKET_OPERATION, message)
        assert await peer.receive(6) == b"and on"
        assert sock.session_protocol() == "TLSv1.2"


@asynccontextmanager
async def before_the_handshake(
    network: Network, tls: Contexts
) -> AsyncIterator[tuple[SslSocket, RawPeer, list[BaseException | None]]]:
    """A client of ours that is CONNECTED, its peer that has not begun TLS, and how the client's attempt ended."""
    ended: list[BaseException | None] = []

    async def connect(sock: SslSocket, port: int) -> None:
        try:
            await sock.connect_to_host_encrypted(network.host, port, server_hostname=NAME)
        except (SocketError, trio.ClosedResourceError) as error:
            ended.append(error)
        else:
            ended.append(None)

    async with trio.open_nursery() as nursery, SslSocket(context=tls.client) as sock:
        with await network.raw_listener() as listener:
            nursery.start_soon(connect, sock, listener.port)
            peer = await listener.accept()
        with peer:
            await until(lambda: sock.state() is SocketState.CONNECTED)
            yield sock, peer, ended
            sock.abort()


@pytest.mark.parametrize("queued", [b"", b"question"])
@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
async def test_finishing_waits_for_the_handshake(
    network: Network, tls: Contexts, version: ssl.TLSVersion, queued: bytes
) -> None:
    """Before it nobody knows if there is a half-close; then it is done, or refused and everything goes on."""
    async with before_the_handshake(network, tls) as (sock, raw, _), trio.open_nursery() as nursery:
        refused: list[tuple[ErrorKind, str]] = []
        sock.write(queued)

        async def finish() -> None:
            try:
                await sock.send_eof()
            except SocketError as error:
                refused.append((error.kind, error.message))

        nursery.start_soon(finish)
        await trio.testing.wait_all_tasks_blocked()
        early = list(refused)
        peer = await TlsPeer.over(raw, only(tls, version), server_side=True)
        if version is ssl.TLSVersion.TLSv1_3:
            question = await peer.receive_to_end()
        else:
            await until(lambda: bool(refused))
            await sock.send_all(b".")
            question = (await peer.receive(len(queued) + 1))[:-1]
        await peer.send(b"answer")
        answer = await sock.receive_exactly(6)

    message = "cannot finish sending: before TLS 1.3 a connection has no half-close"
    no_half_close = [] if version is ssl.TLSVersion.TLSv1_3 else [(ErrorKind.UNSUPPORTED_SOCKET_OPERATION, message)]
    assert (early, refused) == ([], no_half_close)
    assert (question, answer) == (queued, b"answer")


@pytest.mark.parametrize("how", ["garbage", "the peer closes", "abort", "cancelled"])
async def test_finishing_hears_what_becomes_of_the_handshake(network: Network, tls: Contexts, how: str) -> None:
    """What it failed with, or that it was ended here; and a cancelled call has not finished sending."""
    async with before_the_handshake(network, tls) as (sock, peer, ended):
        with trio.CancelScope() as scope:
            async with trio.open_nursery() as nursery:
                outcomes: list[object] = []

                async def finish() -> None:
                    try:
                        await sock.send_eof()
                    except SocketError as error:
                        outcomes.append(error.kind)
                    except trio.ClosedResourceError:
                        outcomes.append("closed")

                nursery.start_soon(finish)
                await trio.testing.wait_all_tasks_blocked()
                match how:
                    case "garbage":
                        await peer.send(b"HTTP/1.1 400 Bad Request\r\n\r\n")
                    case "the peer closes":
                        peer.close()
                    case "abort":
                        sock.abort()
                    case _:
                        scope.cancel()
        if how == "cancelled":
            secure = await TlsPeer.over(peer, tls.server, server_side=True)
            await sock.send_all(b"still here")
            assert await secure.receive(10) == b"still here"
        else:
            await until(lambda: bool(ended))

    expected: dict[str, list[object]] = {
        "garbage": [ErrorKind.SSL_HANDSHAKE_FAILED],
        "the peer closes": [ErrorKind.REMOTE_HOST_CLOSED],
        "abort": ["closed"],
        "cancelled": [],
    }
    assert (outcomes, scope.cancelled_caught) == (expected[how], how == "cancelled")


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
@pytest.mark.parametrize("ending", ["disconnect_from_host", "aclose", "half_open=False"])
async def test_every_orderly_end_says_close_notify(
    network: Network, tls: Contexts, version: ssl.TLSVersion, ending: str
) -> None:
    """Behind all that was written."""
    options = {"half_open": False} if ending == "half_open=False" else {}
    async with encrypted(network, tls, server=only(tls, version), **options) as (sock, peer):
        sock.write(b"last words")
        if options:
            peer._say_close()
            await sock.wait_for_disconnected()
        else:
            await getattr(sock, ending)()
        got = await peer.receive(10)

        with pytest.raises(ssl.SSLZeroReturnError):  # and not SSLEOFError
            peer.incoming.write(await peer.sock.recv(65536))
            while peer.tls.read(1):
                pass
            raise ssl.SSLZeroReturnError
        assert got == b"last words"


async def test_an_abort_says_nothing(network: Network, tls: Contexts) -> None:
    """So to the peer it is a truncation."""
    async with encrypted(network, tls) as (sock, peer):
        sock.abort()

        assert await RawPeer.receive_to_end(peer) == b""


# ---- records -----------------------------------------------------------------------------------


async def test_records_in_single_bytes_arrive_whole(network: Network, tls: Contexts) -> None:
    """A peer that sends its ciphertext byte by byte; and one that sends thousands of tiny records."""
    data = bytes(range(256)) * 8
    async with encrypted(network, tls) as (sock, peer):
        async with trio.open_nursery() as nursery:

            @nursery.start_soon
            async def _() -> None:
                peer.tls.write(data)
                for byte in peer.outgoing.read():
                    await RawPeer.send(peer, bytes([byte]))
                for byte in data:
                    await peer.send(bytes([byte]))

            got = await sock.receive_exactly(2 * len(data))

        assert got == data * 2


async def test_alpn_and_sni_choose(network: Network, tls: Contexts) -> None:
    """A server chooses its context by the name it is asked for, and both agree on a protocol."""
    asked = []
    server = tls.new_server()
    server.set_alpn_protocols(["two", "one"])

    def choose(channel: ssl.SSLObject, name: str, context: ssl.SSLContext) -> None:
        asked.append(name)

    server.sni_callback = choose
    client = tls.new_client()
    client.set_alpn_protocols(["one", "three"])
    async with encrypted(network, Contexts(client, server, tls.authority)) as (sock, _):
        assert sock.selected_alpn_protocol() == "one"
        assert asked == [NAME]


async def test_a_name_may_end_with_a_dot(network: Network, tls: Contexts) -> None:
    """It says that the name is whole; no certificate has it, and nobody is asked for it (RFC 6066, section 3)."""
    asked = []
    server = tls.new_server()

    def note(channel: ssl.SSLObject, name: str, context: ssl.SSLContext) -> None:
        asked.append(name)

    server.sni_callback = note
    with await network.raw_listener() as listener:
        async with trio.open_nursery() as nursery, SslSocket(context=tls.client) as sock:

            @nursery.start_soon
            async def _() -> None:
                (await TlsPeer.over(await listener.accept(), server, server_side=True)).close()

            await sock.connect_to_host_encrypted(network.host, listener.port, server_hostname=NAME + ".")
            assert sock.is_encrypted()

    assert asked == [NAME]


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
async def test_a_session_saves_a_part_of_the_handshake(
    network: Network, tls: Contexts, version: ssl.TLSVersion
) -> None:
    """For the same name and with the same context only."""
    server = only(tls, version)
    reused = []
    async with encrypted(network, tls, server=server) as (sock, peer):
        await peer.send(b"x")
        await sock.receive_exactly(1)
        session = sock.session()
    assert session is not None
    for context in (tls.client, tls.new_client()):
        async with SslSocket(context=context) as again:
            again.set_session(session)
            _, other = await connect_pair(network, again, server)
            with other:
                reused.append(again.is_session_reused())
                again.abort()

    assert reused == [True, False]


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
async def test_a_session_of_a_server_that_was_not_checked_does_not_stand_for_a_check(
    network: Network, tls: Contexts, version: ssl.TLSVersion
) -> None:
    """Who goes on with a session does not look at the certificate again; so one that nobody looked at is of no use."""
    server = only(tls, version)
    context = ssl.create_default_context()  # which does not know who issued the certificate
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    async with SslSocket(context=context) as sock:
        _, peer = await connect_pair(network, sock, server)
        await peer.send(b"x")
        await sock.receive_exactly(1)
        session = sock.session()
        peer.sock.close()
        sock.abort()
    context.verify_mode = ssl.CERT_REQUIRED

    async with SslSocket(context=context) as again, trio.open_nursery() as nursery:
        again.set_session(session)
        with await network.raw_listener() as listener:

            @nursery.start_soon
            async def _() -> None:
                with await listener.accept() as raw, pytest.raises(ssl.SSLError, match="UNKNOWN_CA"):
                    await TlsPeer.over(raw, server, server_side=True)

            refused = await refusal(
                partial(again.connect_to_host_encrypted, network.host, listener.port, server_hostname=NAME)
            )

    assert session is not None
    assert refused[0] is ErrorKind.SSL_HANDSHAKE_FAILED


async def test_channel_binding_is_the_same_at_both_ends(network: Network, tls: Contexts) -> None:
    """Of TLS 1.2; TLS 1.3 has no tls-unique."""
    async with encrypted(network, tls, server=only(tls, ssl.TLSVersion.TLSv1_2)) as (sock, peer):
        ours, theirs = sock.channel_binding(), peer.tls.get_channel_binding("tls-unique")
    async with encrypted(network, tls) as (sock, _):
        with pytest.raises(SocketError) as refused:
            sock.channel_binding()
        with pytest.raises(ValueError):
            sock.channel_binding("no such kind")

    assert ours is not None
    assert ours == theirs
    assert refused.value.kind is ErrorKind.UNSUPPORTED_SOCKET_OPERATION


# ---- STARTTLS ----------------------------------------------------------------------------------


@asynccontextmanager
async def plain(
    network: Network, tls: Contexts, *, watched: bool = False, context: ssl.SSLContext | None = None
) -> AsyncIterator[tuple[SslSocket, RawPeer]]:
    """A client of ours, connected, and a scripted peer."""
    async with SslSocket(context=context or tls.client) as sock:
        with await network.raw_listener() as listener:
            await sock.connect_to_host(network.host, listener.port)
            raw = await listener.accept()
        with raw:
            if watched:
                async with sock.events():
                    yield sock, raw
            else:
                yield sock, raw
            sock.abort()


watched_or_not = pytest.mark.parametrize("watched", [False, True])


@watched_or_not
async def test_a_client_begins_tls_under_way(network: Network, tls: Contexts, watched: bool) -> None:
    """What is queued goes first, in plain; from then on nothing is plain."""
    async with plain(network, tls, watched=watched) as (sock, raw):
        await raw.send(GREETING)
        greeting = await sock.receive_line()
        big = bytes(3_000_000)
        sock.write(big + b"STARTTLS\r\n")
        peers = []
        async with trio.open_nursery() as nursery:

            @nursery.start_soon
            async def _() -> None:
                assert await raw.receive(len(big) + 10) == big + b"STARTTLS\r\n"
                peers.append(await TlsPeer.over(raw, tls.server, server_side=True))

            await sock.start_client_encryption(server_hostname=NAME)
        sock.write(b"secret")

        assert greeting == GREETING
        assert (await peers[0].receive(6), sock.is_encrypted(), sock.mode()) == (b"secret", True, SslMode.CLIENT)
        await peers[0].send(b"answer\n")
        assert await sock.receive_line() == b"answer\n"
        again = await refusal(partial(sock.start_client_encryption, server_hostname=NAME))
        assert again == (ErrorKind.OPERATION, "cannot begin TLS: the connection speaks it already")


@watched_or_not
async def test_a_server_begins_tls_under_way(network: Network, tls: Contexts, watched: bool) -> None:
    """The client may be fast: its hello may have come, and been read ahead, before the call."""
    with await network.raw_listener() as listener:
        raw = await network.raw_connect(listener.port)
        accepted = await listener.accept()
        async with server_socket(accepted, tls) as sock, trio.open_nursery() as nursery:
            async with sock.events() if watched else nothing():
                await raw.send(b"STARTTLS\r\n")
                assert await sock.receive_line() == b"STARTTLS\r\n"
                peers = []

                @nursery.start_soon
                async def _() -> None:
                    peers.append(await TlsPeer.over(raw, tls.client, server_side=False, server_hostname="peer.example"))

                await trio.testing.wait_all_tasks_blocked()  # the hello is here
                await sock.start_server_encryption()
                await sock.send_all(b"welcome")
                await until(lambda: bool(peers))

                assert (await peers[0].receive(7), sock.mode()) == (b"welcome", SslMode.SERVER)
                sock.abort()
        raw.close()


@watched_or_not
async def test_a_client_that_speaks_something_else_meanwhile_fails_the_handshake(
    network: Network, tls: Contexts, watched: bool
) -> None:
    """What it has said behind its STARTTLS is taken for its hello, read ahead or not: a watched server used to refuse
    to begin, and an unwatched one failed."""
    with await network.raw_listener() as listener, await network.raw_connect(listener.port) as raw:
        accepted = await listener.accept()
        async with server_socket(accepted, tls) as sock, sock.events() if watched else nothing():
            await raw.send(b"STARTTLS\r\n")
            assert await sock.receive_line() == b"STARTTLS\r\n"
            await raw.send(b"GET / HTTP/1.0\r\n\r\n")
            await trio.testing.wait_all_tasks_blocked()
            refused = await refusal(sock.start_server_encryption)

            assert refused == (
                ErrorKind.SSL_HANDSHAKE_FAILED,
                "the TLS handshake failed: the peer speaks plain HTTP, not TLS",
            )
            assert (sock.read_all(), sock.state()) == (b"", SocketState.UNCONNECTED)


@watched_or_not
async def test_a_server_refuses_what_was_slipped_in_behind_starttls(
    network: Network, tls: Contexts, watched: bool
) -> None:
    """In the same piece: it must not be taken for what the client says under TLS.  It stays readable, and plain."""
    with await network.raw_listener() as listener, await network.raw_connect(listener.port) as raw:
        accepted = await listener.accept()
        async with server_socket(accepted, tls) as sock, sock.events() if watched else nothing():
            await raw.send(b"STARTTLS\r\nRCPT TO:<evil>\r\n")
            assert await sock.receive_line() == b"STARTTLS\r\n"
            await trio.testing.wait_all_tasks_blocked()
            refused = await refusal(sock.start_server_encryption)

            assert refused == (ErrorKind.OPERATION, "cannot begin TLS: 16 plain bytes are unread")
            assert (await sock.receive_line(), sock.mode()) == (b"RCPT TO:<evil>\r\n", SslMode.UNENCRYPTED)
            sock.abort()


@asynccontextmanager
async def nothing() -> AsyncIterator[None]:
    yield


@asynccontextmanager
async def server_socket(accepted: RawPeer, tls: Contexts) -> AsyncIterator[SslSocket]:
    async with SslSocket.from_stream(trio.SocketStream(accepted.sock), context=tls.server) as sock:
        yield sock


@watched_or_not
async def test_plain_bytes_that_are_unread_are_refused(network: Network, tls: Contexts, watched: bool) -> None:
    """Whoever slipped them in wants them to be taken for what came under TLS.  They stay readable, and plain."""
    async with plain(network, tls, watched=watched) as (sock, raw):
        await raw.send(b"220 go ahead\r\n250 injected\r\n")
        line = await sock.receive_line()
        refused = await refusal(partial(sock.start_client_encryption, server_hostname=NAME))
        sock.write(b"QUIT\r\n")

        assert line == b"220 go ahead\r\n"
        assert refused == (ErrorKind.OPERATION, "cannot begin TLS: 14 plain bytes are unread")
        assert (await sock.receive_line(), sock.is_encrypted(), sock.mode()) == (
            b"250 injected\r\n",
            False,
            SslMode.UNENCRYPTED,
        )
        assert await raw.receive(6) == b"QUIT\r\n"


@pytest.mark.parametrize("side", ["client", "server"])
async def test_a_transaction_that_may_bring_back_plain_bytes_is_to_be_ended_first(
    network: Network, tls: Contexts, side: str
) -> None:
    """They would lie in front of what came under TLS, and look as that; so would a client's first message."""
    context = tls.client if side == "client" else tls.server
    async with plain(network, tls, watched=side == "server", context=context) as (sock, raw):
        start = partial(sock.start_client_encryption, server_hostname=NAME)
        await raw.send(b"220 go ahead\r\n")
        with pytest.raises(LookupError):
            async with sock.transaction():
                line = await sock.receive_line()
                refused = await refusal(start if side == "client" else sock.start_server_encryption)
                raise LookupError
        again = await sock.receive_line()

    assert line == again == b"220 go ahead\r\n"
    assert refused == (ErrorKind.OPERATION, "cannot begin TLS in a transaction")


@watched_or_not
async def test_what_the_system_still_holds_is_unread_too(network: Network, tls: Contexts, watched: bool) -> None:
    """To a client nothing comes before its own hello, whether a call has asked for it or not."""
    async with plain(network, tls, watched=watched) as (sock, raw):
        await raw.send(GREETING)
        await until(lambda: sock.bytes_available() == len(GREETING)) if watched else None
        await trio.testing.wait_all_tasks_blocked()

        refused = await refusal(partial(sock.start_client_encryption, server_hostname=NAME))

        assert refused[0] is ErrorKind.OPERATION
        assert sock.read_all() == GREETING


async def test_tls_begins_while_nobody_else_uses_the_socket(network: Network, tls: Contexts) -> None:
    """A task that receives would get ciphertext."""
    async with plain(network, tls) as (sock, raw), trio.open_nursery() as nursery:
        nursery.start_soon(sock.receive_some)
        await trio.testing.wait_all_tasks_blocked()
        with pytest.raises(trio.BusyResourceError):
            await sock.start_client_encryption(server_hostname=NAME)
        await raw.send(b"plain")
