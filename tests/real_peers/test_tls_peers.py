"""Other people's TLS on the other side: openssl, curl, Qt, nginx, HAProxy, and swaks for STARTTLS."""

from __future__ import annotations

import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import attrs
import pytest
import trio
import trustme

from tests.peers import peer_command, peer_module
from tests.real_peers.programs import Program, random_bytes, run_to_its_end, running
from tests.sockets.arrivals import until
from tests.unused_ports import unused_port
from trioqt import ConnectionFinished, ErrorKind, SocketError, SslServer, SslSocket, TcpServer

HOST = "127.0.0.1"
VERSIONS = pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])


@attrs.frozen
class Site:
    """A certificate for localhost, in files and in contexts."""

    directory: Path
    server: ssl.SSLContext
    client: ssl.SSLContext

    def file(self, name: str) -> str:
        return str(self.directory / name)


@pytest.fixture
def site(tmp_path: Path) -> Site:
    authority = trustme.CA()
    certificate = authority.issue_cert("localhost", "127.0.0.1")
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    certificate.private_key_and_cert_chain_pem.write_to_path(tmp_path / "both.pem")
    certificate.private_key_pem.write_to_path(tmp_path / "key.pem")
    certificate.cert_chain_pems[0].write_to_path(tmp_path / "cert.pem")
    server = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    certificate.configure_cert(server)
    client = ssl.create_default_context()
    authority.configure_trust(client)
    return Site(tmp_path, server, client)


@asynccontextmanager
async def served(
    site: Site, handler: Callable[[SslSocket], Awaitable[object]]
) -> AsyncIterator[tuple[SslServer[SslSocket], list[BaseException | None]]]:
    """A server of ours, and how its handlers ended."""
    endings: list[BaseException | None] = []
    async with SslServer(site.server) as server, server.events(ConnectionFinished) as events:
        async with trio.open_nursery() as nursery:

            @nursery.start_soon
            async def _() -> None:
                async for event in events:
                    endings.append(event.error)

            await server.listen(HOST)
            await nursery.start(server.serve, handler)
            with trio.fail_after(15):
                yield server, endings
            nursery.cancel_scope.cancel()


async def echo(sock: SslSocket) -> None:
    async for chunk in sock:
        await sock.send_all(chunk)


@asynccontextmanager
async def s_client(site: Site, port: int, *arguments: str) -> AsyncIterator[Program]:
    to = ("-connect", f"{HOST}:{port}", "-servername", "localhost", "-CAfile", site.file("ca.pem"))
    async with running(peer_command("openssl"), "s_client", *to, "-verify_return_error", *arguments) as program:
        yield program


# ---- openssl -----------------------------------------------------------------------------------


@VERSIONS
async def test_s_client_gets_its_bytes_back(site: Site, version: ssl.TLSVersion) -> None:
    """In either version, whole."""
    data = random_bytes(50_000)
    site.server.maximum_version = version
    async with served(site, echo) as (server, _), s_client(site, server.server_port(), "-quiet") as program:
        await program.stdin.send_all(data)
        got = b""
        while len(got) < len(data):
            got += await program.out.some()

    assert got == data


async def test_s_clients_goodbye_is_a_clean_end(site: Site) -> None:
    """It does not wait for ours."""
    async with served(site, echo) as (server, endings):
        async with s_client(site, server.server_port(), "-quiet", "-no_ign_eof", "-msg") as program:
            await program.say("hello")
            await program.out.line_with("hello")
            await program.stdin.aclose()
            told = (await program.out.everything()).decode()
            await until(lambda: bool(endings))

    assert endings == [None]
    assert [line[:3] for line in told.splitlines() if "close_notify" in line][:1] == [">>>"]


async def test_s_client_asks_for_new_keys_again_and_again(site: Site) -> None:
    """Dozens of key updates that want an answer: nothing is lost."""
    async with served(site, echo) as (server, _):
        async with s_client(site, server.server_port(), "-tls1_3", "-msg") as program:
            await program.out.line_with("Verify return code")
            for number in range(30):
                await program.say("K")
                await program.out.line_with(">>> TLS 1.3, Handshake [length 0005], KeyUpdate")
                if number % 10 == 9:
                    await program.say(f"line {number}")
                    await program.out.line_with(f"line {number}")


async def test_s_client_cannot_renegotiate(site: Site) -> None:
    """In TLS 1.2, which has that; the server stays whole for others."""
    site.server.maximum_version = ssl.TLSVersion.TLSv1_2
    async with served(site, echo) as (server, endings):
        async with s_client(site, server.server_port()) as program:
            await program.out.line_with("Verify return code")
            await program.say("R")
            await until(lambda: bool(endings))
        async with SslSocket(context=site.client) as sock:
            await sock.connect_to_host_encrypted(HOST, server.server_port(), server_hostname="localhost")
            await sock.send_all(b"hello\n")
            assert await sock.receive_line() == b"hello\n"


