"""Muon (Jordan et al. 2024): orthogonal steps for hidden weights, AdamW for the rest."""

from __future__ import annotations

from collections.abc import Iterable
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
        self._flat = {one: one.detach().flatten(1) for one in hidden if one.ndim > 2}
        rest = [one for one in every if one.ndim < 2 or id(one) in outside]
        self._inner: list[torch.optim.Optimizer] = []
        if hidden:
            own = [self._flat.get(one, one) for one in hidden]
            kept = {"momentum": momentum, "weight_decay": weight_decay}
            self._inner.append(torch.optim.Muon(own, lr=lr, adjust_lr_fn="original", **kept))
        if rest:
            self._inner.append(
                torch.optim.AdamW(
                    rest, lr=others * lr, betas=betas, eps=1e-10, weight_decay=weight_decay
                )
            )
        super().__init__([group for one in self._inner for group in one.param_groups], {"lr": lr})
        self._share()

    def _share(self) -> None:
        """What the inner optimizers keep is this one's state."""
        for inner, group in zip(self._inner, self.param_groups, strict=True):
            inner.state = self.state
            inner.param_groups = [group]

    def step(self, closure: Any = None) -> Any:
        """One step of all parameters that have a gradient; what the closure gave, if any."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for kernel, flat in self._flat.items():
            flat.grad = None if kernel.grad is None else kernel.grad.flatten(1)
        for inner in self._inner:
            inner.step()
        return loss

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Clear the gradients, of kernels too."""
        super().zero_grad(set_to_none)
        for kernel in self._flat:
            kernel.grad = None

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore what ``state_dict`` gave."""
        super().load_state_dict(state_dict)
        self._share()
