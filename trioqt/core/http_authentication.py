"""How a name and a password are shown to an HTTP proxy: Basic (RFC 7617) and Digest (RFC 7616).

It knows headers and no connections.  Of several challenges the strongest that it can answer is taken.
"""

from __future__ import annotations

import base64
import hashlib
import re
import secrets
from collections.abc import Callable, Iterator, Sequence
from urllib.parse import quote

import attrs

from trioqt.core.errors import ErrorKind
from trioqt.core.network_proxy import Credentials
from trioqt.core.proxies import fail

__all__ = ["Challenge", "Digest", "strongest"]

# RFC 9110, section 11: a token, and a quoted string.  No part of them can match in two ways, so none takes long.
TOKEN = r"[!#$%&'*+.^_`|~0-9A-Za-z-]+"
SCHEME = re.compile(rf"[ \t,]*({TOKEN})(?:[ \t]+|(?=,|$))")
PARAMETER = re.compile(rf'[ \t,]*({TOKEN})[ \t]*=[ \t]*(?:({TOKEN})|"((?:[^"\\]|\\.)*)")[ \t]*(?=,|$)')
TOKEN68 = re.compile(r"[A-Za-z0-9._~+/-]+=*[ \t]*(?=,|$)")

# Of what is shown to people.
REALM_LENGTH = 200

# By strength.  An "-sess" variant hashes the nonces into the secret.
ALGORITHMS: dict[str, Callable[[bytes], hashlib._Hash]] = {
    "SHA-256": hashlib.sha256,
    "MD5": lambda data: hashlib.md5(data, usedforsecurity=False),
}


@attrs.frozen
class Challenge:
    """One that can be answered."""

    scheme: str
    """``basic`` or ``digest``."""
    parameters: dict[str, str]
    algorithm: str = ""
    """Of Digest, a key of ``ALGORITHMS``."""

    @property
    def realm(self) -> str:
        """For whom the name and the password are, for people."""
        return "".join(char if char.isprintable() else "?" for char in self.parameters.get("realm", ""))[:REALM_LENGTH]

    @property
    def is_stale(self) -> bool:
        """The name and the password may be right, only the nonce was too old."""
        return self.scheme == "digest" and self.parameters.get("stale", "").lower() == "true"


def strongest(headers: Sequence[str]) -> Challenge | None:
    """Of the values of ``Proxy-Authenticate``: the best challenge that can be answered, or None."""
    known = [challenge for header in headers for challenge in _challenges(header)]
    ranks = [*ALGORITHMS, ""]
    return min(known, key=lambda challenge: ranks.index(challenge.algorithm), default=None)


def _challenges(header: str) -> Iterator[Challenge]:
    """Those in one header that can be answered."""
    for scheme, parameters in _parse(header):
        if scheme == "basic":
            yield Challenge(scheme, parameters)
        elif scheme == "digest" and "nonce" in parameters:
            algorithm = parameters.get("algorithm", "MD5").upper().removesuffix("-SESS")
            offered = parameters.get("qop", "auth").lower().replace(",", " ").split()
            if algorithm in ALGORITHMS and "auth" in offered:
                yield Challenge(scheme, parameters, algorithm)


def _parse(header: str) -> Iterator[tuple[str, dict[str, str]]]:
    """Scheme by scheme, in lower case, with its parameters.  What makes no sense ends it."""
    at = 0
    while match := SCHEME.match(header, at):
        scheme, at = match[1].lower(), match.end()
        parameters: dict[str, str] = {}
        while match := PARAMETER.match(header, at):
            name, token, text = match.groups()
            value = token if token is not None else re.sub(r"\\(.)", r"\1", text)
            parameters.setdefault(name.lower(), value)
            at = match.end()
        if not parameters and (match := TOKEN68.match(header, at)):
            at = match.end()
        yield scheme, parameters


def basic(credentials: Credentials) -> str:
    """The header that answers Basic."""
    if ":" in credentials.user:
        fail(ErrorKind.PROXY_AUTHENTICATION_REQUIRED, "the proxy wants Basic, which has no colon in a user's name")
    secret = f"{credentials.user}:{credentials.password}".encode()
    return f"Basic {base64.b64encode(secret).decode()}"


@attrs.define
class Digest:
    """Answers one nonce, which may be used for several requests."""

    challenge: Challenge
    count: int = 0

    def answer(
        self, credentials: Credentials, target: str, *, method: str = "CONNECT", cnonce: str | None = None
    ) -> str:
        """The header for a request; section 3.4.

        Args:
          cnonce: Ours; None: a new one.
        """
        given = self.challenge.parameters
        algorithm = given.get("algorithm", "MD5")
        hash_of = ALGORITHMS[self.challenge.algorithm]
        cnonce = secrets.token_hex(16) if cnonce is None else cnonce
        self.count += 1
        count = f"{self.count:08x}"

        def digest(*parts: str) -> str:
            return hash_of(":".join(parts).encode("utf-8", "surrogateescape")).hexdigest()

        user, realm, nonce = credentials.user, given.get("realm", ""), given["nonce"]
        secret = digest(user, realm, credentials.password)
        if algorithm.upper().endswith("-SESS"):
            secret = digest(secret, nonce, cnonce)
        request = digest(method, target)
        fields = {"realm": _quoted(realm), "nonce": _quoted(nonce), "uri": _quoted(target)}
        if "qop" in given:
            response = digest(secret, nonce, count, cnonce, "auth", request)
            fields |= {"qop": "auth", "nc": count, "cnonce": _quoted(cnonce)}
        else:  # as in RFC 2069, which knew no more
            response = digest(secret, nonce, request)
            if algorithm.upper().endswith("-SESS"):  # whose secret nobody could make without it
                fields["cnonce"] = _quoted(cnonce)
        fields["response"] = _quoted(response)
        if "algorithm" in given:
            fields["algorithm"] = algorithm
        if "opaque" in given:
            fields["opaque"] = _quoted(given["opaque"])
        if given.get("userhash", "").lower() == "true":
            fields |= {"username": _quoted(digest(user, realm)), "userhash": "true"}
        elif user.isascii() and user.isprintable():
            fields["username"] = _quoted(user)
        else:
            fields["username*"] = f"UTF-8''{quote(user, safe='')}"
        return "Digest " + ", ".join(f"{name}={value}" for name, value in fields.items())


def _quoted(text: str) -> str:
    escaped = re.sub(r'(["\\])', r"\\\1", text)
    return f'"{escaped}"'
