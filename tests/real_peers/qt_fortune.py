"""Qt's fortune examples, without their windows: the client and the server of Qt's documentation.

python qt_fortune.py client PORT     prints one fortune
python qt_fortune.py server TEXT     prints its port, and tells TEXT to whoever connects
"""

from __future__ import annotations

import sys

from PySide6.QtCore import QByteArray, QCoreApplication, QDataStream, QIODevice
from PySide6.QtNetwork import QHostAddress, QTcpServer, QTcpSocket

VERSION = QDataStream.Version.Qt_6_5


class Client:
    """fortuneclient's Client: a transaction at each readyRead."""

    def __init__(self, port: int) -> None:
        self.socket = QTcpSocket()
        self.stream = QDataStream(self.socket)
        self.stream.setVersion(VERSION)
        self.socket.readyRead.connect(self.read_fortune)
        self.socket.errorOccurred.connect(lambda error: print("error:", self.socket.errorString(), flush=True))
        self.socket.disconnected.connect(QCoreApplication.quit)
        self.socket.connectToHost("127.0.0.1", port)

    def read_fortune(self) -> None:
        self.stream.startTransaction()
        fortune = self.stream.readQString()
        if self.stream.commitTransaction():
            print(fortune, flush=True)


class Server:
    """fortuneserver's Server: a block for each new connection."""

    def __init__(self, fortune: str) -> None:
        self.fortune = fortune
        self.server = QTcpServer()
        self.server.listen(QHostAddress(QHostAddress.SpecialAddress.LocalHost))
        self.server.newConnection.connect(self.send_fortune)
        print(self.server.serverPort(), flush=True)

    def send_fortune(self) -> None:
        block = QByteArray()
        out = QDataStream(block, QIODevice.OpenModeFlag.WriteOnly)
        out.setVersion(VERSION)
        out.writeQString(self.fortune)
        connection = self.server.nextPendingConnection()
        connection.disconnected.connect(connection.deleteLater)
        connection.write(block)
        connection.disconnectFromHost()


def main() -> None:
    app = QCoreApplication(sys.argv)
    match sys.argv[1:]:
        case ["client", port]:
            peer: Client | Server = Client(int(port))
        case ["server", fortune]:
            peer = Server(fortune)
        case _:
            raise SystemExit(__doc__)
    app.exec()
    del peer


if __name__ == "__main__":
    main()
