"""Servers: listening, accepting, limits, pausing, closing, and overrides of how connections come in."""

import os
import resource
import socket
from typing import Any

import shiboken6
from PySide6.QtNetwork import QHostAddress, QNetworkProxy, QTcpServer, QTcpSocket

from tests.conformance.scenarios.beginnings import describe, listening, new_server, raw_client, raw_clients, take
from tests.conformance.trace import Trace, scenario

ProxyType = QNetworkProxy.ProxyType
LH = QHostAddress("127.0.0.1")
ANY = QHostAddress(QHostAddress.SpecialAddress.Any)


@scenario("a fresh QTcpServer: every getter", "server")
def server_construct(t: Trace) -> None:
    s = new_server(t)
    describe(t, s)
    t.query(s, "listenBacklogSize", "proxy")
    t.call(s, "nextPendingConnection")
    t.call(s, "waitForNewConnection", 10)
    t.query(s, "serverError")
    t.call(s, "close")
    t.query(s, "isListening")


@scenario("listen on Any / AnyIPv4 / AnyIPv6 / loopback: reported address, who can connect", "server")
def server_listen_addresses(t: Trace) -> None:
    for label, a in (
        ("Any", ANY),
        ("AnyIPv4", QHostAddress(QHostAddress.SpecialAddress.AnyIPv4)),
        ("AnyIPv6", QHostAddress(QHostAddress.SpecialAddress.AnyIPv6)),
        ("LocalHost", LH),
        ("LocalHostIPv6", QHostAddress("::1")),
        ("null", QHostAddress()),
    ):
        s = QTcpServer()
        t.keep.append(s)
        ok = s.listen(a, 0)
        can = {}
        for fam, host in ((socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1")):
            r = socket.socket(fam)
            r.settimeout(1)
            try:
                r.connect((host, s.serverPort()))
                can[host] = True
            except OSError:
                can[host] = False
            t.raw.append(r)
        t.note(
            "listen " + label,
            ok=ok,
            address=s.serverAddress(),
            port_nonzero=s.serverPort() > 0,
            protocol=s.serverAddress().protocol(),
            reachable=can,
            error=s.serverError(),
        )


@scenario("listen while listening", "server")
def server_listen_twice(t: Trace) -> None:
    s = listening(t)
    t.call(s, "listen", LH, 0)
    describe(t, s)


@scenario("listen on a used port (another server / a raw socket)", "server")
def server_listen_used_port(t: Trace) -> None:
    a = listening(t, "first")
    b = new_server(t, "second")
    t.call(b, "listen", LH, a.serverPort())
    describe(t, b)
    t.call(b, "listen", LH, 0)
    t.query(b, "isListening", "serverError", "errorString")


@scenario("listen on a foreign address", "server")
def server_listen_foreign(t: Trace) -> None:
    s = new_server(t)
    t.call(s, "listen", QHostAddress("1.2.3.4"), 0)
    describe(t, s)
    t.note("retry on loopback")
    t.call(s, "listen", LH, 0)
    t.query(s, "isListening", "serverError", "errorString")


@scenario("listen on a specific port again right after close with live connections (TIME_WAIT)", "server")
def server_relisten_same_port(t: Trace) -> None:
    s = listening(t)
    p = s.serverPort()
    c = raw_client(t, s)
    t.until(lambda: s.hasPendingConnections())
    a = take(t, s, "accepted")
    a.disconnectFromHost()
    t.recv_all(c, ms=100)
    t.call(s, "close")
    describe(t, s)
    t.call(s, "listen", LH, p)
    t.query(s, "isListening")


@scenario("accepting one connection in the loop: signals, accepted socket", "server")
def server_accept_one(t: Trace) -> None:
    s = listening(t)
    describe(t, s)
    raw_client(t, s)
    t.until(lambda: s.hasPendingConnections())
    t.spin()
    c = take(t, s, "accepted")
    t.status(c)
    t.note("parent", is_server=c.parent() is s)
    t.query(s, "hasPendingConnections")
    take(t, s, "none")


@scenario("limit of 2 pending connections, 4 clients", "server")
def server_max_pending(t: Trace) -> None:
    s = listening(t)
    t.call(s, "setMaxPendingConnections", 2)
    raw_clients(t, s, 4)
    t.spin(100)
    t.note("after 100 ms")
    take(t, s, "accepted_1")
    t.note("no loop turn yet")
    take(t, s, "accepted_2")
    take(t, s, "accepted_3_too_early")
    t.spin(100)
    t.note("after another 100 ms")
    take(t, s, "accepted_3")
    take(t, s, "accepted_4")
    take(t, s, "accepted_5")


@scenario("limit of 0 and of -1 pending connections", "server")
def server_max_pending_zero(t: Trace) -> None:
    for n in (0, -1):
        s = new_server(t, f"server_{abs(n)}")
        t.call(s, "setMaxPendingConnections", n)
        t.call(s, "listen", LH, 0)
        t.port(s.serverPort(), "SERVER")
        raw_client(t, s)
        t.spin(100)
        t.query(s, "hasPendingConnections", "maxPendingConnections")
        t.call(s, "waitForNewConnection", 50)
        take(t, s, "x")
        t.call(s, "setMaxPendingConnections", 5)
        t.spin(100)
        t.query(s, "hasPendingConnections")


@scenario("raising the limit while full: are the waiting ones accepted at once?", "server")
def server_max_pending_raise(t: Trace) -> None:
    s = listening(t)
    t.call(s, "setMaxPendingConnections", 1)
    raw_clients(t, s, 3)
    t.spin(100)
    t.call(s, "setMaxPendingConnections", 10)
    t.spin(100)
    t.note("only raised the limit")
    take(t, s, "accepted_1")
    t.spin(100)


@scenario("limit reached, then taken inside the new_connection slot: all four come through", "server")
def server_max_pending_slot(t: Trace) -> None:
    s = listening(t)
    t.call(s, "setMaxPendingConnections", 1)
    n = [0]

    def slot() -> None:
        n[0] += 1
        take(t, s, f"accepted_{n[0]}")

    t.on(s, "newConnection", slot)
    raw_clients(t, s, 4)
    t.spin(200)


@scenario("pause_accepting / resume_accepting", "server")
def server_pause_resume(t: Trace) -> None:
    s = listening(t)
    t.call(s, "pauseAccepting")
    raw_clients(t, s, 2)
    t.spin(100)
    t.query(s, "isListening", "hasPendingConnections")
    t.call(s, "resumeAccepting")
    t.spin(100)
    t.query(s, "hasPendingConnections")


@scenario("wait_for_new_connection while paused; next_pending_connection while paused", "server")
def server_pause_wait(t: Trace) -> None:
    s = listening(t)
    raw_client(t, s)
    t.until(lambda: s.hasPendingConnections())
    t.call(s, "pauseAccepting")
    raw_client(t, s)
    t.call(s, "waitForNewConnection", 100)
    t.query(s, "hasPendingConnections")
    take(t, s, "a1")
    t.note("took one: does taking resume accepting?")
    raw_client(t, s)
    t.spin(100)
    take(t, s, "a2")
    take(t, s, "a3")


@scenario("pause_accepting when not listening", "server", crashy=True)
def server_pause_not_listening(t: Trace) -> None:
    s = new_server(t)
    t.call(s, "pauseAccepting")
    t.call(s, "resumeAccepting")
    t.query(s, "isListening")


@scenario("wait_for_new_connection: timeout, success, pending already, not listening", "server")
def server_wait(t: Trace) -> None:
    s = listening(t)
    t.call(s, "waitForNewConnection", 60)
    t.query(s, "serverError", "errorString", "isListening")
    raw_client(t, s)
    t.call(s, "waitForNewConnection", 500)
    t.query(s, "hasPendingConnections", "serverError")
    t.call(s, "waitForNewConnection", 60)
    t.note("one is still pending: what did the wait say?", pending=s.hasPendingConnections())
    take(t, s, "a")
    t.call(s, "close")
    t.call(s, "waitForNewConnection", 60)
    t.query(s, "serverError")


@scenario("close with pending connections: what the clients see", "server")
def server_close_pending(t: Trace) -> None:
    s = listening(t)
    cs = raw_clients(t, s, 2)
    t.until(lambda: t.count("server", "new_connection") == 2)
    kept = take(t, s, "kept")
    t.call(s, "close")
    describe(t, s)
    t.spin()
    t.query(kept, "state")
    for i, c in enumerate(cs):
        t.peer(f"client {i + 1} sees", data=t.recv_all(c, ms=150))
    take(t, s, "none")


@scenario("close with clients still in the kernel queue", "server")
def server_close_kernel_queue(t: Trace) -> None:
    s = listening(t)
    s.pauseAccepting()
    c = raw_client(t, s)
    t.call(s, "close")
    t.peer("client sees", data=t.recv_all(c, ms=150))
    try:
        socket.create_connection(("127.0.0.1", next(iter(t.ports))), timeout=1)
        t.note("a new client connects")
    except OSError as e:
        t.note("a new client", error=type(e).__name__)


@scenario("close inside the new_connection slot", "server")
def server_close_in_slot(t: Trace) -> None:
    s = listening(t)
    t.on(s, "newConnection", lambda: t.call(s, "close"))
    raw_clients(t, s, 3)
    t.spin(100)
    describe(t, s)


@scenario("accepted sockets live on after the server is closed", "server")
def server_close_accepted_live(t: Trace) -> None:
    s = listening(t)
    r = raw_client(t, s)
    t.until(lambda: s.hasPendingConnections())
    a = take(t, s, "accepted")
    t.call(s, "close")
    r.sendall(b"ping")
    t.until(lambda: a.bytesAvailable() == 4)
    t.call(a, "write", b"pong")
    t.peer("recv", data=t.recv_all(r, want=4))


@scenario("destroying the server destroys the accepted sockets (children)", "server")
def server_destroy(t: Trace) -> None:

    s = listening(t)
    r = raw_client(t, s)
    t.until(lambda: s.hasPendingConnections())
    a = take(t, s, "accepted")
    t.keep.remove(s)
    shiboken6.delete(s)
    t.note("accepted socket", alive=shiboken6.isValid(a))
    t.peer("recv", data=t.recv_all(r, ms=150))
    if not shiboken6.isValid(a):
        t.keep.remove(a)


@scenario("data sent and connection closed before next_pending_connection is called", "server")
def server_pending_already_closed(t: Trace) -> None:
    s = listening(t)
    r = raw_client(t, s)
    r.sendall(b"in advance")
    t.until(lambda: s.hasPendingConnections())
    t.spin(60)
    r.close()
    t.spin(60)
    t.query(s, "hasPendingConnections")
    a = take(t, s, "accepted")
    t.status(a)
    t.call(a, "readAll")
    t.spin(60)


@scenario("client connects and closes before the loop turns", "server")
def server_client_gone(t: Trace) -> None:
    s = listening(t)
    r = raw_client(t, s)
    r.close()
    t.spin(60)
    t.query(s, "hasPendingConnections")
    a = take(t, s, "accepted")
    if a:
        t.query(a, "state", "error")
        t.spin(60)
        t.query(a, "state", "error")


@scenario("client connects and resets before the loop turns", "server")
def server_client_reset(t: Trace) -> None:
    s = listening(t)
    r = raw_client(t, s)
    t.rst(r)
    t.spin(60)
    t.query(s, "hasPendingConnections", "serverError")
    a = take(t, s, "accepted")
    if a:
        t.query(a, "state", "error", "errorString", "peerAddress")
        t.spin(60)
        t.query(a, "state", "error")


@scenario("set_socket_descriptor: listening descriptor", "server")
def server_set_descriptor(t: Trace) -> None:
    lst, _p = t.raw_listener()
    s = new_server(t)
    t.call(s, "setSocketDescriptor", lst.detach(), show=["LISTENING_FD"])
    describe(t, s)
    raw_client(t, s)
    t.until(lambda: s.hasPendingConnections())


@scenario("set_socket_descriptor: invalid, not listening, already listening", "server")
def server_set_descriptor_invalid(t: Trace) -> None:
    s = new_server(t, "closed_fd")
    r, w = os.pipe()
    os.close(r)
    os.close(w)
    t.call(s, "setSocketDescriptor", r, show=["CLOSED_FD"])
    describe(t, s)
    s = new_server(t, "minus_one")
    t.call(s, "setSocketDescriptor", -1)
    t.query(s, "serverError", "isListening")
    x = socket.socket()
    s = new_server(t, "unbound")
    unbound = x.detach()
    t.give_back(unbound)
    t.call(s, "setSocketDescriptor", unbound, show=["UNBOUND_FD"])
    describe(t, s)
    s = listening(t, "busy")
    lst, _p = t.raw_listener(symbol="OTHER")
    t.call(s, "setSocketDescriptor", lst.fileno(), show=["LISTENING_FD"])
    describe(t, s)


class Override(QTcpServer):
    """A server that takes connections itself, and adds none to those pending."""

    trace: Any = None
    mode = "keep"

    def incomingConnection(self, fd: int) -> None:
        t = self.trace
        t.add(k="call", obj="server", fn="incoming_connection", args=["FD" if fd >= 0 else fd])
        if self.mode == "drop":
            os.close(fd)
            return
        c = QTcpSocket(self)
        c.setSocketDescriptor(fd)
        t.keep.append(c)


@scenario("incoming_connection overridden, descriptor closed", "server")
def server_incoming_override_drop(t: Trace) -> None:
    s = new_server(t, cls=Override)
    s.trace = t
    s.mode = "drop"
    t.call(s, "listen", LH, 0)
    r = raw_client(t, s)
    t.spin(60)
    t.query(s, "hasPendingConnections")
    t.peer("recv", data=t.recv_all(r, ms=100))


@scenario("override that does not add: does the limit of pending connections count?", "server")
def server_incoming_override_limit(t: Trace) -> None:
    s = new_server(t, cls=Override)
    s.trace = t
    t.call(s, "setMaxPendingConnections", 1)
    t.call(s, "listen", LH, 0)
    raw_clients(t, s, 3)
    t.spin(100)


@scenario("add_pending_connection from outside on a server that does not listen", "server", crashy=True)
def server_add_pending_outside(t: Trace) -> None:
    s = new_server(t)
    c = QTcpSocket()
    t.keep.append(c)
    t.names[id(c)] = "mine"
    t.call(s, "addPendingConnection", c)
    t.query(s, "hasPendingConnections")
    t.call(s, "nextPendingConnection")
    t.query(s, "hasPendingConnections")


@scenario("add_pending_connection past the limit", "server")
def server_add_pending_over_limit(t: Trace) -> None:
    s = listening(t)
    s.setMaxPendingConnections(1)
    for i in range(3):
        c = QTcpSocket()
        t.keep.append(c)
        t.names[id(c)] = f"mine_{i}"
        t.call(s, "addPendingConnection", c)
    raw_client(t, s)
    t.spin(60)
    for _ in range(4):
        r = s.nextPendingConnection()
        t.note("next", got=r)
        t.spin(40)


@scenario("accept fails for want of descriptors: accept_error, and the server pauses", "server")
def server_accept_error(t: Trace) -> None:
    s = listening(t)
    raw_client(t, s)
    fds = []
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    used = len(os.listdir("/proc/self/fd"))
    resource.setrlimit(resource.RLIMIT_NOFILE, (used + 8, hard))
    try:
        while True:
            fds.append(os.dup(0))
    except OSError:
        pass
    t.spin(60)
    t.query(s, "isListening", "serverError", "errorString", "hasPendingConnections")
    for f in fds:
        os.close(f)
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    t.spin(60)
    t.note("descriptors are free again, nothing else done", pending=s.hasPendingConnections())
    t.call(s, "resumeAccepting")
    t.spin(60)
    t.query(s, "hasPendingConnections", "serverError")


@scenario("listen backlog size", "server")
def server_backlog(t: Trace) -> None:
    s = new_server(t)
    t.query(s, "listenBacklogSize")
    t.call(s, "setListenBacklogSize", 0)
    t.query(s, "listenBacklogSize")
    t.call(s, "listen", LH, 0)
    s.pauseAccepting()
    n = 0
    for _ in range(4):
        c = socket.socket()
        c.settimeout(0.2)
        t.raw.append(c)
        try:
            c.connect(("127.0.0.1", s.serverPort()))
            n += 1
        except OSError:
            break
    t.note("connections that completed with backlog 0", n=n)


@scenario("echo: Qt client and Qt server in one loop, full life, all signals interleaved", "server")
def server_client_echo(t: Trace) -> None:
    s = listening(t)

    def slot() -> None:
        a = take(t, s, "accepted")
        t.on(a, "readyRead", lambda: t.call(a, "write", bytes(a.readAll())))

    t.on(s, "newConnection", slot)
    c = t.watch(QTcpSocket(), "client")
    t.call(c, "connectToHost", LH, s.serverPort())
    t.until_state(c, "ConnectedState")
    t.call(c, "write", b"ping")
    t.until(lambda: c.bytesAvailable() == 4)
    t.call(c, "readAll")
    t.call(c, "disconnectFromHost")
    t.until(lambda: t.seen("accepted", "disconnected"))
    t.spin()


@scenario("proxies a server cannot use", "server")
def server_proxy_unsupported(t: Trace) -> None:
    for pt in (ProxyType.HttpProxy, ProxyType.HttpCachingProxy, ProxyType.FtpCachingProxy):
        for label, a in (("loopback", LH), ("any", ANY)):
            s = QTcpServer()
            t.keep.append(s)
            s.setProxy(QNetworkProxy(pt, "127.0.0.1", 9))
            ok = s.listen(a, 0)
            t.note(f"{pt.name}, listen on {label}", ok=ok, error=s.serverError(), error_string=s.errorString())
