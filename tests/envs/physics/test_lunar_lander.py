"""LunarLander: gravity at once and later, wind turned on when asked for."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np
import pytest

from clrl.envs.physics import parameters_of

pytest.importorskip("Box2D")
FPS = 50


def make(**options: Any) -> Any:
    return gym.make("LunarLander-v3", **options).unwrapped


def fall(env: Any) -> float:
    """The change of vertical speed in a step without engines, m/s, of lander and legs together.

    Together, because their joints push them apart.
    """
    bodies = [env.lander, *env.legs]
    mass = sum(body.mass for body in bodies)
    before = sum(body.mass * body.linearVelocity.y for body in bodies)
    env.step(0)
    return float(sum(body.mass * body.linearVelocity.y for body in bodies) - before) / mass


def flight(env: Any, steps: int = 30) -> list[Any]:
    return [env.step(0)[0].tolist() for _ in range(steps)]


def test_gravity_pulls_at_once_and_after_a_reset() -> None:
    env = make()
    env.reset(seed=0)
    assert fall(env) == pytest.approx(-10 / FPS, rel=1e-3)
    parameters_of(env).set("gravity", 4)
    assert fall(env) == pytest.approx(-4 / FPS, rel=1e-3)
    env.reset(seed=1)
    assert fall(env) == pytest.approx(-4 / FPS, rel=1e-3)


def test_gravity_can_be_set_before_the_first_reset() -> None:
    env = make()
    parameters_of(env).set("gravity", 4)
    env.reset(seed=0)
    assert fall(env) == pytest.approx(-4 / FPS, rel=1e-3)


def test_asking_for_the_wind_does_not_turn_it_on() -> None:
    env, untouched = make(), make()
    physics = parameters_of(env)
    assert physics.get("wind_power") == physics.get("turbulence_power") == 0
    physics.set("gravity", physics.get("gravity"))
    for one in (env, untouched):
        one.reset(seed=2)
    assert flight(env) == flight(untouched)


def test_the_first_value_turns_the_wind_on() -> None:
    env, windy = make(), make(enable_wind=True, wind_power=9.0, turbulence_power=0.0)
    parameters_of(env).set("wind_power", 9)
    for one in (env, windy):
        one.reset(seed=2)
    assert flight(env) == flight(windy)
    assert parameters_of(env).get("turbulence_power") == 0


def test_no_wind_differs_from_wind_0_in_what_a_reset_draws_alone() -> None:
    env, windless = make(), make()
    parameters_of(env).set("turbulence_power", 0)
    for one in (env, windless):
        one.reset(seed=2)
        one.np_random = np.random.default_rng(0)
    assert flight(env, 40) == flight(windless, 40)


def test_wind_that_was_built_in_is_the_value() -> None:
    physics = parameters_of(make(enable_wind=True))
    assert (physics.get("wind_power"), physics.get("turbulence_power")) == (15, 1.5)


def test_wind_can_rise_within_an_episode() -> None:
    env, calm = make(), make()
    for one in (env, calm):
        one.reset(seed=2)
        flight(one, 5)
    parameters_of(env).set("wind_power", 15)
    gusts = [env.step(0)[0][2] for _ in range(20)]  # horizontal speed
    still = [calm.step(0)[0][2] for _ in range(20)]
    assert abs(gusts[-1] - still[-1]) > 0.01


def test_what_the_wind_draws_within_an_episode_is_the_environments_own() -> None:
    flights = []
    for _ in range(2):
        env = make()
        env.reset(seed=2)
        parameters_of(env).set("wind_power", 15)
        flights.append(flight(env))
    assert flights[0] == flights[1]


def test_a_state_without_wind_turns_it_off() -> None:
    env, calm = make(), make()
    parameters_of(env).set("wind_power", 15)
    parameters_of(env).load_state_dict(parameters_of(calm).state_dict())
    for one in (env, calm):
        one.reset(seed=2)
    assert flight(env) == flight(calm)
