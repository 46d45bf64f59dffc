"""Where a synchronous program meets trioqt: two threads, of which one works at a time.

The program runs in a thread of its own.  Each call it makes is done in trio's thread, and while the program computes
trio's loop stands still: so nothing happens behind the program's back, as in Qt, whose loop turns only when asked.

A slot is another such thread, an Actor.  It starts the moment its signal is posted and may ask any getter at once; its
first verb waits until the step that posted the signal is over, because trioqt, which has no callbacks, would let no
subscriber act sooner (row 6 of the table in the contract).
"""

from __future__ import annotations

import contextlib
import errno
import itertools
import math
import os
import queue
import socket
import threading
import time
import traceback
from collections import deque
from collections.abc import Awaitable, Callable, Iterator
from typing import Any, TypeVar
from unittest import mock

import outcome
import trio
import trio.testing

from tests.conformance.names import DELAYS, NAMES
from trioqt.links import connect as connecting, through_proxy
from trioqt.links.base import Where
from trioqt.links.datagram import NativeDatagramLink
from trioqt.sockets import tcp_socket
from trioqt.testing.simulation.determinism import pinned_scheduler

__all__ = ["Actor", "Stage"]

T = TypeVar("T")

ANSWER = 0.001
"""An answer takes a moment: no name is known at once."""

# What the recorder's routes say, told to trio instead, as its names are: so nothing here needs root.
ROUTES = {
    "198.51.100.8": "EHOSTUNREACH",
    "198.51.100.9": "EACCES",
}
UNREACHABLE = ("192.0.2.", "198.51.100.", "203.0.113.")
"""The namespace of the recorder has no way to these."""

IDLE = 0.002
"""How long trio's loop must have had nothing to do, in real seconds, before its clock jumps."""

IDLE_BESIDE = 0.02
"""The same where something answers that runs beside the program: that takes real time.  Then the longest step of a wait
takes as long on both clocks."""

LONGEST_RUN = 25
"""Of a program, in real seconds."""


class Abandoned(BaseException):
    """The run is over; this actor's thread may end."""


class Call:
    """One thing that an actor asks trio's thread to do."""

    def __init__(self, do: Callable[[], Any], *, waits: bool = False, sees: bool = False, polls: bool = False) -> None:
        self.do = do
        self.waits = waits  # it is async
        self.sees = sees  # it only looks, so it may be done at any moment
        self.polls = polls  # it asks the system, which may bring news; then slots act before it returns


class Actor:
    """A thread that does nothing while anything else of the run does something."""

    def __init__(self, play: Callable[[], object], *, is_slot: bool = False) -> None:
        self.is_slot = is_slot
        self.calls: queue.SimpleQueue[Call | None] = queue.SimpleQueue()
        self.answers: queue.SimpleQueue[outcome.Outcome[Any]] = queue.SimpleQueue()
        self.failure: BaseException | None = None
        self.parked: Call | None = None
        self.acts = False  # it has begun to, and has not ended
        self.has_ended = False
        self._play = play
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        _here.actor = self
        try:
            self._play()
        except BaseException as exc:
            self.failure = exc
        self.calls.put(None)

    def ask(self, call: Call) -> Any:
        """From its own thread: have ``call`` done."""
        self.calls.put(call)
        return self.answers.get().unwrap()


class Here(threading.local):
    actor: Actor | None = None


_here = Here()


class Resolver(trio.abc.HostnameResolver):
    """Answers as the recorder's name server did."""

    async def getaddrinfo(
        self,
        host: bytes | None,
        port: bytes | str | int | None,
        family: int = 0,
        type: int = 0,
        proto: int = 0,
        flags: int = 0,
    ) -> list[tuple[Any, Any, int, str, Any]]:
        name = (host.decode() if isinstance(host, bytes) else str(host)).lower().removesuffix(".")
        await trio.sleep(DELAYS.get(name, ANSWER))
        found: list[tuple[Any, Any, int, str, Any]] = []
        for address in ("127.0.0.1",) if name == "localhost" else NAMES.get(name, ()):
            number = socket.AF_INET6 if ":" in address else socket.AF_INET
            if flags & socket.AI_ADDRCONFIG and number == socket.AF_INET6:
                continue  # the recorder's namespace had no such address but ::1
            if family in (socket.AF_UNSPEC, number):
                rest = (0, 0) if number == socket.AF_INET6 else ()
                found.append((number, socket.SOCK_STREAM, 6, "", (address, port, *rest)))
        if not found:
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        return found

    async def getnameinfo(self, sockaddr: Any, flags: int) -> tuple[str, str]:
        """The recorder's machine knew itself by one address only."""
        await trio.sleep(ANSWER)
        if sockaddr[0] != "127.0.0.1":
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        return "localhost", str(sockaddr[1])


