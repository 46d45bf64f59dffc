"""A server whose handlers get encrypted sockets, and clients that behave badly: nobody else is held up."""

from __future__ import annotations

import logging
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial

import pytest
import trio
import trio.testing
import trustme

from tests.certificates import Contexts, contexts
from tests.networks import Network, RawPeer, TlsPeer, Virtual
from tests.sockets.arrivals import accept_queue, until
from trioqt import (
    ConnectionFinished,
    DrainReport,
    ErrorKind,
    Event,
    NewConnection,
    ReadChannelFinished,
    ReadyRead,
    SocketError,
    SslErrorKind,
    SslMode,
    SslServer,
    SslSocket,
    TcpSocket,
)
from trioqt.testing import VirtualNetwork

NAME = "peer.example"


async def echo(sock: SslSocket) -> None:
    """Say back whatever comes."""
    async for chunk in sock:
        await sock.send_all(chunk)


@asynccontextmanager
async def echoing(network: Network, server: SslServer[SslSocket]) -> AsyncIterator[SslServer[SslSocket]]:
    """That server at work."""
    async with server, trio.open_nursery() as nursery:
        await server.listen(network.host)
        await nursery.start(server.serve, echo)
        yield server
        nursery.cancel_scope.cancel()


async def connect(network: Network, server: SslServer[SslSocket], client: ssl.SSLContext) -> TlsPeer:
    raw = await network.raw_connect(server.server_port())
    try:
        return await TlsPeer.over(raw, client, server_side=False, server_hostname=NAME)
    except ssl.SSLError:
        raw.close()
        raise


async def answers(network: Network, server: SslServer[SslSocket], client: ssl.SSLContext) -> bool:
    """Does a client that behaves get its line back?"""
    with await connect(network, server, client) as peer:
        await peer.send(b"hello")
        answered = await peer.receive(5) == b"hello"
        peer.close()
        return answered


# ---- serving -----------------------------------------------------------------------------------


async def test_a_handler_gets_an_encrypted_socket(network: Network, tls: Contexts) -> None:
    """The handshake is done when it is called."""
    found: list[object] = []

    async def handler(sock: SslSocket) -> None:
        found.extend((type(sock), sock.is_encrypted(), sock.mode(), sock.session_protocol(), sock.peer_certificate()))

    async with SslServer(tls.server) as server, trio.open_nursery() as nursery:
        await server.listen(network.host)
        await nursery.start(server.serve, handler)
        with await connect(network, server, tls.client) as peer:
            assert await peer.receive_to_end() == b""
        nursery.cancel_scope.cancel()

    assert found == [SslSocket, True, SslMode.SERVER, "TLSv1.3", None]


async def test_a_connection_is_pending_once_it_is_encrypted(network: Network, tls: Contexts) -> None:
    """Without ``serve``: a silent client is never handed out, and holds up nobody."""
    async with SslServer(tls.server) as server, server.events(NewConnection) as events:
        await server.listen(network.host)
        with await network.raw_connect(server.server_port()):
            await until(lambda: server.connection_count() == 1)
            await trio.testing.wait_all_tasks_blocked()
            before = server.has_pending_connections()
            with await connect(network, server, tls.client) as peer:
                await anext(events)
                sock = await server.accept()
                sock.write(b"welcome")

                assert (before, sock.is_encrypted()) == (False, True)
                assert await peer.receive(7) == b"welcome"


