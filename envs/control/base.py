"""What a control benchmark is: an environment, and how it changes."""

from __future__ import annotations

import abc
import contextlib
import importlib
import importlib.util
import typing
from collections.abc import Iterator, Sequence
from typing import Any, ClassVar

import gymnasium as gym
import numpy as np
from annotated_types import Ge
from gymnasium.wrappers import OrderEnforcing, TimeLimit

from clrl.envs.changes import Change
from clrl.envs.schedules import Schedule
from clrl.envs.written import is_pair
from clrl.errors import UsageError, shown

Env = gym.Env[Any, Any]


class Benchmark(abc.ABC):
    """A control task and how it changes. Subclasses are frozen dataclasses.

    Attributes:
        base: id of the Gymnasium environment inside; empty where there are several.
        extra: the optional dependency that it needs; empty for none.
    """

    base: ClassVar[str] = ""
    extra: ClassVar[str] = ""

    def __post_init__(self) -> None:
        """Check the options.

        Raises:
            UsageError: one is not of its type or out of its range.
        """
        for name, declared in typing.get_type_hints(type(self), include_extras=True).items():
            if typing.get_origin(declared) is typing.Annotated:
                _check_option(name, declared, getattr(self, name))

    @abc.abstractmethod
    def change(self) -> tuple[Change, Schedule] | Sequence[tuple[Change, Schedule]]:
        """What changes, when and to what; of several changes a list, from the inside out."""

    def make_base(self, render_mode: str | None) -> Env:
        """The environment inside, without a time limit.

        Raises:
            UsageError: Gymnasium does not know it, or the optional dependency is not installed.
        """
        try:
            return bare(self.base, render_mode=render_mode, **self.base_options())
        except (gym.error.Error, ModuleNotFoundError) as error:
            missing = isinstance(error, gym.error.DependencyNotInstalled | ModuleNotFoundError)
            if not (missing and self.extra):
                raise UsageError(f"{type(self).__name__}: {self.base!r}: {error}") from error
            raise UsageError(
                f"{type(self).__name__} needs {self.extra}, which is not installed: "
                f"pip install 'clrl[{self.extra}]'"
            ) from error

    def time_limit(self) -> int | None:
        """Steps after which an episode ends: that of `base`; None for none."""
        try:
            return gym.spec(self.base).max_episode_steps if self.base else None
        except (gym.error.Error, ModuleNotFoundError) as error:
            raise UsageError(f"{type(self).__name__}: {self.base!r}: {error}") from error

    def base_options(self) -> dict[str, Any]:
        """Keywords for the environment inside."""
        return {}


def changes_of(recipe: Benchmark) -> Sequence[tuple[Change, Schedule]]:
    """All changes of a benchmark, from the inside out.

    Raises:
        UsageError: it gives something else.
    """
    given: Any = recipe.change()
    pairs = [given] if is_pair(given) else given
    if not isinstance(pairs, (list, tuple)) or not all(is_pair(pair) for pair in pairs):
        raise UsageError(
            f"{type(recipe).__name__}.change: expected (change, schedule), or a list of such "
            f"pairs, got {shown(given)}"
        )
    return pairs


def bare(base: str, render_mode: str | None = None, **options: Any) -> Env:
    """An environment as its maker made it, without Gymnasium's wrappers."""
    if render_mode is not None:  # some know nothing of it
        options["render_mode"] = render_mode
    with deprecations_muted():
        env = gym.make(base, max_episode_steps=-1, disable_env_checker=True, **options)
    return env.env if isinstance(env, OrderEnforcing) else env


def limited(env: Env, limit: int | None) -> Env:
    """An environment that ends after so many steps at the latest; None for no limit."""
    return TimeLimit(env, limit) if limit else env


@contextlib.contextmanager
def deprecations_muted() -> Iterator[None]:
    """While Gymnasium's models are compiled: MuJoCo prints a line about some, each time."""
    if importlib.util.find_spec("mujoco") is None:
        yield
        return
    mujoco = importlib.import_module("mujoco")
    before = mujoco.get_mju_user_warning()
    mujoco.set_mju_user_warning(lambda _: None)
    try:
        yield
    finally:
        mujoco.set_mju_user_warning(before)


def _check_option(name: str, declared: Any, value: Any) -> None:
    """Compare an option with its declared type, such as ``Annotated[int, Ge(1)]``."""
    kind, *bounds = typing.get_args(declared)
    whole = isinstance(value, (int, np.integer))
    fits = (whole or (kind is float and isinstance(value, float))) and not isinstance(value, bool)
    for bound in bounds:
        low = bound.ge if isinstance(bound, Ge) else bound.gt
        fits = fits and (value >= low if isinstance(bound, Ge) else value > low)
        sign = ">=" if isinstance(bound, Ge) else ">"
        if not fits:
            what = "an integer" if kind is int else "a number"
            raise UsageError(f"{name}: expected {what} {sign} {low}, got {value!r}")
