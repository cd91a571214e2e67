"""The exact state of a whole environment, its wrappers and physics included.

What `state_dict` returns holds plain values only. Written as JSON, read in another process and
loaded there into an environment made alike, it continues the first one to the bit.

The chain of wrappers is walked from the outside in, and every layer is asked for its own part:

* Wrappers, environments and vector environments with a pair of methods ``own_state_dict()`` and
  ``load_own_state_dict(state)``, or else ``state_dict()`` and ``load_state_dict(state)``, are
  asked through them (and for ``state_kind``, where they have that: in words, what a state
  has to come from). For a wrapper that is its own part, without what it wraps; one whose
  public ``state_dict`` stands for the whole chain has the ``own`` pair besides.
* Gymnasium's own are known here: the wrappers that ``gymnasium.make`` puts on, episode
  statistics, wrappers without state, the classic-control and the MuJoCo (v5) environments, and
  ``SyncVectorEnv``, as is our `MujocoVectorEnv`. LunarLander is known inside an `EpisodeLog`.
* Anything else is refused.

Not captured: what is seen but decides nothing (renderers, wall-clock times, the generators of
spaces), functions given to wrappers, and physics that were edited past
`clrl.envs.physics.parameters_of`.
"""

from __future__ import annotations

import importlib
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import wrappers
from gymnasium.vector import SyncVectorEnv, VectorEnv, VectorWrapper

from clrl.envs.episode_log import EpisodeLog
from clrl.envs.mujoco import MujocoVectorEnv
from clrl.envs.physics import declares, parameters_of
from clrl.envs.plain import from_plain, generator_state, load_generator, to_plain
from clrl.errors import UsageError

Environment = gym.Env[Any, Any] | VectorEnv[Any, Any, Any]


def state_dict(env: Environment) -> dict[str, Any]:
    """Everything that decides an environment's future, given the actions to come.

    Args:
        env: an environment or vector environment, wrapped or not, in an episode or before the
            first.

    Returns:
        Plain values that JSON can write: ``kind``, the chain in words; ``versions`` of the
        packages that the future depends on; ``layers``, one state each, from the outside in.

    Raises:
        UsageError: some layer cannot be captured.
    """
    layers = _layers(env)
    keepers = [_keeper_of(layer) for layer in layers]
    return {
        "kind": _kind(env),
        "versions": _versions(keepers),
        "layers": [keeper.save(layer) for keeper, layer in zip(keepers, layers, strict=True)],
    }


def load_state_dict(env: Environment, state: Mapping[str, Any]) -> None:
    """Put an environment where another one, made alike, was.

    Args:
        env: of the same kind; whatever it did before is forgotten.
        state: from `state_dict`.

    Raises:
        UsageError: see `check`; `env` is then as it was.
    """
    check(env, state)
    layers = _layers(env)
    # From the inside out: a wrapper finds what it wraps where it was.
    for layer, saved in reversed(list(zip(layers, state["layers"], strict=True))):
        _keeper_of(layer).load(layer, saved)


def check(env: Environment, state: Mapping[str, Any]) -> None:
    """Refuse a state that was not taken from an environment made alike.

    Args:
        env: an environment.
        state: from `state_dict`.

    Raises:
        UsageError: the chain is of another kind, or a package has another version.
    """
    keepers = [_keeper_of(layer) for layer in _layers(env)]
    if not isinstance(state, Mapping) or not {"kind", "versions", "layers"} <= state.keys():
        raise UsageError("environment state: expected what state_dict gave, got something else")
    if state["kind"] != (kind := _kind(env)):
        raise UsageError(f"environment state: it is of {state['kind']}, got {kind}")
    for package, version in _versions(keepers).items():
        if version != state["versions"][package]:
            raise UsageError(
                f"environment state: it was made with {package} {state['versions'][package]}, and "
                f"{version} need not go on alike; expected the same version"
            )


