"""What a change is: a description of what changes, and its effect on an environment.

A `Change` is a frozen dataclass without state. Bound to an environment it becomes an `Effect`,
which works on arrays with one row a lane, so that one environment and a vector environment share
the same code.
"""

from __future__ import annotations

import abc
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import gymnasium as gym
import numpy as np
from gymnasium import spaces
from gymnasium.vector import SyncVectorEnv, VectorEnv
from numpy.typing import NDArray

from clrl.envs.schedules.values import Array, Domain
from clrl.errors import UsageError
from clrl.seeding import numpy_generator

Lanes = NDArray[np.bool_] | slice
"""Some of the lanes: a mask, or ``slice(None)`` for all."""


@dataclass(frozen=True)
class Host:
    """What a change is bound to.

    Attributes:
        env: the environment inside, single or vector.
        num_envs: lanes; 1 for a single environment.
        worlds: groups of lanes that share a sequence of tasks; lanes of a world are neighbours.
        observation_space: of one lane.
        action_space: of one lane.
    """

    env: gym.Env[Any, Any] | VectorEnv[Any, Any, Any]
    num_envs: int
    worlds: int
    observation_space: spaces.Space[Any]
    action_space: spaces.Space[Any]

    def box(self, what: str) -> spaces.Box:
        """The observation space, where it is a Box of real numbers.

        Raises:
            UsageError: it is not; `what` begins the message.
        """
        space = self.observation_space
        if not isinstance(space, spaces.Box) or not np.issubdtype(space.dtype, np.floating):
            raise UsageError(f"{what}: expected observations in a Box of floats, got {space}")
        return space

    def lanes(self, what: str) -> list[gym.Env[Any, Any]]:
        """The environments of the lanes, one each.

        Raises:
            UsageError: a vector environment does not hold them; `what` begins the message.
        """
        base = self.env.unwrapped
        if isinstance(base, gym.Env):
            return [base]
        if isinstance(base, SyncVectorEnv):
            return base.envs
        raise UsageError(
            f"{what}: cannot reach the environments inside {base}; expected a SyncVectorEnv or a "
            "vector environment of clrl, or wrap each environment before it goes in"
        )


class Change(abc.ABC):
    """A description of what changes. Subclasses are frozen dataclasses.

    Attributes:
        between_episodes: the change can come between episodes only.
    """

    between_episodes: ClassVar[bool] = False

    @abc.abstractmethod
    def bind(self, host: Host) -> Effect:
        """The effect of this change on an environment.

        Raises:
            UsageError: the environment cannot be changed in this way.
        """


