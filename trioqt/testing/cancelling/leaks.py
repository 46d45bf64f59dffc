"""What a run left behind: descriptors, and objects that complain when they are thrown away.

Collecting garbage is what makes such a check slow: a full collection takes 32 ms on a heap like pytest's, thirty times
the run it follows.  So the collector is kept from running by itself, everything that the run made stays in its
youngest generation, and only that one is collected: 20 to 50 microseconds.  It also pins the moment at which garbage
is noticed, so a complaint belongs to the run that caused it.
"""

from __future__ import annotations

import gc
import os
import re
import stat
import sys
import warnings
import weakref
from collections.abc import Callable
from types import TracebackType
from typing import Self

import attrs

from trioqt.testing.cancelling.report import Problem, steady
from trioqt.testing.network.socket import VirtualSocket, left_open

__all__ = ["LeakCheck", "open_descriptors"]

_DIRECTORY = {"linux": "/proc/self/fd", "darwin": "/dev/fd"}.get(sys.platform)

_NEVER_AWAITED = r"coroutine .* was never awaited"


def open_descriptors() -> dict[int, str] | None:
    """The process's open descriptors and what each is, or None where the system does not tell."""
    if _DIRECTORY is None or not os.path.isdir(_DIRECTORY):
        return None
    found = {}
    for name in os.listdir(_DIRECTORY):
        try:
            mode = os.fstat(int(name)).st_mode
        except OSError:
            continue  # the descriptor that listed the directory: it is listed, and closed by now
        found[int(name)] = _kind(mode)
    return found


@attrs.define(eq=False)
class LeakCheck:
    """Entered for a walk; ``begin`` and ``end`` are called around each of its runs."""

    _warnings: list[warnings.WarningMessage] = attrs.Factory(list)
    _others: dict[tuple[object, ...], warnings.WarningMessage] = attrs.Factory(dict)
    _unraisable: list[str] = attrs.Factory(list)
    _descriptors: dict[int, str] | None = None
    _left_open: weakref.WeakSet[VirtualSocket] = attrs.Factory(weakref.WeakSet)
    _catcher: warnings.catch_warnings[list[warnings.WarningMessage]] = attrs.Factory(
        lambda: warnings.catch_warnings(record=True)
    )
    _found: tuple[Callable[[sys.UnraisableHookArgs], object], bool] | None = None

    def __enter__(self) -> Self:
        self._found = (sys.unraisablehook, gc.isenabled())
        self._warnings = self._catcher.__enter__()
        # In front of the user's filters, "error" included: these two are counted.  All others do what they did.
        warnings.simplefilter("always", ResourceWarning)
        warnings.filterwarnings("always", _NEVER_AWAITED, RuntimeWarning)
        sys.unraisablehook = self._on_unraisable
        gc.disable()
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        assert self._found is not None
        sys.unraisablehook, collecting = self._found
        if collecting:
            gc.enable()
        self._catcher.__exit__(exc_type, exc, traceback)
        for warning in self._others.values():
            warnings.warn_explicit(warning.message, warning.category, warning.filename, warning.lineno)

    def begin(self) -> None:
        """A run begins; what came before is not its fault."""
        self._warnings.clear()
        self._unraisable.clear()
        self._descriptors = open_descriptors()
        self._left_open = weakref.WeakSet(left_open)

    def end(self, *, wreck: bool = False) -> list[Problem]:
        """Say what the run that has just ended left behind; of a ``wreck`` nothing, whatever it complains."""
        left = self._new_descriptors()
        gc.collect(0)
        if left or wreck:
            # Descriptors that only older garbage holds are closed here, lest a thousand failing runs use them all up.
            gc.collect()
        if wreck:
            self._warnings.clear()
            return []
        problems = [Problem("escaped", f"unraisable {text}") for text in self._unraisable]
        complaints = []
        for warning in self._warnings:
            text = str(warning.message)
            if issubclass(warning.category, ResourceWarning) or re.match(_NEVER_AWAITED, text):
                complaints.append(steady(text))
            else:
                self._others.setdefault((warning.category, text, warning.filename, warning.lineno), warning)
        # A warning holds its object, so this closes the sockets that were complained about.
        self._warnings.clear()
        problems += [Problem("leak", text) for text in sorted(complaints)]
        # Who is held somewhere has not complained; of a real socket the descriptor would still be there.
        held = sorted(steady(repr(sock)) for sock in left_open if sock not in self._left_open)
        problems += [Problem("leak", f"unclosed {text}, and held somewhere") for text in held]
        if left:
            problems.append(Problem("leak", f"{len(left)} descriptors left open ({', '.join(left)})"))
        return problems

    def _new_descriptors(self) -> list[str]:
        now = open_descriptors()
        if now is None or self._descriptors is None:
            return []
        return sorted(kind for number, kind in now.items() if number not in self._descriptors)

    def _on_unraisable(self, unraisable: sys.UnraisableHookArgs) -> None:
        # As text: the exception and the object would keep alive what is being thrown away.
        exc = unraisable.exc_value
        self._unraisable.append(steady(f"{type(exc).__name__}({exc})"))


def _kind(mode: int) -> str:
    if stat.S_ISSOCK(mode):
        return "socket"
    if stat.S_ISFIFO(mode):
        return "pipe"
    if stat.S_ISREG(mode):
        return "file"
    return "other"
