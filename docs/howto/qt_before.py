"""A server and a client as one writes them with Qt: ``python docs/howto/qt_before.py``; it needs PySide6."""

from PySide6.QtCore import QCoreApplication, QObject
from PySide6.QtNetwork import QAbstractSocket, QHostAddress, QTcpServer, QTcpSocket


class Server(QObject):
    def __init__(self) -> None:
        super().__init__()
        self.server = QTcpServer(self)
        self.server.newConnection.connect(self.welcome)
        if not self.server.listen(QHostAddress(QHostAddress.SpecialAddress.LocalHost), 0):
            raise SystemExit(self.server.errorString())

    def welcome(self) -> None:
        while (sock := self.server.nextPendingConnection()) is not None:
            sock.readyRead.connect(lambda sock=sock: self.answer(sock))
            sock.disconnected.connect(sock.deleteLater)

    def answer(self, sock: QTcpSocket) -> None:
        while sock.canReadLine():
            sock.write(sock.readLine().toUpper())


class Client(QObject):
    def __init__(self, app: QCoreApplication, port: int) -> None:
        super().__init__()
        self.app = app
        self.sock = QTcpSocket(self)
        self.sock.connected.connect(lambda: self.sock.write(b"hello\n"))
        self.sock.readyRead.connect(self.show)
        self.sock.errorOccurred.connect(self.fail)
        self.sock.connectToHost("127.0.0.1", port)

    def show(self) -> None:
        if self.sock.canReadLine():
            print(bytes(self.sock.readLine().data()))
            self.app.quit()

    def fail(self, error: QAbstractSocket.SocketError) -> None:
        print(self.sock.errorString())
        self.app.exit(1)


if __name__ == "__main__":
    app = QCoreApplication([])
    server = Server()
    client = Client(app, server.server.serverPort())
    raise SystemExit(app.exec())
