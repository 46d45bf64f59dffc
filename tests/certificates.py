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
    authority: Authority | None = None

    def new_client(self) -> ssl.SSLContext:
        """Another client, that trusts the same."""
        assert self.authority is not None
        return self.authority.client()

    def new_server(self) -> ssl.SSLContext:
        """Another server, with the same certificate."""
        assert self.authority is not None
        return self.authority.server()


@attrs.frozen
class Authority:
    """Who issued a certificate, and that."""

    ca: trustme.CA
    certificate: trustme.LeafCert

    def client(self) -> ssl.SSLContext:
        context = ssl.create_default_context()
        self.ca.configure_trust(context)
        return context

    def server(self) -> ssl.SSLContext:
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        self.certificate.configure_cert(context)
        return context


def contexts(name: str, *, key_type: trustme.KeyType = trustme.KeyType.ECDSA) -> Contexts:
    """A server with a certificate for that name, and a client that trusts who issued it."""
    ca = trustme.CA(key_type=key_type)
    authority = Authority(ca, ca.issue_cert(name, key_type=key_type))
    return Contexts(authority.client(), authority.server(), authority)
