"""What environments promise: benchmarks of control tasks, and anything that Gymnasium can make."""

from __future__ import annotations

import inspect
import json
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.utils.env_checker import check_env

from clrl.benchmarks import BENCHMARKS
from clrl.envs import NonStationary, NonStationaryVector, state
from clrl.envs.control import BENCHMARKS as OURS
from clrl.envs.control import Benchmark, Stationary, single_of, vector_of
from clrl.envs.control.plugin import benchmark_of
from clrl.envs.registration import env_id
from clrl.errors import UsageError
from clrl.registry import import_target
from clrl.testing.elsewhere import elsewhere
from clrl.testing.promises import Broken, Check, Subject, difference, load

_STEPS = 150
_ADVICE = "infinity|symmetric|normalized|different from the unwrapped"
"""What Gymnasium's checker advises: finite bounds, normalised actions and no wrapper."""


def check_environment(environment: Subject, **options: Any) -> tuple[str, ...]:
    """Hold an environment against what learners rely on.

    It passes Gymnasium's own checker; a seed and actions decide all that is seen, which is of the
    declared spaces; its state comes back in a new process, where it has one; changes happen at the
    steps that are announced; and side by side the lanes of one learner share a world, which is the
    same to the bit alone and beside others. A short ``task_length`` lets 150 steps see many tasks.

    Args:
        environment: a `clrl.envs.Benchmark` or a function that makes one (an environment with its
            changes), an environment's class or what makes one, a benchmark's name, or an id of
            Gymnasium (``module:id`` imports the module first).
        options: keywords for it.

    Returns:
        The promises that held. Where the state cannot be had, none speaks of it.

    Raises:
        Broken: the first that does not.
        UsageError: there is nothing of that name.
    """
    maker, name = _maker(environment, options)
    check = Check(name)
    with check.promise("made from its options"):
        env = maker.single()
        if not isinstance(env, gym.Env):
            raise Broken(f"expected a gymnasium.Env, got {type(env).__name__}")
        env.action_space.seed(7)
        actions = [env.action_space.sample() for _ in range(_STEPS)]
    with check.promise("passes Gymnasium's checker"), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=f".*({_ADVICE}).*")
        check_env(maker.single(), skip_render_check=True)
    check.own_randomness(lambda: _outcome(maker.single(), actions, 3))
    with check.promise("a seed begins everything anew"):
        one, two = maker.single(), maker.single()
        for seed in (3, 4):
            if where := difference(_outcome(one, actions, seed), _outcome(two, actions, seed)):
                raise Broken(f"seed {seed} twice differs at step {where}")
        if where := difference(_outcome(one, actions, 3), _outcome(maker.single(), actions, 3)):
            raise Broken(f"seed 3 after another seed differs at step {where}")
    made = maker.single()
    if isinstance(made, NonStationary) and not isinstance(made.env, NonStationary):
        _check_changes(check, maker, actions)
    _check_state(check, maker, actions)
    if maker.kind != "callable":
        _check_worlds(check, maker)
        _check_vector_state(check, maker)
    return tuple(check.held)


@dataclass(frozen=True)
class _Maker:
    """How environments of one kind are made; it can be sent to another process."""

    kind: str
    subject: Any
    options: Mapping[str, Any]

    def single(self) -> gym.Env[Any, Any]:
        """One environment."""
        if self.kind == "ours":
            return gym.make(env_id(self.subject.__name__), **self.options)
        if self.kind == "benchmark":
            return single_of(self._recipe())
        made: gym.Env[Any, Any] = (
            gym.make(self.subject, **self.options)
            if self.kind == "id"
            else self.subject(**self.options)
        )
        return made

    def vector(self, lanes: int, worlds: int) -> Any:
        """Lanes side by side, those of a world next to each other."""
        if self.kind == "ours":
            name = env_id(self.subject.__name__)
            return gym.make_vec(name, num_envs=lanes, worlds=worlds, **self.options)
        if self.kind == "benchmark":
            return vector_of(self._recipe(), lanes, worlds)
        return vector_of(Stationary(self.subject), lanes, worlds)

    def _recipe(self) -> Benchmark:
        recipe: Benchmark = benchmark_of(self.subject, str(self.subject))(**self.options)
        return recipe


