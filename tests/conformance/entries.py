"""Finding one's way in a trace: which entry is what, where a call ends, and what it gave."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from tests.conformance.trace import Entry

__all__ = [
    "NO_ERROR",
    "Entries",
    "count_of",
    "end_of",
    "fold",
    "is_call",
    "is_query",
    "is_signal",
    "objects",
    "of",
    "remove",
    "result_of",
]

Entries = list[Entry]


def is_signal(entry: Entry, *names: str) -> bool:
    return entry["k"] == "signal" and (not names or entry["name"] in names)


def is_call(entry: Entry, *names: str) -> bool:
    return entry["k"] == "call" and (not names or entry["fn"] in names)


def is_query(entry: Entry, *names: str) -> bool:
    return entry["k"] == "query" and (not names or entry["fn"] in names)


def end_of(entries: Entries, start: int) -> int:
    """Where the call at ``start`` ends: its own place, or that of its ``ret``; the last entry if it has none."""
    call = entries[start]
    if "ret" in call or "raised" in call:
        return start
    depth = 0
    for index in range(start + 1, len(entries)):
        entry = entries[index]
        if entry.get("obj") == call["obj"] and entry.get("fn") == call["fn"]:
            if entry["k"] == "ret":
                if depth == 0:
                    return index
                depth -= 1
            elif entry["k"] == "call" and "ret" not in entry:
                depth += 1
    return len(entries) - 1


def result_of(entries: Entries, start: int) -> Entry:
    """The entry that holds the result of the call at ``start``."""
    return entries[end_of(entries, start)]


def count_of(result: Entry) -> int:
    """How many bytes a write() or put_char() took."""
    taken = result.get("ret")
    return max(int(taken), 0) if isinstance(taken, int) else 0


def of(entries: Entries, obj: str) -> Iterator[Entry]:
    return (entry for entry in entries if entry.get("obj") == obj)


def objects(entries: Entries) -> list[str]:
    return list(dict.fromkeys(entry["obj"] for entry in entries if "obj" in entry))


def remove(entries: Entries, unwanted: Callable[[Entry], bool]) -> int:
    """Take such entries out; how many."""
    kept = [entry for entry in entries if not unwanted(entry)]
    count = len(entries) - len(kept)
    entries[:] = kept
    fold(entries)
    return count


def fold(entries: Entries) -> None:
    """A call that has nothing else inside any more has its result in itself again, as the recorder writes it."""
    index = 0
    while index + 1 < len(entries):
        here, following = entries[index], entries[index + 1]
        open_call = is_call(here) and "ret" not in here and following["k"] == "ret"
        if open_call and (following["obj"], following["fn"]) == (here["obj"], here["fn"]):
            here.update({key: value for key, value in following.items() if key in ("ret", "raised")})
            if "raised" not in here:
                here.setdefault("ret", None)
            del entries[index + 1]
        index += 1


NO_ERROR = "UnknownSocketError"
