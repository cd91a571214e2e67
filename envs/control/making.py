"""Makes the environments of benchmarks, for one learner or several."""

from __future__ import annotations

import inspect
from typing import Any

import gymnasium as gym
from gymnasium.vector import AutoresetMode, SyncVectorEnv, VectorEnv

from clrl.envs.classic import VECTOR_ENVS
from clrl.envs.control import observations, physics, tasks
from clrl.envs.control.base import Benchmark, Env, Stationary, bare, deprecations_muted, limited
from clrl.envs.mujoco import MUJOCO_IDS, MujocoVectorEnv
from clrl.envs.nonstationary import NonStationary, NonStationaryVector
from clrl.envs.registration import env_id
from clrl.envs.schedules.when import NEVER
from clrl.errors import UsageError
from clrl.options import as_keywords

BENCHMARKS: dict[str, type[Benchmark]] = {
    name: value
    for module in (observations, physics, tasks)
    for name, value in vars(module).items()
    if isinstance(value, type) and issubclass(value, Benchmark) and not inspect.isabstract(value)
    if not name.startswith("_")
}
"""Name of a class to the class, for every benchmark of this package."""


def vector_of(
    recipe: Benchmark | Stationary,
    num_envs: int,
    worlds: int,
    autoreset_mode: AutoresetMode = AutoresetMode.NEXT_STEP,
    arrays: Any = None,
    render_mode: str | None = None,
) -> VectorEnv[Any, Any, Any]:
    """The vector environment of a benchmark, for one learner or several.

    Args:
        recipe: the benchmark.
        num_envs: lanes in all.
        worlds: learners; see `NonStationaryVector`.
        autoreset_mode: see ``gymnasium.vector.AutoresetMode``.
        arrays: what the physics of classic control is computed with in place of NumPy; see
            `clrl.envs.classic.ClassicVectorEnv`.
        render_mode: see ``gymnasium.make``; with one, lanes are stepped one by one.

    Raises:
        UsageError: there is no such environment, or an optional dependency is not installed.
    """
    if isinstance(recipe, Benchmark) and BENCHMARKS.get(type(recipe).__name__) is not type(recipe):
        return _vector(recipe, num_envs, worlds, None, render_mode, autoreset_mode, arrays)
    if isinstance(recipe, Benchmark):
        name, options = env_id(type(recipe).__name__), as_keywords(recipe)
        if arrays is not None:
            options["arrays"] = arrays
        if render_mode is not None:
            options["render_mode"] = render_mode
        return gym.make_vec(
            name, num_envs=num_envs, worlds=worlds, autoreset_mode=autoreset_mode, **options
        )
    if recipe.id in VECTOR_ENVS and render_mode is None:
        return VECTOR_ENVS[recipe.id](num_envs, autoreset_mode=autoreset_mode, arrays=arrays)
    try:
        if recipe.id in MUJOCO_IDS and render_mode is None:
            limit = gym.spec(recipe.id).max_episode_steps
            lanes = [lambda: limited(bare(recipe.id), limit)] * num_envs
            return MujocoVectorEnv(lanes, autoreset_mode=autoreset_mode)
        with deprecations_muted():
            return gym.make_vec(
                recipe.id,
                num_envs=num_envs,
                vectorization_mode="sync",
                vector_kwargs={"autoreset_mode": autoreset_mode},
                disable_env_checker=True,
                render_mode=render_mode,
            )
    except (gym.error.Error, ModuleNotFoundError) as error:
        raise UsageError(f"benchmark.id: {recipe.id}: {error}") from error


def make(
    benchmark: str,
    *,
    render_mode: str | None = None,
    reveal_task: bool = False,
    task_seed: int | None = None,
    **options: Any,
) -> Env:
    """Make a benchmark's environment; ``gymnasium.make`` calls this and adds the time limit.

    Args:
        benchmark: name of a class of this package.
        render_mode: see the Gymnasium environment.
        reveal_task: see `NonStationary`.
        task_seed: see `NonStationary`.
        options: the fields of the class.

    Raises:
        UsageError: an option is out of range, or an optional dependency is not installed.
    """
    recipe = BENCHMARKS[benchmark](**options)
    change, schedule = recipe.change()
    env = recipe.make_base(render_mode)
    return NonStationary(env, change, schedule, reveal_task=reveal_task, task_seed=task_seed)


def make_vector(
    benchmark: str,
    num_envs: int = 1,
    *,
    worlds: int = 1,
    max_episode_steps: int | None = None,
    render_mode: str | None = None,
    reveal_task: bool = False,
    task_seed: int | None = None,
    autoreset_mode: AutoresetMode | str = AutoresetMode.NEXT_STEP,
    arrays: Any = None,
    **options: Any,
) -> NonStationaryVector:
    """Make a benchmark's vector environment; ``gymnasium.make_vec`` calls this.

    CartPole, Acrobot, MountainCar and Pendulum are stepped as arrays, Ant, HalfCheetah, Hopper and
    Walker2d by `MujocoVectorEnv`, the others one by one.

    Args:
        benchmark: name of a class of this package.
        num_envs: lanes.
        worlds: see `NonStationaryVector`.
        max_episode_steps: time limit; that of the Gymnasium environment unless given, -1 for
            none.
        render_mode: see the Gymnasium environment.
        reveal_task: see `NonStationary`.
        task_seed: see `NonStationary`.
        autoreset_mode: see ``gymnasium.vector.AutoresetMode``.
        arrays: see `vector_of`.
        options: the fields of the class.

    Raises:
        UsageError: as for `make`, or `worlds` does not divide `num_envs`.
    """
    recipe = BENCHMARKS[benchmark](**options)
    return _vector(
        recipe,
        num_envs,
        worlds,
        max_episode_steps,
        render_mode,
        autoreset_mode,
        arrays,
        reveal_task,
        task_seed,
    )


def single_of(recipe: Benchmark, render_mode: str | None = None) -> Env:
    """The environment of a benchmark that need not be of this package, with its time limit."""
    change, schedule = recipe.change()
    limit = gym.spec(recipe.base).max_episode_steps if recipe.base else None
    return NonStationary(limited(recipe.make_base(render_mode), limit), change, schedule)


def _vector(
    recipe: Benchmark,
    num_envs: int,
    worlds: int,
    max_episode_steps: int | None,
    render_mode: str | None,
    autoreset_mode: AutoresetMode | str,
    arrays: Any,
    reveal_task: bool = False,
    task_seed: int | None = None,
) -> NonStationaryVector:
    """See `make_vector`."""
    change, schedule = recipe.change()
    if num_envs < 1:
        raise UsageError(f"num_envs: expected an integer >= 1, got {num_envs}")
    limit = max_episode_steps
    if limit is None and recipe.base:
        limit = gym.spec(recipe.base).max_episode_steps
    elif limit == -1:
        limit = None
    env: VectorEnv[Any, Any, Any]
    if recipe.base in VECTOR_ENVS and render_mode is None:
        env = VECTOR_ENVS[recipe.base](
            num_envs,
            max_episode_steps=limit or NEVER,
            autoreset_mode=autoreset_mode,
            arrays=arrays,
        )
    else:
        lanes = [lambda: limited(recipe.make_base(render_mode), limit)] * num_envs
        ours = recipe.base in MUJOCO_IDS and render_mode is None
        make_lanes = MujocoVectorEnv if ours else SyncVectorEnv
        env = make_lanes(lanes, autoreset_mode=autoreset_mode)
    return NonStationaryVector(
        env, change, schedule, worlds=worlds, reveal_task=reveal_task, task_seed=task_seed
    )
