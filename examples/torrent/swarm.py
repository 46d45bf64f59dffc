"""One of a swarm: connections to many peers at once, a tracker to find them, and where the bytes go.

The tasks, all in ``Swarm.run``:

    a tracker's       asks for peers, again and again
    the caller        calls who is known and not connected, as long as something is missing
    the chooser       every ten seconds: who is answered, who is slow
    each connection   listens; one task beside it answers requests, one more says now and then that we are alive
"""

from __future__ import annotations

import math
import random
from collections import deque
from collections.abc import Callable
from typing import Final

import attrs
import trio

from examples.torrent.announce import Address, Question, announce
from examples.torrent.metainfo import Metainfo, TorrentError
from examples.torrent.peer import SLOTS, Peer, choose
from examples.torrent.pieces import LiedError, Pieces
from examples.torrent.rate_limit import RateLimit
from examples.torrent.storage import Storage
from examples.torrent.wire import (
    HANDSHAKE_SIZE,
    KEEP_ALIVE,
    Block,
    Decoder,
    Handshake,
    Interested,
    Message,
    NotInterested,
    ProtocolError,
    encode,
)
from trioqt import HostAddress, TcpServer, TcpSocket

__all__ = ["Progress", "Swarm"]

# Connections that come, and that we make.
MAX_CALLERS: Final = 30
MAX_CALLED: Final = 30

# Addresses that are remembered, and peers that have lied.
MAX_KNOWN: Final = 200
MAX_LIARS: Final = 1000

# After so many calls in a row an address is forgotten that nobody answers at; the tracker may name it again.  After so
# many lies nobody of that address is believed, whatever id it has.
MAX_FAILURES: Final = 3
MAX_LIES: Final = 3

# Then other connections have their turn.
MESSAGES_AT_ONCE: Final = 50

# In seconds: to connect and shake hands; to ask a tracker; until a tracker or a peer that failed is tried again;
# between two choices (BEP 3), and who has been asked and sends nothing for as long is slow; between signs of life; and
# without one.
HANDSHAKE: Final = 20.0
TRACKER: Final = 30.0
AGAIN: Final = 10.0
CHOICE: Final = 10.0
SIGN_OF_LIFE: Final = 60.0
SILENCE: Final = 150.0

# Who a peer is: its id, and where it is.  Anybody may say another one's id; then it is two peers.
Who = tuple[bytes, str]

NETWORK = (OSError, trio.BrokenResourceError, trio.ClosedResourceError, trio.TooSlowError)


@attrs.frozen
class Progress:
    """How far it is."""

    pieces: int
    of: int
    peers: int
    downloaded: int
    uploaded: int


@attrs.define(eq=False)
class _Known:
    """An address that may be called."""

    next_call: float
    who: Who | None = None
    under_way: bool = False
    failures: int = 0


@attrs.define(eq=False)
class _Line:
    """A connection to a peer."""

    sock: TcpSocket
    who: Who
    we_called: bool
    peer: Peer = attrs.field(init=False)
    asks: trio.Event = attrs.field(factory=trio.Event)
    was_asked: bool = False
    """At the last choice."""

    @classmethod
    def open(cls, sock: TcpSocket, who: Who, we_called: bool, pieces: Pieces) -> _Line:
        line = cls(sock, who, we_called)
        line.peer = Peer(pieces, line.say)
        return line

    def say(self, message: Message) -> None:
        """Never waits: who takes nothing while so much for it is queued is cut off."""
        self.write(encode(message))

    def write(self, data: bytes) -> None:
        try:
            self.sock.write(data)
        except trio.WouldBlock:
            self.sock.abort(reset=True)
        except NETWORK:
            pass  # whoever listens to it is told


