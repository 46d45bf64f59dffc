"""openssl on the other side: TLS by trio's SSLStream over our sockets, with our verbs over that and without."""

from __future__ import annotations

import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import attrs
import pytest
import trio
import trio.testing
import trustme
from trio.testing import MockClock

from tests.peers import peer_command
from tests.real_peers.programs import Program, random_bytes, running
from trioqt import ConnectionFinished, ErrorKind, SocketError, SocketState, TcpServer, TcpSocket

HOST = "127.0.0.1"


@attrs.frozen
class OpenSsl:
    """The program, a certificate for ``localhost`` that it and we trust, and a file for what it sees of TLS."""

    command: str
    directory: Path
    authority: trustme.CA
    certificate: trustme.LeafCert

    @asynccontextmanager
    async def client(self, port: int, *arguments: str, authority: str = "ca.pem") -> AsyncIterator[Program]:
        """``s_client``: what it is sent goes to its stdout, what it reads from stdin is sent, then it says goodbye."""
        checking = ("-CAfile", str(self.directory / authority), "-verify_return_error", "-verify_hostname", "localhost")
        talking = ("-quiet", "-no_ign_eof", "-msg", "-msgfile", str(self.messages))
        to = ("-connect", f"{HOST}:{port}", "-servername", "localhost")
        async with running(self.command, "s_client", *to, *checking, *talking, *arguments) as program:
            yield program

    @asynccontextmanager
    async def server(self, *arguments: str) -> AsyncIterator[tuple[Program, int]]:
        """``s_server`` for one connection, and its port, which the system chose."""
        talking = ("-naccept", "1", "-msg", "-msgfile", str(self.messages))
        at = ("-accept", f"{HOST}:0", "-cert", str(self.directory / "server.pem"))
        async with running(self.command, "s_server", *at, *talking, *arguments) as program:
            yield program, int((await program.out.line_with("ACCEPT")).rpartition(":")[2])

    @property
    def messages(self) -> Path:
        """What went through TLS, written when the program ends."""
        return self.directory / "messages"

    def goodbyes(self) -> set[str]:
        """``received`` if it got a close_notify, ``sent`` if it sent one."""
        marks = {"<": "received", ">": "sent"}
        return {marks[line[0]] for line in self.messages.read_text().splitlines() if "close_notify" in line}

    def server_side(self, sock: TcpSocket) -> trio.SSLStream[TcpSocket]:
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        self.certificate.configure_cert(context)
        return trio.SSLStream(sock, context, server_side=True)

    def client_side(self, sock: TcpSocket) -> trio.SSLStream[TcpSocket]:
        context = ssl.create_default_context()
        self.authority.configure_trust(context)
        return trio.SSLStream(sock, context, server_hostname="localhost")


@pytest.fixture
def openssl(tmp_path: Path) -> OpenSsl:
    command = peer_command("openssl")
    authority = trustme.CA()
    certificate = authority.issue_cert("localhost")
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    trustme.CA().cert_pem.write_to_path(tmp_path / "stranger.pem")
    certificate.private_key_and_cert_chain_pem.write_to_path(tmp_path / "server.pem")
    return OpenSsl(command, tmp_path, authority, certificate)


@asynccontextmanager
async def served(handler: Callable[[TcpSocket], Awaitable[object]]) -> AsyncIterator[TcpServer[TcpSocket]]:
    """A server of ours."""
    async with TcpServer() as server, trio.open_nursery() as nursery:
        await server.listen(HOST)
        await nursery.start(server.serve, handler)
        yield server
        server.close()


# ---- we are the server -------------------------------------------------------------------------


async def test_s_client_gets_its_lines_back_and_says_goodbye(openssl: OpenSsl) -> None:
    """A whole conversation, and its end by close_notify: our lines() end, without an error, and we say goodbye too."""
    ends: list[tuple[bytes, SocketState]] = []

    async def shout(sock: TcpSocket) -> None:
        async with TcpSocket.from_stream(openssl.server_side(sock)) as secure:
            async for line in secure.lines():
                await secure.send_all(line.upper())
            ends.append((await secure.receive_some(), secure.state()))

    with trio.fail_after(20):
        async with served(shout) as server, server.events(ConnectionFinished) as finished:
            async with openssl.client(server.server_port()) as client:
                await client.say("hello")
                first = await client.out.line()
                await client.say("once more", "and again")
                second, third = await client.out.line(), await client.out.line()
                await client.stdin.aclose()
                error = (await anext(finished)).error
                rest = await client.out.everything()
                status = await client.process.wait()

    assert (first, second, third, rest) == ("HELLO", "ONCE MORE", "AND AGAIN", b"")
    assert (error, status) == (None, 0)
    assert ends == [(b"", SocketState.CONNECTED)]
    assert "sent" in openssl.goodbyes()


