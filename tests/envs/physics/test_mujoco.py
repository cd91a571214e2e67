"""MuJoCo: the values reach the model, decide it to the bit, and move the bodies."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from clrl.envs.physics import parameters_of
from clrl.errors import UsageError

mujoco = pytest.importorskip("mujoco")

IDS = sorted(
    name
    for name, spec in gym.registry.items()
    if name.endswith("-v5") and "envs.mujoco" in str(spec.entry_point)
)
every_env = pytest.mark.parametrize("name", IDS)


@pytest.fixture(autouse=True)
def _folder_for_its_log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """MuJoCo writes warnings about models to a file in the current folder."""
    monkeypatch.chdir(tmp_path)


def make(name: str, **options: Any) -> Any:
    return gym.make(name, **options).unwrapped


def bits(env: Any) -> bytes:
    """The whole model, as MuJoCo saves it."""
    buffer = np.zeros(mujoco.mj_sizeModel(env.model), np.uint8)
    mujoco.mj_saveModel(env.model, None, buffer)
    return buffer.tobytes()


def act(env: Any, steps: int, seed: int = 0) -> NDArray[np.float64]:
    rng = np.random.default_rng(seed)
    low, high = env.action_space.low, env.action_space.high
    actions = rng.uniform(low, high, (steps, *low.shape)).astype(np.float32)
    return np.array([env.step(action)[0] for action in actions])


def test_all_of_gymnasiums_environments_are_here() -> None:
    assert len(IDS) == 11


@every_env
def test_a_value_a_then_b_then_a(name: str) -> None:
    env = make(name)
    physics = parameters_of(env)
    built = bits(env)
    assert {"friction", "gravity", "wind", "mass", "strength"} <= physics.known.keys()
    for one in physics.known:
        value = physics.get(one)
        physics.set(one, 1.7)
        first = bits(env)
        assert first != built, one
        physics.set(one, 0.3)
        assert bits(env) != first
        physics.set(one, 1.7)
        assert bits(env) == first
        if one == "friction":  # the model's geoms may differ
            physics.load_state_dict({})
        else:
            physics.set(one, value)
        assert bits(env) == built, one


changes = st.lists(
    st.tuples(
        st.sampled_from(
            ["mass", "mass/torso", "mass/thigh", "damping", "damping/leg_joint", "strength"]
            + ["strength/foot_joint", "friction", "gravity", "wind"]
        ),
        st.sampled_from([0.1, 0.7, 1.0, 1 / 3, 2.5]),
    ),
    max_size=12,
)


@settings(deadline=None, max_examples=25)
@given(changes=changes)
def test_neither_order_nor_history_matter(changes: list[tuple[str, float]]) -> None:
    env, straight, loaded = (make("Hopper-v5") for _ in range(3))
    for name, value in changes:
        parameters_of(env).set(name, value)
    for name, value in sorted(dict(changes).items()):
        parameters_of(straight).set(name, value)
    parameters_of(loaded).set("mass/foot", 3)
    parameters_of(loaded).load_state_dict(parameters_of(env).state_dict())
    assert bits(env) == bits(straight) == bits(loaded)


def test_factors_on_all_and_on_a_part_are_multiplied() -> None:
    env, built = make("Ant-v5"), make("Ant-v5").model
    physics = parameters_of(env)
    physics.set("mass/torso", 3)
    physics.set("mass", 2)
    torso = env.model.body("torso").id
    factors = np.where(np.arange(env.model.nbody) == torso, 6, 2)
    np.testing.assert_array_equal(env.model.body_mass, factors * built.body_mass)
    np.testing.assert_array_equal(env.model.body_inertia, factors[:, None] * built.body_inertia)


# In Ant and Hopper mass comes from density; twice the density is twice the mass, exactly.
@pytest.mark.parametrize("name", ["Ant-v5", "Hopper-v5"])
def test_mass_is_as_if_compiled_with_another_density(name: str) -> None:
    env = make(name)
    parameters_of(env).set("mass", 2)
    spec = mujoco.MjSpec.from_file(env.fullpath)
    for geom in spec.geoms:
        geom.density *= 2
    compiled = spec.compile()
    for field in dir(compiled):
        if isinstance(array := getattr(compiled, field), np.ndarray):
            np.testing.assert_array_equal(getattr(env.model, field), array, err_msg=field)


@pytest.mark.parametrize("name", ["Ant-v5", "HalfCheetah-v5", "Hopper-v5"])
@pytest.mark.parametrize("friction", [0.05, 3.0])  # the models have 0.4 to 2
def test_contacts_have_the_friction(name: str, friction: float) -> None:
    env = make(name, **({"terminate_when_unhealthy": False} if name != "HalfCheetah-v5" else {}))
    env.reset(seed=0)
    parameters_of(env).set("friction", friction)
    floor, seen = env.model.geom("floor").id, 0
    for step in range(60):
        act(env, 1, seed=step)
        for contact in env.data.contact[: env.data.ncon]:
            if floor in contact.geom:
                seen += 1
                np.testing.assert_array_equal(contact.friction[:2], friction)
    assert seen > 10


def test_pairs_have_the_friction_too(tmp_path: Path) -> None:
    env = ball(tmp_path)
    physics = parameters_of(env)
    assert physics.get("friction") == 1.5
    for friction in (0.25, 2.5):
        physics.set("friction", friction)
        env.reset(seed=0)
        (contact,) = env.data.contact
        np.testing.assert_array_equal(contact.friction, [friction, friction, 0.1, 0.2, 0.3])


def test_unnamed_parts() -> None:
    known = parameters_of(make("Ant-v5")).known
    assert {"mass/torso", "damping/hip_1", "strength/hip_1"} <= known.keys()
    assert not any(name.endswith("/") for name in known)


def test_unknown_parts_are_refused_by_name() -> None:
    physics = parameters_of(make("InvertedPendulum-v5"))
    with pytest.raises(UsageError, match="^physics: expected one of mass/cart, mass/pole, got "):
        physics.set("mass/wheel", 2)
    with pytest.raises(UsageError, match="friction, gravity, wind, mass, damping, strength, got"):
        physics.set("masses", 2)


def test_factors_on_nothing_are_not_offered() -> None:
    assert "damping" not in parameters_of(make("Swimmer-v5")).known  # no joint is damped
    assert "damping/root" not in parameters_of(make("Ant-v5")).known
    assert "mass/world" not in parameters_of(make("Ant-v5")).known


def test_gravity_is_the_acceleration_of_a_fall(tmp_path: Path) -> None:
    env = ball(tmp_path)
    parameters_of(env).set("gravity", 3)
    env.set_state(env.init_qpos + np.eye(7)[2], np.zeros(6))  # a metre up, at rest
    np.testing.assert_allclose(env.data.qacc[:3], [0, 0, -3], atol=1e-12)


def test_other_components_of_gravity_stay() -> None:
    env = make("InvertedDoublePendulum-v5")
    assert parameters_of(env).get("gravity") == 9.81
    parameters_of(env).set("gravity", 3)
    np.testing.assert_array_equal(env.model.opt.gravity, [1e-5, 0, -3])


@every_env
def test_strength_scales_what_motors_do(name: str) -> None:
    env = make(name)
    env.reset(seed=0)
    env.data.ctrl[:] = env.action_space.high
    mujoco.mj_forward(env.model, env.data)
    built = env.data.qfrc_actuator.copy()
    parameters_of(env).set("strength", 0.25)
    mujoco.mj_forward(env.model, env.data)
    assert built.any()
    np.testing.assert_array_equal(env.data.qfrc_actuator, 0.25 * built)


def test_damping_scales_what_slows_joints() -> None:
    env = make("Ant-v5")
    env.reset(seed=0)
    built = env.data.qfrc_damper.copy()
    parameters_of(env).set("damping", 2)
    parameters_of(env).set("damping/hip_2", 0)
    mujoco.mj_forward(env.model, env.data)
    hip = env.model.joint("hip_2").dofadr[0]
    expected = np.where(np.arange(14) == hip, 0, 2 * built)
    assert built[hip]
    np.testing.assert_array_equal(env.data.qfrc_damper, expected)


def test_wind_pushes_along_x_and_brings_the_air_with_it() -> None:
    env = make("Ant-v5")
    physics = parameters_of(env)
    for wind in (10, -10):
        physics.set("wind", wind)
        env.reset(seed=0)
        env.set_state(env.init_qpos, np.zeros(14))
        assert np.sign(env.data.qfrc_fluid[0]) == np.sign(wind)
        assert (env.model.opt.density, env.model.opt.viscosity) == (1.2, 1.8e-5)
    physics.set("wind", 0)
    env.set_state(env.init_qpos, np.ones(14))
    assert not env.data.qfrc_fluid.any()
    assert (env.model.opt.density, env.model.opt.viscosity) == (0, 0)


def test_wind_in_a_medium_leaves_the_medium() -> None:
    env = make("Swimmer-v5")
    medium = (env.model.opt.density, env.model.opt.viscosity)
    assert all(medium)
    parameters_of(env).set("wind", 2)
    assert (env.model.opt.density, env.model.opt.viscosity) == medium


@pytest.mark.parametrize(
    ("one", "value"),
    [("friction", 0.2), ("gravity", 5), ("wind", 8), ("mass", 2), ("damping", 3), ("strength", 2)],
)
def test_values_matter_from_the_next_step_on_and_after_resets(one: str, value: float) -> None:
    env, built = make("HalfCheetah-v5"), make("HalfCheetah-v5")
    for _ in range(2):
        start = [each.reset(seed=4)[0] for each in (env, built)]
        np.testing.assert_array_equal(*start)
        if parameters_of(env).get(one) != value:
            act(env, 20)
            act(built, 20)
            before = env.data.qacc.copy(), env.data.xpos.copy(), env.data.qacc_warmstart.copy()
            parameters_of(env).set(one, value)
            after = env.data.qacc, env.data.xpos, env.data.qacc_warmstart
            for early, late in zip(before, after, strict=True):
                np.testing.assert_array_equal(early, late)
        assert not np.array_equal(act(env, 20), act(built, 20))


def ball(folder: Path) -> Any:
    """A ball on the floor, whose contact is an explicit pair."""
    from gymnasium.envs.mujoco import MujocoEnv

    class Ball(MujocoEnv):
        metadata = {"render_modes": ["human", "rgb_array", "depth_array", "rgbd_tuple"]}

        def reset_model(self) -> NDArray[np.float64]:
            self.set_state(self.init_qpos, self.init_qvel)
            observation: NDArray[np.float64] = self.data.qpos.copy()
            return observation

    path = folder / "ball.xml"
    path.write_text(
        """<mujoco><worldbody>
            <geom name="floor" type="plane" size="1 1 1" friction="0.5"/>
            <body><freejoint/><geom name="ball" size="0.1" pos="0 0 0.09"/></body>
        </worldbody>
        <contact>
            <pair geom1="floor" geom2="ball" condim="6" friction="1.5 1.4 0.1 0.2 0.3"/>
        </contact></mujoco>"""
    )
    return Ball(str(path), 1, observation_space=gym.spaces.Box(-np.inf, np.inf, (7,)))
