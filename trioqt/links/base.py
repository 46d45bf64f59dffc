"""The seam: what a socket needs of whatever carries its bytes.

Above it nothing knows whether a kernel, a simulated network or a trio stream is below.  Below it nothing knows of
states, events or buffers.  Everything here raises what the system raises (``OSError``, trio's errors); who holds the
link says what that means.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Awaitable, Sequence
from typing import Any, Protocol

import trio

from trioqt.core.addresses import HostAddress, NetworkLayerProtocol
from trioqt.core.datagram import NetworkDatagram

__all__ = [
    "ENDS",
    "Ancillary",
    "Bytes",
    "DatagramLink",
    "DatagramSocket",
    "Link",
    "ListenerLink",
    "NativeSocket",
    "Resettable",
    "Sockaddr",
    "Where",
    "TO_PEER",
]

Sockaddr = tuple[Any, ...]
"""An address as the socket module has it: (host, port) or (host, port, flow info, scope id)."""

Bytes = bytes | memoryview

ENDS = (OSError, trio.BrokenResourceError, trio.ClosedResourceError)
"""What a wait on a link can end with."""
Ancillary = tuple[int, int, bytes]
"""What comes and goes beside a datagram: | level | type | data |."""
Where = tuple[str, int, str, int, int]
"""Where a datagram goes: | address | port | source | interface | hop limit |, as ``NetworkDatagram`` has them.

An empty address is the peer's; whatever else is left out there is the system's choice.
"""
TO_PEER: Where = ("", 0, "", 0, -1)


class Link(Protocol):
    """A connection that carries bytes both ways."""

    __slots__ = ()

    def can_be_asked(self) -> bool:
        """Do ``try_receive`` and ``try_send`` tell at once what is so?  Else only waiting can, as over a stream."""

    def is_drained(self) -> bool:
        """Did the last ``try_receive`` take all there was?  Then wait before the next, instead of trying in vain."""

    def look_again(self) -> None:
        """Time has passed, in which bytes may have come: it is not drained any more, for all one knows."""

    def try_receive(self, max_bytes: int) -> bytes | None:
        """Take what has arrived: ``b""`` at the peer's end, None if there is nothing or it cannot be known."""

    def wait_receivable(self, max_bytes: int) -> Awaitable[None]:
        """Wait until ``try_receive(max_bytes)`` may have something.  A full checkpoint.

        The task that calls it is the one that waits, and awaits what it gets at once.

        Raises: trio.ClosedResourceError if the link is closed, before or meanwhile.
        Cancelled: nothing was taken.
        """

    def wake(self) -> None:
        """The task in ``wait_receivable`` wakes, as if there were news or with ``trio.ClosedResourceError``.

        So may a task that waits until bytes can go.  The link stays open.
        """

    async def look(self) -> None:
        """Take in what is there, where only waiting can tell; for a turn, and no longer.

        Raises: as ``wait_receivable``, and what the link ended with.
        """

    def drop_unread(self) -> None:
        """Take what the system holds, for nobody: a close over unread bytes is a reset.  Never fails."""

    def try_send(self, data: Bytes) -> int:
        """Hand over as many bytes as can go at once; 0 if none can, or if it cannot be known."""

    def wait_sendable(self) -> Awaitable[None]:
        """Wait until ``try_send`` may take something; only of a link that can be asked.  A full checkpoint.

        Raises: trio.ClosedResourceError if the link is closed, before or meanwhile.
        """

    async def send(self, data: Bytes) -> int:
        """Wait until bytes can go, hand over what can; how many went.

        Raises: trio.ClosedResourceError if the link is closed meanwhile.
        Cancelled: a native link has sent nothing; over a stream a part may have gone, and only ``close`` is left.
        """

    async def finish_sending(self) -> None:
        """Tell the peer that no more comes.

        Raises: NotImplementedError if it can only be closed.
        Cancelled: not done, as far as a stream can tell.
        """

    def close(self, *, reset: bool = False, waited_on: bool = True) -> None:
        """End it now.  Tasks that wait in the link wake with ``trio.ClosedResourceError``.

        Args:
          reset: The peer must not take this for a clean end: bytes for it are dropped, or something went wrong.
          waited_on: False: the caller knows that no task waits in it, so none need be looked for.
        """

    def has_goodbye(self) -> bool:
        """Has ``say_goodbye`` something to say?  Then an orderly end waits for it."""

    async def say_goodbye(self, *, linger: float = 0) -> None:
        """Say what an orderly end has to say, as TLS does; ``close`` is to follow.  Cancelled: ended all the same.

        Args:
          linger: Bytes are unread, so wait for the peer's end for so many seconds at most, where it can be done.
        """

    def most_unread(self) -> int:
        """How many bytes may lie below at most, for ``try_receive`` to take."""

    def local_address(self) -> Sockaddr | None:
        """This end's address, or None where there is none."""

    def peer_address(self) -> Sockaddr | None:
        """The other end's address, or None where there is none."""

    def native(self) -> NativeSocket | None:
        """The socket below, for options and the descriptor; None where there is none."""


