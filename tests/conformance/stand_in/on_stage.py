"""Which stage the stand-ins live on now, and how what trioqt refuses is recorded there."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import trio

import trioqt
from tests.conformance.stage import Stage

__all__ = ["NOT_THERE", "REFUSED", "broken", "instead", "or_else", "refused", "stage", "use"]

NOT_THERE = "not in trioqt"

REFUSED = (
    trioqt.SocketError,
    trio.ClosedResourceError,
    trio.BusyResourceError,
    trio.WouldBlock,
    TypeError,
    ValueError,
)

_stage: Stage


def use(stage: Stage) -> None:
    """From here on the stand-ins live on ``stage``."""
    global _stage
    _stage = stage


def stage() -> Stage:
    """The one in use."""
    return _stage


def refused(exc: Exception) -> None:
    """Record that trioqt raises."""
    kind = f".{exc.kind.name}" if isinstance(exc, trioqt.SocketError) else ""
    _stage.warned(type(exc).__name__ + kind)


def instead(obj: object, what: str) -> None:
    """Record that something was done for ``obj`` that its program did not ask for.  A rule must account for it."""
    _stage.aside(obj, "instead", what)


def broken(obj: object, what: str) -> None:
    """Record that trioqt broke a law, which nothing of Qt's can be equal to."""
    _stage.aside(obj, "broken", what)


def or_else(failed: Any, act: Callable[[], Any]) -> Any:
    """What ``act`` gives; ``failed`` if trioqt raises."""
    try:
        return act()
    except REFUSED as exc:
        refused(exc)
        return failed
