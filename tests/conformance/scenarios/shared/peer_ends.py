"""The peer ends it: in order, half, or with a reset; and what is unread or unsent then."""

import socket
import time

from tests.conformance.trace import Trace, scenario


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
