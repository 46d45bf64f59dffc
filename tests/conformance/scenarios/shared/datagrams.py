"""Datagrams: binding and sharing, what is sent and received, virtual connections, groups and broadcasts, errors."""

import socket
from typing import Any

from PySide6.QtNetwork import QAbstractSocket, QHostAddress, QNetworkDatagram, QNetworkInterface, QUdpSocket

from tests.conformance.trace import Trace, scenario

S = QAbstractSocket.SocketState
B = QAbstractSocket.BindFlag
LH = QHostAddress("127.0.0.1")
V4 = QHostAddress(QHostAddress.SpecialAddress.AnyIPv4)
V6 = QHostAddress(QHostAddress.SpecialAddress.AnyIPv6)
ANY = QHostAddress(QHostAddress.SpecialAddress.Any)
GROUP = QHostAddress("239.1.2.3")


def udp(t: Trace, name: str = "udp", addr: Any = LH, bind: bool = True) -> Any:
    u = t.watch(QUdpSocket(), name)
    if bind:
        t.call(u, "bind", addr, 0)
        t.port(u.localPort(), name.upper())
    return u


def lo() -> Any:
    return next(i for i in QNetworkInterface.allInterfaces() if i.name() == "lo")


@scenario("a fresh QUdpSocket", "udp")
def udp_construct(t: Trace) -> None:
    u = udp(t, bind=False)
    t.status(u)
    t.query(u, "socketType", "isSequential")
    t.call(u, "hasPendingDatagrams")
    t.call(u, "pendingDatagramSize")
    t.call(u, "receiveDatagram")
    t.call(u, "readDatagram", 10)
    t.call(u, "joinMulticastGroup", GROUP)
    t.call(u, "leaveMulticastGroup", GROUP)
    t.call(u, "setMulticastInterface", lo())
    t.note("multicast interface", valid=u.multicastInterface().isValid())
    t.call(u, "write", b"x")
    t.call(u, "waitForReadyRead", 10)
    t.query(u, "error", "errorString")


@scenario("bind: default, loopback, any; states and open mode", "udp")
def udp_bind(t: Trace) -> None:
    u = udp(t)
    t.status(u)
    t.query(u, "isReadable", "isWritable")
    v = t.watch(QUdpSocket(), "default")
    t.call(v, "bind")
    t.query(v, "state", "localAddress")
    for n, a in (("v4", V4), ("v6", V6)):
        w = t.watch(QUdpSocket(), n)
        t.call(w, "bind", a)
        t.query(w, "localAddress")


@scenario("bind twice; bind after close", "udp")
def udp_bind_twice(t: Trace) -> None:
    u = udp(t)
    t.call(u, "bind", LH, 0)
    t.query(u, "state", "error", "errorString")
    t.call(u, "close")
    t.query(u, "state", "localPort", "localAddress")
    t.call(u, "bind", LH, 0)
    t.query(u, "state")


@scenario("bind errors", "udp")
def udp_bind_errors(t: Trace) -> None:
    a = udp(t, "first")
    b = udp(t, "second", bind=False)
    t.call(b, "bind", LH, a.localPort())
    t.query(b, "state", "error", "errorString")
    c = udp(t, "foreign", bind=False)
    t.call(c, "bind", QHostAddress("203.0.113.7"), 0)
    t.query(c, "state", "error")


@scenario("bind modes: which pairs can share a port", "udp")
def udp_bind_modes(t: Trace) -> None:
    modes = (
        B.DefaultForPlatform,
        B.ShareAddress,
        B.DontShareAddress,
        B.ReuseAddressHint,
        B.ShareAddress | B.ReuseAddressHint,
    )
    for m1 in modes:
        for m2 in modes:
            a, b = QUdpSocket(), QUdpSocket()
            t.keep += [a, b]
            r1 = a.bind(LH, 0, m1)
            r2 = b.bind(LH, a.localPort(), m2)
            t.note(f"bind {m1.name or m1} then {m2.name or m2}", first=r1, second=r2, error=b.error())
            a.close()
            b.close()


@scenario("two sockets share a port: who gets the datagram", "udp")
def udp_share_delivery(t: Trace) -> None:
    a = udp(t, "first", bind=False)
    b = udp(t, "second", bind=False)
    t.call(a, "bind", LH, 0, B.ShareAddress)
    t.port(a.localPort(), "SHARED")
    t.call(b, "bind", LH, a.localPort(), B.ShareAddress)
    s = udp(t, "sender")
    t.call(s, "writeDatagram", b"who", LH, a.localPort())
    t.spin(60)