async def test_leaving_our_block_is_a_close_notify_to_s_client(openssl: OpenSsl) -> None:
    """The block sends what is queued, 3 MB, and then the goodbye; s_client has all and ends content."""
    data = random_bytes(3_000_000)

    async def answer_once(sock: TcpSocket) -> None:
        async with TcpSocket.from_stream(openssl.server_side(sock)) as secure:
            await secure.receive_line()
            secure.write(data)

    with trio.fail_after(20):
        async with served(answer_once) as server:
            async with openssl.client(server.server_port()) as client:
                await client.say("hello")
                answer = await client.out.everything()
                status = await client.process.wait()

    assert answer == data
    assert status == 0
    assert "received" in openssl.goodbyes()


async def test_three_megabytes_from_s_client_arrive_whole_before_its_goodbye(openssl: OpenSsl) -> None:
    """Bytes first, then the end, through two layers of buffers."""
    data = random_bytes(1_500_000).hex().encode()  # some capital letters are commands to s_client
    received = bytearray()

    async def collect(sock: TcpSocket) -> None:
        async with TcpSocket.from_stream(openssl.server_side(sock)) as secure:
            async for chunk in secure:
                received.extend(chunk)

    with trio.fail_after(20):
        async with served(collect) as server, server.events(ConnectionFinished) as finished:
            async with openssl.client(server.server_port()) as client:
                await client.stdin.send_all(data)
                await client.stdin.aclose()
                error = (await anext(finished)).error

    assert (error, len(received)) == (None, len(data))
    assert received == data


async def test_an_end_without_a_goodbye_is_an_error_and_harms_nobody_else(openssl: OpenSsl) -> None:
    """A killed s_client says no close_notify, so the end cannot be trusted: SocketError.  The next one is served."""
    heard: list[bytes] = []

    async def shout(sock: TcpSocket) -> None:
        async with TcpSocket.from_stream(openssl.server_side(sock)) as secure:
            async for line in secure.lines():
                heard.append(line)
                await secure.send_all(line.upper())

    with trio.fail_after(20):
        async with served(shout) as server, server.events(ConnectionFinished) as finished:
            async with openssl.client(server.server_port()) as client:
                await client.say("hello")
                answer = await client.out.line()
                client.kill()
                error = (await anext(finished)).error
            async with openssl.client(server.server_port()) as client:
                await client.say("anybody?")
                next_answer = await client.out.line()

    assert (answer, next_answer) == ("HELLO", "ANYBODY?")
    assert heard == [b"hello\n", b"anybody?\n"]
    assert isinstance(error, SocketError)
    assert error.kind is ErrorKind.REMOTE_HOST_CLOSED


async def test_an_s_client_that_does_not_trust_us_ends_its_handler_only(openssl: OpenSsl) -> None:
    """The handshake fails with an alert: SocketError in the handler.  The next one, who trusts us, is served."""

    async def shout(sock: TcpSocket) -> None:
        async with TcpSocket.from_stream(openssl.server_side(sock)) as secure:
            async for line in secure.lines():
                await secure.send_all(line.upper())

    with trio.fail_after(20):
        async with served(shout) as server, server.events(ConnectionFinished) as finished:
            async with openssl.client(server.server_port(), authority="stranger.pem") as client:
                status = await client.process.wait()
                error = (await anext(finished)).error
            async with openssl.client(server.server_port()) as client:
                await client.say("hello")
                answer = await client.out.line()

    assert status == 1
    assert isinstance(error, SocketError)
    assert error.kind is ErrorKind.SSL_HANDSHAKE_FAILED
    assert answer == "HELLO"


async def test_s_client_talks_to_a_bare_ssl_stream_over_our_socket(openssl: OpenSsl) -> None:
    """Our socket below, trio's own API above: it is an ordinary trio stream."""
    finals: list[bytes] = []

    async def shout(sock: TcpSocket) -> None:
        async with openssl.server_side(sock) as tls:
            async for chunk in tls:
                await tls.send_all(chunk.upper())
            finals.append(bytes(await tls.receive_some()))

    with trio.fail_after(20):
        async with served(shout) as server, server.events(ConnectionFinished) as finished:
            async with openssl.client(server.server_port()) as client:
                await client.say("hello")
                answer = await client.out.line()
                await client.stdin.aclose()
                error = (await anext(finished)).error
                status = await client.process.wait()

    assert (answer, finals, error, status) == ("HELLO", [b""], None, 0)
    assert "sent" in openssl.goodbyes()


