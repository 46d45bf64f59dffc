"""A seed gives one run, in every process; where it does not, the first event that differs is named."""

from __future__ import annotations

import functools
import re
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from tests.testing.simulation import replayed
from trioqt.testing.__main__ import main as command_line
from trioqt.testing.network.virtual_network import VirtualNetwork
from trioqt.testing.simulation.replay import assert_replays
from trioqt.testing.simulation.simulate import Settings, repeat_command, simulate
from trioqt.testing.simulation.targets import Target

ROOT = Path(__file__).resolve().parent.parent.parent


async def in_this_file(net: VirtualNetwork) -> list[str]:
    return await replayed.say(net, ["a", "b"])


def difference(main: Any, *args: Any, **options: Any) -> list[str]:
    """The lines of what `assert_replays` says."""
    with pytest.raises(AssertionError) as caught:
        assert_replays(main, *args, **options)
    return str(caught.value).split("\n")


# ---- the same ------------------------------------------------------------------------------------------------------


def test_a_program_that_keeps_the_rules_replays() -> None:
    """With latency, jitter and loss, and twenty tasks at once."""
    assert_replays(replayed.by_many_tasks, seed=7, latency=0.05)


def test_arguments_network_and_faults_go_to_the_other_process() -> None:
    """By pickle; the network is made there, from the seed."""
    assert_replays(replayed.in_order, 3, seed=7, network=replayed.slow_network, faults=replayed.SLOW)


def test_a_function_of_a_test_module_can_be_replayed() -> None:
    """Whether or not pytest has loaded the module by its name."""
    assert_replays(in_this_file)


def test_sets_and_addresses_in_a_result_are_no_difference() -> None:
    """They read differently in each process."""
    assert_replays(replayed.a_result_that_only_reads_differently)


# ---- not the same --------------------------------------------------------------------------------------------------


def test_the_first_event_that_differs_is_named() -> None:
    """With what came before, and both lines."""
    lines = difference(replayed.in_the_order_of_a_set)

    found = re.fullmatch(
        r"seed 0 of tests\.testing\.simulation\.replayed:in_the_order_of_a_set does not replay in another process:"
        r" event (\d+) differs",
        lines[0],
    )
    assert found
    index = int(found[1])
    assert lines[1] == "before it, the same in both:"
    assert [line.split(":")[0] for line in lines[2:-2]] == [f"  {number}" for number in range(index - 5, index)]
    assert lines[-2].startswith("  here:  0.000000 DATA ")
    assert lines[-1].startswith("  there: 0.000000 DATA ")
    assert lines[-2].split()[1:] != lines[-1].split()[1:]


def test_an_order_that_comes_from_addresses_is_found() -> None:
    """The child's heap is shifted on purpose, or the same addresses would come again."""
    lines = difference(replayed.in_the_order_of_addresses)

    assert re.search(r"does not replay in another process: event \d+ differs$", lines[0])


def test_a_run_that_ends_earlier_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """There are no more events then."""
    monkeypatch.setenv("PYTHONHASHSEED", "random")

    lines = difference(replayed.one_event_less_elsewhere)

    assert lines[-2].startswith("  here:  0.000000 lookup ")
    assert lines[-1] == "  there: (no more events)"


def test_another_result_after_the_same_events_is_found() -> None:
    """What a program returns may be the log of what it did."""
    lines = difference(replayed.a_result_that_differs)

    assert lines[0].endswith("the events are the same, but the results are")
    assert [line.split(":")[0] for line in lines[1:]] == ["  here", "  there"]


def test_a_failure_in_the_other_process_only_is_told_with_its_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    """The seed gives two runs, so it is one more way not to replay."""
    monkeypatch.setenv("PYTHONHASHSEED", "random")

    lines = difference(replayed.failing_elsewhere)

    name = "tests.testing.simulation.replayed:failing_elsewhere"
    assert lines[0] == f"seed 0 of {name} does not replay: in another process it fails"
    assert "KeyError: 'only here'" in lines


def test_a_failure_here_comes_out_as_it_is() -> None:
    """There is nothing to compare."""
    with pytest.raises(KeyError) as caught:
        assert_replays(replayed.failing, seed=3)

    assert caught.value.__notes__[0].startswith("simulate: seed 3 failed at 3 virtual seconds")


# ---- what cannot be replayed ---------------------------------------------------------------------------------------


async def renamed(net: VirtualNetwork) -> None: ...


_other, renamed.__qualname__ = renamed, "nowhere"


@pytest.mark.parametrize(
    "main",
    [
        lambda net: replayed.failing(net),
        functools.partial(replayed.in_order, count=1),
        _other,
        len,
    ],
)
def test_a_function_without_a_name_to_find_it_by_is_refused(main: Any) -> None:
    """Before anything runs."""

    with pytest.raises(
        ValueError, match="cannot be found by name in another process: it must be a function at the top"
    ):
        assert_replays(main)


def test_a_function_within_a_function_is_refused() -> None:
    """Another process has no such function until the outer one runs."""

    async def main(net: VirtualNetwork) -> None: ...

    with pytest.raises(ValueError, match="cannot be found by name"):
        assert_replays(main)


def test_arguments_that_cannot_be_pickled_are_refused() -> None:
    """They must go to the other process."""
    with pytest.raises(ValueError, match="cannot be taken to another process: not for pickle"):
        assert_replays(replayed.in_order, replayed.NotForPickle())


