"""Weight clipping (Elsayed et al. 2024), over any base optimizer."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from clrl.agents.networks import maps
from clrl.agents.optim.base import AddOn
from clrl.agents.optim.members import Members
from clrl.agents.optim.options import WeightClippingOptions


class WeightClipping(AddOn):
    """Keep each weight within a multiple of the bound that it could have been drawn from.

    After every step of the base, for each dense layer and convolution with n inputs to an output::

        w <- clamp(w, -bound / sqrt(n), bound / sqrt(n)),    and its bias likewise

    Nothing is remembered, and the base's moments are left alone. Source: Elsayed, Lan, Lyle &
    Mahmood, "Weight clipping for deep continual and reinforcement learning" (2024); official code
    mohmdelsayed/weight-clipping, where the bound is in multiples of torch's default initialiser's.
    Unlike that code, a bias has its own layer's n (there a tensor with one axis has that of
    whatever came before it), scales and shifts of normalisation and a policy's spread are left
    alone (there ``actor_logstd`` is clipped as if it were a weight), and without ``heads`` those
    of policy and values are both left free (there only what was registered last).

    Weights that are drawn from wider distributions, such as orthogonal ones with gain sqrt(2), may
    be clipped at the first step.

    Args:
        members: the learners.
        bound: kappa in the paper, 3 for its PPO and 1 to 5 elsewhere; infinite for no bound.
        heads: whether the last layers are clipped, too.
    """

    def __init__(
        self,
        members: Members,
        bound: float = WeightClippingOptions.bound,
        heads: bool = WeightClippingOptions.heads,
    ) -> None:
        super().__init__(members)
        self._limits = {
            name: bound / own.fan_in**0.5
            for own in maps(members.network)
            if own.hidden or heads
            for name in own.names
        }

    def after_step(self, features: Mapping[str, Tensor]) -> None:
        """Clip; see the class."""
        for name, limit in self._limits.items():
            self.members.parameters[name].clamp_(-limit, limit)
