"""`MujocoVectorEnv` against Gymnasium's environments one by one, to the bit."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.error import InvalidAction
from gymnasium.vector import AutoresetMode, SyncVectorEnv
from gymnasium.wrappers import OrderEnforcing, TimeLimit

import clrl.envs
from clrl.envs.control import Stationary, vector_of
from clrl.envs.mujoco import MUJOCO_IDS, MujocoVectorEnv
from clrl.envs.physics import parameters_of
from clrl.envs.state import load_state_dict, state_dict
from clrl.errors import UsageError

mujoco = pytest.importorskip("mujoco")

CHEETAH, ANT, HOPPER, WALKER = "HalfCheetah-v5", "Ant-v5", "Hopper-v5", "Walker2d-v5"
WITHOUT_FORCES = {"include_cfrc_ext_in_observation": False, "contact_cost_weight": 0.0}
CASES: list[tuple[str, dict[str, Any]]] = [
    (CHEETAH, {}),
    (
        CHEETAH,
        {
            "forward_reward_weight": 3,
            "ctrl_cost_weight": np.float64(0.7),
            "reset_noise_scale": 0.3,
            "exclude_current_positions_from_observation": False,
            "frame_skip": 3,
        },
    ),
    (ANT, {}),
    (ANT, WITHOUT_FORCES),
    (ANT, {**WITHOUT_FORCES, "contact_cost_weight": 0.3, "contact_force_range": (-0.2, 70.0)}),
    (
        ANT,
        {
            "forward_reward_weight": 2.5,
            "ctrl_cost_weight": 0,
            "contact_cost_weight": 0,
            "healthy_reward": 2,
            "main_body": "front_left_leg",
            "healthy_z_range": (0.5, 0.7),
            "contact_force_range": np.array([-5.0, 3.0]),
            "exclude_current_positions_from_observation": False,
        },
    ),
    (ANT, {"terminate_when_unhealthy": False, "healthy_z_range": (0.4, 0.6)}),
    (HOPPER, {}),
    (
        HOPPER,
        {
            "healthy_state_range": (-3.0, 3.0),
            "healthy_z_range": (0.5, 1.3),
            "healthy_angle_range": (-0.5, 0.3),
            "healthy_reward": 3,
            "exclude_current_positions_from_observation": False,
        },
    ),
    (WALKER, {}),
    (
        WALKER,
        {
            "forward_reward_weight": -1.5,
            "healthy_reward": np.float32(0.3),
            "terminate_when_unhealthy": False,
            "healthy_z_range": (1.0, 1.3),
            "healthy_angle_range": (-0.3, 0.2),
            "exclude_current_positions_from_observation": False,
        },
    ),
]
Lanes = list[Callable[[], Any]]


@pytest.fixture(autouse=True)
def _quiet_in_a_folder_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """MuJoCo writes warnings about Gymnasium's models to a log in the working folder."""
    monkeypatch.chdir(tmp_path)
    before = mujoco.get_mju_user_warning()
    mujoco.set_mju_user_warning(lambda _: None)
    yield
    mujoco.set_mju_user_warning(before)


def bare(env_id: str, **options: Any) -> Any:
    return gym.make(env_id, disable_env_checker=True, **options).unwrapped


def lanes(env_id: str, limits: Sequence[int], **options: Any) -> Lanes:
    """Environments with these time limits; 0 for none."""

    def lane(limit: int) -> Callable[[], Any]:
        made = lambda: bare(env_id, **options)  # noqa: E731
        return (lambda: TimeLimit(made(), limit)) if limit else made

    return [lane(limit) for limit in limits]


def bits(said: Any) -> Any:
    """Everything about a value that can be compared, in the order of its keys."""
    if isinstance(said, np.ndarray) and said.dtype != object:
        return str(said.dtype), said.shape, said.tobytes()
    if isinstance(said, np.ndarray):
        return [bits(one) for one in said]
    if isinstance(said, dict):
        return [(key, bits(value)) for key, value in said.items()]
    if isinstance(said, tuple):
        return [bits(one) for one in said]
    return said


