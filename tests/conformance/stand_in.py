"""Classes with the names and the manners of PySide6 that drive trioqt: a scenario cannot tell which it has.

Each method here is one verb or getter of trioqt, and says so in its one line.  Where Qt starts something and signals
its end, the verb of trioqt runs in a task (law 2); where Qt returns a failure, trioqt raises, and what was raised is
recorded like a warning of Qt (law 4).  What trioqt does not have answers ``NOT_THERE``.
"""

from __future__ import annotations

import enum
import functools
import ipaddress
import math
import os
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any, ClassVar

import trio

import trioqt
from tests.conformance.stage import Stage
from trioqt.core.events import Event
from trioqt.sockets.subscription import Subscription

__all__ = ["CORE", "NETWORK", "NOT_THERE", "SHIBOKEN", "use"]

NOT_THERE = "not in trioqt"

REFUSED = (
    trioqt.SocketError,
    trio.ClosedResourceError,
    trio.BusyResourceError,
    trio.WouldBlock,
    TypeError,
    ValueError,
)

NO_LIMIT = 1 << 62
"""Qt's write buffer has none."""

_stage: Stage


def use(stage: Stage) -> None:
    """From here on these classes live on ``stage``."""
    global _stage
    _stage = stage


def _refused(exc: Exception) -> None:
    """Record that trioqt raises."""
    kind = f".{exc.kind.name}" if isinstance(exc, trioqt.SocketError) else ""
    _stage.warned(type(exc).__name__ + kind)


def _or(failed: Any, act: Callable[[], Any]) -> Any:
    """What ``act`` gives; ``failed`` if trioqt raises."""
    try:
        return act()
    except REFUSED as exc:
        _refused(exc)
        return failed


# ---- values ------------------------------------------------------------------------------------


def _mirror(name: str, source: type[enum.Enum], names: str) -> Any:
    """Qt's names for the members of one of our enums; the numbers are the same."""
    numbers = [member.value for member in source if member.value < 100]
    return enum.Enum(name, dict(zip(names.split(), numbers, strict=True)))


SocketState: Any = _mirror(
    "SocketState",
    trioqt.SocketState,
    "UnconnectedState HostLookupState ConnectingState ConnectedState BoundState ListeningState ClosingState",
)
SocketError: Any = _mirror(
    "SocketError",
    trioqt.ErrorKind,
    "ConnectionRefusedError RemoteHostClosedError HostNotFoundError SocketAccessError SocketResourceError"
    " SocketTimeoutError DatagramTooLargeError NetworkError AddressInUseError SocketAddressNotAvailableError"
    " UnsupportedSocketOperationError UnfinishedSocketOperationError ProxyAuthenticationRequiredError"
    " SslHandshakeFailedError ProxyConnectionRefusedError ProxyConnectionClosedError ProxyConnectionTimeoutError"
    " ProxyNotFoundError ProxyProtocolError OperationError SslInternalError SslInvalidUserDataError TemporaryError"
    " UnknownSocketError",
)
SocketOption: Any = _mirror(
    "SocketOption",
    trioqt.SocketOption,
    "LowDelayOption KeepAliveOption MulticastTtlOption MulticastLoopbackOption TypeOfServiceOption"
    " SendBufferSizeSocketOption ReceiveBufferSizeSocketOption PathMtuSocketOption KeepAliveIdleOption"
    " KeepAliveIntervalOption KeepAliveCountOption",
)
NetworkLayerProtocol: Any = _mirror(
    "NetworkLayerProtocol",
    trioqt.NetworkLayerProtocol,
    "IPv4Protocol IPv6Protocol AnyIPProtocol UnknownNetworkLayerProtocol",
)
SocketType: Any = _mirror("SocketType", trioqt.SocketType, "TcpSocket UdpSocket SctpSocket UnknownSocketType")


class BindFlag(enum.Flag):
    DefaultForPlatform = 0
    ShareAddress = 1
    DontShareAddress = 2
    ReuseAddressHint = 4


DEFAULT = BindFlag.DefaultForPlatform


class PauseMode(enum.Flag):
    PauseNever = 0
    PauseOnSslErrors = 1


class OpenModeFlag(enum.Flag):
    NotOpen = 0
    ReadOnly = 1
    WriteOnly = 2
    ReadWrite = 3
    Append = 4
    Truncate = 8
    Text = 16
    Unbuffered = 32
    NewOnly = 64
    ExistingOnly = 128


