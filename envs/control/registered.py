"""Any environment that Gymnasium knows, by its id: as it is, or changing as the user says."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import gymnasium as gym

from clrl.envs.changes import Change
from clrl.envs.classic import VECTOR_ENVS
from clrl.envs.control.base import Benchmark, Env, bare, deprecations_muted
from clrl.envs.episode_log import EpisodeLog
from clrl.envs.mujoco import MUJOCO_IDS
from clrl.envs.physics import parameters_of
from clrl.envs.physics.lunar_lander import LunarLanderParameters
from clrl.envs.schedules import Schedule
from clrl.envs.tasks import Tasks
from clrl.envs.written import is_pair, read, write
from clrl.errors import UsageError, shown
from clrl.registry import check_trusted

_LIMIT = "max_episode_steps"


class Registered(Benchmark):
    """A benchmark whose environment is made by its id.

    Attributes:
        id: as ``gymnasium.make`` takes it; several for `Tasks` to switch between.
    """

    id: str | tuple[str, ...]

    def keywords(self) -> dict[str, Any]:
        """Keywords for ``gymnasium.make``."""
        return {}

    @property
    def known(self) -> str:
        """The id, where there is a faster vector form of its environments; else empty."""
        fast = self.id in MUJOCO_IDS or (self.id in VECTOR_ENVS and not self.base_options())
        return self.id if fast and isinstance(self.id, str) else ""

    def base_options(self) -> dict[str, Any]:
        """Keywords for the environment itself."""
        return {key: value for key, value in self.keywords().items() if key != _LIMIT}

    def time_limit(self) -> int | None:
        """In steps; None for none, or where the environment is made with its own."""
        if not self.known:
            return None
        limit = self.keywords().get(_LIMIT)
        return (
            gym.spec(self.known).max_episode_steps
            if limit is None
            else limit
            if limit > 0
            else None
        )

    def make_base(self, render_mode: str | None) -> Env:
        """The environment; in its own time limit unless it is one of the `known`.

        Raises:
            UsageError: Gymnasium does not know the id or cannot make the environment.
        """
        options = self.keywords() | ({} if render_mode is None else {"render_mode": render_mode})
        try:
            if self.known:
                options.pop(_LIMIT, None)
                return bare(self.known, **options)
            with deprecations_muted():
                if not isinstance(self.id, str):
                    return Tasks([_importable(id) for id in self.id], render_mode)
                return _logged(gym.make(_importable(self.id), disable_env_checker=True, **options))
        except (gym.error.Error, ModuleNotFoundError) as error:
            raise UsageError(f"benchmark.id: {self.id}: {error}") from error
        except TypeError as error:
            if not options:
                raise
            raise UsageError(f"benchmark.options: {self.id}: {error}") from error


@dataclass(frozen=True)
class Stationary(Registered):
    """Any environment that Gymnasium knows, as it is: one task that lasts for ever.

    Where its maker wraps it in `NonStationary`, the lanes of a learner share one world.

    Attributes:
        id: its id; ``module:id`` imports the module first.
    """

    id: str = "CartPole-v1"

    def __post_init__(self) -> None:
        """Check; see `Benchmark.__post_init__`."""
        _check_id(self.id)
        super().__post_init__()

    def change(self) -> Sequence[tuple[Change, Schedule]]:
        """Nothing."""
        return ()


@dataclass(frozen=True)
class Changing(Registered):
    """Any environment that Gymnasium knows, changing as you say.

    A change says what changes, when and to what (``clrl list changes``, ``clrl list schedules``)::

        {change: physics, names: [gravity], when: {every_steps: 50_000}, to: {uniform: [5, 15]}}

    Several changes are made around one another, the first one inside; each has a sequence and a
    clock of its own. All lanes of a learner share one world. Observations, actions and rewards are
    those of the environment.

    Source: ours.

    Attributes:
        id: the environment's id; ``module:id`` imports the module first. Several ids are whole
            tasks for the change switch-task, in `Tasks`.
        changes: one or several, each a mapping with change, when and to, and start: drawn or
            unchanged; from Python also pairs such as ``(Physics("gravity"), Schedule(...))``.
        options: keywords for ``gymnasium.make``, such as ``max_episode_steps``; -1 for no limit.
    """

    id: str | tuple[str, ...]
    changes: tuple[Any, ...] = field(metadata={"metavar": "'[{...}, ...]'"})
    options: Mapping[str, Any] | None = field(default=None, metadata={"metavar": "'{...}'"})

    def __post_init__(self) -> None:
        """Check, and read the changes.

        Raises:
            UsageError: an unknown name, or a value that does not fit.
        """
        if isinstance(self.id, (list, tuple)):
            object.__setattr__(self, "id", tuple(self.id))
            if self.options:
                raise UsageError(f"options: expected none with several ids, got {self.options}")
        for id in self.id if isinstance(self.id, tuple) else [self.id]:
            _check_id(id)
        given: Any = self.changes
        if isinstance(given, Mapping) or is_pair(given):
            given = [given]
        if not isinstance(given, (list, tuple)) or not given:
            raise UsageError(f"changes: expected a list of one change or more, got {shown(given)}")
        pairs = tuple(read(one, f"changes[{index}]") for index, one in enumerate(given))
        object.__setattr__(self, "changes", pairs)
        limit = self.keywords().get(_LIMIT)
        if limit is not None and (type(limit) is not int or (limit < 1 and limit != -1)):
            raise UsageError(
                f"options.{_LIMIT}: expected an integer >= 1, or -1 for none, got {shown(limit)}"
            )
        super().__post_init__()

    def keywords(self) -> dict[str, Any]:
        """See `Registered.keywords`."""
        return dict(self.options or {})

    def change(self) -> Sequence[tuple[Change, Schedule]]:
        """All changes, from the inside out."""
        return self.changes

    def to_dict(self) -> dict[str, Any]:
        """Plain data from which this can be made again.

        Raises:
            UsageError: a change or schedule is of a class that no module holds.
        """
        options = None if self.options is None else dict(self.options)
        return {
            "id": self.id,
            "changes": [write(*pair) for pair in self.changes],
            "options": options,
        }


def _importable(id: str) -> str:
    """An id that Gymnasium can look up; a module in it may lie in the current folder."""
    if ":" in id and os.getcwd() not in sys.path:
        sys.path.append(os.getcwd())
    return id


def _check_id(id: Any) -> None:
    if not isinstance(id, str) or not id:
        raise UsageError(f"id: expected the id of an environment, such as CartPole-v1, got {id!r}")
    if ":" in id:
        check_trusted(id)


def _logged(env: Env) -> Env:
    """An environment with a log where its state could not be had without: LunarLander."""
    if type(env.unwrapped).__name__ != "LunarLander":
        return env
    outside: Any = env
    while isinstance(outside, gym.Wrapper) and outside.env is not env.unwrapped:
        outside = outside.env
    if isinstance(outside, EpisodeLog) or not isinstance(parameters_of(env), LunarLanderParameters):
        return env
    outside.env = EpisodeLog(env.unwrapped)
    return env
