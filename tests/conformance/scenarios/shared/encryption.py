"""TLS: handshakes that work and that do not, chosen errors, pauses, ends, and a server that encrypts."""

import socket
from typing import Any

from PySide6.QtNetwork import QAbstractSocket, QHostAddress, QSsl, QSslConfiguration, QSslSocket

from tests.conformance.scenarios.encrypted import client, manual, py_server, settled, sslserver, sslstatus
from tests.conformance.trace import Trace, scenario

S = QAbstractSocket.SocketState
LH = QHostAddress("127.0.0.1")
# Their enumerators are attributes of theirs too, which nobody has told type checkers.
Ssl: Any = QSsl
Verify: Any = QSslSocket.PeerVerifyMode
PauseMode: Any = QAbstractSocket.PauseMode


@scenario("a fresh QSslSocket", "ssl", crashy=True)
def ssl_construct(t: Trace) -> None:
    c = t.watch(QSslSocket(), "client")
    t.status(c)
    t.query(
        c,
        "mode",
        "isEncrypted",
        "peerVerifyMode",
        "peerVerifyDepth",
        "peerVerifyName",
        "protocol",
        "encryptedBytesAvailable",
        "encryptedBytesToWrite",
    )
    t.note(
        "cipher",
        null=c.sessionCipher().isNull(),
        peer_certificate_null=c.peerCertificate().isNull(),
        chain=len(c.peerCertificateChain()),
    )
    t.call(c, "startClientEncryption")
    t.call(c, "waitForEncrypted", 10)
    t.call(c, "waitForConnected", 10)
    t.call(c, "waitForDisconnected", 10)
    t.call(c, "waitForReadyRead", 10)
    t.call(c, "waitForBytesWritten", 10)
    t.query(c, "error", "state")


@scenario("start_server_encryption on an unconnected socket (crashes in 6.12)", "ssl", crashy=True)
def ssl_start_server_unconnected(t: Trace) -> None:
    c = t.watch(QSslSocket(), "client")
    t.call(c, "startServerEncryption")
    t.query(c, "state", "mode")


@scenario("handshake ok by name with a trusted CA; echo; disconnect", "ssl")
def ssl_ok(t: Trace) -> None:
    s = manual(t)
    c = client(t)
    t.call(c, "connectToHostEncrypted", "v4.test", s.serverPort())
    sslstatus(t, c)
    t.until(lambda: t.seen("client", "encrypted") and t.seen("accepted", "encrypted"))
    t.spin()
    sslstatus(t, c)
    t.query(c, "sessionProtocol", "peerName", "peerVerifyName")
    t.note("cipher", null=c.sessionCipher().isNull(), chain=len(c.peerCertificateChain()))
    t.call(c, "write", b"ping")
    t.query(c, "bytesToWrite")
    t.until(lambda: s.sock.bytesAvailable() == 4)
    t.call(s.sock, "readAll")
    t.call(s.sock, "write", b"pong")
    t.until(lambda: c.bytesAvailable() == 4)
    t.call(c, "readAll")
    t.call(c, "disconnectFromHost")
    t.until(lambda: t.seen("accepted", "disconnected") and t.seen("client", "disconnected"))
    t.spin()
    sslstatus(t, c)
    sslstatus(t, s.sock)


@scenario("write before encrypted is held back and sent after the handshake", "ssl")
def ssl_write_before_encrypted(t: Trace) -> None:
    p = py_server(t, "echo")
    c = client(t)
    t.call(c, "connectToHostEncrypted", "v4.test", p)
    t.call(c, "write", b"early")
    t.query(c, "bytesToWrite", "encryptedBytesToWrite")
    t.until(lambda: c.bytesAvailable() == 5)
    t.call(c, "readAll")


@scenario("disconnect_from_host before the handshake is done, with data queued", "ssl")
def ssl_disconnect_before_encrypted(t: Trace) -> None:
    p = py_server(t, "echo")
    c = client(t)
    t.call(c, "connectToHostEncrypted", "v4.test", p)
    t.call(c, "write", b"early")
    t.call(c, "disconnectFromHost")
    t.query(c, "state")
    t.until(lambda: t.seen("client", "disconnected"), ms=2000)
    t.spin()
    sslstatus(t, c)


@scenario("untrusted certificate, nothing ignored", "ssl")
def ssl_untrusted(t: Trace) -> None:
    p = py_server(t, "echo", "untrusted")
    c = client(t)
    t.call(c, "connectToHostEncrypted", "v4.test", p)
    t.until(lambda: t.seen("client", "error_occurred"))
    t.spin()
    sslstatus(t, c)
    t.query(c, "errorString")


