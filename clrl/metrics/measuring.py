"""From what can be measured to the metrics that are defined on it.

A metric names its inputs: each parameter without a default is one of `INPUTS`, and so are
those with a default that are called like one (``activation``). Any other parameter with a
default is a setting of the metric.
"""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Callable, Iterable
from typing import Any

from torch import Tensor

from clrl.errors import UsageError, shown
from clrl.metrics.table import METRICS
from clrl.registry import Entry

INPUTS = (
    "features",
    "activation",
    "singular_values",
    "gradients",
    "weights",
    "previous_weights",
    "loss_before",
    "loss_after",
)
"""What a metric can be defined on; `clrl.metrics.plasticity` gives shapes and meaning."""

_TOGETHER = (
    {"features", "activation", "singular_values"},
    {"gradients"},
    {"weights", "previous_weights"},
    {"loss_before", "loss_after"},
)
"""Inputs that a run measures at the same time."""


@dataclasses.dataclass(frozen=True)
class Metric:
    """One metric, ready to be measured.

    Attributes:
        name: as in the table and in the tags of a run.
        function: takes its inputs by keyword, returns one number a member.
        required: the inputs it cannot do without.
        optional: the inputs it uses if they are there.
    """

    name: str
    function: Callable[..., Tensor]
    required: frozenset[str]
    optional: frozenset[str]


def load_metrics(entries: Iterable[Entry] = METRICS) -> list[Metric]:
    """Import metrics and read off what each is defined on.

    Args:
        entries: which; unless given, all of the table, installed plug-ins included.

    Raises:
        UsageError: a metric cannot be imported, or asks for something that is not measured.
    """
    return [defined(entry.name, entry.load()) for entry in entries]


def defined(name: str, function: Any) -> Metric:
    """A function as a metric of a name, with what it is defined on.

    Raises:
        UsageError: it is no function, or asks for something that is not measured.
    """
    if not callable(function):
        raise UsageError(f"metric {name!r}: {shown(function)} is not a function")
    required, optional = set(), set()
    for parameter in inspect.signature(function).parameters.values():
        if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
            continue
        if parameter.default is parameter.empty:
            required.add(parameter.name)
        elif parameter.name in INPUTS:
            optional.add(parameter.name)
    if required.issubset(INPUTS) and not any(required <= together for together in _TOGETHER):
        raise UsageError(
            f"metric {name!r}: {' and '.join(sorted(required))} are not measured at the "
            "same time; expected inputs of one kind"
        )
    unknown = sorted(required.difference(INPUTS))
    if unknown or not required:
        problem = f"parameter {unknown[0]!r} is not measured" if unknown else "takes no inputs"
        raise UsageError(f"metric {name!r}: {problem}; expected some of {', '.join(INPUTS)}")
    return Metric(name, function, frozenset(required), frozenset(optional))


def measure(metrics: Iterable[Metric], **inputs: Any) -> dict[str, Tensor]:
    """Every metric that is defined on the given inputs, by name.

    Args:
        metrics: from `load_metrics`.
        inputs: some of `INPUTS`, such as ``features=h, activation="relu",
            singular_values=singular_values(h)`` for a hidden layer.

    Returns:
        The value of each metric whose required inputs are all given; the others are left out.

    Raises:
        TypeError: an input that is none of `INPUTS`.
    """
    unknown = sorted(set(inputs).difference(INPUTS))
    if unknown:
        raise TypeError(f"unknown input {unknown[0]!r}; expected some of {', '.join(INPUTS)}")
    return {
        metric.name: metric.function(
            **{name: inputs[name] for name in inputs if name in metric.required | metric.optional}
        )
        for metric in metrics
        if metric.required <= inputs.keys()
    }
