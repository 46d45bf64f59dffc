"""The scheduler's coin, held still, and what the guards lack: here the tools touch private names of trio's, alone.

Sockets read two marks of a task beside (`sockets/answers.py`), and do without where those are missing.

Trio shuffles the tasks of each batch on purpose.  For a test that repeats a program step by step the shuffle must
come out the same every time, and trio has no public way to ask for that (python-trio/trio #2675).  Two private names
do it together: a flag that sorts each batch by the order in which its tasks were born, and the generator that
shuffles it then.  Measured over six processes with shifted heaps: with neither name six different schedules, with the
generator alone three, with the flag alone six, with both one.

Worker threads that take turns need two more: where trio starts one, and where one asks trio for something.

The guards need four names more, each for what no public hook tells or does: that the clock is about to jump, that a
nursery has got its first exception, in which order tasks were born, and a way to end a task that no cancellation ends.
`missing_private_names` and `missing_guard_names` are the self-test; without a name a RuntimeWarning says what is off.
"""

from __future__ import annotations

import contextlib
import functools
import importlib
import random
import warnings
from collections.abc import Callable, Iterator
from types import ModuleType
from typing import Any, NoReturn

import outcome
import trio
import trio.testing

__all__ = [
    "autojump_hook",
    "birth_number",
    "missing_guard_names",
    "missing_private_names",
    "missing_thread_names",
    "nursery_hook",
    "pinned_scheduler",
    "thread_hooks",
    "throw_into",
]

_MODULE = "trio._core._run"
_COIN = "_r"
_SORT = "_ALLOW_DETERMINISTIC_SCHEDULING"
_AUTOJUMP = "_autojump"
_ADD_EXCEPTION = "_add_exc"
_BIRTH = "_counter"
_ABORT = "_attempt_abort"
_THREADS = "trio._threads"
_START_THREAD = "start_thread_soon"
_ASK_TRIO = "_send_message_to_trio"

_warned = False
_warned_of_guards = False
_warned_of_threads = False


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


def missing_guard_names() -> tuple[str, ...]:
    """Say which of the names that the guards need this trio does not have; empty when they are whole."""
    found = {
        f"trio.testing.MockClock.{_AUTOJUMP}": hasattr(trio.testing.MockClock, _AUTOJUMP),
        f"trio.Nursery.{_ADD_EXCEPTION}": hasattr(trio.Nursery, _ADD_EXCEPTION),
        f"trio.lowlevel.Task.{_BIRTH}": hasattr(trio.lowlevel.Task, _BIRTH),
        f"trio.lowlevel.Task.{_ABORT}": hasattr(trio.lowlevel.Task, _ABORT),
    }
    return tuple(name for name, usable in found.items() if not usable)


@contextlib.contextmanager
def autojump_hook(clock: trio.testing.MockClock, hook: Callable[[Callable[[], None]], None]) -> Iterator[bool]:
    """Within the block, ``hook(jump)`` is called instead whenever ``clock`` would jump by itself.

    That is in every pass of the run loop in which nothing was runnable and nothing came, whether there is a deadline to
    jump to or not; ``jump()`` does what the clock would have done.  Gives False where trio lacks the name: the hook is
    never called then.
    """
    global _warned_of_guards
    if not hasattr(clock, _AUTOJUMP):
        if not _warned_of_guards:
            _warned_of_guards = True
            warnings.warn(
                f"this trio has no MockClock.{_AUTOJUMP}: deadlocks are not noticed, and the clock jumps while threads"
                " run",
                RuntimeWarning,
                stacklevel=4,
            )
        yield False
        return
    found = vars(clock).get(_AUTOJUMP)
    setattr(clock, _AUTOJUMP, functools.partial(hook, getattr(clock, _AUTOJUMP)))
    try:
        yield True
    finally:
        if found is None:
            delattr(clock, _AUTOJUMP)
        else:
            setattr(clock, _AUTOJUMP, found)


@contextlib.contextmanager
def nursery_hook(hook: Callable[[BaseException], None]) -> Iterator[None]:
    """Within the block, ``hook(exc)`` is called when a nursery, of any run, gets an exception, before it cancels."""
    original = getattr(trio.Nursery, _ADD_EXCEPTION, None)
    if original is None:
        yield
        return

    @functools.wraps(original)
    def add_exception(nursery: trio.Nursery, exc: BaseException, *args: object, **kwargs: object) -> None:
        hook(exc)
        original(nursery, exc, *args, **kwargs)

    setattr(trio.Nursery, _ADD_EXCEPTION, add_exception)
    try:
        yield
    finally:
        setattr(trio.Nursery, _ADD_EXCEPTION, original)


def missing_thread_names() -> tuple[str, ...]:
    """Say which of the names this trio does not have by which its worker threads can be made to take turns."""
    module = _threads_module()
    return tuple(
        f"{_THREADS}.{name}" for name in (_START_THREAD, _ASK_TRIO) if not callable(getattr(module, name, None))
    )


def thread_hooks(
    start: Callable[[Callable[..., None]], Callable[..., None]], ask: Callable[[Callable[..., Any]], Callable[..., Any]]
) -> list[tuple[Callable[[Any], None], Any, Any]]:
    """What makes trio start worker threads by ``start(original)``, and has them ask it by ``ask(original)``.

    How to set it, to what, and to what afterwards.  Empty where trio lacks the names, and a RuntimeWarning says so,
    once a process.
    """
    global _warned_of_threads
    missing = missing_thread_names()
    if missing:
        if not _warned_of_threads:
            _warned_of_threads = True
            warnings.warn(
                f"this trio has no {' and no '.join(missing)}: worker threads run beside each other, as if with"
                " threads='real'",
                RuntimeWarning,
                stacklevel=4,
            )
        return []
    module = _threads_module()
    return [
        (functools.partial(setattr, module, name), hook(getattr(module, name)), getattr(module, name))
        for name, hook in ((_START_THREAD, start), (_ASK_TRIO, ask))
    ]


def birth_number(task: trio.lowlevel.Task) -> int:
    """Tasks sorted by it are in the order in which they were started; 0 if trio does not tell."""
    return int(getattr(task, _BIRTH, 0))


def throw_into(task: trio.lowlevel.Task, exc: BaseException) -> bool:
    """Make a waiting or runnable task raise ``exc`` where it stands, whatever shields it; say if that was possible.

    To be called between two task steps.  A task that waits is woken by way of its abort function, as by a
    KeyboardInterrupt, so whatever it waited for forgets it.
    """

    def raise_it() -> NoReturn:
        raise exc

    next_send = getattr(task, "_next_send", None)
    if isinstance(next_send, outcome.Outcome):
        # Runnable.  One that has never run has no Outcome here, and could not take an exception.
        setattr(task, "_next_send", outcome.Error(exc))  # noqa: B010  # not an attribute for mypy to know
        return True
    attempt = getattr(task, _ABORT, None)
    if attempt is None or getattr(task, "_abort_func", None) is None:
        return False
    attempt(raise_it)
    return isinstance(getattr(task, "_next_send", None), outcome.Outcome)


def _run_module() -> ModuleType | None:
    return _module(_MODULE)


def _threads_module() -> ModuleType | None:
    return _module(_THREADS)


def _module(name: str) -> ModuleType | None:
    try:
        return importlib.import_module(name)
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
