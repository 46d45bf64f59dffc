"""Qt's broadcast sender: a message to everybody on this network, once a second.

Start ``python examples/broadcast_receiver.py`` in a second terminal, here or on another machine of this network.  You
will see there what is sent here.
"""

import trio

from trioqt import HostAddress, UdpSocket

EVERYBODY = HostAddress.BROADCAST
PORT = 45454


async def main() -> None:
    async with UdpSocket() as sock:
        number = 1
        while True:
            message = f"Broadcast message {number}"
            print("sending", message)
            await sock.send_datagram(message.encode(), EVERYBODY, PORT)
            await trio.sleep(1)
            number += 1


if __name__ == "__main__":
    trio.run(main)
