"""What every vector environment of classic control promises, whatever the task."""

from __future__ import annotations

import json
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.error import InvalidAction, ResetNeeded
from gymnasium.vector import AutoresetMode
from hypothesis import given, settings
from hypothesis import strategies as st

from clrl.envs.classic import VECTOR_ENVS, ClassicVectorEnv
from clrl.errors import UsageError


def actions_for(env: ClassicVectorEnv, steps: int, seed: int = 0) -> list[Any]:
    env.action_space.seed(seed)
    return [env.action_space.sample() for _ in range(steps)]


def bits(results: Any) -> list[bytes]:
    """The arrays of a `reset` or `step`, to the bit."""
    return [array.tobytes() for array in results[:-1]]


def vary(env: ClassicVectorEnv, first: int = 0) -> None:
    """Give every parameter another value in every lane, which depends on its number alone."""
    for name in env.parameters:
        factors = 0.6 + 0.01 * np.arange(first, first + env.num_envs)
        env.set_parameter(name, np.arange(env.num_envs), env.get_parameter(name) * factors)


def test_table() -> None:
    assert list(VECTOR_ENVS) == [
        "CartPole-v1",
        "Acrobot-v1",
        "MountainCar-v0",
        "MountainCarContinuous-v0",
        "Pendulum-v1",
    ]


# Lanes


def test_a_lane_does_not_depend_on_the_number_of_lanes(env_id: str) -> None:
    # Vectorised functions may treat the last few elements of an array in another way.
    most, steps = 40, 9

    def rollout(first: int, n: int) -> list[Any]:
        env = VECTOR_ENVS[env_id](n, max_episode_steps=4)
        vary(env, first)
        results = [env.reset(seed=first)[:1]]
        results += [env.step(action[first : first + n])[:4] for action in actions]
        return results

    actions = actions_for(VECTOR_ENVS[env_id](most), steps)
    whole = rollout(0, most)
    for n in range(1, most):
        for first in (0, most - n):
            for all_lanes, some in zip(whole, rollout(first, n), strict=True):
                for one, other in zip(all_lanes, some, strict=True):
                    assert one[first : first + n].tobytes() == other.tobytes()


def test_observations_are_in_their_space(env_id: str, policy: Any) -> None:
    rng = np.random.default_rng(0)
    env = VECTOR_ENVS[env_id](8)
    observation, _ = env.reset(seed=0)
    for _ in range(250):
        assert env.observation_space.contains(observation)
        observation = env.step(policy(env, observation, rng))[0]


def test_what_is_handed_out_belongs_to_the_caller(env_id: str, mode: AutoresetMode) -> None:
    disturbed, left_alone = (
        VECTOR_ENVS[env_id](3, max_episode_steps=3, autoreset_mode=mode) for _ in range(2)
    )
    disturbed.reset(seed=1)[0][:] = 9
    left_alone.reset(seed=1)
    for actions in actions_for(left_alone, 12):
        results = disturbed.step(actions.copy())
        expected = left_alone.step(actions)
        assert bits(results) == bits(expected)
        for array in results[:4]:
            array[:] = 1
        for name in results[4]:
            if name.startswith("_"):
                results[4][name][:] = True
        if mode is AutoresetMode.DISABLED and (expected[2] | expected[3]).any():
            disturbed.reset()[0][:] = 9
            left_alone.reset()


# State


@settings(deadline=None, max_examples=15)
@given(steps=st.integers(0, 14), mode=st.sampled_from(AutoresetMode), seed=st.integers(0, 2**40))
@pytest.mark.parametrize("env_id", VECTOR_ENVS)
def test_state_restores_the_future(env_id: str, steps: int, mode: AutoresetMode, seed: int) -> None:
    def make() -> ClassicVectorEnv:
        # Without automatic resets, an end would be the end of the test.
        limit = 50 if mode is AutoresetMode.DISABLED else 4
        return VECTOR_ENVS[env_id](3, max_episode_steps=limit, autoreset_mode=mode)

    env = make()
    env.reset(seed=seed)
    vary(env)
    actions = actions_for(env, 30, seed % 1000)[: 8 if mode is AutoresetMode.DISABLED else 30]
    for action in actions[:steps]:
        env.step(action)
    saved = env.state_dict()
    state = json.loads(json.dumps(saved))
    other = make()
    other.load_state_dict(state)
    assert other.state_dict() == state == saved
    for action in actions[steps:]:
        one, two = env.step(action), other.step(action)
        assert bits(one) == bits(two)
        assert list(one[4]) == list(two[4])
    assert bits(env.reset()) == bits(other.reset())
    for name in env.parameters:
        np.testing.assert_array_equal(env.get_parameter(name), other.get_parameter(name))
    assert env.state_dict() == other.state_dict()


def test_state_before_the_first_reset(env_id: str) -> None:
    env, other = VECTOR_ENVS[env_id](2), VECTOR_ENVS[env_id](2)
    other.reset(seed=4)
    other.load_state_dict(json.loads(json.dumps(env.state_dict())))
    with pytest.raises(ResetNeeded):
        other.step(other.action_space.sample())
    assert bits(env.reset()) == bits(other.reset())


