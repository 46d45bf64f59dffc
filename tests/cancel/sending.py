"""A send that was cancelled sent nothing, not one byte; one that returned arrives whole and in order."""

from __future__ import annotations

import functools
import re
from collections.abc import Awaitable, Callable, Iterator

import attrs
import trio

from tests.cancel.kit import MEDIA, Case, Peer, Play, Seen, Situation, Trial, read_to_end, turn
from trioqt import SocketError, SocketState, TcpSocket

__all__ = ["CASES", "VERBS"]


@attrs.define(eq=False)
class Sending:
    """What one sender wants to send, and what it was told is queued."""

    trial: Trial
    sock: TcpSocket
    size: int
    letters: bytes = b"ABCD"
    accepted: bytearray = attrs.Factory(bytearray)
    end: str = ""
    """Why it stopped before all messages were through."""

    def messages(self) -> Iterator[bytes]:
        for letter in self.letters:
            yield bytes([letter]) * self.size

    def fill(self) -> None:
        """Write more than the link takes at once."""
        self.write(b"." * self.size * 5)
        self.trial.expect(self.sock.bytes_to_write() > self.size, "bytes are queued")

    def write(self, data: bytes) -> None:
        self.sock.write(data)
        self.accepted += data


Verb = Callable[[Sending], Awaitable[None]]


async def send_all(sending: Sending) -> None:
    """A message that was cancelled is not sent again: then the peer must not have it, not even in part."""
    for message in sending.messages():
        await sending.trial.call(sending.sock.send_all, message)
        if not sending.trial.cancelled:
            sending.accepted += message


async def wait_send_all_might_not_block(sending: Sending) -> None:
    """What follows it is never refused."""
    for message in sending.messages():
        await sending.trial.call(sending.sock.wait_send_all_might_not_block)
        if not sending.trial.cancelled:
            sending.write(message)


async def wait_for_bytes_written(sending: Sending) -> None:
    """What is queued goes on, whether anybody waits for it or not."""
    for message in sending.messages():
        await sending.trial.call(sending.sock.wait_for_bytes_written)
        if not sending.trial.cancelled:
            sending.trial.equal("queued after wait_for_bytes_written", sending.sock.bytes_to_write(), 0)
            sending.write(message)


async def send_eof(sending: Sending) -> None:
    """Cancelled: sending goes on, and can be finished later."""
    sock, trial = sending.sock, sending.trial
    await trial.call(sock.send_eof)
    if trial.cancelled:
        for message in sending.messages():
            await sock.send_all(message)
            sending.accepted += message
        await sock.send_eof()
    try:
        sock.write(b"more")
    except trio.ClosedResourceError:
        return
    trial.expect(False, "sending is finished")


VERBS: dict[str, Verb] = {
    "send_all": send_all,
    "wait_send_all_might_not_block": wait_send_all_might_not_block,
    "wait_for_bytes_written": wait_for_bytes_written,
    "send_eof": send_eof,
}


async def send_everything(verb: Verb, sending: Sending) -> None:
    """Do it, and keep the reason if it ends early."""
    try:
        await verb(sending)
    except SocketError as error:
        sending.end = error.kind.name
    except trio.ClosedResourceError:
        sending.end = "closed"


def size_of(trial: Trial, *, full: bool) -> int:
    """A message that takes a while to go, or one that goes at once."""
    if trial.medium == "memory":
        return 50 if full else 5
    if trial.medium == "tls":
        return 8000 if full else 100  # more than a record, which nobody can read in part
    return 3000 if full else 100


def to_a_reader(
    verb: Verb,
    *,
    full: bool = False,
    write_buffer_size: int = 65536,
    finishes: bool = False,
    beside: Callable[[Trial, TcpSocket, Sending], Awaitable[None]] | None = None,
) -> Play:
    """A peer that reads everything, slowly, gets all that was accepted and then the end.

    Args:
      full: The queue is not empty when it begins.
      finishes: The peer has finished sending by the time it begins to read.
      beside: What another task does meanwhile.
    """

    async def play(trial: Trial) -> None:
        seen = Seen()

        async def read(peer: Peer) -> None:
            await turn()
            if finishes:
                peer.finish()
            await read_to_end(peer, seen, pause=1)

        async with trial.pair(write_buffer_size=write_buffer_size) as (sock, peer):
            # Linux acknowledges late to a peer that has finished, and then the schedule depends on real time.
            sending = Sending(trial, sock, size_of(trial, full=full), b"AB" if finishes else b"ABCD")
            trial.nursery.start_soon(read, peer)
            if full:
                sending.fill()
            async with trio.open_nursery() as nursery:
                if beside is not None:
                    nursery.start_soon(beside, trial, sock, sending)
                await send_everything(verb, sending)
        await seen.over.wait()

        trial.equal("ended early by", sending.end, "")
        trial.equal("the peer's end", seen.end, "clean")
        trial.equal("the peer's data", brief(seen.data), brief(sending.accepted))

    return play


