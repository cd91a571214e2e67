"""Utility-based perturbed gradient descent (Elsayed & Mahmood 2024)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import torch
from torch import Tensor

from clrl.agents.optim.noise import normal
from clrl.agents.optim.options import UPGDOptions

# Elements updated together: few enough that the temporaries stay in the cache, enough that
# the cost of starting an operation does not count.
_BLOCK = 2**16


class UPGD(torch.optim.Optimizer):
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
            1 / (1 - beta_utility^t).
        lr_factor: 1 in the paper and in its benchmark code. A weight of no utility has
            s = 1/2 and so moves at half the step size; 2 undoes that, as the short form in
            the authors' README and their AdaUPGD for PPO do.
        generator: where the noise comes from; one a member for stacked parameters. None
            makes a generator of the optimizer's own, from seed 0. Its state is part of
            ``state_dict``.

    Raises:
        ValueError: a group's members and generators differ in number.
    """

    stacks_members = True

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
        super().__init__(params, defaults)
        if generator is None:
            generator = torch.Generator().manual_seed(0)
        self._generators = (
            [generator] if isinstance(generator, torch.Generator) else list(generator)
        )
        for group in self.param_groups:
            if group.get("members", 1) != len(self._generators):
                raise ValueError("UPGD needs one generator a member")

    @torch.no_grad()
    def step(self, closure: Any = None) -> Any:
        """One update of every parameter that has a gradient."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        rows = [_Rows(self, group, p) for group in self.param_groups for p in group["params"]]
        rows = [row for row in rows if row.gradient is not None]
        if not rows:
            return loss
        blocks = range(0, len(self._generators), _members_a_block(rows))
        for first in blocks:
            members = slice(first, first + _members_a_block(rows))
            tops = [row.track_utility(members) for row in rows if row.gated]
            top = torch.stack(tops).amax(dim=0) if tops else None
            for row in rows:
                row.move(members, top, self._generators[members])
        return loss

    def state_dict(self) -> dict[str, Any]:
        """What ``torch.optim.Optimizer`` keeps, and the generators' states."""
        states = [generator.get_state() for generator in self._generators]
        return {**super().state_dict(), "generators": states}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore what `state_dict` gave."""
        state = dict(state_dict)
        for generator, value in zip(self._generators, state.pop("generators"), strict=True):
            generator.set_state(value)
        super().load_state_dict(state)


def _members_a_block(rows: list[_Rows]) -> int:
    return max(1, _BLOCK // max(1, sum(row.weight[0].numel() for row in rows)))


class _Rows:
    """One parameter tensor as [members, elements], with its utility and gradient."""

    def __init__(self, optimizer: UPGD, group: dict[str, Any], parameter: Tensor) -> None:
        self.group = group
        self.gated = group["gate"] != "none"
        members = group.get("members", 1)
        self.width = group.get("width", parameter.numel())
        self.weight = parameter.detach().view(members, -1)
        self.gradient = None
        if parameter.grad is None:
            return
        self.gradient = parameter.grad.reshape(members, -1)
        state = optimizer.state[parameter]
        if not state:
            state["step"] = 0
            state["utility"] = torch.zeros_like(parameter, memory_format=torch.contiguous_format)
        state["step"] += 1
        self.utility = state["utility"].view(members, -1)
        self.correction = 1 - group["beta_utility"] ** state["step"]

    def track_utility(self, members: slice) -> Tensor:
        """Update the running averages; return each member's u_max here, [members, 1]."""
        assert self.gradient is not None
        beta: float = self.group["beta_utility"]
        utility: Tensor = self.utility[members]
        utility.mul_(beta)
        utility.addcmul_(self.gradient[members], self.weight[members], value=beta - 1)
        top = utility[:, : self.width].amax(dim=1, keepdim=True)
        return top / self.correction if self.group["utility_max"] == "corrected" else top

    def move(
        self, members: slice, top: Tensor | None, generators: Sequence[torch.Generator]
    ) -> None:
        """Take the step of these members, whose u_max is given, [members, 1]."""
        assert self.gradient is not None
        group, weight, gradient = self.group, self.weight[members], self.gradient[members]
        noise = normal(weight.shape[1], group["sigma"], generators)
        rate = -group["lr"] * group["lr_factor"]
        weight.mul_(1 - group["lr"] * group["weight_decay"])
        if top is None or not self.gated:
            weight.add_(noise.add_(gradient), alpha=rate)
            return
        # 1 - sigmoid(u_hat / u_max) = sigmoid(-u_hat / u_max), u_hat being u / correction.
        divisor = -self.correction * top
        divisor = torch.where(divisor == 0, torch.inf, divisor)
        open_ = (self.utility[members] / divisor).sigmoid_()
        if group["gate"] == "update":
            weight.addcmul_(noise.add_(gradient), open_, value=rate)
        else:
            weight.add_(noise.mul_(open_).add_(gradient), alpha=rate)
