"""A server that systemd listens for: see docs/howto/systemd_socket.md."""

import os
from collections.abc import Mapping

import trio

from trioqt import TcpServer, TcpSocket, stop_on_signals


def inherited_socket(environment: Mapping[str, str]) -> int:
    """The descriptor that systemd has passed, sd_listen_fds(3); they begin with 3."""
    if environment.get("LISTEN_PID") != str(os.getpid()) or environment.get("LISTEN_FDS") != "1":
        raise SystemExit("systemd passed no socket, or more than one")
    return 3


async def echo(sock: TcpSocket) -> None:
    async for chunk in sock:
        await sock.send_all(chunk)


async def main(descriptor: int) -> None:
    async with TcpServer() as server, trio.open_nursery() as nursery:
        server.set_socket_descriptor(descriptor)
        nursery.start_soon(stop_on_signals, server, 10)
        await server.serve(echo)
        nursery.cancel_scope.cancel()


if __name__ == "__main__":
    trio.run(main, inherited_socket(os.environ))
