"""Asks a group who serves, waits a second for answers, and tries each.

Start ``python examples/be_found.py`` in a second terminal first, or on several machines of this network.  You will see
a line for each server, and none if there is none.
"""

import trio

from trioqt import HostAddress, TcpSocket, UdpSocket

GROUP, PORT = "239.255.43.22", 45455
INTERFACE = None  # the system chooses; "eth0" would be that one
QUESTION = b"echo, where are you?"


async def find(seconds: float) -> set[tuple[HostAddress, int]]:
    found: set[tuple[HostAddress, int]] = set()
    async with UdpSocket() as sock:
        await sock.bind(HostAddress.ANY_IPV4)
        sock.set_multicast_interface(INTERFACE)
        await sock.send_datagram(QUESTION, GROUP, PORT)
        with trio.move_on_after(seconds):
            async for answer in sock:
                if answer.data.isdigit():
                    found.add((answer.sender_address, int(answer.data)))
    return found


async def main() -> None:
    for address, port in await find(1):
        async with TcpSocket() as sock:
            await sock.connect_to_host(address, port)
            await sock.send_all(b"hello\n")
            print(address, port, (await sock.receive_line()).decode(), end="")


if __name__ == "__main__":
    trio.run(main)
