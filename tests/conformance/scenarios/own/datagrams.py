"""Datagrams: asking once more than there are, waits, virtual connections, and slots that read them all."""

import socket
from typing import Any

from PySide6.QtNetwork import QAbstractSocket, QHostAddress, QUdpSocket

from tests.conformance.trace import Trace, scenario

LOOPBACK = QHostAddress("127.0.0.1")
Option = QAbstractSocket.SocketOption


def bound(t: Trace, name: str, address: QHostAddress = LOOPBACK) -> Any:
    sock = t.watch(QUdpSocket(), name)
    t.call(sock, "bind", address, 0)
    t.port(sock.localPort(), name.upper())
    return sock


@scenario("read_datagram and receive_datagram once more than there are datagrams", "udp")
def udp_one_more_than_there_are(t: Trace) -> None:
    sender, receiver = t.watch(QUdpSocket(), "sender"), t.watch(QUdpSocket(), "receiver")
    for sock, name in ((sender, "SENDER"), (receiver, "RECEIVER")):
        t.call(sock, "bind", LOOPBACK, 0)
        t.port(sock.localPort(), name)
    for data in (b"one", b"two"):
        t.call(sender, "writeDatagram", data, LOOPBACK, receiver.localPort())
        t.until(lambda: receiver.hasPendingDatagrams())
        t.call(receiver, "readDatagram", 10)
        t.call(receiver, "readDatagram", 10)
        t.query(receiver, "state", "error")
        t.call(receiver, "receiveDatagram")
        t.query(receiver, "error")
    t.call(receiver, "hasPendingDatagrams")
    t.call(receiver, "pendingDatagramSize")


@scenario("a virtual connection, what its getters say, and then another address", "udp")
def udp_connected_and_bound_anew(t: Trace) -> None:
    far, near = t.watch(QUdpSocket(), "far"), t.watch(QUdpSocket(), "near")
    for sock, name in ((far, "FAR"), (near, "NEAR")):
        t.call(sock, "bind", LOOPBACK, 0)
        t.port(sock.localPort(), name)
    t.call(near, "connectToHost", LOOPBACK, far.localPort())
    t.until_state(near, "ConnectedState")
    t.query(near, "peerPort", "state")
    t.call(near, "write", b"one")
    t.until(lambda: far.hasPendingDatagrams())
    t.call(far, "receiveDatagram")
    t.call(near, "disconnectFromHost")
    t.query(near, "state", "peerPort", "localPort")
    t.call(near, "bind", LOOPBACK, 0)
    t.query(near, "state")
    t.call(near, "close")
    t.query(near, "state")


@scenario("five datagrams in a row, read one by one, one ready_read for all", "udp")
def udp_five_in_a_row(t: Trace) -> None:
    alice, bob = bound(t, "alice"), bound(t, "bob")
    for number in range(5):
        t.call(alice, "writeDatagram", b"number %d" % number, LOOPBACK, bob.localPort())
    t.until(lambda: t.seen("bob", "ready_read"))
    t.spin()
    while bob.hasPendingDatagrams():
        t.query(bob, "pendingDatagramSize")
        t.call(bob, "receiveDatagram")
    t.query(bob, "state", "error")
    t.spin()


@scenario("wait_for_ready_read: one comes, none comes, closed", "udp")
def udp_three_waits(t: Trace) -> None:
    alice, bob = bound(t, "alice"), bound(t, "bob")
    t.call(alice, "writeDatagram", b"", LOOPBACK, bob.localPort())
    t.call(bob, "waitForReadyRead", 1000)
    t.query(bob, "hasPendingDatagrams", "pendingDatagramSize")
    t.call(bob, "receiveDatagram")
    t.call(bob, "waitForReadyRead", 30)
    t.query(bob, "error", "state")
    t.call(bob, "close")
    t.call(bob, "waitForReadyRead", 30)
    t.query(bob, "error", "state")


