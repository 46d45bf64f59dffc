"""Worker threads that decide nothing: one at a time, and trio's thread waits for it.

``await trio.to_thread.run_sync(...)`` starts a thread as ever, so a function that must not be in the main thread is
not, and what belongs to a thread stays there.  But trio's thread stands still until the function is done, or waits:
for what it asks trio by `trio.from_thread`, for a task by a condition of `threading`, on which its events, queues and
futures are built, for a simulated socket or a name, or for time to pass.  So threads run in the order in which they
were started, and nothing runs beside them.
"""

from __future__ import annotations

import contextlib
import contextvars
import errno
import functools
import os
import queue
import sys
import threading
import weakref
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Any

import outcome
import trio

from trioqt.testing.network.sync_socket import Network, network_here, set_worker
from trioqt.testing.network.waiting import for_a_thread
from trioqt.testing.simulation.determinism import thread_hooks
from trioqt.testing.simulation.replacing import class_entry
from trioqt.testing.simulation.worlds import World, asker, here, is_program, set_sleep, set_waits_virtually

__all__ = ["threads_in_order"]

_thread = threading.local()


def threads_in_order(world: World) -> list[tuple[Callable[[Any], None], Any, Any]]:
    """What makes worker threads of the world take turns with trio's; or has them noted only, if they are real."""
    hooks = thread_hooks(
        lambda original: functools.partial(_start, world, original), lambda original: functools.partial(_ask, original)
    )
    hooks.append((class_entry(threading.Thread, "start"), _start_of_its_own, _real_start))
    if world.threads == "inline":
        world.let_woken_threads_run = _let_woken_run
        hooks.append((class_entry(threading.Condition, "wait"), _wait, _real_wait))
    return hooks


class _Turn:
    """Of a worker thread: either it runs, or trio's does."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._said = queue.SimpleQueue[Callable[[], None] | None]()  # what is wanted, or that it is over
        self._is_begun = False  # trio's thread stands still for it
        self.token = trio.lowlevel.current_trio_token()
        self.network: Network | None = network_here()

    # ---- in the worker -----------------------------------------------------------------------------------------

    def end(self) -> None:
        """Trio's thread may go on."""
        self._said.put(None)

    def end_until_woken(self) -> None:
        """The same, and it waits for a task."""
        self._world.thread_waits(1)
        self._said.put(None)

    def do(self, call: Callable[..., Any], *args: Any) -> Any:
        """Have trio's thread call it, now: that stands still, and goes on doing so."""
        if not self._is_begun:  # the run is over, or has given up
            try:
                return trio.from_thread.run_sync(call, *args, trio_token=self.token)
            except trio.RunFinishedError:
                return call(*args)
        done = queue.SimpleQueue[outcome.Outcome[Any]]()
        context = _context()
        self._said.put(lambda: done.put(outcome.capture(context.run, call, *args)))
        return done.get().unwrap()

    def ask(self, wait: Callable[..., Awaitable[Any]], *args: Any) -> Any:
        """Have trio's thread wait for it, while the run goes on.

        By a system task: a task that is cancelled ends no call that blocks.

        Raises: OSError ENETDOWN if the run is over.
        """
        try:
            return _context().run(functools.partial(trio.from_thread.run, wait, *args, trio_token=self.token))
        except (trio.Cancelled, trio.RunFinishedError):
            raise OSError(errno.ENETDOWN, os.strerror(errno.ENETDOWN)) from None

    # ---- in trio's thread --------------------------------------------------------------------------------------

    def begin(self) -> None:
        """Before the worker can go on."""
        self._is_begun = True
        self._world.thread_runs()

    def begin_woken(self) -> None:
        """The same, and it waits no longer."""
        self._world.thread_waits(-1)
        self.begin()

    def wait(self) -> None:
        """Until its turn is over; meanwhile do what it wants done."""
        try:
            while (wanted := self._said.get(timeout=self._world.patience)) is not None:
                wanted()
            return
        except queue.Empty:
            pass
        finally:
            self._is_begun = False
        # From here on it runs beside the others, which the end of the run can wait for.
        self._world.give_up(
            f"a worker thread held the run up for {self._world.patience:g} real seconds.  One that waits for a"
            " task, other than by trio.from_thread, needs simulate(threads='real')"
        )


def _context() -> contextvars.Context:
    context = contextvars.copy_context()
    context.run(for_a_thread.set, True)
    return context


class _Answers:
    """In place of the queue in which a worker thread finds what it has asked trio for."""

    def __init__(self, turn: _Turn) -> None:
        self._turn = turn
        self._queue: queue.SimpleQueue[Any] = queue.SimpleQueue()

    def get(self) -> Any:
        """In the worker, which has asked."""
        self._turn.end()
        return self._queue.get()

    def put_nowait(self, answer: Any) -> None:
        """In trio's thread."""
        self._turn.begin()
        self._queue.put(answer)
        self._turn.wait()


