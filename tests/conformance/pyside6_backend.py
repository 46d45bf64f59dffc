"""Real Qt: scenarios recorded with PySide6, each run in a process of its own.

``python -m tests.conformance.pyside6_backend NAME...`` runs these scenarios once and prints their entries.
``python -m tests.conformance.pyside6_backend --record DIR --runs 5 NAME...`` writes trace files.  A NAME may be that of
a group, and all scenarios are meant if there is none.  ``--files`` names the files that the scenarios are in.

As root, a run has a network namespace of its own, with only a loopback, in which ``names.py`` answers for the resolver
and two addresses cannot be reached.  Otherwise it has the plain loopback, and the scenarios in ``NEEDS_NAMESPACE`` are
left out.
"""

from __future__ import annotations

import argparse
import collections
import contextlib
import difflib
import functools
import importlib.util
import json
import os
import re
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import attrs

from tests.conformance import names, trace
from tests.conformance.trace import SCENARIOS, Entry, Scenario, Trace

__all__ = [
    "NEEDS_NAMESPACE",
    "SCENARIO_FILES",
    "SHARED_FILES",
    "Recorded",
    "has_namespace",
    "left_out",
    "record",
    "write_trace",
]

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
SHARED_FILES: tuple[Path, ...] = tuple(sorted((HERE / "scenarios" / "shared").glob("*.py")))
"""The scenarios of the oracle."""
OWN_FILES: tuple[Path, ...] = tuple(sorted((HERE / "scenarios" / "own").glob("*.py")))
"""Those that it does not have, in the same format.  Most show a row of the table of behaviours for which no recording
was kept; the others are of the same kind."""
SCENARIO_FILES: tuple[Path, ...] = SHARED_FILES + OWN_FILES

# Why a scenario cannot be recorded on the plain loopback.
NAMES = "looks up names that end in .test"
ROUTES = "needs addresses that cannot be reached"
NEEDS_NAMESPACE: dict[str, str] = {
    "tcp_connect_ok_name": NAMES,
    "tcp_connect_name_cached": NAMES,
    "tcp_connect_multi_address_fallback": NAMES,
    "tcp_connect_multi_address_all_refuse": NAMES,
    "tcp_connect_both_v4_listens": NAMES,
    "tcp_connect_protocol_filter": NAMES,
    "tcp_connect_refused_name": NAMES,
    "tcp_host_not_found_wait": NAMES,
    "tcp_wait_for_connected_name": NAMES,
    "tcp_disconnect_while_lookup": NAMES,
    "tcp_abort_while_lookup": NAMES,
    "tcp_close_while_lookup": NAMES,
    "tcp_flush_while_lookup": NAMES,
    "tcp_write_during_lookup": NAMES,
    "tcp_bind_then_connect_name": NAMES,
    "tcp_values_by_state": NAMES,
    "host_info": NAMES,
    "tcp_connect_unroutable": ROUTES,
    "tcp_name_unknown_by_loop": NAMES,
    "tcp_name_unknown_then_good": NAMES,
    "tcp_second_connect_in_lookup": NAMES,
    "tcp_second_connect_in_connecting": NAMES,
    "tcp_second_connect_in_host_found_slot": NAMES,
    "tcp_wait_in_host_found_slot_name": NAMES,
    "tcp_abort_in_host_found_slot": NAMES,
    "tcp_open_and_valid_by_state": NAMES,
    "tcp_wait_for_disconnected_in_lookup": NAMES,
    "tcp_bind_in_lookup": NAMES,
    "tcp_abort_in_state_slot": NAMES,
    "socks5_ok_name": NAMES,
    "http_ok_name": NAMES,
    "http_bad_proxy": NAMES,
    "proxy_application": NAMES,
    "proxy_factory": NAMES,
    "udp_bad_destination": ROUTES,
    "udp_sticky_error": ROUTES,
    "udp_connect_by_name_then_elsewhere": NAMES,
    "ssl_ok": NAMES,
    "ssl_write_before_encrypted": NAMES,
    "ssl_disconnect_before_encrypted": NAMES,
    "ssl_untrusted": NAMES,
    "ssl_untrusted_both": NAMES,
    "ssl_ignore_before": NAMES,
    "ssl_ignore_after_connect": NAMES,
    "ssl_ignore_second_connection": NAMES,
    "ssl_ignore_list": NAMES,
    "ssl_hostname_mismatch": NAMES,
    "ssl_two_errors": NAMES,
    "ssl_verify_modes": NAMES,
    "ssl_pause_ignore_resume": NAMES,
    "ssl_pause_abort": NAMES,
    "ssl_starttls_buffered": NAMES,
    "ssl_peer_clean_close_fin": NAMES,
    "ssl_peer_truncate": NAMES,
    "ssl_abort": NAMES,
    "ssl_reuse_plain": NAMES,
    "ssl_wait_for_encrypted": NAMES,
    "ssl_client_certificate": NAMES,
    "ssl_protocol_mismatch": NAMES,
    "ssl_server_no_key": NAMES,
    "sslserver_ok": NAMES,
    "sslserver_client_refuses": NAMES,
}
"""The scenarios that need a network namespace, and so root, each with the reason."""

