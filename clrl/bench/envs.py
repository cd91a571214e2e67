"""``clrl bench envs``: vector environments against stepping one by one.

Both work in turn in one process, so that a noisy machine slows them alike. Times are processor
seconds; what counts is the ratio.
"""

from __future__ import annotations

import importlib.util
import itertools
import statistics
import time
from collections.abc import Callable, Sequence
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.vector import VectorEnv
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import track
from rich.table import Column, Table

from clrl.envs import (
    Cycle,
    EverySteps,
    NonStationaryVector,
    Normal,
    OffsetObservation,
    Physics,
    Schedule,
)
from clrl.envs.classic import VECTOR_ENVS
from clrl.envs.control import Stationary, vector_of

NUM_ENVS = 128
ROUNDS = 7
GOAL = 20.0
STEPS = 60
"""Steps of one-by-one stepping in a round; arrays take twenty times as many."""
PHYSICS = {
    "CartPole-v1": "length",
    "Acrobot-v1": "link_mass_1",
    "MountainCar-v0": "gravity",
    "MountainCarContinuous-v0": "power",
    "Pendulum-v1": "mass",
}
MUJOCO = ("HalfCheetah-v5", "Ant-v5")
MUJOCO_ENVS = 16


def main() -> None:
    """Measure and print; takes about half a minute."""
    console = Console()
    if not console.is_terminal:
        console = Console(width=110)
    console.print(
        f"{NUM_ENVS} environments, random actions, resets included; one process, in turn, "
        "median processor time"
    )
    console.print(_classic(console))
    console.print(
        "steps of one environment a second; one by one: gymnasium.make_vec(..., "
        'vectorization_mode="sync"); offset and physics: the arrays inside NonStationaryVector, '
        "with offset observations and with one changing parameter, as a ratio to one by one"
    )
    if importlib.util.find_spec("mujoco") is None:
        console.print("MuJoCo is not installed: pip install 'clrl[mujoco]' to measure it")
        return
    console.print(_mujoco(console))
    console.print(
        f"{MUJOCO_ENVS} environments; microseconds of one step of one environment. ours: "
        "MujocoVectorEnv; loop: the same physics alone, mj_step and mj_rnePostConstraint called "
        "one by one, without resets; rollout: mujoco.rollout on one thread, physics alone"
    )


def _classic(console: Console) -> Table:
    table = Table(
        Column("environment", no_wrap=True),
        "one by one /s",
        "arrays /s",
        "ratio",
        "goal",
        "offset",
        "physics",
    )
    for env_id, vector in track(VECTOR_ENVS.items(), "classic control", console=console):
        seconds = _in_turn(
            [
                _stepper(gym.make_vec(env_id, NUM_ENVS, vectorization_mode="sync"), STEPS),
                _stepper(vector(NUM_ENVS), 20 * STEPS),
                _stepper(_offset(vector(NUM_ENVS)), 20 * STEPS),
                _stepper(_physics(vector(NUM_ENVS), PHYSICS[env_id]), 20 * STEPS),
            ]
        )
        single, arrays, offset, physics = (np.array(column) for column in seconds)
        table.add_row(
            env_id,
            f"{1 / np.median(single):,.0f}",
            f"{1 / np.median(arrays):,.0f}",
            f"{np.median(single / arrays):.0f}x",
            f"{GOAL:.0f}x",
            f"{np.median(single / offset):.0f}x",
            f"{np.median(single / physics):.0f}x",
        )
    return table


def _offset(env: VectorEnv[Any, Any, Any]) -> NonStationaryVector:
    return NonStationaryVector(
        env, OffsetObservation(), Schedule(EverySteps(100_000), Normal(0, 2))
    )


def _physics(env: VectorEnv[Any, Any, Any], name: str) -> NonStationaryVector:
    built = float(env.unwrapped.get_parameter(name)[0])  # type: ignore[attr-defined]
    schedule = Schedule(EverySteps(100_000, at_episode_end=True), Cycle([built, 1.5 * built]))
    return NonStationaryVector(env, Physics(name), schedule)


