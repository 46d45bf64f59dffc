"""Links over native sockets: what is asked at once, what waits, and how waits end."""

from __future__ import annotations

import errno
import gc
import socket
import tracemalloc
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import attrs
import pytest
import trio
import trio.testing

from tests.links.scripted import Answer, ScriptedNetwork, ScriptedSocket
from tests.networks import Network, RawPeer
from trioqt.links.native import KernelSocket, NativeLink, NativeListener, native_socket


@attrs.frozen
class Ends:
    """A native link and its scripted peer."""

    link: NativeLink
    peer: RawPeer

    async def fill(self) -> int:
        """Send until the kernel takes no more; how many bytes that were."""
        total = 0
        while sent := self.link.try_send(bytes(1 << 20)):
            total += sent
        return total


@asynccontextmanager
async def linked(network: Network) -> AsyncIterator[Ends]:
    with await network.raw_listener() as listener:
        sock = trio.socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        await sock.connect((network.host, listener.port))
        link = NativeLink(native_socket(sock), ("known", 1))
        try:
            with await listener.accept() as peer:
                yield Ends(link, peer)
        finally:
            link.close()


async def arrival(link: NativeLink) -> None:
    """Until there is something to receive."""
    await link.native().wait_readable()


# ---- Receiving ---------------------------------------------------------------------------------


async def test_nothing_there_is_none_and_the_end_is_empty_bytes(network: Network) -> None:
    """Three answers that must not be confused: not yet, some, never again."""
    async with linked(network) as ends:
        before = ends.link.try_receive(10)
        await ends.peer.send(b"word")
        await arrival(ends.link)
        some = ends.link.try_receive(10)
        between = ends.link.try_receive(10)
        ends.peer.finish()
        await arrival(ends.link)
        end = ends.link.try_receive(10)

    assert (before, some, between, end) == (None, b"word", None, b"")


async def test_a_short_take_says_that_the_system_is_drained(network: Network) -> None:
    """Fewer bytes than asked for means there were no more: the next receive waits, instead of trying in vain."""
    async with linked(network) as ends:
        at_first = ends.link.is_drained()
        await ends.peer.send(b"0123456789")
        await arrival(ends.link)
        first, after_first = ends.link.try_receive(4), ends.link.is_drained()
        rest, after_rest = ends.link.try_receive(100), ends.link.is_drained()
        ends.link.look_again()
        told_to_look = ends.link.is_drained()

    assert (first, rest) == (b"0123", b"456789")
    assert (at_first, after_first, after_rest, told_to_look) == (True, False, True, False)


async def test_a_vain_try_says_that_the_system_is_drained(network: Network) -> None:
    """After the kernel has said that it would block, the next receive need not ask it again."""
    async with linked(network) as ends:
        ends.link.look_again()
        nothing = ends.link.try_receive(10)

        assert nothing is None
        assert ends.link.is_drained()


async def test_a_wait_ends_when_bytes_arrive_and_takes_none(network: Network) -> None:
    """Waiting and taking are two steps, so a wait that is cancelled has lost nothing."""
    async with linked(network) as ends:
        await ends.peer.send(b"x")
        await ends.link.wait_receivable(10)
        await ends.link.wait_receivable(10)

        assert ends.link.try_receive(10) == b"x"


async def test_a_cancelled_wait_leaves_the_bytes_for_the_next(network: Network) -> None:
    """Cancelled means it did not happen."""
    async with linked(network) as ends:
        with trio.CancelScope() as scope:
            scope.cancel()
            await ends.link.wait_receivable(10)
        await ends.peer.send(b"still here")
        await ends.link.wait_receivable(10)

        assert scope.cancelled_caught
        assert ends.link.try_receive(100) == b"still here"


async def test_a_reset_is_raised_by_whatever_asks_first(network: Network) -> None:
    """The link raises what the system raises; what that means is for its owner to say."""
    async with linked(network) as ends:
        ends.peer.reset()
        await arrival(ends.link)

        with pytest.raises(ConnectionResetError):
            ends.link.try_receive(10)


# ---- Sending -----------------------------------------------------------------------------------


async def test_a_full_kernel_takes_nothing(network: Network) -> None:
    """Zero means: wait, then try again; it is never an error."""
    async with linked(network) as ends:
        filled = await ends.fill()

        assert filled > 0
        assert ends.link.try_send(b"more") == 0


async def test_send_waits_for_room_and_says_how_much_went(network: Network) -> None:
    """Short writes are the rule: whoever sends must look at the number."""
    async with linked(network) as ends:
        filled = await ends.fill()
        went: list[int] = []

        async def send() -> None:
            went.append(await ends.link.send(bytes(10_000_000)))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(send)
            await trio.testing.wait_all_tasks_blocked()
            waited = not went
            received = await ends.peer.receive(filled)

        assert waited
        assert received == bytes(filled)
        assert 0 < went[0] < 10_000_000


