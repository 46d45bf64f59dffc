"""What Qt did beside what trioqt did, entry by entry.

Both traces are translated by the same general rules.  What is left is compared object by object: its signals, calls,
results and getters in their order, with the state, the error and the bytes available beside each signal; and in a
stream of their own what the raw peer saw and what the program noted.
"""

from __future__ import annotations

import copy
import difflib
import json
from collections import defaultdict
from collections.abc import Iterable, Iterator

import attrs

from tests.conformance.entries import NO_ERROR, Entries, end_of, fold, is_call, is_signal
from tests.conformance.rules import MARKS, RULES
from tests.conformance.trace import Entry

__all__ = ["Comparison", "compare", "show"]


@attrs.frozen
class Comparison:
    """How one scenario came out."""

    entries: int
    """Of Qt's trace."""
    dropped: int
    touched: dict[str, int]
    """By rule, how many of Qt's entries."""
    differences: tuple[str, ...]
    """Line by line: ``-`` Qt has it, ``+`` trioqt has it."""
    differing: int
    """How many of Qt's entries have no equal."""


PROGRAM = "program"


def compare(qt: Iterable[Entry], ours: Iterable[Entry]) -> Comparison:
    """Translate both, and compare them stream by stream."""
    left, right = [copy.deepcopy(entry) for entry in qt], [copy.deepcopy(entry) for entry in ours]
    entries = len(left)
    crash = crashed_in(left)
    if crash is not None:  # what is in that call and after it has nothing beside it
        del left[crash + 1 :]
        right = until_the_same(left, right)
    touched = {rule.name: rule.apply(left, right) for rule in RULES}
    for side in (left, right):
        number_ports(side)
    differences: list[str] = []
    differing = 0
    theirs_by_object, ours_by_object = streams(left), streams(right)
    for obj in dict.fromkeys([*theirs_by_object, *ours_by_object]):
        theirs, mine = theirs_by_object.get(obj, []), ours_by_object.get(obj, [])
        for stream in (theirs, mine):
            fold(stream)  # a call in which only others did something
        blind(theirs, mine)
        lines, missing = difference([show(entry) for entry in theirs], [show(entry) for entry in mine])
        if not lines:
            lines = list(_check_sent(theirs, mine))
            missing = len(lines)
        differences += [f"{obj}: {line}" for line in lines]
        differing += missing
    return Comparison(entries, touched[RULES[0].name], touched, tuple(differences), differing)


def crashed_in(qt: Entries) -> int | None:
    """Where the call is in which Qt crashed, if it did: it never returned."""
    for index, entry in enumerate(qt):
        if is_call(entry, "incoming_connection"):
            continue  # an override, which Qt calls; when it returns is not recorded
        if is_call(entry) and "ret" not in entry and "raised" not in entry:
            end = qt[end_of(qt, index)]
            if end["k"] != "ret" or (end["obj"], end["fn"]) != (entry["obj"], entry["fn"]):
                return index
    return None


def until_the_same(left: Entries, right: Entries) -> Entries:
    """Ours as far as the call that is the last of ``left``, without its result."""
    last = left[-1]
    calls = [at for at, e in enumerate(right) if is_call(e, last["fn"]) and e["obj"] == last["obj"]]
    number = sum(is_call(entry, last["fn"]) and entry["obj"] == last["obj"] for entry in left)
    if len(calls) < number:
        return right
    cut = right[: calls[number - 1] + 1]
    return [*cut[:-1], {key: value for key, value in cut[-1].items() if key not in ("ret", "raised")}]


def streams(entries: Entries) -> dict[str, Entries]:
    """What happened to each object, and in the program beside."""
    found: dict[str, Entries] = defaultdict(list)
    for entry in entries:
        found[entry.get("obj", PROGRAM)].append(entry)
    return dict(found)


def number_ports(entries: Entries) -> None:
    """Ports that have no name are numbered as they come up, which a rule may have changed."""
    numbers: dict[str, str] = {}
    for entry in entries:
        for key, value in entry.items():
            if isinstance(value, str) and value.startswith("EPHEMERAL_"):
                entry[key] = numbers.setdefault(value, f"EPHEMERAL_{len(numbers) + 1}")


def _check_sent(theirs: Entries, mine: Entries) -> Iterator[str]:
    """What was written: ours never later, and the same in all."""
    if not theirs or theirs[-1]["k"] != "total":
        return
    if theirs[-1]["written"] != mine[-1]["written"]:
        yield f"-bytes written in all: {theirs[-1]['written']}"
        yield f"+bytes written in all: {mine[-1]['written']}"
    elif any(here["written"] < there["written"] for there, here in zip(theirs, mine, strict=True)):
        yield "+bytes written later"


def blind(theirs: Entries, mine: Entries) -> None:
    """What Qt could not say (a getter of an object that was being destroyed), nobody compares."""
    for there, here in zip(theirs, mine, strict=False):
        if is_signal(there) and is_signal(here) and there["name"] == here["name"] and "state" not in there:
            for key in ("state", "error", "avail"):
                here.pop(key, None)


def difference(theirs: list[str], mine: list[str]) -> tuple[list[str], int]:
    """Line by line, and how many of theirs have no equal."""
    lines: list[str] = []
    missing = 0
    matcher = difflib.SequenceMatcher(None, theirs, mine, autojunk=False)
    for what, a, b, c, d in matcher.get_opcodes():
        if what != "equal":
            lines += [f"-{line}" for line in theirs[a:b]]
            lines += [f"+{line}" for line in mine[c:d]]
            missing += max(b - a, 1) if b > a else 1
    return lines, missing


def show(entry: Entry) -> str:
    """An entry as one line."""
    match entry:
        case {"k": "signal", "name": name}:
            args = ", ".join(str(arg) for arg in entry.get("args", ()))
            view = {key: entry[key] for key in ("state", "error", "avail", "has_pending") if key in entry}
            beside = " ".join(f"{key}={value}" for key, value in view.items() if value != NO_ERROR)
            return f"{name}({args}) [{beside}]"
        case {"k": "call", "fn": fn}:
            args = ", ".join(str(arg) for arg in entry.get("args", ()))
            raised = f" raised {entry['raised']}" if "raised" in entry else ""
            return f"{fn}({args})" + (f" -> {entry['ret']!r}" if "ret" in entry else raised)
        case {"k": "ret", "fn": fn}:
            return f"... {fn} -> {entry.get('ret', entry.get('raised'))!r}"
        case {"k": "query", "fn": fn, "value": value}:
            return f"{fn} = {value!r}"
        case {"k": "total"}:
            return "the end"
    return json.dumps({key: value for key, value in entry.items() if key not in MARKS}, sort_keys=True)
