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
    values = rollout.values
    following = torch.cat([values[:, 1:], rollout.last_values.unsqueeze(1)], dim=1)
    if rollout.final_values is not None:
        following = torch.where(rollout.truncated, rollout.final_values, following)
    alive = (~rollout.terminated).to(values.dtype)
    goes_on = (~(rollout.terminated | rollout.truncated)).to(values.dtype)
    deltas = rollout.rewards + gamma * alive * following - values
    # A step of all lanes after another, each in one piece of memory.
    terms = (deltas, gamma * gae_lambda * goes_on, rollout.valid.to(values.dtype))
    by_step = [term.transpose(0, 1).contiguous() for term in terms]
    advantages = torch.empty_like(by_step[0])
    running = torch.zeros_like(rollout.last_values)
    for delta, carried, valid, advantage in zip(
        *(reversed(term.unbind()) for term in (*by_step, advantages)), strict=True
    ):
        torch.mul(carried, running, out=advantage)
        running = advantage.add_(delta).mul_(valid)
    # A member's own in one piece: what is summed over them must not go by who is beside.
    whole = advantages.transpose(0, 1).contiguous()
    return whole, whole + values


def standardised(advantages: Tensor, weights: Tensor) -> Tensor:
    """Advantages [...] with mean 0 and deviation 1 where the weight is 1, as SB3 has them."""
    count = weights.sum(dim=-1, keepdim=True)
    mean = (advantages * weights).sum(dim=-1, keepdim=True) / count.clamp(min=1.0)
    apart = (advantages - mean) * weights
    variance = (apart * apart).sum(dim=-1, keepdim=True) / (count - 1).clamp(min=1.0)
    return (advantages - mean) / (variance.sqrt() + 1e-8)