@dataclass(frozen=True)
class _Keeper:
    """How the state of one kind of layer is saved and loaded.

    Attributes:
        save: layer to its state.
        load: layer and state.
        packages: modules whose version decides the future, besides Gymnasium.
    """

    save: Callable[[Any], dict[str, Any]]
    load: Callable[[Any, Mapping[str, Any]], None]
    packages: tuple[str, ...] = ()


def _layers(env: Environment) -> list[Any]:
    """From the outermost wrapper to the bare environment, or to what holds its whole state."""
    layers: list[Any] = [env]
    while isinstance(layers[-1], (gym.Wrapper, VectorWrapper)):
        if isinstance(layers[-1], EpisodeLog):
            break
        layers.append(layers[-1].env)
    return layers


def _kind(env: Environment) -> str:
    """The chain in words, such as ``TimeLimit > OrderEnforcing > CartPoleEnv(CartPole-v1)``."""
    return " > ".join(_kind_of_layer(layer) for layer in _layers(env))


def _kind_of_layer(layer: Any) -> str:
    if hasattr(layer, "state_kind"):
        return str(layer.state_kind)
    name = type(layer).__qualname__
    if isinstance(layer, SyncVectorEnv):
        kinds = [_kind(env) for env in layer.envs]
        inside = f"{len(kinds)} x {kinds[0]}" if len(set(kinds)) == 1 else ", ".join(kinds)
        return f"{name}({layer.autoreset_mode.value}, {inside})"
    if type(layer) is wrappers.TimeLimit:
        return f"{name}({layer._max_episode_steps})"
    if isinstance(layer, EpisodeLog):
        return f"{name} > {_kind_of_layer(layer.env)}"
    if isinstance(layer, (gym.Wrapper, VectorWrapper)) or layer.spec is None:
        return name
    return f"{name}({layer.spec.id})"


def _versions(keepers: list[_Keeper]) -> dict[str, str]:
    packages = {"gymnasium", *(package for keeper in keepers for package in keeper.packages)}
    return {name: str(importlib.import_module(name).__version__) for name in sorted(packages)}


def _keeper_of(layer: Any) -> _Keeper:
    if isinstance(layer, EpisodeLog):
        return _EPISODE_LOG
    if hasattr(layer, "own_state_dict"):
        return _OWN
    if hasattr(layer, "state_dict"):
        return _DECLARED if declares(layer) else _PUBLIC
    name = _name(type(layer))
    if name in _KEEPERS:
        return _KEEPERS[name]
    hint = _HINTS.get(name, "giving it state_dict() and load_state_dict(state) helps")
    raise UsageError(f"environment state: {type(layer).__name__} cannot be captured; {hint}")


def _name(cls: type) -> str:
    return f"{cls.__module__}.{cls.__qualname__}"


# Layers with methods of their own


_OWN = _Keeper(
    lambda layer: dict(layer.own_state_dict()),
    lambda layer, saved: layer.load_own_state_dict(saved),
)
_EPISODE_LOG = _Keeper(_OWN.save, _OWN.load, ("Box2D",))
_PUBLIC = _Keeper(
    lambda layer: dict(layer.state_dict()),
    lambda layer, saved: layer.load_state_dict(saved),
)


def _load_declared(env: Any, saved: Mapping[str, Any]) -> None:
    parameters_of(env).load_state_dict(saved["physics"])
    env.load_state_dict(saved["own"])


_DECLARED = _Keeper(
    lambda env: {"physics": parameters_of(env).state_dict(), "own": dict(env.state_dict())},
    _load_declared,
)


# Gymnasium's wrappers


def _attributes(*names: str) -> _Keeper:
    """State that is in attributes; those that are not there yet are left out."""

    def save(layer: Any) -> dict[str, Any]:
        return {name: to_plain(vars(layer)[name]) for name in names if name in vars(layer)}

    def load(layer: Any, saved: Mapping[str, Any]) -> None:
        for name in names:
            if name in saved:
                setattr(layer, name, from_plain(saved[name]))
            else:
                vars(layer).pop(name, None)

    return _Keeper(save, load)


