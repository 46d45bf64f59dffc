"""The state machine as a table, as arrows and as two kinds of diagram, all drawn from ``TRANSITIONS``."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import click

from trioqt.cli.terminal import print_table
from trioqt.core.socket_state import SocketState
from trioqt.core.states import TRANSITIONS, Input, StateMachine

__all__ = ["FORMATS"]


def transitions(loops: bool) -> Iterator[tuple[SocketState, Input, SocketState, str]]:
    """Every row, by state: where from, on what, where to, and what is told in its order.

    Args:
      loops: Those too that lead back to where they are from.
    """
    for (state, happened), (following, told) in sorted(TRANSITIONS.items(), key=lambda row: row[0][0].value):
        if following is state and not loops:
            continue
        yield (
            state,
            happened,
            following,
            ", ".join(thing.name if isinstance(thing, SocketState) else thing.__name__ for thing in told),
        )


def print_transitions(loops: bool) -> None:
    """Every transition, then what each input in them means."""
    found = list(transitions(loops))
    rows = [(state.name, happened.name, following.name, told) for state, happened, following, told in found]
    print_table(("state", "input", "next", "tells, in this order"), rows, sections=True)
    click.echo()
    inputs = {happened for _, happened, _, _ in found}
    print_table(("input", "meaning"), [(happened.name, happened.value) for happened in Input if happened in inputs])


def print_text(loops: bool) -> None:
    """An arrow a line, for a narrow place and for ``grep``."""
    for state, happened, following, told in transitions(loops):
        click.echo(f"{state.name} -> {following.name}: {label(happened, told, ' / ')}")


def print_mermaid(loops: bool) -> None:
    """For Markdown and https://mermaid.js.org: ``stateDiagram-v2``."""
    click.echo("stateDiagram-v2")
    click.echo(f"    [*] --> {StateMachine().state.name}")
    for state, happened, following, told in transitions(loops):
        click.echo(f"    {state.name} --> {following.name} : {label(happened, told, ' / ')}")


def print_dot(loops: bool) -> None:
    """For Graphviz: ``trioqt states --format dot | dot -Tsvg > states.svg``."""
    click.echo("digraph states {")
    click.echo('    node [shape=box, style=rounded, fontname="sans-serif"];')
    click.echo('    edge [fontname="sans-serif", fontsize=9];')
    click.echo("    start [shape=point];")
    click.echo(f"    start -> {StateMachine().state.name};")
    for state, happened, following, told in transitions(loops):
        text = label(happened, told, " /\\n")
        click.echo(f'    {state.name} -> {following.name} [label="{text}"];')
    click.echo("}")


def label(happened: Input, told: str, separator: str) -> str:
    """What stands at an arrow: the input, and what is told if anything is."""
    return f"{happened.name}{separator}{told}" if told else happened.name


FORMATS: dict[str, Callable[[bool], None]] = {
    "table": print_transitions,
    "mermaid": print_mermaid,
    "dot": print_dot,
    "text": print_text,
}
