"""Running normalisation: Gymnasium's formulas, masks, members apart, state."""

from __future__ import annotations

import json
from typing import Any
from unittest import mock

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.spaces import Box, Discrete
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space
from gymnasium.wrappers.utils import RunningMeanStd
from numpy.typing import NDArray

from clrl.agents.ppo.normalize import ObservationNormalizer, RewardNormalizer, RunningMoments

Array = NDArray[Any]


def normals(seed: int, *shape: int) -> Array:
    return np.random.default_rng(seed).standard_normal(shape)


class Replayed(VectorEnv[Array, Array, Array]):
    """Gives out arrays written down before: a row a step, of observations one more."""

    metadata = {"autoreset_mode": AutoresetMode.NEXT_STEP}

    def __init__(self, observations: Array, rewards: Array, ends: Array, terminal: bool) -> None:
        self._rows = (observations, rewards, ends)
        self._terminal = terminal
        self.num_envs = rewards.shape[1]
        self.single_observation_space = Box(-np.inf, np.inf, observations.shape[2:], np.float64)
        self.observation_space = batch_space(self.single_observation_space, self.num_envs)
        self.single_action_space = Discrete(2)
        self.action_space = batch_space(self.single_action_space, self.num_envs)

    def reset(self, **_: Any) -> tuple[Array, dict[str, Any]]:
        self._step = 0
        return self._rows[0][0], {}

    def step(self, actions: Array) -> tuple[Array, Array, Array, Array, dict[str, Any]]:
        observations, rewards, ends = self._rows
        step, self._step = self._step, self._step + 1
        end, no = ends[step], np.zeros_like(ends[step])
        flags = (end, no) if self._terminal else (no, end)
        return observations[step + 1], rewards[step].copy(), *flags, {}


def experience(steps: int, lanes: int, seed: int = 0) -> tuple[Array, Array, Array, Array]:
    """Observations, rewards, ends and which steps were ones, with next-step autoreset."""
    rng = np.random.default_rng(seed)
    observations = 3.0 + 2.0 * rng.standard_normal((steps + 1, lanes, 4))
    rewards = rng.standard_normal((steps, lanes)) + 0.5
    ends = np.zeros((steps, lanes), np.bool_)
    valid = np.ones((steps, lanes), np.bool_)
    for step in range(steps):
        if step:
            valid[step] = ~ends[step - 1]
        ends[step] = (rng.random(lanes) < 0.2) & valid[step]
    rewards[~valid] = 0.0
    return observations, rewards, ends, valid


# Moments


@pytest.mark.parametrize("n", [1, 2, 7])
def test_moments_are_those_of_gymnasiums_running_mean_std(n: int) -> None:
    ours, theirs = RunningMoments(1, 3), RunningMeanStd(shape=(3,))
    for batch in normals(0, 50, n, 3) * 5 + 2:
        ours.update(batch[None])
        theirs.update(batch)
        np.testing.assert_allclose(ours.mean[0], theirs.mean, rtol=1e-12)
        np.testing.assert_allclose(ours.var[0], theirs.var, rtol=1e-12)
        assert ours.count[0] == pytest.approx(theirs.count)


def test_moments_are_those_of_all_that_was_seen() -> None:
    data = normals(0, 2, 600, 3) * [1.0, 10.0, 0.1] + [0.0, -5.0, 100.0]
    moments = RunningMoments(2, 3)
    for start in range(0, 600, 6):
        moments.update(data[:, start : start + 6])
    np.testing.assert_allclose(moments.mean, data.mean(axis=1), rtol=1e-4, atol=1e-5)
    # What it starts from, 1e-4 observations at 0, weighs a little where the mean is far off.
    np.testing.assert_allclose(moments.var, data.var(axis=1), rtol=1e-3, atol=1e-2)


def test_what_does_not_count_is_as_if_it_were_not_there() -> None:
    data = normals(0, 1, 40, 5, 3)[0]
    seen = np.random.default_rng(1).random((40, 5)) < 0.6
    seen[7] = False  # a batch of nothing
    data[~seen] = 1e6
    masked, plain = RunningMoments(1, 3), RunningMoments(1, 3)
    for batch, mask in zip(data, seen, strict=True):
        masked.update(batch[None], mask[None])
        if mask.any():
            plain.update(batch[mask][None])
    np.testing.assert_allclose(masked.mean, plain.mean, rtol=1e-12)
    np.testing.assert_allclose(masked.var, plain.var, rtol=1e-12)
    np.testing.assert_allclose(masked.count, plain.count)


