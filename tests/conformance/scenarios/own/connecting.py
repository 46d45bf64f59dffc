"""Connecting: refusals, names, a second attempt, and what slots do meanwhile."""

from typing import Any

from PySide6.QtNetwork import QHostAddress

from tests.conformance.scenarios.beginnings import full_listener, until_available, until_count
from tests.conformance.trace import Trace, scenario

LOOPBACK = QHostAddress("127.0.0.1")


@scenario("connect to an address: what is open, valid and known before and after", "tcp")
def tcp_connect_to_address(t: Trace) -> None:
    _, port = t.raw_listener()
    c = t.tcp()
    t.call(c, "connectToHost", LOOPBACK, port)
    t.status(c)
    t.until_state(c, "ConnectedState")
    t.spin()
    t.port(c.localPort(), "CLIENT")
    t.status(c)


@scenario("host not found, through the loop", "tcp")
def tcp_name_unknown_by_loop(t: Trace) -> None:
    c = t.tcp()
    t.call(c, "connectToHost", "nosuch.test", 80)
    t.query(c, "state", "peerName")
    t.until(lambda: t.seen("client", "error_occurred"))
    t.spin()
    t.status(c)


@scenario("after a name that was not found, a good connection with the same socket", "tcp")
def tcp_name_unknown_then_good(t: Trace) -> None:
    _, port = t.raw_listener()
    c = t.tcp()
    t.call(c, "connectToHost", "nosuch.test", 80)
    t.until(lambda: t.seen("client", "error_occurred"))
    t.call(c, "connectToHost", LOOPBACK, port)
    t.query(c, "error", "errorString", "peerName")
    t.until_state(c, "ConnectedState")
    t.query(c, "error", "peerName")


@scenario("the name localhost, where nobody listens", "tcp")
def tcp_localhost_refused(t: Trace) -> None:
    port = t.closed_port()
    c = t.tcp()
    t.call(c, "connectToHost", "localhost", port)
    t.until(lambda: t.seen("client", "error_occurred"))
    t.spin()
    t.query(c, "state", "error", "peerName", "peerAddress")


@scenario("the slot of error_occurred runs the event loop", "tcp")
def tcp_loop_in_error_slot(t: Trace) -> None:
    port = t.closed_port()
    c = t.tcp()

    def slot(error: object) -> None:
        t.spin(60)
        t.query(c, "state", "error", "peerName")

    t.on(c, "errorOccurred", slot)
    t.call(c, "connectToHost", LOOPBACK, port)
    t.until(lambda: t.seen("client", "error_occurred"))
    t.spin()
    t.query(c, "state", "error")


@scenario("connect_to_host while the name is being looked up; the first attempt goes on", "tcp")
def tcp_second_connect_in_lookup(t: Trace) -> None:
    _, port = t.raw_listener()
    c = t.tcp()
    t.call(c, "connectToHost", "v4.test", port)
    t.call(c, "connectToHost", LOOPBACK, 9)
    t.query(c, "state", "error", "errorString", "peerName")
    t.until_state(c, "ConnectedState")
    t.query(c, "state", "error", "errorString", "peerName")


@scenario("connect_to_host while connecting; the first attempt goes on", "tcp")
def tcp_second_connect_in_connecting(t: Trace) -> None:
    _, port = t.raw_listener()
    c = t.tcp()
    t.call(c, "connectToHost", LOOPBACK, port)
    t.call(c, "connectToHost", "v4.test", 9)
    t.query(c, "state", "error", "errorString", "peerName")
    t.until_state(c, "ConnectedState")
    t.query(c, "state", "error", "errorString", "peerName")
    t.call(c, "disconnectFromHost")
    t.query(c, "error")
    t.call(c, "connectToHost", LOOPBACK, port)
    t.query(c, "error")


@scenario("connect_to_host from the host_found slot", "tcp")
def tcp_second_connect_in_host_found_slot(t: Trace) -> None:
    _, port = t.raw_listener()
    c = t.tcp()
    t.on(c, "hostFound", lambda: t.call(c, "connectToHost", LOOPBACK, 9))
    t.call(c, "connectToHost", "v4.test", port)
    t.until_state(c, "ConnectedState")
    t.query(c, "state", "error")


@scenario("connect, get data, close, three times: each round begins as new", "tcp")
def tcp_connect_close_three_rounds(t: Trace) -> None:
    listener, port = t.raw_listener()
    c = t.tcp()
    for number in range(3):
        t.note("round", n=number)
        t.status(c)
        t.call(c, "connectToHost", LOOPBACK, port)
        t.until_state(c, "ConnectedState")
        peer = t.accept(listener)
        peer.sendall(b"data of the round")
        until_available(t, c, 17)
        t.call(c, "read", 4)
        t.call(c, "close")
        t.peer("recv", data=t.recv_all(peer))
    t.status(c)


