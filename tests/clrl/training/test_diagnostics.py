"""Diagnostics: every metric under its tag, of the right layer, member and moment."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from clrl.agents.networks import MLP
from clrl.agents.optim.rule import UpdateRule
from clrl.agents.options import MLPOptions
from clrl.agents.population import Population
from clrl.agents.supervised import regression_loss
from clrl.training.diagnostics import PROBE_EXAMPLES, Diagnostics

TAG = "plasticity/network/"
UNITS = ["dead_units", "inactive_units", "dormant_units", "zero_activations"]
RANKS = ["effective_rank", "srank", "stable_rank", "approximate_rank"]


def population(members: int = 3, lr: float = 0.1, **options: object) -> Population:
    settings = {"widths": (4, 3), "activation": "relu", **options}
    networks = [
        MLP(2, 1, MLPOptions(**settings), torch.Generator().manual_seed(seed))  # type: ignore[arg-type]
        for seed in range(members)
    ]
    generators = [torch.Generator().manual_seed(seed) for seed in range(members)]
    return Population(
        networks, regression_loss, UpdateRule(torch.optim.SGD, {"lr": lr}), generators
    )


def batch(members: int = 3, updates: int = 2) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(9)
    x = torch.empty(members, updates, 5, 2).normal_(generator=generator)
    return x, torch.empty(members, updates, 5, 1).normal_(generator=generator)


def test_unit_metrics_by_hand() -> None:
    """Each member's first layer is set so that a known number of its 4 units is dead.

    Inputs are positive; weights are the identity twice over, a bias of -100 kills a unit.
    """
    members = population()
    p = members.parameters()
    with torch.no_grad():
        p["linears.0.weight"].copy_(torch.tensor([[1.0, 0], [0, 1], [1, 0], [0, 1]]))
        p["linears.0.bias"].zero_()
        p["linears.0.bias"][1, :2] = -100
        p["linears.0.bias"][2] = -100
        p["linears.1.weight"].fill_(1.0)
        p["linears.1.bias"].copy_(torch.tensor([0.5, 0.5, -100.0]))
    probe = torch.rand(3, 50, 2, generator=torch.Generator().manual_seed(0)) + 0.1
    values = Diagnostics(members).of_features(probe)
    assert values[TAG + "dead_units/layer_1"].tolist() == [0, 0.5, 1]
    assert values[TAG + "dead_units/layer_2"].tolist() == pytest.approx([1 / 3] * 3)
    assert values[TAG + "dead_units"].tolist() == pytest.approx([1 / 6, 5 / 12, 2 / 3])
    assert values[TAG + "zero_activations/layer_1"].tolist() == [0, 0.5, 1]
    assert values[TAG + "srank/layer_1"].tolist() == [2, 2, 0]
    assert values[TAG + "approximate_rank/layer_2"].tolist() == [1, 1, 1]
    assert values[TAG + "stable_rank/layer_2"].tolist() == pytest.approx([1, 1, 1], rel=1e-5)
    assert values[TAG + "probe_examples"].tolist() == [50, 50, 50]
    for metric in UNITS + RANKS:
        layers = [values[f"{TAG}{metric}/layer_{i}"] for i in (1, 2)]
        torch.testing.assert_close(values[TAG + metric], (layers[0] + layers[1]) / 2)
    assert len(values) == 3 * len(UNITS + RANKS) + 1
    assert all(value.shape == (3,) for value in values.values())


@pytest.mark.parametrize("activation", ["tanh", "sigmoid", "relu"])
def test_what_a_dead_unit_is_depends_on_the_activation(activation: str) -> None:
    """Two units of four far out to the right: saturated, or as alive as can be."""
    members = population(1, activation=activation)
    with torch.no_grad():
        members.parameters()["linears.0.weight"].fill_(0.1)
        members.parameters()["linears.0.bias"].copy_(torch.tensor([0.1, 0.2, 50.0, 50.0]))
    values = Diagnostics(members).of_features(torch.ones(1, 10, 2))
    dead = 0.0 if activation == "relu" else 0.5
    assert values[TAG + "dead_units/layer_1"].item() == dead


def test_gradients_are_those_of_the_last_step_per_layer_and_whole() -> None:
    members = population(layer_norm=True)
    x, y = batch()
    members.learn(x, y)
    values = Diagnostics(members).of_gradients()
    gradients = members.gradient_views()
    of_layer = {
        "layer_1": ["linears.0.weight", "linears.0.bias", "norms.0.weight", "norms.0.bias"],
        "layer_2": ["linears.1.weight", "linears.1.bias", "norms.1.weight", "norms.1.bias"],
        "output": ["linears.2.weight", "linears.2.bias"],
    }
    total = torch.zeros(3)
    for layer, names in of_layer.items():
        flat = torch.cat([gradients[name].flatten(1) for name in names], dim=1)
        torch.testing.assert_close(
            values[f"{TAG}grad_norm/{layer}"].float(), flat.square().sum(1).sqrt()
        )
        zero = (flat == 0).float().mean(1)
        torch.testing.assert_close(values[f"{TAG}grad_zero_fraction/{layer}"].float(), zero)
        total += flat.square().sum(1)
    torch.testing.assert_close(values[TAG + "grad_norm"].float(), total.sqrt())
    assert len(values) == 8


def test_weights_are_without_biases_and_change_since_the_last_mark() -> None:
    members = population(layer_norm=True)
    x, y = batch()
    diagnostics = Diagnostics(members)
    members.learn(x, y)
    members.mark_safe()
    before = {name: value.clone() for name, value in members.parameters().items()}
    assert (diagnostics.of_weights()[TAG + "weight_change"] == 0).all()
    members.learn(x, y)
    values = diagnostics.of_weights()
    flat, change = [], []
    for i, layer in enumerate(("layer_1", "layer_2", "output")):
        weight = members.parameters()[f"linears.{i}.weight"]
        flat.append(weight.flatten(1))
        change.append((weight - before[f"linears.{i}.weight"]).flatten(1))
        for metric, expected in (
            ("weight_magnitude", flat[-1].abs().mean(1)),
            ("weight_norm", flat[-1].square().sum(1).sqrt()),
            ("weight_change", change[-1].square().mean(1).sqrt()),
        ):
            torch.testing.assert_close(values[f"{TAG}{metric}/{layer}"].float(), expected)
    w, d = torch.cat(flat, dim=1), torch.cat(change, dim=1)
    torch.testing.assert_close(values[TAG + "weight_magnitude"].float(), w.abs().mean(1))
    torch.testing.assert_close(values[TAG + "weight_norm"].float(), w.square().sum(1).sqrt())
    torch.testing.assert_close(values[TAG + "weight_change"].float(), d.square().mean(1).sqrt())
    assert len(values) == 12


def test_losses() -> None:
    diagnostics = Diagnostics(population())
    values = diagnostics.of_losses(torch.tensor([2.0, 1.0, 1.0]), torch.tensor([1.0, 2.0, 0.0]))
    assert {key: value.tolist() for key, value in values.items()} == {
        TAG + "step_plasticity": [0.5, 0.0, 1.0]
    }


def test_a_linear_network_has_no_hidden_layers() -> None:
    members = population(widths=())
    x, y = batch()
    diagnostics = Diagnostics(members)
    members.learn(x, y)
    assert list(diagnostics.of_features(torch.ones(3, 7, 2))) == [TAG + "probe_examples"]
    assert set(diagnostics.of_gradients()) >= {TAG + "grad_norm", TAG + "grad_norm/output"}
    assert set(diagnostics.of_weights()) >= {TAG + "weight_norm", TAG + "weight_norm/output"}


def test_a_members_figures_do_not_depend_on_its_siblings() -> None:
    """To the bit, also beside one whose parameters are not finite."""
    x, y = batch()
    probe = torch.randn(3, 40, 2, generator=torch.Generator().manual_seed(1))
    three, one = population(3), population(1)
    three.learn(x, y)
    one.learn(x[:1], y[:1])
    with torch.no_grad():
        three.parameters()["linears.1.weight"][1] = math.nan
        three.gradient_views()["linears.1.weight"][1] = math.inf
    for name in ("of_gradients", "of_weights"):
        got, alone = getattr(Diagnostics(three), name)(), getattr(Diagnostics(one), name)()
        assert list(got) == list(alone)
        for key, value in alone.items():
            assert torch.equal(got[key][:1], value), key
    got, alone = Diagnostics(three).of_features(probe), Diagnostics(one).of_features(probe[:1])
    for key, value in alone.items():
        assert torch.equal(got[key][:1], value), key


def test_measuring_changes_nothing() -> None:
    members, state = population(), torch.get_rng_state()
    x, y = batch()
    members.learn(x, y)
    rows, gradients = members.rows.clone(), members.gradients.clone()
    diagnostics = Diagnostics(members)
    diagnostics.of_features(torch.ones(3, 7, 2))
    diagnostics.of_gradients()
    diagnostics.of_weights()
    assert torch.equal(members.rows, rows) and torch.equal(members.gradients, gradients)
    assert torch.equal(torch.get_rng_state(), state)
    assert PROBE_EXAMPLES == 2000
