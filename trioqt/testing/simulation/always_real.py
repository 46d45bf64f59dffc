"""What nobody simulates and what differs from process to process; it is noted that a program asks for it.

Only where two runs are compared: these stand in the way of everything that calls them.
"""

from __future__ import annotations

import functools
import os
import sys
import time
from collections.abc import Callable
from typing import Any

from trioqt.testing.simulation.worlds import here, is_program

__all__ = ["ALWAYS_REAL"]


def _noted(real: Callable[..., Any]) -> Callable[..., Any]:
    name = real.__name__ if real.__module__ == "builtins" else f"{real.__module__}.{real.__name__}"

    @functools.wraps(real)
    def noted(*args: Any) -> Any:
        world = here()
        # Python and trio call id() all the time, and keep what it gives to themselves.
        if world is not None and is_program(frame := sys._getframe(1)):
            world.note(name, frame)
        return real(*args)

    return noted


ALWAYS_REAL: dict[Any, Any] = {
    real: _noted(real)
    for real in (
        *(time.process_time, time.process_time_ns, time.thread_time, time.thread_time_ns),
        *(id, hash, os.getpid, os.listdir, os.scandir),
    )
}
"""| a function | what stands in for it |"""