@scenario("echo with write_datagram / read_datagram", "udp")
def udp_echo(t: Trace) -> None:
    a, b = udp(t, "alice"), udp(t, "bob")
    t.call(a, "writeDatagram", b"ping", LH, b.localPort())
    t.until(lambda: b.hasPendingDatagrams())
    t.spin()
    t.query(b, "hasPendingDatagrams", "pendingDatagramSize", "bytesAvailable")
    t.call(b, "readDatagram", 100)
    t.query(b, "hasPendingDatagrams", "pendingDatagramSize")
    t.call(b, "writeDatagram", b"pong", LH, a.localPort())
    t.until(lambda: t.seen("alice", "ready_read"))
    t.call(a, "receiveDatagram")


@scenario("write_datagram on an unbound socket binds it", "udp")
def udp_unbound_write(t: Trace) -> None:
    b = udp(t, "bob")
    a = udp(t, "alice", bind=False)
    t.call(a, "writeDatagram", b"hello", LH, b.localPort())
    t.query(a, "state", "isOpen", "localAddress", "openMode", "isValid")
    t.note("local port", nonzero=a.localPort() > 0)
    t.until(lambda: t.seen("bob", "ready_read"))
    d = b.receiveDatagram()
    t.note("bob sees", data=d.data(), sender=d.senderAddress(), same_port=d.senderPort() == a.localPort())
    t.call(b, "writeDatagram", d.makeReply(b"reply"))
    t.until(lambda: t.seen("alice", "ready_read"))
    t.call(a, "receiveDatagram")


@scenario("a short read drops the rest of the datagram", "udp")
def udp_truncated(t: Trace) -> None:
    a, b = udp(t, "alice"), udp(t, "bob")
    for d in (b"this is", b"", b"3 messages"):
        t.call(a, "writeDatagram", d, LH, b.localPort())
    t.until(lambda: b.hasPendingDatagrams())
    t.call(b, "pendingDatagramSize")
    t.call(b, "readDatagram", 1)
    t.call(b, "pendingDatagramSize")
    t.call(b, "readDatagram", 1)
    t.call(b, "pendingDatagramSize")
    t.call(b, "receiveDatagram", 4)
    t.call(b, "hasPendingDatagrams")
    t.call(b, "pendingDatagramSize")


@scenario("read_datagram(0), receive_datagram(0) and receive with nothing pending", "udp")
def udp_read_nothing(t: Trace) -> None:
    a, b = udp(t, "alice"), udp(t, "bob")
    t.call(b, "readDatagram", 10)
    t.query(b, "error", "errorString")
    t.call(b, "receiveDatagram")
    t.query(b, "error")
    for _ in range(3):
        t.call(a, "writeDatagram", b"abc", LH, b.localPort())
    t.until(lambda: b.hasPendingDatagrams())
    t.call(b, "readDatagram", 0)
    t.call(b, "receiveDatagram", 0)
    t.call(b, "receiveDatagram")
    t.call(b, "hasPendingDatagrams")


@scenario("is has_pending_datagrams enough to re-arm ready_read?", "udp")
def udp_ready_read_has_pending(t: Trace) -> None:
    a, b = udp(t, "alice"), udp(t, "bob")
    a.writeDatagram(b"one", LH, b.localPort())
    t.spin(60)
    b.hasPendingDatagrams()
    b.pendingDatagramSize()
    a.writeDatagram(b"two", LH, b.localPort())
    t.spin(60)


@scenario("too large a datagram", "udp")
def udp_too_large(t: Trace) -> None:
    a, b = udp(t, "alice"), udp(t, "bob")
    t.call(a, "writeDatagram", b"x" * 65507, LH, b.localPort())
    t.call(a, "writeDatagram", b"x" * 65508, LH, b.localPort())
    t.query(a, "error", "errorString", "state")
    t.until(lambda: t.seen("bob", "ready_read"))
    t.call(b, "pendingDatagramSize")
    t.call(b, "receiveDatagram")


@scenario("write_datagram to a closed port, unconnected", "udp")
def udp_no_peer(t: Trace) -> None:
    p = t.closed_port()
    a = udp(t, "alice")
    for _ in range(3):
        t.call(a, "writeDatagram", b"x", LH, p)
        t.spin(30)
    t.query(a, "state", "error")


