"""Messages on a connection, in several formats.  Each function receives a whole one, or has taken nothing."""

import json
import re

import trio
import trio.testing

from trioqt import DataStream, DataStreamError, ErrorKind, SocketError, TcpSocket

LIMIT = 1 << 20


def corrupt(message: str) -> SocketError:
    return SocketError(ErrorKind.CORRUPT_DATA, message)


async def receive_block(sock: TcpSocket) -> bytes:
    async with sock.transaction(LIMIT):
        size = int.from_bytes(await sock.receive_exactly(4), "big")
        return await sock.receive_exactly(size)


async def send_block(sock: TcpSocket, block: bytes) -> None:
    await sock.send_all(len(block).to_bytes(4, "big") + block)


async def receive_text(sock: TcpSocket) -> str:
    line = await sock.receive_until((b"\n", b"\r\n"), LIMIT)
    try:
        return line.removesuffix(b"\n").removesuffix(b"\r").decode()
    except UnicodeDecodeError as exc:
        raise corrupt(f"a line that is no UTF-8: {exc}") from exc


async def receive_json(sock: TcpSocket) -> object:
    line = await sock.receive_until(b"\n", LIMIT)
    try:
        value: object = json.loads(line)
    except (ValueError, RecursionError) as exc:  # no JSON, or lists in lists in lists
        raise corrupt(f"a line that is no JSON: {exc}") from exc
    return value


async def send_json(sock: TcpSocket, value: object) -> None:
    await sock.send_all(json.dumps(value).encode() + b"\n")


async def receive_netstring(sock: TcpSocket) -> bytes:
    async with sock.transaction(LIMIT):
        digits = (await sock.receive_until(b":", 8)).removesuffix(b":")
        if not digits.isdigit():
            raise corrupt(f"the size of a netstring is {digits!r}")
        body = await sock.receive_exactly(int(digits) + 1)
        if not body.endswith(b","):
            raise corrupt("a netstring without its comma")
        return body[:-1]


async def send_netstring(sock: TcpSocket, body: bytes) -> None:
    await sock.send_all(b"%d:%b," % (len(body), body))


async def receive_reply(sock: TcpSocket) -> object:
    async with sock.transaction(LIMIT):
        return await one_reply(sock, 8)


async def one_reply(sock: TcpSocket, depth: int) -> object:
    line = (await sock.receive_until(b"\r\n", 1000)).removesuffix(b"\r\n")
    sort, rest = line[:1], line[1:]
    if sort in (b"+", b"-"):
        return rest
    if sort not in (b":", b"$", b"*") or not re.fullmatch(rb"-?[0-9]{1,18}", rest):
        raise corrupt(f"no reply begins with {line[:20]!r}")
    number = int(rest)
    if sort == b":":
        return number
    if number == -1:
        return None
    if number < 0 or not depth:
        raise corrupt("a reply of negative size, or lists in lists in lists")
    if sort == b"*":
        return [await one_reply(sock, depth - 1) for _ in range(number)]
    return (await sock.receive_exactly(number + 2))[:-2]


def read_sized(stream: DataStream) -> bytes:
    size = 0
    for shift in range(0, 35, 7):
        byte = stream.read_uint8()
        size |= (byte & 0x7F) << shift
        if byte < 0x80:
            return stream.read_raw_data(size)
    raise DataStreamError("a size of more than five bytes")


async def receive_sized(sock: TcpSocket) -> bytes:
    return await sock.receive_message(read_sized, LIMIT)


async def send_sized(sock: TcpSocket, body: bytes) -> None:
    size, head = len(body), bytearray()
    while size > 0x7F:
        head.append(size & 0x7F | 0x80)
        size >>= 7
    await sock.send_all(bytes([*head, size]) + body)


def read_order(stream: DataStream) -> tuple[str | None, int, list[float]]:
    return stream.read_q_string(), stream.read_int32(), stream.read_list(DataStream.read_double)


async def receive_order(sock: TcpSocket) -> tuple[str | None, int, list[float]]:
    return await sock.receive_message(read_order, LIMIT)


async def send_order(sock: TcpSocket, name: str, count: int, prices: list[float]) -> None:
    stream = DataStream()
    stream.write_q_string(name)
    stream.write_int32(count)
    stream.write_list(prices, DataStream.write_double)
    await sock.send_all(stream.data())


async def receive_order_block(sock: TcpSocket) -> tuple[str | None, int, list[float]]:
    block = await receive_block(sock)
    try:
        return read_order(DataStream(block))
    except DataStreamError as exc:
        raise corrupt(f"a block that is no order: {exc}") from exc


async def answer_blocks(sock: TcpSocket) -> None:
    while not sock.at_end() or await sock.wait_for_ready_read():
        block = await receive_block(sock)
        await send_block(sock, block.upper())


async def main() -> None:
    """Each format once: what is sent at one end is received at the other."""
    ours, theirs = trio.testing.memory_stream_pair()
    async with TcpSocket.from_stream(ours) as here, TcpSocket.from_stream(theirs) as there:
        await send_block(here, b"any bytes")
        print(await receive_block(there))
        await here.send_all(b"a line\r\n")
        print(await receive_text(there))
        await send_json(here, {"colour": "green"})
        print(await receive_json(there))
        await send_netstring(here, b"counted")
        print(await receive_netstring(there))
        await here.send_all(b"*3\r\n$3\r\nSET\r\n:5\r\n*1\r\n+OK\r\n")
        print(await receive_reply(there))
        await send_sized(here, b"as protobuf has it")
        print(await receive_sized(there))
        await send_order(here, "apples", 3, [0.5, 0.25])
        print(await receive_order(there))
        await send_block(here, b"the last one")
        await here.send_eof()
        await answer_blocks(there)
        print(await receive_block(here))


if __name__ == "__main__":
    trio.run(main)
