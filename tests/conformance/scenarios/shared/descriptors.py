"""Descriptors, options and bind: the system's socket is handed over, set up, or given an address."""

import os
import socket

from PySide6.QtNetwork import QAbstractSocket, QHostAddress, QTcpSocket

from tests.conformance.scenarios.beginnings import raw_pair
from tests.conformance.trace import Trace, scenario

SocketState = QAbstractSocket.SocketState
Option = QAbstractSocket.SocketOption
BindFlag = QAbstractSocket.BindFlag
LH = QHostAddress("127.0.0.1")


@scenario("set_socket_descriptor with a connected descriptor", "tcp")
def tcp_set_descriptor_ok(t: Trace) -> None:
    a, b = raw_pair(t, client="CLIENT")
    c = t.tcp()
    t.call(c, "setSocketDescriptor", a.detach(), show=["FD"])
    t.status(c)
    b.sendall(b"hi")
    t.until(lambda: c.bytesAvailable() == 2)
    t.call(c, "readAll")
    t.call(c, "write", b"yo")
    t.call(c, "disconnectFromHost")
    t.until_state(c, "UnconnectedState")
    t.peer("recv", data=t.recv_all(b))


@scenario("set_socket_descriptor with descriptors that are no TCP sockets", "tcp")
def tcp_set_descriptor_invalid(t: Trace) -> None:
    c = t.tcp()
    t.call(c, "setSocketDescriptor", -5)
    t.query(c, "error", "errorString", "socketDescriptor", "state")
    r, w = os.pipe()
    os.close(r)
    os.close(w)
    c2 = t.tcp("closed_fd")
    t.call(c2, "setSocketDescriptor", r, show=["CLOSED_FD"])
    t.query(c2, "error", "errorString", "state")
    fd = os.open("/etc/hosts", os.O_RDONLY)
    c3 = t.tcp("regular_file")
    t.call(c3, "setSocketDescriptor", fd, show=["FILE_FD"])
    t.query(c3, "error", "errorString", "state", "isOpen")
    u = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    c4 = t.tcp("udp_fd")
    udp = u.detach()
    t.call(c4, "setSocketDescriptor", udp, show=["UDP_FD"])
    t.query(c4, "error", "errorString", "state", "isOpen", "socketType")
    r, w = os.pipe()
    c5 = t.tcp("pipe_fd")
    for descriptor in (fd, udp, r, w):
        t.give_back(descriptor)
    t.call(c5, "setSocketDescriptor", r, show=["PIPE_FD"])
    t.query(c5, "error", "errorString", "state", "isOpen")


@scenario("set_socket_descriptor in UnconnectedState, then connect_to_host", "tcp")
def tcp_set_descriptor_unconnected(t: Trace) -> None:
    _, p = t.raw_listener()
    s = socket.socket()
    fd = os.dup2(s.fileno(), 90)
    s.close()
    c = t.tcp()
    t.call(c, "setSocketDescriptor", fd, SocketState.UnconnectedState, show=["FD90", "UnconnectedState"])
    t.query(c, "state", "isOpen", "openMode")
    t.note("descriptor", same=int(c.socketDescriptor()) == 90)
    t.call(c, "connectToHost", LH, p)
    t.until_state(c, "ConnectedState")
    t.note("descriptor after connect", same=int(c.socketDescriptor()) == 90)


@scenario("options before there is an engine: nothing is stored", "tcp")
def tcp_options_unconnected(t: Trace) -> None:
    c = t.tcp()
    for o in Option:
        t.call(c, "socketOption", o)
    t.call(c, "setSocketOption", Option.LowDelayOption, 1)
    t.call(c, "socketOption", Option.LowDelayOption)
    _, p = t.raw_listener()
    c.connectToHost(LH, p)
    t.until_state(c, "ConnectedState")
    t.call(c, "socketOption", Option.LowDelayOption)


@scenario("options on a connected socket: default, set, get", "tcp")
def tcp_options(t: Trace) -> None:
    c, _ = t.connected_pair()
    for o in Option:
        v = c.socketOption(o)
        t.note(
            "default " + o.name,
            value=v
            if o.name not in ("SendBufferSizeSocketOption", "ReceiveBufferSizeSocketOption", "PathMtuSocketOption")
            else "N"
            if v
            else v,
        )
    for o, v in (
        (Option.LowDelayOption, 1),
        (Option.LowDelayOption, True),
        (Option.LowDelayOption, 0),
        (Option.KeepAliveOption, 1),
        (Option.KeepAliveOption, 0),
        (Option.TypeOfServiceOption, 32),
        (Option.TypeOfServiceOption, 33),
        (Option.MulticastTtlOption, 5),
        (Option.MulticastLoopbackOption, 0),
        (Option.SendBufferSizeSocketOption, 8192),
        (Option.ReceiveBufferSizeSocketOption, 8192),
        (Option.PathMtuSocketOption, 1000),
        (Option.LowDelayOption, "nonsense"),
    ):
        t.call(c, "setSocketOption", o, v)
        t.call(c, "socketOption", o)
    t.query(c, "error", "state")