@scenario("untrusted certificate seen from both Qt sides", "ssl")
def ssl_untrusted_both(t: Trace) -> None:
    s = manual(t, "untrusted")
    c = client(t)
    t.call(c, "connectToHostEncrypted", "v4.test", s.serverPort())
    t.until(lambda: t.seen("client", "disconnected") and t.seen("accepted", "disconnected"), ms=1500)
    t.spin()
    sslstatus(t, c)
    sslstatus(t, s.sock)


@scenario("ignore_ssl_errors() called before connecting", "ssl")
def ssl_ignore_before(t: Trace) -> None:
    p = py_server(t, "echo", "untrusted")
    c = client(t)
    t.call(c, "ignoreSslErrors")
    t.call(c, "connectToHostEncrypted", "v4.test", p)
    t.until(lambda: t.seen("client", "encrypted") or t.seen("client", "error_occurred"))
    sslstatus(t, c)


@scenario("ignore_ssl_errors() called after connect_to_host_encrypted, before the handshake", "ssl")
def ssl_ignore_after_connect(t: Trace) -> None:
    p = py_server(t, "echo", "untrusted")
    c = client(t)
    t.call(c, "connectToHostEncrypted", "v4.test", p)
    t.call(c, "ignoreSslErrors")
    t.until(lambda: t.seen("client", "encrypted") or t.seen("client", "error_occurred"))
    sslstatus(t, c)


@scenario("is ignore_ssl_errors() remembered for the next connection?", "ssl")
def ssl_ignore_second_connection(t: Trace) -> None:
    p = py_server(t, "echo", "untrusted")
    c = client(t)
    c.connectToHostEncrypted("v4.test", p)
    c.ignoreSslErrors()
    t.until(lambda: t.seen("client", "encrypted"))
    c.disconnectFromHost()
    t.until_state(c, "UnconnectedState")
    t.note("second connection")
    t.call(c, "connectToHostEncrypted", "v4.test", p)
    t.until(lambda: t.count("client", "encrypted") == 2 or t.seen("client", "error_occurred"))
    sslstatus(t, c)


@scenario("ignoring a list: exactly the errors / only some of them", "ssl")
def ssl_ignore_list(t: Trace) -> None:
    p = py_server(t, "echo", "untrusted")
    probe = client(t, name="probe")
    probe.connectToHostEncrypted("v4.test", p, "bad.test")
    t.until(lambda: t.seen("probe", "error_occurred"))
    errs = probe.sslHandshakeErrors()
    for label, chosen in (("all", errs), ("some", errs[:1]), ("none", [])):
        c = client(t, name=label)
        c.ignoreSslErrors(chosen)
        t.note("ignoring " + label, errors=chosen)
        t.call(c, "connectToHostEncrypted", "v4.test", p, "bad.test")
        settled(t, label)


@scenario("certificate for another name", "ssl")
def ssl_hostname_mismatch(t: Trace) -> None:
    p = py_server(t, "echo", "wrongname")
    c = client(t)
    t.call(c, "connectToHostEncrypted", "v4.test", p)
    t.until(lambda: t.seen("client", "error_occurred"))
    t.spin()
    sslstatus(t, c)
    d = client(t, name="with_verify_name")
    t.call(d, "connectToHostEncrypted", "v4.test", p, "elsewhere.test")
    t.until(lambda: t.seen("with_verify_name", "encrypted"))
    e = client(t, name="with_set_peer_verify_name")
    t.call(e, "setPeerVerifyName", "elsewhere.test")
    t.call(e, "connectToHostEncrypted", "v4.test", p)
    t.until(
        lambda: (
            t.seen("with_set_peer_verify_name", "encrypted") or t.seen("with_set_peer_verify_name", "error_occurred")
        )
    )


@scenario("several errors at once: order of peer_verify_error and ssl_errors", "ssl")
def ssl_two_errors(t: Trace) -> None:
    p = py_server(t, "echo", "untrusted")
    c = client(t)
    t.call(c, "connectToHostEncrypted", "v4.test", p, "bad.test")
    t.until(lambda: t.seen("client", "error_occurred"))
    t.spin()
    sslstatus(t, c)


@scenario("connect by IP address; certificate has that IP as subject alternative name", "ssl")
def ssl_ip_san(t: Trace) -> None:
    p = py_server(t, "echo")
    c = client(t)
    t.call(c, "connectToHostEncrypted", "127.0.0.1", p)
    t.until(lambda: t.seen("client", "encrypted") or t.seen("client", "error_occurred"))
    sslstatus(t, c)


@scenario("verify modes of the client against an untrusted server", "ssl")
def ssl_verify_modes(t: Trace) -> None:
    p = py_server(t, "echo", "untrusted")
    for m in (Verify.VerifyNone, Verify.QueryPeer, Verify.VerifyPeer, Verify.AutoVerifyPeer):
        c = client(t, name=m.name)
        c.setPeerVerifyMode(m)
        t.call(c, "connectToHostEncrypted", "v4.test", p)
        settled(t, m.name)
        sslstatus(t, c)


