"""Shrink and perturb (Ash & Adams 2020), over any base optimizer."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from torch import Tensor

from clrl.agents.optim.base import AddOn
from clrl.agents.optim.members import Members
from clrl.agents.optim.noise import normal
from clrl.agents.optim.options import ShrinkAndPerturbOptions


class ShrinkAndPerturb(AddOn):
    """Shrink every weight and bias a little and add noise, after steps of the base.

    After every ``every``-th step of the base optimizer::

        w <- shrink * w + noise

    Four forms are in print; each is a setting:

    - Dohare et al. 2024 (the default): every step, noise N(0, noise_scale^2), not
      multiplied by the step size; the shrinking is the base's coupled L2
      (``weight_decay`` of SGD or Adam), so ``shrink`` is 1.
    - Elsayed & Mahmood 2024 (baseline in the UPGD paper), w <- (1 - lr * weight_decay) w
      - lr (g + xi): SGD with that ``weight_decay``, ``noise_scale`` the standard deviation
      of xi and ``scale_by_lr=True``.
    - Ash & Adams 2020: ``shrink=0.6, noise_scale=0.01`` and ``every`` the number of steps
      after which new data arrives.
    - "Soft" shrink and perturb (Juliani & Ash 2024), w <- 0.999999 w + 1e-6 w_fresh with a
      fresh draw of the initialiser: ``shrink=0.999999, noise_scale=1e-6,
      noise="initializer"``.

    Args:
        members: the learners.
        noise_scale: standard deviation of normal noise, or the factor of a fresh draw.
        noise: ``"normal"``, or ``"initializer"`` for a fresh draw of the parameter's own
            initialiser.
        scale_by_lr: whether the noise is also multiplied by the base's step size.
        shrink: factor on the weights, in [0, 1]; 1 leaves the shrinking to the base.
        every: steps of the base from one application to the next.
    """

    def __init__(
        self,
        members: Members,
        noise_scale: float = ShrinkAndPerturbOptions.noise_scale,
        noise: Literal["normal", "initializer"] = ShrinkAndPerturbOptions.noise,
        scale_by_lr: bool = ShrinkAndPerturbOptions.scale_by_lr,
        shrink: float = ShrinkAndPerturbOptions.shrink,
        every: int = ShrinkAndPerturbOptions.every,
    ) -> None:
        super().__init__(members)
        self.noise_scale = noise_scale
        self.noise = noise
        self.scale_by_lr = scale_by_lr
        self.shrink = shrink
        self.every = every
        self._steps = 0

    def after_step(self, features: Mapping[str, Tensor]) -> None:
        """Shrink and perturb where it is time to; see the class."""
        self._steps += 1
        if self._steps % self.every:
            return
        if self.shrink != 1.0:
            for tensor in self.members.tensors:
                tensor.mul_(self.shrink)
        scale = self.noise_scale * (self.members.lr if self.scale_by_lr else 1.0)
        if self.noise == "normal":
            self._add_normal(scale)
        else:
            self._add_fresh(scale)

    def _add_normal(self, scale: float) -> None:
        for tensor in self.members.tensors:
            noise = normal(tensor[0].numel(), scale, self.members.generators, tensor.device)
            tensor.add_(noise.view(tensor.shape))

    def _add_fresh(self, scale: float) -> None:
        for name, parameter in self.members.parameters.items():
            for member, row in enumerate(parameter):
                row.add_(self.members.fresh(name, member), alpha=scale)

    def state_dict(self) -> dict[str, Any]:
        """The step count."""
        return {"steps": self._steps}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore the step count."""
        self._steps = state["steps"]
