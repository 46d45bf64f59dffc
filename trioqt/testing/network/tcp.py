"""TCP between simulated hosts, as a program sees it (RFC 9293), with the error numbers of Linux.

An end of a connection knows no task and no clock hook: it is told what arrives, and it tells its socket to wake whoever
waits.  What a real sender must find out by timers, that a segment was lost, is told to it at once; only then a timer
runs, and it repeats as a real one does.

The bytes of the two directions are counted in files of their own, and the timers too; here is what joins them: the
states, the handshake, who is told what, and the end, all of which the one table of states holds together.
"""

from __future__ import annotations

import errno
import math
from collections import deque
from functools import partial
from typing import Final, Protocol

from trioqt.links.base import Bytes
from trioqt.links.interrupts import protected
from trioqt.testing.network.fabric import Address, Packet, Path, Timer
from trioqt.testing.network.host import Binding, Host, fail
from trioqt.testing.network.stream_ends import StreamEnd, first_bytes
from trioqt.testing.network.tcp_receiving import Receiving
from trioqt.testing.network.tcp_sending import Sending
from trioqt.testing.network.tcp_states import SENDING_STATES, TRANSITIONS
from trioqt.testing.network.tcp_timers import KeepAlive, Retry

__all__ = ["Settings", "TcpEnd"]

# Linux: TCP_TIMEOUT_INIT and TCP_RTO_MIN, in seconds.
FIRST_HANDSHAKE_TIMEOUT: Final = 1.0
MIN_TIMEOUT: Final = 0.2

# Linux: tcp_synack_retries, tcp_retries2, tcp_orphan_retries.
SYN_ACK_RETRIES: Final = 5
RETRIES: Final = 15
ORPHAN_RETRIES: Final = 8

# Linux: TCP_TIMEWAIT_LEN and tcp_fin_timeout, in seconds.
LINGER_TIME: Final = 60.0


class Settings(Protocol):
    """The socket options that change what TCP does; sizes in bytes, times in seconds."""

    sort: str
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


class Accepting(Protocol):
    """A listener, as the connections that it accepts see it."""

    def established(self, end: TcpEnd) -> None:
        """It can be accepted."""

    def lost(self, end: TcpEnd) -> None:
        """It came to nothing."""


