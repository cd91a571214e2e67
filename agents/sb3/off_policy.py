"""Stable-Baselines3's DQN, SAC and TD3."""

from __future__ import annotations

import abc
from typing import Any

import numpy as np
import stable_baselines3 as sb3
import torch
from gymnasium import spaces
from stable_baselines3.common.noise import NormalActionNoise
from stable_baselines3.sac.policies import LOG_STD_MAX, LOG_STD_MIN, Actor, SACPolicy
from torch import Tensor, nn

from clrl.agents.options import SB3TD3Options
from clrl.agents.sb3.learner import Learner
from clrl.agents.sb3.view import Stack


class _OffPolicy(Learner):
    """What those have in common that learn from a replay buffer."""

    def _at_most(self, rows: int) -> dict[str, Any]:
        often = self.model.train_freq
        return {"train_freq": often._replace(frequency=min(often.frequency, rows))}


class DQN(_OffPolicy):
    """Stable-Baselines3's DQN, its Q network being the part ``network``; see `Learner`."""

    algorithm = sb3.DQN
    action_spaces = (spaces.Discrete,)

    def _modules(self) -> dict[str, nn.Module]:
        return {"q_net": self.model.q_net}

    def _targets(self) -> dict[str, nn.Module]:
        return {"q_net": self.model.q_net_target}

    def _stacks(self, depth: int) -> list[Stack]:
        return [Stack("network", "q_net.q_net", f"q_net.q_net.{2 * depth}")]

    def _owners(self) -> list[tuple[Any, str, list[str]]]:
        return [(self.model.policy, "", ["q_net"])]

    def _forward(self, observations: Tensor) -> None:
        self.model.q_net(observations)


class _TwinCritics(_OffPolicy):
    """SAC and TD3: an actor and two critics, an optimizer for the one and one for both others."""

    action_spaces = (spaces.Box,)

    def _modules(self) -> dict[str, nn.Module]:
        return {"actor": self.model.actor, "critic": self.model.critic}

    def _targets(self) -> dict[str, nn.Module]:
        return {"critic": self.model.critic_target}

    def _stacks(self, depth: int) -> list[Stack]:
        return [
            self._actor(depth),
            *(
                Stack("critic", f"critic.qf{i}", f"critic.qf{i}.{2 * depth}", f"q{i + 1}_")
                for i in range(2)
            ),
        ]

    @abc.abstractmethod
    def _actor(self, depth: int) -> Stack:
        """Where the actor's hidden layers are."""

    def _owners(self) -> list[tuple[Any, str, list[str]]]:
        return [(getattr(self.model, part), part, [part]) for part in ("actor", "critic")]

    def _forward(self, observations: Tensor) -> None:
        self.model.critic(observations, self.model.actor(observations, deterministic=True))


class _JoinedActor(Actor):
    """SAC's actor with mean and spread of actions from one linear map.

    Stable-Baselines3 has a map for each, so that a hidden unit has two sets of outgoing
    weights. Here they are the rows of one; they start from the same numbers and compute the
    same.
    """

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        two: list[Any] = [self.mu, self.log_std]
        del self.mu, self.log_std
        inputs, outputs = two[0].in_features, sum(one.out_features for one in two)
        self.heads = nn.Linear(inputs, outputs, device="meta").to_empty(device="cpu")
        with torch.no_grad():
            self.heads.weight.copy_(torch.cat([one.weight for one in two]))
            self.heads.bias.copy_(torch.cat([one.bias for one in two]))

    def get_action_dist_params(self, obs: Any) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
        """Mean and bounded logarithm of the spread, [examples, actions] each."""
        latent = self.latent_pi(self.extract_features(obs, self.features_extractor))
        mean, log_std = self.heads(latent).chunk(2, dim=-1)
        return mean, log_std.clamp(LOG_STD_MIN, LOG_STD_MAX), {}


class _JoinedPolicy(SACPolicy):
    def make_actor(self, features_extractor: Any = None) -> Actor:
        options = self._update_features_extractor(self.actor_kwargs, features_extractor)
        return _JoinedActor(**options).to(self.device)


class SAC(_TwinCritics):
    """Stable-Baselines3's SAC; see `Learner`.

    The entropy coefficient, where it is learned, stays with torch's Adam at the rule's step size.
    """

    algorithm = sb3.SAC
    policy = _JoinedPolicy

    def _actor(self, depth: int) -> Stack:
        return Stack("actor", "actor.latent_pi", "actor.heads")


class TD3(_TwinCritics):
    """Stable-Baselines3's TD3; see `Learner`."""

    algorithm = sb3.TD3

    def _settings(self, options: SB3TD3Options, actions: spaces.Space[Any]) -> dict[str, Any]:
        settings = super()._settings(options, actions)
        spread = settings.pop("action_noise")
        size = actions.shape or ()
        if spread:
            settings["action_noise"] = NormalActionNoise(np.zeros(size), np.full(size, spread))
        return settings

    def _targets(self) -> dict[str, nn.Module]:
        return {**super()._targets(), "actor": self.model.actor_target}

    def _actor(self, depth: int) -> Stack:
        return Stack("actor", "actor.mu", f"actor.mu.{2 * depth}")

    def _forward(self, observations: Tensor) -> None:
        self.model.critic(observations, self.model.actor(observations))