def _error(kind: trioqt.ErrorKind | None) -> Any:
    """None is Qt's UnknownSocketError."""
    return SocketError(-1) if kind is None else SocketError(kind.value)


class QHostAddress:
    """HostAddress, with Qt's spelling: ANY prints as 0.0.0.0."""

    class SpecialAddress(enum.Enum):
        Null = 0
        Broadcast = 1
        LocalHost = 2
        LocalHostIPv6 = 3
        Any = 4
        AnyIPv6 = 5
        AnyIPv4 = 6

    SPECIAL: ClassVar[dict[SpecialAddress, trioqt.HostAddress]] = {
        SpecialAddress.Null: trioqt.HostAddress.NULL,
        SpecialAddress.Broadcast: trioqt.HostAddress.BROADCAST,
        SpecialAddress.LocalHost: trioqt.HostAddress.LOCAL_HOST,
        SpecialAddress.LocalHostIPv6: trioqt.HostAddress.LOCAL_HOST_IPV6,
        SpecialAddress.Any: trioqt.HostAddress.ANY,
        SpecialAddress.AnyIPv6: trioqt.HostAddress.ANY_IPV6,
        SpecialAddress.AnyIPv4: trioqt.HostAddress.ANY_IPV4,
    }
    address: trioqt.HostAddress

    def __init__(self, address: object = "") -> None:
        if isinstance(address, QHostAddress):
            self.address = address.address
        elif isinstance(address, QHostAddress.SpecialAddress):
            self.address = self.SPECIAL[address]
        elif isinstance(address, trioqt.HostAddress):
            self.address = address
        else:
            try:
                self.address = trioqt.HostAddress(str(address))
            except ValueError:
                self.address = trioqt.HostAddress.NULL

    def toString(self) -> str:
        return "0.0.0.0" if self.address == trioqt.HostAddress.ANY else str(self.address)

    def protocol(self) -> Any:
        return NetworkLayerProtocol(self.address.protocol().value)

    def isNull(self) -> bool:
        return self.address == trioqt.HostAddress.NULL

    def isLoopback(self) -> bool:
        return self.address.is_loopback()

    def isMulticast(self) -> bool:
        return self.address.is_multicast()

    def isBroadcast(self) -> bool:
        return self.address == trioqt.HostAddress.BROADCAST

    def isInSubnet(self, subnet: QHostAddress, length: int) -> bool:
        return self.address.is_in_subnet(f"{subnet.toString()}/{length}")

    def isEqual(self, other: QHostAddress) -> bool:
        return self == other

    def toIPv4Address(self) -> int:
        return int(ipaddress.IPv4Address(self.toString())) if "." in self.toString() else 0

    def scopeId(self) -> str:
        return self.toString().partition("%")[2]

    def setAddress(self, address: object) -> bool:
        self.address = QHostAddress(address).address
        return not self.isNull()

    def clear(self) -> None:
        self.address = trioqt.HostAddress.NULL

    def __eq__(self, other: object) -> bool:
        return self.address == QHostAddress(other).address

    def __hash__(self) -> int:
        return hash(self.address)


ANY = QHostAddress.SpecialAddress.Any
for _special in QHostAddress.SpecialAddress:
    setattr(QHostAddress, _special.name, _special)


def _host(host: object) -> trioqt.HostAddress | str:
    return host if isinstance(host, str) else QHostAddress(host).address


class QByteArray(bytes):
    """What reading gives: bytes, with the members that programs use."""

    def data(self) -> bytes:
        return bytes(self)

    def size(self) -> int:
        return len(self)

    length = size

    def isEmpty(self) -> bool:
        return not self

    def trimmed(self) -> QByteArray:
        return QByteArray(self.strip())

    def startsWith(self, prefix: bytes) -> bool:
        return self.startswith(prefix)

    def endsWith(self, suffix: bytes) -> bool:
        return self.endswith(suffix)

    def contains(self, piece: bytes) -> bool:
        return self.find(piece) >= 0

    def indexOf(self, piece: bytes) -> int:
        return self.find(piece)

    def append(self, more: bytes) -> QByteArray:
        return QByteArray(self + more)

    def left(self, count: int) -> QByteArray:
        return QByteArray(self[:count])

    def right(self, count: int) -> QByteArray:
        return QByteArray(self[max(len(self) - count, 0) :])

    def mid(self, start: int, count: int = -1) -> QByteArray:
        return QByteArray(self[start:] if count < 0 else self[start : start + count])

    def toUpper(self) -> QByteArray:
        return QByteArray(self.upper())

    def toLower(self) -> QByteArray:
        return QByteArray(self.lower())

    def toHex(self) -> QByteArray:
        return QByteArray(self.hex().encode())

    def toInt(self) -> tuple[int, bool]:
        return (int(self), True) if self.isdigit() else (0, False)

    def toStdString(self) -> str:
        return self.decode()


