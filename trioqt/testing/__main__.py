"""``python -m trioqt.testing replay package.module:main --seed 7``: the line that a failed simulation ends with."""

from __future__ import annotations

import argparse
import ast
import math
import shlex
import sys
from collections.abc import Sequence

from trioqt.testing.network.fault_plan import FaultPlan
from trioqt.testing.simulation.guards import PATIENCE, STEPS, VIRTUAL_TIME
from trioqt.testing.simulation.simulate import Settings, Simulation
from trioqt.testing.simulation.targets import Target
from trioqt.testing.simulation.worlds import EPOCH, Epoch, checked_epoch


def main(arguments: Sequence[str] | None = None) -> None:
    """Run what the command line says."""
    parser = argparse.ArgumentParser(prog="python -m trioqt.testing")
    commands = parser.add_subparsers(dest="command", required=True, metavar="command")
    replay = commands.add_parser("replay", help="simulate a function once more with the seed that failed")
    replay.add_argument("target", help="package.module:function or path/to/file.py:function")
    replay.add_argument("--seed", type=int, default=0)
    replay.add_argument("--args", type=ast.literal_eval, default=(), help="what comes after the network, as a tuple")
    replay.add_argument("--latency", type=float, default=0.0)
    replay.add_argument("--loss", type=float, default=0.0)
    replay.add_argument("--jitter", type=float, default=0.0)
    replay.add_argument("--bandwidth", type=float, default=math.inf)
    replay.add_argument("--network", help="a function that makes the network of a seed, spelled like the target")
    replay.add_argument("--faults", type=FaultPlan.from_json, help="a plan of faults, as JSON")
    replay.add_argument("--virtual-time", type=float, default=VIRTUAL_TIME)
    replay.add_argument("--steps", type=float, default=STEPS)
    replay.add_argument("--patience", type=float, default=PATIENCE)
    replay.add_argument("--real-network", action="store_true")
    replay.add_argument("--epoch", type=_epoch, default=EPOCH, help="seconds since 1970, or: real")
    replay.add_argument("--real-entropy", action="store_true")
    replay.add_argument("--threads", choices=("inline", "real"), default="inline")
    options = parser.parse_args(arguments)
    try:
        function = Target.parse(options.target).load()
        network = None if options.network is None else Target.parse(options.network).load()
    except ValueError as exc:
        replay.error(str(exc))
    try:
        settings = Settings(
            options.latency,
            network,
            options.faults,
            options.virtual_time,
            options.steps,
            options.patience,
            options.real_network,
            options.epoch,
            not options.real_entropy,
            options.threads,
            options.loss,
            options.jitter,
            options.bandwidth,
        )
    except ValueError as exc:
        replay.error(str(exc))
    again = shlex.join(["python", "-m", "trioqt.testing", *(sys.argv[1:] if arguments is None else arguments)])
    finished = Simulation(function, options.args, options.seed, settings, f"seed {options.seed}", again).run()
    print(
        f"seed {options.seed}: over after {finished.time:g} virtual seconds and {len(finished.events):,} events,"
        f" digest {finished.digest}"
    )


def _epoch(text: str) -> Epoch:
    return None if text == "real" else checked_epoch(float(text))


if __name__ == "__main__":
    main()
