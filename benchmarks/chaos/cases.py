"""The cases in which a server is to live on: one thing goes wrong, and good clients ask on beside it."""

from __future__ import annotations

import contextlib
import os
import random
import resource
import socket
import ssl
import subprocess
import sys
from collections.abc import Awaitable, Callable

import trio

from benchmarks.chaos.driver import BITE, LOST, ROOT, Client, Server, resets_sent, until
from benchmarks.chaos.encrypted import tls_hello, trust
from benchmarks.chaos.stage import Case, Outcome, Stage, counted, fired

__all__ = ["CASES", "unused_port"]


def unused_port() -> int:
    """A port that nobody listens on."""
    with socket.create_server(("127.0.0.1", 0)) as sock:
        port: int = sock.getsockname()[1]
        return port


async def all_of(count: int, client: Callable[[int], Awaitable[object]], *, at_once: int = 50) -> None:
    """Run ``client(0)`` to ``client(count - 1)``, so many at a time; one whose server is gone has ended."""
    numbers = iter(range(count))

    async def run() -> None:
        for number in numbers:
            try:
                await client(number)
            except LOST:
                continue

    async with trio.open_nursery() as nursery:
        for _ in range(min(at_once, count)):
            nursery.start_soon(run)


# -- accepting ----------------------------------------------------------------------------------------


async def out_of_descriptors(stage: Stage) -> Outcome:
    """A server with 64 descriptors, and 150 clients that stay: when those who are in leave, all others get in."""
    count, limit = 150, 64
    answers: list[float] = []
    leave = trio.Event()

    async def client(server: Server) -> None:
        try:
            with trio.fail_after(2 * BITE):
                with await server.connect() as client:
                    if await client.ask("ECHO hello") == b"hello\n":
                        answers.append(trio.current_time())
                        await leave.wait()
        except LOST:
            return

    async with stage.server("--descriptors", str(limit)) as run:
        server = run.server
        async with trio.open_nursery() as nursery:
            for _ in range(count):
                nursery.start_soon(client, server)
            at_the_limit = await until(lambda: server.descriptors() == limit or server.has_ended(), BITE)
            await trio.sleep(0.3)
            cpu, began = server.cpu_seconds(), trio.current_time()
            await trio.sleep(2.5)
            share = (server.cpu_seconds() - cpu) / (trio.current_time() - began)
            inside = len(answers)
            left = trio.current_time()
            leave.set()
            if server.has_ended():
                nursery.cancel_scope.cancel()
        fired(at_the_limit and inside < count, f"{inside} of {count} clients were in at once")
        run.outcome.asked, run.outcome.answered = count, len(answers)
        run.outcome.figures["CPU"] = f"{share:.0%}"
        if len(answers) > inside:
            run.outcome.figures["next in after"] = f"{(answers[inside] - left) * 1000:.0f} ms"
    return run.outcome


async def reset_storm(stage: Stage) -> Outcome:
    """Clients by the thousand ask and reset their connections at once."""
    count = stage.many(2000)

    async def client(number: int) -> None:
        client = await run.server.connect()
        await client.say("ECHO hello")
        client.reset()

    before = resets_sent()
    async with stage.server(good=50) as run:
        await all_of(count, client)
    sent = resets_sent() - before
    fired(sent >= count or run.server.has_ended(), f"{sent} of {count} resets")
    return run.outcome


async def reset_before_accept(stage: Stage) -> Outcome:
    """The server stands still while clients connect, ask, and reset: it accepts what is over already."""
    count = stage.many(40)  # Qt's queue takes 50
    hello = tls_hello()

    async def client(number: int) -> None:
        client = await run.server.connect()
        await client.sock.send(b"ECHO hello\n" if client.tls is None else hello)  # more is not to be had
        client.reset()

    before = resets_sent()
    async with stage.server(good=20) as run:
        run.server.stop()
        await all_of(count, client)
        sent = resets_sent() - before
        run.server.go_on()
    fired(sent >= count, f"{sent} of {count} resets")
    return run.outcome


# -- handlers -----------------------------------------------------------------------------------------


