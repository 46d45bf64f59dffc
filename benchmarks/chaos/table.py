"""What was counted, as a table: a row for each case, a column for each server."""

from __future__ import annotations

from collections.abc import Iterable

from benchmarks.chaos.stage import Played

__all__ = ["cell", "markdown", "text"]

# More log lines than this are told.
QUIET = 20


def cell(played: Played) -> str:
    """What became of one server in one case, in a few words."""
    if played.failure:
        return played.failure
    outcome = played.outcome
    if outcome is None:
        return f"- ({played.missing})" if played.server != "trioqt" else f"not yet ({played.missing})"
    words = []
    if outcome.lives is False:
        words.append("died")
    if outcome.asked:
        words.append(f"{outcome.answered:,} of {outcome.asked:,}")
    if outcome.descriptors:
        words.append(f"{outcome.descriptors} descriptors left")
    if outcome.lines > QUIET:
        words.append(f"{outcome.lines:,} log lines")
    words += [f"{name}: {value}" for name, value in outcome.facts.items() if value != 0]
    words += [f"{name} {value}" for name, value in outcome.figures.items()]
    return ", ".join(words)


def rows(played: Iterable[Played]) -> list[list[str]]:
    """The heads, and below them the cells."""
    played = list(played)
    servers = list(dict.fromkeys(one.server for one in played))
    table = [["", *servers]]
    for title in dict.fromkeys(one.case.title for one in played):
        cells = {one.server: cell(one) for one in played if one.case.title == title}
        table.append([title, *(cells[server] for server in servers)])
    return table


def markdown(played: Iterable[Played]) -> str:
    """The table as markdown."""
    head, *body = rows(played)
    lines = [head, ["---"] * len(head), *body]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def text(played: Iterable[Played]) -> str:
    """The table for a terminal: a block for each case."""
    head, *body = rows(played)
    width = max(map(len, head))
    blocks = []
    for title, *cells in body:
        lines = [f"  {name:{width}}  {what}" for name, what in zip(head[1:], cells, strict=True)]
        blocks.append("\n".join([title, *lines]))
    return "\n".join(blocks)
