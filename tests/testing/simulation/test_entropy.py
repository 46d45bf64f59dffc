"""Chance in a simulated program comes from its seed, and each host has its own."""

from __future__ import annotations

import os
import random
import secrets
import ssl
import sys
import tempfile
import threading
import types
import uuid
from collections.abc import Callable
from random import choice, random as drawn, seed
from typing import Any

import pytest
import trio

from trioqt.testing import VirtualNetwork, simulate

DRAWS: dict[str, Callable[[], Any]] = {
    "random": lambda: random.random(),
    "random, by name": lambda: drawn(),
    "choice, by name": lambda: choice(range(1_000_000_000)),
    "randint": lambda: random.randint(0, 1_000_000_000),
    "getrandbits": lambda: random.getrandbits(64),
    "gauss": lambda: random.gauss(0, 1),
    "sample": lambda: random.sample(range(10_000), 5),
    "randbytes": lambda: random.randbytes(8),
    "Random()": lambda: random.Random().random(),
    "Random(None)": lambda: random.Random(None).random(),
    "SystemRandom": lambda: random.SystemRandom().random(),
    "urandom": lambda: os.urandom(8),
    "RAND_bytes": lambda: ssl.RAND_bytes(8),
    "getrandom": lambda: os.getrandom(8),
    "token_hex": lambda: secrets.token_hex(),
    "token_urlsafe": lambda: secrets.token_urlsafe(),
    "randbelow": lambda: secrets.randbelow(1_000_000_000),
    "secrets.choice": lambda: secrets.choice(range(1_000_000_000)),
    "uuid4": lambda: uuid.uuid4(),
    "uuid1": lambda: uuid.uuid1(),
    "temporary name": lambda: next(tempfile._get_candidate_names()),  # type: ignore[attr-defined]
}


async def draw(net: VirtualNetwork) -> dict[str, Any]:
    return {name: each() for name, each in DRAWS.items()}


async def on_host(net: VirtualNetwork, host: str) -> dict[str, Any]:
    with net.host(host):
        return await draw(net)


def test_a_seed_draws_the_same_each_time_and_another_seed_something_else() -> None:
    """From all that Python draws from."""
    first, again, other = simulate(draw, seed=1), simulate(draw, seed=1), simulate(draw, seed=2)

    assert again == first
    assert [name for name in first if other[name] == first[name]] == []


def test_each_host_draws_from_its_own() -> None:
    """So what one of them does, and whether it is there, changes nothing for another."""

    async def both(net: VirtualNetwork) -> tuple[dict[str, Any], dict[str, Any]]:
        with net.host("a"):
            random.random()
            os.urandom(100)
        return await on_host(net, "b"), await on_host(net, "a")

    alone = simulate(on_host, "b")
    b, a = simulate(both)

    assert b == alone
    assert [name for name in a if a[name] == b[name]] == []


def test_a_worker_thread_draws_from_its_hosts() -> None:
    """It inherits the context of the task that started it."""

    async def main(net: VirtualNetwork) -> tuple[bytes, bytes]:
        with net.host("a"):
            return await trio.to_thread.run_sync(os.urandom, 8), os.urandom(8)

    async def in_one(net: VirtualNetwork) -> tuple[bytes, bytes]:
        with net.host("a"):
            return os.urandom(8), os.urandom(8)

    assert simulate(main) == simulate(in_one)


def test_a_program_may_seed_its_own_host() -> None:
    """`random.seed` reaches the functions of `random` there, and neither the system's entropy nor another host's."""

    async def main(net: VirtualNetwork) -> list[Any]:
        seed(5)
        state = random.getstate()
        found = [random.random(), os.urandom(4)]
        random.setstate(state)
        with net.host("b"):
            found.append(random.random())
        return [*found, random.random()]

    async def without(net: VirtualNetwork) -> list[Any]:
        found: list[Any] = [os.urandom(4)]
        with net.host("b"):
            found.append(random.random())
        return found

    first, entropy, other, again = simulate(main)
    assert first == again == random.Random(5).random()
    assert [entropy, other] == simulate(without)


def test_what_was_drawn_before_and_what_comes_after_is_as_without_a_simulation() -> None:
    """The generator of the process is not touched."""
    random.seed(7)
    random.random()
    simulate(draw)
    after = random.random()

    random.seed(7)
    random.random()
    assert random.random() == after
    assert os.urandom(16) != os.urandom(16)
    assert uuid.uuid1().node == uuid.getnode()
    assert "built-in" in repr(os.urandom)
    assert "built-in" in repr(random.random)


def test_switched_off_it_is_the_systems() -> None:
    """Nothing is replaced, with or without the clock."""

    async def main(net: VirtualNetwork) -> tuple[Any, bytes]:
        return random.random, os.urandom(16)

    function, first = simulate(main, entropy=False)
    _, second = simulate(main, entropy=False)

    assert function is random.random
    assert first != second


def test_another_thread_has_real_entropy() -> None:
    """Nothing that runs beside the simulation is part of it."""
    seen: list[bytes] = []

    async def main(net: VirtualNetwork) -> None:
        thread = threading.Thread(target=lambda: seen.append(os.urandom(16)))
        thread.start()
        thread.join()

    simulate(main)
    simulate(main)

    assert seen[0] != seen[1]


def test_a_module_that_draws_when_it_is_imported_moves_nothing(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """That happens once a process, so the first run would differ from all later ones."""
    (tmp_path / "draws_once.py").write_text("import os, random\nrandom.Random()\nos.urandom(8)\n")
    monkeypatch.syspath_prepend(tmp_path)

    async def main(net: VirtualNetwork) -> bytes:
        __import__("draws_once")
        return os.urandom(8)

    assert simulate(main) == simulate(main)


def test_what_is_no_size_is_refused_as_ever() -> None:
    """By the same exceptions."""

    async def main(net: VirtualNetwork) -> None:
        with pytest.raises(ValueError, match="negative"):
            os.urandom(-1)
        with pytest.raises(TypeError):
            os.urandom("8")  # type: ignore[arg-type]

    simulate(main)


def test_generators_with_a_seed_are_left_alone() -> None:
    """They replay as they are."""

    async def main(net: VirtualNetwork) -> float:
        return random.Random("mine").random()

    assert simulate(main) == random.Random("mine").random()


def test_the_generator_that_numpy_keeps_is_seeded_and_put_back(monkeypatch: pytest.MonkeyPatch) -> None:
    """By its public functions, here of a module that has them and no more; one that the program has put there stays."""

    class Kept:
        def __init__(self, seed: int) -> None:
            self.state: tuple[str, int] = ("MT19937", seed)

        def get_state(self) -> tuple[str, int]:
            return self.state

        def set_state(self, state: tuple[str, int]) -> None:
            self.state = state

    kept = Kept(99)
    module: Any = types.ModuleType("numpy.random")
    module.RandomState, module.get_state, module.set_state = Kept, kept.get_state, kept.set_state
    monkeypatch.setitem(sys.modules, "numpy.random", module)

    async def main(net: VirtualNetwork) -> tuple[str, int]:
        return kept.state

    assert (simulate(main, seed=5), kept.state) == (("MT19937", 5), ("MT19937", 99))
    assert simulate(main, seed=5, entropy=False) == ("MT19937", 99)
    kept.state = ("PCG64", 1)
    assert simulate(main, seed=5) == ("PCG64", 1)
