"""The distributions that actions come from."""

from __future__ import annotations

import abc
import math
from typing import Any

import numpy as np
import torch
from gymnasium import spaces
from numpy.typing import NDArray
from torch import Tensor

from clrl.errors import UsageError, shown

Array = NDArray[Any]


class Actions(abc.ABC):
    """How a policy's outputs become actions. All methods are of one learner and are pure.

    Attributes:
        num_outputs: outputs of the policy's network.
        num_parameters: further parameters that do not depend on the observation.
        noise_size: random numbers that one action takes.
        width: numbers in one action.
    """

    num_outputs: int
    num_parameters: int = 0
    noise_size: int
    width: int

    @abc.abstractmethod
    def noise(self, rng: np.random.Generator, out: Array) -> None:
        """Fill an array [..., noise_size] with what `sample` takes, float32."""

    @abc.abstractmethod
    def sample(self, outputs: Tensor, parameters: Tensor, noise: Tensor) -> Tensor:
        """Draw actions [..., width] as float32, given noise [..., noise_size]."""

    @abc.abstractmethod
    def mode(self, outputs: Tensor, parameters: Tensor) -> Tensor:
        """The likeliest actions [..., width] as float32."""

    @abc.abstractmethod
    def log_prob(self, outputs: Tensor, parameters: Tensor, actions: Tensor) -> Tensor:
        """Log-probability or log-density of actions, [...]."""

    @abc.abstractmethod
    def entropy(self, outputs: Tensor, parameters: Tensor) -> Tensor:
        """Entropy in nats, [...]."""

    @abc.abstractmethod
    def divergence(
        self, old_outputs: Tensor, old_parameters: Tensor, outputs: Tensor, parameters: Tensor
    ) -> Tensor:
        """Kullback-Leibler divergence KL(old || new) in nats, [...]."""

    @abc.abstractmethod
    def to_environment(self, actions: Array) -> Array:
        """Actions [lanes, width] as the environment takes them."""


class Discrete(Actions):
    """One choice, or several independent ones, each from a categorical distribution.

    Args:
        space: a Discrete or MultiDiscrete space that starts at 0.
    """

    def __init__(self, space: spaces.Discrete | spaces.MultiDiscrete) -> None:
        """See the class."""
        self._single = isinstance(space, spaces.Discrete)
        sizes = [space.n] if isinstance(space, spaces.Discrete) else space.nvec.tolist()
        self.sizes = [int(size) for size in sizes]
        self.num_outputs = self.noise_size = sum(self.sizes)
        self.width = len(self.sizes)

    def noise(self, rng: np.random.Generator, out: Array) -> None:
        """Gumbel noise: the largest of logits plus noise is a draw from their softmax."""
        rng.random(out=out, dtype=np.float32)
        np.clip(out, np.finfo(np.float32).tiny, None, out=out)
        out[:] = -np.log(-np.log(out))

    def sample(self, outputs: Tensor, parameters: Tensor, noise: Tensor) -> Tensor:
        """See `Actions.sample`."""
        return self.mode(outputs + noise, parameters)

    def mode(self, outputs: Tensor, parameters: Tensor) -> Tensor:
        """See `Actions.mode`."""
        parts = torch.split(outputs, self.sizes, dim=-1)
        return torch.stack([part.argmax(dim=-1) for part in parts], dim=-1).to(outputs.dtype)

    def log_prob(self, outputs: Tensor, parameters: Tensor, actions: Tensor) -> Tensor:
        """See `Actions.log_prob`."""
        chosen = torch.split(actions.to(torch.int64), 1, dim=-1)
        parts = torch.split(outputs, self.sizes, dim=-1)
        logs = [
            torch.log_softmax(part, dim=-1).gather(-1, index)
            for part, index in zip(parts, chosen, strict=True)
        ]
        return torch.cat(logs, dim=-1).sum(dim=-1)

    def entropy(self, outputs: Tensor, parameters: Tensor) -> Tensor:
        """See `Actions.entropy`."""
        logs = [
            torch.log_softmax(part, dim=-1) for part in torch.split(outputs, self.sizes, dim=-1)
        ]
        return -torch.stack([(log.exp() * log).sum(dim=-1) for log in logs], dim=-1).sum(dim=-1)

    def divergence(
        self, old_outputs: Tensor, old_parameters: Tensor, outputs: Tensor, parameters: Tensor
    ) -> Tensor:
        """See `Actions.divergence`."""
        apart = []
        for old, new in zip(
            torch.split(old_outputs, self.sizes, dim=-1),
            torch.split(outputs, self.sizes, dim=-1),
            strict=True,
        ):
            before, after = torch.log_softmax(old, dim=-1), torch.log_softmax(new, dim=-1)
            apart.append((before.exp() * (before - after)).sum(dim=-1))
        return torch.stack(apart, dim=-1).sum(dim=-1)

    def to_environment(self, actions: Array) -> Array:
        """See `Actions.to_environment`."""
        whole = actions.astype(np.int64)
        return whole[:, 0] if self._single else whole