def chosen(env: Any, steps: int, seed: int = 0) -> Any:
    """Actions, some of them beyond the bounds: float32 [steps, n, size]."""
    shape = (steps, *env.action_space.shape)
    return np.random.default_rng(seed).uniform(-1.3, 1.3, shape).astype(np.float32)


def pair(make: Lanes, **options: Any) -> tuple[Any, Any]:
    """Ours and Gymnasium's, both begun."""
    ours, theirs = MujocoVectorEnv(make, **options), SyncVectorEnv(make, **options)
    assert bits(ours.reset(seed=3)) == bits(theirs.reset(seed=3))
    return ours, theirs


def change_physics(env: Any, step: int) -> None:
    for lane, one in enumerate(env.envs):
        physics = parameters_of(one)
        physics.set("friction", 0.1 + 0.3 * lane)
        physics.set("gravity", 7.0 + lane + step / 100)
        physics.set("mass", 0.8 + 0.2 * lane)


@pytest.mark.parametrize(("env_id", "options"), CASES)
def test_steps_are_gymnasiums_to_the_bit(env_id: str, options: dict[str, Any]) -> None:
    ours, theirs = pair(lanes(env_id, [11, 20, 0, 1000, 11], **options))
    ended = 0
    for step, action in enumerate(chosen(ours, 200)):
        if step in (70, 130):
            change_physics(ours, step)
            change_physics(theirs, step)
        said = ours.step(action)
        assert bits(said) == bits(theirs.step(action)), step
        ended += int((said[2] | said[3]).sum())
    assert ended >= 30  # by the time limits


@pytest.mark.parametrize("env_id", [ANT, HOPPER, WALKER])
def test_episodes_that_end_in_a_fall(env_id: str) -> None:
    ours, theirs = pair(lanes(env_id, [0] * 3))
    terminated = 0
    for action in chosen(ours, 250):
        said = ours.step(action)
        assert bits(said) == bits(theirs.step(action))
        terminated += int(said[2].sum())
    assert terminated > (1 if env_id == ANT else 10)


@pytest.mark.parametrize("env_id", MUJOCO_IDS)
def test_all_lanes_end_at_once(env_id: str) -> None:
    ours, theirs = pair(lanes(env_id, [4] * 3))
    for action in chosen(ours, 15):
        assert bits(ours.step(action)) == bits(theirs.step(action))


@pytest.mark.parametrize("env_id", MUJOCO_IDS)
@pytest.mark.parametrize(
    "convert",
    [
        lambda action: action.astype(np.float64),
        lambda action: action.astype(np.int64),
        np.asfortranarray,
        np.ndarray.tolist,
        list,
    ],
    ids=["float64", "int64", "columns", "numbers", "rows"],
)
def test_actions_of_other_types(env_id: str, convert: Callable[[Any], Any]) -> None:
    ours, theirs = pair(lanes(env_id, [9, 0, 5]))
    for action in chosen(ours, 15):
        assert bits(ours.step(convert(action))) == bits(theirs.step(convert(action)))


@pytest.mark.parametrize("mode", [AutoresetMode.SAME_STEP, "SameStep", "Disabled"])
def test_other_modes_of_autoreset(mode: Any) -> None:
    ours, theirs = pair(lanes(HOPPER, [6, 9, 0]), autoreset_mode=mode)
    for action in chosen(ours, 40):
        said = ours.step(action)
        assert bits(said) == bits(theirs.step(action))
        ended = said[2] | said[3]
        if mode == "Disabled" and ended.any():
            again = [env.reset(options={"reset_mask": ended.copy()}) for env in (ours, theirs)]
            assert bits(again[0]) == bits(again[1])


