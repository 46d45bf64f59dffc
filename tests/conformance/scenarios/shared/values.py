"""What the getters say in each state; labels, and what a look-up says."""

from typing import Any

from PySide6.QtNetwork import QAbstractSocket, QHostAddress, QHostInfo

from tests.conformance.trace import Trace, scenario

LH = QHostAddress("127.0.0.1")


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
