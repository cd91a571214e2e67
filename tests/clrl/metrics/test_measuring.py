"""The table of metrics, and how a metric finds its inputs."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch

from clrl.errors import UsageError
from clrl.metrics import plasticity
from clrl.metrics.measuring import INPUTS, load_metrics, measure
from clrl.metrics.plasticity import singular_values
from clrl.metrics.table import METRICS
from clrl.registry import Entry
from clrl.testing import check_metric

UNITS = ["dead_units", "inactive_units", "dormant_units", "zero_activations"]
RANKS = ["effective_rank", "srank", "stable_rank", "approximate_rank"]
BUILT_IN = [
    *UNITS,
    *RANKS,
    "grad_norm",
    "grad_zero_fraction",
    "weight_magnitude",
    "weight_norm",
    "weight_change",
    "step_plasticity",
]


def plugin(name: str, target: str) -> Entry:
    return Entry(name, "a plug-in", f"{__name__}:{target}", source="plug-in")


def mean_activity(features, power: float = 1.0):
    return features.abs().pow(power).mean((-2, -1))


def names_something_else(features, outputs):
    return features


def of_two_times(gradients, weights):
    return gradients[0]


def takes_nothing(power: float = 1.0, **rest):
    return torch.zeros(1)


not_a_function = 3


def test_the_table_names_each_function_by_its_own_name() -> None:
    built_in = [entry for entry in METRICS if entry.source == "built in"]
    assert [entry.name for entry in built_in] == BUILT_IN
    for entry in built_in:
        assert entry.load() is getattr(plasticity, entry.name)
        assert entry.summary
    assert METRICS.group == "clrl.metrics"


@pytest.mark.parametrize("name", BUILT_IN)
def test_keeps_the_contract(name: str) -> None:
    assert check_metric(name)[-1] == "members independent"


def test_listing_metrics_does_not_import_torch() -> None:
    code = "import sys, clrl.metrics.table; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_every_input_belongs_to_some_metric() -> None:
    used = set()
    for metric in load_metrics():
        used |= metric.required | metric.optional
    assert used == set(INPUTS)


def test_measure_takes_what_is_defined_on_the_inputs() -> None:
    metrics = load_metrics()
    features = torch.tensor([[[1.0, 0.0], [1.0, 0.0]]])
    found = measure(metrics, features=features, singular_values=singular_values(features))
    assert list(found) == UNITS + RANKS
    assert {name: value.item() for name, value in found.items()} == pytest.approx(
        {name: 0.5 for name in UNITS} | {name: 1.0 for name in RANKS}
    )
    assert list(measure(metrics, features=features)) == UNITS
    weights = [torch.ones(1, 2)]
    assert list(measure(metrics, gradients=weights)) == ["grad_norm", "grad_zero_fraction"]
    assert list(measure(metrics, weights=weights)) == ["weight_magnitude", "weight_norm"]
    assert measure(metrics, loss_before=torch.ones(1)) == {}


def test_measure_passes_the_activation_to_those_that_use_it() -> None:
    metrics = load_metrics()
    features = torch.ones(1, 3, 2)
    assert measure(metrics, features=features, activation="tanh")["dead_units"].item() == 1
    assert measure(metrics, features=features, activation="relu")["dead_units"].item() == 0


def test_measure_refuses_an_input_nobody_knows() -> None:
    with pytest.raises(TypeError, match="'feature'"):
        measure([], feature=torch.ones(1, 2))


def test_a_plug_in_is_measured_like_the_rest() -> None:
    metrics = load_metrics([plugin("activity", "mean_activity")])
    found = measure(metrics, features=torch.tensor([[[1.0, -3.0]]]), activation="relu")
    assert found["activity"].item() == 2.0


@pytest.mark.parametrize(
    ("target", "message"),
    [
        ("names_something_else", "metric 'mine': parameter 'outputs' is not measured; expected"),
        ("of_two_times", "metric 'mine': gradients and weights are not measured at the same time"),
        ("takes_nothing", "metric 'mine': takes no inputs; expected some of features"),
        ("not_a_function", "metric 'mine': 3 is not a function"),
        ("missing", "has no 'missing'"),
    ],
)
def test_a_plug_in_that_cannot_be_measured_is_refused(target, message) -> None:
    with pytest.raises(UsageError, match=message):
        load_metrics([plugin("mine", target)])
