"""Descriptors and bind: one in place of another, and a socket that is only bound."""

import socket
import time

from PySide6.QtNetwork import QHostAddress

from tests.conformance.scenarios.beginnings import raw_pair, until_available
from tests.conformance.trace import Trace, scenario

LOOPBACK = QHostAddress("127.0.0.1")


@scenario("a second descriptor on a connected socket: the first is closed", "tcp")
def tcp_second_descriptor(t: Trace) -> None:
    first, peer_of_first = raw_pair(t, "FIRST")
    second, peer_of_second = raw_pair(t, "SECOND")
    c = t.tcp()
    t.call(c, "setSocketDescriptor", first.detach(), show=["FD"])
    t.query(c, "state", "peerPort", "localPort")
    t.call(c, "setSocketDescriptor", second.detach(), show=["ANOTHER_FD"])
    t.query(c, "state", "error", "peerPort", "localPort")
    t.peer("first recv", data=t.recv_all(peer_of_first))
    peer_of_second.sendall(b"hi")
    until_available(t, c, 2)
    t.call(c, "readAll")


@scenario("one descriptor in two sockets", "tcp")
def tcp_one_descriptor_twice(t: Trace) -> None:
    ours, _ = raw_pair(t)
    number = ours.detach()
    for name in ("one", "two"):
        c = t.tcp(name)
        t.call(c, "setSocketDescriptor", number, show=["FD"])
        t.query(c, "state", "error")


@scenario("the peer of an adopted descriptor closes; then connect_to_host", "tcp")
def tcp_adopted_then_peer_closes(t: Trace) -> None:
    ours, peer = raw_pair(t)
    _, port = t.raw_listener(symbol="OTHER")
    c = t.tcp()
    t.call(c, "setSocketDescriptor", ours.detach(), show=["FD"])
    peer.sendall(b"hello")
    peer.close()
    t.until(lambda: t.seen("client", "disconnected"))
    t.query(c, "state", "error", "bytesAvailable", "peerPort")
    t.call(c, "connectToHost", LOOPBACK, port)
    t.until_state(c, "ConnectedState")
    t.query(c, "peerName", "error", "bytesAvailable")


@scenario("bind, then connect: the local port is kept, and cleared at the end", "tcp")
def tcp_bind_then_connect(t: Trace) -> None:
    _, port = t.raw_listener()
    c = t.tcp()
    t.call(c, "bind", LOOPBACK)
    t.port(c.localPort(), "BOUND")
    t.call(c, "connectToHost", LOOPBACK, port)
    t.query(c, "state", "localAddress", "localPort")
    t.until_state(c, "ConnectedState")
    t.query(c, "localAddress", "localPort", "peerAddress", "peerPort")
    t.call(c, "disconnectFromHost")
    t.query(c, "localAddress", "localPort", "peerAddress", "peerPort")


@scenario("a socket that is only bound is told nothing by the loop", "tcp")
def tcp_bound_and_idle(t: Trace) -> None:
    c = t.tcp()
    t.call(c, "bind", LOOPBACK)
    t.port(c.localPort(), "BOUND")
    t.spin(60)
    t.query(c, "state", "error", "localPort")


@scenario("reading and writing on a socket that is only bound", "tcp")
def tcp_bound_and_used(t: Trace) -> None:
    c = t.tcp()
    t.call(c, "bind", LOOPBACK)
    t.call(c, "write", b"x")
    t.call(c, "readAll")
    t.call(c, "flush")
    t.call(c, "waitForConnected", 60)
    t.query(c, "state", "error", "bytesAvailable", "bytesToWrite")


@scenario("wait_for_ready_read on a socket that is only bound: it ends with an error", "tcp")
def tcp_bound_and_waiting(t: Trace) -> None:
    c = t.tcp()
    t.call(c, "bind", LOOPBACK)
    t.call(c, "waitForReadyRead", 60)
    t.query(c, "state", "error")