@scenario("an IPv4 listener is reached by both forms of the mapped address and not by ::1", "tcp")
def tcp_connect_to_mapped_address(t: Trace) -> None:
    _, port = t.raw_listener()
    for name, text in (("dotted", "::ffff:127.0.0.1"), ("hex", "::FFFF:7F00:0001"), ("loopback6", "::1")):
        c = t.tcp(name)
        t.call(c, "connectToHost", text, port)
        t.call(c, "waitForConnected", 1000)
        t.query(c, "state", "error", "peerName", "peerAddress", "localAddress")


@scenario("wait_for_connected in the host_found slot, the target is an address", "tcp")
def tcp_wait_in_host_found_slot_address(t: Trace) -> None:
    _, port = t.raw_listener()
    c = t.tcp()
    t.on(c, "hostFound", lambda: t.call(c, "waitForConnected", 1000))
    t.call(c, "connectToHost", LOOPBACK, port)
    t.query(c, "state", "error")
    t.spin()
    t.note("connected was told", times=t.count("client", "connected"))


@scenario("wait_for_connected in the host_found slot, the target is a name", "tcp")
def tcp_wait_in_host_found_slot_name(t: Trace) -> None:
    _, port = t.raw_listener()
    c = t.tcp()
    t.on(c, "hostFound", lambda: t.call(c, "waitForConnected", 1000))
    t.call(c, "connectToHost", "v4.test", port)
    t.until_state(c, "ConnectedState")
    t.spin()
    t.query(c, "state", "error")
    t.note("connected was told", times=t.count("client", "connected"))


@scenario("abort in the host_found slot, the target is a name", "tcp")
def tcp_abort_in_host_found_slot(t: Trace) -> None:
    _, port = t.raw_listener()
    c = t.tcp()
    t.on(c, "hostFound", lambda: t.call(c, "abort"))
    t.call(c, "connectToHost", "v4.test", port)
    t.until(lambda: t.seen("client", "host_found"))
    t.spin(60)
    t.query(c, "state", "error", "peerName")


@scenario("abort in the error_occurred slot of a refusal", "tcp")
def tcp_abort_in_error_slot(t: Trace) -> None:
    port = t.closed_port()
    c = t.tcp()
    t.on(c, "errorOccurred", lambda error: t.call(c, "abort"))
    t.call(c, "connectToHost", LOOPBACK, port)
    t.until(lambda: t.seen("client", "error_occurred"))
    t.spin()
    t.status(c)


@scenario("refused twice in a row", "tcp")
def tcp_refused_twice(t: Trace) -> None:
    port = t.closed_port()
    c = t.tcp()
    for number in (1, 2):
        t.call(c, "connectToHost", LOOPBACK, port)
        until_count(t, "client", "error_occurred", number)
        t.query(c, "state", "error")


@scenario("abort in the state_changed slot, when connecting begins and when connected", "tcp")
def tcp_abort_in_state_slot(t: Trace) -> None:
    _, port = t.raw_listener()
    for name, at in (("at_connecting", "ConnectingState"), ("at_connected", "ConnectedState")):
        c = t.tcp(name)

        def slot(state: Any, c: Any = c, at: str = at) -> None:
            if state.name == at:
                t.call(c, "abort")

        t.on(c, "stateChanged", slot)
        t.call(c, "connectToHost", "v4.test", port)
        t.until_state(c, "UnconnectedState")
        t.spin(60)
        t.query(c, "state", "error")


@scenario("disconnect_from_host, then connect at once elsewhere, before the loop turns", "tcp")
def tcp_elsewhere_at_once(t: Trace) -> None:
    _, here = t.raw_listener(symbol="HERE")
    listener, there = t.raw_listener(symbol="THERE")
    c = t.tcp()
    t.call(c, "connectToHost", LOOPBACK, here)
    t.until_state(c, "ConnectedState")
    t.call(c, "disconnectFromHost")
    t.call(c, "connectToHost", LOOPBACK, there)
    t.query(c, "state", "error", "peerPort")
    t.until_state(c, "ConnectedState")
    t.query(c, "peerPort", "peerName")
    peer = t.accept(listener)
    peer.sendall(b"there")
    until_available(t, c, 5)
    t.call(c, "readAll")


@scenario("an attempt that hangs is aborted, and a good one follows", "tcp")
def tcp_hanging_attempt_aborted(t: Trace) -> None:
    hanging = full_listener(t)
    listener, port = t.raw_listener()
    c = t.tcp()
    t.call(c, "connectToHost", LOOPBACK, hanging)
    t.spin()
    t.query(c, "state", "peerPort", "bytesToWrite")
    t.call(c, "abort")
    t.query(c, "state", "error", "isValid")
    t.call(c, "connectToHost", LOOPBACK, port)
    t.until_state(c, "ConnectedState")
    peer = t.accept(listener)
    peer.sendall(b"ok")
    until_available(t, c, 2)
    t.call(c, "readAll")
    t.call(c, "abort")
    t.query(c, "state", "error")
