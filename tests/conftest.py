"""Fixtures for every test, and what the run says at its end."""

from __future__ import annotations

import os
import signal
import zlib
from collections.abc import AsyncIterator, Iterator
from typing import TYPE_CHECKING

import pytest
import trio

from tests import peers
from tests.networks import Loopback, Network, Virtual, secure
from tests.peers import pytest_runtest_makereport as pytest_runtest_makereport
from trioqt.testing import VirtualNetwork
from trioqt.testing.simulation.determinism import pinned_scheduler

if TYPE_CHECKING:
    from tests.certificates import Contexts


def pytest_addoption(parser: pytest.Parser) -> None:
    """What tests/sockets/conftest.py does with it."""
    parser.addoption("--watched", action="store_true", help="tests/sockets: somebody listens to every socket")


def pytest_configure(config: pytest.Config) -> None:
    """The marks of our own; and Ctrl-C does something, also where a shell has started this in its background."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    config.addinivalue_line("markers", "unwatched(why): about what is so because nobody watches a socket")
    config.addinivalue_line("markers", "once: it takes seconds, so it is not run watched, nor with each other Python")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """A test that takes a ``Network`` runs once on each; one that takes a ``Loopback`` runs on that one only.

    One that takes a ``Virtual`` runs on the simulated one only.  Over TLS too if its file says so, except with the mark
    ``plain``, which says why.
    """
    wanted = metafunc.function.__annotations__.get("network")
    if "network" in metafunc.fixturenames and wanted not in ("Loopback", Loopback):
        names = ["virtual"] if wanted in ("Virtual", Virtual) else ["loopback", "virtual"]
        if getattr(metafunc.module, "OVER_TLS", False) and not metafunc.definition.get_closest_marker("plain"):
            names.append("tls")
        metafunc.parametrize("network", names, indirect=True)


@pytest.fixture(autouse=True)
def lot(request: pytest.FixtureRequest) -> Iterator[None]:
    """Which of the tasks that are ready goes first: the same each time that a test runs, not the same in each test.

    So what a test finds does not hang on trio's luck.  ``TRIOQT_LOT=7`` draws it otherwise: a test must pass with any.
    """
    with pinned_scheduler() as begin:
        begin(zlib.crc32(f"{os.environ.get('TRIOQT_LOT', '0')} {request.node.nodeid}".encode()))
        yield


@pytest.fixture
async def network(request: pytest.FixtureRequest) -> AsyncIterator[Network]:
    """The network under a test."""
    if getattr(request, "param", "loopback") == "loopback":
        yield Loopback()
        return
    async with VirtualNetwork() as net:
        if request.param == "tls":
            async with trio.open_nursery() as nursery:
                encrypted = secure(net, request.getfixturevalue("tls"), nursery)
                monkeypatch = request.getfixturevalue("monkeypatch")
                for name, cls in (("TcpSocket", encrypted.sockets), ("TcpServer", encrypted.servers)):
                    if hasattr(request.module, name):
                        monkeypatch.setattr(request.module, name, cls)
                yield encrypted
                nursery.cancel_scope.cancel()
        else:
            yield Virtual(net)
        left = [sock for host in net.hosts.values() for sock in host.sockets.values()]
        assert left == []  # as a kernel's socket tells by its ResourceWarning


@pytest.fixture(scope="session")
def tls() -> Contexts:
    """A server with a certificate for peer.example, and a client that trusts who issued it."""
    from tests.certificates import contexts  # here, for an environment without trustme

    return contexts("peer.example")


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Which peers were missing, how many places of cancellation were tried, how many steps the model took."""
    peers.pytest_terminal_summary(terminalreporter)
    reports = [
        (report.passed, value)
        for outcome in ("passed", "failed")
        for report in terminalreporter.getreports(outcome)
        for name, value in getattr(report, "user_properties", ())
        if name == "cancel_everywhere" and report.when == "call"
    ]
    if reports:
        places, missed, diverged = (sum(value[index] for _, value in reports) for index in range(3))
        failing = sum(not passed for passed, _ in reports)
        terminalreporter.write_line(
            f"cancel_everywhere: {len(reports)} scenarios, {places} places, "
            f"{failing} scenarios failing, {missed} places missed, {diverged} diverged"
        )
    played = [
        value
        for outcome in ("passed", "failed")
        for report in terminalreporter.getreports(outcome)
        for name, value in getattr(report, "user_properties", ())
        if name == "model" and report.when == "call"
    ]
    if played:
        terminalreporter.write_line(f"model: {sum(played):,} steps as the model says")
    for line in conformance_figures(terminalreporter):
        terminalreporter.write_line(line)


def conformance_figures(terminalreporter: pytest.TerminalReporter) -> Iterator[str]:
    """How many of the scenarios that ran went as with Qt."""
    found = [
        value
        for outcome in ("passed", "failed")
        for report in terminalreporter.getreports(outcome)
        for name, value in getattr(report, "user_properties", ())
        if name == "conformance" and report.when == "call"
    ]
    for whose, wanted in (("of the oracle", True), ("of our own", False)):
        figures = [value for value in found if value["shared"] is wanted]
        if figures:
            same = sum(value["outcome"] == "the same" for value in figures)
            by_rules = sum(value["outcome"] == "the same by general rules" for value in figures)
            compared, differing = (sum(value[name] for value in figures) for name in ("compared", "differing"))
            yield (
                f"conformance: {len(figures)} scenarios {whose}: {same} the same, {by_rules} by general rules, "
                f"{len(figures) - same - by_rules} deviating ({(same + by_rules) / len(figures):.1%} do not); "
                f"{compared - differing} of {compared} compared entries equal"
            )
