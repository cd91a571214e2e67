"""Whole seeded rollouts, against Gymnasium's own `SyncVectorEnv`."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.vector import AutoresetMode

from clrl.envs.classic import VECTOR_ENVS, default_max_episode_steps

LANES = 6
# Short, so that there are many ends; for CartPole near the usual length of an episode, so that
# there are ends of both kinds.
LIMITS = {
    "CartPole-v1": 14,
    "Acrobot-v1": 40,
    "MountainCar-v0": 120,
    "MountainCarContinuous-v0": 90,
    "Pendulum-v1": 30,
}


def assert_same(theirs: Any, ours: Any) -> None:
    """Results of `reset` or `step`; all but observations and rewards exactly."""
    assert len(theirs) == len(ours)
    for one, other in zip(theirs[:-1], ours[:-1], strict=True):
        assert (one.dtype, one.shape) == (other.dtype, other.shape)
        if one.dtype == np.bool_:
            np.testing.assert_array_equal(other, one)
        else:
            np.testing.assert_allclose(other, one, rtol=1e-5, atol=1e-6)
    assert_same_infos(theirs[-1], ours[-1])


def assert_same_infos(theirs: dict[str, Any], ours: dict[str, Any]) -> None:
    assert list(theirs) == list(ours)
    for name, expected in theirs.items():
        if name == "final_obs":
            assert ours[name].dtype == object and ours[name].shape == expected.shape
            for one, other in zip(expected, ours[name], strict=True):
                assert (one is None) == (other is None)
                if one is not None:
                    assert other.dtype == np.float32
                    np.testing.assert_allclose(other, one, rtol=1e-5, atol=1e-6)
        elif isinstance(expected, dict):
            assert_same_infos(expected, ours[name])
        else:
            assert ours[name].dtype == expected.dtype
            np.testing.assert_array_equal(ours[name], expected)


def test_rollout(
    env_id: str, mode: AutoresetMode, make_pair: Any, draw_physics: Any, policy: Any
) -> None:
    rng = np.random.default_rng(7)
    physics = draw_physics(env_id, LANES, rng)
    if "max_speed" in physics:
        physics["max_speed"][:] = 0.07  # or the hill is too high
    theirs, ours = make_pair(env_id, LANES, mode, LIMITS[env_id], physics)
    expected, results = theirs.reset(seed=11), ours.reset(seed=11)
    assert_same(expected, results)
    terminations = truncations = 0
    for step in range(250):
        actions = policy(theirs, expected[0], rng)
        expected, results = theirs.step(actions), ours.step(actions)
        assert_same(expected, results)
        ended = expected[2] | expected[3]
        terminations += expected[2].sum()
        truncations += expected[3].sum()
        if mode is AutoresetMode.DISABLED and ended.any():
            low, high = (-0.03, 0.01) if env_id == "CartPole-v1" else (-0.55, -0.5)
            options = [{}, {"low": low, "high": high, "x_init": 0.2}][step % 2]
            seed = [None, 1000 + step, [step if lane % 2 else None for lane in range(LANES)]]
            for_ours, for_theirs = ({**options, "reset_mask": ended.copy()} for _ in range(2))
            expected = theirs.reset(seed=seed[step % 3], options=for_theirs)
            results = ours.reset(seed=seed[step % 3], options=for_ours)
            assert set(for_ours) == {*options, "reset_mask"}
            assert_same(expected, results)
    assert truncations > 0
    if env_id not in ("Pendulum-v1", "Acrobot-v1"):
        assert terminations > 0


def test_full_length(env_id: str, make_pair: Any) -> None:
    limit = gym.spec(env_id).max_episode_steps
    assert limit == default_max_episode_steps(env_id)
    theirs, ours = make_pair(env_id, 1)
    assert ours.max_episode_steps == ours.spec.max_episode_steps == limit
    theirs.reset(seed=3)
    ours.reset(seed=3)
    alternate = ours.action_space.dtype == np.int64
    for step in range(limit + 2):
        actions = np.full(ours.action_space.shape, step % 2 if alternate else 0.3)
        actions = actions.astype(ours.action_space.dtype)
        assert_same(theirs.step(actions), ours.step(actions))
    assert ours.elapsed[0] < limit


def test_terminated_and_truncated_at_once(make_pair: Any) -> None:
    actions = np.ones(1, np.int64)
    ours = VECTOR_ENVS["CartPole-v1"](1)
    ours.reset(seed=0)
    length = 1
    while not ours.step(actions)[2].any():
        length += 1
    theirs, ours = make_pair("CartPole-v1", 1, max_episode_steps=length)
    theirs.reset(seed=0)
    ours.reset(seed=0)
    for _ in range(length):
        results = ours.step(actions)
        assert_same(theirs.step(actions), results)
    assert results[2].all() and results[3].all()


@pytest.mark.parametrize("seed", [5, [3, 1, 4], [3, None, 4]])
def test_seeds_and_generators(env_id: str, seed: Any, make_pair: Any) -> None:
    theirs, ours = make_pair(env_id, 3)
    for envs in (theirs, ours):
        envs.reset(seed=9)
    # A reset without a seed, or without one for a lane, goes on with the generators.
    for again in (seed, None, seed):
        expected, results = theirs.reset(seed=again), ours.reset(seed=again)
        assert_same(expected, results)
        np.testing.assert_array_equal(results[0], expected[0])
    assert ours.np_random_seed == theirs.np_random_seed
    for one, other in zip(theirs.np_random, ours.np_random, strict=True):
        assert one.bit_generator.state == other.bit_generator.state


def test_options(env_id: str, make_pair: Any) -> None:
    theirs, ours = make_pair(env_id, 3, max_episode_steps=1)
    options: dict[str, Any] = {"low": -0.3, "high": np.float32(-0.2)}
    if env_id == "Pendulum-v1":
        options = {"x_init": 0.3, "y_init": np.float32(0.2)}
    before = dict(options)
    for given in (options, {"high": 0.25}, {"x_init": 1.0}, {}, None):
        assert_same(theirs.reset(seed=1, options=given), ours.reset(seed=1, options=given))
    assert options == before
    # Automatic resets are with the usual bounds.
    theirs.reset(seed=1, options=options)
    ours.reset(seed=1, options=options)
    actions = np.zeros(ours.action_space.shape, ours.action_space.dtype)
    for _ in range(2):
        assert_same(theirs.step(actions), ours.step(actions))


def test_acrobot_begins_in_float32(make_pair: Any) -> None:
    theirs, ours = make_pair("Acrobot-v1", 100)
    results = [envs.reset(seed=0, options={"low": -3, "high": 3})[0] for envs in (theirs, ours)]
    np.testing.assert_array_equal(*results)
    mask = np.arange(100) < 10
    results = [envs.reset(options={"reset_mask": mask})[0] for envs in (theirs, ours)]
    np.testing.assert_array_equal(*results)


def test_lanes_left_out_of_a_reset_stay_as_they_are(env_id: str, make_pair: Any) -> None:
    theirs, ours = make_pair(env_id, 4)
    theirs.reset(seed=2)
    ours.reset(seed=2)
    actions = np.zeros(ours.action_space.shape, ours.action_space.dtype)
    for mask in ([True, False, False, True], [False, False, True, False]):
        assert_same(theirs.step(actions), ours.step(actions))
        for _ in range(2):
            masks = [{"reset_mask": np.array(mask)} for _ in range(2)]
            assert_same(theirs.reset(options=masks[0]), ours.reset(options=masks[1]))
