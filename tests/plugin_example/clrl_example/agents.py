"""An agent of one's own: REINFORCE (Williams 1992) for discrete actions."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from gymnasium import spaces
from gymnasium.vector import VectorEnv
from torch import Tensor

from clrl.agents.calling import Forward
from clrl.agents.optim.rule import UpdateRule
from clrl.agents.population import Population
from clrl.agents.ppo.actor_critic import MakeNetwork
from clrl.options import Fraction, PositiveInt
from clrl.seeding import derived_seed, numpy_generator


@dataclass(frozen=True)
class ReinforceOptions:
    """Options of `Reinforce`.

    Attributes:
        num_envs: environments that one learner steps side by side.
        num_steps: steps of each between two updates.
        gamma: discount.
    """

    num_envs: PositiveInt = 4
    num_steps: PositiveInt = 64
    gamma: Fraction = 0.99


def loss(
    forward: Forward, observations: Tensor, actions: Tensor, weights: Tensor
) -> tuple[Tensor, dict[str, Tensor]]:
    """One learner's loss: minus the log-probability of what was done, times what came of it."""
    logs = torch.log_softmax(forward(observations), dim=-1)
    chosen = logs.gather(-1, actions.unsqueeze(-1)).squeeze(-1)
    entropy = -(logs.exp() * logs).sum(dim=-1).mean()
    return -(chosen * weights).mean(), {"entropy": entropy}


class Reinforce:
    """One policy gradient step after every rollout; see `clrl.training.control.ControlTraining`."""

    Options = ReinforceOptions

    def __init__(
        self,
        seeds: Sequence[int],
        observation_space: spaces.Box,
        action_space: spaces.Discrete,
        make_network: MakeNetwork,
        rule: UpdateRule,
        options: ReinforceOptions,
        chunk_size: int | None = None,
    ) -> None:
        def generators(purpose: str) -> list[torch.Generator]:
            return [torch.Generator().manual_seed(derived_seed(s, purpose)) for s in seeds]

        self.options = options
        self.members = len(seeds)
        size, choices = len(observation_space.low), int(action_space.n)
        networks = [make_network(size, choices, g, 0.01) for g in generators("network")]
        self.population = Population(networks, loss, rule, generators("update"), chunk_size)
        self._logits = self.population.compiled(lambda forward, x: (forward(x),))
        self._rngs = [numpy_generator(seed, "reinforce/actions") for seed in seeds]

    def reset(self, observations: np.ndarray) -> None:
        self._present = self._split(observations)

    def _split(self, observations: np.ndarray) -> Tensor:
        return torch.from_numpy(observations).view(self.members, self.options.num_envs, -1)

    def iterate(
        self,
        envs: VectorEnv[Any, Any, Any],
        watch: Callable[..., None],
        remaining: float,
        left: int,
    ) -> dict[str, Tensor]:
        seen, done, rewards, over = [], [], [], []
        for _ in range(min(self.options.num_steps, -(-left // self.options.num_envs))):
            (logits,) = self._logits(self._present)
            noise = np.stack([rng.gumbel(size=logits.shape[1:]) for rng in self._rngs])
            actions = (logits + torch.from_numpy(noise)).argmax(dim=-1)
            observations, reward, terminated, truncated, info = envs.step(actions.flatten().numpy())
            ended = terminated | truncated
            watch(reward, ended, info)
            seen.append(self._present)
            done.append(actions)
            for column, value in ((rewards, reward), (over, ended)):
                column.append(torch.from_numpy(value.reshape(actions.shape)))
            if ended.any():
                observations, _ = envs.reset(options={"reset_mask": ended})
            self._present = self._split(observations)
        returns, following = [], torch.zeros(actions.shape, dtype=torch.float64)
        for reward, end in zip(reversed(rewards), reversed(over), strict=True):
            following = reward + self.options.gamma * following * ~end
            returns.insert(0, following)
        weights = torch.stack(returns, 1).float()
        weights = weights - weights.mean(dim=(1, 2), keepdim=True)
        self._latest = torch.stack(seen, 1).flatten(1, 2)
        batch = (self._latest, torch.stack(done, 1).flatten(1, 2), weights.flatten(1, 2))
        results = self.population.learn(*(value.unsqueeze(1) for value in batch))
        self.population.freeze_diverged(results["loss"])
        return {key: value.mean(dim=1) for key, value in results.items()}

    def probe(self, examples: int) -> Tensor:
        return self._latest[:, -examples:]

    def state_dict(self) -> dict[str, Any]:
        return {
            "population": self.population.state_dict(),
            "rngs": [rng.bit_generator.state for rng in self._rngs],
            "present": self._present,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.population.load_state_dict(state["population"])
        for rng, bits in zip(self._rngs, state["rngs"], strict=True):
            rng.bit_generator.state = bits
        self._present = state["present"].clone()
