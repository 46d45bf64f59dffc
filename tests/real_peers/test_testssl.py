"""testssl.sh, which asks a TLS server all that is known to be wrong with some, finds nothing with ours."""

from __future__ import annotations

import json
import ssl
import sys
from pathlib import Path

import attrs
import pytest
import trio
import trustme

from tests.peers import peer_command
from tests.real_peers.programs import run_to_its_end, running
from trioqt import SslSocket

HOST = "127.0.0.1"

# What it asks: versions, kinds of ciphers, forward secrecy, the server's choices, its hello and certificate, and every
# hole that has a name.  Of its usual run the HTTP headers are missing, and what popular clients would agree on.
QUESTIONS = ("--protocols", "--std", "--fs", "--server-preference", "--server-defaults", "--vulnerable")

# Of what it calls worse than LOW, what is ours to choose and has nothing to do with the server.
CHOSEN = {
    "cert_revocation": "a private authority's certificate names no list of revoked ones",
    "cert_validityPeriod": "trustme's begin in the year 2000",
    "engine_problem": "the openssl of this machine has no GOST",
    "sessionresumption_ticket": "its client may be gone before the ticket comes, and has none to show then",
}

# How long it sleeps behind each message, in seconds, before it looks for an answer: 0.1 if not told.
NAP = "0.02"

# What must be among the answers, as fine or as a mere piece of information, or it has not asked.
SOUND = {
    *("SSLv2", "SSLv3", "TLS1", "TLS1_1", "TLS1_2", "TLS1_3"),
    *("cipherlist_NULL", "cipherlist_aNULL", "cipherlist_EXPORT", "cipherlist_LOW", "cipherlist_STRONG", "PFS"),
    *("heartbleed", "CCS", "secure_renego", "secure_client_renego", "CRIME_TLS", "POODLE_SSL", "SWEET32", "BEAST"),
    *("cert_chain_of_trust", "cert_trust", "cert_expirationStatus"),
}
SEVERE = {"WARN", "MEDIUM", "HIGH", "CRITICAL", "FATAL"}


@attrs.frozen
class Site:
    """A certificate of an authority of our own, as files."""

    certificate: Path
    key: Path
    authority: Path


@pytest.fixture
def site(tmp_path: Path) -> Site:
    authority = trustme.CA(key_type=trustme.KeyType.ECDSA)
    issued = authority.issue_cert("localhost", HOST, key_type=trustme.KeyType.ECDSA)
    found = Site(tmp_path / "cert.pem", tmp_path / "key.pem", tmp_path / "ca.pem")
    found.certificate.write_bytes(b"".join(blob.bytes() for blob in issued.cert_chain_pems))
    issued.private_key_pem.write_to_path(found.key)
    authority.cert_pem.write_to_path(found.authority)
    return found


async def test_nothing_worse_than_low_is_found(site: Site, tmp_path: Path) -> None:
    """Against ``trioqt serve echo --tls`` as it is; which serves on, and has said nothing of it."""
    command = peer_command("testssl")
    file = tmp_path / "findings.json"
    serve = (sys.executable, "-m", "trioqt", "serve", "echo", "--port", "0")
    with trio.fail_after(900):  # it asks some hundred times, by a shell: 25 s of a processor, if it has one of its own
        async with running(*serve, "--tls", str(site.certificate), str(site.key)) as server:
            port = int((await server.out.line_with("listening on")).rpartition(":")[2])
            asked = await run_to_its_end(
                *("env", f"USLEEP_SND={NAP}", command),
                *("--quiet", "--warnings", "off", "--color", "0", "--nodns", "none"),
                *("--add-ca", str(site.authority), "--jsonfile", str(file), *QUESTIONS, f"{HOST}:{port}"),
            )
            context = ssl.create_default_context(cafile=str(site.authority))
            async with SslSocket(context=context) as sock:
                await sock.connect_to_host_encrypted(HOST, port, server_hostname="localhost")
                await sock.send_all(b"hello\n")
                answer = await sock.receive_line()

    findings = {finding["id"]: (finding["severity"], finding["finding"]) for finding in json.loads(file.read_text())}
    severe = {name: what for name, what in findings.items() if what[0] in SEVERE and name not in CHOSEN}
    assert answer == b"hello\n", asked.stdout.decode()
    assert severe == {}
    assert {name for name in SOUND if findings.get(name, ("",))[0] not in ("OK", "INFO")} == set()
