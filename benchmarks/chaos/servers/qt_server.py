"""PySide6: QTcpServer, a QObject for each connection, and slots.

Long answers are written piece by piece as ``bytesWritten`` allows, and accepting is resumed after ``acceptError``, as
somebody does who knows that Qt queues without a limit and pauses by itself.
Signals of the system come through a socket and a QSocketNotifier, as Qt's documentation has it.
"""

from __future__ import annotations

import math
import signal
import socket
import sys
from pathlib import Path

from benchmarks.chaos.servers.common import BLOCK, LINE_LIMIT, Bug, Options, missing, read_options, ready

try:
    from PySide6.QtCore import QCoreApplication, QObject, QSocketNotifier, QTimer
    from PySide6.QtNetwork import (
        QHostAddress,
        QSsl,
        QSslCertificate,
        QSslConfiguration,
        QSslKey,
        QSslServer,
        QTcpServer,
        QTcpSocket,
    )
except ImportError as error:
    missing(str(error))

# How long accepting rests after it failed, in milliseconds: what trio and trioqt do.
ACCEPT_PAUSE = 100


# With Python 3.11, PySide6 6.12 gives one reference to None too many back at each call that returns nothing, and after
# some ten thousand the process ends.  That is no matter of sockets, so it is put off.
KEPT = [None] * 10**6


class Connection(QObject):
    """One client."""

    def __init__(self, sock: QTcpSocket, options: Options, parent: QObject) -> None:
        super().__init__(parent)
        self.sock = sock
        self.options = options
        self.to_send = 0  # of a long answer
        self.last = False  # after this answer the connection ends
        self.busy = False  # an answer is under way
        self.patience = QTimer(self)
        self.patience.setSingleShot(True)
        self.patience.timeout.connect(self.cut)
        sock.setParent(self)
        sock.readyRead.connect(self.answer_all)
        sock.bytesWritten.connect(self.send_more)
        sock.disconnected.connect(self.end)
        self.wait_for_line()
        if sock.bytesAvailable():
            self.answer_all()

    def cut(self) -> None:
        self.sock.abort()

    def end(self) -> None:
        self.patience.stop()
        self.deleteLater()

    def wait_for_line(self) -> None:
        seconds = min(self.options.patience, self.options.stall)
        if math.isfinite(seconds):
            self.patience.start(int(seconds * 1000))

    def answer_all(self) -> None:
        while not self.busy and self.sock.canReadLine():
            self.patience.stop()
            self.answer(bytes(self.sock.readLine().data()))
            if not self.busy:
                self.wait_for_line()
        if not self.busy and self.sock.bytesAvailable() > LINE_LIMIT:
            self.sock.abort()

    def answered(self) -> None:
        self.busy = False
        if self.last:
            self.sock.disconnectFromHost()
        else:
            self.wait_for_line()
            self.answer_all()

    def answer(self, line: bytes) -> None:
        match line.split():
            case [b"ECHO", word]:
                self.sock.write(word + b"\n")
            case [b"SLEEP", seconds]:
                self.busy = True
                self.sock.write(b"BEGUN\n")
                QTimer.singleShot(int(float(seconds) * 1000), self, self.slept)
            case [b"SEND", count]:
                self.send(int(count))
            case [b"LAST", seconds, count]:
                self.busy = self.last = True
                QTimer.singleShot(int(float(seconds) * 1000), self, lambda: self.send(int(count)))
            case [b"UPSTREAM", port]:
                self.busy = True
                upstream = QTcpSocket(self)
                upstream.connected.connect(self.upstream_connected)
                upstream.errorOccurred.connect(self.upstream_failed)
                upstream.connectToHost("127.0.0.1", int(port))
            case [b"RAISE"]:
                raise Bug
            case _:
                self.sock.write(b"WHAT\n")

    def slept(self) -> None:
        self.sock.write(b"DONE\n")
        self.answered()

    def upstream_failed(self) -> None:
        self.sock.disconnectFromHost()

    def upstream_connected(self) -> None:
        self.sock.write(b"CONNECTED\n")
        self.answered()

    def send(self, count: int) -> None:
        self.busy = True
        self.to_send = count
        self.send_more()

    def send_more(self) -> None:
        while self.to_send > 0 and self.sock.bytesToWrite() < len(BLOCK):
            piece = BLOCK[: self.to_send]
            self.to_send -= len(piece)
            self.sock.write(piece)
            if not self.to_send:
                self.answered()


class Program(QObject):
    """One server."""

    def __init__(self, options: Options) -> None:
        super().__init__()
        self.options = options
        self.stopping = False
        self.server: QTcpServer = QTcpServer(self) if options.certificate is None else self.tls_server()
        # A QSslServer tells newConnection before the handshake is done.
        self.server.pendingConnectionAvailable.connect(self.take)
        self.server.acceptError.connect(self.rest)
        self.pause = QTimer(self)
        self.pause.setSingleShot(True)
        self.pause.setInterval(ACCEPT_PAUSE)
        self.pause.timeout.connect(self.accept_again)
        if not self.server.listen(QHostAddress(QHostAddress.SpecialAddress.LocalHost), options.port):
            sys.exit(self.server.errorString())

    def tls_server(self) -> QSslServer:
        path = self.options.certificate
        assert path is not None
        key = QSslKey(Path(path).read_bytes(), QSsl.KeyAlgorithm.Ec)
        configuration = QSslConfiguration.defaultConfiguration()
        configuration.setLocalCertificateChain(QSslCertificate.fromPath(path))
        configuration.setPrivateKey(key)
        server = QSslServer(self)
        server.setSslConfiguration(configuration)
        return server

    def take(self) -> None:
        while self.server.hasPendingConnections():
            sock = self.server.nextPendingConnection()
            assert sock is not None
            connection = Connection(sock, self.options, self)
            connection.destroyed.connect(self.one_has_ended)

    def rest(self) -> None:
        self.pause.start()

    def accept_again(self) -> None:
        self.server.resumeAccepting()

    def stop(self) -> None:
        """No further clients; those that are there may finish."""
        if self.stopping:
            return
        self.stopping = True
        self.server.close()
        assert self.options.grace is not None
        QTimer.singleShot(int(self.options.grace * 1000), QCoreApplication.quit)
        self.one_has_ended()

    def one_has_ended(self) -> None:
        if self.stopping and not self.findChildren(Connection):
            QCoreApplication.quit()


def main() -> None:
    options = read_options()
    if options.monitor:
        missing("it tells nobody how connections end")
    if options.broken_log:
        missing("Qt does not log through Python")
    app = QCoreApplication(sys.argv)
    program = Program(options)
    if options.grace is None:
        signal.signal(signal.SIGINT, signal.SIG_DFL)  # else Python would hear of it with the next slot
    else:
        ours, pythons = socket.socketpair()
        pythons.setblocking(False)
        signal.set_wakeup_fd(pythons.fileno())
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: None)
        notifier = QSocketNotifier(ours.fileno(), QSocketNotifier.Type.Read, app)

        def heard() -> None:
            ours.recv(1)
            program.stop()

        notifier.activated.connect(heard)
    ready(options, program.server.serverPort())
    sys.exit(app.exec())


if __name__ == "__main__":
    main()
