"""A program of real Qt: one QUdpSocket that does what it is told and tells what it sees.

    python qt_datagrams.py HOST [GROUP]    bound there, and a member of GROUP on the loopback interface

Commands come on stdin, a line each; data are in hexadecimal, and ``-`` is none:

    send HOST PORT DATA    writeDatagram()
    reply DATA             the answer to the last datagram, by makeReply()
    connect HOST PORT      connectToHost()
    write DATA             write(), on the virtual connection

What it sees goes to stdout, a JSON object each: {"bound": port}, and for each datagram what QNetworkDatagram has of it.
"""

from __future__ import annotations

import json
import os
import sys
from types import TracebackType

from PySide6.QtCore import QCoreApplication, QObject, QSocketNotifier
from PySide6.QtNetwork import QHostAddress, QNetworkDatagram, QNetworkInterface, QUdpSocket


def tell(**what: object) -> None:
    print(json.dumps(what), flush=True)


class Peer(QObject):
    """The socket, and what is to be done with it."""

    def __init__(self, host: str, group: str) -> None:
        super().__init__()
        self.sock = QUdpSocket(self)
        self.last = QNetworkDatagram()
        self.rest = b""
        self.sock.readyRead.connect(self.ready_read)
        self.sock.errorOccurred.connect(lambda error: tell(error=error.name))
        assert self.sock.bind(QHostAddress(host), 0)
        lo = QNetworkInterface.interfaceFromName("lo")
        if group:
            assert self.sock.joinMulticastGroup(QHostAddress(group), lo)
            self.sock.setMulticastInterface(lo)
        self.notifier = QSocketNotifier(0, QSocketNotifier.Type.Read, self)
        self.notifier.activated.connect(self.readable)
        tell(bound=self.sock.localPort())

    def ready_read(self) -> None:
        while self.sock.hasPendingDatagrams():
            datagram = self.sock.receiveDatagram()
            if datagram.isValid():
                self.last = datagram
                tell(
                    data=datagram.data().data().hex(),
                    sender=[datagram.senderAddress().toString(), datagram.senderPort()],
                    destination=[datagram.destinationAddress().toString(), datagram.destinationPort()],
                    hop_limit=datagram.hopLimit(),
                )

    def readable(self) -> None:
        data = os.read(0, 65536)
        if not data:
            QCoreApplication.quit()
            return
        *lines, self.rest = (self.rest + data).split(b"\n")
        for line in lines:
            self.do(*line.decode().split())

    def do(self, command: str, *arguments: str) -> None:
        match command, *arguments:
            case "send", host, port, data:
                self.sock.writeDatagram(data_of(data), QHostAddress(host), int(port))
            case "reply", data:
                self.sock.writeDatagram(self.last.makeReply(data_of(data)))
            case "connect", host, port:
                self.sock.connectToHost(host, int(port))
            case "write", data:
                self.sock.write(data_of(data))
            case _:
                raise ValueError(command)
        tell(done=command)


def data_of(text: str) -> bytes:
    return b"" if text == "-" else bytes.fromhex(text)


def fail(kind: type[BaseException], exc: BaseException, traceback: TracebackType | None) -> None:
    """Qt prints an exception out of a slot and goes on; here it is the end, or the test would wait in vain."""
    sys.__excepthook__(kind, exc, traceback)
    os._exit(1)


def main() -> None:
    sys.excepthook = fail
    app = QCoreApplication(sys.argv)
    peer = Peer(sys.argv[1], "".join(sys.argv[2:]))
    app.exec()
    del peer


if __name__ == "__main__":
    main()
