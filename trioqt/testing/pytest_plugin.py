"""What pytest needs to run tests on the simulated network; it is found by itself when trioqt is installed."""

from __future__ import annotations

import functools
import inspect
import os
from collections.abc import Callable, Generator
from typing import Any

import attrs
import pytest
import trio

from trioqt.sockets.survived_bugs import take_bugs
from trioqt.testing import cancel_everywhere as walk
from trioqt.testing.network.virtual_network import VirtualNetwork
from trioqt.testing.simulation.both_networks import KERNEL, PARAMETER
from trioqt.testing.simulation.handler_failures import failing_if_bugs_survive
from trioqt.testing.simulation.simulate import SEED_VARIABLE, Settings, Simulation, repeat_command

__all__ = ["cancel_everywhere", "handler_failures", "trioqt_seed", "virtual_network"]


def pytest_addoption(parser: pytest.Parser) -> None:
    """The options."""
    group = parser.getgroup("trioqt", "simulated networks (trioqt)")
    group.addoption(
        "--trioqt-seed", type=int, metavar="N", help="run simulations with this seed, to repeat one that failed"
    )
    group.addoption(
        "--trioqt-seeds", type=int, metavar="COUNT", help="run each simulated test with the seeds 0 to COUNT - 1"
    )
    group.addoption(
        "--trioqt-cancel-points",
        choices=("any", "subject"),
        default="any",
        help="where the cancel_everywhere fixture cancels: at every step of any task, or only of the code under test",
    )


def pytest_configure(config: pytest.Config) -> None:
    """A seed given is that of every simulation, whoever starts it."""
    config.addinivalue_line(
        "markers", "trioqt(epoch=..., entropy=..., threads=...): how the simulation of an async test is; see simulate"
    )
    seed, count = config.getoption("--trioqt-seed"), config.getoption("--trioqt-seeds")
    if seed is not None and count is not None:
        raise pytest.UsageError("give either --trioqt-seed or --trioqt-seeds")
    if count is not None and count < 1:
        raise pytest.UsageError("--trioqt-seeds wants at least 1")
    if seed is not None:
        os.environ[SEED_VARIABLE] = str(seed)


def _seeds(config: pytest.Config) -> list[int]:
    count = config.getoption("--trioqt-seeds")
    if count is not None:
        return list(range(count))
    given = os.environ.get(SEED_VARIABLE, "0")
    if not given.lstrip("-").isdecimal():
        raise pytest.UsageError(f"{SEED_VARIABLE} is an int, not {given!r}")
    return [int(given)]


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """One test for each seed, and for each network."""
    seeds = _seeds(metafunc.config)
    if PARAMETER in metafunc.fixturenames:
        names = ["virtual"] if len(seeds) == 1 else [f"virtual-seed{seed}" for seed in seeds]
        metafunc.parametrize(PARAMETER, [*seeds, KERNEL], ids=[*names, "kernel"])
    elif "trioqt_seed" in metafunc.fixturenames and len(seeds) > 1:
        metafunc.parametrize("trioqt_seed", seeds, ids=[f"seed{seed}" for seed in seeds])


@pytest.fixture
def trioqt_seed(pytestconfig: pytest.Config) -> int:
    """The seed of this test's simulation: of ``--trioqt-seed``, one of ``--trioqt-seeds``, or else 0."""
    return _seeds(pytestconfig)[0]


@pytest.fixture
def virtual_network(trioqt_seed: int) -> VirtualNetwork:
    """A simulated network.

    An async test runs in it, on a clock that jumps, with all guards and a pinned scheduler; it needs pytest-trio.  The
    clock, chance and worker threads are those of `simulate`, unless the mark ``trioqt`` says otherwise.

    A plain test gets it as it is, for ``simulate(main, network=lambda seed: virtual_network)``.
    """
    return VirtualNetwork(seed=trioqt_seed)


@pytest.fixture
def handler_failures() -> Callable[[], list[Exception]]:
    """``handler_failures()`` takes the bugs of handlers that servers have survived in this test, oldest first.

    What is not taken fails the test at its end.  A simulated network has the same as a method.
    """
    return take_bugs


