"""A run whose clock, chance and threads are its own: what is put in place for it, and taken away.

Nothing of this is there in a process that simulates nothing, and only one run at a time has it.
"""

from __future__ import annotations

from typing import Any

from trioqt.testing.simulation import always_real, entropy, wall_clock
from trioqt.testing.simulation.replacing import Replacing, Setting
from trioqt.testing.simulation.worker_threads import LOCKS, threads_in_order
from trioqt.testing.simulation.worlds import World, life_in

__all__ = ["life"]


def life(world: World) -> Replacing:
    """A block in which the calling thread, and the worker threads of its run, are in this world.

    What is neither simulated nor to be noted is not replaced.
    """
    table: dict[Any, Any] = {}
    settings: list[Setting] = []
    notes = world.calls is not None
    if world.epoch is not None or notes:
        table |= wall_clock.WALL_CLOCK
        settings += wall_clock.types()
    if world.entropy or notes:
        table |= entropy.ENTROPY
        settings += entropy.settings()
    if world.entropy:
        settings += entropy.numpy_settings(world.seed)
    if notes:
        table |= always_real.ALWAYS_REAL
        settings += always_real.PROCESSES
    if world.threads == "inline":
        table |= LOCKS
    if table:
        settings += wall_clock.uuid_settings()
    if world.threads == "inline" or notes:
        settings += threads_in_order(world)
    return Replacing(table, [*settings, *life_in(world)])