def _stepper(env: VectorEnv[Any, Any, Any], steps: int) -> Callable[[], float]:
    """What measures the processor seconds that a step of one environment takes."""
    env.reset(seed=0)
    env.action_space.seed(0)
    actions = itertools.cycle([env.action_space.sample() for _ in range(64)])

    def measure() -> float:
        start = time.process_time()
        for _ in range(steps):
            env.step(next(actions))
        return (time.process_time() - start) / (steps * env.num_envs)

    return measure


def _in_turn(measures: Sequence[Callable[[], float]]) -> list[list[float]]:
    """For each measure its figures of all rounds; the first round warms up and is dropped."""
    rounds = [[measure() for measure in measures] for _ in range(ROUNDS + 1)]
    return [list(column) for column in zip(*rounds[1:], strict=True)]


def _mujoco(console: Console) -> Table:
    import mujoco

    mujoco.set_mju_user_warning(lambda _: None)  # it tells of deprecations in Gymnasium's models
    table = Table(
        Column("environment", no_wrap=True),
        "one by one",
        "ours",
        "loop",
        "rollout",
        "rollout / loop",
    )
    for env_id in track(MUJOCO, "MuJoCo", console=console):
        measures = [
            _stepper(gym.make_vec(env_id, MUJOCO_ENVS, vectorization_mode="sync"), STEPS),
            _stepper(vector_of(Stationary(env_id), MUJOCO_ENVS, 1), STEPS),
            _loop(env_id),
            _rollout(env_id),
        ]
        columns = _in_turn(measures)
        times = [statistics.median(column) * 1e6 for column in columns]
        ratio = statistics.median(b / a for a, b in zip(*columns[2:], strict=True))
        table.add_row(env_id, *(f"{one:.1f}" for one in times), f"{ratio:.2f}")
    return table


def _bare(env_id: str) -> tuple[list[Any], NDArray[np.float64]]:
    """Environments after a reset, and actions for them, [steps, environments, nu]."""
    envs: list[Any] = [gym.make(env_id).unwrapped for _ in range(MUJOCO_ENVS)]
    for seed, env in enumerate(envs):
        env.reset(seed=seed)
    rng = np.random.default_rng(0)
    return envs, rng.uniform(-1, 1, (STEPS, MUJOCO_ENVS, envs[0].model.nu))


def _loop(env_id: str) -> Callable[[], float]:
    import mujoco

    envs, actions = _bare(env_id)

    def measure() -> float:
        start = time.process_time()
        for chosen in actions:
            for env, action in zip(envs, chosen, strict=True):
                env.data.ctrl[:] = action
                mujoco.mj_step(env.model, env.data, nstep=env.frame_skip)
                mujoco.mj_rnePostConstraint(env.model, env.data)
        return (time.process_time() - start) / (STEPS * MUJOCO_ENVS)

    return measure


def _rollout(env_id: str) -> Callable[[], float]:
    import mujoco
    from mujoco.rollout import Rollout

    envs, actions = _bare(env_id)
    models, skip = [env.model for env in envs], envs[0].frame_skip
    kind = mujoco.mjtState.mjSTATE_FULLPHYSICS
    state = np.empty((MUJOCO_ENVS, mujoco.mj_stateSize(models[0], kind)))
    for row, env in zip(state, envs, strict=True):
        mujoco.mj_getState(env.model, env.data, row, kind)
    pool, scratch = Rollout(nthread=0), mujoco.MjData(models[0])

    def measure() -> float:
        nonlocal state
        start = time.process_time()
        for chosen in actions:
            control = np.repeat(chosen[:, None], skip, axis=1)
            states, _ = pool.rollout(models, scratch, state, control)
            state = states[:, -1]
        return (time.process_time() - start) / (STEPS * MUJOCO_ENVS)

    return measure
