"""How a URL is written down with nothing in it but what RFC 3986 lets a URL have, as QUrl::toEncoded does it."""

from __future__ import annotations

import re
import urllib.parse

__all__ = ["encoded_url"]

# RFC 3986, appendix B, but for a scheme, which has no other characters than those of section 3.1.
PARTS = re.compile(
    r"(?:(?P<scheme>[A-Za-z][A-Za-z0-9+.-]*):)?"
    r"(?://(?:(?P<user>[^/?#@]*)@)?(?P<host>\[[^\]/?#@]*\]|[^/?#@:]*)(?::(?P<port>[0-9]*))?(?=[/?#]|\Z))?"
    r"(?P<path>[^?#]*)(?P<query>\?[^#]*)?(?P<fragment>#.*)?",
    re.DOTALL,
)
LABEL = r"[A-Za-z0-9_](?:[A-Za-z0-9_-]*[A-Za-z0-9_])?"
HOST = re.compile(rf"(?:{LABEL}(?:\.{LABEL})*\.?)?|\[[A-Za-z0-9:.%_~-]+\]")
BARE_PERCENT = re.compile(r"%(?![0-9A-Fa-f]{2})")
ENCODED = re.compile(r"%[0-9A-Fa-f]{2}")

# Beside letters, digits and "-._~", which never are encoded: what separates (section 2.2), and what has been encoded.
SEPARATORS = ":/?@!$&'()*+,;=%"


def encoded_url(url: str) -> bytes:
    """``url`` with all else percent-encoded, and no letter that need not be; scheme and host in small letters.

    Raises: ValueError: The host is not ASCII, or it is no URL.
    """
    parts = PARTS.fullmatch(url)
    assert parts is not None
    scheme, user, host, port = parts["scheme"], parts["user"], parts["host"], parts["port"]
    if host is None and (parts["path"].startswith("//") or (scheme is None and ":" in parts["path"].split("/")[0])):
        raise ValueError(f"{url!r:.200} is no URL")
    written = "" if scheme is None else scheme.lower() + ":"
    if host is not None:
        if not host.isascii():
            raise ValueError(f"the host of a URL must be ASCII, and {host!r:.200} is not")
        if not HOST.fullmatch(host) or int(port or 0) > 65535:
            raise ValueError(f"{url!r:.200} is no URL")
        at = "" if user is None else ":".join(encoded(part, "") for part in user.split(":", 1)) + "@"
        written += f"//{at}{host.lower()}" + (f":{int(port)}" if port else "")
    written += encoded(parts["path"], "[]") + encoded(parts["query"] or "", "[]")
    fragment = parts["fragment"]
    if fragment is not None:
        written += "#" + encoded(fragment[1:], "[]")
    return written.encode("ascii")


def encoded(text: str, also: str) -> str:
    """A part of a URL.  Raises: UnicodeEncodeError: A ValueError: half of a pair of surrogates."""
    if BARE_PERCENT.search(text):
        text = text.replace("%", "%25")  # whoever wrote one "%" that encodes nothing has encoded nothing
    return ENCODED.sub(tidied, urllib.parse.quote(text, safe=SEPARATORS + also))


def tidied(code: re.Match[str]) -> str:
    """One that is encoded: as itself, if it need not be."""
    char = chr(int(code[0][1:], 16))
    return char if char.isascii() and (char.isalnum() or char in "-._~") else code[0].upper()
