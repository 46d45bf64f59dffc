"""A program of real Qt: one QTcpSocket that does what it is told and tells what it sees.

    python qt_peer.py connect PORT     a client
    python qt_peer.py listen           a QTcpServer; its first connection is the socket

Commands come on stdin, a line each:

    send N        write N bytes; told: {"sent": N, "sha256": ...}
    expect N      tell when N bytes have arrived: {"received": N, "sha256": ...}
    hold / read   stop reading, with at most 64 KiB in Qt's buffer; read again
    disconnect    disconnectFromHost()
    abort         abort(); while holding, not before the kernel has bytes that Qt has not read

What it sees goes to stdout, a JSON object each: {"listening": port}, and a {"signal": name} for each signal of the
socket, in Qt's order.
Qt reports a reset and a clean end alike, so ``disconnected`` also says what the kernel says, and which bytes arrived in
all.
"""

from __future__ import annotations

import functools
import hashlib
import json
import os
import random
import select
import socket
import sys
from types import TracebackType

from PySide6.QtCore import QCoreApplication, QObject, QSocketNotifier
from PySide6.QtNetwork import QAbstractSocket, QHostAddress, QTcpServer, QTcpSocket

HELD = 65536

# Of a connection whose peer has finished, or which was reset; include/net/tcp_states.h.
KERNEL_STATES = {1: "open", 7: "reset", 8: "finished"}


def tell(**what: object) -> None:
    print(json.dumps(what), flush=True)


class Peer(QObject):
    """The socket, and what is to be done with it."""

    def __init__(self, sock: QTcpSocket) -> None:
        super().__init__()
        self.sock = sock
        self.holding = False
        self.expected = 0
        self.received = 0
        self.digest = hashlib.sha256()
        self.kernel: socket.socket | None = None  # the same connection, for what Qt does not tell
        sock.stateChanged.connect(self.state_changed)
        sock.errorOccurred.connect(lambda error: tell(signal="error_occurred", error=error.name))
        sock.hostFound.connect(functools.partial(tell, signal="host_found"))
        sock.connected.connect(functools.partial(tell, signal="connected"))
        sock.readChannelFinished.connect(functools.partial(tell, signal="read_channel_finished"))
        sock.disconnected.connect(self.disconnected)
        sock.readyRead.connect(self.ready_read)
        if sock.state() is QAbstractSocket.SocketState.ConnectedState:
            self.look_at_kernel()

    def state_changed(self, state: QAbstractSocket.SocketState) -> None:
        tell(signal="state_changed", state=state.name)
        if state is QAbstractSocket.SocketState.ConnectedState:
            self.look_at_kernel()

    def look_at_kernel(self) -> None:
        self.kernel = socket.socket(fileno=os.dup(self.sock.socketDescriptor()))

    def ready_read(self) -> None:
        if self.holding:
            return
        data = self.sock.readAll().data()
        self.digest.update(data)
        self.received += len(data)
        self.tell_received()

    def tell_received(self) -> None:
        if self.expected and self.received >= self.expected:
            self.expected = 0
            tell(received=self.received, sha256=self.digest.hexdigest())

    def disconnected(self) -> None:
        assert self.kernel is not None
        kernel = KERNEL_STATES[self.kernel.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1)[0]]
        self.kernel.close()
        if not self.holding:
            self.ready_read()
        tell(signal="disconnected", kernel=kernel, received=self.received, sha256=self.digest.hexdigest())

    def do(self, command: str, *numbers: int) -> None:
        match command, *numbers:
            case "send", int(size):
                data = random.Random(size).randbytes(size)
                self.sock.write(data)
                tell(sent=size, sha256=hashlib.sha256(data).hexdigest())
            case "expect", int(size):
                self.expected = size
                self.tell_received()
            case ("hold",):
                self.holding = True
                self.sock.setReadBufferSize(HELD)
                tell(holding=True)
            case ("read",):
                self.holding = False
                self.sock.setReadBufferSize(0)
                self.ready_read()
            case ("disconnect",):
                self.sock.disconnectFromHost()
            case ("abort",):
                if self.holding:
                    assert self.kernel is not None
                    select.select([self.kernel], [], [])
                self.sock.abort()
            case _:
                raise ValueError(command)


class Commands(QObject):
    """Lines from stdin; its end ends the program."""

    def __init__(self, peers: list[Peer], parent: QObject) -> None:
        super().__init__(parent)
        self.peers = peers
        self.rest = b""
        self.notifier = QSocketNotifier(0, QSocketNotifier.Type.Read, self)
        self.notifier.activated.connect(self.readable)

    def readable(self) -> None:
        data = os.read(0, 65536)
        if not data:
            QCoreApplication.quit()
            return
        *lines, self.rest = (self.rest + data).split(b"\n")
        for line in lines:
            command, *numbers = line.decode().split()
            self.peers[0].do(command, *map(int, numbers))


def connect(peers: list[Peer], port: int) -> None:
    peers.append(Peer(QTcpSocket()))
    peers[0].sock.connectToHost("127.0.0.1", port)


def listen(peers: list[Peer], parent: QObject) -> None:
    server = QTcpServer(parent)

    def new_connection() -> None:
        peers.append(Peer(server.nextPendingConnection()))
        tell(accepted=True)

    server.newConnection.connect(new_connection)
    server.listen(QHostAddress(QHostAddress.SpecialAddress.LocalHost), 0)
    tell(listening=server.serverPort())


def fail(kind: type[BaseException], exc: BaseException, traceback: TracebackType | None) -> None:
    """Qt prints an exception out of a slot and goes on; here it is the end, or the test would wait in vain."""
    sys.__excepthook__(kind, exc, traceback)
    os._exit(1)


def main() -> None:
    sys.excepthook = fail
    app = QCoreApplication(sys.argv)
    peers: list[Peer] = []
    Commands(peers, app)
    match sys.argv[1:]:
        case ["listen"]:
            listen(peers, app)
        case ["connect", port]:
            connect(peers, int(port))
    app.exec()


if __name__ == "__main__":
    main()
