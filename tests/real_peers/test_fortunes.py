"""Qt's fortune client hears our fortune servers, and our clients hear Qt's."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
import trio

from tests.networks import Loopback
from tests.peers import peer_module
from tests.real_peers.programs import running
from trioqt import TcpServer

ROOT = Path(__file__).parents[2]
QT = str(Path(__file__).with_name("qt_fortune.py"))

# One that needs two bytes for a character, and one that needs four.
FORTUNE = "Grüße, und \N{FOUR LEAF CLOVER}!"


@pytest.fixture
def python() -> str:
    """A Python that has Qt."""
    return peer_module("PySide6.QtNetwork")


def example(name: str) -> dict[str, Any]:
    """The names that an example defines."""
    path = ROOT / "examples" / f"{name}.py"
    names: dict[str, Any] = {"__name__": "example"}
    exec(compile(path.read_text(), str(path), "exec"), names)
    return names


async def serve(main: Callable[[], Awaitable[None]], names: dict[str, Any], *, task_status: Any) -> None:
    """Run a server's ``main`` on a free port, which is told."""

    class Anywhere(TcpServer[Any]):
        async def listen(self, host: Any = "", port: int = 0, **options: Any) -> None:
            await super().listen(host, 0, **options)
            task_status.started(self.server_port())

    names["TcpServer"] = Anywhere
    await main()


@pytest.mark.parametrize("server", ["fortune_server", "threaded_fortune_server", "fortune_server_with_workers"])
async def test_qts_client_hears_a_fortune_of_ours(
    network: Loopback, nursery: trio.Nursery, python: str, server: str
) -> None:
    """From each of the three, in its QDataStream, and then the end; no error is told."""
    names = example(server)
    names["FORTUNES"] = [FORTUNE]
    port = await nursery.start(serve, names["main"], names)

    with trio.fail_after(60):
        async with running(python, QT, "client", str(port)) as program:
            heard = (await program.out.everything()).decode().splitlines()

    # What QTcpSocket calls an error is the peer's end.
    assert heard == [FORTUNE, "error: The remote host closed the connection"]


async def test_our_clients_hear_a_fortune_of_qts(network: Loopback, python: str) -> None:
    """The one that waits in trio, and the blocking one, in a thread."""
    receive_fortune, get_fortune = example("fortune_client")["receive_fortune"], example("blocking_fortune_client")
    with trio.fail_after(60):
        async with running(python, QT, "server", FORTUNE) as program:
            port = int(await program.out.line())
            heard = [
                await receive_fortune("127.0.0.1", port),
                await trio.to_thread.run_sync(get_fortune["get_fortune"], "127.0.0.1", port),
            ]

    assert heard == [FORTUNE, FORTUNE]
