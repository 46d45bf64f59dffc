"""Scenarios of TCP sockets and servers that the shared set does not have, in the same format.

Most show a row of the table of behaviours for which no recording was kept; the others are of the same kind.
"""

import os
import socket
import time
from typing import Any

import shiboken6
from PySide6.QtNetwork import QAbstractSocket, QHostAddress, QTcpServer, QTcpSocket

from tests.conformance.trace import Trace, scenario

LOOPBACK = QHostAddress("127.0.0.1")
ANY = QHostAddress(QHostAddress.SpecialAddress.Any)


# ---- what several scenarios need ---------------------------------------------------------------


def hanging_port(t: Trace) -> int:
    """The port of a listening socket whose queue is full: connecting to it takes for ever."""
    _, port = t.raw_listener(backlog=0, symbol="HANGING")
    for _ in range(3):
        filler = socket.socket()
        filler.setblocking(False)
        filler.connect_ex(("127.0.0.1", port))
        t.raw.append(filler)
    time.sleep(0.05)
    return int(port)


def raw_pair(t: Trace, symbol: str = "SERVER") -> tuple[socket.socket, socket.socket]:
    """Two connected raw sockets: one to give away by its descriptor, one to be the peer."""
    listener, port = t.raw_listener(symbol=symbol)
    ours = socket.create_connection(("127.0.0.1", port))
    t.port(ours.getsockname()[1], symbol + "_CLIENT")
    peer, _ = listener.accept()
    t.raw += [ours, peer]
    return ours, peer


def listening(t: Trace, name: str = "server", address: Any = LOOPBACK, cls: Any = QTcpServer) -> Any:
    server = t.watch(cls(), name)
    t.call(server, "listen", address, 0)
    t.port(server.serverPort(), name.upper())
    return server


def raw_client(t: Trace, server: Any, symbol: str = "CLIENT", host: str = "127.0.0.1") -> socket.socket:
    client = socket.create_connection((host, server.serverPort()), timeout=2)
    t.port(client.getsockname()[1], symbol)
    t.raw.append(client)
    return client


def take(t: Trace, server: Any, name: str) -> Any:
    """The next pending connection, watched under ``name``."""
    sock = server.nextPendingConnection()
    if sock is not None:
        t.watch(sock, name)
    t.add(k="call", obj=t.name(server), fn="next_pending_connection", ret=None if sock is None else name)
    return sock


def describe(t: Trace, server: Any) -> None:
    t.query(server, "isListening", "serverAddress", "serverPort", "serverError", "errorString")
    t.query(server, "hasPendingConnections", "maxPendingConnections", "socketDescriptor")


def until_count(t: Trace, name: str, signal: str, count: int) -> None:
    """Wait until this signal was told so often."""
    t.until(lambda: t.count(name, signal) == count)


def until_available(t: Trace, sock: Any, count: int) -> None:
    """Wait until so many bytes can be read."""
    t.until(lambda: sock.bytesAvailable() == count)


# ---- a fresh socket ----------------------------------------------------------------------------


@scenario("a fresh QTcpSocket: every getter", "tcp")
def tcp_fresh_getters(t: Trace) -> None:
    c = t.tcp()
    t.status(c)
    t.query(c, "socketType", "isReadable", "isWritable")
    t.query(c, "canReadLine", "atEnd", "readBufferSize", "isTransactionStarted")


@scenario("a fresh QTcpSocket: sequential, pause mode, protocol tag, proxy", "tcp")
def tcp_fresh_pause_tag_proxy(t: Trace) -> None:
    c = t.tcp()
    t.query(c, "isSequential", "pauseMode", "protocolTag", "proxy")


@scenario("reading calls on a socket that was never opened", "tcp")
def tcp_fresh_reading(t: Trace) -> None:
    c = t.tcp()
    t.call(c, "read", 10)
    t.call(c, "readAll")
    t.call(c, "readLine")
    t.call(c, "peek", 3)
    t.call(c, "getChar")
    t.call(c, "skip", 3)
    t.query(c, "bytesAvailable", "canReadLine", "atEnd", "error", "state")


@scenario("put_char, unget_char and flush on a socket that was never opened", "tcp")
def tcp_fresh_writing(t: Trace) -> None:
    c = t.tcp()
    t.call(c, "flush")
    t.call(c, "putChar", "a")
    t.call(c, "ungetChar", "b")
    t.call(c, "flush")
    t.query(c, "bytesAvailable", "bytesToWrite", "error", "errorString", "state")
    t.spin()


@scenario("every wait on a socket that was never opened", "tcp")
def tcp_fresh_waits(t: Trace) -> None:
    c = t.tcp()
    t.call(c, "waitForConnected", 200)
    t.call(c, "waitForReadyRead", 200)
    t.call(c, "waitForBytesWritten", 200)
    t.call(c, "waitForDisconnected", 200)
    t.query(c, "error", "errorString", "state")


@scenario("read_buffer_size gives back what was set, the extremes too", "tcp")
def tcp_fresh_read_buffer_sizes(t: Trace) -> None:
    c = t.tcp()
    t.query(c, "readBufferSize")
    for size in (1, 2**63 - 1, -(2**63), -1, 0):
        t.call(c, "setReadBufferSize", size)
        t.query(c, "readBufferSize")


