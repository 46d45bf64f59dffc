"""What this machine is called, where it can be reached, and what it finds under a name.

Start it; no second terminal is needed.  You will see the addresses of each interface that is up, with the network that
each belongs to, and then those of localhost.
"""

import trio

from trioqt import InterfaceFlag, SocketError, local_host_name, look_up_host, network_interfaces


async def show_addresses(name: str) -> None:
    try:
        with trio.fail_after(5):
            info = await look_up_host(name)
    except SocketError as error:
        print(error)
    else:
        print(f"{name} is {', '.join(map(str, info.addresses))}")


async def main() -> None:
    print(f"this is {local_host_name()}")
    for interface in network_interfaces():
        if InterfaceFlag.IS_UP in interface.flags:
            for each in interface.addresses:
                print(f"{interface.name} has {each.address}, of a network with {each.prefix_length} bits in common")
    await show_addresses("localhost")


if __name__ == "__main__":
    trio.run(main)
