"""Reading: what is told of bytes, the limit of the buffer, lines, single bytes and transactions."""

from PySide6.QtNetwork import QHostAddress

from tests.conformance.scenarios.beginnings import until_available
from tests.conformance.trace import Trace, scenario

LH = QHostAddress("127.0.0.1")


@scenario("reading with nothing buffered on a connected socket", "tcp")
def tcp_read_no_data(t: Trace) -> None:
    c, _ = t.connected_pair()
    t.query(c, "bytesAvailable", "canReadLine", "atEnd")
    t.call(c, "read", 10)
    t.call(c, "readAll")
    t.call(c, "readLine")
    t.call(c, "getChar")
    t.call(c, "peek", 3)
    t.call(c, "skip", 3)
    t.query(c, "error", "state")


@scenario("ready_read for each chunk even when nothing is read (buffered)", "tcp")
def tcp_ready_read_each_chunk(t: Trace) -> None:
    c, peer = t.connected_pair()
    for i in range(3):
        peer.sendall(b"abc")
        until_available(t, c, 3 * (i + 1))
    t.spin()
    t.query(c, "bytesAvailable")
    t.call(c, "readAll")


@scenario("wait_for_ready_read called while still connecting", "tcp")
def tcp_wait_for_ready_read_connecting(t: Trace) -> None:
    _, p = t.raw_listener()
    c = t.tcp()
    t.call(c, "connectToHost", LH, p)
    t.call(c, "waitForReadyRead", 100)
    t.query(c, "state", "error")


@scenario("wait_for_ready_read inside the ready_read slot", "tcp")
def tcp_wait_in_ready_read_slot(t: Trace) -> None:
    c, peer = t.connected_pair()
    first = [True]

    def slot() -> None:
        if first[0]:
            first[0] = False
            peer.sendall(b"two")
            t.call(c, "waitForReadyRead", 500)
            t.query(c, "bytesAvailable")

    t.on(c, "readyRead", slot)
    peer.sendall(b"one")
    t.until(lambda: c.bytesAvailable() == 6)
    t.spin()


@scenario("read buffer limit: fill, raise, lift", "tcp")
def tcp_read_buffer_limit(t: Trace) -> None:
    c, peer = t.connected_pair()
    t.call(c, "setReadBufferSize", 256)
    peer.sendall(b"a" * 512)
    t.spin(60)
    t.query(c, "bytesAvailable", "readBufferSize")
    t.call(c, "setReadBufferSize", 384)
    t.spin(60)
    t.query(c, "bytesAvailable")
    t.call(c, "setReadBufferSize", 1024)
    t.spin(60)
    t.query(c, "bytesAvailable")
    t.call(c, "setReadBufferSize", 0)
    t.call(c, "readAll")


@scenario("read buffer limit: reading makes room and pulls more in", "tcp")
def tcp_read_buffer_limit_read(t: Trace) -> None:
    c, peer = t.connected_pair(setReadBufferSize=4)
    peer.sendall(b"abcdefghij")
    t.spin(60)
    t.query(c, "bytesAvailable")
    t.call(c, "read", 1)
    t.query(c, "bytesAvailable")
    t.spin(60)
    t.query(c, "bytesAvailable")
    t.call(c, "readAll")
    t.query(c, "bytesAvailable")
    t.spin(60)
    t.query(c, "bytesAvailable")
    t.call(c, "readAll")
    t.spin(60)
    t.call(c, "readAll")


@scenario("read buffer limit and the peer closes with more in the kernel: when does the close show?", "tcp")
def tcp_read_buffer_limit_remote_close(t: Trace) -> None:
    c, peer = t.connected_pair(setReadBufferSize=4)
    peer.sendall(b"abcdefghij")
    peer.close()
    t.spin(120)
    t.query(c, "state", "error", "bytesAvailable")
    t.call(c, "read", 2)
    t.spin(60)
    t.query(c, "state", "bytesAvailable")
    t.call(c, "readAll")
    t.spin(60)
    t.query(c, "state", "bytesAvailable")
    t.call(c, "readAll")
    t.spin(60)
    t.query(c, "state", "bytesAvailable")
    t.call(c, "readAll")
    t.spin(60)
    t.query(c, "state", "error", "bytesAvailable")


@scenario("read buffer exactly full and the peer closes", "tcp")
def tcp_read_buffer_exact_remote_close(t: Trace) -> None:
    c, peer = t.connected_pair(setReadBufferSize=4)
    peer.sendall(b"abcd")
    peer.close()
    t.spin(120)
    t.query(c, "state", "error", "bytesAvailable")
    t.call(c, "readAll")
    t.spin(60)
    t.query(c, "state", "error", "bytesAvailable")