@scenario("transactions on a socket that was never opened", "tcp")
def tcp_fresh_transactions(t: Trace) -> None:
    c = t.tcp()
    t.call(c, "startTransaction")
    t.query(c, "isTransactionStarted")
    t.call(c, "rollbackTransaction")
    t.call(c, "commitTransaction")
    t.query(c, "isTransactionStarted", "error")


@scenario("connected by waits alone; once the loop runs, one bytes_written and one ready_read", "tcp")
def tcp_write_before_any_loop(t: Trace) -> None:
    server = listening(t)
    c = t.tcp()
    t.call(c, "connectToHost", LOOPBACK, server.serverPort())
    t.call(c, "waitForConnected", 1000)
    t.call(server, "waitForNewConnection", 1000)
    a = take(t, server, "accepted")
    t.call(a, "write", b"greeting")
    t.query(c, "bytesAvailable")
    t.note("the loop runs")
    until_available(t, c, 8)
    t.spin()


# ---- connecting --------------------------------------------------------------------------------


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


# ---- ending it here ----------------------------------------------------------------------------


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


# ---- the peer ends it --------------------------------------------------------------------------


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


# ---- reading -----------------------------------------------------------------------------------


@scenario("the loop runs inside the ready_read slot while more arrives", "tcp")
def tcp_loop_in_ready_read_slot(t: Trace) -> None:
    c, peer = t.connected_pair()
    first = [True]

    def slot() -> None:
        if first:
            first.clear()
            peer.sendall(b"two")
            t.spin(60)
            t.query(c, "bytesAvailable")

    t.on(c, "readyRead", slot)
    peer.sendall(b"one")
    until_available(t, c, 6)
    t.spin(60)
    peer.sendall(b"six")
    until_available(t, c, 9)
    t.call(c, "readAll")


@scenario("the loop runs inside the ready_read slot while the peer closes", "tcp")
def tcp_loop_in_ready_read_slot_peer_closes(t: Trace) -> None:
    c, peer = t.connected_pair()

    def slot() -> None:
        peer.close()
        t.spin(60)
        t.query(c, "state", "error", "bytesAvailable")

    t.on(c, "readyRead", slot)
    peer.sendall(b"last")
    t.until(lambda: t.seen("client", "disconnected"))
    t.spin()
    t.query(c, "state", "bytesAvailable")


@scenario("read with a larger maximum than there is, and a smaller one", "tcp")
def tcp_read_with_a_maximum(t: Trace) -> None:
    c, peer = t.connected_pair()
    peer.sendall(b"abcdef")
    until_available(t, c, 6)
    t.call(c, "read", 0)
    t.call(c, "read", 2)
    t.query(c, "bytesAvailable")
    t.call(c, "read", 100)
    t.call(c, "read", 1)


@scenario("peek and read across what came in two pieces", "tcp")
def tcp_read_across_pieces(t: Trace) -> None:
    c, peer = t.connected_pair()
    for number, piece in enumerate((b"first ", b"second"), 1):
        peer.sendall(piece)
        until_available(t, c, 6 * number)
    t.call(c, "peek", 8)
    t.call(c, "read", 4)
    t.call(c, "peek", 100)
    t.call(c, "skip", 4)
    t.call(c, "readAll")


@scenario("what is open and valid in which state", "tcp")
def tcp_open_and_valid_by_state(t: Trace) -> None:
    listener, port = t.raw_listener()
    c = t.tcp()

    def ask(text: str) -> None:
        t.note(text)
        t.query(c, "state", "isOpen", "isValid", "openMode", "isReadable", "isWritable")

    t.call(c, "bind", LOOPBACK)
    ask("bound")
    t.call(c, "abort")
    ask("bound and aborted")
    t.call(c, "connectToHost", "v4.test", port)
    ask("looking up")
    t.until_state(c, "ConnectedState")
    ask("connected")
    t.call(c, "disconnectFromHost")
    ask("disconnected here")
    t.accept(listener)
    t.call(c, "connectToHost", LOOPBACK, port)
    ask("connecting")
    t.until_state(c, "ConnectedState")
    t.accept(listener).close()
    until_count(t, "client", "disconnected", 2)
    ask("the peer closed")
    t.call(c, "connectToHost", LOOPBACK, t.closed_port())
    until_count(t, "client", "error_occurred", 2)
    ask("refused")
    t.call(c, "close")
    ask("closed")


@scenario("writing leaves unread bytes alone", "tcp")
def tcp_write_leaves_unread_bytes(t: Trace) -> None:
    c, peer = t.connected_pair()
    peer.sendall(b"unread")
    until_available(t, c, 6)
    t.call(c, "write", b"written")
    t.query(c, "bytesAvailable", "bytesToWrite")
    t.until(lambda: c.bytesToWrite() == 0)
    t.query(c, "bytesAvailable")
    t.call(c, "readAll")
    t.peer("recv", data=t.recv_all(peer, want=7))


