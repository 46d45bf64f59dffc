"""A plan is played on a network, and everything that the socket does is compared with the model."""

from __future__ import annotations

import contextlib
import functools
import math
from collections.abc import AsyncIterator, Iterator
from typing import Any

import attrs
import pytest
import trio
import trio.testing

from tests.model.plans import Plan
from tests.model.stream_peers import PipePeer, pipe, tls
from tests.model.table import after_end, in_state, is_path, readable
from tests.model.world import Line, World, Wrong, modelled
from tests.networks import Loopback, Network, RawListener, RawPeer, Virtual
from trioqt import Event, SocketError, SocketState, StateChanged, TcpServer, TcpSocket
from trioqt.core.events import Nudge
from trioqt.core.states import Input, Told
from trioqt.links.native import KernelSocket
from trioqt.sockets import tcp_socket
from trioqt.sockets.descriptors import open_connection
from trioqt.sockets.stream_reader import RECEIVE_SIZE
from trioqt.testing import VirtualNetwork
from trioqt.testing.network.socket import VirtualSocket
from trioqt.testing.simulation.determinism import pinned_scheduler

__all__ = ["Played", "play"]

# In virtual seconds: longer than an orderly end may linger, hear a stream out and wait for a flush, together.
PATIENCE = 30.0
SPARE = 2  # connections that can be adopted

RECEIVING = ("receive_some", "receive_line", "receive_until", "receive_exactly")
SENDING = ("send_all", "send_eof", "wait_send_all_might_not_block")
ENDING = ("disconnect_from_host", "aclose", "leave")
AT_ONCE = (*SENDING, *ENDING, "connect", "connect_refused", "wait_for_bytes_written", "wait_for_connected")
STREAMS = ("stream", "pipe", "tls")
ENDED = (SocketState.UNCONNECTED, SocketState.BOUND)


@attrs.frozen
class Played:
    """What came of it."""

    steps: int
    log: tuple[str, ...]
    peers: tuple[str, ...]
    told: tuple[Told, ...]


@attrs.define(eq=False)
class Actor:
    """A task that makes calls."""

    name: str
    give: trio.MemorySendChannel[tuple[str, trio.CancelScope]]
    steps: trio.MemoryReceiveChannel[tuple[str, trio.CancelScope]]
    scopes: list[trio.CancelScope] = attrs.Factory(list)
    call: str = ""
    since: Line | None = None


@attrs.define(eq=False)
class Listener:
    """A subscription, and who reads it."""

    scope: trio.CancelScope
    first: int
    state: SocketState
    heard: list[Event] = attrs.Factory(list)
    ended: bool = False


