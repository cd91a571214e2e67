"""Changes of an environment's physics."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import ArrayLike, NDArray

from clrl.envs.changes.base import Change, Effect, Host
from clrl.envs.physics import parameters_of
from clrl.envs.physics.base import Parameter, Parameters
from clrl.envs.schedules.values import Array, Domain
from clrl.errors import UsageError


@dataclass(frozen=True)
class Physics(Change):
    """Give physical parameters new values.

    A parameter keeps its value across resets; what is derived from it is computed again.
    docs/environments.md lists the parameters of every environment.

    The value: a number in the parameter's unit; of several parameters, one number each.

    Attributes:
        names: a name, such as ``"length"``, or several.
    """

    names: str | Sequence[str]

    def __post_init__(self) -> None:
        """Check."""
        given: Any = self.names
        several = isinstance(given, Sequence) and not isinstance(given, str)
        names = tuple(given) if several else (given,)
        named = all(isinstance(name, str) for name in names)
        if not names or not named or len(set(names)) != len(names):
            raise UsageError(
                f"Physics.names: expected one name or several different ones, got {given!r}"
            )
        object.__setattr__(self, "names", names)

    def bind(self, host: Host) -> Effect:
        """See `Change.bind`."""
        physics = _physics_of(host)
        for name in self.names:
            if name not in physics.parameters:
                whole = [one for one in physics.parameters if "/" not in one]
                near = difflib.get_close_matches(name, list(physics.parameters), n=1, cutoff=0.6)
                raise UsageError(
                    f"Physics.names: {host.env.unwrapped} has no parameter {name!r}; "
                    + (f"did you mean {near[0]!r}? " if near else "")
                    + f"expected one of {', '.join(whole)}"
                    + (", or one of a single part" if len(whole) < len(physics.parameters) else "")
                )
        known = [physics.parameters[name] for name in self.names]
        built = [physics.get_parameter(name) for name in self.names]
        for name, values in zip(self.names, built, strict=True):
            if np.any(values != values[0]):
                raise UsageError(
                    f"Physics: expected lanes that were built alike, got {name} {values.tolist()}"
                )
        neutral = np.array([values[0] for values in built])
        # A bound that is itself excluded: the next number takes its place.
        low = np.array([np.nextafter(0, 1) if one.positive else one.low for one in known])
        high = np.array([one.high for one in known])
        if len(known) == 1:
            neutral, low, high = neutral[0], low[0], high[0]
        expected = ", ".join(f"{one.name}: {one.range_text()}" for one in known)
        domain = Domain("Physics", "real", np.asarray(neutral), low, high, expected)
        return _PhysicsEffect(host, domain, tuple(self.names), physics)


@runtime_checkable
class LanePhysics(Protocol):
    """Physics with a value a lane, as our vector environments have it."""

    @property
    def parameters(self) -> Mapping[str, Parameter]:
        """Name to what the parameter is."""

    def get_parameter(self, name: str) -> NDArray[np.float64]:
        """The values now, [num_envs]."""

    def set_parameter(self, name: str, lanes: NDArray[Any], values: ArrayLike) -> None:
        """Give some lanes new values, one a lane chosen."""


class _EachEnv:
    """The physics of environments that have one object each."""

    def __init__(self, envs: list[Parameters]) -> None:
        self._envs = envs

    @property
    def parameters(self) -> Mapping[str, Parameter]:
        return self._envs[0].known

    def get_parameter(self, name: str) -> NDArray[np.float64]:
        return np.array([env.get(name) for env in self._envs])

    def set_parameter(self, name: str, lanes: NDArray[Any], values: ArrayLike) -> None:
        for lane, value in zip(np.flatnonzero(lanes), np.asarray(values), strict=True):
            self._envs[lane].set(name, float(value))


def _physics_of(host: Host) -> LanePhysics:
    base = host.env.unwrapped
    if isinstance(base, LanePhysics):
        return base
    return _EachEnv([parameters_of(env) for env in host.lanes("Physics")])


class _PhysicsEffect(Effect):
    def __init__(
        self, host: Host, domain: Domain, names: tuple[str, ...], physics: LanePhysics
    ) -> None:
        super().__init__(host, domain)
        self._names = self.owns = names
        self._physics = physics

    def set(self, lanes: NDArray[np.bool_], values: Array) -> None:
        super().set(lanes, values)
        columns = values.reshape(len(values), len(self._names)).T
        for name, column in zip(self._names, columns, strict=True):
            self._physics.set_parameter(name, lanes, column)
