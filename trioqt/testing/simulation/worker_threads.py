"""Worker threads that decide nothing: one at a time, and trio's thread waits for it.

``await trio.to_thread.run_sync(...)`` starts a thread as ever, so a function that must not be in the main thread is
not, and what belongs to a thread stays there.  But trio's thread stands still until the function is done, or asks trio
for something by `trio.from_thread` and waits itself.  So threads run in the order in which they were started, and
nothing runs beside them.
"""

from __future__ import annotations

import functools
import queue
import sys
import threading
from collections.abc import Callable
from typing import Any

import trio

from trioqt.testing.simulation.determinism import thread_hooks
from trioqt.testing.simulation.worlds import World, here

__all__ = ["threads_in_order"]

_thread = threading.local()


def threads_in_order(world: World) -> list[tuple[Callable[[Any], None], Any, Any]]:
    """What makes worker threads of the world take turns with trio's; or has them noted only, if they are real."""
    return thread_hooks(
        lambda original: functools.partial(_start, world, original), lambda original: functools.partial(_ask, original)
    )


class _Turn:
    """Of a worker thread: either it runs, or trio's does."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._is_over = threading.Semaphore(0)

    def end(self) -> None:
        """In the worker: trio's thread may go on."""
        self._is_over.release()

    def wait(self) -> None:
        """In trio's thread: until then."""
        if not self._is_over.acquire(timeout=self._world.patience):
            # From here on it runs beside the others, which the end of the run can wait for.
            self._world.give_up(
                f"a worker thread held the run up for {self._world.patience:g} real seconds.  One that waits for a"
                " task, other than by trio.from_thread, needs simulate(threads='real')"
            )


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
        try:
            return fn()
        finally:
            del _thread.turn

    def deliver_in_turn(result: Any) -> None:
        try:
            deliver(result)
        finally:
            turn.end()

    original(in_turn, deliver_in_turn, name)
    turn.wait()


def _ask(original: Callable[..., Any], token: Any, message: Any) -> Any:
    turn = getattr(_thread, "turn", None)
    if turn is not None:
        # Past the class, which is frozen: trio's own queue would not tell us when the thread waits.
        object.__setattr__(message, "queue", _Answers(turn))
    return original(token, message)
