"""Modules that a method adds to a network, trained with it and a member's own like all of it."""

from __future__ import annotations

import functools
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

from clrl.agents.networks.base import Network
from clrl.errors import UsageError
from clrl.seeding import derived_seed


class Extension(nn.Module):
    """Parameters and buffers that a method adds to a network, under one name.

    They are the network's in every way: in rows of populations and in checkpoints, and in the one
    optimizer there is. They are no layers of units and no heads, and what is done to a network's
    layers (clipping, norms, resets of units) leaves them alone; see `clrl.agents.networks.maps`.

    Attributes:
        name: of the module, in the network.
    """

    name: str

    def attach(self, network: Network) -> None:
        """Take part in the network's calls, by hooks on modules that are methods of this one."""

    def fresh(self, name: str, generator: torch.Generator) -> Tensor:
        """A new draw of one of its parameters; see `Network.fresh`."""
        raise NotImplementedError

    def part_of(self, name: str) -> str:
        """The part of the network that one of its parameters belongs to; see `Network.part_of`.

        Unless it says so, to none: metrics leave it out.
        """
        return self.name


def extensions(network: nn.Module) -> dict[str, Extension]:
    """What was added to a network, by name."""
    return {name: own for name, own in network.named_children() if isinstance(own, Extension)}


def extend(network: Network, added: Iterable[Extension], seed: int) -> None:
    """Add modules to a network; what it has already is not touched, and nothing of it drawn.

    Args:
        network: becomes one whose `fresh` and `part_of` know of them.
        added: their modules.
        seed: of the learner, whose generators for these follow from it.

    Raises:
        UsageError: the network has something of such a name.
    """
    for own in added:
        if hasattr(network, own.name):
            raise UsageError(f"network: has {own.name} already; expected one such method")
        if not isinstance(network, _Extended):
            kind: Any = type(network)
            network.__class__ = _extended(kind)
        network.add_module(own.name, own)
        own.attach(network)
        generator = torch.Generator().manual_seed(derived_seed(seed, f"network/{own.name}"))
        with torch.no_grad():
            for name, parameter in own.named_parameters():
                parameter.copy_(own.fresh(name, generator))


class _Extended(Network):
    """A network with extensions, of whatever class it is besides."""

    def fresh(self, name: str, generator: torch.Generator) -> Tensor:
        """A new draw of one parameter; see `Network.fresh`."""
        path, _, rest = name.partition(".")
        own = extensions(self).get(path)
        return super().fresh(name, generator) if own is None else own.fresh(rest, generator)

    def part_of(self, name: str) -> str:
        """The part that a parameter belongs to; see `Network.part_of`."""
        path, _, rest = name.partition(".")
        own = extensions(self).get(path)
        return super().part_of(name) if own is None else own.part_of(rest)


@functools.cache
def _extended(kind: Any) -> type[Network]:
    return type(kind.__name__, (_Extended, kind), {"__module__": kind.__module__})
