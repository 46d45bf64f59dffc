"""The faults of ``python -m benchmarks.chaos``, small, and that the command notices what it is there to notice.

How long anything took decides nothing here.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import attrs
import pytest

from benchmarks.chaos.__main__ import ALL
from benchmarks.chaos.stage import Case, Outcome, Played, Stage, fired, play
from benchmarks.chaos.table import cell, markdown, text

ROOT = Path(__file__).parents[2]

# All but those that wait for seconds: they run by the command only.
FAST = [case for case in ALL if case.name not in ("descriptors", "slow-reader", "slowloris")]


@pytest.mark.parametrize("case", FAST, ids=[case.name for case in FAST])
async def test_what_goes_wrong_costs_nobody_else_anything(case: Case) -> None:
    """A tenth of the clients; the fault fires, all good clients are answered, the server lives, nothing stays open."""
    played = await play(case, "trioqt", 0.1)

    assert played.problems() == []
    assert played.outcome is not None


@pytest.mark.parametrize("name", ["raise", "reset-queued", "hang-ups", "half-close", "unread", "stop"])
async def test_what_goes_wrong_over_tls_costs_nobody_else_anything(name: str) -> None:
    """The same, where TLS has ends and handshakes of its own; and the driver's clients do speak it."""
    case = next(case for case in ALL if case.name == name)
    spoken = []

    async def play_and_look(stage: Stage) -> Outcome:
        spoken.append(stage.trust is not None)
        return await case.play(stage)

    played = await play(attrs.evolve(case, play=play_and_look), "trioqt", 0.1, tls=True)

    assert played.problems() == []
    assert spoken == [True]


async def test_a_server_that_dies_is_noticed() -> None:
    """trio's ``serve_listeners`` ends with its first handler that raises: the same case, and nobody is answered."""
    case = next(case for case in ALL if case.name == "raise")

    played = await play(case, "trio-bare", 0.1)

    assert played.outcome is not None
    assert (played.outcome.lives, played.outcome.answered) == (False, 0)
    assert played.problems() == []  # the peers' fate is no failure
    assert case.problems(played.outcome)[:2] == ["10 of 10 got no answer", "the server has died"]


async def test_a_fault_that_does_not_fire_is_a_failure() -> None:
    """On whatever server: a case that shows nothing must not look green."""

    async def nothing_happens(stage: Stage) -> Outcome:
        async with stage.server() as run:
            fired(False, "0 of 5 resets")
        return run.outcome

    played = await play(Case("nothing", "nothing", nothing_happens), "trio")

    assert played.problems() == ["the fault did not fire: 0 of 5 resets"]


GOOD = Outcome(answered=5, asked=5, lives=True, records=3, lines=3, facts={"left open": 0})

BAD = [
    (Outcome(answered=4, asked=5, lives=True, facts={"left open": 0}), ["1 of 5 got no answer"]),
    (Outcome(answered=5, asked=5, lives=False, facts={"left open": 0}), ["the server has died"]),
    (Outcome(answered=5, asked=5, lives=True, descriptors=2, facts={"left open": 0}), ["2 descriptors are left"]),
    (Outcome(answered=5, asked=5, lives=True, records=12, facts={"left open": 0}), ["12 log records, more than 11"]),
    (Outcome(answered=5, asked=5, lives=True, facts={"left open": 1}), ["left open: 1, not 0"]),
    (Outcome(answered=5, asked=5, lives=True), ["left open: None, not 0"]),
]


async def never(stage: Stage) -> Outcome:
    raise AssertionError


CASE = Case("some", "some faults", never, {"left open": 0})


@pytest.mark.parametrize(("outcome", "problems"), [(GOOD, []), *BAD])
def test_each_kind_of_harm_is_a_problem(outcome: Outcome, problems: list[str]) -> None:
    """A lost answer, a dead server, an open descriptor, a flood of records, an end that was not promised."""
    assert Played(CASE, "trioqt", outcome).problems() == problems
    assert Played(CASE, "trio", outcome).problems() == []


def test_what_is_missing_is_a_problem_of_trioqt_only() -> None:
    """A peer that is not installed leaves its cell empty; trioqt has nothing to be missing."""
    assert Played(CASE, "Qt", missing="PySide6").problems() == []
    assert Played(CASE, "trioqt", missing="drain").problems() == ["not yet: drain"]


def test_the_table_has_a_row_for_each_case_and_a_column_for_each_server() -> None:
    """As markdown, and as blocks for a terminal."""
    flood = Outcome(0, 1200, False, 70, 2450, 3, {"left open": 7, "late": 0}, {"took": "0.1 s"})
    played = [Played(CASE, "trioqt", GOOD), Played(CASE, "trio", flood), Played(CASE, "Qt", missing="PySide6")]

    assert [cell(one) for one in played] == [
        "5 of 5",
        "died, 0 of 1,200, 3 descriptors left, 2,450 log lines, left open: 7, took 0.1 s",
        "- (PySide6)",
    ]
    assert markdown(played).splitlines() == [
        "|  | trioqt | trio | Qt |",
        "| --- | --- | --- | --- |",
        f"| some faults | {' | '.join(cell(one) for one in played)} |",
    ]
    assert text(played).splitlines() == [
        "some faults",
        *(f"  {one.server:6}  {cell(one)}" for one in played),
    ]


def test_every_case_has_a_name_of_its_own_and_a_row_in_the_readme() -> None:
    names = [case.name for case in ALL]
    readme = (ROOT / "benchmarks" / "chaos" / "README.md").read_text()

    assert len(set(names)) == len(names)
    assert [line.split("`")[1] for line in readme.splitlines() if line.startswith("| `")] == names


def test_the_command_prints_its_table_and_writes_it(tmp_path: Path) -> None:
    """One case by name; the status says that all is well, and that a name is none."""
    file = tmp_path / "table.md"
    command = [sys.executable, "-m", "benchmarks.chaos", "--scale", "0.1"]

    done = subprocess.run(
        [*command, "--only", "half-close", "--markdown", str(file)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=100,
    )
    wrong = subprocess.run([*command, "--only", "typo"], cwd=ROOT, capture_output=True, text=True, timeout=100)

    assert done.returncode == 0, done.stdout + done.stderr
    assert "50 clients finish before their answer\n  trioqt  5 of 5\n" in done.stdout
    assert file.read_text().splitlines()[2] == "| 50 clients finish before their answer | 5 of 5 |"
    assert (wrong.returncode, "there is no typo" in wrong.stderr) == (2, True)
