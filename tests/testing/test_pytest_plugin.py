"""The pytest plug-in, as it is found by a pytest of its own: with pytest-trio and without."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import textwrap
from pathlib import Path

import attrs
import pytest


@attrs.frozen
class Outcome:
    """What a run of pytest came to."""

    text: str
    passed: int
    failed: int


@attrs.frozen
class Project:
    """A folder with one test file, and no settings."""

    folder: Path

    def run(self, source: str, *arguments: str) -> Outcome:
        (self.folder / "test_it.py").write_text(textwrap.dedent(source))
        (self.folder / "pytest.ini").write_text("[pytest]\n")
        environment = {name: value for name, value in os.environ.items() if not name.startswith(("PYTEST", "TRIOQT"))}
        command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-p", "no:randomly", "-rA", *arguments]
        done = subprocess.run(
            command, cwd=self.folder, env=environment, capture_output=True, text=True, timeout=120, check=False
        )
        text = done.stdout + done.stderr
        counts = {name: int(count) for count, name in re.findall(r"(\d+) (passed|failed|errors?)", text)}
        return Outcome(text, counts.get("passed", 0), counts.get("failed", 0))


@pytest.fixture
def project(tmp_path: Path) -> Project:
    return Project(tmp_path)


def test_an_async_test_runs_on_its_network_in_virtual_time(project: Project) -> None:
    """Marked or not; with all guards, and fixtures of pytest-trio beside it."""
    outcome = project.run(
        """
        import pytest, trio
        from trioqt.testing import VirtualNetwork

        async def test_time(virtual_network):
            await trio.sleep(3600)
            assert trio.current_time() == 3600
            assert VirtualNetwork.current() is virtual_network

        @pytest.mark.trio
        async def test_marked(virtual_network, nursery):
            assert "virtual" in repr(trio.socket.socket())
            nursery.start_soon(trio.sleep_forever)
        """
    )

    assert (outcome.passed, outcome.failed) == (2, 0), outcome.text


def test_it_uses_the_clock_that_the_test_asks_for(project: Project) -> None:
    """pytest-trio's autojump_clock, and its mock_clock, which stands still."""
    outcome = project.run(
        """
        import trio

        async def test_autojump(autojump_clock, virtual_network):
            assert trio.lowlevel.current_clock() is autojump_clock
            await trio.sleep(10)

        async def test_still(mock_clock, virtual_network):
            mock_clock.jump(5)
            assert trio.current_time() == 5
        """
    )

    assert (outcome.passed, outcome.failed) == (2, 0), outcome.text


def test_a_deadlock_fails_with_the_seed_in_the_headline(project: Project) -> None:
    """And the note has the command that repeats it."""
    outcome = project.run(
        """
        import trio

        async def test_waits(virtual_network):
            await trio.sleep_forever()
        """,
        "--trioqt-seed=7",
    )

    assert outcome.failed == 1
    assert re.search(r"^_+ test_waits \(--trioqt-seed=7\) _+$", outcome.text, re.MULTILINE), outcome.text
    assert "Deadlock" in outcome.text
    assert "again: pytest test_it.py::test_waits --trioqt-seed=7" in outcome.text


def test_several_seeds_are_several_tests(project: Project) -> None:
    """Only the seed that fails fails."""
    outcome = project.run(
        """
        async def test_three(virtual_network):
            assert virtual_network.seed != 3

        async def test_all(virtual_network):
            pass

        def test_plain():
            pass
        """,
        "--trioqt-seeds=5",
    )

    assert (outcome.passed, outcome.failed) == (10, 1), outcome.text
    assert "test_three[seed3] (--trioqt-seed=3)" in outcome.text
    assert "again: pytest test_it.py::test_three --trioqt-seed=3" in outcome.text


def test_both_networks_run_one_body_twice(project: Project) -> None:
    """In virtual time, and on the kernel's sockets; a plain fixture works in both."""
    source = """
        import pytest, trio
        from trioqt.testing import both_networks, VirtualNetwork

        @pytest.fixture
        def word():
            return b"hello"

        @both_networks
        async def test_echo(network, word):
            with network.host("server") as address:
                listeners = await trio.open_tcp_listeners(0, host=str(address))
                port = listeners[0].socket.getsockname()[1]
            with network.host("client"):
                client = await trio.open_tcp_stream(str(address), port)
            server = await listeners[0].accept()
            async with client, server, listeners[0]:
                await client.send_all(word)
                assert await server.receive_some() == word
            assert (VirtualNetwork.current() is network) == isinstance(network, VirtualNetwork)

        @both_networks
        async def test_cut(network):
            "Only one of them has faults."
            with network.partition("default", "default"):
                pass

        class TestInAClass:
            @both_networks
            async def test_method(self, network, word):
                assert isinstance(self, TestInAClass)
                assert word == b"hello"
        """

    outcome = project.run(source)
    seeded = project.run(source, "--trioqt-seeds=2")

    assert (outcome.passed, outcome.failed) == (5, 1), outcome.text
    for name in ("test_echo[virtual]", "test_echo[kernel]", "test_cut[virtual]"):
        assert f"PASSED test_it.py::{name}" in outcome.text
    assert "the kernel's network has no 'partition'" in outcome.text
    assert (seeded.passed, seeded.failed) == (8, 1), seeded.text
    assert "test_echo[virtual-seed1]" in seeded.text