async def test_an_abort_over_tls_says_no_goodbye(openssl: OpenSsl) -> None:
    """What is queued is dropped, so s_client must not take what it got for the whole: it hears no close_notify."""
    dropped: list[int] = []

    async def give_up(sock: TcpSocket) -> None:
        async with TcpSocket.from_stream(openssl.server_side(sock)) as secure:
            await secure.receive_line()
            secure.write(bytes(32_000_000))
            dropped.append(secure.bytes_to_write())
            secure.abort()

    with trio.fail_after(20):
        async with served(give_up) as server:
            async with openssl.client(server.server_port()) as client:
                await client.say("hello")
                answer = await client.out.everything()
                await client.process.wait()

    assert dropped == [32_000_000]
    assert len(answer) < 32_000_000
    assert "received" not in openssl.goodbyes()


# ---- a peer that takes nothing -----------------------------------------------------------------


async def fill(secure: TcpSocket, sock: TcpSocket) -> None:
    """Send until the system takes no more, so that TLS has taken everything and the socket below holds some back."""
    while not sock.bytes_to_write():
        await secure.send_all(bytes(16384))
        await secure.wait_for_bytes_written()


async def test_leaving_a_block_over_tls_does_not_wait_for_ever(openssl: OpenSsl, mock_clock: MockClock) -> None:
    """TLS had taken all, so nothing was queued in the outer socket; the goodbye behind that waited without a limit."""
    full = trio.Event()

    async def send(sock: TcpSocket) -> None:
        async with TcpSocket.from_stream(openssl.server_side(sock)) as secure:
            await fill(secure, sock)
            assert (secure.bytes_to_write(), sock.bytes_to_write() > 0) == (0, True)
            full.set()

    async with served(send) as server, server.events(ConnectionFinished) as finished:
        async with openssl.client(server.server_port()) as client:  # nobody reads what it says, so it is stuck
            await full.wait()
            await trio.testing.wait_all_tasks_blocked()
            mock_clock.jump(10)
            await trio.testing.wait_all_tasks_blocked()
            client.kill()  # whatever waits for it still, ends otherwise
            error = (await anext(finished)).error

    assert isinstance(error, SocketError)
    assert error.kind is ErrorKind.SOCKET_TIMEOUT


async def test_abort_ends_a_goodbye_that_another_task_waits_for(openssl: OpenSsl) -> None:
    """abort() works at any time: the goodbye over TLS went on behind its back, and so did the connection below."""
    outcomes: list[str] = []

    async def leave(secure: TcpSocket) -> None:
        try:
            await secure.disconnect_from_host()
        except trio.ClosedResourceError as exc:
            outcomes.append(str(exc))

    with trio.fail_after(20):
        async with TcpServer() as server:
            await server.listen(HOST)
            async with openssl.client(server.server_port()) as client, await server.accept() as sock:
                async with TcpSocket.from_stream(openssl.server_side(sock)) as secure, trio.open_nursery() as nursery:
                    await fill(secure, sock)
                    nursery.start_soon(leave, secure)
                    await trio.testing.wait_all_tasks_blocked()
                    before = (secure.state(), sock.state(), outcomes[:])
                    secure.abort()
                    await trio.testing.wait_all_tasks_blocked()
                    after = (secure.state(), sock.state(), outcomes[:])
                    client.kill()

    assert before == (SocketState.CLOSING, SocketState.CLOSING, [])
    assert after[:2] == (SocketState.UNCONNECTED, SocketState.UNCONNECTED)
    assert len(after[2]) == 1


# ---- we are the client -------------------------------------------------------------------------


async def test_our_client_exchanges_lines_with_s_server_and_says_goodbye(openssl: OpenSsl) -> None:
    """s_server -rev turns each line round; leaving our block is a close_notify, which it answers."""
    with trio.fail_after(20):
        async with openssl.server("-rev") as (server, port):
            async with TcpSocket() as sock:
                await sock.connect_to_host(HOST, port)
                async with TcpSocket.from_stream(openssl.client_side(sock)) as secure:
                    await secure.send_all(b"hello\nworld\n")
                    lines = [await secure.receive_line(), await secure.receive_line()]
                states = (secure.state(), sock.state())
            status = await server.process.wait()

    assert lines == [b"olleh\n", b"dlrow\n"]
    assert states == (SocketState.UNCONNECTED, SocketState.UNCONNECTED)
    assert status == 0
    assert openssl.goodbyes() == {"received", "sent"}


