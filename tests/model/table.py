"""What docs/topics/states.md says of each call in each state, and whether a course of events is a path of the table."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import cache
from pathlib import Path

from trioqt import ReadChannelFinished, SocketState
from trioqt.core.states import TRANSITIONS, Input, Told

__all__ = ["after_end", "in_state", "is_path"]

PAGE = Path(__file__).parents[2] / "docs" / "topics" / "states.md"


@cache
def _tables() -> dict[tuple[str, str], str]:
    """What each call gets, by the call and the head of the column."""
    found, heads = {}, list[str]()
    for line in PAGE.read_text(encoding="utf-8").splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if line.startswith("| call |"):
            heads = cells[1:]
        elif not line.startswith("|"):
            heads = []
        elif heads:
            for call in cells[0].replace("`", "").split(", "):
                for head, cell in zip(heads, cells[1:], strict=True):
                    found[call, head] = cell
    return found


def in_state(call: str, state: SocketState) -> str:
    """``yes``, ``OPERATION`` or ``closed``."""
    return _tables()[call, state.name]


def after_end(call: str, past: str) -> str:
    """The same in UNCONNECTED after an end; also ``the failure``."""
    return _tables()[call, past]


def is_path(told: Iterable[Told], state: SocketState, *, finish_told: bool = False) -> bool:
    """Can a socket in ``state`` tell this by going through rows of TRANSITIONS, the last one perhaps in part?

    Args:
      finish_told: Perhaps ReadChannelFinished has been told before; then it may be left out.
    """
    # What may come next, in each case that the course so far allows: the rest of a row, the state behind it, and
    # whether the end of reading has been told.
    Case = tuple[tuple[Told, ...], SocketState, bool]
    cases: set[Case] = {((), state, known) for known in {False, finish_told}}
    for thing in told:
        following: set[Case] = set()
        todo, seen = list(cases), set(cases)
        while todo:
            rest, behind, finished = todo.pop()
            more: list[Case] = []
            if not rest:
                for (start, happened), (end, row) in TRANSITIONS.items():
                    if start is behind and row:
                        more.append((row, end, finished and happened is not Input.ADOPTED))
                    elif start is behind and happened is Input.ADOPTED:
                        more.append(((), end, False))
            elif rest[0] is ReadChannelFinished and finished:
                more.append((rest[1:], behind, finished))
            elif rest[0] is thing:
                following.add((rest[1:], behind, _finished(thing, finished)))
            fresh = [case for case in more if case not in seen]
            seen.update(fresh)
            todo += fresh
        cases = following
    return bool(cases)


def _finished(thing: Told, before: bool) -> bool:
    if thing is ReadChannelFinished:
        return True
    return before and (not isinstance(thing, SocketState) or thing in (SocketState.CLOSING, SocketState.UNCONNECTED))


def readable(told: Sequence[Told]) -> str:
    """For a message."""
    return ", ".join(thing.name if isinstance(thing, SocketState) else thing.__name__ for thing in told)
