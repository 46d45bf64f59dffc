"""What the samples come to: medians, ratios within a round, and the JSON that everything printed is made from."""

from __future__ import annotations

import os
import platform
import statistics
import time
from collections.abc import Sequence
from importlib import metadata
from typing import Any

from benchmarks.speed.measure import Memory, Sample, Taken
from benchmarks.speed.processes import label

Figures = dict[str, Any]
"""The JSON: ``machine``, ``rounds``, ``seconds``, and ``rows`` by name."""

PACKAGES = ("trio", "anyio", "uvloop", "PySide6_Essentials")


def machine() -> dict[str, Any]:
    """Where and with what it was measured."""
    versions = {}
    for package in PACKAGES:
        try:
            versions[package.partition("_")[0]] = metadata.version(package)
        except metadata.PackageNotFoundError:
            pass
    return {
        "date": time.strftime("%Y-%m-%d"),
        "Python": platform.python_version(),
        **versions,
        "system": f"{platform.system()} {platform.release()}",
        "cores": os.cpu_count(),
        "load": round(os.getloadavg()[0], 2),
    }


def summarise(taken: Taken) -> Figures:
    """The JSON of a row."""
    row = taken.row
    return {
        "title": row.title,
        "unit": row.mode.unit,
        "base": row.mode.base or "the same alone",
        "less_is_better": row.mode.less_is_better,
        "servers": {name: summary(taken, name) for name, samples in taken.samples.items() if samples},
        "missing": taken.missing,
        "failed": taken.failed,
    }


def summary(taken: Taken, name: str) -> Figures:
    row, samples = taken.row, taken.samples[name]
    merits = [sample.merit for sample in samples]
    merit = statistics.median(merits)
    # Round by round, because the speed of a shared machine drifts: neighbours in time are compared.
    base = taken.samples.get(row.base_of(name), [])
    ratios = [ours.merit / theirs.merit for ours, theirs in zip(samples, base, strict=False) if theirs.merit]
    ratio = statistics.median(ratios) if ratios else None
    goal = row.goals.get(name.partition("@")[0])
    reached = None
    if goal is not None and ratio is not None:
        reached = ratio <= goal if row.mode.less_is_better else ratio >= goal
    return {
        "label": label(name),
        "merit": merit,
        "spread": (max(merits) - min(merits)) / 2 / merit if merit else 0.0,
        "ratio": ratio,
        "low": min(ratios, default=None),
        "high": max(ratios, default=None),
        "goal": goal,
        "reached": reached,
        **middle(samples),
        "samples": [vars(sample) for sample in samples],
    }


def middle(samples: Sequence[Sample] | Sequence[Memory]) -> Figures:
    """The medians of what else there is."""
    memories = [sample for sample in samples if isinstance(sample, Memory)]
    if memories:
        return {"first": statistics.median(memory.first for memory in memories)}
    works = [sample for sample in samples if isinstance(sample, Sample)]
    starved = [sample.starved for sample in works if sample.starved is not None]
    return {
        "rate": statistics.median(sample.rate for sample in works),
        "p50": median_of([sample.p50 for sample in works]),
        "p99": median_of([sample.p99 for sample in works]),
        # "Nobody is starved" is said of every round.
        "starved": max(starved, default=None),
        "lost": sum(sample.lost for sample in works),
        "waited": statistics.median(sample.waited / sample.seconds for sample in works),
    }


def median_of(values: list[float | None]) -> float | None:
    there = [value for value in values if value is not None]
    return statistics.median(there) if there else None


def as_json(rows: dict[str, Figures], rounds: int, seconds: float) -> Figures:
    return {"machine": machine(), "rounds": rounds, "seconds": seconds, "rows": rows}
