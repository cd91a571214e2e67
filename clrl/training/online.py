"""How a population does at the moment: its online performance, for people to watch."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

PERFORMANCE = ("accuracy", "return", "loss")
"""What counts as online performance, the first of these that a run records."""

Latest = tuple[str, float]
"""Which of `PERFORMANCE`, and the mean over members of the latest value."""


class _Sink(Protocol):
    def write(self, step: int, values: Mapping[str, float]) -> None: ...


class Online:
    """Notes the online performance of a job's members on its way to their recorders.

    Args:
        sinks: seed to where its measurements go.

    Attributes:
        sinks: the same, to be written to in their place.
    """

    def __init__(self, sinks: Mapping[int, _Sink]) -> None:
        self._values: dict[str, dict[int, float]] = {}
        self.sinks: dict[int, _Sink] = {
            seed: _Noting(self._values, seed, sink) for seed, sink in sinks.items()
        }

    def latest(self) -> Latest | None:
        """The mean over members of the latest value; None before there is one."""
        for name in PERFORMANCE:
            if name in self._values:
                values = self._values[name].values()
                return name, sum(values) / len(values)
        return None


@dataclass
class _Noting:
    values: dict[str, dict[int, float]]
    seed: int
    sink: _Sink

    def write(self, step: int, values: Mapping[str, float]) -> None:
        self.sink.write(step, values)
        for name in PERFORMANCE:
            value = values.get(f"online/{name}", math.nan)
            if math.isfinite(value):
                self.values.setdefault(name, {})[self.seed] = value
