"""A trace as a sequence diagram: one column a host, and time down the side; in plain text, or as an SVG.

What it draws follows from the trace alone, and no set and no width of a font is asked, so the same trace gives the same
picture on every machine.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from html import escape
from itertools import pairwise

import attrs

from trioqt.testing.network.trace import Record

__all__ = ["STYLE", "Ladder"]

# What the marks beside the host that does them say; any other kind is its own word.
_DEEDS = {
    "listen": "listens",
    "close": "listens no more",
    "lookup": "looks up",
    "crash": "crashes",
    "restart": "starts again",
    "died": "its program dies:",
    "reset": "its connection is reset",
}
_NEWS = {"heal": "fault over"}
_SEGMENTS = {"SYN-ACK": "SYN+ACK"}
_CONTENTS = ("DATA", "UDP")

# Columns of text: between two hosts at least, and for a mark's text at most; what is longer runs over the next line.
_GAP = 16
_WIDEST_MARK = 40
# In text a label has at least two dashes on each side, a blank on each, and the head; what is lost ends short of the
# host.
_AROUND_LABEL = 7
_SHORT = 3


@attrs.frozen
class _Line:
    """One line of the picture."""

    time: float
    arrival: float
    fate: str
    """"" if it arrived or is no packet, else ``lost`` or ``held``."""
    source: int
    """The column; -1 if it is the network's."""
    target: int
    """The column; -1 if it goes nowhere."""
    label: str