def test_resets_in_between() -> None:
    ours, theirs = pair(lanes(HOPPER, [6, 9, 0]))
    for step, action in enumerate(chosen(ours, 40)):
        assert bits(ours.step(action)) == bits(theirs.step(action))
        if step % 7 == 0:
            mask = np.array([step % 2 == 0, True, False])
            again = [env.reset(options={"reset_mask": mask.copy()}) for env in (ours, theirs)]
            assert bits(again[0]) == bits(again[1])
        if step % 11 == 0:
            assert bits(ours.reset()) == bits(theirs.reset())


@pytest.mark.parametrize("env_id", MUJOCO_IDS)
def test_a_lane_does_not_depend_on_the_others(env_id: str) -> None:
    many, one = MujocoVectorEnv(lanes(env_id, [9] * 5)), MujocoVectorEnv(lanes(env_id, [9]))
    many.reset(seed=[7, 8, 9, 10, 11])
    one.reset(seed=[9])
    for action in chosen(many, 40):
        *said, infos = many.step(action)
        *alone, infos_alone = one.step(action[2:3])
        assert bits([part[2:3] for part in said][0]) == bits(alone[0])
        assert all(bits(part[2:3]) == bits(same) for part, same in zip(said, alone, strict=True))
        assert all(bits(infos[key][2:3]) == bits(value) for key, value in infos_alone.items())


@pytest.mark.parametrize("env_id", MUJOCO_IDS)
def test_what_is_returned_is_the_callers_own(env_id: str) -> None:
    ours, theirs = pair(lanes(env_id, [6, 9, 0]))
    for step, action in enumerate(chosen(ours, 30)):
        *said, infos = ours.step(action)
        assert bits((*said, infos)) == bits(theirs.step(action))
        kept = [array for array in (*said, *infos.values()) if array.dtype != object]
        for array in kept:
            others = [other for other in kept if other is not array]
            assert not any(np.shares_memory(array, other) for other in others)
            array[:] = 1
        if step == 20:
            mask = np.array([True, False, False])
            again = [env.reset(options={"reset_mask": mask.copy()}) for env in (ours, theirs)]
            assert bits(again[0]) == bits(again[1])


@pytest.mark.parametrize("env_id", MUJOCO_IDS)
def test_state_of_a_vector_environment_restores_it(env_id: str) -> None:
    make = lanes(env_id, [9, 14, 0])
    first, second = MujocoVectorEnv(make), MujocoVectorEnv(make)
    first.reset(seed=0)
    change_physics(first, 0)
    for action in chosen(first, 29):  # two of the lanes are about to be reset
        first.step(action)
    assert first._autoreset_envs.any()
    saved = json.loads(json.dumps(state_dict(first)))
    assert saved["kind"].startswith("MujocoVectorEnv(NextStep, ")
    load_state_dict(second, saved)
    for action in chosen(first, 40, seed=1):
        assert bits(first.step(action)) == bits(second.step(action))


def test_state_is_of_its_own_kind() -> None:
    make = lanes(HOPPER, [9, 9])
    saved = state_dict(SyncVectorEnv(make))
    with pytest.raises(UsageError, match="it is of SyncVectorEnv.* got MujocoVectorEnv"):
        load_state_dict(MujocoVectorEnv(make), saved)


def test_lanes_stepped_from_outside() -> None:
    ours, theirs = pair(lanes(ANT, [30, 0]))
    for step, action in enumerate(chosen(ours, 20)):
        if step % 5 == 0:
            for env in (ours, theirs):
                env.envs[0].step(action[1])
                bare = env.envs[1]
                bare.set_state(bare.init_qpos + step / 50, bare.init_qvel - 0.1)
        assert bits(ours.step(action)) == bits(theirs.step(action))