@scenario("bad destinations: null address, port 0, broadcast address, unreachable", "udp")
def udp_bad_destination(t: Trace) -> None:
    a = udp(t, "alice", bind=False)
    a.bind(V4, 0)
    for label, addr, p in (
        ("null", QHostAddress(), 9),
        ("port0", LH, 0),
        ("broadcast", QHostAddress(QHostAddress.SpecialAddress.Broadcast), 9),
        ("unreachable", QHostAddress("198.51.100.8"), 9),
        ("prohibited", QHostAddress("198.51.100.9"), 9),
        ("ipv6 from ipv4", QHostAddress("::1"), 9),
    ):
        t.note(label)
        t.call(a, "writeDatagram", b"x", addr, p)
        t.query(a, "error")


@scenario("connected UDP: connect, write, read, disconnect", "udp")
def udp_connected(t: Trace) -> None:
    b = udp(t, "bob")
    a = udp(t, "alice", bind=False)
    t.call(a, "connectToHost", LH, b.localPort())
    t.status(a)
    t.call(a, "write", b"via write")
    t.query(a, "bytesToWrite")
    t.until(lambda: t.seen("bob", "ready_read"))
    d = b.receiveDatagram()
    t.note("bob got", data=d.data())
    b.writeDatagram(b"reply one", LH, d.senderPort())
    b.writeDatagram(b"two", LH, d.senderPort())
    t.until(lambda: t.seen("alice", "ready_read"))
    t.spin(30)
    t.query(a, "bytesAvailable", "pendingDatagramSize")
    t.call(a, "read", 5)
    t.query(a, "bytesAvailable")
    t.call(a, "readAll")
    t.call(a, "write", b"")
    t.spin(30)
    t.call(a, "disconnectFromHost")
    t.status(a)
    t.call(a, "write", b"x")


@scenario("connected UDP receives only from its peer", "udp")
def udp_connected_filter(t: Trace) -> None:
    b, m = udp(t, "bob"), udp(t, "mallory")
    a = udp(t, "alice", bind=False)
    a.connectToHost(LH, b.localPort())
    t.until_state(a, "ConnectedState")
    m.writeDatagram(b"fake", LH, a.localPort())
    t.spin(60)
    b.writeDatagram(b"real", LH, a.localPort())
    t.spin(60)
    t.call(a, "receiveDatagram")


@scenario("connected UDP to a closed port: when does the refusal show", "udp")
def udp_connected_refused(t: Trace) -> None:
    p = t.closed_port()
    a = udp(t, "alice", bind=False)
    t.call(a, "connectToHost", LH, p)
    t.until_state(a, "ConnectedState")
    t.call(a, "write", b"one")
    t.spin(60)
    t.query(a, "state", "error")
    t.call(a, "write", b"two")
    t.query(a, "state", "error", "errorString")
    t.spin(60)
    t.call(a, "write", b"three")
    t.spin(60)
    t.query(a, "state", "error")
    t.call(a, "hasPendingDatagrams")
    t.call(a, "receiveDatagram")


@scenario("write_datagram on a connected UDP socket", "udp")
def udp_connected_write_datagram(t: Trace) -> None:
    b, c = udp(t, "bob"), udp(t, "carol")
    a = udp(t, "alice", bind=False)
    a.connectToHost(LH, b.localPort())
    t.until_state(a, "ConnectedState")
    t.call(a, "writeDatagram", b"to carol", LH, c.localPort())
    t.query(a, "error")
    t.spin(60)


@scenario("bind then connect keeps port and descriptor", "udp")
def udp_bind_connect(t: Trace) -> None:
    b = udp(t, "bob")
    a = udp(t, "alice")
    fd = int(a.socketDescriptor())
    t.call(a, "connectToHost", LH, b.localPort())
    t.until_state(a, "ConnectedState")
    t.query(a, "localPort", "peerPort")
    t.note("descriptor", same=int(a.socketDescriptor()) == fd)


@scenario("close / abort / disconnect on a bound socket", "udp")
def udp_close(t: Trace) -> None:
    for m in ("close", "abort", "disconnectFromHost"):
        u = udp(t, m.lower())
        t.call(u, m)
        t.query(u, "state", "localPort", "isOpen")


