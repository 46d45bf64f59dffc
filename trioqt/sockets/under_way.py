"""Calls that wait before they take anything, for a name to be looked up: an end that is made meanwhile calls them off.

An attempt to connect has a state, and so an end of its own.  ``bind`` and ``listen`` have none until they are done.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import trio

from trioqt.links.interrupts import protected

__all__ = ["UnderWay"]


@protected
class UnderWay:
    """Those of one socket or server."""

    __slots__ = ("_scopes",)

    def __init__(self) -> None:
        self._scopes: set[trio.CancelScope] = set()

    @contextlib.contextmanager
    def call(self, name: str) -> Iterator[None]:
        """The block is a call that can be called off.

        Raises: trio.ClosedResourceError if it was, whatever the block came to.
        """
        scope = trio.CancelScope()
        self._scopes.add(scope)
        try:
            with scope:
                yield
        except Exception:
            if not scope.cancel_called:
                raise
        finally:
            self._scopes.discard(scope)
        if scope.cancel_called:
            raise trio.ClosedResourceError(f"cannot {name}: another task has ended it meanwhile")

    def call_off(self) -> None:
        """End them all."""
        for scope in self._scopes:
            scope.cancel(reason="an end was made meanwhile")
