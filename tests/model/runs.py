"""How many examples are drawn, and how many steps were played."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

from hypothesis import HealthCheck, Phase, settings

__all__ = ["bounded"]

# TRIOQT_MODEL=N: N times as many, and others each time.  Once is about a minute.
SOAK = int(os.environ.get("TRIOQT_MODEL", "1"))


def bounded(examples: int) -> Callable[[Any], Any]:
    """So many, and always the same ones."""
    return settings(
        max_examples=examples * SOAK,
        derandomize=SOAK == 1,
        database=None,
        deadline=None,
        report_multiple_bugs=False,
        phases=(Phase.explicit, Phase.generate, Phase.shrink),
        suppress_health_check=list(HealthCheck),
    )
