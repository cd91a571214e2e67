"""UPGD against numbers worked by hand and an independent formula in double precision."""

from __future__ import annotations

import inspect
import io
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from clrl.agents.optim.adaupgd import AdaUPGD
from clrl.agents.optim.upgd import UPGD

Arrays = list[NDArray[np.float64]]


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


class Reference:
    """Elsayed & Mahmood 2024, Algorithm 1 and its variants, one network, in double precision."""

    def __init__(self, weights: Arrays, **options: Any) -> None:
        self.weights = [w.copy() for w in weights]
        self.utilities = [np.zeros_like(w) for w in weights]
        self.t = 0
        self.options = options

    def gates(self) -> Arrays:
        """1 - s of every weight."""
        beta = self.options["beta_utility"]
        corrected = [u / (1 - beta**self.t) for u in self.utilities]
        largest = max(
            u.max()
            for u in (corrected if self.options["utility_max"] == "corrected" else self.utilities)
        )
        return [1 - 1 / (1 + np.exp(-u / largest)) for u in corrected]

    def step(self, gradients: Arrays, noise: Arrays | None = None) -> None:
        lr, beta = self.options["lr"], self.options["beta_utility"]
        self.t += 1
        for u, g, w in zip(self.utilities, gradients, self.weights, strict=True):
            u[...] = beta * u + (1 - beta) * (-g * w)
        noise = noise or [np.zeros_like(w) for w in self.weights]
        for w, g, xi, gate in zip(self.weights, gradients, noise, self.gates(), strict=True):
            move = {
                "update": (g + xi) * gate,
                "noise": g + xi * gate,
                "none": g + xi,
            }[self.options["gate"]]
            w *= 1 - lr * self.options["weight_decay"]
            w -= lr * self.options["lr_factor"] * move


OPTIONS = {
    "lr": 0.1,
    "sigma": 0.0,
    "beta_utility": 0.9,
    "weight_decay": 0.0,
    "gate": "update",
    "utility_max": "corrected",
    "lr_factor": 1.0,
}
SHAPES = [(3, 2), (3,), (1, 3), (1,)]


def numbers(seed: int, scale: float = 1.0) -> Arrays:
    rng = np.random.default_rng(seed)
    return [scale * rng.standard_normal(shape) for shape in SHAPES]


def parameters(values: Arrays) -> list[nn.Parameter]:
    return [nn.Parameter(torch.tensor(value, dtype=torch.float32)) for value in values]


def take(optimizer: UPGD, weights: Sequence[Tensor], gradients: Arrays) -> None:
    for weight, gradient in zip(weights, gradients, strict=True):
        weight.grad = torch.tensor(gradient, dtype=torch.float32)
    optimizer.step()


def assert_close(weights: Sequence[Tensor], expected: Arrays) -> None:
    for weight, value in zip(weights, expected, strict=True):
        np.testing.assert_allclose(weight.detach().numpy(), value, rtol=2e-5, atol=2e-6)


# One step of a 2-3-1 network, by hand

W1 = [[0.5, -0.25], [0.25, 0.5], [-0.5, 0.25]]
B1 = [0.1, 0.0, -0.1]
W2 = [[0.1, -0.5, 2.0]]
B2 = [0.25]