@contextlib.contextmanager
def scripted_connect() -> Iterator[None]:
    """Within the block trioqt finds the recorder's routes: addresses that lead nowhere fail as they did there."""
    real = connecting.connect

    async def connect(sock: trio.socket.SocketType, target: connecting.Target) -> None:
        address = str(target.address[0])
        if address.startswith(UNREACHABLE):
            await trio.lowlevel.checkpoint()
            number = getattr(errno, ROUTES.get(address, "ENETUNREACH"))
            raise OSError(number, os.strerror(number))
        await real(sock, target)
        await trio.sleep(ANSWER)  # no program of Qt's sees an attempt end in the call that begins it

    send = NativeDatagramLink.try_send

    def try_send(self: NativeDatagramLink, data: Any, where: Where) -> None:
        address = where[0]
        if address.startswith(UNREACHABLE):
            number = getattr(errno, ROUTES.get(address, "ENETUNREACH"))
            raise OSError(number, os.strerror(number))
        send(self, data, where)

    with (
        mock.patch.object(connecting, "_has_other_sockets", return_value=True),  # so that all go through the next one
        mock.patch.object(connecting, "connect", connect),
        mock.patch.object(tcp_socket, "connect", connect),
        mock.patch.object(NativeDatagramLink, "try_send", try_send),
        mock.patch.object(through_proxy, "ANSWER_TIME", math.inf),  # a proxy beside has time to begin
    ):
        yield