def peer_resets(verb: Verb) -> Play:
    """What the peer had not taken is lost; every call says so, from then on."""

    async def play(trial: Trial) -> None:
        seen = bytearray()

        async def read_a_little(peer: Peer) -> None:
            await turn(2)
            seen.extend(await peer.receive(10))
            await turn()
            peer.reset()

        async with trial.pair(write_buffer_size=1) as (sock, peer):
            trial.nursery.start_soon(read_a_little, peer)
            sending = Sending(trial, sock, size_of(trial, full=True))
            sending.fill()
            while not sending.end:
                # One after the other, until it is found out.
                await send_everything(verb, sending)
                await turn()

            trial.equal("ended early by", sending.end, "REMOTE_HOST_CLOSED")
            trial.equal("state", sock.state(), SocketState.UNCONNECTED)
            trial.equal("queued", sock.bytes_to_write(), 0)
            trial.expect(sending.accepted.startswith(seen), "the peer has seen nothing else")
            for call in (sock.send_all, sock.write):
                try:
                    result = call(b"x")
                    if isinstance(result, Awaitable):
                        await result
                except SocketError as error:
                    trial.equal("a later call raises", error.kind.name, "REMOTE_HOST_CLOSED")
                else:
                    trial.expect(False, "a later call raises")

    return play


def aborted(verb: Verb) -> Play:
    """Another task aborts the socket while bytes are queued: the peer must not see a clean end."""

    async def play(trial: Trial) -> None:
        seen = Seen()

        async def abort(sock: TcpSocket) -> None:
            await turn(3)
            trial.expect(sock.bytes_to_write() > 0, "bytes are queued when it is aborted")
            sock.abort()

        async with trial.pair(write_buffer_size=1) as (sock, peer):
            sending = Sending(trial, sock, size_of(trial, full=True))
            sending.fill()
            trial.nursery.start_soon(abort, sock)
            while not sending.end:
                await send_everything(verb, sending)
                await turn()
            await read_to_end(peer, seen)

        trial.equal("ended early by", sending.end, "closed")
        trial.equal("the peer's end", seen.end, "reset")
        trial.expect(sending.accepted.startswith(seen.data), "the peer has seen nothing else")

    return play


async def a_receiver(trial: Trial, sock: TcpSocket, sending: Sending) -> None:
    """Waits for what the peer never says; the end of the block wakes it."""

    async def receive() -> None:
        try:
            trial.equal("received", await sock.receive_some(), b"")
        except trio.ClosedResourceError:
            pass  # it is a matter of speed which of the two ends it meets

    trial.nursery.start_soon(receive)


async def a_writer(trial: Trial, sock: TcpSocket, sending: Sending) -> None:
    """``write`` may be called from any task at any time: it goes out whole, between messages."""
    for letter in b"xyz":
        await turn(2)
        try:
            sending.write(bytes([letter]) * 7)
        except trio.WouldBlock:
            pass
        except trio.ClosedResourceError:
            return  # send_eof was faster


async def a_sender(trial: Trial, sock: TcpSocket, sending: Sending) -> None:
    """A second sender is refused, and disturbs nothing."""
    try:
        await sock.send_all(b"x" * sending.size)
    except trio.BusyResourceError:
        return
    trial.expect(False, "the second sender is refused")


async def a_watcher(trial: Trial, sock: TcpSocket, sending: Sending) -> None:
    async def wait() -> None:
        async with sock.events() as events:
            async for _ in events:
                pass

    trial.nursery.start_soon(wait)
    trial.nursery.start_soon(sock.wait_for_disconnected)


def brief(data: bytes | bytearray) -> list[tuple[str, int]]:
    """How many of which letter, in their order: three thousand letters are hard to read."""
    return [(run[0][0], len(run[0])) for run in re.finditer(r"(.)\1*", data.decode())]


when_full = functools.partial(to_a_reader, full=True, write_buffer_size=1)

# fmt: off
PLAYS: tuple[tuple[Situation, str, Callable[[Verb], Play]], ...] = (
    ("answered at once", "",              to_a_reader),
    ("has to wait",      "",              functools.partial(to_a_reader, full=True, write_buffer_size=4000)),
    ("full queue",       "",              when_full),
    ("peer finishes",    "",              functools.partial(when_full, finishes=True)),
    ("peer resets",      "",              peer_resets),
    ("second task",      "aborted",       aborted),
    ("second task",      "a receiver",    functools.partial(when_full, beside=a_receiver)),
    ("second task",      "a writer",      functools.partial(when_full, beside=a_writer)),
    ("second task",      "a watcher",     functools.partial(when_full, beside=a_watcher)),
)
# fmt: on


# These share send_all's wait for room, and the drainer that all of them need.
THIN = ("wait_send_all_might_not_block", "wait_for_bytes_written")
NOT_THERE = ("a receiver", "a watcher")


def _cases() -> list[Case]:
    return [
        Case(f"TcpSocket.{name}", situation, make(verb), medium, variant)
        for name, verb in VERBS.items()
        for situation, variant, make in PLAYS
        for medium in MEDIA
        if not (name in THIN and variant in NOT_THERE)
    ] + [
        Case(
            "TcpSocket.send_all",
            "second task",
            when_full(send_all, beside=a_sender),
            medium,
            "a sender",
        )
        for medium in MEDIA
    ]


CASES = _cases()