@scenario("a virtual connection by address, both ends, read_all and read", "udp")
def udp_connected_both_ways(t: Trace) -> None:
    alice, bob = bound(t, "alice"), bound(t, "bob")
    t.call(alice, "connectToHost", LOOPBACK, bob.localPort())
    t.call(bob, "connectToHost", LOOPBACK, alice.localPort())
    t.query(alice, "state", "peerPort", "localPort")
    t.call(alice, "write", b"to bob")
    t.until(lambda: bob.hasPendingDatagrams())
    t.call(bob, "readAll")
    t.call(bob, "write", b"to alice")
    t.until(lambda: alice.hasPendingDatagrams())
    t.call(alice, "read", 2)
    t.query(alice, "hasPendingDatagrams", "bytesAvailable")
    t.call(bob, "disconnectFromHost")
    t.query(bob, "state", "localPort", "peerPort")
    t.call(alice, "abort")
    t.query(alice, "state")


@scenario("a raw sender; a slot that reads all there is, twice", "udp")
def udp_slot_reads_all(t: Trace) -> None:
    bob = bound(t, "bob")
    raw = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    raw.bind(("127.0.0.1", 0))
    t.raw.append(raw)
    t.port(raw.getsockname()[1], "RAW")

    def slot() -> None:
        while bob.hasPendingDatagrams():
            t.call(bob, "receiveDatagram")

    t.on(bob, "readyRead", slot)
    for batch in (b"ab", b"c"):
        before = t.count("bob", "ready_read")
        for byte in batch:
            raw.sendto(bytes([byte]) * 4, ("127.0.0.1", bob.localPort()))
        t.until(lambda before=before: t.count("bob", "ready_read") > before)  # type: ignore[misc]
        t.spin()
    t.query(bob, "error", "state")


@scenario("datagrams to two sockets of one sender; one closes; the others go on", "udp")
def udp_one_of_two_closes(t: Trace) -> None:
    socks = {}
    for name in ("alice", "bob", "carol"):
        socks[name] = t.watch(QUdpSocket(), name)
        t.call(socks[name], "bind", LOOPBACK, 0)
        t.port(socks[name].localPort(), name.upper())
    alice, bob, carol = socks.values()
    to_bob, to_carol = bob.localPort(), carol.localPort()
    for port in (to_bob, to_carol):
        t.call(alice, "writeDatagram", b"first", LOOPBACK, port)
    for sock in (bob, carol):
        t.until(lambda sock=sock: sock.hasPendingDatagrams())  # type: ignore[misc]
        t.call(sock, "receiveDatagram")
    t.call(bob, "close")
    for port in (to_bob, to_carol):
        t.call(alice, "writeDatagram", b"second", LOOPBACK, port)
    t.until(lambda: carol.hasPendingDatagrams())
    t.call(carol, "readDatagram", 100)
    t.query(alice, "error", "state")


@scenario("a virtual connection by name, and to another after it", "udp")
def udp_connect_by_name_then_elsewhere(t: Trace) -> None:
    far = t.watch(QUdpSocket(), "far")
    t.call(far, "bind", LOOPBACK, 0)
    t.port(far.localPort(), "FAR")
    near = t.watch(QUdpSocket(), "near")
    t.call(near, "connectToHost", "v4.test", far.localPort())
    t.query(near, "state", "peerName")
    t.until_state(near, "ConnectedState")
    t.query(near, "peerAddress", "peerPort")
    t.call(near, "write", b"hello")
    t.until(lambda: far.hasPendingDatagrams())
    t.call(far, "readDatagram", 10)
    t.call(near, "disconnectFromHost")
    t.query(near, "state", "peerName", "error")


@scenario("bind to a port in use, then to any port; options before and after", "udp")
def udp_bind_again_after_a_failure(t: Trace) -> None:
    alice = bound(t, "alice")
    bob = t.watch(QUdpSocket(), "bob")
    t.call(bob, "bind", LOOPBACK, alice.localPort())
    t.query(bob, "state", "error", "isValid")
    t.call(bob, "bind", LOOPBACK, 0)
    t.query(bob, "state", "error", "isValid")
    t.call(bob, "setSocketOption", Option.MulticastTtlOption, 3)
    t.call(bob, "socketOption", Option.MulticastTtlOption)
    t.call(bob, "writeDatagram", b"hi", LOOPBACK, alice.localPort())
    t.until(lambda: alice.hasPendingDatagrams())
    t.call(alice, "readDatagram", 10)
