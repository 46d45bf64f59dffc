"""Whose certificate is believed: each kind of bad one is refused, in the handshake and where errors are named."""

from __future__ import annotations

import ssl
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

import pytest
import trio
import trio.testing

pytest.importorskip("OpenSSL")

from tests.bad_certificates import BAD, GOOD, NAME, Case
from tests.networks import Network, RawPeer
from trioqt import (
    Encrypted,
    ErrorKind,
    ModeChanged,
    PauseMode,
    SocketError,
    SslError,
    SslErrorKind,
    SslErrors,
    SslServer,
    SslSocket,
)
from trioqt.links import chain
from trioqt.links.chain import matches

every_bad = pytest.mark.parametrize("bad", BAD)


async def answer(sock: SslSocket) -> None:
    """Say something, and hear what the client says."""
    await sock.send_all(b"secret of the server\n")
    async for _ in sock:
        pass


@asynccontextmanager
async def serving(network: Network, case: Case) -> AsyncIterator[SslServer[SslSocket]]:
    """A server of that case."""
    async with SslServer(case.server) as server, trio.open_nursery() as nursery:
        await server.listen(network.host)
        await nursery.start(server.serve, answer)
        yield server
        nursery.cancel_scope.cancel()


async def outcome(
    network: Network, case: Case, ignored: Iterable[SslErrorKind | SslError] = ()
) -> tuple[bytes | ErrorKind, tuple[SslErrorKind, ...]]:
    """What a client gets that ignores so much: a line, or a refusal; and what it has found wrong."""
    async with serving(network, case) as server, SslSocket(context=case.client) as sock:
        sock.ignore_ssl_errors(ignored)
        got: bytes | ErrorKind
        try:
            await sock.connect_to_host_encrypted(network.host, server.server_port(), server_hostname=NAME)
            got = await sock.receive_line()
        except SocketError as error:
            got, cause = error.kind, error.__cause__
        else:
            cause = None
        assert cause is None or isinstance(cause, ssl.SSLCertVerificationError)
        return got, tuple(error.kind for error in sock.ssl_handshake_errors())


@every_bad
async def test_each_bad_certificate_is_refused_in_the_handshake(network: Network, bad: str, tmp_path: Path) -> None:
    """By the context's own verification; what it has stopped at is told, with what else is wrong."""
    make, in_handshake, listed = BAD[bad]
    told = listed if in_handshake in listed else (in_handshake,)

    assert await outcome(network, make(tmp_path)) == (ErrorKind.SSL_HANDSHAKE_FAILED, told)


@every_bad
async def test_each_bad_certificate_is_refused_where_something_else_is_ignored(
    network: Network, bad: str, tmp_path: Path
) -> None:
    """Outside of the handshake all that is wrong is found, and what is not named is not forgiven."""
    make, _, listed = BAD[bad]
    other = next(kind for kind in chain.BEHIND if kind not in listed)

    assert await outcome(network, make(tmp_path), [other]) == (ErrorKind.SSL_HANDSHAKE_FAILED, listed)


@pytest.mark.parametrize("good", GOOD)
@pytest.mark.parametrize("ignored", [[], [SslErrorKind.CERTIFICATE_EXPIRED]])
async def test_a_good_certificate_is_accepted_on_both_ways(
    network: Network, good: str, ignored: list[SslErrorKind], tmp_path: Path
) -> None:
    """What may be ignored need not be there."""
    assert await outcome(network, GOOD[good](tmp_path), ignored) == (b"secret of the server\n", ())