@scenario("the read limit is lowered below what is buffered", "tcp")
def tcp_limit_below_what_is_there(t: Trace) -> None:
    c, peer = t.connected_pair()
    peer.sendall(b"0123456789")
    until_available(t, c, 10)
    t.call(c, "setReadBufferSize", 4)
    t.query(c, "bytesAvailable")
    peer.sendall(b"abcdef")
    t.spin(60)
    t.query(c, "bytesAvailable")
    t.call(c, "read", 8)
    t.spin(60)
    t.query(c, "bytesAvailable")
    t.call(c, "readAll")
    t.spin(60)
    t.query(c, "bytesAvailable")
    t.call(c, "readAll")
    t.spin(60)
    t.call(c, "readAll")


@scenario("a negative read limit: nothing is buffered until it is changed", "tcp")
def tcp_limit_negative(t: Trace) -> None:
    c, peer = t.connected_pair(setReadBufferSize=-1)
    t.query(c, "readBufferSize")
    peer.sendall(b"abc")
    t.spin(60)
    t.query(c, "bytesAvailable", "state")
    t.call(c, "setReadBufferSize", 0)
    t.spin(60)
    t.query(c, "bytesAvailable")


@scenario("a read limit of one byte", "tcp")
def tcp_limit_of_one(t: Trace) -> None:
    c, peer = t.connected_pair(setReadBufferSize=1)
    peer.sendall(b"abc")
    for _ in range(4):
        t.spin(60)
        t.query(c, "bytesAvailable")
        t.call(c, "readAll")


@scenario("the read limit stays with the socket from one connection to the next", "tcp")
def tcp_limit_outlives_the_connection(t: Trace) -> None:
    listener, port = t.raw_listener()
    c = t.tcp()
    t.call(c, "setReadBufferSize", 3)
    for _ in range(2):
        t.call(c, "connectToHost", LOOPBACK, port)
        t.until_state(c, "ConnectedState")
        peer = t.accept(listener)
        peer.sendall(b"12345")
        t.spin(60)
        t.query(c, "readBufferSize", "bytesAvailable")
        t.call(c, "abort")


@scenario("the read limit and can_read_line: the newline lies behind the limit", "tcp")
def tcp_limit_and_lines(t: Trace) -> None:
    c, peer = t.connected_pair(setReadBufferSize=4)
    peer.sendall(b"abcdef\n")
    t.spin(60)
    t.query(c, "bytesAvailable", "canReadLine")
    t.call(c, "readLine")
    t.spin(60)
    t.query(c, "bytesAvailable", "canReadLine")
    t.call(c, "readLine")


