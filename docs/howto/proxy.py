"""Three ways to say which proxy a connection goes through, tried on a simulated network with a proxy of its own."""

import os
from collections.abc import Callable, Sequence

import trio

from trioqt import (
    NetworkProxy,
    ProxyKind,
    ProxyQuery,
    TcpServer,
    TcpSocket,
    environment_proxies,
    set_application_proxy_factory,
)
from trioqt.testing import ScriptedProxy, VirtualNetwork, simulate


async def ask(host: str, port: int, proxy: str | None = None) -> bytes:
    """By way of this proxy, "socks5://proxy.example:1080"; or by the application's."""
    async with TcpSocket() as sock:
        if proxy is not None:
            sock.set_proxy(NetworkProxy.from_url(proxy))
        await sock.connect_to_host(host, port)
        await sock.send_all(b"hello\n")
        return await sock.receive_line()


async def use_that_of_the_environment() -> None:
    set_application_proxy_factory(environment_proxies)  # from here on, for every socket of this trio.run
    print(await ask("example.org", 443))


def only_inside(proxy: NetworkProxy) -> Callable[[ProxyQuery], Sequence[NetworkProxy]]:
    """For ``set_application_proxy_factory``: this proxy for one domain, and that of the environment for the rest."""

    def choose(query: ProxyQuery) -> Sequence[NetworkProxy]:
        return [proxy] if query.host.endswith(".inside") else environment_proxies(query)

    return choose


async def shout(sock: TcpSocket) -> None:
    async for line in sock.lines():
        await sock.send_all(line.upper())


async def main(net: VirtualNetwork) -> None:
    async with TcpServer() as server, TcpServer() as inside, trio.open_nursery() as nursery:
        for each, host, port in ((server, "example.org", 443), (inside, "shop.inside", 80)):
            with net.host(host):
                await each.listen(port=port)
                await nursery.start(each.serve, shout)
        with net.host("proxy.example"):
            proxy = await nursery.start(ScriptedProxy(ProxyKind.SOCKS5, host="0.0.0.0").serve)
        url = f"socks5://proxy.example:{proxy.network_proxy().port}"

        print(await ask("example.org", 443, url))
        os.environ["https_proxy"] = url  # what is set in the shell, as a rule
        await use_that_of_the_environment()
        set_application_proxy_factory(only_inside(NetworkProxy.from_url(url)))
        print(await ask("shop.inside", 80))

        print(*proxy.seen, sep="\n")
        nursery.cancel_scope.cancel()


if __name__ == "__main__":
    simulate(main)
