"""The experience that a policy gathers, and the advantages that follow from it."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass
class Rollout:
    """Experience of all members: [members, steps, environments, ...].

    Attributes:
        observations: what was seen before each step.
        actions: what was done, as the policy drew it.
        log_probs: their log-probability or log-density.
        values: of the observations.
        rewards: for learning: scaled, and normalised where asked for.
        terminated: the episode ended with this step.
        truncated: the episode was cut after this step.
        valid: the step is to be learned from; false where the learner has been made new since.
        last_values: [members, environments], of the observations after the last step.
        final_values: where an episode was cut, of the observation with which it ended; elsewhere
            they mean nothing. None where no episode was cut.
    """

    observations: Tensor
    actions: Tensor
    log_probs: Tensor
    values: Tensor
    rewards: Tensor
    terminated: Tensor
    truncated: Tensor
    valid: Tensor
    last_values: Tensor
    final_values: Tensor | None = None


def gae(rollout: Rollout, gamma: float, gae_lambda: float) -> tuple[Tensor, Tensor]:
    """Generalised advantage estimates (Schulman et al. 2016).

    A terminated episode has no future; a truncated one has that of its last observation. Neither
    lets later advantages through: the next row is of another episode.

    Args:
        rollout: experience.
        gamma: discount.
        gae_lambda: decay.

    Returns:
        Advantages and returns (advantages plus values), each [members, steps, environments].
    """
    advantages = torch.zeros_like(rollout.values)
    following = rollout.last_values
    running = torch.zeros_like(following)
    for step in reversed(range(rollout.values.shape[1])):
        alive = (~rollout.terminated[:, step]).to(following.dtype)
        goes_on = (~(rollout.terminated | rollout.truncated)[:, step]).to(following.dtype)
        if rollout.final_values is not None:
            cut = rollout.truncated[:, step]
            following = torch.where(cut, rollout.final_values[:, step], following)
        delta = rollout.rewards[:, step] + gamma * alive * following - rollout.values[:, step]
        running = delta + gamma * gae_lambda * goes_on * running
        running = running * rollout.valid[:, step]
        advantages[:, step] = running
        following = rollout.values[:, step]
    return advantages, advantages + rollout.values


def standardised(advantages: Tensor, weights: Tensor) -> Tensor:
    """Advantages [...] with mean 0 and deviation 1 where the weight is 1, as SB3 has them."""
    count = weights.sum(dim=-1, keepdim=True)
    mean = (advantages * weights).sum(dim=-1, keepdim=True) / count.clamp(min=1.0)
    apart = (advantages - mean) * weights
    variance = (apart * apart).sum(dim=-1, keepdim=True) / (count - 1).clamp(min=1.0)
    return (advantages - mean) / (variance.sqrt() + 1e-8)
