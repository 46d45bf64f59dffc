"""Connecting: names and addresses, refusals, and a second attempt."""

from PySide6.QtCore import QIODeviceBase
from PySide6.QtNetwork import QAbstractSocket, QHostAddress

from tests.conformance.trace import Trace, scenario

OpenMode = QIODeviceBase.OpenModeFlag
LH = QHostAddress("127.0.0.1")


@scenario("connect to an IP given as a string with the host-name overload", "tcp")
def tcp_connect_ok_ip_string(t: Trace) -> None:
    _, p = t.raw_listener()
    c = t.tcp()
    t.call(c, "connectToHost", "127.0.0.1", p)
    t.query(c, "state", "peerName")
    t.until_state(c, "ConnectedState")
    t.query(c, "peerName", "peerAddress")


@scenario("connect by name (DNS, first time): host_found comes later than connect_to_host", "tcp")
def tcp_connect_ok_name(t: Trace) -> None:
    _, p = t.raw_listener()
    c = t.tcp()
    t.call(c, "connectToHost", "v4.test", p)
    t.query(c, "state", "peerName", "socketDescriptor")
    t.until_state(c, "ConnectedState")
    t.query(c, "peerName", "peerAddress")


@scenario("connect by name twice: the second time the answer is in the host cache", "tcp")
def tcp_connect_name_cached(t: Trace) -> None:
    _, p = t.raw_listener()
    c = t.tcp()
    t.call(c, "connectToHost", "v4.test", p)
    t.until_state(c, "ConnectedState")
    t.call(c, "disconnectFromHost")
    t.note("second connect")
    t.call(c, "connectToHost", "v4.test", p)
    t.query(c, "state")
    t.until_state(c, "ConnectedState")


@scenario("connect to the name localhost", "tcp")
def tcp_connect_localhost(t: Trace) -> None:
    _, p = t.raw_listener()
    c = t.tcp()
    t.call(c, "connectToHost", "localhost", p)
    t.until_state(c, "ConnectedState")
    t.query(c, "peerName", "peerAddress")


@scenario("connect over IPv6 to ::1", "tcp")
def tcp_connect_ipv6(t: Trace) -> None:
    _, p = t.raw_listener(addr="::1")
    c = t.tcp()
    t.call(c, "connectToHost", QHostAddress("::1"), p)
    t.until_state(c, "ConnectedState")
    t.query(c, "peerName", "peerAddress", "localAddress")


@scenario("name with two addresses, the first refuses: silent fallback to the second", "tcp")
def tcp_connect_multi_address_fallback(t: Trace) -> None:
    _, p = t.raw_listener()
    c = t.tcp()
    t.call(c, "connectToHost", "two.test", p)
    t.until_state(c, "ConnectedState")
    t.query(c, "peerName", "peerAddress")


@scenario("name with two addresses, both refuse: one error only", "tcp")
def tcp_connect_multi_address_all_refuse(t: Trace) -> None:
    p = t.closed_port()
    c = t.tcp()
    t.call(c, "connectToHost", "dead.test", p)
    t.until(lambda: t.seen("client", "error_occurred"))
    t.spin()
    t.status(c)


@scenario("name with A and AAAA, only IPv4 listening", "tcp")
def tcp_connect_both_v4_listens(t: Trace) -> None:
    _, p = t.raw_listener()
    c = t.tcp()
    t.call(c, "connectToHost", "both.test", p)
    t.until_state(c, "ConnectedState")
    t.query(c, "peerAddress")


@scenario("protocol argument filters the looked-up addresses: IPv6 wanted, name has only A", "tcp")
def tcp_connect_protocol_filter(t: Trace) -> None:
    _, p = t.raw_listener()
    c = t.tcp()
    t.call(c, "connectToHost", "v4.test", p, OpenMode.ReadWrite, QAbstractSocket.NetworkLayerProtocol.IPv6Protocol)
    t.until_state(c, "UnconnectedState")
    t.spin()
    t.status(c)


@scenario("protocol argument with an IP literal of the other family", "tcp")
def tcp_connect_protocol_filter_literal(t: Trace) -> None:
    _, p = t.raw_listener()
    c = t.tcp()
    t.call(c, "connectToHost", "127.0.0.1", p, OpenMode.ReadWrite, QAbstractSocket.NetworkLayerProtocol.IPv6Protocol)
    t.query(c, "state")
    t.spin(100)
    t.status(c)


@scenario("connection refused (IP), event loop: order of state_changed and error_occurred", "tcp")
def tcp_connect_refused(t: Trace) -> None:
    p = t.closed_port()
    c = t.tcp()
    t.call(c, "connectToHost", LH, p)
    t.until(lambda: t.seen("client", "error_occurred"))
    t.spin()
    t.status(c)


