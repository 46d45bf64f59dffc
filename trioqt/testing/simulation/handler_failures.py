"""What servers have survived in a test, which must not stay green over it: a handler's bug ends one connection only.

The servers tell it (``sockets/survived_bugs.py``); here it becomes the test's failure, unless the test takes it.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from trioqt.core.errors import traceback_of
from trioqt.sockets.survived_bugs import SurvivedBugs

__all__ = ["failing_if_bugs_survive"]


@contextmanager
def failing_if_bugs_survive() -> Iterator[None]:
    """After this block they are raised, in an ExceptionGroup; if it fails by itself, they are told in a note."""
    with SurvivedBugs().collecting() as bugs:
        try:
            yield
        except BaseException as exc:
            if survived := bugs.take_all():
                exc.add_note(f"before it, {survived.message}:\n{traceback_of(survived) or 'which cannot be shown'}")
            raise
        if survived := bugs.take_all():
            raise survived