@pytest.mark.parametrize("bad", [bad for bad, (_, _, listed) in BAD.items() if set(listed) <= chain.BEHIND])
async def test_exactly_what_is_ignored_is_forgiven(network: Network, bad: str, tmp_path: Path) -> None:
    """All of it is; with one kind left out it is refused; and not again by the next handshake of the same socket."""
    make, in_handshake, listed = BAD[bad]
    case = make(tmp_path)

    assert await outcome(network, case, listed) == (b"secret of the server\n", listed)
    if len(listed) > 1:
        for left_out in listed:
            rest = [kind for kind in listed if kind is not left_out]
            assert await outcome(network, case, rest) == (ErrorKind.SSL_HANDSHAKE_FAILED, listed)
    async with serving(network, case) as server, SslSocket(context=case.client) as sock:
        port = server.server_port()
        sock.ignore_ssl_errors(listed)
        await sock.connect_to_host_encrypted(network.host, port, server_hostname=NAME)
        session = sock.session()
        await sock.disconnect_from_host()
        with pytest.raises(SocketError) as refused:
            await sock.connect_to_host_encrypted(network.host, port, server_hostname=NAME)

        assert refused.value.kind is ErrorKind.SSL_HANDSHAKE_FAILED
        assert in_handshake in [error.kind for error in sock.ssl_handshake_errors()]
        assert session is None  # one could go on with it, and see no certificate


async def test_an_error_of_a_certificate_is_ignored_of_that_one_only(network: Network, tmp_path: Path) -> None:
    """Somebody has looked at this self-signed certificate; another one is another matter."""
    make, _, _ = BAD["self-signed"]
    seen, other = make(tmp_path), make(tmp_path)
    async with serving(network, seen) as server, SslSocket(context=seen.client) as sock:
        sock.ignore_ssl_errors([SslErrorKind.HOST_NAME_MISMATCH])
        with pytest.raises(SocketError):
            await sock.connect_to_host_encrypted(network.host, server.server_port(), server_hostname=NAME)
        [error] = sock.ssl_handshake_errors()

    assert (await outcome(network, seen, [error]))[0] == b"secret of the server\n"
    assert (await outcome(network, other, [error]))[0] is ErrorKind.SSL_HANDSHAKE_FAILED
    assert error.certificate is not None


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
async def test_nothing_is_sent_before_the_chain_is_judged(
    network: Network, version: ssl.TLSVersion, tmp_path: Path
) -> None:
    """The client hello goes out, and then nothing at all: no key, no certificate of ours, no byte that was written."""
    case = BAD["self-signed"][0](tmp_path)
    case.client.maximum_version = version
    [file] = [str(path) for path in tmp_path.iterdir()]  # noqa: ASYNC240
    case.client.load_cert_chain(file)  # any will do, for it is not shown
    case.server.verify_mode = ssl.CERT_OPTIONAL  # so that one is asked for
    with await network.raw_listener() as listener:
        async with SslSocket(context=case.client) as sock, trio.open_nursery() as nursery:
            sock.set_pause_mode(PauseMode.ON_SSL_ERRORS)

            async def connect() -> None:
                with pytest.raises(SocketError):
                    await sock.connect_to_host_encrypted(network.host, listener.port, server_hostname=NAME)

            nursery.start_soon(connect)
            peer = await listener.accept()
            incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
            tls = case.server.wrap_bio(incoming, outgoing, server_side=True)
            async with sock.events(SslErrors) as events:
                sock.write(b"secret of the client")
                incoming.write(await peer.sock.recv(65536))
                with pytest.raises(ssl.SSLWantReadError):
                    tls.do_handshake()
                await peer.send(outgoing.read())
                errors = (await anext(events)).errors
            await trio.testing.wait_all_tasks_blocked()
            behind_hello = peer.receive_now(65536)
            encrypted = sock.is_encrypted()
            sock.resume()

        assert [error.kind for error in errors] == [SslErrorKind.SELF_SIGNED_CERTIFICATE]
        assert (behind_hello, encrypted) == (b"", False)
        with peer:
            assert await how_it_ends(peer) == b""


async def how_it_ends(peer: RawPeer) -> bytes:
    """What comes before the end, or before a reset."""
    try:
        return await peer.receive_to_end()
    except ConnectionResetError:
        return b""