def test_one_step_of_a_2_3_1_network_by_hand() -> None:
    """x = (1, 2), ReLU, loss (out - target)^2 / 2.

    Inputs of the hidden units: 0.5 - 0.5 + 0.1 = 0.1; 0.25 + 1 + 0 = 1.25;
    -0.5 + 0.5 - 0.1 = -0.1. So h = (0.1, 1.25, 0).
    out = 0.01 - 0.625 + 0.25 = -0.365; with target 0.635, dL/dout = -1.
    Gradients: W2: (-0.1, -1.25, 0); b2: -1; at the hidden inputs -W2 where active:
    (-0.1, 0.5, 0), so W1: ((-0.1, -0.2), (0.5, 1), (0, 0)) and b1: (-0.1, 0.5, 0).
    Utilities -g w: W1: ((0.05, -0.05), (-0.125, -0.5), (0, 0)); b1: (0.01, 0, 0);
    W2: (0.01, -0.625, 0); b2: 0.25, which is the largest. At the first step the corrected
    utilities are these. u / 0.25: W1: ((0.2, -0.2), (-0.5, -2), 0); b1: (0.04, 0, 0);
    W2: (0.04, -2.5, 0); b2: 1.
    1 - sigmoid: 0.2 -> .4501660; -0.2 -> .5498340; -0.5 -> .6224593; -2 -> .8807971;
    0.04 -> .4900013; -2.5 -> .9241418; 0 -> .5; 1 -> .2689414.
    w - 0.1 g (1 - s):
    """
    network = nn.Sequential(nn.Linear(2, 3), nn.ReLU(), nn.Linear(3, 1))
    w1, b1, w2, b2 = network.parameters()
    with torch.no_grad():
        for parameter, value in zip((w1, b1, w2, b2), (W1, B1, W2, B2), strict=True):
            parameter.copy_(torch.tensor(value))
    optimizer = UPGD(network.parameters(), lr=0.1, sigma=0.0, beta_utility=0.9, weight_decay=0.0)
    ((network(torch.tensor([1.0, 2.0])) - 0.635).square() / 2).sum().backward()
    optimizer.step()
    expected = [
        [[0.5 + 0.01 * 0.4501660, -0.25 + 0.02 * 0.5498340],
         [0.25 - 0.05 * 0.6224593, 0.5 - 0.1 * 0.8807971],
         [-0.5, 0.25]],
        [0.1 + 0.01 * 0.4900013, 0.0 - 0.05 * 0.5, -0.1],
        [[0.1 + 0.01 * 0.4900013, -0.5 + 0.125 * 0.9241418, 2.0]],
        [0.25 + 0.1 * 0.2689414],
    ]  # fmt: skip
    for parameter, value in zip((w1, b1, w2, b2), expected, strict=True):
        np.testing.assert_allclose(parameter.detach().numpy(), value, rtol=0, atol=1e-6)


def test_the_raw_maximum_makes_the_argument_larger_by_the_correction() -> None:
    """One weight 1 with g = -1, so u_hat = 1 = its own largest: argument 1 and, raw, 1/(1-b)."""
    for utility_max, argument in (("corrected", 1.0), ("raw", 1 / (1 - 0.75))):
        weight = nn.Parameter(torch.ones(1))
        optimizer = UPGD(
            [weight], lr=1.0, sigma=0, beta_utility=0.75, weight_decay=0, utility_max=utility_max
        )
        weight.grad = torch.tensor([-1.0])
        optimizer.step()
        assert weight.item() == pytest.approx(1 + 1 - 1 / (1 + np.exp(-argument)), rel=1e-6)


@pytest.mark.parametrize(
    ("rule", "beta", "figures"),
    [
        (UPGD, 0.9999, {1: "10,000 at the first", 1000: "10.5 at the", 10_000: "1.6 at the ten-"}),
        (UPGD, 0.9, {50: "at 0.9 it is over after fifty"}),
        (AdaUPGD, 0.999, {1: "by 1000 at the first step", 1000: "1.6 at the thousandth"}),
    ],
)
def test_the_option_says_what_the_raw_maximum_does(
    rule: type, beta: float, figures: dict[int, str]
) -> None:
    """By how much it makes the argument larger, with the figures that the formula gives."""
    said = " ".join((inspect.getdoc(rule) or "").split("utility_max:")[1].split())
    assert "which makes the argument of the sigmoid larger by 1 / (1 - beta_utility^t)" in said
    assert f"beta_utility {beta}" in said or f"at {beta} it" in said
    for step, words in figures.items():
        factor = 1 / (1 - beta**step)
        assert words in said
        number = words.split()[words.startswith("by ")].replace(",", "")
        expected = float(number) if number[0].isdigit() else 1.0
        assert factor == pytest.approx(expected, rel=0.02)


