"""TCP between simulated hosts, as a program sees it (RFC 9293), with the error numbers of Linux.

An end of a connection knows no task and no clock hook: it is told what arrives, and it tells its socket to wake whoever
waits.  What a real sender must find out by timers, that a segment was lost, is told to it at once; only then a timer
runs, and it repeats as a real one does.
"""

from __future__ import annotations

import errno
import math
from collections import deque
from functools import partial
from typing import Final, Protocol

from trioqt.core.buffers import ReadBuffer
from trioqt.links.base import Bytes
from trioqt.testing.network.fabric import Address, Packet, Path, Timer
from trioqt.testing.network.host import Binding, Host, Waker, fail

__all__ = ["Settings", "TcpEnd", "TcpListener"]

# What a segment carries at most: what a card with segmentation offload takes in one piece.  Segments of 1,460 bytes
# would make ten events of one, and nothing that a program could notice.
SEGMENT_SIZE: Final = 16384

# Linux: TCP_TIMEOUT_INIT, TCP_RTO_MIN, TCP_RTO_MAX, in seconds.
FIRST_HANDSHAKE_TIMEOUT: Final = 1.0
MIN_TIMEOUT: Final = 0.2
MAX_TIMEOUT: Final = 120.0

# Linux: tcp_synack_retries, tcp_retries2, tcp_orphan_retries.
SYN_ACK_RETRIES: Final = 5
RETRIES: Final = 15
ORPHAN_RETRIES: Final = 8

# Linux: TCP_TIMEWAIT_LEN and tcp_fin_timeout, in seconds.
LINGER_TIME: Final = 60.0

# RFC 9293, figure 5, without what is not simulated.  From anywhere `forget` leads to CLOSED; nothing else assigns a
# state.
TRANSITIONS: Final = {
    ("CLOSED",      "syn sent"):     "SYN_SENT",
    ("CLOSED",      "syn received"): "SYN_RECV",
    ("SYN_SENT",    "agreed"):       "ESTABLISHED",
    ("SYN_RECV",    "agreed"):       "ESTABLISHED",
    ("ESTABLISHED", "fin sent"):     "FIN_WAIT1",
    ("CLOSE_WAIT",  "fin sent"):     "LAST_ACK",
    ("FIN_WAIT1",   "fin acked"):    "FIN_WAIT2",
    ("CLOSING",     "fin acked"):    "TIME_WAIT",
    ("LAST_ACK",    "fin acked"):    "CLOSED",
    ("ESTABLISHED", "fin received"): "CLOSE_WAIT",
    ("FIN_WAIT1",   "fin received"): "CLOSING",
    ("FIN_WAIT2",   "fin received"): "TIME_WAIT",
}  # fmt: skip


class Settings(Protocol):
    """The socket options that change what TCP does; sizes in bytes, times in seconds."""

    send_buffer: int
    receive_buffer: int
    unsent_limit: int
    keep_alive: bool

    @property
    def syn_retries(self) -> int: ...
    @property
    def user_timeout(self) -> float: ...
    @property
    def keep_alive_times(self) -> tuple[float, float, int]:
        """| idle | interval | count |"""


