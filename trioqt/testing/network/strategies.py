"""Strategies for hypothesis: what goes wrong, when, and how the network is otherwise.

They shrink towards no faults, then few, early and short ones, on a network without delay and loss.  This is the only
module here that needs hypothesis.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence

from hypothesis import strategies as st

from trioqt.testing.network import faults as fault_kinds
from trioqt.testing.network.fabric import Conditions
from trioqt.testing.network.fault_plan import FaultPlan, Planned
from trioqt.testing.network.faults import KINDS, Fault

__all__ = ["conditions", "fault_plans", "faults", "seeds"]

Pairs = st.SearchStrategy[tuple[str, str]]
Names = st.SearchStrategy[str]


def seeds() -> st.SearchStrategy[int]:
    """Seeds for `VirtualNetwork` and `simulate`."""
    return st.integers(0, 2**32 - 1)


def conditions() -> st.SearchStrategy[Conditions]:
    """How the links of a network carry packets: up to half a second of delay, up to a fifth is lost."""
    return st.builds(
        Conditions,
        latency=_thousandths(250),
        jitter=_thousandths(250),
        loss=_thousandths(200),
        duplication=_thousandths(200),
        reordering=_thousandths(200),
    )


def faults(hosts: Sequence[str], *, kinds: Collection[type[Fault]] = KINDS) -> st.SearchStrategy[Fault]:
    """One fault on these hosts or between two of them.

    Args:
      kinds: Which; the first in `KINDS` is the simplest.  Those on links need two hosts.

    Raises:
      ValueError: There is no host, or nothing of ``kinds`` can be on so few.
    """
    names = list(dict.fromkeys(hosts))
    if not names:
        raise ValueError("faults need a host")
    host = st.sampled_from(names)
    found: list[st.SearchStrategy[Fault]] = [_ON_HOSTS[kind](host) for kind in _ON_HOSTS if kind in kinds]
    if len(names) > 1:
        pairs = st.sampled_from([(a, b) for a in names for b in names if a != b])
        found = [_ON_LINKS[kind](pairs) for kind in _ON_LINKS if kind in kinds] + found
    unknown = [kind.__name__ for kind in kinds if kind not in KINDS]
    if unknown or not found:
        raise ValueError(f"there is no strategy for {', '.join(unknown) or 'these kinds'} on {', '.join(names)}")
    return st.one_of(found)


def fault_plans(
    hosts: Sequence[str],
    *,
    duration: float,
    max_faults: int = 5,
    kinds: Collection[type[Fault]] = KINDS,
) -> st.SearchStrategy[FaultPlan]:
    """Plans all of whose faults are over after ``duration`` seconds; their times are whole milliseconds.

    Args:
      max_faults: No more than so many.
      kinds: See `faults`.

    Raises:
      ValueError: ``duration`` is less than a millisecond, and what `faults` raises.
    """
    ticks = int(duration * 1000)
    if ticks < 1:
        raise ValueError(f"a fault takes a millisecond at least, so a plan cannot take {duration} s")

    # Made once, which takes hypothesis much longer than to draw; and what is wrong with the arguments is said now.
    any_fault = faults(hosts, kinds=kinds)

    @st.composite
    def maybe_planned(draw: st.DrawFn) -> Planned | None:
        fault = draw(any_fault)
        at = draw(st.integers(0, ticks - 1))
        length = draw(st.integers(1, ticks - at))
        # Hypothesis does not take an element of so many parts out of a list (it deletes five choices at once, at most).
        # But it tries 0 here, which is as good.
        if not draw(st.integers(0, 3)):
            return None
        return Planned(fault, at / 1000, (at + length) / 1000 if fault.lasts else None)

    drawn = st.lists(maybe_planned(), max_size=max_faults)
    return drawn.map(lambda found: FaultPlan(planned for planned in found if planned is not None))


# ---- one kind each -----------------------------------------------------------------------------


def _thousandths(most: int) -> st.SearchStrategy[float]:
    """Numbers that shrink to few digits."""
    return st.integers(0, most).map(lambda number: number / 1000)


def _partitions(pairs: Pairs) -> st.SearchStrategy[Fault]:
    return st.builds(
        lambda pair, one_way: fault_kinds.Partition(pair[0], pair[1], one_way=one_way), pairs, st.booleans()
    )


def _holds(pairs: Pairs) -> st.SearchStrategy[Fault]:
    return st.builds(lambda pair, one_way: fault_kinds.Hold(pair[0], pair[1], one_way=one_way), pairs, st.booleans())


def _losses(pairs: Pairs) -> st.SearchStrategy[Fault]:
    rates = st.integers(1, 1000).map(lambda number: number / 1000)
    return st.builds(
        lambda pair, rate, one_way: fault_kinds.Loss(pair[0], pair[1], rate, one_way=one_way),
        pairs,
        rates,
        st.booleans(),
    )


def _latencies(pairs: Pairs) -> st.SearchStrategy[Fault]:
    return st.builds(
        lambda pair, latency, jitter, one_way: fault_kinds.Latency(pair[0], pair[1], latency, jitter, one_way=one_way),
        pairs,
        _thousandths(2000),
        st.none() | _thousandths(1000),
        st.booleans(),
    )


def _degradations(pairs: Pairs) -> st.SearchStrategy[Fault]:
    return st.builds(
        lambda pair, one_way, bandwidth, duplication, reordering: fault_kinds.Degraded(
            pair[0], pair[1], one_way=one_way, bandwidth=bandwidth, duplication=duplication, reordering=reordering
        ),
        pairs,
        st.booleans(),
        st.none() | st.integers(1_000, 10_000_000),
        st.none() | _thousandths(1000),
        st.none() | _thousandths(1000),
    )


def _limits(host: Names) -> st.SearchStrategy[Fault]:
    return st.builds(fault_kinds.DescriptorsExhausted, host, st.integers(0, 16))


def _skews(host: Names) -> st.SearchStrategy[Fault]:
    return st.builds(
        lambda host, seconds, rate: fault_kinds.Skew(host, seconds=seconds, rate=rate),
        host,
        st.integers(-3_600_000, 3_600_000).map(lambda number: number / 1000),
        st.integers(500, 2000).map(lambda number: number / 1000),
    )


_ON_LINKS: dict[type[Fault], Callable[[Pairs], st.SearchStrategy[Fault]]] = {
    fault_kinds.Partition: _partitions,
    fault_kinds.Hold: _holds,
    fault_kinds.Loss: _losses,
    fault_kinds.Latency: _latencies,
    fault_kinds.Degraded: _degradations,
    fault_kinds.ResetConnections: lambda pairs: pairs.map(lambda pair: fault_kinds.ResetConnections(*pair)),
}

_ON_HOSTS: dict[type[Fault], Callable[[Names], st.SearchStrategy[Fault]]] = {
    fault_kinds.Isolated: lambda host: st.builds(fault_kinds.Isolated, host),
    fault_kinds.Crash: lambda host: st.builds(fault_kinds.Crash, host),
    fault_kinds.Pause: lambda host: st.builds(fault_kinds.Pause, host),
    fault_kinds.DescriptorsExhausted: _limits,
    fault_kinds.NameServerDown: lambda host: st.builds(fault_kinds.NameServerDown, st.none() | host),
    fault_kinds.Skew: _skews,
}
