"""The calls that wait: what ends each, and what happens inside."""

import time

from PySide6.QtNetwork import QAbstractSocket, QHostAddress, QTcpSocket

from tests.conformance.scenarios.beginnings import full_listener, new_server, raw_client, until_available
from tests.conformance.trace import Trace, scenario

LOOPBACK = QHostAddress("127.0.0.1")


@scenario("connect_to_host to a peer that does not answer returns at once; the wait runs out", "tcp")
def tcp_connect_and_wait_run_out(t: Trace) -> None:
    port = full_listener(t)
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
    hanging = full_listener(t)
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


@scenario("three waits for bytes after one piece; reading, and a fourth and a fifth", "tcp")
def tcp_three_waits_after_one_piece(t: Trace) -> None:
    c, peer = t.connected_pair()
    peer.sendall(b"news")
    t.until(lambda: c.bytesAvailable() == 4)
    for _ in range(3):
        t.call(c, "waitForReadyRead", 40)
    t.query(c, "bytesAvailable", "state", "error")
    t.call(c, "readAll")
    t.call(c, "waitForReadyRead", 40)
    peer.sendall(b"more")
    t.call(c, "waitForReadyRead", 1000)
    t.call(c, "readAll")


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


@scenario("a server's waits, the connection taken between them", "server")
def server_waits_around_a_connection(t: Trace) -> None:
    server = new_server(t)
    t.call(server, "waitForNewConnection", 20)
    t.call(server, "listen", LOOPBACK, 0)
    t.port(server.serverPort(), "SERVER")
    t.call(server, "waitForNewConnection", 20)
    client = raw_client(t, server)
    t.call(server, "waitForNewConnection", 1000)
    accepted = t.watch(server.nextPendingConnection(), "accepted")
    client.sendall(b"abc")
    t.call(accepted, "waitForReadyRead", 1000)
    t.call(accepted, "readAll")
    t.call(server, "waitForNewConnection", 20)
    client.close()
    t.call(accepted, "waitForDisconnected", 1000)
    t.query(accepted, "state", "error")


@scenario("wait_for_disconnected with nobody ending runs out; then the peer ends", "tcp")
def tcp_wait_for_disconnected_runs_out(t: Trace) -> None:
    c, peer = t.connected_pair()
    t.call(c, "waitForDisconnected", 40)
    t.query(c, "state", "error")
    peer.sendall(b"bye")
    peer.close()
    t.call(c, "waitForDisconnected", 1000)
    t.query(c, "state", "error", "bytesAvailable")
    t.call(c, "readAll")
