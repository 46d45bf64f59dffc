"""``pytest tests/sockets --watched``: the same tests, with somebody who listens to every socket from its making on.

Watching changes nothing but how soon.  So what calls return and raise, what is sent and what is told must be what it is
unwatched; tests of what is so because nobody watches say so with the mark ``unwatched``.
"""

from __future__ import annotations

from typing import Any

import pytest

from tests.sockets.onlooker import look_on
from trioqt import TcpSocket


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out what is about nobody watching, and what takes seconds."""
    if config.getoption("--watched"):
        left_out = {item for item in items if any(map(item.get_closest_marker, ("unwatched", "once")))}
        config.hook.pytest_deselected(items=list(left_out))
        items[:] = [item for item in items if item not in left_out]


@pytest.fixture(autouse=True)
def _watched(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if not request.config.getoption("--watched"):
        return
    make = TcpSocket.__init__

    def make_watched(sock: TcpSocket, *args: Any, **options: Any) -> None:
        make(sock, *args, **options)
        look_on(sock)

    monkeypatch.setattr(TcpSocket, "__init__", make_watched)