def _maker(environment: Subject, options: Mapping[str, Any]) -> tuple[_Maker, str]:
    subject, name = environment, str(environment)
    if not isinstance(environment, str) or any(environment == one.name for one in BENCHMARKS):
        subject, name = load(environment, BENCHMARKS)
    elif ":" in environment:
        try:
            subject = import_target(environment, environment)
        except UsageError:
            gym.spec(environment)  # imports the module
    if isinstance(subject, str):
        return _Maker("id", subject, options), name
    made = benchmark_of(subject, name) if inspect.isfunction(subject) else subject
    if isinstance(made, type) and issubclass(made, Benchmark):
        kind = "ours" if OURS.get(subject.__name__) is subject else "benchmark"
        return _Maker(kind, subject, options), name
    return _Maker("callable", subject, options), name


def _plain(observation: Any) -> Any:
    return np.array(observation) if isinstance(observation, np.ndarray) else observation


def _outcome(env: gym.Env[Any, Any], actions: list[Any], seed: int | None) -> list[Any]:
    """All that is seen: of a reset with the seed, if there is one, and of every step."""
    seen: list[Any] = []

    def look(observation: Any, *rest: Any) -> None:
        if observation not in env.observation_space:
            raise Broken(f"step {len(seen)}: an observation that is not in the space")
        seen.append([_plain(observation), *rest])

    if seed is not None:
        look(env.reset(seed=seed)[0])
    for action in actions:
        observation, reward, terminated, truncated, info = env.step(action)
        if not np.isfinite(float(reward)):
            raise Broken(f"step {len(seen)}: a reward of {reward}")
        told = [info[key] for key in ("task", "task_changed") if isinstance(env, NonStationary)]
        look(observation, float(reward), bool(terminated), bool(truncated), *told)
        if terminated or truncated:
            look(env.reset()[0])
    return seen


def _check_changes(check: Check, maker: _Maker, actions: list[Any]) -> None:
    with check.promise("changes come at the announced steps"):
        env: Any = maker.single()
        env.reset(seed=3)
        task, announced = 0, env.get_wrapper_attr("preview")(1)
        for step, action in enumerate(actions, 1):
            _, _, terminated, truncated, info = env.step(action)
            before = task
            task = int(info["task"])
            due = announced[0].step if announced else None
            if task != before and due is not None and step - 1 != due and step != due:
                raise Broken(f"task {task} begins at step {step}, announced for {due}")
            if task == before and due is not None and step > due + 1:
                raise Broken(f"task {before} goes on at step {step}, past its end at {due}")
            if bool(info["task_changed"]) != (task != before):
                raise Broken(f"step {step}: task_changed is {info['task_changed']}")
            if task != before:
                announced = env.get_wrapper_attr("preview")(1)
            if terminated or truncated:
                _, info = env.reset()
                if int(info["task"]) != task:
                    task, announced = int(info["task"]), env.get_wrapper_attr("preview")(1)


def _check_state(check: Check, maker: _Maker, actions: list[Any]) -> None:
    env = maker.single()
    with check.promise("its state comes back in a new process"):
        done = _STEPS // 3
        _outcome(env, actions[:done], 6)
        try:
            saved = json.loads(json.dumps(state.state_dict(env)))
        except UsageError:
            saved = None
        if saved is not None:
            found = elsewhere(_future, maker, saved, actions[done:])
            if where := difference(_outcome(env, actions[done:], None), found):
                raise Broken(f"saved after step {done}, it differs at step {where} after that")
    if saved is None:
        check.held.pop()


