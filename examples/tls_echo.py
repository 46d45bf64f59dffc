"""An echo server over TLS and its client, in one program, with a certificate of its own that both know.

Start it; no second terminal is needed.  You will see the version of TLS, the cipher, and ``hello``.  It needs
``pip install trustme``.
"""

import ssl

import trio
import trustme

from trioqt import SslServer, SslSocket


async def echo(sock: SslSocket) -> None:
    async for chunk in sock:
        await sock.send_all(chunk)


async def talk(port: int, context: ssl.SSLContext) -> None:
    async with SslSocket(context=context) as sock:
        with trio.fail_after(5):
            await sock.connect_to_host_encrypted("127.0.0.1", port, server_hostname="echo.example")
            print(sock.session_protocol(), (sock.session_cipher() or ["no cipher"])[0])
            await sock.send_all(b"hello\n")
            print((await sock.receive_line()).decode(), end="")


async def main() -> None:
    authority = trustme.CA()
    ours = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("echo.example").configure_cert(ours)
    theirs = ssl.create_default_context()
    authority.configure_trust(theirs)
    async with SslServer(ours) as server, trio.open_nursery() as nursery:
        await server.listen("127.0.0.1")
        await nursery.start(server.serve, echo)
        await talk(server.server_port(), theirs)
        nursery.cancel_scope.cancel()


if __name__ == "__main__":
    trio.run(main)
