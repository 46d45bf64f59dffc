"""The two sides of TLS, with certificates of an authority that nobody else knows."""

from __future__ import annotations

import ssl

import attrs
import trustme

__all__ = ["Contexts", "contexts"]


@attrs.frozen
class Contexts:
    """What the two ends of a TLS connection know."""

    client: ssl.SSLContext
    server: ssl.SSLContext


def contexts(name: str, *, key_type: trustme.KeyType = trustme.KeyType.ECDSA) -> Contexts:
    """A server with a certificate for that name, and a client that trusts who issued it."""
    authority = trustme.CA(key_type=key_type)
    server = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert(name, key_type=key_type).configure_cert(server)
    client = ssl.create_default_context()
    authority.configure_trust(client)
    return Contexts(client, server)
