"""The figures in the documentation: tables between two comments, the chart, and the JSON that they are made from.

A page shows a table by ``<!-- speed: NAME -->`` and ``<!-- speed: end -->``, each on a line of its own; what is between
them is written here.  The docs' test makes them anew from the JSON, so that no page can say something else.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from benchmarks.speed.chart import chart
from benchmarks.speed.processes import ROOT
from benchmarks.speed.results import Figures
from benchmarks.speed.rows import ALONE, OTHERS, PEERS
from benchmarks.speed.tables import duration, human

__all__ = ["CHART", "FIGURES", "PAGES", "fill", "write_docs"]

FIGURES = Path("docs/_static/speed.json")
CHART = Path("docs/_static/speed.svg")
PAGES = (Path("docs/topics/speed.md"), Path("README.md"))

# What a column may show, in this order: the first that a row has.
FASTEST = ("trioqt-write", "trioqt-receive_some", "trioqt")
OTHER_FORMS = {"`send_all`": ("trioqt-send_all",), "Qt's verbs": ("trioqt-qt",)}

# The README has one number for each kind of work.
CHOSEN = ("echo:1", "echo:10", "echo:100", "echo:1000", "lines:10x16", "accept:32", "client:1", "send:1", "receive:1")


def markdown(heads: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    heads = list(heads)
    lines = [heads, ["---"] + ["---:"] * (len(heads) - 1), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def cell(row: Figures, names: Iterable[str], show: Callable[[Figures], str]) -> str:
    for name in names:
        if (result := row["servers"].get(name)) is not None:
            return show(result)
    return ""


def rows_beside_trio(figures: Figures) -> dict[str, Figures]:
    return {name: row for name, row in figures["rows"].items() if row["base"] == "trio"}


def ratio(result: Figures) -> str:
    return "" if result["ratio"] is None else f"{result['ratio']:.2f}"


def pair(result: Figures) -> str:
    return "" if result.get("p50") is None else f"{duration(result['p50'])} / {duration(result['p99'])}"


def wide_table(figures: Figures, names: Iterable[str], show: Callable[[Figures], str], *, forms: bool = True) -> str:
    """Rows down, peers across, ours last; a row or a form of ours without any cell is left out."""
    columns: dict[str, tuple[str, ...]] = {PEERS[name].label: (name,) for name in OTHERS}
    columns["**trioqt**"] = FASTEST
    if forms:
        columns |= {f"trioqt, {name}": servers for name, servers in OTHER_FORMS.items()}
    lines = []
    for name in names:
        row = figures["rows"][name]
        cells = [cell(row, servers, show) for servers in columns.values()]
        if any(cells):
            less = "; less is better" if row["less_is_better"] else ""
            lines.append([row["title"] + less, *cells])
    return markdown(["", *columns], lines)


def ratios(figures: Figures) -> str:
    return wide_table(figures, rows_beside_trio(figures), ratio)


def chosen_ratios(figures: Figures) -> str:
    names = [name for name in CHOSEN if name in figures["rows"]]
    return wide_table(figures, names, ratio, forms=False)


def rates(figures: Figures) -> str:
    """Of the clock on the wall; memory is in bytes."""

    def show(result: Figures) -> str:
        return human(result["rate"] if "rate" in result else result["merit"])

    return wide_table(figures, rows_beside_trio(figures), show)


def latencies(figures: Figures) -> str:
    return wide_table(figures, rows_beside_trio(figures), pair)


def starved(figures: Figures) -> str:
    def show(result: Figures) -> str:
        return "" if result.get("starved") is None else f"{result['starved']:,}"

    return wide_table(figures, rows_beside_trio(figures), show)


def events(figures: Figures) -> str:
    """What a message costs the server with so many who follow, in microseconds of CPU."""
    lines = []
    for row in figures["rows"].values():
        if row["base"] == "trioqt-nobody":
            for name, result in row["servers"].items():
                who = PEERS[name].label.removeprefix("trioqt, ")
                lines.append([row["title"], who, f"{1e6 / result['merit']:.1f}", ratio(result)])
    return markdown(["", "who follows", "µs of CPU a message", "x nobody"], lines)


def busy(figures: Figures) -> str:
    lines = []
    for row in figures["rows"].values():
        if row["base"] == "the same alone":
            theirs = {name: result for name, result in row["servers"].items() if not name.endswith(ALONE)}
            lines += [[row["title"], result["label"], ratio(result)] for result in theirs.values()]
    return markdown(["", "server", "x alone"], lines)


def measured(figures: Figures) -> str:
    """Where, with what and how long, as a sentence."""
    machine = dict(figures["machine"])
    date, cores, _ = (machine.pop(key) for key in ("date", "cores", "load"))
    versions = ", ".join(value if key == "system" else f"{key} {value}" for key, value in machine.items())
    rounds = f"{figures['rounds']} round" + ("s" if figures["rounds"] > 1 else "")
    return f"Measured on {date} with {versions} on {cores} cores: medians of {rounds} of {figures['seconds']:g} s."


TABLES: dict[str, Callable[[Figures], str]] = {
    "measured": measured,
    "ratios": ratios,
    "chosen": chosen_ratios,
    "rates": rates,
    "latencies": latencies,
    "starved": starved,
    "events": events,
    "busy": busy,
}

SECTION = re.compile(r"(<!-- speed: (\w+) -->\n).*?(\n<!-- speed: end -->)", re.DOTALL)


def fill(page: str, figures: Figures) -> str:
    """The page with these figures in its tables.

    Raises: KeyError if it asks for a table that there is not.
    """
    return SECTION.sub(lambda found: f"{found[1]}\n{TABLES[found[2]](figures)}\n{found[3]}", page)


def short(value: Any) -> Any:
    """The JSON for the documentation: four digits, and no samples."""
    if isinstance(value, dict):
        return {key: short(part) for key, part in value.items() if key != "samples"}
    return float(f"{value:.4g}") if isinstance(value, float) else value


def write_docs(figures: Figures, root: Path = ROOT) -> None:
    """Put the figures into the JSON, the chart and the pages."""
    figures = short(figures)
    (root / FIGURES).write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")
    (root / CHART).write_text(chart(figures), encoding="utf-8")
    for page in PAGES:
        path = root / page
        path.write_text(fill(path.read_text(encoding="utf-8"), figures), encoding="utf-8")
