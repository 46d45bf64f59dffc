"""A receive that was cancelled took nothing: going on afterwards gives every byte, once and in order."""

from __future__ import annotations

import functools
from collections.abc import Awaitable, Callable, Sequence

import attrs
import trio

from tests.cancel.kit import MEDIA, Case, Peer, Play, Seen, Situation, Trial, read_to_end, turn
from tests.cancel.watching import facts_told
from trioqt import DataStream, Event, SocketError, TcpSocket

__all__ = ["CASES", "CHUNKS", "DATA", "VERBS", "Verb", "receive_all", "talk"]

# No piece ends where a chunk does, and the last line is not ended.
CHUNKS = (b"al", b"pha\nbra", b"vo\nchar", b"lie\nrest!")
DATA = b"".join(CHUNKS)

Step = Callable[[], Awaitable[bytes]]
"""What one receiver does: it gives bytes, or ``b""`` at the end."""


@attrs.frozen
class Verb:
    """One way to receive."""

    step: Callable[[TcpSocket], Step]
    end: str = "end"
    """What a finish of the peer in the middle ends with."""
    through: str = ""


def ready_read(sock: TcpSocket) -> Step:
    async def wait_for_ready_read() -> bytes:
        return sock.read_all() if await sock.wait_for_ready_read() else b""

    return wait_for_ready_read


def in_transaction(sock: TcpSocket) -> Step:
    async def transaction() -> bytes:
        async with sock.transaction():
            return await sock.receive_exactly(2) + await sock.receive_exactly(2)

    return transaction


def of_four(stream: DataStream) -> bytes:
    return stream.read_raw_data(2) + stream.read_raw_data(2)


# fmt: off
VERBS = {
    "receive_some":        Verb(lambda sock: sock.receive_some),
    "__anext__":           Verb(lambda sock: sock.__anext__),
    "receive_line":        Verb(lambda sock: sock.receive_line),
    "receive_until":       Verb(lambda sock: functools.partial(sock.receive_until, b"a\n"), "REMOTE_HOST_CLOSED"),
    "receive_exactly":     Verb(lambda sock: functools.partial(sock.receive_exactly, 4), "REMOTE_HOST_CLOSED"),
    "receive_message":     Verb(lambda sock: functools.partial(sock.receive_message, of_four), "REMOTE_HOST_CLOSED"),
    "transaction":         Verb(in_transaction, "REMOTE_HOST_CLOSED"),
    "lines":               Verb(lambda sock: sock.lines().__anext__, through="__anext__"),
    "wait_for_ready_read": Verb(ready_read),
}
# fmt: on


async def receive_all(trial: Trial, sock: TcpSocket, verb: Verb, got: bytearray) -> str:
    """Call again and again, adding what comes to ``got``.  How it ended."""
    step = verb.step(sock)
    while True:
        try:
            piece = await trial.call(step)
        except StopAsyncIteration:
            return "end"
        except SocketError as error:
            got += sock.read_all()  # what came in the middle of a piece stays readable
            return error.kind.name
        except trio.ClosedResourceError:
            return "closed"
        if trial.cancelled:
            continue
        if not piece:
            return "end"
        got += piece


async def talk(peer: Peer, chunks: Sequence[bytes], end: Callable[[], object], *, pause_at_end: int = 0) -> None:
    """Send a chunk a turn, and end it."""
    for chunk in chunks:
        await turn()
        await peer.send(chunk)
    await turn(pause_at_end)
    end()


def at_once(verb: Verb, *, buffered: bool = False) -> Play:
    """Everything is there, the end too; ``buffered``: in the socket's own buffer."""

    async def play(trial: Trial) -> None:
        got = bytearray()
        async with trial.pair() as (sock, peer):
            await peer.send(DATA)
            if buffered:
                await sock.wait_for_ready_read()
            peer.finish()

            end = await receive_all(trial, sock, verb, got)

            trial.equal("received", bytes(got), DATA)
            trial.equal("ended", end, verb.end)
            peer.close()

    return play


def waits(verb: Verb) -> Play:
    """Chunks come one by one, the last one with the end behind it."""

    async def play(trial: Trial) -> None:
        got = bytearray()
        async with trial.pair() as (sock, peer):
            trial.nursery.start_soon(talk, peer, CHUNKS, peer.finish)

            end = await receive_all(trial, sock, verb, got)

            trial.equal("received", bytes(got), DATA)
            trial.equal("ended", end, verb.end)
            peer.close()

    return play


def peer_finishes(verb: Verb) -> Play:
    """The end comes alone, while a receiver waits for the rest of a piece.  Sending goes on after it."""

    async def play(trial: Trial) -> None:
        got = bytearray()
        seen = Seen()
        async with trial.pair() as (sock, peer):
            trial.nursery.start_soon(functools.partial(talk, peer, CHUNKS, peer.finish, pause_at_end=1))
            trial.nursery.start_soon(read_to_end, peer, seen)

            end = await receive_all(trial, sock, verb, got)
            await sock.send_all(b"thanks")

            trial.equal("received", bytes(got), DATA)
            trial.equal("ended", end, verb.end)
            trial.expect(sock.is_valid(), "a half-open socket stays connected")
        await seen.over.wait()
        trial.equal("the peer's view", (bytes(seen.data), seen.end), (b"thanks", "clean"))

    return play


def peer_resets(verb: Verb) -> Play:
    """The last chunk has a reset behind it, and can be read all the same."""

    async def play(trial: Trial) -> None:
        got = bytearray()
        async with trial.pair() as (sock, peer):
            trial.nursery.start_soon(talk, peer, CHUNKS, peer.reset)

            end = await receive_all(trial, sock, verb, got)

            trial.equal("received", bytes(got), DATA)
            trial.equal("ended", end, "REMOTE_HOST_CLOSED")

    return play


