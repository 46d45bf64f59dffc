"""Messages of msgpack, which say nowhere how long they are: whoever reads one finds out."""

import msgpack
import trio
import trio.testing

from trioqt import DataStream, DataStreamError, TcpSocket

LIMIT = 1 << 20


def read_msgpack(stream: DataStream) -> object:
    data = stream.data()  # all that has arrived
    unpacker = msgpack.Unpacker(max_buffer_size=LIMIT)
    unpacker.feed(data)
    try:
        value: object = unpacker.unpack()
    except msgpack.OutOfData:
        return stream.read_raw_data(len(data) + 1)  # there are not so many, and so it asks for more
    except (ValueError, RecursionError) as exc:
        raise DataStreamError(f"no msgpack: {exc}") from exc
    stream.skip_raw_data(unpacker.tell())
    return value


async def receive_msgpack(sock: TcpSocket) -> object:
    return await sock.receive_message(read_msgpack, LIMIT)


async def send_msgpack(sock: TcpSocket, value: object) -> None:
    await sock.send_all(msgpack.packb(value))


async def main() -> None:
    ours, theirs = trio.testing.memory_stream_pair()
    async with TcpSocket.from_stream(ours) as here, TcpSocket.from_stream(theirs) as there:
        await send_msgpack(here, {"apples": 3, "prices": [0.5, 0.25]})
        print(await receive_msgpack(there))


if __name__ == "__main__":
    trio.run(main)
