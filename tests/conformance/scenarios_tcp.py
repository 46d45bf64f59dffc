"""What QTcpSocket does."""

import os
import socket
import time
from functools import partial
from typing import Any

from PySide6.QtCore import QIODeviceBase
from PySide6.QtNetwork import QAbstractSocket, QHostAddress, QHostInfo, QTcpSocket

from tests.conformance.trace import Trace, scenario

SocketState = QAbstractSocket.SocketState
Option = QAbstractSocket.SocketOption
BindFlag = QAbstractSocket.BindFlag
OpenMode = QIODeviceBase.OpenModeFlag
LH = QHostAddress("127.0.0.1")


def full_listener(t: Trace) -> int:
    """A listening socket whose queue is full: further connects hang in SYN_SENT."""
    _, p = t.raw_listener(backlog=0, symbol="HANGING")
    for _ in range(3):
        f = socket.socket()
        f.setblocking(False)
        try:
            f.connect(("127.0.0.1", p))
        except BlockingIOError:
            pass
        t.raw.append(f)
    time.sleep(0.05)
    return p


def until_available(t: Trace, c: Any, count: int) -> None:
    """Wait until so many bytes can be read."""
    t.until(lambda: c.bytesAvailable() == count)


# ---- construction / connect


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


# ---- disconnect family


@scenario("write then disconnect_from_host before connected, small data", "tcp")
def tcp_disconnect_while_connecting_with_data(t: Trace) -> None:
    lst, p = t.raw_listener()
    c = t.tcp()
    t.call(c, "connectToHost", LH, p)
    t.call(c, "write", b"Hello, world!")
    t.call(c, "disconnectFromHost")
    t.query(c, "state", "openMode", "bytesToWrite")
    t.until(lambda: t.seen("client", "disconnected"))
    t.peer("recv", data=t.recv_all(t.accept(lst)))
    t.query(c, "state", "openMode", "isOpen", "bytesToWrite")
    t.call(c, "close")
    t.query(c, "openMode")


@scenario("disconnect_from_host before connected, no data", "tcp")
def tcp_disconnect_while_connecting(t: Trace) -> None:
    _, p = t.raw_listener()
    c = t.tcp()
    t.call(c, "connectToHost", LH, p)
    t.call(c, "disconnectFromHost")
    t.query(c, "state", "openMode")
    t.until(lambda: t.seen("client", "disconnected"), ms=1500)
    t.query(c, "state", "openMode")


@scenario("disconnect_from_host during host lookup", "tcp")
def tcp_disconnect_while_lookup(t: Trace) -> None:
    _, p = t.raw_listener()
    c = t.tcp()
    t.call(c, "connectToHost", "slow.test", p)
    t.call(c, "disconnectFromHost")
    t.query(c, "state", "openMode")
    t.until(lambda: t.seen("client", "disconnected"), ms=3000)
    t.query(c, "state", "openMode")


@scenario("abort during host lookup", "tcp")
def tcp_abort_while_lookup(t: Trace) -> None:
    c = t.tcp()
    t.call(c, "connectToHost", "slow.test", 80)
    t.query(c, "state")
    t.call(c, "abort")
    t.query(c, "state", "openMode")
    t.spin(700)
    t.status(c)


@scenario("close during host lookup", "tcp")
def tcp_close_while_lookup(t: Trace) -> None:
    _, p = t.raw_listener()
    c = t.tcp()
    t.call(c, "connectToHost", "slow.test", p)
    t.call(c, "close")
    t.query(c, "state", "openMode")
    t.until(lambda: t.seen("client", "disconnected"), ms=2000)
    t.query(c, "state", "openMode")


@scenario("abort while connecting: is disconnected emitted?", "tcp")
def tcp_abort_while_connecting(t: Trace) -> None:
    p = full_listener(t)
    c = t.tcp()
    t.call(c, "connectToHost", LH, p)
    t.call(c, "abort")
    t.status(c)
    t.spin()


@scenario("close / abort / disconnect_from_host on an unconnected socket", "tcp")
def tcp_close_unconnected(t: Trace) -> None:
    c = t.tcp()
    t.call(c, "disconnectFromHost")
    t.call(c, "abort")
    t.call(c, "close")
    t.spin()
    t.query(c, "state", "error")


@scenario("disconnect_from_host, small write pending: closing, written, closed", "tcp")
def tcp_disconnect_pending_small(t: Trace) -> None:
    c, peer = t.connected_pair()
    t.call(c, "write", b"bye")
    t.call(c, "disconnectFromHost")
    t.query(c, "state", "bytesToWrite", "isOpen", "isValid", "openMode")
    t.until_state(c, "UnconnectedState")
    t.status(c)
    t.peer("recv", data=t.recv_all(peer))


