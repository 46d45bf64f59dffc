"""Any course of steps, compared with the model."""

from __future__ import annotations

import os

from hypothesis import HealthCheck, Phase, given, settings

from tests.model.plans import Plan, plans
from tests.model.play import play


EXAMPLES = int(os.environ.get("N", "300"))


@given(plan=plans())
@settings(
    max_examples=EXAMPLES,
    derandomize="SEED" not in os.environ,
    deadline=None,
    suppress_health_check=list(HealthCheck),
    database=None,
    phases=(Phase.explicit, Phase.generate, Phase.shrink),
    report_multiple_bugs=False,
)
def test_simulated(plan: Plan) -> None:
    play(plan, "virtual")