class Effect:
    """A change at work in an environment.

    Every method works on arrays with one row a lane. What a subclass does not override is left
    as it is. `action`, `observation` and `reward` return new arrays.

    Args:
        host: the environment.
        domain: the values that the change takes.

    Attributes:
        owns: what nobody else may set in the same environment, by name.
        values: [num_envs, *domain.shape], the value in each lane.
        observation_space: of one lane, after the change.
        action_space: of one lane, as the agent sees it.
    """

    owns: tuple[str, ...] = ()

    def __init__(self, host: Host, domain: Domain) -> None:
        self.host = host
        self.domain = domain
        self.values = np.repeat(domain.neutral[None], host.num_envs, axis=0)
        self.observation_space = host.observation_space
        self.action_space = host.action_space

    def fit(self, low: Array, high: Array) -> None:
        """Prepare for the values that can come, [*domain.shape] each; sets the spaces.

        Raises:
            UsageError: the change cannot take such values here.
        """

    def set(self, lanes: NDArray[np.bool_], values: Array) -> None:
        """Give some lanes new values, [lanes chosen, *domain.shape]."""
        self.values[lanes] = values

    def seed(self, world: int, seed: int, purpose: str) -> None:
        """Begin a world's own randomness anew."""

    def begin(self, lanes: NDArray[np.bool_]) -> None:
        """Episodes begin in some lanes."""

    def action(self, actions: Array, lanes: Lanes) -> Array:
        """What the environment gets for what the agent of these lanes chose."""
        return actions

    def observation(self, observations: Array, lanes: Lanes) -> Array:
        """What the agent of these lanes sees for what the environment showed."""
        return observations

    def reward(self, rewards: Array, lanes: Lanes) -> Array:
        """What the agent of these lanes gets for the environment's reward."""
        return rewards

    def state_dict(self) -> dict[str, Any]:
        """What decides the future besides the values, in plain values."""
        return {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go to where `state` was taken; the values have been set."""


def like_lanes(values: Array, batch: Array) -> Array:
    """One number a lane, shaped so that it broadcasts against a batch of the same lanes."""
    return values.reshape(len(values), *[1] * (batch.ndim - 1))


def permutations_of(what: str, n: int) -> Domain:
    """The domain of permutations of n things; `what` names the change."""
    expected = f"a permutation of 0 to {n - 1}"
    return Domain(what, "permutation", np.arange(n), 0, n - 1, expected)


def permute_entries(batch: Array, permutations: Array) -> Array:
    """``y[j] = x[p[j]]`` for each row x of a batch, its entries read row by row."""
    rows = batch.reshape(len(batch), -1)
    return np.take_along_axis(rows, permutations, axis=1).reshape(batch.shape)


def permute_names(names: Array, permutations: Array) -> Array:
    """``y = p[x]`` for each whole number x, from 0, of a batch."""
    permuted: Array = np.take_along_axis(permutations, names[:, None], axis=1)[:, 0]
    return permuted


class Noise:
    """Random numbers for the lanes of a host: a generator a world, read in blocks.

    A world's numbers do not depend on the other worlds, nor on the size of the blocks.

    Args:
        host: says which lanes belong to which world.
        kind: standard normal numbers, or uniform ones from [0, 1).
        size: numbers a lane needs at once.
    """

    _BLOCK = 4096

    def __init__(self, host: Host, kind: Literal["normal", "uniform"], size: int) -> None:
        self._kind = kind
        self._size = size
        self._world_size = host.num_envs // host.worlds
        self._rngs: list[np.random.Generator | None] = [None] * host.worlds
        self._bits: list[dict[str, Any]] = [{} for _ in range(host.worlds)]
        self._blocks = np.empty((host.worlds, self._BLOCK))
        self._used = np.full(host.worlds, self._BLOCK)

    def seed(self, world: int, seed: int, purpose: str) -> None:
        """Begin a world's numbers anew."""
        self._rngs[world] = numpy_generator(seed, f"{purpose}/{self._kind}")
        self._used[world] = self._BLOCK

    def take(self, lanes: Lanes) -> NDArray[np.float64]:
        """The next numbers of some lanes, [lanes chosen, size]."""
        if isinstance(lanes, slice):
            counts = [self._world_size] * len(self._rngs)
        else:
            counts = lanes.reshape(-1, self._world_size).sum(axis=1).tolist()
        rows = [self._read(world, n * self._size) for world, n in enumerate(counts) if n]
        return np.concatenate([np.empty(0), *rows]).reshape(-1, self._size)

    def _read(self, world: int, n: int) -> NDArray[np.float64]:
        used = int(self._used[world])
        if used + n <= self._BLOCK:
            self._used[world] += n
            return self._blocks[world, used : used + n].copy()
        parts = [self._blocks[world, used:].copy()]
        missing = n - (self._BLOCK - used)
        while missing > 0:
            self._refill(world)
            part = self._blocks[world, :missing].copy()
            self._used[world] = len(part)
            missing -= len(part)
            parts.append(part)
        return np.concatenate(parts)

    def _refill(self, world: int) -> None:
        rng = self._rngs[world]
        if rng is None:
            raise UsageError("noise begins with reset(); call that first")
        self._bits[world] = dict(rng.bit_generator.state)
        if self._kind == "normal":
            rng.standard_normal(out=self._blocks[world])
        else:
            rng.random(out=self._blocks[world])

    def state_dict(self) -> dict[str, Any]:
        """Each world's generator as it was before its block, and how much of that is used."""
        before = [
            (rng and rng.bit_generator.state) if used == self._BLOCK else bits
            for rng, bits, used in zip(self._rngs, self._bits, self._used, strict=True)
        ]
        return {"before": before, "used": self._used.tolist()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go to where `state` was taken."""
        for world, (bits, used) in enumerate(zip(state["before"], state["used"], strict=True)):
            if bits is None:
                self._rngs[world] = None
            else:
                self._rngs[world] = rng = np.random.Generator(np.random.PCG64())
                rng.bit_generator.state = bits
                if used < self._BLOCK:
                    self._refill(world)
            self._used[world] = used


class NoisyEffect(Effect):
    """An effect that draws random numbers of its own.

    Args:
        host: the environment.
        domain: the values that the change takes.
        kind: see `Noise`.
        size: see `Noise`.
    """

    def __init__(
        self, host: Host, domain: Domain, kind: Literal["normal", "uniform"], size: int
    ) -> None:
        super().__init__(host, domain)
        self.noise = Noise(host, kind, size)

    def seed(self, world: int, seed: int, purpose: str) -> None:
        """See `Effect.seed`."""
        self.noise.seed(world, seed, purpose)

    def state_dict(self) -> dict[str, Any]:
        """The state of the noise."""
        return self.noise.state_dict()

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go to where `state` was taken."""
        self.noise.load_state_dict(state)