def _future(maker: _Maker, saved: Any, actions: list[Any]) -> list[Any]:
    env = maker.single()
    state.load_state_dict(env, saved)
    return _outcome(env, actions, None)


def _steps(envs: Any, actions: list[Any], lanes: slice = slice(None)) -> list[Any]:
    seen = []
    for action in actions:
        observation, reward, terminated, truncated, info = envs.step(action)
        seen.append([np.array(one)[lanes] for one in (observation, reward, terminated, truncated)])
        if isinstance(envs, NonStationaryVector):
            seen[-1].append(np.array(info["task"])[lanes])
    return seen


def _check_worlds(check: Check, maker: _Maker) -> None:
    seeds = [11, 12, 5, 6]
    together, alone = maker.vector(4, 2), maker.vector(2, 1)
    together.action_space.seed(2)
    actions = [together.action_space.sample() for _ in range(60)]
    with check.promise("a world is the same alone and beside others"):
        starts = together.reset(seed=seeds)[0], alone.reset(seed=seeds[2:])[0]
        if difference(np.array(starts[0])[2:], np.array(starts[1])):
            raise Broken("their first observations differ")
        expected = _steps(alone, [np.array(action)[2:] for action in actions])
        if where := difference(expected, _steps(together, actions, slice(2, 4))):
            raise Broken(f"they differ at step {where}")
    if isinstance(together, NonStationaryVector):
        with check.promise("lanes of a learner share a world"):
            together.reset(seed=seeds)
            known: dict[Any, Any] = {}  # world and task (a drift's step) -> value
            for step, action in enumerate(actions):
                for lane, (task, value) in enumerate(
                    zip(together.task, together.value, strict=True)
                ):
                    key = (lane // 2, step if together.drifts else int(task))
                    if difference(known.setdefault(key, value), value):
                        raise Broken(f"lane {lane} is not in its world's task at step {step}")
                together.step(action)
    with check.promise("side by side as alone, up to rounding"):
        envs = maker.vector(3, 3)
        singles = [maker.single() for _ in range(3)]
        seeds = [11, 5, 8]
        _expect_close(
            envs.reset(seed=seeds)[0],
            [env.reset(seed=seed)[0] for env, seed in zip(singles, seeds, strict=True)],
            0,
        )
        envs.action_space.seed(2)
        ended = np.zeros(3, np.bool_)
        for step in range(120):
            action = envs.action_space.sample()
            observations, rewards, terminated, truncated, _ = envs.step(action)
            for lane, env in enumerate(singles):
                if ended[lane]:
                    alone_seen, _ = env.reset()
                    found = (0.0, False, False)
                else:
                    alone_seen, reward, over, cut, _ = env.step(action[lane])
                    found = (float(reward), over, cut)
                same = (bool(terminated[lane]), bool(truncated[lane])) == found[1:]
                if not same or not np.isclose(rewards[lane], found[0], rtol=1e-5, atol=1e-5):
                    raise Broken(f"lane {lane} differs in reward or end at step {step}")
                _expect_close(observations[lane], alone_seen, step)
            ended = terminated | truncated


def _expect_close(one: Any, two: Any, step: int) -> None:
    if not np.allclose(np.asarray(one), np.asarray(two), rtol=1e-4, atol=1e-4):
        raise Broken(f"observations differ at step {step}")


def _check_vector_state(check: Check, maker: _Maker) -> None:
    envs, other = maker.vector(4, 2), maker.vector(4, 2)
    envs.reset(seed=3)
    envs.action_space.seed(1)
    actions = [envs.action_space.sample() for _ in range(60)]
    _steps(envs, actions[:25])
    try:
        saved = json.loads(json.dumps(state.state_dict(envs)))
    except UsageError:
        return
    with check.promise("the state of its lanes goes on alike"):
        state.load_state_dict(other, saved)
        if where := difference(_steps(envs, actions[25:]), _steps(other, actions[25:])):
            raise Broken(f"they differ at step {where} after step 25")
