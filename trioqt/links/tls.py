"""TLS over any link: an ``ssl.SSLObject`` between two pieces of memory, which do no I/O of their own.

What lies below carries ciphertext and is not changed by it: a kernel's socket, a simulated one, a stream, or TLS again.
Above it are bytes, as of any link.  Until ``shake_hands`` is done it gives nothing and takes nothing, so whoever reads
or writes above waits, and what was queued before goes out encrypted.

What is sent is encrypted once, and cannot be taken back.  So a link that takes less than that leaves some ciphertext
here, and as many of the caller's bytes are not counted as sent: they stay in the caller's queue, which offers them
again, and is empty when all is gone.
"""

from __future__ import annotations

import contextlib
import ssl
from collections.abc import Awaitable
from typing import cast

import trio

from trioqt.core.errors import ErrorKind, SocketError
from trioqt.core.tls_failures import ended_early, message_of
from trioqt.links.base import ENDS, Bytes, Link, NativeSocket, Sockaddr
from trioqt.links.interrupts import protected
from trioqt.links.tls_terms import Negotiated, Terms, chain_of, refused_chain_of

__all__ = ["TlsLink"]

# RFC 8446, section 5.1: a record has at most so many bytes, and OpenSSL encrypts and decrypts one at a time.
RECORD_SIZE = 16384
# Section 5.2: so many more when it is encrypted, at most, and its header.
RECORD_ROOM = RECORD_SIZE + 256 + 5

# What is taken at once from below, and so the most ciphertext that waits here to be decrypted: what a socket takes at
# once without TLS, see RECEIVE_SIZE in sockets/stream_reader.py.
RECEIVE_SIZE = 127 * 1024
# As so many records: what is taken is decrypted in the same step, so that no piece of one is left for another.
RECORDS_AT_ONCE = RECEIVE_SIZE // RECORD_ROOM
MOST_AT_ONCE = RECORDS_AT_ONCE * RECORD_ROOM

# What is encrypted before it is handed over in one piece: what a socket hands over at once without TLS.  OpenSSL cuts
# it into records; to do that here cost 4 us of 48.
SEND_SIZE = 65536
# What is sent in one step, if what is below takes it: a large message must not hold up other tasks.
SEND_AT_ONCE = 16 * SEND_SIZE

# How often in one step more ciphertext is taken when what was taken held no bytes for us.  A peer can send new keys,
# and nothing else, as fast as we read them: 127 KiB are 4,800 such messages of 27 bytes.
MOST_FRUITLESS = 4

# The answers to a peer that has TLS itself answer (new keys, refused renegotiations) and does not read them.
MOST_ANSWERS = 16384

# So many seconds a stream below may take to send why a handshake has failed: as long as lingering takes elsewhere.
ALERT_TIME = 1.0

ENDED_EARLY = "the peer ended the connection during the TLS handshake"

HANDSHAKE = 22  # the type of a record, RFC 8446 section 5.1; TLS 1.3 shows it as application data


