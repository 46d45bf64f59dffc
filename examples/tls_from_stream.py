"""Lines over TLS: trio's SSLStream speaks through our socket, and our socket's verbs over that.

Start it.  In a second terminal type ``openssl s_client -quiet -connect 127.0.0.1:4000``.  You will see your lines come
back in capitals, encrypted on the way.  The certificate is made up at each start, so openssl says that it cannot verify
it.  It needs ``pip install trustme``.
"""

import ssl

import trio
import trustme

from trioqt import TcpServer, TcpSocket


def make_context() -> ssl.SSLContext:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    trustme.CA().issue_cert("localhost").configure_cert(context)
    return context


CONTEXT = make_context()


async def shout(sock: TcpSocket) -> None:
    tls = trio.SSLStream(sock, CONTEXT, server_side=True)
    with trio.fail_after(10):
        await tls.do_handshake()
    async with TcpSocket.from_stream(tls) as secure:
        async for line in secure.lines():
            await secure.send_all(line.upper())


async def main() -> None:
    async with TcpServer() as server:
        await server.listen("127.0.0.1", 4000)
        await server.serve(shout)


if __name__ == "__main__":
    trio.run(main)
