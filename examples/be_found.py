"""A server that is found without an address: it answers whoever asks a group, with the port that it listens on.

Start it, and ``python examples/find_servers.py`` in a second terminal, here or on another machine of this network.  You
will see there where this server is, and that it echoes.
"""

import trio

from trioqt import BindMode, HostAddress, TcpServer, TcpSocket, UdpSocket

GROUP, PORT = "239.255.43.22", 45455
INTERFACE = None  # the system chooses; "eth0" would be that one
QUESTION = b"echo, where are you?"


async def echo(sock: TcpSocket) -> None:
    async for chunk in sock:
        await sock.send_all(chunk)


async def answer(port: int) -> None:
    async with UdpSocket() as sock:
        await sock.bind(HostAddress.ANY_IPV4, PORT, BindMode.SHARE_ADDRESS)
        sock.join_multicast_group(GROUP, INTERFACE)
        async for question in sock:
            if question.data == QUESTION:
                await sock.send_datagram(question.make_reply(str(port).encode()))


async def main() -> None:
    async with TcpServer() as server, trio.open_nursery() as nursery:
        await server.listen()
        nursery.start_soon(answer, server.server_port())
        await server.serve(echo)


if __name__ == "__main__":
    trio.run(main)