# ---- signals -----------------------------------------------------------------------------------


class Signal:
    """What slots are connected to: those of the recorder run at once, the program's own are actors."""

    def __init__(self, sender: QObject) -> None:
        self.recorders: list[Callable[..., object]] = []
        self.slots: list[Callable[..., object]] = []
        self._sender = sender

    def connect(self, slot: Callable[..., object], type: object = None) -> None:
        self.slots.append(slot)

    def disconnect(self, slot: Callable[..., object] | None = None) -> None:
        if slot is None:
            self.slots.clear()
        else:
            self.slots.remove(slot)

    def emit(self, *args: object) -> None:
        if self._sender.signalsBlocked():
            return
        for recorder in self.recorders:
            recorder(*args)
        for slot in tuple(self.slots):
            _stage.start_slot(functools.partial(slot, *args))


class Hook(Subscription[Event]):
    """The harness's private subscription: it is told of an event while that is posted."""

    def __init__(self, tell: Callable[[Event], None]) -> None:
        super().__init__(())
        self._tell = tell

    def post(self, event: Event) -> bool:
        self._tell(event)
        return True


class QObject:
    """Names, properties and blocked signals, which have nothing to do with sockets."""

    ABSENT: ClassVar[frozenset[str]] = frozenset()
    """Members of the class in Qt that trioqt has no counterpart of."""

    def __init__(self, parent: object = None) -> None:
        self._parent = parent
        self._name = ""
        self._properties: dict[str, object] = {}
        self._blocked = False

    def parent(self) -> object:
        return self._parent

    def setParent(self, parent: object) -> None:
        self._parent = parent

    def objectName(self) -> str:
        return self._name

    def setObjectName(self, name: str) -> None:
        self._name = name

    def property(self, name: str) -> object:
        return self._properties.get(name)

    def setProperty(self, name: str, value: object) -> bool:
        known = name in self._properties
        self._properties[name] = value
        return known

    def blockSignals(self, block: bool) -> bool:
        before, self._blocked = self._blocked, block
        return before

    def signalsBlocked(self) -> bool:
        return self._blocked

    def deleteLater(self) -> None:
        _stage.do(lambda: _stage.nursery.start_soon(self._destroy))

    async def _destroy(self) -> None:
        pass

    def __getattr__(self, name: str) -> Any:
        if name not in self.ABSENT:
            raise AttributeError(f"{type(self).__name__} has no attribute {name!r}")
        return lambda *args: NOT_THERE


class QIODeviceBase:
    OpenModeFlag = OpenModeFlag


for _name, _mode in OpenModeFlag.__members__.items():
    setattr(QIODeviceBase, _name, _mode)


class QIODevice(QObject, QIODeviceBase):
    pass


# ---- sockets -----------------------------------------------------------------------------------


