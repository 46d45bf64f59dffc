"""A small HTTP/1.1 server: h11 knows the protocol, the socket carries the bytes.

Start it.  In a second terminal type ``curl -d hello http://127.0.0.1:8000/any/path``.  You will see
``POST /any/path 5 bytes: hello``.  One connection serves as many requests as the client likes.
It needs ``pip install h11``.
"""

import h11
import trio

from trioqt import TcpServer, TcpSocket

MAX_BODY = 1_000_000


async def handle(sock: TcpSocket) -> None:
    http = h11.Connection(h11.SERVER)
    try:
        while isinstance(request := await receive(sock, http), h11.Request):
            body = b""
            while isinstance(part := await receive(sock, http), h11.Data):
                body += part.data
                if len(body) > MAX_BODY:
                    raise h11.RemoteProtocolError("too much", error_status_hint=413)
            line = b"%s %s %d bytes: %s\n" % (request.method, request.target, len(body), body)
            await answer(sock, http, 200, b"" if request.method == b"HEAD" else line, len(line))
            if http.our_state is h11.MUST_CLOSE:
                break
            http.start_next_cycle()
    except h11.RemoteProtocolError as error:
        await answer(sock, http, error.error_status_hint, b"", 0)


async def receive(sock: TcpSocket, http: h11.Connection) -> object:
    while (event := http.next_event()) is h11.NEED_DATA:
        if http.they_are_waiting_for_100_continue:
            await sock.send_all(http.send(h11.InformationalResponse(status_code=100, headers=[])) or b"")
        http.receive_data(await sock.receive_some())
    return event


async def answer(sock: TcpSocket, http: h11.Connection, status: int, body: bytes, length: int) -> None:
    if http.our_state in (h11.IDLE, h11.SEND_RESPONSE):
        headers = [("Content-Length", str(length)), ("Content-Type", "text/plain")]
        events = [h11.Response(status_code=status, headers=headers), h11.Data(data=body), h11.EndOfMessage()]
        await sock.send_all(b"".join(http.send(event) or b"" for event in events))


async def main() -> None:
    async with TcpServer(max_connections=100) as server:
        await server.listen("127.0.0.1", 8000)
        await server.serve(handle)


if __name__ == "__main__":
    trio.run(main)
