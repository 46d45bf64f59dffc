"""Random numbers and the system's entropy, drawn from the run's seed within a simulation; each host has its own.

Each of them asks first whether its caller is in a simulation that has entropy, and calls the real one if not.
"""

from __future__ import annotations

import contextlib
import functools
import operator
import os
import random
import ssl
import sys
import tempfile
import uuid
from collections.abc import Callable
from types import FrameType, FunctionType
from typing import Any

from trioqt.testing.simulation.replacing import Setting, class_entry
from trioqt.testing.simulation.worlds import World, here, is_bystander

__all__ = ["ENTROPY", "numpy_settings", "settings"]


def _drawing(real: Callable[..., Any], name: str, simulated: Callable[..., Any]) -> Callable[..., Any]:
    """``simulated(world, *args)`` for whoever is in a simulation, and the real function for everybody else."""

    @functools.wraps(real)
    def asked(*args: Any, **kwargs: Any) -> Any:
        world = here()
        if world is None or is_bystander(frame := sys._getframe(1)):
            return real(*args, **kwargs)
        if not world.entropy:
            world.note(name, frame)
            return real(*args, **kwargs)
        return simulated(world, *args, **kwargs)

    return asked


# ---- the system's --------------------------------------------------------------------------------------------------

_real_urandom = os.urandom


def _urandom(world: World, size: int, /) -> bytes:
    count = operator.index(size)
    return world.system_chance().randbytes(count) if count >= 0 else _real_urandom(size)


def _getrandom(world: World, size: int, flags: int = 0) -> bytes:
    return _urandom(world, size)


def _getnode(world: World) -> int:
    return world.node()


ENTROPY: dict[Any, Any] = {
    os.urandom: _drawing(os.urandom, "os.urandom", _urandom),
    ssl.RAND_bytes: _drawing(ssl.RAND_bytes, "ssl.RAND_bytes", _urandom),
    uuid.getnode: _drawing(uuid.getnode, "uuid.getnode", _getnode),
}
"""| a function | what stands in for it |"""

if hasattr(os, "getrandom"):  # Linux
    ENTROPY[os.getrandom] = _drawing(os.getrandom, "os.getrandom", _getrandom)


# ---- the module's --------------------------------------------------------------------------------------------------


def _method(name: str) -> Callable[..., Any]:
    def of_host(world: World, *args: Any, **kwargs: Any) -> Any:
        return getattr(world.chance(), name)(*args, **kwargs)

    return of_host


# The functions of `random` are methods of one generator that it keeps.
_shared = random.random.__self__  # type: ignore[attr-defined]  # mypy: a function
for _name, _kept in vars(random).items():
    if getattr(_kept, "__self__", None) is _shared and not _name.startswith("_"):
        ENTROPY[_kept] = _drawing(_kept, f"random.{_name}", _method(_name))


# ---- generators without a seed -------------------------------------------------------------------------------------

_real_seed: FunctionType = vars(random.Random)["seed"]


@functools.wraps(_real_seed)
def _seed(generator: random.Random, a: Any = None, version: int = 2) -> None:
    world = here() if a is None else None
    if world is not None and not is_bystander(frame := _asking()):
        if world.entropy:
            # As many bits as the real one asks the system for.
            a = world.system_chance().getrandbits(19968)
        else:
            world.note("random.Random() without a seed", frame)
    _real_seed(generator, a, version)


def _asking() -> FrameType:
    frame = sys._getframe(2)
    while frame.f_globals.get("__name__") == "random" and frame.f_back is not None:
        frame = frame.f_back
    return frame


def settings() -> list[Setting]:
    """What else is to be set: how, to what, and to what afterwards."""
    # The generator of names for temporary files has a seed already, unless it is made anew.  Before the first name of a
    # process the folder is looked for, with a generator of its own.
    with contextlib.suppress(OSError):
        tempfile.gettempdir()
    names = (functools.partial(setattr, tempfile, "_name_sequence"), None, vars(tempfile).get("_name_sequence"))
    # What the real getnode finds is kept; within it would be another card's.
    known = vars(uuid).get("_node")
    node = (functools.partial(setattr, uuid, "_node"), known, known)
    return [(class_entry(random.Random, "seed"), _seed, _real_seed), names, node]


def numpy_settings(seed: int) -> list[Setting]:
    """The same of the one generator that ``numpy.random`` keeps, if numpy is here; its others ask `secrets`."""
    module: Any = sys.modules.get("numpy.random")
    if module is None:
        return []
    before = module.get_state()
    if before[0] != "MT19937":
        return []  # the program has put one of its own there
    return [(module.set_state, module.RandomState(seed % 2**32).get_state(), before)]
