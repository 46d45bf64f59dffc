"""A small HTTP/1.1 server for curl: h11 knows the protocol, the sockets are ours."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator

import attrs
import h11
import trio

from tests.real_peers.programs import random_bytes
from trioqt import TcpServer, TcpSocket

__all__ = ["BIG", "Site", "Visit"]

BIG = random_bytes(3_000_000)
PIECE = 65536


@attrs.frozen
class Visit:
    """One request that was answered."""

    method: str
    target: str
    port: int
    """The client's, so that requests on one connection can be told from others."""


@attrs.define
class Site:
    """What there is to fetch, and who came for it.

    GET or HEAD /small      six bytes
    GET or HEAD /big        3 MB; to HTTP/1.0 without a length, so that only the connection's end ends it
    GET /endless            zeros for ever
    GET /together           answers once ``party`` requests for it are here at the same time
    POST anything           the SHA-256 of what was posted
    """

    server: TcpServer[TcpSocket]
    party: int = 0
    visits: list[Visit] = attrs.field(factory=list)
    continued: int = 0
    """How many clients were told to go on and send their body."""
    most_at_once: int = 0
    _here: int = 0
    _complete: trio.Event = attrs.field(factory=trio.Event)

    async def serve(self, sock: TcpSocket) -> None:
        """Answer the requests of one connection, one after the other."""
        http = h11.Connection(h11.SERVER)
        while isinstance(request := await self._receive(sock, http), h11.Request):
            digest = hashlib.sha256()
            while isinstance(part := await self._receive(sock, http), h11.Data):
                digest.update(part.data)
            await self._answer(sock, http, request, digest.hexdigest().encode())
            self.visits.append(Visit(request.method.decode(), request.target.decode(), sock.peer_port()))
            if http.our_state is h11.MUST_CLOSE:
                break
            http.start_next_cycle()

    async def _receive(self, sock: TcpSocket, http: h11.Connection) -> object:
        while (event := http.next_event()) is h11.NEED_DATA:
            if http.they_are_waiting_for_100_continue:
                self.continued += 1
                await self._send(sock, http, h11.InformationalResponse(status_code=100, headers=[]))
            http.receive_data(await sock.receive_some())
        return event

    async def _answer(self, sock: TcpSocket, http: h11.Connection, request: h11.Request, digest: bytes) -> None:
        body: Iterable[bytes]
        length: int | None
        match request.method, request.target:
            case b"POST", _:
                body, length = [digest], len(digest)
            case _, b"/small":
                body, length = [b"hello\n"], 6
            case _, b"/big":
                body, length = in_pieces(BIG), None if request.http_version == b"1.0" else len(BIG)
            case _, b"/endless":
                body, length = zeros(), None
            case _, b"/together":
                await self._wait_for_the_others()
                body, length = [b"all here\n"], 9
            case _:
                raise ValueError(request.target)
        headers = [] if length is None else [("Content-Length", str(length))]
        await self._send(sock, http, h11.Response(status_code=200, headers=headers))
        if request.method != b"HEAD":
            for piece in body:
                await self._send(sock, http, h11.Data(data=piece))
        await self._send(sock, http, h11.EndOfMessage())

    async def _send(self, sock: TcpSocket, http: h11.Connection, event: h11.Event) -> None:
        await sock.send_all(http.send(event) or b"")

    async def _wait_for_the_others(self) -> None:
        self.most_at_once = max(self.most_at_once, self.server.connection_count())
        self._here += 1
        if self._here == self.party:
            self._complete.set()
        await self._complete.wait()


def in_pieces(data: bytes) -> Iterator[bytes]:
    return (data[start : start + PIECE] for start in range(0, len(data), PIECE))


def zeros() -> Iterator[bytes]:
    while True:
        yield bytes(PIECE)
