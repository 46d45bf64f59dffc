"""Code that a Ctrl-C can hurt at one line, and the same where it cannot.

It is walked by its file, so nothing else may be in here: no scenario, no peer.
"""

from __future__ import annotations

import os
from contextlib import AbstractAsyncContextManager

import trio


class BusyCounter:
    """One task at a time adds, and says so meanwhile."""

    def __init__(self) -> None:
        self.busy = False
        self.count = 0

    async def add(self) -> None:
        if self.busy:
            raise trio.BusyResourceError("another task adds")
        self.busy = True
        await trio.lowlevel.checkpoint()  # here a KeyboardInterrupt leaves it busy
        self.count += 1
        self.busy = False


class CarefulCounter(BusyCounter):
    """Protected, and tidied up where it can be interrupted all the same: while it waits."""

    @trio.lowlevel.enable_ki_protection
    async def add(self) -> None:
        if self.busy:
            raise trio.BusyResourceError("another task adds")
        self.busy = True
        try:
            await trio.lowlevel.checkpoint()
            self.count += 1
        finally:
            self.busy = False


class LockedList:
    """A lock that is never released makes the next one wait for ever."""

    def __init__(self) -> None:
        self.lock = trio.Lock()
        self.items: list[int] = []

    async def append(self, item: int) -> None:
        await self.lock.acquire()
        self.items.append(item)  # here it keeps the lock
        self.lock.release()


async def leaky_read(path: str) -> bytes:
    descriptor = os.open(path, os.O_RDONLY)
    data = os.read(descriptor, 1)  # here nobody closes it
    os.close(descriptor)
    await trio.lowlevel.checkpoint()
    return data


@trio.lowlevel.enable_ki_protection
async def tidy_read(path: str) -> bytes:
    descriptor = os.open(path, os.O_RDONLY)
    data = os.read(descriptor, 1)
    os.close(descriptor)
    await trio.lowlevel.checkpoint()
    return data


async def grouping_wait() -> None:
    """A nursery puts what goes out of it into a group."""
    async with trio.open_nursery() as nursery:
        nursery.start_soon(trio.sleep, 1)
        await trio.lowlevel.checkpoint()


async def swallowing_wait() -> None:
    try:
        await trio.sleep(1)
    except BaseException:  # a Ctrl-C, too
        pass


class HalfOpened:
    """A block whose entry opens a nursery by hand."""

    manager: AbstractAsyncContextManager[trio.Nursery] | None = None

    async def open(self) -> None:
        manager = trio.open_nursery()
        await manager.__aenter__()
        self.manager = manager  # here nobody knows of the nursery yet

    @trio.lowlevel.enable_ki_protection
    async def close(self) -> None:
        if self.manager is not None:
            await self.manager.__aexit__(None, None, None)


def count_down(count: int) -> None:
    while count:
        count = one_less(count)


def one_less(count: int) -> int:
    return count - 1