async def test_s_servers_goodbye_is_a_clean_end_to_our_client(openssl: OpenSsl) -> None:
    """A line, then close_notify: bytes first, then the end, and no error."""
    with trio.fail_after(20):
        async with openssl.server("-rev") as (server, port):
            async with TcpSocket() as sock:
                await sock.connect_to_host(HOST, port)
                async with TcpSocket.from_stream(openssl.client_side(sock)) as secure:
                    await secure.send_all(b"hello\nCLOSE\n")  # -rev takes the second line as a command
                    rest = [line async for line in secure.lines()]
                    error = secure.error()
            status = await server.process.wait()

    assert (rest, error, status) == ([b"olleh\n"], None, 0)
    assert "sent" in openssl.goodbyes()


async def test_an_s_server_that_quits_without_a_goodbye_is_an_error_behind_its_line(openssl: OpenSsl) -> None:
    """Without close_notify anybody on the way may have cut the stream: the line can be read, then it fails."""
    with trio.fail_after(20):
        async with openssl.server() as (server, port):
            async with TcpSocket() as sock:
                await sock.connect_to_host(HOST, port)
                async with TcpSocket.from_stream(openssl.client_side(sock)) as secure:
                    # s_server 3.0 that has to shake hands in order to send hangs in the next read, deaf to "Q".
                    await secure.send_all(b"hello\n")
                    await server.out.line_with("hello")
                    await server.say("welcome")
                    line = await secure.receive_line()
                    await server.say("Q")  # s_server's command for: close the socket and quit
                    with pytest.raises(SocketError) as caught:
                        await secure.receive_line()
            await server.process.wait()

    assert line == b"welcome\n"
    assert caught.value.kind is ErrorKind.REMOTE_HOST_CLOSED
    assert "sent" not in openssl.goodbyes()


async def test_what_our_client_has_queued_goes_out_before_its_goodbye(openssl: OpenSsl) -> None:
    """3 MB in one write, and the block is left at once: s_server gets every byte, then close_notify."""
    data = random_bytes(3_000_000)
    output: list[bytes] = []

    with trio.fail_after(20):
        async with openssl.server() as (server, port), trio.open_nursery() as nursery:

            @nursery.start_soon
            async def collect() -> None:
                output.append(await server.out.everything())

            async with TcpSocket() as sock:
                await sock.connect_to_host(HOST, port)
                async with TcpSocket.from_stream(openssl.client_side(sock)) as secure:
                    secure.write(data)
            status = await server.process.wait()

    assert data in output[0]  # between what s_server itself has to say
    assert status == 0
    assert "received" in openssl.goodbyes()


async def test_a_bare_ssl_stream_over_our_client_socket_talks_to_s_server(openssl: OpenSsl) -> None:
    """The other role of the same: handshake, a line there and back, and both goodbyes."""
    with trio.fail_after(20):
        async with openssl.server("-rev") as (server, port):
            async with TcpSocket() as sock:
                await sock.connect_to_host(HOST, port)
                async with openssl.client_side(sock) as tls:
                    await tls.send_all(b"hello\n")
                    line = b""
                    while not line.endswith(b"\n"):
                        line += await tls.receive_some()
                state = sock.state()
            status = await server.process.wait()

    assert (line, state, status) == (b"olleh\n", SocketState.UNCONNECTED, 0)
    assert openssl.goodbyes() == {"received", "sent"}


async def test_our_client_refuses_a_server_that_it_does_not_trust(openssl: OpenSsl) -> None:
    """The handshake fails in the first call that needs it: SSL_HANDSHAKE_FAILED, and the certificate is the cause."""
    with trio.fail_after(20):
        async with openssl.server("-rev") as (_, port):
            async with TcpSocket() as sock:
                await sock.connect_to_host(HOST, port)
                tls = trio.SSLStream(sock, ssl.create_default_context(), server_hostname="localhost")
                async with TcpSocket.from_stream(tls) as secure:
                    with pytest.raises(SocketError) as caught:
                        await secure.receive_line()
                    state = secure.state()

    assert caught.value.kind is ErrorKind.SSL_HANDSHAKE_FAILED
    assert "certificate verify failed" in caught.value.message
    assert state is SocketState.UNCONNECTED