@pytest.fixture
def cancel_everywhere(pytestconfig: pytest.Config) -> Callable[..., Any]:
    """`trioqt.testing.cancel_everywhere`, with the points of ``--trioqt-cancel-points`` and the seeds given."""
    count = pytestconfig.getoption("--trioqt-seeds")
    seeds = (0, 1) if count is None and SEED_VARIABLE not in os.environ else _seeds(pytestconfig)
    return functools.partial(walk, points=pytestconfig.getoption("--trioqt-cancel-points"), seeds=seeds)


def pytest_itemcollected(item: pytest.Item) -> None:
    """pytest-trio is to run an async test on its network."""
    if _is_async_on_network(item) and item.config.pluginmanager.has_plugin("trio"):
        # The latest mark counts.
        item.add_marker(pytest.mark.trio(run=functools.partial(_run_on_network, item)), append=False)


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    """Without pytest-trio there is nobody to run it."""
    if _is_async_on_network(item) and not item.config.pluginmanager.has_plugin("trio"):
        pytest.fail("an async test with virtual_network needs pytest-trio", pytrace=False)
    if "virtual_network" in getattr(item, "fixturenames", ()):
        inner = getattr(getattr(getattr(item, "obj", None), "hypothesis", None), "inner_test", None)
        if inspect.iscoroutinefunction(inner):
            pytest.fail(
                "each example of @given needs a network of its own: let a plain test call simulate()", pytrace=False
            )


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Generator[None, object, object]:
    """A bug that a server has survived fails its test, unless the test takes it."""
    with failing_if_bugs_survive():
        return (yield)


def _is_async_on_network(item: pytest.Item) -> bool:
    function = getattr(item, "function", None)
    return "virtual_network" in getattr(item, "fixturenames", ()) and inspect.iscoroutinefunction(function)


def _run_on_network(item: Any, test: Callable[[], Any], *, clock: Any = None, instruments: Any = ()) -> Any:
    """In place of trio.run."""
    network = item.funcargs["virtual_network"]
    backend = item.funcargs.get("anyio_backend", "trio")
    if (backend if isinstance(backend, str) else backend[0]) != "trio":
        raise RuntimeError(f"a simulated network needs trio.run, and this test asks for anyio's backend {backend!r}")
    if trio.lowlevel.in_trio_run():
        raise RuntimeError(
            "a simulated network needs a trio.run of its own, and an async fixture of anyio's plug-in has one around"
            " this test: make it a fixture of pytest-trio, or open what it makes in the test"
        )

    async def main(net: VirtualNetwork) -> Any:
        return await test()

    main.__qualname__ = item.name
    settings = _marked(item, Settings(network=lambda seed: network))
    again = repeat_command(main, (), network.seed, settings)
    return Simulation(main, (), network.seed, settings, f"seed {network.seed}", again).run(clock, instruments).result


def _marked(item: pytest.Item, settings: Settings) -> Settings:
    for mark in reversed(list(item.iter_markers("trioqt"))):  # that of the test itself is the first
        unknown = mark.kwargs.keys() - {"epoch", "entropy", "threads"}
        if mark.args or unknown:
            raise TypeError("the mark trioqt wants epoch, entropy or threads, by name")
        settings = attrs.evolve(settings, **mark.kwargs)
    return settings


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[Any]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """The seed of a failure stands in the headline of its report."""
    report = yield
    if report.failed and call.excinfo is not None:
        seed = _seed_of(item, call.excinfo.value)
        if seed is not None and report.location is not None:
            path, line, name = report.location
            report.location = (path, line, f"{name} (--trioqt-seed={seed})")
    return report


def _seed_of(item: pytest.Item, exc: BaseException) -> int | None:
    for note in getattr(exc, "__notes__", ()):
        words = note.split(maxsplit=3)
        if words[:2] == ["simulate:", "seed"]:
            return int(words[2].rstrip(","))
    network = getattr(item, "funcargs", {}).get("virtual_network")
    return None if network is None else int(network.seed)
