"""What scenarios about TLS begin with: certificates, both sides, and peers.

A peer is another socket of Qt's, or the standard library's TLS, beside in a thread.
"""

from __future__ import annotations

import contextlib
import socket
import ssl
import time
from typing import Any

import trustme
from PySide6.QtNetwork import (
    QHostAddress,
    QSsl,
    QSslCertificate,
    QSslConfiguration,
    QSslKey,
    QSslServer,
    QSslSocket,
    QTcpServer,
)

from tests.conformance.proxies_beside import serve, serve_forked
from tests.conformance.trace import Trace

LH = QHostAddress("127.0.0.1")
# Their enumerators are attributes of theirs too, which nobody has told type checkers.
Ssl: Any = QSsl
Verify: Any = QSslSocket.PeerVerifyMode

# Both sides of every handshake in a process know the same authorities.
made: dict[str, Any] = {}


def certs() -> dict[str, Any]:
    if not made:
        ca, other = trustme.CA(organization_name="Oracle CA"), trustme.CA(organization_name="Other CA")
        made["ca"] = QSslCertificate(ca.cert_pem.bytes(), Ssl.Pem)
        for key, authority, names in (
            ("good", ca, ("v4.test", "localhost", "127.0.0.1")),
            ("wrongname", ca, ("elsewhere.test",)),
            ("untrusted", other, ("v4.test", "127.0.0.1")),
            ("client", ca, ("client.test",)),
            ("client_untrusted", other, ("client.test",)),
        ):
            c = authority.issue_cert(*names)
            pem = c.private_key_pem.bytes()
            alg = Ssl.Ec if b"EC" in pem.splitlines()[0] else Ssl.Rsa
            made[key] = (QSslCertificate(c.cert_chain_pems[0].bytes(), Ssl.Pem), QSslKey(pem, alg, Ssl.Pem), c)
        assert not made["good"][1].isNull()
    return made


def server_conf(which: str = "good", ask_client: bool = False) -> Any:
    m = certs()
    c = QSslConfiguration.defaultConfiguration()
    c.setLocalCertificate(m[which][0])
    c.setPrivateKey(m[which][1])
    c.setCaCertificates([m["ca"]])
    c.setPeerVerifyMode(Verify.VerifyPeer if ask_client else Verify.VerifyNone)
    return c


def client_conf(trust: bool = True, cert: str | None = None) -> Any:
    m = certs()
    c = QSslConfiguration.defaultConfiguration()
    c.setCaCertificates([m["ca"]] if trust else [])
    if cert:
        c.setLocalCertificate(m[cert][0])
        c.setPrivateKey(m[cert][1])
    return c


def sslserver(t: Trace, which: str = "good", ask_client: bool = False) -> Any:
    s = t.watch(QSslServer(), "server")
    s.setSslConfiguration(server_conf(which, ask_client))
    s.listen(LH, 0)
    t.port(s.serverPort(), "SERVER")
    return s


class ManualServer(QTcpServer):
    """Accepts into a QSslSocket and starts TLS when told."""

    auto = True
    sock: Any = None
    trace: Any = None
    conf: Any = None

    def incomingConnection(self, fd: int) -> None:
        self.sock = s = QSslSocket(self)
        s.setSslConfiguration(self.conf)
        s.setSocketDescriptor(fd)
        self.trace.watch(s, "accepted")
        if self.auto:
            self.trace.call(s, "startServerEncryption")
        self.addPendingConnection(s)


def manual(t: Trace, which: str = "good", auto: bool = True, ask_client: bool = False) -> Any:
    s = ManualServer()
    s.trace, s.auto, s.conf = t, auto, server_conf(which, ask_client)
    s.listen(LH, 0)
    t.keep.append(s)
    t.names[id(s)] = "server"
    t.port(s.serverPort(), "SERVER")
    return s


def client(t: Trace, trust: bool = True, cert: str | None = None, name: str = "client") -> Any:
    c = t.watch(QSslSocket(), name)
    c.setSslConfiguration(client_conf(trust, cert))
    return c


def settled(t: Trace, name: str) -> None:
    t.until(lambda: t.seen(name, "encrypted") or t.seen(name, "error_occurred"))


def sslstatus(t: Trace, c: Any) -> None:
    t.query(c, "state", "error", "isEncrypted", "mode", "bytesAvailable", "bytesToWrite", "isOpen")
    t.note("handshake errors of " + t.name(c), errors=c.sslHandshakeErrors())


def py_server(t: Trace, behaviour: str, which: str = "good", symbol: str = "SERVER", *, forked: bool = False) -> int:
    """The standard library's TLS, beside: in a thread, or in a process."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    certs()[which][2].configure_cert(context)

    def handle(conn: socket.socket) -> None:
        # A duplicate, for it takes the socket over, and at the scenario's end that must still be there to be shut down.
        with contextlib.suppress(OSError), context.wrap_socket(conn.dup(), server_side=True) as tls:
            BEHAVIOURS[behaviour](tls)
            conn.shutdown(socket.SHUT_RDWR)

    return (serve_forked if forked else serve)(t, handle, symbol)


def echo(tls: ssl.SSLSocket) -> None:
    while data := tls.recv(65536):
        tls.sendall(data)


def hello_close(tls: ssl.SSLSocket) -> None:
    tls.sendall(b"hello")
    time.sleep(0.05)
    tls.unwrap()


def hello_notify_fin(tls: ssl.SSLSocket) -> None:
    """It says close_notify, and does not wait for the answer."""
    tls.sendall(b"hello")
    time.sleep(0.05)
    tls.setblocking(False)
    with contextlib.suppress(OSError):
        tls.unwrap()
    time.sleep(0.05)
    tls.shutdown(socket.SHUT_RDWR)


def hello_notify_stay(tls: ssl.SSLSocket) -> None:
    """It says close_notify, and leaves TCP open for a while."""
    tls.sendall(b"hello")
    time.sleep(0.05)
    tls.setblocking(False)
    with contextlib.suppress(OSError):
        tls.unwrap()
    time.sleep(0.5)


def hello_drop(tls: ssl.SSLSocket) -> None:
    """It says no close_notify."""
    tls.sendall(b"hello")
    time.sleep(0.05)
    tls.shutdown(socket.SHUT_RDWR)


BEHAVIOURS = {
    "echo": echo,
    "hello_close": hello_close,
    "hello_notify_fin": hello_notify_fin,
    "hello_notify_stay": hello_notify_stay,
    "hello_drop": hello_drop,
}
