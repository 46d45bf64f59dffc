"""Real proxies on the way: what their authors think that SOCKS5 and HTTP are, and what curl and Qt think of ours."""

from __future__ import annotations

import hashlib
import os
import ssl
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trio
import trustme

from tests.networks import Loopback
from tests.peers import peer_command, peer_module
from tests.real_peers.programs import ROOT, random_bytes, run_to_its_end, running
from tests.real_peers.proxies import (
    REALM,
    Starts,
    danted,
    haproxy,
    microsocks,
    squid,
    squid_digest,
    tinyproxy,
)
from trioqt import (
    ErrorKind,
    HostAddress,
    NetworkProxy,
    ProxyKind,
    SocketError,
    SslServer,
    SslSocket,
    TcpServer,
    TcpSocket,
    UdpSocket,
)

LOCAL = HostAddress("127.0.0.1")
BIG = random_bytes(1_000_000)

EACH = pytest.mark.parametrize("proxy", [microsocks, danted, tinyproxy, squid], ids=lambda start: start.__name__)
WITH_PASSWORDS = pytest.mark.parametrize(
    "proxy", [microsocks, tinyproxy, squid, squid_digest], ids=lambda start: start.__name__
)

# `nox -s soak` sets it.
CONNECTIONS = 10_000 if "TRIOQT_SOAK" in os.environ else 200


async def digest(sock: TcpSocket) -> None:
    """A server that is told a length, and answers the digest of so many bytes."""
    heard = hashlib.sha256()
    left = int(await sock.receive_line())
    while left and (chunk := await sock.receive_some()):
        heard.update(chunk)
        left -= len(chunk)
    await sock.send_all(heard.digest())
    assert await sock.receive_some() == b""


@asynccontextmanager
async def digesting(server: TcpServer[Any] | None = None) -> AsyncIterator[int]:
    """It listens on both families; its port."""
    async with server or TcpServer() as served, trio.open_nursery() as nursery:
        await served.listen(HostAddress.ANY)
        await nursery.start(served.serve, digest)
        yield served.server_port()
        nursery.cancel_scope.cancel()


async def must_carry(sock: TcpSocket, data: bytes = BIG) -> None:
    """Data there, the answer back, and the end."""
    await sock.send_all(b"%d\n" % len(data))
    await sock.send_all(data)
    assert await sock.receive_exactly(32) == hashlib.sha256(data).digest()
    await sock.send_eof()
    assert await sock.receive_some() == b""


@EACH
@pytest.mark.parametrize("host", ["127.0.0.1", "::1", "localhost"])
async def test_a_megabyte_goes_through_each_proxy_by_address_and_by_name(
    network: Loopback, proxy: Starts, host: str
) -> None:
    """Nothing is lost, doubled or swapped, and the end of one comes to the other."""
    with trio.fail_after(60):
        async with proxy("", "") as real, digesting() as port, TcpSocket() as sock:
            sock.set_proxy(real.proxy)
            await sock.connect_to_host(host, port)
            assert sock.peer_address() == HostAddress(host if host != "localhost" else "")
            await must_carry(sock)


async def test_danted_and_ours_carry_each_end_by_itself(network: Loopback) -> None:
    """A client that has finished still gets its answer; the others end both directions at once."""

    async def answer_the_end(sock: TcpSocket) -> None:
        heard = b"".join([chunk async for chunk in sock])
        await sock.send_all(b"answer to " + heard)

    with trio.fail_after(60):
        async with danted() as real, our_proxy() as ours, TcpServer() as server, trio.open_nursery() as nursery:
            await server.listen("127.0.0.1")
            await nursery.start(server.serve, answer_the_end)
            for proxy in (real.proxy, NetworkProxy(ProxyKind.SOCKS5, "127.0.0.1", ours)):
                async with TcpSocket() as sock:
                    sock.set_proxy(proxy)
                    await sock.connect_to_host("127.0.0.1", server.server_port())
                    await sock.send_all(b"question")
                    await sock.send_eof()
                    assert await sock.receive_exactly(18) == b"answer to question"
            nursery.cancel_scope.cancel()