async def test_a_pause_lets_the_program_decide(network: Network, tmp_path: Path) -> None:
    """After ``SslErrors`` nothing goes on until ``resume``: refused without, encrypted with what is ignored by then."""
    case = BAD["self-signed"][0](tmp_path)
    results = []
    async with serving(network, case) as server, trio.open_nursery() as nursery:
        for forgives in (True, False):
            async with SslSocket(context=case.client) as sock, sock.events(SslErrors, Encrypted) as events:
                sock.set_pause_mode(PauseMode.ON_SSL_ERRORS)

                async def connect(sock: SslSocket = sock) -> None:
                    try:
                        await sock.connect_to_host_encrypted(network.host, server.server_port(), server_hostname=NAME)
                    except SocketError as error:
                        results.append(error.kind)

                nursery.start_soon(connect)
                event = await anext(events)
                assert isinstance(event, SslErrors)
                await trio.testing.wait_all_tasks_blocked()
                before = sock.is_encrypted(), sock.error()
                if forgives:
                    sock.ignore_ssl_errors(event.errors)
                sock.resume()
                if forgives:
                    await sock.wait_for_encrypted()
                    assert await anext(events) == Encrypted()
                    assert await sock.receive_line() == b"secret of the server\n"
                else:
                    await sock.wait_for_disconnected()

                assert before == (False, None)
                state = sock.state()
                sock.resume()  # nothing is paused, as in Qt
                assert sock.state() is state

    assert results == [ErrorKind.SSL_HANDSHAKE_FAILED]


async def test_a_pause_may_be_asked_for_while_connected(network: Network, tmp_path: Path) -> None:
    """As in Qt: what was plain so far pauses in the handshake that comes (STARTTLS)."""
    case = BAD["self-signed"][0](tmp_path)
    async with serving(network, case) as server, trio.open_nursery() as nursery:
        async with SslSocket(context=case.client) as sock, sock.events(SslErrors) as events:
            await sock.connect_to_host(network.host, server.server_port())
            sock.set_pause_mode(PauseMode.ON_SSL_ERRORS)
            nursery.start_soon(partial(sock.start_client_encryption, server_hostname=NAME))
            event = await anext(events)
            await trio.testing.wait_all_tasks_blocked()
            before = sock.is_encrypted()
            sock.ignore_ssl_errors(event.errors)
            sock.resume()
            await sock.wait_for_encrypted()

            assert (before, sock.pause_mode()) == (False, PauseMode.ON_SSL_ERRORS)
            assert await sock.receive_line() == b"secret of the server\n"


async def test_a_paused_socket_can_be_aborted(network: Network, tmp_path: Path) -> None:
    """Whoever connects hears that it was ended here."""
    case = BAD["self-signed"][0](tmp_path)
    async with serving(network, case) as server, trio.open_nursery() as nursery:
        async with SslSocket(context=case.client) as sock, sock.events(SslErrors) as events:
            sock.set_pause_mode(PauseMode.ON_SSL_ERRORS)

            async def connect() -> None:
                with pytest.raises(trio.ClosedResourceError):
                    await sock.connect_to_host_encrypted(network.host, server.server_port(), server_hostname=NAME)

            nursery.start_soon(connect)
            await anext(events)
            sock.abort()