@attrs.define(eq=False)
class Play:
    """One run."""

    plan: Plan
    network: Network
    world: World
    sock: TcpSocket
    nursery: trio.Nursery
    port: int
    server: TcpServer[TcpSocket] | None = None
    draining: int = 0
    """How many tasks are in drain."""
    drained: bool = False
    """It has been called, which cuts the connection."""
    actors: dict[str, Actor] = attrs.Factory(dict)
    listeners: list[Listener] = attrs.Factory(list)
    spare: list[tuple[trio.socket.SocketType, RawPeer]] = attrs.Factory(list)
    strays: list[tuple[int, RawPeer]] = attrs.Factory(list)
    cancelled: list[tuple[Actor, trio.CancelScope]] = attrs.Factory(list)
    over: bool = False
    refused: int = 1

    # -- steps ------------------------------------------------------------------------------

    async def step(self, text: str) -> None:
        """Begin one."""
        if text.startswith("+ "):
            text = text[2:]
        elif text.startswith("~ "):
            text = text[2:]
            await trio.lowlevel.checkpoint()
        else:
            await self.rest()
        self.world.say(text)
        who, _, what = text.partition(" ")
        if who in self.actors:
            actor, scope = self.actors[who], trio.CancelScope()
            actor.scopes.append(scope)
            actor.give.send_nowait((what, scope))
        elif who == "cancel":
            for scope in self.actors[what].scopes:
                scope.cancel()
                self.cancelled.append((self.actors[what], scope))
        elif who == "wait":
            await trio.sleep(float(what))
        elif text == "main drain":
            if self.server is not None:
                self.drained = True
                self.draining += 1
                self.nursery.start_soon(self.drain_server, self.server)
        elif who == "main":
            self.at_once("main", what)
        elif who == "peer":
            self.peer(what)
        else:
            raise ValueError(text)

    async def drain_server(self, server: TcpServer[TcpSocket]) -> None:
        await server.drain(0.3)
        self.world.say("  main drain: ok")
        self.draining -= 1

    async def rest(self) -> None:
        """Until nothing moves any more."""
        for _ in range(3):
            await trio.testing.wait_all_tasks_blocked()
        for actor, scope in self.cancelled:
            if scope in actor.scopes:
                raise Wrong(f"{actor.name} {actor.call} was cancelled, and goes on")
        self.cancelled.clear()
        self.check_limits()

    def check_limits(self) -> None:
        if self.world.failed:
            raise self.world.failed[0]
        line, held = self.world.line, self.sock._read_buffer.held
        if self.sock._machine.state is SocketState.CONNECTED and self.plan.begins not in STREAMS and held > line.most:
            raise Wrong(f"{held} bytes are held, where at most {line.most} were asked for")

    def peer(self, what: str) -> None:
        verb, _, argument = what.partition(" ")
        line = self.world.line
        peer = line.peer or self.peer_of(line)
        if peer is None or line.peer_gone:
            return
        number = int(argument or 0)
        if verb in ("send", "send_line"):
            if line.peer_finished:
                return
            data = self.world.message(number)
            if verb == "send_line":
                data = data[:-1] + b"\n"
            if self.sock._machine.state is not SocketState.CONNECTED:
                line.late = True
            try:
                line.sent += data[: peer.send_now(data)]
            except BlockingIOError:
                pass
            except OSError:  # a reset, and this is the call that is told
                line.seen, line.late = "reset", True
        elif verb == "read":
            self.read(line, peer, number)
        elif verb == "finish":
            line.peer_finished = True
            with contextlib.suppress(OSError):
                peer.finish()
        else:
            line.peer_gone = True
            line.peer_finished = line.peer_finished or verb == "close"
            line.peer_reset = True  # also by a close, if there is something unread or we send on
            line.disturbed = True
            peer.reset() if verb == "reset" else peer.close()

    def read(self, line: Line, peer: RawPeer | PipePeer, most: int) -> None:
        try:
            line.got += peer.receive_now(most)
        except OSError:
            line.seen = "reset"

    def peer_of(self, line: Line) -> RawPeer | PipePeer | None:
        for port, peer in self.strays:
            if port == line.port != 0:
                self.strays.remove((port, peer))
                line.peer = peer
                return peer
        return None

    # -- calls ------------------------------------------------------------------------------

    async def act(self, actor: Actor) -> None:
        """Do what is given, one after the other."""
        async for what, scope in actor.steps:
            try:
                with scope:
                    await self.call(actor, what)
            except Exception as exc:
                self.world.failed.append(exc)
                raise
            finally:
                actor.call = ""
                actor.scopes.remove(scope)
                self.world.writes.pop(trio.lowlevel.current_task(), None)

    async def call(self, actor: Actor, what: str) -> None:
        verb, _, argument = what.partition(" ")
        if verb in ("subscribe", "unsubscribe"):
            await self.subscribe() if verb == "subscribe" else self.unsubscribe()
            return
        if not hasattr(self, f"do_{verb}"):
            self.at_once(actor.name, what)
            return
        await trio.lowlevel.checkpoint_if_cancelled()
        sock, world = self.sock, self.world
        task = trio.lowlevel.current_task()
        expected = self.expected(verb)
        actor.call, actor.since = what, world.line
        line = world.line
        if verb in RECEIVING:
            line.most = max(line.most, int(argument) if argument else RECEIVE_SIZE)
        connected = sock._machine.state in (SocketState.CONNECTED, SocketState.CLOSING)
        if verb in ENDING:
            line.touched = True
        if verb == "disconnect_from_host":
            world.disconnects[task] = line
        lost = line.lost
        outcome, result = "", None
        try:
            result = await getattr(self, f"do_{verb}")(argument)
            outcome = "ok"
        except trio.Cancelled:
            outcome = "cancelled"
            if verb in ENDING:
                line.disturbed = True
            raise
        except SocketError as exc:
            outcome = exc.kind.name
        except trio.ClosedResourceError:
            outcome = "closed"
        except trio.BusyResourceError:
            outcome = "busy"
        finally:
            world.disconnects.pop(task, None)
            world.say(f"  {actor.name} {what}: {outcome}{'' if result is None else f' {brief(result)}'}")
        self.judge(actor, verb, argument, line, expected, outcome, result)
        if verb in ENDING and outcome == "ok" and connected:
            line.orderly += 1
            if line.lost and not lost:
                raise Wrong(f"{actor.name} {what} returned as if all were sent")

    def judge(
        self, actor: Actor, verb: str, argument: str, line: Line, expected: str, outcome: str, result: Any
    ) -> None:
        """Is that what a call may come to?"""
        what = f"{actor.name} {verb} {argument}".strip()
        task = trio.lowlevel.current_task()
        wrote = self.world.writes.get(task, [])
        if wrote and not (verb == "send_all" and outcome == "ok"):
            raise Wrong(f"{what} has written and ended with {outcome}")
        if verb == "send_all" and outcome == "ok" and [len(data) for data in wrote] != [int(argument)]:
            raise Wrong(f"{what} returned, and has written {wrote}")
        if outcome == "OPERATION" and expected != "OPERATION":
            raise Wrong(f"{what} raised OPERATION, where the table says {expected}")
        # Bytes come first, then the end, then the error: what had come before the end of the connection is answered.
        answered = outcome in ("ok", "LIMIT_EXCEEDED", "REMOTE_HOST_CLOSED") and (
            verb in RECEIVING or verb == "wait_for_ready_read"
        )
        answered = answered or (outcome == "closed" and self.closing())
        if expected == "OPERATION" and outcome not in ("OPERATION", "busy") and not (answered and line.inputs):
            raise Wrong(f"{what} came to {outcome}, where the table says OPERATION")
        if outcome == "closed" and verb not in SENDING and not self.may_be_closed(line, expected):
            raise Wrong(f"{what} raised ClosedResourceError, and nobody here has ended anything")
        if outcome == "busy" and not any(other.call and other is not actor for other in self.actors.values()):
            raise Wrong(f"{what} raised BusyResourceError, and nobody else is in a call")
        if outcome == "REMOTE_HOST_CLOSED" and not (line.peer_finished or line.peer_gone):
            raise Wrong(f"{what} raised REMOTE_HOST_CLOSED, and the peer is there")
        if outcome == "CONNECTION_REFUSED" and not self.refused:
            raise Wrong(f"{what} raised {outcome}")
        limited = ("receive_line", "receive_until", "wait_for_ready_read")
        if outcome == "LIMIT_EXCEEDED" and verb not in (RECEIVING if line.mark is not None else limited) + limited:
            raise Wrong(f"{what} raised LIMIT_EXCEEDED")
        if outcome == "UNFINISHED_SOCKET_OPERATION" and verb not in ENDING:
            raise Wrong(f"{what} raised {outcome}")
        if expected == "closed for good" and outcome not in ("closed", "busy"):
            raise Wrong(f"{what} came to {outcome}, and the socket is closed")
        known = ("ok", "closed", "busy", "OPERATION", "REMOTE_HOST_CLOSED", "CONNECTION_REFUSED", "LIMIT_EXCEEDED")
        if (verb, outcome, self.plan.begins) == ("send_eof", "UNSUPPORTED_SOCKET_OPERATION", "tls"):
            return
        if outcome not in (*known, "UNFINISHED_SOCKET_OPERATION"):
            raise Wrong(f"{what} raised {outcome}")
        if outcome == "ok" and verb in RECEIVING:
            self.received(what, verb, argument, line, result)
        if verb == "wait_for_ready_read" and result is False and not line.peer_finished:
            raise Wrong(f"{what} said that nothing will come, and the peer has not finished")

    def received(self, what: str, verb: str, argument: str, line: Line, data: bytes) -> None:
        # A receive may have taken what it returns a turn ago, and another one what is behind that in this turn.
        others = sum(other.call != "" and other.call.partition(" ")[0] in RECEIVING for other in self.actors.values())
        line.takes(data, others - 1)
        number = int(argument) if argument else RECEIVE_SIZE
        whole = line.peer_finished and (line.taken == len(line.sent) or bool(line.stashed))
        if verb == "receive_exactly" and len(data) != int(argument):
            raise Wrong(f"{what} gave {len(data)} bytes")
        if len(data) > number:
            raise Wrong(f"{what} gave {len(data)} bytes")
        if verb == "receive_line" and not data.endswith(b"\n") and not whole:
            raise Wrong(f"{what} gave {data[-20:]!r}, which is no line")
        if verb == "receive_until" and not data.endswith(b"."):
            raise Wrong(f"{what} gave {data[-20:]!r}")
        if data == b"" and verb != "receive_exactly" and not whole:
            raise Wrong(f"{what} gave a clean end after {line.taken} of {len(line.sent)} bytes")

    def at_once(self, name: str, what: str) -> None:
        """A call that does not wait."""
        verb, _, argument = what.partition(" ")
        if verb == "adopt" and (not self.spare or self.over):
            return
        sock, world = self.sock, self.world
        numbers = [int(argument)] if argument else []
        line = world.line
        outcome, result = "ok", None
        expected = self.expected(verb)
        was_open = sock._read_buffer.in_transaction
        try:
            if verb in ("abort", "abort_reset"):
                disturbed, connected = line.disturbed, sock._machine.state is SocketState.CONNECTED
                line.touched = line.disturbed = True
                sock.abort(reset=verb == "abort_reset")
                line.plain = line.plain or (
                    self.plan.begins not in STREAMS
                    and connected
                    and not disturbed
                    and verb == "abort"
                    and len(line.accepted) <= 10
                    and len(line.sent) - line.taken <= 10_000  # of more, a part is under way still
                )
                if sock._machine.state is not SocketState.UNCONNECTED:
                    raise Wrong("after abort() it is not UNCONNECTED")
                if len(sock._read_buffer) or sock.is_valid() or sock.bytes_to_write():
                    raise Wrong("after abort() something is left")
            elif verb == "adopt":
                self.adopt()
            elif verb == "write":
                result = sock.write(world.message(*numbers))
            else:
                result = getattr(sock, verb)(*numbers)
        except SocketError as exc:
            outcome = exc.kind.name
        except trio.ClosedResourceError:
            outcome = "closed"
        except trio.BusyResourceError:
            outcome = "busy"
        except trio.WouldBlock:
            outcome = "would block"
        finally:
            world.writes.pop(trio.lowlevel.current_task(), None)
            world.say(f"  {name} {what}: {outcome}{'' if result is None else f' {brief(result)}'}")
        if verb == "set_read_buffer_size":
            line.most = max(line.most, *numbers)
        if verb.endswith("_transaction"):
            self.transaction(f"{name} {verb}", line, was_open, outcome)
            return
        same = (outcome == "OPERATION") == (expected == "OPERATION")
        if not same and not (outcome == "closed" and self.closing()):
            raise Wrong(f"{name} {what} came to {outcome}, where the table says {expected}")
        if outcome == "closed" and verb != "write" and not self.may_be_closed(line, expected):
            raise Wrong(f"{name} {what} raised ClosedResourceError, and nobody here has ended anything")
        if isinstance(result, bytes):
            waiting = sum(other.call.partition(" ")[0] in RECEIVING for other in self.actors.values())
            line.takes(result if verb != "peek" else b"", waiting)
        if verb == "peek" and isinstance(result, bytes) and not self.begins_with(line, result):
            raise Wrong(f"{name} peek gave {result!r}")

    def begins_with(self, line: Line, data: bytes) -> bool:
        return bool(line.stashed) or line.sent.startswith(data, line.taken)

    def transaction(self, what: str, line: Line, was_open: bool, outcome: str) -> None:
        """One is begun or over."""
        starts, closed = "start" in what, self.sock._closed
        possible = was_open is not starts and not closed
        if (outcome in ("ok", "busy")) is not possible and (outcome, starts) != ("busy", True):
            raise Wrong(f"{what} came to {outcome}")
        if not possible and outcome not in ("OPERATION", "closed", "busy"):
            raise Wrong(f"{what} came to {outcome}")
        if outcome == "ok":
            line.settles()
            if "rollback" in what:
                assert line.mark is not None
                line.taken = line.mark
            line.mark = line.taken if starts else None

    def expected(self, verb: str) -> str:
        """What the tables of states.md say of this call now."""
        verb = {"leave": "aclose", "connect": "connect_to_host", "connect_refused": "connect_to_host"}.get(verb, verb)
        verb = {"abort_reset": "abort", "adopt": "set_socket_descriptor"}.get(verb, verb)
        if verb in ("set_read_buffer_size", "read_buffer_size") or verb.endswith("_transaction"):
            return "yes"
        state = self.sock._machine.state
        if state is not SocketState.UNCONNECTED:
            return in_state(verb, state)
        past = self.past()
        if past == "":
            return in_state(verb, state)
        try:
            cell = after_end(verb, past)
            return "closed for good" if (cell, past) == ("closed", "closed") else cell
        except KeyError:
            return in_state(verb, state)

    def may_be_closed(self, line: Line, expected: str) -> bool:
        """Has somebody here ended it?"""
        ended = line.touched or line is not self.world.line or self.over or self.drained
        return ended or expected.startswith("closed")

    def closing(self) -> bool:
        """Is a task about to close the socket for good?"""
        return any(other.call.partition(" ")[0] in ("leave", "aclose") for other in self.actors.values())

    def past(self) -> str:
        """Which column of the second table holds; empty: nothing has been yet."""
        if self.sock._closed:
            return "closed"
        for happened, task in reversed(self.world.line.inputs):
            if happened in (Input.READ_FAILED, Input.WRITE_FAILED, Input.ATTEMPT_FAILED, Input.PEER_CLOSED):
                return "lost"
            if happened is Input.ABORT:
                return "aborted here"
            if happened in (Input.DISCONNECT, Input.ATTEMPT_DROPPED, Input.QUEUE_DROPPED):
                mine = task is trio.lowlevel.current_task()
                return "disconnected by this task" if mine else "disconnected by another task"
        return ""

    def adopt(self) -> None:
        ours, peer = self.spare[-1]
        before, state = self.world.line, self.sock._machine.state
        line = self.world.new_line()
        try:
            self.sock.set_socket_descriptor(ours.fileno())
        except BaseException:
            self.world.lines.remove(line)
            raise
        if state is SocketState.CONNECTED:
            before.touched = before.disturbed = True
            before.replaced_by = trio.lowlevel.current_task()
        self.spare.pop()
        if not isinstance(ours, VirtualSocket):
            ours.detach()
        line.peer = peer

    async def do_connect(self, argument: str) -> None:
        await self.sock.connect_to_host(self.network.host, self.port)

    async def do_connect_refused(self, argument: str) -> None:
        await self.sock.connect_to_host(self.network.host, self.refused)

    async def do_receive_some(self, argument: str) -> bytes:
        return await self.sock.receive_some(int(argument) if argument else None)

    async def do_receive_line(self, argument: str) -> bytes:
        return await self.sock.receive_line(int(argument))

    async def do_receive_until(self, argument: str) -> bytes:
        return await self.sock.receive_until(b".")

    async def do_receive_exactly(self, argument: str) -> bytes:
        return await self.sock.receive_exactly(int(argument))

    async def do_wait_for_ready_read(self, argument: str) -> bool:
        return await self.sock.wait_for_ready_read()

    async def do_send_all(self, argument: str) -> None:
        await self.sock.send_all(self.world.message(int(argument)))

    async def do_send_eof(self, argument: str) -> None:
        await self.sock.send_eof()

    async def do_wait_for_bytes_written(self, argument: str) -> None:
        await self.sock.wait_for_bytes_written()

    async def do_wait_send_all_might_not_block(self, argument: str) -> None:
        await self.sock.wait_send_all_might_not_block()

    async def do_wait_for_connected(self, argument: str) -> None:
        await self.sock.wait_for_connected()

    async def do_wait_for_disconnected(self, argument: str) -> None:
        await self.sock.wait_for_disconnected()

    async def do_disconnect_from_host(self, argument: str) -> None:
        await self.sock.disconnect_from_host()

    async def do_aclose(self, argument: str) -> None:
        await self.sock.aclose()

    async def do_leave(self, argument: str) -> None:
        async with self.sock:
            pass

    # -- listeners --------------------------------------------------------------------------

    async def subscribe(self) -> None:
        """Listen, and let a task read what is told."""
        await self.nursery.start(self.listen)

    async def listen(self, *, task_status: trio.TaskStatus[None]) -> None:
        listener = Listener(trio.CancelScope(), len(self.world.told), self.sock._machine.state)
        self.listeners.append(listener)
        begun = False
        try:
            with listener.scope:
                async with self.sock.events() as events:
                    task_status.started()
                    begun = True
                    async for event in events:
                        listener.heard.append(event)
                    listener.ended = True
        except trio.ClosedResourceError:  # the socket is closed
            self.listeners.remove(listener)
        if not begun:
            task_status.started()

    def unsubscribe(self) -> None:
        for listener in self.listeners:
            listener.scope.cancel()

    def check_events(self) -> None:
        told = self.world.told
        if not is_path(told, SocketState.UNCONNECTED):
            raise Wrong(f"no path of the table: {readable(told)}")
        for listener in self.listeners:
            facts = [as_told(event) for event in listener.heard if not isinstance(event, Nudge)]
            wanted = told[listener.first :]
            if facts != (wanted if listener.ended else wanted[: len(facts)]):
                raise Wrong(f"a listener heard {readable(facts)} instead of {readable(wanted)}")
            if not is_path(facts, listener.state, finish_told=True):
                raise Wrong(f"a listener heard no path of the table: {readable(facts)}")
            gone = False
            for event in listener.heard:
                name = type(event).__name__
                if gone and isinstance(event, Nudge):
                    raise Wrong(f"{name} was told after Disconnected")
                gone = name == "Disconnected" or (gone and not isinstance(event, StateChanged))

    # -- the end ----------------------------------------------------------------------------

    async def finish(self) -> None:
        """Nothing may hang: the peers read on, then they finish, then the socket is closed."""
        await self.rest()
        for actor in self.actors.values():
            actor.give.close()
        async with trio.open_nursery() as nursery:
            self.world.say("the peers read")
            for line in self.world.lines:
                if line.peer is None:
                    self.peer_of(line)
                if line.peer is not None and not line.peer_gone:
                    nursery.start_soon(self.drain, line, line.peer)
            for _, peer in self.spare:
                peer.close()
            for _, peer in self.strays:
                nursery.start_soon(self.drain, Line(-1), peer)
            self.drains = nursery
            self.over = True
            await trio.sleep(PATIENCE)
            self.check_calls(AT_ONCE)
            self.world.say("the peers finish")
            for line in self.world.lines:
                if line.peer is not None and not (line.peer_gone or line.peer_finished):
                    if line is not self.world.line or self.sock._machine.state is not SocketState.CONNECTED:
                        line.late = True
                    line.peer_finished = True
                    with contextlib.suppress(OSError):
                        line.peer.finish()
            self.finishing = True
            await trio.sleep(PATIENCE)
            self.check_calls((*AT_ONCE, *RECEIVING, "wait_for_ready_read"))
            self.world.say("the socket is closed")
            line, connected = self.world.line, self.sock._machine.state is SocketState.CONNECTED
            try:
                await self.sock.aclose()
            except SocketError as exc:
                self.world.say(f"  aclose: {exc.kind.name}")
            else:
                if connected:
                    line.orderly += 1
            await trio.sleep(PATIENCE)
            self.check_calls(None)
            self.world.say("over")
        if self.sock._machine.state is not SocketState.UNCONNECTED:
            raise Wrong("a closed socket is not UNCONNECTED")

    drains: Any = None
    finishing: bool = False

    async def drain(self, line: Line, peer: RawPeer | PipePeer) -> None:
        try:
            while data := await peer.sock.recv(65536):
                line.got += data
            line.seen = line.seen or "end"
        except OSError:
            line.seen = "reset"
        line.peer_finished = True
        if line.number < 0 and line.got:
            raise Wrong(f"a connection that was dropped brought {bytes(line.got[:20])!r}")
        peer.close()

    def check_calls(self, which: tuple[str, ...] | None) -> None:
        self.check_limits()
        if self.draining:
            raise Wrong("drain waits for ever")
        for actor in self.actors.values():
            verb = actor.call.partition(" ")[0]
            if actor.call and (which is None or verb in which):
                raise Wrong(f"{actor.name} {actor.call} waits for ever")

    def check_bytes(self) -> None:
        for line in self.world.lines:
            line.settles()
            if line.accepted[: len(line.got)] != line.got:
                raise Wrong(f"line {line.number}: the peer got {bytes(line.got[-40:])!r}, which is not what was sent")
            if line.seen == "end" and not line.peer_gone and line.got != line.accepted:
                raise Wrong(f"line {line.number}: a clean end after {len(line.got)} of {len(line.accepted)} bytes")
            if self.drained:
                continue
            if line.plain and not line.late and not line.peer_gone and line.seen == "reset":
                raise Wrong(f"line {line.number}: it was aborted with nothing queued, and the peer saw a reset")
            if line.orderly and not (line.disturbed or line.late) and line.peer is not None and line.seen != "end":
                raise Wrong(f"line {line.number}: it was ended in order, and the peer saw {line.seen or 'nothing'}")


