"""What the physics of every environment promise, and how they are reached."""

from __future__ import annotations

import gc
import importlib.util
import math
import subprocess
import sys
import weakref
from collections.abc import Iterator
from typing import Any

import gymnasium as gym
import numpy as np
import pytest

from clrl.envs.physics import Parameter, parameters_of
from clrl.errors import UsageError

# A value that every parameter can have besides the one it was built with.
OTHER = {"max_speed": 0.02, "gravity": 0.003}
CLASSIC = (
    "Acrobot-v1",
    "CartPole-v1",
    "MountainCar-v0",
    "MountainCarContinuous-v0",
    "Pendulum-v1",
)


def ids() -> Iterator[Any]:
    for name in CLASSIC:
        yield name
    for name, module in (("LunarLander-v3", "Box2D"), ("Walker2d-v5", "mujoco")):
        missing = importlib.util.find_spec(module) is None
        yield pytest.param(name, marks=pytest.mark.skipif(missing, reason=f"needs {module}"))


every_env = pytest.mark.parametrize("name", list(ids()))


@every_env
def test_a_value_is_kept_also_over_resets_and_back_again(name: str) -> None:
    physics = parameters_of(env := gym.make(name))
    built = {one: physics.get(one) for one in physics.known}
    for one in physics.known:
        physics.set(one, OTHER.get(one, 1.25))
        env.reset(seed=1)
        assert physics.get(one) == OTHER.get(one, 1.25)
        assert type(physics.get(one)) is float
        assert {**built, one: physics.get(one)} == {two: physics.get(two) for two in physics.known}
        physics.set(one, np.float64(built[one]))
    assert built == {one: physics.get(one) for one in physics.known}


@every_env
def test_a_state_is_taken_over(name: str) -> None:
    physics, other = parameters_of(gym.make(name)), parameters_of(gym.make(name))
    first, *_, last = physics.known
    for physics_of_one, changed in ((physics, last), (other, first)):
        physics_of_one.set(changed, OTHER.get(changed, 1.25))
    other.load_state_dict(physics.state_dict())
    for one in physics.known:
        assert other.get(one) == physics.get(one)
    assert other.state_dict() == physics.state_dict()


@every_env
def test_environments_do_not_share_physics(name: str) -> None:
    physics, other = parameters_of(gym.make(name)), parameters_of(gym.make(name))
    before = {one: other.get(one) for one in other.known}
    for one in physics.known:
        physics.set(one, OTHER.get(one, 1.25))
    assert {one: other.get(one) for one in other.known} == before
    again = parameters_of(gym.make(name))
    assert {one: again.get(one) for one in again.known} == before


@every_env
def test_values_out_of_range_are_refused_and_change_nothing(name: str) -> None:
    physics = parameters_of(gym.make(name))
    for one, parameter in physics.known.items():
        before = physics.get(one)
        bad = [math.nan, math.inf, -math.inf]
        bad += [parameter.low - 0.1] if parameter.low > -math.inf else []
        bad += [parameter.low] if parameter.positive else []
        bad += [parameter.high * 1.01] if parameter.high < math.inf else []
        for value in bad:
            with pytest.raises(UsageError, match=f"^{one}: expected a .*number.*, got "):
                physics.set(one, value)
        assert physics.get(one) == before


@every_env
def test_whoever_asks_gets_the_same_object(name: str) -> None:
    env = gym.make(name)
    physics = parameters_of(env)
    assert parameters_of(env.unwrapped) is physics
    assert parameters_of(gym.wrappers.TimeLimit(env, 5)) is physics


@every_env
def test_the_physics_go_with_their_environment(name: str) -> None:
    env: Any = gym.make(name).unwrapped
    env.reset(seed=0)
    physics = parameters_of(env)
    for one in physics.known:
        physics.set(one, OTHER.get(one, 1.25))
    gone = weakref.ref(env)
    del env, physics
    gc.collect()
    assert gone() is None


def test_unknown_names_are_answered_with_the_known_ones() -> None:
    physics = parameters_of(gym.make("MountainCar-v0"))
    expected = "^physics: expected one of force, gravity, max_speed, got 'wind'$"
    with pytest.raises(UsageError, match=expected):
        physics.set("wind", 1)
    with pytest.raises(UsageError, match=expected):
        physics.get("wind")


def test_unknown_environments_are_refused() -> None:
    with pytest.raises(UsageError, match="^physics: expected one of .* got <FrozenLakeEnv"):
        parameters_of(gym.make("FrozenLake-v1"))


def test_a_subclass_has_the_physics_of_its_family() -> None:
    class Mine(type(gym.make("CartPole-v1").unwrapped)):  # type: ignore[misc]
        pass

    parameters_of(mine := Mine()).set("masscart", 3)
    assert mine.total_mass == 0.1 + 3


@pytest.mark.parametrize(
    ("parameter", "good", "bad", "text"),
    [
        (Parameter("mass", "kg", "", positive=True), (1e-9, 5), (0, -1), "a number > 0 (kg)"),
        (Parameter("force", "N", ""), (0, 5), (-1e-9,), "a number >= 0 (N)"),
        (Parameter("v", "m/s", "", high=2), (0, 2), (2.1,), "a number >= 0 and <= 2 (m/s)"),
        (Parameter("wind", "m/s", "", low=-math.inf), (-9, 9), (), "a finite number (m/s)"),
    ],
)
def test_ranges(
    parameter: Parameter, good: tuple[float, ...], bad: tuple[float, ...], text: str
) -> None:
    for value in good:
        parameter.check(value)
    for value in (*bad, math.nan, math.inf, -math.inf):
        with pytest.raises(UsageError) as refused:
            parameter.check(value)
        assert str(refused.value) == f"{parameter.name}: expected {text}, got {value:g}"


def test_nothing_heavy_is_loaded_for_classic_control() -> None:
    code = (
        "import sys, gymnasium as gym\n"
        "from clrl.envs.physics import parameters_of\n"
        "parameters_of(gym.make('CartPole-v1')).set('gravity', 1)\n"
        "assert not {'mujoco', 'Box2D', 'torch'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
