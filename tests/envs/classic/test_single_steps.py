"""One step from any state, against Gymnasium's own single environments."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from clrl.envs.classic import VECTOR_ENVS
from clrl.envs.physics import parameters_of

STATES = 10_000

# Bounds of the states to step from: within, at and past the ends of an episode.
HIGHEST = {
    "CartPole-v1": [2.6, 4.0, 0.25, 4.0],
    "Acrobot-v1": [np.pi, np.pi, 6.0, 12.0],
    "MountainCar-v0": [0.6, 0.07],
    "MountainCarContinuous-v0": [0.6, 0.07],
    "Pendulum-v1": [12.0, 8.0],
}
LOWEST = {"MountainCar-v0": [-1.2, -0.07], "MountainCarContinuous-v0": [-1.2, -0.07]}


def draw_states(env_id: str, rng: np.random.Generator) -> NDArray[np.float64]:
    high = np.array(HIGHEST[env_id])
    low = np.array(LOWEST.get(env_id, -high))
    return rng.uniform(low, high, (STATES, len(high))).T


@pytest.fixture
def step_singly(
    set_attribute: Callable[[str, Any, str, float], None],
) -> Callable[..., tuple[NDArray[Any], ...]]:
    """Observations, rewards, ends and states: Gymnasium's steps from one state after the other."""

    def step(
        env_id: str, states: list[Any], actions: NDArray[Any], physics: dict[str, NDArray[Any]]
    ) -> tuple[NDArray[Any], ...]:
        env: Any = VECTOR_ENVS[env_id].single_env()
        results = []
        for lane, (state, action) in enumerate(zip(states, actions, strict=True)):
            env.reset()
            for name, values in physics.items():
                set_attribute(env_id, env, name, float(values[lane]))
            env.state = state
            results.append((*env.step(action)[:3], env.state))
        return tuple(
            np.array(results_of_a_kind) for results_of_a_kind in zip(*results, strict=True)
        )

    return step


def test_equals_gymnasium(env_id: str, draw_physics: Any, step_singly: Any) -> None:
    rng = np.random.default_rng(5)
    physics = draw_physics(env_id, STATES, rng)
    states = draw_states(env_id, rng)
    ours = VECTOR_ENVS[env_id](STATES)
    ours.action_space.seed(7)
    actions = ours.action_space.sample()
    if actions.dtype == np.float32:
        actions[:500] *= 1.5  # some are too large
    singles = list(states.T)
    if env_id == "MountainCarContinuous-v0":
        # Half of the lanes have just begun; the others' state is float32.
        states[1, ::2] = 0.0
        singles[1::2] = [state.astype(np.float32) for state in singles[1::2]]
        states = np.array(singles, np.float64).T

    ours.reset(seed=0)
    for name, values in physics.items():
        ours.set_parameter(name, np.ones(STATES, np.bool_), values)
    ours.state = states
    observation, reward, terminated, truncated, infos = ours.step(actions)
    expected = step_singly(env_id, singles, actions, physics)

    assert observation.dtype == np.float32 and reward.dtype == np.float64
    np.testing.assert_allclose(observation, expected[0], rtol=3e-7, atol=1e-7)
    np.testing.assert_allclose(reward, expected[1], rtol=3e-7, atol=1e-7)
    # The arithmetic is Gymnasium's own, so that almost all are the same to the bit.
    assert (observation == expected[0])[500:].mean() > 0.999
    np.testing.assert_array_equal(terminated, expected[2])
    np.testing.assert_allclose(ours.state.T, expected[3], rtol=3e-7, atol=1e-7)
    assert not truncated.any() and not infos
    if env_id != "Pendulum-v1":
        assert 20 < terminated.sum() < STATES - 20


def test_each_parameter_alone(env_id: str, draw_physics: Any, step_singly: Any) -> None:
    rng = np.random.default_rng(6)
    n = 50
    for name, values in draw_physics(env_id, n, rng).items():
        states = draw_states(env_id, rng)[:, :n]
        if env_id == "MountainCarContinuous-v0":
            states = states.astype(np.float32)
        changed, built_in = VECTOR_ENVS[env_id](n), VECTOR_ENVS[env_id](n)
        changed.action_space.seed(8)
        actions = changed.action_space.sample()
        changed.set_parameter(name, np.arange(n), values)
        observations = []
        for env in (changed, built_in):
            env.reset(seed=0)
            env.state = states
            observations.append(env.step(actions)[0])
        expected = step_singly(env_id, list(states.T), actions, {name: values})
        np.testing.assert_allclose(observations[0], expected[0], rtol=3e-7, atol=1e-7)
        assert (observations[0] != observations[1]).any(), name


def test_built_in_values_and_names(env_id: str) -> None:
    ours = VECTOR_ENVS[env_id](3)
    single = parameters_of(VECTOR_ENVS[env_id].single_env())
    assert list(ours.parameters) == list(single.known)
    for name in ours.parameters:
        assert ours.get_parameter(name).tolist() == [single.get(name)] * 3