@protected
class TcpEnd(StreamEnd):
    """One end of a connection."""

    __slots__ = (
        "_ack_planned",
        "_acks",
        "_keep_alive",
        "_no_room",
        "_receiving",
        "_retry",
        "_sending",
        "_syn",
        "answer_lost",
        "arrived_at",
        "binding",
        "expires",
        "host",
        "is_over",
        "listener",
        "local",
        "path",
        "peer",
        "remote",
        "settings",
        "state",
    )

    def __init__(self, host: Host, binding: Binding, local: Address, remote: Address, settings: Settings) -> None:
        super().__init__()
        self.host: Host = host
        self.binding: Binding = binding
        self.local: Address = local
        self.remote: Address = remote
        self.settings: Settings = settings
        self.state: str = "CLOSED"
        self.listener: Accepting | None = None
        self.peer: TcpEnd | None = None
        self.path: Path | None = None
        self.expires: float = float("inf")
        self.is_over: bool = False
        self._receiving = Receiving(self.arrived)
        self.arrived_at: float = -math.inf
        self._sending = Sending()
        # Acknowledgements on their way here: (time, next byte expected, end of the peer's room).  They are looked at
        # when somebody wants to know, so they cost no event; only who waits for one has it planned.
        self._acks: deque[tuple[float, int, int]] = deque()
        self._ack_planned = False
        self._syn: Packet | None = None
        # The latest acknowledgement for this end did not get through.
        self.answer_lost: bool = False
        self._retry = Retry(host.fabric, self._repeat)
        self._keep_alive = KeepAlive(self)
        self._no_room = Timer(host.fabric, partial(self._die, errno.ETIMEDOUT))

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
        return bool(self.arrived or self._receiving.fin_received or self.error or self.receiving_ended or self.is_over)

    def is_writable(self) -> bool:
        """Would a send take something, or fail, at once?

        Linux calls a socket writable only when a third of its buffer is free, so there a send can succeed while a task
        still waits for room.  Here both are one condition.
        """
        if self._acks:
            self._take_due_acks()
        return self._takes()

    def _takes(self) -> bool:
        if self.error or self.sending_ended or self.is_over:
            return True
        return self.state in ("ESTABLISHED", "CLOSE_WAIT") and self._sending.room(self.settings) > 0

    def is_connected(self) -> bool:
        """Does the kernel still know a peer?"""
        if self._acks:
            self._take_due_acks()
        return self.state not in ("CLOSED", "SYN_SENT", "TIME_WAIT")

    def queued(self) -> tuple[int, int]:
        """Bytes that have arrived and are unread, bytes that are not acknowledged."""
        if self._acks:
            self._take_due_acks()
        return len(self.arrived), self._sending.unacked_size + self._sending.unsent_size

    # ---- the handshake -------------------------------------------------------------------------

    def connect(self) -> None:
        """Ask for a connection.  How it ends: the state, and ``error``."""
        self._feed("syn sent")
        self.host.connections[self.local, self.remote] = self
        self.path = self.host.path_to(self.remote[0])
        if self.path is None:
            # A router on the way says so, as far away as everybody.
            fabric = self.host.fabric
            fabric.at(fabric.now() + 2 * fabric.default_latency, self._die, errno.EHOSTUNREACH)
            return
        self._syn = Packet("SYN", self.local, self.remote, b"", self)
        self._syn.edge = self.settings.receive_buffer
        self._receiving.room_told = self.settings.receive_buffer
        self.path.send(self._syn)

    def accept_syn(self, syn: Packet, listener: Accepting) -> None:
        """Answer to a peer that asks for a connection."""
        self._feed("syn received")
        self.listener = listener
        self.peer = syn.sender
        self._sending.edge = syn.edge
        self.host.connections[self.local, self.remote] = self
        self.path = self.host.path_to(self.remote[0])
        assert self.path is not None
        self._syn = Packet("SYN-ACK", self.local, self.remote, b"", self)
        self._syn.edge = self._receiving.room_told = self.settings.receive_buffer
        self.path.send(self._syn)

    def _establish(self) -> None:
        self._feed("agreed")
        self._syn = None
        self._progress()
        self.keep_alive_changed()
        if self.listener is not None:
            self.listener.established(self)
        if self.waker is not None:
            self.waker.wake_writer()

    # ---- what arrives --------------------------------------------------------------------------

    def receive(self, packet: Packet) -> None:
        """A segment for this connection."""
        if self._acks:
            self._take_due_acks()
        if self.settings.keep_alive:
            self._keep_alive.heard()
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
        assert self.path is not None
        if packet.sender is not self.peer:
            # The peer's host has crashed, and asks anew from the same port.  RFC 5961, 4.2: "are you sure?"
            self.path.send(Packet("CHALLENGE", self.local, self.remote, b"", packet.sender))
            packet.sender.repeat_later(packet.departed)
        elif self._syn is not None:
            self._send_again(self._syn)  # it asks again: our answer was lost

    def _receive_syn_ack(self, packet: Packet) -> None:
        first = self.state == "SYN_SENT"
        assert self.path is not None
        if first:
            self.peer = packet.sender
            self._sending.edge = packet.edge
        # If it is lost, the peer must repeat what it answers to; so the peer is told.
        self.path.send(Packet("ACK", self.local, self.remote, b"", packet.sender))
        if first and self.state == "SYN_SENT":
            self._establish()

    def _receive_data(self, packet: Packet) -> None:
        is_new = packet.seq + len(packet.data) > self._receiving.position  # else it is repeated, and known
        if is_new and self.waker is None and self.listener is None:
            # Nobody will ever read it.
            self._send_reset(packet.sender)
            self.forget()
        elif is_new and self.receiving_ended and self.sending_ended:
            self._send_reset(packet.sender)
            self._die(errno.ECONNRESET)
        else:
            self._receive_in_turn(packet)

    def _receive_in_turn(self, packet: Packet) -> None:
        receiving = self._receiving
        if packet.seq > receiving.position:
            receiving.early[packet.seq] = packet
            return
        if packet.seq == receiving.position:
            if packet.kind == "DATA":
                self.arrived_at = self.host.fabric.now()
            if receiving.take(packet):
                self._feed("fin received")
            if self.waker is not None:
                self.waker.wake_reader()
        self._acknowledge(packet.sender)

    def _acknowledge(self, sender: TcpEnd) -> None:
        """Tell the peer how far it has got and how much room there is."""
        edge = self._receiving.tell_room(self.settings.receive_buffer)
        position = self._receiving.position
        path = self.path
        assert path is not None
        if path.direct and path.target.is_up:
            sender.answer_lost = False
            sender.take_ack(position, edge)
        elif path.is_stopped():
            sender.answer_lost = True
            sender.repeat_later()
            if path.held:
                path.on_release(sender, partial(self._acknowledge, sender))
        else:
            sender.answer_lost = False  # this one says all that a lost one did
            sender.expect_ack(self.host.fabric.now() + path.delay(), position, edge)

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
        return bool(self._sending.unsent) or self.waker is None or self.waker.has_writer()

    def _ack_is_due(self, _: None) -> None:
        self._ack_planned = False
        if self._acks:
            self._take_due_acks()
        self._plan_ack()

    def _take_due_acks(self) -> None:
        """A thousand may be due at once, so it is a loop, and nothing in it asks what else is due."""
        now = self.host.fabric.now()
        acks = self._acks
        if acks[0][0] > now:
            return
        while acks and acks[0][0] <= now:
            _, ack, edge = acks.popleft()
            self._advance(ack, edge)
        self._tell_writer()

    def take_ack(self, ack: int, edge: int) -> None:
        """The peer has everything before ``ack``, and room as far as ``edge``."""
        self._advance(ack, edge)
        self._tell_writer()

    def _advance(self, ack: int, edge: int) -> None:
        sending = self._sending
        if sending.acknowledged(ack, edge):
            self._progress()
            if sending.fin_seq != -1 and ack > sending.fin_seq:
                self._feed("fin acked")
        if sending.unsent:
            self._send_unsent()

    def _tell_writer(self) -> None:
        if self.waker is not None and self.waker.has_writer() and self._takes():
            self.waker.wake_writer()

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
            self.fail_once()
        if self.sending_ended or self.is_over or self.state not in SENDING_STATES:
            fail(errno.EPIPE)
        if self._acks:
            self._take_due_acks()
        return self._sending.room(self.settings)

    def send(self, data: Bytes) -> int:
        """Take what there is room for.  Raises: BlockingIOError if there is none, and what ``room`` raises."""
        room = self.room()
        if self.state == "SYN_SENT" or (not room and len(data)):
            fail(errno.EAGAIN)
        piece = first_bytes(data, room)
        size = len(piece)
        if not size:
            return 0
        if self._sending.goes_at_once(size):
            self._transmit("DATA", piece)
        else:
            self._sending.queue(piece)
            self._send_unsent()
        return size

    def _send_unsent(self) -> None:
        sending = self._sending
        while data := sending.next_piece():
            self._transmit("DATA", data)
        if sending.unsent:
            self._plan_ack()
            if self.answer_lost:
                self.repeat_later()
        self._limit_wait_for_room()
        if not sending.unsent and self.sending_ended and sending.fin_seq == -1 and not self.is_over:
            sending.fin_seq = sending.sent
            self._transmit("FIN", b"")

    def _limit_wait_for_room(self) -> None:
        """Linux, tcp_probe_timer: TCP_USER_TIMEOUT, from the first probe on, ends a peer that lives and has no room."""
        if not self._sending.waits_for_room():
            self._no_room.stop()
        elif self.settings.user_timeout and not self._no_room.is_set():
            self._no_room.set(self._first_pause() + self.settings.user_timeout)

    def _transmit(self, kind: str, data: bytes) -> None:
        packet = Packet(kind, self.local, self.remote, data, self, self._sending.sent)
        self._sending.depart(packet)
        assert self.path is not None
        self.path.send(packet)

    def finish(self) -> None:
        """Send no more: the peer is told behind the last byte."""
        if self.sending_ended or self.state not in ("ESTABLISHED", "CLOSE_WAIT", "SYN_RECV"):
            return
        self.sending_ended = True
        self._feed("fin sent")
        self._send_unsent()
        if self.waker is not None:
            self.waker.wake_writer()

    def receive_no_more(self) -> None:
        """shutdown(SHUT_RD): what has arrived can be read, then it is the end."""
        self.receiving_ended = True
        if self.waker is not None:
            self.waker.wake_reader()

    def _read_nothing(self, count: int) -> bytes:
        if self._receiving.fin_received:
            return b""
        self.fail_once()
        if self.receiving_ended or self.is_over:
            return b""
        if self.state == "CLOSED":
            fail(errno.ENOTCONN)
        if count == 0 and self.state != "SYN_SENT":
            return b""
        fail(errno.EAGAIN)

    def _tell_room(self) -> None:
        """A peer that has stopped for want of room hears of it when half the buffer is free."""
        if (
            self._receiving.has_much_room(self.settings.receive_buffer)
            and self.peer is not None
            and self.state not in ("CLOSED", "TIME_WAIT")
        ):
            self._acknowledge(self.peer)

    # ---- loss, and repetition ------------------------------------------------------------------

    def repeat_later(self, departed: float = -1.0) -> None:
        """A segment of ours, sent at that time or just now, or an acknowledgement of one, did not get through."""
        self._keep_alive.wake()
        if self.state == "SYN_RECV" and self.peer is not None and self.peer._syn is not None:
            self.peer.repeat_later(self.peer._syn.departed)  # it has no answer, so it asks again
        if self.state == "CLOSED" or self._retry.is_set():
            return
        self._retry.set(self._first_pause(), self._limit(), departed)

    def _first_pause(self) -> float:
        if self._syn is not None:
            return FIRST_HANDSHAKE_TIMEOUT
        return MIN_TIMEOUT + 2 * (self.path.latency if self.path is not None else 0.0)

    def _limit(self) -> float:
        """How long to go on repeating."""
        return self.settings.user_timeout or math.inf

    def _repeat(self) -> None:
        if self._acks:
            self._take_due_acks()
        if self.state == "CLOSED" or self.path is None:
            return
        answer_lost, self.answer_lost = self.answer_lost, False
        self._retry.count += 1
        if self._retry.count > self._allowed_retries() or self._retry.time_left(self._limit()) < 1e-9:
            self._die(errno.ETIMEDOUT)
        elif self._syn is not None:
            self._send_again(self._syn)
        elif self._sending.unacked:
            for packet in self._sending.again():
                self._send_again(packet)
        elif self._sending.unsent:
            self.ask()
        else:
            # Nothing to repeat.  But should there be no room for what comes next, that news may be what was lost.
            self.answer_lost = answer_lost
            self._retry.count = 0

    def _send_again(self, packet: Packet) -> None:
        packet.again = True
        if self.path is not None:
            self.path.send(packet)

    def _allowed_retries(self) -> int:
        if self.state == "SYN_SENT":
            return self.settings.syn_retries
        if self.state == "SYN_RECV":
            return SYN_ACK_RETRIES
        return RETRIES if self.waker is not None or self.listener is not None else ORPHAN_RETRIES

    def _progress(self) -> None:
        if self._retry.progress() and not self.answer_lost and not self._sending.has_lost():
            self._retry.stop()

    # ---- keep-alive ----------------------------------------------------------------------------

    def keep_alive_changed(self) -> None:
        """The options that say when to ask a silent peer whether it is there."""
        self._keep_alive.stop()
        if self.settings.keep_alive and self.is_connected() and self.waker is not None:
            self._keep_alive.start()

    def ask(self) -> None:
        """Send a segment that wants an answer."""
        if self.path is not None:
            self.path.send(Packet("PROBE", self.local, self.remote, b"", self))

    def owes_nothing(self) -> bool:
        """Is all that was sent acknowledged?"""
        return not self._sending.unacked and not self._sending.unsent

    def give_up_peer(self) -> None:
        """It is silent for too long."""
        self._send_reset(self.peer)
        self._die(errno.ETIMEDOUT)

    # ---- the end -------------------------------------------------------------------------------

    def close(self, *, reset: bool = False) -> None:
        """The program lets go of its socket.

        Unread bytes, or ``reset``: the peer is told by a reset that something was lost (RFC 2525, 2.17).
        """
        self.let_go()
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
        """The host has crashed: nobody is told, and what becomes of who waits here its socket knows."""
        self.let_go()
        self.forget()

    def _send_reset(self, victim: TcpEnd | None) -> None:
        """If it is lost, the victim finds out when it repeats what it has sent, if it has."""
        if self.path is not None:
            self.path.send(Packet("RST", self.local, self.remote, b"", victim))

    def _feed(self, what: str) -> None:
        self.state = TRANSITIONS.get((self.state, what), self.state)
        if self.state == "TIME_WAIT" or (self.state == "FIN_WAIT2" and self.waker is None):
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
        self._no_room.stop()
        self._acks.clear()
        self._sending.drop()
        connections = self.host.connections
        if connections.get((self.local, self.remote)) is self:
            del connections[self.local, self.remote]
        self.host.tcp.release(self.binding)
        if self.listener is not None:
            self.listener.lost(self)
        self.wake_both()
