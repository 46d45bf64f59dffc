import trio

from trioqt.testing import VirtualNetwork, simulate


async def echo(stream: trio.SocketStream) -> None:
    async for data in stream:
        await stream.send_all(data)


async def main(net: VirtualNetwork) -> None:
    async with trio.open_nursery() as nursery:
        with net.host("server"):
            await nursery.start(trio.serve_tcp, echo, 4000)
        with net.host("client"):
            client = await trio.open_tcp_stream("server", 4000)
        await client.send_all(b"hello")
        assert await client.receive_some() == b"hello"
        with net.partition("client", "server"):
            await client.send_all(b"are you there?")
            with trio.move_on_after(60) as patience:
                await client.receive_some()
        assert patience.cancelled_caught
        assert await client.receive_some() == b"are you there?"
        await client.aclose()
        nursery.cancel_scope.cancel()
    print(*net.trace(), sep="\n")


simulate(main, latency=0.05)