@scenario("pause on ssl errors, ignore, resume", "ssl")
def ssl_pause_ignore_resume(t: Trace) -> None:
    p = py_server(t, "echo", "untrusted")
    c = client(t)
    c.setPauseMode(PauseMode.PauseOnSslErrors)
    t.call(c, "connectToHostEncrypted", "v4.test", p)
    t.until(lambda: t.seen("client", "ssl_errors"))
    t.spin(100)
    t.note("paused")
    sslstatus(t, c)
    t.call(c, "ignoreSslErrors")
    t.spin(60)
    t.call(c, "resume")
    t.until(lambda: t.seen("client", "encrypted"))
    sslstatus(t, c)


@scenario("pause on ssl errors, then abort / wait_for_encrypted while paused", "ssl")
def ssl_pause_abort(t: Trace) -> None:
    p = py_server(t, "echo", "untrusted")
    c = client(t)
    c.setPauseMode(PauseMode.PauseOnSslErrors)
    t.call(c, "connectToHostEncrypted", "v4.test", p)
    t.until(lambda: t.seen("client", "ssl_errors"))
    t.call(c, "waitForEncrypted", 100)
    t.query(c, "error", "state")
    t.call(c, "abort")
    sslstatus(t, c)


@scenario("start_client_encryption with plain data still unread / written", "ssl")
def ssl_starttls_buffered(t: Trace) -> None:
    s = manual(t, auto=False)
    c = client(t)
    c.connectToHost("v4.test", s.serverPort())
    t.until(lambda: c.state() == S.ConnectedState and s.sock is not None)
    t.call(s.sock, "write", b"greeting\r\n")
    t.until(lambda: c.bytesAvailable() == 10)
    t.call(c, "startClientEncryption")
    t.query(c, "bytesAvailable")
    t.call(s.sock, "startServerEncryption")
    t.until(lambda: t.seen("client", "encrypted") or t.seen("client", "error_occurred"), ms=1500)
    sslstatus(t, c)
    t.call(c, "readAll")


@scenario("TLS client against a plain server that says something else", "ssl")
def ssl_garbage_server(t: Trace) -> None:
    lst, p = t.raw_listener()
    c = client(t)
    t.call(c, "connectToHostEncrypted", "127.0.0.1", p)
    t.until_state(c, "ConnectedState")
    peer = t.accept(lst)
    peer.sendall(b"HTTP/1.0 400 Bad Request\r\n\r\n")
    t.until(lambda: t.seen("client", "error_occurred"))
    t.spin()
    sslstatus(t, c)


@scenario("TLS client against a server that closes during the handshake", "ssl")
def ssl_close_in_handshake(t: Trace) -> None:
    lst, p = t.raw_listener()
    c = client(t)
    t.call(c, "connectToHostEncrypted", "127.0.0.1", p)
    t.until_state(c, "ConnectedState")
    peer = t.accept(lst)
    t.spin(30)
    peer.recv(4096)
    peer.close()
    t.until(lambda: t.seen("client", "disconnected"))
    t.spin()
    sslstatus(t, c)


@scenario("peer sends data and close_notify, then closes TCP (does not wait for our close_notify)", "ssl")
def ssl_peer_clean_close_fin(t: Trace) -> None:
    p = py_server(t, "hello_notify_fin")
    c = client(t)
    t.call(c, "connectToHostEncrypted", "v4.test", p)
    t.until(lambda: t.seen("client", "disconnected"))
    t.spin()
    sslstatus(t, c)
    t.call(c, "readAll")


@scenario("peer drops the TCP connection without close_notify", "ssl")
def ssl_peer_truncate(t: Trace) -> None:
    p = py_server(t, "hello_drop")
    c = client(t)
    t.call(c, "connectToHostEncrypted", "v4.test", p)
    t.until(lambda: t.seen("client", "disconnected"))
    t.spin()
    sslstatus(t, c)
    t.call(c, "readAll")


@scenario("abort and close on an encrypted socket", "ssl")
def ssl_abort(t: Trace) -> None:
    p = py_server(t, "echo")
    for m in ("abort", "close"):
        c = client(t, name="client_" + m)
        c.connectToHostEncrypted("v4.test", p)
        settled(t, "client_" + m)
        t.call(c, "write", b"pending")
        t.call(c, m)
        t.spin(60)
        sslstatus(t, c)