@pytest.mark.parametrize("ending", ["stays", "leaves"])
@pytest.mark.parametrize("way", ["serve", "accept"])
async def test_what_comes_in_one_piece_with_the_end_of_the_handshake_is_told_and_nothing_of_before(
    network: Network, tls: Contexts, way: str, ending: str
) -> None:
    """A quick client sends, and may leave, before the server has seen that the handshake is done."""
    told: list[list[Event]] = []
    got: list[bytes] = []

    async def handler(sock: SslSocket) -> None:
        async with sock.events() as events:
            heard: list[Event] = []
            while not (heard and heard[-1] == (ReadyRead() if ending == "stays" else ReadChannelFinished())):
                heard.append(await anext(events))
        told.append(heard)
        got.append(sock.read_all())

    async with SslServer(tls.server) as server, trio.open_nursery() as nursery:
        await server.listen(network.host)
        if way == "serve":
            await nursery.start(server.serve, handler)
        raw = await network.raw_connect(server.server_port())
        incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        client = tls.client.wrap_bio(incoming, outgoing, server_hostname=NAME)
        with pytest.raises(ssl.SSLWantReadError):
            client.do_handshake()
        await raw.send(outgoing.read())
        while True:
            incoming.write(await raw.receive_some())
            try:
                client.do_handshake()
                break
            except ssl.SSLWantReadError:
                pass
        client.write(b"at once")
        if ending == "leaves":
            with pytest.raises(ssl.SSLWantReadError):
                client.unwrap()
        await raw.send(outgoing.read())
        if way == "accept":
            async with await server.accept() as sock:
                await handler(sock)
        await until(lambda: bool(got))
        raw.close()
        nursery.cancel_scope.cancel()

    assert told == [[ReadyRead(), *([ReadChannelFinished()] if ending == "leaves" else [])]]
    assert got == [b"at once"]


async def test_closing_the_server_ends_the_handshakes_of_pending_connections(network: Network, tls: Contexts) -> None:
    """As it ends pending connections."""
    async with SslServer(tls.server) as server:
        await server.listen(network.host)
        with await network.raw_connect(server.server_port()) as silent:
            await until(lambda: server.connection_count() == 1)
            await trio.testing.wait_all_tasks_blocked()
            server.close()

            assert await silent.receive_to_end() == b""
            assert server.connection_count() == 0


async def test_a_drain_gives_out_those_whose_handshake_still_runs(network: Network, tls: Contexts) -> None:
    """As those that are pending already.  They used to be left over: nobody could take them, and it waited in vain."""
    async with SslServer(tls.server, handshake_timeout=30) as server, trio.open_nursery() as nursery:
        await server.listen(network.host)
        silent, late = [await network.raw_connect(server.server_port()) for _ in range(2)]
        await until(lambda: server.connection_count() == 2)
        reports: list[DrainReport] = []

        @nursery.start_soon
        async def _() -> None:
            reports.append(await server.drain(60))

        await until(server.is_draining)
        nursery.start_soon(partial(TlsPeer.over, late, tls.client, server_side=False, server_hostname=NAME))
        sock = await server.accept()
        await sock.aclose()
        silent.close()
        with pytest.raises(trio.ClosedResourceError):
            await server.accept()
        await until(lambda: bool(reports))
        late.close()

    assert reports == [DrainReport(2, 0)]


async def test_a_renewed_certificate_needs_no_restart(network: Network, tls: Contexts) -> None:
    """For connections from then on; those that are there go on."""
    renewed = contexts(NAME)
    async with echoing(network, SslServer(tls.server)) as server:
        with await connect(network, server, tls.client) as early:
            server.set_context(renewed.server)
            with pytest.raises(ssl.SSLCertVerificationError):
                await connect(network, server, tls.client)
            late = await answers(network, server, renewed.client)
            await early.send(b"hello")

            assert late
            assert await early.receive(5) == b"hello"
        with pytest.raises(TypeError):
            server.set_context("context")  # type: ignore[arg-type]


async def test_a_server_chooses_its_context_by_the_name(network: Network, tls: Contexts) -> None:
    """By the context's own callback (SNI)."""
    other = contexts("other.example")
    front = tls.new_server()

    def choose(channel: ssl.SSLObject, name: str | None, context: ssl.SSLContext) -> None:
        if name == "other.example":
            channel.context = other.server

    front.sni_callback = choose
    async with echoing(network, SslServer(front)) as server:
        raw = await network.raw_connect(server.server_port())
        peer = await TlsPeer.over(raw, other.client, server_side=False, server_hostname="other.example")
        with peer:
            assert await answers(network, server, tls.client)


