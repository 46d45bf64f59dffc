"""QUdpSocket, whose getters, verbs and waits are those of UdpSocket, and the values that go with it."""

from __future__ import annotations

import enum
import socket
from collections.abc import Callable
from typing import Any, cast

import attrs

import trioqt
from tests.conformance.stand_in.on_stage import or_else, stage
from tests.conformance.stand_in.sockets import QAbstractSocket
from tests.conformance.stand_in.values import QByteArray, QHostAddress, SocketState, error_of, host_of
from trioqt.core.events import Event
from trioqt.sockets.nursery_ends import at_end_of

__all__ = ["QNetworkDatagram", "QNetworkInterface", "QUdpSocket"]


class QNetworkInterface:
    """A name and a number."""

    def __init__(self, name: str = "") -> None:
        self._name = name

    @staticmethod
    def allInterfaces() -> list[QNetworkInterface]:
        return [QNetworkInterface(name) for _, name in socket.if_nameindex()]

    def name(self) -> str:
        return self._name

    def index(self) -> int:
        return socket.if_nametoindex(self._name) if self._name else 0

    def isValid(self) -> bool:
        return bool(self._name)


class QNetworkDatagram:
    """NetworkDatagram, or none; a port that is not known is -1."""

    def __init__(self, data: bytes = b"", address: object = "", port: int = 0) -> None:
        self.datagram = trioqt.NetworkDatagram(
            bytes(data), destination_address=QHostAddress(address).address, destination_port=port
        )
        self._is_null = not data and not port
        self._sender_port = -1

    @classmethod
    def of(cls, datagram: trioqt.NetworkDatagram | None) -> QNetworkDatagram:
        made = cls()
        if datagram is not None:
            made.datagram, made._is_null = datagram, False
            made._sender_port = datagram.sender_port or -1
        return made

    def isValid(self) -> bool:
        """It has an address."""
        return bool(self.datagram.sender_address) or bool(self.datagram.destination_address)

    def isNull(self) -> bool:
        return self._is_null

    def data(self) -> bytes:
        return QByteArray(self.datagram.data)

    def senderAddress(self) -> QHostAddress:
        return QHostAddress(self.datagram.sender_address)

    def senderPort(self) -> int:
        return self._sender_port

    def destinationAddress(self) -> QHostAddress:
        return QHostAddress(self.datagram.destination_address)

    def destinationPort(self) -> int:
        return self.datagram.destination_port or -1

    def hopLimit(self) -> int:
        return self.datagram.hop_limit

    def interfaceIndex(self) -> int:
        return self.datagram.interface_index

    def setHopLimit(self, count: int) -> None:
        self.datagram = attrs.evolve(self.datagram, hop_limit=count)

    def setInterfaceIndex(self, index: int) -> None:
        self.datagram = attrs.evolve(self.datagram, interface_index=index)

    def setSender(self, address: object, port: int = 0) -> None:
        self.datagram = attrs.evolve(self.datagram, sender_address=QHostAddress(address).address, sender_port=port)
        self._sender_port = port

    def makeReply(self, data: bytes) -> QNetworkDatagram:
        return QNetworkDatagram.of(self.datagram.make_reply(bytes(data)))