class QAbstractSocket(QIODevice):
    ABSENT = frozenset(
        [
            "isOpen",
            "openMode",
            "isReadable",
            "isWritable",
            "isTextModeEnabled",
            "setOpenMode",
            "pauseMode",
            "setPauseMode",
            "resume",
            "protocolTag",
            "setProtocolTag",
            "proxy",
            "setProxy",
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
        self.readyRead, self.bytesWritten, self.readChannelFinished = Signal(self), Signal(self), Signal(self)
        self._read_buffer_size = 0
        self._ended: trio.Event | None = None  # of the connect_to_host that runs, or ran last
        self._attempt = trio.CancelScope()
        if sock is None:
            self._sock: trioqt.TcpSocket = _stage.see(self._make)
        else:
            self._take(sock)

    def _make(self) -> trioqt.TcpSocket:
        self._take(_new_socket(_stage.nursery, self._read_buffer_size))
        return self._sock

    def _take(self, sock: trioqt.TcpSocket) -> None:
        self._sock = sock
        sock._subscribe(Hook(self._tell))

    def _tell(self, event: Event) -> None:
        match event:
            case trioqt.StateChanged(state):
                self.stateChanged.emit(SocketState(state.value))
            case trioqt.ErrorOccurred(kind, _):
                self.errorOccurred.emit(_error(kind))
            case trioqt.BytesWritten(count):
                self.bytesWritten.emit(count)
            case _:
                name = type(event).__name__
                signal: Signal = getattr(self, name[0].lower() + name[1:])
                signal.emit()

    def view(self) -> dict[str, object]:
        """What the recorder writes beside a signal, at this moment."""
        sock = self._sock
        return {
            "state": SocketState(sock.state().value).name,
            "error": _error(sock.error()).name,
            "avail": len(sock._read_buffer),
        }

    def _reopen(self) -> None:
        """Qt's object may be used again after close(); trioqt's is closed for good, so another takes its place."""
        if self._sock._closed:
            self._make()

    # -- getters

    def state(self) -> Any:
        return _stage.see(lambda: SocketState(self._sock.state().value))

    def error(self) -> Any:
        return _stage.see(lambda: _error(self._sock.error()))

    def errorString(self) -> str:
        return _stage.see(lambda: self._sock.error_string())

    def isValid(self) -> bool:
        return _stage.see(lambda: self._sock.is_valid())

    def localAddress(self) -> QHostAddress:
        return QHostAddress(_stage.see(lambda: self._sock.local_address()))

    def localPort(self) -> int:
        return _stage.see(lambda: self._sock.local_port())

    def peerAddress(self) -> QHostAddress:
        return QHostAddress(_stage.see(lambda: self._sock.peer_address()))

    def peerPort(self) -> int:
        return _stage.see(lambda: self._sock.peer_port())

    def peerName(self) -> str:
        return _stage.see(lambda: self._sock.peer_name())

    def socketDescriptor(self) -> int:
        return _stage.see(lambda: self._sock.socket_descriptor())

    def socketType(self) -> Any:
        return _stage.see(lambda: SocketType(self._sock.socket_type().value))

    def readBufferSize(self) -> int:
        return _stage.see(lambda: self._sock.read_buffer_size())

    def bytesToWrite(self) -> int:
        return _stage.see(lambda: self._sock.bytes_to_write())

    def isTransactionStarted(self) -> bool:
        return _stage.see(lambda: self._sock.is_transaction_started())

    # -- verbs that do not wait

    def bytesAvailable(self) -> int:
        return _stage.poll(lambda: self._sock.bytes_available())

    def canReadLine(self) -> bool:
        return _stage.poll(lambda: self._sock.can_read_line())

    def atEnd(self) -> bool:
        return _stage.poll(lambda: self._sock.at_end())

    def _read(self, failed: object, read: Callable[[], Any]) -> Any:
        result = _stage.do(lambda: _or(failed, read))
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
        return _stage.do(lambda: _or(-1, lambda: self._sock.write(bytes(data))))  # type: ignore[no-any-return]

    def putChar(self, char: str) -> bool:
        return bool(_stage.do(lambda: _or(False, lambda: self._put(char))))

    def _put(self, char: str) -> bool:
        self._sock.put_char(char.encode("latin-1"))
        return True

    def flush(self) -> bool:
        return bool(_stage.do(lambda: _or(False, lambda: self._sock.flush())))

    def setReadBufferSize(self, size: int) -> None:
        self._read_buffer_size = size
        _stage.do(lambda: _or(None, lambda: self._sock.set_read_buffer_size(size)))

    def setSocketOption(self, option: enum.Enum, value: Any) -> None:
        ours = trioqt.SocketOption(option.value)
        _stage.do(lambda: _or(None, lambda: self._sock.set_socket_option(ours, value)))

    def socketOption(self, option: enum.Enum) -> int | None:
        ours = trioqt.SocketOption(option.value)

        def look() -> int | None:
            try:
                return self._sock.socket_option(ours)
            except trioqt.SocketError:
                return None

        return _stage.do(look)

    def setSocketDescriptor(
        self, descriptor: int, state: enum.Enum = SocketState.ConnectedState, mode: object = None
    ) -> bool:
        def adopt() -> bool:
            self._reopen()
            self._sock.set_socket_descriptor(descriptor, trioqt.SocketState(state.value))
            return True

        return bool(_stage.do(lambda: _or(False, adopt)))

    def abort(self) -> None:
        _stage.do(lambda: self._sock.abort())

    # -- verbs that wait

    def connectToHost(self, host: object, port: int, mode: object = None, protocol: enum.Enum | None = None) -> None:
        """Starts connect_to_host in a task, and goes on when that waits (law 2)."""
        ours = trioqt.NetworkLayerProtocol.ANY_IP if protocol is None else trioqt.NetworkLayerProtocol(protocol.value)

        async def connect() -> None:
            self._reopen()
            before = self._attempt, self._ended
            self._attempt, self._ended = trio.CancelScope(), trio.Event()
            this = self._ended
            try:
                with self._attempt:
                    await self._sock.connect_to_host(_host(host), port, protocol=ours)
            except trioqt.SocketError as exc:
                if exc.kind is trioqt.ErrorKind.OPERATION:
                    self._attempt, self._ended = before
                    _refused(exc)
            except trio.ClosedResourceError:
                pass  # another call ended it
            finally:
                this.set()

        _stage.wait(lambda: _stage.first_step(connect))

    def bind(self, address: object = ANY, port: int = 0, mode: enum.Flag = DEFAULT) -> bool:
        where = (QHostAddress(ANY), address) if isinstance(address, int) else (QHostAddress(address), port)

        async def bind() -> bool:
            self._reopen()
            try:
                await self._sock.bind(where[0].address, where[1], trioqt.BindMode(mode.value))
            except REFUSED as exc:
                _refused(exc)
                return False
            return True

        return _stage.wait(bind)

    def disconnectFromHost(self) -> None:
        self._end(lambda: self._sock.disconnect_from_host())

    def close(self) -> None:
        self._end(lambda: self._sock.aclose())

    def _end(self, end: Callable[[], Any]) -> None:
        """Awaited (law 2); but while something is queued it goes on in a task, as Qt does."""
        over = trio.Event()

        async def run() -> None:
            try:
                await end()
            except (trioqt.SocketError, trio.ClosedResourceError):
                pass  # the events have told it
            finally:
                over.set()

        async def start() -> None:
            _stage.nursery.start_soon(run)
            if self._sock.bytes_to_write():
                await trio.testing.wait_all_tasks_blocked()
            else:
                await over.wait()

        _stage.wait(start)

    # -- waits (row 2: no time-outs, so ours are scopes)

    def _wait(self, milliseconds: int, wait: Callable[[], Any]) -> bool:
        async def bounded() -> bool:
            with _so_long(milliseconds):
                try:
                    return await wait() is not False
                except REFUSED as exc:
                    _refused(exc)
                    return False
            return False

        return _stage.wait(bounded)

    def waitForConnected(self, milliseconds: int = 30000) -> bool:
        """Its time-out drops the attempt, as that of a scope around connect_to_host does."""
        connected = self._wait(milliseconds, lambda: self._sock.wait_for_connected())
        if not connected:
            _stage.wait(self._drop_attempt)
        return connected

    async def _drop_attempt(self) -> None:
        if self._ended is not None:
            self._attempt.cancel()
            await self._ended.wait()

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


def _new_socket(parent: trio.Nursery | None, read_buffer_size: int = 0) -> trioqt.TcpSocket:
    """As Qt's: no limits, and the peer's end is the end."""
    return trioqt.TcpSocket(
        parent,
        read_buffer_size=read_buffer_size,
        write_buffer_size=NO_LIMIT,
        half_open=False,
        unsent_limit=None,
    )


def _so_long(milliseconds: int) -> trio.CancelScope:
    """Qt's -1 is no limit, and its 0 sees what is there already."""
    return trio.move_on_after(math.inf if milliseconds < 0 else max(milliseconds, 1) / 1000)


# ---- servers -----------------------------------------------------------------------------------


class QTcpServer(QObject):
    ABSENT = frozenset({"proxy", "setProxy"})

    def __init__(self, parent: object = None) -> None:
        super().__init__(parent)
        self.newConnection, self.acceptError = Signal(self), Signal(self)
        self._backlog: int | None = None
        self._accepted: dict[trioqt.TcpSocket, QTcpSocket] = {}
        self._made = False  # a socket, for a connection that is not told yet
        self._end = trio.Event()
        self._over = trio.Event()
        self._server: trioqt.TcpServer[trioqt.TcpSocket] = _stage.wait(lambda: _stage.nursery.start(self._live))

    async def _live(self, task_status: trio.TaskStatus[Any]) -> None:
        """The server's block."""
        try:
            async with trioqt.TcpServer(self._socket, keep_alive=False) as server:
                server._subscribe(Hook(self._tell))
                task_status.started(server)
                await self._end.wait()
        finally:
            self._over.set()

    async def _destroy(self) -> None:
        self._end.set()
        await self._over.wait()

    def _socket(self) -> trioqt.TcpSocket:
        sock = _new_socket(None)
        self._accepted[sock] = QTcpSocket(self, sock)
        self._made = True
        return sock

    def _tell(self, event: Event) -> None:
        match event:
            case trioqt.NewConnection():
                if type(self).incomingConnection is QTcpServer.incomingConnection:
                    self.newConnection.emit()
                elif self._made:
                    self._made = False
                    _stage.start_slot(functools.partial(self._incoming, self._hand_over()), acts_now=True)
            case trioqt.AcceptError(kind, _):
                self.acceptError.emit(_error(kind))

    def view(self) -> dict[str, object]:
        return {"has_pending": self._server.has_pending_connections()}

    # -- getters

    def isListening(self) -> bool:
        return _stage.see(lambda: self._server.is_listening())

    def serverAddress(self) -> QHostAddress:
        return QHostAddress(_stage.see(lambda: self._server.server_address()))

    def serverPort(self) -> int:
        return _stage.see(lambda: self._server.server_port())

    def serverError(self) -> Any:
        return _stage.see(lambda: _error(self._server.server_error()))

    def errorString(self) -> str:
        return _stage.see(lambda: self._server.error_string())

    def hasPendingConnections(self) -> bool:
        return _stage.see(lambda: self._server.has_pending_connections())

    def maxPendingConnections(self) -> int:
        return _stage.see(lambda: self._server.max_pending_connections())

    def socketDescriptor(self) -> int:
        return _stage.see(lambda: self._server.socket_descriptor())

    def listenBacklogSize(self) -> int | None:
        """An argument of listen(), with us."""
        return self._backlog

    # -- verbs

    def setListenBacklogSize(self, size: int) -> None:
        self._backlog = size

    def listen(self, address: object = ANY, port: int = 0) -> bool:
        async def listen() -> bool:
            try:
                await self._server.listen(QHostAddress(address).address, port, backlog=self._backlog)
            except REFUSED as exc:
                _refused(exc)
                return False
            return True

        return _stage.wait(listen)

    def incomingConnection(self, descriptor: int) -> None:
        """What an override gets in place of a pending connection."""

    def _incoming(self, descriptor: int) -> None:
        """The override, and then the signal, as Qt does; for what the override adds Qt has none of its own."""
        self.incomingConnection(descriptor)
        _stage.do(self.newConnection.emit)

    def _hand_over(self) -> int:
        """Take the connection that has just come, as a descriptor."""
        sock = self._server.next_pending_connection()
        assert sock is not None
        del self._accepted[sock]
        descriptor = os.dup(sock.socket_descriptor())
        sock.abort()
        return descriptor

    def setSocketDescriptor(self, descriptor: int) -> bool:
        def adopt() -> bool:
            self._server.set_socket_descriptor(descriptor)
            return True

        return bool(_stage.do(lambda: _or(False, adopt)))

    def close(self) -> None:
        _stage.do(lambda: self._server.close())

    def setMaxPendingConnections(self, count: int) -> None:
        _stage.do(lambda: _or(None, lambda: self._server.set_max_pending_connections(count)))

    def pauseAccepting(self) -> None:
        _stage.do(lambda: self._server.pause_accepting())

    def resumeAccepting(self) -> None:
        _stage.do(lambda: self._server.resume_accepting())

    def nextPendingConnection(self) -> QTcpSocket | None:
        sock = _stage.do(lambda: self._server.next_pending_connection())
        return None if sock is None else self._accepted.pop(sock)

    def addPendingConnection(self, sock: QTcpSocket) -> None:
        self._accepted[sock._sock] = sock
        _stage.do(lambda: _or(None, lambda: self._server.add_pending_connection(sock._sock)))

    def waitForNewConnection(self, milliseconds: int = 0) -> tuple[bool, bool]:
        """Whether there is one, and whether the time ran out instead."""

        async def bounded() -> bool:
            with _so_long(milliseconds):
                try:
                    await self._server.wait_for_new_connection()
                except REFUSED as exc:
                    _refused(exc)
                    return False
                return True
            return False

        came = _stage.wait(bounded)
        return came, not came


# ---- the rest of Qt that scenarios use ---------------------------------------------------------


class QCoreApplication:
    @staticmethod
    def processEvents(flags: object = None, milliseconds: int = 0) -> None:
        _stage.wait(lambda: _stage.turn(milliseconds / 1000))


class QEventLoop(QObject):
    class ProcessEventsFlag(enum.Flag):
        AllEvents = 0

    AllEvents = ProcessEventsFlag.AllEvents

    def __init__(self, parent: object = None) -> None:
        super().__init__(parent)
        self._code: int | None = 0

    def exec(self) -> int:
        self._code = None
        while self._code is None:
            _stage.wait(lambda: _stage.turn(0.01))
        return self._code

    def exit(self, code: int = 0) -> None:
        self._code = code

    def quit(self) -> None:
        self.exit()

    def isRunning(self) -> bool:
        return self._code is None

    def processEvents(self, flags: object = None, milliseconds: int = 0) -> None:
        QCoreApplication.processEvents(flags, milliseconds)


class QTimer(QObject):
    def __init__(self, parent: object = None) -> None:
        super().__init__(parent)
        self.timeout = Signal(self)
        self._interval = 0
        self._single_shot = False
        self._running: trio.CancelScope | None = None

    @staticmethod
    def singleShot(milliseconds: int, slot: Callable[[], object]) -> None:
        timer = QTimer()
        timer.setSingleShot(True)
        timer.timeout.connect(slot)
        timer.start(milliseconds)

    def setInterval(self, milliseconds: int) -> None:
        self._interval = milliseconds

    def setSingleShot(self, single_shot: bool) -> None:
        self._single_shot = single_shot

    def isActive(self) -> bool:
        return self._running is not None

    def start(self, milliseconds: int | None = None) -> None:
        self.stop()
        if milliseconds is not None:
            self._interval = milliseconds
        self._running = trio.CancelScope()
        scope = self._running
        _stage.do(lambda: _stage.nursery.start_soon(self._run, scope))

    def stop(self) -> None:
        if self._running is not None:
            _stage.do(self._running.cancel)
            self._running = None

    async def _run(self, scope: trio.CancelScope) -> None:
        with scope:
            while self._running is scope:
                await trio.sleep(max(self._interval, 1) / 1000)
                if self._single_shot:
                    self._running = None
                self.timeout.emit()


class ConnectionType(enum.Enum):
    """All the same here: a slot acts after the step that emitted the signal."""

    AutoConnection, DirectConnection, QueuedConnection, BlockingQueuedConnection = range(4)


def _delete(obj: QObject) -> None:
    """``del obj`` of C++: the end of a scope, with us (law 3)."""
    if isinstance(obj, QTcpServer):
        _stage.wait(obj._destroy)
    elif isinstance(obj, QAbstractSocket):
        _stage.do(lambda: obj._sock._close())


def _is_valid(obj: QObject) -> bool:
    return not (isinstance(obj, QAbstractSocket) and obj._sock._closed)


class _Absent:
    """A class of Qt that trioqt has no counterpart of."""

    def __init__(self, *args: object) -> None:
        raise NotImplementedError(NOT_THERE)

    @classmethod
    def fromName(cls, name: str) -> Any:
        raise NotImplementedError(NOT_THERE)


class _Proxy(_Absent):
    class ProxyType(enum.Enum):
        DefaultProxy, Socks5Proxy, NoProxy, HttpProxy, HttpCachingProxy, FtpCachingProxy = range(6)


NETWORK = SimpleNamespace(
    QAbstractSocket=QAbstractSocket,
    QTcpSocket=QTcpSocket,
    QTcpServer=QTcpServer,
    QHostAddress=QHostAddress,
    QHostInfo=_Absent,
    QNetworkProxy=_Proxy,
    QUdpSocket=type("QUdpSocket", (_Absent,), {}),
    QSslSocket=type("QSslSocket", (_Absent,), {}),
)
CORE = SimpleNamespace(
    QByteArray=QByteArray,
    QObject=QObject,
    QCoreApplication=QCoreApplication,
    QEventLoop=QEventLoop,
    QTimer=QTimer,
    QIODevice=QIODevice,
    Qt=SimpleNamespace(ConnectionType=ConnectionType, **ConnectionType.__members__),
    QIODeviceBase=QIODeviceBase,
)
SHIBOKEN = SimpleNamespace(delete=_delete, isValid=_is_valid)
