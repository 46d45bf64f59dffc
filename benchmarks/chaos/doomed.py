"""Clients that will be killed: so many connections, in every attitude, held until the process is gone.

Arguments: the server's port, how many connections, and for TLS the file of the authority.
Says ``ready``, then waits for its end, at most a minute.
"""

import socket
import ssl
import sys
import time

ATTITUDES = (b"", b"ECHO half a li", b"SEND 100000000\n", b"SLEEP 0.5\n")

port, count = int(sys.argv[1]), int(sys.argv[2])
context = ssl.create_default_context(cafile=sys.argv[3]) if len(sys.argv) > 3 else None
held = []
for number in range(count):
    sock = socket.create_connection(("127.0.0.1", port), timeout=10)
    if context is not None:
        sock = context.wrap_socket(sock, server_hostname="localhost")
    sock.sendall(ATTITUDES[number % len(ATTITUDES)])
    held.append(sock)
print("ready", flush=True)
time.sleep(60)
