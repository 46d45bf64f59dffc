"""The end of a run that cancellation cannot end.

A task may shield itself and sleep for ever, swallow every Cancelled in a loop, or block the thread.  Then an exception
is raised from outside, wherever the thread is but in trio's own loop, again and again until ``trio.run`` has fallen
apart.  What is left is a wreck: not to be checked for leaks.  A function that trio calls from its loop, such as the one
that takes back a wait, must not block: it is not ended.

On the main thread a timer signal does it, which interrupts system calls too.  Elsewhere, and on Windows, a thread asks
the interpreter to raise; it waits until Python code runs.
"""

from __future__ import annotations

import ctypes
import inspect
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Sequence
from types import FrameType, TracebackType
from typing import Self, TypeVar

import trio

from trioqt.testing.simulation.places import place

__all__ = ["Aborted", "Watchdog", "is_machinery", "is_tool"]

T = TypeVar("T")

# Between two attempts: long enough for a run to fall apart (1 ms), short enough not to be felt.
_AGAIN = 0.01

_ASYNC = inspect.CO_COROUTINE | inspect.CO_ITERABLE_COROUTINE | inspect.CO_ASYNC_GENERATOR

_TRIO = os.path.dirname(trio.__file__) + os.sep


def _files(room: str, *names: str) -> set[str]:
    testing = os.path.dirname(os.path.dirname(__file__))
    return {os.path.join(testing, room, f"{name}.py") for name in names}


_TOOL = _files("cancelling", "walker", "boundaries", "lines", "walk", "cancel_everywhere", "interrupt_everywhere")
_TOOL |= _files("simulation", "watchdog")
# A simulated network stands for the kernel, which has no lines.
_KERNEL = _files("network", "fabric", "names", "virtual_network", "waiting")
_KERNEL |= _files("network", "socket", "socket_addresses", "socket_messages")
_INSTRUMENTS = _files("cancelling", "walker", "boundaries", "lines") | _files("network", "fabric")


class Aborted(BaseException):
    """Raised by the watchdog; no ``except Exception`` stops it."""


class Watchdog:
    """Entered for a walk; ``call`` bounds one run in real time.

    A timer that was running before, pytest-timeout's for one, stands still meanwhile; afterwards it has what is left of
    its time.
    """

    bitten: bool
    """The last ``call`` had to be ended."""
    where: str
    """At which line of whose code, if that is known."""

    def __init__(self) -> None:
        self.bitten = False
        self.where = ""
        self._timer: _SignalTimer | _ThreadTimer
        main = threading.current_thread() is threading.main_thread()
        self._timer = _SignalTimer(self._bite) if main and hasattr(signal, "setitimer") else _ThreadTimer(self._bite)

    def __enter__(self) -> Self:
        self._timer.open()
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._timer.close()

    def call(self, seconds: float, fn: Callable[[], T]) -> T:
        """Call ``fn``.

        Raises:
          Aborted: it was not over after ``seconds``, or `bite_soon` was called.  On its way out trio or the code under
            test may have made something else of it; see `bitten`.
        """
        self.bitten = False
        self.where = ""
        self._timer.set(seconds)
        try:
            try:
                return fn()
            finally:
                self._timer.set(None)
        except Aborted:
            self._timer.set(None)  # it came between the two lines above
            raise

    def bite_soon(self) -> None:
        """End the present call as soon as its task lets go, from a task of it."""
        self._timer.set(0.001)

    def _bite(self, frame: FrameType | None) -> bool:
        # Only within `call`: an exception that is still on its way when the run is over must not hit our own code.
        frames: list[FrameType] = []
        while frame is not None and frame.f_code is not Watchdog.call.__code__:
            frames.append(frame)
            frame = frame.f_back
        if frame is None or not _may_be_hit(frames):
            return False
        if not self.bitten:
            self.bitten = True
            self.where = _first_foreign_line(frames)
        return True


