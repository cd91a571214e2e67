"""Toward the initial parameters (Kumar et al. 2023), also called regenerative regularization."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import torch
from torch import Tensor

from clrl.agents.networks import Network, norms
from clrl.agents.penalties.base import Memory, Penalty, Sight, zero
from clrl.agents.penalties.options import L2InitOptions


def regenerated(network: Network) -> list[str]:
    """The parameters that are pulled to where they were: all but those of normalisation."""
    left = set(norms(network))
    return [name for name, _ in network.named_parameters() if name.rpartition(".")[0] not in left]


class L2Init(Penalty):
    """``strength / 2`` times the squared distance from the parameters at the start.

    Of all weights and biases, the last layer's included, but not of normalisation between layers.
    Source: Kumar, Marklund & Van Roy, "Maintaining plasticity in continual learning via
    regenerative regularization"; the form is that of the authors' code (skumar9876/L2_Init), whose
    strength is twice the paper's, where the squared distance is not halved.

    Other forms, with d the difference of each parameter from its start:

    - ``l1``: ``strength * sum |d|`` (that code).
    - ``huber``: ``strength`` times the sum of d^2 / 2 where |d| is at most 1, and of
      |d| - 1/2 beyond (that code).
    - ``norm``: ``strength`` times the length of d, not squared: a pull of one size however far the
      parameters are. So in public suites of others, under the name of L2 init (Juliani & Ash
      2024, at 0.01); where they divide 0 by 0 at the start, there is no pull here.

    Args:
        network: see `Penalty`.
        strength: lambda; 0 leaves the loss as it is.
        form: ``"l2"``, ``"l1"``, ``"huber"`` or ``"norm"``; see above.
        resample: whether the start is drawn anew by the network's initialiser in every update, as
            an ablation of the paper has it (worse there).
    """

    def __init__(
        self,
        network: Network,
        strength: float = L2InitOptions.strength,
        form: Literal["l2", "l1", "huber", "norm"] = L2InitOptions.form,
        resample: bool = L2InitOptions.resample,
    ) -> None:
        super().__init__(network)
        self._strength = strength
        self._form = form
        self._resample = resample
        self._names = regenerated(network)

    def begin(self, parameters: Mapping[str, Tensor]) -> Memory:
        """The parameters at the start, unless they are drawn anew."""
        return {} if self._resample else {name: parameters[name] for name in self._names}

    def term(self, sight: Sight, memory: Memory) -> Tensor:
        """See the class."""
        if self._resample and self._strength == 0:
            return zero(sight)  # and nothing is drawn
        start = {name: sight.fresh(name) for name in self._names} if self._resample else memory
        each = [self._of(sight.parameters[name] - start[name]).sum() for name in self._names]
        total = sum(each[1:], each[0])
        if self._form == "norm":
            apart = total > 0
            # The root has no slope at 0; what is chosen there is not differentiated.
            total = torch.where(apart, torch.where(apart, total, 1.0).sqrt(), 0.0)
        return self._strength * total

    def _of(self, d: Tensor) -> Tensor:
        """What each parameter's difference adds; its square, of which "norm" takes the root."""
        if self._form == "l1":
            return d.abs()
        if self._form == "huber":
            near = d.clamp(-1, 1)
            return near * d - 0.5 * (near * near)
        return d * d if self._form == "norm" else 0.5 * (d * d)
