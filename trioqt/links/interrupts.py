"""Where a Ctrl-C may raise KeyboardInterrupt, and where it waits until the main task waits for something.

Trio asks the frames below, from the innermost down, and the first that is marked decides.  So a mark costs nothing when
a function is called, and holds for whatever that calls.  Everything here that changes a state is marked, class by
class, for two lines that belong together are soon written and one method soon forgotten.  What a caller has handed us,
a handler for one, is the caller's, and can be interrupted as ever.
"""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable, Coroutine
from types import FunctionType
from typing import Any, ParamSpec, TypeVar

import trio

__all__ = ["answer_of", "await_interruptible", "call_interruptible", "protected"]

T = TypeVar("T")
P = ParamSpec("P")
Class = TypeVar("Class", bound=type)


def protected(cls: Class) -> Class:
    """Mark every method and property of a class; those of a class derived from it are not ours to mark."""
    for thing in vars(cls).values():
        if isinstance(thing, property):
            functions = [thing.fget, thing.fset, thing.fdel]
        else:
            functions = [getattr(thing, "__func__", thing)]  # of a classmethod, a staticmethod
        # Unwrapped, for the code of a wrapper, contextlib's for one, belongs to whatever it wraps elsewhere.
        for function in map(inspect.unwrap, filter(callable, functions)):
            if isinstance(function, FunctionType):
                trio.lowlevel.enable_ki_protection(function)
    return cls


@trio.lowlevel.disable_ki_protection
def call_interruptible(fn: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Call what a caller has handed us."""
    return fn(*args, **kwargs)


def await_interruptible(fn: Callable[P, Awaitable[T]], *args: P.args, **kwargs: P.kwargs) -> Coroutine[Any, Any, T]:
    """The same for what waits."""
    return _wait_for(call_interruptible(fn, *args, **kwargs))


@trio.lowlevel.disable_ki_protection
async def _wait_for(what: Awaitable[T]) -> T:
    # Every open connection of a server holds this frame; with the arguments in it that were 112 bytes more.
    return await what


@trio.lowlevel.disable_ki_protection
async def answer_of(fn: Callable[P, Awaitable[T]], *args: P.args, **kwargs: P.kwargs) -> T:
    """The same, but what ``fn`` returns is in no variable: it may be a secret, or be left unawaited by a Ctrl-C."""
    return await fn(*args, **kwargs)