def test_without_pytest_trio_plain_tests_have_everything(project: Project) -> None:
    """The network as it is, for simulate; @both_networks; an async test is refused with the reason."""
    outcome = project.run(
        """
        import trio
        from trioqt.testing import both_networks, simulate

        def test_simulated(virtual_network):
            async def main(net):
                assert net is virtual_network
                await trio.sleep(60)
            simulate(main, network=lambda seed: virtual_network)

        @both_networks
        async def test_both(network):
            await trio.lowlevel.checkpoint()
        """,
        "-p",
        "no:trio",
    )
    refused = project.run("async def test_async(virtual_network): pass\ndef test_other(): pass", "-p", "no:trio")

    assert (outcome.passed, outcome.failed) == (3, 0), outcome.text
    assert "an async test with virtual_network needs pytest-trio" in refused.text
    assert refused.passed == 1


def test_examples_of_hypothesis_are_not_run_beside_the_network(project: Project) -> None:
    """Each example would need one of its own: so it is refused, and not run on the kernel's sockets."""
    outcome = project.run(
        """
        import pytest
        from hypothesis import HealthCheck, given, settings, strategies as st

        @pytest.mark.trio
        @given(st.integers())
        @settings(suppress_health_check=list(HealthCheck))
        async def test_it(virtual_network, number):
            pass
        """
    )

    assert outcome.passed == 0
    assert "let a plain test call simulate()" in outcome.text


def test_a_negative_seed_is_a_seed(project: Project) -> None:
    """Of the simulated network, too."""
    outcome = project.run(
        """
        from trioqt.testing import VirtualNetwork, both_networks

        @both_networks
        async def test_it(network):
            assert isinstance(network, VirtualNetwork)
            assert network.seed == -1
        """,
        "--trioqt-seed=-1",
    )

    assert "PASSED test_it.py::test_it[virtual]" in outcome.text
    assert "FAILED test_it.py::test_it[kernel]" in outcome.text


def test_a_seed_given_is_that_of_every_simulation(project: Project) -> None:
    """Also of those that a test starts itself, and its own headline has it."""
    outcome = project.run(
        """
        from trioqt.testing import simulate

        async def main(net):
            assert net.seed != 4

        def test_it():
            simulate(main)
        """,
        "--trioqt-seed=4",
    )

    assert outcome.failed == 1
    assert "test_it (--trioqt-seed=4)" in outcome.text


def test_points_and_seeds_of_cancellation_can_be_chosen(project: Project) -> None:
    """The fixture is the function, with the options applied."""
    source = """
        import trio

        def test_walk(cancel_everywhere, record_property):
            async def scenario(probe):
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(trio.sleep, 1)
                    await probe.subject(trio.sleep, 2)

            print("places", cancel_everywhere(scenario).places)
        """

    places = [
        int(re.findall(r"places (\d+)", project.run(source, *options).text)[0])
        for options in ((), ("--trioqt-seeds=1",), ("--trioqt-cancel-points=subject",))
    ]

    assert places[0] == 2 * places[1]
    assert places[2] < places[0]


@pytest.mark.parametrize(
    ("options", "why"),
    [
        (("--trioqt-seed=1", "--trioqt-seeds=2"), "either --trioqt-seed or --trioqt-seeds"),
        (("--trioqt-seeds=0",), "at least 1"),
        (("--trioqt-cancel-points=some",), "invalid choice"),
    ],
)
def test_wrong_options_are_refused(options: tuple[str, ...], why: str, project: Project) -> None:
    """Before any test runs."""
    outcome = project.run("def test_it(): pass", *options)

    assert why in outcome.text
    assert outcome.passed == 0


def test_an_async_test_has_a_clock_and_chance_of_its_own(project: Project) -> None:
    """From the seed, unless a mark of the test or its class says otherwise."""
    outcome = project.run(
        """
        import datetime, os, random, time
        import pytest, trio

        NOON = datetime.datetime(2030, 6, 1, 12, tzinfo=datetime.UTC)
        seen = []

        async def test_all(virtual_network):
            await trio.sleep(3600)
            assert time.monotonic() == 3600
            assert datetime.datetime.now(datetime.UTC).isoformat() == "2026-01-01T01:00:00+00:00"
            seen.append((random.random(), os.urandom(8)))

        async def test_again(virtual_network):
            assert (random.random(), os.urandom(8)) == seen[0]

        @pytest.mark.trioqt(epoch=NOON)
        class TestMarked:
            async def test_epoch(self, virtual_network):
                assert datetime.datetime.now(datetime.UTC) == NOON

            @pytest.mark.trioqt(epoch=None, entropy=False, threads="real")
            async def test_off(self, virtual_network):
                assert time.time is REAL
                assert (random.random(), os.urandom(8)) != seen[0]

        REAL = time.time

        def test_afterwards():
            assert time.time is REAL

        @pytest.mark.trioqt(epcoh=None)
        async def test_misspelt(virtual_network):
            pass
        """
    )

    assert (outcome.passed, outcome.failed) == (5, 1), outcome.text
    assert "TypeError: the mark trioqt wants epoch, entropy or threads, by name" in outcome.text


def test_a_fixture_of_anyios_that_runs_around_the_test_is_told(project: Project) -> None:
    """With anyio's plug-in and pytest-trio in one process; and the next test has its network."""
    outcome = project.run(
        """
        import pytest, trio

        @pytest.fixture(params=["trio"])
        def anyio_backend(request):
            return request.param

        @pytest.fixture
        async def opened(anyio_backend):
            yield 3

        @pytest.mark.anyio
        async def test_around(opened, virtual_network):
            pass

        @pytest.mark.anyio
        async def test_with_none(anyio_backend, virtual_network):
            await trio.sleep(3600)
        """,
        "-p",
        "anyio",
    )

    assert (outcome.passed, outcome.failed) == (1, 1), outcome.text
    assert "an async fixture of anyio's plug-in has one around this test" in outcome.text