# ---- scripts -------------------------------------------------------------------------------------------------------

SCRIPT = """
import sys
import attrs, trio
import beside
from trioqt.testing.simulation.replay import assert_replays

@attrs.frozen
class Word:
    text: str

async def main(net, word):
    await trio.sleep(beside.SECONDS)
    return word.text

if __name__ == "__main__":
    assert_replays(main, Word("hello"), seed=5)
    print("it replays")
"""


@pytest.fixture
def script(tmp_path: Path) -> Path:
    """A script in a directory of its own, with a module beside it."""
    (tmp_path / "beside.py").write_text("SECONDS = 3\n")
    (tmp_path / "script.py").write_text(SCRIPT)
    return tmp_path / "script.py"


def test_a_script_can_replay_its_own_functions(script: Path) -> None:
    """Its module has no name that leads to it, and neither have its classes; its file does."""
    done = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, cwd=script.parent.parent)

    assert (done.stdout, done.stderr) == ("it replays\n", "")


def test_a_module_that_was_started_by_name_can_too(script: Path) -> None:
    """``python -m script``."""
    done = subprocess.run([sys.executable, "-m", "script"], capture_output=True, text=True, cwd=script.parent)

    assert (done.stdout, done.stderr) == ("it replays\n", "")


# ---- the command line ----------------------------------------------------------------------------------------------


def test_the_line_at_the_end_of_a_failure_works(monkeypatch: pytest.MonkeyPatch) -> None:
    """As it is printed, in another process: the same failure, at the same time."""
    program = (
        "from tests.testing.simulation.replayed import failing\nfrom trioqt.testing import simulate\n"
        "simulate(failing, seed=7, latency=0.05)"
    )
    monkeypatch.delenv("PYTEST_CURRENT_TEST")
    first = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, cwd=ROOT)
    again = first.stderr.strip().split("\n")[-1]

    target = "tests.testing.simulation.replayed:failing"
    assert again == f"again: python -m trioqt.testing replay {target} --seed 7 --latency 0.05"
    command = [sys.executable, *again.removeprefix("again: python ").split()]
    second = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
    assert second.returncode == 1
    assert "KeyError: 'everywhere'" in second.stderr
    assert second.stderr.strip().split("\n")[-1] == again


def test_a_run_that_does_not_fail_says_what_it_came_to(capsys: pytest.CaptureFixture[str]) -> None:
    """So two of them can be compared by eye."""
    programs = "tests.testing.simulation.replayed"
    words = f"replay {programs}:in_order --seed 7 --args (2,) --network {programs}:slow_network"

    command_line(words.split())
    command_line([*words.split(), "--faults", '{"version": 1, "faults": []}'])
    command_line([*words.split(), "--virtual-time", "inf", "--steps", "inf", "--patience", "1", "--real-network"])

    first, *others = capsys.readouterr().out.strip().split("\n")
    assert others == [first, first]
    assert first.startswith("seed 7: over after 3 virtual seconds and ")
    assert ", digest " in first


@pytest.mark.parametrize(
    ("target", "complaint"),
    [
        ("nothing", "'nothing' is neither package.module:function nor file.py:function"),
        ("no_such_module:main", "there is no module no_such_module"),
        ("trioqt.testing.no_such_module:main", "there is no module trioqt.testing.no_such_module"),
        ("trioqt.testing.replay.deeper:main", "there is no module trioqt.testing.replay.deeper"),
        ("no_such_file.py:main", "there is no file no_such_file.py"),
        ("tests.testing.simulation.replayed:no_such_function", "replayed.py has no no_such_function"),
        ("tests.testing.simulation.replayed:NAMES", "tests.testing.simulation.replayed:NAMES is no function"),
    ],
)
def test_a_target_that_is_not_there_is_an_error_of_usage(
    target: str, complaint: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Not a traceback."""
    with pytest.raises(SystemExit) as caught:
        command_line(["replay", target])

    assert caught.value.code == 2
    assert capsys.readouterr().err.strip().endswith(complaint)


def test_a_target_reads_back_as_it_is_written(script: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By the module's name where that leads to the file, or else by the file."""
    module = Target.of(replayed.in_order)
    file = Target("", str(script), "main")
    monkeypatch.chdir(script.parent)

    assert (str(module), Target.parse(str(module))) == ("tests.testing.simulation.replayed:in_order", module)
    assert (str(file), Target.parse("script.py:main")) == ("script.py:main", file)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        (Settings(), ""),
        (Settings(epoch=None), " --epoch real"),
        (Settings(epoch=1e9), " --epoch 1000000000.0"),
        (Settings(epoch=datetime(1970, 1, 2, tzinfo=UTC)), " --epoch 86400.0"),
        (Settings(entropy=False, threads="real"), " --real-entropy --threads real"),
    ],
)
def test_the_line_has_the_clock_the_entropy_and_the_threads_of_the_run(
    settings: Settings, words: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """And the command understands them."""
    monkeypatch.delenv("PYTEST_CURRENT_TEST")

    line = repeat_command(replayed.the_time, (), 7, settings)

    assert line == f"python -m trioqt.testing replay tests.testing.simulation.replayed:the_time --seed 7{words}"
    command_line(line.split()[3:])
    shown = capsys.readouterr().err.strip()
    here = str(simulate(replayed.the_time, seed=7, epoch=settings.epoch))
    assert (shown == here) == (settings.epoch is not None)
