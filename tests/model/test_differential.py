"""The same program on every network, over a socket and over a stream, watched and not: the same outcome."""

from __future__ import annotations

import itertools

import attrs
from hypothesis import assume, given, strategies as st

from tests.model.plans import ENDING, PEER_OF_FEW_BYTES, Plan
from tests.model.play import Played, play
from tests.model.runs import bounded

WAYS = tuple(itertools.product(("virtual", "loopback"), ("connected", "stream"), (False, True)))

FEW = st.sampled_from([1, 3, 10, 64, 1000])

# Without the calls that look at what the system holds, which a stream cannot be asked for, and those that ask for the
# state, of which one who watches learns sooner.
CALLS = st.one_of(
    st.sampled_from(["receive_some", "receive_line 64", "receive_line 65536", "receive_until", "wait_for_ready_read"]),
    st.sampled_from(["receive_some 3", "receive_exactly 1", "receive_exactly 10", "receive_exactly 100"]),
    FEW.map("send_all {}".format),
    FEW.map("write {}".format),
    st.sampled_from(["send_eof", "wait_for_bytes_written", "wait_send_all_might_not_block", "wait_for_disconnected"]),
    ENDING,
    st.sampled_from(["abort", "abort_reset"]),
)
STEPS = st.lists(
    st.one_of(
        CALLS.map("a {}".format),
        CALLS.map("b {}".format),
        PEER_OF_FEW_BYTES.map("peer {}".format),
        PEER_OF_FEW_BYTES.map("peer {}".format),
        st.sampled_from(["cancel a", "cancel b"]),
    ),
    min_size=1,
    max_size=10,
)


def cut(steps: list[str], half_open: bool) -> tuple[str, ...]:
    """Without what a stream must do otherwise, and without what shows only how soon the peer's reset is known.

    A system takes what is sent at once, and refuses it at once when the peer is gone.  Over a stream a task does that,
    in the next turn; a task that was held up may abort before.  And it has a goodbye to say where a system has ended at
    once with its peer.
    """
    kept: list[str] = []
    gone = sent = False
    aborted, received = False, set[str]()
    for step in steps:
        who, verb, *_ = step.split()
        receives = verb.startswith(("receive", "wait_for_ready"))
        sends = verb.startswith(("send", "write", "wait_send", "wait_for_bytes"))
        if who in ("a", "b"):
            if sends and (gone or who in received):
                continue
            if (verb.startswith("abort") and sent) or (receives and aborted and gone):
                continue
            if receives and not half_open:
                received.add(who)  # which may end with the peer, and so does what follows
            sent = sent or sends
            aborted = aborted or verb.startswith("abort")
        kept.append(step)
        gone = gone or step in ("peer reset", "peer close")
    return tuple(kept)


def outcome(played: Played) -> dict[str, list[str]]:
    """What each task's calls came to, and what the peer saw."""
    found = {"peer": list(played.peers)}
    for line in played.log:
        if line.startswith(("  a ", "  b ")):
            who, _, what = line.strip().partition(" ")
            found.setdefault(who, []).append(what)
    return found


@given(steps=STEPS, half_open=st.sampled_from([True, True, False]))
@bounded(60)
def test_the_same_program_has_the_same_outcome_everywhere(steps: list[str], half_open: bool) -> None:
    """Eight times: loopback and the simulated network, a socket and a stream, watched and unwatched."""
    plan = Plan(cut(steps, half_open), half_open=half_open)
    outcomes = {way: outcome(play(attrs.evolve(plan, begins=way[1], watched=way[2]), way[0])) for way in WAYS}
    # Two tasks that go on in the same step are in each other's way by lot.
    assume(not any(line.endswith(": busy") for found in outcomes.values() for who in found for line in found[who]))
    first = outcomes[WAYS[0]]
    differing = {way: found for way, found in outcomes.items() if found != first}
    assert not differing, f"{WAYS[0]}: {first}"
