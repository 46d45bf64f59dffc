"""Ends: FIN and RST, half-close, and what a socket says afterwards."""

from __future__ import annotations

import struct

from trio import socket

from tests.parity.cases_kit import (
    RESET_ON_CLOSE,
    Place,
    Sock,
    all_of,
    attempt,
    case,
    pending_error,
    until,
    until_readable,
    while_waiting,
)

# linux/include/net/tcp_states.h; what TCP_INFO's first byte says.
TCP_STATES = {
    1: "ESTABLISHED",
    4: "FIN_WAIT1",
    5: "FIN_WAIT2",
    7: "CLOSE",
    8: "CLOSE_WAIT",
    9: "LAST_ACK",
    10: "LISTEN",
}


def state_of(sock: Sock) -> str:
    """The state of RFC 9293 that ``sock`` is in, as the system names it."""
    return TCP_STATES[sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1)[0]]


def has_peer(sock: Sock) -> bool:
    """Whether the connection of ``sock`` still exists."""
    try:
        sock.getpeername()
    except OSError:
        return False
    return True


def reset(sock: Sock) -> None:
    """Close ``sock`` with RST (socket(7), SO_LINGER)."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET_ON_CLOSE)
    sock.close()


@case((b"last words", b"", b""))
async def the_end_is_an_empty_read_again_and_again(here: Place) -> object:
    """recv(2)."""
    client, server = await here.pair()
    await server.send(b"last words")
    server.close()
    return await all_of(client.recv(100), client.recv(100), client.recv(100))


@case((b"", 5, b"reply", b""))
async def after_a_half_close_the_other_direction_goes_on(here: Place) -> object:
    """RFC 9293 3.6: who has sent FIN may still receive."""
    client, server = await here.pair()
    client.shutdown(socket.SHUT_WR)
    end = await server.recv(100)
    sent = await server.send(b"reply")
    received = await client.recv(100)
    server.close()
    return end, sent, received, await client.recv(100)


@case(("EPIPE", "EPIPE", "EPIPE", True))
async def who_has_sent_the_end_sends_no_more(here: Place) -> object:
    """send(2): EPIPE; Python ignores SIGPIPE."""
    client, _ = await here.pair()
    client.shutdown(socket.SHUT_WR)
    sends = await all_of(attempt(client.send, b"x"), attempt(client.sendmsg, [b"x"]), attempt(client.send, b"x"))
    return *sends, client.did_shutdown_SHUT_WR


@case((False, False, True, True))
async def only_ending_the_sending_side_is_remembered_as_such(here: Place) -> object:
    """trio's did_shutdown_SHUT_WR: SHUT_WR and SHUT_RDWR."""
    (first, _), (second, _) = await here.pair(), await here.pair()
    before = first.did_shutdown_SHUT_WR
    first.shutdown(socket.SHUT_RD)
    after_reading = first.did_shutdown_SHUT_WR
    first.shutdown(socket.SHUT_WR)
    second.shutdown(socket.SHUT_RDWR)
    return before, after_reading, first.did_shutdown_SHUT_WR, second.did_shutdown_SHUT_WR


@case((b"", 2, "ok"))
async def after_shut_rd_nothing_is_there_to_read_and_sending_goes_on(here: Place) -> object:
    """SHUT_RD sends nothing: the peer does not know."""
    client, server = await here.pair()
    client.shutdown(socket.SHUT_RD)
    return await client.recv(1), await client.send(b"hi"), "ok" if await server.recv(9) == b"hi" else "lost"


@case((b"early", b""))
async def what_came_before_shut_rd_can_still_be_read(here: Place) -> object:
    """Linux keeps the receive queue."""
    client, server = await here.pair()
    await server.send(b"early")
    await until_readable(client)
    client.shutdown(socket.SHUT_RD)
    return await client.recv(100), await client.recv(100)


@case((b"", b"late", b""))
async def what_comes_after_shut_rd_can_still_be_read(here: Place) -> object:
    """Linux goes on receiving: SHUT_RD only ends the waiting."""
    client, server = await here.pair()
    client.shutdown(socket.SHUT_RD)
    before = await client.recv(100)
    await server.send(b"late")
    late = b""
    for _ in range(1000):
        late = late or await client.recv(100)
    return before, late, await client.recv(100)


@case(b"")
async def shut_rd_wakes_the_reader(here: Place) -> object:
    """The reader finds the end."""
    client, _ = await here.pair()
    return await while_waiting(client.recv, 1, then=lambda: client.shutdown(socket.SHUT_RD))


@case((b"", "EPIPE", b""))
async def shut_rdwr_ends_both_directions(here: Place) -> object:
    """The peer sees the end too."""
    client, server = await here.pair()
    client.shutdown(socket.SHUT_RDWR)
    return await client.recv(1), await attempt(client.send, b"x"), await server.recv(1)


