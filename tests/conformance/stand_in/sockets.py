"""QTcpSocket, whose getters, verbs and waits are those of TcpSocket."""

from __future__ import annotations

import contextlib
import enum
import math
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

import trio
import trio.testing

import trioqt
from tests.conformance.stand_in.objects import Hook, QIODevice, Signal
from tests.conformance.stand_in.on_stage import REFUSED, broken, instead, or_else, refused, stage
from tests.conformance.stand_in.proxies import QAuthenticator, QNetworkProxy, proxy_of
from tests.conformance.stand_in.values import (
    ANY,
    DEFAULT,
    BindFlag,
    NetworkLayerProtocol,
    PauseMode,
    QByteArray,
    QHostAddress,
    SocketError,
    SocketOption,
    SocketState,
    SocketType,
    error_of,
    host_of,
)
from trioqt.core.events import Event

__all__ = ["QAbstractSocket", "QTcpSocket", "new_socket", "so_long"]

T = TypeVar("T")

NO_LIMIT = 1 << 62
"""Qt's write buffer has none."""


class QAbstractSocket(QIODevice):
    ABSENT = frozenset(
        [
            "isOpen",
            "openMode",
            "isReadable",
            "isWritable",
            "isTextModeEnabled",
            "setOpenMode",
            "pos",
            "size",
            "seek",
            "reset",
            "readChannelCount",
            "writeChannelCount",
            "currentReadChannel",
            "currentWriteChannel",
            "setCurrentReadChannel",
        ]
    )
    SocketState = SocketState
    SocketError = SocketError
    SocketOption = SocketOption
    NetworkLayerProtocol = NetworkLayerProtocol
    SocketType = SocketType
    BindFlag = BindFlag
    PauseMode = PauseMode

    def __init__(self, parent: object = None, sock: trioqt.TcpSocket | None = None) -> None:
        super().__init__(parent)
        self.stateChanged, self.errorOccurred = Signal(self), Signal(self)
        self.hostFound, self.connected, self.disconnected = Signal(self), Signal(self), Signal(self)
        self.proxyAuthenticationRequired = Signal(self)
        self._asked = QAuthenticator()
        self._proxy, self._tag = QNetworkProxy(), ""
        self.readyRead, self.bytesWritten, self.readChannelFinished = Signal(self), Signal(self), Signal(self)
        self._read_buffer_size = 0
        self._told: list[Event] = []
        self._ended: trio.Event | None = None  # of the connect_to_host that runs, or ran last
        self._attempt = trio.CancelScope()
        if sock is None:
            self._sock: trioqt.TcpSocket = stage().see(self._make)
        else:
            self._take(sock)

    def _make(self) -> trioqt.TcpSocket:
        self._take(new_socket(stage().nursery, self._read_buffer_size))
        return self._sock

    def _take(self, sock: trioqt.TcpSocket) -> None:
        self._sock = sock
        sock.set_proxy(self._proxy.proxy)
        sock.set_protocol_tag(self._tag)
        sock.set_proxy_authenticator(self._answer)
        sock._subscribe(Hook(sock, self._tell))

    def _tell(self, event: Event) -> None:
        self._told.append(event)
        match event:
            case trioqt.StateChanged(state):
                self.stateChanged.emit(SocketState(state.value))
            case trioqt.ErrorOccurred(kind, _):
                self.errorOccurred.emit(error_of(kind))
            case trioqt.ProxyAuthenticationRequired(proxy, realm):
                self._asked = QAuthenticator(realm)
                self.proxyAuthenticationRequired.emit(proxy_of(proxy), self._asked)
            case trioqt.BytesWritten(count):
                self.bytesWritten.emit(count)
            case _:
                name = type(event).__name__
                signal: Signal = getattr(self, name[0].lower() + name[1:])
                signal.emit()

    async def _answer(self, proxy: trioqt.NetworkProxy, realm: str) -> tuple[str, str] | None:
        """The event comes first, and its slot has filled this in."""
        return self._asked.answer()

    def view(self) -> dict[str, object]:
        """What the recorder writes beside a signal, at this moment."""
        sock = self._sock
        return {
            "state": SocketState(sock.state().value).name,
            "error": error_of(sock.error()).name,
            "avail": len(sock._read_buffer),
        }

    def _reopen(self) -> None:
        """Qt's object may be used again after close(); trioqt's is closed for good, so another takes its place."""
        if self._sock._closed:
            self._make()
            instead(self, "another socket")

    # -- what an awaited verb promises, whatever happens on the way

    def _came_to(self, state: trioqt.SocketState, since: int, what: str) -> None:
        """Law 2: what is awaited has happened when it returns."""
        if trioqt.StateChanged(state) not in self._told[since:]:
            broken(self, f"law 2: {what} returned, and {state.name} was not told")

    def _was_told(self, error: trioqt.SocketError, what: str) -> None:
        """Law 4: what is raised was told as an event."""
        if not any(isinstance(event, trioqt.ErrorOccurred) and event.kind is error.kind for event in self._told):
            broken(self, f"law 4: {what} raised {error.kind.name}, and no event told it")

    # -- getters

    def state(self) -> Any:
        return stage().see(lambda: SocketState(self._sock.state().value))

    def error(self) -> Any:
        return stage().see(lambda: error_of(self._sock.error()))

    def errorString(self) -> str:
        return stage().see(lambda: self._sock.error_string())

    def isValid(self) -> bool:
        return stage().see(lambda: self._sock.is_valid())

    def localAddress(self) -> QHostAddress:
        return QHostAddress(stage().see(lambda: self._sock.local_address()))

    def localPort(self) -> int:
        return stage().see(lambda: self._sock.local_port())

    def peerAddress(self) -> QHostAddress:
        return QHostAddress(stage().see(lambda: self._sock.peer_address()))

    def peerPort(self) -> int:
        return stage().see(lambda: self._sock.peer_port())

    def peerName(self) -> str:
        return stage().see(lambda: self._sock.peer_name())

    def socketDescriptor(self) -> int:
        return stage().see(lambda: self._sock.socket_descriptor())

    def socketType(self) -> Any:
        return stage().see(lambda: SocketType(self._sock.socket_type().value))

    def readBufferSize(self) -> int:
        return stage().see(lambda: self._sock.read_buffer_size())

    def bytesToWrite(self) -> int:
        return stage().see(lambda: self._sock.bytes_to_write())

    def isTransactionStarted(self) -> bool:
        return stage().see(lambda: self._sock.is_transaction_started())

    def proxy(self) -> QNetworkProxy:
        return stage().see(lambda: proxy_of(self._sock.proxy()))

    def protocolTag(self) -> str:
        return stage().see(lambda: self._sock.protocol_tag())

    # -- verbs that do not wait

    def setProxy(self, proxy: QNetworkProxy) -> None:
        self._proxy = proxy
        stage().do(lambda: self._sock.set_proxy(proxy.proxy))

    def pauseMode(self) -> Any:
        return stage().see(lambda: PauseMode(self._sock.pause_mode().value))

    def setPauseMode(self, mode: enum.Flag) -> None:
        stage().do(lambda: or_else(None, lambda: self._sock.set_pause_mode(trioqt.PauseMode(mode.value))))

    def resume(self) -> None:
        stage().do(lambda: or_else(None, lambda: self._sock.resume()))

    def setProtocolTag(self, tag: str) -> None:
        self._tag = tag
        stage().do(lambda: self._sock.set_protocol_tag(tag))

    def _ask(self, ask: Callable[[], T]) -> T:
        """What asks the system, which only a connection has something to ask of: else a slot may look at once."""
        connected = stage().see(lambda: self._sock.state() is trioqt.SocketState.CONNECTED)
        return stage().poll(ask) if connected else stage().see(ask)

    def bytesAvailable(self) -> int:
        return self._ask(lambda: self._sock.bytes_available())

    def canReadLine(self) -> bool:
        return self._ask(lambda: self._sock.can_read_line())

    def atEnd(self) -> bool:
        return self._ask(lambda: self._sock.at_end())

    def _read(self, failed: object, read: Callable[[], Any]) -> Any:
        result = stage().do(lambda: or_else(failed, read))
        return QByteArray(result) if isinstance(result, bytes) else result

    def read(self, size: int) -> bytes:
        return self._read(b"", lambda: self._sock.read(size))  # type: ignore[no-any-return]

    def readAll(self) -> bytes:
        return self._read(b"", lambda: self._sock.read_all())  # type: ignore[no-any-return]

    def readLine(self, size: int = 0) -> bytes:
        """readLine(n) gives n - 1, and 0 is no limit (row 20)."""
        limit = (size - 1,) if size else ()
        return self._read(b"", lambda: self._sock.read_line(*limit))  # type: ignore[no-any-return]

    def peek(self, size: int) -> bytes:
        return self._read(b"", lambda: self._sock.peek(size))  # type: ignore[no-any-return]

    def skip(self, size: int) -> int:
        return self._read(-1, lambda: self._sock.skip(size))  # type: ignore[no-any-return]

    def getChar(self) -> tuple[bool, str]:
        char = bytes(self._read(b"", lambda: self._sock.get_char()))
        return bool(char), (char or b"\0").decode("latin-1")

    def ungetChar(self, char: str) -> None:
        self._read(None, lambda: self._sock.unget_char(char.encode("latin-1")))

    def startTransaction(self) -> None:
        self._read(None, lambda: self._sock.start_transaction())

    def commitTransaction(self) -> None:
        self._read(None, lambda: self._sock.commit_transaction())

    def rollbackTransaction(self) -> None:
        self._read(None, lambda: self._sock.rollback_transaction())

    def write(self, data: bytes) -> int:
        return stage().do(lambda: or_else(-1, lambda: self._sock.write(bytes(data))))  # type: ignore[no-any-return]

    def putChar(self, char: str) -> bool:
        return bool(stage().do(lambda: or_else(False, lambda: self._put(char))))

    def _put(self, char: str) -> bool:
        self._sock.put_char(char.encode("latin-1"))
        return True

    def flush(self) -> bool:
        return bool(stage().do(lambda: or_else(False, lambda: self._sock.flush())))

    def setReadBufferSize(self, size: int) -> None:
        self._read_buffer_size = size
        stage().do(lambda: or_else(None, lambda: self._sock.set_read_buffer_size(size)))

    def setSocketOption(self, option: enum.Enum, value: Any) -> None:
        ours = trioqt.SocketOption(option.value)
        stage().do(lambda: or_else(None, lambda: self._sock.set_socket_option(ours, value)))

    def socketOption(self, option: enum.Enum) -> int | None:
        ours = trioqt.SocketOption(option.value)

        return stage().do(lambda: or_else(None, lambda: self._sock.socket_option(ours)))  # type: ignore[no-any-return]

    def setSocketDescriptor(
        self, descriptor: int, state: enum.Enum = SocketState.ConnectedState, mode: object = None
    ) -> bool:
        def adopt() -> bool:
            self._reopen()
            self._sock.set_socket_descriptor(descriptor, trioqt.SocketState(state.value))
            return True

        return bool(stage().do(lambda: or_else(False, adopt)))

    def abort(self) -> None:
        stage().do(lambda: self._sock.abort())

    # -- verbs that wait

    def connectToHost(self, host: object, port: int, mode: object = None, protocol: enum.Enum | None = None) -> None:
        """Starts connect_to_host in a task, and goes on when that waits (law 2)."""
        ours = trioqt.NetworkLayerProtocol.ANY_IP if protocol is None else trioqt.NetworkLayerProtocol(protocol.value)

        async def connect() -> None:
            self._reopen()
            before = self._attempt, self._ended
            self._attempt, self._ended = trio.CancelScope(), trio.Event()
            this, sock, since = self._ended, self._sock, len(self._told)
            try:
                with self._attempt:
                    await sock.connect_to_host(host_of(host), port, protocol=ours)
                    self._came_to(trioqt.SocketState.CONNECTED, since, "connect_to_host")
            except trioqt.SocketError as exc:
                self._was_told(exc, "connect_to_host")
                if exc.kind is trioqt.ErrorKind.OPERATION:
                    self._attempt, self._ended = before
                    refused(exc)
            except trio.ClosedResourceError:
                self._came_to(trioqt.SocketState.UNCONNECTED, since, "what ended connect_to_host")
            finally:
                this.set()

        stage().wait(lambda: stage().first_step(connect))

    def bind(self, address: object = ANY, port: int = 0, mode: enum.Flag = DEFAULT) -> bool:
        where = (QHostAddress(ANY), address) if isinstance(address, int) else (QHostAddress(address), port)

        async def bind() -> bool:
            self._reopen()
            try:
                await self._sock.bind(where[0].address, where[1], trioqt.BindMode(mode.value))
            except REFUSED as exc:
                refused(exc)
                return False
            return True

        return stage().wait(bind)

    def disconnectFromHost(self) -> None:
        self._end("disconnect_from_host", lambda: self._sock.disconnect_from_host())

    def close(self) -> None:
        self._end("aclose", lambda: self._sock.aclose())

    def _end(self, what: str, end: Callable[[], Any]) -> None:
        """Awaited (law 2); but while something is queued it goes on in a task, as Qt does."""
        over = trio.Event()

        async def run() -> None:
            since, connected = len(self._told), self._sock.state() is not trioqt.SocketState.UNCONNECTED
            try:
                await end()
            except trioqt.SocketError as exc:
                self._was_told(exc, what)
            except trio.ClosedResourceError:
                pass  # another call ended it, which is checked below
            finally:
                over.set()
            if connected:
                self._came_to(trioqt.SocketState.UNCONNECTED, since, what)

        async def start() -> None:
            stage().nursery.start_soon(run)
            if self._sock.bytes_to_write():
                await trio.testing.wait_all_tasks_blocked()
                if not over.is_set():
                    instead(self, "it goes on in a task")
            else:
                await over.wait()

        stage().wait(start)

    # -- waits (row 2: no time-outs, so ours are scopes)

    def _wait(self, milliseconds: int, wait: Callable[[], Any], *, drop_attempt: bool = False) -> bool:
        async def bounded() -> bool:
            with so_long(milliseconds):
                try:
                    return await wait() is not False
                except REFUSED as exc:
                    refused(exc)
                    return False
            if drop_attempt and self._ended is not None and not self._ended.is_set():
                self._attempt.cancel()
                await self._ended.wait()
                instead(self, "the attempt was cancelled")
            return False

        return stage().wait(bounded)

    def waitForConnected(self, milliseconds: int = 30000) -> bool:
        """Its time-out is that of a scope around connect_to_host, which it drops."""
        return self._wait(milliseconds, lambda: self._sock.wait_for_connected(), drop_attempt=True)

    def waitForReadyRead(self, milliseconds: int = 30000) -> bool:
        return self._wait(milliseconds, lambda: self._sock.wait_for_ready_read())

    def waitForBytesWritten(self, milliseconds: int = 30000) -> bool:
        return self._wait(milliseconds, lambda: self._sock.wait_for_bytes_written())

    def waitForDisconnected(self, milliseconds: int = 30000) -> bool:
        return self._wait(milliseconds, lambda: self._sock.wait_for_disconnected())

    def isSequential(self) -> bool:
        """There is no other kind."""
        return True

    async def _destroy(self) -> None:
        self._sock._close()


for _names in (SocketState, SocketError, SocketOption, NetworkLayerProtocol, SocketType, BindFlag, PauseMode):
    for _member in _names:
        setattr(QAbstractSocket, str(_member.name), _member)


class QTcpSocket(QAbstractSocket):
    pass


def new_socket(parent: trio.Nursery | None, read_buffer_size: int = 0) -> trioqt.TcpSocket:
    """As Qt's: no limits, and the peer's end is the end."""
    return trioqt.TcpSocket(
        parent,
        read_buffer_size=read_buffer_size,
        write_buffer_size=NO_LIMIT,
        half_open=False,
        unsent_limit=None,
    )


@contextlib.contextmanager
def so_long(milliseconds: int) -> Iterator[None]:
    """Qt's -1 is no limit, and its 0 sees what is there already."""
    limit = math.inf if milliseconds < 0 else max(milliseconds, 1) / 1000
    with stage().in_steps(), trio.move_on_after(limit):
        yield