async def test_a_name_that_the_context_refuses_is_told_to_both_ends(network: Network, tls: Contexts) -> None:
    """By the alert that its callback gives back."""
    strict = tls.new_server()
    strict.sni_callback = lambda channel, name, context: ssl.ALERT_DESCRIPTION_UNRECOGNIZED_NAME
    async with SslServer(strict) as server, trio.open_nursery() as nursery, server.events(ConnectionFinished) as ends:
        await server.listen(network.host)
        await nursery.start(server.serve, echo)
        async with SslSocket(context=tls.client) as sock:
            with pytest.raises(SocketError) as refused:
                await sock.connect_to_host_encrypted(network.host, server.server_port(), server_hostname=NAME)
        error = (await anext(ends)).error
        nursery.cancel_scope.cancel()

    assert isinstance(error, SocketError)
    assert [error.message, refused.value.message] == [
        "the TLS handshake failed: the context's own callback refuses it, for the name that was asked for",
        "the TLS handshake failed: the peer does not know the name that was asked for",
    ]


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
async def test_a_client_without_its_certificate_is_refused(
    network: Network, tls: Contexts, version: ssl.TLSVersion
) -> None:
    """And one with it is not, and the handler knows whose it is."""
    assert tls.authority is not None
    server_context = tls.new_server()
    server_context.verify_mode = ssl.CERT_REQUIRED
    tls.authority.ca.configure_trust(server_context)
    whose = []

    async def handler(sock: SslSocket) -> None:
        whose.append(sock.peer_certificate())
        await echo(sock)

    async with SslServer(server_context) as server, trio.open_nursery() as nursery:
        async with server.events(ConnectionFinished) as endings:
            await server.listen(network.host)
            await nursery.start(server.serve, handler)
            results: list[object] = []
            for named in (False, True):
                client = tls.new_client()
                client.maximum_version = version
                if named:
                    tls.authority.ca.issue_cert("client@peer.example").configure_cert(client)
                async with SslSocket(context=client) as sock:
                    try:
                        await sock.connect_to_host_encrypted(network.host, server.server_port(), server_hostname=NAME)
                        await sock.send_all(b"hello")
                        results.append(await sock.receive_exactly(5))
                    except SocketError as exc:
                        results.append(exc.kind)
                if not named:
                    error = (await anext(endings)).error
        nursery.cancel_scope.cancel()

    assert results == [ErrorKind.SSL_HANDSHAKE_FAILED, b"hello"]
    assert isinstance(error, SocketError)
    assert error.message == "the TLS handshake failed: the peer has shown no certificate"
    assert [certificate is not None for certificate in whose] == [True]


async def shown_to(network: Network, server_context: ssl.SSLContext, client: ssl.SSLContext) -> tuple[bytes, ...]:
    """Which certificates of a client's its server sees."""
    seen: list[tuple[bytes, ...]] = []

    async def handler(sock: SslSocket) -> None:
        seen.append(sock.peer_certificate_chain())
        assert sock.peer_certificate() == next(iter(seen[-1]), None)
        await echo(sock)

    async with SslServer(server_context) as server, trio.open_nursery() as nursery:
        await server.listen(network.host)
        await nursery.start(server.serve, handler)
        async with SslSocket(context=client) as sock:
            await sock.connect_to_host_encrypted(network.host, server.server_port(), server_hostname=NAME)
            await sock.send_all(b"hello")
            assert await sock.receive_exactly(5) == b"hello"
        nursery.cancel_scope.cancel()
    return seen[0]


async def test_a_server_that_does_not_insist_takes_a_client_without_a_certificate(
    network: Network, tls: Contexts
) -> None:
    """CERT_OPTIONAL: with one it knows whose it is."""
    assert tls.authority is not None
    server_context, with_one = tls.new_server(), tls.new_client()
    server_context.verify_mode = ssl.CERT_OPTIONAL
    tls.authority.ca.configure_trust(server_context)
    certificate = tls.authority.ca.issue_cert("client@peer.example")
    certificate.configure_cert(with_one)

    assert await shown_to(network, server_context, tls.client) == ()
    shown = await shown_to(network, server_context, with_one)
    pems = [ssl.DER_cert_to_PEM_cert(one).encode() for one in shown]
    assert pems == [certificate.cert_chain_pems[0].bytes(), tls.authority.ca.cert_pem.bytes()]  # whom it trusts, too


