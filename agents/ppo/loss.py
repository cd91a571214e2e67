"""What proximal policy optimization minimises."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from clrl.agents.actions import Actions, Discrete, Gaussian
from clrl.agents.calling import Forward
from clrl.agents.engine.plan import LossPlan
from clrl.agents.options import PPOOptions
from clrl.agents.ppo.rollout import standardised


def make_loss(
    actions: Actions,
    options: PPOOptions,
    adjust: Callable[..., Tensor] = lambda total, *_: total,
) -> Callable[..., Any]:
    """The loss of one learner on one minibatch; see `Population`.

    Its terms: the clipped surrogate objective, the squared error of the values (of those that
    moved far as ``value_clip`` says), and the entropy bonus. The approximate KL divergence is
    the estimator ``mean(ratio - 1 - log ratio)`` (Schulman 2020, "Approximating KL divergence").

    Args:
        actions: what the policy decides.
        options: see `PPOOptions`.
        adjust: gives the loss that takes the place of another, as
            `clrl.agents.consolidation.base.Method.adjust` does.
    """

    def mean(values: Tensor, weights: Tensor) -> Tensor:
        return (values * weights).sum() / weights.sum().clamp(min=1.0)

    def errors(values: Tensor, old_values: Tensor, returns: Tensor) -> Tensor:
        error = returns - values
        if options.value_clip == "none":
            return error * error
        bound = options.value_clip_range
        clipped = returns - (old_values + (values - old_values).clamp(-bound, bound))
        if options.value_clip == "sb3":
            return clipped * clipped
        return torch.maximum(error * error, clipped * clipped)

    def loss(
        forward: Forward,
        observations: Tensor,
        taken: Tensor,
        old_log_probs: Tensor,
        old_values: Tensor,
        advantages: Tensor,
        returns: Tensor,
        weights: Tensor,
        *extras: Tensor,
    ) -> tuple[Tensor, dict[str, Tensor]]:
        outputs, parameters, values = forward(observations)
        if options.normalize_advantages == "minibatch":
            advantages = standardised(advantages, weights)
        log_ratio = actions.log_prob(outputs, parameters, taken) - old_log_probs
        ratio = log_ratio.exp()
        near = ratio.clamp(1 - options.clip_range, 1 + options.clip_range)
        policy_loss = -mean(torch.minimum(advantages * ratio, advantages * near), weights)
        value_loss = mean(errors(values, old_values, returns), weights)
        entropy = mean(actions.entropy(outputs, parameters), weights)
        total = (
            policy_loss
            - options.entropy_coefficient * entropy
            + options.value_coefficient * value_loss
        )
        total = adjust(total, outputs, forward, *extras)
        with torch.no_grad():
            moved = ((ratio - 1).abs() > options.clip_range).to(ratio.dtype)
            named = {
                "policy_loss": policy_loss,
                "value_loss": value_loss,
                "entropy": entropy,
                "approx_kl": mean(ratio - 1 - log_ratio, weights),
                "clip_fraction": mean(moved, weights),
            }
        return total, named

    return loss


def make_plan(actions: Actions, options: PPOOptions) -> LossPlan | None:
    """What `make_loss` gives, unadjusted, as compiled code knows it."""
    results = ("loss", "policy_loss", "value_loss", "entropy", "approx_kl", "clip_fraction")
    common: dict[str, Any] = {
        "results": results,
        "clip_range": options.clip_range,
        "entropy_coefficient": options.entropy_coefficient,
        "value_coefficient": options.value_coefficient,
        "value_clip": options.value_clip,
        "value_clip_range": options.value_clip_range,
        "standardise": options.normalize_advantages == "minibatch",
    }
    if isinstance(actions, Discrete):
        return LossPlan("ppo-discrete", sizes=tuple(actions.sizes), **common)
    if isinstance(actions, Gaussian):
        return LossPlan("ppo-gaussian", sizes=(1,) * actions.width, spread="spread", **common)
    return None
