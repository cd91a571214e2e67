"""Utility-based perturbed gradient descent (Elsayed & Mahmood 2024)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import torch
from torch import Tensor

from clrl.agents.optim.gated import Rows, UtilityGated
from clrl.agents.optim.options import UPGDOptions


class UPGD(UtilityGated):
    r"""UPGD: weights that matter are protected, the others are perturbed.

    First-order, global, weight-wise UPGD. With g the gradient, w the weight, t the step and
    xi ~ N(0, sigma^2) drawn anew for every weight and step::

        u <- beta_utility * u + (1 - beta_utility) * (-g * w)
        s  = sigmoid(u_hat / u_max)
        w <- (1 - lr * weight_decay) * w - lr_factor * lr * (g + xi) * (1 - s)

    u_hat = u / (1 - beta_utility^t), and u_max is its largest value over all weights and
    biases of one learner. Where u_max is 0 (no weight is of use, as before the first
    gradient) s is 1/2. Where all utilities are negative, u_hat / u_max is at least 1 and the
    least useful weights are the most protected: so the formula has it, in paper and code.

    Args:
        params: parameters or parameter groups. A group with the keys ``members`` and
            ``width`` holds tensors that stack learners: [members, columns], of which the
            first ``width`` columns count; each learner then has its own u_max.
        lr: step size, alpha in the paper.
        sigma: standard deviation of the noise.
        beta_utility: decay of the utility's running average, in [0, 1).
        weight_decay: decoupled weight decay, lambda in the paper.
        gate: what 1 - s multiplies. ``"update"``: gradient and noise (the paper's
            protecting form, Algorithm 1). ``"noise"``: noise alone (its non-protecting
            form). ``"none"``: nothing, s being 0: perturbed gradient descent.
        utility_max: ``"corrected"`` takes u_max of u_hat, as the paper's Algorithm 1 has it.
            ``"raw"`` takes it of u, as the authors' code (mohmdelsayed/upgd, first-order
            global optimizer) does, which makes the argument of the sigmoid larger by
            1 / (1 - beta_utility^t). Until about 1 / (1 - beta_utility) steps, s is then nearly
            1 for weights of positive utility, which hardly move, and nearly 0 for those of
            negative, which take whole steps and all the noise. At beta_utility 0.9999 the factor is
            10,000 at the first step, 10.5 at the thousandth, 1.6 at the ten-thousandth; at 0.9 it
            is over after fifty. Later the two are the same.
        lr_factor: 1 in the paper and in its benchmark code. A weight of no utility has
            s = 1/2 and so moves at half the step size; 2 undoes that, as the short form in
            the authors' README and their AdaUPGD for PPO do.
        generator: where the noise comes from; one a member for stacked parameters. None
            makes a generator of the optimizer's own, from seed 0. Its state is part of
            ``state_dict``.

    Raises:
        ValueError: a group's members and generators differ in number.
    """

    def __init__(
        self,
        params: Any,
        lr: float = UPGDOptions.lr,
        sigma: float = UPGDOptions.sigma,
        beta_utility: float = UPGDOptions.beta_utility,
        weight_decay: float = UPGDOptions.weight_decay,
        gate: Literal["update", "noise", "none"] = UPGDOptions.gate,
        utility_max: Literal["corrected", "raw"] = UPGDOptions.utility_max,
        lr_factor: float = UPGDOptions.lr_factor,
        generator: torch.Generator | Sequence[torch.Generator] | None = None,
    ) -> None:
        defaults = {
            "lr": lr,
            "sigma": sigma,
            "beta_utility": beta_utility,
            "weight_decay": weight_decay,
            "gate": gate,
            "utility_max": utility_max,
            "lr_factor": lr_factor,
        }
        super().__init__(params, defaults, generator)

    def move(self, row: Rows, members: slice, noise: Tensor, gate: Tensor | None) -> None:
        """Take a step along gradient and noise."""
        weight, gradient = row.weight[members], row.gradient[members]
        if gate is None:
            weight.add_(noise.add_(gradient), alpha=row.rate)
        elif row.group["gate"] == "update":
            weight.addcmul_(noise.add_(gradient), gate, value=row.rate)
        else:
            weight.add_(noise.mul_(gate).add_(gradient), alpha=row.rate)