@asynccontextmanager
async def s_server(site: Site, *arguments: str) -> AsyncIterator[tuple[Program, int]]:
    at = ("-accept", f"{HOST}:0", "-cert", site.file("both.pem"), "-naccept", "1")
    async with running(peer_command("openssl"), "s_server", *at, *arguments) as program:
        yield program, int((await program.out.line_with("ACCEPT")).rpartition(":")[2])


@VERSIONS
async def test_our_client_talks_to_s_server(site: Site, version: ssl.TLSVersion) -> None:
    """Lines both ways; its goodbye is a clean end."""
    site.client.maximum_version = version
    with trio.fail_after(15):
        async with s_server(site) as (program, port), SslSocket(context=site.client) as sock:
            await sock.connect_to_host_encrypted(HOST, port, server_hostname="localhost")
            await sock.send_all(b"hello\n")
            assert await program.out.line_with("hello") == "hello"
            await program.say("answer", "Q")
            assert await sock.receive_line() == b"answer\n"


async def test_our_end_is_a_goodbye_to_s_server(site: Site) -> None:
    """Behind what was written."""
    with trio.fail_after(15):
        async with s_server(site, "-msg") as (program, port):
            async with SslSocket(context=site.client) as sock:
                await sock.connect_to_host_encrypted(HOST, port, server_hostname="localhost")
                sock.write(b"last words\n")
            lines = (await program.out.everything()).decode().splitlines()

    heard = [line for line in lines if line == "last words" or "close_notify" in line]
    assert heard[0] == "last words"
    assert heard[1].startswith("<<<")


async def test_our_client_refuses_an_s_server_for_another_name(site: Site) -> None:
    """By OpenSSL's own check."""
    with trio.fail_after(15):
        async with s_server(site) as (_, port), SslSocket(context=site.client) as sock:
            with pytest.raises(SocketError) as refused:
                await sock.connect_to_host_encrypted(HOST, port, server_hostname="elsewhere")

    assert refused.value.kind is ErrorKind.SSL_HANDSHAKE_FAILED


# ---- curl, nginx, HAProxy ----------------------------------------------------------------------


