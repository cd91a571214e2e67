"""The registered benchmarks, each as a user gets it."""

from __future__ import annotations

import dataclasses
import importlib.util
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest

from clrl import benchmarks
from clrl.envs import control, registration
from clrl.envs.nonstationary import NonStationary
from clrl.errors import UsageError
from clrl.registry import Entry
from clrl.testing import check_environment

DOCS = Path(__file__).parents[3] / "docs" / "environments.md"
NAMES = sorted(control.BENCHMARKS)
SHORT = {
    name: {"period" if name == "DriftingCartPole" else "task_length": 40, "max_episode_steps": 30}
    for name in NAMES
}
"""Options with which a hundred steps see several tasks and episodes."""


def needs(name: str) -> None:
    extra = control.BENCHMARKS[name].extra
    if extra and importlib.util.find_spec({"box2d": "Box2D"}.get(extra, extra)) is None:
        pytest.skip(f"needs clrl[{extra}]")


@pytest.fixture(params=NAMES)
def name(request: pytest.FixtureRequest) -> str:
    needs(request.param)
    return str(request.param)


def make(name: str, **options: Any) -> gym.Env[Any, Any]:
    return gym.make(registration.env_id(name), **{**SHORT[name], **options})


def rollout(env: gym.Env[Any, Any], actions: list[Any]) -> Iterator[list[Any]]:
    """What every step returns, with a reset where an episode ends."""
    for action in actions:
        observation, reward, terminated, truncated, info = env.step(action)
        seen = [observation.tolist(), reward, terminated, truncated]
        yield [*seen, info["task"], info["task_changed"]]
        if terminated or truncated:
            observation, info = env.reset()
            yield [observation.tolist(), info["task"], info["task_changed"]]


def sampled_actions(env: gym.Env[Any, Any], n: int) -> list[Any]:
    env.action_space.seed(7)
    return [env.action_space.sample() for _ in range(n)]


def test_keeps_the_contract(name: str) -> None:
    held = check_environment(control.BENCHMARKS[name], **SHORT[name])
    for promise in (
        "its state comes back in a new process",
        "lanes of a learner share a world",
        "the state of its lanes goes on alike",
    ):
        assert promise in held


def test_a_hundred_steps_see_several_tasks(name: str) -> None:
    env = make(name)
    env.reset(seed=4)
    seen = list(rollout(env, sampled_actions(env, 150)))
    assert (seen[-1][-2] >= 2) == (name != "DriftingCartPole")


def test_another_seed_gives_another_sequence(name: str) -> None:
    env = make(name)
    previews = []
    for seed in (3, 4):
        env.reset(seed=seed)
        previews.append([one.value.tolist() for one in env.get_wrapper_attr("preview")(6)])
    assert (previews[0] != previews[1]) == (name not in {"DriftingCartPole", "ClassicControlCycle"})


def test_task_seed_decides_the_sequence_alone(name: str) -> None:
    env = make(name, task_seed=5)
    previews = []
    for seed in (3, 4):
        env.reset(seed=seed)
        previews.append([one.value.tolist() for one in env.get_wrapper_attr("preview")(6)])
    assert previews[0] == previews[1]


def test_the_task_can_be_revealed(name: str) -> None:
    if name == "DriftingCartPole":
        with pytest.raises(UsageError, match="no tasks"):
            make(name, reveal_task=True)
        return
    env, revealing = make(name), make(name, reveal_task=True)
    actions = sampled_actions(env, 60)
    env.reset(seed=1)
    revealing.reset(seed=1)
    for plain, told in zip(rollout(env, actions), rollout(revealing, actions), strict=True):
        assert told[0] == [*plain[0], plain[-2]]


def test_every_class_is_registered_and_listed() -> None:
    ids = {spec.id for spec in gym.registry.values() if spec.namespace == "clrl"}
    assert ids == {registration.env_id(name) for name in NAMES}
    listed = {entry.target for entry in control_entries()}
    assert listed == {f"clrl.envs.control:{name}" for name in NAMES}


def control_entries() -> list[Entry]:
    listed = [entry for entry in benchmarks.BENCHMARKS if "control" in entry.target]
    return [entry for entry in listed if entry.name not in ("changing", "gymnasium")]