@scenario("four megabytes read in the ready_read slot arrive whole", "tcp")
def tcp_four_megabytes_in(t: Trace) -> None:
    c, peer = t.connected_pair()
    size = 4_000_000
    got = bytearray()
    t.active = False
    c.readyRead.connect(lambda: got.extend(bytes(c.readAll())))
    peer.setblocking(False)
    data = bytes(range(256)) * (size // 256)
    sent = 0
    while sent < len(data):
        try:
            sent += peer.send(data[sent : sent + 65536])
        except BlockingIOError:
            t.spin(2)
    t.until(lambda: len(got) >= len(data))
    t.active = True
    t.note("read", whole=bytes(got) == data)
    t.query(c, "state", "bytesAvailable")


@scenario("a line that comes in two pieces", "tcp")
def tcp_line_in_two_pieces(t: Trace) -> None:
    c, peer = t.connected_pair()
    peer.sendall(b"half a ")
    until_available(t, c, 7)
    t.query(c, "canReadLine")
    peer.sendall(b"line\r\nnext")
    until_available(t, c, 17)
    t.query(c, "canReadLine")
    t.call(c, "readLine")
    t.query(c, "canReadLine", "bytesAvailable")


@scenario("a dialogue by waits: greeting, command, answer, goodbye", "tcp")
def tcp_dialogue_by_waits(t: Trace) -> None:
    listener, port = t.raw_listener()
    c = t.tcp()
    t.call(c, "connectToHost", LOOPBACK, port)
    t.call(c, "waitForConnected", 1000)
    peer = t.accept(listener)
    peer.sendall(b"* OK ready\r\n")
    t.call(c, "waitForReadyRead", 1000)
    t.call(c, "readLine")
    t.call(c, "write", b"1 LOGOUT\r\n")
    t.call(c, "waitForBytesWritten", 1000)
    t.peer("recv", data=t.recv_all(peer, want=10))
    peer.sendall(b"* BYE\r\n")
    peer.close()
    t.call(c, "waitForDisconnected", 1000)
    t.query(c, "state", "error", "canReadLine")
    t.call(c, "readLine")
    t.call(c, "close")
    t.query(c, "state", "error")


@scenario("an ungot newline makes a line; unget in a transaction", "tcp")
def tcp_unget_lines_and_transactions(t: Trace) -> None:
    c, peer = t.connected_pair()
    peer.sendall(b"abc")
    until_available(t, c, 3)
    t.call(c, "ungetChar", "\n")
    t.query(c, "canReadLine", "bytesAvailable")
    t.call(c, "readLine")
    t.call(c, "startTransaction")
    t.call(c, "read", 2)
    t.call(c, "ungetChar", "Z")
    t.query(c, "bytesAvailable")
    t.call(c, "rollbackTransaction")
    t.call(c, "readAll")


@scenario("a transaction, then disconnect_from_host and rollback; and close", "tcp")
def tcp_transaction_and_our_end(t: Trace) -> None:
    c, peer = t.connected_pair()
    peer.sendall(b"abc")
    until_available(t, c, 3)
    t.call(c, "startTransaction")
    t.call(c, "read", 2)
    t.call(c, "disconnectFromHost")
    t.query(c, "isTransactionStarted", "bytesAvailable")
    t.call(c, "rollbackTransaction")
    t.query(c, "bytesAvailable")
    t.call(c, "startTransaction")
    t.call(c, "close")
    t.query(c, "isTransactionStarted", "bytesAvailable")


# ---- writing -----------------------------------------------------------------------------------


@scenario("ten writes before the loop runs leave together: one bytes_written", "tcp")
def tcp_ten_writes_at_once(t: Trace) -> None:
    c, peer = t.connected_pair()
    for _ in range(10):
        t.call(c, "write", b"0123456789")
    t.query(c, "bytesToWrite")
    t.until(lambda: c.bytesToWrite() == 0)
    t.spin()
    t.peer("recv", data=t.recv_all(peer, want=100))


@scenario("two writes with a turn of the loop between them: two bytes_written", "tcp")
def tcp_two_writes_in_two_turns(t: Trace) -> None:
    c, peer = t.connected_pair()
    for piece in (b"one", b"three"):
        t.call(c, "write", piece)
        t.until(lambda: c.bytesToWrite() == 0)
        t.spin()
    t.peer("recv", data=t.recv_all(peer, want=8))


@scenario("write in the connected slot", "tcp")
def tcp_write_in_connected_slot(t: Trace) -> None:
    listener, port = t.raw_listener()
    c = t.tcp()
    t.on(c, "connected", lambda: t.call(c, "write", b"first words"))
    t.call(c, "connectToHost", LOOPBACK, port)
    t.until(lambda: t.seen("client", "bytes_written"))
    t.peer("recv", data=t.recv_all(t.accept(listener), want=11))


@scenario("an echo in the ready_read slot", "tcp")
def tcp_echo_in_ready_read_slot(t: Trace) -> None:
    c, peer = t.connected_pair()
    t.on(c, "readyRead", lambda: t.call(c, "write", bytes(c.readAll())))
    for word in (b"one", b"two"):
        peer.sendall(word)
        t.peer("recv", data=t.recv_all(peer, want=3))
    t.spin()
    t.query(c, "bytesToWrite", "bytesAvailable")


@scenario("the slot of bytes_written writes the next piece: each is told", "tcp")
def tcp_next_piece_in_bytes_written_slot(t: Trace) -> None:
    c, peer = t.connected_pair()
    pieces = [b"22", b"333"]

    def slot(count: int) -> None:
        if pieces:
            t.call(c, "write", pieces.pop(0))

    t.on(c, "bytesWritten", slot)
    t.call(c, "write", b"1")
    until_count(t, "client", "bytes_written", 3)
    t.peer("recv", data=t.recv_all(peer, want=6))


@scenario("the slot of bytes_written disconnects", "tcp")
def tcp_disconnect_in_bytes_written_slot(t: Trace) -> None:
    c, peer = t.connected_pair()
    t.on(c, "bytesWritten", lambda count: t.call(c, "disconnectFromHost"))
    t.call(c, "write", b"that is all")
    t.until(lambda: t.seen("client", "disconnected"))
    t.peer("recv", data=t.recv_all(peer))


# ---- waits -------------------------------------------------------------------------------------


@scenario("connect_to_host to a peer that does not answer returns at once; the wait runs out", "tcp")
def tcp_connect_and_wait_run_out(t: Trace) -> None:
    port = hanging_port(t)
    c = t.tcp()
    began = time.monotonic()
    t.call(c, "connectToHost", LOOPBACK, port)
    t.note("connect_to_host returned", at_once=time.monotonic() - began < 0.5)
    t.query(c, "state")
    t.call(c, "waitForConnected", 100)
    t.status(c)
    t.spin()


@scenario("after wait_for_connected ran out, a good connection with the same socket", "tcp")
def tcp_connect_again_after_time_out(t: Trace) -> None:
    hanging = hanging_port(t)
    _, port = t.raw_listener()
    c = t.tcp()
    t.call(c, "connectToHost", LOOPBACK, hanging)
    t.call(c, "waitForConnected", 100)
    t.query(c, "state", "error")
    t.call(c, "connectToHost", LOOPBACK, port)
    t.call(c, "waitForConnected", 1000)
    t.query(c, "state", "error", "errorString")


@scenario("wait_for_ready_read: data comes, one ready_read in the wait and none later", "tcp")
def tcp_wait_for_ready_read_data(t: Trace) -> None:
    c, peer = t.connected_pair()
    peer.sendall(b"data")
    t.call(c, "waitForReadyRead", 1000)
    t.query(c, "bytesAvailable", "error")
    t.spin(60)
    t.note("ready_read was told", times=t.count("client", "ready_read"))
    t.call(c, "readAll")


@scenario("wait_for_ready_read runs out; the connection goes on", "tcp")
def tcp_wait_for_ready_read_runs_out(t: Trace) -> None:
    c, peer = t.connected_pair()
    t.call(c, "waitForReadyRead", 60)
    t.query(c, "state", "error", "errorString", "isOpen")
    peer.sendall(b"later")
    t.call(c, "waitForReadyRead", 1000)
    t.call(c, "readAll")
    t.query(c, "error")


@scenario("wait_for_ready_read with unread bytes and nothing new", "tcp")
def tcp_wait_for_ready_read_with_unread_bytes(t: Trace) -> None:
    c, peer = t.connected_pair()
    peer.sendall(b"unread")
    until_available(t, c, 6)
    t.call(c, "waitForReadyRead", 60)
    t.query(c, "bytesAvailable", "error", "state")


@scenario("wait_for_ready_read, the peer closes", "tcp")
def tcp_wait_for_ready_read_peer_closes(t: Trace) -> None:
    c, peer = t.connected_pair()
    peer.close()
    t.call(c, "waitForReadyRead", 1000)
    t.query(c, "state", "error")
    t.call(c, "waitForReadyRead", 100)
    t.query(c, "error")


@scenario("wait_for_ready_read, the peer sends and closes", "tcp")
def tcp_wait_for_ready_read_last_words(t: Trace) -> None:
    c, peer = t.connected_pair()
    peer.sendall(b"last words")
    peer.close()
    time.sleep(0.02)
    t.call(c, "waitForReadyRead", 1000)
    t.query(c, "state", "bytesAvailable")
    t.call(c, "readAll")
    t.call(c, "waitForReadyRead", 1000)
    t.query(c, "state", "error")


@scenario("wait_for_ready_read after disconnect_from_host", "tcp")
def tcp_wait_for_ready_read_unconnected(t: Trace) -> None:
    c, _ = t.connected_pair()
    t.call(c, "disconnectFromHost")
    t.call(c, "waitForReadyRead", 200)
    t.call(c, "waitForBytesWritten", 200)
    t.call(c, "waitForConnected", 200)
    t.query(c, "state", "error")


@scenario("wait_for_ready_read writes what is queued while it waits", "tcp")
def tcp_wait_for_ready_read_writes(t: Trace) -> None:
    c, peer = t.connected_pair()
    t.call(c, "write", b"question")
    t.call(c, "waitForReadyRead", 60)
    t.query(c, "bytesToWrite", "error")
    t.peer("recv", data=t.recv_all(peer, want=8))
    peer.sendall(b"answer")
    t.call(c, "waitForReadyRead", 1000)
    t.call(c, "readAll")


@scenario("wait_for_disconnected after disconnect_from_host with bytes queued, and without", "tcp")
def tcp_wait_for_disconnected_after_ours(t: Trace) -> None:
    c, peer = t.connected_pair()
    t.call(c, "write", b"bye")
    t.call(c, "disconnectFromHost")
    t.query(c, "state")
    t.call(c, "waitForDisconnected", 1000)
    t.query(c, "state", "error")
    t.peer("recv", data=t.recv_all(peer))
    t.call(c, "waitForDisconnected", 100)
    t.query(c, "error")


@scenario("wait_for_disconnected while connecting, disconnect_from_host called before", "tcp")
def tcp_wait_for_disconnected_in_connecting(t: Trace) -> None:
    listener, port = t.raw_listener()
    c = t.tcp()
    t.call(c, "connectToHost", LOOPBACK, port)
    t.call(c, "write", b"Hello, world!")
    t.call(c, "disconnectFromHost")
    t.query(c, "state")
    t.call(c, "waitForDisconnected", 1000)
    t.query(c, "state", "error")
    t.peer("recv", data=t.recv_all(t.accept(listener)))


@scenario("wait_for_disconnected while looking up, disconnect_from_host called before", "tcp")
def tcp_wait_for_disconnected_in_lookup(t: Trace) -> None:
    _, port = t.raw_listener()
    c = t.tcp()
    t.call(c, "connectToHost", "v4.test", port)
    t.call(c, "disconnectFromHost")
    t.query(c, "state")
    t.call(c, "waitForDisconnected", 2000)
    t.query(c, "state", "error")


@scenario("wait_for_bytes_written while connecting, bytes queued", "tcp")
def tcp_wait_for_bytes_written_in_connecting(t: Trace) -> None:
    listener, port = t.raw_listener()
    c = t.tcp()
    t.call(c, "connectToHost", LOOPBACK, port)
    t.call(c, "write", b"early")
    t.call(c, "waitForBytesWritten", 1000)
    t.query(c, "state", "error", "bytesToWrite")
    t.peer("recv", data=t.recv_all(t.accept(listener), want=5))


@scenario("every wait without a limit", "tcp")
def tcp_waits_without_limit(t: Trace) -> None:
    listener, port = t.raw_listener()
    c = t.tcp()
    t.call(c, "connectToHost", LOOPBACK, port)
    t.call(c, "waitForConnected", -1)
    peer = t.accept(listener)
    peer.sendall(b"data")
    t.call(c, "waitForReadyRead", -1)
    t.call(c, "write", b"more")
    t.call(c, "waitForBytesWritten", -1)
    peer.close()
    t.call(c, "waitForDisconnected", -1)
    t.query(c, "state", "error", "bytesAvailable")


@scenario("waits of no length on an idle connection", "tcp")
def tcp_waits_of_no_length(t: Trace) -> None:
    c, _ = t.connected_pair()
    t.call(c, "waitForConnected", 0)
    t.call(c, "waitForReadyRead", 0)
    t.query(c, "error")
    t.call(c, "waitForBytesWritten", 0)
    t.call(c, "waitForDisconnected", 0)
    t.query(c, "state", "error")


@scenario("a wait for connection of no length, then abort, ten times", "tcp")
def tcp_wait_of_no_length_ten_rounds(t: Trace) -> None:
    _, port = t.raw_listener()
    t.active = False
    right = True
    unconnected = 0
    for _ in range(10):
        c = QTcpSocket()
        t.keep.append(c)
        c.connectToHost(LOOPBACK, port)
        connected = c.waitForConnected(0)
        right &= c.localAddress() == (LOOPBACK if connected else QHostAddress())
        c.abort()
        unconnected += c.state() == QAbstractSocket.SocketState.UnconnectedState
    t.active = True
    t.note("ten rounds", addresses_right=right, ended_unconnected=unconnected)


# ---- descriptors and bind ----------------------------------------------------------------------


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


# ---- servers -----------------------------------------------------------------------------------


class Overridden(QTcpServer):
    """Makes its own sockets, and keeps them or lets them wait like any other."""

    trace: Any = None
    adds = False

    def incomingConnection(self, handle: int) -> None:
        t = self.trace
        t.add(k="call", obj="server", fn="incoming_connection", args=["FD" if handle >= 0 else handle])
        sock = t.watch(QTcpSocket(self), "mine")
        t.call(sock, "setSocketDescriptor", handle, show=["FD"])
        if self.adds:
            self.addPendingConnection(sock)


def overridden(t: Trace, adds: bool) -> Any:
    server = t.watch(Overridden(), "server")
    server.trace = t
    server.adds = adds
    t.call(server, "listen", LOOPBACK, 0)
    t.port(server.serverPort(), "SERVER")
    return server


@scenario("a good listen after a failed one: the old error stays", "server")
def server_error_outlives_a_good_listen(t: Trace) -> None:
    _, used = t.raw_listener(symbol="USED")
    s = t.watch(QTcpServer(), "server")
    t.call(s, "listen", LOOPBACK, used)
    t.query(s, "isListening", "serverError")
    t.call(s, "listen", LOOPBACK, 0)
    t.query(s, "isListening", "serverError")
    t.call(s, "close")
    t.query(s, "isListening", "serverError", "serverPort")


@scenario("close on a fresh server, then listen; close twice, then listen", "server")
def server_close_then_listen(t: Trace) -> None:
    s = t.watch(QTcpServer(), "server")
    t.call(s, "close")
    for _ in range(2):
        t.call(s, "listen", LOOPBACK, 0)
        t.port(s.serverPort(), "SERVER")
        t.query(s, "isListening", "serverAddress", "serverError")
        raw_client(t, s)
        t.until(lambda: s.hasPendingConnections())
        t.call(s, "close")
        t.call(s, "close")
        describe(t, s)


@scenario("max_pending_connections gives back what was set, the extremes too", "server")
def server_pending_limit_values(t: Trace) -> None:
    s = t.watch(QTcpServer(), "server")
    for count in (0, -(2**31), 2**31 - 1, 1):
        t.call(s, "setMaxPendingConnections", count)
        t.query(s, "maxPendingConnections")


@scenario("four clients at once: all accepted in one turn, in order", "server")
def server_accept_four_at_once(t: Trace) -> None:
    s = listening(t)
    for number in range(1, 5):
        raw_client(t, s, f"CLIENT_{number}")
    until_count(t, "server", "new_connection", 4)
    t.spin()
    for number in range(1, 5):
        a = take(t, s, f"accepted_{number}")
        t.query(a, "state", "peerPort")
    t.query(s, "hasPendingConnections")


@scenario("a dual-stack server: how an IPv4 and an IPv6 client look", "server")
def server_dual_stack_clients(t: Trace) -> None:
    s = listening(t, address=ANY)
    for name, host in (("by_ipv4", "127.0.0.1"), ("by_ipv6", "::1")):
        raw_client(t, s, host=host)
        t.until(lambda: s.hasPendingConnections())
        a = take(t, s, name)
        t.query(a, "peerAddress", "localAddress", "peerName")
        t.note("protocol", peer=a.peerAddress().protocol(), local=a.localAddress().protocol())


@scenario("bytes both ways between an accepted socket and a raw client", "server")
def server_bytes_both_ways(t: Trace) -> None:
    s = listening(t)
    r = raw_client(t, s)
    t.until(lambda: s.hasPendingConnections())
    a = take(t, s, "accepted")
    r.sendall(b"to the server")
    until_available(t, a, 13)
    t.call(a, "readAll")
    t.call(a, "write", b"to the client")
    t.peer("recv", data=t.recv_all(r, want=13))
    t.call(a, "disconnectFromHost")
    t.peer("recv", data=t.recv_all(r))
    t.query(s, "isListening")


@scenario("wait_for_new_connection accepts all that wait, the signals inside it", "server")
def server_wait_accepts_all(t: Trace) -> None:
    s = listening(t)
    for number in range(1, 4):
        raw_client(t, s, f"CLIENT_{number}")
    t.call(s, "waitForNewConnection", 1000)
    t.query(s, "hasPendingConnections")
    for number in range(1, 4):
        take(t, s, f"accepted_{number}")
    take(t, s, "none")


@scenario("wait_for_new_connection accepts up to the limit", "server")
def server_wait_accepts_to_the_limit(t: Trace) -> None:
    s = listening(t)
    t.call(s, "setMaxPendingConnections", 2)
    for number in range(1, 4):
        raw_client(t, s, f"CLIENT_{number}")
    t.call(s, "waitForNewConnection", 1000)
    for number in range(1, 3):
        take(t, s, f"accepted_{number}")
    take(t, s, "too_early")
    t.call(s, "waitForNewConnection", 1000)
    take(t, s, "accepted_3")


@scenario("incoming_connection overridden, the socket kept and not added", "server")
def server_override_keeps(t: Trace) -> None:
    s = overridden(t, adds=False)
    r = raw_client(t, s)
    t.until(lambda: t.seen("server", "new_connection"))
    t.spin()
    t.query(s, "hasPendingConnections")
    take(t, s, "none")
    r.sendall(b"hello")
    t.until(lambda: t.seen("mine", "ready_read"))


@scenario("incoming_connection overridden, the socket added", "server")
def server_override_adds(t: Trace) -> None:
    s = overridden(t, adds=True)
    r = raw_client(t, s)
    t.until(lambda: s.hasPendingConnections())
    t.spin()
    r.sendall(b"hello")
    t.until(lambda: t.seen("mine", "ready_read"))
    t.note("the one that waited", name=t.name(s.nextPendingConnection()))
    t.query(s, "hasPendingConnections")


@scenario("the loop runs inside the new_connection slot while another client comes", "server")
def server_loop_in_new_connection_slot(t: Trace) -> None:
    s = listening(t)
    first = [True]

    def slot() -> None:
        if first:
            first.clear()
            raw_client(t, s, "CLIENT_2")
            t.spin(60)
            t.note("the slot goes on")

    t.on(s, "newConnection", slot)
    raw_client(t, s, "CLIENT_1")
    until_count(t, "server", "new_connection", 2)
    t.spin()
    for number in (1, 2):
        a = take(t, s, f"accepted_{number}")
        t.query(a, "peerPort")


@scenario("one request, one answer, and the server disconnects: all of it in slots", "server")
def server_answers_and_disconnects(t: Trace) -> None:
    s = listening(t)

    def answer(a: Any) -> None:
        if t.call(a, "canReadLine"):
            t.call(a, "readLine")
            t.call(a, "write", b"answer\n")
            t.call(a, "disconnectFromHost")

    def slot() -> None:
        a = take(t, s, "accepted")
        t.on(a, "readyRead", lambda: answer(a))

    t.on(s, "newConnection", slot)
    r = raw_client(t, s)
    r.sendall(b"ques")
    t.until(lambda: t.seen("accepted", "ready_read"))
    r.sendall(b"tion\n")
    t.peer("recv", data=t.recv_all(r))
    t.query(s, "isListening", "hasPendingConnections")


@scenario("bytes that came before new_connection: ready_read comes after its slot", "server")
def server_bytes_before_new_connection(t: Trace) -> None:
    s = listening(t)

    def slot() -> None:
        a = take(t, s, "accepted")
        t.query(a, "bytesAvailable")
        t.on(a, "readyRead", lambda: t.call(a, "readAll"))

    t.on(s, "newConnection", slot)
    r = raw_client(t, s)
    r.sendall(b"early")
    time.sleep(0.02)
    t.until(lambda: t.seen("accepted", "ready_read"))
    t.spin()


@scenario("a client connects and closes, five times: one new_connection each", "server")
def server_five_short_clients(t: Trace) -> None:
    s = listening(t)
    for number in range(1, 6):
        raw_client(t, s).close()
        until_count(t, "server", "new_connection", number)
        t.spin(20)
        a = take(t, s, f"accepted_{number}")
        t.query(a, "state")
    t.query(s, "hasPendingConnections", "serverError")


@scenario("peek in the ready_read slot of an accepted socket sees all there is", "server")
def server_peek_in_ready_read_slot(t: Trace) -> None:
    s = listening(t)
    r = raw_client(t, s)
    t.until(lambda: s.hasPendingConnections())
    a = take(t, s, "accepted")
    t.on(a, "readyRead", lambda: t.call(a, "peek", 100))
    r.sendall(b"abc")
    until_available(t, a, 3)
    r.sendall(b"def")
    until_available(t, a, 6)
    t.call(a, "readAll")


@scenario("the limit is lowered below what waits already", "server")
def server_limit_below_what_waits(t: Trace) -> None:
    s = listening(t)
    for number in range(1, 4):
        raw_client(t, s, f"CLIENT_{number}")
    until_count(t, "server", "new_connection", 3)
    t.call(s, "setMaxPendingConnections", 1)
    t.query(s, "hasPendingConnections", "maxPendingConnections")
    raw_client(t, s, "CLIENT_4")
    t.spin(60)
    for number in range(1, 4):
        take(t, s, f"accepted_{number}")
    take(t, s, "too_early")
    t.spin(60)
    take(t, s, "accepted_4")


@scenario("pause twice and resume once; resume when not paused", "server")
def server_pause_twice(t: Trace) -> None:
    s = listening(t)
    t.call(s, "resumeAccepting")
    t.call(s, "pauseAccepting")
    t.call(s, "pauseAccepting")
    raw_client(t, s)
    t.spin(60)
    t.query(s, "hasPendingConnections")
    t.call(s, "resumeAccepting")
    t.spin(60)
    t.query(s, "hasPendingConnections")


@scenario("pause in the new_connection slot: those that wait at that moment", "server")
def server_pause_in_slot(t: Trace) -> None:
    s = listening(t)
    t.on(s, "newConnection", lambda: t.call(s, "pauseAccepting"))
    for number in range(1, 4):
        raw_client(t, s, f"CLIENT_{number}")
    t.spin(100)
    t.query(s, "hasPendingConnections")
    t.note("told", times=t.count("server", "new_connection"))


@scenario("paused, closed and listening again: does it accept?", "server")
def server_paused_then_listening_anew(t: Trace) -> None:
    s = listening(t)
    t.call(s, "pauseAccepting")
    t.call(s, "close")
    t.call(s, "listen", LOOPBACK, 0)
    t.port(s.serverPort(), "AGAIN")
    raw_client(t, s)
    t.spin(100)
    t.query(s, "hasPendingConnections")


@scenario("an accepted socket is aborted: what the client sees; the server goes on", "server")
def server_abort_accepted(t: Trace) -> None:
    s = listening(t)
    r = raw_client(t, s)
    t.until(lambda: s.hasPendingConnections())
    a = take(t, s, "accepted")
    t.call(a, "abort")
    t.query(a, "state", "peerAddress", "peerPort")
    t.peer("recv", data=t.recv_all(r))
    raw_client(t, s)
    t.until(lambda: s.hasPendingConnections())
    t.query(s, "isListening", "serverError")


@scenario("waits on an accepted socket", "server")
def server_waits_on_accepted(t: Trace) -> None:
    s = listening(t)
    r = raw_client(t, s)
    t.call(s, "waitForNewConnection", 1000)
    a = take(t, s, "accepted")
    r.sendall(b"question")
    t.call(a, "waitForReadyRead", 1000)
    t.call(a, "readAll")
    t.call(a, "write", b"answer")
    t.call(a, "waitForBytesWritten", 1000)
    t.peer("recv", data=t.recv_all(r, want=6))
    r.close()
    t.call(a, "waitForDisconnected", 1000)
    t.query(a, "state", "error")


@scenario("the server closes its accepted Qt client's connection: both ends' signals", "server")
def server_ends_qt_client(t: Trace) -> None:
    s = listening(t)
    c = t.tcp()
    t.call(c, "connectToHost", LOOPBACK, s.serverPort())
    t.until_state(c, "ConnectedState")
    t.until(lambda: s.hasPendingConnections())
    a = take(t, s, "accepted")
    t.call(a, "write", b"goodbye")
    t.call(a, "disconnectFromHost")
    t.until(lambda: t.seen("client", "disconnected"))
    t.spin()
    t.query(c, "state", "error", "bytesAvailable")
    t.call(c, "readAll")


@scenario("a Qt client is refused after the server closed", "server")
def server_refuses_after_close(t: Trace) -> None:
    s = listening(t)
    port = s.serverPort()
    t.call(s, "close")
    c = t.tcp()
    t.call(c, "connectToHost", LOOPBACK, port)
    t.until(lambda: t.seen("client", "error_occurred"))
    t.query(c, "state", "error")


@scenario("a socket that was taken ends by itself: the server still listens, nothing pends", "server")
def server_client_leaves(t: Trace) -> None:
    s = listening(t)
    r = raw_client(t, s)
    t.until(lambda: s.hasPendingConnections())
    a = take(t, s, "accepted")
    r.sendall(b"bye")
    r.close()
    t.until(lambda: t.seen("accepted", "disconnected"))
    t.query(a, "state", "error", "bytesAvailable")
    t.call(a, "readAll")
    describe(t, s)


@scenario("an adopted listening socket accepts; close ends it and not what was taken", "server")
def server_adopts_and_closes(t: Trace) -> None:
    listener, _ = t.raw_listener()
    s = t.watch(QTcpServer(), "server")
    copy = os.dup(listener.fileno())
    t.call(s, "setSocketDescriptor", copy, show=["LISTENING_FD"])
    t.query(s, "isListening", "serverAddress", "serverPort")
    raw_client(t, s)
    t.until(lambda: s.hasPendingConnections())
    a = take(t, s, "accepted")
    t.query(a, "state")
    t.call(s, "close")
    t.query(s, "isListening", "socketDescriptor")
    t.query(a, "state")