@scenario("disconnect_from_host, large write pending, peer not reading, then reading", "tcp")
def tcp_disconnect_pending_large(t: Trace) -> None:
    c, peer = t.connected_pair()
    n = 12_000_000
    t.active = False
    t.on(c, "bytesWritten", lambda k: None)
    t.active = True
    c.write(b"x" * n)
    t.call(c, "disconnectFromHost")
    t.query(c, "state")
    t.active = False
    t.spin(150)
    st, tw = c.state(), c.bytesToWrite()
    data, how = t.recv_all(peer, ms=8000)
    t.active = True
    t.note("after 150 ms without the peer reading", state=st, still_to_write=tw > 0)
    t.note("peer then read", complete=len(data) == n, end=how)
    t.until_state(c, "UnconnectedState")
    t.query(c, "state", "bytesToWrite")


@scenario("writes and reads after disconnect_from_host while still closing", "tcp")
def tcp_use_while_closing(t: Trace) -> None:
    c, peer = t.connected_pair()
    t.active = False
    peer.sendall(b"incoming")
    t.until(lambda: c.bytesAvailable() == 8)
    t.active = True
    c.write(b"x" * 8_000_000)
    t.call(c, "disconnectFromHost")
    t.query(c, "state", "isReadable", "isWritable", "bytesAvailable")
    t.call(c, "write", b"late")
    t.call(c, "read", 3)
    t.call(c, "readAll")
    t.call(c, "disconnectFromHost")
    t.query(c, "state")
    t.call(c, "abort")


@scenario("abort with unread data in the read buffer: peer sees FIN or RST?", "tcp")
def tcp_abort_unread(t: Trace) -> None:
    c, peer = t.connected_pair()
    peer.sendall(b"unread")
    t.until(lambda: c.bytesAvailable() == 6)
    t.call(c, "abort")
    t.query(c, "bytesAvailable")
    t.call(c, "readAll")
    t.peer("recv", data=t.recv_all(peer))


@scenario("close with a pending small write", "tcp")
def tcp_close_pending_write(t: Trace) -> None:
    c, peer = t.connected_pair()
    t.call(c, "write", b"last words")
    t.call(c, "close")
    t.query(c, "state", "isOpen", "openMode", "bytesToWrite")
    t.until_state(c, "UnconnectedState")
    t.peer("recv", data=t.recv_all(peer))
    t.spin()


@scenario("close discards the read buffer", "tcp")
def tcp_close_unread(t: Trace) -> None:
    c, peer = t.connected_pair()
    peer.sendall(b"unread")
    t.until(lambda: c.bytesAvailable() == 6)
    t.call(c, "close")
    t.status(c)
    t.call(c, "readAll")
    t.peer("recv", data=t.recv_all(peer))


@scenario("disconnect_from_host keeps the read buffer", "tcp")
def tcp_disconnect_unread(t: Trace) -> None:
    c, peer = t.connected_pair()
    peer.sendall(b"unread")
    t.until(lambda: c.bytesAvailable() == 6)
    t.call(c, "disconnectFromHost")
    t.query(c, "state", "isOpen", "openMode", "isReadable", "isWritable", "bytesAvailable", "canReadLine", "atEnd")
    t.call(c, "peek", 3)
    t.call(c, "read", 3)
    t.call(c, "readAll")
    t.call(c, "read", 1)
    t.call(c, "write", b"x")
    t.query(c, "error", "errorString")


@scenario("slot of disconnected reconnects at once", "tcp")
def tcp_reconnect_in_disconnected_slot(t: Trace) -> None:
    _, p = t.raw_listener()
    c = t.tcp()
    left = [2]

    def again() -> None:
        if left[0]:
            left[0] -= 1
            t.call(c, "connectToHost", LH, p)

    t.on(c, "disconnected", again)
    t.call(c, "connectToHost", LH, p)
    t.until_state(c, "ConnectedState")
    t.call(c, "disconnectFromHost")
    t.query(c, "state", "peerAddress", "peerPort", "localPort", "peerName")
    t.until_state(c, "ConnectedState")
    t.query(c, "state", "peerAddress", "peerPort", "peerName")


@scenario("slot of error_occurred reconnects at once after a refusal", "tcp")
def tcp_reconnect_in_error_slot(t: Trace) -> None:
    closed = t.closed_port()
    _, p = t.raw_listener()
    c = t.tcp()
    t.on(c, "errorOccurred", lambda e: t.call(c, "connectToHost", LH, p))
    t.call(c, "connectToHost", LH, closed)
    t.until_state(c, "ConnectedState", ms=1500)
    t.spin()
    t.query(c, "state", "error", "errorString")


@scenario("same socket: connect, disconnect, three times; error and open mode in between", "tcp")
def tcp_reuse_three_times(t: Trace) -> None:
    _, p = t.raw_listener()
    c = t.tcp()
    for i in range(3):
        t.note("round", n=i)
        t.call(c, "connectToHost", LH, p)
        t.until_state(c, "ConnectedState")
        t.call(c, "disconnectFromHost")
        t.query(c, "state", "isOpen", "openMode", "error")