@case(("ok", "ok", "ok", "ok"))
async def shutdown_may_be_repeated_while_the_peer_has_not_finished(here: Place) -> object:
    """shutdown(2) minds only a socket that is not connected."""
    client, _ = await here.pair()
    ways = [socket.SHUT_WR, socket.SHUT_WR, socket.SHUT_RD, socket.SHUT_RDWR]
    return tuple([await attempt(client.shutdown, how) for how in ways])


@case(("ENOTCONN", "ENOTCONN", "ENOTCONN"))
async def when_both_have_finished_shutdown_says_not_connected(here: Place) -> object:
    """The connection has left the socket (TIME_WAIT is not the socket's state in Linux)."""
    client, server = await here.pair()
    client.shutdown(socket.SHUT_WR)
    await server.recv(1)
    server.shutdown(socket.SHUT_WR)
    await client.recv(1)
    ways = [socket.SHUT_WR, socket.SHUT_RD, socket.SHUT_RDWR]
    return tuple([await attempt(client.shutdown, how) for how in ways])


@case(
    (
        ("ESTABLISHED", "ESTABLISHED"),
        ("FIN_WAIT2", "CLOSE_WAIT"),
        ("CLOSE", "CLOSE"),
    )
)
async def the_states_of_an_orderly_end(here: Place) -> object:
    """RFC 9293 figure 12, as TCP_INFO tells it; TIME_WAIT and LAST_ACK are over before anyone looks."""
    client, server = await here.pair()
    open_both = state_of(client), state_of(server)
    client.shutdown(socket.SHUT_WR)
    await server.recv(1)
    await until(lambda: state_of(client) != "FIN_WAIT1")
    half_closed = state_of(client), state_of(server)
    server.shutdown(socket.SHUT_WR)
    await client.recv(1)
    await until(lambda: state_of(server) != "LAST_ACK")
    return open_both, half_closed, (state_of(client), state_of(server))


@case(("CLOSE", "CLOSE", "LISTEN", "CLOSE"))
async def the_states_without_a_connection(here: Place) -> object:
    """A reset connection is closed at once."""
    (client, server), listener = await here.pair(), await here.listener()
    reset(server)
    await until_readable(client)
    return state_of(here.tcp()), state_of(await here.bound()), state_of(listener), state_of(client)


@case((("127.0.0.1", "port A"), ("127.0.0.1", "port B")))
async def after_one_end_both_names_are_known(here: Place) -> object:
    """A half-closed connection is a connection."""
    client, server = await here.pair()
    client.shutdown(socket.SHUT_RDWR)
    await server.recv(1)
    return here.ends(client)[0]


@case((("127.0.0.1", "port A"), "ENOTCONN", ("127.0.0.1", "port B"), "ENOTCONN"))
async def after_both_ends_only_the_own_name_is_known(here: Place) -> object:
    """getpeername(2): ENOTCONN."""
    client, server = await here.pair()
    client.shutdown(socket.SHUT_WR)
    await server.recv(1)
    server.shutdown(socket.SHUT_WR)
    await client.recv(1)
    await until(lambda: not has_peer(server))
    mine = here.told(client.getsockname()), await attempt(client.getpeername)
    return *mine, here.told(server.getsockname()), await attempt(server.getpeername)


@case((("127.0.0.1", "port A"), "ENOTCONN"))
async def after_a_reset_only_the_own_name_is_known(here: Place) -> object:
    """Before the error is read."""
    client, server = await here.pair()
    reset(server)
    await until_readable(client)
    return here.told(client.getsockname()), await attempt(client.getpeername)


@case(("ECONNRESET", b"", "EPIPE", 0))
async def a_reset_is_told_once_to_a_reader(here: Place) -> object:
    """Then it is the end."""
    client, server = await here.pair()
    reset(server)
    return (
        await attempt(client.recv, 1),
        await attempt(client.recv, 1),
        await attempt(client.send, b"x"),
        pending_error(client),
    )


@case(("ECONNRESET", "EPIPE", b"", 0))
async def a_reset_is_told_once_to_a_writer(here: Place) -> object:
    """ECONNRESET first, EPIPE from then on."""
    client, server = await here.pair()
    reset(server)
    await until_readable(client)
    return (
        await attempt(client.send, b"x"),
        await attempt(client.send, b"x"),
        await attempt(client.recv, 1),
        pending_error(client),
    )


@case(("ECONNRESET", 0, b"", "EPIPE"))
async def a_reset_is_told_once_by_so_error(here: Place) -> object:
    """Whoever asks first gets it."""
    client, server = await here.pair()
    reset(server)
    await until_readable(client)
    return pending_error(client), pending_error(client), await attempt(client.recv, 1), await attempt(client.send, b"x")


