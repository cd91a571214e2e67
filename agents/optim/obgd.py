"""ObGD: gradient descent whose steps are bounded so as not to overshoot (Elsayed et al. 2024)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from clrl.agents.optim.options import ObGDOptions


class ObGD(torch.optim.Optimizer):
    """Overshooting-bounded gradient descent with an eligibility trace, for learning online.

    With g the gradient of a loss, all of one learner, and d an error that scales its step::

        e <- trace * e + g
        M = lr * kappa * max(|d|, 1) * |e|_1
        w <- w - lr / max(M, 1) * d * e

    so that a step is no longer than 1 / kappa in sum over all numbers (|d| / (max(|d|, 1) kappa)).
    Elsayed, Vasan & Mahmood, "Streaming deep reinforcement learning finally works" (2024); official
    code mohmdelsayed/streaming-drl. There g is the gradient of a value, or of the logarithm of a
    policy, with its sign turned; d is the temporal-difference error, ``trace`` is gamma lambda, and
    kappa is 2 for values and 3 for policies, each with an optimizer of its own. An agent of one's
    own says so: ``optimizer.step(error=d)``, and ``optimizer.forget()`` where an episode ends.

    Where a loss is minimised there is no such error: g is the loss's gradient, and d is 1. A trace
    is of one example after another, as a stream with ``agent.batch_size 1`` gives them; where an
    agent learns from batches, as PPO does, it means nothing and is refused, unless it is 0.

    Args:
        params: parameters or parameter groups. A group with the key ``members`` holds tensors that
            stack learners, [members, columns], each with a bound of its own.
        lr: step size where the bound does not bind; 1 in the source.
        kappa: how small the longest step is.
        trace: decay rate of e, in [0, 1); 0 for none. In the source lambda is 0.8, and gamma 0.99.
        generator: not looked at; nothing is drawn.
    """

    stacks_members = True

    def __init__(
        self,
        params: Any,
        lr: float = ObGDOptions.lr,
        kappa: float = ObGDOptions.kappa,
        trace: float = ObGDOptions.trace,
        generator: Any = None,
    ) -> None:
        super().__init__(params, {"lr": lr, "kappa": kappa, "trace": trace})

    @classmethod
    def needs_order(cls, options: Mapping[str, Any]) -> bool:
        """Whether updates are to be of one example after another."""
        return bool(options.get("trace", ObGDOptions.trace))

    @torch.no_grad()
    def step(self, closure: Any = None, error: float = 1.0) -> Any:
        """One step of all parameters that have a gradient; what the closure gave, if any.

        Args:
            closure: called first, with gradients enabled.
            error: d.
        """
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        traces: list[tuple[dict[str, Any], Tensor, Tensor]] = []
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None:
                    state = self.state[parameter]
                    if not state:
                        state["trace"] = torch.zeros_like(parameter)
                    state["trace"].mul_(group["trace"]).add_(parameter.grad)
                    members = group.get("members", 1)
                    weight, trace = parameter.detach(), state["trace"]
                    traces.append((group, weight.view(members, -1), trace.view(members, -1)))
        if not traces:
            return loss
        lengths = [trace.abs().sum(dim=1, keepdim=True) for _, _, trace in traces]
        length = sum(lengths[1:], lengths[0])
        for group, weight, trace in traces:
            bound = group["lr"] * group["kappa"] * max(abs(error), 1.0) * length
            weight.sub_(trace * (group["lr"] * error / bound.clamp(min=1.0)))
        return loss

    def forget(self) -> None:
        """Begin with new traces, as where an episode ends."""
        for state in self.state.values():
            state["trace"].zero_()
