"""What a physical parameter is, and how one environment's parameters are reached."""

from __future__ import annotations

import abc
import math
from collections.abc import Mapping
from dataclasses import dataclass

from clrl.errors import UsageError


@dataclass(frozen=True)
class Parameter:
    """One physical quantity that can be changed.

    Attributes:
        name: what users type.
        unit: such as ``"m/s^2"``; ``"factor"`` for a multiple of what was built in.
        summary: one line.
        low: smallest allowed value.
        high: largest allowed value.
        positive: ``low`` is 0 and is not allowed itself.
    """

    name: str
    unit: str
    summary: str
    low: float = 0.0
    high: float = math.inf
    positive: bool = False

    def check(self, value: float) -> None:
        """Refuse a value outside the range.

        Raises:
            UsageError: the value is not finite, or out of range.
        """
        above = value > self.low if self.positive else value >= self.low
        if not (math.isfinite(value) and above and value <= self.high):
            raise UsageError(f"{self.name}: expected {self.range_text()}, got {value:g}")

    def range_text(self) -> str:
        """The range in words, such as ``a number > 0 (kg)``."""
        text = f"a number {'>' if self.positive else '>='} {self.low:g}"
        if self.low == -math.inf:
            text = "a finite number"
        if self.high < math.inf:
            text += f" and <= {self.high:g}"
        return f"{text} ({self.unit})"


def by_name(*parameters: Parameter) -> dict[str, Parameter]:
    """Name to parameter."""
    return {parameter.name: parameter for parameter in parameters}


class Parameters(abc.ABC):
    """The physics of one environment, by name.

    A subclass says what is `known`, and writes `_get` and `_set`.

    Attributes:
        known: name to what the parameter is.
    """

    known: Mapping[str, Parameter]

    def get(self, name: str) -> float:
        """The value now, in the parameter's unit.

        Raises:
            UsageError: there is no such parameter.
        """
        self._parameter(name)
        return self._get(name)

    def set(self, name: str, value: float) -> None:
        """Give a parameter a value, from the next step on.

        Whatever is derived from it is computed again. The value survives ``reset``.

        Raises:
            UsageError: there is no such parameter, or the value is out of its range.
        """
        self._parameter(name).check(value)
        self._set(name, float(value))

    def state_dict(self) -> dict[str, float]:
        """The values, as far as they can differ from those of a new environment."""
        return {name: self._get(name) for name in self.known}

    def load_state_dict(self, state: Mapping[str, float]) -> None:
        """Take over the values of an environment made alike.

        Args:
            state: from `state_dict`.
        """
        for name, value in state.items():
            self.set(name, value)

    def _parameter(self, name: str) -> Parameter:
        if name not in self.known:
            # Of a long list, those of the same group: mass/torso is offered for mass/tail.
            group, slash, _ = name.partition("/")
            near = [one for one in self.known if one.startswith(group + slash)] if slash else []
            names = near or [one for one in self.known if "/" not in one]
            raise UsageError(f"physics: expected one of {', '.join(names)}, got {name!r}")
        return self.known[name]

    @abc.abstractmethod
    def _get(self, name: str) -> float:
        """The value of a known parameter."""

    @abc.abstractmethod
    def _set(self, name: str, value: float) -> None:
        """Give a known parameter an allowed value."""
