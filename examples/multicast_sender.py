"""Qt's multicast sender: a message to the members of a group, once a second.

Start ``python examples/multicast_receiver.py`` in a second terminal, here or on another machine of this network.  You
will see there what is sent here.  Who has not joined the group hears nothing.
"""

import trio

from trioqt import HostAddress, SocketOption, UdpSocket

GROUP, PORT = "239.255.43.21", 45454
INTERFACE = None  # the system chooses; "eth0" would be that one


async def main() -> None:
    async with UdpSocket() as sock:
        await sock.bind(HostAddress.ANY_IPV4)
        sock.set_multicast_interface(INTERFACE)
        sock.set_socket_option(SocketOption.MULTICAST_TTL, 1)  # no router is passed
        number = 1
        while True:
            message = f"Multicast message {number}"
            print("sending", message)
            await sock.send_datagram(message.encode(), GROUP, PORT)
            await trio.sleep(1)
            number += 1


if __name__ == "__main__":
    trio.run(main)