# Several steps, every switch, against the formula


@pytest.mark.parametrize("utility_max", ["corrected", "raw"])
@pytest.mark.parametrize("gate", ["update", "noise", "none"])
@pytest.mark.parametrize(("weight_decay", "lr_factor"), [(0.0, 1.0), (0.5, 1.0), (0.01, 2.0)])
def test_many_steps_follow_the_formula(
    gate: str, utility_max: str, weight_decay: float, lr_factor: float
) -> None:
    options = {
        **OPTIONS,
        "gate": gate,
        "utility_max": utility_max,
        "weight_decay": weight_decay,
        "lr_factor": lr_factor,
    }
    start = numbers(0)
    weights, reference = parameters(start), Reference(start, **options)
    optimizer = UPGD(weights, **options)  # type: ignore[arg-type]
    for t in range(5):
        gradients = numbers(10 + t)
        take(optimizer, weights, gradients)
        reference.step(gradients)
        assert_close(weights, reference.weights)


def test_the_two_maxima_differ() -> None:
    """Over two steps and more: the correction is 1 / (1 - beta^t), 10 and then 5.26."""
    results = []
    for utility_max in ("corrected", "raw"):
        weights = parameters(numbers(0))
        optimizer = UPGD(weights, **{**OPTIONS, "utility_max": utility_max})  # type: ignore[arg-type]
        for t in range(2):
            take(optimizer, weights, numbers(10 + t))
        results.append(weights[0].detach())
    assert (results[0] - results[1]).abs().max() > 1e-3


# Noise


@pytest.mark.parametrize("gate", ["update", "noise", "none"])
@pytest.mark.parametrize("lr_factor", [1.0, 2.0])
def test_noise_is_gated_and_scaled_as_the_formula_says(gate: str, lr_factor: float) -> None:
    """With gate "none" and no gradient the step is -lr xi: that gives away the noise, which
    the same generator then gives to the other gates."""
    revealed = parameters([np.zeros(shape) for shape in SHAPES])
    take(
        UPGD(revealed, lr=1.0, sigma=0.5, weight_decay=0, gate="none", generator=seeded(7)),
        revealed,
        [np.zeros(shape) for shape in SHAPES],
    )
    noise = [-weight.detach().double().numpy() for weight in revealed]
    options = {**OPTIONS, "gate": gate, "lr_factor": lr_factor, "weight_decay": 0.1, "sigma": 0.5}
    start, gradients = numbers(0), numbers(1)
    weights, reference = parameters(start), Reference(start, **options)
    take(UPGD(weights, generator=seeded(7), **options), weights, gradients)  # type: ignore[arg-type]
    reference.step(gradients, noise)
    assert_close(weights, reference.weights)


def test_noise_is_normal_and_anew_for_every_weight_and_step() -> None:
    weight = nn.Parameter(torch.zeros(200, 100))
    weight.grad = torch.zeros(200, 100)
    optimizer = UPGD([weight], lr=0.5, sigma=0.2, weight_decay=0, gate="none", generator=seeded())
    steps = []
    for _ in range(2):
        before = weight.detach().clone()
        optimizer.step()
        steps.append((before - weight.detach()) / 0.5)
    for noise in steps:  # 20,000 draws: 5 standard errors are 0.7% and 2.5% of sigma
        assert abs(float(noise.mean())) < 0.035 * 0.2
        assert float(noise.std()) == pytest.approx(0.2, rel=0.025)
        assert float((noise.abs() < 0.2).float().mean()) == pytest.approx(0.6827, abs=0.017)
    correlation = float((steps[0] * steps[1]).mean()) / 0.04
    assert abs(correlation) < 0.035