async def answer_http(sock: SslSocket) -> None:
    await sock.receive_until(b"\r\n\r\n")
    await sock.send_all(b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\nConnection: close\r\n\r\nhello\n")


async def test_curl_fetches_over_https(site: Site) -> None:
    """And it does not when it does not trust us, which ends its own connection only."""
    curl = (peer_command("curl"), "-q", "--silent", "--show-error", "--noproxy", "*")
    async with served(site, answer_http) as (server, _):
        address = f"https://localhost:{server.server_port()}/"
        refused = await run_to_its_end(*curl, "--ipv4", address)
        plain = await run_to_its_end(*curl, "--ipv4", address.replace("https", "http"))
        fetched = await run_to_its_end(*curl, "--ipv4", "--cacert", site.file("ca.pem"), address)

    assert (fetched.returncode, fetched.stdout, fetched.stderr) == (0, b"hello\n", b"")
    assert refused.returncode == 60  # "Peer's certificate cannot be authenticated"
    assert plain.returncode != 0


@asynccontextmanager
async def listening_on(port: int, command: str, *arguments: str) -> AsyncIterator[None]:
    """A program that serves there."""
    async with running(command, *arguments):
        while True:
            try:
                await (await trio.open_tcp_stream(HOST, port)).aclose()
            except OSError:
                await trio.sleep(0.02)
            else:
                yield
                return


async def fetch(site: Site, port: int) -> bytes:
    async with SslSocket(context=site.client) as sock:
        await sock.connect_to_host_encrypted(HOST, port, server_hostname="localhost")
        await sock.send_all(b"GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
        return b"".join([chunk async for chunk in sock])


async def test_our_client_fetches_from_nginx(site: Site) -> None:
    """Its end is a close_notify, so the page is whole."""
    command, port = peer_command("nginx"), unused_port()
    config = site.directory / "nginx.conf"
    paths = "".join(
        f"{name}_temp_path {site.directory}/{name};" for name in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    config.write_text(
        f"daemon off; master_process off; pid {site.directory}/pid; error_log stderr; events {{}} http {{ {paths} "
        f"access_log off; server {{ listen {HOST}:{port} ssl; ssl_certificate {site.file('cert.pem')}; "
        f"ssl_certificate_key {site.file('key.pem')}; location / {{ return 200 hello; }} }} }}"
    )
    with trio.fail_after(15):
        async with listening_on(port, command, "-c", str(config), "-p", str(site.directory)):
            page = await fetch(site, port)

    assert page.startswith(b"HTTP/1.1 200 OK\r\n")
    assert page.endswith(b"hello")


async def test_haproxy_stands_between_our_client_and_our_server(site: Site) -> None:
    """It takes TLS from the one and speaks TLS to the other."""
    command, port = peer_command("haproxy"), unused_port()
    async with served(site, answer_http) as (server, _):
        config = site.directory / "haproxy.cfg"
        config.write_text(
            "defaults\n  mode http\n  timeout connect 5s\n  timeout client 5s\n  timeout server 5s\n"
            f"frontend in\n  bind {HOST}:{port} ssl crt {site.file('both.pem')}\n  default_backend out\n"
            f"backend out\n  server one {HOST}:{server.server_port()} ssl ca-file {site.file('ca.pem')} "
            "verifyhost localhost verify required\n"
        )
        async with listening_on(port, command, "-f", str(config)):
            page = await fetch(site, port)

    assert page.startswith(b"HTTP/1.1 200 OK\r\n")
    assert page.endswith(b"hello\n")


# ---- Qt ----------------------------------------------------------------------------------------

QT_PEER = str(Path(__file__).with_name("qt_tls_peer.py"))


async def test_qts_client_gets_its_lines_back(site: Site) -> None:
    """A QSslSocket that trusts our authority: TLS 1.3, a line there and back, a clean end."""
    python = peer_module("PySide6.QtNetwork")
    async with served(site, echo) as (server, endings):
        async with running(python, QT_PEER, "connect", str(server.server_port()), site.file("ca.pem")) as program:
            encrypted = await program.out.line()
            await program.say("hello")
            received = await program.out.line()
            await program.stdin.aclose()
            await until(lambda: bool(endings))

    assert encrypted.startswith("encrypted TlsV1_3")
    assert received == "received hello"
    assert endings == [None]


async def test_our_client_talks_to_qts_server(site: Site) -> None:
    """A QSslServer says back what comes; our end is a goodbye to it."""
    python = peer_module("PySide6.QtNetwork")
    with trio.fail_after(15):
        async with running(python, QT_PEER, "listen", site.file("cert.pem"), site.file("key.pem")) as program:
            port = int(await program.out.line())
            async with SslSocket(context=site.client) as sock:
                await sock.connect_to_host_encrypted(HOST, port, server_hostname="localhost")
                await sock.send_all(b"hello\n")
                assert await sock.receive_line() == b"hello\n"
            told = await program.out.line()

    assert told == "error RemoteHostClosedError"


# ---- STARTTLS ----------------------------------------------------------------------------------


async def test_swaks_sends_a_mail_by_starttls(site: Site) -> None:
    """An SMTP-like server of twenty lines, plain at first."""
    command = peer_command("swaks")
    heard: list[tuple[bool, bytes]] = []

    async def smtp(sock: SslSocket) -> None:
        sock.write(b"220 localhost\r\n")
        async for line in sock.lines():
            heard.append((sock.is_encrypted(), line.split()[0].upper()))
            match heard[-1][1]:
                case b"EHLO":
                    sock.write(
                        b"250-localhost\r\n250 STARTTLS\r\n" if not sock.is_encrypted() else b"250 localhost\r\n"
                    )
                case b"STARTTLS":
                    sock.write(b"220 go ahead\r\n")
                    await sock.start_server_encryption()
                case b"DATA":
                    sock.write(b"354 go on\r\n")
                    await sock.receive_until(b"\r\n.\r\n")
                    sock.write(b"250 taken\r\n")
                case b"QUIT":
                    sock.write(b"221 bye\r\n")
                    return
                case _:
                    sock.write(b"250 fine\r\n")

    with trio.fail_after(15):
        async with TcpServer(lambda: SslSocket(context=site.server)) as server, trio.open_nursery() as nursery:
            await server.listen(HOST)
            await nursery.start(server.serve, smtp)
            sent = await run_to_its_end(
                *(command, "--server", f"{HOST}:{server.server_port()}", "--tls", "--helo", "localhost"),
                *("--from", "a@localhost", "--to", "b@localhost", "--tls-ca-path", site.file("ca.pem")),
                "--tls-verify",
            )
            nursery.cancel_scope.cancel()

    words = [word for _, word in heard]
    assert (sent.returncode, sent.stderr) == (0, b"")
    assert words == [b"EHLO", b"STARTTLS", b"EHLO", b"MAIL", b"RCPT", b"DATA", b"QUIT"]
    assert [encrypted for encrypted, _ in heard] == [False, False, True, True, True, True, True]
