"""Makes the environments of benchmarks, for one learner or several."""

from __future__ import annotations

import inspect
from typing import Any

import gymnasium as gym
from gymnasium.vector import AutoresetMode, SyncVectorEnv, VectorEnv

from clrl.envs.classic import VECTOR_ENVS
from clrl.envs.control import observations, physics, tasks
from clrl.envs.control.base import Benchmark, Env, changes_of, limited
from clrl.envs.control.registered import Registered
from clrl.envs.mujoco import MUJOCO_IDS, MujocoVectorEnv
from clrl.envs.nonstationary import NonStationary, NonStationaryVector, taken_apart
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
    recipe: Benchmark,
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
    if BENCHMARKS.get(type(recipe).__name__) is type(recipe):
        name, options = env_id(type(recipe).__name__), as_keywords(recipe)
        if arrays is not None:
            options["arrays"] = arrays
        if render_mode is not None:
            options["render_mode"] = render_mode
        return gym.make_vec(
            name, num_envs=num_envs, worlds=worlds, autoreset_mode=autoreset_mode, **options
        )
    return _vector(recipe, num_envs, worlds, None, render_mode, autoreset_mode, arrays)


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
    env = recipe.make_base(render_mode)
    for change, schedule in changes_of(recipe):
        env = NonStationary(env, change, schedule, reveal_task=reveal_task, task_seed=task_seed)
    return env


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
) -> VectorEnv[Any, Any, Any]:
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
    env = limited(recipe.make_base(render_mode), recipe.time_limit())
    for change, schedule in changes_of(recipe):
        env = NonStationary(env, change, schedule)
    return env


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
) -> VectorEnv[Any, Any, Any]:
    """See `make_vector`."""
    if num_envs < 1:
        raise UsageError(f"num_envs: expected an integer >= 1, got {num_envs}")
    changes = changes_of(recipe)
    limit = recipe.time_limit() if max_episode_steps is None else max_episode_steps
    if limit == -1:
        limit = None
    base = recipe.known if isinstance(recipe, Registered) else recipe.base
    inside: list[list[dict[str, Any]]] = []  # of each lane, the changes that its maker made
    env: VectorEnv[Any, Any, Any]
    if base in VECTOR_ENVS and render_mode is None:
        env = VECTOR_ENVS[base](
            num_envs,
            max_episode_steps=limit or NEVER,
            autoreset_mode=autoreset_mode,
            arrays=arrays,
        )
    else:

        def lane() -> Env:
            one, made_with = taken_apart(limited(recipe.make_base(render_mode), limit))
            inside.append(made_with)
            return one

        ours = base in MUJOCO_IDS and render_mode is None
        make_lanes = MujocoVectorEnv if ours else SyncVectorEnv
        env = make_lanes([lane] * num_envs, autoreset_mode=autoreset_mode)
    if any(one != inside[0] for one in inside):
        raise UsageError(
            f"{type(recipe).__name__}: expected lanes that change alike, got {inside[0]} and others"
        )
    for made_with in inside[0] if inside else []:
        env = NonStationaryVector(env, worlds=worlds, **made_with)
    for change, schedule in changes:
        env = NonStationaryVector(
            env, change, schedule, worlds=worlds, reveal_task=reveal_task, task_seed=task_seed
        )
    return env
