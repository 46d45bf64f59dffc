"""Two processes listen on one port, and the kernel shares their clients out.  It asks until both have answered."""

import os
import subprocess
import sys

import trio

from trioqt import TcpServer, TcpSocket


async def worker(port: int) -> None:
    """One process: it tells every client who it is."""

    async def answer(sock: TcpSocket) -> None:
        await sock.send_all(b"%d\n" % os.getpid())

    async with TcpServer() as server:
        await server.listen("127.0.0.1", port, reuse_port=True)
        print(server.server_port(), flush=True)
        await server.serve(answer)


async def start(port: int) -> tuple[trio.Process, int]:
    process = await trio.lowlevel.open_process([sys.executable, __file__, str(port)], stdout=subprocess.PIPE)
    assert process.stdout is not None
    return process, int(await process.stdout.receive_some())


async def main() -> None:
    first, port = await start(0)
    second, _ = await start(port)
    answered = set[int]()
    while answered != {first.pid, second.pid}:
        async with TcpSocket() as sock:
            await sock.connect_to_host("127.0.0.1", port)
            answered.add(int(await sock.receive_line()))
    print("both have answered")
    for process in (first, second):
        process.kill()
        await process.wait()


if __name__ == "__main__":
    trio.run(worker, int(sys.argv[1])) if len(sys.argv) > 1 else trio.run(main)
