"""Servers: how many are accepted and when, overrides, pausing, and what becomes of accepted sockets."""

import os
import time
from typing import Any

from PySide6.QtNetwork import QHostAddress, QTcpServer, QTcpSocket

from tests.conformance.scenarios.beginnings import (
    describe,
    listening,
    new_server,
    raw_client,
    raw_clients,
    take,
    until_available,
    until_count,
)
from tests.conformance.trace import Trace, scenario

LOOPBACK = QHostAddress("127.0.0.1")
ANY = QHostAddress(QHostAddress.SpecialAddress.Any)


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


@scenario("three clients say who they are, and are answered in the other order", "server")
def server_three_clients_answered_backwards(t: Trace) -> None:
    s = listening(t)
    clients = raw_clients(t, s, 3)
    until_count(t, "server", "new_connection", 3)
    socks = [take(t, s, f"accepted_{number}") for number in range(3)]
    t.query(s, "hasPendingConnections")
    for number, client in enumerate(clients):
        client.sendall(b"I am %d" % number)
    for sock in socks:
        until_available(t, sock, 6)
    for number in (2, 1, 0):
        t.call(socks[number], "readAll")
        t.call(socks[number], "write", b"welcome")
        t.peer("recv", data=t.recv_all(clients[number], want=7))
    for sock in socks:
        t.call(sock, "disconnectFromHost")
    for client in clients:
        t.peer("recv", data=t.recv_all(client))


@scenario("the server closes; what was accepted goes on, to its own end", "server")
def server_closed_accepted_goes_on(t: Trace) -> None:
    s = listening(t)
    client = raw_client(t, s)
    until_count(t, "server", "new_connection", 1)
    sock = take(t, s, "accepted")
    t.call(s, "close")
    describe(t, s)
    client.sendall(b"still here?")
    until_available(t, sock, 11)
    t.call(sock, "readAll")
    t.call(sock, "write", b"yes")
    t.peer("recv", data=t.recv_all(client, want=3))
    client.close()
    t.until(lambda: t.seen("accepted", "disconnected"))
    t.query(sock, "state", "error")


@scenario("a client has sent and gone before the server looks at it", "server")
def server_client_sent_and_gone_before_taken(t: Trace) -> None:
    s = listening(t)
    client = raw_client(t, s)
    client.sendall(b"hit and run")
    client.close()
    until_count(t, "server", "new_connection", 1)
    t.spin()
    sock = take(t, s, "accepted")
    t.query(sock, "state")
    t.until(lambda: t.seen("accepted", "disconnected"))
    t.query(sock, "state", "error", "bytesAvailable")
    t.call(sock, "readAll")


@scenario("a limit of two pending, five clients, taken one by one", "server")
def server_limit_of_two_five_clients(t: Trace) -> None:
    s = new_server(t)
    t.call(s, "setMaxPendingConnections", 2)
    t.call(s, "listen", LOOPBACK, 0)
    t.port(s.serverPort(), "SERVER")
    raw_clients(t, s, 5)
    t.spin(60)
    taken = 0
    while s.hasPendingConnections():
        t.watch(s.nextPendingConnection(), f"accepted_{taken}")
        taken += 1
        t.spin(60)
    t.note("taken", count=taken)


@scenario("a server echoes, in the ready_read slots of what it accepts, to two clients of Qt's", "server")
def server_echoes_in_slots(t: Trace) -> None:
    s = listening(t)

    def greet() -> None:
        sock = s.nextPendingConnection()
        name = f"accepted_{sum(name.startswith('accepted') for name in t.names.values())}"
        t.watch(sock, name)
        t.on(sock, "readyRead", lambda: t.call(sock, "write", bytes(sock.readAll())))

    t.on(s, "newConnection", greet)
    for number in range(2):
        c = t.tcp(f"client_{number}")
        t.call(c, "connectToHost", LOOPBACK, s.serverPort())
        t.until_state(c, "ConnectedState")
        t.call(c, "write", b"hello %d" % number)
        until_available(t, c, 7)
        t.call(c, "readAll")
        t.call(c, "disconnectFromHost")
    t.until(lambda: t.seen("accepted_1", "disconnected"))


@scenario("the error of a server: an address of somebody else's, then its own", "server")
def server_foreign_address_then_own(t: Trace) -> None:
    s = new_server(t)
    t.call(s, "listen", QHostAddress("203.0.113.7"), 0)
    describe(t, s)
    t.call(s, "listen", LOOPBACK, 0)
    t.query(s, "isListening", "serverAddress")
    t.call(s, "pauseAccepting")
    t.call(s, "close")
    describe(t, s)
