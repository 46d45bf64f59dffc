"""Qt's multicast receiver: it joins a group, prints what is sent there for five seconds, and leaves.

Start ``python examples/multicast_sender.py`` in a second terminal, here or on another machine of this network.  You
will see a message a second, five or so.
"""

import trio

from trioqt import BindMode, HostAddress, UdpSocket

GROUP, PORT = "239.255.43.21", 45454
INTERFACE = None  # the system chooses; "eth0" would be that one


async def main() -> None:
    async with UdpSocket() as sock:
        await sock.bind(HostAddress.ANY_IPV4, PORT, BindMode.SHARE_ADDRESS)
        sock.join_multicast_group(GROUP, INTERFACE)
        with trio.move_on_after(5):
            async for datagram in sock:
                print(f"{datagram.sender_address} says: {datagram.data.decode(errors='replace')}")
        sock.leave_multicast_group(GROUP, INTERFACE)


if __name__ == "__main__":
    trio.run(main)
