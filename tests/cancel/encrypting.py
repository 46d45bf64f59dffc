"""A handshake that was cancelled leaves no connection, and one that was not is whole."""

from __future__ import annotations

import functools
import ssl
from collections.abc import Callable
from typing import Any

import trio

from tests.cancel.kit import (
    GOOD,
    Case,
    SecurePeer,
    Seen,
    Situation,
    SocketPeer,
    Trial,
    hand_over,
    listen_now,
    recording,
    secrets,
    turn,
)
from trioqt import SocketError, SocketState, SslServer, SslSocket

__all__ = ["CASES"]

NAME = "peer.example"


async def shake_hands(peer: SocketPeer, context: ssl.SSLContext, *, server_side: bool) -> SecurePeer:
    """The other end does its handshake.  Raises: OSError: there was none."""
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    name = None if server_side else NAME
    tls = context.wrap_bio(incoming, outgoing, server_side=server_side, server_hostname=name)
    while True:
        try:
            tls.do_handshake()
        except ssl.SSLWantReadError:
            await peer.send(outgoing.read())
            data = await peer.receive()
            incoming.write(data) if data else incoming.write_eof()
        else:
            await peer.send(outgoing.read())
            return SecurePeer(peer.sock, tls, incoming, outgoing)


async def answer(sock: trio.socket.SocketType, ending: str) -> None:
    """One connection of the server at the other end: it says back what comes, or ends within the handshake."""
    peer = SocketPeer(sock)
    try:
        if ending:
            await peer.receive()
            getattr(peer, ending)()
            return
        secure = await shake_hands(peer, secrets().server, server_side=True)
        while data := await secure.receive():
            await secure.send(data)
        secure.close()
    except OSError:
        pass
    finally:
        peer.close()


async def answer_all(trial: Trial, listener: trio.socket.SocketType, endings: list[str]) -> None:
    """The first connections end so; those after them are served."""
    while True:
        sock, _ = await listener.accept()
        trial.nursery.start_soon(answer, sock, endings.pop() if endings else "")


def ssl_socket(trial: Trial, **options: Any) -> SslSocket:
    sock = recording(SslSocket)(**options)
    trial.sockets.append(sock)
    assert isinstance(sock, SslSocket)
    return sock


async def expect_echo(trial: Trial, sock: SslSocket) -> None:
    trial.expect(sock.is_encrypted(), "it is encrypted")
    await sock.send_all(b"hello")
    trial.equal("what comes back", await sock.receive_exactly(5), b"hello")


def client(verb: str, endings: tuple[str, ...] = (), *, second: bool = False) -> Callable[[Trial], Any]:
    """Connect and encrypt, with the handshake done by ``connect_to_host_encrypted`` or apart from it."""

    async def play(trial: Trial) -> None:
        left = list(endings)
        with listen_now(GOOD) as listener:
            port = listener.getsockname()[1]
            async with trio.open_nursery() as servers, ssl_socket(trial, context=secrets().client) as sock:
                servers.start_soon(answer_all, trial, listener, left)
                async with trio.open_nursery() as others:
                    if second:
                        others.start_soon(notice, sock)
                    try:
                        await encrypt(trial, sock, port)
                    except (SocketError, trio.ClosedResourceError) as exc:
                        trial.expect(endings, f"it is not refused: {exc!r}")
                    if trial.cancelled and verb != "wait_for_encrypted":
                        trial.equal("the state", sock.state(), SocketState.UNCONNECTED)
                    if sock.state() is not SocketState.CONNECTED:
                        left.clear()
                        await sock.connect_to_host_encrypted(GOOD, port, server_hostname=NAME)
                    await sock.wait_for_encrypted()
                    await expect_echo(trial, sock)
                    others.cancel_scope.cancel()
                await sock.aclose()
                servers.cancel_scope.cancel()

    async def notice(sock: SslSocket) -> None:
        """A second task waits for the same."""
        while True:
            await turn()
            try:
                await sock.wait_for_encrypted()
                await sock.wait_for_disconnected()
            except (SocketError, trio.ClosedResourceError):
                pass

    async def encrypt(trial: Trial, sock: SslSocket, port: int) -> None:
        whole = functools.partial(sock.connect_to_host_encrypted, server_hostname=NAME)
        if verb == "connect_to_host_encrypted":
            await trial.call(whole, GOOD, port)
        elif verb == "start_client_encryption":
            await sock.connect_to_host(GOOD, port)
            await trial.call(functools.partial(sock.start_client_encryption, server_hostname=NAME))
        else:
            failure: SocketError | None = None
            async with trio.open_nursery() as nursery:
                nursery.start_soon(quietly, whole, port)
                await turn()
                try:
                    await trial.call(sock.wait_for_encrypted)
                except SocketError as exc:
                    failure = exc
            if failure is not None:
                raise failure

    async def quietly(whole: Any, port: int) -> None:
        try:
            await whole(GOOD, port)
        except SocketError:
            pass

    return play


