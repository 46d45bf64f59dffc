"""Qt's broadcast receiver: it prints what comes, from whomever.

Start ``python examples/broadcast_sender.py`` in a second terminal, here or on another machine of this network.  You
will see a message a second.  Several receivers may run on one machine, because they share the address, and each hears
every message.
"""

import trio

from trioqt import BindMode, HostAddress, UdpSocket

PORT = 45454


async def main() -> None:
    async with UdpSocket() as sock:
        await sock.bind(HostAddress.ANY_IPV4, PORT, BindMode.SHARE_ADDRESS)
        async for datagram in sock:
            print(f"{datagram.sender_address} says: {datagram.data.decode(errors='replace')}")


if __name__ == "__main__":
    trio.run(main)
