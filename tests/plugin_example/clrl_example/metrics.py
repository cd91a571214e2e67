"""A metric of one's own."""

from __future__ import annotations

from torch import Tensor


def mean_activity(features: Tensor) -> Tensor:
    """Mean activation of a layer: [members, examples, units] to [members], as float64."""
    return features.double().mean((-2, -1))
