"""Back-pressure: a sender waits for its reader, and nothing is lost by it.

How much fits is the network's business, so no case says it.
"""

from __future__ import annotations

import trio
from trio import socket
from trio.testing import wait_all_tasks_blocked

from tests.parity.cases_kit import RESET_ON_CLOSE, Place, attempt, case, drain, until_readable, waits, while_waiting

SMALL = 8192


@case((True, "waits"))
async def a_sender_whose_peer_does_not_read_waits(here: Place) -> object:
    """Something fits, but not everything."""
    client, _ = await here.pair(buffer=SMALL)
    return await here.fill(client) > 0, await waits(client.send, b"x")


@case(True)
async def a_sender_with_buffers_of_the_usual_size_waits_too(here: Place) -> object:
    """Some megabytes at most."""
    client, _ = await here.pair()
    return 0 < await here.fill(client) < 100_000_000


@case((True, b""))
async def what_went_in_comes_out(here: Place) -> object:
    """Every byte, and then the end."""
    client, server = await here.pair(buffer=SMALL)
    count = await here.fill(client)
    client.shutdown(socket.SHUT_WR)
    return await drain(server, count) == count, await server.recv(1)


@case((True, b""))
async def closing_a_full_socket_loses_nothing(here: Place) -> object:
    """close(2) lets the system send on."""
    client, server = await here.pair(buffer=SMALL)
    count = await here.fill(client)
    client.close()
    return await drain(server, count) == count, await server.recv(1)


@case(("ok", "waits", "ok"))
async def a_full_socket_is_not_writable_until_it_is_read(here: Place) -> object:
    """wait_writable()."""
    client, server = await here.pair(buffer=SMALL)
    before = await waits(client.wait_writable)
    count = await here.fill(client)
    full = await waits(client.wait_writable)
    return before, full, await while_waiting(client.wait_writable, then=lambda: drain(server, count))


@case(4)
async def reading_wakes_a_blocked_sender(here: Place) -> object:
    """With the send done."""
    client, server = await here.pair(buffer=SMALL)
    count = await here.fill(client)
    return await while_waiting(client.send, b"more", then=lambda: drain(server, count))


@case("ECONNRESET")
async def a_reset_wakes_a_blocked_sender(here: Place) -> object:
    """It need not wait for a peer that is gone."""
    client, server = await here.pair(buffer=SMALL)
    await here.fill(client)
    server.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET_ON_CLOSE)
    return await while_waiting(client.send, b"more", then=server.close)


@case("ECONNRESET")
async def a_peer_that_closes_unread_wakes_a_blocked_sender(here: Place) -> object:
    """RFC 2525 2.17."""
    client, server = await here.pair(buffer=SMALL)
    await here.fill(client)
    return await while_waiting(client.send, b"more", then=server.close)


@case("ClosedResourceError")
async def closing_wakes_a_blocked_sender(here: Place) -> object:
    """trio's rule: whoever waits on a socket learns that it was closed."""
    client, _ = await here.pair(buffer=SMALL)
    await here.fill(client)
    return await while_waiting(client.send, b"more", then=client.close)


@case(("BusyResourceError", "BusyResourceError"))
async def two_tasks_cannot_wait_to_send(here: Place) -> object:
    """trio: to send and to wait until one may are the same waiting."""
    client, _ = await here.pair(buffer=SMALL)
    await here.fill(client)
    told: list[object] = []

    async def disturb() -> None:
        told.append(await attempt(client.send, b"x"))
        told.append(await attempt(client.wait_writable))
        client.close()

    await while_waiting(client.send, b"more", then=disturb)
    return tuple(told)


@case("EPIPE")
async def ending_wakes_a_blocked_sender(here: Place) -> object:
    """After SHUT_WR nothing can be sent."""
    client, _ = await here.pair(buffer=SMALL)
    await here.fill(client)
    return await while_waiting(client.send, b"more", then=lambda: client.shutdown(socket.SHUT_WR))


@case((True, b"answer"))
async def a_full_direction_does_not_stop_the_other(here: Place) -> object:
    """Two queues."""
    client, server = await here.pair(buffer=SMALL)
    count = await here.fill(client)
    await server.send(b"answer")
    return count > 0, await client.recv(100)


