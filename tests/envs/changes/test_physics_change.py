from __future__ import annotations

import math
from functools import partial
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.envs.classic_control import CartPoleEnv
from gymnasium.vector import AsyncVectorEnv, SyncVectorEnv

from clrl.envs import (
    AtSteps,
    Continuously,
    Cycle,
    EverySteps,
    LinearDrift,
    LogUniform,
    Never,
    NonStationary,
    NonStationaryVector,
    Normal,
    OffsetObservation,
    PermuteObservation,
    Physics,
    RandomPermutation,
    RandomWalk,
    Schedule,
    Uniform,
)
from clrl.envs.classic import CartPoleVectorEnv, PendulumVectorEnv
from clrl.envs.physics import parameters_of
from clrl.errors import UsageError


def cartpole() -> Any:
    return gym.make("CartPole-v1")


def by_hand(seed: int, lengths: list[float], actions: list[int]) -> list[Any]:
    """Observations of Gymnasium's CartPole, its attributes edited before each step."""
    env = CartPoleEnv()
    env.reset(seed=seed)
    seen = []
    for length, action in zip(lengths, actions, strict=True):
        env.length = length
        env.polemass_length = env.masspole * length
        seen.append(env.step(action)[0])
    return seen


ACTIONS = [0, 1, 1, 0, 1, 0, 0, 1]
LENGTHS = [0.5, 0.5, 0.5, 2.0, 2.0, 0.25, 0.25, 0.25]
SCHEDULE = Schedule(AtSteps([3, 5]), Cycle([0.5, 2.0, 0.25]))


def test_a_step_is_taken_with_the_value_that_is_due() -> None:
    env = NonStationary(cartpole(), Physics("length"), SCHEDULE)
    env.reset(seed=3)
    for action, length, expected in zip(
        ACTIONS, LENGTHS, by_hand(3, LENGTHS, ACTIONS), strict=True
    ):
        observation, _, _, _, _ = env.step(action)
        assert env.value == env.unwrapped.length == length  # type: ignore[attr-defined]
        np.testing.assert_array_equal(observation, expected)


def lanes_of(kind: str, n: int) -> Any:
    return CartPoleVectorEnv(n) if kind == "array" else SyncVectorEnv([cartpole] * n)


@pytest.mark.parametrize("kind", ["array", "sync"])
def test_in_every_lane(kind: str) -> None:
    env = NonStationaryVector(lanes_of(kind, 3), Physics("length"), SCHEDULE, worlds=3)
    env.reset(seed=[3, 4, 5])
    expected = [by_hand(seed, LENGTHS, ACTIONS) for seed in (3, 4, 5)]
    for t, action in enumerate(ACTIONS):
        observations, _, _, _, _ = env.step(np.full(3, action))
        np.testing.assert_array_equal(observations, [lane[t] for lane in expected])


@pytest.mark.parametrize("kind", ["array", "sync"])
def test_lanes_of_different_worlds_have_physics_of_their_own(kind: str) -> None:
    inside = lanes_of(kind, 4)
    env = NonStationaryVector(
        inside, Physics("gravity"), Schedule(Never(), Uniform(5, 20)), worlds=2
    )
    env.reset(seed=0)
    values = env.value
    assert values[0] == values[1] != values[2] == values[3]
    if kind == "array":
        np.testing.assert_array_equal(inside.get_parameter("gravity"), values)
    else:
        np.testing.assert_array_equal([lane.unwrapped.gravity for lane in inside.envs], values)


def test_what_is_derived_follows() -> None:
    env = NonStationary(
        cartpole(),
        Physics(["masspole", "length", "masscart"]),
        Schedule(EverySteps(1), Cycle([[0.2, 1.0, 3.0], [0.4, 2.0, 1.0]])),
    )
    base: Any = env.unwrapped
    env.reset(seed=0)
    assert (base.masspole, base.length, base.masscart) == (0.2, 1.0, 3.0)
    assert (base.total_mass, base.polemass_length) == (3.2, 0.2)
    env.step(0), env.step(0)
    assert (base.masspole, base.length, base.masscart) == (0.4, 2.0, 1.0)
    assert (base.total_mass, base.polemass_length) == (1.4, 0.8)


