"""What a case is, and how it is played: once on each server, and judged on trioqt."""

from __future__ import annotations

import collections
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager, nullcontext
from typing import Any

import attrs
import trio

from benchmarks.chaos.driver import (
    LOST,
    DidNotStartError,
    FaultDidNotFireError,
    GoodClients,
    MissingError,
    Server,
    good_clients,
    start_server,
)
from benchmarks.chaos.encrypted import Trust, trust

__all__ = ["LIMIT", "Case", "Outcome", "Played", "Run", "Stage", "counted", "fired", "play"]

# No case lasts so long on one server, in seconds.
LIMIT = 90.0

# trioqt writes at most ten records a minute for each kind of trouble, and one that says how many were left out.
RECORDS = 11


@attrs.define
class Outcome:
    """What became of a server and its clients."""

    answered: int = 0  # of those who had a right to an answer
    asked: int = 0
    lives: bool | None = None  # and answers a new client; None: the case was to end it
    records: int = 0
    lines: int = 0
    descriptors: int = 0  # left open
    facts: dict[str, Any] = attrs.field(factory=dict)  # judged
    figures: dict[str, str] = attrs.field(factory=dict)  # printed only


@attrs.define
class Run:
    """A server under a case."""

    server: Server
    good: GoodClients
    outcome: Outcome = attrs.field(factory=Outcome)


@attrs.define
class Stage:
    """Where a case is played: which server, and how large."""

    name: str
    scale: float = 1.0
    trust: Trust | None = None
    """The server speaks TLS."""

    def many(self, count: int) -> int:
        """``count``, scaled."""
        return max(4, int(count * self.scale))

    @asynccontextmanager
    async def server(
        self, *arguments: str, good: int = 0, ends: bool = False, trust: Trust | None = None
    ) -> AsyncIterator[Run]:
        """A server, and clients that ask on beside whatever goes wrong in the block.

        Args:
          ends: The case ends the server, so nobody asks whether it lives.
          trust: The server speaks TLS, whatever others do.
        """
        async with start_server(self.name, *arguments, trust=trust or self.trust) as server:
            await server.answers()  # what is made once has been made
            baseline = await _baseline(server)
            async with good_clients(server, self.many(good) if good else 0) as beside:
                run = Run(server, beside)
                yield run
            outcome = run.outcome
            outcome.answered += beside.answered
            outcome.asked += beside.count
            if not ends:
                outcome.lives = not server.has_ended() and await server.answers()
                outcome.descriptors = await server.settle(baseline)
            outcome.records, outcome.lines = server.log_records(), server.log_lines()
            if beside.count:
                outcome.figures["worst wait"] = f"{beside.worst * 1000:.0f} ms"


async def _baseline(server: Server) -> int:
    """How many descriptors it has once its first client is gone."""
    counts: collections.deque[int] = collections.deque(maxlen=5)
    for _ in range(100):
        counts.append(server.descriptors())
        if len(counts) == 5 and len(set(counts)) == 1:
            break
        await trio.sleep(0.02)
    return min(counts)


@attrs.frozen
class Case:
    """One kind of fault."""

    name: str
    title: str
    play: Callable[[Stage], Awaitable[Outcome]]
    expected: Mapping[str, Any] = attrs.field(factory=dict)  # facts of trioqt
    kinds: int = 1  # of trouble that it may log

    def problems(self, outcome: Outcome) -> list[str]:
        """What is not as trioqt promises."""
        found = []
        if outcome.answered != outcome.asked:
            found.append(f"{outcome.asked - outcome.answered} of {outcome.asked} got no answer")
        if outcome.lives is False:
            found.append("the server has died")
        if outcome.descriptors:
            found.append(f"{outcome.descriptors} descriptors are left")
        if outcome.records > self.kinds * RECORDS:
            found.append(f"{outcome.records} log records, more than {self.kinds * RECORDS}")
        for fact, value in self.expected.items():
            if outcome.facts.get(fact) != value:
                found.append(f"{fact}: {outcome.facts.get(fact)}, not {value}")
        return found


@attrs.frozen
class Played:
    """A case on one server."""

    case: Case
    server: str
    outcome: Outcome | None = None
    missing: str = ""
    failure: str = ""  # the case itself could not be played

    def problems(self) -> list[str]:
        """What makes the command fail."""
        if self.failure:
            return [self.failure]
        if self.server != "trioqt":
            return []
        if self.outcome is None:
            return [f"not yet: {self.missing}"]
        return self.case.problems(self.outcome)


async def play(case: Case, server: str, scale: float = 1.0, *, tls: bool = False) -> Played:
    """Play it, within LIMIT; over TLS if asked to."""
    outcome, missing, failure = None, "", ""
    try:
        with trust() if tls else nullcontext() as trusted, trio.move_on_after(LIMIT) as scope:
            outcome = await case.play(Stage(server, scale, trusted))
        if scope.cancelled_caught:
            failure = f"not over after {LIMIT:.0f} s"
    except* (MissingError, ModuleNotFoundError) as group:
        missing = str(_first(group))
    except* FaultDidNotFireError as group:
        failure = f"the fault did not fire: {_first(group)}"
    except* (DidNotStartError, *LOST) as group:
        failure = f"could not be played: {_first(group)}"
    return Played(case, server, outcome, missing, failure)


def _first(group: BaseExceptionGroup[BaseException]) -> BaseException:
    first = group.exceptions[0]
    return _first(first) if isinstance(first, BaseExceptionGroup) else first


def fired(happened: bool, what: str) -> None:
    """Raises: FaultDidNotFireError unless it happened."""
    if not happened:
        raise FaultDidNotFireError(what)


def counted(things: list[str]) -> str:
    """``50 reset``, or ``40 end, 10 open``."""
    counts = collections.Counter(things)
    return ", ".join(f"{counts[thing]} {thing}" for thing in sorted(counts))
