"""A network that follows a script: names, and addresses that answer after so many seconds of the mock clock.

It is put below trio, so whatever asks trio for a socket or a name gets it.
"""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Mapping, Sequence
from typing import Any

import attrs
import trio

__all__ = ["Answer", "ScriptedNetwork", "ScriptedSocket", "names"]


@attrs.frozen
class Answer:
    """After ``delay`` seconds, and not before the gate opens, a connection succeeds, or fails with ``error``."""

    delay: float = 0.0
    error: int | None = None
    gate: trio.Event | None = None


class ScriptedSocket(trio.socket.SocketType):
    """A socket that can connect, as the script says, and remembers what was done to it."""

    def __init__(self, network: ScriptedNetwork, family: int) -> None:
        self.network = network
        self._family = family
        self.options: list[tuple[int, int, int]] = []
        self.connecting_to: str | None = None
        self.closed = False
        self.resets = False

    @property
    def family(self) -> socket.AddressFamily:
        return socket.AddressFamily(self._family)

    def setsockopt(self, level: int, option: int, value: Any, length: int | None = None) -> None:
        if (level, option) == (socket.SOL_SOCKET, socket.SO_LINGER):
            self.resets = value != bytes(len(value))
        else:
            self.options.append((level, option, value))

    def getsockopt(self, level: int, option: int, buffersize: int | None = None) -> Any:
        if (level, option) == (socket.SOL_SOCKET, socket.SO_RCVBUF):
            return 65536
        return {(level, option): value for level, option, value in self.options}.get((level, option), 0)

    def shutdown(self, how: int) -> None:
        """Nobody is there to hear of it."""

    async def connect(self, address: Any) -> None:
        self.connecting_to = address[0]
        answer = self.network.answers[address[0]]
        self.network.log.append((trio.current_time() - self.network.began, "try", address[0]))
        await trio.sleep(answer.delay)
        if answer.gate is not None:
            await answer.gate.wait()
        if answer.error is not None:
            self.network.log.append((trio.current_time() - self.network.began, "fail", address[0]))
            raise OSError(answer.error, os.strerror(answer.error))
        self.network.log.append((trio.current_time() - self.network.began, "connect", address[0]))

    def wake(self) -> None:
        """Nobody waits on it."""

    def close(self) -> None:
        self.closed = True

    def fileno(self) -> int:
        return -1

    def getsockname(self) -> Any:
        return ("192.0.2.1", 50000)

    def getpeername(self) -> Any:
        if self.network.peers_forget:
            raise OSError(errno.ENOTCONN, os.strerror(errno.ENOTCONN))
        return (self.connecting_to, 80)

    # What a native link takes; nothing ever arrives, and nothing can be sent.

    def try_recv(self, max_bytes: int, /) -> bytes:
        raise BlockingIOError

    def try_send(self, data: bytes | memoryview, /) -> int:
        raise BlockingIOError

    def arrived_at(self, now: float) -> float | None:
        return None

    def try_accept(self) -> tuple[ScriptedSocket, Any]:
        raise BlockingIOError

    async def wait_readable(self) -> None:
        await trio.sleep_forever()

    async def wait_writable(self) -> None:
        await trio.sleep_forever()


class ScriptedNetwork(trio.abc.SocketFactory):
    """What answers at each address, and a log of what happened when."""

    def __init__(self, answers: Mapping[str, Answer], *, missing: Mapping[int, int] | None = None) -> None:
        self.answers = answers
        self.missing = missing or {}  # families without sockets, and the errno that says so
        self.peers_forget = False
        self.began = trio.current_time()
        self.log: list[tuple[float, str, str]] = []
        self.sockets: list[ScriptedSocket] = []
        trio.socket.set_custom_socket_factory(self)

    def socket(self, family: int = socket.AF_INET, type: int = socket.SOCK_STREAM, proto: int = 0) -> ScriptedSocket:
        if family in self.missing:
            raise OSError(self.missing[family], os.strerror(self.missing[family]))
        sock = ScriptedSocket(self, family)
        self.sockets.append(sock)
        return sock

    def open_sockets(self) -> list[str | None]:
        """What the sockets that nobody has closed are connected to."""
        return [sock.connecting_to for sock in self.sockets if not sock.closed]


def names(table: Mapping[str, Sequence[str] | BaseException], *, gate: trio.Event | None = None) -> list[str]:
    """Let trio's look-ups go to ``table``; none is answered before the gate opens.

    Returns: The names that were asked for, as they are.
    """
    resolver = _Resolver(table, gate)
    trio.socket.set_custom_hostname_resolver(resolver)
    return resolver.asked


class _Resolver(trio.abc.HostnameResolver):
    def __init__(self, table: Mapping[str, Sequence[str] | BaseException], gate: trio.Event | None) -> None:
        self._table = table
        self._gate = gate
        self.asked: list[str] = []

    async def getaddrinfo(
        self, host: bytes | None, port: Any, family: int = 0, type: int = 0, proto: int = 0, flags: int = 0
    ) -> Any:
        assert host is not None
        self.asked.append(host.decode())
        await trio.lowlevel.checkpoint()
        if self._gate is not None:
            await self._gate.wait()
        found = self._table.get(host.decode(), socket.gaierror(socket.EAI_NONAME, "Name or service not known"))
        if isinstance(found, BaseException):
            raise found
        entries = []
        for text in found:
            is_v6 = ":" in text
            kind = socket.AF_INET6 if is_v6 else socket.AF_INET
            if family in (socket.AF_UNSPEC, kind):
                entries.append((kind, type, proto, "", (text, port, 0, 0) if is_v6 else (text, port)))
        return entries

    async def getnameinfo(self, sockaddr: Any, flags: int) -> tuple[str, str]:
        raise NotImplementedError
