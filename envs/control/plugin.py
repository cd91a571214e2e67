"""Benchmarks of the user's own: what a plug-in's name stands for."""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import gymnasium as gym
from gymnasium.vector import VectorEnv

from clrl.envs.changes import Change
from clrl.envs.control.base import Benchmark, Env
from clrl.envs.schedules import Schedule
from clrl.errors import UsageError, shown
from clrl.options import as_keywords
from clrl.registry import options_from_signature

_RENDER = "render_mode"


def benchmark_of(plugged: Any, name: str) -> Any:
    """What makes the benchmark that a plug-in's name stands for.

    A function that can be called without arguments makes an environment, or an environment with
    its changes: a `Benchmark` is made of it, whose options are the function's. Everything else is
    left as it is: a `Benchmark`, or what makes a stream from a seed.

    Args:
        plugged: what was imported.
        name: ``module:Name``, for messages.

    Raises:
        UsageError: it is an environment, or its class.
    """
    kind = plugged if isinstance(plugged, type) else type(plugged)
    if issubclass(kind, (gym.Env, VectorEnv)):
        raise UsageError(
            f"{name!r} is an environment, not a benchmark; register it with gymnasium.register and "
            "give its id, as in --benchmark gymnasium --benchmark.id my_module:Name-v0 (changing, "
            "to have it change), or name a function that returns (environment, [(change, "
            "schedule)])"
        )
    return _from_function(plugged, name) if _makes_environments(plugged) else plugged


def _makes_environments(plugged: Any) -> bool:
    """Whether it is a function without a required argument, whose first is not a stream's seed."""
    if not inspect.isfunction(plugged):
        return False
    parameters = list(inspect.signature(plugged).parameters.values())
    named = [one for one in parameters if one.kind not in (one.VAR_POSITIONAL, one.VAR_KEYWORD)]
    return all(one.default is not one.empty for one in named) and (
        not parameters or parameters[0].name != "seed"
    )


@dataclass(frozen=True)
class FromFunction(Benchmark):
    """A benchmark that a function makes; its fields are the function's options.

    Attributes:
        function: gives an environment, or a pair of one and its changes with their schedules,
            from the inside out. Where it takes ``render_mode``, that is handed on.
        name: what to call it in messages.
    """

    function: ClassVar[Callable[..., Any]]
    name: ClassVar[str]

    def change(self) -> Sequence[tuple[Change, Schedule]]:
        """The changes that the function gives."""
        made = self._made(None)
        made[0].close()
        changes: Sequence[tuple[Change, Schedule]] = made[1]
        return changes

    def make_base(self, render_mode: str | None) -> Env:
        """The environment that the function gives, as it is."""
        return self._made(render_mode)[0]

    def _made(self, render_mode: str | None) -> tuple[Env, Any]:
        keywords = as_keywords(self)
        if render_mode is not None and _RENDER in inspect.signature(self.function).parameters:
            keywords[_RENDER] = render_mode
        made = type(self).function(**keywords)
        if isinstance(made, gym.Env):
            return made, ()
        if isinstance(made, (tuple, list)) and len(made) == 2 and isinstance(made[0], gym.Env):
            return made[0], made[1]
        raise UsageError(
            f"{self.name}: expected (environment, [(change, schedule), ...]), got {shown(made)}"
        )


def _from_function(function: Callable[..., Any], name: str) -> type[FromFunction]:
    options = dataclasses.fields(options_from_signature(function, skip=0))
    return dataclasses.make_dataclass(
        function.__name__,
        [
            (one.name, one.type, dataclasses.field(default=one.default))
            for one in options
            if one.name != _RENDER
        ],
        bases=(FromFunction,),
        namespace={"function": staticmethod(function), "name": name, "__doc__": function.__doc__},
        frozen=True,
    )
