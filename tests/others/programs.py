"""Libraries of others, client and server, in one simulated program each: ``python -m tests.others programs``.

Nothing of a library is changed.  Each runs over a way that takes 10 ms and loses 1 %, twice for each of five seeds, and
goes the same way both times.  `__main__.py` fetches them; what is in the environment already is taken from there.
"""

from __future__ import annotations

import asyncio
import functools
import importlib
import struct
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import anyio
import httpx
import hypercorn.trio
import pytest
import trio

from trioqt.testing import VirtualNetwork, simulate

SEEDS = 5


@asynccontextmanager
async def serving(net: VirtualNetwork, app: Any, host: str = "server") -> AsyncIterator[None]:
    """An ASGI application, by hypercorn."""
    config = hypercorn.Config()
    config.bind, config.errorlog = ["0.0.0.0:80"], None
    async with trio.open_nursery() as nursery:
        with net.host(host):
            serve: Any = hypercorn.trio.serve
            await nursery.start(functools.partial(serve, app, config, shutdown_trigger=trio.sleep_forever))
        with net.host("client"):
            yield
        nursery.cancel_scope.cancel()


@asynccontextmanager
async def speaking(net: VirtualNetwork, protocol: Callable[[Lines], Awaitable[None]], port: int) -> AsyncIterator[None]:
    """A small server of a protocol."""

    async def serve(stream: trio.SocketStream) -> None:
        try:
            await protocol(Lines(stream))
        except (EOFError, trio.BrokenResourceError):
            pass

    async with trio.open_nursery() as nursery:
        with net.host("server"):
            await nursery.start(trio.serve_tcp, serve, port)
        with net.host("client"):
            yield
        nursery.cancel_scope.cancel()


class Lines:
    """A stream, read by lines and by counts."""

    def __init__(self, stream: trio.SocketStream) -> None:
        self.send = stream.send_all
        self._stream = stream
        self._held = b""

    async def line(self) -> bytes:
        while b"\r\n" not in self._held:
            await self._more()
        line, _, self._held = self._held.partition(b"\r\n")
        return line

    async def exactly(self, count: int) -> bytes:
        while len(self._held) < count:
            await self._more()
        taken, self._held = self._held[:count], self._held[count:]
        return taken

    async def _more(self) -> None:
        data = await self._stream.receive_some()
        if not data:
            raise EOFError
        self._held += data


