"""Direction-aware shrinking (Shin et al. 2024), over any base optimizer."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from clrl.agents.networks import maps
from clrl.agents.optim.members import Members
from clrl.agents.optim.options import DASHOptions
from clrl.agents.optim.surgery import Surgery


class DASH(Surgery):
    """Weights shrink where they do not point down the gradient, at a change of task.

    Shin et al., "DASH: Warm-starting neural network training in stationary settings without loss
    of plasticity", NeurIPS 2024; official code baekrok/DASH-Direction-Aware-SHrinking. With G the
    running mean of negative gradients, G <- (1 - rate) G + rate (-g), and λ the option ``shrink``::

        w_i <- w_i * clamp(cos(G_i, w_i), λ, 1)

    for each row i of a dense layer, each kernel of a convolution (of one input and one output
    channel), and the biases of a layer as one vector; outputs are layers too. Norms, other
    parameters and the optimizer's state are left alone. Where there is no gradient the cosine is
    taken for 0.

    The paper takes G in one pass over all data so far, before anything is learned from the new. A
    learner here has no data so far: G goes along with its updates, the last 13 of which have 99 %
    of the weight at the default rate, and is of the gradients as the update has them, bounded
    and with penalties.

    Args:
        members: the learners.
        every: updates from one shrinking to the next; 0 for one at each change of task.
        times: the most of them; 0 for no bound.
        shrink: λ, the least factor, in [0, 1]; 1 for no shrinking. 0.05 in some of the paper's
            settings.
        rate: what the latest gradients weigh in the running mean.
    """

    default_every = DASHOptions.every
    resets_units = False

    def __init__(
        self,
        members: Members,
        every: int = DASHOptions.every,
        times: int = DASHOptions.times,
        shrink: float = DASHOptions.shrink,
        rate: float = DASHOptions.rate,
    ) -> None:
        super().__init__(members, every, times)
        self.shrink = shrink
        self.rate = rate
        self._directions = {
            name: torch.zeros_like(members.parameters[name])
            for own in maps(members.network)
            for name in own.names
        }

    def before_step(self, features: Mapping[str, Tensor]) -> None:
        """Take the gradients in."""
        gradients = self.members.gradients()
        for name, direction in self._directions.items():
            direction.mul_(1 - self.rate)
            if name in gradients:
                direction.sub_(gradients[name], alpha=self.rate)

    def operate(self, member: int) -> None:
        """Shrink the weights of one learner."""
        for name, direction in self._directions.items():
            weight, along = self.members.parameters[name][member], direction[member]
            lead = min(weight.ndim - 1, 2)
            factor = cosines(along.flatten(lead), weight.flatten(lead)).clamp(self.shrink, 1.0)
            weight.mul_(factor.view(*factor.shape, *[1] * (weight.ndim - lead)))

    def state_dict(self) -> dict[str, Any]:
        """Updates and operations so far, and the running means."""
        return super().state_dict() | {"directions": dict(self._directions)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore what `state_dict` gave."""
        super().load_state_dict(state)
        for name, own in self._directions.items():
            own.copy_(state["directions"][name])


def cosines(a: Tensor, b: Tensor) -> Tensor:
    """Of vectors along the last axis; 0 where one of them is 0."""
    some, along = torch.ones_like(a[..., 0], dtype=torch.bool), []
    for vectors in (a, b):
        most = vectors.abs().amax(dim=-1, keepdim=True)
        some = some & (most[..., 0] > 0)
        # Squares of small numbers would be 0.
        scaled = vectors / torch.where(most > 0, most, 1.0)
        along.append(scaled / torch.linalg.vector_norm(scaled, dim=-1, keepdim=True).clamp(min=1.0))
    return torch.where(some, (along[0] * along[1]).sum(dim=-1), 0.0)
