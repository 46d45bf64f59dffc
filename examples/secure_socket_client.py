"""Qt's Secure Socket Client: it shows what TLS has agreed on, and asks what to do about a bad certificate.

It needs ``pip install -e '.[tls]'``.  In a second terminal make a certificate that nobody knows, and serve with it:
``openssl req -x509 -newkey rsa:2048 -nodes -keyout key.pem -out cert.pem -subj /CN=me``, and
``openssl s_server -rev -accept 4433 -cert cert.pem -key key.pem``.  Start this.  You will see what is wrong with the
certificate; after ``yes``, the cipher, and your lines, which come back in reverse.
"""

import sys

import trio

from trioqt import PauseMode, SocketError, SslErrors, SslSocket

HOST, PORT = "localhost", 4433


async def ask(question: str) -> str:
    print(question, end="", flush=True)
    line: str = await trio.to_thread.run_sync(sys.stdin.readline, abandon_on_cancel=True)
    return line.strip()


async def judge(sock: SslSocket, *, task_status: trio.TaskStatus[None]) -> None:
    async with sock.events(SslErrors) as events:
        task_status.started()
        async for found in events:
            for error in found.errors:
                print(error.message)
            if await ask("Go on all the same? ") == "yes":
                sock.ignore_ssl_errors(found.errors)  # these, with this certificate, and no others
            sock.resume()


async def show(sock: SslSocket) -> None:
    async for line in sock.lines():
        print(line.decode(errors="replace"), end="")


async def main() -> None:
    try:
        async with SslSocket() as sock, trio.open_nursery() as nursery:
            sock.set_pause_mode(PauseMode.ON_SSL_ERRORS)
            await nursery.start(judge, sock)
            await sock.connect_to_host_encrypted(HOST, PORT)
            print(sock.session_protocol(), (sock.session_cipher() or ["no cipher"])[0])
            nursery.start_soon(show, sock)
            while line := await ask(""):
                await sock.send_all(f"{line}\n".encode())
            nursery.cancel_scope.cancel()
    except* SocketError as errors:
        print(*errors.exceptions)


if __name__ == "__main__":
    trio.run(main)