@EACH
async def test_a_host_that_refuses_is_told_as_that(network: Loopback, proxy: Starts) -> None:
    """With an HTTP proxy as 503, where it says so: tinyproxy says 500, which has no kind of its own in Qt's table."""
    with trio.fail_after(60):
        async with proxy("", "") as real, TcpSocket() as sock:
            sock.set_proxy(real.proxy)
            with pytest.raises(SocketError) as caught:
                await sock.connect_to_host("127.0.0.1", await network.unused_port())

    expected = ErrorKind.PROXY_PROTOCOL if proxy is tinyproxy else ErrorKind.CONNECTION_REFUSED
    assert caught.value.kind is expected


@WITH_PASSWORDS
async def test_the_right_password_opens_each_proxy(network: Loopback, proxy: Starts) -> None:
    """Given before, or by who is asked after a wrong one."""
    asked: list[str] = []

    async def know(there: NetworkProxy, realm: str) -> tuple[str, str]:
        asked.append(realm)
        return "user", "secret"

    with trio.fail_after(60):
        async with proxy("user", "secret") as real, digesting() as port:
            for password in ("secret", "wrong"):
                there = real.proxy
                async with TcpSocket() as sock:
                    sock.set_proxy(NetworkProxy(there.kind, there.host, there.port, "user", password))
                    sock.set_proxy_authenticator(know)
                    await sock.connect_to_host("localhost", port)
                    await must_carry(sock, b"hello")

    realms = {microsocks: "", squid: REALM, squid_digest: REALM, tinyproxy: "Tinyproxy"}
    assert asked == [realms[proxy]]  # type: ignore[index]


@WITH_PASSWORDS
async def test_a_wrong_password_opens_none(network: Loopback, proxy: Starts) -> None:
    with trio.fail_after(60):
        async with proxy("user", "secret") as real, TcpSocket() as sock:
            there = real.proxy
            for user, password in (("", ""), ("user", "wrong")):
                sock.set_proxy(NetworkProxy(there.kind, there.host, there.port, user, password))
                with pytest.raises(SocketError) as caught:
                    await sock.connect_to_host("localhost", 1)
                assert caught.value.kind is ErrorKind.PROXY_AUTHENTICATION_REQUIRED


@EACH
async def test_tls_to_the_host_goes_through_each_proxy(network: Loopback, proxy: Starts) -> None:
    server, client = tls_for(trustme.CA(), "localhost")
    with trio.fail_after(60):
        async with (
            proxy("", "") as real,
            digesting(SslServer(server)) as port,
            SslSocket(context=client) as sock,
        ):
            sock.set_proxy(real.proxy)
            await sock.connect_to_host_encrypted("localhost", port)
            await must_carry(sock)


def tls_for(authority: trustme.CA, name: str) -> tuple[ssl.SSLContext, ssl.SSLContext]:
    """A server with a certificate for that name, and a client that trusts who issued it."""
    server, client = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH), ssl.create_default_context()
    authority.issue_cert(name).configure_cert(server)
    authority.configure_trust(client)
    return server, client


async def test_tls_to_the_proxy_with_haproxy_in_front_of_another(network: Loopback) -> None:
    """And TLS to the host inside of it."""
    authority = trustme.CA()
    server, client = tls_for(authority, "localhost")
    leaf = authority.issue_cert("localhost")
    pem = (leaf.private_key_pem.bytes() + leaf.cert_chain_pems[0].bytes()).decode()
    with trio.fail_after(60):
        async with (
            tinyproxy("user", "secret") as plain,
            haproxy(pem, client, plain.proxy) as real,
            digesting(SslServer(server)) as port,
            SslSocket(context=client) as sock,
        ):
            sock.set_proxy(real.proxy)
            await sock.connect_to_host_encrypted("localhost", port)
            await must_carry(sock)


