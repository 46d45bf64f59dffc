"""Streams that can do less than those they are laid over."""

from __future__ import annotations

import trio

__all__ = ["OnlyStream"]


class OnlyStream(trio.abc.Stream):
    """A stream without ``send_eof``, over another one."""

    def __init__(self, below: trio.abc.Stream) -> None:
        self.below = below

    async def receive_some(self, max_bytes: int | None = None) -> bytes | bytearray:
        return await self.below.receive_some(max_bytes)

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        await self.below.send_all(data)

    async def wait_send_all_might_not_block(self) -> None:
        await self.below.wait_send_all_might_not_block()

    async def aclose(self) -> None:
        await self.below.aclose()
