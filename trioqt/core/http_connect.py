"""HTTP's CONNECT (RFC 9110, section 9.3.6) as a prologue; see ``proxies.py``.

It knows no network.  As Qt does it asks without a name and a password first, and shows them once the proxy wants them.
"""

from __future__ import annotations

import re
from collections.abc import Generator, Sequence
from typing import Any

import attrs

from trioqt.core.errors import ErrorKind
from trioqt.core.http_authentication import Challenge, Digest, basic, strongest
from trioqt.core.network_proxy import Credentials
from trioqt.core.proxies import Again, Prologue, Receive, Send, Step, Target, ask, expect, fail, receive

__all__ = ["connect"]

# Of one answer, all its interim ones included: twice what servers take by default (8 KiB in Apache and nginx).
HEAD_SIZE = 16384

# What comes with a 407 is a page for people.  A longer one costs a new connection, and not the time to read it.
BODY_SIZE = 65536

# A line that gives the length of a chunk; extensions of it are seldom, and never long.
CHUNK_LINE = 256

# How often a proxy may say that its own nonce is too old before that is a way to say no.
STALE_NONCES = 2

OTHER_KINDS: dict[int, ErrorKind] = {
    403: ErrorKind.SOCKET_ACCESS,
    404: ErrorKind.HOST_NOT_FOUND,
    405: ErrorKind.SOCKET_ACCESS,
    503: ErrorKind.CONNECTION_REFUSED,
}
"""What other answers than 2xx and 407 mean; Qt's.  The rest is PROXY_PROTOCOL."""

# People's texts are UTF-8, and what is not goes back to the proxy as it came.
TEXT = ("utf-8", "surrogateescape")

STATUS_LINE = re.compile(r"HTTP/1\.([01]) ([1-9][0-9][0-9])(?: (.*))?")

# How much of a proxy's words goes into a message.
REASON_LENGTH = 60


@attrs.frozen
class Answer:
    """The head of an answer."""

    status: int
    reason: str
    minor: int
    """Of the version: HTTP/1.0 or 1.1."""
    headers: Sequence[tuple[str, str]]
    """With their names in lower case."""

    def values(self, *names: str) -> list[str]:
        """Of all headers with such a name."""
        return [value for name, value in self.headers if name in names]

    def tokens(self, *names: str) -> list[str]:
        """The same, cut at commas and in lower case."""
        return [token.strip(BLANKS).lower() for value in self.values(*names) for token in value.split(",")]

    def stays_open(self) -> bool:
        """Does the connection outlive it?"""
        said = self.tokens("connection", "proxy-connection")
        return "close" not in said and (self.minor == 1 or "keep-alive" in said)


def connect(target: Target, credentials: Credentials | None) -> Prologue:
    """A connection to ``target``; HTTP does not tell the proxy's own end."""
    answered: Digest | Challenge | None = None
    challenge: Challenge | None = None
    stale = 0
    used = False  # the connection to the proxy has served a request
    while True:
        yield Send(_request(target, answered, credentials))
        first = yield Receive(1)
        if not first and used:  # it was closed while somebody looked for the password
            yield Again()
            used = False
            continue
        answer = yield from _answer(first)
        if answer.status == 407:
            challenge = strongest(answer.values("proxy-authenticate"))
        elif answer.status != 401 or answered is None:  # tinyproxy's word for a wrong password, with no challenge
            break
        if challenge is None:
            fail(ErrorKind.PROXY_PROTOCOL, "the proxy wants a name and a password in no way that is known here")
        used = answer.stays_open() and (yield from _skip_body(answer))
        if answered is not None and challenge.is_stale and stale < STALE_NONCES:
            stale += 1
        elif answered is not None or credentials is None:
            credentials = yield from ask(challenge.realm, credentials)
        if not used:
            yield Again()
        answered = _way_to_answer(challenge, answered)
    if not 200 <= answer.status <= 299:
        kind = OTHER_KINDS.get(answer.status, ErrorKind.PROXY_PROTOCOL)
        fail(kind, f"the proxy answers {answer.status} {answer.reason}".rstrip())
    return None


def _way_to_answer(challenge: Challenge, before: Digest | Challenge | None) -> Digest | Challenge:
    """Of a nonce that was used before, the count goes on (RFC 7616, section 3.4)."""
    if challenge.scheme != "digest":
        return challenge
    nonce = challenge.parameters["nonce"]
    if isinstance(before, Digest) and before.challenge.parameters["nonce"] == nonce:
        return Digest(challenge, before.count)
    return Digest(challenge)


def _request(target: Target, answered: Digest | Challenge | None, credentials: Credentials | None) -> bytes:
    lines = [
        f"CONNECT {target} HTTP/1.1",
        f"Host: {target}",
        "Proxy-Connection: keep-alive",
        "User-Agent: trioqt",
    ]
    if answered is not None and credentials is not None:
        shown = answered.answer(credentials, str(target)) if isinstance(answered, Digest) else basic(credentials)
        lines.append(f"Proxy-Authorization: {shown}")
    return "".join(f"{line}\r\n" for line in [*lines, ""]).encode(*TEXT)