@scenario("does an old error survive a later good connection?", "tcp")
def tcp_error_after_good_connect(t: Trace) -> None:
    closed = t.closed_port()
    _, p = t.raw_listener()
    c = t.tcp()
    c.connectToHost(LH, closed)
    c.waitForConnected(1000)
    t.query(c, "error", "errorString")
    t.call(c, "connectToHost", LH, p)
    t.query(c, "error", "errorString")
    t.until_state(c, "ConnectedState")
    t.query(c, "error", "errorString")
    t.call(c, "disconnectFromHost")
    t.query(c, "error", "errorString")


@scenario("unread data from the old connection and a new connect_to_host", "tcp")
def tcp_reconnect_old_data(t: Trace) -> None:
    lst, p = t.raw_listener()
    c = t.tcp()
    c.connectToHost(LH, p)
    t.until_state(c, "ConnectedState")
    peer = t.accept(lst)
    peer.sendall(b"old data")
    t.until(lambda: c.bytesAvailable() == 8)
    c.disconnectFromHost()
    t.query(c, "state", "bytesAvailable")
    t.call(c, "connectToHost", LH, p)
    t.query(c, "bytesAvailable")
    t.until_state(c, "ConnectedState")
    t.call(c, "readAll")


# ---- remote close


@scenario("peer sends and closes at once: data first, then the close; data stays readable", "tcp")
def tcp_remote_send_then_close(t: Trace) -> None:
    c, peer = t.connected_pair()
    peer.sendall(b"goodbye")
    peer.close()
    t.until(lambda: t.seen("client", "disconnected"))
    t.spin()
    t.query(c, "state", "isOpen", "openMode", "isReadable", "isWritable", "bytesAvailable", "canReadLine")
    t.call(c, "read", 4)
    t.query(c, "bytesAvailable", "atEnd")
    t.call(c, "readAll")
    t.call(c, "readAll")
    t.query(c, "atEnd")
    t.call(c, "write", b"BLUBBER")
    t.call(c, "putChar", "a")
    t.query(c, "error", "errorString")


@scenario("peer closes while we have unread buffered data; nothing read in ready_read", "tcp")
def tcp_remote_close_unread(t: Trace) -> None:
    c, peer = t.connected_pair()
    peer.sendall(b"line one\nline two\nrest")
    t.until(lambda: c.bytesAvailable() == 22)
    peer.close()
    t.until(lambda: t.seen("client", "disconnected"))
    t.query(c, "state", "bytesAvailable", "canReadLine")
    t.call(c, "readLine")
    t.call(c, "readLine")
    t.query(c, "canReadLine")
    t.call(c, "readLine")
    t.call(c, "readLine")
    t.query(c, "error")


@scenario("close() inside the error_occurred slot of a remote close", "tcp")
def tcp_remote_close_close_in_error_slot(t: Trace) -> None:
    c, peer = t.connected_pair()
    t.on(c, "errorOccurred", lambda e: t.call(c, "close"))
    peer.close()
    t.until(lambda: t.seen("client", "disconnected"))
    t.spin()
    t.query(c, "state", "isOpen")


@scenario("peer closes while our write buffer is not empty", "tcp")
def tcp_remote_close_pending_write(t: Trace) -> None:
    c, peer = t.connected_pair()
    t.active = False
    c.write(b"x" * 8_000_000)
    t.spin(50)
    t.active = True
    t.rst(peer)
    t.until(lambda: t.seen("client", "disconnected"))
    t.spin()
    t.query(c, "state", "error", "bytesToWrite")


@scenario("peer resets the connection (RST), nothing buffered", "tcp")
def tcp_peer_rst(t: Trace) -> None:
    c, peer = t.connected_pair()
    t.rst(peer)
    t.until(lambda: t.seen("client", "disconnected"))
    t.spin()
    t.status(c)


@scenario("peer half-closes (shutdown write): Qt closes the whole connection", "tcp")
def tcp_half_close(t: Trace) -> None:
    c, peer = t.connected_pair()
    peer.shutdown(socket.SHUT_WR)
    t.until(lambda: t.seen("client", "disconnected"))
    t.query(c, "state")
    t.call(c, "write", b"after")
    t.peer("recv", data=t.recv_all(peer))


@scenario("peer half-closes while we have a small write pending: is it sent?", "tcp")
def tcp_half_close_pending_small(t: Trace) -> None:
    c, peer = t.connected_pair()
    peer.shutdown(socket.SHUT_WR)
    time.sleep(0.02)
    t.call(c, "write", b"reply")
    t.until(lambda: t.seen("client", "disconnected"))
    t.peer("recv", data=t.recv_all(peer))
    t.query(c, "state", "bytesToWrite")


@scenario("peer half-closes while we have a large write pending", "tcp")
def tcp_half_close_pending_large(t: Trace) -> None:
    c, peer = t.connected_pair()
    n = 12_000_000
    t.active = False
    c.write(b"x" * n)
    t.spin(80)
    t.active = True
    peer.shutdown(socket.SHUT_WR)
    t.until(lambda: t.seen("client", "disconnected"), ms=400)
    t.active = False
    data, how = t.recv_all(peer, ms=8000)
    t.active = True
    t.note("peer read", complete=len(data) == n, end=how)
    t.query(c, "state", "error")