async def test_a_cancelled_send_has_sent_nothing(network: Network) -> None:
    """The peer receives what was sent before, and not a byte of the one that was cancelled."""
    async with linked(network) as ends:
        filled = await ends.fill()
        with trio.CancelScope() as scope:
            scope.cancel()
            await ends.link.send(b"never")
        received: list[bytes] = []

        async def receive() -> None:
            received.append(await ends.peer.receive_to_end())

        async with trio.open_nursery() as nursery:
            nursery.start_soon(receive)
            await ends.link.finish_sending()

        assert scope.cancelled_caught
        assert received == [bytes(filled)]


async def test_finishing_tells_the_peer_and_leaves_the_other_direction_open(network: Network) -> None:
    """Half-close: the peer has the end, and its answer still comes."""
    async with linked(network) as ends:
        assert ends.link.try_send(b"question") == 8
        await ends.link.finish_sending()
        question = await ends.peer.receive_to_end()
        await ends.peer.send(b"answer")
        await ends.link.wait_receivable(10)

        assert question == b"question"
        assert ends.link.try_receive(10) == b"answer"


# ---- Closing -----------------------------------------------------------------------------------


async def test_closing_is_an_end_and_a_second_time_nothing(network: Network) -> None:
    """The peer sees an ordinary end; closing again, either way, changes nothing.  There is no goodbye before it."""
    async with linked(network) as ends:
        await ends.link.say_goodbye()
        assert ends.link.try_send(b"last") == 4
        ends.link.close()
        ends.link.close(reset=True)
        await ends.link.say_goodbye()

        assert await ends.peer.receive_to_end() == b"last"
        assert ends.link.native().fileno() == -1


async def test_closing_with_a_reset_is_no_clean_end(network: Network) -> None:
    """Who drops bytes must not let the peer take what it has for the whole."""
    async with linked(network) as ends:
        ends.link.close(reset=True)

        with pytest.raises(ConnectionResetError):
            await ends.peer.receive_to_end()


async def test_closing_wakes_who_waits(network: Network) -> None:
    """A receiver and a sender that wait in the link are told, and not left behind."""
    async with linked(network) as ends:
        await ends.fill()
        ended: list[str] = []

        async def receive() -> None:
            with pytest.raises(trio.ClosedResourceError):
                await ends.link.wait_receivable(10)
            ended.append("receiver")

        async def send() -> None:
            with pytest.raises(trio.ClosedResourceError):
                await ends.link.send(b"more")
            ended.append("sender")

        async with trio.open_nursery() as nursery:
            nursery.start_soon(receive)
            nursery.start_soon(send)
            await trio.testing.wait_all_tasks_blocked()
            ends.link.close()

        assert sorted(ended) == ["receiver", "sender"]


async def test_a_sender_that_could_go_on_when_the_link_was_closed_is_told_so() -> None:
    """Room came and the link was closed in one step: the sender hears of the end, not of a bad descriptor."""
    sock = OpenGate(ScriptedNetwork({}), socket.AF_INET)
    link = NativeLink(sock)

    async def send() -> None:
        with pytest.raises(trio.ClosedResourceError):
            await link.send(b"more")

    async with trio.open_nursery() as nursery:
        nursery.start_soon(send)
        await trio.testing.wait_all_tasks_blocked()
        sock.gate.set()
        link.close()

    assert sock.tried == 0


async def test_a_closed_link_takes_no_more_waits(network: Network) -> None:
    """Whoever comes after the end is told at once, whatever the number of the descriptor is used for by then."""
    async with linked(network) as ends:
        ends.link.close()

        with pytest.raises(trio.ClosedResourceError):
            await ends.link.wait_receivable(10)
        with pytest.raises(trio.ClosedResourceError):
            await ends.link.send(b"x")


async def test_a_system_that_refuses_the_reset_is_closed_all_the_same() -> None:
    """macOS takes no option on a connection that the peer has reset; ``abort`` must not fail over that."""
    sock = Stubborn(ScriptedNetwork({}), socket.AF_INET)

    NativeLink(sock).close(reset=True)

    assert sock.refused == 1
    assert sock.closed


async def test_addresses(network: Network) -> None:
    """The peer's is kept as it was at the beginning, for the kernel forgets it; our own is the kernel's."""
    async with linked(network) as ends:
        local = ends.link.local_address()
        ends.peer.reset()
        await arrival(ends.link)

        assert local == ends.link.native().getsockname()
        assert ends.link.peer_address() == ("known", 1)


# ---- Sockets of the kernel and others ----------------------------------------------------------