def answering(body: bytes) -> Any:
    """An application that says the same to every request."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        assert scope["type"] == "http"  # hypercorn asks for a lifespan, and goes without
        await receive()
        headers = [(b"content-length", b"%d" % len(body)), (b"content-type", b"application/json")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": body})

    return app


# ---- web frameworks and their clients ------------------------------------------------------------------------------


async def starlette(net: VirtualNetwork) -> object:
    """Answers from a task, from a thread, in pieces and by websocket, to httpx and httpx-ws."""
    routing, responses = (importlib.import_module(f"starlette.{name}") for name in ("routing", "responses"))

    async def hello(request: Any) -> Any:
        return responses.PlainTextResponse(request.client.host)

    def in_a_thread(request: Any) -> Any:
        time.sleep(1)
        return responses.PlainTextResponse("slept")

    async def pieces(request: Any) -> Any:
        async def each() -> AsyncIterator[str]:
            for number in range(3):
                yield str(number)
                await anyio.sleep(1)

        return responses.StreamingResponse(each())

    async def websocket(ws: Any) -> None:
        await ws.accept()
        await ws.send_text((await ws.receive_text()).upper())
        await ws.close()

    routes = [routing.Route("/", hello), routing.Route("/thread", in_a_thread), routing.Route("/pieces", pieces)]
    app = importlib.import_module("starlette.applications").Starlette(
        routes=[*routes, routing.WebSocketRoute("/ws", websocket)]
    )
    connect = importlib.import_module("httpx_ws").aconnect_ws
    async with serving(net, app), httpx.AsyncClient() as client:
        texts = [(await client.get(f"http://server{route.path}")).text for route in routes]
        async with connect("http://server/ws", client) as ws:
            await ws.send_text("hello")
            return [*texts, await ws.receive_text()]


async def fastapi(net: VirtualNetwork) -> object:
    """Dependencies, handlers and background tasks in threads."""
    module = importlib.import_module("fastapi")
    app, done = module.FastAPI(), list[int]()

    def double(number: int) -> int:
        return 2 * number

    def handler(number: int, background: Any, doubled: int = module.Depends(double)) -> dict[str, int]:
        background.add_task(done.append, number)
        return {"doubled": doubled}

    handler.__annotations__ = {"number": int, "background": module.BackgroundTasks, "doubled": int}
    double.__annotations__ = {"number": int}
    app.get("/{number}")(handler)
    async with serving(net, app), httpx.AsyncClient() as client:
        found = [(await client.get(f"http://server/{number}")).json()["doubled"] for number in range(3)]
    return found, done


async def quart_trio(net: VirtualNetwork) -> object:
    """A handler in a task, and one in a thread."""
    app = importlib.import_module("quart_trio").QuartTrio(__name__)

    async def task() -> str:
        return "task"

    def thread() -> str:
        return "thread"

    app.route("/task")(task)
    app.route("/thread")(thread)
    async with serving(net, app), httpx.AsyncClient() as client:
        return [(await client.get(f"http://server/{name}")).text for name in ("task", "thread")]


async def asks(net: VirtualNetwork) -> object:
    """A client that opens its streams by anyio."""
    async with serving(net, answering(b"hello")):
        response = await importlib.import_module("asks").Session(connections=2).get("http://server/")
    return response.text


async def requests(net: VirtualNetwork) -> object:
    """A client that blocks, in a worker thread."""
    get = importlib.import_module("requests").get
    async with serving(net, answering(b"hello")):
        response = await trio.to_thread.run_sync(functools.partial(get, "http://server/", timeout=10))
    return response.text


async def openai(net: VirtualNetwork) -> object:
    """A client of an API."""
    body = b"""{"id": "1", "object": "chat.completion", "created": 1, "model": "m", "choices": [{"index": 0,
        "finish_reason": "stop", "message": {"role": "assistant", "content": "hello"}}]}"""
    make = importlib.import_module("openai").AsyncOpenAI
    async with serving(net, answering(body)), make(api_key="-", base_url="http://server/v1") as client:
        answer = await client.chat.completions.create(model="m", messages=[{"role": "user", "content": "hello?"}])
    return answer.choices[0].message.content


async def mcp(net: VirtualNetwork) -> object:
    """A server of tools and its client, with a session over HTTP; one tool takes half a minute."""
    security = importlib.import_module("mcp.server.transport_security").TransportSecuritySettings
    server = importlib.import_module("mcp.server").MCPServer("tools")

    def add(a: int, b: int) -> int:
        return a + b

    async def nap(seconds: float) -> str:
        await anyio.sleep(seconds)
        return "rested"

    add.__annotations__ = {"a": int, "b": int, "return": int}
    nap.__annotations__ = {"seconds": float, "return": str}
    server.tool()(add)
    server.tool()(nap)
    app = server.streamable_http_app(transport_security=security(enable_dns_rebinding_protection=False))
    connect = importlib.import_module("mcp.client.streamable_http").streamable_http_client
    session = importlib.import_module("mcp").ClientSession
    async with serving(net, app), connect("http://server/mcp") as streams, session(*streams[:2]) as client:
        await client.initialize()
        calls = (("add", {"a": 1, "b": 2}), ("nap", {"seconds": 30}))
        return [(await client.call_tool(name, arguments)).content[0].text for name, arguments in calls]


# ---- databases -----------------------------------------------------------------------------------------------------


async def coredis(net: VirtualNetwork) -> object:
    """A pool of connections, before and after two minutes of silence."""
    kept: dict[bytes, bytes] = {}

    async def redis(lines: Lines) -> None:
        while True:
            words = []
            for _ in range(int((await lines.line())[1:])):
                words.append((await lines.exactly(int((await lines.line())[1:]) + 2))[:-2])
            match words:
                case [b"HELLO", *_]:
                    await lines.send(b"%3\r\n+id\r\n:7\r\n+version\r\n+7.2.0\r\n+proto\r\n:3\r\n")
                case [b"SET", key, value, *_]:
                    kept[key] = value
                    await lines.send(b"+OK\r\n")
                case [b"GET", key]:
                    await lines.send(b"$%d\r\n%s\r\n" % (len(kept[key]), kept[key]))
                case _:
                    await lines.send(b"+OK\r\n")

    module = importlib.import_module("coredis")
    async with speaking(net, redis, 6379):
        async with module.Redis(host="server", port=6379, decode_responses=True) as client:
            await client.set("key", "value")
            first = await client.get("key")
            await trio.sleep(120)
            return [first, await client.get("key")]


async def trio_mysql(net: VirtualNetwork) -> object:
    """A handshake, a password and a query."""
    done = b"\x00\x00\x00\x02\x00\x00\x00"
    end = b"\xfe\x00\x00\x02\x00"

    async def mysql(lines: Lines) -> None:
        async def say(number: int, packet: bytes) -> None:
            await lines.send(len(packet).to_bytes(3, "little") + bytes([number]) + packet)

        async def hear() -> bytes:
            head = await lines.exactly(4)
            return await lines.exactly(int.from_bytes(head[:3], "little"))

        features = struct.pack("<HBHHB", 0xA285, 33, 2, 0x0008, 21)
        await say(
            0, b"\x0a8.0.0\0\1\0\0\00012345678\0" + features + bytes(10) + b"901234567890\0mysql_native_password\0"
        )
        await hear()
        await say(2, done)
        while (asked := await hear())[:1] != b"\x01":
            if asked[1:].startswith(b"SELECT"):
                column = b"\x03def\0\0\0\x01n\0\x0c" + struct.pack("<HIBHB", 33, 20, 253, 0, 0) + b"\0\0"
                for number, packet in enumerate((b"\x01", column, end, b"\x0242", end), 1):
                    await say(number, packet)
            else:
                await say(1, done)

    connect = importlib.import_module("trio_mysql").connect
    async with speaking(net, mysql, 3306), connect(host="server", user="u", password="p", db="d") as connection:
        async with connection.cursor() as cursor:
            await cursor.execute("SELECT n FROM t")
            return await cursor.fetchall()


# ---- another event loop on trio's ----------------------------------------------------------------------------------


async def trio_asyncio(net: VirtualNetwork) -> object:
    """A client of asyncio's, on a loop that trio runs."""
    module = importlib.import_module("trio_asyncio")

    async def talk() -> bytes:
        await asyncio.sleep(5)
        reader, writer = await asyncio.open_connection("server", 4000)
        writer.write(b"hello\r\n")
        line = await reader.readline()
        writer.close()
        return line

    async def shout(lines: Lines) -> None:
        while True:
            await lines.send((await lines.line()).upper() + b"\r\n")

    async with speaking(net, shout, 4000), module.open_loop():
        return await module.aio_as_trio(talk)()


PROGRAMS: list[tuple[Callable[[VirtualNetwork], Awaitable[object]], object]] = [
    (starlette, ["10.0.0.3", "slept", "012", "HELLO"]),
    (fastapi, ([0, 2, 4], [0, 1, 2])),
    (quart_trio, ["task", "thread"]),
    (asks, "hello"),
    (requests, "hello"),
    (openai, "hello"),
    (mcp, ["3", "rested"]),
    (coredis, ["value", "value"]),
    (trio_mysql, ((b"42",),)),
    (trio_asyncio, b"HELLO\r\n"),
]


@pytest.mark.parametrize(("program", "result"), PROGRAMS, ids=[program.__name__ for program, _ in PROGRAMS])
def test_it_runs_simulated(program: Callable[[VirtualNetwork], Awaitable[object]], result: object) -> None:
    """To its result, and each seed always the same way."""

    async def main(net: VirtualNetwork) -> str:
        assert await program(net) == result
        return net.digest()

    run = functools.partial(simulate, main, latency=0.01, loss=0.01)
    run(seed=0)  # what it imports on its way may look for something, once a process
    for seed in range(SEEDS):
        assert run(seed=seed) == run(seed=seed)