# A KeyboardInterrupt from here would have trio believe that there is no thread.
@trio.lowlevel.enable_ki_protection
def _start(
    world: World,
    original: Callable[..., None],
    fn: Callable[[], Any],
    deliver: Callable[[Any], object],
    name: str | None = None,
) -> None:
    if here() is not world or not world.is_own_thread():
        original(fn, deliver, name)  # another run of trio
        return
    if world.threads == "real":
        world.note("trio.to_thread.run_sync", sys._getframe(1))
        original(fn, deliver, name)
        return
    turn = _Turn(world)

    def in_turn() -> Any:
        _thread.turn = turn
        set_worker(turn)
        set_waits_virtually(_waits_virtually)
        set_sleep(functools.partial(turn.ask, trio.sleep))
        try:
            return fn()
        finally:
            set_sleep(None)
            set_waits_virtually(None)
            set_worker(None)
            del _thread.turn

    def deliver_in_turn(result: Any) -> None:
        try:
            deliver(result)
        finally:
            turn.end()

    turn.begin()
    original(in_turn, deliver_in_turn, name)
    turn.wait()


def _ask(original: Callable[..., Any], token: Any, message: Any) -> Any:
    turn: _Turn | None = getattr(_thread, "turn", None)
    # A thread may ask another run of trio's, such as that of a portal: it does so as ever.
    if turn is not None and token in (None, turn.token):
        # Past the class, which is frozen: trio's own queue would not tell us when the thread waits.
        object.__setattr__(message, "queue", _Answers(turn))
    return original(token, message)


# ---- waiting by conditions -----------------------------------------------------------------------------------------

_real_wait = threading.Condition.wait
_real_start = threading.Thread.start

_others: weakref.WeakSet[threading.Thread] = weakref.WeakSet()
"""Threads of the program's own, which run beside trio; who waits while there are any may wait for one of them."""


def _waits_virtually() -> bool:
    """Whether only trio's tasks and worker threads can end a wait of the calling worker thread."""
    # One that is about to start is none that is alive.
    return all(thread.ident is not None and not thread.is_alive() for thread in list(_others))


@functools.wraps(_real_start)
def _start_of_its_own(thread: threading.Thread) -> None:
    world, frame = here(), asker(sys._getframe(1))
    if world is None or frame is None or not is_program(frame):
        _real_start(thread)
        return
    world.note("threading.Thread", frame)
    _others.add(thread)
    _real_start(thread)


_woken: deque[Callable[[], None]] = deque(maxlen=1_000)
"""The turns of those that have been woken, some of them over by now."""


def _let_woken_run() -> None:
    """Trio's own thread sleeps or waits, in which those that it has woken would run."""
    while _woken:
        _woken.popleft()()


class _Waiter:
    """In place of the lock by which a condition wakes a worker thread: whoever wakes it gives it a turn.

    That comes when trio next runs what it was given by run_sync_soon, so always at the same step.
    """

    def __init__(self, turn: _Turn) -> None:
        self._turn = turn
        self._go = queue.SimpleQueue[bool]()
        self._is_over = False
        self._has_gone = False
        self._timer = trio.CancelScope()

    def wait(self, seconds: float | None) -> bool:
        """In the worker: until it is woken; False if it was too late."""
        token = self._turn.token
        if seconds is not None:
            token.run_sync_soon(self._set_timer, seconds)
        self._turn.end_until_woken()
        return self._go.get()

    def release(self) -> None:
        """Wake it.  Raises: RuntimeError if it was already, by which a condition knows that it must wake another."""
        if self._is_over:
            raise RuntimeError("it is woken already")
        self._end(woken=True)

    def _end(self, *, woken: bool) -> None:
        self._is_over = True
        try:
            self._turn.token.run_sync_soon(self._hand_over, woken)
        except trio.RunFinishedError:
            self._go.put(woken)
        else:
            _woken.append(functools.partial(self._hand_over, woken))

    def _hand_over(self, woken: bool) -> None:
        """In trio's thread."""
        if self._has_gone:
            # Woken by another thread in the moment in which it was too late, or while trio's thread slept.
            return
        self._has_gone = True
        self._timer.cancel()
        self._turn.begin_woken()
        self._go.put(woken)
        self._turn.wait()

    def _set_timer(self, seconds: float) -> None:
        if not self._is_over:
            trio.lowlevel.spawn_system_task(self._expire, seconds)

    async def _expire(self, seconds: float) -> None:
        with self._timer:
            await trio.sleep(seconds)
            if not self._is_over:
                self._end(woken=False)


def _is_notified_by_the_woken(condition: Any) -> bool:
    """Trio's own thread waits, in which those that it has woken would run."""
    waiter = threading.Lock()
    waiter.acquire()
    condition._waiters.append(waiter)
    state = condition._release_save()
    try:
        _let_woken_run()
    finally:
        condition._acquire_restore(state)
        notified = waiter.acquire(blocking=False)
        if not notified:
            with contextlib.suppress(ValueError):
                condition._waiters.remove(waiter)
    return notified


@functools.wraps(_real_wait)
def _wait(condition: Any, timeout: float | None = None) -> bool:
    turn: _Turn | None = getattr(_thread, "turn", None)
    if _woken and trio.lowlevel.in_trio_run() and condition._is_owned() and _is_notified_by_the_woken(condition):
        return True
    if turn is None or (timeout is not None and timeout <= 0) or not condition._is_owned() or not _waits_virtually():
        return _real_wait(condition, timeout)
    # As the real one, with another lock.
    waiter = _Waiter(turn)
    condition._waiters.append(waiter)
    state = condition._release_save()
    woken = False
    try:
        woken = waiter.wait(timeout)
    finally:
        condition._acquire_restore(state)
        if not woken:
            with contextlib.suppress(ValueError):
                condition._waiters.remove(waiter)
    return woken