# The network of a run.
ROUTE_COMMANDS = (
    "ip link set lo up",
    "ip route add 224.0.0.0/4 dev lo",
    "ip route add 255.255.255.255/32 dev lo",
    "ip route add prohibit 198.51.100.9/32",
    "ip route add unreachable 198.51.100.8/32",
)

# One turn of the event loop works until nothing is left to do, but at most so many milliseconds, and then sleeps at
# most so many seconds.  The first bound is far off, so that on a busy machine, too, a turn does not stop half-way.
WORK = 100
SLEEP = 0.0005

LONGEST_RUN = 90.0
"""Of a process, in real seconds: nothing ends by it but what hangs, on a busy machine too."""


@attrs.frozen
class Recorded:
    """One run of a scenario."""

    events: list[Entry]
    outcome: str
    """``ok``, ``exception: ...``, ``process died, return code ...`` or ``hung (killed after ...)``."""
    wait: float
    """How many seconds the process took."""
    stderr: str = ""
    """What it printed, for a reader."""

    @property
    def hung(self) -> bool:
        """It took too long, as on a machine that is too busy for it: nothing is known of what Qt does."""
        return self.outcome.startswith("hung")


# ---- one run, in a process of its own ----------------------------------------------------------


@functools.cache
def has_namespace() -> bool:
    """Whether a process here can have a network of its own."""
    try:
        probe = subprocess.run(["unshare", "--net", "ip", "link", "set", "lo", "up"], capture_output=True)
    except FileNotFoundError:
        return False
    return probe.returncode == 0


def left_out(name: str) -> str | None:
    """Why this scenario cannot be recorded here, if it cannot."""
    return None if has_namespace() else NEEDS_NAMESPACE.get(name)


def record(name: str, files: Iterable[Path] = SCENARIO_FILES, *, limit: float = LONGEST_RUN) -> Recorded:
    """Run a scenario of these files once, for at most ``limit`` seconds."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "tests.conformance.pyside6_backend", name, "--into", folder]
        command += ["--files", *(str(Path(file).resolve()) for file in files)]
        if has_namespace():
            command = ["unshare", "--net", *command, "--namespace"]
        start = time.monotonic()
        try:
            process = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=limit)
        except subprocess.TimeoutExpired:
            return Recorded([], f"hung (killed after {limit:g}s)", time.monotonic() - start)
        wait = time.monotonic() - start
        result, side = Path(folder, "result"), Path(folder, "side")
        if result.exists():
            return Recorded(**json.loads(result.read_text()), wait=wait, stderr=process.stderr)
        lines = side.read_text().splitlines(keepends=True) if side.exists() else []
        events = [json.loads(line) for line in lines if line.endswith("\n")]
        return Recorded(events, f"process died, return code {process.returncode}", wait, process.stderr)


def run_here(name: str, folder: Path, namespace: bool) -> None:
    """Run a scenario in this process, and end the process.

    The entries go to the file ``side`` in the folder as they are made; all of them and the outcome to ``result``.
    """
    os.nice(10)
    if namespace:
        set_up_namespace()
    from PySide6.QtCore import QCoreApplication

    QCoreApplication(["conformance"])
    with (folder / "side").open("w") as side:
        run = Trace(PySide6Backend(), side)
        outcome = "ok"
        try:
            SCENARIOS[name].fn(run)
        except Exception as error:
            outcome = "exception: " + "".join(traceback.format_exception_only(error)).strip()
            traceback.print_exc()
        events = run.finish()
    # Moved there, so that the result of a process that was killed is not half a one.
    written = folder / "writing"
    written.write_text(json.dumps({"events": events, "outcome": outcome}))
    written.rename(folder / "result")
    # Objects of Qt are not taken apart: that is no part of the scenario, and it may crash.
    os._exit(0)


def set_up_namespace() -> None:
    """Give this process's network its routes, and its resolver answers."""
    found = re.search(r"^nameserver\s+([^\s%]+)", Path("/etc/resolv.conf").read_text(), re.MULTILINE)
    resolver = found[1] if found else "127.0.0.1"
    prefix = 128 if ":" in resolver else 32
    for command in (*ROUTE_COMMANDS, f"ip addr add {resolver}/{prefix} dev lo"):
        subprocess.run(command.split(), capture_output=True)
    names.serve(resolver)


