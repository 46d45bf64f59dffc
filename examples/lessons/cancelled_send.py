"""What a cancelled send leaves behind: trio's own stream and ours, side by side.

A client sends three messages of 40,000 bytes, and gives each a second.  Its peer reads nothing for three seconds, so
the queues on the way fill up.  You will see that a send that was cancelled on trio's stream has sent a part all the
same, and the next message stands behind a torn one.  On a ``TcpSocket`` it has not happened: a message is there whole,
or not at all.

Exercise: send what was cancelled once more, as a program that retries would.  Which peer gets what was meant?
"""

from socket import SO_RCVBUF, SO_SNDBUF, SOL_SOCKET

import trio

from trioqt import TcpSocket
from trioqt.testing import VirtualNetwork, simulate

SIZE = 40_000


async def send_three(stream: trio.abc.Stream) -> dict[int, str]:
    fates = dict.fromkeys(b"123", "cancelled")
    for number in fates:
        with trio.move_on_after(1):
            await stream.send_all(bytes([number]) * SIZE)
            fates[number] = "returned"
        await trio.sleep(1)
    await stream.aclose()
    return fates


async def read_late(listener: trio.SocketListener, heard: bytearray) -> None:
    async with listener, await listener.accept() as stream:
        await trio.sleep(3)
        heard += b"".join([piece async for piece in stream])


async def main(net: VirtualNetwork) -> None:
    for port in (4001, 4002):
        heard = bytearray()
        async with trio.open_nursery() as nursery:
            with net.host("server") as address:
                (listener,) = await trio.open_tcp_listeners(port, host=str(address))
                listener.socket.setsockopt(SOL_SOCKET, SO_RCVBUF, 8192)
                nursery.start_soon(read_late, listener, heard)
            with net.host("client"):
                raw = await trio.open_tcp_stream(str(address), port)
                raw.setsockopt(SOL_SOCKET, SO_SNDBUF, 8192)
            stream = raw if port == 4001 else TcpSocket.from_stream(raw, nursery, write_buffer_size=8192)
            fates = await send_three(stream)
        print(f"{'trio stream' if stream is raw else 'TcpSocket'}, port {port}:")
        for number, fate in fates.items():
            count = heard.count(number)
            print(f"  send {number:c} {fate:9}  {count:6,} bytes of it arrived{', TORN' if count % SIZE else ''}")
    print(f"\n{net.ladder()}")


if __name__ == "__main__":
    simulate(main, latency=0.05)
