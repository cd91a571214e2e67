"""A policy of Stable-Baselines3 as a network with declared hidden layers."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from clrl.agents.networks import HiddenLayer, Network
from clrl.agents.options import MLPOptions
from clrl.agents.ppo.actor_critic import ACTOR_GAIN, CRITIC_GAIN


@dataclass(frozen=True)
class Stack:
    """Hidden layers in a row, as Stable-Baselines3 lays them out: linear, activation, linear, ...

    Attributes:
        part: of the network, for the tags of metrics.
        path: the ``nn.Sequential`` that holds them.
        output: the linear map after the last activation.
        prefix: of the layers' names, where a part has several stacks.
    """

    part: str
    path: str
    output: str
    prefix: str = ""


class PolicyView(Network):
    """Modules of a Stable-Baselines3 policy as one network with declared hidden layers.

    The modules are the policy's own, not copies.

    Args:
        modules: name to module; parameters are named ``NAME.…``.
        stacks: where the hidden layers are.
        options: how the policy was made.
        forward: runs every stack on observations.
    """

    def __init__(
        self,
        modules: Mapping[str, nn.Module],
        stacks: Sequence[Stack],
        options: MLPOptions,
        forward: Callable[[Tensor], None],
    ) -> None:
        super().__init__()
        for name, module in modules.items():
            self.add_module(name, module)
        self.stacks = tuple(stacks)
        self._options = options
        self._forward = forward
        self.hidden_layers = tuple(
            layer for stack in stacks for layer in self._layers(stack, len(options.widths))
        )

    def _layers(self, stack: Stack, depth: int) -> Iterator[HiddenLayer]:
        place = "" if stack.part == "network" else f"{stack.part}/"
        for i in range(depth):
            yield HiddenLayer(
                name=f"{place}{stack.prefix}layer_{i + 1}",
                incoming=f"{stack.path}.{2 * i}",
                activation=f"{stack.path}.{2 * i + 1}",
                outgoing=stack.output if i + 1 == depth else f"{stack.path}.{2 * i + 2}",
                function=self._options.activation,
            )

    def forward(self, observations: Tensor) -> None:
        """Run every stack on observations [examples, ...]; its outputs are not wanted."""
        self._forward(observations)

    def part_of(self, name: str) -> str:
        """``actor`` or ``critic``, or ``network`` where there is one; see `Network.part_of`."""
        for stack in self.stacks:
            if name.startswith((f"{stack.path}.", f"{stack.output}.")):
                return stack.part
        return self.stacks[0].part  # the spread of actions that no observation decides

    def fresh(self, name: str, generator: torch.Generator) -> Tensor:
        """A new draw of one parameter, as Stable-Baselines3 initialises it; see `Network.fresh`."""
        shape = self.get_parameter(name).shape
        module, _, kind = name.rpartition(".")
        if kind == "log_std":
            return torch.zeros(shape)
        if self._options.init == "torch":
            bound = 1 / math.sqrt(self.get_parameter(f"{module}.weight").shape[1])
            return torch.empty(shape).uniform_(-bound, bound, generator=generator)
        if kind == "bias":
            return torch.zeros(shape)
        gain = math.sqrt(2)
        if any(module == stack.output for stack in self.stacks):
            gain = ACTOR_GAIN if self.part_of(name) == "actor" else CRITIC_GAIN
        return nn.init.orthogonal_(torch.empty(shape), gain, generator=generator)
