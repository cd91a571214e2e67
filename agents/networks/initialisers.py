"""Distributions that weights of linear maps are drawn from."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn


def uniform(shape: Sequence[int], bound: float, generator: torch.Generator) -> Tensor:
    """U(-bound, bound)."""
    return torch.empty(shape).uniform_(-bound, bound, generator=generator)


def orthogonal(shape: Sequence[int], gain: float, generator: torch.Generator) -> Tensor:
    """Orthogonal rows or columns of length `gain` (Saxe et al. 2014)."""
    drawn: Tensor = nn.init.orthogonal_(torch.empty(shape), gain, generator=generator)
    return drawn


def he_normal(shape: Sequence[int], generator: torch.Generator) -> Tensor:
    """Normal numbers of deviation sqrt(2 / inputs) (He et al. 2015)."""
    return torch.empty(shape).normal_(std=math.sqrt(2 / shape[1]), generator=generator)


def sparse(shape: Sequence[int], share: float, generator: torch.Generator) -> Tensor:
    """U(-1/sqrt(n), 1/sqrt(n)) of n inputs, of which a share, rounded up, is 0 in each row.

    Which, is drawn for each row by itself; one input at the least is left.
    """
    inputs = shape[1]
    zeros = min(math.ceil(share * inputs), inputs - 1)
    drawn = uniform(shape, 1 / math.sqrt(inputs), generator)
    order = torch.rand(shape, generator=generator).argsort(dim=1)
    return drawn.scatter_(1, order[:, :zeros], 0.0)


def unit_rows(weight: Tensor) -> Tensor:
    """Rows (last axis) scaled to length 1, in place; what is 0 stays 0."""
    lengths = (weight * weight).sum(dim=-1, keepdim=True).sqrt()
    return weight.div_(lengths.clamp(min=1e-8))
