"""What the server programs have in common: their options, their log, and how they say where they listen.

The protocol is lines.  One request, one answer, as many as the client likes; at its end the server ends too.

    ECHO word       the word
    SLEEP s         BEGUN at once, DONE after so many seconds
    SEND n          n bytes
    LAST s n        after so many seconds n bytes, and then the server ends the connection
    RAISE           a bug: the handler raises ValueError
    UPSTREAM port   CONNECTED, if there is somebody at that port; nobody is
    SEEN            how many connections the server's own monitor has seen to end
"""

from __future__ import annotations

import argparse
import logging
import math
import os
import resource
import ssl
import sys
from typing import NoReturn

__all__ = ["BLOCK", "LINE_LIMIT", "BrokenHandler", "Bug", "Options", "missing", "read_options", "ready"]

# What a program sends at once of a long answer: what trio and asyncio read and write at once.
BLOCK = bytes(65536)

# The longest line: what asyncio and trioqt allow unless told otherwise.
LINE_LIMIT = 65536

# Before each record, so that records can be told from their lines (ASCII's record separator).
RECORD = "\x1e"


class Bug(ValueError):
    """What RAISE raises; the driver looks for its words in the log."""

    def __init__(self) -> None:
        super().__init__("asked to raise")


class Options(argparse.Namespace):
    """What a case wants of a server."""

    port: int
    descriptors: int
    patience: float
    stall: float
    grace: float | None
    certificate: str | None
    goodbye: bool
    broken_log: bool
    monitor: bool

    def context(self) -> ssl.SSLContext | None:
        """For TLS; None for a server of plain TCP."""
        if self.certificate is None:
            return None
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(self.certificate)
        return context


class BrokenHandler(logging.Handler):
    """A log whose disk is full, say: whoever writes a record gets an exception."""

    def emit(self, record: logging.LogRecord) -> None:
        os.write(2, f"{RECORD}the log handler raises\n".encode())
        raise RuntimeError("the log is broken")


def read_options() -> Options:
    """From the command line; sets up the log too."""
    parser = argparse.ArgumentParser(description="One server of the chaos table; the driver starts it.")
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--descriptors", type=int, default=0, help="RLIMIT_NOFILE")
    parser.add_argument("--patience", type=float, default=math.inf, help="how long the handler waits for a line")
    parser.add_argument("--stall", type=float, default=math.inf, help="how long a client may make no progress")
    parser.add_argument("--grace", type=float, help="stop in order at SIGTERM, within so many seconds")
    parser.add_argument("--certificate", help="speak TLS")
    parser.add_argument("--goodbye", action="store_true", help="the handler says BYE at its end, whatever has happened")
    parser.add_argument("--broken-log", action="store_true")
    parser.add_argument("--monitor", action="store_true", help="count the connections that end")
    options = parser.parse_args(namespace=Options())
    handler = BrokenHandler() if options.broken_log else logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter(f"{RECORD}%(levelname)s %(name)s: %(message)s"))
    logging.basicConfig(level=logging.INFO, handlers=[handler])
    return options


def ready(options: Options, port: int) -> None:
    """Tell the driver; from here on the limit on descriptors holds."""
    if options.descriptors:
        resource.setrlimit(resource.RLIMIT_NOFILE, (options.descriptors, options.descriptors))
    print("listening", port, flush=True)


def missing(what: str) -> NoReturn:
    """This server cannot take part in this case."""
    print("missing", what, flush=True)
    sys.exit(0)
