"""What trio adds to the system's sockets: one reader at a time, cancellation, checks before anything is touched."""

from __future__ import annotations

import trio
from trio import socket
from trio.testing import assert_checkpoints, assert_no_checkpoints, wait_all_tasks_blocked

from tests.parity.cases_kit import Place, all_of, attempt, case, until_readable, waits, while_waiting


@case(("BusyResourceError", b"first"))
async def two_tasks_cannot_read_at_once(here: Place) -> object:
    """The one that came first goes on."""
    client, server = await here.pair()
    second: list[object] = []

    async def disturb() -> None:
        second.append(await attempt(client.recv, 100))
        await server.send(b"first")

    first = await while_waiting(client.recv, 100, then=disturb)
    return second[0], first


@case(("BusyResourceError", "BusyResourceError", "BusyResourceError"))
async def all_ways_to_read_are_reading(here: Place) -> object:
    """recv_into, recvfrom and recvmsg beside a recv."""
    client, _ = await here.pair()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(client.recv, 1)
        await wait_all_tasks_blocked()
        told = await all_of(
            attempt(client.recv_into, bytearray(1)), attempt(client.recvfrom, 1), attempt(client.recvmsg, 1)
        )
        nursery.cancel_scope.cancel()
    return told


@case((b"data", b""))
async def a_second_reader_that_need_not_wait_is_served(here: Place) -> object:
    """Only waiting is exclusive: what is there can be taken without it."""
    client, server = await here.pair()
    await server.send(b"data")
    await until_readable(client)
    got: list[bytes] = []

    async def read() -> None:
        got.append(await client.recv(100))
        server.close()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(read)
    return got[0], await client.recv(100)


@case((5, b"other way"))
async def reading_and_writing_do_not_disturb_each_other(here: Place) -> object:
    """One task each."""
    client, server = await here.pair()
    sent: list[int] = []

    async def write() -> None:
        sent.append(await client.send(b"hello"))
        await server.send(b"other way")

    received = await while_waiting(client.recv, 100, then=write)
    return sent[0], received


@case(("ClosedResourceError", -1))
async def closing_wakes_the_reader(here: Place) -> object:
    """And not with the end."""
    client, _ = await here.pair()
    return await while_waiting(client.recv, 1, then=client.close), client.fileno()


@case(("ok", "ok", -1))
async def closing_twice_is_closing_once(here: Place) -> object:
    """close() is idempotent."""
    client, _ = await here.pair()
    return await attempt(client.close), await attempt(client.close), client.fileno()


@case((True, -1, b""))
async def a_socket_is_a_context_manager(here: Place) -> object:
    """Closed at the end of the block."""
    client, server = await here.pair()
    with client as same:
        assert same.fileno() >= 0
    return same is client, client.fileno(), await server.recv(1)


@case(("TypeError", "TypeError", "ValueError", "TypeError", b"kept"))
async def the_size_to_read_is_a_number_that_is_not_negative(here: Place) -> object:
    """Checked before waiting; nothing is lost by it."""
    client, server = await here.pair()
    await server.send(b"kept")
    wrong = [attempt(client.recv, size) for size in (1.5, "1", -1, None)]
    return *await all_of(*wrong), await client.recv(100)


@case(("TypeError", "ValueError"))
async def a_wrong_size_is_refused_before_waiting(here: Place) -> object:
    """It does not wait first."""
    client, _ = await here.pair()
    return await waits(client.recv, 1.5), await waits(client.recv, -1)


@case((b"", b"kept"))
async def reading_0_bytes_takes_nothing(here: Place) -> object:
    """It does not wait either."""
    client, server = await here.pair()
    nothing = await waits(client.recv, 0)
    await server.send(b"kept")
    return nothing, await client.recv(100)


@case((0, b"x"))
async def sending_nothing_sends_nothing(here: Place) -> object:
    """An empty send is no end."""
    client, server = await here.pair()
    sent = await client.send(b"")
    await client.send(b"x")
    return sent, await server.recv(100)


@case(("TypeError", "TypeError", "TypeError"))
async def what_is_sent_is_bytes(here: Place) -> object:
    """Or something with a buffer."""
    client, _ = await here.pair()
    return await all_of(attempt(client.send, "text"), attempt(client.send, 1), attempt(client.send, None))