def test_a_batch_of_nothing_changes_nothing() -> None:
    moments = RunningMoments(2, 3)
    moments.update(normals(0, 2, 5, 3))
    before = moments.state_dict()
    moments.update(np.full((2, 5, 3), 7.0), np.zeros((2, 5), np.bool_))
    assert moments.state_dict() == before


# Observations


def test_observations_are_those_of_gymnasiums_wrapper() -> None:
    """Same batches, same formula; Gymnasium's does not clip, nor do these data ask for it."""
    rows = experience(60, 5)
    wrapped = gym.wrappers.vector.NormalizeObservation(Replayed(*rows[:3], terminal=True))
    ours = ObservationNormalizer(1, 4)
    expected, _ = wrapped.reset()
    got = ours(rows[0][:1])
    for row in rows[0][1:, None]:
        np.testing.assert_allclose(got[0], expected, rtol=1e-6, atol=1e-6)
        assert got.dtype == np.float32
        expected = wrapped.step(np.zeros(5, np.int64))[0]
        got = ours(row)
    np.testing.assert_allclose(got[0], expected, rtol=1e-6, atol=1e-6)


def test_observations_far_off_are_clipped_and_gymnasiums_are_not() -> None:
    normalizer = ObservationNormalizer(1, 1)
    for _ in range(200):
        normalizer(np.array([[[-1.0], [1.0]]]))
    got = normalizer(np.array([[[1e3], [-1.0]]]))
    assert got[0, 0, 0] == 10.0
    assert -10.0 < got[0, 1, 0] < 0.0
    for _ in range(200):
        normalizer(np.array([[[-1.0], [1.0]]]))
    assert normalizer(np.array([[[-1e3], [1.0]]]))[0, 0, 0] == -10.0


def test_a_constant_observation_becomes_zero() -> None:
    normalizer = ObservationNormalizer(1, 2)
    for _ in range(5000):
        got = normalizer(np.full((1, 4, 2), 3.0, np.float32))
    assert np.isfinite(got).all()
    assert np.abs(got).max() < 0.05


# Rewards


@pytest.mark.parametrize("terminal", [True, False], ids=["terminated", "cut"])
def test_gymnasiums_form_is_that_of_its_wrapper(terminal: bool) -> None:
    """At both kinds of ends; steps that only reset do not count."""
    rows = experience(200, 5)
    valid = rows[3]
    wrapped = gym.wrappers.vector.NormalizeReward(Replayed(*rows[:3], terminal), gamma=0.9)
    # Gymnasium keeps returns as float32.
    wrapped.accumulated_reward = wrapped.accumulated_reward.astype(np.float64)
    wrapped.reset()
    ours = RewardNormalizer(1, 5, 0.9, "gymnasium")
    no = np.zeros((1, 5), np.bool_)
    for step, reward in enumerate(rows[1]):
        expected = wrapped.step(np.zeros(5, np.int64))[1]
        ends = rows[2][step : step + 1]
        flags = (ends, no) if terminal else (no, ends)
        got = ours(reward[None], valid[step : step + 1], *flags)
        np.testing.assert_allclose(got[0], np.clip(expected, -10, 10), rtol=1e-9)


@pytest.mark.parametrize("terminal", [True, False], ids=["terminated", "cut"])
def test_stable_baselines3s_form_is_that_of_its_wrapper(terminal: bool) -> None:
    """Both kinds of ends are the same to it."""
    vec_env = pytest.importorskip("stable_baselines3.common.vec_env")
    _, rewards, ends, _ = experience(200, 5)
    valid = np.ones((1, 5), np.bool_)  # it resets at once
    inner = mock.Mock(num_envs=5, **{"get_attr.return_value": [None] * 5})
    wrapped = vec_env.VecNormalize(inner, norm_obs=False, gamma=0.9)
    ours = RewardNormalizer(1, 5, 0.9, "sb3")
    no = np.zeros((1, 5), np.bool_)
    for step, reward in enumerate(rewards):
        seen = np.zeros((5, 1)), reward, ends[step], [{"terminal_observation": 0}] * 5
        inner.step_wait.return_value = seen
        expected = wrapped.step_wait()[1]
        flags = (ends[step : step + 1], no) if terminal else (no, ends[step : step + 1])
        np.testing.assert_allclose(ours(reward[None], valid, *flags)[0], expected, rtol=1e-6)


