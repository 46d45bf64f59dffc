"""Asking for a datagram once more than there are."""

from PySide6.QtNetwork import QHostAddress, QUdpSocket

from tests.conformance.trace import Trace, scenario

LOOPBACK = QHostAddress("127.0.0.1")


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
