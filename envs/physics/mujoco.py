"""The physics of Gymnasium's MuJoCo environments: fields of the environment's own model."""

from __future__ import annotations

import importlib
import math
from collections.abc import Callable, Iterator, Mapping
from functools import cached_property, partial
from typing import Any

import gymnasium as gym
import numpy as np
from numpy.typing import NDArray

from clrl.envs.physics.base import Parameter, Parameters, by_name

AIR = (1.2, 1.8e-5)
"""Density in kg/m^3 and dynamic viscosity in Pa s of air at about 20 degrees."""


class MujocoParameters(Parameters):
    """Friction, gravity and wind of a MuJoCo environment, and its bodies, joints, actuators.

    `friction`, `gravity` and `wind` are absolute; `mass`, `damping` and `strength` are factors
    on what the model was built with. A part's own factor (``mass/<body>``, ``damping/<joint>``,
    ``strength/<actuator>``) is multiplied with the factor on all. Parts without a name have no
    factor of their own, except that an actuator is then called after the joint that it drives.
    Factors on nothing, such as `damping` where no joint is damped, are not offered.

    * `friction`: sliding friction. A contact takes the larger one of its two geoms, so all
      geoms get the value, and so do explicit pairs. As built, its value is the largest in
      the model; setting that value gives every geom its own back. MuJoCo raises the friction
      of a contact to at least 1e-5.
    * `gravity`: along -z; other components stay.
    * `wind`: along +x. Where the model's medium is empty, wind alone would do nothing, so the
      medium is `AIR`, with its drag, while the wind is not 0.
    * `mass`: of bodies, and their moments of inertia alike; rotor inertia (armature) stays.
    * `strength`: the gear of actuators. A motor's force is gear times control; for a position
      servo the gear also scales the length that it feels.

    The values alone decide the model, to the bit, not the order or history of setting.
    Constants that follow come from ``mj_setConst``, which leaves the model's statistics as they
    were built (``stat.meaninertia`` scales the solver's tolerance).

    Args:
        env: the bare environment. Its model, as it is now, is what "built" means.
    """

    def __init__(self, env: gym.Env[Any, Any]) -> None:
        self._model: Any = env.model  # type: ignore[attr-defined]
        self._values: dict[str, float] = {}
        model, opt = self._model, self._model.opt
        self._scaled = {
            "mass": _Scaled(model, ("body_mass", "body_inertia"), _body_names(model)),
            # High-order damping came with MuJoCo 4.
            "damping": _Scaled(model, ("dof_damping", "dof_dampingpoly"), _joint_names(model)),
            "strength": _Scaled(model, ("actuator_gear",), _actuator_names(model)),
        }
        self._apply: dict[str, Callable[[], None]] = {
            "friction": self._apply_friction,
            "gravity": self._apply_gravity,
            "wind": self._apply_wind,
            **{quantity: partial(self._apply_scaled, quantity) for quantity in self._scaled},
        }
        self.known = by_name(*self._describe())

        self._frictions = model.geom_friction.copy(), model.pair_friction.copy()
        self._gravity, self._wind = opt.gravity.copy(), opt.wind.copy()
        self._medium = opt.density, opt.viscosity
        self._absolute = {
            "friction": max((float(row[0]) for rows in self._frictions for row in rows), default=0),
            "gravity": 0.0 - float(self._gravity[2]),  # not -0.0
            "wind": float(self._wind[0]),
        }

    def state_dict(self) -> dict[str, float]:
        """The values that were set."""
        return dict(self._values)

    def load_state_dict(self, state: Mapping[str, float]) -> None:
        """Go back to the model as built, and take over the values."""
        for name, value in state.items():
            self._parameter(name).check(value)
        self._values = {name: float(value) for name, value in state.items()}
        for apply in self._apply.values():
            apply()

    def _get(self, name: str) -> float:
        return self._values.get(name, self._absolute.get(name, 1.0))

    def _set(self, name: str, value: float) -> None:
        if value == self._absolute.get(name, 1.0):
            self._values.pop(name, None)
        else:
            self._values[name] = value
        self._apply[name.partition("/")[0]]()

    def _apply_friction(self) -> None:
        geoms, pairs = self._model.geom_friction, self._model.pair_friction
        geoms[:], pairs[:] = self._frictions
        if "friction" in self._values:
            # Geoms have one sliding friction; pairs one for each of the two tangents.
            geoms[:, 0] = pairs[:, :2] = self._values["friction"]

    def _apply_gravity(self) -> None:
        self._model.opt.gravity[:] = self._gravity
        if "gravity" in self._values:
            self._model.opt.gravity[2] = 0.0 - self._values["gravity"]

    def _apply_wind(self) -> None:
        opt, wind = self._model.opt, self._get("wind")
        opt.wind[0] = wind
        opt.density, opt.viscosity = AIR if wind and not any(self._medium) else self._medium

    def _apply_scaled(self, quantity: str) -> None:
        scaled = self._scaled[quantity]
        parts = {part: self._get(f"{quantity}/{part}") for part in scaled.parts}
        scaled.apply(self._model, self._get(quantity), parts)
        importlib.import_module("mujoco").mj_setConst(self._model, self._scratch)

    @cached_property
    def _scratch(self) -> Any:
        """Room to compute in: the environment's own data is not to be disturbed."""
        return importlib.import_module("mujoco").MjData(self._model)

    def _describe(self) -> Iterator[Parameter]:
        yield Parameter("friction", "1", "sliding friction of all contacts")
        yield Parameter("gravity", "m/s^2", "gravity, downwards")
        yield Parameter("wind", "m/s", "wind along +x", low=-math.inf)
        what = {"mass": "masses", "damping": "damping of joints", "strength": "force of actuators"}
        for quantity, scaled in self._scaled.items():
            positive = quantity == "mass"
            if scaled.anything:
                yield Parameter(quantity, "factor", f"on the {what[quantity]}", positive=positive)
            for part in scaled.parts:
                summary = f"on the {what[quantity]}, of {part} alone"
                yield Parameter(f"{quantity}/{part}", "factor", summary, positive=positive)


