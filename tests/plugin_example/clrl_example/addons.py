"""An add-on of one's own: weight clipping (Elsayed et al. 2024)."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from clrl.optim import AddOn, Members


class WeightClipping(AddOn):
    """Keeps every weight within a bound, after each step of the optimizer."""

    def __init__(self, members: Members, bound: float = 1.0) -> None:
        super().__init__(members)
        self.bound = bound

    def after_step(self, features: Mapping[str, Tensor]) -> None:
        for tensor in self.members.tensors:  # in place, and each number for itself
            tensor.clamp_(-self.bound, self.bound)