@scenario("can_read_line, read_line with and without a maximum", "tcp")
def tcp_read_line(t: Trace) -> None:
    c, peer = t.connected_pair()
    peer.sendall(b"one\r\ntwo\npart")
    t.until(lambda: c.bytesAvailable() == 13)
    t.query(c, "canReadLine")
    t.call(c, "readLine")
    t.call(c, "readLine", 2)
    t.query(c, "canReadLine")
    t.call(c, "readLine", 100)
    t.query(c, "canReadLine")
    t.call(c, "readLine")
    t.call(c, "readLine")
    peer.sendall(b"a\0b\n")
    t.until(lambda: c.bytesAvailable() == 4)
    t.call(c, "readLine")
    peer.sendall(b"\n\nx\n")
    t.until(lambda: c.bytesAvailable() == 4)
    t.call(c, "readLine")
    t.call(c, "readLine", 1)
    t.call(c, "readLine", 0)
    t.call(c, "readAll")


@scenario("peek, skip, unget_char, get_char, put_char", "tcp")
def tcp_char_ops(t: Trace) -> None:
    c, peer = t.connected_pair()
    peer.sendall(b"abcdefgh")
    t.until(lambda: c.bytesAvailable() == 8)
    t.call(c, "peek", 3)
    t.call(c, "peek", 100)
    t.query(c, "bytesAvailable")
    t.call(c, "getChar")
    t.call(c, "skip", 2)
    t.query(c, "bytesAvailable")
    t.call(c, "ungetChar", "Z")
    t.query(c, "bytesAvailable")
    t.call(c, "read", 2)
    t.call(c, "skip", 100)
    t.query(c, "bytesAvailable", "atEnd")
    t.call(c, "ungetChar", "Q")
    t.query(c, "bytesAvailable", "canReadLine")
    t.call(c, "readAll")
    t.call(c, "putChar", "p")
    t.query(c, "bytesToWrite")
    t.until(lambda: c.bytesToWrite() == 0)
    t.peer("recv", data=t.recv_all(peer, want=1))


@scenario("unget_char after the peer closed; unget on a closed device", "tcp")
def tcp_unget_after_close(t: Trace) -> None:
    c, peer = t.connected_pair()
    peer.sendall(b"ab")
    peer.close()
    t.until(lambda: t.seen("client", "disconnected"))
    t.call(c, "read", 1)
    t.call(c, "ungetChar", "a")
    t.query(c, "bytesAvailable")
    t.call(c, "readAll")
    t.call(c, "ungetChar", "z")
    t.query(c, "bytesAvailable")
    t.call(c, "close")
    t.call(c, "ungetChar", "y")
    t.query(c, "bytesAvailable")


@scenario("read transactions: start, rollback, commit, misuse", "tcp")
def tcp_transactions(t: Trace) -> None:
    c, peer = t.connected_pair()
    t.call(c, "commitTransaction")
    t.call(c, "rollbackTransaction")
    peer.sendall(b"0123456789")
    t.until(lambda: c.bytesAvailable() == 10)
    t.call(c, "startTransaction")
    t.query(c, "isTransactionStarted")
    t.call(c, "startTransaction")
    t.call(c, "read", 4)
    t.query(c, "bytesAvailable")
    t.call(c, "rollbackTransaction")
    t.query(c, "bytesAvailable", "isTransactionStarted")
    t.call(c, "startTransaction")
    t.call(c, "read", 4)
    t.call(c, "commitTransaction")
    t.query(c, "bytesAvailable")
    t.call(c, "readAll")


@scenario("read transactions: ungetChar and peek inside, data arriving inside", "tcp")
def tcp_transactions_arrival(t: Trace) -> None:
    c, peer = t.connected_pair()
    peer.sendall(b"abc")
    t.until(lambda: c.bytesAvailable() == 3)
    t.call(c, "startTransaction")
    t.call(c, "read", 10)
    t.query(c, "bytesAvailable", "atEnd")
    peer.sendall(b"def")
    t.until(lambda: t.count("client", "ready_read") == 2)
    t.query(c, "bytesAvailable")
    t.call(c, "peek", 2)
    t.call(c, "read", 1)
    t.call(c, "rollbackTransaction")
    t.query(c, "bytesAvailable")
    t.call(c, "readAll")


@scenario("read transaction open when the peer closes; then rollback", "tcp")
def tcp_transactions_remote_close(t: Trace) -> None:
    c, peer = t.connected_pair()
    peer.sendall(b"abc")
    t.until(lambda: c.bytesAvailable() == 3)
    t.call(c, "startTransaction")
    t.call(c, "read", 2)
    peer.close()
    t.until(lambda: t.seen("client", "disconnected"))
    t.query(c, "bytesAvailable", "isTransactionStarted")
    t.call(c, "rollbackTransaction")
    t.query(c, "bytesAvailable")
    t.call(c, "readAll")


@scenario("read transaction with a limited read buffer", "tcp")
def tcp_transactions_buffer_limit(t: Trace) -> None:
    c, peer = t.connected_pair(setReadBufferSize=4)
    peer.sendall(b"abcdefgh")
    t.spin(60)
    t.call(c, "startTransaction")
    t.call(c, "read", 4)
    t.query(c, "bytesAvailable")
    t.spin(60)
    t.query(c, "bytesAvailable")
    t.call(c, "rollbackTransaction")
    t.spin(60)
    t.query(c, "bytesAvailable")
    t.call(c, "startTransaction")
    t.call(c, "read", 4)
    t.call(c, "commitTransaction")
    t.spin(60)
    t.query(c, "bytesAvailable")
