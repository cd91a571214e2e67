"""The physics of anybody's environment, as far as it declares them."""

from __future__ import annotations

from typing import Any

import gymnasium as gym

from clrl.envs.physics.base import Parameter, by_name
from clrl.envs.physics.classic import ClassicParameters
from clrl.errors import UsageError

_DECLARED = "physics_parameters"


class DeclaredParameters(ClassicParameters):
    """Parameters that an environment's class declares, each an attribute of the same name.

    For instance::

        class Reach(gymnasium.Env):
            physics_parameters = (Parameter("drag", "1/s", "air resistance"),)

            def __init__(self):
                self.drag = 0.1

    They are read and set between two steps, or before a reset; what follows from one is best a
    property. With the environment's own ``state_dict`` they are saved and restored.

    Args:
        env: the bare environment.

    Raises:
        UsageError: an attribute is missing.
    """

    def __init__(self, env: gym.Env[Any, Any]) -> None:
        super().__init__(env)
        declared: Any = getattr(env, _DECLARED)
        self.known = by_name(*declared)
        for name in self.known:
            if not hasattr(env, name):
                raise UsageError(f"{env}: {_DECLARED} has {name!r}; there is no such attribute")


def declares(env: gym.Env[Any, Any]) -> bool:
    """Whether a bare environment declares physical parameters."""
    declared = getattr(env, _DECLARED, None)
    return (
        isinstance(declared, (list, tuple))
        and len(declared) > 0
        and all(isinstance(one, Parameter) for one in declared)
    )
