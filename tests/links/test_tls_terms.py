"""How a TLS object comes about, where threads share a context."""

from __future__ import annotations

import ssl
import threading
from collections.abc import Callable
from typing import Any

import pytest

from tests.certificates import contexts
from trioqt.links.chain import find_errors
from trioqt.links.tls_terms import Terms, chain_of, checks_of

NAME = "peer.example"
UNKNOWN = contexts(NAME)

# What another thread gets to go wrong, in seconds; one that is held up takes no part of it.
CHANCE = 0.05


async def no_judge(chain: tuple[bytes, ...]) -> None:
    raise AssertionError


class Watched(ssl.SSLContext):
    """A context that lets another thread go to work while a TLS object is made of it."""

    meanwhile: Callable[[], Any] | None = None

    def wrap_bio(self, *args: Any, **kwargs: Any) -> ssl.SSLObject:
        meanwhile, self.meanwhile = self.meanwhile, None
        if meanwhile is not None:
            assert self.verify_mode is ssl.CERT_NONE
            meanwhile()
        return super().wrap_bio(*args, **kwargs)


class Pair:
    """A client, and a server that nobody knows, in memory."""

    def __init__(self, context: ssl.SSLContext, *, judged: bool = False) -> None:
        there, back = ssl.MemoryBIO(), ssl.MemoryBIO()
        terms = Terms(context, False, NAME, judge=no_judge if judged else None)
        self.client = terms.make_object(back, there)
        self.server = UNKNOWN.server.wrap_bio(there, back, server_side=True)

    def is_believed(self) -> bool:
        """Does the client take the server's certificate?"""
        for end in (self.client, self.server):
            with pytest.raises(ssl.SSLWantReadError):
                end.do_handshake()
        try:
            self.client.do_handshake()
        except ssl.SSLCertVerificationError:
            return False
        return True

    def chain(self) -> tuple[bytes, ...]:
        """What the server shows."""
        assert self.is_believed()
        return chain_of(self.client)


@pytest.mark.parametrize("what", ["a handshake", "what is checked", "a verdict"])
def test_no_other_thread_finds_the_verification_off(what: str) -> None:
    """While one makes an object that a judge is to verify, of a context that they share: the others wait that long."""
    context = Watched(ssl.PROTOCOL_TLS_CLIENT)
    found: list[Any] = []
    chain = Pair(UNKNOWN.client).chain()
    asked: dict[str, Callable[[], Any]] = {
        "a handshake": lambda: Pair(context).is_believed(),
        "what is checked": lambda: checks_of(context),
        "a verdict": lambda: len(find_errors(chain, context, NAME)) > 0,
    }
    if what == "a verdict":
        pytest.importorskip("OpenSSL")
    other = threading.Thread(target=lambda: found.append((asked[what](), began.is_set())))
    began = threading.Event()

    def look() -> None:
        other.start()
        other.join(CHANCE)
        began.set()

    context.meanwhile = look
    assert Pair(context, judged=True).is_believed()
    other.join()

    right = {
        "a handshake": False,
        "what is checked": (ssl.CERT_REQUIRED, True),
        "a verdict": True,
    }
    assert found == [(right[what], True)]
    assert checks_of(context) == (ssl.CERT_REQUIRED, True)
