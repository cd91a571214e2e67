"""Parseval regularization: rows of hidden layers' weights kept orthogonal (Chung et al. 2024)."""

from __future__ import annotations

import functools
from typing import Any

import torch
from torch import Tensor, nn

from clrl.agents.networks import Extension, Network, maps
from clrl.agents.penalties.base import Memory, Penalty, Sight
from clrl.agents.penalties.options import ParsevalOptions


class Parseval(Penalty):
    """``strength * (64 / width)^2 * |W W^T - scale I|^2``, summed over hidden layers.

    W [width, inputs] feeds a hidden layer, the first included (of a convolution it is flattened to
    a row a channel); heads, biases and a policy's spread are left alone. Source: Chung et al.,
    "Parseval regularization for continual reinforcement learning" (NeurIPS 2024); official code
    wechu/parseval_reg. Its learnable scale of inputs and the version that normalises rows are not
    here. Of a layer with more units than inputs the term cannot fall below
    ``scale^2 * (width - inputs)`` times its factor.

    Args:
        network: see `Penalty`.
        strength: lambda; the paper's is 1e-3, or 1e-4 in its longer tasks; 0 leaves the loss as it
            is.
        scale: the squared length that rows are to have. 2 is the network's own at the start with
            ``network.init orthogonal``, whose gain is sqrt(2); with another, the pull at the start
            is large.
        group: units side by side that are to be orthogonal among themselves alone; 0 for all of a
            layer.
        diagonal: whether to add to each unit of hidden layers a scale and a shift of what its
            weights give, that are trained: the lengths that rows may not have. So in the source's
            runs of MetaWorld. Unit resets leave them as they are.
    """

    def __init__(
        self,
        network: Network,
        strength: float = ParsevalOptions.strength,
        scale: float = ParsevalOptions.scale,
        group: int = ParsevalOptions.group,
        diagonal: bool = ParsevalOptions.diagonal,
    ) -> None:
        super().__init__(network)
        self._diagonal = diagonal
        self._strength = strength
        self._names = [own.weight for own in maps(network) if own.hidden]
        self._wanted, self._counted = {}, {}
        for name in self._names:
            width = len(network.get_parameter(name))
            self._wanted[name] = scale * torch.eye(width)
            groups = torch.arange(width) // (group or width)
            self._counted[name] = (groups == groups.unsqueeze(1)).float()

    def extension(self) -> Diagonals | None:
        """The scales and shifts, if there are to be any."""
        return Diagonals(self.network) if self._diagonal else None

    def term(self, sight: Sight, memory: Memory) -> Tensor:
        """See the class."""
        each = [self._of(sight.parameters[name].flatten(1), name) for name in self._names]
        return self._strength * sum(each[1:], each[0])

    def _of(self, weight: Tensor, name: str) -> Tensor:
        apart = weight @ weight.T - self._wanted[name].to(weight)
        apart = apart * self._counted[name].to(weight)
        return (64 / len(weight)) ** 2 * (apart * apart).sum()


class Diagonals(Extension):
    """A scale and a shift for each unit of a network's hidden layers, before its activation.

    They are 1 and 0 at first.

    Args:
        network: whose.
    """

    name = "parseval_diagonals"

    def __init__(self, network: Network) -> None:
        super().__init__()
        self._paths = [own.path for own in maps(network) if own.hidden]
        self._parts = [network.part_of(f"{path}.weight") for path in self._paths]
        sizes = [len(network.get_parameter(f"{path}.weight")) for path in self._paths]
        self.scales, self.shifts = (
            nn.ParameterList(nn.Parameter(torch.empty(size)) for size in sizes) for _ in range(2)
        )

    def attach(self, network: Network) -> None:
        """Follow each hidden layer's linear map."""
        for i, path in enumerate(self._paths):
            network.get_submodule(path).register_forward_hook(functools.partial(self._follow, i))

    def _follow(self, i: int, module: nn.Module, _inputs: Any, output: Tensor) -> Tensor:
        weight: Any = module.weight
        places = (1,) * (weight.ndim - 2)  # of a convolution
        scale, shift = (own[i].view(-1, *places) for own in (self.scales, self.shifts))
        scaled: Tensor = output * scale + shift
        return scaled

    def fresh(self, name: str, generator: torch.Generator) -> Tensor:
        """Scales of 1, shifts of 0."""
        return torch.full(self.get_parameter(name).shape, float(name.startswith("scales")))

    def part_of(self, name: str) -> str:
        """That of the layer."""
        return self._parts[int(name.rpartition(".")[2])]
