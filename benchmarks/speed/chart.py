"""The chart of the documentation, an SVG that needs nothing else: a panel for a row, and a bar for each peer."""

from __future__ import annotations

from xml.sax.saxutils import escape

from benchmarks.speed.results import Figures

__all__ = ["chart"]

CHARTED = (
    *("echo:1", "echo:10", "echo:100", "echo:1000", "lines:10x16", "accept:32", "client:1", "send:1", "receive:1"),
    *("udp:10x16", "tls-echo:10"),
)

COLUMNS = 2
WIDTH, MARGIN, NAME_WIDTH, BAR_WIDTH = 480, 16, 130, 270
TITLE, BAR, GAP = 30, 13, 4

# A bar of ours, of raw trio which is the measure, and of the others.
OURS, MEASURE, OTHER = "#1a7f5a", "#5b6672", "#b4bcc6"

STYLE = """
text { font: 11px system-ui, sans-serif; fill: #24292f; }
.title { font-weight: 600; font-size: 12px; }
"""


def panel(row: Figures, left: float, top: float) -> tuple[list[str], float]:
    """The elements of one row, and their height."""
    results = [result for result in row["servers"].items() if result[1]["ratio"] is not None]
    most = max((result["ratio"] for _, result in results), default=1.0)
    parts = [f'<text class="title" x="{left + MARGIN}" y="{top + 20}">{escape(row["title"])}</text>']
    at = top + TITLE
    for name, result in results:
        colour = OURS if name.startswith("trioqt") else MEASURE if name == row["base"] else OTHER
        begin = left + MARGIN + NAME_WIDTH
        width = result["ratio"] / most * BAR_WIDTH
        text = f'y="{at + BAR - 2.5:g}"'
        parts += [
            f'<text x="{begin - 6}" {text} text-anchor="end">{escape(result["label"])}</text>',
            f'<rect x="{begin}" y="{at:g}" width="{width:.1f}" height="{BAR}" fill="{colour}"/>',
            f'<text x="{begin + width + 5:.1f}" {text}>{result["ratio"]:.2f}</text>',
        ]
        at += BAR + GAP
    return parts, at - top + MARGIN


def chart(figures: Figures) -> str:
    """The SVG of those rows of ``CHARTED`` that were measured."""
    rows = [figures["rows"][name] for name in CHARTED if name in figures["rows"]]
    parts: list[str] = []
    top = 28.0
    for first in range(0, len(rows), COLUMNS):
        panels = [panel(row, WIDTH * column, top) for column, row in enumerate(rows[first : first + COLUMNS])]
        parts += [part for elements, _ in panels for part in elements]
        top += max(height for _, height in panels)
    head = f"work per CPU-second of the server, times raw trio; {figures['machine']['date']}"
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH * COLUMNS} {top:g}" role="img">',
            f"<title>{escape(head)}</title>",
            f"<style>{STYLE}</style>",
            '<rect width="100%" height="100%" fill="#ffffff"/>',
            f'<text x="{MARGIN}" y="20">{escape(head)}</text>',
            *parts,
            "</svg>\n",
        ]
    )