async def test_a_chain_of_real_proxies(network: Loopback) -> None:
    """SOCKS5, then HTTP, then SOCKS5 again."""
    with trio.fail_after(60):
        async with (
            microsocks("one", "1") as first,
            squid("two", "2") as second,
            danted() as third,
            digesting() as port,
            TcpSocket() as sock,
        ):
            way = NetworkProxy(ProxyKind.HTTP, "localhost", second.proxy.port, "two", "2", via=first.proxy)
            sock.set_proxy(NetworkProxy(ProxyKind.SOCKS5, "127.0.0.1", third.proxy.port, via=way))
            await sock.connect_to_host("localhost", port)
            await must_carry(sock)


@EACH
async def test_a_proxy_that_is_killed_ends_the_connection(network: Loopback, proxy: Starts) -> None:
    """As a host that vanishes; what had arrived can be read."""
    with trio.fail_after(60), await network.raw_listener() as listener:
        async with proxy("", "") as real, TcpSocket() as sock:
            sock.set_proxy(real.proxy)
            await sock.connect_to_host("127.0.0.1", listener.port)
            with await listener.accept() as peer:
                await peer.send(b"last words")
                assert await sock.receive_exactly(10) == b"last words"
                real.program.kill()
                with pytest.raises(SocketError) as caught:
                    await sock.receive_exactly(1)
                    await sock.send_all(b"x")

    assert caught.value.kind is ErrorKind.REMOTE_HOST_CLOSED


async def test_a_real_proxy_listens_for_us(network: Loopback) -> None:
    """BIND: danted checks who may come, so it is told."""
    with trio.fail_after(60):
        async with danted() as real, TcpServer() as server:
            server.set_proxy(real.proxy)
            await server.listen(HostAddress.ANY_IPV4)
            with await network.raw_connect(server.server_port()) as peer:
                await peer.send(b"hi")
                async with await server.accept() as sock:
                    assert await sock.receive_exactly(2) == b"hi"
                    assert sock.peer_port() == peer.sock.getsockname()[1]


async def test_a_real_proxy_carries_datagrams(network: Loopback) -> None:
    """UDP ASSOCIATE, by address and by name, with the host as the sender."""
    with trio.fail_after(60):
        async with danted() as real, UdpSocket() as far, UdpSocket() as sock:
            await far.bind("127.0.0.1")
            port = far.local_port()
            sock.set_proxy(real.proxy)
            await sock.bind()
            for host in ("127.0.0.1", "localhost"):
                await sock.send_datagram(b"question", host, port)
                question = await far.receive_datagram()
                await far.send_datagram(question.make_reply(b"answer"))
                answer = await sock.receive_datagram()
                assert (answer.data, answer.sender_address, answer.sender_port) == (b"answer", LOCAL, port)
            real.program.kill()
            with pytest.raises(SocketError) as caught:
                await sock.receive_datagram()

    assert caught.value.kind is ErrorKind.PROXY_CONNECTION_CLOSED


# ---- ours ----------------------------------------------------------------------------------


@asynccontextmanager
async def our_proxy() -> AsyncIterator[int]:
    """The SOCKS5 server of the example, on a port of its own."""
    path = ROOT / "examples" / "socks5_server.py"
    names: dict[str, object] = {"__name__": "socks5_server"}
    exec(compile(path.read_text(), str(path), "exec"), names)
    async with TcpServer() as server, trio.open_nursery() as nursery:
        await server.listen("127.0.0.1")
        await nursery.start(server.serve, names["serve"])
        yield server.server_port()
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize("scheme", ["socks5", "socks5h"])
@pytest.mark.parametrize("host", ["127.0.0.1", "[::1]", "localhost"])
async def test_curl_goes_through_our_proxy(network: Loopback, scheme: str, host: str) -> None:
    """It looks the name up, or leaves that to us."""

    async def answer(sock: TcpSocket) -> None:
        await sock.receive_until(b"\r\n\r\n")
        await sock.send_all(b"HTTP/1.0 200 OK\r\n\r\n" + BIG)

    curl = peer_command("curl")
    with trio.fail_after(60):
        async with our_proxy() as proxy, TcpServer() as server, trio.open_nursery() as nursery:
            await server.listen(HostAddress.ANY)
            await nursery.start(server.serve, answer)
            through = ("--noproxy", "", "--proxy", f"{scheme}://127.0.0.1:{proxy}")
            url = f"http://{host}:{server.server_port()}/"
            fetched = await run_to_its_end(curl, "-q", "-sS", "--globoff", *through, url)
            nursery.cancel_scope.cancel()

    assert (fetched.returncode, fetched.stderr) == (0, b"")
    assert hashlib.sha256(fetched.stdout).digest() == hashlib.sha256(BIG).digest()


