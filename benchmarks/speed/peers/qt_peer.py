"""PySide6: QTcpServer, QTcpSocket and QUdpSocket with slots."""

from __future__ import annotations

import ctypes
import signal
import socket
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

from PySide6.QtCore import QByteArray, QCoreApplication, QObject, QSocketNotifier
from PySide6.QtNetwork import (
    QAbstractSocket,
    QHostAddress,
    QSsl,
    QSslCertificate,
    QSslConfiguration,
    QSslKey,
    QSslServer,
    QSslSocket,
    QTcpServer,
    QTcpSocket,
    QUdpSocket,
)

from benchmarks.speed.peers.common import BACKLOG, BLOCK, CHUNK, REQUEST, Counted, Held, Task, check_answer, ready

# As much as the sender keeps in Qt's buffer, which has no limit of its own; 64 KiB is what the others have, and 4, 16
# and 64 times as much gained nothing.
AHEAD = len(BLOCK)


class Connection(QObject):
    """One client; it ends when the client does."""

    def __init__(self, sock: QTcpSocket, parent: QObject) -> None:
        super().__init__(parent)
        self.sock = sock
        sock.setParent(self)
        sock.setSocketOption(QAbstractSocket.SocketOption.LowDelayOption, 1)
        sock.readyRead.connect(self.answer)
        sock.disconnected.connect(self.end)
        if sock.bytesAvailable():
            self.answer()

    def answer(self) -> None:
        raise NotImplementedError

    def end(self) -> None:
        self.deleteLater()


class Echo(Connection):
    def answer(self) -> None:
        self.sock.write(self.sock.readAll())


class Lines(Connection):
    def answer(self) -> None:
        sock = self.sock
        while sock.canReadLine():
            sock.write(sock.readLine())


class Send(Connection):
    def __init__(self, sock: QTcpSocket, parent: QObject) -> None:
        super().__init__(sock, parent)
        self.block = QByteArray(BLOCK)
        sock.bytesWritten.connect(self.write_on)
        self.write_on()

    def waiting(self) -> int:
        return self.sock.bytesToWrite()

    def write_on(self) -> None:
        while self.waiting() < AHEAD:
            self.sock.write(self.block)

    def answer(self) -> None:
        pass


class SendEncrypted(Send):
    """What is encrypted waits in a buffer of its own, which nothing else bounds."""

    sock: QSslSocket

    def __init__(self, sock: QSslSocket, parent: QObject) -> None:
        sock.encryptedBytesWritten.connect(self.write_on)
        super().__init__(sock, parent)

    def waiting(self) -> int:
        return self.sock.bytesToWrite() + self.sock.encryptedBytesToWrite()


class Receive(Connection):
    def __init__(self, sock: QTcpSocket, parent: QObject) -> None:
        self.counted = Counted()
        super().__init__(sock, parent)

    def answer(self) -> None:
        if told := self.counted.add(self.sock.readAll().size()):
            self.sock.write(told)


class Idle(Connection):
    def __init__(self, sock: QTcpSocket, parent: QObject) -> None:
        super().__init__(sock, parent)
        Held.count += 1

    def answer(self) -> None:
        pass

    def end(self) -> None:
        Held.count -= 1
        super().end()


def run(begin: Callable[[QObject], int]) -> None:
    """``begin`` makes what there is to be and returns the port."""
    if sys.version_info < (3, 12):
        # With Python 3.11, PySide6 6.12 gives one reference to None too many back at each call that returns nothing,
        # and after some ten thousand the process ends.  That is no matter of sockets, so None is given plenty.
        ctypes.c_ssize_t.from_address(id(None)).value += 2**40
    app = QCoreApplication(sys.argv[:1])
    # Signals reach Python only while Python runs, so one wakes the loop.
    ours, theirs = socket.socketpair()
    theirs.setblocking(False)
    signal.set_wakeup_fd(theirs.fileno())
    notifier = QSocketNotifier(ours.fileno(), QSocketNotifier.Type.Read, app)
    notifier.activated.connect(lambda: ours.recv(64))
    ready(begin(app))
    app.exec()


def tls_server(task: Task, parent: QObject) -> QSslServer:
    configuration = QSslConfiguration.defaultConfiguration()
    configuration.setLocalCertificateChain(QSslCertificate.fromPath(task.certificate))
    configuration.setPrivateKey(QSslKey(Path(task.certificate).read_bytes(), QSsl.KeyAlgorithm.Ec))
    server = QSslServer(parent)
    server.setSslConfiguration(configuration)
    return server


def serve(kind: Callable[..., Connection], task: Task, *, tls: bool = False) -> None:
    def begin(app: QObject) -> int:
        server = tls_server(task, app) if tls else QTcpServer(app)
        server.setListenBacklogSize(BACKLOG)

        def welcome() -> None:
            while server.hasPendingConnections():
                kind(server.nextPendingConnection(), server)

        # A QSslServer tells newConnection before the handshake is done.
        (server.pendingConnectionAvailable if tls else server.newConnection).connect(welcome)
        if not server.listen(QHostAddress(QHostAddress.SpecialAddress.LocalHost), 0):
            raise OSError(server.errorString())
        return server.serverPort()

    run(begin)


class Asking(QObject):
    """Asks, is answered, closes, and connects again."""

    def __init__(self, port: int, parent: QObject) -> None:
        super().__init__(parent)
        self.port = port
        # One object for all connections, which Qt allows and which is faster than one for each.
        self.sock = QTcpSocket(self)
        self.sock.connected.connect(self.ask)
        self.sock.readyRead.connect(self.take)
        self.sock.connectToHost("127.0.0.1", port)

    def ask(self) -> None:
        self.sock.write(REQUEST)

    def take(self) -> None:
        if self.sock.bytesAvailable() >= len(REQUEST):
            check_answer(bytes(self.sock.readAll().data()))
            self.sock.close()
            self.sock.connectToHost("127.0.0.1", self.port)


def ask(task: Task) -> None:
    def begin(app: QObject) -> int:
        for _ in range(task.clients):
            Asking(task.port, app)
        return 0

    run(begin)


def datagrams(task: Task) -> None:
    def begin(app: QObject) -> int:
        sock = QUdpSocket(app)

        def answer() -> None:
            while sock.hasPendingDatagrams():
                data, address, port = sock.readDatagram(CHUNK)
                sock.writeDatagram(data, address, port)

        sock.readyRead.connect(answer)
        if not sock.bind(QHostAddress(QHostAddress.SpecialAddress.LocalHost), 0):
            raise OSError(sock.errorString())
        return sock.localPort()

    run(begin)


MODES: dict[str, dict[str, Callable[[Task], None]]] = {
    "pyside6": {
        "echo": partial(serve, Echo),
        "lines": partial(serve, Lines),
        "accept": partial(serve, Echo),
        "client": ask,
        "send": partial(serve, Send),
        "receive": partial(serve, Receive),
        "idle": partial(serve, Idle),
        "datagrams": datagrams,
        "tls-echo": partial(serve, Echo, tls=True),
        "tls-accept": partial(serve, Echo, tls=True),
        "tls-send": partial(serve, SendEncrypted, tls=True),
        "tls-receive": partial(serve, Receive, tls=True),
        "tls-idle": partial(serve, Idle, tls=True),
    }
}
