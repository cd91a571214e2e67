"""Which of a network's parameters belong to a linear map, a normalisation or a head.

Read from its modules, so that nothing is guessed from names or from the order of parameters: a
policy's spread, which is no module's weight, is in none of them; nor is what a method adds.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from torch import nn

from clrl.agents.networks.base import Network
from clrl.agents.networks.extension import extensions


@dataclass(frozen=True)
class Map:
    """A dense layer or a convolution.

    Attributes:
        path: of the module.
        weight: the name of its weight [outputs, inputs, ...].
        bias: the name of its bias; empty for none.
        fan_in: numbers that one output is made of.
        hidden: whether it is no head; see `Network.heads`.
    """

    path: str
    weight: str
    bias: str
    fan_in: int
    hidden: bool

    @property
    def names(self) -> tuple[str, ...]:
        """Its parameters' names."""
        return (self.weight, self.bias) if self.bias else (self.weight,)


def maps(network: Network) -> tuple[Map, ...]:
    """Every dense layer and convolution of a network, in the order of its modules."""
    heads = set(network.heads)
    return tuple(
        Map(
            path,
            f"{path}.weight",
            f"{path}.bias" if _own(module, "bias") is not None else "",
            weight[0].numel(),
            bool(heads) and path not in heads,
        )
        for path, module, weight in _weighted(network)
        if weight.ndim > 1
    )


def norms(network: Network) -> tuple[str, ...]:
    """The paths of every normalisation that has a scale of its own."""
    return tuple(path for path, _, weight in _weighted(network) if weight.ndim == 1)


def _weighted(network: Network) -> Iterator[tuple[str, nn.Module, nn.Parameter]]:
    added = extensions(network)
    for path, module in network.named_modules():
        weight = _own(module, "weight")
        if path and weight is not None and path.partition(".")[0] not in added:
            yield path, module, weight


def _own(module: nn.Module, name: str) -> nn.Parameter | None:
    return dict(module.named_parameters(recurse=False)).get(name)
