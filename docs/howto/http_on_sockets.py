"""Hypercorn serves and httpcore asks, each over trioqt's sockets: ``python docs/howto/http_on_sockets.py``."""

import math
import socket
from collections.abc import Iterable
from typing import Any

import httpcore
import hypercorn
import trio
from hypercorn.app_wrappers import ASGIWrapper
from hypercorn.trio.tcp_server import TCPServer
from hypercorn.trio.worker_context import WorkerContext

from trioqt import SocketError, TcpServer, TcpSocket
from trioqt.testing import VirtualNetwork, simulate

# ---- hypercorn -----------------------------------------------------------------------------


class HttpSocket(TcpSocket):
    """Hypercorn asks a stream for ``socket``, and that for the addresses of both ends."""

    family = socket.AF_INET

    @property
    def socket(self) -> "HttpSocket":
        return self

    def getpeername(self) -> tuple[str, int]:
        return str(self.peer_address()), self.peer_port()

    def getsockname(self) -> tuple[str, int]:
        return str(self.local_address()), self.local_port()


async def app(scope: Any, receive: Any, send: Any) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/plain")]})
    await send({"type": "http.response.body", "body": f"hello, {scope['client'][0]}".encode()})


async def answer(sock: HttpSocket) -> None:
    stream: Any = sock
    await TCPServer(ASGIWrapper(app), hypercorn.Config(), WorkerContext(None), {}, stream)


# ---- httpcore ------------------------------------------------------------------------------


class Stream(httpcore.AsyncNetworkStream):
    def __init__(self, sock: TcpSocket) -> None:
        self._sock = sock

    async def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        try:
            with trio.fail_after(math.inf if timeout is None else timeout):
                return await self._sock.receive_some(max_bytes)
        except trio.TooSlowError as exc:
            raise httpcore.ReadTimeout from exc
        except SocketError as exc:
            raise httpcore.ReadError(str(exc)) from exc

    async def write(self, buffer: bytes, timeout: float | None = None) -> None:
        try:
            with trio.fail_after(math.inf if timeout is None else timeout):
                await self._sock.send_all(buffer)
        except trio.TooSlowError as exc:
            raise httpcore.WriteTimeout from exc
        except SocketError as exc:
            raise httpcore.WriteError(str(exc)) from exc

    async def aclose(self) -> None:
        await self._sock.aclose()

    def get_extra_info(self, info: str) -> Any:
        return self._sock.peer_has_finished() if info == "is_readable" else None


class Backend(httpcore.AsyncNetworkBackend):
    """Connections that belong to a nursery of yours."""

    def __init__(self, nursery: trio.Nursery) -> None:
        self._nursery = nursery

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore.AsyncNetworkStream:
        sock = TcpSocket(self._nursery)
        try:
            with trio.fail_after(math.inf if timeout is None else timeout):
                await sock.connect_to_host(host, port)
        except trio.TooSlowError as exc:
            raise httpcore.ConnectTimeout from exc
        except SocketError as exc:
            raise httpcore.ConnectError(str(exc)) from exc
        return Stream(sock)

    async def sleep(self, seconds: float) -> None:
        await trio.sleep(seconds)


# ---- both ----------------------------------------------------------------------------------


async def main(net: VirtualNetwork) -> None:
    async with TcpServer(HttpSocket) as server, trio.open_nursery() as nursery:
        with net.host("server"):
            await server.listen("0.0.0.0", 80)
            await nursery.start(server.serve, answer)
        async with httpcore.AsyncConnectionPool(network_backend=Backend(nursery)) as pool:
            for _ in range(2):
                response = await pool.request("GET", "http://server/")
                print(response.status, response.content.decode(), f"({server.connection_count()} connection)")
        nursery.cancel_scope.cancel()


if __name__ == "__main__":
    simulate(main)
