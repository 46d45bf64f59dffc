"""Locks that a simulated program makes: a worker thread that waits for one lets the run go on, until it is released.

One that holds it may itself wait for a socket or for time to pass, and trio's thread stands still for whoever has the
turn; so with the real ones, nobody could go on.
"""

from __future__ import annotations

import functools
import sys
import threading
import time
from collections import deque
from collections.abc import Callable
from types import BuiltinFunctionType, FrameType, FunctionType
from typing import Any, Protocol

import trio

from trioqt.testing.simulation.worlds import here, is_bystander

__all__ = ["locks"]

_real_lock: Callable[[], Any] = threading.Lock
_real_rlock: Any = threading.RLock


class Waiter(Protocol):
    """Of one worker thread, for one wait."""

    def wait(self, seconds: float | None) -> bool:
        """Until it is woken; False if it was too late."""

    def release(self) -> None:
        """Wake it.  Raises: RuntimeError if it was already, or it is too late."""


class _Lock:
    """A `threading.Lock`, for which worker threads wait in virtual time.

    Args:
      new_waiter: Of the calling thread; None if it is none that takes turns.
      let_woken_run: In trio's thread, before it waits.
      is_alone: Whether no thread of the program's own could release it.
    """

    def __init__(
        self, new_waiter: Callable[[], Waiter | None], let_woken_run: Callable[[], None], is_alone: Callable[[], bool]
    ) -> None:
        self._real = _real_lock()
        self._waiters = deque[Waiter]()
        self._new_waiter = new_waiter
        self._let_woken_run = let_woken_run
        self._is_alone = is_alone

    def acquire(self, blocking: bool = True, timeout: float = -1) -> bool:
        """As of the real one.  Raises: RuntimeError in trio's thread, if the one that holds it waits for the run."""
        if self._real.acquire(False):
            return True
        if not blocking or timeout == 0:
            return self._real.acquire(blocking, timeout) if timeout != 0 and timeout != -1 else False
        if trio.lowlevel.in_trio_run() and here() is not None and self._is_alone():
            self._let_woken_run()
            if self._real.acquire(False):
                return True
            raise RuntimeError(
                "a task would wait for ever for a lock: the worker thread that holds it waits for the run"
            )
        waiter = self._new_waiter()
        if waiter is None:
            acquired: bool = self._real.acquire(True, timeout)
            return acquired
        end = None if timeout < 0 else time.monotonic() + timeout
        while True:
            self._waiters.append(waiter)
            if not waiter.wait(None if end is None else end - time.monotonic()):
                return False
            if self._real.acquire(False):
                return True
            waiter = self._new_waiter()
            assert waiter is not None  # it is the same thread

    def release(self) -> None:
        self._real.release()
        while self._waiters:
            try:
                self._waiters.popleft().release()
                return
            except RuntimeError:
                pass  # it was too late

    def locked(self) -> bool:
        found: bool = self._real.locked()
        return found

    def _at_fork_reinit(self) -> None:
        self._real._at_fork_reinit()
        self._waiters.clear()

    def __enter__(self) -> bool:
        return self.acquire()

    def __exit__(self, *exc_info: object) -> None:
        self.release()


class _RLock(threading._PyRLock):  # type: ignore[name-defined,misc]  # Python's own, over another lock
    def __init__(self, lock: _Lock) -> None:
        super().__init__()
        self._block = lock


def locks(
    new_waiter: Callable[[], Waiter | None], let_woken_run: Callable[[], None], is_alone: Callable[[], bool]
) -> dict[Any, Any]:
    """| what makes a lock | what makes one for code in a simulation |, as far as this Python has functions for that."""
    new_lock = functools.partial(_Lock, new_waiter, let_woken_run, is_alone)

    def lock() -> Any:
        return new_lock() if _is_for_program(sys._getframe(1)) else _real_lock()

    def rlock(*args: Any, **kwargs: Any) -> Any:
        return _RLock(new_lock()) if _is_for_program(sys._getframe(1)) else _real_rlock(*args, **kwargs)

    made: dict[Any, Any] = {_real_lock: lock, _real_rlock: rlock}
    return {real: own for real, own in made.items() if type(real) in (BuiltinFunctionType, FunctionType)}


def _is_for_program(frame: FrameType) -> bool:
    # Trio wants its locks to be the real ones, for signal handlers.
    package = str(frame.f_globals.get("__name__")).partition(".")[0]
    return here() is not None and package not in ("trio", "trioqt") and not is_bystander(frame)