def load(files: Iterable[Path]) -> dict[str, Scenario]:
    """The scenarios of these files, by name."""
    sys.modules["harness"] = trace  # what files from elsewhere call it
    for file in files:
        spec = importlib.util.spec_from_file_location(file.stem, file)
        assert spec is not None
        assert spec.loader is not None
        spec.loader.exec_module(importlib.util.module_from_spec(spec))
    return SCENARIOS


class PySide6Backend:
    """The backend on which scenarios run for real."""

    def __init__(self) -> None:
        from PySide6 import QtCore, QtNetwork

        self.core: Any = QtCore
        self.network: Any = QtNetwork

    def ready(self) -> bool:
        return False  # every slot acts at once

    def turn(self, seconds: float) -> None:
        self.core.QCoreApplication.processEvents(self.core.QEventLoop.ProcessEventsFlag.AllEvents, WORK)
        time.sleep(min(seconds, SLEEP))

    def now(self) -> float:
        return time.monotonic()

    def on_warning(self, record: Callable[[str], None]) -> None:
        warnings = (self.core.QtMsgType.QtWarningMsg, self.core.QtMsgType.QtCriticalMsg)

        def handle(kind: Any, _context: Any, message: str) -> None:
            if kind in warnings:
                function = re.match(r"[\w:]+(\(\))?", message)
                record(function[0] if function else message[:20])

        self.core.qInstallMessageHandler(handle)

    def connect_recorder(self, obj: Any, signal_name: str, slot: Callable[..., None]) -> None:
        getattr(obj, signal_name).connect(slot)

    def signal_view(self, obj: Any) -> dict[str, object]:
        view: dict[str, object] = {}
        with contextlib.suppress(RuntimeError):  # the object is deleted already
            if isinstance(obj, self.network.QAbstractSocket):
                view["state"] = obj.state().name
                view["error"] = obj.error().name
                # As the oracle's recorder has it: of a socket for datagrams without an address there is nothing to say.
                if not isinstance(obj, self.network.QUdpSocket) or view["state"] in ("BoundState", "ConnectedState"):
                    view["avail"] = obj.bytesAvailable()
            elif isinstance(obj, self.network.QTcpServer):
                view["has_pending"] = obj.hasPendingConnections()
        return view


# ---- a trace file, from several runs -----------------------------------------------------------


def write_trace(folder: Path, name: str, runs: Sequence[Recorded]) -> None:
    """Write ``NAME.json``: the most frequent run, the others, and what they have in common.

    The scenario must have been loaded.
    """
    import PySide6
    from PySide6.QtCore import QCoreApplication, qVersion
    from PySide6.QtNetwork import QSslSocket

    if QCoreApplication.instance() is None:
        QCoreApplication(["conformance"])  # or Qt warns when it loads OpenSSL
    scenario = SCENARIOS[name]
    document = {
        "name": name,
        "group": scenario.group,
        "doc": scenario.doc,
        "qt": qVersion(),
        "pyside6": PySide6.__version__,
        "openssl": QSslSocket.sslLibraryVersionString(),
        "platform": sys.platform,
        "netns": has_namespace(),
        "outcomes": dict(collections.Counter(run.outcome for run in runs)),
        **analyse([run.events for run in runs]),
    }
    text = json.dumps(document, indent=1, ensure_ascii=False)
    (folder / f"{name}.json").write_text(text + "\n")