@scenario("bind to a port that was asked for; abort gives it back", "tcp")
def tcp_bind_to_a_port(t: Trace) -> None:
    free = t.closed_port()
    c = t.tcp()
    for _ in range(2):
        t.call(c, "bind", LOOPBACK, free)
        t.query(c, "state", "localPort")
        t.call(c, "abort")
        t.query(c, "state", "localPort")


@scenario("bind while the name is being looked up: it works, and the attempt is gone", "tcp")
def tcp_bind_in_lookup(t: Trace) -> None:
    _, port = t.raw_listener()
    c = t.tcp()
    t.call(c, "connectToHost", "v4.test", port)
    t.call(c, "bind", LOOPBACK)
    t.query(c, "state", "error")
    t.spin(200)
    t.query(c, "state", "error", "peerName")
    t.call(c, "abort")


@scenario("bind while connecting: refused, the attempt goes on", "tcp")
def tcp_bind_in_connecting(t: Trace) -> None:
    _, port = t.raw_listener()
    c = t.tcp()
    t.call(c, "connectToHost", LOOPBACK, port)
    t.call(c, "bind", LOOPBACK)
    t.query(c, "state", "error")
    t.until_state(c, "ConnectedState")
    t.query(c, "state", "error")


@scenario("bind after a connection that ended here, and after one that was refused", "tcp")
def tcp_bind_after_an_end(t: Trace) -> None:
    closed = t.closed_port()
    c, _ = t.connected_pair()
    t.call(c, "disconnectFromHost")
    t.call(c, "bind", LOOPBACK)
    t.query(c, "state", "error", "peerName", "peerAddress")
    t.call(c, "abort")
    t.call(c, "connectToHost", LOOPBACK, closed)
    t.until(lambda: t.seen("client", "error_occurred"))
    t.call(c, "bind", LOOPBACK)
    t.query(c, "state", "error", "peerName", "peerAddress")


@scenario("bind to a port that is taken, then to a free one, then connect", "tcp")
def tcp_bind_fails_then_works_then_connects(t: Trace) -> None:
    listener, port = t.raw_listener()
    c = t.tcp()
    t.call(c, "bind", LOOPBACK, port)
    t.query(c, "state", "error")
    t.call(c, "bind", LOOPBACK, 0)
    t.query(c, "state", "localAddress")
    t.call(c, "connectToHost", LOOPBACK, port)
    t.until_state(c, "ConnectedState")
    t.query(c, "error", "localAddress", "peerPort")
    peer = t.accept(listener)
    t.call(c, "write", b"from a bound one")
    t.peer("recv", data=t.recv_all(peer, want=16))
    peer.close()
    t.until(lambda: t.seen("client", "disconnected"))
    t.query(c, "state", "error")


@scenario("adopt a descriptor, half-closed by the peer, with bytes unread", "tcp")
def tcp_adopt_with_the_end_in_it(t: Trace) -> None:
    ours, peer = raw_pair(t)
    peer.sendall(b"already here")
    peer.shutdown(socket.SHUT_WR)
    time.sleep(0.02)
    c = t.tcp()
    t.call(c, "setSocketDescriptor", ours.detach(), show=["FD"])
    t.query(c, "state", "peerPort", "isValid")
    t.until(lambda: t.seen("client", "disconnected"))
    t.query(c, "state", "error", "bytesAvailable")
    t.call(c, "readAll")


@scenario("adopt a descriptor while connected to another peer by one", "tcp")
def tcp_adopt_twice_with_bytes(t: Trace) -> None:
    first, peer_one = raw_pair(t, "ONE")
    second, peer_two = raw_pair(t, "TWO")
    peer_one.sendall(b"one")
    c = t.tcp()
    t.call(c, "setSocketDescriptor", first.detach(), show=["FD"])
    until_available(t, c, 3)
    t.call(c, "readAll")
    t.call(c, "abort")
    peer_two.sendall(b"two")
    t.call(c, "setSocketDescriptor", second.detach(), show=["FD"])
    until_available(t, c, 3)
    t.call(c, "readAll")
    t.query(c, "state", "error", "peerPort")
    t.call(c, "disconnectFromHost")
