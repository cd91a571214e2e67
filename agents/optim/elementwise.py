"""Adam and AdamW whose steps are counted for each element, for weights that start anew."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.optim.adam import adam

from clrl.agents.optim.ages import Ages, ByElement, blocks_of
from clrl.agents.optim.options import AdamOptions, AdamWOptions

_BLOCK = 1 << 16
"""Numbers that are computed in one go: what six operands of this size take fits a cache."""


class ElementwiseAdam(ByElement):
    r"""Adam (Kingma & Ba 2015), each element of which can be started anew.

    It is ``torch.optim.Adam`` (fused, coupled L2), to the bit, for a learner none of whose
    elements was started anew. Elements that were are as in an Adam that began at that moment:
    with a their steps since then, w, g, m and v the weight, its gradient and the averages::

        m <- beta_1 * m + (1 - beta_1) * g          m_hat = m / (1 - beta_1^a)
        v <- beta_2 * v + (1 - beta_2) * g^2        v_hat = v / (1 - beta_2^a)
        w <- w - lr * m_hat / (sqrt(v_hat) + eps)

    torch's own Adam has one count for a whole tensor. Where m and v of an old tensor are set to 0,
    they are then taken for averages of many steps, and the element moves up to
    (1 - beta_1) / sqrt(1 - beta_2) = 3.2 times as far at first and 6.6 times at its tenth step.

    The state of a parameter has, besides torch's entries, ``since``: the step after which each
    element began, 0 if it always was there.

    Args:
        params: parameters or parameter groups, contiguous. A group with the key ``members`` holds
            tensors that stack learners, [members, columns].
        lr: step size.
        betas: decay rates of m and v, in [0, 1).
        eps: added to the root of v_hat.
        weight_decay: coupled L2: the gradient gains ``weight_decay * w``.
    """

    decoupled: ClassVar[bool] = False

    def __init__(
        self,
        params: Any,
        lr: float = AdamOptions.lr,
        betas: tuple[float, float] = AdamOptions.betas,
        eps: float = AdamOptions.eps,
        weight_decay: float = AdamOptions.weight_decay,
    ) -> None:
        super().__init__(
            params, {"lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay}
        )

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Take one step; what the closure gave, if there is one."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            together: list[list[Tensor]] = [[], [], [], [], []]
            for parameter in group["params"]:
                if parameter.grad is None:
                    continue
                rest = self._as_a_whole(group, parameter)
                together = [one + value for one, value in zip(together, rest, strict=True)]
            if together[0]:
                weights, gradients, means, squares, steps = together
                adam(
                    weights, gradients, means, squares, [], steps,
                    fused=True, amsgrad=False, maximize=False,
                    beta1=group["betas"][0], beta2=group["betas"][1], lr=group["lr"],
                    eps=group["eps"], weight_decay=group["weight_decay"],
                    decoupled_weight_decay=self.decoupled,
                )  # fmt: skip
        return loss

    def _as_a_whole(self, group: dict[str, Any], parameter: Tensor) -> list[list[Tensor]]:
        """Step what counts by element; the rest: weights, gradients, averages, step counts."""
        state = self._state(parameter)
        assert parameter.grad is not None
        values = [parameter, parameter.grad, state["exp_avg"], state["exp_avg_sq"]]
        ages = self.ages_of(group, parameter)
        if ages is None:
            return [[value] for value in (*values, state["step"])]
        rows = [value.view(len(ages.since), -1) for value in values]
        whole = [i for i in range(len(ages.since)) if i not in ages.members]
        # The kernel counts on a step of each tensor that it is given; of these there is one.
        rest = [[value[i] for i in whole] for value in rows]
        rest.append([state["step"].clone() for _ in whole])
        state["step"] += 1
        ages.turn_to(int(state["step"]))
        for block in blocks_of(sorted(ages.members), max(1, _BLOCK // rows[0].shape[1])):
            corrections = ages.corrections(block)
            _step(group, self.decoupled, [value[block] for value in rows], corrections)
        return rest

    def begin_step(self, parameter: Tensor) -> Ages | None:
        """Count a step of a stack of learners that is taken elsewhere.

        Args:
            parameter: the stack, [members, columns]; its averages are the caller's to keep.

        Returns:
            How old elements are, if some were started anew.
        """
        (group,) = self.param_groups
        state = self._state(parameter)
        ages = self.ages_of(group, parameter)
        state["step"] += 1
        if ages is not None:
            ages.turn_to(int(state["step"]))
        return ages

    def _state(self, parameter: Tensor) -> dict[str, Tensor]:
        state: dict[str, Tensor] = self.state[parameter]
        if not state:
            state["step"] = torch.zeros((), dtype=torch.float32, device=parameter.device)
            for name in ("exp_avg", "exp_avg_sq", "since"):
                state[name] = torch.zeros_like(parameter)
        return state


class ElementwiseAdamW(ElementwiseAdam):
    """AdamW (Loshchilov & Hutter 2019), each element of which can be started anew.

    It is to ``torch.optim.AdamW`` what `ElementwiseAdam` is to ``torch.optim.Adam``.

    Args:
        params: see `ElementwiseAdam`.
        lr: step size.
        betas: decay rates of m and v, in [0, 1).
        eps: added to the root of v_hat.
        weight_decay: decoupled: each step also takes ``lr * weight_decay * w`` off w.
    """

    decoupled: ClassVar[bool] = True

    def __init__(
        self,
        params: Any,
        lr: float = AdamWOptions.lr,
        betas: tuple[float, float] = AdamWOptions.betas,
        eps: float = AdamWOptions.eps,
        weight_decay: float = AdamWOptions.weight_decay,
    ) -> None:
        super().__init__(params, lr, betas, eps, weight_decay)


def _step(
    group: dict[str, Any], decoupled: bool, values: list[Tensor], corrections: list[Tensor]
) -> None:
    """A step of some members: weights, gradients and averages, [members, elements] each."""
    weight, gradient, mean, square = values
    (beta_1, beta_2), decay = group["betas"], group["weight_decay"]
    if decay and decoupled:
        weight.mul_(1 - group["lr"] * decay)
    elif decay:
        gradient = gradient.add(weight, alpha=decay)
    mean.lerp_(gradient, 1 - beta_1)
    square.mul_(beta_2).addcmul_(gradient, gradient, value=1 - beta_2)
    first, second = corrections
    root = torch.div(square, second, out=second).sqrt_().add_(group["eps"])
    weight.addcdiv_(mean, root.mul_(first), value=-group["lr"])
