"""Clients that will be killed: so many connections, in every attitude, held until the process is gone.

Arguments: the server's port and how many connections.  Says ``ready``, then waits for its end, at most a minute.
"""

import socket
import sys
import time

ATTITUDES = (b"", b"ECHO half a li", b"SEND 100000000\n", b"SLEEP 0.5\n")

port, count = int(sys.argv[1]), int(sys.argv[2])
held = []
for number in range(count):
    sock = socket.create_connection(("127.0.0.1", port), timeout=10)
    sock.sendall(ATTITUDES[number % len(ATTITUDES)])
    held.append(sock)
print("ready", flush=True)
time.sleep(60)
