"""Changes of what the agent sees."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from gymnasium import spaces

from clrl.envs.changes.base import (
    Change,
    Effect,
    Host,
    Lanes,
    NoisyEffect,
    permutations_of,
    permute_entries,
    permute_names,
)
from clrl.envs.schedules.values import Array, Domain
from clrl.errors import UsageError


class _Entries(Effect):
    """An effect on every entry of observations in a Box of floats."""

    @property
    def box(self) -> spaces.Box:
        """The observation space before the change."""
        return self.host.box(self.domain.what)

    def show(self, low: Array, high: Array) -> None:
        """Declare the bounds of what the agent sees."""
        low, high = np.broadcast_to(low, self.box.shape), np.broadcast_to(high, self.box.shape)
        dtype: np.dtype[np.floating[Any]] = self.box.dtype  # type: ignore[assignment]
        # Observations are computed in the Box's own precision: half a unit of room for that.
        room = np.finfo(dtype).eps * np.maximum(np.abs(low), np.abs(high))
        room = np.where(np.isfinite(room), room, 0)
        with np.errstate(over="ignore"):  # beyond the largest number, there is no bound
            self.observation_space = spaces.Box(
                (low - room).astype(dtype), (high + room).astype(dtype), dtype=dtype.type
            )


@dataclass(frozen=True)
class PermuteObservation(Change):
    """Permute the entries: ``o'[j] = o[p[j]]``, with the entries of an array read row by row.

    Of observations that are one whole number the names are permuted: ``o' = p[o]``.

    The value is a permutation, see `RandomPermutation`.
    """

    def bind(self, host: Host) -> Effect:
        """See `Change.bind`."""
        space = host.observation_space
        if isinstance(space, spaces.Discrete):
            return _PermuteNames(host, permutations_of("PermuteObservation", int(space.n)))
        if isinstance(space, spaces.Box):
            return _PermuteEntries(
                host, permutations_of("PermuteObservation", math.prod(space.shape))
            )
        raise UsageError(f"PermuteObservation: expected a Box or Discrete space, got {space}")


class _PermuteNames(Effect):
    def observation(self, observations: Array, lanes: Lanes) -> Array:
        space = self.host.observation_space
        assert isinstance(space, spaces.Discrete)
        named: Array = permute_names(observations - space.start, self.values[lanes])
        shown: Array = named + space.start
        return shown


class _PermuteEntries(Effect):
    def fit(self, low: Array, high: Array) -> None:
        space = self.host.observation_space
        assert isinstance(space, spaces.Box)
        self.observation_space = spaces.Box(
            space.low.min(), space.high.max(), space.shape, space.dtype.type
        )

    def observation(self, observations: Array, lanes: Lanes) -> Array:
        return permute_entries(observations, self.values[lanes])


@dataclass(frozen=True)
class OffsetObservation(Change):
    """Add a constant to every entry. The value: one number an entry."""

    def bind(self, host: Host) -> Effect:
        """See `Change.bind`."""
        what = "OffsetObservation"
        return _Offset(host, Domain(what, "real", np.zeros(host.box(what).shape)))


class _Offset(_Entries):
    def fit(self, low: Array, high: Array) -> None:
        self.show(self.box.low + low, self.box.high + high)

    def observation(self, observations: Array, lanes: Lanes) -> Array:
        shifted: Array = (observations + self.values[lanes]).astype(observations.dtype)
        return shifted


@dataclass(frozen=True)
class ScaleObservation(Change):
    """Multiply every entry. The value: one factor an entry."""

    def bind(self, host: Host) -> Effect:
        """See `Change.bind`."""
        what = "ScaleObservation"
        return _Scale(host, Domain(what, "real", np.ones(host.box(what).shape)))


class _Scale(_Entries):
    def fit(self, low: Array, high: Array) -> None:
        with np.errstate(invalid="ignore", over="ignore"):
            corners = np.stack([a * b for a in (self.box.low, self.box.high) for b in (low, high)])
        corners = np.where(np.isnan(corners), 0, corners)  # 0 times an infinite bound
        self.show(corners.min(axis=0), corners.max(axis=0))

    def observation(self, observations: Array, lanes: Lanes) -> Array:
        scaled: Array = (observations * self.values[lanes]).astype(observations.dtype)
        return scaled


@dataclass(frozen=True)
class RotateObservation(Change):
    """Rotate pairs of neighbouring entries: (0, 1), (2, 3), ...; an odd last one stays.

    The value: an angle in radians for each pair.
    """

    def bind(self, host: Host) -> Effect:
        """See `Change.bind`."""
        what = "RotateObservation"
        pairs = math.prod(host.box(what).shape) // 2
        if not pairs:
            raise UsageError(f"{what}: expected two entries or more, got {host.observation_space}")
        return _Rotate(host, Domain(what, "real", np.zeros(pairs)))


class _Rotate(_Entries):
    def fit(self, low: Array, high: Array) -> None:
        reach = np.maximum(np.abs(self.box.low), np.abs(self.box.high)).reshape(-1)
        paired = 2 * len(low)
        with np.errstate(over="ignore"):
            both = np.hypot(reach[:paired:2], reach[1:paired:2])
        reach[:paired] = np.repeat(both, 2)
        reach = reach.reshape(self.box.shape)
        self.show(-reach, reach)

    def observation(self, observations: Array, lanes: Lanes) -> Array:
        rows = observations.reshape(len(observations), -1)
        angles = self.values[lanes]
        cos, sin = np.cos(angles), np.sin(angles)
        paired = 2 * angles.shape[1]
        x, y = rows[:, :paired:2], rows[:, 1:paired:2]
        rotated = rows.copy()
        rotated[:, :paired:2] = cos * x - sin * y
        rotated[:, 1:paired:2] = sin * x + cos * y
        return rotated.reshape(observations.shape)


@dataclass(frozen=True)
class MaskObservation(Change):
    """Show 0 in place of some entries. The value: for each entry, whether it is hidden."""

    def bind(self, host: Host) -> Effect:
        """See `Change.bind`."""
        what = "MaskObservation"
        space = host.observation_space
        if not isinstance(space, spaces.Box):
            raise UsageError(f"{what}: expected observations in a Box, got {space}")
        neutral = np.zeros(space.shape, np.bool_)
        return _Mask(host, Domain(what, "boolean", neutral, 0, 1, "true or false for each entry"))


class _Mask(Effect):
    def fit(self, low: Array, high: Array) -> None:
        space = self.host.observation_space
        assert isinstance(space, spaces.Box)
        self.observation_space = spaces.Box(
            np.where(high, np.minimum(space.low, 0), space.low).astype(space.dtype),
            np.where(high, np.maximum(space.high, 0), space.high).astype(space.dtype),
            dtype=space.dtype.type,
        )

    def observation(self, observations: Array, lanes: Lanes) -> Array:
        zero = observations.dtype.type(0)
        return np.where(self.values[lanes], zero, observations)


@dataclass(frozen=True)
class NoisyObservation(Change):
    """Add normal noise to every entry. The value: one standard deviation an entry, >= 0."""

    def bind(self, host: Host) -> Effect:
        """See `Change.bind`."""
        what = "NoisyObservation"
        neutral = np.zeros(host.box(what).shape)
        return _Noisy(host, Domain(what, "real", neutral, 0, np.inf, "numbers >= 0"))


class _Noisy(_Entries, NoisyEffect):
    def __init__(self, host: Host, domain: Domain) -> None:
        super().__init__(host, domain, "normal", math.prod(domain.shape))

    def fit(self, low: Array, high: Array) -> None:
        reach = np.where(high > 0, np.inf, 0.0)
        self.show(self.box.low - reach, self.box.high + reach)

    def observation(self, observations: Array, lanes: Lanes) -> Array:
        noise = self.noise.take(lanes).reshape(observations.shape)
        noisy: Array = (observations + self.values[lanes] * noise).astype(observations.dtype)
        return noisy
