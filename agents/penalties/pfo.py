"""Proximal feature optimization (Moalla et al. 2024)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from torch import Tensor

from clrl.agents.networks import Network
from clrl.agents.penalties.base import Memory, Penalty, Sight, zero
from clrl.agents.penalties.options import PFOOptions


class PFO(Penalty):
    """``strength`` times the mean squared change of a policy's features since its experience.

    The mean is over examples and features of (z - z_old)^2; z is what the activation of the
    policy's last hidden layer is given, z_old what it was given when the experience was collected,
    and the same for all epochs that learn from it. The critic is left alone (its layers have a part
    where they are shared), and so are heads. In the first minibatch the term is exactly 0, unless
    the network drops units. Source: Moalla et al., "No representation, no trust: connecting
    representation, collapse, and trust issues in PPO" (NeurIPS 2024); official code
    CLAIRE-Labo/no-representation-no-trust. That stores z_old; here it is computed again from the
    parameters of that time. Of a learner whose agent does not say when it has collected
    experience, z_old is that of the start.

    Args:
        network: see `Penalty`.
        strength: in the paper 1 for Atari and for tanh in MuJoCo, 10 for ReLU in MuJoCo and for
            all layers; 0 leaves the loss as it is.
        layers: ``"last"``, or ``"all"`` hidden layers of the policy, put together.
    """

    needs_experience = True

    def __init__(
        self,
        network: Network,
        strength: float = PFOOptions.strength,
        layers: Literal["last", "all"] = PFOOptions.layers,
    ) -> None:
        super().__init__(network)
        self._strength = strength
        of_policy = [
            layer.name
            for layer in network.hidden_layers
            if network.part_of(f"{layer.incoming}.weight") != "critic"
        ]
        self._layers = of_policy[-1:] if layers == "last" else of_policy

    def begin(self, parameters: Mapping[str, Tensor]) -> Memory:
        """The parameters by which the present experience was collected."""
        return {
            name: value
            for name, value in parameters.items()
            if self.network.part_of(name) != "critic"
        }

    def collected(self, parameters: Mapping[str, Tensor], memory: Memory) -> None:
        """Remember the parameters as they are."""
        memory.update(self.begin(parameters))

    def term(self, sight: Sight, memory: Memory) -> Tensor:
        """See the class."""
        if self._strength == 0:
            return zero(sight)
        old = sight.look({**sight.parameters, **memory}, *sight.inputs).preactivations
        apart = [sight.preactivations[name] - old[name].detach() for name in self._layers]
        squares = [(d * d).sum() for d in apart]
        count = sum(d.numel() for d in apart)
        return self._strength * (sum(squares[1:], squares[0]) / count)