@pytest.mark.parametrize("is_paused", [True, False], ids=["paused", "silent"])
async def test_a_block_left_in_the_handshake_says_what_has_kept_its_bytes(
    network: Network, tmp_path: Path, mock_clock: trio.testing.MockClock, is_paused: bool
) -> None:
    """It is not that the peer took nothing: nobody has resumed, or the peer does not go on with the handshake."""
    case = BAD["self-signed"][0](tmp_path)
    with await network.raw_listener() as silent:
        async with serving(network, case) as server, trio.open_nursery() as nursery:

            async def connect(sock: SslSocket, port: int) -> None:
                with pytest.raises(trio.ClosedResourceError):
                    await sock.connect_to_host_encrypted(network.host, port, server_hostname=NAME)
                told.set()

            async def let_time_pass() -> None:
                await trio.testing.wait_all_tasks_blocked()
                mock_clock.jump(10)

            told = trio.Event()
            with pytest.raises(SocketError) as lost:
                async with SslSocket(context=case.client) as sock, sock.events(SslErrors, ModeChanged) as events:
                    sock.set_pause_mode(PauseMode.ON_SSL_ERRORS)
                    nursery.start_soon(connect, sock, server.server_port() if is_paused else silent.port)
                    wanted = SslErrors if is_paused else ModeChanged
                    while not isinstance(await anext(events), wanted):
                        pass
                    sock.write(b"hello")
                    nursery.start_soon(let_time_pass)
            await told.wait()

    why = (
        "nobody has resumed the handshake, paused on the peer's certificate, for 10 s"
        if is_paused
        else "the TLS handshake was not done within 10 s"
    )
    assert lost.value.kind is ErrorKind.SOCKET_TIMEOUT
    assert lost.value.message == f"the connection was lost: {why}, 5 bytes were not sent"


async def test_what_cannot_be_looked_behind_of_cannot_be_ignored(network: Network) -> None:
    """There might be more; and what is no error at all is a mistake."""
    async with SslSocket() as sock:
        for kind in set(SslErrorKind) - chain.BEHIND:
            with pytest.raises(ValueError):
                sock.ignore_ssl_errors([kind])
        with pytest.raises(TypeError):
            sock.ignore_ssl_errors([10])  # type: ignore[list-item]
        with pytest.raises(TypeError, match="a list of errors, not SslErrorKind"):
            sock.ignore_ssl_errors(SslErrorKind.CERTIFICATE_EXPIRED)  # type: ignore[arg-type]


async def test_without_pyopenssl_it_is_said_what_is_missing(network: Network, monkeypatch: pytest.MonkeyPatch) -> None:
    """At the call, not in the handshake."""
    monkeypatch.setattr("trioqt.sockets.ssl_socket.can_judge", lambda: False)
    async with SslSocket() as sock:
        calls: list[Callable[[], None]] = [
            lambda: sock.ignore_ssl_errors([SslErrorKind.CERTIFICATE_EXPIRED]),
            lambda: sock.set_pause_mode(PauseMode.ON_SSL_ERRORS),
        ]
        for call in calls:
            with pytest.raises(SocketError, match=r"trioqt\[tls\]") as refused:
                call()
            assert refused.value.kind is ErrorKind.UNSUPPORTED_SOCKET_OPERATION
        sock.ignore_ssl_errors([])
        sock.set_pause_mode(PauseMode.NEVER)


@pytest.mark.parametrize(
    ("names", "hostname", "expected"),
    [
        (["a.example"], "a.example", True),
        (["a.example"], "A.EXAMPLE.", True),
        (["a.example"], "b.example", False),
        (["*.a.example"], "b.a.example", True),
        (["*.a.example"], "c.b.a.example", False),
        (["*.a.example"], "a.example", False),
        (["*.example"], "a.example", False),
        (["*"], "a", False),
        (["a*.b.example"], "ab.b.example", False),
        (["a.*.example"], "a.b.example", False),
        (["*.*.example"], "a.b.example", False),
        (["*.a.example"], "bücher.a.example", True),
        (["xn--*.a.example"], "bücher.a.example", False),
        (["xn--bcher-kva.example"], "bücher.example", True),
        (["127.0.0.1"], "127.0.0.1", True),
        (["*.0.0.1"], "127.0.0.1", False),
        (["::1"], "0:0:0:0:0:0:0:1", True),
        ([], "a.example", False),
    ],
)
def test_names_match_as_rfc_6125_says(names: list[str], hostname: str, expected: bool) -> None:
    """A star is one whole left-most label, and never an address's."""
    assert matches(names, hostname) is expected
