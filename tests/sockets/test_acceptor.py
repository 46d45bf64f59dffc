"""The listening sockets of a server, by themselves: what a server decides in the midst of a step of theirs."""

from __future__ import annotations

import trio
import trio.testing

from trioqt.links.base import Link, ListenerLink, NativeSocket, Sockaddr
from trioqt.sockets.acceptor import Acceptor


class Listener(ListenerLink):
    """One client is half in; so many others wait to be accepted, and are nobody that anything is asked of."""

    def __init__(self, waiting: int) -> None:
        self.waiting = waiting
        self.closed = 0

    def try_accept(self) -> tuple[Link, Sockaddr]:
        if not self.waiting:
            raise BlockingIOError
        self.waiting -= 1
        return None, ("10.0.0.1", 4000)  # type: ignore[return-value]

    async def wait_acceptable(self) -> None:
        await trio.sleep_forever()

    def ignore_newcomers(self) -> bool:
        return True

    def half_open(self) -> frozenset[object]:
        return frozenset({"a client"})

    def close(self) -> None:
        self.closed += 1

    def local_address(self) -> Sockaddr:
        return ("10.0.0.2", 80)

    def native(self) -> NativeSocket | None:
        return None


class Server:
    """It closes at the first connection, as a factory may have it do."""

    def __init__(self) -> None:
        self._lot = trio.lowlevel.ParkingLot()
        self.acceptor = Acceptor(self, is_shared=False)
        self.admitted = 0

    def _has_room(self) -> bool:
        return False

    def _admit(self, link: Link, peer: Sockaddr) -> None:
        self.admitted += 1
        self.acceptor.close()

    def _admit_or_refuse(self, link: Link, peer: Sockaddr) -> None:
        self._admit(link, peer)

    def _note_accept_failure(self, exc: Exception, what_now: str) -> None:
        raise AssertionError(exc)


async def test_who_is_half_in_is_not_waited_for_behind_a_close_in_the_same_step() -> None:
    """The first listening socket has somebody half in; what the second brings closes the server, and that is all."""
    server, first, second = Server(), Listener(0), Listener(2)
    async with trio.open_nursery() as nursery:
        server.acceptor.begin([first, second], nursery)

        assert server.acceptor.finish()
        assert (server.admitted, first.closed, second.closed) == (1, 1, 1)


async def test_who_is_half_in_is_waited_for_until_the_server_closes() -> None:
    """The wait ends with the close, and nothing is left for whoever has waited to do."""
    server, listener = Server(), Listener(0)
    waited: list[bool] = []

    async def wait() -> None:
        waited.append(await server.acceptor.wait_for_handshakes())

    async with trio.open_nursery() as nursery:
        server.acceptor.begin([listener], nursery)
        is_all = server.acceptor.finish()
        nursery.start_soon(wait)
        await trio.testing.wait_all_tasks_blocked()
        server.acceptor.close()

    assert (is_all, waited, listener.closed) == (False, [False], 1)
