"""Muon (Jordan et al. 2024): orthogonal steps for hidden weights, AdamW for the rest."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor

from clrl.agents.optim.options import MuonOptions


class Muon(torch.optim.Optimizer):
    """Steps of hidden weights are momentum with all singular values made nearly one.

    Jordan et al., "Muon: an optimizer for hidden layers in neural networks" (2024); official code
    KellerJordan/Muon; what is done here to matrices is torch's own ``torch.optim.Muon``. For a
    weight W [outputs, inputs] with gradient G::

        M <- momentum M + (1 - momentum) G,    U = (1 - momentum) G + momentum M
        W <- (1 - lr weight_decay) W - lr sqrt(max(1, outputs / inputs)) orthogonal(U)

    with orthogonal(U) by five steps of Newton and Schulz in half precision, which leave singular
    values between 0.6 and 1.2 or so. Kernels of convolutions are taken for [outputs, the rest].
    Biases, norms, heads and other parameters that are no hidden weights are AdamW's, at
    ``others`` times the step size.

    Stacked learners are stepped one by one, so that each weight is orthogonalised by itself.

    Args:
        params: parameters, or groups of them, whose own settings are not looked at.
        lr: step size of hidden weights.
        momentum: decay rate of M.
        weight_decay: decoupled, for all parameters.
        others: AdamW's step size, in multiples of `lr`. In published comparisons 0.1.
        betas: AdamW's decay rates.
        heads: which of the parameters are no hidden weights, although they are matrices: those of
            the last layer. In the engine they are what a network says (`Network.heads`).
    """

    def __init__(
        self,
        params: Any,
        lr: float = MuonOptions.lr,
        momentum: float = MuonOptions.momentum,
        weight_decay: float = MuonOptions.weight_decay,
        others: float = MuonOptions.others,
        betas: tuple[float, float] = MuonOptions.betas,
        heads: Iterable[Tensor] = (),
    ) -> None:
        groups: list[Any] = list(params)
        given = groups if groups and isinstance(groups[0], dict) else [{"params": groups}]
        every = [one for group in given for one in group["params"]]
        outside = {id(one) for one in heads}
        hidden = [one for one in every if one.ndim > 1 and id(one) not in outside]
        rest = [one for one in every if one.ndim < 2 or id(one) in outside]
        self._inner: list[torch.optim.Optimizer] = []
        if hidden:
            matrices = [_matrix(one) for one in hidden]
            self._inner.append(
                torch.optim.Muon(matrices, lr, weight_decay, momentum, adjust_lr_fn="original")
            )
        if rest:
            self._inner.append(torch.optim.AdamW(rest, others * lr, betas, 1e-10, weight_decay))
        parts = [one for one in (hidden, rest) if one]
        pairs = zip(self._inner, parts, strict=True)
        super().__init__(
            [{**inner.param_groups[0], "params": part} for inner, part in pairs], {"lr": lr}
        )

    def step(self, closure: Any = None) -> Any:
        """One step of all parameters that have a gradient; what the closure gave, if any."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for inner, group in zip(self._inner, self.param_groups, strict=True):
            own = {one: _matrix(one) for one in group["params"] if one.grad is not None}
            inner.param_groups = [{**group, "params": list(own.values())}]
            inner.state = defaultdict(dict)
            for one, matrix in own.items():
                inner.state[matrix] = _shaped(self.state[one], one, matrix)
            inner.step()
            for one, matrix in own.items():
                self.state[one] = _shaped(inner.state[matrix], matrix, one)
        return loss


def _matrix(parameter: Tensor) -> Tensor:
    """A kernel, with its gradient, as a matrix in the same memory; others as they are."""
    if parameter.ndim < 3:
        return parameter
    matrix = parameter.detach().view(len(parameter), -1)
    matrix.grad = None if parameter.grad is None else parameter.grad.flatten(1)
    return matrix


def _shaped(state: Mapping[str, Any], old: Tensor, new: Tensor) -> dict[str, Any]:
    """A parameter's state, what has its shape in another."""
    return {
        key: value.view(new.shape)
        if isinstance(value, Tensor) and value.shape == old.shape
        else value
        for key, value in state.items()
    }