class TcpEnd:
    """One end of a connection."""

    __slots__ = (
        "_ack_planned",
        "_acked",
        "_acks",
        "_early",
        "_edge",
        "_fin_seq",
        "_heard_at",
        "_keep_alive",
        "_path",
        "_probes",
        "_received",
        "_retries",
        "_retry",
        "_room_told",
        "_sent",
        "_stalled_at",
        "_syn",
        "_unacked",
        "_unacked_size",
        "_unsent",
        "_unsent_size",
        "answer_lost",
        "arrived",
        "arrived_at",
        "binding",
        "error",
        "expires",
        "fin_received",
        "host",
        "listener",
        "local",
        "peer",
        "receiving_ended",
        "remote",
        "sending_ended",
        "settings",
        "socket",
        "state",
        "is_over",
    )

    def __init__(self, host: Host, binding: Binding, local: Address, remote: Address, settings: Settings) -> None:
        self.host: Host = host
        self.binding: Binding = binding
        self.local: Address = local
        self.remote: Address = remote
        self.settings: Settings = settings
        self.state: str = "CLOSED"
        self.socket: Waker | None = None
        self.listener: TcpListener | None = None
        self.peer: TcpEnd | None = None
        self.error: int = 0
        self.expires: float = float("inf")
        self._path: Path | None = None
        # Receiving.
        self.arrived: ReadBuffer = ReadBuffer()
        self.arrived_at: float = -math.inf
        self.fin_received: bool = False
        self.receiving_ended: bool = False
        self._received = 0
        self._early: dict[int, Packet] = {}
        self._room_told = 0
        # Sending: | acknowledged | unacked: sent, may have to be repeated | unsent: the peer has no room |
        self.sending_ended: bool = False
        self.is_over: bool = False
        self._unacked: deque[Packet] = deque()
        self._unacked_size = 0
        self._unsent: deque[bytes] = deque()
        self._unsent_size = 0
        self._sent = 0
        self._acked = 0
        self._edge = 0
        self._fin_seq = -1
        # Acknowledgements on their way here: (time, next byte expected, end of the peer's room).  They are looked at
        # when somebody wants to know, so they cost no event; only who waits for one has it planned.
        self._acks: deque[tuple[float, int, int]] = deque()
        self._ack_planned = False
        self._syn: Packet | None = None
        self._retries = 0
        self._stalled_at = 0.0
        # The latest acknowledgement for this end did not get through.
        self.answer_lost: bool = False
        self._retry = Timer(host.fabric, self._repeat)
        self._heard_at = 0.0
        self._probes = 0
        self._keep_alive = Timer(host.fabric, self._probe)

    def __repr__(self) -> str:
        return f"<{self.host.name} {self.local} > {self.remote} {self.state}>"

    # ---- what the socket asks ------------------------------------------------------------------

    def is_listening(self) -> bool:
        return False

    def is_gone(self) -> bool:
        """Does it hold its port no more?"""
        if self._acks:
            self._take_due_acks()
        return self.state == "CLOSED" or self.host.fabric.now() >= self.expires

    def is_readable(self) -> bool:
        """Would a receive return or fail at once?"""
        return bool(self.arrived or self.fin_received or self.error or self.receiving_ended or self.is_over)

    def is_writable(self) -> bool:
        """Would a send take something, or fail, at once?

        Linux calls a socket writable only when a third of its buffer is free, so there a send can succeed while a task
        still waits for room.  Here both are one condition.
        """
        if self.error or self.sending_ended or self.is_over:
            return True
        if self.state not in ("ESTABLISHED", "CLOSE_WAIT"):
            return False
        if self._acks:
            self._take_due_acks()
        settings = self.settings
        return self._unsent_size < min(settings.unsent_limit, settings.send_buffer - self._unacked_size)

    def is_connected(self) -> bool:
        """Does the kernel still know a peer?"""
        if self._acks:
            self._take_due_acks()
        return self.state not in ("CLOSED", "SYN_SENT", "TIME_WAIT")

    def queued(self) -> tuple[int, int]:
        """Bytes that have arrived and are unread, bytes that are not acknowledged."""
        if self._acks:
            self._take_due_acks()
        return len(self.arrived), self._unacked_size + self._unsent_size

    def take_error(self) -> int:
        """The error that has not been told yet; it is told once."""
        error, self.error = self.error, 0
        return error

    # ---- the handshake -------------------------------------------------------------------------

    def connect(self) -> None:
        """Ask for a connection.  How it ends: the state, and ``error``."""
        self._feed("syn sent")
        self.host.connections[self.local, self.remote] = self
        self._path = self.host.path_to(self.remote[0])
        if self._path is None:
            # A router on the way says so, as far away as everybody.
            fabric = self.host.fabric
            fabric.at(fabric.now() + 2 * fabric.default_latency, self._die, errno.EHOSTUNREACH)
            return
        self._syn = Packet("SYN", self.local, self.remote, b"", self)
        self._syn.edge = self.settings.receive_buffer
        self._room_told = self.settings.receive_buffer
        self._path.send(self._syn)

    def accept_syn(self, syn: Packet, listener: TcpListener) -> None:
        """Answer to a peer that asks for a connection."""
        self._feed("syn received")
        self.listener = listener
        self.peer = syn.sender
        self._edge = syn.edge
        self.host.connections[self.local, self.remote] = self
        self._path = self.host.path_to(self.remote[0])
        assert self._path is not None
        self._syn = Packet("SYN-ACK", self.local, self.remote, b"", self)
        self._syn.edge = self._room_told = self.settings.receive_buffer
        self._path.send(self._syn)

    def _establish(self) -> None:
        self._feed("agreed")
        self._syn = None
        self._progress()
        self.keep_alive_changed()
        if self.listener is not None:
            self.listener.established(self)
        if self.socket is not None:
            self.socket.wake_writer()

    # ---- what arrives --------------------------------------------------------------------------

    def receive(self, packet: Packet) -> None:
        """A segment for this connection."""
        if self._acks:
            self._take_due_acks()
        if self.settings.keep_alive:
            self._heard_at = self.host.fabric.now()
            self._probes = 0
        kind = packet.kind
        if kind == "RST":
            if packet.sender in (None, self):
                self._reset()
        elif kind == "SYN-ACK":
            self._receive_syn_ack(packet)
        elif kind == "SYN":
            self._receive_syn(packet)
        elif kind == "CHALLENGE":
            if self.state == "SYN_SENT":
                self._send_reset(None)
        elif kind != "ACK" and packet.sender is not self.peer:
            # From a connection of a former life of the peer's host, or of ours.
            if self.state == "SYN_SENT":
                self._send_reset(packet.sender)
        else:
            if self.state == "SYN_RECV":
                self._establish()
            if kind == "DATA":
                self._receive_data(packet)
            elif kind == "FIN":
                self._receive_in_turn(packet)
            elif kind == "PROBE":
                self._acknowledge(packet.sender)

    def _receive_syn(self, packet: Packet) -> None:
        assert self._path is not None
        if packet.sender is not self.peer:
            # The peer's host has crashed, and asks anew from the same port.  RFC 5961, 4.2: "are you sure?"
            self._path.send(Packet("CHALLENGE", self.local, self.remote, b"", packet.sender))
            packet.sender.repeat_later(packet.departed)
        elif self._syn is not None:
            self._path.send(self._syn)  # it asks again: our answer was lost

    def _receive_syn_ack(self, packet: Packet) -> None:
        first = self.state == "SYN_SENT"
        assert self._path is not None
        if first:
            self.peer = packet.sender
            self._edge = packet.edge
        # If it is lost, the peer must repeat what it answers to; so the peer is told.
        self._path.send(Packet("ACK", self.local, self.remote, b"", packet.sender))
        if first and self.state == "SYN_SENT":
            self._establish()

    def _receive_data(self, packet: Packet) -> None:
        is_new = packet.seq + len(packet.data) > self._received  # else it is repeated, and known
        if is_new and self.socket is None and self.listener is None:
            # Nobody will ever read it.
            self._send_reset(packet.sender)
            self.forget()
        elif is_new and self.receiving_ended and self.sending_ended:
            self._send_reset(packet.sender)
            self._die(errno.ECONNRESET)
        else:
            self._receive_in_turn(packet)

    def _receive_in_turn(self, packet: Packet) -> None:
        if packet.seq == self._received:
            self._take(packet)
            while self._early and (early := self._early.pop(self._received, None)) is not None:
                self._take(early)
            if self.socket is not None:
                self.socket.wake_reader()
        elif packet.seq > self._received:
            self._early[packet.seq] = packet
            return
        self._acknowledge(packet.sender)

    def _take(self, packet: Packet) -> None:
        if packet.kind == "FIN":
            self._received += 1
            self.fin_received = True
            self._feed("fin received")
        else:
            self._received += len(packet.data)
            self.arrived.append(packet.data)
            self.arrived_at = self.host.fabric.now()

    def _acknowledge(self, sender: TcpEnd) -> None:
        """Tell the peer how far it has got and how much room there is."""
        edge = self._received + max(self.settings.receive_buffer - len(self.arrived), 0)
        self._room_told = edge = max(edge, self._room_told)
        path = self._path
        assert path is not None
        if path.direct and path.target.is_up:
            sender.answer_lost = False
            sender.take_ack(self._received, edge)
        elif path.is_stopped():
            sender.answer_lost = True
            sender.repeat_later()
            if path.held:
                path.on_release(sender, partial(self._acknowledge, sender))
        else:
            sender.answer_lost = False  # this one says all that a lost one did
            sender.expect_ack(self.host.fabric.now() + path.delay(), self._received, edge)

    def expect_ack(self, when: float, ack: int, edge: int) -> None:
        """An acknowledgement will be here at that time."""
        self._acks.append((when, ack, edge))
        if not self._ack_planned and self._is_waited_for():
            self._plan_ack()

    def writer_waits(self) -> None:
        """A task waits for room, so an acknowledgement is an event now."""
        self._plan_ack()

    def _plan_ack(self) -> None:
        """Somebody may wait for what the next acknowledgement brings."""
        if self._acks and not self._ack_planned and self._is_waited_for():
            self._ack_planned = True
            self.host.fabric.at(self._acks[0][0], self._ack_is_due, None)

    def _is_waited_for(self) -> bool:
        return bool(self._unsent) or self.socket is None or self.socket.has_writer()

    def _ack_is_due(self, _: None) -> None:
        self._ack_planned = False
        self._take_due_acks()
        self._plan_ack()

    def _take_due_acks(self) -> None:
        now = self.host.fabric.now()
        acks = self._acks
        while acks and acks[0][0] <= now:
            _, ack, edge = acks.popleft()
            self.take_ack(ack, edge)

    def take_ack(self, ack: int, edge: int) -> None:
        """The peer has everything before ``ack``, and room as far as ``edge``."""
        if edge > self._edge:
            self._edge = edge
        if ack > self._acked:
            self._acked = ack
            unacked = self._unacked
            while unacked and unacked[0].seq + len(unacked[0].data) <= ack and unacked[0].seq < ack:
                self._unacked_size -= len(unacked.popleft().data)
            self._progress()
            if self._fin_seq != -1 and ack > self._fin_seq:
                self._feed("fin acked")
        if self._unsent:
            self._send_unsent()
        if self.socket is not None and self.socket.has_writer() and self.is_writable():
            self.socket.wake_writer()

    def _reset(self) -> None:
        """The peer has reset the connection, or was never there."""
        if self.state == "SYN_SENT":
            self._die(errno.ECONNREFUSED)
        elif self.state in ("CLOSE_WAIT", "LAST_ACK"):
            self._die(errno.EPIPE)
        elif self.state == "TIME_WAIT":
            pass  # RFC 1337: it is over anyway
        else:
            self._die(errno.ECONNRESET)

    # ---- sending -------------------------------------------------------------------------------

    def room(self) -> int:
        """How many bytes it takes now.  Raises: OSError as send() does."""
        if self.error:
            fail(self.take_error())
        if self.sending_ended or self.is_over or self.state not in SENDING_STATES:
            fail(errno.EPIPE)
        if self._acks:
            self._take_due_acks()
        settings = self.settings
        if self._unsent_size >= settings.unsent_limit:
            return 0
        return max(settings.send_buffer - self._unacked_size - self._unsent_size, 0)

    def send(self, data: Bytes) -> int:
        """Take what there is room for.  Raises: BlockingIOError if there is none, and what ``room`` raises."""
        room = self.room()
        if self.state == "SYN_SENT" or (not room and len(data)):
            fail(errno.EAGAIN)
        piece = bytes(data) if len(data) <= room else bytes(memoryview(data)[:room])
        size = len(piece)
        if not self._unsent and size <= SEGMENT_SIZE and self._sent + size <= self._edge:
            if size:
                self._transmit("DATA", piece)
        else:
            self._unsent.append(piece)
            self._unsent_size += size
            self._send_unsent()
        return size

    def _send_unsent(self) -> None:
        unsent = self._unsent
        while unsent and (window := min(self._edge - self._sent, SEGMENT_SIZE)) > 0:
            data = unsent.popleft()
            if len(data) > window:
                unsent.appendleft(data[window:])
                data = data[:window]
            self._unsent_size -= len(data)
            self._transmit("DATA", data)
        if unsent:
            self._plan_ack()
            if self.answer_lost:
                self.repeat_later()
        elif self.sending_ended and self._fin_seq == -1 and not self.is_over:
            self._fin_seq = self._sent
            self._transmit("FIN", b"")

    def _transmit(self, kind: str, data: bytes) -> None:
        packet = Packet(kind, self.local, self.remote, data, self, self._sent)
        self._sent += len(data) or 1
        self._unacked.append(packet)
        self._unacked_size += len(data)
        assert self._path is not None
        self._path.send(packet)

    def finish(self) -> None:
        """Send no more: the peer is told behind the last byte."""
        if self.sending_ended or self.state not in ("ESTABLISHED", "CLOSE_WAIT", "SYN_RECV"):
            return
        self.sending_ended = True
        self._feed("fin sent")
        self._send_unsent()
        if self.socket is not None:
            self.socket.wake_writer()

    def receive_no_more(self) -> None:
        """shutdown(SHUT_RD): what has arrived can be read, then it is the end."""
        self.receiving_ended = True
        if self.socket is not None:
            self.socket.wake_reader()

    # ---- reading -------------------------------------------------------------------------------

    def read(self, count: int, *, peek: bool = False) -> bytes:
        """Up to ``count`` bytes of what has arrived; ``b""`` at the end.

        Raises: BlockingIOError if nothing has; OSError.
        """
        if self.arrived:
            if peek:
                return self.arrived.peek(count)
            data = self.arrived.take(count)
            self._tell_room()
            return data
        if self.fin_received:
            return b""
        if self.error:
            fail(self.take_error())
        if self.receiving_ended or self.is_over:
            return b""
        if self.state == "CLOSED":
            fail(errno.ENOTCONN)
        if count == 0 and self.state != "SYN_SENT":
            return b""
        fail(errno.EAGAIN)

    def _tell_room(self) -> None:
        """A peer that has stopped for want of room hears of it when half the buffer is free (RFC 9293, 3.8.6.2.2)."""
        room = self.settings.receive_buffer
        edge = self._received + room - len(self.arrived)
        if edge - self._room_told >= room // 2 and self.peer is not None and self.state not in ("CLOSED", "TIME_WAIT"):
            self._acknowledge(self.peer)

    # ---- loss, and repetition ------------------------------------------------------------------

    def repeat_later(self, departed: float = -1.0) -> None:
        """A segment of ours, sent at that time or just now, or an acknowledgement of one, did not get through."""
        self._keep_alive.wake()
        if self.state == "SYN_RECV" and self.peer is not None and self.peer._syn is not None:
            self.peer.repeat_later(self.peer._syn.departed)  # it has no answer, so it asks again
        if self.state == "CLOSED" or self._retry.is_set():
            return
        if not self._retries:
            self._stalled_at = self.host.fabric.now()
        age = self.host.fabric.now() - departed if departed >= 0 else 0.0
        self._retry.set(max(min(self._timeout() - age, self._time_left()), 0.0))

    def _timeout(self) -> float:
        if self._syn is not None:
            base = FIRST_HANDSHAKE_TIMEOUT
        else:
            there = self._path.latency if self._path is not None else 0.0
            base = MIN_TIMEOUT + 2 * there
        return float(min(base * 2**self._retries, MAX_TIMEOUT))

    def _repeat(self) -> None:
        if self._acks:
            self._take_due_acks()
        if self.state == "CLOSED" or self._path is None:
            return
        answer_lost, self.answer_lost = self.answer_lost, False
        self._retries += 1
        if self._retries > self._allowed_retries() or self._time_left() < 1e-9:
            self._die(errno.ETIMEDOUT)
        elif self._syn is not None:
            self._path.send(self._syn)
        elif self._unacked:
            again = [packet for packet in self._unacked if packet.lost] or [self._unacked[0]]
            for packet in again:
                self._path.send(packet)
        elif self._unsent:
            self._path.send(Packet("PROBE", self.local, self.remote, b"", self))
        else:
            # Nothing to repeat.  But should there be no room for what comes next, that news may be what was lost.
            self.answer_lost = answer_lost
            self._retries = 0

    def _allowed_retries(self) -> int:
        if self.state == "SYN_SENT":
            return self.settings.syn_retries
        if self.state == "SYN_RECV":
            return SYN_ACK_RETRIES
        return RETRIES if self.socket is not None or self.listener is not None else ORPHAN_RETRIES

    def _time_left(self) -> float:
        """Until TCP_USER_TIMEOUT ends it; it shortens the last pause."""
        limit = self.settings.user_timeout or math.inf
        return limit - (self.host.fabric.now() - self._stalled_at)

    def _progress(self) -> None:
        self._retries = 0
        self._stalled_at = self.host.fabric.now()
        if self._retry.is_set() and not self.answer_lost and not any(packet.lost for packet in self._unacked):
            self._retry.stop()

    # ---- keep-alive ----------------------------------------------------------------------------

    def keep_alive_changed(self) -> None:
        """The options that say when to ask a silent peer whether it is there."""
        self._keep_alive.stop()
        if self.settings.keep_alive and self.is_connected() and self.socket is not None:
            self._heard_at = self.host.fabric.now()
            self._probes = 0
            self._probe_in(self.settings.keep_alive_times[0])

    def _probe_in(self, delay: float) -> None:
        """While nothing is wrong every probe is answered, so none is sent: an idle network stays idle."""
        is_well = not self.host.fabric.in_trouble and not (self.peer is not None and self.peer.is_gone())
        self._keep_alive.set(delay, asleep=is_well)

    def _probe(self) -> None:
        idle, interval, count = self.settings.keep_alive_times
        path, peer = self._path, self.peer
        if not self.is_connected() or path is None or peer is None:
            return
        if self._unacked or self._unsent:
            self._probe_in(idle)  # what waits for an answer already needs no question (Linux: tcp_keepalive_timer)
            return
        silent = self.host.fabric.now() - self._heard_at
        if not path.is_stopped() and not peer.host.path(self.host).is_stopped():
            if peer.is_gone():
                path.send(Packet("PROBE", self.local, self.remote, b"", self))  # the answer is a reset
            else:
                self._probes = 0
                self._probe_in(idle - silent % idle)
        elif not self._probes and not is_multiple(silent, idle):
            self._probe_in(idle - silent % idle)  # the last probe was answered, before this trouble
        elif self._is_silent_too_long(silent, count):
            self._send_reset(peer)
            self._die(errno.ETIMEDOUT)
        else:
            self._probes += 1
            self._probe_in(interval)

    def _is_silent_too_long(self, silent: float, count: int) -> bool:
        """By the questions without an answer; but as Linux has it, by TCP_USER_TIMEOUT if there is one."""
        limit = self.settings.user_timeout
        return self._probes > 0 and silent > limit - 1e-6 if limit else self._probes >= count

    # ---- the end -------------------------------------------------------------------------------

    def close(self, *, reset: bool = False) -> None:
        """The program lets go of its socket.

        Unread bytes, or ``reset``: the peer is told by a reset that something was lost (RFC 2525, 2.17).
        """
        self.socket = None
        self.listener = None
        self._keep_alive.stop()
        self._plan_ack()  # nobody else will look at it
        if self.state in ("SYN_SENT", "CLOSED"):
            self.forget()
        elif self.state == "TIME_WAIT":
            pass
        elif reset or self.arrived or self.state == "SYN_RECV":
            self.arrived.clear()
            self._send_reset(self.peer)
            self.forget()
        else:
            self.finish()
            if self.state == "FIN_WAIT2":
                self._linger()

    def give_up(self) -> None:
        """shutdown() while it connects (Linux: tcp_disconnect)."""
        self._die(errno.ECONNRESET)

    def vanish(self) -> None:
        """The host has crashed: nobody is told."""
        self.error = errno.ENETDOWN
        self.forget()

    def _send_reset(self, victim: TcpEnd | None) -> None:
        """If it is lost, the victim finds out when it repeats what it has sent, if it has."""
        if self._path is not None:
            self._path.send(Packet("RST", self.local, self.remote, b"", victim))

    def _feed(self, what: str) -> None:
        self.state = TRANSITIONS.get((self.state, what), self.state)
        if self.state == "TIME_WAIT" or (self.state == "FIN_WAIT2" and self.socket is None):
            self._linger()
        elif self.state == "CLOSED":
            self.forget()

    def _linger(self) -> None:
        """Stay for what is still on its way, for a minute; nobody waits for that."""
        now = self.host.fabric.now()
        self.expires = now + LINGER_TIME
        self._keep_alive.stop()
        lingering = self.host.lingering
        while lingering and lingering[0].expires <= now:
            lingering.popleft().forget()
        lingering.append(self)

    def _die(self, error: int) -> None:
        """It has failed: whoever waits is told, once."""
        self.error = error
        self.forget()

    def forget(self) -> None:
        """Out of the host's tables."""
        self.is_over = True
        self.state = "CLOSED"
        self._syn = None
        self._retry.stop()
        self._keep_alive.stop()
        self._acks.clear()
        self._unacked.clear()
        self._unsent.clear()
        self._unacked_size = self._unsent_size = 0
        connections = self.host.connections
        if connections.get((self.local, self.remote)) is self:
            del connections[self.local, self.remote]
        self.host.tcp.release(self.binding)
        if self.listener is not None:
            self.listener.lost(self)
        if self.socket is not None:
            self.socket.wake_reader()
            self.socket.wake_writer()