@scenario("wait_for_disconnected: remote close / timeout / unconnected", "tcp")
def tcp_wait_for_disconnected(t: Trace) -> None:
    c, peer = t.connected_pair()
    t.call(c, "waitForDisconnected", 60)
    t.query(c, "state", "error", "errorString", "isOpen")
    peer.sendall(b"tail")
    peer.close()
    t.call(c, "waitForDisconnected", 1000)
    t.query(c, "state", "error", "bytesAvailable")
    t.call(c, "waitForDisconnected", 60)


# ---- writing


@scenario("write before connected is queued and sent on connect", "tcp")
def tcp_write_before_connected(t: Trace) -> None:
    lst, p = t.raw_listener()
    c = t.tcp()
    t.call(c, "connectToHost", LH, p)
    t.call(c, "write", b"early")
    t.query(c, "state", "bytesToWrite")
    t.until(lambda: t.seen("client", "bytes_written"))
    t.query(c, "bytesToWrite")
    t.peer("recv", data=t.recv_all(t.accept(lst), want=5))


@scenario("flush with queued data while still connecting", "tcp")
def tcp_flush_while_connecting(t: Trace) -> None:
    _, p = t.raw_listener()
    c = t.tcp()
    t.call(c, "connectToHost", LH, p)
    t.call(c, "flush")
    t.query(c, "state")
    t.call(c, "write", b"early")
    t.call(c, "flush")
    t.status(c)
    t.spin(60)
    t.query(c, "state")


@scenario("flush with queued data during host lookup", "tcp")
def tcp_flush_while_lookup(t: Trace) -> None:
    _, p = t.raw_listener()
    c = t.tcp()
    t.call(c, "connectToHost", "slow.test", p)
    t.call(c, "write", b"early")
    t.call(c, "flush")
    t.query(c, "state", "error", "bytesToWrite")
    t.until(lambda: t.seen("client", "bytes_written"))
    t.query(c, "state")


@scenario("write during host lookup is queued", "tcp")
def tcp_write_during_lookup(t: Trace) -> None:
    lst, p = t.raw_listener()
    c = t.tcp()
    t.call(c, "connectToHost", "slow.test", p)
    t.call(c, "write", b"early")
    t.query(c, "state", "bytesToWrite")
    t.until(lambda: t.seen("client", "bytes_written"))
    t.peer("recv", data=t.recv_all(t.accept(lst), want=5))


@scenario("queued write and then the connection is refused: is the buffer kept?", "tcp")
def tcp_write_then_refused(t: Trace) -> None:
    closed = t.closed_port()
    lst, p = t.raw_listener()
    c = t.tcp()
    t.call(c, "connectToHost", LH, closed)
    t.call(c, "write", b"lost?")
    t.until(lambda: t.seen("client", "error_occurred"))
    t.query(c, "state", "bytesToWrite", "isOpen")
    t.call(c, "write", b"more")
    t.query(c, "error", "errorString")
    t.note("reconnect to a listening port")
    t.call(c, "connectToHost", LH, p)
    t.query(c, "bytesToWrite")
    t.until_state(c, "ConnectedState")
    t.spin()
    t.peer("recv", data=t.recv_all(t.accept(lst), ms=150, want=5))


@scenario("write of nothing on a connected socket", "tcp")
def tcp_write_empty(t: Trace) -> None:
    c, _ = t.connected_pair()
    t.call(c, "write", b"")
    t.query(c, "bytesToWrite")
    t.spin()


@scenario("write returns at once, data leaves in the loop; bytes_written", "tcp")
def tcp_write_small(t: Trace) -> None:
    c, peer = t.connected_pair()
    t.call(c, "write", b"12345")
    t.call(c, "write", b"678")
    t.query(c, "bytesToWrite")
    t.until(lambda: c.bytesToWrite() == 0)
    t.query(c, "bytesToWrite")
    t.spin()
    t.peer("recv", data=t.recv_all(peer, want=8))


@scenario("flush sends synchronously and emits bytes_written inside the call", "tcp")
def tcp_flush(t: Trace) -> None:
    c, peer = t.connected_pair()
    t.call(c, "flush")
    t.call(c, "write", b"hello")
    t.call(c, "flush")
    t.query(c, "bytesToWrite")
    t.call(c, "flush")
    t.peer("recv", data=t.recv_all(peer, want=5))


@scenario("sum of bytes_written for a large write equals the size; chunk pattern", "tcp")
def tcp_bytes_written_accounting(t: Trace) -> None:
    c, peer = t.connected_pair()
    n = 3_000_000
    chunks = []
    t.active = False
    c.bytesWritten.connect(lambda k: chunks.append((k, c.bytesToWrite())))
    r = c.write(b"x" * n)
    before = c.bytesToWrite()
    data, _how = t.recv_all(peer, ms=5000, want=n)
    t.until(lambda: c.bytesToWrite() == 0)
    t.active = True
    done = 0
    ok = True
    for k, left in chunks:
        done += k
        ok &= left == n - done
    t.note(
        "write",
        ret=r == n,
        bytes_to_write_after_call=before == n,
        peer_got=len(data) == n,
        sum_of_bytes_written=done == n,
        bytes_to_write_already_reduced_in_slot=ok,
        several_signals=len(chunks) > 1,
    )


