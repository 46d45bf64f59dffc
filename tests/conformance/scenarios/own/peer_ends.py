"""The peer ends it, and what can still be read then."""

import socket
import time

from PySide6.QtNetwork import QHostAddress

from tests.conformance.scenarios.beginnings import listening, until_available, until_count
from tests.conformance.trace import Trace, scenario

LOOPBACK = QHostAddress("127.0.0.1")


@scenario("the peer closes, nothing unread or queued", "tcp")
def tcp_peer_closes(t: Trace) -> None:
    c, peer = t.connected_pair()
    peer.close()
    t.until(lambda: t.seen("client", "disconnected"))
    t.spin()
    t.status(c)


@scenario("the peer closes before our side knows that it is connected", "tcp")
def tcp_peer_closes_in_connecting(t: Trace) -> None:
    listener, port = t.raw_listener()
    c = t.tcp()
    t.call(c, "connectToHost", LOOPBACK, port)
    peer = t.accept(listener)
    peer.sendall(b"hi")
    peer.close()
    time.sleep(0.02)
    t.until(lambda: t.seen("client", "disconnected"))
    t.query(c, "state", "error", "bytesAvailable")
    t.call(c, "readAll")


@scenario("the peer closes, then connect again with the same socket", "tcp")
def tcp_peer_closes_then_reconnect(t: Trace) -> None:
    listener, port = t.raw_listener()
    c = t.tcp()
    t.call(c, "connectToHost", LOOPBACK, port)
    t.until_state(c, "ConnectedState")
    t.accept(listener).close()
    t.until(lambda: t.seen("client", "disconnected"))
    t.query(c, "error")
    t.call(c, "connectToHost", LOOPBACK, port)
    t.query(c, "error")
    t.until_state(c, "ConnectedState")
    peer = t.accept(listener)
    peer.sendall(b"second")
    until_available(t, c, 6)
    t.call(c, "readAll")
    t.query(c, "state", "error")


@scenario("reconnect from the disconnected slot of a remote close", "tcp")
def tcp_reconnect_when_the_peer_closed(t: Trace) -> None:
    listener, port = t.raw_listener()
    c = t.tcp()
    t.call(c, "connectToHost", LOOPBACK, port)
    t.until_state(c, "ConnectedState")
    t.on(c, "disconnected", lambda: t.call(c, "connectToHost", LOOPBACK, port))
    t.accept(listener).close()
    until_count(t, "client", "connected", 2)
    t.query(c, "state", "error")


@scenario("every reading call on what was unread when the peer closed", "tcp")
def tcp_every_reading_call_after_the_end(t: Trace) -> None:
    c, peer = t.connected_pair()
    peer.sendall(b"one\ntwo\nabcdef")
    peer.close()
    t.until(lambda: t.seen("client", "disconnected"))
    t.query(c, "state", "bytesAvailable", "canReadLine", "atEnd")
    t.call(c, "peek", 2)
    t.call(c, "readLine")
    t.call(c, "readLine")
    t.call(c, "getChar")
    t.call(c, "skip", 1)
    t.call(c, "read", 2)
    t.query(c, "bytesAvailable", "canReadLine", "atEnd")
    t.call(c, "readAll")
    t.call(c, "getChar")
    t.call(c, "peek", 1)
    t.call(c, "skip", 1)
    t.query(c, "error", "atEnd")


@scenario("data, read by us, then a reset: the data stays readable", "tcp")
def tcp_data_then_reset(t: Trace) -> None:
    c, peer = t.connected_pair()
    peer.sendall(b"before the reset")
    until_available(t, c, 16)
    t.rst(peer)
    t.until(lambda: t.seen("client", "disconnected"))
    t.query(c, "state", "error", "isOpen", "bytesAvailable")
    t.call(c, "read", 6)
    t.call(c, "readAll")
    t.query(c, "error")


@scenario("data and a reset before the loop turns", "tcp")
def tcp_data_and_reset_at_once(t: Trace) -> None:
    c, peer = t.connected_pair()
    peer.sendall(b"before the reset")
    t.rst(peer)
    time.sleep(0.02)
    t.until(lambda: t.seen("client", "disconnected"))
    t.query(c, "state", "error", "bytesAvailable")
    t.call(c, "readAll")


@scenario("a Qt client and a Qt server: one side disconnects, ten rounds", "tcp")
def tcp_sudden_disconnect_ten_rounds(t: Trace) -> None:
    server = listening(t)
    t.active = False
    errors: set[str] = set()
    ended = 0
    for number in range(10):
        c = t.tcp()
        c.connectToHost(LOOPBACK, server.serverPort())
        t.until_state(c, "ConnectedState")
        t.until(server.hasPendingConnections)
        a = t.watch(server.nextPendingConnection(), "accepted")
        for side in (a, c):
            side.errorOccurred.connect(lambda error: errors.add(error.name))
            side.write(b"x" * 20_000)
        t.spin(5)
        (a, c)[number % 2].disconnectFromHost()
        ended += t.until_state(a, "UnconnectedState") and t.until_state(c, "UnconnectedState")
    t.active = True
    t.note("rounds", ended=ended)
    t.note("errors", seen=sorted(errors))


