"""TLS: what the scenarios of the oracle leave out."""

import socket
from typing import Any

from PySide6.QtNetwork import QAbstractSocket, QHostAddress

from tests.conformance.scenarios.beginnings import until_available
from tests.conformance.scenarios.encrypted import client, client_conf, manual, py_server, settled, sslstatus
from tests.conformance.trace import Trace, scenario

LH = QHostAddress("127.0.0.1")
PauseMode: Any = QAbstractSocket.PauseMode


@scenario("connect_to_host, then start_client_encryption, and again", "ssl")
def ssl_start_client_when_connected(t: Trace) -> None:
    s = manual(t)
    c = client(t)
    t.call(c, "connectToHost", LH, s.serverPort())
    t.until_state(c, "ConnectedState")
    t.query(c, "mode", "isEncrypted")
    t.call(c, "startClientEncryption")
    t.query(c, "mode", "isEncrypted")
    settled(t, "client")
    t.until(lambda: t.seen("accepted", "encrypted"))
    sslstatus(t, c)
    t.call(c, "startClientEncryption")
    sslstatus(t, c)


@scenario("ignore_ssl_errors(list) in the slot of ssl_errors", "ssl")
def ssl_pause_ignore_list_resume(t: Trace) -> None:
    p = py_server(t, "echo", "untrusted")
    c = client(t)
    c.setPauseMode(PauseMode.PauseOnSslErrors)
    t.call(c, "connectToHostEncrypted", "127.0.0.1", p, "bad.example")
    t.until(lambda: t.seen("client", "ssl_errors"))
    t.call(c, "ignoreSslErrors", c.sslHandshakeErrors())
    t.call(c, "resume")
    settled(t, "client")
    sslstatus(t, c)


@scenario("paused on ssl errors, resumed without ignoring, and with a list that lacks one", "ssl")
def ssl_pause_resume_unignored(t: Trace) -> None:
    p = py_server(t, "echo", "untrusted")
    for label, count in (("none", 0), ("some", 1)):
        c = client(t, name=label)
        c.setPauseMode(PauseMode.PauseOnSslErrors)
        t.call(c, "connectToHostEncrypted", "127.0.0.1", p, "bad.example")
        t.until(lambda label=label: t.seen(label, "ssl_errors"))  # type: ignore[misc]
        t.call(c, "ignoreSslErrors", c.sslHandshakeErrors()[:count])
        t.call(c, "resume")
        settled(t, label)
        t.spin()
        sslstatus(t, c)


@scenario("wait_for_connected returns before it is encrypted", "ssl")
def ssl_wait_for_connected(t: Trace) -> None:
    p = py_server(t, "echo")
    c = client(t)
    t.call(c, "connectToHostEncrypted", "127.0.0.1", p)
    t.call(c, "waitForConnected", 2000)
    t.query(c, "state", "isEncrypted")
    settled(t, "client")
    sslstatus(t, c)


@scenario("a plain exchange with peeks, then STARTTLS on both sides, then an encrypted one", "ssl")
def ssl_starttls_exchange(t: Trace) -> None:
    s = manual(t, auto=False)
    c = client(t)
    t.call(c, "connectToHost", LH, s.serverPort())
    t.until_state(c, "ConnectedState")
    t.until(lambda: s.sock is not None)
    t.call(s.sock, "write", b"220 ready\r\n")
    until_available(t, c, 11)
    t.call(c, "peek", 3)
    t.call(c, "readAll")
    t.call(c, "write", b"STARTTLS\r\n")
    until_available(t, s.sock, 10)
    t.call(s.sock, "peek", 4)
    t.call(s.sock, "readAll")
    t.call(s.sock, "write", b"220 go ahead\r\n")
    t.call(s.sock, "startServerEncryption")
    until_available(t, c, 14)
    t.call(c, "readAll")
    t.call(c, "startClientEncryption")
    settled(t, "client")
    t.until(lambda: t.seen("accepted", "encrypted"))
    t.call(c, "write", b"EHLO again\r\n")
    until_available(t, s.sock, 12)
    t.call(s.sock, "readAll")


@scenario("a plain client talks to a socket that waits for TLS", "ssl")
def ssl_plain_client(t: Trace) -> None:
    s = manual(t)
    raw = socket.create_connection(("127.0.0.1", s.serverPort()), timeout=2)
    t.raw.append(raw)
    t.until(lambda: t.seen("accepted", "mode_changed"))
    raw.sendall(b"GET / HTTP/1.0\r\n\r\n")
    t.until(lambda: t.seen("accepted", "error_occurred"))
    t.spin()
    sslstatus(t, s.sock)


@scenario("connect_to_host_encrypted where nobody listens", "ssl")
def ssl_refused(t: Trace) -> None:
    c = client(t)
    t.call(c, "connectToHostEncrypted", "127.0.0.1", t.closed_port())
    settled(t, "client")
    t.spin()
    sslstatus(t, c)


@scenario("the peer says close_notify, and leaves TCP open", "ssl")
def ssl_peer_notify_stays_open(t: Trace) -> None:
    p = py_server(t, "hello_notify_stay")
    c = client(t)
    t.call(c, "connectToHostEncrypted", "127.0.0.1", p)
    t.until(lambda: t.seen("client", "error_occurred"))
    t.spin(60)
    sslstatus(t, c)
    t.call(c, "readAll")


@scenario("a peer that writes first, after the handshake has been idle", "ssl")
def ssl_spontaneous_write(t: Trace) -> None:
    s = manual(t)
    c = client(t)
    t.call(c, "connectToHostEncrypted", "127.0.0.1", s.serverPort())
    settled(t, "client")
    t.until(lambda: t.seen("accepted", "encrypted"))
    t.spin(60)
    t.call(s.sock, "write", b"Hello, world")
    until_available(t, c, 12)
    t.call(c, "readAll")


@scenario("10 MB written at once arrive whole", "ssl")
def ssl_big_write(t: Trace) -> None:
    s = manual(t)
    c = client(t)
    t.call(c, "connectToHostEncrypted", "127.0.0.1", s.serverPort())
    settled(t, "client")
    t.until(lambda: t.seen("accepted", "encrypted"))
    was, t.active = t.active, False
    c.write(bytes(10_000_000))
    got = 0
    while got < 10_000_000 and t.until(lambda: s.sock.bytesAvailable() > 0):
        got += len(bytes(s.sock.readAll()))
    t.active = was
    t.note("arrived", count=got)
    sslstatus(t, c)


@scenario("no authorities, and the right one, of the same socket", "ssl")
def ssl_authorities(t: Trace) -> None:
    p = py_server(t, "echo")
    c = client(t, trust=False)
    t.call(c, "connectToHostEncrypted", "127.0.0.1", p)
    settled(t, "client")
    t.until_state(c, "UnconnectedState")
    sslstatus(t, c)
    c.setSslConfiguration(client_conf())
    t.call(c, "connectToHostEncrypted", "127.0.0.1", p)
    t.until(lambda: t.seen("client", "encrypted"))
    sslstatus(t, c)