@scenario("QNetworkDatagram over dual-stack, IPv4 and IPv6 sockets", "udp")
def udp_datagram_fields(t: Trace) -> None:
    any_, v4, v6 = udp(t, "dual", ANY), udp(t, "v4", V4), udp(t, "v6", V6)
    for src, dst, to in (
        (v4, any_, LH),
        (v6, any_, QHostAddress("::1")),
        (any_, v4, LH),
        (any_, v6, QHostAddress("::1")),
        (v4, v6, LH),
    ):
        t.note(f"{t.name(src)} to {t.name(dst)}")
        t.call(src, "writeDatagram", b"data", to, dst.localPort())
        t.spin(40)
        if dst.hasPendingDatagrams():
            t.call(dst, "receiveDatagram")


@scenario("write_datagram(QNetworkDatagram) with sender address, hop limit", "udp")
def udp_write_network_datagram(t: Trace) -> None:
    a, b = udp(t, "alice", V4), udp(t, "bob", V4)
    d = QNetworkDatagram(b"payload", LH, b.localPort())
    t.note("fresh datagram", d=d)
    d.setHopLimit(7)
    d.setSender(QHostAddress("127.0.0.5"))
    t.call(a, "writeDatagram", d)
    t.until(lambda: t.seen("bob", "ready_read"))
    t.call(b, "receiveDatagram")
    t.call(a, "writeDatagram", QNetworkDatagram(b"no destination"))
    t.query(a, "error", "errorString")
    t.note("default datagram", d=QNetworkDatagram(), null=QNetworkDatagram().isNull())


@scenario("multicast: join, loopback, leave", "udp")
def udp_multicast(t: Trace) -> None:
    r = udp(t, "receiver", V4)
    s = udp(t, "sender", V4)
    t.call(r, "joinMulticastGroup", GROUP, lo(), show=["addr:239.1.2.3", "lo"])
    t.call(r, "joinMulticastGroup", GROUP, lo(), show=["addr:239.1.2.3", "lo (again)"])
    t.query(r, "error", "errorString")
    t.call(s, "setMulticastInterface", lo(), show=["lo"])
    t.note("multicast interface", name=s.multicastInterface().name())
    t.call(s, "writeDatagram", b"all", GROUP, r.localPort())
    t.until(lambda: t.seen("receiver", "ready_read"), ms=600)
    t.call(r, "receiveDatagram")
    t.call(s, "setSocketOption", QAbstractSocket.SocketOption.MulticastLoopbackOption, 0)
    t.call(s, "writeDatagram", b"not back", GROUP, r.localPort())
    t.spin(60)
    if t.call(r, "hasPendingDatagrams"):
        t.call(r, "receiveDatagram")
    t.call(s, "setSocketOption", QAbstractSocket.SocketOption.MulticastLoopbackOption, 1)
    t.call(r, "leaveMulticastGroup", GROUP, lo(), show=["addr:239.1.2.3", "lo"])
    t.call(s, "writeDatagram", b"after leave", GROUP, r.localPort())
    t.spin(60)
    t.call(r, "hasPendingDatagrams")
    t.call(r, "leaveMulticastGroup", GROUP, lo(), show=["addr:239.1.2.3", "lo (again)"])
    t.query(r, "error", "errorString")


@scenario("multicast: joining errors", "udp")
def udp_multicast_errors(t: Trace) -> None:
    u = udp(t, "unbound", bind=False)
    t.call(u, "joinMulticastGroup", GROUP)
    t.query(u, "error")
    for n, a, g in (
        ("dual", ANY, GROUP),
        ("v4_unicast", V4, LH),
        ("v4_any", V4, V4),
        ("v4_broadcast", V4, QHostAddress(QHostAddress.SpecialAddress.Broadcast)),
        ("v4_group6", V4, QHostAddress("ff14::1:2:3")),
        ("v6_any", V6, V6),
    ):
        x = udp(t, n, a)
        t.call(x, "joinMulticastGroup", g)
        t.query(x, "error", "errorString", "state")
    c = udp(t, "closed", V4)
    t.call(c, "close")
    t.call(c, "leaveMulticastGroup", GROUP)


@scenario("IPv6 multicast on lo", "udp")
def udp_multicast6(t: Trace) -> None:
    g = QHostAddress("ff11::1:2:3")
    r, s = udp(t, "receiver", V6), udp(t, "sender", V6)
    t.call(r, "joinMulticastGroup", g, lo(), show=["ff11", "lo"])
    t.call(s, "setMulticastInterface", lo(), show=["lo"])
    d = QNetworkDatagram(b"six", g, r.localPort())
    d.setInterfaceIndex(lo().index())
    t.call(s, "writeDatagram", d)
    t.spin(80)
    if r.hasPendingDatagrams():
        t.call(r, "receiveDatagram")
    t.call(r, "leaveMulticastGroup", g, lo(), show=["ff11", "lo"])