@case(b"bytearraymemoryviewwide\0")
async def whatever_has_a_buffer_can_be_sent(here: Place) -> object:
    """Counted in bytes, also if its items are larger."""
    client, server = await here.pair()
    await client.send(bytearray(b"bytearray"))
    await client.send(memoryview(b"--memoryview--")[2:-2])
    await client.send(memoryview(b"wide\0").cast("B"))
    got = b""
    while len(got) < 24:
        got += await server.recv(100)
    return got


@case((3, b"abc.......", 2, b"de", 1, b"f"))
async def recv_into_fills_from_the_start(here: Place) -> object:
    """As many bytes as there are, as asked for, and as there is room."""
    client, server = await here.pair()
    large, small = bytearray(b"." * 10), bytearray(2)
    await server.send(b"abc")
    first = await client.recv_into(large)
    filled = bytes(large)
    await server.send(b"def")
    await until_readable(client)
    second = await client.recv_into(small)
    rest = bytearray(1)
    return first, filled, second, bytes(small), await client.recv_into(rest, 1), bytes(rest)


@case(("ValueError", "ValueError", "TypeError", b"ab..", 2))
async def recv_into_wants_room_for_what_it_is_asked(here: Place) -> object:
    """A count that is too large, one that is negative, a buffer that cannot be written; the last one is right."""
    client, server = await here.pair()
    await server.send(b"abcd")
    buffer = bytearray(b"....")
    wrong = (
        await attempt(client.recv_into, buffer, 5),
        await attempt(client.recv_into, buffer, -1),
        await attempt(client.recv_into, b"fixed"),
    )
    count = await client.recv_into(buffer, 2)
    return *wrong, bytes(buffer), count


@case((b"data", None))
async def recvfrom_of_a_stream_tells_no_name(here: Place) -> object:
    """There is only one who could have sent it."""
    client, server = await here.pair()
    await server.send(b"data")
    return await client.recvfrom(100)


@case((b"data", [], 0, None))
async def recvmsg_of_a_stream(here: Place) -> object:
    """Data, no ancillary data, no flags, no name."""
    client, server = await here.pair()
    await server.send(b"data")
    return await client.recvmsg(100)


@case((5, b"ab", b"cde"))
async def recvmsg_into_of_a_stream(here: Place) -> object:
    """One buffer after the other."""
    client, server = await here.pair()
    await server.send(b"abcde")
    await until_readable(client)
    first, second = bytearray(2), bytearray(10)
    count, *_ = await client.recvmsg_into([first, second])
    return count, bytes(first), bytes(second[:3])


@case((6, b"gather", 0))
async def sendmsg_gathers(here: Place) -> object:
    """Of nothing, nothing."""
    client, server = await here.pair()
    sent = await client.sendmsg([b"ga", bytearray(b"th"), memoryview(b"er")])
    return sent, await server.recv(100), await client.sendmsg([])


@case((b"lo", b"look", b"look", "waits"))
async def what_is_peeked_at_stays(here: Place) -> object:
    """MSG_PEEK."""
    client, server = await here.pair()
    await server.send(b"look")
    peeks = await client.recv(2, socket.MSG_PEEK), await client.recv(100, socket.MSG_PEEK)
    return *peeks, await client.recv(100), await waits(client.recv, 100, socket.MSG_PEEK)


@case((b"", b""))
async def the_end_can_be_peeked_at(here: Place) -> object:
    """And is still there."""
    client, server = await here.pair()
    server.close()
    return await client.recv(1, socket.MSG_PEEK), await client.recv(1)


@case((7, b"to name"))
async def the_address_given_to_a_stream_does_not_matter(here: Place) -> object:
    """sendto(2): Linux ignores it on a connected TCP socket."""
    client, server = await here.pair()
    sent = await client.sendto(b"to name", ("127.0.0.1", 9))
    return sent, await server.recv(100)


@case((False, True, False, True, True))
async def is_readable_says_whether_reading_would_wait(here: Place) -> object:
    """Nothing, data, nothing again, the end, and the end once more."""
    client, server = await here.pair()
    told = [client.is_readable()]
    await server.send(b"x")
    await until_readable(client)
    told.append(client.is_readable())
    await client.recv(1)
    told.append(client.is_readable())
    server.close()
    await until_readable(client)
    told.append(client.is_readable())
    await client.recv(1)
    return *told, client.is_readable()


