"""A unit reset of one's own: by the size of gradients, as ReGraMa (Liu et al. 2025)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from torch import Tensor

from clrl.optim import Members, UnitReset, Units


class SmallGradients(UnitReset):
    """Every so many steps, units whose gradient is small beside their layer's mean start anew."""

    needs_features = False

    def __init__(self, members: Members, threshold: float = 0.1, every: int = 100) -> None:
        super().__init__(members)
        self.threshold, self.every = threshold, every

    def due(self, layer: Units, features: Mapping[str, Tensor]) -> Iterator[tuple[int, Tensor]]:
        if self.steps % self.every:
            return
        size = layer.incoming_gradient().abs().flatten(2).mean(dim=2)  # [members, units]
        small = size < self.threshold * size.mean(dim=1, keepdim=True)
        for member, own in enumerate(small):
            yield member, own.nonzero().flatten()