@scenario("options of IPv6 TCP sockets", "tcp")
def tcp_options_ipv6(t: Trace) -> None:
    _, p = t.raw_listener(addr="::1")
    c = t.tcp()
    c.connectToHost(QHostAddress("::1"), p)
    t.until_state(c, "ConnectedState")
    t.call(c, "setSocketOption", Option.TypeOfServiceOption, 32)
    t.call(c, "socketOption", Option.TypeOfServiceOption)
    t.call(c, "socketOption", Option.LowDelayOption)


@scenario("bind: states, values, second bind", "tcp")
def tcp_bind(t: Trace) -> None:
    c = t.tcp()
    t.call(c, "bind", LH)
    t.query(c, "state", "localAddress", "localPort", "isOpen", "openMode", "isValid", "socketDescriptor")
    t.call(c, "bind", LH)
    t.query(c, "state", "error", "errorString")
    t.call(c, "close")
    t.query(c, "state", "localPort")
    t.call(c, "bind", LH)
    t.query(c, "state")


@scenario("bind to any address", "tcp")
def tcp_bind_any(t: Trace) -> None:
    c = t.tcp()
    t.call(c, "bind")
    t.query(c, "state", "localAddress")
    d = t.tcp("v4")
    t.call(d, "bind", QHostAddress(QHostAddress.SpecialAddress.AnyIPv4))
    t.query(d, "localAddress")
    e = t.tcp("v6")
    t.call(e, "bind", QHostAddress(QHostAddress.SpecialAddress.AnyIPv6))
    t.query(e, "localAddress")


@scenario("bind to any (dual stack) then connect to IPv4", "tcp")
def tcp_bind_any_then_connect_v4(t: Trace) -> None:
    _, p = t.raw_listener()
    c = t.tcp()
    t.call(c, "bind")
    t.call(c, "connectToHost", LH, p)
    t.until_state(c, "ConnectedState", ms=1000)
    t.query(c, "localAddress", "peerAddress")


@scenario("bind IPv4, then connect by name / to IPv6", "tcp")
def tcp_bind_then_connect_name(t: Trace) -> None:
    _, p = t.raw_listener()
    c = t.tcp()
    t.call(c, "bind", LH)
    t.call(c, "connectToHost", "v4.test", p)
    t.until_state(c, "ConnectedState", ms=1000)
    t.query(c, "localAddress", "peerAddress")
    _, p6 = t.raw_listener(addr="::1", symbol="SERVER6")
    d = t.tcp("v4_to_v6")
    t.call(d, "bind", LH)
    t.call(d, "connectToHost", QHostAddress("::1"), p6)
    t.spin(100)
    t.query(d, "state", "error", "errorString")


@scenario("bind errors: address in use, foreign address", "tcp")
def tcp_bind_errors(t: Trace) -> None:
    _, p = t.raw_listener()
    c = t.tcp("in_use")
    t.call(c, "bind", LH, p)
    t.query(c, "state", "error", "errorString")
    d = t.tcp("foreign")
    t.call(d, "bind", QHostAddress("203.0.113.7"))
    t.query(d, "state", "error", "errorString", "localAddress")
    e = t.tcp("foreign6")
    t.call(e, "bind", QHostAddress("2001:db8::1"))
    t.query(e, "state", "error")
    f = t.tcp("null")
    t.call(f, "bind", QHostAddress())
    t.query(f, "state", "error", "localAddress")


@scenario("bind while connecting / connected", "tcp")
def tcp_bind_connected(t: Trace) -> None:
    c, _ = t.connected_pair()
    t.call(c, "bind", LH)
    t.query(c, "state", "error", "errorString")


@scenario("two TCP sockets bound to one port with each bind mode", "tcp")
def tcp_bind_modes(t: Trace) -> None:
    for m1, m2 in (
        (BindFlag.DefaultForPlatform, BindFlag.DefaultForPlatform),
        (BindFlag.ShareAddress, BindFlag.ShareAddress),
        (BindFlag.ShareAddress, BindFlag.DefaultForPlatform),
        (BindFlag.DontShareAddress, BindFlag.ReuseAddressHint),
        (BindFlag.ReuseAddressHint, BindFlag.ReuseAddressHint),
    ):
        a, b = QTcpSocket(), QTcpSocket()
        t.keep += [a, b]
        r1 = a.bind(LH, 0, m1)
        r2 = b.bind(LH, a.localPort(), m2)
        t.note(f"bind {m1.name} then {m2.name}", first=r1, second=r2, error=b.error())
        a.close()
        b.close()


@scenario("a bound, never connected socket is closed / disconnected: is disconnected emitted?", "tcp")
def tcp_bound_disconnect(t: Trace) -> None:
    c = t.tcp("disc")
    t.call(c, "bind", LH)
    t.call(c, "disconnectFromHost")
    t.query(c, "state", "localPort")
    d = t.tcp("abort")
    t.call(d, "bind", LH)
    t.call(d, "abort")
    t.query(d, "state")


@scenario("bound socket, connection refused, retry: what happens to the binding", "tcp")
def tcp_bound_refused(t: Trace) -> None:
    closed = t.closed_port()
    _, p = t.raw_listener()
    c = t.tcp()
    t.call(c, "bind", LH)
    t.call(c, "connectToHost", LH, closed)
    t.until(lambda: t.seen("client", "error_occurred"))
    t.status(c)
    t.call(c, "connectToHost", LH, p)
    t.spin(100)
    t.query(c, "state", "localPort", "error")
