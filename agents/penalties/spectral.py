"""Spectral regularization: layers' largest singular values near 1 (Lewandowski et al. 2025)."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from clrl.agents.networks import Network, maps, norms
from clrl.agents.penalties.base import Memory, Penalty, Sight
from clrl.agents.penalties.options import SpectralOptions


class Spectral(Penalty):
    """``strength`` times ``(s^power - 1)^2 + |b|^(2 power)``, summed over layers.

    s is the largest singular value of a layer's weights (of a convolution those are flattened to a
    row a channel) and b its bias; heads are included. Of normalisation, the squared distance of
    scales from 1 and of shifts from 0. A policy's spread is left alone. s is u^T W v after one step
    of power iteration an update on u and v, which begin as the singular vectors at the start, are
    remembered, and are held fixed in the gradient. Source: Lewandowski et al., "Learning
    continually by spectral regularization" (ICLR 2025), after a summary of the paper and a
    re-implementation; the latter has s at the start in the place of 1.

    Args:
        network: see `Penalty`.
        strength: lambda, in the paper from 1e-5 to 1e-2; 0 leaves the loss as it is.
        power: k.
    """

    def __init__(
        self,
        network: Network,
        strength: float = SpectralOptions.strength,
        power: int = SpectralOptions.power,
    ) -> None:
        super().__init__(network)
        self._strength = strength
        self._power = power
        self._maps = maps(network)
        present = {name for name, _ in network.named_parameters()}
        pairs = ((f"{path}.{part}", at) for path in norms(network) for part, at in _NEUTRAL)
        self._norms = [(name, at) for name, at in pairs if name in present]

    def begin(self, parameters: Mapping[str, Tensor]) -> Memory:
        """The singular vectors at the start, by weight."""
        memory = {}
        for own in self._maps:
            u, _, v = torch.linalg.svd(parameters[own.weight].flatten(1), full_matrices=False)
            memory[f"{own.weight}/u"], memory[f"{own.weight}/v"] = u[:, 0], v[0]
        return memory

    def term(self, sight: Sight, memory: Memory) -> Tensor:
        """See the class."""
        each = []
        for own in self._maps:
            weight = sight.parameters[own.weight].flatten(1)
            apart = self._raised(self._largest(weight, own.weight, memory)) - 1
            each.append(apart * apart)
            if own.bias:
                bias = sight.parameters[own.bias]
                each.append(self._raised((bias * bias).sum()))
        for name, at in self._norms:
            apart = sight.parameters[name] - at
            each.append((apart * apart).sum())
        return self._strength * sum(each[1:], each[0])

    def _largest(self, weight: Tensor, name: str, memory: Memory) -> Tensor:
        fixed = weight.detach()
        v = _unit((fixed * memory[f"{name}/u"].unsqueeze(1)).sum(dim=0))
        u = _unit((fixed * v).sum(dim=1))
        memory[f"{name}/u"], memory[f"{name}/v"] = u, v
        return (weight * (u.unsqueeze(1) * v)).sum()

    def _raised(self, value: Tensor) -> Tensor:
        """To the power k, by products: powers are not the same for all members to the bit."""
        result = value
        for _ in range(self._power - 1):
            result = result * value
        return result


_NEUTRAL = (("weight", 1.0), ("bias", 0.0))


def _unit(vector: Tensor) -> Tensor:
    """Scaled to length 1; 0 stays 0."""
    return vector / (vector * vector).sum().sqrt().clamp(min=1e-12)
