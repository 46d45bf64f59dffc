"""Any course of steps of two tasks and a peer, in any order and in the same step, compared with the model."""

from __future__ import annotations

from collections.abc import Callable

from hypothesis import example, given, strategies as st

from tests.model.plans import Plan, plans
from tests.model.play import play
from tests.model.runs import bounded

# How many plans are drawn: about forty seconds and about ten on the machine that this was made on.
SIMULATED, LOOPBACK = 900, 200

steps = {"virtual": 0, "loopback": 0}


@given(plan=plans())
@example(plan=Plan(("a disconnect_from_host", "~ main adopt")))
@example(plan=Plan(("peer send 1000", "main write 10", "a leave"), read_buffer_size=10))
@example(plan=Plan(("b connect", "a send_all 1", "main abort_reset"), begins="unconnected"))
@example(plan=Plan(("a receive_some", "main write 1", "+ b disconnect_from_host", "+ peer reset"), begins="stream"))
@example(plan=Plan(("a receive_line 64", "peer send 10", "main set_read_buffer_size 10"), watched=True))
@bounded(SIMULATED)
def simulated(plan: Plan) -> None:
    steps["virtual"] += play(plan, "virtual").steps


# Nothing here may depend on how much a kernel takes.
@given(plan=plans(seed=st.just(0)))
@bounded(LOOPBACK)
def over_loopback(plan: Plan) -> None:
    steps["loopback"] += play(plan, "loopback").steps


def test_any_course_of_steps_is_as_the_model_says(record_property: Callable[[str, object], None]) -> None:
    """On the simulated network, on a schedule that the plan says."""
    simulated()
    record_property("model", steps["virtual"])


def test_any_course_of_steps_is_as_the_model_says_over_loopback(
    record_property: Callable[[str, object], None],
) -> None:
    """On the kernel's network."""
    over_loopback()
    record_property("model", steps["loopback"])
