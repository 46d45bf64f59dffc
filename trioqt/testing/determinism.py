"""The scheduler's coin, held still: the only file that touches trio's private names.

Trio shuffles the tasks of each batch on purpose.  For a test that repeats a program step by step the shuffle must
come out the same every time, and trio has no public way to ask for that (python-trio/trio #2675).  Two private names
do it together: a flag that sorts each batch by the order in which its tasks were born, and the generator that
shuffles it then.  Measured over six processes with shifted heaps: with neither name six different schedules, with the
generator alone three, with the flag alone six, with both one.
"""

from __future__ import annotations

import contextlib
import importlib
import random
import warnings
from collections.abc import Callable, Iterator
from types import ModuleType

__all__ = ["missing_private_names", "pinned_scheduler"]

_MODULE = "trio._core._run"
_COIN = "_r"
_SORT = "_ALLOW_DETERMINISTIC_SCHEDULING"

_warned = False


def missing_private_names() -> tuple[str, ...]:
    """Say which of the private names this trio does not have; empty when the scheduler can be pinned."""
    module = _run_module()
    found = {
        _COIN: isinstance(getattr(module, _COIN, None), random.Random),
        _SORT: isinstance(getattr(module, _SORT, None), bool),
    }
    return tuple(f"{_MODULE}.{name}" for name, usable in found.items() if not usable)


@contextlib.contextmanager
def pinned_scheduler() -> Iterator[Callable[[int], None]]:
    """Within the block, the function it gives starts the schedule of ``seed`` for the next ``trio.run``.

    Afterwards trio's scheduler is as it was found, so a test that comes later is as random as ever.  Where trio lacks
    the private names, the function does nothing, and a RuntimeWarning says so, once a process.
    """
    missing = missing_private_names()
    if missing:
        _warn_once(missing)
        yield lambda seed: None
        return
    module = _run_module()
    coin: random.Random = getattr(module, _COIN)
    # Hypothesis, when imported, sets the flag for good; so the old value is kept, not assumed.
    found = (coin.getstate(), getattr(module, _SORT))
    setattr(module, _SORT, True)
    try:
        yield coin.seed
    finally:
        coin.setstate(found[0])
        setattr(module, _SORT, found[1])


def _run_module() -> ModuleType | None:
    try:
        return importlib.import_module(_MODULE)
    except ImportError:
        return None


def _warn_once(missing: tuple[str, ...]) -> None:
    global _warned
    if not _warned:
        _warned = True
        warnings.warn(
            f"this trio has no {' and no '.join(missing)}: its scheduler stays random, and what a seed shows here"
            " may not show again",
            RuntimeWarning,
            stacklevel=4,  # past this function, the generator and contextlib: where the block is entered
        )