@scenario("write inside the bytes_written slot: no recursive signal", "tcp")
def tcp_write_in_bytes_written_slot(t: Trace) -> None:
    c, peer = t.connected_pair()
    left = [3]

    def more(n: int) -> None:
        if left[0]:
            left[0] -= 1
            t.call(c, "write", b"ab")
            t.call(c, "flush")

    t.on(c, "bytesWritten", more)
    t.call(c, "write", b"first")
    t.spin(100)
    t.query(c, "bytesToWrite")
    t.peer("recv", data=t.recv_all(peer, ms=100, want=11))


@scenario("wait_for_bytes_written: with data, with nothing, unconnected", "tcp")
def tcp_wait_for_bytes_written(t: Trace) -> None:
    c, _ = t.connected_pair()
    t.call(c, "waitForBytesWritten", 50)
    t.query(c, "error")
    t.call(c, "write", b"abc")
    t.call(c, "waitForBytesWritten", 500)
    t.query(c, "bytesToWrite", "error")


@scenario("wait_for_bytes_written runs out when the peer does not read", "tcp")
def tcp_wait_for_bytes_written_timeout(t: Trace) -> None:
    c, _ = t.connected_pair()
    t.active = False
    c.write(b"x" * 12_000_000)
    while c.waitForBytesWritten(80):
        pass
    t.active = True
    t.call(c, "waitForBytesWritten", 60)
    t.query(c, "state", "error", "errorString")
    t.note("left", some=c.bytesToWrite() > 0)


@scenario("write on an unconnected / never opened socket", "tcp")
def tcp_write_unconnected(t: Trace) -> None:
    c = t.tcp()
    t.call(c, "write", b"abc")
    t.query(c, "error", "errorString", "bytesToWrite")
    t.spin()


@scenario("socket opened ReadOnly / WriteOnly", "tcp")
def tcp_open_modes(t: Trace) -> None:
    lst, p = t.raw_listener()
    for name, mode in (("read_only", OpenMode.ReadOnly), ("write_only", OpenMode.WriteOnly)):
        c = t.tcp(name)
        t.call(c, "connectToHost", LH, p, mode)
        t.until_state(c, "ConnectedState")
        peer = t.accept(lst)
        t.query(c, "openMode", "isReadable", "isWritable")
        t.call(c, "write", b"w")
        peer.sendall(b"incoming")
        t.spin(60)
        t.query(c, "bytesAvailable")
        t.call(c, "readAll")
        peer.close()
        t.until(partial(t.seen, name, "disconnected"))


@scenario("Unbuffered open mode: write goes out at once, ready_read repeats only after reading", "tcp")
def tcp_unbuffered(t: Trace) -> None:
    lst, p = t.raw_listener()
    c = t.tcp()
    t.call(c, "connectToHost", LH, p, OpenMode.ReadWrite | OpenMode.Unbuffered)
    t.until_state(c, "ConnectedState")
    peer = t.accept(lst)
    t.query(c, "openMode")
    t.call(c, "write", b"now")
    t.query(c, "bytesToWrite")
    t.peer("recv", data=t.recv_all(peer, want=3, ms=200))
    peer.sendall(b"abc")
    t.spin(60)
    t.query(c, "bytesAvailable")
    peer.sendall(b"def")
    t.spin(60)
    t.query(c, "bytesAvailable")
    t.call(c, "read", 2)
    t.query(c, "bytesAvailable")
    t.call(c, "readAll")
    t.spin(30)
    peer.sendall(b"ghi")
    t.spin(60)
    t.call(c, "readAll")
    peer.close()
    t.spin(60)
    t.query(c, "state")
    t.call(c, "readAll")
    t.query(c, "state", "error")


# ---- reading


@scenario("reading with nothing buffered on a connected socket", "tcp")
def tcp_read_no_data(t: Trace) -> None:
    c, _ = t.connected_pair()
    t.query(c, "bytesAvailable", "canReadLine", "atEnd")
    t.call(c, "read", 10)
    t.call(c, "readAll")
    t.call(c, "readLine")
    t.call(c, "getChar")
    t.call(c, "peek", 3)
    t.call(c, "skip", 3)
    t.query(c, "error", "state")


@scenario("ready_read for each chunk even when nothing is read (buffered)", "tcp")
def tcp_ready_read_each_chunk(t: Trace) -> None:
    c, peer = t.connected_pair()
    for i in range(3):
        peer.sendall(b"abc")
        until_available(t, c, 3 * (i + 1))
    t.spin()
    t.query(c, "bytesAvailable")
    t.call(c, "readAll")


