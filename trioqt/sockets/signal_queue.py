"""Signals for whoever waits for them, any number of tasks at once.

``trio.open_signal_receiver`` puts itself in the place of the last one: of two servers that a signal is to stop, one
would never hear of it, and what stands there when both have left may be one that hears nothing any more.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterable
from types import FrameType, TracebackType
from typing import Any, Self

import attrs
import trio

from trioqt.links.interrupts import protected

__all__ = ["SignalQueue"]


@attrs.define(eq=False)
class _Caught:
    """One signal that somebody waits for."""

    queues: list[SignalQueue]
    before: Any = None
    """What it did when nobody did; None: what no code of Python's has chosen."""


_caught: dict[int, _Caught] = {}


@protected
class SignalQueue:
    """Catches signals while its block lasts.  One that is unread then, and that nobody else has got, comes once more.

    Raises:
      TypeError: There are no signals.
      RuntimeError: From entering, if this is not Python's main thread, the only one that gets signals.
      OSError, ValueError: From entering, if one cannot be caught.
    """

    def __init__(self, signals: Iterable[int]) -> None:
        self._numbers = list(dict.fromkeys(signals))
        if not self._numbers:
            raise TypeError("there are no signals to wait for")
        self._token: trio.lowlevel.TrioToken | None = None
        self._unread: dict[int, None] = {}  # each at most once
        self._is_over = False
        self._lot = trio.lowlevel.ParkingLot()

    def __enter__(self) -> Self:
        if threading.current_thread() is not threading.main_thread():
            raise RuntimeError("only Python's main thread gets signals")
        self._token = trio.lowlevel.current_trio_token()
        try:
            for number in self._numbers:
                if number in _caught:
                    _caught[number].queues.append(self)
                else:
                    self._catch(number)
        except BaseException:
            self._leave()
            raise
        return self

    def _catch(self, number: int) -> None:
        _caught[number] = caught = _Caught([self])  # first, because it may come at once
        try:
            caught.before = signal.signal(number, _pass_on)
        except BaseException:  # there is none of that number, or it cannot be caught
            del _caught[number]
            raise

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._leave()
        unread, self._unread = self._unread, {}
        _raise_again([*unread])

    def _leave(self) -> None:
        self._is_over = True
        for number in self._numbers:
            caught = _caught.get(number)
            if caught is not None and self in caught.queues:
                if caught.queues == [self]:
                    signal.signal(number, signal.SIG_DFL if caught.before is None else caught.before)
                    del _caught[number]
                else:
                    caught.queues.remove(self)

    def add_soon(self, number: int) -> None:
        """It has come; this may be between any two lines of the program."""
        assert self._token is not None
        self._token.run_sync_soon(self._add, number, idempotent=True)

    def _add(self, number: int) -> None:
        if self._is_over:
            _raise_again([number])
        else:
            self._unread[number] = None
            self._lot.unpark()

    async def next(self) -> int:
        """Wait for the next one.  Cancelled: it is still unread."""
        await trio.lowlevel.checkpoint()
        while not self._unread:
            await self._lot.park()
        number = next(iter(self._unread))
        del self._unread[number]
        return number


def _pass_on(number: int, frame: FrameType | None) -> None:
    caught = _caught.get(number)
    if caught is None:  # somebody has put this back who found it here
        signal.signal(number, signal.SIG_DFL)
        signal.raise_signal(number)
        return
    for queue in caught.queues:
        queue.add_soon(number)


def _raise_again(numbers: list[int]) -> None:
    """Those that nobody else waits for, and so has got too; each, whatever those before it do."""
    for position, number in enumerate(numbers):
        if number not in _caught:
            try:
                signal.raise_signal(number)
            except BaseException:
                _raise_again(numbers[position + 1 :])
                raise