QT_CLIENT = """
import sys
from PySide6.QtCore import QCoreApplication
from PySide6.QtNetwork import QNetworkProxy, QTcpSocket

application = QCoreApplication([])
sock = QTcpSocket()
sock.setProxy(QNetworkProxy(QNetworkProxy.ProxyType.Socks5Proxy, "127.0.0.1", int(sys.argv[1])))
sock.connectToHost(sys.argv[2], int(sys.argv[3]))
assert sock.waitForConnected(10000), sock.errorString()
sock.write(b"question\\n")
while not sock.canReadLine():
    assert sock.waitForReadyRead(10000), sock.errorString()
print(bytes(sock.readLine()).decode(), sock.peerName(), end="")
sock.disconnectFromHost()
"""


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
async def test_qt_goes_through_our_proxy(network: Loopback, host: str) -> None:
    """QTcpSocket with QNetworkProxy."""

    async def answer(sock: TcpSocket) -> None:
        async for line in sock.lines():
            await sock.send_all(b"answer to " + line)

    python = peer_module("PySide6.QtNetwork")
    with trio.fail_after(60):
        async with our_proxy() as proxy, TcpServer() as server, trio.open_nursery() as nursery:
            await server.listen(HostAddress.ANY)
            await nursery.start(server.serve, answer)
            arguments = (str(proxy), host, str(server.server_port()))
            done = await run_to_its_end(python, "-c", QT_CLIENT, *arguments)
            nursery.cancel_scope.cancel()

    assert (done.returncode, done.stdout.decode(), done.stderr.decode()) == (0, f"answer to question\n {host}", "")


async def test_many_connections_through_our_proxy_leave_nothing(network: Loopback) -> None:
    """Ten thousand in the soak; fifty at a time, and every descriptor is given back."""
    with trio.fail_after(600):
        async with our_proxy() as proxy, digesting() as port:
            there = NetworkProxy(ProxyKind.SOCKS5, "127.0.0.1", proxy)

            async def come_and_go(count: int) -> None:
                for number in range(count):
                    async with TcpSocket() as sock:
                        sock.set_proxy(there)
                        await sock.connect_to_host("127.0.0.1", port)
                        await must_carry(sock, b"%d" % number)

            await come_and_go(1)
            before = network.open_descriptors()
            async with trio.open_nursery() as nursery:
                for _ in range(50):
                    nursery.start_soon(come_and_go, CONNECTIONS // 50)
            with trio.fail_after(20):
                while network.open_descriptors() - before:
                    await trio.lowlevel.checkpoint()


async def test_the_command_that_serves_is_one_that_curl_can_use(network: Loopback) -> None:
    """``trioqt serve socks5``, as a process."""

    async def answer(sock: TcpSocket) -> None:
        await sock.receive_until(b"\r\n\r\n")
        await sock.send_all(b"HTTP/1.0 200 OK\r\n\r\nhello\n")

    curl = peer_command("curl")
    with trio.fail_after(60):
        async with (
            running(sys.executable, "-m", "trioqt", "serve", "socks5") as program,
            TcpServer() as server,
            trio.open_nursery() as nursery,
        ):
            proxy = (await program.out.line()).removeprefix("listening on ")
            await server.listen("127.0.0.1")
            await nursery.start(server.serve, answer)
            url = f"http://127.0.0.1:{server.server_port()}/"
            fetched = await run_to_its_end(curl, "-q", "-sS", "--noproxy", "", "--proxy", f"socks5h://{proxy}", url)
            nursery.cancel_scope.cancel()

    assert (fetched.returncode, fetched.stdout, fetched.stderr) == (0, b"hello\n", b"")