def as_told(event: Event) -> Told:
    return event.state if isinstance(event, StateChanged) else type(event)


def brief(result: object) -> str:
    if isinstance(result, bytes) and len(result) > 24:
        return f"{len(result)} bytes"
    return repr(result)


@contextlib.contextmanager
def adopting() -> Iterator[None]:
    """Simulated sockets can be adopted, too."""

    def opened(descriptor: int, state: SocketState) -> Any:
        net = VirtualNetwork.current()
        if net is None:
            return open_connection(descriptor, state)
        found = Virtual(net)._find(descriptor)
        try:
            return found, found.getpeername()
        except OSError:
            return found, None

    class Adopted(KernelSocket):
        @classmethod
        def adopt(cls, sock: Any) -> Any:
            return sock if isinstance(sock, VirtualSocket) else KernelSocket.adopt(sock)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tcp_socket, "open_connection", opened)
        patch.setattr(tcp_socket, "KernelSocket", Adopted)
        yield


@contextlib.asynccontextmanager
async def on(medium: str) -> AsyncIterator[Network]:
    if medium == "loopback":
        yield Loopback()
        return
    async with VirtualNetwork() as net:
        yield Virtual(net)
        left = [sock for host in net.hosts.values() for sock in host.sockets.values()]
        if left:
            raise Wrong(f"{len(left)} sockets are left open")


