"""Reading: pieces, lines, the limit of the buffer, and the loop inside slots."""

from PySide6.QtNetwork import QHostAddress

from tests.conformance.scenarios.beginnings import until_available
from tests.conformance.trace import Trace, scenario

LOOPBACK = QHostAddress("127.0.0.1")


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


@scenario("set_read_buffer_size to 0 while a limited buffer is full", "tcp")
def tcp_limit_lifted_when_full(t: Trace) -> None:
    c, peer = t.connected_pair(setReadBufferSize=3)
    peer.sendall(b"0123456789")
    until_available(t, c, 3)
    t.spin()
    t.query(c, "bytesAvailable")
    t.call(c, "setReadBufferSize", 0)
    t.spin()
    t.query(c, "bytesAvailable", "readBufferSize")
    t.call(c, "read", 3)
    t.spin()
    t.query(c, "bytesAvailable")
    t.call(c, "readAll")
    t.call(c, "readAll")


@scenario("a limit of four and lines of five: what can be read, and after the limit is raised", "tcp")
def tcp_limit_shorter_than_a_line(t: Trace) -> None:
    c, peer = t.connected_pair(setReadBufferSize=4)
    peer.sendall(b"abcd\nef\n")
    until_available(t, c, 4)
    t.query(c, "canReadLine")
    t.call(c, "readLine")
    until_available(t, c, 4)
    t.query(c, "canReadLine")
    t.call(c, "readLine")
    t.call(c, "readLine")