@pytest.mark.parametrize("kind", ["array", "sync"])
def test_several_names_in_a_batch(kind: str) -> None:
    inside = lanes_of(kind, 2)
    env = NonStationaryVector(
        inside, Physics(("gravity", "length")), Schedule(Never(), Uniform([5, 1], [6, 2]))
    )
    env.reset(seed=0)
    assert env.value.shape == (2, 2)
    gravity, length = env.value[0]
    assert 5 <= gravity <= 6 and 1 <= length <= 2
    names = [("gravity", gravity), ("length", length)]
    for name, value in names:
        if kind == "array":
            assert inside.get_parameter(name).tolist() == [value, value]
        else:
            assert [parameters_of(lane).get(name) for lane in inside.envs] == [value, value]


def test_unchanged_is_as_built() -> None:
    schedule = Schedule(EverySteps(2), Cycle([1.5]), start="unchanged")
    env = NonStationary(cartpole(), Physics("length"), schedule)
    for _ in range(2):  # and a seed brings it back
        env.reset(seed=0)
        lengths = []
        for _ in range(4):
            env.step(0)
            lengths.append(env.unwrapped.length)  # type: ignore[attr-defined]
        assert lengths == [0.5, 0.5, 1.5, 1.5]


def test_unchanged_is_as_each_lane_was_built() -> None:
    """Either lanes that were built differently are refused, or each keeps its own."""

    def built(length: float) -> Any:
        env = cartpole()
        parameters_of(env).set("length", length)
        return env

    inside = SyncVectorEnv([partial(built, 0.3), partial(built, 0.7)])
    schedule = Schedule(Never(), Cycle([1.0]), start="unchanged")
    try:
        env = NonStationaryVector(inside, Physics("length"), schedule)
    except UsageError as error:
        assert "length" in str(error) and "\n" not in str(error)
        return
    env.reset(seed=0)
    assert [lane.unwrapped.length for lane in inside.envs] == [0.3, 0.7]  # type: ignore


def test_values_survive_resets_without_a_seed() -> None:
    env = NonStationary(cartpole(), Physics("gravity"), Schedule(EverySteps(3), Cycle([1, 2, 3])))
    env.reset(seed=0)
    for _ in range(4):
        env.step(0)
    env.reset()
    assert env.unwrapped.gravity == 2  # type: ignore[attr-defined]
    env.reset(seed=0)
    assert env.unwrapped.gravity == 1  # type: ignore[attr-defined]


def test_a_change_that_is_due_at_the_end_comes_before_the_reset() -> None:
    class Notes(CartPoleEnv):
        gravity_at_reset = math.nan

        def reset(self, **options: Any) -> Any:
            self.gravity_at_reset = self.gravity
            return super().reset(**options)

    base = Notes()
    env = NonStationary(base, Physics("gravity"), Schedule(EverySteps(3), Cycle([1, 2])))
    env.reset(seed=0)
    assert base.gravity_at_reset == 1
    for _ in range(3):
        env.step(0)
    assert base.gravity == 1  # the third step was the old task's
    env.reset()
    assert base.gravity_at_reset == 2


def test_a_drift_moves_every_step() -> None:
    schedule = Schedule(Continuously(), LinearDrift(9.8, 0.1, low=5, high=10))
    env = NonStationary(cartpole(), Physics("gravity"), schedule)
    env.reset(seed=0)
    seen = []
    for _ in range(5):
        env.step(0)
        seen.append(env.unwrapped.gravity)  # type: ignore[attr-defined]
    np.testing.assert_allclose(seen, [9.8, 9.9, 10, 9.9, 9.8])