@scenario("mode after disconnecting and a plain connect on the same socket", "ssl")
def ssl_reuse_plain(t: Trace) -> None:
    p = py_server(t, "echo")
    _, plain = t.raw_listener(symbol="PLAIN")
    c = client(t)
    c.connectToHostEncrypted("v4.test", p)
    t.until(lambda: t.seen("client", "encrypted"))
    c.disconnectFromHost()
    t.until_state(c, "UnconnectedState")
    t.query(c, "mode", "isEncrypted")
    t.call(c, "connectToHost", LH, plain)
    t.query(c, "mode", "isEncrypted")
    t.until_state(c, "ConnectedState")


@scenario("wait_for_encrypted: ok, timeout, failing handshake", "ssl")
def ssl_wait_for_encrypted(t: Trace) -> None:
    p = py_server(t, "echo")
    c = client(t, name="ok")
    t.call(c, "connectToHostEncrypted", "v4.test", p)
    t.call(c, "waitForEncrypted", 2000)
    sslstatus(t, c)
    _, silent = t.raw_listener(symbol="SILENT")
    d = client(t, name="silent")
    t.call(d, "connectToHostEncrypted", "127.0.0.1", silent)
    t.call(d, "waitForEncrypted", 100)
    sslstatus(t, d)
    p2 = py_server(t, "echo", "untrusted", symbol="UNTRUSTED")
    e = client(t, name="bad")
    t.call(e, "connectToHostEncrypted", "v4.test", p2)
    t.call(e, "waitForEncrypted", 2000)
    sslstatus(t, e)


@scenario("server asks for a client certificate: given / missing / untrusted", "ssl")
def ssl_client_certificate(t: Trace) -> None:
    for label, cert in (("given", "client"), ("missing", None), ("untrusted", "client_untrusted")):
        t.note(label)
        s = manual(t, ask_client=True)
        c = client(t, cert=cert, name="client_" + label)
        t.call(c, "connectToHostEncrypted", "v4.test", s.serverPort())
        t.spin(400)
        t.query(c, "state", "isEncrypted", "error")
        t.query(s.sock, "state", "isEncrypted", "error")
        c.abort()
        s.sock.abort()


@scenario("no common protocol version", "ssl")
def ssl_protocol_mismatch(t: Trace) -> None:
    s = manual(t)
    s.conf.setProtocol(Ssl.TlsV1_3OrLater)
    c = client(t)
    c.setProtocol(Ssl.TlsV1_2)
    t.call(c, "connectToHostEncrypted", "v4.test", s.serverPort())
    t.until(lambda: t.seen("client", "disconnected") and t.seen("accepted", "disconnected"), ms=1500)
    t.spin()
    sslstatus(t, c)
    sslstatus(t, s.sock)


@scenario("server without certificate or key", "ssl")
def ssl_server_no_key(t: Trace) -> None:
    s = manual(t)
    s.conf = QSslConfiguration.defaultConfiguration()
    c = client(t)
    t.call(c, "connectToHostEncrypted", "v4.test", s.serverPort())
    t.until(lambda: t.seen("client", "error_occurred"), ms=1500)
    t.spin()
    sslstatus(t, c)
    if s.sock:
        sslstatus(t, s.sock)


@scenario("QSslServer: pending connection only after the handshake", "ssl")
def sslserver_ok(t: Trace) -> None:
    s = sslserver(t)
    c = client(t)
    t.call(c, "connectToHostEncrypted", "v4.test", s.serverPort())
    t.until(lambda: s.hasPendingConnections())
    t.spin()
    a = s.nextPendingConnection()
    t.note("accepted", type=type(a).__name__, encrypted=a.isEncrypted(), state=a.state())
    t.keep.append(a)


@scenario("QSslServer: client refuses the certificate", "ssl")
def sslserver_client_refuses(t: Trace) -> None:
    s = sslserver(t, "untrusted")
    c = client(t)
    t.call(c, "connectToHostEncrypted", "v4.test", s.serverPort())
    t.spin(300)
    t.query(s, "hasPendingConnections")


@scenario("QSslServer: plain client sends garbage / closes / says nothing until the handshake timeout", "ssl")
def sslserver_bad_clients(t: Trace) -> None:
    s = sslserver(t)
    t.query(s, "handshakeTimeout")
    t.call(s, "setHandshakeTimeout", 150)
    r = socket.create_connection(("127.0.0.1", s.serverPort()))
    t.raw.append(r)
    t.spin(30)
    r.sendall(b"garbage garbage\r\n")
    t.spin(100)
    t.note("garbage done", pending=s.hasPendingConnections())
    r = socket.create_connection(("127.0.0.1", s.serverPort()))
    t.spin(30)
    r.close()
    t.spin(100)
    t.note("early close done", pending=s.hasPendingConnections())
    r = socket.create_connection(("127.0.0.1", s.serverPort()))
    t.raw.append(r)
    t.spin(300)
    t.note("silent client done", pending=s.hasPendingConnections())
    t.peer("silent client sees", data=t.recv_all(r, ms=100))