@scenario("wait_for_ready_read called while still connecting", "tcp")
def tcp_wait_for_ready_read_connecting(t: Trace) -> None:
    _, p = t.raw_listener()
    c = t.tcp()
    t.call(c, "connectToHost", LH, p)
    t.call(c, "waitForReadyRead", 100)
    t.query(c, "state", "error")


@scenario("wait_for_ready_read inside the ready_read slot", "tcp")
def tcp_wait_in_ready_read_slot(t: Trace) -> None:
    c, peer = t.connected_pair()
    first = [True]

    def slot() -> None:
        if first[0]:
            first[0] = False
            peer.sendall(b"two")
            t.call(c, "waitForReadyRead", 500)
            t.query(c, "bytesAvailable")

    t.on(c, "readyRead", slot)
    peer.sendall(b"one")
    t.until(lambda: c.bytesAvailable() == 6)
    t.spin()


@scenario("read buffer limit: fill, raise, lift", "tcp")
def tcp_read_buffer_limit(t: Trace) -> None:
    c, peer = t.connected_pair()
    t.call(c, "setReadBufferSize", 256)
    peer.sendall(b"a" * 512)
    t.spin(60)
    t.query(c, "bytesAvailable", "readBufferSize")
    t.call(c, "setReadBufferSize", 384)
    t.spin(60)
    t.query(c, "bytesAvailable")
    t.call(c, "setReadBufferSize", 1024)
    t.spin(60)
    t.query(c, "bytesAvailable")
    t.call(c, "setReadBufferSize", 0)
    t.call(c, "readAll")


@scenario("read buffer limit: reading makes room and pulls more in", "tcp")
def tcp_read_buffer_limit_read(t: Trace) -> None:
    c, peer = t.connected_pair(setReadBufferSize=4)
    peer.sendall(b"abcdefghij")
    t.spin(60)
    t.query(c, "bytesAvailable")
    t.call(c, "read", 1)
    t.query(c, "bytesAvailable")
    t.spin(60)
    t.query(c, "bytesAvailable")
    t.call(c, "readAll")
    t.query(c, "bytesAvailable")
    t.spin(60)
    t.query(c, "bytesAvailable")
    t.call(c, "readAll")
    t.spin(60)
    t.call(c, "readAll")


@scenario("read buffer limit and the peer closes with more in the kernel: when does the close show?", "tcp")
def tcp_read_buffer_limit_remote_close(t: Trace) -> None:
    c, peer = t.connected_pair(setReadBufferSize=4)
    peer.sendall(b"abcdefghij")
    peer.close()
    t.spin(120)
    t.query(c, "state", "error", "bytesAvailable")
    t.call(c, "read", 2)
    t.spin(60)
    t.query(c, "state", "bytesAvailable")
    t.call(c, "readAll")
    t.spin(60)
    t.query(c, "state", "bytesAvailable")
    t.call(c, "readAll")
    t.spin(60)
    t.query(c, "state", "bytesAvailable")
    t.call(c, "readAll")
    t.spin(60)
    t.query(c, "state", "error", "bytesAvailable")


@scenario("read buffer exactly full and the peer closes", "tcp")
def tcp_read_buffer_exact_remote_close(t: Trace) -> None:
    c, peer = t.connected_pair(setReadBufferSize=4)
    peer.sendall(b"abcd")
    peer.close()
    t.spin(120)
    t.query(c, "state", "error", "bytesAvailable")
    t.call(c, "readAll")
    t.spin(60)
    t.query(c, "state", "error", "bytesAvailable")


@scenario("can_read_line, read_line with and without a maximum", "tcp")
def tcp_read_line(t: Trace) -> None:
    c, peer = t.connected_pair()
    peer.sendall(b"one\r\ntwo\npart")
    t.until(lambda: c.bytesAvailable() == 13)
    t.query(c, "canReadLine")
    t.call(c, "readLine")
    t.call(c, "readLine", 2)
    t.query(c, "canReadLine")
    t.call(c, "readLine", 100)
    t.query(c, "canReadLine")
    t.call(c, "readLine")
    t.call(c, "readLine")
    peer.sendall(b"a\0b\n")
    t.until(lambda: c.bytesAvailable() == 4)
    t.call(c, "readLine")
    peer.sendall(b"\n\nx\n")
    t.until(lambda: c.bytesAvailable() == 4)
    t.call(c, "readLine")
    t.call(c, "readLine", 1)
    t.call(c, "readLine", 0)
    t.call(c, "readAll")


