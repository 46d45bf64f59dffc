"""What a walk over all places of a cancellation, or of a Ctrl-C, found, as values that print and turn into JSON.

Nothing here knows trio; the same walk gives an equal report, letter for letter, so two of them can be compared.
"""

from __future__ import annotations

import re
from collections import Counter
from typing import Any, Literal

import attrs

from trioqt.testing.simulation.places import place

__all__ = ["Boundary", "Failure", "Kind", "Line", "Problem", "ProblemKind", "Report"]

Kind = Literal["start", "step", "io", "timer", "line"]
ProblemKind = Literal["expect", "leak", "escaped", "swallowed", "hang", "runaway"]

_WHEN: dict[Kind, str] = {
    "start": "cancelled before the first step of {task}",
    "step": "cancelled after a step of {task}",
    "io": "cancelled when the system had woken {task}",
    "timer": "cancelled when the clock had woken {task}",
    "line": "interrupted in {task}",
}


# Descriptors, ports and the addresses of objects, as in
# "unclosed <socket.socket fd=9, family=2, type=1, proto=6, laddr=('127.0.0.1', 40123)>".
_ACCIDENTS = re.compile(r"(?<=fd=)\d+|(?<=', )\d+|0x[0-9a-fA-F]{6,}")


@attrs.frozen
class Line:
    """A line of the code under test."""

    file: str
    line: int
    function: str

    def __str__(self) -> str:
        return place(self.file, self.line, self.function)


@attrs.frozen
class Boundary:
    """A place where a cancellation can arrive, between two task steps, or a Ctrl-C: a line that is about to run."""

    index: int
    """Its number in the schedule of its seed: ``only=[index]`` goes there again."""
    kind: Kind
    """After a task's ``step``; after ``io`` or a ``timer`` woke one, before it ran; at the ``start`` of a subject.
    Of a Ctrl-C: at a ``line``.
    """
    task: str
    """The task whose step had ended, that had been woken, or that was at the line; ``trio`` if it was none."""
    subject: str
    """The function under test."""
    stack: tuple[Line, ...]
    """Where the subject stood: its lines outside trio, the innermost last (at its start, where it is defined).
    Of a Ctrl-C: where the task stood.
    """

    @property
    def file(self) -> str:
        """In which file."""
        return self.stack[-1].file

    @property
    def line(self) -> int:
        return self.stack[-1].line

    @property
    def function(self) -> str:
        """In which function."""
        return self.stack[-1].function

    def __str__(self) -> str:
        when = _WHEN[self.kind].format(task=self.task)
        return f"{self.subject} {when}, at {' > '.join(map(str, self.stack))}"


@attrs.frozen
class Problem:
    """One thing that was wrong after a run: its kind and a sentence."""

    kind: ProblemKind
    text: str
    """A sentence."""

    def __str__(self) -> str:
        return f"{self.kind}: {self.text}"


@attrs.frozen
class Failure:
    """A run that ended badly, and the place of what was done to it; None: nothing was needed to break it."""

    seed: int
    """Of the run."""
    boundary: Boundary | None
    """Where it was."""
    problems: tuple[Problem, ...]
    """What was wrong behind it."""
    diverged: bool = False
    """The run had left the schedule before that, so going there again may show something else."""

    def __str__(self) -> str:
        if self.boundary is None:
            head = f"seed {self.seed}: undisturbed"
        else:
            head = f"seeds=[{self.seed}], only=[{self.boundary.index}]: {self.boundary}"
        if self.diverged:
            head += " (not on schedule)"
        return "\n    ".join([head, *map(str, self.problems)])


@attrs.frozen
class Report:
    """The result of `cancel_everywhere` and `interrupt_everywhere`: how much was tried, and each place that failed."""

    scenario: str
    """Its name."""
    points: str
    """Which places were tried: ``any`` or ``subject``."""
    seeds: tuple[int, ...]
    """Those of the scheduler."""
    places: int
    """Places in the undisturbed schedules, all seeds together."""
    runs: int
    """How many there were, the first without interference included."""
    cancelled: int
    """Places at which the subject ended by the cancellation, or by the Ctrl-C."""
    finished: int
    """Places at which it ended otherwise: that came too late for it, or was swallowed."""
    diverged: int
    """Places tried, but in no attempt on schedule: another task or the system had moved before."""
    missed: int
    """Places that no attempt came to, so that nothing was done."""
    skipped: int
    """Places left out by ``only`` or ``sample``, or given up after runs that had to be killed."""
    failures: tuple[Failure, ...]
    """The runs that ended badly."""
    scheduler_pinned: bool
    """Could trio be held to one order of its tasks?"""
    by_interrupt: bool
    """It was a Ctrl-C that was raised, at each line, and not a cancellation."""
    descriptors_checked: bool
    """False on systems that do not list a process's descriptors (Windows)."""
    seconds: float = attrs.field(eq=False)
    """How long it took."""

    @property
    def ok(self) -> bool:
        """Nothing failed.  See `complete` for how much that says."""
        return not self.failures

    @property
    def complete(self) -> bool:
        """Every place of the undisturbed schedules was tried on schedule."""
        return not (self.diverged or self.missed or self.skipped)

    def count_problems(self) -> Counter[str]:
        """How many problems of each kind."""
        return Counter(problem.kind for failure in self.failures for problem in failure.problems)

    def summary(self) -> str:
        """Two lines at most: what was tried, and what came of it."""
        tried = (
            f"{self.scenario}: {self.places} places ({self.points}, seeds {list(self.seeds)}) in {self.runs} runs:"
            f" {self.cancelled} {'interrupted' if self.by_interrupt else 'cancelled'}, {self.finished} finished anyway"
        )
        gaps = {"diverged": self.diverged, "missed": self.missed, "not tried": self.skipped}
        tried += "".join(f", {count} {gap}" for gap, count in gaps.items() if count)
        if not self.descriptors_checked:
            tried += "; descriptors not checked"
        if not self.scheduler_pinned:
            tried += "; scheduler not pinned"
        if self.ok:
            return f"{tried}: ok"
        kinds = ", ".join(f"{count} {kind}" for kind, count in sorted(self.count_problems().items()))
        return f"{tried}\n{len(self.failures)} FAILED ({kinds})"

    __str__ = summary

    def raise_if_failed(self, show: int = 5) -> None:
        """Raise AssertionError with the summary and the first ``show`` failures."""
        if self.failures:
            lines = [self.summary(), *(f"  {failure}" for failure in self.failures[:show])]
            if len(self.failures) > show:
                lines.append(f"  and {len(self.failures) - show} more")
            raise AssertionError("\n".join(lines))

    def as_dict(self) -> dict[str, Any]:
        """The report in lists, numbers and strings, as ``json.dumps`` wants it; equal walks give equal dicts."""
        values = attrs.asdict(
            self,
            filter=lambda field, _: field.name != "seconds",
            value_serializer=lambda _, __, value: list(value) if isinstance(value, tuple) else value,
        )
        return {**values, "ok": self.ok, "complete": self.complete}


def steady(text: str) -> str:
    """``text`` without what differs from run to run, for two walks must give the same report."""
    return _ACCIDENTS.sub("*", text)
