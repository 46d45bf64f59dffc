"""The scenarios of cancellation once more, with a Ctrl-C at their lines: what it ends did not happen either.

The walk over all lines of all of them takes many minutes; every day a sample of each scenario is enough, because those
of one verb share most of their lines.  ``nox -s soak`` walks them whole.
"""

from __future__ import annotations

import ast
import os
from pathlib import Path

import pytest

import trioqt.core
import trioqt.links
import trioqt.links.interrupts
import trioqt.sockets
from tests.cancel.kit import Case
from tests.cancel.scenarios import CASES
from trioqt.testing import interrupt_everywhere

SAMPLE = None if os.environ.get("TRIOQT_SOAK") else 5

# What is walked.  The file in which a caller's own code is called stands for that code, which can be interrupted.
INTERRUPTIBLE = Path(trioqt.links.interrupts.__file__)
PACKAGES = [Path(package.__path__[0]) for package in (trioqt.core, trioqt.links, trioqt.sockets)]
CODE = [path for package in PACKAGES for path in sorted(package.glob("*.py")) if path != INTERRUPTIBLE]

# Nothing of these is changed by a call: they are values, or say what others must have.
VALUES = {"AbstractAsyncContextManager", "ExceptionGroup", "Protocol", "ABC"}


def has_a_nursery(case: Case) -> bool:
    """Does what is interrupted open a nursery of the scenario's own?  That makes a group of whatever comes out."""
    return case.coroutine.startswith("TcpServer.") or case.variant.startswith(("parent cancelled", "started"))


@pytest.mark.parametrize("case", CASES, ids=str)
def test_no_line_of_it_loses_or_leaks_anything(case: Case) -> None:
    """Interrupted at a line, or at the next checkpoint if the line is protected, the scenario keeps every byte,
    connection, event and slot, and its sockets work on.
    """
    report = interrupt_everywhere(case.scenario(), code=CODE, groups=has_a_nursery(case), sample=SAMPLE)

    report.raise_if_failed()
    assert report.cancelled + report.finished > 0
    assert report.missed == 0 or case.medium == "loopback"


def classes_of(path: Path) -> list[ast.ClassDef]:
    return [node for node in ast.parse(path.read_text(encoding="utf-8")).body if isinstance(node, ast.ClassDef)]


@pytest.mark.parametrize("path", [path for path in CODE if path.parent.name != "core"], ids=lambda path: path.name)
def test_every_class_that_changes_is_protected(path: Path) -> None:
    """So a new method cannot be forgotten.  What has no methods but those that attrs makes has nothing to protect."""
    for node in classes_of(path):
        marks = [ast.unparse(decorator) for decorator in node.decorator_list]
        bases = {ast.unparse(base).partition("[")[0] for base in node.bases}
        is_value = any(mark.startswith("attrs.") for mark in marks) or bases & {"Protocol", "ExceptionGroup", "ABC"}

        assert is_value or "protected" in marks, f"{node.name} is neither a value nor @protected"
