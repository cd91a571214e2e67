"""Gymnasium's own environments with other physics, and actions that reach the ends."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.vector import AutoresetMode, SyncVectorEnv
from numpy.typing import NDArray

from clrl.envs.classic import VECTOR_ENVS, ClassicVectorEnv

Physics = Mapping[str, NDArray[np.float64]]


@pytest.fixture(params=VECTOR_ENVS)
def env_id(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(params=AutoresetMode, ids=lambda mode: mode.value)
def mode(request: pytest.FixtureRequest) -> AutoresetMode:
    return AutoresetMode(request.param)


def _set_cartpole(env: Any, name: str, value: float) -> None:
    setattr(env, name, value)
    env.total_mass = env.masspole + env.masscart
    env.polemass_length = env.masspole * env.length


def _set_acrobot(env: Any, name: str, value: float) -> None:
    if name == "torque":
        env.AVAIL_TORQUE = [torque * value for torque in type(env).AVAIL_TORQUE]
    elif name == "dt":
        env.dt = value
    else:
        setattr(env, name.upper().replace("COM", "COM_POS"), value)


def _set_pendulum(env: Any, name: str, value: float) -> None:
    setattr(env, {"gravity": "g", "mass": "m", "length": "l", "dt": "dt"}[name], value)


@pytest.fixture(scope="session")
def set_attribute() -> Callable[[str, Any, str, float], None]:
    """Gives a bare environment of Gymnasium's a parameter: (id, environment, name, value)."""
    setters = {
        "CartPole-v1": _set_cartpole,
        "Acrobot-v1": _set_acrobot,
        "Pendulum-v1": _set_pendulum,
    }

    def set_attribute(env_id: str, env: Any, name: str, value: float) -> None:
        setters.get(env_id, setattr)(env, name, value)

    return set_attribute


@pytest.fixture(scope="session")
def draw_physics() -> Callable[[str, int, np.random.Generator], Physics]:
    """Other values of every parameter in every lane, from half to one and a half."""

    def draw(env_id: str, n: int, rng: np.random.Generator) -> Physics:
        env = VECTOR_ENVS[env_id](1)
        values = {}
        for name, parameter in env.parameters.items():
            built_in = env.get_parameter(name)[0]
            values[name] = np.minimum(built_in * rng.uniform(0.5, 1.5, n), parameter.high)
        return values

    return draw


@pytest.fixture(scope="session")
def policy() -> Callable[[Any, Any, np.random.Generator], Any]:
    """Random actions, most of which push a mountain car the way it goes."""

    def act(env: Any, observation: Any, rng: np.random.Generator) -> Any:
        n = env.num_envs
        if env.action_space.dtype == np.int64:
            choices = env.single_action_space.n
            actions = rng.integers(choices, size=n)
            if observation.shape[1] == 2:
                actions = np.where(rng.random(n) < 0.8, 2 * (observation[:, 1] >= 0), actions)
            return actions
        actions = rng.uniform(env.action_space.low, env.action_space.high)
        if observation.shape[1] == 2:
            ahead = np.where(observation[:, 1:] >= 0, 1.0, -1.0)
            actions = np.where(rng.random((n, 1)) < 0.8, ahead, actions)
        return actions.astype(np.float32)

    return act


@pytest.fixture
def make_pair(
    set_attribute: Callable[[str, Any, str, float], None],
) -> Iterator[Callable[..., tuple[SyncVectorEnv, ClassicVectorEnv]]]:
    """Gymnasium's vector environment and ours, made alike."""
    made: list[SyncVectorEnv] = []

    def make(
        env_id: str,
        n: int,
        mode: AutoresetMode = AutoresetMode.NEXT_STEP,
        max_episode_steps: int | None = None,
        physics: Physics | None = None,
    ) -> tuple[SyncVectorEnv, ClassicVectorEnv]:
        limit = {} if max_episode_steps is None else {"max_episode_steps": max_episode_steps}
        theirs = SyncVectorEnv(
            [lambda: gym.make(env_id, **limit) for _ in range(n)], autoreset_mode=mode
        )
        made.append(theirs)
        ours = VECTOR_ENVS[env_id](n, max_episode_steps=max_episode_steps, autoreset_mode=mode)
        for name, values in (physics or {}).items():
            ours.set_parameter(name, np.arange(n), values)
            for env, value in zip(theirs.envs, values, strict=True):
                set_attribute(env_id, env.unwrapped, name, float(value))
        return theirs, ours

    yield make
    for env in made:
        env.close()
