"""What a server says of a client's certificate: all that is wrong with it."""

from __future__ import annotations

import contextlib
import ssl
from collections.abc import Callable
from pathlib import Path

import pytest
import trio

pytest.importorskip("OpenSSL")

from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import ExtendedKeyUsageOID

from tests.bad_certificates import DAY, NOW, Entity, authority, issue
from tests.certificates import Contexts
from tests.networks import Network
from trioqt import ErrorKind, SocketError, SslErrorKind, SslSocket, TcpServer

NAME = "peer.example"  # whom the server's certificate is for


async def refused_clients_errors(
    network: Network, tls: Contexts, tmp_path: Path, leaf: Entity, *between: Entity
) -> tuple[object, tuple[SslErrorKind, ...]]:
    """How a server takes a client that shows ``leaf``, and what it then has to say of it."""
    server_context, client_context = tls.new_server(), tls.new_client()
    server_context.verify_mode = ssl.CERT_REQUIRED
    server_context.load_verify_locations(cadata=authority().pem())
    file = tmp_path / "client.pem"
    key = leaf.key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()
    file.write_text(key + leaf.pem() + "".join(entity.pem() for entity in between))
    client_context.load_cert_chain(file)
    async with TcpServer(lambda: SslSocket(context=server_context)) as server:
        await server.listen(network.host)
        async with trio.open_nursery() as nursery:

            @nursery.start_soon
            async def _() -> None:
                # Of TLS 1.3, the client hears of it when it reads.
                async with SslSocket(context=client_context) as client:
                    with contextlib.suppress(SocketError):
                        await client.connect_to_host_encrypted(network.host, server.server_port(), server_hostname=NAME)
                        await client.receive_some()

            async with await server.accept() as sock:
                try:
                    await sock.start_server_encryption()
                except SocketError as error:
                    ended: object = error.kind
                else:
                    ended = "encrypted"
                return ended, tuple(error.kind for error in sock.ssl_handshake_errors())


CLIENTS: dict[str, tuple[Callable[[], tuple[Entity, ...]], tuple[SslErrorKind, ...]]] = {
    "good": (lambda: (issue("a client", authority(), usage=ExtendedKeyUsageOID.CLIENT_AUTH),), ()),
    "of an unknown authority": (
        lambda: (issue("a client", issue("Unknown CA", is_ca=True)),),
        (
            SslErrorKind.UNABLE_TO_GET_LOCAL_ISSUER_CERTIFICATE,
            SslErrorKind.UNABLE_TO_VERIFY_FIRST_CERTIFICATE,
        ),
    ),
    "self-signed and expired": (
        lambda: (issue("a client", begins=NOW - 2 * DAY, ends=NOW - DAY),),
        (SslErrorKind.SELF_SIGNED_CERTIFICATE, SslErrorKind.CERTIFICATE_EXPIRED),
    ),
    "for servers only": (
        lambda: (issue("a client", authority(), usage=ExtendedKeyUsageOID.SERVER_AUTH),),
        (SslErrorKind.INVALID_PURPOSE,),
    ),
}


@pytest.mark.parametrize("client", CLIENTS)
async def test_a_server_lists_all_that_is_wrong_with_a_clients_certificate(
    network: Network, tls: Contexts, tmp_path: Path, client: str
) -> None:
    """As a client does with a server's, though the handshake stops at what comes first."""
    make, expected = CLIENTS[client]

    ended, found = await refused_clients_errors(network, tls, tmp_path, *make())

    assert found == expected
    assert ended == (ErrorKind.SSL_HANDSHAKE_FAILED if expected else "encrypted")


async def test_without_pyopenssl_a_server_names_what_came_first(
    network: Network, tls: Contexts, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The handshake itself has found no more."""
    monkeypatch.setattr("trioqt.sockets.ssl_socket.can_judge", lambda: False)
    make, expected = CLIENTS["self-signed and expired"]

    assert await refused_clients_errors(network, tls, tmp_path, *make()) == (
        ErrorKind.SSL_HANDSHAKE_FAILED,
        expected[:1],
    )
