"""Actor and critic in one network."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace

import torch
from torch import Tensor, nn

from clrl.agents.actions import Actions
from clrl.agents.networks import Dense, HiddenLayer, Network

MakeNetwork = Callable[[int, int, torch.Generator, float], Network]
"""Takes input size, number of outputs, generator and the gain of the last layer's initialiser."""

ACTOR_GAIN, CRITIC_GAIN = 0.01, 1.0
"""Of orthogonal initialisers, as in Stable-Baselines3."""


class ActorCritic(Network):
    """A policy and a value function, with hidden layers apart or shared.

    Args:
        input_size: numbers in an observation.
        actions: what the policy decides.
        make_network: makes the actor and the critic, or their common network.
        shared: one network for both, the value being its last output.
        log_std: where the spread of continuous actions starts.
        generator: source of the initial parameters.

    Attributes:
        actions: what the policy decides.
        hidden_layers: those of the parts, named ``actor/layer_1`` and so on; ``shared/layer_1``
            where they are shared.
    """

    def __init__(
        self,
        input_size: int,
        actions: Actions,
        make_network: MakeNetwork,
        shared: bool,
        log_std: float,
        generator: torch.Generator,
    ) -> None:
        super().__init__()
        self._log_std = log_std
        self.actions = actions
        n = actions.num_outputs
        parts: dict[str, Network]
        if shared:
            parts = {"shared": make_network(input_size, n + 1, generator, CRITIC_GAIN)}
        else:
            parts = {
                "actor": make_network(input_size, n, generator, ACTOR_GAIN),
                "critic": make_network(input_size, 1, generator, CRITIC_GAIN),
            }
        self.parts = nn.ModuleDict(parts)
        self.spread: nn.Parameter | None = None
        if actions.num_parameters:
            self.spread = nn.Parameter(torch.full((actions.num_parameters,), log_std))
        self.hidden_layers = tuple(
            _placed(layer, name) for name, part in parts.items() for layer in part.hidden_layers
        )
        self._heads = tuple(
            f"parts.{name}.{path}" for name, part in parts.items() for path in part.heads
        )
        self.projects = any(part.projects for part in parts.values())

    @property
    def heads(self) -> tuple[str, ...]:
        """Those of the parts; see `Network.heads`."""
        return self._heads

    @property
    def chains(self) -> tuple[tuple[Dense, ...], ...]:
        """Those of the parts, whose outputs are the policy's and then the value."""
        found = []
        for name, part in self.parts.items():
            assert isinstance(part, Network)
            for chain in part.chains:
                placed = (replace(one, path=f"parts.{name}.{one.path}") for one in chain)
                found.append(tuple(placed))
        return tuple(found) if len(found) == len(self.parts) else ()

    def forward(self, observations: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Map observations [..., input_size].

        Returns:
            The policy's outputs [..., n], its further parameters, and the values [...].
        """
        spread = observations.new_zeros(0) if self.spread is None else self.spread
        if "shared" in self.parts:
            both = self.parts["shared"](observations)
            return both[..., :-1], spread, both[..., -1]
        values = self.parts["critic"](observations)[..., 0]
        return self.parts["actor"](observations), spread, values

    def part_of(self, name: str) -> str:
        """``actor``, ``critic`` or ``shared``; see `Network.part_of`."""
        if name == "spread":
            return next(iter(self.parts))
        return name.split(".")[1]

    def project(self, parameters: Mapping[str, Tensor]) -> None:
        """Of each part; see `Network.project`."""
        for name, part in self.parts.items():
            assert isinstance(part, Network)
            prefix = f"parts.{name}."
            own = {n.removeprefix(prefix): v for n, v in parameters.items() if n.startswith(prefix)}
            part.project(own)

    def fresh(self, name: str, generator: torch.Generator) -> Tensor:
        """A new draw of one parameter; see `Network.fresh`."""
        if name == "spread":
            return torch.full(self.get_parameter(name).shape, self._log_std)
        _, part, rest = name.split(".", 2)
        module = self.parts[part]
        assert isinstance(module, Network)
        return module.fresh(rest, generator)


def _placed(layer: HiddenLayer, part: str) -> HiddenLayer:
    """A layer's declaration as seen from outside of its part."""
    return replace(
        layer,
        name=f"{part}/{layer.name}",
        incoming=f"parts.{part}.{layer.incoming}",
        activation=f"parts.{part}.{layer.activation}",
        outgoing=f"parts.{part}.{layer.outgoing}",
        also_outgoing=tuple(f"parts.{part}.{path}" for path in layer.also_outgoing),
        norm=layer.norm and f"parts.{part}.{layer.norm}",
        norm_after=layer.norm_after and f"parts.{part}.{layer.norm_after}",
    )