def test_a_state_is_a_copy(env_id: str) -> None:
    env = VECTOR_ENVS[env_id](3, max_episode_steps=4)
    env.reset(seed=0)
    actions = actions_for(env, 12)
    env.step(actions[0])
    state = env.state_dict()
    future = [bits(env.step(action)) for action in actions]
    env.set_parameter(next(iter(env.parameters)), [0], 1e-3)
    for _ in range(2):
        env.load_state_dict(state)
        assert [bits(env.step(action)) for action in actions] == future


def test_state_of_another_size() -> None:
    state = VECTOR_ENVS["CartPole-v1"](2).state_dict()
    with pytest.raises(UsageError, match="^state: expected one of 3 lanes, got 2$"):
        VECTOR_ENVS["CartPole-v1"](3).load_state_dict(state)


# Parameters


def test_a_parameter_changes_its_lanes_from_the_next_step_on(env_id: str) -> None:
    for name in VECTOR_ENVS[env_id].parameters:
        env, as_built = VECTOR_ENVS[env_id](3), VECTOR_ENVS[env_id](3)
        value = 0.05 * env.get_parameter(name)[1]
        for either in (env, as_built):
            either.reset(seed=0)
        env.set_parameter(name, [1], value)
        env.reset(seed=0)
        assert env.get_parameter(name)[1] == value
        differs = np.zeros(3, np.bool_)
        for _ in range(6):
            # The last action pushes hardest, so that a car meets its speed limit.
            actions = np.full(env.action_space.shape, 1.0)
            if env.action_space.dtype == np.int64:
                actions = np.full(3, env.single_action_space.n - 1)
            differs |= (env.step(actions)[0] != as_built.step(actions)[0]).any(axis=1)
        assert differs.tolist() == [False, True, False], name


def test_lanes_may_be_numbers_or_a_mask() -> None:
    env = VECTOR_ENVS["CartPole-v1"](4)
    env.set_parameter("tau", [3, 0], [0.03, 0.04])
    assert env.get_parameter("tau").tolist() == [0.04, 0.02, 0.02, 0.03]
    env.set_parameter("tau", np.array([False, True, False, True]), 0.01)
    assert env.get_parameter("tau").tolist() == [0.04, 0.01, 0.02, 0.01]
    env.set_parameter("tau", np.zeros(4, np.bool_), 0.5)
    assert env.get_parameter("tau").tolist() == [0.04, 0.01, 0.02, 0.01]
    env.get_parameter("tau")[:] = 7
    assert env.get_parameter("tau").max() == 0.04


@pytest.mark.parametrize(
    ("name", "lanes", "values", "message"),
    [
        ("gravty", [0], 1.0, r"physics: expected one of gravity, .*, tau, got 'gravty'"),
        ("tau", [0], 0.0, r"tau: expected a number > 0 \(s\), got 0"),
        ("gravity", [0, 1], [1.0, -1.0], r"gravity: expected a number >= 0 .*, got -1"),
        ("gravity", [0, 1], [np.nan, 1.0], r"gravity: expected .*, got nan"),
        ("gravity", [0, 1], [1.0, np.inf], r"gravity: expected .*, got inf"),
        ("gravity", [0, 1], [1.0, 2.0, 3.0], r"gravity: expected one value or 2, got shape \[3\]"),
        ("gravity", [3], 1.0, r"lanes: expected integers from 0 to 2, got \[3\]"),
        ("gravity", [-1], 1.0, r"lanes: expected integers from 0 to 2, got \[-1\]"),
        ("gravity", [0.5], 1.0, r"lanes: expected 3 booleans or a list of integers, got float64"),
        ("gravity", [True], 1.0, r"lanes: expected 3 booleans or a list of integers, got bool"),
    ],
)
def test_parameters_refused(name: str, lanes: Any, values: Any, message: str) -> None:
    env = VECTOR_ENVS["CartPole-v1"](3)
    before = env.state_dict()["parameters"]
    with pytest.raises(UsageError, match=message):
        env.set_parameter(name, lanes, values)
    assert env.state_dict()["parameters"] == before
    if name == "gravty":
        with pytest.raises(UsageError, match=message):
            env.get_parameter(name)


@pytest.mark.parametrize("env_id", ["MountainCar-v0", "MountainCarContinuous-v0"])
def test_no_speed_outside_the_observation_space(env_id: str) -> None:
    with pytest.raises(UsageError, match=r"max_speed: .* <= 0.07 .*, got 0.08"):
        VECTOR_ENVS[env_id](1).set_parameter("max_speed", [0], 0.08)


# Mistakes


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"num_envs": 0}, "num_envs: expected an integer >= 1, got 0"),
        ({"max_episode_steps": 0}, "max_episode_steps: expected an integer >= 1, got 0"),
        ({"max_episode_steps": 2.5}, "max_episode_steps: expected an integer >= 1, got 2.5"),
        (
            {"autoreset_mode": "Never"},
            "autoreset_mode: expected one of NextStep, SameStep, Disabled, got 'Never'",
        ),
        (
            {"render_mode": "human"},
            r"render_mode: expected None \(nothing is drawn\), got 'human'",
        ),
    ],
)
def test_constructor_refuses(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=f"^{message}$"):
        VECTOR_ENVS["CartPole-v1"](**arguments)