@scenario("peek, skip, unget_char, get_char, put_char", "tcp")
def tcp_char_ops(t: Trace) -> None:
    c, peer = t.connected_pair()
    peer.sendall(b"abcdefgh")
    t.until(lambda: c.bytesAvailable() == 8)
    t.call(c, "peek", 3)
    t.call(c, "peek", 100)
    t.query(c, "bytesAvailable")
    t.call(c, "getChar")
    t.call(c, "skip", 2)
    t.query(c, "bytesAvailable")
    t.call(c, "ungetChar", "Z")
    t.query(c, "bytesAvailable")
    t.call(c, "read", 2)
    t.call(c, "skip", 100)
    t.query(c, "bytesAvailable", "atEnd")
    t.call(c, "ungetChar", "Q")
    t.query(c, "bytesAvailable", "canReadLine")
    t.call(c, "readAll")
    t.call(c, "putChar", "p")
    t.query(c, "bytesToWrite")
    t.until(lambda: c.bytesToWrite() == 0)
    t.peer("recv", data=t.recv_all(peer, want=1))


@scenario("unget_char after the peer closed; unget on a closed device", "tcp")
def tcp_unget_after_close(t: Trace) -> None:
    c, peer = t.connected_pair()
    peer.sendall(b"ab")
    peer.close()
    t.until(lambda: t.seen("client", "disconnected"))
    t.call(c, "read", 1)
    t.call(c, "ungetChar", "a")
    t.query(c, "bytesAvailable")
    t.call(c, "readAll")
    t.call(c, "ungetChar", "z")
    t.query(c, "bytesAvailable")
    t.call(c, "close")
    t.call(c, "ungetChar", "y")
    t.query(c, "bytesAvailable")


@scenario("read transactions: start, rollback, commit, misuse", "tcp")
def tcp_transactions(t: Trace) -> None:
    c, peer = t.connected_pair()
    t.call(c, "commitTransaction")
    t.call(c, "rollbackTransaction")
    peer.sendall(b"0123456789")
    t.until(lambda: c.bytesAvailable() == 10)
    t.call(c, "startTransaction")
    t.query(c, "isTransactionStarted")
    t.call(c, "startTransaction")
    t.call(c, "read", 4)
    t.query(c, "bytesAvailable")
    t.call(c, "rollbackTransaction")
    t.query(c, "bytesAvailable", "isTransactionStarted")
    t.call(c, "startTransaction")
    t.call(c, "read", 4)
    t.call(c, "commitTransaction")
    t.query(c, "bytesAvailable")
    t.call(c, "readAll")


@scenario("read transactions: ungetChar and peek inside, data arriving inside", "tcp")
def tcp_transactions_arrival(t: Trace) -> None:
    c, peer = t.connected_pair()
    peer.sendall(b"abc")
    t.until(lambda: c.bytesAvailable() == 3)
    t.call(c, "startTransaction")
    t.call(c, "read", 10)
    t.query(c, "bytesAvailable", "atEnd")
    peer.sendall(b"def")
    t.until(lambda: t.count("client", "ready_read") == 2)
    t.query(c, "bytesAvailable")
    t.call(c, "peek", 2)
    t.call(c, "read", 1)
    t.call(c, "rollbackTransaction")
    t.query(c, "bytesAvailable")
    t.call(c, "readAll")


@scenario("read transaction open when the peer closes; then rollback", "tcp")
def tcp_transactions_remote_close(t: Trace) -> None:
    c, peer = t.connected_pair()
    peer.sendall(b"abc")
    t.until(lambda: c.bytesAvailable() == 3)
    t.call(c, "startTransaction")
    t.call(c, "read", 2)
    peer.close()
    t.until(lambda: t.seen("client", "disconnected"))
    t.query(c, "bytesAvailable", "isTransactionStarted")
    t.call(c, "rollbackTransaction")
    t.query(c, "bytesAvailable")
    t.call(c, "readAll")


@scenario("read transaction with a limited read buffer", "tcp")
def tcp_transactions_buffer_limit(t: Trace) -> None:
    c, peer = t.connected_pair(setReadBufferSize=4)
    peer.sendall(b"abcdefgh")
    t.spin(60)
    t.call(c, "startTransaction")
    t.call(c, "read", 4)
    t.query(c, "bytesAvailable")
    t.spin(60)
    t.query(c, "bytesAvailable")
    t.call(c, "rollbackTransaction")
    t.spin(60)
    t.query(c, "bytesAvailable")
    t.call(c, "startTransaction")
    t.call(c, "read", 4)
    t.call(c, "commitTransaction")
    t.spin(60)
    t.query(c, "bytesAvailable")


# ---- descriptor, options, bind


@scenario("set_socket_descriptor with a connected descriptor", "tcp")
def tcp_set_descriptor_ok(t: Trace) -> None:
    a, b = socket_pair(t)
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


def socket_pair(t: Trace) -> tuple[socket.socket, socket.socket]:
    """Two raw sockets, connected."""
    lst, p = t.raw_listener()
    a = socket.create_connection(("127.0.0.1", p))
    t.port(a.getsockname()[1], "CLIENT")
    b, _ = lst.accept()
    t.raw += [a, b]
    return a, b


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