@pytest.mark.parametrize("entry", control_entries(), ids=lambda entry: entry.name)
def test_listed_names_follow_the_classes(entry: Entry) -> None:
    words = entry.target.partition(":")[2]
    for whole in ("CartPole", "Walker2d"):  # one word each
        words = words.replace(whole, whole.capitalize())
    assert entry.name == re.sub(r"(?<=.)(?=[A-Z])", "-", words).lower()
    assert entry.options_type() is entry.load()
    extra = entry.load().extra
    assert (f"needs {extra}" in entry.summary) == bool(extra)


@pytest.mark.parametrize("name", NAMES)
def test_docstrings_say_what_a_user_needs(name: str) -> None:
    one = control.BENCHMARKS[name]
    text = one.__doc__ or ""
    assert "Source" in text
    assert "Attributes:" in text
    for field in dataclasses.fields(one):
        assert f"        {field.name}: " in text
    assert {"": True, "box2d": "Needs Box2D" in text, "mujoco": "MuJoCo" in text}[one.extra]


def test_the_table_in_the_docs_is_complete() -> None:
    rows = re.findall(r"^\| `([\w-]+)` \| `clrl/(\w+)-v0` \|", DOCS.read_text(), re.MULTILINE)
    listed = [(e.name, e.target.partition(":")[2]) for e in control_entries()]
    assert rows == listed


def test_time_limits_are_those_of_the_environment_inside_but_for_the_offset_ones() -> None:
    for name, limit in registration._TIME_LIMITS.items():
        base = control.BENCHMARKS[name].base
        if name.startswith("Offset"):
            assert limit == 400
        elif base:
            assert limit == gym.spec(base).max_episode_steps
        else:
            assert limit is None


def test_the_time_limit_can_be_set_in_make() -> None:
    env = gym.make("clrl/OffsetCartPole-v0", max_episode_steps=5)
    env.reset(seed=0)
    ends = [env.step(index % 2)[2:4] for index in range(5)]
    assert ends == [(False, False)] * 4 + [(False, True)]
    for name in ("OffsetCartPole", "ClassicControlCycle"):
        envs = gym.make_vec(registration.env_id(name), num_envs=2, max_episode_steps=5)
        envs.reset(seed=0)
        ended = [envs.step(np.array([index % 2] * 2))[3].tolist() for index in range(5)]
        assert ended == [[False, False]] * 4 + [[True, True]]


def test_no_time_limit() -> None:
    envs = gym.make_vec(
        "clrl/PermutedCartPole-v0", num_envs=2, max_episode_steps=-1, task_length=10_000
    )
    envs.reset(seed=0)
    assert envs.unwrapped.max_episode_steps > 10**9  # type: ignore[attr-defined]


def test_autoreset_can_be_chosen() -> None:
    for name in ("OffsetCartPole", "ClassicControlCycle"):
        envs = gym.make_vec(registration.env_id(name), num_envs=2, autoreset_mode="Disabled")
        assert envs.metadata["autoreset_mode"] is gym.vector.AutoresetMode.DISABLED


def test_several_copies_in_stable_baselines3_share_the_sequence() -> None:
    env_util = pytest.importorskip("stable_baselines3.common.env_util")
    envs = env_util.make_vec_env(
        "clrl/OffsetCartPole-v0", 3, seed=4, env_kwargs={"task_seed": 1, "task_length": 10}
    )
    envs.reset()
    for _ in range(11):
        infos = envs.step(np.zeros(3, np.int64))[3]
    assert [info["task"] for info in infos] == [1, 1, 1]
    values = envs.env_method("get_wrapper_attr", "value")
    np.testing.assert_array_equal(values[0], values[1])
    np.testing.assert_array_equal(values[0], values[2])
    assert values[0].any()


def test_the_first_offset_is_zero_and_the_next_are_normal() -> None:
    env = gym.make("clrl/OffsetCartPole-v0", task_length=10)
    offsets = []
    for seed in range(300):
        env.reset(seed=seed)
        assert not env.get_wrapper_attr("value").any()
        offsets.append(env.get_wrapper_attr("preview")(1)[0].value)
    drawn = np.array(offsets)
    assert abs(drawn.std() - 2) < 0.15
    assert abs(drawn.mean()) < 0.2


