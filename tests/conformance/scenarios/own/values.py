"""What a socket says and does before it is used, and what its getters say in each state."""

from PySide6.QtNetwork import QHostAddress

from tests.conformance.scenarios.beginnings import listening, take, until_available, until_count
from tests.conformance.trace import Trace, scenario

LOOPBACK = QHostAddress("127.0.0.1")


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