def beside_a_sender(verb: Verb) -> Play:
    async def play(trial: Trial) -> None:
        got = bytearray()
        seen = Seen()
        messages = [b"one", b"two", b"three", b"four"]

        async def send(sock: TcpSocket) -> None:
            for message in messages:
                await turn()
                await sock.send_all(message)

        async with trial.pair() as (sock, peer):
            trial.nursery.start_soon(talk, peer, CHUNKS, peer.finish)
            trial.nursery.start_soon(read_to_end, peer, seen)
            async with trio.open_nursery() as nursery:
                nursery.start_soon(send, sock)
                end = await receive_all(trial, sock, verb, got)

            trial.equal("received", bytes(got), DATA)
            trial.equal("ended", end, verb.end)
        await seen.over.wait()
        trial.equal("the peer's view", (bytes(seen.data), seen.end), (b"".join(messages), "clean"))

    return play


def watched(verb: Verb, *, half_open: bool = True) -> Play:
    """A subscriber comes and goes, and another task waits for the end: all of it reads ahead."""

    async def play(trial: Trial) -> None:
        got = bytearray()
        events: list[Event] = []

        async def subscribe_for_a_while(sock: TcpSocket) -> None:
            await turn()
            async with sock.events() as subscription:
                await anext(subscription)

        async def subscribe(sock: TcpSocket, *, task_status: trio.TaskStatus[None]) -> None:
            async with sock.events() as subscription:
                task_status.started()
                async for event in subscription:
                    events.append(event)

        async with trial.pair(half_open=half_open) as (sock, peer):
            told_before = len(sock.told)  # type: ignore[attr-defined]
            await trial.nursery.start(subscribe, sock)
            trial.nursery.start_soon(subscribe_for_a_while, sock)
            trial.nursery.start_soon(sock.wait_for_disconnected)
            trial.nursery.start_soon(talk, peer, CHUNKS, peer.finish)

            end = await receive_all(trial, sock, verb, got)

            trial.equal("received", bytes(got), DATA)
            trial.equal("ended", end, verb.end)
            peer.close()
        await turn()
        trial.equal("events", facts_told(events), sock.told[told_before:])  # type: ignore[attr-defined]

    return play


def aborted(verb: Verb) -> Play:
    """Another task aborts the socket while the receiver waits."""

    async def play(trial: Trial) -> None:
        got = bytearray()
        seen, data = Seen(), b"alpha\nbanda\n"

        async def abort(sock: TcpSocket) -> None:
            while got != data:
                await turn()
            sock.abort()

        async with trial.pair() as (sock, peer):
            trial.nursery.start_soon(talk, peer, [b"alpha\n", b"banda\n"], int)
            trial.nursery.start_soon(read_to_end, peer, seen)
            trial.nursery.start_soon(abort, sock)

            end = await receive_all(trial, sock, verb, got)

            trial.equal("received", bytes(got), data)
            trial.equal("ended", end, "closed")
        await seen.over.wait()
        # Nothing was dropped.  But a stream has no other hasty end than one without a goodbye.
        end = "clean" if trial.medium != "memory" else "reset"
        trial.equal("the peer's view", (bytes(seen.data), seen.end), (b"", end))

    return play


def second_receiver(verb: Verb) -> Play:
    """A second receiver is refused, and disturbs nothing."""

    async def play(trial: Trial) -> None:
        got = bytearray()
        refused: list[bool] = []

        async def intrude(sock: TcpSocket) -> None:
            await turn()
            try:
                await sock.receive_some()
            except trio.BusyResourceError:
                refused.append(True)

        async with trial.pair() as (sock, peer):
            trial.nursery.start_soon(talk, peer, CHUNKS, peer.finish)
            trial.nursery.start_soon(intrude, sock)

            end = await receive_all(trial, sock, verb, got)

            trial.equal("received", bytes(got), DATA)
            trial.equal("ended", end, verb.end)
            trial.equal("refused", refused, [True])
            peer.close()

    return play


# fmt: off
PLAYS: tuple[tuple[Situation, str, Callable[[Verb], Play]], ...] = (
    ("answered at once", "",                at_once),
    ("answered at once", "from the buffer", functools.partial(at_once, buffered=True)),
    ("has to wait",      "",                waits),
    ("peer finishes",    "",                peer_finishes),
    ("peer resets",      "",                peer_resets),
    ("second task",      "a sender",        beside_a_sender),
    ("second task",      "watched",         watched),
    ("second task",      "not half-open",   functools.partial(watched, half_open=False)),
    ("second task",      "aborted",         aborted),
    ("second task",      "a receiver",      second_receiver),
)
# fmt: on

# These call another verb, and have little of their own that could go wrong: a part of the plays will do.
THIN = ("receive_until", "__anext__", "lines")


def _cases() -> list[Case]:
    return [
        Case(f"TcpSocket.{name}", situation, make(verb), medium, variant, verb.through)
        for name, verb in VERBS.items()
        for situation, variant, make in PLAYS
        for medium in MEDIA
        if not (name in THIN and variant not in ("", "watched"))
        and not (name == "wait_for_ready_read" and variant == "from the buffer")  # there, what is buffered is seen
    ] + [
        Case(
            "TcpSocket.receive_some",
            situation,
            make(Verb(lambda sock: functools.partial(sock.receive_some, 3))),
            medium,
            "3 bytes at most",
        )
        for situation, _, make in (PLAYS[0], PLAYS[2], PLAYS[4])
        for medium in MEDIA
    ]


CASES = _cases()