def analyse(runs: Sequence[list[Entry]]) -> dict[str, Any]:
    """``order``, ``trace`` and ``variants``, as a trace file has them."""
    texts = [tuple(map(as_text, run)) for run in runs]
    counts = collections.Counter(texts)
    (most_frequent, _), *others = counts.most_common()
    # An entry is stable if the longest order in common with each other run has it.
    stable = set(range(len(most_frequent)))
    for other, _ in others:
        matcher = difflib.SequenceMatcher(a=list(most_frequent), b=list(other), autojunk=False)
        stable &= {i for start, _, size in matcher.get_matching_blocks() for i in range(start, start + size)}
    entries = runs[texts.index(most_frequent)]
    if others:
        entries = [{**entry, "stable": i in stable} for i, entry in enumerate(entries)]
    objects = sorted({entry["obj"] for run in runs for entry in run if "obj" in entry})
    order = {
        "runs": len(runs),
        "distinct_traces": len(counts),
        "total_order_stable": len(counts) == 1,
        "signal_order_stable_per_object": {obj: len({signals(run, obj) for run in runs}) == 1 for obj in objects},
        "same_multiset_of_entries": len({tuple(sorted(run)) for run in counts}) == 1,
    }
    variants = [{"count": count, "trace": [json.loads(text) for text in run]} for run, count in others]
    return {"order": order, "trace": entries, "variants": variants}


def as_text(entry: Entry) -> str:
    return json.dumps(entry, sort_keys=True)


def signals(run: list[Entry], obj: str) -> tuple[str, ...]:
    """The signals of an object, without what it was like then."""
    seen = ("avail", "error", "state", "has_pending")
    mine = (entry for entry in run if entry["k"] == "signal" and entry["obj"] == obj)
    return tuple(as_text({key: value for key, value in entry.items() if key not in seen}) for entry in mine)


# ---- the command -------------------------------------------------------------------------------


def main() -> None:
    parser = argparse.ArgumentParser(prog="pyside6_backend", description="Run scenarios on real Qt.")
    parser.add_argument("names", nargs="*", metavar="NAME", help="scenarios or groups (default: all)")
    parser.add_argument("--files", nargs="+", type=Path, default=SCENARIO_FILES, help="where the scenarios are")
    parser.add_argument("--record", type=Path, metavar="DIR", help="write trace files there")
    parser.add_argument("--runs", type=int, default=5, help="of how many runs each (default: 5)")
    parser.add_argument("--into", type=Path, help=argparse.SUPPRESS)  # the worker of `record`
    parser.add_argument("--namespace", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    scenarios = load(arguments.files)
    if arguments.into:
        run_here(arguments.names[0], arguments.into, arguments.namespace)
    wanted = set(arguments.names)
    unknown = wanted - scenarios.keys() - {scenario.group for scenario in scenarios.values()}
    if unknown:
        parser.error(f"no such scenario: {', '.join(sorted(unknown))}")
    for name, scenario in scenarios.items():
        if wanted and not wanted & {name, scenario.group}:
            continue
        if reason := left_out(name):
            print(f"{name}: left out, {reason}")
        elif arguments.record:
            arguments.record.mkdir(parents=True, exist_ok=True)
            runs = [record(name, arguments.files) for _ in range(arguments.runs)]
            outcomes = collections.Counter(run.outcome for run in runs)
            print(f"{name}: " + ", ".join(f"{outcome} ({count})" for outcome, count in outcomes.items()))
            if any(run.hung for run in runs):
                print(f"{name}: not written, for of a run that was killed nothing is known")
            else:
                write_trace(arguments.record, name, runs)
        else:
            run = record(name, arguments.files)
            print(f"{name}: {run.outcome}")
            for entry in run.events:
                print(f"    {json.dumps(entry)}")


if __name__ == "__main__":
    main()