class Ladder:
    """The latest events of a trace, drawn."""

    def __init__(self, records: Sequence[Record], total: int, limit: int) -> None:
        """``total``: how many events there were, those that are no longer kept included."""
        self._left_out = max(total - limit, total - len(records))
        # By the time at which things were sent; sorting is stable, so what happens at once stays in its order.
        ordered = sorted(records[-limit:], key=lambda record: record[9])
        drawn = {name for record in ordered for name in (record[2], record[4])}
        self._hosts = [name for name in _hosts(records) if name in drawn]
        columns = {name: column for column, name in enumerate(self._hosts)}
        # Who has more than one conversation with the same host needs the ports to tell them apart.
        talks = {frozenset((record[2:4], record[4:6])) for record in ordered if record[4]}
        pairs = Counter(frozenset(name for name, _ in talk) for talk in talks)
        self._lines = [_line(record, columns, pairs[frozenset((record[2], record[4]))] > 1) for record in ordered]
        self._decimals = _decimals(time for line in self._lines for time in (line.time, line.arrival))
        times = [self._time(line.time) for line in self._lines]
        self._time_width = max(map(len, ("time", *times)))
        arrivals = [self._arrival(line) for line in self._lines]
        self._arrival_width = max(map(len, ("arrives", *arrivals)))
        self._places = self._place_hosts()

    def draw(self, format: str) -> str:
        """As ``text`` or ``svg``.  Raises: ValueError if it is neither."""
        if format == "text":
            return "\n".join(self._text())
        if format == "svg":
            return "\n".join(self._svg()) + "\n"
        raise ValueError(f"format is 'text' or 'svg', not {format!r}")

    # ---- where things stand --------------------------------------------------------------------

    def _time(self, time: float) -> str:
        return f"{time:.{self._decimals}f}"

    def _arrival(self, line: _Line) -> str:
        return line.fate or ("" if line.target < 0 else self._time(line.arrival))

    def _place_hosts(self) -> list[int]:
        """The columns of text in which they stand; a wide label moves them apart."""
        names = self._hosts
        gaps = [max(_GAP, (len(a) + len(b)) // 2 + 3) for a, b in pairwise(names)]
        for line in self._lines:
            first, last = sorted((line.source, line.target))
            if first >= 0 and first < last:
                wanted = len(line.label) + _AROUND_LABEL + (_SHORT if line.fate else 0)
            elif line.source >= 0 and line.source < len(gaps):
                first, last = line.source, line.source + 1
                wanted = min(len(line.label), _WIDEST_MARK) + 4
            else:
                continue
            missing = wanted - sum(gaps[first:last])
            for gap in range(first, last):
                gaps[gap] += max(-(-missing // (last - first)), 0)
        place = self._time_width + self._arrival_width + 4 + (max(len(names[0]) // 2, 1) if names else 0)
        places = [place] if names else []
        for gap in gaps:
            place += gap
            places.append(place)
        return places

    def _omission(self) -> str:
        return f"({self._left_out:,} earlier {'event is' if self._left_out == 1 else 'events are'} left out)"

    # ---- text ----------------------------------------------------------------------------------

    def _text(self) -> Iterator[str]:
        if self._left_out:
            yield self._omission()
        if not self._lines:
            yield "(nothing has happened)"
            return
        head = _Canvas(f"{'time':>{self._time_width}}  {'arrives':>{self._arrival_width}}")
        for place, name in zip(self._places, self._hosts, strict=True):
            head.put(place - len(name) // 2, name)
        yield str(head)
        for line in self._lines:
            canvas = _Canvas(f"{self._time(line.time):>{self._time_width}}")
            canvas.put(self._time_width + 2, f"{self._arrival(line):>{self._arrival_width}}")
            for place in self._places:
                canvas.put(place, "|")
            self._draw_line(canvas, line)
            yield str(canvas)

    def _draw_line(self, canvas: _Canvas, line: _Line) -> None:
        if line.source < 0:
            left = self._time_width + self._arrival_width + 4
            width = max(self._places[-1] + 1 - left if self._places else 0, len(line.label) + 6)
            canvas.put(left, _centred(f" {line.label} ", width, "="))
        elif line.target < 0 or line.target == line.source:
            canvas.put(self._places[line.source], f"* {line.label}")
        else:
            start, end = self._places[line.source], self._places[line.target]
            rightwards = start < end
            width = abs(end - start) - 1
            short = _SHORT if line.fate else 0
            head = {"lost": "X", "held": ":"}.get(line.fate, ">" if rightwards else "<")
            body = _centred(f" {line.label} ", width - 1 - short, "-")
            text = f"{body}{head}{' ' * short}" if rightwards else f"{' ' * short}{head}{body}"
            canvas.put(min(start, end) + 1, text)

    # ---- SVG -----------------------------------------------------------------------------------

    def _svg(self) -> Iterator[str]:
        rows = len(self._lines) + bool(self._left_out)
        width = (self._last_column() + 4) * CHARACTER
        height = (rows + 2) * ROW
        yield (
            f'<svg xmlns="http://www.w3.org/2000/svg" class="trioqt" viewBox="{-CHARACTER:g} 0 {width:g} {height:g}"'
            f' width="{width:g}" role="img">'
        )
        yield f"<title>{escape(self._title())}</title>"
        yield f"<style>{STYLE}</style>"
        yield f'<rect class="paper" x="{-CHARACTER:g}" width="{width:g}" height="{height:g}"/>'
        top = ROW * 1.25
        for place, name in zip(self._places, self._hosts, strict=True):
            x = place * CHARACTER
            yield f'<path class="life" d="M{x:g} {top + 6:g}V{height - ROW / 2:g}"/>'
            yield f'<text class="name" x="{x:g}" y="{ROW:g}" text-anchor="middle">{escape(name)}</text>'
        times = (self._time_width * CHARACTER, (self._time_width + 2 + self._arrival_width) * CHARACTER)
        for x, head in zip(times, ("time", "arrives"), strict=True):
            yield f'<text class="time" x="{x:g}" y="{ROW:g}" text-anchor="end">{head}</text>'
        y = top + ROW * 0.75
        if self._left_out:
            yield f'<text class="time" x="{CHARACTER:g}" y="{y:g}">{self._omission()}</text>'
            y += ROW
        for line in self._lines:
            yield f'<text class="time" x="{times[0]:g}" y="{y:g}" text-anchor="end">{self._time(line.time)}</text>'
            if arrival := self._arrival(line):
                yield f'<text class="time" x="{times[1]:g}" y="{y:g}" text-anchor="end">{arrival}</text>'
            yield from self._svg_line(line, y)
            y += ROW
        yield "</svg>"

    def _last_column(self) -> int:
        """The column of text at which the rightmost thing ends."""
        left = self._time_width + self._arrival_width + 4
        ends = [left, *(place + len(name) // 2 for place, name in zip(self._places, self._hosts, strict=True))]
        for line in self._lines:
            if line.source < 0:
                ends.append(left + len(line.label))
            elif line.target < 0 or line.target == line.source:
                ends.append(self._places[line.source] + 2 + len(line.label))
        return max(ends)

    def _title(self) -> str:
        return f"What went between {', '.join(self._hosts)}" if self._hosts else "Nothing has happened"

    def _svg_line(self, line: _Line, y: float) -> Iterator[str]:
        label = escape(line.label)
        if line.source < 0:
            left = (self._time_width + self._arrival_width + 4) * CHARACTER
            right = max(self._places[-1] * CHARACTER if self._places else 0, left + len(line.label) * CHARACTER)
            yield f'<path class="fault" d="M{left:g} {y + 5:g}H{right:g}"/>'
            yield f'<text class="fault" x="{left:g}" y="{y - 1:g}">{label}</text>'
            return
        start = self._places[line.source] * CHARACTER
        if line.target < 0 or line.target == line.source:
            yield f'<circle class="deed" cx="{start:g}" cy="{y - 5:g}" r="4"/>'
            yield f'<text x="{start + 2 * CHARACTER:g}" y="{y:g}">{label}</text>'
            return
        end = self._places[line.target] * CHARACTER
        sign = 1 if start < end else -1
        falls = 6 if line.arrival > line.time else 0  # what takes time goes downhill
        if line.fate:
            end -= sign * (_SHORT + 1) * CHARACTER
        kind = f"way {line.fate}".rstrip()
        yield f'<text x="{(start + end) / 2:g}" y="{y - 4:g}" text-anchor="middle">{label}</text>'
        yield f'<path class="{kind}" d="M{start:g} {y:g}L{end:g} {y + falls:g}"/>'
        if line.fate:
            cross = "l10 10m0 -10l-10 10" if line.fate == "lost" else "v10m5 0v-10"
            yield f'<path class="end" d="M{end - 5:g} {y + falls - 5:g}{cross}"/>'
        else:
            yield f'<path class="head" d="M{end:g} {y + falls:g}l{-9 * sign} -4v8z"/>'


class _Canvas:
    """A line of text, on which later things stand over earlier ones."""

    def __init__(self, text: str) -> None:
        self._text = text

    def put(self, place: int, text: str) -> None:
        before = self._text[:place].ljust(place)
        self._text = before + text + self._text[place + len(text) :]

    def __str__(self) -> str:
        return self._text.rstrip()


# In pixels: what a character of 14 px is wide, in any monospaced font, and from one line to the next.
CHARACTER = 8.5
ROW = 26

# In an <img> an SVG has no colours of its page, only whether the reader wants it dark.  So it brings its own paper too.
STYLE = """
.trioqt{--ink:#1f2328;--paper:#fff;--faint:#6e7781;--way:#0550ae;--bad:#cf222e;--box:#eaf2fb;max-width:100%;height:auto}
@media (prefers-color-scheme:dark){
.trioqt{--ink:#e6edf3;--paper:#0d1117;--faint:#9198a1;--way:#79c0ff;--bad:#ff7b72;--box:#16263a}}
.trioqt text{font:14px ui-monospace,SFMono-Regular,Menlo,Consolas,'DejaVu Sans Mono',monospace;fill:var(--ink)}
.trioqt .paper{fill:var(--paper)}
.trioqt .name{font-weight:bold}
.trioqt .time{fill:var(--faint)}
.trioqt text.fault{fill:var(--bad)}
.trioqt .life{stroke:var(--faint);fill:none}
.trioqt .way{stroke:var(--way);stroke-width:1.5;fill:none}
.trioqt .head{fill:var(--way)}
.trioqt .lost,.trioqt .held,.trioqt .end,.trioqt path.fault{stroke:var(--bad);fill:none}
.trioqt .held,.trioqt path.fault{stroke-dasharray:5 3}
.trioqt .deed{fill:var(--ink)}
"""


def _hosts(records: Sequence[Record]) -> list[str]:
    """Who takes part; who speaks first stands on the left."""
    found: dict[str, None] = {}
    for _, _, source, _, target, *_ in records:
        if target:
            found[source] = found[target] = None
    for _, _, source, *_ in records:
        if source:
            found[source] = None
    return list(found)


def _line(record: Record, columns: dict[str, int], with_ports: bool) -> _Line:
    time, kind, source, source_port, target, target_port, size, note, _, sent, again = record
    if not (note.isascii() and note.isprintable()):
        note = note.encode("unicode_escape").decode()  # what a program has looked up may be anything
    source_column, target_column = columns.get(source, -1), columns.get(target, -1)
    if not source:
        label = f"{_NEWS.get(kind, kind)}: {note}"
        return _Line(time, time, "", -1, -1, label)
    if not target:
        words = [_DEEDS.get(kind, kind), f"on port {source_port}" if source_port else "", note]
        return _Line(time, time, "", source_column, -1, " ".join(filter(None, words)))
    fate = kind if kind in ("lost", "held") else ""
    what = note if fate else kind
    label = _SEGMENTS.get(what, what)
    if what in _CONTENTS:
        label += f" {size:,} byte{'' if size == 1 else 's'}"
    if with_ports:
        label = f"{source_port}>{target_port} {label}"
    if again:
        label += ", again"
    if source == target:
        label += ", to itself"
        label += f", {fate}" if fate else ""
    return _Line(sent, time, fate, source_column, target_column, label)


def _decimals(times: Iterable[float]) -> int:
    """So many that no two of them look alike, to a microsecond; three if that is enough."""
    known = set(times)
    return next(count for count in range(3, 7) if count == 6 or all(abs(round(t, count) - t) < 5e-7 for t in known))


def _centred(text: str, width: int, fill: str) -> str:
    """``str.center`` with the odd character at the right, always."""
    left = (width - len(text)) // 2
    return fill * left + text + fill * (width - len(text) - left)
