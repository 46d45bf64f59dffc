"""QTcpServer, whose block of TcpServer lives in a task of the stage."""

from __future__ import annotations

import functools
import os
from typing import Any

import trio

import trioqt
from tests.conformance.stand_in.objects import Hook, QObject, Signal
from tests.conformance.stand_in.on_stage import REFUSED, or_else, refused, stage
from tests.conformance.stand_in.proxies import QNetworkProxy, proxy_of
from tests.conformance.stand_in.sockets import QTcpSocket, new_socket, so_long
from tests.conformance.stand_in.values import ANY, QHostAddress, error_of
from tests.unused_ports import unused_port
from trioqt.core.events import Event

__all__ = ["QTcpServer"]


class QTcpServer(QObject):
    def __init__(self, parent: object = None) -> None:
        super().__init__(parent)
        self.newConnection, self.acceptError = Signal(self), Signal(self)
        self._accepted: dict[trioqt.TcpSocket, QTcpSocket] = {}
        self._made = False  # a socket, for a connection that is not told yet
        self._end = trio.Event()
        self._over = trio.Event()
        self._server: trioqt.TcpServer[trioqt.TcpSocket] = stage().wait(lambda: stage().nursery.start(self._live))

    async def _live(self, task_status: trio.TaskStatus[Any]) -> None:
        await self._live_as(trioqt.TcpServer(self._socket, keep_alive=False), task_status)

    async def _live_as(self, ours: Any, task_status: trio.TaskStatus[Any]) -> None:
        """The server's block."""
        try:
            async with ours as server:
                server._subscribe(Hook(server, self._tell))
                task_status.started(server)
                await self._end.wait()
        finally:
            self._over.set()

    async def _destroy(self) -> None:
        self._end.set()
        await self._over.wait()

    def _socket(self) -> trioqt.TcpSocket:
        sock = new_socket(None)
        self._accepted[sock] = QTcpSocket(self, sock)
        self._made = True
        return sock

    def _tell(self, event: Event) -> None:
        match event:
            case trioqt.NewConnection():
                if type(self).incomingConnection is QTcpServer.incomingConnection:
                    self.newConnection.emit()
                elif self._made:
                    self._made = False
                    stage().start_slot(functools.partial(self._incoming, self._hand_over()), acts_now=True)
            case trioqt.AcceptError(kind, _):
                self.acceptError.emit(error_of(kind))

    def view(self) -> dict[str, object]:
        return {"has_pending": self._server.has_pending_connections()}

    # -- getters

    def isListening(self) -> bool:
        return stage().see(lambda: self._server.is_listening())

    def serverAddress(self) -> QHostAddress:
        return QHostAddress(stage().see(lambda: self._server.server_address()))

    def serverPort(self) -> int:
        return stage().see(lambda: self._server.server_port())

    def serverError(self) -> Any:
        return stage().see(lambda: error_of(self._server.server_error()))

    def errorString(self) -> str:
        return stage().see(lambda: self._server.error_string())

    def hasPendingConnections(self) -> bool:
        return stage().see(lambda: self._server.has_pending_connections())

    def maxPendingConnections(self) -> int:
        return stage().see(lambda: self._server.max_pending_connections())

    def socketDescriptor(self) -> int:
        return stage().see(lambda: self._server.socket_descriptor())

    def listenBacklogSize(self) -> int:
        return stage().see(lambda: self._server.listen_backlog_size())

    def proxy(self) -> QNetworkProxy:
        return stage().see(lambda: proxy_of(self._server.proxy()))

    # -- verbs

    def setProxy(self, proxy: QNetworkProxy) -> None:
        stage().do(lambda: self._server.set_proxy(proxy.proxy))

    def setListenBacklogSize(self, size: int) -> None:
        stage().do(lambda: or_else(None, lambda: self._server.set_listen_backlog_size(size)))

    def listen(self, address: object = ANY, port: int = 0) -> bool:
        async def listen() -> bool:
            try:
                await self._server.listen(QHostAddress(address).address, port or self._any_port())
            except REFUSED as exc:
                refused(exc)
                return False
            return True

        return stage().wait(listen)

    def _any_port(self) -> int:
        is_direct = self._server.proxy().kind in (trioqt.ProxyKind.DEFAULT, trioqt.ProxyKind.NONE)
        return unused_port() if is_direct else 0

    def incomingConnection(self, descriptor: int) -> None:
        """What an override gets in place of a pending connection."""

    def _incoming(self, descriptor: int) -> None:
        """The override, and then the signal, as Qt does; for what the override adds Qt has none of its own."""
        self.incomingConnection(descriptor)
        stage().do(self.newConnection.emit)

    def _hand_over(self) -> int:
        """Take the connection that has just come, as a descriptor."""
        sock = self._server.next_pending_connection()
        assert sock is not None
        del self._accepted[sock]
        descriptor = os.dup(sock.socket_descriptor())
        sock.abort()
        return descriptor

    def setSocketDescriptor(self, descriptor: int) -> bool:
        def adopt() -> bool:
            self._server.set_socket_descriptor(descriptor)
            return True

        return bool(stage().do(lambda: or_else(False, adopt)))

    def close(self) -> None:
        stage().do(lambda: self._server.close())

    def setMaxPendingConnections(self, count: int) -> None:
        stage().do(lambda: or_else(None, lambda: self._server.set_max_pending_connections(count)))

    def pauseAccepting(self) -> None:
        stage().do(lambda: self._server.pause_accepting())

    def resumeAccepting(self) -> None:
        stage().do(lambda: self._server.resume_accepting())

    def nextPendingConnection(self) -> QTcpSocket | None:
        sock = stage().do(lambda: self._server.next_pending_connection())
        return None if sock is None else self._accepted.pop(sock)

    def addPendingConnection(self, sock: QTcpSocket) -> None:
        self._accepted[sock._sock] = sock
        stage().do(lambda: or_else(None, lambda: self._server.add_pending_connection(sock._sock)))

    def waitForNewConnection(self, milliseconds: int = 0) -> tuple[bool, bool]:
        """Whether there is one, and whether the time ran out instead."""

        async def bounded() -> bool:
            with so_long(milliseconds):
                try:
                    await self._server.wait_for_new_connection()
                except REFUSED as exc:
                    refused(exc)
                    return False
                return True
            return False

        came = stage().wait(bounded)
        return came, not came