# ---- answers -------------------------------------------------------------------------------


def _answer(first: bytes) -> Generator[Step, Any, Answer]:
    """The final answer, whose first byte may have come; others (1xx) before it are passed over."""
    room = HEAD_SIZE
    while True:
        head = yield from _head(first, room)
        answer = _parse(head)
        if answer.status >= 200:
            return answer
        # RFC 9110, section 15.2.2: who has not asked to switch is not switched.
        expect(answer.status != 101, "the proxy switches to another protocol")
        room -= len(head)
        first = b""


def _head(begun: bytes, room: int) -> Generator[Step, Any, bytes]:
    """Everything up to an empty line, and no byte more."""
    head = bytearray(begun)
    if not head:
        head += yield from receive(1)
    while True:
        # The shortest way to an empty line is "\n\n", or what is missing of it; "\r\n\r\n" is met on the way.
        missing = 1 if head.endswith((b"\n", b"\n\r")) else 2
        expect(len(head) + missing <= room, f"the proxy's answer has no end within {HEAD_SIZE:,} bytes")
        piece: bytes = yield Receive(missing)
        head += piece
        if head.endswith((b"\n\n", b"\n\r\n")):
            return bytes(head)
        _check_beginning(head)
        if len(piece) < missing:
            fail(ErrorKind.PROXY_CONNECTION_CLOSED, "the proxy closed the connection")


BEGINNING = b"HTTP/1."
BLANKS = " \t"


def _check_beginning(head: bytearray) -> None:
    """What is no HTTP need not be read to its end, which may never come."""
    expect(head[: len(BEGINNING)] == BEGINNING[: len(head)], "the proxy does not speak HTTP")


def _parse(head: bytes) -> Answer:
    _check_beginning(bytearray(head))
    first, *lines = head.decode(*TEXT).rstrip("\r\n").split("\n")
    match = STATUS_LINE.fullmatch(first.removesuffix("\r"))
    if match is None:
        fail(ErrorKind.PROXY_PROTOCOL, "the proxy's answer has no status")
    headers: list[tuple[str, str]] = []
    for line in lines:
        text = line.removesuffix("\r")
        if text[:1] in (" ", "\t") and headers:  # folded, which is obsolete
            name, value = headers.pop()
            headers.append((name, f"{value} {text.strip(BLANKS)}"))
            continue
        name, colon, value = text.partition(":")
        expect(colon != "" and name.strip(BLANKS) != "", "the proxy's answer has a header without a name")
        expect("\r" not in text and "\0" not in text, "the proxy's answer has a header with a control character")
        headers.append((name.strip(BLANKS).lower(), value.strip(BLANKS)))
    reason = "".join(char for char in match[3] or "" if char.isascii() and char.isprintable())[:REASON_LENGTH]
    return Answer(int(match[2]), reason, int(match[1]), headers)


def _skip_body(answer: Answer) -> Generator[Step, Any, bool]:
    """Read past what comes with the answer.  False if that cannot be done: then the connection is of no more use."""
    codings = answer.tokens("transfer-encoding")
    if codings:
        return (yield from _skip_chunks()) if codings[-1] == "chunked" else False
    lengths = set(answer.tokens("content-length"))
    if len(lengths) != 1:
        return False  # up to the end of the connection, or nonsense
    (length,) = lengths
    if re.fullmatch("[0-9]{1,9}", length) is None or int(length) > BODY_SIZE:
        return False
    return (yield from _skip(int(length)))


def _skip(count: int) -> Generator[Step, Any, bool]:
    data: bytes = (yield Receive(count)) if count else b""
    return len(data) == count


def _skip_chunks() -> Generator[Step, Any, bool]:
    """RFC 9112, section 7.1: ``| hex length | line end | data | line end |``, up to one of no length; then trailers."""
    room = BODY_SIZE
    while True:
        line = yield from _line(CHUNK_LINE)
        match = re.match(r"[ \t]*([0-9A-Fa-f]{1,8})[ \t]*(?:;|$)", line or "")
        if match is None:
            return False
        length = int(match[1], 16)
        room -= length + CHUNK_LINE
        if room < 0:
            return False
        if length == 0:
            break
        if not (yield from _skip(length)) or (yield from _line(CHUNK_LINE)) != "":
            return False
    while line := (yield from _line(CHUNK_LINE)):
        room -= CHUNK_LINE
        if room < 0:
            return False
    return line == ""


def _line(most: int) -> Generator[Step, Any, str | None]:
    """A line without its end; None if there is none within so many bytes."""
    line = bytearray()
    while len(line) < most:
        byte: bytes = yield Receive(1)
        if not byte:
            return None
        if byte == b"\n":
            return line.decode("latin-1").removesuffix("\r")
        line += byte
    return None