@case(b"elsewhere")
async def a_full_connection_does_not_stop_another(here: Place) -> object:
    """Each has a window of its own."""
    (full, _), (client, server) = await here.pair(buffer=SMALL), await here.pair()
    await here.fill(full)
    await client.send(b"elsewhere")
    return await server.recv(100)


@case((True, True, b""))
async def a_cancelled_send_has_sent_nothing(here: Place) -> object:
    """trio: cancelled means it did not happen, so what arrives is what the counted sends put in."""
    client, server = await here.pair(buffer=SMALL)
    count = await here.fill(client)
    with trio.CancelScope() as scope:
        scope.cancel()
        await client.send(b"cancelled")
    client.shutdown(socket.SHUT_WR)
    return scope.cancelled_caught, await drain(server, count + 100) == count, await server.recv(1)


@case(True)
async def a_large_send_takes_what_fits(here: Place) -> object:
    """send(2), non-blocking: at least a byte, at most all of it."""
    client, _ = await here.pair(buffer=SMALL)
    return 0 < await client.send(bytes(10_000_000)) < 10_000_000


@case(0)
async def sending_nothing_never_waits(here: Place) -> object:
    """Nothing always fits."""
    client, _ = await here.pair(buffer=SMALL)
    await here.fill(client)
    return await waits(client.send, b"")


@case((b"abc", b"de", b"f"))
async def a_reader_takes_as_much_as_it_wants(here: Place) -> object:
    """A stream has no borders: two sends, three reads."""
    client, server = await here.pair()
    await client.send(b"abcd")
    await client.send(b"ef")
    first = await server.recv(3)
    second = await server.recv(2)
    return first, second, await server.recv(100)


@case((b"onetwo", 6))
async def what_arrived_in_two_pieces_is_read_in_one(here: Place) -> object:
    """As soon as both are there."""
    client, server = await here.pair()
    await client.send(b"one")
    await client.send(b"two")
    await until_readable(server)
    await wait_all_tasks_blocked()
    data = await server.recv(100)
    return data, len(data)


@case(True)
async def a_megabyte_passes_through_a_small_window_unchanged(here: Place) -> object:
    """Bytes in are bytes out, in order."""
    client, server = await here.pair(buffer=SMALL)
    data = b"".join(number.to_bytes(4, "big") for number in range(250_000))
    got = bytearray()

    async def send() -> None:
        view = memoryview(data)
        while view:
            view = view[await client.send(view) :]
        client.shutdown(socket.SHUT_WR)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(send)
        while piece := await server.recv(65536):
            got += piece
    return got == data


@case(True)
async def both_directions_carry_much_at_once(here: Place) -> object:
    """An echo of half a megabyte, its client reading while it writes."""
    client, server = await here.pair(buffer=SMALL)

    async def echo() -> None:
        while piece := await server.recv(5000):
            view = memoryview(piece)
            while view:
                view = view[await server.send(view) :]
        server.close()

    async def ask() -> None:
        left = 500_000
        while left:
            left -= await client.send(bytes(left))
        client.shutdown(socket.SHUT_WR)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(echo)
        nursery.start_soon(ask)
        return await drain(client, 1_000_000) == 500_000


@case(True)
async def a_sender_of_datagrams_does_not_wait_for_its_reader(here: Place) -> object:
    """udp(7): what does not fit at the receiver is lost."""
    receiver, sender = await here.bound_udp(), here.udp()
    sent = [await sender.sendto(bytes(1000), receiver.getsockname()) for _ in range(2000)]
    return sent == [1000] * 2000


@case((True, "waits", True, b""))
async def a_unix_stream_has_back_pressure_too(here: Place) -> object:
    """unix(7)."""
    client, server = await here.unix_pair()
    count = await here.fill(client)
    full = await waits(client.wait_writable)
    client.shutdown(socket.SHUT_WR)
    return count > 0, full, await drain(server, count) == count, await server.recv(1)


@case(4)
async def reading_a_unix_stream_wakes_its_sender(here: Place) -> object:
    """As over TCP."""
    client, server = await here.unix_pair()
    count = await here.fill(client)
    return await while_waiting(client.send, b"more", then=lambda: drain(server, count))