async def run(plan: Plan, medium: str, base: type[TcpSocket], world: World) -> Played:
    options = {
        "half_open": plan.half_open,
        "read_buffer_size": plan.read_buffer_size,
        "write_buffer_size": plan.write_buffer_size,
        "flush_timeout": plan.flush_timeout,
    }
    cls = modelled(base, world, **options)
    async with on(medium) as network:
        with await network.raw_listener() as listener:
            world.new_line()
            async with trio.open_nursery() as nursery:
                with trio.fail_after(1000 * PATIENCE):
                    async with contextlib.AsyncExitStack() as stack:
                        await _play(plan, network, world, cls, nursery, listener, stack)
                nursery.cancel_scope.cancel()
    peers = tuple(f"{len(line.got)} bytes, {line.seen}" for line in world.lines if line.peer is not None)
    return Played(len(plan.steps), tuple(world.log), peers, tuple(world.told))


async def _play(
    plan: Plan,
    network: Network,
    world: World,
    cls: type[TcpSocket],
    nursery: trio.Nursery,
    listener: RawListener,
    stack: contextlib.AsyncExitStack,
) -> None:
    server: TcpServer[TcpSocket] | None = None
    if plan.begins == "accepted":
        server = await stack.enter_async_context(TcpServer(cls))
        await server.listen(network.host)
        world.line.peer = await network.raw_connect(server.server_port())
        sock = await server.accept()
    elif plan.begins == "stream":
        stream_sock = trio.socket.socket()
        await stream_sock.connect((network.host, listener.port))
        sock = cls.from_stream(trio.SocketStream(stream_sock))
        world.line.peer = await listener.accept()
    elif plan.begins == "pipe":
        stream, world.line.peer = pipe()
        sock = cls.from_stream(stream)
    elif plan.begins == "tls":
        stream, world.line.peer = await tls()
        sock = cls.from_stream(stream)
    elif plan.begins == "parent":
        sock = cls(nursery)
    else:
        sock = cls()
    world.line.most = plan.read_buffer_size
    play = Play(plan, network, world, sock, nursery, listener.port, server)
    play.refused = await network.unused_port()
    try:
        async with contextlib.nullcontext() if plan.begins == "parent" else sock:
            for _ in range(SPARE):
                ours = trio.socket.socket()
                await ours.connect((network.host, listener.port))
                play.spare.append((ours, await listener.accept()))
            if plan.begins in ("connected", "parent"):
                await sock.connect_to_host(network.host, listener.port)
                world.line.peer = await listener.accept()

            async def accept() -> None:
                while True:
                    theirs, address = await listener.sock.accept()
                    peer = RawPeer(theirs)
                    play.strays.append((address[1], peer))
                    if play.drains is None:
                        continue
                    await trio.testing.wait_all_tasks_blocked()
                    line = next((line for line in world.lines if play.peer_of(line)), Line(-1))
                    if line.number >= 0 and play.finishing:
                        line.peer_finished = True
                        with contextlib.suppress(OSError):  # it was reset meanwhile
                            peer.finish()
                    play.drains.start_soon(play.drain, line, peer)

            nursery.start_soon(accept)
            for name in ("a", "b"):
                actor = Actor(name, *trio.open_memory_channel[tuple[str, trio.CancelScope]](math.inf))
                play.actors[name] = actor
                nursery.start_soon(play.act, actor)
            if plan.watched:
                await play.subscribe()
            for text in plan.steps:
                await play.step(text)
            await play.finish()
        await trio.testing.wait_all_tasks_blocked()
        play.check_events()
        play.check_bytes()
    finally:
        for ours, peer in play.spare:
            ours.close()
            peer.close()
        for _, peer in play.strays:
            peer.close()
        for line in world.lines:
            if line.peer is not None:
                line.peer.close()


def play(plan: Plan, medium: str = "virtual", base: type[TcpSocket] = TcpSocket) -> Played:
    """Run ``plan``.  Raises: Wrong, or whatever the socket raised that it must not."""
    world = World()
    clock = trio.testing.MockClock(autojump_threshold=0)
    with adopting(), pinned_scheduler() as reseed:
        reseed(plan.seed)
        try:
            return trio.run(functools.partial(run, plan, medium, base, world), clock=clock)
        except BaseException as exc:
            failed = exc
            while isinstance(failed, BaseExceptionGroup):
                failed = failed.exceptions[0]
            failed.add_note("\n".join(["What happened:", *world.log]))
            if failed is exc:
                raise
            raise failed from None
