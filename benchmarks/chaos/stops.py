"""The cases in which the server is stopped, and what becomes of those who had asked."""

from __future__ import annotations

import signal

import trio

from benchmarks.chaos.driver import BITE, LOST, Server, start_server, until
from benchmarks.chaos.stage import Case, Outcome, Stage, counted, fired

__all__ = ["STOPS"]

# The grace that a server has, in seconds; no request lasts half as long.
GRACE = "5"


async def stop_with_requests_in_flight(stage: Stage) -> Outcome:
    """100 requests are at work when SIGTERM comes; later clients are answered or refused, and not left waiting."""
    count = stage.many(100)
    begun = done = 0
    late: list[str] = []

    async def at_work(server: Server) -> None:
        nonlocal begun, done
        try:
            with trio.fail_after(BITE):
                with await server.connect() as client:
                    if await client.ask("SLEEP 0.5") != b"BEGUN\n":
                        return
                    begun += 1
                    if await client.line() == b"DONE\n":
                        done += 1
        except LOST:
            return

    async def late_comer(server: Server) -> None:
        try:
            client = await server.connect()
        except OSError:
            late.append("refused")
            return
        with client:
            try:
                with trio.fail_after(BITE):
                    answer = await client.ask("ECHO late")
            except LOST:
                answer = b""
            late.append("answered" if answer == b"late\n" else "lost")

    async with stage.server("--grace", GRACE, ends=True) as run:
        server = run.server
        async with trio.open_nursery() as nursery:
            for _ in range(count):
                nursery.start_soon(at_work, server)
            await until(lambda: begun == count, BITE)
            stopped = trio.current_time()
            server.process.send_signal(signal.SIGTERM)
            for _ in range(20):
                nursery.start_soon(late_comer, server)
                await trio.sleep(0.01)
        status = await server.ended(2 * BITE)
        seconds = trio.current_time() - stopped
        fired(begun == count, f"{begun} of {count} were at work")
        run.outcome.asked, run.outcome.answered = count, done
        run.outcome.facts |= {"status": status, "late and lost": late.count("lost")}
        run.outcome.figures |= {"late": counted(late), "took": f"{seconds:.1f} s"}
    return run.outcome


async def five_stops(stage: Stage) -> Outcome:
    """Five stops and starts in a row under 60 clients that connect, ask once, and close.

    A client that is refused was told so, and tries again; one that was let in has a right to its answer.
    """
    count = stage.many(60)
    stops = 5
    over = False
    asked = answered = refused = 0
    statuses: list[int | None] = []

    async def client(server: Server) -> None:
        nonlocal asked, answered, refused
        while not over:
            try:
                client = await server.connect()
            except OSError:
                refused += 1
                await trio.sleep(0.01)
                continue
            asked += 1
            with client:
                try:
                    with trio.fail_after(BITE):
                        if await client.ask("ECHO hello") == b"hello\n":
                            answered += 1
                except LOST:
                    pass

    async def stop(server: Server) -> None:
        had = answered
        await until(lambda: answered >= had + 5 * count, BITE)
        server.process.send_signal(signal.SIGTERM)
        statuses.append(await server.ended(2 * BITE))

    outcome = Outcome()
    async with trio.open_nursery() as nursery:
        port = 0
        for _ in range(stops):
            async with start_server(stage.name, "--grace", GRACE, "--port", str(port), trust=stage.trust) as server:
                if not port:
                    port = server.port
                    for _ in range(count):
                        nursery.start_soon(client, server)
                await stop(server)
                outcome.records += server.log_records()
                outcome.lines += server.log_lines()
        over = True
    fired(refused > 0 and len(statuses) == stops, "nobody was there while the server was not")
    outcome.asked, outcome.answered = asked, answered
    outcome.facts["status"] = counted([str(status) for status in statuses])
    return outcome


async def ctrl_c_under_load(stage: Stage) -> Outcome:
    """SIGINT in a program that does nothing about it but ``except KeyboardInterrupt``, under 50 clients."""
    count = stage.many(50)
    questions = 0

    async def client(server: Server) -> None:
        nonlocal questions
        try:
            with await server.connect() as client:
                while await client.ask("ECHO hello"):
                    questions += 1
        except LOST:
            return

    async with stage.server(ends=True) as run:
        server = run.server
        async with trio.open_nursery() as nursery:
            for _ in range(count):
                nursery.start_soon(client, server)
            await until(lambda: questions > 20 * count, BITE)
            began = trio.current_time()
            server.process.send_signal(signal.SIGINT)
            status = await server.ended(BITE)
            nursery.cancel_scope.cancel()
        fired(questions > 20 * count, f"{questions} questions were answered before")
        run.outcome.facts["status"] = status
        run.outcome.figures["took"] = f"{trio.current_time() - began:.2f} s"
    return run.outcome


STOPS: tuple[Case, ...] = (
    Case(
        "stop",
        "SIGTERM with 100 requests at work",
        stop_with_requests_in_flight,
        {"status": 0, "late and lost": 0},
    ),
    Case("five-stops", "5 stops under 60 short clients", five_stops, {"status": "5 0"}),
    Case("ctrl-c", "Ctrl-C under 50 clients", ctrl_c_under_load, {"status": 130}),
)