async def test_a_server_that_does_not_ask_sees_no_certificate(network: Network, tls: Contexts) -> None:
    """The client keeps to itself what nobody has asked for."""
    assert tls.authority is not None
    client = tls.new_client()
    tls.authority.ca.issue_cert("client@peer.example").configure_cert(client)

    assert await shown_to(network, tls.server, client) == ()


async def test_a_peer_sees_the_whole_chain(network: Network, tls: Contexts) -> None:
    """The certificate, and the authority in between, in this order; without that the client could not verify it."""
    root = trustme.CA()
    between = root.create_child_ca()
    certificate = between.issue_cert(NAME)
    server_context, client = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), ssl.create_default_context()
    certificate.configure_cert(server_context)
    root.configure_trust(client)
    async with echoing(network, SslServer(server_context)) as server, SslSocket(context=client) as sock:
        await sock.connect_to_host_encrypted(network.host, server.server_port(), server_hostname=NAME)
        chain = sock.peer_certificate_chain()

        assert [ssl.DER_cert_to_PEM_cert(one).encode() for one in chain] == [
            pem.bytes() for pem in certificate.cert_chain_pems
        ]
        assert (len(chain), chain[0]) == (2, sock.peer_certificate())
        await sock.disconnect_from_host()


async def test_limits_see_through_tls(tls: Contexts, mock_clock: trio.testing.MockClock) -> None:
    """An idle connection is ended as without TLS; simulated, for a kernel has a clock of its own."""
    async with VirtualNetwork() as net:
        network = Virtual(net)
        async with echoing(network, SslServer(tls.server, idle_limit=60)) as server:
            async with server.events(ConnectionFinished) as endings:
                with await connect(network, server, tls.client) as peer:
                    await peer.send(b"hello")
                    assert await peer.receive(5) == b"hello"
                    await trio.testing.wait_all_tasks_blocked()
                    mock_clock.jump(61)
                    error = (await anext(endings)).error

    assert isinstance(error, SocketError)
    assert error.kind is ErrorKind.SOCKET_TIMEOUT


async def test_a_factory_must_make_ssl_sockets(
    network: Network, tls: Contexts, handler_failures: Callable[[], list[Exception]]
) -> None:
    """Anything else cannot be encrypted; that connection is ended, and told as ``AcceptError``."""
    async with SslServer(tls.server, TcpSocket) as server:  # type: ignore[type-var]
        await server.listen(network.host)
        with await network.raw_connect(server.server_port()) as raw:
            assert await raw.how_it_ends() == "end"
        assert "must make SslSockets" in server.error_string()
    assert [type(failure) for failure in handler_failures()] == [TypeError]


async def test_what_was_added_by_hand_is_served_as_it_is(network: Network, tls: Contexts) -> None:
    """No handshake is the server's business there."""
    async with echoing(network, SslServer(tls.server)) as server, trio.open_nursery() as nursery:
        left, right = trio.testing.memory_stream_pair()
        server.add_pending_connection(SslSocket.from_stream(left, nursery))
        await right.send_all(b"plain")

        assert await right.receive_some(5) == b"plain"
        nursery.cancel_scope.cancel()


class Broken(ssl.SSLContext):
    """A program's own context, with a bug."""

    def wrap_bio(self, *args: object, **options: object) -> ssl.SSLObject:
        raise LookupError("a bug")


