"""Activations whose formulas are published: their numbers, and what they are at their limits."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from clrl.agents.calling import Call
from clrl.agents.networks import AID, MLP, Fourier, Rational, SmoothLeaky
from clrl.agents.optim.rule import UpdateRule
from clrl.agents.options import MLPOptions
from clrl.errors import UsageError
from clrl.testing.learners import Problem

X = torch.linspace(-4, 4, 401)


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def features(activation: str, width: int) -> Tensor:
    network = MLP(3, 2, MLPOptions(widths=(width,), activation=activation), seeded())  # type: ignore[arg-type]
    found: Tensor = network.activations[0](
        network.linears[0](torch.randn(5, 3, generator=seeded()))
    )
    return found


@pytest.mark.parametrize("activation", ["fourier-features", "rational", "smooth-leaky", "aid"])
def test_learners_are_stepped_together(activation: Any) -> None:
    """Every operation is one that treats members alike: none is computed one by one."""
    options = MLPOptions(widths=(16,), activation=activation)
    problem = Problem(UpdateRule(torch.optim.SGD, {"lr": 0.01}), 1, MLP, options)
    population = problem.population(range(3))
    population.learn(*problem.examples(range(3), 1))
    assert population.division == [3]


# Fourier features


def test_fourier_features_are_pairs_on_a_circle() -> None:
    y = Fourier()(X.view(1, -1))
    sine, cosine = y[:, :401], y[:, 401:]
    torch.testing.assert_close(sine, torch.sin(X).view(1, -1))
    torch.testing.assert_close(sine.square() + cosine.square(), torch.ones(1, 401))


def test_a_layer_of_fourier_features_keeps_its_width_with_half_the_units() -> None:
    h = features("fourier-features", 10)
    assert h.shape == (5, 10)
    torch.testing.assert_close(h.square().sum(dim=1), torch.full((5,), 5.0))
    network = MLP(3, 2, MLPOptions(widths=(10, 8), activation="fourier-features"), seeded())
    shapes = [tuple(own.weight.shape) for own in network.linears]
    assert shapes == [(5, 3), (4, 10), (2, 8)]
    assert [layer.copies for layer in network.hidden_layers] == [2, 2]


def test_half_a_unit_is_refused() -> None:
    with pytest.raises(UsageError, match="expected even widths"):
        MLP(3, 2, MLPOptions(widths=(10, 7), activation="fourier-features"), seeded())


# CReLU


def test_halves_of_a_crelu_differ_by_the_input_and_exclude_each_other() -> None:
    h = features("crelu", 10)
    first, second = h[:, :10], h[:, 10:]
    network = MLP(3, 2, MLPOptions(widths=(10,), activation="crelu"), seeded())
    z = network.linears[0](torch.randn(5, 3, generator=seeded()))
    torch.testing.assert_close(first - second, z)
    assert ((first * second) == 0).all()


# Leaky ones


def test_smooth_leaky_has_its_published_numbers() -> None:
    y = SmoothLeaky()(torch.tensor([1.0, -1.0, 0.0]))
    torch.testing.assert_close(y, torch.tensor([0.857018, -0.242982, 0.0]), rtol=0, atol=1e-6)
    exact = X.double()
    expected = 0.1 * exact + 0.9 * exact * torch.sigmoid(5 / 3 * exact)
    torch.testing.assert_close(SmoothLeaky()(X).double(), expected, rtol=1e-5, atol=1e-6)


def test_a_leaky_relu_of_slope_one_is_linear() -> None:
    options = MLPOptions(widths=(6,), activation="leaky-relu", leaky_slope=1.0)
    assert torch.equal(MLP(3, 2, options, seeded()).activations[0](X), X)


# AID


def mode(module: nn.Module, training: bool) -> Tensor:
    """What it gives, with draws of a seed."""
    module.train(training)
    with Call(torch.rand(len(X), generator=seeded())):
        found: Tensor = module(X)
    return found


@pytest.mark.parametrize("training", [True, False])
def test_aid_that_keeps_all_above_zero_is_relu(training: bool) -> None:
    assert torch.equal(mode(AID(1.0), training), F.relu(X))


def test_aid_that_keeps_half_is_linear_in_evaluation() -> None:
    torch.testing.assert_close(mode(AID(0.5), False), X / 2)


def test_aid_keeps_a_number_or_drops_it_and_is_on_average_what_evaluation_gives() -> None:
    module = AID(0.8)
    y = mode(module, True)
    assert ((y == X) | (y == 0)).all()
    x = torch.tensor([2.0, -2.0]).repeat(20_000, 1)
    module.train()
    with Call(torch.rand(x.numel(), generator=seeded(1))):
        mean = module(x).mean(dim=0)
    module.eval()
    torch.testing.assert_close(mean, module(x)[0], rtol=0, atol=0.03)
    assert module(x)[0].tolist() == pytest.approx([1.6, -0.4])


# Rational


def test_a_rational_is_its_quotient() -> None:
    module = Rational()
    with torch.no_grad():
        module.numerator.copy_(torch.tensor([0.5, -1.0, 0.2, 0.3, -0.1, 0.05]))
        module.denominator.copy_(torch.tensor([-1.0, 0.5, -0.2, 0.1]))
    x = X.double()
    above = 0.5 - x + 0.2 * x**2 + 0.3 * x**3 - 0.1 * x**4 + 0.05 * x**5
    below = 1 + x.abs() + 0.5 * x**2 + 0.2 * (x**3).abs() + 0.1 * x**4
    torch.testing.assert_close(module(X).double(), above / below, rtol=1e-4, atol=1e-5)


def test_a_rational_begins_as_a_leaky_relu_and_has_no_pole() -> None:
    module = Rational()
    inside = X[X.abs() <= 3]
    assert (module(inside) - F.leaky_relu(inside, 0.01)).abs().max() < 0.031
    with torch.no_grad():  # whatever its signs
        module.denominator.mul_(-1.0)
    assert (module(inside) - F.leaky_relu(inside, 0.01)).abs().max() < 0.031
    far = torch.tensor([-1e4, 1e4], requires_grad=True)
    module(far).sum().backward()
    assert module(far).isfinite().all() and far.grad is not None and far.grad.isfinite().all()


def test_each_layer_learns_a_rational_of_its_own() -> None:
    network = MLP(3, 2, MLPOptions(widths=(5, 4), activation="rational"), seeded())
    own = [name for name, _ in network.named_parameters() if name.startswith("activations")]
    assert own == [
        f"activations.{i}.{part}" for i in range(2) for part in ("numerator", "denominator")
    ]
    network(torch.randn(6, 3, generator=seeded())).sum().backward()
    for name in own:
        gradient = network.get_parameter(name).grad
        assert gradient is not None and (gradient != 0).all()
