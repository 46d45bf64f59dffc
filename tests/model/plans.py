"""What a run of the model is made of: how it begins, and the steps that two tasks and a peer take.

A step is a line of text, so that a plan that failed can be read, and kept as it was printed:
``"a receive_line 64"``, ``"+ b abort"``, ``"~ peer send 3"``.
``a`` and ``b`` are tasks with calls on one socket, ``main`` makes calls that do not wait, ``peer`` is the other end of
the connection.  Before each step everything comes to rest, but ``+`` is in the same step of the program as the line
above, and ``~`` one turn of the other tasks later.
"""

from __future__ import annotations

import attrs
from hypothesis import strategies as st

__all__ = ["ENDING", "PEER_OF_FEW_BYTES", "Plan", "plans"]

SIZES = st.sampled_from([1, 3, 10, 64, 100, 1000, 70_000, 400_000])
SMALL = st.sampled_from([1, 3, 10, 64, 1000])
LIMITS = st.sampled_from([10, 100, 4096, 65536])


BEGINS = [*["connected"] * 3, *["unconnected"] * 2, *["accepted"] * 2, "parent", "stream", "stream", "pipe", "tls"]


@attrs.frozen
class Plan:
    """A run."""

    steps: tuple[str, ...]
    seed: int = 0
    begins: str = "connected"
    watched: bool = False
    half_open: bool = True
    read_buffer_size: int = 65536
    write_buffer_size: int = 65536
    flush_timeout: float = 10.0


def _with(verb: str, number: st.SearchStrategy[int]) -> st.SearchStrategy[str]:
    return number.map(lambda value: f"{verb} {value}")


def _some(*verbs: str) -> st.SearchStrategy[str]:
    return st.sampled_from(verbs)


NOW = st.one_of(
    _with("write", SIZES),
    _with("read", SMALL),
    _some("read_all", "read_line", "peek 10", "can_read_line", "bytes_available", "flush", "peer_has_finished"),
    _some("abort", "abort_reset", "adopt"),
    _with("set_read_buffer_size", LIMITS),
    _some("start_transaction", "commit_transaction", "rollback_transaction", "rollback_transaction"),
)
WAITING = st.one_of(
    _some("receive_some", "wait_for_ready_read", "receive_line 64", "receive_line 65536", "receive_until"),
    _with("receive_some", SMALL),
    _with("receive_exactly", st.sampled_from([0, 1, 10, 100, 5000])),
    _with("send_all", SIZES),
    _some("send_eof", "wait_for_bytes_written", "wait_send_all_might_not_block"),
    _some("wait_for_connected", "wait_for_disconnected"),
)
ENDING = _some("disconnect_from_host", "disconnect_from_host", "disconnect_from_host", "leave", "aclose")
BEGINNING = _some("connect", "connect", "connect", "connect_refused")
PEER = st.one_of(
    _with("send", SIZES),
    _with("send_line", SMALL),
    _with("read", st.sampled_from([10, 1000, 100_000, 1_000_000])),
    _some("finish", "reset", "close"),
)
PEER_OF_FEW_BYTES = st.one_of(
    _with("send", SMALL), _with("send_line", SMALL), _some("read 1000", "finish", "reset", "close")
)

TASK = st.one_of(WAITING, WAITING, NOW, BEGINNING, ENDING, _some("subscribe", "unsubscribe"))
STEP = st.one_of(
    TASK.map("a {}".format),
    TASK.map("b {}".format),
    NOW.map("main {}".format),
    PEER.map("peer {}".format),
    PEER.map("peer {}".format),
    _some("cancel a", "cancel b", "wait 0.5", "main drain"),
)
STEPS = st.lists(st.tuples(st.sampled_from(["", "", "+ ", "~ "]), STEP).map("".join), min_size=1, max_size=14)


def plans(**fixed: st.SearchStrategy[object]) -> st.SearchStrategy[Plan]:
    """Any plan; ``fixed`` are strategies in place of its own."""
    return st.builds(
        Plan,
        **{
            "steps": STEPS.map(tuple),
            "seed": st.integers(0, 99),
            "begins": _some(*BEGINS),
            "watched": st.booleans(),
            "half_open": st.sampled_from([True, True, True, False]),
            "read_buffer_size": st.sampled_from([65536, 65536, 100, 10]),
            "write_buffer_size": st.sampled_from([65536, 65536, 100, 1]),
            "flush_timeout": st.sampled_from([10.0, 10.0, 0.2]),
        }
        | fixed,
    )
