"""Nine ways to be wrong that look right.  Each must be caught by a scenario that the real classes pass."""

from __future__ import annotations

import math
from typing import Any

import trio

from tests.cancel.kit import hand_over
from trioqt import NetworkDatagram, TcpServer, TcpSocket, UdpSocket
from trioqt.core.states import Told

__all__ = ["MUTANTS"]


class TakesFirst(TcpSocket):
    """A take before a checkpoint: what was taken is lost if the checkpoint is cancelled."""

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        data = await super().receive_some(max_bytes)
        await trio.lowlevel.checkpoint()
        return data


class TellsLater(TcpSocket):
    """A state change before an awaited event: cancelled in between, the state says what nobody was told."""

    _later: list[Told] | None = None

    def _tell(self, thing: Told) -> None:
        if self._later is None:
            super()._tell(thing)
        else:
            self._later.append(thing)

    async def connect_to_host(self, host: Any, port: int, **options: Any) -> None:
        self._later = []
        await super().connect_to_host(host, port, **options)
        await trio.lowlevel.checkpoint()
        later, self._later = self._later, None
        for thing in later:
            self._tell(thing)


class FreesTwice(TcpServer[TcpSocket]):
    """A slot released twice, at the end of a cancelled connection: from then on there is room for one too many."""

    def _forget(self, sock: Any) -> None:
        super()._forget(sock)
        if self._max_connections is not None and trio.current_effective_deadline() == -math.inf:
            self._max_connections += 1


class LeaksAttempts(TcpSocket):
    """A leaked attempt: nobody closes it if the checkpoint after it is cancelled."""

    async def connect_to_host(self, host: Any, port: int, **options: Any) -> None:
        attempt = trio.socket.socket()
        await attempt.connect((str(host), port))
        await trio.lowlevel.checkpoint()
        hand_over(self, attempt)


class Tears(TcpSocket):
    """A torn write: a cancelled send has sent the first half."""

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        half = len(data) // 2
        await super().send_all(data[:half])
        await super().send_all(data[half:])


class DropsAccepted(TcpServer[TcpSocket]):
    """An accepted socket dropped: a connection that was taken is lost if the checkpoint after it is cancelled."""

    async def accept(self) -> TcpSocket:
        sock = await super().accept()
        await trio.lowlevel.checkpoint()
        return sock


class DropsDatagrams(UdpSocket):
    """A datagram taken before a checkpoint, and lost if that is cancelled."""

    async def receive_datagram(self, max_bytes: int | None = None) -> NetworkDatagram:
        datagram = await super().receive_datagram(max_bytes)
        await trio.lowlevel.checkpoint()
        return datagram


class SendsTwice(UdpSocket):
    """A send that can be cancelled when the datagram is out: whoever tries again sends it twice."""

    async def send_datagram(self, data: Any, host: Any = "", port: int = 0) -> None:
        await super().send_datagram(data, host, port)
        await trio.lowlevel.checkpoint()


class ForgetsTrouble(UdpSocket):
    """What the network says is looked at before a checkpoint, and never heard of if that is cancelled."""

    async def receive_datagram(self, max_bytes: int | None = None) -> NetworkDatagram:
        trouble, self._trouble = self._trouble, None
        await trio.lowlevel.checkpoint()
        self._trouble = trouble or self._trouble
        return await super().receive_datagram(max_bytes)


MUTANTS: dict[type, tuple[str, str]] = {
    TakesFirst: ("TcpSocket.receive_some, has to wait", "expect"),
    TellsLater: ("TcpSocket.connect_to_host, answered at once, address", "expect"),
    FreesTwice: ("TcpServer.serve, has to wait, limit", "expect"),
    LeaksAttempts: ("TcpSocket.connect_to_host, answered at once, address", "leak"),
    Tears: ("TcpSocket.send_all, full queue", "expect"),
    DropsAccepted: ("TcpServer.accept, has to wait", ""),
    DropsDatagrams: ("UdpSocket.receive_datagram, has to wait", ""),
    SendsTwice: ("UdpSocket.send_datagram, answered at once", ""),
    ForgetsTrouble: ("UdpSocket.receive_datagram, peer resets", ""),
}
"""Each with the scenario that catches it, on every network, and the kind of problem that it is found by; empty: any."""
