"""Whole programs of other people's libraries, client and server, over links that are long and lose, five seeds each."""

from __future__ import annotations

import socket
import ssl
from collections.abc import Callable
from typing import Any

import anyio
import anyio.abc
import dns.asyncresolver
import dns.exception
import dns.message
import dns.rrset
import httpx
import hypercorn
import hypercorn.trio
import pytest
import trio
import trio.testing
import trustme
from anyio.streams.tls import TLSStream
from hypercorn.typing import ASGIReceiveCallable, ASGISendCallable, Scope
from OpenSSL import SSL

from trioqt.testing import VirtualNetwork, simulate

SEEDS = range(5)


def lost(net: VirtualNetwork) -> int:
    """Packets that a link has lost."""
    return sum(event.kind == "lost" for event in net.trace())


def over_bad_links(main: Callable[[VirtualNetwork], Any]) -> None:
    """Each seed for itself, and in one of them at least something was lost."""
    losses: list[int] = []

    async def counted(net: VirtualNetwork) -> None:
        await main(net)
        losses.append(lost(net))

    simulate(counted, seeds=SEEDS, latency=0.05, loss=0.05)
    assert len(losses) == len(SEEDS)
    assert sum(losses) > 0


# ---- httpx and hypercorn --------------------------------------------------------------------------


async def shout(scope: Scope, receive: ASGIReceiveCallable, send: ASGISendCallable) -> None:
    """Gives back what is posted, in capital letters, and who asks."""
    assert scope["type"] == "http"
    body, more = b"", True
    while more:
        event: Any = await receive()
        body += event["body"]
        more = event["more_body"]
    client = scope["client"]
    assert client is not None
    await send({"type": "http.response.start", "status": 200, "headers": [(b"x-client", client[0].encode())]})
    await send({"type": "http.response.body", "body": body.upper(), "more_body": False})


def test_httpx_and_hypercorn() -> None:
    """The server is started as its documentation says, with sockets of its own, and stopped by its trigger."""

    async def main(net: VirtualNetwork) -> None:
        config = hypercorn.Config()
        config.bind = ["0.0.0.0:80"]
        config.accesslog = config.errorlog = None
        stop = trio.Event()

        async def serve() -> None:
            await hypercorn.trio.serve(shout, config, shutdown_trigger=stop.wait)

        async with trio.open_nursery() as nursery:
            with net.host("web"):
                nursery.start_soon(serve)
            await trio.testing.wait_all_tasks_blocked()
            with net.host("client"):
                async with httpx.AsyncClient(timeout=60) as client:
                    for number in range(10):
                        answer = await client.post("http://web/", content=f"hello {number}" * 1000)
                        assert answer.text == f"HELLO {number}" * 1000
                        assert answer.headers["x-client"] == "10.0.0.3"
            stop.set()

    over_bad_links(main)


# ---- anyio ----------------------------------------------------------------------------------------


def test_a_client_and_a_server_of_anyio_with_tls() -> None:
    """Listener, TLS and extra attributes, as a client of a database asks for them before it sets its options."""
    ca = trustme.CA(key_type=trustme.KeyType.RSA)

    async def main(net: VirtualNetwork) -> None:
        servers, clients = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH), ssl.create_default_context()
        ca.issue_cert("server").configure_cert(servers)
        ca.configure_trust(clients)

        async def answer(stream: anyio.abc.SocketStream) -> None:
            async with await TLSStream.wrap(stream, server_side=True, ssl_context=servers) as secure:
                async for data in secure:
                    await secure.send(data[::-1])

        async with anyio.create_task_group() as group:
            with net.host("server"):
                listener = await anyio.create_tcp_listener(local_host="0.0.0.0", local_port=6379)
                group.start_soon(listener.serve, answer)
            with net.host("client"):
                async with await anyio.connect_tcp("server", 6379, ssl_context=clients, tls=True) as stream:
                    raw = stream.extra(anyio.abc.SocketAttribute.raw_socket)
                    raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                    assert stream.extra(anyio.abc.SocketAttribute.remote_port) == 6379
                    for _ in range(20):
                        await stream.send(b"abc")
                        assert await stream.receive() == b"cba"
            group.cancel_scope.cancel()
        await listener.aclose()

    over_bad_links(main)