@pytest.mark.parametrize("style", ["serve", "accept"])
async def test_a_bug_in_a_handshake_ends_its_own_connection_and_no_more(
    network: Network,
    tls: Contexts,
    handler_failures: Callable[[], list[Exception]],
    caplog: pytest.LogCaptureFixture,
    style: str,
) -> None:
    """Served or waiting to be taken; the next one has a good context.  It ended the server where nobody served."""
    server = SslServer(Broken(ssl.PROTOCOL_TLS_SERVER))

    async def take() -> None:
        async for sock in server:
            async with sock:
                await echo(sock)

    async with server, server.events(ConnectionFinished) as endings, trio.open_nursery() as nursery:
        await server.listen(network.host)
        if style == "serve":
            await nursery.start(server.serve, echo)
        else:
            nursery.start_soon(take)
        with await network.raw_connect(server.server_port()) as raw:
            ended = await anext(endings)
            await raw.how_it_ends()
        server.set_context(tls.server)
        answered = await answers(network, server, tls.client)
        nursery.cancel_scope.cancel()

    (failure,) = handler_failures()
    (record,) = caplog.records
    assert (str(failure), ended.error, answered) == ("a bug", failure, True)
    assert (record.levelno, record.exc_info is not None) == (logging.ERROR, True)


# ---- clients that behave badly -----------------------------------------------------------------


def hello(client: ssl.SSLContext) -> bytes:
    """What a TLS client says first."""
    outgoing = ssl.MemoryBIO()
    with pytest.raises(ssl.SSLWantReadError):
        client.wrap_bio(ssl.MemoryBIO(), outgoing, server_hostname=NAME).do_handshake()
    return outgoing.read()


async def ending(network: Network, tls: Contexts, data: bytes) -> str:
    """What is told of a client that says ``data``, while another one is served."""
    async with echoing(network, SslServer(tls.server)) as server, server.events(ConnectionFinished) as endings:
        with await network.raw_connect(server.server_port()) as raw:
            await raw.send(data)
            assert await answers(network, server, tls.client)
            finished = [await anext(endings), await anext(endings)]
    [error] = [one.error for one in finished if one.error is not None]
    assert isinstance(error, SocketError)
    assert error.kind is ErrorKind.SSL_HANDSHAKE_FAILED
    return error.message.removeprefix("the TLS handshake failed: ")


async def test_clients_that_speak_something_else_are_told_apart(network: Network, tls: Contexts) -> None:
    """Plain HTTP has its own message, because that is what people type."""
    assert await ending(network, tls, b"GET / HTTP/1.1\r\n\r\n") == "the peer speaks plain HTTP, not TLS"
    assert await ending(network, tls, b"\0" * 100) == "the peer does not speak TLS"
    assert await ending(network, tls, b"EHLO me\r\nMAIL FROM") == "the peer does not speak TLS"


async def test_there_must_be_a_version_and_a_cipher_in_common(network: Network, tls: Contexts) -> None:
    """Each says which is missing."""
    old, poor = tls.new_client(), tls.new_client()
    old.maximum_version = ssl.TLSVersion.TLSv1_2
    poor.maximum_version = ssl.TLSVersion.TLSv1_2
    poor.set_ciphers("ECDHE-RSA-AES128-GCM-SHA256")  # and the certificate is of ECDSA
    modern = tls.new_server()
    modern.minimum_version = ssl.TLSVersion.TLSv1_3
    reasons = []
    for server_context, client in ((modern, old), (tls.server, poor)):
        async with echoing(network, SslServer(server_context)) as server, SslSocket(context=client) as sock:
            async with server.events(ConnectionFinished) as endings:
                with pytest.raises(SocketError) as refused:
                    await sock.connect_to_host_encrypted(network.host, server.server_port(), server_hostname=NAME)
                error = (await anext(endings)).error
                assert isinstance(error, SocketError)
                reasons.append((refused.value.kind, refused.value.message, error.message))

    failed = "the TLS handshake failed: "
    assert reasons == [
        (
            ErrorKind.SSL_HANDSHAKE_FAILED,
            failed + "the peer says that there is no version of TLS in common",
            failed + "there is no version of TLS in common",
        ),
        (
            ErrorKind.SSL_HANDSHAKE_FAILED,
            failed + "the peer refuses the handshake: no cipher in common, or no certificate",
            failed + "there is no cipher in common, or the context has no certificate that fits one",
        ),
    ]