def test_rewards_of_episodes_by_hand() -> None:
    """The return of an episode's last step is a whole one, and the next starts from nothing.

    Here Gymnasium's wrapper differs: it drops the earlier rewards one step too soon, and
    carries the last one over into the next episode.
    """
    gamma = 0.9
    _, rewards, ends, valid = experience(120, 3)
    ours = RewardNormalizer(1, 3, gamma)
    moments = RunningMeanStd()
    episodes: list[list[float]] = [[] for _ in range(3)]
    for step in range(120):
        returns = []
        for lane, rewards_so_far in enumerate(episodes):
            if valid[step, lane]:
                rewards_so_far.append(rewards[step, lane])
                backwards = enumerate(reversed(rewards_so_far))
                returns.append(sum(gamma**age * reward for age, reward in backwards))
            if ends[step, lane]:
                rewards_so_far.clear()
        if returns:
            moments.update(np.array(returns))
        part = slice(step, step + 1)
        got = ours(rewards[part], valid[part], ends[part], np.zeros_like(ends[part]))
        expected = np.clip(rewards[step] / np.sqrt(moments.var + 1e-8), -10, 10)
        np.testing.assert_allclose(got[0], expected, rtol=1e-9)


def test_rewards_are_scaled_not_shifted_and_clipped() -> None:
    normalizer = RewardNormalizer(1, 2, 0.0)
    yes, no = np.ones((1, 2), np.bool_), np.zeros((1, 2), np.bool_)
    for _ in range(500):
        normalizer(np.array([[4.0, 6.0]]), yes, no, no)
    got = normalizer(np.array([[4.0, 6.0]]), yes, no, no)
    np.testing.assert_allclose(got, [[4.0, 6.0]], rtol=1e-2)  # deviation 1, mean 5
    assert normalizer(np.array([[5.0, 1e3]]), yes, no, no)[0, 1] == 10.0
    assert normalizer(np.array([[-1e4, 5.0]]), yes, no, no)[0, 0] == -10.0


# Members, state


@pytest.mark.parametrize("lanes", [1, 3, 8, 33])
@pytest.mark.parametrize("size", [1, 2, 17])
def test_members_know_nothing_of_each_other(lanes: int, size: int) -> None:
    """To the bit, whatever the siblings see, were it not a number."""
    data = normals(0, 30, 5, lanes, size).astype(np.float32)
    rewards = normals(1, 30, 5, lanes)
    chances = np.array([0.9, 0.1, 0.1]).reshape(3, 1, 1, 1)
    flags = np.random.default_rng(2).random((3, 30, 5, lanes)) < chances
    data[10:, 2] = np.nan
    rewards[10:, 2] = np.inf
    together = ObservationNormalizer(5, size), RewardNormalizer(5, lanes, 0.99)
    alone = [(ObservationNormalizer(1, size), RewardNormalizer(1, lanes, 0.99)) for _ in range(5)]
    with np.errstate(invalid="ignore"):
        for step in range(30):
            observed = together[0](data[step])
            scaled = together[1](rewards[step], *flags[:, step])
            for member, (observations, own_rewards) in enumerate(alone):
                own = slice(member, member + 1)
                np.testing.assert_array_equal(observations(data[step, own])[0], observed[member])
                got = own_rewards(rewards[step, own], *flags[:, step, own])
                np.testing.assert_array_equal(got[0], scaled[member])


def test_state_goes_through_json_to_an_identical_future() -> None:
    rng = np.random.default_rng(0)
    observations = rng.standard_normal((20, 2, 3, 4)) * 7
    rewards = rng.standard_normal((20, 2, 3))
    flags = rng.random((3, 20, 2, 3)) < 0.5
    ours = ObservationNormalizer(2, 4), RewardNormalizer(2, 3, 0.9)
    for step in range(10):
        ours[0](observations[step])
        ours[1](rewards[step], *flags[:, step])
    copies = ObservationNormalizer(2, 4), RewardNormalizer(2, 3, 0.9)
    for one, other in zip(ours, copies, strict=True):
        other.load_state_dict(json.loads(json.dumps(one.state_dict())))
    for step in range(10, 20):
        assert np.array_equal(ours[0](observations[step]), copies[0](observations[step]))
        got = copies[1](rewards[step], *flags[:, step])
        assert np.array_equal(ours[1](rewards[step], *flags[:, step]), got)
    assert ours[1].state_dict() == copies[1].state_dict()


def test_what_is_given_is_not_changed() -> None:
    observations, rewards = normals(0, 2, 3, 4), normals(1, 2, 3)
    before = observations.copy(), rewards.copy()
    flags = np.ones((2, 3), np.bool_)
    ObservationNormalizer(2, 4)(observations)
    RewardNormalizer(2, 3, 0.9)(rewards, flags, flags, flags)
    assert np.array_equal(observations, before[0])
    assert np.array_equal(rewards, before[1])
