"""The values of Qt: enums, addresses and bytes, with Qt's spelling."""

from __future__ import annotations

import enum
import ipaddress
from typing import Any, ClassVar

import trioqt


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


def error_of(kind: trioqt.ErrorKind | None) -> Any:
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


def host_of(host: object) -> trioqt.HostAddress | str:
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
