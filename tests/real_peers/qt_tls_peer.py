"""A program of real Qt over TLS, which says back or says first.

python qt_tls_peer.py connect PORT CA            a QSslSocket: sends lines of stdin, prints what comes
python qt_tls_peer.py listen CERT KEY            a QSslServer that says back what comes; prints its port first
"""

from __future__ import annotations

import sys

from PySide6.QtCore import QCoreApplication, QSocketNotifier
from PySide6.QtNetwork import (
    QHostAddress,
    QSsl,
    QSslCertificate,
    QSslConfiguration,
    QSslKey,
    QSslServer,
    QSslSocket,
)


def tell(*what: object) -> None:
    print(*what, flush=True)


def connect(application: QCoreApplication, port: int, authority: str) -> int:
    sock = QSslSocket()
    configuration = QSslConfiguration.defaultConfiguration()
    configuration.setCaCertificates(QSslCertificate.fromPath(authority))
    sock.setSslConfiguration(configuration)
    sock.encrypted.connect(lambda: tell("encrypted", sock.sessionProtocol().name))
    sock.sslErrors.connect(lambda errors: tell("errors", *(error.error().name for error in errors)))
    sock.errorOccurred.connect(lambda error: tell("error", error.name))
    sock.readyRead.connect(lambda: tell("received", bytes(sock.readAll().data()).decode().strip()))
    sock.disconnected.connect(application.quit)
    stdin = QSocketNotifier(0, QSocketNotifier.Type.Read)

    def command() -> None:
        line = sys.stdin.readline()
        if line:
            sock.write(line.encode())
        else:
            stdin.setEnabled(False)
            sock.disconnectFromHost()

    stdin.activated.connect(command)
    sock.connectToHostEncrypted("127.0.0.1", port, "localhost")
    return application.exec()


def listen(application: QCoreApplication, certificate: str, key: str) -> int:
    server = QSslServer()
    configuration = QSslConfiguration.defaultConfiguration()
    configuration.setLocalCertificateChain(QSslCertificate.fromPath(certificate))
    with open(key, "rb") as file:
        configuration.setPrivateKey(QSslKey(file.read(), QSsl.KeyAlgorithm.Ec))
    server.setSslConfiguration(configuration)

    def serve() -> None:
        sock = server.nextPendingConnection()
        sock.readyRead.connect(lambda: sock.write(sock.readAll()))
        sock.errorOccurred.connect(lambda error: tell("error", error.name))
        sock.disconnected.connect(application.quit)
        if sock.bytesAvailable():
            sock.write(sock.readAll())

    server.pendingConnectionAvailable.connect(serve)
    server.listen(QHostAddress("127.0.0.1"), 0)
    tell(server.serverPort())
    return application.exec()


if __name__ == "__main__":
    application = QCoreApplication(sys.argv[:1])
    role, first, second = sys.argv[1:]
    sys.exit(connect(application, int(first), second) if role == "connect" else listen(application, first, second))
