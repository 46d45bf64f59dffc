"""Writing: what is queued, when it is sent, and what is told of it."""

from functools import partial

from PySide6.QtCore import QIODeviceBase
from PySide6.QtNetwork import QHostAddress

from tests.conformance.trace import Trace, scenario

OpenMode = QIODeviceBase.OpenModeFlag
LH = QHostAddress("127.0.0.1")


@scenario("write before connected is queued and sent on connect", "tcp")
def tcp_write_before_connected(t: Trace) -> None:
    lst, p = t.raw_listener()
    c = t.tcp()
    t.call(c, "connectToHost", LH, p)
    t.call(c, "write", b"early")
    t.query(c, "state", "bytesToWrite")
    t.until(lambda: t.seen("client", "bytes_written"))
    t.query(c, "bytesToWrite")
    t.peer("recv", data=t.recv_all(t.accept(lst), want=5))


@scenario("flush with queued data while still connecting", "tcp")
def tcp_flush_while_connecting(t: Trace) -> None:
    _, p = t.raw_listener()
    c = t.tcp()
    t.call(c, "connectToHost", LH, p)
    t.call(c, "flush")
    t.query(c, "state")
    t.call(c, "write", b"early")
    t.call(c, "flush")
    t.status(c)
    t.spin(60)
    t.query(c, "state")


@scenario("flush with queued data during host lookup", "tcp")
def tcp_flush_while_lookup(t: Trace) -> None:
    _, p = t.raw_listener()
    c = t.tcp()
    t.call(c, "connectToHost", "slow.test", p)
    t.call(c, "write", b"early")
    t.call(c, "flush")
    t.query(c, "state", "error", "bytesToWrite")
    t.until(lambda: t.seen("client", "bytes_written"))
    t.query(c, "state")


@scenario("write during host lookup is queued", "tcp")
def tcp_write_during_lookup(t: Trace) -> None:
    lst, p = t.raw_listener()
    c = t.tcp()
    t.call(c, "connectToHost", "slow.test", p)
    t.call(c, "write", b"early")
    t.query(c, "state", "bytesToWrite")
    t.until(lambda: t.seen("client", "bytes_written"))
    t.peer("recv", data=t.recv_all(t.accept(lst), want=5))


@scenario("queued write and then the connection is refused: is the buffer kept?", "tcp")
def tcp_write_then_refused(t: Trace) -> None:
    closed = t.closed_port()
    lst, p = t.raw_listener()
    c = t.tcp()
    t.call(c, "connectToHost", LH, closed)
    t.call(c, "write", b"lost?")
    t.until(lambda: t.seen("client", "error_occurred"))
    t.query(c, "state", "bytesToWrite", "isOpen")
    t.call(c, "write", b"more")
    t.query(c, "error", "errorString")
    t.note("reconnect to a listening port")
    t.call(c, "connectToHost", LH, p)
    t.query(c, "bytesToWrite")
    t.until_state(c, "ConnectedState")
    t.spin()
    t.peer("recv", data=t.recv_all(t.accept(lst), ms=150, want=5))


@scenario("write of nothing on a connected socket", "tcp")
def tcp_write_empty(t: Trace) -> None:
    c, _ = t.connected_pair()
    t.call(c, "write", b"")
    t.query(c, "bytesToWrite")
    t.spin()


@scenario("write returns at once, data leaves in the loop; bytes_written", "tcp")
def tcp_write_small(t: Trace) -> None:
    c, peer = t.connected_pair()
    t.call(c, "write", b"12345")
    t.call(c, "write", b"678")
    t.query(c, "bytesToWrite")
    t.until(lambda: c.bytesToWrite() == 0)
    t.query(c, "bytesToWrite")
    t.spin()
    t.peer("recv", data=t.recv_all(peer, want=8))


@scenario("flush sends synchronously and emits bytes_written inside the call", "tcp")
def tcp_flush(t: Trace) -> None:
    c, peer = t.connected_pair()
    t.call(c, "flush")
    t.call(c, "write", b"hello")
    t.call(c, "flush")
    t.query(c, "bytesToWrite")
    t.call(c, "flush")
    t.peer("recv", data=t.recv_all(peer, want=5))