class QUdpSocket(QAbstractSocket):
    ABSENT = QAbstractSocket.ABSENT

    def __init__(self, parent: object = None) -> None:
        self._in_verb = False
        super().__init__(parent)

    def _make(self) -> Any:
        sock = trioqt.UdpSocket(stage().nursery)
        at_end_of(stage().nursery, sock._in_scope)  # which closes it, whoever holds it still
        self._take(cast("Any", sock))
        return self._sock

    @property
    def _udp(self) -> trioqt.UdpSocket:
        return cast("Any", self._sock)  # type: ignore[no-any-return]

    def _tell(self, event: Event) -> None:
        """A nudge is seen after the step that told it (row 6), which here is told where slots run: in the loop."""
        if isinstance(event, trioqt.ReadyRead) and self._in_verb:
            stage().nursery.start_soon(self._tell_later, event)
        else:
            super()._tell(event)

    async def _tell_later(self, event: Event) -> None:
        """A nudge says "look again" (row 7); of what was taken in the same step there is nothing to see."""
        if self._udp._arrived:
            super()._tell(event)

    def _verb(self, failed: Any, act: Callable[[], Any]) -> Any:
        """What takes in what the system holds, in the step of the program."""
        self._in_verb = True
        try:
            return or_else(failed, act)
        finally:
            self._in_verb = False

    def view(self) -> dict[str, object]:
        """What the recorder writes beside a signal, at this moment; of a socket without an address Qt has less."""
        sock = self._udp
        view: dict[str, object] = {"state": SocketState(sock.state().value).name, "error": error_of(sock.error()).name}
        if sock.state() in (trioqt.SocketState.BOUND, trioqt.SocketState.CONNECTED):
            view["avail"] = len(sock._arrived[0].data) if sock._arrived else 0
        return view

    def connectToHost(self, host: object, port: int, mode: object = None, protocol: enum.Enum | None = None) -> None:
        """Awaited (law 2); a name is looked up meanwhile, and then it goes on in a task."""
        super().connectToHost(host, port, mode, protocol)
        if isinstance(host_of(host), trioqt.HostAddress) and self._ended is not None:
            stage().wait(self._ended.wait)

    def bytesAvailable(self) -> int:
        return int(stage().poll(lambda: self._verb(0, self._udp.bytes_available)))

    def hasPendingDatagrams(self) -> bool:
        return bool(stage().poll(lambda: self._verb(False, self._udp.has_pending_datagrams)))

    def pendingDatagramSize(self) -> int:
        return int(stage().poll(lambda: self._verb(-1, self._udp.pending_datagram_size)))

    def read(self, size: int) -> bytes:
        return QByteArray(stage().do(lambda: self._verb(b"", lambda: self._udp.read(size))))

    def readAll(self) -> bytes:
        return QByteArray(stage().do(lambda: self._verb(b"", self._udp.read_all)))

    def _take_one(self, size: int) -> trioqt.NetworkDatagram | None:
        limit = None if size < 0 else size
        return stage().do(lambda: self._verb(None, lambda: self._udp.read_datagram(limit)))  # type: ignore[no-any-return]

    def receiveDatagram(self, size: int = -1) -> QNetworkDatagram:
        return QNetworkDatagram.of(self._take_one(size))

    def readDatagram(self, size: int) -> tuple[QByteArray, QHostAddress, int]:
        datagram = QNetworkDatagram.of(self._take_one(size))
        return QByteArray(datagram.data()), datagram.senderAddress(), max(datagram.senderPort(), 0)

    def writeDatagram(self, what: Any, address: object = "", port: int = 0) -> int:
        def write() -> int:
            if isinstance(what, QNetworkDatagram):
                return self._udp.write_datagram(what.datagram)
            return self._udp.write_datagram(bytes(what), QHostAddress(address).address, port)

        return int(stage().do(lambda: or_else(-1, write)))

    def joinMulticastGroup(self, group: object, interface: QNetworkInterface | None = None) -> bool:
        return self._membership(lambda: self._udp.join_multicast_group(QHostAddress(group).address, _name(interface)))

    def leaveMulticastGroup(self, group: object, interface: QNetworkInterface | None = None) -> bool:
        return self._membership(lambda: self._udp.leave_multicast_group(QHostAddress(group).address, _name(interface)))

    def _membership(self, verb: Callable[[], None]) -> bool:
        def act() -> bool:
            verb()
            return True

        return bool(stage().do(lambda: or_else(False, act)))

    def setMulticastInterface(self, interface: QNetworkInterface) -> None:
        stage().do(lambda: or_else(None, lambda: self._udp.set_multicast_interface(interface.name())))

    def multicastInterface(self) -> QNetworkInterface:
        return QNetworkInterface(stage().do(lambda: or_else("", lambda: self._udp.multicast_interface() or "")))


def _name(interface: QNetworkInterface | None) -> str | None:
    return None if interface is None else interface.name()
