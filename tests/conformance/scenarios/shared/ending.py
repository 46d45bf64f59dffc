"""Ending it here, in each state and in slots; and connecting again after that."""

import socket

from PySide6.QtNetwork import QHostAddress

from tests.conformance.scenarios.beginnings import full_listener
from tests.conformance.trace import Trace, scenario

LH = QHostAddress("127.0.0.1")


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