@case((True, True, False))
async def a_fresh_stream_counts_as_readable(here: Place) -> object:
    """Linux polls it as hung up: TCP and AF_UNIX.  A fresh UDP socket just waits."""
    return here.tcp().is_readable(), here.unix().is_readable(), here.udp().is_readable()


@case(("ok", "ok", "ok", "ok"))
async def what_is_not_full_is_writable(here: Place) -> object:
    """A connected socket, a fresh one, one whose peer is gone, one for datagrams."""
    (client, _), (left, gone) = await here.pair(), await here.pair()
    gone.close()
    await until_readable(left)
    return await all_of(*(waits(sock.wait_writable) for sock in (client, here.tcp(), left, here.udp())))


@case("ValueError")
async def a_closed_socket_cannot_become_writable(here: Place) -> object:
    """Its descriptor is -1, which trio cannot wait for; the other calls say EBADF."""
    client, _ = await here.pair()
    client.close()
    return await attempt(client.wait_writable)


@case((True, b"kept"))
async def a_cancelled_receive_takes_no_data(here: Place) -> object:
    """Cancelled means it did not happen."""
    client, server = await here.pair()
    await server.send(b"kept")
    await until_readable(client)
    with trio.CancelScope() as scope:
        scope.cancel()
        await client.recv(100)
    return scope.cancelled_caught, await client.recv(100)


@case((True, b"later"))
async def a_reader_that_is_cancelled_while_it_waits_takes_no_data(here: Place) -> object:
    """What comes then is for the next."""
    client, server = await here.pair()
    with trio.CancelScope() as scope:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(client.recv, 100)
            await wait_all_tasks_blocked()
            scope.cancel()
    await server.send(b"later")
    return scope.cancelled_caught, await client.recv(100)


@case((True, "waits"))
async def a_send_that_was_cancelled_sends_nothing(here: Place) -> object:
    """Although there was room."""
    client, server = await here.pair()
    with trio.CancelScope() as scope:
        scope.cancel()
        await client.send(b"never")
    return scope.cancelled_caught, await waits(server.recv, 100)


@case(("TooSlow", b"after"))
async def a_deadline_ends_the_waiting(here: Place) -> object:
    """And the socket stays usable."""
    client, server = await here.pair()
    with trio.move_on_after(0.01) as scope:
        await client.recv(1)
    await server.send(b"after")
    return "TooSlow" if scope.cancelled_caught else "data", await client.recv(100)


@case("every call is a checkpoint")
async def asynchronous_calls_are_checkpoints(here: Place) -> object:
    """trio's rule, also if the call need not wait; and the others are none."""
    listener, client, datagram = await here.listener(), here.tcp(), here.udp()
    with assert_checkpoints():
        await client.connect(listener.getsockname())
    with assert_checkpoints():
        server = here.keep((await listener.accept())[0])
    with assert_checkpoints():
        await client.send(b"x")
    with assert_checkpoints():
        await server.recv(1)
    with assert_checkpoints():
        await datagram.bind(("127.0.0.1", 0))
    with assert_checkpoints():
        await datagram.sendto(b"x", datagram.getsockname())
    with assert_no_checkpoints():
        server.shutdown(socket.SHUT_WR)
        client.close()
    return "every call is a checkpoint"


@case("every failure is a checkpoint")
async def failing_calls_are_checkpoints_too(here: Place) -> object:
    """An error is told after a checkpoint, so a loop that retries lets others run."""
    sock, closed = here.tcp(), ("127.0.0.1", await here.unused_port())
    for call in (sock.recv, sock.accept):
        with assert_checkpoints():
            await attempt(call, *([1] if call == sock.recv else []))
    with assert_checkpoints():
        await attempt(sock.connect, closed)
    return "every failure is a checkpoint"


@case((True, True))
async def a_descriptor_is_a_number_of_its_own(here: Place) -> object:
    """fileno()."""
    client, server = await here.pair()
    return client.fileno() >= 0, client.fileno() != server.fileno()


@case((b"dup", True, False))
async def a_duplicate_is_a_socket_of_its_own(here: Place) -> object:
    """dup(): another descriptor of the same connection."""
    client, server = await here.pair()
    second = here.keep(client.dup())
    await server.send(b"dup")
    data = await second.recv(100)
    return data, client.getsockname() == second.getsockname(), client.fileno() == second.fileno()
