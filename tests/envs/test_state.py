"""The state of whole environments: the exact future, in the same process and in another."""

from __future__ import annotations

import hashlib
import importlib.util
import json
import subprocess
import sys
import time
from collections import deque
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium import wrappers
from gymnasium.vector import AsyncVectorEnv, SyncVectorEnv, VectorEnv, VectorWrapper
from hypothesis import given, settings
from hypothesis import strategies as st

from clrl.envs.episode_log import EpisodeLog
from clrl.envs.physics import parameters_of
from clrl.envs.state import load_state_dict, state_dict
from clrl.errors import UsageError

Make = Callable[[], Any]


def made(name: str, **options: Any) -> Make:
    return lambda: gym.make(name, **options)


def lander(limit: int, **options: Any) -> Any:
    from gymnasium.envs.box2d.lunar_lander import LunarLander

    return wrappers.TimeLimit(EpisodeLog(LunarLander(**options)), limit)


def short(name: str, **options: Any) -> Any:
    """With statistics, and episodes that end soon."""
    env = gym.make(name, max_episode_steps=11, **options)
    return wrappers.RecordEpisodeStatistics(env, buffer_length=3)


def dressed() -> Any:
    """Many wrappers without state."""
    env: Any = wrappers.RescaleAction(short("Pendulum-v1"), np.float32(-1), np.float32(1))
    env = wrappers.ClipAction(wrappers.Autoreset(env))
    env = wrappers.TransformReward(wrappers.ClipReward(env, -10, 10), lambda reward: reward / 10)
    env = wrappers.ReshapeObservation(wrappers.FlattenObservation(env), (3, 1))
    return wrappers.DtypeObservation(env, np.float32)


def vector(name: str, mode: str) -> Any:
    env: Any = SyncVectorEnv([lambda: short(name)] * 3, autoreset_mode=mode)
    return wrappers.vector.RecordEpisodeStatistics(env, 5, stats_key="lanes")


def dressed_vector() -> Any:
    space = gym.spaces.Box(np.float32(-1), np.float32(1), (1,))
    wide = gym.spaces.Box(np.float32(-99), np.float32(99), (3,))
    env: Any = SyncVectorEnv([lambda: short("Pendulum-v1")] * 2)
    env = wrappers.vector.RescaleAction(env, np.float32(-1), np.float32(1))
    env = wrappers.vector.ClipAction(env)
    env = wrappers.vector.TransformAction(env, lambda moves: -moves, single_action_space=space)
    env = wrappers.vector.TransformReward(wrappers.vector.ClipReward(env, -9, 9), lambda r: r / 9)
    env = wrappers.vector.ReshapeObservation(wrappers.vector.FlattenObservation(env), (3, 1))
    env = wrappers.vector.ReshapeObservation(env, (3,))
    env = wrappers.vector.DtypeObservation(env, np.float32)
    return wrappers.vector.TransformObservation(env, lambda o: 2 * o, single_observation_space=wide)


SINGLE: dict[str, Make] = {
    "Acrobot": made("Acrobot-v1"),
    "CartPole": made("CartPole-v1"),
    "CartPole-bare": lambda: gym.make("CartPole-v1").unwrapped,
    "MountainCar": made("MountainCar-v0"),
    "MountainCarContinuous": made("MountainCarContinuous-v0"),
    "Pendulum": made("Pendulum-v1"),
    "Pendulum-short": lambda: short("Pendulum-v1"),
    "Pendulum-dressed": dressed,
}
LANDER: dict[str, Make] = {
    "LunarLander": lambda: lander(150, enable_wind=True),
    "LunarLander-continuous": lambda: lander(25, continuous=True),
}
MUJOCO: dict[str, Make] = {
    name: made(name)
    for name, spec in gym.registry.items()
    if name.endswith("-v5") and "envs.mujoco" in str(spec.entry_point)
}
VECTOR: dict[str, Make] = {
    "Pendulum-vector-dressed": dressed_vector,
    **{
        f"{name}-{mode}": lambda name=name, mode=mode: vector(name, mode)
        for name, mode in [
            ("CartPole-v1", "NextStep"),
            ("CartPole-v1", "SameStep"),
            ("MountainCar-v0", "Disabled"),
        ]
    },
}
NEEDS = {**dict.fromkeys(LANDER, "Box2D"), **dict.fromkeys(MUJOCO, "mujoco")}
ENVS = {**SINGLE, **LANDER, **MUJOCO, **VECTOR}


