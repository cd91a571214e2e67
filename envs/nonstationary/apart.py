"""Single environments that are non-stationary already, taken apart for a vector of lanes."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
from gymnasium.wrappers import OrderEnforcing, PassiveEnvChecker, TimeLimit

from clrl.envs.nonstationary.lanes import count_inside
from clrl.envs.nonstationary.single import NonStationary
from clrl.errors import UsageError

_TRANSPARENT = (TimeLimit, OrderEnforcing, PassiveEnvChecker)
"""Wrappers that see nothing of a change: it is the same whether they are inside or outside."""

Env = gym.Env[Any, Any]


def taken_apart(env: Env) -> tuple[Env, list[dict[str, Any]]]:
    """An environment without its `NonStationary` wrappers, and what those were made with.

    As they are, lanes side by side would have a world each. `NonStationaryVector`, made with the
    same around the vector of lanes, gives all lanes of a learner one world.

    Args:
        env: is taken apart itself, and not to be used as it was.

    Returns:
        What is inside, in those of Gymnasium's wrappers that do not see a change; and the
        keywords of each `NonStationary`, from the inside out.

    Raises:
        UsageError: another wrapper is around a `NonStationary`, or one is in a task of `Tasks`.
    """
    wrappers: list[gym.Wrapper[Any, Any, Any, Any]] = []
    inside = env
    while isinstance(inside, gym.Wrapper):
        wrappers.append(inside)
        inside = inside.env
    if not count_inside(env):
        return env, []
    changes: list[dict[str, Any]] = []
    for wrapper in reversed(wrappers):
        if isinstance(wrapper, NonStationary):
            changes.append(wrapper.made_with)
            continue
        if changes and not isinstance(wrapper, _TRANSPARENT):
            raise UsageError(
                f"{type(wrapper).__name__} is around a NonStationary, so that lanes of it cannot "
                "share a world; expected NonStationary around it, or the benchmark changing"
            )
        wrapper.env = inside
        inside = wrapper
    if count_inside(inside):
        raise UsageError(
            "a NonStationary is inside a task of Tasks, so that lanes of it cannot share a "
            "world; expected it around Tasks"
        )
    return inside, changes