def test_generators() -> None:
    """Given: continued from where it is. None given: one's own, not torch's global one."""
    state = torch.get_rng_state()
    results = []
    for generator in (seeded(1), seeded(1), seeded(2), None, None):
        weights = parameters(numbers(0))
        optimizer = UPGD(weights, generator=generator)
        for t in range(2):
            take(optimizer, weights, numbers(10 + t))
        results.append(weights[0].detach())
    assert torch.equal(results[0], results[1]) and torch.equal(results[3], results[4])
    assert not torch.equal(results[0], results[2]) and not torch.equal(results[0], results[3])
    assert torch.equal(torch.get_rng_state(), state)


def test_state_dict_holds_what_decides_the_future() -> None:
    """Also the noise of an optimizer that made its generator itself."""
    weights, others = parameters(numbers(0)), parameters(numbers(1))
    optimizer, other = UPGD(weights, sigma=0.5), UPGD(others, sigma=0.5)
    for t in range(3):
        take(optimizer, weights, numbers(10 + t))
    file = io.BytesIO()
    torch.save(optimizer.state_dict(), file)
    file.seek(0)
    other.load_state_dict(torch.load(file, weights_only=True))
    with torch.no_grad():
        for one, two in zip(weights, others, strict=True):
            two.copy_(one)
    for t in range(2):
        for each, own in ((optimizer, weights), (other, others)):
            take(each, own, numbers(20 + t))
    for one, two in zip(weights, others, strict=True):
        assert torch.equal(one, two)


# Special cases


def test_without_a_gate_it_is_perturbed_gradient_descent() -> None:
    """PGD: w <- (1 - lr decay) w - lr (g + xi)."""
    options: dict[str, Any] = {"sigma": 0.5, "gate": "none"}
    drawn = parameters([np.zeros(shape) for shape in SHAPES])
    reveal = UPGD(drawn, lr=1.0, weight_decay=1.0, generator=seeded(3), **options)
    weights, expected = parameters(numbers(0)), numbers(0)
    optimizer = UPGD(weights, lr=0.1, weight_decay=0.2, generator=seeded(3), **options)
    for t in range(4):
        # From w = 0, or with lr = decay = 1, the step leaves -xi behind.
        take(reveal, drawn, [np.zeros(shape) for shape in SHAPES])
        take(optimizer, weights, numbers(10 + t))
        for w, g, noise in zip(expected, numbers(10 + t), drawn, strict=True):
            w *= 1 - 0.1 * 0.2
            w -= 0.1 * (g - noise.detach().double().numpy())
    assert_close(weights, expected)


def test_without_gate_and_noise_it_is_sgd_with_decay() -> None:
    """w <- (1 - lr decay) w - lr g is also SGD with coupled L2."""
    weights, others = parameters(numbers(0)), parameters(numbers(0))
    one = UPGD(weights, lr=0.1, sigma=0.0, weight_decay=0.3, gate="none")
    two = torch.optim.SGD(others, lr=0.1, weight_decay=0.3)
    for t in range(5):
        take(one, weights, numbers(t))
        for weight, other in zip(weights, others, strict=True):
            other.grad = weight.grad.clone() if weight.grad is not None else None
        two.step()
    for weight, other in zip(weights, others, strict=True):
        torch.testing.assert_close(weight, other, rtol=1e-5, atol=1e-6)


def test_zero_gradients_at_first() -> None:
    """No utility yet: 0/0 counts as s = 1/2, and the step is decay and half the noise."""
    weights, pgd = parameters(numbers(0)), parameters(numbers(0))
    zeros = [np.zeros(shape) for shape in SHAPES]
    take(UPGD(weights, lr=0.1, sigma=1.0, weight_decay=0.0, generator=seeded()), weights, zeros)
    options: dict[str, Any] = {"weight_decay": 0.0, "gate": "none", "generator": seeded()}
    take(UPGD(pgd, lr=0.05, sigma=1.0, **options), pgd, zeros)
    for weight, other in zip(weights, pgd, strict=True):
        assert weight.isfinite().all()
        torch.testing.assert_close(weight, other, rtol=1e-6, atol=1e-7)


