"""Ending it here: `disconnect_from_host`, `close` and `abort`, once and twice, in each state."""

import shiboken6
from PySide6.QtNetwork import QHostAddress

from tests.conformance.trace import Trace, scenario

LOOPBACK = QHostAddress("127.0.0.1")


@scenario("disconnect_from_host with nothing pending: all of it inside the call", "tcp")
def tcp_disconnect_nothing_pending(t: Trace) -> None:
    c, peer = t.connected_pair()
    t.call(c, "disconnectFromHost")
    t.status(c)
    t.peer("recv", data=t.recv_all(peer))
    t.spin()


@scenario("disconnect_from_host twice", "tcp")
def tcp_disconnect_twice(t: Trace) -> None:
    c, _ = t.connected_pair()
    t.call(c, "disconnectFromHost")
    t.call(c, "disconnectFromHost")
    t.query(c, "state", "error")
    t.spin()


@scenario("disconnect_from_host in the connected slot", "tcp")
def tcp_disconnect_in_connected_slot(t: Trace) -> None:
    listener, port = t.raw_listener()
    c = t.tcp()
    t.on(c, "connected", lambda: t.call(c, "disconnectFromHost"))
    t.call(c, "connectToHost", LOOPBACK, port)
    t.until(lambda: t.seen("client", "disconnected"))
    t.spin()
    t.query(c, "state", "error")
    t.peer("recv", data=t.recv_all(t.accept(listener)))


@scenario("write and disconnect_from_host in the connected slot", "tcp")
def tcp_write_and_disconnect_in_connected_slot(t: Trace) -> None:
    listener, port = t.raw_listener()
    c = t.tcp()

    def slot() -> None:
        t.call(c, "write", b"hello and goodbye")
        t.call(c, "disconnectFromHost")

    t.on(c, "connected", slot)
    t.call(c, "connectToHost", LOOPBACK, port)
    t.until(lambda: t.seen("client", "disconnected"))
    t.peer("recv", data=t.recv_all(t.accept(listener)))


@scenario("close with nothing pending", "tcp")
def tcp_close_nothing_pending(t: Trace) -> None:
    c, peer = t.connected_pair()
    t.call(c, "close")
    t.status(c)
    t.peer("recv", data=t.recv_all(peer))
    t.spin()


@scenario("close twice, and after disconnect_from_host", "tcp")
def tcp_close_twice(t: Trace) -> None:
    c, _ = t.connected_pair()
    t.call(c, "disconnectFromHost")
    t.call(c, "close")
    t.call(c, "close")
    t.query(c, "state", "isOpen", "error")


@scenario("reading and writing after close", "tcp")
def tcp_use_after_close(t: Trace) -> None:
    c, _ = t.connected_pair()
    t.call(c, "close")
    t.call(c, "write", b"late")
    t.call(c, "read", 3)
    t.call(c, "readLine")
    t.call(c, "peek", 1)
    t.call(c, "flush")
    t.query(c, "bytesAvailable", "bytesToWrite", "error", "state")


@scenario("close while connecting, nothing queued", "tcp")
def tcp_close_in_connecting(t: Trace) -> None:
    listener, port = t.raw_listener()
    c = t.tcp()
    t.call(c, "connectToHost", LOOPBACK, port)
    t.call(c, "close")
    t.query(c, "state", "isOpen", "openMode")
    t.until(lambda: t.seen("client", "disconnected"))
    t.query(c, "state", "isOpen", "openMode")
    t.peer("recv", data=t.recv_all(t.accept(listener)))


@scenario("close while connecting, bytes queued: they are delivered", "tcp")
def tcp_close_in_connecting_with_data(t: Trace) -> None:
    listener, port = t.raw_listener()
    c = t.tcp()
    t.call(c, "connectToHost", LOOPBACK, port)
    t.call(c, "write", b"Hello, world!")
    t.call(c, "close")
    t.query(c, "state", "isOpen", "openMode", "bytesToWrite")
    t.until(lambda: t.seen("client", "disconnected"))
    t.peer("recv", data=t.recv_all(t.accept(listener)))
    t.query(c, "state", "bytesToWrite")


@scenario("abort when connected, nothing unread or queued", "tcp")
def tcp_abort_nothing_pending(t: Trace) -> None:
    c, peer = t.connected_pair()
    t.call(c, "abort")
    t.status(c)
    t.peer("recv", data=t.recv_all(peer))
    t.call(c, "abort")
    t.spin()


@scenario("abort with bytes queued: nothing is left to write, the peer gets none", "tcp")
def tcp_abort_with_queued_bytes(t: Trace) -> None:
    c, peer = t.connected_pair()
    t.call(c, "write", b"dropped")
    t.query(c, "bytesToWrite")
    t.call(c, "abort")
    t.query(c, "bytesToWrite", "state")
    t.peer("recv", data=t.recv_all(peer))


@scenario("abort while closing", "tcp")
def tcp_abort_in_closing(t: Trace) -> None:
    c, _ = t.connected_pair()
    t.active = False
    c.write(b"x" * 8_000_000)
    t.active = True
    t.call(c, "disconnectFromHost")
    t.query(c, "state")
    t.call(c, "abort")
    t.query(c, "state", "error", "bytesToWrite", "peerName")
    t.spin()


@scenario("bytes_to_write at the end of a delayed close", "tcp")
def tcp_nothing_to_write_after_the_end(t: Trace) -> None:
    c, peer = t.connected_pair()
    t.call(c, "write", b"all of it")
    t.call(c, "close")
    t.query(c, "bytesToWrite")
    t.until(lambda: t.seen("client", "disconnected"))
    t.query(c, "bytesToWrite", "state")
    t.peer("recv", data=t.recv_all(peer))


@scenario("abort in the disconnected slot", "tcp")
def tcp_abort_in_disconnected_slot(t: Trace) -> None:
    c, _ = t.connected_pair()
    t.on(c, "disconnected", lambda: t.call(c, "abort"))
    t.call(c, "disconnectFromHost")
    t.query(c, "state", "error")
    t.spin()


@scenario("a connected socket is destroyed", "tcp")
def tcp_destroyed_when_connected(t: Trace) -> None:
    c, peer = t.connected_pair()
    t.keep.remove(c)
    shiboken6.delete(c)
    t.peer("recv", data=t.recv_all(peer))


@scenario("write in the ready_read slot, then disconnect_from_host: request and answer", "tcp")
def tcp_answer_and_end_in_ready_read_slot(t: Trace) -> None:
    c, peer = t.connected_pair()

    def slot() -> None:
        t.call(c, "readAll")
        t.call(c, "write", b"answer")
        t.call(c, "disconnectFromHost")

    t.on(c, "readyRead", slot)
    peer.sendall(b"question")
    t.until(lambda: t.seen("client", "disconnected"))
    t.peer("recv", data=t.recv_all(peer))
    t.query(c, "state", "error")


@scenario("close while a large write is under way; the peer reads it all", "tcp")
def tcp_close_with_a_lot_to_write(t: Trace) -> None:
    c, peer = t.connected_pair()
    t.active = False
    c.write(b"x" * 8_000_000)
    t.active = True
    t.call(c, "close")
    t.query(c, "state")
    data, end = t.recv_all(peer, ms=4000)
    t.note("peer read", length=len(data), end=end)
    t.until_state(c, "UnconnectedState")
    t.query(c, "state", "error")