@pytest.mark.parametrize(
    ("env_id", "options", "computed"),
    [
        (CHEETAH, {}, False),
        (HOPPER, {}, False),
        (WALKER, {}, False),
        (ANT, WITHOUT_FORCES, False),
        (ANT, {**WITHOUT_FORCES, "contact_cost_weight": 1e-9}, True),
        (ANT, {"contact_cost_weight": 0.0}, True),
        (ANT, {}, True),
    ],
)
def test_contact_forces_are_computed_where_they_are_seen(
    env_id: str, options: dict[str, Any], computed: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    env = MujocoVectorEnv(lanes(env_id, [0, 9], **options))
    env.reset(seed=0)
    calls: list[Any] = []
    monkeypatch.setattr(mujoco, "mj_rnePostConstraint", lambda *args: calls.append(args))
    env.step(chosen(env, 1)[0])
    assert len(calls) == (2 if computed else 0)


def test_follows_attributes_that_are_set() -> None:
    ours, theirs = pair(lanes(ANT, [0, 9], **WITHOUT_FORCES))
    for action in chosen(ours, 30):
        assert bits(ours.step(action)) == bits(theirs.step(action))
    for env in (ours, theirs):
        env.set_attr("_contact_cost_weight", 0.5)
        env.set_attr("_ctrl_cost_weight", 2)
        env.set_attr("frame_skip", 3)
    for action in chosen(ours, 30):
        assert bits(ours.step(action)) == bits(theirs.step(action))
    with pytest.raises(UsageError, match="ctrl_cost_weight 1 in lane 0 and 2 in lane 1"):
        ours.set_attr("_ctrl_cost_weight", [1, 2])


def test_a_copy_steps_its_own_lanes() -> None:
    first = MujocoVectorEnv(lanes(HOPPER, [9, 0]))
    first.reset(seed=0)
    second = copy.deepcopy(first)
    second.reset(seed=1)
    untouched = json.dumps(state_dict(first))
    seen = [second.step(action)[0] for action in chosen(second, 10)]
    assert json.dumps(state_dict(first)) == untouched
    first.reset(seed=1)
    expected = [first.step(action)[0] for action in chosen(first, 10)]
    np.testing.assert_array_equal(seen, expected)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: [lambda: bare("Swimmer-v5")], "expected Ant-v5.* got <SwimmerEnv"),
        (
            lambda: [lambda: OrderEnforcing(bare(HOPPER))],
            "bare or in a TimeLimit.* <OrderEnforcing",
        ),
        (
            lambda: [lambda: bare(HOPPER), lambda: bare(HOPPER, healthy_reward=1)],
            "same options, got healthy_reward 1.0 in lane 0 and 1 in lane 1",
        ),
        (
            lambda: lanes(CHEETAH, [0]) + lanes(CHEETAH, [0], xml_file="walker2d_v5.xml"),
            "same model",
        ),
    ],
)
def test_other_lanes_are_refused(make: Callable[[], Lanes], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        MujocoVectorEnv(make())


def test_actions_of_another_shape_are_refused() -> None:
    env = MujocoVectorEnv(lanes(HOPPER, [0, 0]))
    env.reset(seed=0)
    with pytest.raises(InvalidAction, match=r"expected shape \(2, 3\), got \(3,\)"):
        env.step(np.zeros(3, np.float32))


@pytest.mark.parametrize("env_id", MUJOCO_IDS)
def test_an_environment_as_it_is(env_id: str) -> None:
    ours = vector_of(Stationary(env_id), 3, 1)
    assert type(ours) is MujocoVectorEnv
    theirs = gym.make_vec(env_id, 3, vectorization_mode="sync")
    assert bits(ours.reset(seed=0)) == bits(theirs.reset(seed=0))
    for action in chosen(ours, 20):
        assert bits(ours.step(action)) == bits(theirs.step(action))
    assert ours.get_attr("_max_episode_steps") == theirs.get_attr("_max_episode_steps")


def test_benchmarks_use_it_unless_they_draw() -> None:
    assert clrl.envs  # registers them
    for options, expected in (({}, MujocoVectorEnv), ({"render_mode": "rgb_array"}, SyncVectorEnv)):
        env = gym.make_vec("clrl/SlipperyAnt-v0", 2, **options)
        assert type(env.unwrapped) is expected