async def handlers_raise(stage: Stage) -> Outcome:
    """Ten handlers raise, by a bug or because whom they ask for an answer is not there, beside 100 that are at work."""
    count, bad = stage.many(100), 10
    begun = 0
    done = 0
    ends: list[str] = []
    raised = trio.Event()

    async def at_work(number: int) -> None:
        nonlocal begun, done
        with await run.server.connect() as client:
            assert await client.ask("SLEEP 0.5") == b"BEGUN\n"
            begun += 1
            await raised.wait()
            if await client.line() == b"DONE\n":
                done += 1

    async def provoking(number: int) -> None:
        with await run.server.connect() as client:
            await client.say("RAISE" if number % 2 else f"UPSTREAM {nobody}")
            ends.append((await client.rest())[1])

    nobody = unused_port()
    async with stage.server() as run:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(lambda: all_of(count, at_work, at_once=count))
            await until(lambda: begun == count, BITE)
            await all_of(bad, provoking)
            raised.set()
        await until(lambda: run.server.logged("asked to raise") > 0 or run.server.has_ended(), BITE)
        fired(run.server.logged("asked to raise") > 0 or run.server.has_ended(), "no handler raised")
        run.outcome.asked, run.outcome.answered = count, done
        run.outcome.facts["they saw"] = counted(ends)
    return run.outcome


async def silent_under_a_limit(stage: Stage) -> Outcome:
    """The handler gives each line 1.5 s, by its library's own means, and 50 clients say nothing."""
    count = stage.many(50)
    ends: list[str] = []
    connected = 0

    async def client(number: int) -> None:
        nonlocal connected
        with await run.server.connect() as client:
            connected += 1
            ends.append((await client.rest())[1])

    async with stage.server("--patience", "1.5", good=20) as run:
        await all_of(count, client, at_once=count)
        fired(connected > 0, "nobody connected")
        run.outcome.facts |= {"left open": count - len(ends) + ends.count("open"), "they saw": counted(ends)}
    return run.outcome


async def log_handler_raises(stage: Stage) -> Outcome:
    """Whoever writes to the log gets an exception; handlers raise, and clients reset."""
    count = 20

    async def client(number: int) -> None:
        client = await run.server.connect()
        if number % 2:
            await client.say("RAISE")
            await client.rest()
            client.close()
        else:
            await client.say("SEND 1000000")
            client.reset()

    async with stage.server("--broken-log", good=20) as run:
        await all_of(count, client)
        await until(lambda: run.server.logged("the log handler raises") > 0 or run.server.has_ended(), BITE)
        fired(run.server.logged("the log handler raises") > 0, "nobody wrote to the log")
    return run.outcome


# -- clients that go ----------------------------------------------------------------------------------


async def killed_clients(stage: Stage) -> Outcome:
    """Four processes with 25 connections each are killed: idle, in half a line, with a long answer unread."""
    processes, connections = 4, stage.many(25)
    statuses: list[int | None] = []
    async with stage.server(good=20) as run:
        doomed = []
        for _ in range(processes):
            command = [sys.executable, "-m", "benchmarks.chaos.doomed", str(run.server.port), str(connections)]
            if stage.trust is not None:
                command.append(str(stage.trust.authority))
            doomed.append(await trio.lowlevel.open_process(command, stdout=subprocess.PIPE, cwd=ROOT))
        for process in doomed:
            assert process.stdout is not None
            with trio.move_on_after(BITE):
                await process.stdout.receive_some()
            process.kill()
            statuses.append(await process.wait())
            await process.stdout.aclose()
    fired(statuses == [-9] * processes, f"they ended with {statuses}")
    return run.outcome


async def hang_ups(stage: Stage) -> Outcome:
    """Clients hang up at every moment: at once, in half a line, before the answer, in the middle of it."""
    count = stage.many(400)
    gone = 0

    async def client(number: int) -> None:
        nonlocal gone
        client = await run.server.connect()
        match number % 5:
            case 1:
                await client.send(b"ECHO half a li")
            case 2:
                await client.say("ECHO hello")
            case 3:
                await client.ask("SLEEP 0.5")
            case 4:
                await client.say("SEND 10000000")
                await client.receive()
        client.close()
        gone += 1

    async with stage.server(good=20) as run:
        await all_of(count, client)
        fired(gone == count or run.server.has_ended(), f"{gone} of {count} hung up")
    return run.outcome


