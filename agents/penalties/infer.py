"""InFeR: initial feature regularization (Lyle et al. 2022)."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from clrl.agents.networks import Extension, Network
from clrl.agents.networks.initialisers import uniform
from clrl.agents.penalties.base import Memory, Penalty, Sight, zero
from clrl.agents.penalties.options import InFeROptions


class InFeR(Penalty):
    """``strength * mean over examples of sum_i (g_i(x) - scale g_i0(x))^2``.

    g_i is one of so many linear heads on the last hidden layer's features, beside the network's
    own; g_i0 is the same head of the network as it was at the start. The heads are trained with
    the network, by this term alone, and nothing else reads them. So features keep enough in them
    to tell what they told at the start, ``scale`` times as loud. Of actor and critic, each has
    heads of its own.

    Source: Lyle, Rowland & Dabney, "Understanding and preventing capacity loss in reinforcement
    learning" (ICLR 2022), after a summary of the paper: no code of the authors' was at hand. That
    heads have no bias, and start as ``torch.nn.Linear`` does, is ours.

    Args:
        network: see `Penalty`.
        strength: alpha; the paper's, for agents like DQN. 0 leaves the loss as it is.
        heads: k, for each part of the network.
        scale: beta; at 1 the term is 0 at the start.
    """

    def __init__(
        self,
        network: Network,
        strength: float = InFeROptions.strength,
        heads: int = InFeROptions.heads,
        scale: float = InFeROptions.scale,
    ) -> None:
        super().__init__(network)
        self._strength = strength
        self._count = heads
        self._scale = scale
        last = {network.part_of(f"{own.incoming}.weight"): own for own in network.hidden_layers}
        self._layers = {part: own.name for part, own in last.items()}
        self._sizes = {
            part: network.get_parameter(f"{own.outgoing}.weight")[0].numel()
            for part, own in last.items()
        }

    def extension(self) -> Heads:
        """The heads."""
        return Heads(self._sizes, self._count)

    def begin(self, parameters: Mapping[str, Tensor]) -> Memory:
        """The parameters at the start."""
        return dict(parameters)

    def term(self, sight: Sight, memory: Memory) -> Tensor:
        """See the class."""
        if self._strength == 0:
            return zero(sight)
        start = sight.look(memory, *sight.inputs).features
        each = []
        for part, layer in self._layers.items():
            name = f"{Heads.name}.{part}"
            old = start[layer].flatten(1) @ memory[name].T
            apart = sight.features[layer].flatten(1) @ sight.parameters[name].T
            apart = apart - self._scale * old.detach()
            each.append((apart * apart).sum(dim=1).mean())
        return self._strength * sum(each[1:], each[0])


class Heads(Extension):
    """Linear heads [heads, features] by the part of the network whose features they read.

    Args:
        sizes: features of each part.
        count: heads of each.
    """

    name = "infer_heads"

    def __init__(self, sizes: Mapping[str, int], count: int) -> None:
        super().__init__()
        for part, size in sizes.items():
            self.register_parameter(part, nn.Parameter(torch.empty(count, size)))

    def fresh(self, name: str, generator: torch.Generator) -> Tensor:
        """As the weights of ``torch.nn.Linear``."""
        shape = self.get_parameter(name).shape
        return uniform(shape, 1 / math.sqrt(shape[1]), generator)