class ListenerLink(Protocol):
    """A socket that listens."""

    def try_accept(self) -> tuple[Link, Sockaddr]:
        """Take a connection that waits.

        Raises: BlockingIOError if none does, other OSErrors as the system gives them.
        """

    async def wait_acceptable(self) -> None:
        """Wait until a connection waits.  Raises: trio.ClosedResourceError if closed meanwhile."""

    def ignore_newcomers(self) -> bool:
        """Before it is closed: answer nobody any more, but finish what is under way; False if that is not possible."""

    def half_open(self) -> frozenset[object]:
        """Whose handshake is half done; nobody if that cannot be known."""

    def close(self) -> None:
        """Stop listening."""

    def local_address(self) -> Sockaddr:
        """Where it listens."""

    def native(self) -> NativeSocket | None:
        """The socket below; None where somebody else listens."""


class DatagramLink(Protocol):
    """A socket that carries datagrams, from anybody and to anybody, or to and from one peer."""

    __slots__ = ()

    def is_drained(self) -> bool:
        """Did the last ``try_receive`` take all there was?  Then wait before the next, instead of trying in vain."""

    def try_receive(self, arrived: deque[NetworkDatagram], most: int) -> OSError | None:
        """Append what has arrived, up to ``most`` datagrams.

        Returns: What the network says of one that was sent before; what had arrived until then is appended.
        """

    def wait_receivable(self) -> Awaitable[None]:
        """Wait until ``try_receive`` may have something.  A full checkpoint.

        Raises: trio.ClosedResourceError if the link is closed, before or meanwhile.
        Cancelled: nothing was taken.
        """

    def try_send(self, data: Bytes, where: Where) -> None:
        """Send a datagram.  Raises: BlockingIOError if there is no room, OSError; it was not sent."""

    async def wait_sendable(self) -> None:
        """Wait until there may be room.  Raises: trio.ClosedResourceError if closed meanwhile."""

    def connect(self, address: Sockaddr) -> None:
        """From now on there is one peer: what others send is not received.  Raises: OSError."""

    def dropped(self) -> int | None:
        """How many datagrams the system has dropped, because nobody took them in time; None if it does not say."""

    def join(self, group: HostAddress, interface: int, source: HostAddress | None) -> None:
        """Receive what is sent to ``group``, of ``source`` only if there is one.  Raises: OSError."""

    def leave(self, group: HostAddress, interface: int, source: HostAddress | None) -> None:
        """No more of it.  Raises: OSError."""

    def set_multicast_interface(self, interface: int) -> None:
        """Where what is sent to a group goes out; 0 lets the system choose.  Raises: OSError."""

    def close(self) -> None:
        """End it now.  Tasks that wait in the link wake with ``trio.ClosedResourceError``."""

    def protocol(self) -> NetworkLayerProtocol:
        """What it carries; ANY_IP is both."""

    def local_address(self) -> Sockaddr:
        """This end's address."""

    def peer_address(self) -> Sockaddr | None:
        """The peer's address, or None while there is none."""

    def native(self) -> DatagramSocket:
        """The socket below, for options and the descriptor."""


class NativeSocket(Protocol):
    """What the native link needs of a socket.

    The kernel's (``native.KernelSocket``) has it, and so has a simulated one.  All but the waits are sync; the
    ``try_...`` raise BlockingIOError where they would have to wait.
    """

    @property
    def family(self) -> int: ...
    def try_recv(self, max_bytes: int, /) -> bytes: ...
    def try_send(self, data: Bytes, /) -> int: ...
    def try_accept(self) -> tuple[NativeSocket, Sockaddr]: ...
    def wait_readable(self) -> Awaitable[None]: ...
    def wait_writable(self) -> Awaitable[None]: ...
    def shutdown(self, how: int, /) -> None: ...
    def wake(self) -> None:
        """The waits end, as if there were news or with ``trio.ClosedResourceError``."""

    def close(self) -> None:
        """Also wakes the waits, with ``trio.ClosedResourceError``."""

    def arrived_at(self, now: float) -> float | None:
        """When the last byte came in from the network, by trio's clock, which says ``now``; None: it is not known."""

    def fileno(self) -> int: ...
    def getsockname(self) -> Any: ...
    def getpeername(self) -> Any: ...
    def getsockopt(self, level: int, option: int, /) -> int: ...
    def setsockopt(self, level: int, option: int, value: int | bytes, /) -> None: ...


class DatagramSocket(NativeSocket, Protocol):
    """What the link for datagrams needs beside that; the ``try_...`` take addresses, and no names."""

    def try_bind(self, address: Sockaddr, /) -> None: ...
    def try_connect(self, address: Sockaddr, /) -> None: ...
    def try_send_to(self, data: Bytes, address: Sockaddr, /) -> int: ...
    def try_send_message(
        self, buffers: Sequence[Bytes], ancillary: Sequence[Ancillary], flags: int, address: Sockaddr | None, /
    ) -> int: ...
    def try_receive_message(
        self, max_bytes: int, max_ancillary: int, /
    ) -> tuple[bytes, list[Ancillary], int, Sockaddr]: ...
    def option_bytes(self, level: int, option: int, size: int, /) -> bytes: ...
    def interface_index(self, name: str, /) -> int: ...
    def interface_name(self, index: int, /) -> str: ...


class Resettable(ABC):
    """What lies above the seam and may come to lie below it again: one of our sockets, with TLS over it."""

    __slots__ = ()

    @abstractmethod
    def abort(self, *, reset: bool = False) -> None:
        """Drop the connection, now; with ``reset`` the peer must not take that for a clean end."""