@protected
class TlsLink(Link):
    """TLS over the link ``below``.

    Args:
      arrived: Ciphertext that was read already.
    """

    __slots__ = (
        "_below",
        "_can_be_asked",
        "_closed",
        "_ended",
        "_failed",
        "_holds",
        "_incoming",
        "_is_fruitless",
        "_lot",
        "_open",
        "_outgoing",
        "_owed",
        "_plain",
        "_shut",
        "_terms",
        "_tls",
        "_truncated",
        "_unsent",
        "_was_heard",
    )

    def __init__(self, below: Link, terms: Terms, arrived: bytes = b"") -> None:
        self._below = below
        self._can_be_asked = below.can_be_asked()
        self._terms = terms
        self._incoming = ssl.MemoryBIO()
        self._outgoing = ssl.MemoryBIO()
        if arrived:
            self._incoming.write(arrived)
        self._tls: ssl.SSLObject | None = None  # from the beginning of the handshake on
        self._lot: trio.lowlevel.ParkingLot | None = None  # who waits for the handshake
        self._open = False  # the handshake is done
        self._closed = False
        self._holds = False  # there is something to tell, or may be, that needs nothing more from below
        self._plain = b""  # decrypted already, and not taken
        self._ended = False  # the peer's close_notify has come
        self._is_fruitless = False  # a while ago much came, and nothing of it was for us
        self._truncated = False  # or the end of what is below, without that
        self._failed: OSError | None = None  # what OpenSSL found wrong; it can do no more
        self._was_heard = False  # bytes of the peer's have come, so it has accepted the handshake
        self._shut = False  # our close_notify is sent, or encrypted at least
        self._unsent: Bytes = b""  # ciphertext that the link below has not taken
        self._owed = 0  # so many of the caller's bytes are encrypted, and it was not told so

    # -- the handshake ----------------------------------------------------------------------

    async def shake_hands(self) -> Negotiated:
        """Do the handshake.  Only one task does, and from then on both directions are open.

        Raises:
          ssl.SSLError: It failed; ``ssl.SSLEOFError`` if the peer ended it.  An alert was sent if it could be in time.
          ValueError: The name cannot be asked for.
          OSError, trio.BrokenResourceError: What the link below ended with.
          trio.ClosedResourceError: The link was closed meanwhile.
        Cancelled: only ``close`` is left.
        """
        await trio.lowlevel.checkpoint_if_cancelled()
        self._check_open()
        self._tls = tls = self._terms.make_object(self._incoming, self._outgoing)
        judge = self._terms.judge
        waited = done = False
        while not done:
            try:
                tls.do_handshake()
                done = True
            except ssl.SSLWantReadError:
                pass
            except ssl.SSLZeroReturnError as exc:
                raise ended_early(ENDED_EARLY) from exc
            except ssl.SSLError:
                await self._send_alert()
                raise
            if judge is not None and (done or chain_of(tls)):
                try:
                    await judge(chain_of(tls))
                finally:
                    self._check_open()
                judge, waited = None, True
            if done and self._terms.server_side and tls.version() == "TLSv1.3":
                # What is left are tickets.  They are nobody's to wait for: a client that speaks first need not read.
                self._collect()
                self._push()
            else:
                waited = await self._flush() or waited
            if not done:
                await self._take_ciphertext()
                waited = True
        self._check_open()
        self._holds = self._incoming.pending > 0
        negotiated = Negotiated(tls.version(), tls.cipher(), tls.selected_alpn_protocol(), chain_of(tls))
        if not waited:
            await trio.lowlevel.cancel_shielded_checkpoint()
            self._check_open()
        self._open = True
        self._wake_waiting()
        return negotiated

    async def _send_alert(self) -> None:
        """What OpenSSL has to say of a failure, if it can go at once; a stream cannot be asked, and gets a moment."""
        with contextlib.suppress(*ENDS):
            if self._can_be_asked:
                self._collect()
                self._push()
            else:
                with trio.move_on_after(ALERT_TIME):
                    await self._flush()

    async def _take_ciphertext(self) -> None:
        """Wait for some, as the one who does the handshake.  Raises: ssl.SSLEOFError if there will be none."""
        while True:
            if self._below.is_drained():
                await self._below.wait_receivable(RECEIVE_SIZE)
            else:
                await trio.lowlevel.checkpoint()
            self._check_open()
            data = self._below.try_receive(RECEIVE_SIZE)
            if data:
                self._incoming.write(data)
                return
            if data is not None:
                raise ended_early(ENDED_EARLY)

    def _check_open(self) -> None:
        if self._closed:
            raise trio.ClosedResourceError("the link is closed")

    def _wake_waiting(self) -> None:
        if self._lot is not None:
            self._lot.unpark_all()

    async def _wait_opened(self) -> None:
        """Wait for the end of the handshake, or for a wake."""
        self._check_open()
        if self._lot is None:
            self._lot = trio.lowlevel.ParkingLot()
        await self._lot.park()
        self._check_open()

    # -- receiving --------------------------------------------------------------------------

    def is_open(self) -> bool:
        """Is the handshake done?"""
        return self._open

    def is_server(self) -> bool:
        """Is this the server's end?"""
        return self._terms.server_side

    def can_be_asked(self) -> bool:
        return self._can_be_asked

    def is_drained(self) -> bool:
        return not self._holds and (self._below.is_drained() or not self._open)

    def look_again(self) -> None:
        if self._open:
            self._below.look_again()

    def try_receive(self, max_bytes: int) -> bytes | None:
        if not self._open:
            return None
        if not self._holds:
            # A shortcut for most messages, which are short and come alone: it saves 0.4 us of the 22 of an echo.
            wanted = MOST_AT_ONCE if max_bytes >= RECEIVE_SIZE else self._most_wanted(max_bytes)
            cipher = self._below.try_receive(wanted)
            if cipher is None:
                return None
            if not cipher:
                return self._end(max_bytes)
            self._incoming.write(cipher)
            data = self._decrypt(max_bytes)
        else:
            data = self._take_held(max_bytes)
        return data if data is not None else self._receive_on(max_bytes)

    def _receive_on(self, max_bytes: int) -> bytes | None:
        """Take more ciphertext, as what is here is not even one record, or was nothing for us.  Raises: OSError."""
        incoming, below = self._incoming, self._below
        for _ in range(1, MOST_FRUITLESS):
            # Also if it came short: an end or a failure that nobody has seen may be behind what is not for us.
            try:
                cipher = below.try_receive(self._most_wanted(max_bytes))
            except OSError:
                with contextlib.suppress(OSError):
                    self._decrypt_all()  # who asks again gets that first
                raise
            if cipher:
                incoming.write(cipher)
            elif cipher is not None:
                return self._end(max_bytes)
            elif not incoming.pending:
                self._holds = False
                return None
            data = self._decrypt(max_bytes)
            if data is not None:
                return data
        self._is_fruitless = True
        self._holds = True  # so whoever waits for more lets other tasks run, and asks again
        return None

    def _end(self, max_bytes: int) -> bytes | None:
        """What is below has ended.  Raises: OSError."""
        self._truncated = self._holds = True
        return self._take_held(max_bytes)

    def _most_wanted(self, max_bytes: int) -> int:
        """How much ciphertext is to be taken now: of as many whole records as there is room for."""
        if self._is_fruitless:
            return RECORD_ROOM
        records = min(max_bytes // RECORD_SIZE or 1, RECORDS_AT_ONCE)
        return records * RECORD_ROOM - self._incoming.pending

    def _take_held(self, max_bytes: int) -> bytes | None:
        """What needs nothing more from below; None if that should be asked first.  Raises: OSError."""
        if self._plain:
            taken, self._plain = self._plain[:max_bytes], self._plain[max_bytes:]
            return taken
        if self._ended:
            return b""
        if self._failed is not None:
            raise self._failed
        if not self._truncated:
            tls, left = self._tls, self._incoming.pending
            assert tls is not None
            if left < RECORD_ROOM and not self._below.is_drained() and not tls.pending():
                return None  # it is a part of a record, most likely
        data = self._decrypt(max_bytes)
        if not self._truncated:
            return data
        self._holds = True
        if data is not None:
            return data
        if self._may_be_truncated():
            self._ended = True
            return b""
        raise ended_early("the peer ended without a close_notify: the stream may be cut short")

    def _decrypt(self, max_bytes: int) -> bytes | None:
        """Bytes that are here; ``b""`` for a close_notify, None if there are none.  Raises: OSError."""
        tls, incoming = self._tls, self._incoming
        assert tls is not None
        pieces: list[bytes] = []
        room, data, holds = max_bytes, b"", False
        try:
            while True:
                wanted = RECORD_SIZE if room > RECORD_SIZE else room
                data = tls.read(wanted)
                if not data:
                    self._ended = holds = True
                    break
                if len(data) == wanted < RECORD_SIZE and tls.pending():
                    holds = True
                    break
                left = incoming.pending
                if not left:
                    break
                room -= len(data)
                # If less is left than that record had, and below is more, it is most likely a part of the next.  To
                # find that out by reading is an exception, 2 us of the 60 that 112 KiB take.
                if not room or (left < len(data) and not self._below.is_drained()):
                    holds = True
                    break
                pieces.append(data)
                data = b""
        except ssl.SSLWantReadError:
            pass
        except ssl.SSLZeroReturnError:
            self._ended = holds = True
        except ssl.SSLError as exc:
            holds = True
            # In TLS 1.3 a client is done before the server has judged its certificate; that comes as an alert then.
            kind = ErrorKind.SSL_INTERNAL if self._was_heard else ErrorKind.SSL_HANDSHAKE_FAILED
            self._fail(kind, message_of(exc), exc)
        self._holds = holds
        if self._outgoing.pending:
            self._answer()
        if pieces:
            pieces.append(data)
            data = b"".join(pieces)
        if data:
            self._was_heard = True
            self._is_fruitless = False
            return data
        if self._failed is not None:
            raise self._failed
        return b"" if self._ended else None

    def _may_be_truncated(self) -> bool:
        """Is that an end like another, says the context?"""
        return bool(self._terms.context.options & getattr(ssl, "OP_IGNORE_UNEXPECTED_EOF", 0))

    def _answer(self) -> None:
        """Reading has made OpenSSL say something: new keys of ours, or that there is no renegotiation, or an alert."""
        tls = self._tls
        assert tls is not None
        said = self._outgoing.read()
        if said[0] == HANDSHAKE and tls.version() != "TLSv1.3":
            self._fail(ErrorKind.SSL_INTERNAL, "the peer wants to renegotiate, which is refused")
            return
        self._keep(said)
        if len(self._unsent) - self._owed > MOST_ANSWERS + SEND_SIZE:
            self._fail(ErrorKind.LIMIT_EXCEEDED, "the peer makes TLS answer, and does not read the answers")
            return
        try:
            self._push()
        except OSError:
            pass  # whoever sends next finds it; what came can be read

    def _fail(self, kind: ErrorKind, message: str, exc: ssl.SSLError | None = None) -> None:
        """No more comes."""
        self._failed, self._holds = SocketError(kind, message), True
        if exc is not None:
            self._failed.__cause__ = exc.with_traceback(None)

    def wait_receivable(self, max_bytes: int) -> Awaitable[None]:
        if self._open and not self._holds and not self._closed:
            return self._below.wait_receivable(RECEIVE_SIZE)
        return self._wait_receivable()

    async def _wait_receivable(self) -> None:
        """Wait where nothing need come from below."""
        self._check_open()
        if not self._open:
            await self._wait_opened()
        else:
            await trio.lowlevel.checkpoint()
            self._check_open()

    def wake(self) -> None:
        if self._open:
            self._below.wake()
        self._wake_waiting()

    async def look(self) -> None:
        if self._open and not self._ended:
            await self._below.look()

    # -- sending ----------------------------------------------------------------------------

    def try_send(self, data: Bytes) -> int:
        if not self._open or not self._can_be_asked:
            return 0
        sent = 0
        try:
            if self._unsent or self._owed:
                self._push()
                owed, self._owed = self._owed, min(self._owed, len(self._unsent))
                sent = owed - self._owed
                if self._unsent:
                    return sent
            most = min(len(data), SEND_AT_ONCE)
            while sent < most:
                piece = data if most <= SEND_SIZE and not sent else memoryview(data)[sent : sent + SEND_SIZE]
                self._encrypt(piece)
                cipher = self._outgoing.read()
                gone = self._below.try_send(cipher)
                sent += len(piece)
                if gone < len(cipher):
                    self._unsent = memoryview(cipher)[gone:]
                    self._owed = min(len(piece), len(self._unsent))
                    return sent - self._owed
        except OSError:
            self._hear_out()
            raise
        return sent

    def _hear_out(self) -> None:
        """What is below takes no more.  If the peer has said why, by an alert, raise that."""
        with contextlib.suppress(OSError):
            while self._failed is None and not self._ended and (cipher := self._below.try_receive(RECEIVE_SIZE)):
                self._incoming.write(cipher)
                self._decrypt_all()
        self._holds = True
        if self._failed is not None:
            raise self._failed

    def _decrypt_all(self) -> None:
        """What is here, up to an end or a failure."""
        tls = self._tls
        assert tls is not None
        while (self._incoming.pending or tls.pending()) and not self._ended and self._failed is None:
            self._plain += self._decrypt(RECEIVE_SIZE) or b""
        if self._plain:
            self._holds = True

    def _encrypt(self, data: Bytes) -> None:
        """All of it; the ciphertext is what OpenSSL has to say then."""
        tls = self._tls
        assert tls is not None
        try:
            tls.write(data)
        except ssl.SSLWantReadError as exc:
            raise SocketError(ErrorKind.SSL_INTERNAL, "the peer wants to renegotiate, which is refused") from exc
        except ssl.SSLError as exc:
            raise SocketError(ErrorKind.SSL_INTERNAL, message_of(exc)) from exc

    def _collect(self) -> None:
        """What OpenSSL has to say goes behind what is unsent."""
        self._keep(self._outgoing.read())

    def _keep(self, cipher: bytes) -> None:
        """It goes behind what is unsent."""
        self._unsent = b"".join((self._unsent, cipher)) if self._unsent else cipher

    def _push(self) -> None:
        """Hand over what the link below takes at once."""
        unsent = self._unsent
        if unsent:
            sent = self._below.try_send(unsent)
            self._unsent = memoryview(unsent)[sent:] if sent < len(unsent) else b""

    async def _flush(self) -> bool:
        """Wait until what OpenSSL had to say is gone; was there anything to wait for?"""
        self._collect()
        waited = False
        while self._unsent:
            if self._can_be_asked:
                self._push()
                if self._unsent:
                    await self._below.wait_sendable()
                    waited = True
            else:
                sending, self._unsent = memoryview(self._unsent), b""
                while sending:
                    sending = sending[await self._below.send(sending) :]
                waited = True
            self._check_open()
        return waited

    def wait_sendable(self) -> Awaitable[None]:
        return self._below.wait_sendable() if self._open else self._wait_sendable()

    async def _wait_sendable(self) -> None:
        while not self._open:
            await self._wait_opened()

    async def send(self, data: Bytes) -> int:
        while not self._open:
            await self._wait_opened()
        self._check_open()
        if not self._can_be_asked:
            piece = memoryview(data)[:SEND_SIZE]
            self._encrypt(piece)
            await self._flush()
            return len(piece)
        while True:
            await self._below.wait_sendable()
            self._check_open()
            sent = self.try_send(data)
            if sent:
                return sent

    # -- the end ----------------------------------------------------------------------------

    async def finish_sending(self) -> None:
        await trio.lowlevel.checkpoint_if_cancelled()
        while not self._open:
            await self._wait_opened()
        if cast("ssl.SSLObject", self._tls).version() != "TLSv1.3":
            raise NotImplementedError("before TLS 1.3 a connection has no half-close")
        if self._can_be_asked:
            await self._below.wait_sendable()  # so that it goes at once, and nothing is half done
        else:
            await trio.lowlevel.checkpoint()
        self._check_open()
        self._say_close()
        await self._flush()

    def _say_close(self) -> None:
        """Say that nothing more comes from here."""
        if self._shut:
            return
        # OpenSSL looks for the peer's answer in the same call, and would choke on what came before that.
        with contextlib.suppress(OSError):
            self._decrypt_all()
        self._shut = True
        with contextlib.suppress(ssl.SSLError):  # the peer has not answered yet; or there is nobody to tell any more
            cast("ssl.SSLObject", self._tls).unwrap()

    def has_goodbye(self) -> bool:
        return True

    async def say_goodbye(self, *, linger: float = 0) -> None:
        if not self._open or self._closed:
            return
        if self._failed is None:
            self._say_close()
            await self._flush()
            if linger:
                with trio.move_on_after(linger):
                    await self._wait_for_end()
        await self._below.say_goodbye(linger=linger)

    async def _wait_for_end(self) -> None:
        """Drop what comes, until the peer has ended too.  Raises: OSError: it did so otherwise."""
        self._plain = b""
        while not self._closed and self.try_receive(RECEIVE_SIZE) != b"":
            await self.wait_receivable(RECEIVE_SIZE)

    def close(self, *, reset: bool = False, waited_on: bool = True) -> None:
        self._closed = True
        self._wake_waiting()
        self._below.close(reset=reset)

    # -- what is below ----------------------------------------------------------------------

    def drop_unread(self) -> None:
        self._plain = b""
        self._below.drop_unread()

    def most_unread(self) -> int:
        return RECEIVE_SIZE + self._below.most_unread()

    def local_address(self) -> Sockaddr | None:
        return self._below.local_address()

    def peer_address(self) -> Sockaddr | None:
        return self._below.peer_address()

    def native(self) -> NativeSocket | None:
        return self._below.native()

    # -- what TLS knows ---------------------------------------------------------------------

    def terms(self) -> Terms:
        """How it has begun."""
        return self._terms

    def chain(self) -> tuple[bytes, ...]:
        """The certificates that the peer has sent by now, its own first, each as DER."""
        return () if self._tls is None else chain_of(self._tls) or refused_chain_of(self._tls)

    def session(self) -> ssl.SSLSession | None:
        """What the next connection to the same server may go on with."""
        return None if self._tls is None else self._tls.session

    def session_was_reused(self) -> bool:
        """Has this one gone on with an earlier one?"""
        return self._tls is not None and bool(self._tls.session_reused)

    def channel_binding(self, kind: str) -> bytes | None:
        """See ``ssl.SSLObject.get_channel_binding``.  Raises: ValueError: Python does not know that kind."""
        return None if self._tls is None else self._tls.get_channel_binding(kind)