@pytest.mark.parametrize("served", [True, False])
async def test_silent_and_dripping_clients_are_dropped_after_the_timeout(
    network: Network,
    tls: Contexts,
    mock_clock: trio.testing.MockClock,
    caplog: pytest.LogCaptureFixture,
    served: bool,
) -> None:
    """A hello a byte a second is no better than none.  It is told as ``ConnectionFinished``, and logged."""
    first = hello(tls.client)
    async with SslServer(tls.server) as server, trio.open_nursery() as nursery:
        await server.listen(network.host)
        if served:
            await nursery.start(server.serve, echo)
        async with server.events(ConnectionFinished) as endings:
            with await network.raw_connect(server.server_port()) as silent:
                with await network.raw_connect(server.server_port()) as dripping, caplog.at_level(logging.INFO):
                    await until(lambda: server.connection_count() == 2)
                    for byte in first[:5]:
                        await dripping.send(bytes([byte]))
                        await trio.testing.wait_all_tasks_blocked()
                        mock_clock.jump(0.99)
                    still = server.connection_count()
                    mock_clock.jump(0.06)
                    finished = [await anext(endings), await anext(endings)]
                    ends = [await silent.how_it_ends()]
        nursery.cancel_scope.cancel()

    assert (still, ends) == (2, ["end"])
    for one in finished:
        assert isinstance(one.error, SocketError)
        assert (one.error.kind, one.error.message) == (
            ErrorKind.SOCKET_TIMEOUT,
            "the TLS handshake failed: none within 5 s",
        )
    assert sum("none within 5 s" in record.getMessage() for record in caplog.records) == 2


async def test_so_many_handshakes_at_once_and_the_rest_waits_in_the_queue(network: Network, tls: Contexts) -> None:
    """Exactly; as soon as one is over the next client is accepted."""
    async with echoing(network, SslServer(tls.server, max_handshakes=2)) as server:
        with await network.raw_connect(server.server_port()), await network.raw_connect(server.server_port()) as two:
            await until(lambda: server.connection_count() == 2)
            with await network.raw_connect(server.server_port()) as raw:
                await until(lambda: accept_queue(server) == 1)
                await trio.testing.wait_all_tasks_blocked()
                before = server.connection_count()
                two.close()
                peer = await TlsPeer.over(raw, tls.client, server_side=False, server_hostname=NAME)
                await peer.send(b"hello")

                assert before == 2
                assert await peer.receive(5) == b"hello"


@pytest.mark.parametrize("where", [1, 5, 6, 40, 200])
async def test_garbage_in_the_middle_ends_its_own_connection_only(network: Network, tls: Contexts, where: int) -> None:
    """SSL_INTERNAL once there have been bytes; and the next client is served."""
    async with echoing(network, SslServer(tls.server)) as server, server.events(ConnectionFinished) as endings:
        with await connect(network, server, tls.client) as peer:
            await peer.send(b"hello")
            assert await peer.receive(5) == b"hello"
            await RawPeer.send(peer, bytes([23, 3, 3, 0, 100, *range(95)])[:where] + b"\xff" * 400)
            error = (await anext(endings)).error

            assert isinstance(error, SocketError)
            assert error.kind is ErrorKind.SSL_INTERNAL
        assert await answers(network, server, tls.client)


async def test_a_client_that_refuses_our_certificate_says_why(network: Network, tls: Contexts) -> None:
    """Its alert is what the server logs."""
    async with echoing(network, SslServer(tls.server)) as server, server.events(ConnectionFinished) as endings:
        async with SslSocket() as sock:
            with pytest.raises(SocketError):
                await sock.connect_to_host_encrypted(network.host, server.server_port(), server_hostname=NAME)
            found = [one.kind for one in sock.ssl_handshake_errors()]
        error = (await anext(endings)).error

    assert found[0] is SslErrorKind.UNABLE_TO_GET_LOCAL_ISSUER_CERTIFICATE
    assert isinstance(error, SocketError)
    assert error.message == "the TLS handshake failed: the peer does not trust who issued our certificate"
