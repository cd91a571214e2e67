"""Classic control: values reach the equations of motion, and what is derived follows."""

from __future__ import annotations

import math
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.envs.classic_control import AcrobotEnv
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from clrl.envs.physics import parameters_of
from clrl.envs.physics.classic import (
    AcrobotParameters,
    CartPoleParameters,
    MountainCarContinuousParameters,
    MountainCarParameters,
    PendulumParameters,
)

FAMILIES = {
    "Acrobot-v1": AcrobotParameters,
    "CartPole-v1": CartPoleParameters,
    "MountainCar-v0": MountainCarParameters,
    "MountainCarContinuous-v0": MountainCarContinuousParameters,
    "Pendulum-v1": PendulumParameters,
}
EACH = [(name, one) for name, family in FAMILIES.items() for one in family.known]


def trajectory(env: gym.Env[Any, Any]) -> NDArray[np.float32]:
    """Up to forty observations from a fixed seed, with full actions one way and the other."""
    observations = [env.reset(seed=3)[0]]
    space: Any = env.action_space
    is_discrete = isinstance(space, gym.spaces.Discrete)
    up, down = (space.n - 1, 0) if is_discrete else (space.high, space.low)
    for step in range(40):
        observation, _, terminated, *_ = env.step(down if step % 20 < 12 else up)
        observations.append(observation)
        if terminated:
            break
    return np.array(observations)


@pytest.mark.parametrize(("name", "one"), EACH)
def test_every_parameter_matters_from_the_next_step_on(name: str, one: str) -> None:
    env = gym.make(name)
    built = trajectory(env)
    physics = parameters_of(env)
    before = physics.get(one)
    physics.set(one, before)
    np.testing.assert_array_equal(trajectory(env), built)
    physics.set(one, 0.003 if one == "max_speed" else 1.5 * before)
    changed = trajectory(env)
    np.testing.assert_array_equal(changed[0], built[0])  # where it starts is not physics
    assert not np.array_equal(changed, built)
    physics.set(one, before)
    np.testing.assert_array_equal(trajectory(env), built)


positive = st.floats(0.05, 20)


@settings(deadline=None, max_examples=50)
@given(
    values=st.permutations(
        ["gravity", "masscart", "masspole", "length", "force_mag", "tau"]
    ).flatmap(lambda names: st.tuples(*[st.tuples(st.just(name), positive) for name in names])),
    action=st.integers(0, 1),
    state=st.lists(st.floats(-1, 1), min_size=4, max_size=4),
)
def test_cartpole_moves_by_its_equations(
    values: tuple[tuple[str, float], ...], action: int, state: list[float]
) -> None:
    env: Any = gym.make("CartPole-v1").unwrapped
    physics = parameters_of(env)
    env.reset(seed=0)
    for name, value in values:
        physics.set(name, value)
    env.state = np.array(state)
    env.step(action)
    # Barto, Sutton and Anderson 1983, without friction; Florian 2007, eq. 23 and 24.
    p = dict(values)
    x, v, angle, spin = state
    force = p["force_mag"] * (2 * action - 1)
    both = p["masscart"] + p["masspole"]
    push = (force + p["masspole"] * p["length"] * spin**2 * math.sin(angle)) / both
    spin_change = (p["gravity"] * math.sin(angle) - math.cos(angle) * push) / (
        p["length"] * (4 / 3 - p["masspole"] * math.cos(angle) ** 2 / both)
    )
    v_change = push - p["masspole"] * p["length"] * spin_change * math.cos(angle) / both
    expected = [v, v_change, spin, spin_change]
    np.testing.assert_allclose(env.state, state + p["tau"] * np.array(expected), rtol=1e-9)


def test_pendulum_moves_by_its_equation() -> None:
    env: Any = gym.make("Pendulum-v1").unwrapped
    env.reset(seed=0)
    values = {"gravity": 3.0, "mass": 2.0, "length": 0.5, "dt": 0.1}
    for name, value in values.items():
        parameters_of(env).set(name, value)
    env.state = np.array([0.5, 0.25])
    env.step(np.array([1.5], np.float32))
    # A rod held at its end: spin' = 3 g / (2 l) sin(angle) + 3 u / (m l^2).
    spin = 0.25 + 0.1 * (3 * 3 / (2 * 0.5) * math.sin(0.5) + 3 * 1.5 / (2 * 0.5**2))
    np.testing.assert_allclose(env.state, [0.5 + 0.1 * spin, spin])


def test_mountain_cars_move_by_their_equations() -> None:
    env: Any = gym.make("MountainCar-v0").unwrapped
    env.reset(seed=0)
    parameters_of(env).set("force", 0.004)
    parameters_of(env).set("gravity", 0.001)
    env.state = (-0.3, 0.01)
    env.step(2)
    assert env.state[1] == pytest.approx(0.01 + 0.004 - 0.001 * math.cos(-0.9))
    parameters_of(env).set("max_speed", 0.005)
    env.step(2)
    assert env.state[1] == 0.005

    env = gym.make("MountainCarContinuous-v0").unwrapped
    env.reset(seed=0)
    parameters_of(env).set("power", 0.01)
    env.state = np.array([-0.3, 0.01])
    env.step(np.array([0.5], np.float32))
    assert env.state[1] == pytest.approx(0.01 + 0.5 * 0.01 - 0.0025 * math.cos(-0.9), rel=1e-6)


def test_a_speed_beyond_the_observation_space_cannot_be() -> None:
    for name in ("MountainCar-v0", "MountainCarContinuous-v0"):
        env = gym.make(name)
        limit = parameters_of(env).known["max_speed"].high
        assert limit == env.unwrapped.max_speed  # type: ignore[attr-defined]
        assert isinstance(env.observation_space, gym.spaces.Box)
        assert np.float32(limit) == env.observation_space.high[1]


def test_acrobot_leaves_its_class_alone() -> None:
    before = {name: value for name, value in vars(AcrobotEnv).items() if name.isupper()}
    torques = list(AcrobotEnv.AVAIL_TORQUE)
    physics = parameters_of(env := gym.make("Acrobot-v1"))
    for name in physics.known:
        physics.set(name, 2)
    base: Any = env.unwrapped
    assert base.LINK_MOI == base.LINK_COM_POS_2 == base.dt == 2
    assert base.AVAIL_TORQUE == [-2, 0, 2]
    assert {name: value for name, value in vars(AcrobotEnv).items() if name.isupper()} == before
    assert torques == AcrobotEnv.AVAIL_TORQUE and AcrobotEnv.dt == 0.2


def test_acrobot_without_torque_does_not_feel_the_action() -> None:
    env: Any = gym.make("Acrobot-v1").unwrapped
    parameters_of(env).set("torque", 0)
    after = []
    for action in range(3):
        env.reset(seed=1)
        after.append(env.step(action)[0])
    np.testing.assert_array_equal(after[0], after[1])
    np.testing.assert_array_equal(after[2], after[1])
