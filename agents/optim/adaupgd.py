"""UPGD with Adam's step (Elsayed & Mahmood 2024, their experiments with PPO)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import torch
from torch import Tensor

from clrl.agents.optim.gated import Rows, UtilityGated
from clrl.agents.optim.options import AdaUPGDOptions


class AdaUPGD(UtilityGated):
    r"""AdaUPGD: Adam's step and noise, both the smaller, the more useful a weight is.

    With g the gradient, w the weight, t the step and xi ~ N(0, sigma^2) drawn anew for every
    weight and step::

        m <- beta_1 * m + (1 - beta_1) * g          m_hat = m / (1 - beta_1^t)
        v <- beta_2 * v + (1 - beta_2) * g^2        v_hat = v / (1 - beta_2^t)
        u <- beta_utility * u + (1 - beta_utility) * (-g * w)
        s  = sigmoid(u_hat / u_max)
        w <- (1 - lr * weight_decay) * w
             - lr_factor * lr * (m_hat / (sqrt(v_hat) + eps) + xi) * (1 - s)

    The utility is of the gradient itself, not of Adam's step; u_hat and u_max are as in
    `clrl.agents.optim.upgd.UPGD`. Without noise and gate it is AdamW of step size
    ``lr_factor * lr`` and decay ``weight_decay / lr_factor``.

    The defaults are those of the authors' program for PPO (mohmdelsayed/upgd,
    ``core/run/rl``), which has the betas, `lr_factor`, `utility_max` and the gate fixed.

    Args:
        params: parameters or parameter groups. A group with the keys ``members`` and
            ``width`` holds tensors that stack learners: [members, columns], of which the
            first ``width`` columns count; each learner then has its own u_max.
        lr: step size, alpha in the paper. 3e-4 is the PPO program's; its optimizer by itself
            has 1e-5.
        betas: decay rates of m and v, in [0, 1); (0.9, 0.999) in the optimizer's code.
        eps: added to the root of v_hat. 1e-5 in the optimizer's code and the PPO program,
            where Adam in general has 1e-8.
        sigma: standard deviation of the noise; 0.001 in the code and the PPO program.
        beta_utility: decay of the utility's running average, in [0, 1); 0.999 in both.
        weight_decay: decoupled weight decay, lambda in the paper; 0.001 in both. It is not
            multiplied by `lr_factor`, as in the code.
        gate: what 1 - s multiplies. ``"update"``: Adam's step and noise, as in the code.
            ``"noise"``: noise alone. ``"none"``: nothing, s being 0.
        utility_max: ``"raw"`` takes u_max of u, as the code does, which makes the argument of
            the sigmoid larger by 1 / (1 - beta_utility^t): by 1000 at the first step at
            beta_utility 0.999, 1.6 at the thousandth. Until then s is nearly 1 for weights of
            positive utility, which hardly move, and nearly 0 for those of negative, which take
            whole steps and all the noise. ``"corrected"`` takes it of u_hat, as the paper has it
            for UPGD (Algorithm 1).
        lr_factor: 2 in the code. A weight of no utility has s = 1/2 and so would move at half
            the step size; 2 undoes that.
        generator: where the noise comes from; one a member for stacked parameters. None
            makes a generator of the optimizer's own, from seed 0. Its state is part of
            ``state_dict``.

    Raises:
        ValueError: a group's members and generators differ in number.
    """

    averages = ("utility", "exp_avg", "exp_avg_sq")

    def __init__(
        self,
        params: Any,
        lr: float = AdaUPGDOptions.lr,
        betas: tuple[float, float] = AdaUPGDOptions.betas,
        eps: float = AdaUPGDOptions.eps,
        sigma: float = AdaUPGDOptions.sigma,
        beta_utility: float = AdaUPGDOptions.beta_utility,
        weight_decay: float = AdaUPGDOptions.weight_decay,
        gate: Literal["update", "noise", "none"] = AdaUPGDOptions.gate,
        utility_max: Literal["corrected", "raw"] = AdaUPGDOptions.utility_max,
        lr_factor: float = AdaUPGDOptions.lr_factor,
        generator: torch.Generator | Sequence[torch.Generator] | None = None,
    ) -> None:
        defaults = {
            "lr": lr,
            "betas": betas,
            "eps": eps,
            "sigma": sigma,
            "beta_utility": beta_utility,
            "weight_decay": weight_decay,
            "gate": gate,
            "utility_max": utility_max,
            "lr_factor": lr_factor,
        }
        super().__init__(params, defaults, generator)

    def move(self, row: Rows, members: slice, noise: Tensor, gate: Tensor | None) -> None:
        """Take a step along Adam's direction and noise."""
        weight, gradient = row.weight[members], row.gradient[members]
        beta_1, beta_2 = row.group["betas"]
        mean, square = row.averages["exp_avg"][members], row.averages["exp_avg_sq"][members]
        mean.lerp_(gradient, 1 - beta_1)
        square.mul_(beta_2).addcmul_(gradient, gradient, value=1 - beta_2)
        _, first, second = row.corrections(members)
        if isinstance(first, Tensor) and isinstance(second, Tensor):
            root = square.div(second).sqrt_().add_(row.group["eps"]).mul_(first)
            correction = 1.0
        else:
            root = square.sqrt().div_(float(second) ** 0.5).add_(row.group["eps"])
            correction = float(first)
        if gate is not None and row.group["gate"] == "update":
            noise.addcdiv_(mean, root, value=1 / correction)
            weight.addcmul_(noise, gate, value=row.rate)
            return
        weight.addcdiv_(mean, root, value=row.rate / correction)
        weight.add_(noise if gate is None else noise.mul_(gate), alpha=row.rate)