@pytest.mark.parametrize(
    ("id", "name", "value"),
    [
        ("Acrobot-v1", "link_mass_2", 2.0),
        ("MountainCar-v0", "force", 0.002),
        ("MountainCarContinuous-v0", "power", 0.001),
        ("Pendulum-v1", "length", 0.6),
    ],
)
def test_the_other_classics(id: str, name: str, value: float) -> None:
    env = NonStationary(gym.make(id), Physics(name), Schedule(Never(), Cycle([value])))
    plain = gym.make(id)
    env.reset(seed=0), plain.reset(seed=0)
    assert parameters_of(env).get(name) == value != parameters_of(plain).get(name)
    env.action_space.seed(0)
    differs = False
    for _ in range(20):
        action = env.action_space.sample()
        differs |= bool((env.step(action)[0] != plain.step(action)[0]).any())
    assert differs


def test_physics_of_a_mujoco_model() -> None:
    pytest.importorskip("mujoco")
    base: Any = gym.make("InvertedPendulum-v5")
    env = NonStationary(base, Physics("gravity"), Schedule(AtSteps([1]), Cycle([9.0, 3.0])))
    env.reset(seed=0)
    assert np.linalg.norm(base.unwrapped.model.opt.gravity) == 9
    env.step(np.zeros(1, np.float32)), env.step(np.zeros(1, np.float32))
    assert np.linalg.norm(base.unwrapped.model.opt.gravity) == pytest.approx(3)


def test_one_name_is_like_a_list_of_one() -> None:
    assert Physics("length") == Physics(["length"]) == Physics(("length",))


# Mistakes


class Bare(gym.Env[Any, Any]):
    observation_space = gym.spaces.Box(-1, 1, (2,), np.float32)
    action_space = gym.spaces.Discrete(2)


FIXED = Schedule(Never(), Cycle([1.0]))
WRONG: dict[str, tuple[Any, Any, Any, str]] = {
    "no such parameter": (
        cartpole,
        lambda: Physics("friction"),
        FIXED,
        "'friction'.*expected one of gravity, masscart, masspole, length, force_mag, tau",
    ),
    "one of several": (cartpole, lambda: Physics(["length", "weight"]), FIXED, "'weight'"),
    "Gymnasium's word": (
        lambda: gym.make("Pendulum-v1"),
        lambda: Physics("g"),
        FIXED,
        "'g'.*gravity",
    ),
    "environment without physics": (
        Bare,
        lambda: Physics("gravity"),
        FIXED,
        "classic-control environments, LunarLander, a MuJoCo environment, or one with",
    ),
    "the same name twice": (
        cartpole,
        lambda: Physics(["length", "length"]),
        FIXED,
        "Physics.names: expected one name or several different ones",
    ),
    "no name": (cartpole, lambda: Physics([]), FIXED, "Physics.names"),
    "a number for a name": (cartpole, lambda: Physics(3), FIXED, "Physics.names"),  # type: ignore
    "none for a name": (cartpole, lambda: Physics(None), FIXED, "Physics.names"),  # type: ignore
    "numbers for names": (cartpole, lambda: Physics([1]), FIXED, "Physics.names"),  # type: ignore
    "no length": (
        cartpole,
        lambda: Physics("length"),
        Schedule(Never(), Cycle([0])),
        r"length: a number > 0 \(m\), got 0",
    ),
    "down to no length": (
        cartpole,
        lambda: Physics("length"),
        Schedule(Never(), Uniform(0, 1)),
        r"length: a number > 0 \(m\)",
    ),
    "negative gravity": (
        cartpole,
        lambda: Physics("gravity"),
        Schedule(Never(), Uniform(-1, 1)),
        r"gravity: a number >= 0 \(m/s\^2\)",
    ),
    "one of several out of range": (
        cartpole,
        lambda: Physics(["gravity", "length"]),
        Schedule(Never(), Cycle([[0, 0.5], [0.5, 0]])),
        "length: a number > 0",
    ),
    "normal without bounds": (
        cartpole,
        lambda: Physics("gravity"),
        Schedule(Never(), Normal(9.8, 0.1)),
        "gravity: a number >= 0",
    ),
    "a walk without bounds": (
        cartpole,
        lambda: Physics("gravity"),
        Schedule(Continuously(), RandomWalk(9.8, 0.1)),
        "gravity: a number >= 0",
    ),
    "faster than is seen": (
        lambda: gym.make("MountainCar-v0"),
        lambda: Physics("max_speed"),
        Schedule(Never(), LogUniform(0.01, 0.1)),
        "max_speed: a number > 0 and <= 0.07",
    ),
    "one value for two": (
        cartpole,
        lambda: Physics(["gravity", "length"]),
        Schedule(Never(), Cycle([[1, 2, 3]])),
        "Cycle.values: Physics",
    ),
    "permutation": (
        cartpole,
        lambda: Physics("gravity"),
        Schedule(Never(), RandomPermutation()),
        "RandomPermutation",
    ),
}