class Stage:
    """One run of one program.

    Args:
      beside: What it talks to runs beside it, in threads or processes of its own.
    """

    def __init__(self, *, beside: bool = False) -> None:
        self._beside = beside
        self.warned: Callable[[str], None] = lambda member: None
        self.aside: Callable[[object, str, str], None] = lambda obj, kind, what: None
        self.nursery: trio.Nursery
        self.step = 0  # of trio's tasks, and of what the program asks for
        self._waiting: deque[Actor] = deque()  # slots whose next call is a verb
        self._nudge: trio.Event | None = None
        self._numbers = itertools.count()
        self._until = time.monotonic() + LONGEST_RUN

    # -- from the program's thread, or from that of a slot ----------------------------------

    def ready(self) -> bool:
        """Wait until this thread may act: that of a slot may only look at first.  Whether it is one."""
        self.do(lambda: None)
        return _here.actor is not None and _here.actor.is_slot

    def see(self, look: Callable[[], T]) -> T:
        """Look at something, at this very moment."""
        return self._ask(Call(look, sees=True))  # type: ignore[no-any-return]

    def poll(self, ask: Callable[[], T]) -> T:
        """Ask for something that the system may know by now."""
        return self._ask(Call(ask, polls=True))  # type: ignore[no-any-return]

    def do(self, act: Callable[[], T]) -> T:
        """Do something that does not wait."""
        return self._ask(Call(act))  # type: ignore[no-any-return]

    def wait(self, act: Callable[[], Awaitable[T]]) -> T:
        """Do something that may wait, and wait for it."""
        return self._ask(Call(act, waits=True))  # type: ignore[no-any-return]

    def _ask(self, call: Call) -> Any:
        actor = _here.actor
        if actor is None:  # trio's thread: the recording slot looks
            assert call.sees
            return call.do()
        return actor.ask(call)

    # -- in trio's thread -------------------------------------------------------------------

    def play(self, program: Callable[[], object]) -> None:
        """Run ``program``; what it raises goes out."""
        with pinned_scheduler() as pin, scripted_connect():
            pin(0)
            # Trio takes each batch from its end: so in the order of birth, and the program's own task comes first.
            coin = pin.__self__  # type: ignore[attr-defined]
            with mock.patch.object(coin, "shuffle", list.reverse):
                idle = IDLE_BESIDE if self._beside else IDLE
                trio.run(self._play, program, clock=trio.testing.MockClock(autojump_threshold=idle))

    async def _play(self, program: Callable[[], object]) -> None:
        trio.socket.set_custom_hostname_resolver(Resolver())
        trio.lowlevel.add_instrument(_Steps(self))
        async with trio.open_nursery() as self.nursery:
            await self._attend(Actor(program), slots_first=True)
            self.nursery.cancel_scope.cancel(reason="the program has ended")
        while self._waiting:
            self._waiting.popleft().answers.put(outcome.Error(Abandoned()))

    async def _attend(self, actor: Actor, *, slots_first: bool = False) -> None:
        """Do what ``actor`` asks for until it ends.  Waiting for its next call stops the loop, which is the point.

        Args:
          slots_first: Between two of its verbs, slots that wait to act do so, as subscribers would.
        """
        actor.acts = True
        while True:
            call, actor.parked = actor.parked or actor.calls.get(), None
            if call is None:
                actor.acts, actor.has_ended = False, True
                break
            if time.monotonic() > self._until:
                raise TimeoutError(f"the program took more than {LONGEST_RUN} s")
            if slots_first and not call.sees:
                await self._let_slots_act()
            self.step += 1
            try:
                result: outcome.Outcome[Any] = outcome.Value(await call.do() if call.waits else call.do())
            except Exception as exc:
                result = outcome.Error(exc)
            if call.waits or call.polls:
                await self._let_slots_act()
            actor.answers.put(result)
        if actor.failure is not None and not isinstance(actor.failure, Abandoned):
            if slots_first:
                raise actor.failure
            traceback.print_exception(actor.failure)  # as PySide6 does with what a slot raises

    def start_slot(self, play: Callable[[], object], *, acts_now: bool = False) -> Actor:
        """A slot of the program begins, in the middle of whatever goes on; it may look until it wants to act.

        Args:
          acts_now: It is no slot but what a factory is to trioqt, so it may act too, until it wants to wait.
        """
        actor = Actor(play, is_slot=not acts_now)
        while True:
            call = actor.calls.get()
            if call is None:
                actor.has_ended = True
                if actor.failure is not None:
                    traceback.print_exception(actor.failure)
                return actor
            if call.waits or not (call.sees or acts_now):
                actor.parked = call
                self._waiting.append(actor)
                if self._nudge is not None:
                    self._nudge.set()
                return actor
            actor.answers.put(outcome.capture(call.do))

    async def _let_slots_act(self) -> None:
        while self._waiting:
            await self._attend(self._waiting.popleft())

    async def turn(self, seconds: float) -> None:
        """Let trio's loop work for so long, on its own clock, slots included."""
        until = trio.current_time() + seconds
        while True:
            outer, self._nudge = self._nudge, trio.Event()
            with trio.move_on_at(until):
                await self._nudge.wait()
            self._nudge = outer
            if not self._waiting:
                return
            await self._let_slots_act()

    @contextlib.contextmanager
    def in_steps(self) -> Iterator[None]:
        """Within the block no jump of the clock is longer than what it takes in real time, if something answers beside:
        or a wait of three seconds that comes in one piece would be over after the shortest of pauses."""
        steps = trio.CancelScope()

        async def step() -> None:
            with steps:
                for _ in itertools.count():
                    await trio.sleep(IDLE_BESIDE)

        if self._beside:
            self.nursery.start_soon(step)
        try:
            yield
        finally:
            steps.cancel()

    async def first_step(self, task: Callable[[], Awaitable[object]]) -> None:
        """Start ``task``, and return when it waits for the first time."""
        step = _FirstStep(f"first step {next(self._numbers)}")
        trio.lowlevel.add_instrument(step)
        try:
            self.nursery.start_soon(task, name=step.name)
            await step.done.wait()
        finally:
            trio.lowlevel.remove_instrument(step)


class _Steps(trio.abc.Instrument):
    def __init__(self, stage: Stage) -> None:
        self.stage = stage

    def before_task_step(self, task: trio.lowlevel.Task) -> None:
        self.stage.step += 1


class _FirstStep(trio.abc.Instrument):
    def __init__(self, name: str) -> None:
        self.name = name
        self.done = trio.Event()

    def after_task_step(self, task: trio.lowlevel.Task) -> None:
        if task.name == self.name:
            self.done.set()
