"""Changes of what the agent's actions do."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from gymnasium import spaces
from gymnasium.error import InvalidAction

from clrl.envs.changes.base import (
    Change,
    Effect,
    Host,
    Lanes,
    NoisyEffect,
    like_lanes,
    permutations_of,
    permute_entries,
    permute_names,
)
from clrl.envs.schedules.values import Array, Domain
from clrl.errors import UsageError

MOST = 10_000
"""Steps that an action can be delayed."""


@dataclass(frozen=True)
class PermuteActions(Change):
    """Permute what the actions do.

    Of discrete actions the names are permuted: the agent's action a does what ``p[a]`` did. Of
    continuous ones the entries are: ``a'[j] = a[p[j]]``; all entries need the same bounds.

    The value is a permutation, see `RandomPermutation`.
    """

    def bind(self, host: Host) -> Effect:
        """See `Change.bind`."""
        space = host.action_space
        effect: type[Effect]
        if isinstance(space, spaces.Discrete):
            n, effect = int(space.n), _PermuteNames
        elif isinstance(space, spaces.Box):
            if np.any(space.low != space.low.flat[0]) or np.any(space.high != space.high.flat[0]):
                raise UsageError(f"PermuteActions: expected the same bounds for all, got {space}")
            n, effect = math.prod(space.shape), _PermuteEntries
        else:
            raise UsageError(f"PermuteActions: expected Discrete or Box actions, got {space}")
        return effect(host, permutations_of("PermuteActions", n))


def _choices(space: spaces.Space[Any], actions: Array) -> Array:
    """Discrete actions, counted from 0.

    Raises:
        gymnasium.error.InvalidAction: some are not in the space.
    """
    assert isinstance(space, spaces.Discrete)
    chosen = np.asarray(actions)
    if chosen.ndim == 1 and chosen.dtype.kind in "iu":
        counted: Array = chosen - space.start
        if np.all((counted >= 0) & (counted < space.n)):
            return counted
    raise InvalidAction(f"expected actions of {space}, got {actions}")


class _PermuteNames(Effect):
    def action(self, actions: Array, lanes: Lanes) -> Array:
        space = self.host.action_space
        assert isinstance(space, spaces.Discrete)
        named: Array = permute_names(_choices(space, actions), self.values[lanes]) + space.start
        return named


class _PermuteEntries(Effect):
    def action(self, actions: Array, lanes: Lanes) -> Array:
        return permute_entries(actions, self.values[lanes])


@dataclass(frozen=True)
class DelayActions(Change):
    """Carry out each action some steps after it was chosen.

    Until an episode is old enough, the first action of the space (``Discrete``) or rest
    (``Box``: 0, or the bound next to it) is carried out.

    The value: the delay in steps, from 0 to 10,000.
    """

    def bind(self, host: Host) -> Effect:
        """See `Change.bind`."""
        if not isinstance(host.action_space, (spaces.Discrete, spaces.Box)):
            raise UsageError(
                f"DelayActions: expected Discrete or Box actions, got {host.action_space}"
            )
        neutral = np.zeros((), np.int64)
        return _Delay(
            host,
            Domain("DelayActions", "integer", neutral, 0, MOST, f"a whole number from 0 to {MOST}"),
        )


class _Delay(Effect):
    """Keeps the last actions of every lane in a ring."""

    def fit(self, low: Array, high: Array) -> None:
        space = self.host.action_space
        if isinstance(space, spaces.Discrete):
            self._rest = np.asarray(space.start, np.int64)
        else:
            assert isinstance(space, spaces.Box)
            self._rest = np.clip(np.zeros(space.shape, space.dtype), space.low, space.high)
        self._ring = int(high) + 1
        shape = (self.host.num_envs, self._ring, *self._rest.shape)
        self._past = np.empty(shape, self._rest.dtype)
        self._past[:] = self._rest
        self._age = np.zeros(self.host.num_envs, np.int64)

    def begin(self, lanes: Array) -> None:
        self._past[lanes] = self._rest
        self._age[lanes] = 0

    def action(self, actions: Array, lanes: Lanes) -> Array:
        rows = np.arange(self.host.num_envs)[lanes]
        if isinstance(self.host.action_space, spaces.Discrete):
            _choices(self.host.action_space, actions)
        now = self._age[lanes].copy()
        self._past[rows, now % self._ring] = actions
        self._age[lanes] += 1
        # What an episode has not yet written is rest.
        delayed: Array = self._past[rows, (now - self.values[lanes]) % self._ring]
        return delayed

    def state_dict(self) -> dict[str, Any]:
        return {"past": self._past.tolist(), "age": self._age.tolist()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self._past[:] = state["past"]
        self._age[:] = state["age"]


@dataclass(frozen=True)
class NoisyActions(Change):
    """Disturb the actions.

    The value, for discrete actions: the probability of a random action in place of the chosen
    one (which it may happen to equal). For continuous ones: the standard deviation of normal
    noise, as a share of half the action's range; the sum is clipped to the bounds.
    """

    def bind(self, host: Host) -> Effect:
        """See `Change.bind`."""
        space, what, neutral = host.action_space, "NoisyActions", np.zeros(())
        if isinstance(space, spaces.Discrete):
            return _RandomActions(
                host, Domain(what, "real", neutral, 0, 1, "a probability in [0, 1]")
            )
        if isinstance(space, spaces.Box) and space.is_bounded() and space.dtype.kind == "f":
            return _JitteredActions(host, Domain(what, "real", neutral, 0, np.inf, "a number >= 0"))
        raise UsageError(f"{what}: expected Discrete or bounded Box actions of floats, got {space}")


class _RandomActions(NoisyEffect):
    def __init__(self, host: Host, domain: Domain) -> None:
        super().__init__(host, domain, "uniform", 2)

    def action(self, actions: Array, lanes: Lanes) -> Array:
        space = self.host.action_space
        assert isinstance(space, spaces.Discrete)
        _choices(space, actions)
        noise = self.noise.take(lanes)
        drawn = space.start + (noise[:, 1] * space.n).astype(np.int64)
        return np.where(noise[:, 0] < self.values[lanes], drawn, actions)


class _JitteredActions(NoisyEffect):
    def __init__(self, host: Host, domain: Domain) -> None:
        assert isinstance(host.action_space, spaces.Box)
        self._space = host.action_space
        super().__init__(host, domain, "normal", math.prod(self._space.shape))

    def action(self, actions: Array, lanes: Lanes) -> Array:
        low, high = self._space.low, self._space.high
        noise = self.noise.take(lanes).reshape(actions.shape)
        std = like_lanes(self.values[lanes], actions)
        noisy = np.clip(actions + std * (high - low) / 2 * noise, low, high)
        return np.where(std > 0, noisy.astype(actions.dtype), actions)