def test_a_dead_network_moves_on_when_gradients_come() -> None:
    start = numbers(0)
    weights, reference = parameters(start), Reference(start, **OPTIONS)
    optimizer = UPGD(weights, **OPTIONS)  # type: ignore[arg-type]
    take(optimizer, weights, [np.zeros(shape) for shape in SHAPES])
    reference.t = 1
    take(optimizer, weights, numbers(1))
    reference.step(numbers(1))
    assert_close(weights, reference.weights)


@pytest.mark.parametrize("utility_max", ["corrected", "raw"])
def test_all_utilities_negative(utility_max: str) -> None:
    """u = (-1, -4), so u_max = -1 and the arguments are 1 and 4: as the formula has it, the
    weight of least utility is then the most protected one."""
    weight = nn.Parameter(torch.tensor([1.0, 2.0]))
    optimizer = UPGD(
        [weight], lr=0.1, sigma=0.0, weight_decay=0.0, beta_utility=0.5, utility_max=utility_max
    )
    weight.grad = torch.tensor([1.0, 2.0])
    optimizer.step()
    z = np.array([1.0, 4.0]) * (2 if utility_max == "raw" else 1)
    expected = np.array([1.0, 2.0]) - 0.1 * np.array([1.0, 2.0]) * (1 - 1 / (1 + np.exp(-z)))
    np.testing.assert_allclose(weight.detach().numpy(), expected, rtol=1e-6)


def test_very_small_utilities_do_not_break_it() -> None:
    """Utilities far below the smallest normal number of float32: u / u_max is still 1 at most."""
    weight = nn.Parameter(torch.tensor([1.0, -2.0, 0.0]))
    optimizer = UPGD([weight], lr=0.1, sigma=0.0, weight_decay=0.0, beta_utility=0.5)
    weight.grad = torch.tensor([-1.0, 0.5, 0.0])
    optimizer.step()
    weight.grad = torch.zeros(3)
    before = weight.detach().clone()
    for _ in range(170):  # 2^-170 is below every float32: utilities go to 0 on the way
        optimizer.step()
        assert torch.equal(weight, before)


# Stacked learners


def stacked(starts: Sequence[Tensor], width: int, **options: Any) -> tuple[Tensor, UPGD]:
    rows = torch.stack(list(starts))
    group = {"params": [rows], "members": len(rows), "width": width}
    generators = [seeded(m) for m in range(len(rows))]
    return rows, UPGD([group], generator=generators, **options)


@pytest.mark.parametrize("gate", ["update", "noise", "none"])
@pytest.mark.parametrize("utility_max", ["corrected", "raw"])
def test_members_of_very_different_scale_do_not_influence_each_other(
    gate: str, utility_max: str
) -> None:
    generator = seeded(5)
    scales = [1e-12, 1.0, 1e12, 0.0]
    starts = [torch.randn(64, generator=generator) * (s or 1.0) for s in scales]
    gradients = [[torch.randn(64, generator=generator) * s for s in scales] for _ in range(4)]
    options = {"lr": 0.01, "sigma": 0.1, "beta_utility": 0.9}
    options |= {"gate": gate, "utility_max": utility_max}
    rows, optimizer = stacked(starts, 60, **options)
    lone = [stacked([start], 60, **options) for start in starts]
    for member, (_, own) in enumerate(lone):
        own._generators[0].manual_seed(member)
    for step in gradients:
        rows.grad = torch.stack(step)
        optimizer.step()
        for gradient, (row, own) in zip(step, lone, strict=True):
            row.grad = gradient.unsqueeze(0).clone()
            own.step()
    for member, (row, _) in enumerate(lone):
        assert torch.equal(rows[member], row[0])
    assert rows.isfinite().all()