@scenario("connection refused seen through wait_for_connected", "tcp")
def tcp_connect_refused_wait(t: Trace) -> None:
    p = t.closed_port()
    c = t.tcp()
    t.call(c, "connectToHost", LH, p)
    t.call(c, "waitForConnected", 1000)
    t.status(c)


@scenario("connection refused by name", "tcp")
def tcp_connect_refused_name(t: Trace) -> None:
    p = t.closed_port()
    c = t.tcp()
    t.call(c, "connectToHost", "v4.test", p)
    t.until(lambda: t.seen("client", "error_occurred"))
    t.spin()
    t.query(c, "state", "peerName", "isOpen", "openMode")


@scenario("host not found through wait_for_connected", "tcp")
def tcp_host_not_found_wait(t: Trace) -> None:
    c = t.tcp()
    t.call(c, "connectToHost", "nosuch.test", 80)
    t.call(c, "waitForConnected", 2000)
    t.status(c)


@scenario("empty host name", "tcp")
def tcp_host_empty(t: Trace) -> None:
    c = t.tcp()
    t.call(c, "connectToHost", "", 80)
    t.query(c, "state")
    t.spin(100)
    t.status(c)


@scenario("syntactically impossible host name", "tcp")
def tcp_host_invalid(t: Trace) -> None:
    c = t.tcp()
    t.call(c, "connectToHost", "bad..name", 80)
    t.query(c, "state")
    t.spin(100)
    t.status(c)


@scenario("connect to port 0", "tcp")
def tcp_connect_port_zero(t: Trace) -> None:
    c = t.tcp()
    t.call(c, "connectToHost", LH, 0)
    t.query(c, "state")
    t.spin(100)
    t.status(c)


@scenario("connect to a null address", "tcp")
def tcp_connect_null_address(t: Trace) -> None:
    c = t.tcp()
    t.call(c, "connectToHost", QHostAddress(), 80)
    t.query(c, "state")
    t.spin(100)
    t.status(c)


@scenario("connect to 0.0.0.0 while something listens on loopback", "tcp")
def tcp_connect_any_address(t: Trace) -> None:
    _, p = t.raw_listener()
    c = t.tcp()
    t.call(c, "connectToHost", QHostAddress("0.0.0.0"), p)
    t.spin(100)
    t.query(c, "state", "peerAddress")


@scenario("no route to host / unreachable / prohibited routes", "tcp")
def tcp_connect_unroutable(t: Trace) -> None:
    for name, ip in (("noroute", "192.0.2.55"), ("unreachable", "198.51.100.8"), ("prohibited", "198.51.100.9")):
        c = t.tcp(name)
        t.call(c, "connectToHost", QHostAddress(ip), 80)
        t.spin(100)
        t.query(c, "state", "error", "errorString")


@scenario("wait_for_connected when unconnected, when connected, with 0", "tcp")
def tcp_wait_for_connected_states(t: Trace) -> None:
    _, p = t.raw_listener()
    c = t.tcp()
    t.call(c, "waitForConnected", 100)
    t.query(c, "error")
    t.call(c, "connectToHost", LH, p)
    t.call(c, "waitForConnected", 1000)
    t.call(c, "waitForConnected", 1000)
    t.query(c, "state", "error")


@scenario("wait_for_connected does the host lookup synchronously", "tcp")
def tcp_wait_for_connected_name(t: Trace) -> None:
    _, p = t.raw_listener()
    c = t.tcp()
    t.call(c, "connectToHost", "v4.test", p)
    t.call(c, "waitForConnected", 2000)
    t.query(c, "state", "peerAddress")
    t.spin(100)


@scenario("connect_to_host while connected", "tcp")
def tcp_connect_while_connected(t: Trace) -> None:
    c, peer = t.connected_pair()
    t.call(c, "connectToHost", LH, 9)
    t.query(c, "state", "error", "errorString", "peerPort")
    peer.sendall(b"still here")
    t.until(lambda: c.bytesAvailable() == 10)
    t.call(c, "readAll")


@scenario("connect_to_host while closing (pending writes)", "tcp")
def tcp_connect_while_closing(t: Trace) -> None:
    c, _ = t.connected_pair()
    c.write(b"x" * 8_000_000)
    t.call(c, "disconnectFromHost")
    t.query(c, "state")
    t.call(c, "connectToHost", LH, 9)
    t.query(c, "state", "error")
    t.call(c, "abort")


@scenario("connect_to_host from inside the connected slot", "tcp")
def tcp_connect_in_connected_slot(t: Trace) -> None:
    _, p = t.raw_listener()
    c = t.tcp()
    t.on(c, "connected", lambda: t.call(c, "connectToHost", LH, p))
    t.call(c, "connectToHost", LH, p)
    t.until(lambda: t.seen("client", "error_occurred"))
    t.query(c, "state", "error")
