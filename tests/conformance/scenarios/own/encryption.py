"""TLS: what the scenarios of the oracle leave out."""

import socket
from typing import Any

from PySide6.QtNetwork import QAbstractSocket, QHostAddress

from tests.conformance.scenarios.beginnings import until_available
from tests.conformance.scenarios.encrypted import client, client_conf, manual, py_server, settled, sslserver, sslstatus
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


@scenario("three messages over TLS, each echoed, then our end", "ssl")
def ssl_three_echoes(t: Trace) -> None:
    c = client(t)
    t.call(c, "connectToHostEncrypted", "127.0.0.1", py_server(t, "echo"))
    settled(t, "client")
    for message in (b"one", b"second", b"and the third\n"):
        t.call(c, "write", message)
        until_available(t, c, len(message))
        t.query(c, "canReadLine", "bytesToWrite")
        t.call(c, "readAll")
    t.call(c, "disconnectFromHost")
    t.until(lambda: t.seen("client", "disconnected"))
    sslstatus(t, c)


@scenario("wait_for_encrypted, wait_for_ready_read, wait_for_disconnected, by waits alone", "ssl")
def ssl_by_waits_alone(t: Trace) -> None:
    c = client(t)
    port = py_server(t, "echo", forked=True)  # QSslSocket.waitForReadyRead() holds the interpreter
    t.call(c, "connectToHostEncrypted", "127.0.0.1", port)
    t.call(c, "waitForEncrypted", 3000)
    t.query(c, "isEncrypted", "mode", "state")
    t.call(c, "write", b"hello")
    t.call(c, "waitForReadyRead", 3000)
    t.call(c, "readAll")
    t.call(c, "disconnectFromHost")
    t.call(c, "waitForDisconnected", 3000)
    t.query(c, "state", "error", "isEncrypted")


@scenario("the server's certificate is of another authority, twice with one socket", "ssl")
def ssl_untrusted_twice(t: Trace) -> None:
    p = py_server(t, "echo", "untrusted")
    c = client(t)
    for number in (1, 2):
        t.call(c, "connectToHostEncrypted", "127.0.0.1", p)
        t.until(lambda number=number: t.count("client", "disconnected") == number)  # type: ignore[misc]
        t.spin()
        t.query(c, "state", "error", "isEncrypted")


@scenario("a server of ours and a client: data both ways, the server ends", "ssl")
def ssl_server_says_goodbye(t: Trace) -> None:
    s = sslserver(t)
    c = client(t)
    t.call(c, "connectToHostEncrypted", "127.0.0.1", s.serverPort())
    t.until(lambda: s.hasPendingConnections() and t.seen("client", "encrypted"))
    accepted = t.watch(s.nextPendingConnection(), "accepted")
    t.query(accepted, "state", "isEncrypted", "mode")
    t.call(c, "write", b"hello server")
    until_available(t, accepted, 12)
    t.call(accepted, "readAll")
    t.call(accepted, "write", b"goodbye")
    t.call(accepted, "disconnectFromHost")
    t.until(lambda: t.seen("client", "disconnected"))
    t.query(c, "bytesAvailable", "state", "error")
    t.call(c, "readAll")


@scenario("abort in the encrypted slot, and a second connection", "ssl")
def ssl_abort_when_encrypted(t: Trace) -> None:
    p = py_server(t, "echo")
    c = client(t)
    t.call(c, "connectToHostEncrypted", "127.0.0.1", p)
    settled(t, "client")
    t.call(c, "abort")
    sslstatus(t, c)
    t.call(c, "connectToHostEncrypted", "127.0.0.1", p)
    t.until(lambda: t.count("client", "encrypted") == 2)
    t.call(c, "write", b"again")
    until_available(t, c, 5)
    t.call(c, "readAll")
    sslstatus(t, c)


@scenario("STARTTLS: a greeting in plain, then TLS on both sides, then a message", "ssl")
def ssl_greeting_then_starttls(t: Trace) -> None:
    s = manual(t, auto=False)
    c = client(t)
    t.call(c, "connectToHost", LH, s.serverPort())
    t.until_state(c, "ConnectedState")
    t.until(lambda: s.sock is not None)
    t.call(s.sock, "write", b"+OK\r\n")
    until_available(t, c, 5)
    t.call(c, "readLine")
    t.call(s.sock, "startServerEncryption")
    t.call(c, "startClientEncryption")
    settled(t, "client")
    t.until(lambda: t.seen("accepted", "encrypted"))
    t.call(c, "write", b"secret\r\n")
    until_available(t, s.sock, 8)
    t.call(s.sock, "readLine")
    t.query(c, "isEncrypted", "mode", "error")


@scenario("a TLS client at a server that closes at once", "ssl")
def ssl_server_closes_at_once(t: Trace) -> None:
    listener, p = t.raw_listener()
    c = client(t)
    t.call(c, "connectToHostEncrypted", "127.0.0.1", p)
    peer = t.accept(listener)
    t.until(lambda: t.seen("client", "connected"))
    t.recv_all(peer, want=6, ms=1000)
    peer.close()
    t.until(lambda: t.seen("client", "disconnected"))
    t.spin()
    sslstatus(t, c)