@scenario("a wait runs out, then the peer closes: the next wait tells that and not the old time-out", "tcp")
def tcp_wait_runs_out_then_peer_closes(t: Trace) -> None:
    c, peer = t.connected_pair()
    t.call(c, "waitForReadyRead", 60)
    t.query(c, "state", "error", "errorString")
    peer.close()
    t.call(c, "waitForReadyRead", 1000)
    t.query(c, "state", "error", "errorString")


@scenario("reading in the slots of read_channel_finished and disconnected", "tcp")
def tcp_read_in_the_last_slots(t: Trace) -> None:
    c, peer = t.connected_pair()
    t.on(c, "readChannelFinished", lambda: t.call(c, "read", 4))
    t.on(c, "disconnected", lambda: t.call(c, "readAll"))
    peer.sendall(b"last words")
    peer.close()
    t.until(lambda: t.seen("client", "disconnected"))
    t.query(c, "state", "error", "bytesAvailable")


@scenario("disconnect_from_host in the error_occurred slot of a remote close", "tcp")
def tcp_disconnect_in_error_slot(t: Trace) -> None:
    c, peer = t.connected_pair()
    t.on(c, "errorOccurred", lambda error: t.call(c, "disconnectFromHost"))
    peer.close()
    t.until(lambda: t.seen("client", "disconnected"))
    t.spin()
    t.query(c, "state", "error")


@scenario("abort in the error_occurred slot of a remote close", "tcp")
def tcp_abort_in_error_slot_of_a_remote_close(t: Trace) -> None:
    c, peer = t.connected_pair()
    t.on(c, "errorOccurred", lambda error: t.call(c, "abort"))
    peer.sendall(b"unread")
    peer.close()
    t.until(lambda: t.seen("client", "disconnected"))
    t.spin()
    t.query(c, "state", "error", "bytesAvailable")


@scenario("ports and bytes in the last slots", "tcp")
def tcp_ports_in_the_last_slots(t: Trace) -> None:
    c, peer = t.connected_pair()
    peer.sendall(b"bye")
    t.until(lambda: c.bytesAvailable() == 3)
    for signal in ("readChannelFinished", "disconnected"):
        t.on(c, signal, lambda: t.query(c, "state", "error", "bytesAvailable", "peerPort", "localPort", "peerName"))
    peer.close()
    t.until(lambda: t.seen("client", "disconnected"))
    t.status(c)


@scenario("getters in the error_occurred slot of a reset", "tcp")
def tcp_getters_in_the_error_slot_of_a_reset(t: Trace) -> None:
    c, peer = t.connected_pair()
    t.on(c, "errorOccurred", lambda *_: t.query(c, "state", "error", "bytesAvailable", "peerPort"))
    peer.sendall(b"last words")
    until_available(t, c, 10)
    t.rst(peer)
    t.until(lambda: t.seen("client", "disconnected"))
    t.call(c, "readAll")
    t.query(c, "state", "error")
    t.call(c, "abort")
    t.query(c, "state", "error", "bytesAvailable")


@scenario("the peer finishes; what is unread is peeked at, skipped and read in lines", "tcp")
def tcp_lines_after_the_peer_has_finished(t: Trace) -> None:
    c, peer = t.connected_pair()
    peer.sendall(b"one\ntwo\nthree")
    peer.shutdown(socket.SHUT_WR)
    t.until(lambda: t.seen("client", "disconnected"))
    t.query(c, "bytesAvailable", "canReadLine", "atEnd", "state")
    t.call(c, "peek", 5)
    t.call(c, "readLine")
    t.call(c, "skip", 2)
    t.call(c, "readLine")
    t.query(c, "canReadLine")
    t.call(c, "readLine")
    t.query(c, "atEnd", "bytesAvailable")


@scenario("the connected slot writes; the peer answers and finishes; the answer is read in the last slot", "tcp")
def tcp_http_like(t: Trace) -> None:
    listener, port = t.raw_listener()
    c = t.tcp()
    t.on(c, "connected", lambda: t.call(c, "write", b"GET /\r\n"))
    t.on(c, "disconnected", lambda: t.call(c, "readAll"))
    t.call(c, "connectToHost", LOOPBACK, port)
    t.until_state(c, "ConnectedState")
    peer = t.accept(listener)
    t.peer("recv", data=t.recv_all(peer, want=7))
    peer.sendall(b"200 OK\r\n\r\nbody")
    peer.close()
    t.until(lambda: t.seen("client", "disconnected"))
    t.spin()
    t.query(c, "bytesAvailable", "state", "error")


@scenario("the peer resets while a large write is under way", "tcp")
def tcp_reset_under_a_large_write(t: Trace) -> None:
    c, peer = t.connected_pair()
    t.active = False
    c.write(b"x" * 8_000_000)
    t.spin()
    t.active = True
    t.rst(peer)
    t.until(lambda: t.seen("client", "disconnected"))
    t.query(c, "state", "error", "bytesToWrite", "isValid")
    t.call(c, "write", b"more")
    t.query(c, "error")