class Swarm:
    """Our place in the swarm of a torrent.

    Args:
      ours: The pieces that are in ``storage`` already.
      download_rate, upload_rate: Bytes a second.
      tell: Called with what a person may want to know.
    """

    def __init__(
        self,
        metainfo: Metainfo,
        storage: Storage,
        ours: list[int],
        *,
        download_rate: float = math.inf,
        upload_rate: float = math.inf,
        tell: Callable[[str], None] = lambda message: None,
        rng: random.Random | None = None,
    ) -> None:
        self.metainfo = metainfo
        self.pieces = Pieces(metainfo, rng or random.Random())
        for index in ours:
            self.pieces.stored(index)
        self.complete = trio.Event()
        self._rng = rng or random.Random()
        self._peer_id = b"-TQ0001-" + self._rng.randbytes(12)
        self._storage = storage
        self._download, self._upload = RateLimit(download_rate), RateLimit(upload_rate)
        self._tell = tell
        self._lines: dict[Who, _Line] = {}
        self._known: dict[Address, _Known] = {}
        self._calls = 0  # under way, connected or not yet
        self._liars: deque[Who] = deque(maxlen=MAX_LIARS)
        self._lies: deque[str] = deque(maxlen=MAX_LIARS)  # where each lie came from
        self._downloaded = self._uploaded = 0
        self._failure: TorrentError | None = None
        self._scope = trio.CancelScope()
        if self.pieces.is_complete():
            self.complete.set()

    def progress(self) -> Progress:
        """How far it is."""
        ours = self.pieces.ours
        return Progress(ours.size, ours.count, len(self._lines), self._downloaded, self._uploaded)

    async def run(
        self,
        host: str | HostAddress = HostAddress.ANY_IPV4,
        port: int = 0,
        *,
        task_status: trio.TaskStatus[int] = trio.TASK_STATUS_IGNORED,
    ) -> None:
        """Take part until cancelled, at first to get what is missing, then to give it.

        Args:
          task_status: Told the port on which it listens.

        Raises:
          SocketError: It cannot listen.
          TorrentError: The storage has failed.
        Cancelled: every connection is ended; what is stored stays.
        """
        with self._scope:
            async with self._server() as server, trio.open_nursery() as nursery:
                await server.listen(host, port)
                nursery.start_soon(self._ask_tracker, server.server_port())
                nursery.start_soon(self._call_peers, nursery)
                nursery.start_soon(self._choose)
                task_status.started(server.server_port())
                await server.serve(self._answer)
        if self._failure is not None:
            raise self._failure

    @staticmethod
    def _server() -> TcpServer[TcpSocket]:
        return TcpServer(max_connections=MAX_CALLERS, max_connections_per_peer=MAX_CALLERS // 2)

    # -- finding peers ----------------------------------------------------------------------

    async def _ask_tracker(self, port: int) -> None:
        event, told = "started", self.complete.is_set()
        while True:
            try:
                with trio.fail_after(TRACKER):
                    reply = await announce(self.metainfo.announce, self._question(port, event))
            except (*NETWORK, TorrentError) as exc:
                self._tell(f"the tracker does not answer: {exc}")
                pause = AGAIN
            else:
                event, told = "", told or event == "completed"
                pause = reply.interval if self._lines or self.complete.is_set() else AGAIN
                for address in reply.addresses:
                    self._learn(address)
            with trio.move_on_after(pause):
                if told:
                    await trio.sleep_forever()
                await self.complete.wait()
            if self.complete.is_set() and not told and event == "":
                event = "completed"

    def _question(self, port: int, event: str) -> Question:
        left = self.metainfo.length - sum(map(self.metainfo.size_of, self.pieces.ours))
        return Question(self.metainfo.info_hash, self._peer_id, port, self._uploaded, self._downloaded, left, event)

    def _learn(self, address: Address) -> None:
        """It may be called.  If there are too many of them, one that is drawn is forgotten: none may be of any use."""
        if address in self._known:
            return
        if len(self._known) >= MAX_KNOWN:
            del self._known[self._rng.choice([each for each, known in self._known.items() if not known.under_way])]
        self._known[address] = _Known(-math.inf)

    async def _call_peers(self, nursery: trio.Nursery) -> None:
        while not self.complete.is_set():
            for address, known in self._known.items():
                may_call = known.next_call <= trio.current_time() and known.who not in self._lines
                if may_call and not known.under_way and self._calls < MAX_CALLED:
                    known.under_way = True
                    known.failures += 1  # until it has shaken hands
                    self._calls += 1
                    nursery.start_soon(self._call, address, known)
            await trio.sleep(1)

    async def _call(self, address: Address, known: _Known) -> None:
        try:
            async with TcpSocket() as sock:
                with trio.fail_after(HANDSHAKE):
                    await sock.connect_to_host(*address)
                await self._talk(sock, known)
        except* NETWORK as group:
            self._tell(f"{address[0]} port {address[1]}: {group.exceptions[0]}")
        finally:
            self._calls -= 1
            known.under_way = False
            is_of_use = known.who is None or (known.who[0] != self._peer_id and known.who not in self._liars)
            known.next_call = trio.current_time() + AGAIN if is_of_use else math.inf
            if known.failures >= MAX_FAILURES:
                del self._known[address]

    # -- a connection -----------------------------------------------------------------------

    async def _answer(self, sock: TcpSocket) -> None:
        await self._talk(sock, None)

    async def _talk(self, sock: TcpSocket, known: _Known | None) -> None:
        """All that is said on a connection, which ``known`` says that we have made."""
        host = str(sock.peer_address())
        name = f"{host} port {sock.peer_port()}"
        line: _Line | None = None
        try:
            if self._lies.count(host) >= MAX_LIES:
                raise ProtocolError("there are too many liars there")
            line = await self._shake_hands(sock, known)
            await self._hold(line)
        except* ProtocolError as group:
            error = group.exceptions[0]
            self._tell(f"{name}: {error}")
            if line is not None and group.subgroup(LiedError):
                self._liars.append(line.who)
                self._lies.append(host)
            sock.abort(reset=True)
        finally:
            if line is not None:
                self._forget(line)

    async def _shake_hands(self, sock: TcpSocket, known: _Known | None) -> _Line:
        """Raises: ProtocolError, SocketError, trio.TooSlowError."""
        ours = Handshake(self.metainfo.info_hash, self._peer_id)
        with trio.fail_after(HANDSHAKE):
            if known is not None:
                await sock.send_all(ours.encode())
            theirs = Handshake.decode(await sock.receive_exactly(HANDSHAKE_SIZE))
            if theirs.info_hash != ours.info_hash:
                raise ProtocolError("it has another torrent")
            if known is None:
                await sock.send_all(ours.encode())
        who = theirs.peer_id, str(sock.peer_address())
        if known is not None:
            known.who, known.failures = who, 0
        return self._admit(_Line.open(sock, who, known is not None, self.pieces))

    def _admit(self, line: _Line) -> _Line:
        """It is one of ours from now on.  Raises: ProtocolError."""
        peer_id, _ = line.who
        if peer_id == self._peer_id:
            raise ProtocolError("that is ourselves")
        if line.who in self._liars:
            raise ProtocolError("it has lied before")
        old = self._lines.get(line.who)
        if old is not None:
            # Each has called the other, and both must keep the same: the call of whoever has the smaller id.
            if line.we_called == old.we_called or line.we_called != (self._peer_id < peer_id):
                raise ProtocolError("it is connected already")
            old.sock.abort()
            self._forget(old)
        self._lines[line.who] = line
        line.peer.begin()
        return line

    def _forget(self, line: _Line) -> None:
        if self._lines.get(line.who) is line:
            del self._lines[line.who]
            self.pieces.remove_peer(line.peer)
            self._go_on()
            self._fill_slots()

    def _go_on(self) -> None:
        """There may be something to ask for that somebody else was to send."""
        for line in list(self._lines.values()):
            line.peer.go_on()

    async def _hold(self, line: _Line) -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._give, line)
            nursery.start_soon(self._show_life, line)
            await self._listen(line)
            nursery.cancel_scope.cancel()

    async def _listen(self, line: _Line) -> None:
        """Until the peer finishes.  Raises: ProtocolError, SocketError, trio.TooSlowError."""
        decoder = Decoder(self.pieces.count)
        while True:
            with trio.fail_after(SILENCE):
                chunk = await line.sock.receive_some()
            if not chunk:
                return
            for number, message in enumerate(decoder.feed(chunk), 1):
                if number % MESSAGES_AT_ONCE == 0:
                    await trio.lowlevel.checkpoint()
                if isinstance(message, Block):
                    await self._download.take(len(message.data))
                    self._downloaded += len(message.data)
                whole = line.peer.hear(message)
                if whole is not None:
                    await self._store(*whole)
                if isinstance(message, (Interested, NotInterested)):
                    self._fill_slots()
                if line.peer.wanted:
                    line.asks.set()

    async def _store(self, index: int, data: bytes) -> None:
        try:
            await self._storage.write(index, data)
        except OSError as exc:
            self._fail(exc)
            return
        except BaseException:
            self.pieces.not_stored(index)
            raise
        self.pieces.stored(index)
        for line in list(self._lines.values()):
            line.peer.tell_have(index)
        if self.pieces.is_complete():
            self.complete.set()

    def _fail(self, exc: OSError) -> None:
        self._failure = TorrentError(f"the files cannot be used: {exc}")
        self._failure.__cause__ = exc
        self._scope.cancel()

    async def _give(self, line: _Line) -> None:
        """Answer what the peer asks for.  Raises: SocketError, trio.TooSlowError."""
        while True:
            await line.asks.wait()
            line.asks = trio.Event()
            while line.peer.wanted:
                request = line.peer.wanted.popleft()
                try:
                    data = await self._storage.read(request.index, request.begin, request.length)
                except OSError as exc:
                    self._fail(exc)
                    return
                await self._upload.take(len(data))
                with trio.fail_after(SILENCE):
                    # One block is queued at a time, so that what must be said at once has room.
                    await line.sock.send_all(encode(Block(request.index, request.begin, data)))
                    await line.sock.wait_for_bytes_written()
                line.peer.taken += len(data)
                self._uploaded += len(data)

    async def _show_life(self, line: _Line) -> None:
        while True:
            await trio.sleep(SIGN_OF_LIFE)
            line.write(KEEP_ALIVE)

    # -- who is answered --------------------------------------------------------------------

    async def _choose(self) -> None:
        while True:
            await trio.sleep(CHOICE)
            for line in self._lines.values():
                if line.was_asked and not line.peer.given:
                    self.pieces.note_slow(line.peer)
                line.was_asked = bool(line.peer.asked)
            peers = [line.peer for line in self._lines.values()]
            chosen = choose(peers, self._rng)
            for peer in peers:
                peer.set_choked(peer not in chosen)
            self._go_on()

    def _fill_slots(self) -> None:
        """Who has become interested is answered at once, while there is a place."""
        waiting = [line.peer for line in self._lines.values() if line.peer.is_interested and line.peer.is_choked]
        free = SLOTS - sum(line.peer.is_interested and not line.peer.is_choked for line in self._lines.values())
        for peer in waiting[: max(free, 0)]:
            peer.set_choked(False)
