"""What nobody simulates and what differs from process to process; it is noted that a program asks for it.

Only where two runs are compared: these stand in the way of everything that calls them.
"""

from __future__ import annotations

import functools
import gc
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

from trioqt.testing.simulation.replacing import Setting, class_entry
from trioqt.testing.simulation.worlds import asker, here, is_importing, is_program

__all__ = ["ALWAYS_REAL", "PROCESSES"]


def _name(real: Callable[..., Any]) -> str:
    module = {"builtins": "", "posix": "os.", "nt": "os.", "_thread": "threading."}
    return module.get(real.__module__, f"{real.__module__}.") + real.__name__


def _noted(real: Callable[..., Any]) -> Callable[..., Any]:
    name = _name(real)

    @functools.wraps(real)
    def noted(*args: Any, **kwargs: Any) -> Any:
        world = here()
        # Python and trio call id() all the time, and keep what it gives to themselves.
        if world is not None and is_program(frame := sys._getframe(1)):
            world.note(name, frame)
        return real(*args, **kwargs)

    return noted


def _noted_of_files(real: Callable[..., Any]) -> Callable[..., Any]:
    """Whoever in the standard library asks for the program, but for imports."""
    name = _name(real)

    @functools.wraps(real)
    def noted(*args: Any, **kwargs: Any) -> Any:
        world = here()
        if world is not None and not is_importing():
            frame = asker(sys._getframe(1))
            if frame is not None and is_program(frame):
                world.note(name, frame)
        return real(*args, **kwargs)

    return noted


_real_open = open


@functools.wraps(_real_open)
def _noted_open(file: Any, *args: Any, **kwargs: Any) -> Any:
    world = here()
    if world is not None and str(file).startswith(("/dev/", "/proc/", "/sys/")):
        world.note(f"open({str(file)!r})", sys._getframe(1))
    return _real_open(file, *args, **kwargs)


_REAL = [
    *(time.process_time, time.process_time_ns, time.thread_time, time.thread_time_ns),
    *(id, hash, threading.get_ident, threading.get_native_id, sys.getrefcount, gc.get_count, gc.get_objects),
    *(os.getpid, os.getppid, os.listdir, os.scandir, os.times, os.cpu_count),
    *(getattr(os, name) for name in ("getloadavg", "statvfs", "uname") if hasattr(os, name)),
]

ALWAYS_REAL: dict[Any, Any] = {
    **{real: _noted(real) for real in _REAL},
    **{real: _noted_of_files(real) for real in (os.stat, os.lstat, os.fstat)},
    _real_open: _noted_open,
}
"""| a function | what stands in for it |"""


_real_popen = subprocess.Popen.__init__


@functools.wraps(_real_popen)
def _noted_popen(process: Any, *args: Any, **kwargs: Any) -> None:
    world = here()
    if world is not None:
        world.note("subprocess.Popen", sys._getframe(1))
    _real_popen(process, *args, **kwargs)


PROCESSES: list[Setting] = [(class_entry(subprocess.Popen, "__init__"), _noted_popen, _real_popen)]
"""The same of a process: how to set it, to what, and to what afterwards."""