@scenario("sum of bytes_written for a large write equals the size; chunk pattern", "tcp")
def tcp_bytes_written_accounting(t: Trace) -> None:
    c, peer = t.connected_pair()
    n = 3_000_000
    chunks = []
    t.active = False
    c.bytesWritten.connect(lambda k: chunks.append((k, c.bytesToWrite())))
    r = c.write(b"x" * n)
    before = c.bytesToWrite()
    data, _how = t.recv_all(peer, ms=5000, want=n)
    t.until(lambda: c.bytesToWrite() == 0)
    t.active = True
    done = 0
    ok = True
    for k, left in chunks:
        done += k
        ok &= left == n - done
    t.note(
        "write",
        ret=r == n,
        bytes_to_write_after_call=before == n,
        peer_got=len(data) == n,
        sum_of_bytes_written=done == n,
        bytes_to_write_already_reduced_in_slot=ok,
        several_signals=len(chunks) > 1,
    )


@scenario("write inside the bytes_written slot: no recursive signal", "tcp")
def tcp_write_in_bytes_written_slot(t: Trace) -> None:
    c, peer = t.connected_pair()
    left = [3]

    def more(n: int) -> None:
        if left[0]:
            left[0] -= 1
            t.call(c, "write", b"ab")
            t.call(c, "flush")

    t.on(c, "bytesWritten", more)
    t.call(c, "write", b"first")
    t.spin(100)
    t.query(c, "bytesToWrite")
    t.peer("recv", data=t.recv_all(peer, ms=100, want=11))


@scenario("wait_for_bytes_written: with data, with nothing, unconnected", "tcp")
def tcp_wait_for_bytes_written(t: Trace) -> None:
    c, _ = t.connected_pair()
    t.call(c, "waitForBytesWritten", 50)
    t.query(c, "error")
    t.call(c, "write", b"abc")
    t.call(c, "waitForBytesWritten", 500)
    t.query(c, "bytesToWrite", "error")


@scenario("wait_for_bytes_written runs out when the peer does not read", "tcp")
def tcp_wait_for_bytes_written_timeout(t: Trace) -> None:
    c, _ = t.connected_pair()
    t.active = False
    c.write(b"x" * 12_000_000)
    while c.waitForBytesWritten(80):
        pass
    t.active = True
    t.call(c, "waitForBytesWritten", 60)
    t.query(c, "state", "error", "errorString")
    t.note("left", some=c.bytesToWrite() > 0)


@scenario("write on an unconnected / never opened socket", "tcp")
def tcp_write_unconnected(t: Trace) -> None:
    c = t.tcp()
    t.call(c, "write", b"abc")
    t.query(c, "error", "errorString", "bytesToWrite")
    t.spin()


@scenario("socket opened ReadOnly / WriteOnly", "tcp")
def tcp_open_modes(t: Trace) -> None:
    lst, p = t.raw_listener()
    for name, mode in (("read_only", OpenMode.ReadOnly), ("write_only", OpenMode.WriteOnly)):
        c = t.tcp(name)
        t.call(c, "connectToHost", LH, p, mode)
        t.until_state(c, "ConnectedState")
        peer = t.accept(lst)
        t.query(c, "openMode", "isReadable", "isWritable")
        t.call(c, "write", b"w")
        peer.sendall(b"incoming")
        t.spin(60)
        t.query(c, "bytesAvailable")
        t.call(c, "readAll")
        peer.close()
        t.until(partial(t.seen, name, "disconnected"))


@scenario("Unbuffered open mode: write goes out at once, ready_read repeats only after reading", "tcp")
def tcp_unbuffered(t: Trace) -> None:
    lst, p = t.raw_listener()
    c = t.tcp()
    t.call(c, "connectToHost", LH, p, OpenMode.ReadWrite | OpenMode.Unbuffered)
    t.until_state(c, "ConnectedState")
    peer = t.accept(lst)
    t.query(c, "openMode")
    t.call(c, "write", b"now")
    t.query(c, "bytesToWrite")
    t.peer("recv", data=t.recv_all(peer, want=3, ms=200))
    peer.sendall(b"abc")
    t.spin(60)
    t.query(c, "bytesAvailable")
    peer.sendall(b"def")
    t.spin(60)
    t.query(c, "bytesAvailable")
    t.call(c, "read", 2)
    t.query(c, "bytesAvailable")
    t.call(c, "readAll")
    t.spin(30)
    peer.sendall(b"ghi")
    t.spin(60)
    t.call(c, "readAll")
    peer.close()
    t.spin(60)
    t.query(c, "state")
    t.call(c, "readAll")
    t.query(c, "state", "error")
