"""Benchmarks of the user's own: any environment, changing as they say, one world a learner."""

from __future__ import annotations

import dataclasses
import json
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.wrappers import TransformReward

from clrl.benchmarks import BENCHMARKS
from clrl.changes import CHANGES, SCHEDULES
from clrl.envs import (
    Benchmark,
    Changing,
    Cycle,
    EverySteps,
    LogUniform,
    NonStationary,
    NonStationaryVector,
    Normal,
    OffsetObservation,
    PermuteActions,
    Physics,
    RandomPermutation,
    Schedule,
    SwitchTask,
    Tasks,
    Uniform,
    control,
    state,
)
from clrl.envs.control.making import single_of, vector_of
from clrl.envs.written import read, write
from clrl.errors import UsageError
from clrl.registry import Entry
from clrl.testing import check_environment

EXAMPLE = Path(__file__).parents[2] / "plugin_example"
LINE = "clrl_example.environments:clrl_example/Line-v0"
STRIDES = Schedule(EverySteps(100), Uniform(0.05, 0.3))
DRAG = {"change": "physics", "names": ["stride"], "when": {"every_steps": 100}}


@pytest.fixture(autouse=True)
def example(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.syspath_prepend(str(EXAMPLE))
    import clrl_example.environments  # noqa: F401

    gym.register("Strided-v0", strided, max_episode_steps=20)
    gym.register("Scaled-v0", lambda: TransformReward(strided(), float), max_episode_steps=20)
    gym.register("Parts-v0", lambda: Tasks([gym.make("clrl/OffsetCartPole-v0"), "CartPole-v1"]))
    yield
    for name in ("Strided-v0", "Scaled-v0", "Parts-v0"):
        del gym.registry[name]


def line() -> Any:
    return sys.modules["clrl_example.environments"].Line()


def strided() -> NonStationary:
    return NonStationary(line(), Physics("stride"), STRIDES)


def seen(envs: Any, steps: int, lanes: slice = slice(None), seeds: Any = 3) -> list[Any]:
    """What a vector environment gives: observations, rewards, ends, tasks and values."""
    first = np.array(envs.reset(seed=seeds)[0])[lanes].tolist()
    envs.action_space.seed(1)
    rows = [first]
    for _ in range(steps):
        observations, rewards, terminated, truncated, info = envs.step(envs.action_space.sample())
        parts = [observations, rewards, terminated, truncated, info["task"]]
        parts.append(envs.value)
        rows.append([np.array(part)[lanes].tolist() for part in parts])
    return rows


SHIPPED: dict[str, tuple[Any, Changing, str]] = {
    "offset-cartpole": (
        control.OffsetCartPole(task_length=40),
        Changing(
            "CartPole-v1",
            (
                {
                    "change": "offset-observation",
                    "when": {"every_steps": 40},
                    "to": {"normal": [0, 2]},
                }
                | {"start": "unchanged"},
            ),
            {"max_episode_steps": 400},
        ),
        "",
    ),
    "switching-cartpole": (
        control.SwitchingCartPole(task_length=40),
        Changing(
            "CartPole-v1",
            (
                {
                    "change": {"physics": ["length", "gravity"]},
                    "when": {"name": "every-steps", "n": "40", "at_episode_end": True},
                    "to": {"uniform": {"low": [0.25, 5], "high": [2, 20]}},
                    "start": "unchanged",
                },
            ),
        ),
        "",
    ),
    "classic-control-cycle": (
        control.ClassicControlCycle(task_length=40),
        Changing(
            ("CartPole-v1", "Acrobot-v1", "MountainCar-v0"),
            ((SwitchTask(), Schedule(EverySteps(40, at_episode_end=True), Cycle([0, 1, 2]))),),
        ),
        "",
    ),
    "slippery-ant": (
        control.SlipperyAnt(task_length=40),
        Changing(
            "Ant-v5",
            (
                (
                    Physics("friction"),
                    Schedule(EverySteps(40, at_episode_end=True), LogUniform(0.02, 2)),
                ),
            ),
            {
                "include_cfrc_ext_in_observation": False,
                "contact_cost_weight": 0.0,
                "max_episode_steps": 1000,
            },
        ),
        "mujoco",
    ),
    "offset-lunar-lander": (
        control.OffsetLunarLander(task_length=40),
        Changing(
            "LunarLander-v3",
            ((OffsetObservation(), Schedule(EverySteps(40), Normal(0, 2), "unchanged")),),
            {"max_episode_steps": 400},
        ),
        "Box2D",
    ),
}


@pytest.mark.parametrize("name", SHIPPED)
def test_equals_the_shipped_class_to_the_bit(name: str) -> None:
    shipped, own, needs = SHIPPED[name]
    if needs:
        pytest.importorskip(needs)
    one, two = vector_of(shipped, 6, 2), vector_of(own, 6, 2)
    found = seen(two, 60)
    assert seen(one, 60) == found
    assert max(found[-1][4]) >= 1
    assert type(one.unwrapped) is type(two.unwrapped)
    json.dumps(state.state_dict(two))


def test_what_is_written_is_read_again_for_every_entry() -> None:
    for raw in (
        {"change": "offset-observation", "when": {"poisson": "1e-5"}, "to": {"uniform": [5, 15]}},
        {"change": "permute-observation", "when": "never", "to": "random-permutation"},
        {
            "change": "physics",
            "names": "gravity",
            "when": {"at-steps": [5, "1e3"]},
            "to": {"cycle": [1, 2]},
        },
        {"change": "flip_reward", "when": {"every_episodes": 3}, "to": {"random_mask": 0.5}},
        {
            "change": "scale-reward",
            "when": "continuously",
            "to": {"linear-drift": {"start": 1, "slope": "1e-4", "high": 2}},
        },
        {"change": "shift-reward", "when": "continuously", "to": {"random-walk": [0, "1e-3"]}},
        {
            "change": "noisy-actions",
            "when": {"every-steps": "5e4"},
            "to": {"choice": [0, 0.5], "probabilities": [0.5, 0.5]},
            "start": "unchanged",
        },
    ):
        pair = read(raw, "changes[0]")
        plain = write(*pair)
        assert read(json.loads(json.dumps(plain)), "changes[0]") == pair
        assert write(*read(plain, "changes[0]")) == plain


@pytest.mark.parametrize("entry", [*CHANGES, *SCHEDULES], ids=lambda entry: entry.name)
def test_the_tables_follow_the_classes(entry: Entry) -> None:
    words = entry.name.split("-")
    assert entry.load().__name__ == "".join(word.capitalize() for word in words)


def test_the_tables_are_complete() -> None:
    import clrl.envs.changes as changes
    import clrl.envs.schedules as schedules

    def concrete(module: Any, *kinds: type) -> set[str]:
        classes = (getattr(module, name) for name in module.__all__)
        return {
            cls.__name__
            for cls in classes
            if isinstance(cls, type) and issubclass(cls, kinds) and cls not in kinds
        }

    assert {e.load().__name__ for e in CHANGES} == concrete(changes, changes.Change)
    assert {e.load().__name__ for e in SCHEDULES} == concrete(
        schedules, schedules.When, schedules.Values
    )


@pytest.mark.parametrize(
    ("id", "changes"),
    [
        (LINE, [DRAG | {"to": {"uniform": [0.05, 0.3]}}]),
        (
            LINE,
            [
                {
                    "change": "physics",
                    "names": "stride",
                    "when": {"every_steps": 40, "at_episode_end": True},
                    "to": {"uniform": [0.05, 0.3]},
                },
                {
                    "change": "permute-actions",
                    "when": {"poisson": 0.02},
                    "to": "random-permutation",
                },
            ],
        ),
        (
            "CartPole-v1",
            [
                {
                    "change": "physics",
                    "names": ["gravity"],
                    "when": {"every_steps": 60},
                    "to": {"uniform": [5, 15]},
                },
                {
                    "change": "permute-observation",
                    "when": {"every_episodes": 2},
                    "to": "random-permutation",
                },
            ],
        ),
    ],
    ids=["own physics", "two changes, one that waits", "array form"],
)
def test_keeps_the_contract(id: str, changes: Any) -> None:
    held = check_environment(Changing, id=id, changes=changes)
    assert "its state comes back in a new process" in held
    assert "a world is the same alone and beside others" in held
    assert "lanes of a learner share a world" in held
    assert "the state of its lanes goes on alike" in held


def test_declared_physics_are_at_work_and_come_back() -> None:
    envs = vector_of(Changing(LINE, (DRAG | {"to": {"uniform": [0.05, 0.3]}},)), 4, 2)
    seen(envs, 60)
    strides = [env.unwrapped.stride for env in envs.unwrapped.envs]  # type: ignore[attr-defined]
    assert strides == envs.value.tolist()  # type: ignore[attr-defined]
    assert strides[0] == strides[1] != strides[2] == strides[3]
    other = vector_of(Changing(LINE, (DRAG | {"to": {"uniform": [0.05, 0.3]}},)), 4, 2)
    state.load_state_dict(other, json.loads(json.dumps(state.state_dict(envs))))
    again = [env.unwrapped.stride for env in other.unwrapped.envs]  # type: ignore[attr-defined]
    assert again == strides
    assert line().stride == 0.1


def test_a_declared_parameter_that_is_not_there() -> None:
    class Hollow(gym.Env[Any, Any]):
        observation_space = action_space = gym.spaces.Discrete(2)
        physics_parameters = type(line()).physics_parameters

    with pytest.raises(UsageError, match="has 'stride'; there is no such attribute"):
        NonStationary(Hollow(), Physics("stride"), STRIDES)


class TestAnIdThatChangesAlready:
    def test_gives_a_learner_one_world(self) -> None:
        """As if the change had been said by hand; with lanes as they are, there were eight."""
        expected = seen(vector_of(Changing(LINE, ((Physics("stride"), STRIDES),)), 16, 2), 60)
        found = seen(vector_of(control.Stationary("Strided-v0"), 16, 2), 60)
        assert found == expected
        tasks, values = (np.array(found[-1][part]) for part in (4, 5))
        assert set(tasks.tolist()) == {4}  # 60 steps of 8 lanes, but for those that only reset
        assert len(set(values[:8].tolist())) == len(set(values[8:].tolist())) == 1
        assert values[0] != values[8]

    def test_is_our_own(self) -> None:
        own = vector_of(control.OffsetCartPole(), 4, 2)
        by_id = vector_of(control.Stationary("clrl/OffsetCartPole-v0"), 4, 2)
        for envs in (own, by_id):
            envs.reset(seed=5)
        previews = [
            [one.value.tolist() for one in envs.preview(4, 1)]  # type: ignore[attr-defined]
            for envs in (own, by_id)
        ]
        assert previews[0] == previews[1]

    def test_changes_once_more(self) -> None:
        actions = (PermuteActions(), Schedule(EverySteps(150), RandomPermutation()))
        expected = Changing(LINE, ((Physics("stride"), STRIDES), actions))
        found = seen(vector_of(Changing("Strided-v0", (actions,)), 8, 1), 60)
        assert found == seen(vector_of(expected, 8, 1), 60)
        assert set(found[-1][4]) == {4 + 3}

    @pytest.mark.parametrize(
        ("id", "part"),
        [
            ("Scaled-v0", "TransformReward is around a NonStationary"),
            ("Parts-v0", "inside a task of Tasks"),
        ],
    )
    def test_is_refused_where_it_cannot_be(self, id: str, part: str) -> None:
        with pytest.raises(UsageError, match=part):
            vector_of(control.Stationary(id), 4, 1)

    def test_a_benchmark_of_ones_own_around_it(self) -> None:
        @dataclass(frozen=True)
        class Own(Benchmark):
            base: ClassVar[str] = "Strided-v0"

            def change(self) -> Any:
                return [(PermuteActions(), Schedule(EverySteps(150), RandomPermutation()))]

        actions = Own().change()
        found = seen(vector_of(Own(), 8, 1), 60)
        assert found == seen(vector_of(Changing("Strided-v0", tuple(actions)), 8, 1), 60)


class TestFunctions:
    NAME = "clrl_example.environments:striding_line"

    def test_make_a_benchmark(self) -> None:
        make = BENCHMARKS.find(self.NAME).load()
        assert issubclass(make, Benchmark)
        options = dataclasses.fields(BENCHMARKS.find(self.NAME).options_type())
        assert [(field.name, field.default) for field in options] == [("task_length", 1000)]
        envs = vector_of(make(task_length=100), 8, 2)
        assert isinstance(envs, NonStationaryVector) and isinstance(envs.env, NonStationaryVector)
        assert max(seen(envs, 80)[-1][4]) >= 2
        single = single_of(make())
        assert isinstance(single, NonStationary) and isinstance(single.env, NonStationary)

    def test_may_give_the_environment_alone(self, monkeypatch: pytest.MonkeyPatch) -> None:
        module = sys.modules["clrl_example.environments"]
        monkeypatch.setattr(module, "alone", strided, raising=False)
        envs = vector_of(BENCHMARKS.find("clrl_example.environments:alone").load()(), 16, 2)
        tasks, values = (np.array(part) for part in seen(envs, 60)[-1][4:])
        assert set(tasks.tolist()) == {4}  # of 480 steps: no episode ends
        assert len(set(values[:8].tolist())) == len(set(values[8:].tolist())) == 1

    @pytest.mark.parametrize(
        "made", [lambda: 3, lambda: (line(), [3]), lambda: (line(), STRIDES), lambda: (3, [])]
    )
    def test_that_give_something_else(self, made: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        module = sys.modules["clrl_example.environments"]
        monkeypatch.setattr(module, "made", made, raising=False)
        recipe = BENCHMARKS.find("clrl_example.environments:made").load()()
        with pytest.raises(UsageError, match="expected .*change, schedule"):
            vector_of(recipe, 2, 1)

    def test_of_a_seed_make_streams(self, monkeypatch: pytest.MonkeyPatch) -> None:
        module = sys.modules["clrl_example.environments"]

        def stream(seed: int = 0, noise: float = 0.1) -> None:
            """As streams are made."""

        monkeypatch.setattr(module, "stream", stream, raising=False)
        assert BENCHMARKS.find("clrl_example.environments:stream").load() is stream


def test_an_environment_is_no_benchmark() -> None:
    with pytest.raises(UsageError, match=r"is an environment, not a benchmark; register it"):
        BENCHMARKS.find("clrl_example.environments:Line").options_type()


GOOD = {
    "change": "physics",
    "names": ["gravity"],
    "when": {"every_steps": 50},
    "to": {"uniform": [5, 15]},
}


@pytest.mark.parametrize(
    ("given", "part"),
    [
        (
            {"change": "phisics"},
            r"changes\[0\].change: unknown change 'phisics'; did you mean 'phys",
        ),
        ({"names": "grvity"}, "has no parameter 'grvity'; did you mean 'gravity'"),
        ({"names": []}, "expected one name or several"),
        ({"name": "gravity"}, "unknown option 'name' of physics; did you mean 'names'"),
        ({"when": {"every_step": 5}}, r"changes\[0\].when: unknown schedule 'every-step'; did you"),
        (
            {"when": {"every_steps": 5, "at_end": True}},
            "unknown option 'at_end' of every-steps; did",
        ),
        ({"when": {"every_steps": 5, "poisson": 1}}, "expected one schedule, got every_steps and"),
        ({"when": {"every_steps": 5, "n": 5}}, "n is there twice"),
        ({"when": "every_steps"}, "every-steps: expected n, got nothing"),
        ({"when": {"every_steps": "often"}}, "EverySteps.n: expected an integer >= 1, got 'often'"),
        ({"when": 5}, "expected the name of a schedule, or a mapping with it, got 5"),
        ({"to": {"uniform": [1, 2, 3]}}, "uniform: expected low, high, got"),
        ({"to": {"random-permutation": 3}}, "random-permutation: expected nothing, got 3"),
        ({"to": {"uniform": [15, 5]}}, r"changes\[0\].to: Uniform: expected low <= high"),
        ({"to": "every-steps"}, r"changes\[0\].to: unknown schedule 'every-steps'"),
        ({"to": {"uniform": [-5, 15]}}, "Uniform: Physics takes gravity: a number >= 0"),
        ({"to": "random-permutation"}, "RandomPermutation draws others"),
        ({"start": "now"}, "expected drawn or unchanged, got 'now'"),
        (
            {"to": "clrl_example.environments:Line"},
            "expected a frozen dataclass that extends Values",
        ),
    ],
)
def test_mistakes_are_one_line(given: dict[str, Any], part: str) -> None:
    raw = GOOD | given
    with pytest.raises(UsageError, match=part) as caught:
        vector_of(Changing("CartPole-v1", (raw,)), 2, 1)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("options", "part"),
    [
        ({"changes": ()}, "expected a list of one change or more"),
        ({"changes": "physics"}, "expected a list of one change or more, got 'physics'"),
        (
            {"changes": ({"change": "physics"},)},
            r"changes\[0\]: expected a mapping with change, when and to; there is no when",
        ),
        ({"id": 3}, "id: expected the id of an environment"),
        ({"id": "CartPol-v1"}, "benchmark.id: CartPol-v1: .*Did you mean: `CartPole`"),
        ({"id": "no_such_module:X-v0"}, "no_such_module"),
        (
            {"options": {"max_episode_steps": 0}},
            "options.max_episode_steps: expected an integer >= 1",
        ),
        ({"options": {"lenght": 0}}, "benchmark.options: CartPole-v1: .*lenght"),
        (
            {"id": ["CartPole-v1", "Acrobot-v1"], "options": {"x": 1}},
            "expected none with several ids",
        ),
    ],
)
def test_other_mistakes_are_one_line(options: dict[str, Any], part: str) -> None:
    with pytest.raises(UsageError, match=part):
        vector_of(Changing(**{"id": "CartPole-v1", "changes": (GOOD,), **options}), 2, 1)


def test_a_change_of_ones_own_needs_a_module_to_be_written() -> None:
    @dataclass(frozen=True)
    class Here(OffsetObservation):
        """Lies in a function."""

    schedule = Schedule(EverySteps(3), Normal())
    own = Changing("CartPole-v1", ((Here(), schedule),))
    vector_of(own, 2, 1).close()
    with pytest.raises(UsageError, match="expected a class that a module holds"):
        own.to_dict()
