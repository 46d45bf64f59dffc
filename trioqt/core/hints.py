"""What somebody is told who writes it slightly wrong: `with` for `async with`."""

from __future__ import annotations

from typing import TYPE_CHECKING, NoReturn

__all__ = ["AsyncBlock"]

# What is called by a wrong name, `recv` or `readyRead`, is told by Python alone.  A `__getattr__` that knew such names
# was tried, and cost all that has it a tenth to a sixth of its speed: CPython (3.11) specializes no attribute of a
# class with one.


class AsyncBlock:
    """What is entered by `async with`."""

    __slots__ = ()

    # As trio does it.  Type checkers know without this that it is wrong.
    if not TYPE_CHECKING:

        def __enter__(self) -> NoReturn:
            raise TypeError("write `async with`, not `with`")

        def __exit__(self, *exc: object) -> NoReturn:
            raise AssertionError("there is no block without __enter__")