def server_end(endings: tuple[str, ...] = (), *, second: bool = False) -> Callable[[Trial], Any]:
    """STARTTLS at the server's end."""

    async def play(trial: Trial) -> None:
        async with ssl_socket(trial, context=secrets().server) as sock:
            with listen_now(GOOD) as listener:
                theirs = trio.socket.socket()
                await theirs.connect(listener.getsockname())
                ours, _ = await listener.accept()
                hand_over(sock, ours)
            peer = SocketPeer(theirs)
            trial.nursery.start_soon(ask, peer, endings)
            if second:
                trial.nursery.start_soon(wait_for_end, sock)
            try:
                await trial.call(sock.start_server_encryption)
            except (SocketError, trio.ClosedResourceError) as exc:
                trial.expect(endings, f"it is not refused: {exc!r}")
            if trial.cancelled:
                trial.equal("the state", sock.state(), SocketState.UNCONNECTED)
            elif sock.state() is SocketState.CONNECTED:
                trial.equal("what the client says", await sock.receive_exactly(5), b"hello")

    async def ask(peer: SocketPeer, endings: tuple[str, ...]) -> None:
        try:
            if endings:
                await turn()
                getattr(peer, endings[0])()
                return
            secure = await shake_hands(peer, secrets().client, server_side=False)
            await secure.send(b"hello")
            while await secure.receive():
                pass
        except OSError:
            pass
        finally:
            peer.close()

    async def wait_for_end(sock: SslSocket) -> None:
        await sock.wait_for_disconnected()

    return play


def serve(endings: tuple[str, ...] = (), *, at_once: bool = False) -> Callable[[Trial], Any]:
    """A server at work, cancelled: each client is served whole, or ended."""

    async def play(trial: Trial) -> None:
        async def handler(sock: SslSocket) -> None:
            trial.expect(sock.is_encrypted(), "a handler's socket is encrypted")
            async for chunk in sock:
                await sock.send_all(chunk)

        async with SslServer(secrets().server, functools.partial(ssl_socket, trial)) as server:
            await server.listen(GOOD)
            async with trio.open_nursery() as clients:
                clients.start_soon(ask, trial, server, endings)
                if at_once:
                    await turn()
                await trial.call(server.serve, handler)
            trial.equal("connections left", server.connection_count(), 0)

    async def ask(trial: Trial, server: SslServer[SslSocket], endings: tuple[str, ...]) -> None:
        await turn()
        if not server.is_listening():
            return
        theirs = trio.socket.socket()
        peer = SocketPeer(theirs)
        try:
            await theirs.connect((GOOD, server.server_port()))
            if endings:
                getattr(peer, endings[0])()
            else:
                secure = await shake_hands(peer, secrets().client, server_side=False)
                await secure.send(b"hello")
                got = await secure.receive()
                trial.expect(b"hello".startswith(got), "the answer is whole")
        except OSError:
            pass
        finally:
            peer.close()
            await turn(2)
            server.close()

    return play


async def converse(server: SslServer[SslSocket], ending: str, seen: Seen) -> None:
    """A client that says hello and hears it back; or that ends within the handshake."""
    theirs = trio.socket.socket()
    peer = SocketPeer(theirs)
    try:
        await theirs.connect((GOOD, server.server_port()))
        if ending:
            await turn()
            getattr(peer, ending)()
            return
        secure = await shake_hands(peer, secrets().client, server_side=False)
        await secure.send(b"hello")
        while data := await secure.receive():
            seen.data += data
            secure.finish()
        seen.end = "clean"
    except OSError:
        seen.end = "reset"
    finally:
        peer.close()
        seen.over.set()


