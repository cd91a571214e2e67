"""Stable-Baselines3's PPO and A2C."""

from __future__ import annotations

from typing import Any

import stable_baselines3 as sb3
from gymnasium import spaces
from torch import Tensor, nn

from clrl.agents.options import MLPOptions, SB3A2COptions, SB3PPOOptions
from clrl.agents.sb3.learner import Learner
from clrl.agents.sb3.view import Stack
from clrl.errors import UsageError


class _OnPolicy(Learner):
    """PPO and A2C: actor and critic side by side, one optimizer for both."""

    action_spaces = (spaces.Box, spaces.Discrete, spaces.MultiDiscrete)
    inits = ("torch", "orthogonal")

    def _policy_options(self, network: MLPOptions) -> dict[str, Any]:
        return {
            **super()._policy_options(network),
            "ortho_init": network.init == "orthogonal",
        }

    def _at_most(self, rows: int) -> dict[str, Any]:
        model = self.model
        model.rollout_buffer.buffer_size = steps = min(model.n_steps, rows)
        if steps * model.n_envs == 1:
            model.normalize_advantage = False  # one has no deviation
        return {"n_rollout_steps": steps}

    def _modules(self) -> dict[str, nn.Module]:
        return {"policy": self.model.policy}

    def _stacks(self, depth: int) -> list[Stack]:
        inside = "policy.mlp_extractor"
        return [
            Stack("actor", f"{inside}.policy_net", "policy.action_net"),
            Stack("critic", f"{inside}.value_net", "policy.value_net"),
        ]

    def _owners(self) -> list[tuple[Any, str, list[str]]]:
        return [(self.model.policy, "", ["policy"])]

    def _forward(self, observations: Tensor) -> None:
        self.model.policy.get_distribution(observations)
        self.model.policy.predict_values(observations)


class PPO(_OnPolicy):
    """Stable-Baselines3's PPO; see `Learner`."""

    algorithm = sb3.PPO

    def _settings(self, options: SB3PPOOptions, actions: spaces.Space[Any]) -> dict[str, Any]:
        size = options.num_envs * options.n_steps
        if size % options.batch_size:
            raise UsageError(
                f"agent.batch_size: expected a divisor of num_envs * n_steps ({size}), "
                f"got {options.batch_size}"
            )
        if options.normalize_advantage and options.batch_size == 1:
            raise UsageError("agent.batch_size: expected at least 2 to normalize advantages, got 1")
        return super()._settings(options, actions)


class A2C(_OnPolicy):
    """Stable-Baselines3's A2C; see `Learner`."""

    algorithm = sb3.A2C

    def _settings(self, options: SB3A2COptions, actions: spaces.Space[Any]) -> dict[str, Any]:
        if options.normalize_advantage and options.num_envs * options.n_steps == 1:
            raise UsageError("agent.n_steps: expected at least 2 to normalize advantages, got 1")
        return super()._settings(options, actions)
