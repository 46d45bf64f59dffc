"""One test body, run on the simulated network and on the kernel's."""

from __future__ import annotations

import contextlib
import inspect
from collections.abc import Awaitable, Callable, Iterator
from typing import Any, NoReturn

import trio

from trioqt.core.addresses import HostAddress
from trioqt.sockets.survived_bugs import take_bugs
from trioqt.testing.network.virtual_network import VirtualNetwork
from trioqt.testing.simulation.simulate import simulate

__all__ = ["KERNEL", "KernelNetwork", "PARAMETER", "both_networks"]

PARAMETER = "trioqt_network"
"""The test's parameter that says which network: a seed, or `KERNEL`."""

KERNEL = "kernel"


class KernelNetwork:
    """The machine's own network, as far as tests can use it: every host is 127.0.0.1."""

    @contextlib.contextmanager
    def host(self, name: str) -> Iterator[HostAddress]:
        """There is only one, whatever its name."""
        yield HostAddress.LOCAL_HOST

    def handler_failures(self) -> list[Exception]:
        """As of a `VirtualNetwork`."""
        return take_bugs()

    def __getattr__(self, name: str) -> NoReturn:
        raise AttributeError(
            f"the kernel's network has no {name!r}; a test that needs it runs on a VirtualNetwork only"
        )


def both_networks(
    test: Callable[..., Awaitable[object]],
) -> Callable[..., None]:
    """Decorate ``async def test_something(network, ...)``: it runs twice, in virtual time on a `VirtualNetwork`, with
    all that `simulate` gives, and in real time on the kernel's network.

    What both networks have is ``with network.host(name) as address``, on the kernel's every address is 127.0.0.1, and
    ``network.handler_failures()``.
    Other parameters are fixtures, not async ones.  Needs the pytest plug-in, which is there when trioqt is installed;
    ``--trioqt-seeds`` runs the simulated half with several seeds.
    """

    _, *others = inspect.signature(test).parameters.values()
    is_method = next(iter(inspect.signature(test).parameters), "") == "self"

    def run(*of_class: Any, **arguments: Any) -> None:
        seed = arguments.pop(PARAMETER)

        async def main(network: Any) -> None:
            await test(*of_class, network, **arguments)

        # A failure report names the test and not this function.
        main.__qualname__ = getattr(test, "__qualname__", "test")
        if seed == KERNEL:
            trio.run(main, KernelNetwork())
        else:
            simulate(main, network=lambda seed: VirtualNetwork(seed=seed), seed=seed)

    named = inspect.Parameter(PARAMETER, inspect.Parameter.KEYWORD_ONLY)
    fixtures = [parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY) for parameter in others[is_method:]]
    first = [inspect.Parameter("self", inspect.Parameter.POSITIONAL_ONLY)] if is_method else []
    run.__signature__ = inspect.Signature([*first, named, *fixtures])  # type: ignore[attr-defined]
    for attribute in ("__name__", "__qualname__", "__doc__", "__module__"):
        setattr(run, attribute, getattr(test, attribute))
    run.__dict__.update(vars(test))  # pytest's marks
    return run