@case((b"last words", "ECONNRESET", b""))
async def what_came_before_a_reset_can_still_be_read(here: Place) -> object:
    """Linux keeps the receive queue; RFC 9293 3.10.7.4 would flush it."""
    client, server = await here.pair()
    await server.send(b"last words")
    await until_readable(client)
    reset(server)
    return await attempt(client.recv, 100), await attempt(client.recv, 100), await attempt(client.recv, 100)


@case("ECONNRESET")
async def a_reset_wakes_the_reader(here: Place) -> object:
    """With the error."""
    client, server = await here.pair()
    return await while_waiting(client.recv, 1, then=lambda: reset(server))


@case(b"")
async def an_end_wakes_the_reader(here: Place) -> object:
    """With nothing."""
    client, server = await here.pair()
    return await while_waiting(client.recv, 1, then=server.close)


@case("ECONNRESET")
async def closing_with_unread_data_resets(here: Place) -> object:
    """RFC 2525 2.17: who closes without having read everything must say so."""
    client, server = await here.pair()
    await client.send(b"nobody reads this")
    await until_readable(server)
    server.close()
    return await attempt(client.recv, 1)


@case((b"bye", "ECONNRESET"))
async def what_was_sent_before_closing_with_unread_data_arrives(here: Place) -> object:
    """The bytes, then the reset."""
    client, server = await here.pair()
    await client.send(b"nobody reads this")
    await until_readable(server)
    await server.send(b"bye")
    await until_readable(client)
    server.close()
    return await attempt(client.recv, 100), await attempt(client.recv, 100)


@case((b"", b""))
async def shutting_down_with_unread_data_does_not_reset(here: Place) -> object:
    """Only close() resets."""
    client, server = await here.pair()
    await client.send(b"unread")
    await until_readable(server)
    server.shutdown(socket.SHUT_RDWR)
    return await attempt(client.recv, 1), await attempt(client.recv, 1)


@case((b"", 1, "EPIPE", b""))
async def a_send_to_a_closed_peer_succeeds_once(here: Place) -> object:
    """The answer to it is a reset, which after FIN is told as EPIPE (tcp_reset in tcp_input.c), to a writer only."""
    client, server = await here.pair()
    server.close()
    end = await client.recv(1)
    first = await client.send(b"x")
    await until(lambda: not has_peer(client))
    return end, first, await attempt(client.send, b"x"), await attempt(client.recv, 1)


@case((b"", b"", 1, "EPIPE"))
async def data_for_a_socket_shut_both_ways_resets(here: Place) -> object:
    """RFC 1122 4.2.2.13: nobody will read it, so the sender is told."""
    client, server = await here.pair()
    client.shutdown(socket.SHUT_RDWR)
    ends = await client.recv(1), await server.recv(1)
    sent = await server.send(b"x")
    await until(lambda: not has_peer(server))
    return *ends, sent, await attempt(server.send, b"y")


@case((b"all of it", b""))
async def linger_with_time_closes_in_good_order(here: Place) -> object:
    """Only a time of 0 resets; a non-blocking close does not wait."""
    client, server = await here.pair()
    server.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 5))
    await server.send(b"all of it")
    server.close()
    return await client.recv(100), await client.recv(100)


@case((b"all of it", b""))
async def linger_off_closes_in_good_order(here: Place) -> object:
    """A time without the switch means nothing."""
    client, server = await here.pair()
    server.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 0, 0))
    await server.send(b"all of it")
    server.close()
    return await client.recv(100), await client.recv(100)


@case((b"", "ECONNRESET"))
async def a_reset_after_the_own_end_is_told_as_a_reset(here: Place) -> object:
    """The client has finished sending, but not receiving."""
    client, server = await here.pair()
    client.shutdown(socket.SHUT_WR)
    end = await server.recv(1)
    reset(server)
    return end, await attempt(client.recv, 1)


@case((b"", b"", 0))
async def closing_at_both_ends_at_once_is_no_error(here: Place) -> object:
    """RFC 9293 figure 13."""
    client, server = await here.pair()
    client.shutdown(socket.SHUT_WR)
    server.shutdown(socket.SHUT_WR)
    return await client.recv(1), await server.recv(1), pending_error(client)


@case((3, b"one", b""))
async def a_connection_lasts_until_its_last_duplicate_is_closed(here: Place) -> object:
    """dup(2): two descriptors, one socket."""
    client, server = await here.pair()
    second = here.keep(client.dup())
    client.close()
    sent = await second.send(b"one")
    received = await server.recv(100)
    second.close()
    return sent, received, await server.recv(100)


@case((b"", "EPIPE"))
async def a_shutdown_is_for_all_duplicates(here: Place) -> object:
    """It is the socket that is shut, not the descriptor."""
    client, server = await here.pair()
    second = here.keep(client.dup())
    client.shutdown(socket.SHUT_WR)
    return await server.recv(1), await attempt(second.send, b"x")
