"""Running normalisation of observations and rewards, a member apart."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

_CLIP = 10.0
_EPSILON = 1e-8


class RunningMoments:
    """Mean and variance of everything seen so far (Chan et al. 1979), for every member.

    It starts as if 1e-4 observations of mean 0 and variance 1 had been seen, as Gymnasium's and
    CleanRL's do.

    Args:
        members: how many.
        size: numbers in one observation.

    Attributes:
        mean: float64 [members, size].
        var: float64 [members, size].
        count: float64 [members].
    """

    def __init__(self, members: int, size: int) -> None:
        self.mean = np.zeros((members, size))
        self.var = np.ones((members, size))
        self.count = np.full(members, 1e-4)

    def update(self, batch: NDArray[np.float64], seen: NDArray[np.bool_] | None = None) -> None:
        """Take observations in.

        Args:
            batch: [members, n, size].
            seen: bool [members, n], those that count; all unless given.
        """
        weights = np.ones(batch.shape[:2]) if seen is None else seen.astype(np.float64)
        n = weights.sum(axis=1)
        share = (weights / np.maximum(n, 1)[:, None])[:, :, None]
        mean = (batch * share).sum(axis=1)
        var = ((batch - mean[:, None]) ** 2 * share).sum(axis=1)
        total = self.count + n
        delta = mean - self.mean
        old, new = (self.count / total)[:, None], (n / total)[:, None]
        self.var = self.var * old + var * new + delta**2 * old * new
        self.mean = self.mean + delta * new
        self.count = total

    def restart(self, members: Sequence[int]) -> None:
        """Let some members begin anew."""
        rows = list(members)
        self.mean[rows], self.var[rows], self.count[rows] = 0.0, 1.0, 1e-4

    def state_dict(self) -> dict[str, Any]:
        """Everything, in plain values."""
        return {name: getattr(self, name).tolist() for name in ("mean", "var", "count")}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore what `state_dict` gave."""
        for name in ("mean", "var", "count"):
            setattr(self, name, np.array(state[name]))


class ObservationNormalizer:
    """``(o - mean) / sqrt(var + 1e-8)``, clipped to [-10, 10], as CleanRL's PPO has it.

    Args:
        members: how many.
        size: numbers in one observation.
    """

    def __init__(self, members: int, size: int) -> None:
        self.moments = RunningMoments(members, size)

    def restart(self, members: Sequence[int]) -> None:
        """Let some members begin anew."""
        self.moments.restart(members)

    def state_dict(self) -> dict[str, Any]:
        """Everything, in plain values."""
        return self.moments.state_dict()

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore what `state_dict` gave."""
        self.moments.load_state_dict(state)

    def __call__(self, observations: NDArray[Any]) -> NDArray[np.float32]:
        """Take observations [members, n, size] in, and normalise them."""
        self.moments.update(observations.astype(np.float64))
        return self.as_now(observations)

    def as_now(
        self, observations: NDArray[Any], statistics: NDArray[np.float64] | None = None
    ) -> NDArray[np.float32]:
        """Normalise observations [members, n, size] without taking them in.

        Args:
            observations: see above.
            statistics: mean and variance to do it by, [members, 2, size]; the present ones
                unless given.
        """
        mean, var = self.moments.mean, self.moments.var
        if statistics is not None:
            mean, var = statistics[:, 0], statistics[:, 1]
        centred = observations - mean[:, None]
        scaled = centred / np.sqrt(var + _EPSILON)[:, None]
        return np.clip(scaled, -_CLIP, _CLIP).astype(np.float32)


class RewardNormalizer:
    """``r / sqrt(var + 1e-8)`` with the variance of the discounted return so far.

    Clipped to [-10, 10]. The discounted return R of each environment takes in a reward as
    ``R <- gamma * R + r``. The two forms differ in where it starts anew:

    - ``sb3``: Stable-Baselines3's VecNormalize. With the first reward after an episode's end,
      terminated or truncated.
    - ``gymnasium``: Gymnasium's NormalizeReward, which CleanRL's PPO uses and clips. With the
      reward of the step that terminates, on which the next episode's are then heaped; a
      truncation changes nothing.

    Args:
        members: how many.
        num_envs: environments of a member.
        gamma: discount.
        form: which of the two.
    """

    def __init__(
        self,
        members: int,
        num_envs: int,
        gamma: float,
        form: Literal["sb3", "gymnasium"] = "sb3",
    ) -> None:
        self.moments = RunningMoments(members, 1)
        self.returns = np.zeros((members, num_envs))
        self._gamma = gamma
        self._form = form

    def restart(self, members: Sequence[int]) -> None:
        """Let some members begin anew."""
        self.moments.restart(members)
        self.returns[list(members)] = 0.0

    def state_dict(self) -> dict[str, Any]:
        """Everything, in plain values."""
        return {**self.moments.state_dict(), "returns": self.returns.tolist()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore what `state_dict` gave."""
        self.moments.load_state_dict(state)
        self.returns = np.array(state["returns"])

    def __call__(
        self,
        rewards: NDArray[np.float64],
        valid: NDArray[np.bool_],
        terminated: NDArray[np.bool_],
        truncated: NDArray[np.bool_],
    ) -> NDArray[np.float64]:
        """Take rewards [members, num_envs] in, and normalise them.

        Args:
            rewards: of one step.
            valid: where it was a step.
            terminated: where an episode ended with it.
            truncated: where an episode was cut after it.
        """
        before = self.returns * self._gamma
        if self._form == "gymnasium":
            before = np.where(terminated, 0.0, before)
        self.returns = np.where(valid, before + rewards, self.returns)
        self.moments.update(self.returns[:, :, None], valid)
        scaled = rewards / np.sqrt(self.moments.var[:, :1] + _EPSILON)
        if self._form == "sb3":
            self.returns = np.where(terminated | truncated, 0.0, self.returns)
        return np.clip(scaled, -_CLIP, _CLIP)
