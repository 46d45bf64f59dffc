"""The benchmarks run, and notice wrong bytes.  How fast anything was never decides a test."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from tests.peers import peer_command

RUN = Path(__file__).parents[1] / "benchmarks" / "run.py"

# A package that calls itself trioqt, and whose echo changes one byte in five messages.
DISHONEST = """
import trio

class Socket:
    def __init__(self, stream):
        self.stream = stream
        self.messages = 0

    async def receive_some(self):
        self.messages += 1
        data = await self.stream.receive_some()
        return data[:-1] + b"?" if self.messages % 5 == 0 else data

    async def send_all(self, data):
        await self.stream.send_all(data)

class TcpServer:
    async def __aenter__(self):
        return self

    async def __aexit__(self, *exc_info):
        pass

    async def listen(self, host, *, backlog):
        self.listeners = await trio.open_tcp_listeners(0, host=host, backlog=backlog)

    def server_port(self):
        return self.listeners[0].socket.getsockname()[1]

    async def serve(self, handler):
        await trio.serve_listeners(lambda stream: handler(Socket(stream)), self.listeners)
"""


def run_benchmarks(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(RUN), "--rounds", "1", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=300)


def test_every_benchmark_completes_with_the_right_bytes(tmp_path: Path) -> None:
    """One short round of everything: each server answers, and the load generator accepts what it says."""
    peer_command("gcc")
    file = tmp_path / "figures.json"

    done = run_benchmarks("--seconds", "0.2", "--json", str(file))

    assert done.returncode == 0, done.stdout + done.stderr
    figures: dict[str, dict[str, Any]] = json.loads(file.read_text())["benchmarks"]
    assert list(figures) == ["echo-1", "echo-100", "lines", "send", "receive", "idle"]
    for name, benchmark in figures.items():
        assert benchmark["missing"] == benchmark["failed"] == {}, name
        for server, result in benchmark["servers"].items():
            assert name == "idle" or result["samples"][0]["work"] > 0, (name, server)


def test_the_benchmark_of_the_simulated_network_completes() -> None:
    """Two scenarios and a crowd, small; it says what it was to say."""
    program = RUN.with_name("network.py")

    done = subprocess.run(
        [sys.executable, str(program), "--rounds", "1", "--trips", "20", "--connections", "50"],
        capture_output=True,
        text=True,
        timeout=120,
    )

    assert done.returncode == 0, done.stdout + done.stderr
    names = [line[:28].rstrip() for line in done.stdout.splitlines()]
    assert names[1:4] == ["trio.sleep", "deliveries, our sockets", "deliveries, trio's streams"]
    assert "50 connections held at once" in done.stdout


def test_an_echo_that_changes_a_byte_fails_the_run(tmp_path: Path) -> None:
    """A fast server that answers wrongly is not fast."""
    peer_command("gcc")
    package = tmp_path / "trioqt"
    package.mkdir()
    (package / "__init__.py").write_text(DISHONEST)

    done = run_benchmarks("--only", "echo-1", "--servers", "send_all@", "--seconds", "0.5", "--against", str(tmp_path))

    assert done.returncode == 1, done.stdout + done.stderr
    assert "wrong bytes came back" in done.stderr
    assert f"trioqt-send_all@{tmp_path.name}" in done.stderr