class _SignalTimer:
    def __init__(self, bite: Callable[[FrameType | None], bool]) -> None:
        self._bite = bite

    def open(self) -> None:
        self._old_handler = signal.signal(signal.SIGALRM, self._on_alarm)
        self._old_timer = signal.setitimer(signal.ITIMER_REAL, 0)
        self._since = time.monotonic()

    def close(self) -> None:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, self._old_handler)
        rest, interval = self._old_timer
        if rest:
            signal.setitimer(signal.ITIMER_REAL, max(0.001, rest - (time.monotonic() - self._since)), interval)

    def set(self, seconds: float | None) -> None:
        signal.setitimer(signal.ITIMER_REAL, seconds or 0, _AGAIN if seconds else 0)

    def _on_alarm(self, signum: int, frame: FrameType | None) -> None:
        if self._bite(frame):
            raise Aborted


class _ThreadTimer:
    def __init__(self, bite: Callable[[FrameType | None], bool]) -> None:
        self._bite = bite
        self._lock = threading.Lock()
        self._due: float | None = None
        self._asked = False  # an exception may be on its way
        self._closed = threading.Event()

    def open(self) -> None:
        self._target = threading.get_ident()
        self._thread = threading.Thread(target=self._watch, name="watchdog", daemon=True)
        self._thread.start()

    def close(self) -> None:
        self._closed.set()
        self._thread.join()

    def set(self, seconds: float | None) -> None:
        with self._lock:
            self._due = None if seconds is None else time.monotonic() + seconds
        if seconds is None and self._asked:
            self._asked = False
            self._catch()

    def _watch(self) -> None:
        while not self._closed.wait(_AGAIN):
            with self._lock:
                late = self._due is not None and time.monotonic() >= self._due
                if late and self._bite(sys._current_frames().get(self._target)):
                    self._asked = self._raise_there()

    def _catch(self) -> None:
        """The last one may not have been raised yet: raise it here.

        It could be taken back, but then Python would go on looking for one, at every call and in every thread; and with
        a trace function Python 3.11 does nothing else any more.
        """
        try:
            while self._raise_there():
                time.sleep(0)
        except Aborted:
            pass

    def _raise_there(self) -> bool:
        try:
            set_exception = ctypes.pythonapi.PyThreadState_SetAsyncExc
        except AttributeError:  # not CPython: no watchdog off the main thread
            return False
        set_exception(ctypes.c_ulong(self._target), ctypes.py_object(Aborted))
        return True


def is_machinery(filename: str) -> bool:
    """Whether a source file is trio's or this tool's, so that its lines say nothing about the code under test."""
    return filename.startswith(_TRIO) or filename in _TOOL or filename in _KERNEL


def is_tool(filename: str) -> bool:
    """Whether a source file runs and watches what is tested, so that nothing may be done to its lines."""
    return filename in _TOOL


def _may_be_hit(frames: Sequence[FrameType]) -> bool:
    """Whether trio leaves everything as it found it if an exception is raised there; the innermost frame comes first.

    That is in a task, and in the wait for the system.  Not in trio's loop: where that tidies up, a second exception,
    which comes too early on a loaded machine, would leave a run that for trio is never over, so no other could begin.
    Nor in an instrument, or in what calls it: trio would take it for the instrument's failure, log it, and run on.
    """
    run = next((index for index, frame in enumerate(frames) if frame.f_code is trio.run.__code__), None)
    if run is None:
        return True
    inside = frames[:run]
    if not inside or any(map(_is_instrument, inside)):
        return False
    if inside[-1].f_code.co_filename != trio.run.__code__.co_filename:
        return True  # `run` waits in another file, one for each kind of system; its loop is in its own
    innermost = inside[0].f_code
    if innermost.co_filename.startswith(_TRIO) and not innermost.co_flags & _ASYNC:
        return False
    return any(frame.f_code.co_flags & _ASYNC for frame in inside)


def _is_instrument(frame: FrameType) -> bool:
    # What waits is no part of one, for trio calls what does not: the same file has what stands below a subject.
    return frame.f_code.co_filename in _INSTRUMENTS and not frame.f_code.co_flags & _ASYNC


def _first_foreign_line(frames: Sequence[FrameType]) -> str:
    for frame in frames:
        if not is_machinery(frame.f_code.co_filename):
            return place(frame.f_code.co_filename, frame.f_lineno, frame.f_code.co_name)
    return ""
