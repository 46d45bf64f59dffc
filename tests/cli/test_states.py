"""``trioqt states``: the table that the code runs, and nothing kept by hand."""

from __future__ import annotations

import os
import re

import pytest

from tests.cli.commands import call_trioqt, on_terminal, read_rest, run_trioqt, running_trioqt
from trioqt.core.events import Encrypted
from trioqt.core.socket_state import SocketState
from trioqt.core.states import TRANSITIONS, Input

FORMATS = ["table", "mermaid", "dot", "text"]


def printed(chosen: str, *options: str) -> str:
    """What the command prints."""
    result = call_trioqt("states", "--format", chosen, *options)
    assert (result.exit_code, result.stderr) == (0, "")
    return result.stdout


def told(row: tuple[SocketState, Input]) -> str:
    """What the table says is told, in words."""
    return ", ".join(thing.name if isinstance(thing, SocketState) else thing.__name__ for thing in TRANSITIONS[row][1])


def test_the_table_is_the_default_and_has_every_transition() -> None:
    """A line for each pair of state and input, by state: what follows, what is told.  Then what the inputs mean."""
    default = call_trioqt("states").stdout
    lines = [re.split(r" {2,}", line) for line in printed("table").splitlines()]
    end = lines.index([""])
    expected = [
        [row[0].name, row[1].name, TRANSITIONS[row][0].name, *filter(None, [told(row)])]
        for row in sorted(TRANSITIONS, key=lambda row: row[0].value)
    ]

    assert default == printed("table")
    assert lines[:end] == [["state", "input", "next", "tells, in this order"], *expected]
    assert lines[end + 1 :] == [["input", "meaning"], *([happened.name, happened.value] for happened in Input)]


def test_the_mermaid_diagram_has_exactly_the_transitions() -> None:
    """An arrow for each, no other arrow but the one into the first state, and only states that there are."""
    first, start, *arrows = printed("mermaid").splitlines()
    found = [re.fullmatch(r"    (\w+) --> (\w+) : (\w+)(?: / (.+))?", arrow) for arrow in arrows]

    assert (first, start) == ("stateDiagram-v2", "    [*] --> UNCONNECTED")
    assert len(arrows) == len(TRANSITIONS)
    assert {match.groups("") for match in found if match} == {
        (state.name, following.name, happened.name, told((state, happened)))
        for (state, happened), (following, _) in TRANSITIONS.items()
    }


def test_the_dot_graph_has_exactly_the_transitions() -> None:
    """The same for Graphviz."""
    text = printed("dot")
    arrows = re.findall(r'^    (\w+) -> (\w+) \[label="(\w+)(?: /\\n)?([^"]*)"\];$', text, re.MULTILINE)

    assert text.startswith("digraph states {\n")
    assert text.endswith("}\n")
    assert "    start -> UNCONNECTED;\n" in text
    assert text.count("->") == len(TRANSITIONS) + 1
    assert len(arrows) == len(TRANSITIONS)
    assert set(arrows) == {
        (state.name, following.name, happened.name, told((state, happened)))
        for (state, happened), (following, _) in TRANSITIONS.items()
    }


def test_the_text_has_exactly_the_transitions() -> None:
    """An arrow a line."""
    found = [re.fullmatch(r"(\w+) -> (\w+): (\w+)(?: / (.+))?", line) for line in printed("text").splitlines()]

    assert len(found) == len(TRANSITIONS)
    assert {match.groups("") for match in found if match} == {
        (state.name, following.name, happened.name, told((state, happened)))
        for (state, happened), (following, _) in TRANSITIONS.items()
    }


@pytest.mark.parametrize("chosen", FORMATS)
def test_without_loops_only_what_changes_the_state_is_shown(chosen: str) -> None:
    """In every format; the table explains only the inputs that it shows."""
    loops = {row for row, (following, _) in TRANSITIONS.items() if following is row[0]}
    shown = printed(chosen, "--no-loops").splitlines()
    whole = printed(chosen).splitlines()
    inputs = {happened for _, happened in TRANSITIONS.keys() - loops}
    unexplained = len(set(Input) - inputs) if chosen == "table" else 0

    assert 0 < len(loops) < len(TRANSITIONS)
    assert whole == printed(chosen, "--loops").splitlines()
    assert len(whole) - len(shown) == len(loops) + unexplained
    words = [set(re.findall(r"\w+", line)) for line in shown]
    for state, happened in TRANSITIONS:
        following = TRANSITIONS[state, happened][0]
        arrow = re.compile(rf"^ *{state.name}\b[ >-]+(?:{happened.name} +)?{following.name}\b.*$")
        found = any(arrow.match(line) and happened.name in names for line, names in zip(shown, words, strict=True))
        assert found == ((state, happened) not in loops)


@pytest.mark.parametrize("chosen", FORMATS)
def test_a_transition_that_is_added_to_the_table_is_shown(chosen: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is kept by hand: a row more in the code's table is a line more in every format."""
    before = printed(chosen).splitlines()
    row = (SocketState.LISTENING, Input.FLUSHED)
    assert row not in TRANSITIONS
    monkeypatch.setitem(TRANSITIONS, row, (SocketState.BOUND, (SocketState.BOUND, Encrypted)))

    added = [line for line in printed(chosen).splitlines() if line not in before]

    assert len(added) == 1
    assert re.search(r"LISTENING.*BOUND.*Encrypted", added[0])
    assert "FLUSHED" in added[0]


async def test_the_command_prints_the_same_in_a_process() -> None:
    """``trioqt states --format mermaid > states.mmd`` is what the function prints, with status 0."""
    ended = await run_trioqt("states", "--format", "mermaid")

    assert (ended.status, ended.out.decode(), ended.err) == (0, printed("mermaid"), b"")


def test_a_format_that_is_not_there_is_refused() -> None:
    """click's own words and its status for a wrong use, 2."""
    result = call_trioqt("states", "--format", "svg")

    assert (result.exit_code, result.stdout) == (2, "")
    assert "'svg' is not one of 'table', 'mermaid', 'dot', 'text'" in result.stderr


async def test_on_a_terminal_the_table_has_lines_and_fits() -> None:
    """Drawn with a line between two states, and no line is wider than the terminal."""
    async with on_terminal("states") as terminal:
        await terminal.show_all()
        status = await terminal.process.wait()

    lines = re.sub(r"\x1b\[[0-9;]*m", "", terminal.shown).splitlines()
    assert status == 0
    assert lines[0].startswith("╭─")
    assert sum(line.startswith("├─") for line in lines) == 1 + 6 + 1  # below two headers, and between seven states
    assert max(len(line) for line in lines) <= 100


@pytest.mark.parametrize("arguments", [("states",), ("states", "--format", "dot"), ("states", "--help"), ("--help",)])
async def test_a_reader_that_has_had_enough_is_nobody_s_trouble(arguments: tuple[str, ...]) -> None:
    """``trioqt states | head -1``: without a word, and with the status of what SIGPIPE has ended."""
    reader, writer = os.pipe()
    os.close(reader)
    try:
        async with running_trioqt(*arguments, stdout=writer) as process:
            err = await read_rest(process.stderr)
            status = await process.wait()
    finally:
        os.close(writer)

    assert (err, status) == (b"", 141)