@pytest.mark.parametrize("name", WRONG)
def test_what_cannot_be_is_refused_in_one_line(name: str) -> None:
    make, physics, schedule, message = WRONG[name]
    with pytest.raises(UsageError, match=message) as error:
        NonStationary(make(), physics(), schedule)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: CartPoleVectorEnv(2), "'friction'.*expected one of gravity"),
        (lambda: SyncVectorEnv([cartpole] * 2), "'friction'.*expected one of gravity"),
        (lambda: PendulumVectorEnv(2), "'friction'.*expected one of gravity"),
        (lambda: gym.make_vec("CartPole-v1", 2, "vector_entry_point"), "SyncVectorEnv"),
    ],
)
def test_a_batch_without_it_is_refused_in_one_line(make: Any, message: str) -> None:
    with pytest.raises(UsageError, match=message) as error:
        NonStationaryVector(make(), Physics("friction"), FIXED)
    assert "\n" not in str(error.value)


def test_a_long_list_of_parameters_is_not_written_out() -> None:
    pytest.importorskip("mujoco")
    with pytest.raises(UsageError, match="friction.*gravity") as error:
        NonStationary(gym.make("InvertedPendulum-v5"), Physics("lenght"), FIXED)
    assert "mass/" not in str(error.value)


# The workers begin with a fresh interpreter: forking a process that has threads is not safe.
def asynchronous() -> AsyncVectorEnv:
    return AsyncVectorEnv([partial(gym.make, "CartPole-v1")] * 2, context="spawn")


def test_environments_in_other_processes() -> None:
    envs = asynchronous()
    try:
        with pytest.raises(UsageError, match="Physics: cannot reach .* SyncVectorEnv") as error:
            NonStationaryVector(envs, Physics("gravity"), FIXED)
        assert "\n" not in str(error.value)

        # What is seen can be changed there.
        schedule = Schedule(EverySteps(5), Normal(0, 1))
        here = SyncVectorEnv([cartpole] * 2)
        pairs = [NonStationaryVector(env, OffsetObservation(), schedule) for env in (envs, here)]
        pairs = [NonStationaryVector(env, PermuteObservation(), PERMUTED) for env in pairs]
        first, second = (env.reset(seed=1) for env in pairs)
        rng = np.random.default_rng(0)
        for _ in range(60):
            np.testing.assert_array_equal(first[0], second[0])
            assert first[-1]["task"].tolist() == second[-1]["task"].tolist()
            actions = rng.integers(2, size=2)
            first, second = (env.step(actions) for env in pairs)
        assert first[-1]["task"].max() > 8
    finally:
        envs.close()


PERMUTED = Schedule(EverySteps(7, at_episode_end=True), RandomPermutation())