def each(makes: Mapping[str, Make]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize(
        "name",
        [
            pytest.param(name, marks=pytest.mark.skipif(missing, reason=f"needs {NEEDS.get(name)}"))
            for name in makes
            for missing in [name in NEEDS and importlib.util.find_spec(NEEDS[name]) is None]
        ],
    )


@pytest.fixture(autouse=True)
def _folder_for_mujocos_log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def lanes(env: Any) -> list[Any]:
    return list(env.unwrapped.envs) if isinstance(env, VectorEnv) else [env]


def actions(env: Any, steps: int, seed: int) -> list[Any]:
    space = env.action_space
    space.seed(seed)
    return [space.sample() for _ in range(steps)]


def change_physics(env: Any, factor: float) -> None:
    """Other physics in every lane."""
    for index, lane in enumerate(lanes(env)):
        physics = parameters_of(lane)
        for name in list(physics.known)[:3]:
            high = min(physics.known[name].high, physics.get(name) or 1)
            physics.set(name, (factor + index / 10) * high)
        if name := next((name for name in physics.known if name.startswith("mass/")), None):
            physics.set(name, 1 + factor)


def without_times(info: dict[str, Any]) -> dict[str, Any]:
    """Episode statistics hold the seconds that an episode took."""
    return {
        key: without_times(value) if isinstance(value, dict) else value
        for key, value in info.items()
        if key not in ("t", "_t")
    }


def plain(value: Any) -> Any:
    """Everything in it, to the bit, with types."""
    if isinstance(value, np.ndarray) and value.dtype.kind != "O":
        return [value.dtype.str, list(value.shape), value.tobytes().hex()]
    if isinstance(value, (list, tuple, np.ndarray)):
        return [plain(item) for item in value]
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items()}
    return value if value is None else [type(value).__name__, repr(value)]


def outcome(env: Any, moves: list[Any]) -> list[Any]:
    """All that an environment says, with resets where episodes end."""
    said = []
    for move in moves:
        observation, reward, ended, cut, info = env.step(move)
        said.append(plain([observation, reward, ended, cut, without_times(info)]))
        over = np.logical_or(ended, cut)
        if isinstance(env, VectorEnv):
            if env.metadata["autoreset_mode"].value == "Disabled" and over.any():
                observation, info = env.reset(options={"reset_mask": over})
                said.append(plain([observation, without_times(info)]))
        elif over:
            said.append(plain(env.reset()))
    return said