@pytest.mark.parametrize(
    ("env_id", "actions", "message"),
    [
        ("CartPole-v1", [0, 2], "expected integers from 0 to 1, got 0 to 2"),
        ("CartPole-v1", [-1, 1], "expected integers from 0 to 1, got -1 to 1"),
        ("CartPole-v1", np.array([0, -1], np.int8), "expected integers from 0 to 1"),
        ("CartPole-v1", [0], r"expected int64 of shape \(2,\), got int64 of shape \(1,\)"),
        ("CartPole-v1", [0.0, 1.0], r"expected int64 of shape \(2,\), got float64"),
        ("Pendulum-v1", [0.0, 1.0], r"expected float32 of shape \(2, 1\), got .* \(2,\)"),
        ("Pendulum-v1", [["a"], ["b"]], r"expected float32 of shape \(2, 1\), got <U1"),
    ],
)
def test_actions_refused(env_id: str, actions: Any, message: str) -> None:
    env = VECTOR_ENVS[env_id](2)
    env.reset(seed=0)
    before = env.state_dict()
    with pytest.raises(InvalidAction, match=f"^actions: {message}"):
        env.step(actions)
    assert env.state_dict() == before


@pytest.mark.parametrize("dtype", [np.int8, np.uint8, np.int32, np.uint64, list])
def test_actions_of_any_integer_type(dtype: Any) -> None:
    one, other = (VECTOR_ENVS["MountainCar-v0"](3) for _ in range(2))
    one.reset(seed=0)
    other.reset(seed=0)
    actions = [0, 1, 2]
    given = actions if dtype is list else np.array(actions, dtype)
    assert bits(one.step(np.array(actions))) == bits(other.step(given))


def test_reset_is_needed() -> None:
    env = VECTOR_ENVS["CartPole-v1"](2, max_episode_steps=1, autoreset_mode="Disabled")
    with pytest.raises(ResetNeeded, match="^step before reset$"):
        env.step(np.zeros(2, np.int64))
    with pytest.raises(ResetNeeded, match="^reset_mask: the first reset is of all lanes$"):
        env.reset(options={"reset_mask": np.array([True, False])})
    env.reset()
    env.step(np.zeros(2, np.int64))
    env.reset(options={"reset_mask": np.array([True, False])})
    with pytest.raises(ResetNeeded, match=r"^lanes \[1\] have ended and were not reset$"):
        env.step(np.zeros(2, np.int64))


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"options": {"reset_mask": [True, True]}}, TypeError, "reset_mask: expected a boolean"),
        ({"options": {"reset_mask": np.ones(2)}}, TypeError, "reset_mask: expected a boolean"),
        (
            {"options": {"reset_mask": np.ones(3, np.bool_)}},
            ValueError,
            r"reset_mask: expected shape \[2\], got \[3\]",
        ),
        ({"options": {"reset_mask": np.zeros(2, np.bool_)}}, ValueError, "at least one lane"),
        ({"options": {"low": 1.0, "high": 0.0}}, ValueError, "must be lower than"),
        ({"options": {"low": "x"}}, ValueError, "could not be converted to a float"),
        ({"seed": [1, 2, 3]}, ValueError, "seed: expected 2 seeds, got 3"),
        ({"seed": -1}, gym.error.Error, "greater or equal to zero"),
    ],
)
def test_reset_refuses(arguments: dict[str, Any], error: Any, message: str) -> None:
    env = VECTOR_ENVS["CartPole-v1"](2)
    env.reset(seed=0)
    before = env.state_dict()
    with pytest.raises(error, match=message):
        env.reset(**arguments)
    assert env.state_dict() == before


# Gymnasium


def test_with_gymnasiums_wrappers(env_id: str, mode: AutoresetMode) -> None:
    bare = VECTOR_ENVS[env_id](3, max_episode_steps=5, autoreset_mode=mode)
    env = gym.wrappers.vector.RecordEpisodeStatistics(bare)
    assert env.metadata["autoreset_mode"] is mode
    assert type(bare).metadata == gym.vector.VectorEnv.metadata
    if mode is AutoresetMode.NEXT_STEP:
        env = gym.wrappers.vector.NormalizeObservation(env)
    observation, _ = env.reset(seed=0)
    assert observation.shape == env.observation_space.shape
    for action in actions_for(bare, 5):
        infos = env.step(action)[4]
    assert infos["episode"]["l"].tolist() == [5, 5, 5]
    env.close()
    env.close()
    assert bare.closed


def test_names(env_id: str) -> None:
    env = VECTOR_ENVS[env_id](3, max_episode_steps=7)
    assert repr(env) == f"{type(env).__name__}({env_id}, num_envs=3)"
    assert env.spec is not None and env.spec.max_episode_steps == 7
    assert gym.spec(env_id).max_episode_steps != 7
    assert env.unwrapped is env