def take(endings: tuple[str, ...] = (), *, at_once: bool = False, second: bool = False) -> Callable[[Trial], Any]:
    """Without ``serve`` the server does the handshakes: whoever is encrypted is taken once, whatever was cancelled."""

    async def play(trial: Trial) -> None:
        async with SslServer(secrets().server, functools.partial(ssl_socket, trial)) as server:
            await server.listen(GOOD)
            async with trio.open_nursery() as clients:
                for ending in endings:
                    clients.start_soon(converse, server, ending, Seen())
                seen = Seen()
                clients.start_soon(converse, server, "", seen)
                if second:
                    clients.start_soon(server.wait_for_new_connection)
                if at_once:
                    await server.wait_for_new_connection()
                sock = await trial.call(server.accept) or await server.accept()
                async with sock:
                    trial.expect(sock.is_encrypted(), "it is encrypted")
                    data = await sock.receive_exactly(5)
                    await sock.send_all(data)
                await seen.over.wait()
                clients.cancel_scope.cancel()  # the second task may wait for one more
            await turn()
            trial.equal("what the client heard", (bytes(seen.data), seen.end), (b"hello", "clean"))
            trial.equal("connections left", server.connection_count(), 0)

    return play


def drain(*, style: str, endings: tuple[str, ...] = ()) -> Callable[[Trial], Any]:
    """Who is in the middle of the handshake is served to the end, unless it is cancelled: then all ends at once."""

    async def play(trial: Trial) -> None:
        async with SslServer(secrets().server, functools.partial(ssl_socket, trial)) as server:
            await server.listen(GOOD)
            async with trio.open_nursery() as others:
                others.start_soon(run, server)
                seens = [Seen() for _ in range(2)]
                for number, seen in enumerate(seens):
                    others.start_soon(converse, server, (*endings, "", "")[number], seen)
                await turn()
                await trial.call(server.drain, 60.0)
                if not server.is_draining():
                    trial.expect(trial.cancelled, "it drains unless it is cancelled before")
                    server.close()
            trial.equal("connections left", server.connection_count(), 0)
            for seen in seens[len(endings) :]:
                view = (bytes(seen.data), seen.end)
                if trial.probe.injected:
                    trial.expect(
                        view in ((b"hello", "clean"), (b"", "clean"), (b"", "reset"), (b"hello", "reset")), f"{view}"
                    )
                else:
                    trial.equal("what a client heard", view, (b"hello", "clean"))

    async def run(server: SslServer[SslSocket]) -> None:
        if style == "serve":
            await server.serve(echo)
            return
        async with trio.open_nursery() as nursery:
            async for sock in server:
                nursery.start_soon(echo_in_block, sock)

    async def echo(sock: SslSocket) -> None:
        async for chunk in sock:
            await sock.send_all(chunk)

    async def echo_in_block(sock: SslSocket) -> None:
        async with sock:
            try:
                await echo(sock)
            except (SocketError, trio.ClosedResourceError):
                pass  # it was cut

    return play


def _cases() -> list[Case]:
    cases = []
    for verb in ("connect_to_host_encrypted", "start_client_encryption", "wait_for_encrypted"):
        plays: list[tuple[Situation, Any]] = [
            ("has to wait", client(verb)),
            ("peer finishes", client(verb, ("finish",))),
            ("peer resets", client(verb, ("reset",))),
            ("second task", client(verb, second=True)),
        ]
        cases += [Case(f"SslSocket.{verb}", situation, play, "tls") for situation, play in plays]
    server_plays: list[tuple[Situation, Any]] = [
        ("has to wait", server_end()),
        ("peer finishes", server_end(("finish",))),
        ("peer resets", server_end(("reset",))),
        ("second task", server_end(second=True)),
    ]
    cases += [Case("SslSocket.start_server_encryption", situation, play, "tls") for situation, play in server_plays]
    serve_plays: list[tuple[Situation, Any]] = [
        ("answered at once", serve(at_once=True)),
        ("has to wait", serve()),
        ("peer finishes", serve(("finish",))),
        ("peer resets", serve(("reset",))),
    ]
    cases += [Case("SslServer.serve", situation, play, "tls") for situation, play in serve_plays]
    take_plays: list[tuple[Situation, Any]] = [
        ("answered at once", take(at_once=True)),
        ("has to wait", take()),
        ("peer finishes", take(("finish",))),
        ("peer resets", take(("reset",))),
        ("second task", take(second=True)),
    ]
    cases += [Case("TcpServer.accept", situation, play, "tls", "handshakes") for situation, play in take_plays]
    for style in ("serve", "accept"):
        drain_plays: list[tuple[Situation, Any]] = [
            ("has to wait", drain(style=style)),
            ("peer resets", drain(style=style, endings=("reset",))),
        ]
        name = f"handshakes, {style}"
        cases += [Case("TcpServer.drain", situation, play, "tls", name) for situation, play in drain_plays]
    return cases


CASES = _cases()
