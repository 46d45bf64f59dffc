"""Qt's Network Chat: who runs it on one network finds the others by broadcasts, and talks to each over TCP.

Start it.  In a second and a third terminal type ``python examples/network_chat.py``, here or on other machines of this
network.  You will see who comes and who leaves, and what each has typed.  Ctrl-D leaves.
"""

import contextlib
import secrets
import sys

import trio

from trioqt import BindMode, HostAddress, SocketError, TcpServer, TcpSocket, UdpSocket, local_host_name

PORT, EVERYBODY = 45454, HostAddress.BROADCAST
ME = secrets.token_hex(4).encode()
members, joined = set[TcpSocket](), set[bytes]()


async def announce(sock: UdpSocket, port: int) -> None:
    while True:
        await sock.send_datagram(b"chat %s %d" % (ME, port), EVERYBODY, PORT)
        await trio.sleep(2)


async def look_around(sock: UdpSocket, nursery: trio.Nursery) -> None:
    async for found in sock:
        match found.data.split():
            case [b"chat", who, port] if who > ME and who not in joined and len(joined) < 100:
                joined.add(who)  # of two, the one with the lesser number connects
                nursery.start_soon(join, who, found.sender_address, port)


async def join(who: bytes, address: HostAddress, port: bytes) -> None:
    with contextlib.suppress(SocketError, ValueError, trio.TooSlowError):
        async with TcpSocket() as sock:
            with trio.fail_after(5):
                await sock.connect_to_host(address, int(port))
            await talk(sock)
    joined.discard(who)  # it is joined again if it still announces itself


async def talk(sock: TcpSocket) -> None:
    await sock.send_all(b"%s/%s\n" % (local_host_name().encode(), ME))
    with trio.fail_after(5):
        name = (await sock.receive_line(100)).decode(errors="replace").strip()
    members.add(sock)
    print(f"{name!r} comes")
    try:
        async for line in sock.lines():
            print(f"{name!r}: {line.decode(errors='replace').strip()!r}")
    finally:
        members.discard(sock)
        print(f"{name!r} leaves")


def tell_all(line: bytes) -> None:
    for member in list(members):
        with contextlib.suppress(SocketError, trio.ClosedResourceError, trio.WouldBlock):
            member.write(line)  # who does not read gets no more than 64 KiB


async def typed() -> bytes:
    return await trio.to_thread.run_sync(sys.stdin.buffer.readline, abandon_on_cancel=True)


async def main() -> None:
    async with TcpServer(max_connections=100) as server, UdpSocket() as sock, trio.open_nursery() as nursery:
        await server.listen()
        await sock.bind(HostAddress.ANY_IPV4, PORT, BindMode.SHARE_ADDRESS)
        await nursery.start(server.serve, talk)
        nursery.start_soon(announce, sock, server.server_port())
        nursery.start_soon(look_around, sock, nursery)
        while line := await typed():
            tell_all(line)
        nursery.cancel_scope.cancel()


if __name__ == "__main__":
    trio.run(main)
