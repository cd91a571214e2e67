"""Changes of the reward."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from clrl.envs.changes.base import Change, Effect, Host, Lanes
from clrl.envs.schedules.values import Array, Domain


@dataclass(frozen=True)
class ScaleReward(Change):
    """Multiply the reward. The value: the factor."""

    def bind(self, host: Host) -> Effect:
        """See `Change.bind`."""
        return _Scale(host, Domain("ScaleReward", "real", np.ones(())))


class _Scale(Effect):
    def reward(self, rewards: Array, lanes: Lanes) -> Array:
        scaled: Array = rewards * self.values[lanes]
        return scaled


@dataclass(frozen=True)
class FlipReward(Change):
    """Change the sign of the reward. The value: whether it is flipped."""

    def bind(self, host: Host) -> Effect:
        """See `Change.bind`."""
        domain = Domain("FlipReward", "boolean", np.zeros((), np.bool_), 0, 1, "true or false")
        return _Flip(host, domain)


class _Flip(Effect):
    def reward(self, rewards: Array, lanes: Lanes) -> Array:
        return np.where(self.values[lanes], -rewards, rewards)


@dataclass(frozen=True)
class ShiftReward(Change):
    """Add a constant to the reward of every step. The value: the constant."""

    def bind(self, host: Host) -> Effect:
        """See `Change.bind`."""
        return _Shift(host, Domain("ShiftReward", "real", np.zeros(())))


class _Shift(Effect):
    def reward(self, rewards: Array, lanes: Lanes) -> Array:
        shifted: Array = rewards + self.values[lanes]
        return shifted