class _Scaled:
    """Fields of a model that are multiplied, with a row for each body, joint axis or actuator.

    Args:
        model: the ``MjModel`` as built.
        fields: their names; those that this MuJoCo does not have are left out.
        names: for each row the name of its part, or "".

    Attributes:
        anything: some entry is not 0.
        parts: name to rows, of those parts that have a name and something to multiply.
    """

    def __init__(self, model: Any, fields: tuple[str, ...], names: list[str]) -> None:
        self._built = {name: getattr(model, name).copy() for name in fields if hasattr(model, name)}
        rows = zip(*self._built.values(), strict=True)
        filled = [any(entry.any() for entry in row) for row in rows]
        self.anything = any(filled)
        self.parts: dict[str, NDArray[np.intp]] = {
            part: np.flatnonzero([name == part for name in names])
            for part, full in zip(names, filled, strict=True)
            if part and full
        }

    def apply(self, model: Any, factor: float, parts: Mapping[str, float]) -> None:
        """Write built values times factor into the model; a part's rows also times its own."""
        for field, built in self._built.items():
            factors = np.full(len(built), factor)
            for part, own in parts.items():
                factors[self.parts[part]] *= own
            getattr(model, field)[:] = (built.T * factors).T


def _body_names(model: Any) -> list[str]:
    return [model.body(i).name for i in range(model.nbody)]


def _joint_names(model: Any) -> list[str]:
    """Of each degree of freedom, the joint."""
    return [model.joint(int(i)).name for i in model.dof_jntid]


def _actuator_names(model: Any) -> list[str]:
    """Of each actuator its name, or where it has none, that of the joint it drives."""
    on_joint = importlib.import_module("mujoco").mjtTrn.mjTRN_JOINT
    joints = {
        i: model.joint(int(model.actuator_trnid[i, 0])).name
        for i in range(model.nu)
        if model.actuator_trntype[i] == on_joint
    }
    return [model.actuator(i).name or joints.get(i, "") for i in range(model.nu)]