def test_slippery_contacts_have_the_drawn_friction() -> None:
    pytest.importorskip("mujoco")
    for name in ("SlipperyAnt", "SlipperyHalfCheetah", "SlipperyWalker2d"):
        env = make(name)
        env.reset(seed=2)
        felt = set()
        for action in sampled_actions(env, 200):
            _, _, terminated, truncated, _ = env.step(action)
            base: Any = env.unwrapped
            value = float(env.get_wrapper_attr("value"))
            for i in range(base.data.ncon):
                assert base.data.contact[i].friction[0] == pytest.approx(value)
                felt.add(value)
            if terminated or truncated:
                env.reset()
        assert len(felt) >= 2


def test_slippery_ant_sees_no_contact_forces() -> None:
    pytest.importorskip("mujoco")
    assert make("SlipperyAnt").observation_space.shape == (27,)


@pytest.mark.parametrize(
    ("name", "missing", "line"),
    [
        ("OffsetLunarLander", "Box2D", "OffsetLunarLander needs box2d"),
        ("SlipperyAnt", "mujoco", "SlipperyAnt needs mujoco"),
    ],
)
def test_a_missing_extra_is_named_with_the_install_line(
    name: str, missing: str, line: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in [m for m in sys.modules if m.split(".")[0] == missing]:
        monkeypatch.delitem(sys.modules, module)
    for module in [m for m in sys.modules if m.startswith("gymnasium.envs.box2d")]:
        monkeypatch.delitem(sys.modules, module)
    for module in [m for m in sys.modules if m.startswith("gymnasium.envs.mujoco")]:
        monkeypatch.delitem(sys.modules, module)
    monkeypatch.setitem(sys.modules, missing, None)
    with pytest.raises(UsageError) as caught:
        make(name)
    extra = control.BENCHMARKS[name].extra
    assert str(caught.value).startswith(line)
    assert f"pip install 'clrl[{extra}]'" in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("options", "part"),
    [
        ({"std": -1.0}, "std: expected a number >= 0, got -1.0"),
        ({"std": "a"}, "std: expected a number >= 0, got 'a'"),
        ({"std": True}, "std: expected a number >= 0, got True"),
        ({"task_length": 0}, "task_length: expected an integer >= 1, got 0"),
        ({"task_length": 1.5}, "task_length: expected an integer >= 1, got 1.5"),
    ],
)
def test_bad_options_are_refused(options: dict[str, Any], part: str) -> None:
    with pytest.raises(UsageError, match=part):
        gym.make("clrl/OffsetCartPole-v0", **options)


def test_an_unknown_option_is_refused() -> None:
    with pytest.raises(TypeError, match="lenght"):
        gym.make("clrl/OffsetCartPole-v0", task_lenght=10)


def test_rendering_is_that_of_the_environment_inside() -> None:
    pytest.importorskip("pygame")
    env = gym.make("clrl/PermutedCartPole-v0", render_mode="rgb_array")
    env.reset(seed=0)
    frame: Any = env.render()
    assert frame.shape == (400, 600, 3)
    assert isinstance(env.unwrapped, gym.Env)
    inside: Any = env
    while not isinstance(inside, NonStationary):
        inside = inside.env
    assert inside.render_mode == "rgb_array"


def test_a_spec_makes_the_same_environment_again() -> None:
    env = gym.make("clrl/SwitchingCartPole-v0", task_length=30)
    assert env.spec is not None
    again = gym.make(env.spec)
    env.reset(seed=4)
    again.reset(seed=4)
    actions = sampled_actions(env, 80)
    assert list(rollout(env, actions)) == list(rollout(again, actions))


SB3 = """
import clrl.envs
from stable_baselines3 import PPO

model = PPO("MlpPolicy", "clrl/OffsetCartPole-v0", n_steps=64, batch_size=32, n_epochs=1, seed=0)
model.learn(128)
print(model.num_timesteps)
"""


def test_stable_baselines3_trains_with_no_other_import(tmp_path: Path) -> None:
    pytest.importorskip("stable_baselines3")
    done = subprocess.run(
        [sys.executable, "-P", "-c", SB3], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert done.stdout == "128\n"