def _statistics(restart_clock: Callable[[Any], None], *names: str) -> _Keeper:
    """Episode statistics: the times of past episodes are gone, the present one starts anew."""
    attributes = _attributes(
        "episode_count",
        "episode_returns",
        "episode_lengths",
        "return_queue",
        "length_queue",
        *names,
    )

    def load(layer: Any, saved: Mapping[str, Any]) -> None:
        attributes.load(layer, saved)
        layer.time_queue.clear()
        restart_clock(layer)

    return _Keeper(attributes.save, load)


def _load_checker(layer: Any, saved: Mapping[str, Any]) -> None:
    """The checker only warns, and what it would compare the next step with is gone."""
    layer.checked_step = layer.checked_data_reuse = True


_STATELESS = (
    wrappers.ClipAction,
    wrappers.ClipReward,
    wrappers.DiscretizeAction,
    wrappers.DiscretizeObservation,
    wrappers.DtypeObservation,
    wrappers.FilterObservation,
    wrappers.FlattenObservation,
    wrappers.GrayscaleObservation,
    wrappers.RepeatAction,
    wrappers.RescaleAction,
    wrappers.RescaleObservation,
    wrappers.ReshapeObservation,
    wrappers.ResizeObservation,
    wrappers.TransformAction,
    wrappers.TransformObservation,
    wrappers.TransformReward,
    wrappers.vector.ClipAction,
    wrappers.vector.ClipReward,
    wrappers.vector.DtypeObservation,
    wrappers.vector.FilterObservation,
    wrappers.vector.FlattenObservation,
    wrappers.vector.RescaleAction,
    wrappers.vector.RescaleObservation,
    wrappers.vector.ReshapeObservation,
    wrappers.vector.TransformAction,
    wrappers.vector.TransformObservation,
    wrappers.vector.TransformReward,
)


# Gymnasium's environments


def _classic(*names: str) -> _Keeper:
    attributes = _attributes(*names)

    def save(env: Any) -> dict[str, Any]:
        return {
            "np_random": generator_state(env),
            "physics": parameters_of(env).state_dict(),
            "attributes": attributes.save(env),
        }

    def load(env: Any, saved: Mapping[str, Any]) -> None:
        load_generator(env, saved["np_random"])
        parameters_of(env).load_state_dict(saved["physics"])
        attributes.load(env, saved["attributes"])

    return _Keeper(save, load)


def _mujoco(*arrays: str) -> _Keeper:
    """A MuJoCo environment.

    The integration state decides how the simulation goes on. `arrays` are those of ``mjData``
    that the environment's reward and observation read besides qpos, qvel and ctrl: they date
    from within the last step, and cannot be computed again from the state after it. ``xpos``
    of Ant and ``xipos`` of Humanoid decide the next reward; the others belong to the present
    observation alone.
    """

    def save(env: Any) -> dict[str, Any]:
        mujoco = importlib.import_module("mujoco")
        what = mujoco.mjtState.mjSTATE_INTEGRATION
        integration = np.empty(mujoco.mj_stateSize(env.model, what))
        mujoco.mj_getState(env.model, env.data, integration, what)
        return {
            "np_random": generator_state(env),
            "model": env.model.signature,
            "physics": parameters_of(env).state_dict(),
            "integration": integration.tolist(),
            "arrays": {name: getattr(env.data, name).tolist() for name in arrays},
        }

    def load(env: Any, saved: Mapping[str, Any]) -> None:
        if saved["model"] != env.model.signature:
            raise UsageError(f"environment state: it is of another model than {env.fullpath}")
        mujoco = importlib.import_module("mujoco")
        load_generator(env, saved["np_random"])
        parameters_of(env).load_state_dict(saved["physics"])
        what = mujoco.mjtState.mjSTATE_INTEGRATION
        mujoco.mj_setState(env.model, env.data, np.array(saved["integration"]), what)
        for name in arrays:
            getattr(env.data, name)[:] = saved["arrays"][name]

    return _Keeper(save, load, ("mujoco",))


