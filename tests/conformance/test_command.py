"""``python -m tests.conformance``, for scenario files and traces from elsewhere too."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from tests.conformance import pyside6_backend
from tests.conformance.__main__ import main
from tests.conformance.catalogue import TRACES, recorded
from tests.conformance.pyside6_backend import Recorded
from tests.conformance.trace import Scenario
from tests.peers import peer_module

# As the oracle has them.
PROGRAM = """
from PySide6.QtCore import QTimer
from PySide6.QtNetwork import QAbstractSocket, QHostAddress, QTcpServer, QTcpSocket

from harness import scenario

LH = QHostAddress('127.0.0.1')


@scenario('connection refused (IP), event loop', 'tcp')
def tcp_connect_refused(t):
    p = t.closed_port()
    c = t.tcp()
    t.call(c, 'connectToHost', LH, p)
    t.until(lambda: t.seen('client', 'error_occurred'))
    t.spin()
    t.status(c)
"""


@pytest.fixture
def program(tmp_path: Path) -> Path:
    file = tmp_path / "scenarios_elsewhere.py"
    file.write_text(PROGRAM)
    return file


def run_command(monkeypatch: pytest.MonkeyPatch, *arguments: object) -> int:
    monkeypatch.setattr(sys, "argv", ["conformance", *map(str, arguments)])
    monkeypatch.setattr("logging.disable", lambda: None)
    return main()


def test_a_scenario_file_from_elsewhere_is_compared_with_its_traces(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], program: Path
) -> None:
    status = run_command(monkeypatch, "--files", program, "--traces", TRACES)

    assert status == 0
    assert capsys.readouterr().out.startswith("1 scenarios: 0 the same, 1 by general rules, 0 deviating")


def test_a_difference_is_shown_line_by_line_and_is_a_failure(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], program: Path, tmp_path: Path
) -> None:
    trace = json.loads((TRACES / "tcp_connect_refused.json").read_text(encoding="utf-8"))
    (signal,) = [entry for entry in trace["trace"] if entry.get("name") == "error_occurred"]
    signal["state"] = "ConnectingState"
    (tmp_path / "tcp_connect_refused.json").write_text(json.dumps(trace), encoding="utf-8")

    status = run_command(monkeypatch, "--files", program, "--traces", tmp_path)

    first, qt, ours, _ = capsys.readouterr().out.splitlines()
    assert status == 1
    assert first == "tcp_connect_refused: deviating, not as listed"
    assert qt.startswith("    client: -error_occurred(ConnectionRefusedError) [state=ConnectingState ")
    assert ours.startswith("    client: +error_occurred(ConnectionRefusedError) [state=UnconnectedState ")


LACKING = """
from PySide6.QtNetwork import QHostAddress, QLocalSocket, QSslSocket
from PySide6.QtTest import QSignalSpy

from harness import scenario

VERIFY = QSslSocket.PeerVerifyMode.VerifyPeer


class Local(QLocalSocket):
    pass


@scenario('a class that trioqt does not have', 'local')
def local(t):
    t.watch(Local(), 'local')


@scenario('what trioqt has', 'tcp')
def tcp_connect_refused(t):
    p = t.closed_port()
    c = t.tcp()
    t.call(c, 'connectToHost', QHostAddress('127.0.0.1'), p)
    t.until(lambda: t.seen('client', 'error_occurred'))
    t.spin()
    t.status(c)
"""


def test_a_file_that_imports_a_class_that_is_lacking_runs_its_other_scenarios(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """Only what uses the class fails; and afterwards no such module is left."""
    file = tmp_path / "scenarios_elsewhere.py"
    file.write_text(LACKING)
    nothing = {"trace": [{"k": "note", "text": "as Qt does"}], "variants": []}
    (tmp_path / "local.json").write_text(json.dumps(nothing), encoding="utf-8")
    (tmp_path / "tcp_connect_refused.json").write_bytes((TRACES / "tcp_connect_refused.json").read_bytes())

    status = run_command(monkeypatch, "--files", file, "--traces", tmp_path)

    *lines, summary = capsys.readouterr().out.splitlines()
    assert status == 1
    assert lines == [
        "local: deviating, not as listed",
        "    +exception: NotImplementedError: not in trioqt",
        '    program: -{"k": "note", "text": "as Qt does"}',
    ]
    assert summary.startswith("2 scenarios: 0 the same, 1 by general rules, 1 deviating")
    assert "PySide6.QtTest" not in sys.modules


def test_a_name_that_no_scenario_has_is_refused(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """All that are none, beside one that is; and what would have been a group is said."""
    with pytest.raises(SystemExit) as refused:
        run_command(monkeypatch, "no_such_scenario", "tcp_connect_refused", "another")

    assert refused.value.code == 2
    err = capsys.readouterr().err
    assert "no such scenario: another, no_such_scenario; the groups are " in err
    assert {"tcp", "udp"} <= set(err.rpartition("the groups are ")[2].strip().split(", "))


def test_a_qt_that_hung_is_told_and_nothing_is_compared_with_it(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """As on a machine that has other things to do: what Qt would have done is not known, so it is no deviation."""
    runs = {
        "tcp_connect_localhost": Recorded([], "hung (killed after 90s)", 90.0),
        "tcp_connect_refused": Recorded(recorded("tcp_connect_refused")[0], "ok", 0.1),
    }
    monkeypatch.setattr("tests.conformance.__main__.record", lambda name, _: runs[name])
    monkeypatch.setattr("tests.conformance.__main__.left_out", lambda _: None)

    status = run_command(monkeypatch, "--live", "tcp_connect_refused", "tcp_connect_localhost")

    told, summary = capsys.readouterr().out.splitlines()
    assert (status, told) == (1, "tcp_connect_localhost: on Qt: hung (killed after 90s)")
    assert summary.startswith("1 scenarios: 0 the same, 1 by general rules, 0 deviating")


def test_a_trace_with_a_run_that_hung_is_not_written(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """Four runs of five are no trace: the fifth would stand in it as a Qt that does nothing."""
    runs = iter([Recorded([], "ok", 0.1)] * 4 + [Recorded([], "hung (killed after 90s)", 90.0)])
    monkeypatch.setattr(pyside6_backend, "load", lambda _: {"tcp_one": Scenario(lambda t: None, "one", "tcp")})
    monkeypatch.setattr(pyside6_backend, "record", lambda *_: next(runs))
    monkeypatch.setattr(sys, "argv", ["pyside6_backend", "--record", str(tmp_path), "tcp_one"])

    pyside6_backend.main()

    first, second = capsys.readouterr().out.splitlines()
    assert first == "tcp_one: ok (4), hung (killed after 90s) (1)"
    assert second.startswith("tcp_one: not written")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["tcp_connect_refused", "udp_close"])
def test_a_qt_that_runs_now_says_what_the_recorded_one_has_said(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    """The recorder beside Qt notes what was noted for the traces, of a datagram socket without an address too."""
    peer_module("PySide6.QtNetwork")

    status = run_command(monkeypatch, "--live", name)

    assert (status, capsys.readouterr().out.splitlines()[:-1]) == (0, [])