async def test_a_kernel_socket_leaves_trios_wrapper() -> None:
    """One descriptor has one owner: trio's object is empty afterwards, and closing it closes nothing."""
    sock = trio.socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    descriptor = sock.fileno()

    native = native_socket(sock)
    sock.close()

    assert isinstance(native, KernelSocket)
    assert native.fileno() == descriptor
    assert native.gettimeout() == 0.0
    native.close()


async def test_a_simulated_socket_is_taken_as_it_is() -> None:
    """What offers the calls of a native link needs no kernel."""
    sock = ScriptedSocket(ScriptedNetwork({"1.1.1.1": Answer()}), socket.AF_INET)

    native: object = native_socket(sock)

    assert native is sock


def test_a_kernel_socket_closes_outside_of_trio() -> None:
    """As when the interpreter ends: there is nobody to wake, and that is no error."""
    native = KernelSocket.adopt(socket.socket())

    native.close()
    native.close()

    assert native.fileno() == -1


def test_a_link_that_nobody_closed_is_told_of() -> None:
    """A leak is seen: Python's own warning about an unclosed socket is not lost."""

    def leak() -> None:
        NativeLink(KernelSocket.adopt(socket.socket()))
        gc.collect()

    with pytest.warns(ResourceWarning, match="unclosed"):
        leak()


# ---- Listening ---------------------------------------------------------------------------------


async def test_a_listener_gives_what_waits_and_says_when_nothing_does(network: Network) -> None:
    """Each accepted connection comes with its peer's address, non-blocking; without one the answer is at once."""
    raw = await network.raw_listener()
    listener = NativeListener(native_socket(raw.sock))
    with pytest.raises(BlockingIOError):
        listener.try_accept()

    with await network.raw_connect(listener.local_address()[1]) as client:
        await listener.wait_acceptable()
        link, peer = listener.try_accept()

        assert peer == link.peer_address() == client.sock.getsockname()
        assert link.local_address() == listener.local_address()
        assert link.try_receive(10) is None
        link.close()
    listener.close()


async def test_closing_a_listener_wakes_who_waits(network: Network) -> None:
    """Who waits for a connection is told that none comes, and so is who asks later."""
    raw = await network.raw_listener()
    listener = NativeListener(native_socket(raw.sock))
    ended: list[str] = []

    async def wait() -> None:
        with pytest.raises(trio.ClosedResourceError):
            await listener.wait_acceptable()
        ended.append("waiter")

    async with trio.open_nursery() as nursery:
        nursery.start_soon(wait)
        await trio.testing.wait_all_tasks_blocked()
        listener.close()
        listener.close()

    assert ended == ["waiter"]
    assert listener.native().fileno() == -1
    with pytest.raises(trio.ClosedResourceError):
        await listener.wait_acceptable()


class OpenGate(ScriptedSocket):
    """Can be written to once its gate is open."""

    def __init__(self, network: ScriptedNetwork, family: int) -> None:
        super().__init__(network, family)
        self.gate = trio.Event()
        self.tried = 0

    async def wait_writable(self) -> None:
        await self.gate.wait()

    def try_send(self, data: bytes | memoryview, /) -> int:
        self.tried += 1
        raise OSError(errno.EBADF, "Bad file descriptor")


class Stubborn(ScriptedSocket):
    """Takes no option any more."""

    refused = 0

    def setsockopt(self, level: int, option: int, value: object, length: int | None = None) -> None:
        self.refused += 1
        raise OSError(errno.EINVAL, "Invalid argument")


# ---- Accepting ---------------------------------------------------------------------------------


class Crowd:
    """A listening socket to which peers come from made-up addresses."""

    def __init__(self) -> None:
        self.numbers = iter(range(1 << 20))

    def try_accept(self) -> tuple[object, tuple[str, int]]:
        return object(), (f"2001:db8::{next(self.numbers):x}", 4000)


def test_addresses_that_are_gone_are_not_kept() -> None:
    """Who makes up addresses fills no memory with them."""
    listener = NativeListener(Crowd())  # type: ignore[arg-type]

    def come(count: int) -> None:
        for _ in range(count):
            listener.try_accept()

    come(5_000)
    tracemalloc.start()
    try:
        before, _ = tracemalloc.get_traced_memory()
        come(20_000)
        gc.collect()
        after, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()

    assert after - before < 400_000  # 20 bytes an address; its text alone has more than 60


def test_connections_of_one_client_share_the_text_of_its_address() -> None:
    """So that ten thousand of them keep one."""

    class Client(Crowd):
        def try_accept(self) -> tuple[object, tuple[str, int]]:
            return object(), ("".join(["192.0.2", ".", "1"]), 4000)

    listener = NativeListener(Client())  # type: ignore[arg-type]
    one, other = (listener.try_accept()[1][0] for _ in range(2))

    assert one is other
