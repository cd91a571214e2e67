"""Calibrated partial resets, over any base optimizer."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from clrl.agents.optim.base import AddOn
from clrl.agents.optim.members import Members
from clrl.agents.optim.options import CalibratedPartialResetsOptions
from clrl.agents.optim.regrama import gradient_sizes
from clrl.agents.optim.units import Units

_LEAST = 1e-8  # is added to a layer's mean gradient


class CalibratedPartialResets(AddOn):
    """Every unit is started anew in part, the more so the smaller its gradients have been.

    After LucMc/continual-learning, apparently its authors' code. Of unit i of a hidden layer, with
    G_i the mean size of its incoming weights' gradients beside that of the layer, in every update::

        u_i <- decay u_i + (1 - decay) G_i,    u_i = 1 at first

    and every ``every`` updates, layer by layer from the input on::

        p_i = rate min(2 / (1 + exp(sharpness (u_i - 1))), 1)
        incoming weights <- (1 - p_i) w + p_i fresh
        outgoing weights <- (1 - p_i) w

    So every unit whose gradients are no larger than usual is moved by ``rate``, and one with larger
    gradients by less. Biases, norms and what the optimizer remembers are left alone, and outputs
    are no units. Fresh weights come from the network's own initialiser; in the code, He's uniform
    one, with any network.

    Args:
        members: the learners; their network declares its hidden layers.
        rate: rho, the most of a unit that is made new at once, in [0, 1]; 0 for nothing.
        sharpness: k, how fast that falls where gradients are larger than usual.
        every: updates from one time to the next.
        decay: of the running mean of gradients.
    """

    def __init__(
        self,
        members: Members,
        rate: float = CalibratedPartialResetsOptions.rate,
        sharpness: float = CalibratedPartialResetsOptions.sharpness,
        every: int = CalibratedPartialResetsOptions.every,
        decay: float = CalibratedPartialResetsOptions.decay,
    ) -> None:
        super().__init__(members)
        self.rate = rate
        self.sharpness = sharpness
        self.every = every
        self.decay = decay
        self.layers = [Units(members, layer) for layer in members.hidden_layers]
        self._utility = {
            one.name: torch.ones(one.w_in.shape[:2], device=one.w_in.device) for one in self.layers
        }
        self._steps = 0

    def after_step(self, features: Mapping[str, Tensor]) -> None:
        """Take gradients in; start units anew in part where it is time to."""
        if not self.rate:
            return
        self._steps += 1
        for layer in self.layers:
            size = gradient_sizes(layer)
            score = size / (size.mean(dim=1, keepdim=True) + _LEAST)
            self._utility[layer.name].mul_(self.decay).add_(score.mul_(1 - self.decay))
        if self._steps % self.every == 0:
            for layer in self.layers:
                self._mix(layer, self.shares(layer))

    def shares(self, layer: Units) -> Tensor:
        """p, how much of each unit of a layer would be made new now, [members, units]."""
        above = self._utility[layer.name] - 1
        # One member after another: of several together, sigmoid's last bits depend on the place.
        shares = [torch.sigmoid(-self.sharpness * own) for own in above]
        return self.rate * (2 * torch.stack(shares)).clamp(max=1.0)

    def _mix(self, layer: Units, shares: Tensor) -> None:
        name = f"{layer.layer.incoming}.weight"
        for member, own in enumerate(layer.w_in):
            of_unit = shares[member].view(-1, *[1] * (own.ndim - 1))
            own.lerp_(self.members.fresh(name, member), of_unit)
        layer.scale_outgoing(1 - shares)

    def state_dict(self) -> dict[str, Any]:
        """The step count, and running means of gradients."""
        return {"steps": self._steps, "utility": dict(self._utility)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore what `state_dict` gave."""
        self._steps = state["steps"]
        for name, own in self._utility.items():
            own.copy_(state["utility"][name])
