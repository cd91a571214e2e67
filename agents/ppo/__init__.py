"""Proximal policy optimization: learners, their networks, experience and loss."""

from clrl.agents.ppo.actor_critic import ActorCritic, MakeNetwork
from clrl.agents.ppo.ppo import PPO
from clrl.agents.ppo.rollout import Rollout, gae

__all__ = ["PPO", "ActorCritic", "MakeNetwork", "Rollout", "gae"]
