"""Two optimizers as anyone writes them for PyTorch; neither knows of clrl."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import torch
from torch import Tensor


class SignSGD(torch.optim.Optimizer):
    """Moves every weight by ``lr`` against the sign of its gradient: elementwise."""

    def __init__(self, params: Iterable[Tensor], lr: float = 1e-3) -> None:
        if lr < 0:
            raise ValueError(f"lr must not be negative, got {lr}")
        super().__init__(params, {"lr": lr})

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None:
                    parameter.sub_(parameter.grad.sign(), alpha=group["lr"])


class NormScaledSGD(torch.optim.Optimizer):
    """Gradient descent whose whole step has the length ``lr``.

    The norm is taken over all tensors together. Stacked with other learners they would
    share one norm, so that clrl has to train its learners one at a time.
    """

    def __init__(self, params: Iterable[Tensor], lr: float = 1e-2, eps: float = 1e-8) -> None:
        super().__init__(params, {"lr": lr, "eps": eps})

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:
        with_gradient = [
            (parameter, group)
            for group in self.param_groups
            for parameter in group["params"]
            if parameter.grad is not None
        ]
        norm = torch.stack([p.grad.square().sum() for p, _ in with_gradient]).sum().sqrt()
        for parameter, group in with_gradient:
            parameter.sub_(parameter.grad / (norm + group["eps"]) * group["lr"])