def is_multiple(time: float, period: float) -> bool:
    """To a microsecond."""
    rest = time % period
    return time > period / 2 and min(rest, period - rest) < 1e-6


SENDING_STATES: Final = ("ESTABLISHED", "CLOSE_WAIT", "SYN_SENT")


class TcpListener:
    """A port that accepts connections."""

    def __init__(self, host: Host, binding: Binding, settings: Settings, backlog: int) -> None:
        self.host = host
        self.binding = binding
        self.settings = settings
        self.backlog = backlog
        self.socket: Waker | None = None
        self.ready: deque[TcpEnd] = deque()
        """Established, and not accepted yet."""
        self._asking: dict[TcpEnd, None] = {}
        self.is_shut: bool = False

    def is_listening(self) -> bool:
        return not self.is_shut

    def is_gone(self) -> bool:
        return False

    def is_readable(self) -> bool:
        return bool(self.ready) or self.is_shut

    def is_writable(self) -> bool:
        return self.is_shut

    def writer_waits(self) -> None:
        """Nothing to prepare."""

    def take_error(self) -> int:
        return 0

    def shut(self) -> None:
        """shutdown(): it listens no more, but keeps its port."""
        self.is_shut = True
        self.close()

    def receive(self, syn: Packet) -> None:
        """A peer asks for a connection."""
        # Linux keeps backlog + 1, and then ignores who asks; a real one may ask again.
        if len(self.ready) + len(self._asking) > self.backlog:
            self.host.note("backlog full", port=self.binding.port)
            syn.lost = True
            syn.sender.repeat_later(syn.departed)
            return
        binding = Binding(
            None, self.binding.family, syn.target[0], syn.target[1], reuse_address=self.binding.reuse_address,
            reuse_port=self.binding.reuse_port,
        )  # fmt: skip
        end = TcpEnd(self.host, binding, syn.target, syn.source, self.settings)
        binding.owner = end
        self.host.tcp.hold(binding)
        self._asking[end] = None
        end.accept_syn(syn, self)

    def established(self, end: TcpEnd) -> None:
        """A connection can be accepted."""
        self._asking.pop(end, None)
        self.ready.append(end)
        if self.socket is not None:
            self.socket.wake_reader()

    def lost(self, end: TcpEnd) -> None:
        """A connection came to nothing before it was established; one that was, the program still gets."""
        self._asking.pop(end, None)

    def close(self) -> None:
        """Accept no more.  Those that wait are reset, as by Linux."""
        for end in [*self.ready, *self._asking]:
            end.close(reset=True)
        self.ready.clear()
        self._asking.clear()
