"""Writing in slots and in turns of the loop: how often `bytes_written` is told."""

from PySide6.QtNetwork import QHostAddress

from tests.conformance.scenarios.beginnings import until_count
from tests.conformance.trace import Trace, scenario

LOOPBACK = QHostAddress("127.0.0.1")


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


@scenario("write and put_char after the peer has reset: refused", "tcp")
def tcp_write_after_a_reset(t: Trace) -> None:
    c, peer = t.connected_pair()
    t.rst(peer)
    t.until(lambda: t.seen("client", "disconnected"))
    t.query(c, "state", "error")
    t.call(c, "write", b"too late")
    t.query(c, "error", "bytesToWrite")
    t.call(c, "putChar", "x")
    t.query(c, "error", "bytesToWrite")
    t.spin()


@scenario("write after nobody was found: refused, and connecting again clears it", "tcp")
def tcp_write_after_a_refusal(t: Trace) -> None:
    listener, port = t.raw_listener()
    c = t.tcp()
    t.call(c, "connectToHost", LOOPBACK, t.closed_port())
    t.until(lambda: t.seen("client", "error_occurred"))
    t.call(c, "write", b"nobody is there")
    t.query(c, "state", "error")
    t.call(c, "connectToHost", LOOPBACK, port)
    t.until_state(c, "ConnectedState")
    t.call(c, "write", b"somebody is")
    t.query(c, "error")
    t.peer("recv", data=t.recv_all(t.accept(listener), want=11))


@scenario("close right after a small write: what the getters say", "tcp")
def tcp_getters_after_write_and_close(t: Trace) -> None:
    c, peer = t.connected_pair()
    t.call(c, "write", b"goodbye")
    t.call(c, "close")
    t.query(c, "state", "isValid", "socketDescriptor", "bytesToWrite", "error")
    t.until(lambda: t.seen("client", "disconnected"))
    t.peer("recv", data=t.recv_all(peer))
    t.query(c, "state", "isValid", "peerPort")


@scenario("the peer sends out of the blue while we write, and then finishes", "tcp")
def tcp_both_write_and_the_peer_ends(t: Trace) -> None:
    c, peer = t.connected_pair()
    t.call(c, "write", b"ours")
    peer.sendall(b"theirs")
    t.until(lambda: c.bytesAvailable() == 6 and t.seen("client", "bytes_written"))
    t.peer("recv", data=t.recv_all(peer, want=4))
    t.call(c, "read", 2)
    peer.sendall(b"more")
    peer.close()
    t.until(lambda: t.seen("client", "disconnected"))
    t.query(c, "bytesAvailable", "state")
    t.call(c, "readAll")
    t.call(c, "write", b"too late")
    t.query(c, "error", "bytesToWrite")