@scenario("peer and local values in every stage", "tcp")
def tcp_values_by_state(t: Trace) -> None:
    _, p = t.raw_listener()
    c = t.tcp()

    def dump(label: str) -> None:
        t.note(label)
        t.query(
            c,
            "state",
            "localAddress",
            "localPort",
            "peerAddress",
            "peerPort",
            "peerName",
            "socketDescriptor",
            "isOpen",
            "isValid",
            "openMode",
        )

    c.stateChanged.connect(lambda s: dump("in state_changed"))
    c.hostFound.connect(lambda: dump("in host_found"))
    c.connected.connect(lambda: dump("in connected"))
    c.disconnected.connect(lambda: dump("in disconnected"))
    t.call(c, "connectToHost", "v4.test", p)
    t.until_state(c, "ConnectedState")
    t.call(c, "disconnectFromHost")
    dump("after disconnect")


@scenario("values inside the error_occurred slot of a remote close and of a refusal", "tcp")
def tcp_values_in_error_slot(t: Trace) -> None:
    c, peer = t.connected_pair()

    def dump(s: Any) -> None:
        t.query(
            s, "state", "isOpen", "isValid", "peerAddress", "peerPort", "localPort", "socketDescriptor", "errorString"
        )

    c.errorOccurred.connect(lambda e: dump(c))
    peer.close()
    t.until(lambda: t.seen("client", "disconnected"))
    t.note("refusal")
    p = t.closed_port()
    d = t.tcp("refused")
    d.errorOccurred.connect(lambda e: dump(d))
    d.connectToHost(LH, p)
    t.until(lambda: t.seen("refused", "error_occurred"))


@scenario("abort inside the connected slot", "tcp")
def tcp_abort_in_connected_slot(t: Trace) -> None:
    _, p = t.raw_listener()
    c = t.tcp()
    t.on(c, "connected", lambda: t.call(c, "abort"))
    t.call(c, "connectToHost", LH, p)
    t.until(lambda: t.seen("client", "disconnected"))
    t.spin()
    t.query(c, "state")


@scenario("abort inside the ready_read slot", "tcp")
def tcp_abort_in_ready_read_slot(t: Trace) -> None:
    c, peer = t.connected_pair()
    t.on(c, "readyRead", lambda: t.call(c, "abort"))
    peer.sendall(b"abc")
    t.until(lambda: t.seen("client", "disconnected"))
    t.spin()
    t.query(c, "state", "bytesAvailable")


@scenario("disconnect_from_host inside the ready_read slot, data kept", "tcp")
def tcp_disconnect_in_ready_read_slot(t: Trace) -> None:
    c, peer = t.connected_pair()
    t.on(c, "readyRead", lambda: t.call(c, "disconnectFromHost"))
    peer.sendall(b"abc")
    t.until(lambda: t.seen("client", "disconnected"))
    t.query(c, "state", "bytesAvailable")
    t.call(c, "readAll")


@scenario("set_peer_name and friends are only labels", "tcp")
def tcp_pause_and_misc(t: Trace) -> None:
    c, peer = t.connected_pair()
    t.query(c, "pauseMode")
    t.call(c, "setPauseMode", QAbstractSocket.PauseMode.PauseOnSslErrors)
    t.query(c, "pauseMode")
    t.call(c, "resume")
    peer.sendall(b"x")
    t.spin(60)
    t.query(c, "bytesAvailable")
    t.call(c, "setProtocolTag", "http")
    t.query(c, "protocolTag")


@scenario("host info: IP, name, unknown, empty", "tcp")
def host_info(t: Trace) -> None:
    for h in ("127.0.0.1", "::1", "v4.test", "both.test", "nosuch.test", "", "bad..name"):
        i = QHostInfo.fromName(h)
        t.note("from_name " + repr(h), info=i, host_name=i.hostName())


@scenario("write and flush after the peer has reset, before the loop could notice", "tcp")
def tcp_flush_after_rst(t: Trace) -> None:
    c, peer = t.connected_pair()
    t.rst(peer)
    time.sleep(0.02)
    t.call(c, "write", b"too late")
    t.call(c, "flush")
    t.query(c, "state", "error", "errorString", "isOpen", "bytesToWrite")
    t.spin()


@scenario("first flush after the peer closed its whole socket (kernel still accepts it)", "tcp")
def tcp_flush_after_fin(t: Trace) -> None:
    c, peer = t.connected_pair()
    peer.close()
    time.sleep(0.02)
    t.call(c, "write", b"one")
    t.call(c, "flush")
    time.sleep(0.02)
    t.call(c, "write", b"two")
    t.call(c, "flush")
    t.query(c, "state", "error", "errorString", "isOpen")
    t.spin()
    t.query(c, "state", "error")


@scenario("data arriving while closing is not read", "tcp")
def tcp_data_while_closing(t: Trace) -> None:
    c, peer = t.connected_pair()
    t.active = False
    c.write(b"x" * 8_000_000)
    t.active = True
    t.call(c, "disconnectFromHost")
    peer.sendall(b"incoming")
    t.spin(80)
    t.query(c, "state", "bytesAvailable")
    peer.shutdown(socket.SHUT_WR)
    t.spin(80)
    t.query(c, "state", "bytesAvailable")
    t.call(c, "abort")