def wander(env: Any, steps: int, seed: int) -> None:
    """Go somewhere, with a change of physics on the way."""
    env.reset(seed=seed)
    outcome(env, actions(env, steps // 2, seed))
    change_physics(env, 0.7)
    outcome(env, actions(env, steps - steps // 2, seed + 1))


def json_of(env: Any) -> Any:
    return json.loads(json.dumps(state_dict(env), allow_nan=False))


@each(ENVS)
@pytest.mark.parametrize("steps", [0, 1, 28])
def test_a_state_restores_the_future(name: str, steps: int) -> None:
    env, other = ENVS[name](), ENVS[name]()
    wander(env, steps, seed=1)
    state = json_of(env)
    if steps:
        wander(other, 9, seed=77)
    load_state_dict(other, state)
    assert json_of(other) == state
    if name in MUJOCO:
        np.testing.assert_array_equal(other.unwrapped._get_obs(), env.unwrapped._get_obs())
    for lane, twin in zip(lanes(env), lanes(other), strict=True):
        assert parameters_of(lane).state_dict() == parameters_of(twin).state_dict()
    moves = actions(env, 60, seed=5)
    future = outcome(env, moves)
    assert outcome(other, moves) == future
    # The state is a copy, and loading it again forgets the sixty steps.
    load_state_dict(other, state)
    assert outcome(other, moves) == future


@each(ENVS)
def test_before_the_first_reset(name: str) -> None:
    env, other, third = (ENVS[name]() for _ in range(3))
    change_physics(env, 0.6)
    state = json_of(env)
    wander(other, 9, seed=2)
    for one in (other, third):
        load_state_dict(one, state)
        assert json_of(one) == state
    starts = [plain(one.reset(seed=3)) for one in (env, other, third)]
    assert starts[0] == starts[1] == starts[2]
    moves = actions(env, 10, seed=4)
    assert outcome(env, moves) == outcome(other, moves) == outcome(third, moves)


def test_an_environment_that_was_not_reset_cannot_be_stepped_after_loading() -> None:
    env = gym.make("MountainCar-v0")
    state = json_of(env)
    wander(env, 5, seed=0)
    load_state_dict(env, state)
    with pytest.raises(gym.error.ResetNeeded):
        env.step(0)
    assert not hasattr(env.unwrapped, "state")


@settings(deadline=None, max_examples=40)
@given(
    name=st.sampled_from(sorted(SINGLE)),
    steps=st.integers(0, 60),
    seed=st.integers(0, 2**32),
    elsewhere=st.integers(0, 30),
)
def test_anywhere_in_classic_control(name: str, steps: int, seed: int, elsewhere: int) -> None:
    env, other = SINGLE[name](), SINGLE[name]()
    wander(env, steps, seed)
    wander(other, elsewhere, seed=0)
    load_state_dict(other, json_of(env))
    moves = actions(env, 15, seed)
    assert outcome(env, moves) == outcome(other, moves)


@pytest.mark.parametrize(
    ("name", "steps", "kind"),
    [
        ("Acrobot-v1", 0, np.float32),
        ("Acrobot-v1", 1, np.float64),
        ("MountainCarContinuous-v0", 0, np.float64),
        ("MountainCarContinuous-v0", 1, np.float32),
        ("MountainCar-v0", 0, np.float64),
        ("MountainCar-v0", 1, tuple),
    ],
)
def test_the_type_of_the_inner_state_is_kept(name: str, steps: int, kind: Any) -> None:
    env, other = gym.make(name), gym.make(name)
    env.reset(seed=0)
    outcome(env, actions(env, steps, 0))
    load_state_dict(other, json_of(env))
    state: Any = other.unwrapped.state  # type: ignore[attr-defined]
    assert isinstance(state, tuple) if kind is tuple else state.dtype == kind


def test_statistics_go_on(monkeypatch: pytest.MonkeyPatch) -> None:
    env, other = short("Pendulum-v1"), short("Pendulum-v1")
    env.reset(seed=0)
    outcome(env, actions(env, 50, 0))  # four episodes of 11 and a piece
    other.reset(seed=1)
    outcome(other, actions(other, 12, 0))
    load_state_dict(other, json_of(env))
    assert not other.time_queue  # wall-clock times are not kept
    assert (other.episode_count, other.episode_lengths) == (4, 6)
    assert list(other.length_queue) == [11, 11, 11] and other.length_queue.maxlen == 3
    assert other.return_queue == env.return_queue
    monkeypatch.setattr(time, "perf_counter", lambda: 1000.0)
    load_state_dict(fresh := short("Pendulum-v1"), json_of(env))
    *_, info = [fresh.step(move) for move in actions(env, 5, 1)][-1]
    assert info["episode"]["l"] == 11 and info["episode"]["t"] == 0  # counted from the loading


@pytest.mark.parametrize("mode", ["NextStep", "SameStep", "Disabled"])
def test_a_vector_environment_at_the_end_of_episodes(mode: str) -> None:
    env, other = vector("CartPole-v1", mode), vector("CartPole-v1", mode)
    env.reset(seed=[1, 2, 3])
    for move in actions(env, 11, seed=0):
        _, _, ended, cut, _ = env.step(move)
        over = ended | cut
        if over.any():
            break
    assert over.any()
    load_state_dict(other, json_of(env))
    moves = actions(env, 30, seed=1)
    if mode == "Disabled":
        with pytest.raises(AssertionError):
            other.step(moves[0])
        for one in (env, other):
            one.reset(options={"reset_mask": over})
    assert outcome(env, moves) == outcome(other, moves)


@pytest.mark.filterwarnings("ignore:.*even though this environment has already returned")
def test_cartpole_beyond_the_end_of_its_episode() -> None:
    env: Any = gym.make("CartPole-v1").unwrapped
    other: Any = gym.make("CartPole-v1").unwrapped
    env.reset(seed=0)
    while not env.step(1)[2]:
        pass
    load_state_dict(other, json_of(env))
    assert env.step(1)[1] == other.step(1)[1] == 0  # 1 is for the step that ends it


@each({"InvertedDoublePendulum-v5": MUJOCO["InvertedDoublePendulum-v5"]})
def test_the_force_of_a_limit_is_in_the_observation(name: str) -> None:
    env: Any = MUJOCO[name]().unwrapped
    other: Any = MUJOCO[name]().unwrapped
    env.reset(seed=0)
    for _ in range(100):  # against the end of the rail
        observation = env.step(np.ones(1, np.float32))[0]
    assert observation[-1]
    load_state_dict(other, json_of(env))
    np.testing.assert_array_equal(other._get_obs(), env._get_obs())


# In a new process. Every future is cut short by its hash; MuJoCo's by way of Ant and Humanoid,
# whose reward reads what their last step left behind.
CONTINUED = (
    "Acrobot",
    "MountainCar",
    "MountainCarContinuous",
    "Pendulum-dressed",
    "LunarLander",
    "LunarLander-continuous",
    "Ant-v5",
    "HalfCheetah-v5",
    "Humanoid-v5",
    "InvertedDoublePendulum-v5",
    "CartPole-v1-SameStep",
    "MountainCar-v0-Disabled",
)


def digest(env: Any) -> str:
    said = outcome(env, actions(env, 200, seed=6))
    return hashlib.sha256(json.dumps(said).encode()).hexdigest()


def test_a_new_process_continues(tmp_path: Path) -> None:
    names = [
        name
        for name in CONTINUED
        if name not in NEEDS or importlib.util.find_spec(NEEDS[name]) is not None
    ]
    states, futures = {}, {}
    for name in names:
        env = ENVS[name]()
        wander(env, 60, seed=8)
        states[name] = state_dict(env)
        futures[name] = digest(env)
    (tmp_path / "states.json").write_text(json.dumps(states))
    done = subprocess.run(
        [sys.executable, __file__, "states.json"], cwd=tmp_path, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout.splitlines()[-1]) == futures


def continue_here(path: str) -> None:
    futures = {}
    for name, state in json.loads(Path(path).read_text()).items():
        env = ENVS[name]()
        load_state_dict(env, state)
        futures[name] = digest(env)
    print(json.dumps(futures))


# Layers that bring their own state


class Counting(gym.Wrapper[Any, Any, Any, Any]):
    """Adds the number of steps so far to the reward."""

    def __init__(self, env: Any) -> None:
        super().__init__(env)
        self.count = 0

    def step(self, action: Any) -> Any:
        self.count += 1
        observation, reward, *rest = self.env.step(action)
        return observation, float(reward) + self.count, *rest


class Own(Counting):
    """As our wrappers: the public pair stands for the whole chain."""

    def state_dict(self) -> dict[str, Any]:
        return state_dict(self)

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        load_state_dict(self, state)

    def own_state_dict(self) -> dict[str, Any]:
        return {"count": self.count}

    def load_own_state_dict(self, state: Mapping[str, Any]) -> None:
        self.count = state["count"]
        self.found = state_dict(self.env)


class Foreign(Counting):
    """As other people's: the public pair is its own part."""

    def state_dict(self) -> dict[str, Any]:
        return {"steps": self.count}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.count = state["steps"]


class Walk(gym.Env[Any, Any]):
    """An environment with its own state."""

    observation_space = gym.spaces.Discrete(1000)
    action_space = gym.spaces.Discrete(3)
    place = 0

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        self.place = 500
        return self.place, {}

    def step(self, action: Any) -> Any:
        self.place += int(action) - 1
        return self.place, 0.0, False, False, {}

    def state_dict(self) -> dict[str, Any]:
        return {"place": self.place}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.place = state["place"]


class OwnVector(VectorWrapper[Any, Any, Any, Any, Any]):
    count = 0

    def step(self, actions: Any) -> Any:
        self.count += 1
        observations, rewards, *rest = self.env.step(actions)
        return observations, rewards + self.count, *rest

    def own_state_dict(self) -> dict[str, Any]:
        return {"count": self.count}

    def load_own_state_dict(self, state: Mapping[str, Any]) -> None:
        self.count = state["count"]


@pytest.mark.parametrize(
    "make",
    [
        lambda: Own(Foreign(gym.make("CartPole-v1"))),
        lambda: Foreign(wrappers.TimeLimit(Walk(), 9)),
        lambda: OwnVector(SyncVectorEnv([lambda: Own(Walk())] * 2)),
    ],
)
def test_layers_are_asked_for_their_own_part(make: Make) -> None:
    env, other = make(), make()
    env.reset(seed=0)
    outcome(env, actions(env, 7, 0))
    load_state_dict(other, json_of(env))
    moves = actions(env, 20, 1)
    assert outcome(env, moves) == outcome(other, moves)


def test_a_wrapper_with_its_own_part_can_stand_for_the_whole() -> None:
    env, other = Own(gym.make("CartPole-v1")), Own(gym.make("CartPole-v1"))
    env.reset(seed=0)
    outcome(env, actions(env, 7, 0))
    other.load_state_dict(json.loads(json.dumps(env.state_dict())))
    assert other.count == 7
    assert other.found == state_dict(env.env)  # what is inside was loaded first


# What cannot be captured, and what cannot be loaded


class Unknown(gym.Wrapper[Any, Any, Any, Any]):
    pass


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Unknown(gym.make("CartPole-v1")), "Unknown cannot be captured; giving it state_d"),
        (
            lambda: wrappers.NormalizeReward(gym.make("CartPole-v1")),
            "NormalizeReward cannot be captured; giving it state_dict",
        ),
        (made("FrozenLake-v1"), "FrozenLakeEnv cannot be captured; giving it state_dict"),
        (
            lambda: SyncVectorEnv([lambda: Unknown(gym.make("CartPole-v1"))]),
            "Unknown cannot be captured",
        ),
    ],
)
def test_unknown_layers_are_refused_by_name(make: Make, message: str) -> None:
    with pytest.raises(UsageError, match=f"^environment state: {message}"):
        state_dict(make())


def test_other_processes_are_refused() -> None:
    env = AsyncVectorEnv.__new__(AsyncVectorEnv)  # without starting them
    with pytest.raises(UsageError, match="AsyncVectorEnv cannot be captured; .* SyncVectorEnv"):
        state_dict(env)


def test_other_generators_are_refused() -> None:
    env = gym.make("CartPole-v1")
    env.unwrapped.np_random = np.random.Generator(np.random.MT19937(0))
    with pytest.raises(UsageError, match="np_random: expected PCG64, got MT19937"):
        state_dict(env)


@pytest.mark.parametrize(
    ("make", "other", "message"),
    [
        (
            made("CartPole-v1"),
            made("CartPole-v0"),
            r"it is of TimeLimit\(500\) > OrderEnforcing > PassiveEnvChecker > "
            r"CartPoleEnv\(CartPole-v1\)"
            r", got TimeLimit\(200\) > .* > CartPoleEnv\(CartPole-v0\)",
        ),
        (
            made("CartPole-v1"),
            made("CartPole-v1", disable_env_checker=True),
            r"> PassiveEnvChecker > .* got TimeLimit\(500\) > OrderEnforcing > CartPoleEnv",
        ),
        (
            lambda: SyncVectorEnv([made("CartPole-v1")] * 2),
            lambda: SyncVectorEnv([made("CartPole-v1")] * 3),
            r"SyncVectorEnv\(NextStep, 2 x TimeLimit.* SyncVectorEnv\(NextStep, 3 x TimeLimit",
        ),
        (
            lambda: SyncVectorEnv([made("CartPole-v1")] * 2),
            lambda: SyncVectorEnv([made("CartPole-v1")] * 2, autoreset_mode="SameStep"),
            r"SyncVectorEnv\(NextStep, .* SyncVectorEnv\(SameStep, ",
        ),
    ],
)
@pytest.mark.filterwarnings("ignore:.*out of date:DeprecationWarning")
def test_another_chain_is_refused_and_left_alone(make: Make, other: Make, message: str) -> None:
    state, refusing = json_of(make()), other()
    refusing.reset(seed=5)
    before = state_dict(refusing)
    with pytest.raises(UsageError, match=message) as refused:
        load_state_dict(refusing, state)
    assert "\n" not in str(refused.value)
    assert state_dict(refusing) == before


def test_another_version_is_refused() -> None:
    env = gym.make("CartPole-v1")
    state = state_dict(env)
    assert state["versions"] == {"gymnasium": gym.__version__}
    state["versions"]["gymnasium"] = "0.26.2"
    with pytest.raises(UsageError, match="made with gymnasium 0.26.2, and .* same version"):
        load_state_dict(env, state)


@each({"Hopper-v5": MUJOCO["Hopper-v5"]})
def test_another_mujoco_or_another_model_is_refused(name: str, tmp_path: Path) -> None:
    import mujoco

    env: Any = gym.make(name)
    state = state_dict(env)
    assert state["versions"] == {"gymnasium": gym.__version__, "mujoco": mujoco.__version__}
    xml = Path(env.unwrapped.fullpath).read_text()
    path = tmp_path / "other.xml"
    path.write_text(xml.replace("</worldbody>", '<geom name="wall" size="1 1 1"/></worldbody>'))
    other = gym.make(name, xml_file=str(path))
    with pytest.raises(UsageError, match="of another model than .*other.xml"):
        load_state_dict(other, state)
    state["versions"]["mujoco"] = "3.3.0"
    with pytest.raises(UsageError, match="made with mujoco 3.3.0"):
        load_state_dict(env, state)


# LunarLander


@each({"LunarLander-v3": LANDER["LunarLander"]})
def test_a_lander_needs_a_log_around_it_and_nothing_between(name: str) -> None:
    pytest.importorskip("Box2D")
    with pytest.raises(UsageError, match="LunarLander cannot be captured; put .*EpisodeLog dir"):
        state_dict(gym.make(name))
    with pytest.raises(UsageError, match="^EpisodeLog: expected the bare LunarLander, got <Time"):
        EpisodeLog(gym.make(name))
    with pytest.raises(UsageError, match="^EpisodeLog: expected the bare LunarLander, got <Cart"):
        EpisodeLog(gym.make("CartPole-v1").unwrapped)


def test_a_log_can_be_registered() -> None:
    module = pytest.importorskip("gymnasium.envs.box2d.lunar_lander")
    gym.register("LoggedLander-v0", entry_point=lambda **o: EpisodeLog(module.LunarLander(**o)))
    try:
        env = gym.make("LoggedLander-v0", gravity=-4.0)
        wander(env, 30, seed=0)
        load_state_dict(other := gym.make("LoggedLander-v0", gravity=-4.0), json_of(env))
        moves = actions(env, 40, 2)
        assert outcome(env, moves) == outcome(other, moves)
    finally:
        del gym.registry["LoggedLander-v0"]


def test_a_landing_is_replayed_with_wind_and_gravity_changing_on_the_way() -> None:
    module = pytest.importorskip("gymnasium.envs.box2d.lunar_lander")

    def fly(env: Any, observation: Any, steps: int, until_touched: bool) -> tuple[Any, list[Any]]:
        said = []
        for step in range(steps):
            if step % 40 == 20:
                parameters_of(env).set("gravity", 7 + step / 200)
                parameters_of(env).set("wind_power", 5 + step / 40)
            move = module.heuristic(env.unwrapped, observation)
            observation, reward, ended, _, _ = env.step(move)
            said.append(plain([observation, reward, ended]))
            if ended or (until_touched and observation[6]):
                break
        return observation, said

    for seed in (0, 3):
        env, other = (EpisodeLog(module.LunarLander()) for _ in range(2))
        env.reset(seed=seed)
        observation, said = fly(env, env.reset()[0], 600, until_touched=True)
        assert observation[6] and len(said) > 60  # contacts are what Box2D does not hand out
        load_state_dict(other, json_of(env))
        future = fly(env, observation, 100, until_touched=False)[1]
        assert fly(other, observation, 100, until_touched=False)[1] == future
        assert len(future) > 10


def test_a_replay_that_goes_elsewhere_is_refused() -> None:
    pytest.importorskip("Box2D")
    env = lander(50)
    wander(env, 20, seed=0)
    state = json_of(env)
    state["layers"][-1]["actions"]["items"][3] ^= 1
    with pytest.raises(UsageError, match="the episode of <LunarLander.* did not replay exactly"):
        load_state_dict(lander(50), state)


# Values of observations, as JSON keeps them


values = st.recursive(
    st.one_of(
        st.none(),
        st.booleans(),
        st.integers(),
        st.floats(allow_nan=False),  # JSON has but one NaN
        st.text(),
        st.floats(allow_nan=False, width=32).map(np.float32),
        st.integers(0, 255).map(np.uint8),
        st.lists(st.floats(allow_nan=False, width=32), max_size=4).map(
            lambda items: np.array(items, np.float32)
        ),
        st.just(np.zeros((2, 0, 3), np.int64)),
        st.integers(0, 2**64 - 1).map(lambda item: np.full((2, 1), item, np.uint64)),
    ),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.lists(inner, max_size=3).map(tuple),
        st.lists(inner, max_size=3).map(lambda items: deque(items, maxlen=5)),
        st.dictionaries(st.text(), inner, max_size=3),
    ),
    max_leaves=8,
)


@settings(deadline=None, max_examples=100)
@given(value=values)
def test_every_value_is_kept_to_the_bit(value: Any) -> None:
    # The last action of Pendulum stands for all attributes.
    env, other = gym.make("Pendulum-v1"), gym.make("Pendulum-v1")
    env.unwrapped.last_u = value  # type: ignore[attr-defined]
    load_state_dict(other, json.loads(json.dumps(state_dict(env))))
    back = other.unwrapped.last_u  # type: ignore[attr-defined]
    assert type(back) is type(value)
    assert plain(back) == plain(value)


def test_other_values_are_refused() -> None:
    env = gym.make("Pendulum-v1")
    env.unwrapped.last_u = np.array([object()])  # type: ignore[attr-defined]
    with pytest.raises(UsageError, match="expected numbers, arrays of them or text, got array"):
        state_dict(env)


if __name__ == "__main__":
    continue_here(sys.argv[1])