@scenario("multicast TTL and loopback option values", "udp")
def udp_multicast_options(t: Trace) -> None:
    for n, a in (("v4", V4), ("v6", V6), ("dual", ANY)):
        u = udp(t, n, a)
        for v in (0, 1, 2, 128, 255, 1024, -1):
            u.setSocketOption(QAbstractSocket.SocketOption.MulticastTtlOption, v)
            t.note(f"{n} ttl {v}", got=u.socketOption(QAbstractSocket.SocketOption.MulticastTtlOption))
        for v in (0, 1, 2, 0, 1):
            u.setSocketOption(QAbstractSocket.SocketOption.MulticastLoopbackOption, v)
            t.note(f"{n} loop {v}", got=u.socketOption(QAbstractSocket.SocketOption.MulticastLoopbackOption))
        t.query(u, "error")


@scenario("other options on UDP sockets", "udp")
def udp_options(t: Trace) -> None:
    u = udp(t)
    for o in QAbstractSocket.SocketOption:
        v = u.socketOption(o)
        t.note(o.name, value="N" if isinstance(v, int) and v > 255 else v)
    x = udp(t, "fresh", bind=False)
    t.call(x, "setSocketOption", QAbstractSocket.SocketOption.MulticastTtlOption, 9)
    t.call(x, "socketOption", QAbstractSocket.SocketOption.MulticastTtlOption)


@scenario("broadcast on loopback", "udp")
def udp_broadcast(t: Trace) -> None:
    r, s = udp(t, "receiver", V4), udp(t, "sender", V4)
    t.call(s, "writeDatagram", b"hear me", QHostAddress("127.255.255.255"), r.localPort())
    t.spin(60)
    if r.hasPendingDatagrams():
        t.call(r, "receiveDatagram")
    t.call(s, "writeDatagram", b"all", QHostAddress(QHostAddress.SpecialAddress.Broadcast), r.localPort())
    t.spin(60)
    if r.hasPendingDatagrams():
        t.call(r, "receiveDatagram")


@scenario("read / read_all on a bound (not connected) UDP socket", "udp")
def udp_stream_read_on_bound(t: Trace) -> None:
    a, b = udp(t, "alice"), udp(t, "bob")
    a.writeDatagram(b"one", LH, b.localPort())
    a.writeDatagram(b"two", LH, b.localPort())
    t.until(lambda: t.seen("bob", "ready_read"))
    t.query(b, "isOpen")
    t.call(b, "read", 2)
    t.call(b, "readAll")
    t.call(b, "hasPendingDatagrams")
    t.call(b, "write", b"x")
    t.query(b, "error", "errorString")


@scenario("set_socket_descriptor with a bound UDP descriptor", "udp")
def udp_set_descriptor(t: Trace) -> None:
    s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    s.bind(("127.0.0.1", 0))
    t.port(s.getsockname()[1], "GIVEN")
    u = udp(t, bind=False)
    t.call(u, "setSocketDescriptor", s.detach(), S.BoundState, show=["FD", "BoundState"])
    t.query(u, "state", "localPort", "localAddress", "isOpen")
    a = udp(t, "alice")
    a.writeDatagram(b"hi", LH, u.localPort())
    t.until(lambda: t.seen("udp", "ready_read"))
    t.call(u, "receiveDatagram")


@scenario("is the first error of a socket engine kept? three different failures in a row", "udp")
def udp_sticky_error(t: Trace) -> None:
    a = udp(t, "alice", V4)
    t.call(a, "writeDatagram", b"x" * 70000, LH, 9)
    t.query(a, "error", "errorString")
    t.call(a, "writeDatagram", b"x", QHostAddress("198.51.100.8"), 9)
    t.query(a, "error", "errorString")
    t.call(a, "readDatagram", 10)
    t.query(a, "error", "errorString")
    t.call(a, "writeDatagram", b"ok", LH, 9)
    t.query(a, "error", "errorString")
    b = udp(t, "fresh_unreachable", V4)
    t.call(b, "writeDatagram", b"x", QHostAddress("198.51.100.8"), 9)
    t.query(b, "error", "errorString")
    c = udp(t, "fresh_prohibited", V4)
    t.call(c, "writeDatagram", b"x", QHostAddress("198.51.100.9"), 9)
    t.query(c, "error", "errorString")