# ---- dnspython ------------------------------------------------------------------------------------


async def name_server(address: str, *, task_status: trio.TaskStatus[None]) -> None:
    """Every name has that address."""
    with trio.socket.socket(type=socket.SOCK_DGRAM) as sock:
        await sock.bind(("0.0.0.0", 53))
        task_status.started()
        while True:
            data, client = await sock.recvfrom(1500)
            question = dns.message.from_wire(data)
            answer = dns.message.make_response(question)
            answer.answer.append(dns.rrset.from_text(question.question[0].name, 60, "IN", "A", address))
            await sock.sendto(answer.to_wire(), client)


def test_dnspython_gives_up_behind_a_partition_and_asks_again() -> None:
    """Its lifetime of five seconds ends after five, however many it loses; afterwards it has its answer."""

    async def main(net: VirtualNetwork) -> None:
        async with trio.open_nursery() as nursery:
            with net.host("ns"):
                await nursery.start(name_server, "192.0.2.7")
            with net.host("client"):
                resolver = dns.asyncresolver.Resolver(configure=False)
                resolver.nameservers = ["10.0.0.2"]
                with net.partition("client", "ns"):
                    begun = trio.current_time()
                    with pytest.raises(dns.exception.Timeout):
                        await resolver.resolve("host.example.", "A", lifetime=5)
                    assert 5 <= trio.current_time() - begun < 6
                answers = [await resolver.resolve(f"h{number}.example.", "A", lifetime=30) for number in range(20)]
                assert [str(record) for answer in answers for record in answer] == ["192.0.2.7"] * 20
            nursery.cancel_scope.cancel()

    over_bad_links(main)


# ---- DTLS -----------------------------------------------------------------------------------------


def test_dtls_is_up_again_after_a_crash_of_its_server() -> None:
    """trio.DTLSEndpoint at both ends; what is lost is asked again, and after the crash with a new handshake."""
    ca = trustme.CA(key_type=trustme.KeyType.RSA)
    cert = ca.issue_cert("server")

    async def echo(channel: trio.DTLSChannel) -> None:
        async for data in channel:
            await channel.send(data.upper())

    async def serve(*, task_status: trio.TaskStatus[None]) -> None:
        context = SSL.Context(SSL.DTLS_METHOD)
        cert.configure_cert(context)
        sock = trio.socket.socket(type=socket.SOCK_DGRAM)
        await sock.bind(("0.0.0.0", 4433))
        with trio.DTLSEndpoint(sock) as endpoint:
            async with trio.open_nursery() as inner:
                await inner.start(endpoint.serve, context, echo)
                task_status.started()

    async def ask(question: bytes) -> bytes:
        context = SSL.Context(SSL.DTLS_METHOD)
        ca.configure_trust(context)
        while True:
            with trio.DTLSEndpoint(trio.socket.socket(type=socket.SOCK_DGRAM)) as endpoint:
                with trio.move_on_after(20):
                    channel = endpoint.connect(("10.0.0.2", 4433), context)
                    await channel.do_handshake()
                    for _ in range(10):
                        await channel.send(question)
                        with trio.move_on_after(1):
                            return await channel.receive()

    async def main(net: VirtualNetwork) -> None:
        async with trio.open_nursery() as nursery:
            await nursery.start(net.run_on, "server", serve)
            with net.host("client"):
                assert await ask(b"before") == b"BEFORE"
                with net.crash("server"):
                    await trio.sleep(1)
                assert await ask(b"afterwards") == b"AFTERWARDS"
            assert [event.kind for event in net.trace() if event.kind in ("crash", "restart")] == ["crash", "restart"]
            nursery.cancel_scope.cancel()

    over_bad_links(main)
