import careful_store
import trio

from trioqt import TcpServer, TcpSocket


async def test_a_client_is_answered_when_the_network_is_back(virtual_network, nursery):
    """The network is cut for half a minute while a question is under way: it arrives, late, and once."""
    await nursery.start(serve_store, virtual_network)
    async with TcpSocket() as sock:
        await sock.connect_to_host("server", 4000)
        await sock.send_all(b"SET colour green\n")
        assert await sock.receive_line() == b"OK\n"

        with virtual_network.partition("default", "server"):
            await sock.send_all(b"GET colour\n")
            await trio.sleep(30)
        assert await sock.receive_line() == b"VALUE green\n"

        assert 30 < trio.current_time() < 60  # TCP doubles its pauses, and knows nothing of healing


async def test_a_client_that_is_cut_off_for_long_does_not_hold_a_place(virtual_network, nursery):
    """After a minute of silence the server says BYE to nobody, and the connection is gone."""
    server = await nursery.start(serve_store, virtual_network)
    async with TcpSocket() as sock:
        await sock.connect_to_host("server", 4000)
        with virtual_network.partition("default", "server"):
            await trio.sleep(300)
            assert server.connection_count() == 0


async def serve_store(net, *, task_status):
    async with TcpServer(max_connections=100) as server:
        with net.host("server"):
            await server.listen(port=4000)
            await server.serve(careful_store.talk, task_status=task_status)
