"""All tasks of a run as text."""

from __future__ import annotations

import re

import trio
import trio.testing

from trioqt.testing.simulation.task_tree import all_tasks, main_tasks, task_tree


async def sleeper() -> None:
    await trio.sleep_forever()


async def pair() -> None:
    async with trio.open_nursery() as nursery:
        nursery.start_soon(sleeper)
        nursery.start_soon(trio.sleep_forever)


def test_each_task_is_below_the_one_that_has_its_nursery_and_says_where_it_stands() -> None:
    """Trio's own tasks, and its frames, are left out; a task that runs none but trio's has its function's name."""

    async def main() -> str:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(pair)
            nursery.start_soon(sleeper, name="the last")
            await trio.testing.wait_all_tasks_blocked()
            tree = task_tree()
            nursery.cancel_scope.cancel()
        return tree

    tree = trio.run(main)

    lines = tree.split("\n")
    heads = [found[0] for line in lines if (found := re.match(r"[│├└─ ]*(the last|\w+)", line))]
    assert heads == ["main", "├─ pair", "│  ├─ sleeper", "│  └─ sleep_forever", "└─ the last"]
    assert lines[1].endswith(" in pair: async with trio.open_nursery() as nursery:")
    assert lines[2].endswith(" in sleeper: await trio.sleep_forever()")
    assert "tests/testing/simulation/test_task_tree.py:" in lines[2]
    assert lines[3].endswith("  in sleep_forever")


def test_the_tree_is_the_same_text_in_each_run() -> None:
    """Although a nursery keeps its tasks in a set."""

    async def main() -> str:
        async with trio.open_nursery() as nursery:
            for _ in range(50):
                nursery.start_soon(sleeper)
                nursery.start_soon(trio.sleep_forever)
            await trio.testing.wait_all_tasks_blocked()
            tree = task_tree()
            nursery.cancel_scope.cancel()
        return tree

    first = trio.run(main)

    assert [trio.run(main) for _ in range(3)] == [first] * 3
    assert first.split("\n")[1].startswith("├─ sleeper")
    assert first.split("\n")[2].startswith("├─ sleep_forever")


def test_a_large_tree_is_cut() -> None:
    """Ten thousand lines help nobody."""

    async def main() -> str:
        async with trio.open_nursery() as nursery:
            for _ in range(1200):
                nursery.start_soon(sleeper)
            await trio.testing.wait_all_tasks_blocked()
            tree = task_tree(limit=3)
            nursery.cancel_scope.cancel()
        return tree

    lines = trio.run(main).split("\n")

    assert len(lines) == 4
    assert lines[3] == "and 1,198 more"


def test_system_tasks_are_shown_if_they_run_code_of_the_program() -> None:
    """A library's background task may be what everyone waits for."""

    async def main() -> str:
        trio.lowlevel.spawn_system_task(sleeper)
        await trio.testing.wait_all_tasks_blocked()
        return task_tree()

    assert [line.split()[0] for line in trio.run(main).split("\n")] == ["main", "sleeper"]


def test_all_tasks_are_trios_too() -> None:
    """Parents first."""

    async def main() -> tuple[list[str], list[str]]:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(sleeper)
            await trio.testing.wait_all_tasks_blocked()
            names = [task.name.rpartition(".")[2] for task in all_tasks()]
            mains = [task.name.rpartition(".")[2] for task in main_tasks()]
            nursery.cancel_scope.cancel()
        return names, mains

    assert trio.run(main) == (["main", "sleeper", "run_sync_soon task>"], ["main"])


def test_the_task_that_asks_is_told_from_the_stack_of_calls() -> None:
    """What a running coroutine awaits cannot be asked for, so its line may be one of a function that it has called."""

    async def main() -> str:
        return in_a_function()

    def in_a_function() -> str:
        return task_tree()

    assert "in in_a_function: return task_tree()" in trio.run(main)