def test_padding_does_not_count() -> None:
    """Columns beyond ``width`` have no say in the largest utility."""
    start = torch.tensor([1.0, 2.0, 100.0, 100.0])
    rows, optimizer = stacked([start], 2, lr=0.1, sigma=0.0, beta_utility=0.5, weight_decay=0.0)
    rows.grad = torch.tensor([[-1.0, -0.25, -100.0, -100.0]])
    optimizer.step()  # u_hat = (1, 0.5), so that s = sigmoid(1), sigmoid(0.5)
    assert rows[0, 0].item() == pytest.approx(1 + 0.1 * 0.2689414, rel=1e-6)
    assert rows[0, 1].item() == pytest.approx(2 + 0.025 * 0.3775407, rel=1e-6)


def test_a_member_that_is_not_finite_leaves_the_others_alone() -> None:
    starts = [torch.ones(64), torch.full((64,), torch.nan), -torch.ones(64)]
    rows, optimizer = stacked(starts, 64, lr=0.1, sigma=0.1)
    others, expected = stacked([starts[0], starts[0], starts[2]], 64, lr=0.1, sigma=0.1)
    for _ in range(3):
        for tensor, each in ((rows, optimizer), (others, expected)):
            tensor.grad = torch.ones(3, 64)
            each.step()
    assert torch.equal(rows[[0, 2]], others[[0, 2]])


def test_one_maximum_over_all_parameter_groups() -> None:
    start = numbers(0)
    options = {key: OPTIONS[key] for key in ("sigma", "beta_utility", "weight_decay")}
    one, two = parameters(start), parameters(start)
    whole = UPGD(one, lr=0.1, **options)  # type: ignore[arg-type]
    groups = UPGD(
        [{"params": two[:1], "lr": 0.1}, {"params": two[1:]}],
        lr=0.1,
        **options,  # type: ignore[arg-type]
    )
    for t in range(3):
        take(whole, one, numbers(10 + t))
        take(groups, two, numbers(10 + t))
    for a, b in zip(one, two, strict=True):
        assert torch.equal(a, b)


def test_parameter_groups_that_differ() -> None:
    """Two weights of equal corrected utility move alike, whatever each group's decay.

    g = 0.5, w = -1: u_hat = 0.5 in both groups at the first step, so s = sigmoid(1), and
    w = -1 - (1 - sigmoid(1)) * 0.5 at lr 1. A third group without a gate moves by g, and its
    utility, though it would be the largest, does not count.
    """
    weights = [nn.Parameter(torch.tensor([-1.0])) for _ in range(3)]
    optimizer = UPGD(
        [
            {"params": weights[:1], "beta_utility": 0.9},
            {"params": weights[1:2], "beta_utility": 0.999},
            {"params": weights[2:], "gate": "none"},
        ],
        lr=1.0,
        sigma=0.0,
        weight_decay=0.0,
    )
    for weight, gradient in zip(weights, (0.5, 0.5, 5.0), strict=True):
        weight.grad = torch.tensor([gradient])
    optimizer.step()
    moved = -1 - (1 - 1 / (1 + math.exp(-1))) * 0.5
    assert [weight.item() for weight in weights] == pytest.approx([moved, moved, -6.0], rel=1e-5)


def test_parameters_without_gradient_stay() -> None:
    weights = parameters(numbers(0))
    before = weights[1].detach().clone()
    optimizer = UPGD(weights)
    for index in (0, 2, 3):
        weights[index].grad = torch.ones_like(weights[index])
    optimizer.step()
    assert torch.equal(weights[1], before)
    UPGD(parameters(numbers(0))).step()  # none at all


def test_closure_and_generators_in_number() -> None:
    weight = nn.Parameter(torch.ones(3))
    optimizer = UPGD([weight], sigma=0.0)

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = weight.square().sum()
        loss.backward()
        return loss

    assert optimizer.step(closure).item() == 3.0
    assert weight.max() < 1
    with pytest.raises(ValueError, match="one generator a member"):
        UPGD([{"params": [torch.ones(2, 4)], "members": 2, "width": 4}], generator=[seeded()])