async def hang_up_storm(stage: Stage) -> Outcome:
    """A monitor counts the connections that end, and 3,000 end within one turn of the server."""
    held: list[Client] = []
    count = min(stage.many(3000), resource.getrlimit(resource.RLIMIT_NOFILE)[0] - 200)

    async def client(number: int) -> None:
        client = await run.server.connect()
        assert await client.ask("ECHO hello") == b"hello\n"
        held.append(client)

    async with stage.server("--monitor") as run:
        with await run.server.connect() as asking:
            before = int(await asking.ask("SEEN"))
            await all_of(count, client)
            run.server.stop()
            for one in held:
                one.close()
            run.server.go_on()
            seen = before
            with trio.move_on_after(2 * BITE):
                while seen < before + count and (answer := await asking.ask("SEEN")):
                    seen = int(answer)
                    await trio.sleep(0.02)
        fired(len(held) == count, f"{len(held)} of {count} were connected")
        run.outcome.asked, run.outcome.answered = count, seen - before
    return run.outcome


# -- what clients say ---------------------------------------------------------------------------------


async def garbage(stage: Stage) -> Outcome:
    """What is no request: a TLS hello, HTTP, binary noise, a line that never ends."""
    count = stage.many(60)
    ends: list[str] = []
    said = 0
    noise = random.Random(1)
    hello = tls_hello()

    async def client(number: int) -> None:
        nonlocal said
        with await run.server.connect() as client:
            said += 1
            match number % 5:
                case 0:
                    await client.send(hello)
                case 1:
                    await client.send(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
                case 2:
                    await client.send(noise.randbytes(10_000))
                case 3:
                    await client.send(bytes(10_000) + b"\n\n\n")
                case 4:
                    await client.send(b"x" * 300_000)
            await client.finish()
            ends.append((await client.rest())[1])

    async with stage.server(good=20) as run:
        await all_of(count, client)
        fired(said == count or run.server.has_ended(), f"{said} of {count} came to speak")
        run.outcome.facts["left open"] = ends.count("open")
    return run.outcome


async def bad_hellos(stage: Stage) -> Outcome:
    """A TLS server: clients that speak no TLS, stop or reset in mid-handshake, do not trust it, go without a goodbye.

    The handler says goodbye itself, to those too who cannot hear it.
    """
    distrusting = ssl.create_default_context()
    count = stage.many(60)
    went = 0
    hello = tls_hello()

    async def client(number: int) -> None:
        nonlocal went
        kind = number % 6
        context = {4: distrusting, 5: trusted.context}.get(kind)
        with await Client.connect(run.server.port, context=context) as client:
            match kind:
                case 0 | 1 | 2:
                    said = (b"ECHO hello\n" * 50, os.urandom(2000), hello[:100])[kind]
                    with contextlib.suppress(OSError):  # the server may have ended it in the middle
                        await client.send(said)
                        await client.finish()
                case 3:
                    await client.send(hello)
                    await client.receive()
                    client.reset()
                    went += 1
                    return
                case 4:
                    try:
                        await client.ask("ECHO hello")
                    except ssl.SSLError:
                        went += 1
                        raise
                case 5:
                    if await client.ask("ECHO hello") == b"hello\n":
                        went += 1
                    client.close()  # without a close_notify
                    return
            if (await client.rest())[1] != "open":
                went += 1

    with trust() as trusted:
        async with stage.server("--goodbye", good=20, trust=trusted) as run:
            await all_of(count, client)
            fired(went == count or run.server.has_ended(), f"{went} of {count} went as they were to")
    return run.outcome


async def slow_reader(stage: Stage) -> Outcome:
    """One client asks for 200 MB and takes none of it."""
    count = 200_000_000
    async with stage.server(good=20) as run:
        server = run.server
        server.forget_peak()
        before = server.memory()
        client = await server.connect(receive_buffer=4096)
        await client.say(f"SEND {count}")
        await trio.sleep(1.5)
        queued = server.queued_by_kernel()
        growth = server.memory("VmHWM") - before
        fired(queued > 0 or server.has_ended(), "the kernel holds nothing")
        run.outcome.figures["grew by"] = f"{growth / 2**20:.1f} MiB"
        run.outcome.figures["kernel holds"] = f"{queued / 2**10:.0f} KiB"
        client.reset()
    return run.outcome


async def silent(stage: Stage) -> Outcome:
    """Clients that say nothing, and then go."""
    count = stage.many(500)
    held: list[Client] = []

    async def client(number: int) -> None:
        held.append(client := await run.server.connect())
        await client.begin()

    async with stage.server(good=20) as run:
        descriptors, memory = run.server.descriptors(), run.server.memory()
        await all_of(count, client)
        in_time = await until(lambda: run.server.descriptors() >= descriptors + count, BITE)
        fired(in_time, f"{run.server.descriptors() - descriptors} of {count} were accepted")
        await trio.sleep(0.5)
        run.outcome.figures["each costs"] = f"{(run.server.memory() - memory) / count / 1024:.1f} KiB"
        for one in held:
            one.close()
    return run.outcome


async def slowloris(stage: Stage) -> Outcome:
    """Clients by the thousand that send a byte now and then: cut by the limit, which others do not feel."""
    count = min(stage.many(1000), resource.getrlimit(resource.RLIMIT_NOFILE)[0] - 200)
    limit = 1.0
    ends: list[str] = []
    dribbled = 0

    async def client(number: int) -> None:
        nonlocal dribbled
        with await run.server.connect() as client:
            await client.begin()
            async with trio.open_nursery() as nursery:
                nursery.start_soon(dribble, client)
                ends.append((await client.rest())[1])
                nursery.cancel_scope.cancel()

    async def dribble(client: Client) -> None:
        nonlocal dribbled
        for byte in b"ECHO hello":
            try:
                await client.send(bytes([byte]))
            except LOST:
                return
            dribbled += 1
            await trio.sleep(2 * limit)

    async with stage.server("--stall", str(limit), good=20) as run:
        await all_of(count, client, at_once=count)
        fired(dribbled >= count or run.server.has_ended(), f"{dribbled} bytes were dribbled")
        run.outcome.facts["left open"] = count - len(ends) + ends.count("open")
    return run.outcome


# -- ends ---------------------------------------------------------------------------------------------


async def half_close(stage: Stage) -> Outcome:
    """Clients ask for a megabyte, and finish at once: the whole answer comes, and then the end."""
    count, size = stage.many(50), 1_000_000
    finished = whole = 0

    async def client(number: int) -> None:
        nonlocal finished, whole
        with await run.server.connect() as client:
            await client.say(f"SEND {size}")
            await client.finish()
            finished += 1
            if await client.rest() == (size, "end"):
                whole += 1

    async with stage.server() as run:
        await all_of(count, client)
        fired(finished == count or run.server.has_ended(), f"{finished} of {count} finished")
        run.outcome.asked, run.outcome.answered = count, whole
    return run.outcome


async def unread_input(stage: Stage) -> Outcome:
    """The server ends each connection behind a last answer of a megabyte, and has not read all that the client said."""
    count, size = stage.many(20), 1_000_000
    unread = whole = 0

    async def client(number: int) -> None:
        nonlocal unread, whole
        with await run.server.connect() as client:
            await client.say(f"LAST 0.2 {size}")
            await client.send(b"x" * 300_000)
            unread += 1
            await trio.sleep(0.5)  # so that the answer waits with the server's kernel when the server ends
            if await client.rest() == (size, "end"):
                whole += 1

    async with stage.server() as run:
        await all_of(count, client)
        fired(unread == count or run.server.has_ended(), f"{unread} of {count} said more than was read")
        run.outcome.asked, run.outcome.answered = count, whole
    return run.outcome


# -- all ----------------------------------------------------------------------------------------------

CASES: tuple[Case, ...] = (
    Case("descriptors", "64 descriptors, 150 clients", out_of_descriptors),
    Case("raise", "10 handlers raise beside 100 at work", handlers_raise, {"they saw": "10 reset"}, kinds=2),
    Case("limit", "50 silent clients under a handler's limit", silent_under_a_limit, {"left open": 0}),
    Case("reset-storm", "2,000 resets beside 50 clients", reset_storm),
    Case("reset-queued", "40 reset before they are accepted", reset_before_accept),
    Case("kill", "4 client processes killed", killed_clients),
    Case("hang-ups", "400 clients hang up at any moment", hang_ups),
    Case("hang-up-storm", "3,000 hang up in one turn, a monitor counts", hang_up_storm),
    Case("garbage", "60 clients send garbage", garbage, {"left open": 0}),
    Case("hellos", "60 bad TLS clients", bad_hellos, kinds=3),
    Case("slow-reader", "one asks for 200 MB and reads nothing", slow_reader),
    Case("silent", "500 silent clients", silent),
    Case("slowloris", "1,000 dribbling clients under a limit", slowloris, {"left open": 0}),
    Case("half-close", "50 clients finish before their answer", half_close),
    Case("unread", "20 last answers with unread input", unread_input),
    Case("log", "the log handler raises", log_handler_raises, kinds=2),
)