def _save_vector(env: Any) -> dict[str, Any]:
    return {
        "envs": [state_dict(one) for one in env.envs],
        "autoreset": to_plain(env._autoreset_envs),
        # A reset of some lanes alone returns the last observations of the others again.
        "observations": to_plain(env._env_obs),
    }


def _load_vector(env: Any, saved: Mapping[str, Any]) -> None:
    for one, state in zip(env.envs, saved["envs"], strict=True):
        load_state_dict(one, state)
    env._autoreset_envs = from_plain(saved["autoreset"])
    env._env_obs = from_plain(saved["observations"])


# Environments by name: Box2D and MuJoCo are loaded by those who use them alone.
_CLASSIC = "gymnasium.envs.classic_control"
_MUJOCO = "gymnasium.envs.mujoco"
_HUMANOID = ("xipos", "cinert", "cvel", "qfrc_actuator", "cfrc_ext")

_KEEPERS: dict[str, _Keeper] = {
    **{_name(cls): _attributes() for cls in _STATELESS},
    _name(wrappers.Autoreset): _attributes("autoreset"),
    _name(wrappers.OrderEnforcing): _attributes("_has_reset"),
    _name(wrappers.PassiveEnvChecker): _Keeper(lambda layer: {}, _load_checker),
    _name(wrappers.RecordEpisodeStatistics): _statistics(
        lambda layer: setattr(layer, "episode_start_time", time.perf_counter())
    ),
    _name(wrappers.TimeLimit): _attributes("_elapsed_steps"),
    _name(wrappers.vector.RecordEpisodeStatistics): _statistics(
        lambda layer: layer.episode_start_times.fill(time.perf_counter()), "prev_dones"
    ),
    f"{_CLASSIC}.acrobot.AcrobotEnv": _classic("state"),
    f"{_CLASSIC}.cartpole.CartPoleEnv": _classic("state", "steps_beyond_terminated"),
    f"{_CLASSIC}.continuous_mountain_car.Continuous_MountainCarEnv": _classic("state"),
    f"{_CLASSIC}.mountain_car.MountainCarEnv": _classic("state"),
    f"{_CLASSIC}.pendulum.PendulumEnv": _classic("state", "last_u"),
    f"{_MUJOCO}.ant_v5.AntEnv": _mujoco("xpos", "cfrc_ext"),
    f"{_MUJOCO}.half_cheetah_v5.HalfCheetahEnv": _mujoco(),
    f"{_MUJOCO}.hopper_v5.HopperEnv": _mujoco(),
    f"{_MUJOCO}.humanoid_v5.HumanoidEnv": _mujoco(*_HUMANOID),
    f"{_MUJOCO}.humanoidstandup_v5.HumanoidStandupEnv": _mujoco(*_HUMANOID),
    f"{_MUJOCO}.inverted_double_pendulum_v5.InvertedDoublePendulumEnv": _mujoco("qfrc_constraint"),
    f"{_MUJOCO}.inverted_pendulum_v5.InvertedPendulumEnv": _mujoco(),
    f"{_MUJOCO}.pusher_v5.PusherEnv": _mujoco("xpos"),
    f"{_MUJOCO}.reacher_v5.ReacherEnv": _mujoco("xpos"),
    f"{_MUJOCO}.swimmer_v5.SwimmerEnv": _mujoco(),
    f"{_MUJOCO}.walker2d_v5.Walker2dEnv": _mujoco(),
    _name(SyncVectorEnv): _Keeper(_save_vector, _load_vector),
    _name(MujocoVectorEnv): _Keeper(_save_vector, _load_vector),
}
_HINTS = {
    "gymnasium.envs.box2d.lunar_lander.LunarLander": (
        "put clrl.envs.EpisodeLog directly around it when it is made"
    ),
    "gymnasium.vector.async_vector_env.AsyncVectorEnv": (
        "its environments live in other processes; SyncVectorEnv can be"
    ),
}
