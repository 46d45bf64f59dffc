"""The table of a row, on the terminal."""

from __future__ import annotations

from benchmarks.speed.results import Figures


def human(value: float) -> str:
    """``1,234`` up to ten thousand, then ``12.3k``, ``1.23M``, ``12.3G``."""
    if value < 10_000:
        return f"{value:,.0f}"
    digits = float(f"{value:.3g}")
    scale, letter = next(pair for pair in ((1e9, "G"), (1e6, "M"), (1e3, "k")) if digits >= pair[0])
    return f"{digits / scale:.{3 if digits / scale < 1000 else 4}g}{letter}"


def duration(seconds: float) -> str:
    """``85 us``, ``1.2 ms``, ``2.1 s``."""
    for scale, unit in ((1e-3, "us"), (1.0, "ms")):
        if seconds < scale:
            value = seconds / scale * 1000
            return f"{value:.0f} {unit}" if value >= 10 else f"{value:.1f} {unit}"
    return f"{seconds:.1f} s"


def row_table(name: str, row: Figures) -> str:
    """Several lines: what was measured of each server, and who was not measured and why."""
    less = row["less_is_better"]
    base = "x " + row["base"].removeprefix("trioqt-").replace("the same ", "")
    heads = ("first", "B/conn") if less else ("rate", "per CPU-s")
    head = f"{'server':<24} {heads[0]:>9} {heads[1]:>10} {'spread':>7} {base:>8} {'low..high':>11}"
    head += f" {'p50':>7} {'p99':>7} {'starved':>7} {'waited':>7} {'goal':>7}  reached"
    lines = [f"{name}: {row['title']}; {row['unit']}", head, "-" * len(head)]
    for server, result in row["servers"].items():
        ratio = f"{result['ratio']:.2f}" if result["ratio"] is not None else ""
        span = f"{result['low']:.2f}..{result['high']:.2f}" if result["ratio"] is not None else ""
        first = result["first"] if less else result["rate"]
        p50, p99 = (duration(result[key]) if result.get(key) is not None else "" for key in ("p50", "p99"))
        starved = "" if result.get("starved") is None else f"{result['starved']:,}"
        waited = "" if less else f"{result['waited']:.0%}"
        goal = f"{'<=' if less else '>='}{result['goal']:.2f}" if result["goal"] is not None else ""
        reached = {True: "yes", False: "NO", None: ""}[result["reached"]]
        lines.append(
            f"{server:<24} {human(first):>9} {human(result['merit']):>10} {result['spread']:>6.0%} {ratio:>8}"
            f" {span:>11} {p50:>7} {p99:>7} {starved:>7} {waited:>7} {goal:>7}  {reached}".rstrip()
        )
    for server, result in row["servers"].items():
        if lost := result.get("lost"):
            lines.append(f"{server:<24} {lost:,} datagrams were lost")
    lines += [f"{server:<24} not measured: {reason}" for server, reason in row["missing"].items()]
    lines += [f"{server:<24} FAILED: {reason}" for server, reason in row["failed"].items()]
    return "\n".join(lines)


def facts(figures: Figures) -> str:
    """``Python 3.11.7, trio 0.35.0, ...; 5 rounds of 0.7 s``, in one line."""
    machine = ", ".join(f"{key} {value}" for key, value in figures["machine"].items())
    rounds = f"{figures['rounds']} round" + ("s" if figures["rounds"] > 1 else "")
    return f"{machine}; {rounds} of {figures['seconds']:g} s"