class Gaussian(Actions):
    """Real numbers, each from a normal distribution; the spread does not depend on the state.

    The environment gets the actions clipped to its bounds, while their densities are those of
    the unclipped ones, as in Stable-Baselines3.

    Args:
        space: a Box with one axis.
        clip: otherwise the environment gets them as they are drawn.
    """

    def __init__(self, space: spaces.Box, clip: bool = True) -> None:
        """See the class."""
        self._space, self._clip = space, clip
        self.num_outputs = self.num_parameters = self.noise_size = self.width = len(space.low)

    def noise(self, rng: np.random.Generator, out: Array) -> None:
        """Standard normal numbers."""
        rng.standard_normal(out=out, dtype=np.float32)

    def sample(self, outputs: Tensor, parameters: Tensor, noise: Tensor) -> Tensor:
        """See `Actions.sample`."""
        return outputs + parameters.exp() * noise

    def mode(self, outputs: Tensor, parameters: Tensor) -> Tensor:
        """See `Actions.mode`."""
        return outputs

    def log_prob(self, outputs: Tensor, parameters: Tensor, actions: Tensor) -> Tensor:
        """See `Actions.log_prob`."""
        distance = (actions - outputs) / parameters.exp()
        logs = -0.5 * distance * distance - parameters - 0.5 * math.log(2 * math.pi)
        return logs.sum(dim=-1)

    def entropy(self, outputs: Tensor, parameters: Tensor) -> Tensor:
        """See `Actions.entropy`."""
        each = parameters + 0.5 + 0.5 * math.log(2 * math.pi)
        return each.sum(dim=-1).expand(outputs.shape[:-1])

    def divergence(
        self, old_outputs: Tensor, old_parameters: Tensor, outputs: Tensor, parameters: Tensor
    ) -> Tensor:
        """See `Actions.divergence`."""
        distance = (old_outputs - outputs) / parameters.exp()
        ratio = (2 * (old_parameters - parameters)).exp()
        each = parameters - old_parameters + 0.5 * (ratio + distance * distance - 1)
        return each.sum(dim=-1)

    def to_environment(self, actions: Array) -> Array:
        """See `Actions.to_environment`."""
        if self._clip:
            actions = np.clip(actions, self._space.low, self._space.high)
        given: Array = actions.astype(self._space.dtype)
        return given


def actions_of(space: spaces.Space[Any], clip: bool = True) -> Actions:
    """The actions that suit a space.

    Args:
        space: the environment's.
        clip: whether real numbers are clipped to its bounds; see `Gaussian`.

    Raises:
        UsageError: the space is none of Discrete, MultiDiscrete and Box with one axis.
    """
    if isinstance(space, spaces.Discrete) and space.start == 0:
        return Discrete(space)
    if isinstance(space, spaces.MultiDiscrete) and len(space.shape) == 1 and not space.start.any():
        return Discrete(space)
    if isinstance(space, spaces.Box) and len(space.shape) == 1 and space.dtype.kind == "f":
        return Gaussian(space, clip)
    raise UsageError(
        "actions: expected Discrete, MultiDiscrete or a Box of floats with one axis, "
        f"got {shown(space)}"
    )
