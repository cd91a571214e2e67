"""AdaUPGD against numbers worked by hand, a formula in double precision, and AdamW."""

from __future__ import annotations

import io
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from clrl.agents.optim import gated
from clrl.agents.optim.adaupgd import AdaUPGD

Arrays = list[NDArray[np.float64]]
SHAPES = [(3, 2), (3,), (1, 3), (1,)]
OPTIONS: dict[str, Any] = {
    "lr": 0.05,
    "betas": (0.8, 0.95),
    "eps": 1e-3,
    "sigma": 0.0,
    "beta_utility": 0.9,
    "weight_decay": 0.0,
    "gate": "update",
    "utility_max": "corrected",
    "lr_factor": 1.0,
}


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


class Reference:
    """The formula for one network of several tensors, in double precision."""

    def __init__(self, weights: Arrays, **options: Any) -> None:
        self.weights = [w.copy() for w in weights]
        self.sizes = [w.size for w in weights]
        self.u, self.m, self.v = (np.zeros(sum(self.sizes)) for _ in range(3))
        self.t = 0
        self.options = options

    def step(self, gradients: Arrays, noise: Arrays) -> None:
        o, (beta_1, beta_2) = self.options, self.options["betas"]
        g, w, xi = (
            np.concatenate([a.ravel() for a in arrays])
            for arrays in (gradients, self.weights, noise)
        )
        self.t += 1
        self.u = o["beta_utility"] * self.u - (1 - o["beta_utility"]) * g * w
        self.m = beta_1 * self.m + (1 - beta_1) * g
        self.v = beta_2 * self.v + (1 - beta_2) * g**2
        u = self.u / (1 - o["beta_utility"] ** self.t)
        largest = u.max() if o["utility_max"] == "corrected" else self.u.max()
        s = 1 / (1 + np.exp(-u / largest))
        step = self.m / (1 - beta_1**self.t)
        step /= np.sqrt(self.v / (1 - beta_2**self.t)) + o["eps"]
        move = {
            "update": (step + xi) * (1 - s),
            "noise": step + xi * (1 - s),
            "none": step + xi,
        }[o["gate"]]
        w = (1 - o["lr"] * o["weight_decay"]) * w - o["lr"] * o["lr_factor"] * move
        parts = np.split(w, np.cumsum(self.sizes)[:-1])
        self.weights = [p.reshape(old.shape) for p, old in zip(parts, self.weights, strict=True)]


def numbers(seed: int) -> Arrays:
    rng = np.random.default_rng(seed)
    return [rng.standard_normal(shape) for shape in SHAPES]


ZEROS = [np.zeros(shape) for shape in SHAPES]


def parameters(values: Arrays) -> list[nn.Parameter]:
    return [nn.Parameter(torch.tensor(value, dtype=torch.float32)) for value in values]


def take(optimizer: torch.optim.Optimizer, weights: Sequence[Tensor], gradients: Arrays) -> None:
    for weight, gradient in zip(weights, gradients, strict=True):
        weight.grad = torch.tensor(gradient, dtype=torch.float32)
    optimizer.step()


def assert_close(weights: Sequence[Tensor], expected: Arrays) -> None:
    for weight, value in zip(weights, expected, strict=True):
        np.testing.assert_allclose(weight.detach().numpy(), value, rtol=2e-5, atol=2e-6)


def test_the_published_defaults() -> None:
    """Of the authors' program for PPO (mohmdelsayed/upgd, core/run/rl)."""
    assert AdaUPGD([nn.Parameter(torch.ones(1))]).defaults == {
        "lr": 3e-4,
        "betas": (0.9, 0.999),
        "eps": 1e-5,
        "sigma": 0.001,
        "beta_utility": 0.999,
        "weight_decay": 0.001,
        "gate": "update",
        "utility_max": "raw",
        "lr_factor": 2.0,
    }


# Against the formula


def test_two_steps_by_hand() -> None:
    """w = (1, -2), betas (0.5, 0.75), beta_utility 0.5, eps 0.5, lr 0.1, decay 0.5, factor 2.

    First g = (-0.5, 1). Corrected averages are the numbers themselves: Adam's step is
    g / (|g| + 0.5) = (-0.5, 2/3); utilities -g w = (0.5, 2), divided by the largest (0.25, 1);
    1 - sigmoid: .4378235, .2689414. So
    w = 0.95 (1, -2) - 0.2 (-0.5 * .4378235, 2/3 * .2689414) = (.9937823, -1.9358589).

    Then g = (1, 0). m = 0.5 (-0.25, 0.5) + 0.5 (1, 0) = (0.375, 0.25), over 0.75: (0.5, 1/3).
    v = 0.75 (0.0625, 0.25) + 0.25 (1, 0) = (0.296875, 0.1875), over 0.4375 and its root:
    (.8237545, .6546537). Adam's step: 0.5 / 1.3237545 = .3777135; (1/3) / 1.1546537 = .2886869.
    u = 0.5 (0.25, 1) + 0.5 (-.9937823, 0) = (-.3718912, 0.5); the correction cancels in
    u / 0.5 = (-.7437823, 1); 1 - sigmoid: .6778224, .2689414. So
    w = 0.95 (.9937823, -1.9358589) - 0.2 (.3777135 * .6778224, .2886869 * .2689414).
    """
    weight = nn.Parameter(torch.tensor([1.0, -2.0]))
    optimizer = AdaUPGD(
        [weight],
        lr=0.1,
        betas=(0.5, 0.75),
        eps=0.5,
        sigma=0.0,
        beta_utility=0.5,
        weight_decay=0.5,
        utility_max="corrected",
        lr_factor=2.0,
    )
    weight.grad = torch.tensor([-0.5, 1.0])
    optimizer.step()
    np.testing.assert_allclose(weight.detach().numpy(), [0.9937823, -1.9358589], rtol=2e-7)
    weight.grad = torch.tensor([1.0, 0.0])
    optimizer.step()
    expected = [
        0.95 * 0.9937823 - 0.2 * 0.3777135 * 0.6778224,
        0.95 * -1.9358589 - 0.2 * 0.2886869 * 0.2689414,
    ]
    np.testing.assert_allclose(weight.detach().numpy(), expected, rtol=3e-7)


@pytest.mark.parametrize("utility_max", ["corrected", "raw"])
@pytest.mark.parametrize("gate", ["update", "noise", "none"])
@pytest.mark.parametrize(("weight_decay", "lr_factor"), [(0.0, 1.0), (0.5, 1.0), (0.01, 2.0)])
def test_many_steps_follow_the_formula(
    gate: str, utility_max: str, weight_decay: float, lr_factor: float
) -> None:
    """Noise included: it is given away by steps of a twin whose weights and gradients are 0."""
    options = {
        **OPTIONS,
        "gate": gate,
        "utility_max": utility_max,
        "weight_decay": weight_decay,
        "lr_factor": lr_factor,
        "sigma": 0.5,
    }
    reveal = {**options, "lr": 1.0, "weight_decay": 1.0, "gate": "none", "lr_factor": 1.0}
    start = numbers(0)
    drawn, weights, reference = parameters(ZEROS), parameters(start), Reference(start, **options)
    twin = AdaUPGD(drawn, generator=seeded(7), **reveal)
    optimizer = AdaUPGD(weights, generator=seeded(7), **options)
    for t in range(8):
        take(twin, drawn, ZEROS)  # lr = decay = 1: the step leaves -xi behind
        take(optimizer, weights, numbers(10 + t))
        noise = [-w.detach().double().numpy() for w in drawn]
        assert all((xi != 0).all() for xi in noise)
        reference.step(numbers(10 + t), noise)
        assert_close(weights, reference.weights)


def test_the_raw_maximum_makes_the_argument_larger_by_the_correction() -> None:
    """One weight 1 with g = -1, so u_hat = 1 = its own largest: argument 1 and, raw, 1/(1-b)."""
    for utility_max, argument in (("corrected", 1.0), ("raw", 1 / (1 - 0.75))):
        weight = nn.Parameter(torch.ones(1))
        options = {**OPTIONS, "lr": 1.0, "eps": 0.0, "beta_utility": 0.75}
        optimizer = AdaUPGD([weight], **{**options, "utility_max": utility_max})
        weight.grad = torch.tensor([-1.0])
        optimizer.step()
        assert weight.item() == pytest.approx(1 + 1 - 1 / (1 + math.exp(-argument)), rel=1e-6)


# Special cases


@pytest.mark.parametrize("lr_factor", [1.0, 2.0])
@pytest.mark.parametrize("weight_decay", [0.0, 0.25])
def test_without_gate_and_noise_it_is_adamw_to_the_bit(
    lr_factor: float, weight_decay: float
) -> None:
    """AdamW takes lr * decay off a weight, and AdaUPGD's factor is not on its decay."""
    weights, others = parameters(numbers(0)), parameters(numbers(0))
    common: dict[str, Any] = {"betas": (0.9, 0.999), "eps": 1e-5}
    options = {"sigma": 0.0, "gate": "none", "lr_factor": lr_factor, "weight_decay": weight_decay}
    one = AdaUPGD(weights, lr=0.01, **common, **options)
    two = torch.optim.AdamW(
        others,
        lr=0.01 * lr_factor,
        weight_decay=weight_decay / lr_factor,
        foreach=False,
        **common,
    )
    for t in range(30):
        take(one, weights, numbers(10 + t))
        take(two, others, numbers(10 + t))
    for weight, other in zip(weights, others, strict=True):
        assert torch.equal(weight, other)


def test_zero_gradients_at_first() -> None:
    """No utility yet: 0/0 counts as s = 1/2, and the step is decay and half the noise."""
    weights, others = parameters(numbers(0)), parameters(numbers(0))
    options = {**OPTIONS, "sigma": 1.0, "weight_decay": 0.1}
    take(AdaUPGD(weights, generator=seeded(), **options), weights, ZEROS)
    half = {**options, "gate": "none", "lr_factor": 0.5}
    take(AdaUPGD(others, generator=seeded(), **half), others, ZEROS)
    for weight, other in zip(weights, others, strict=True):
        assert weight.isfinite().all()
        torch.testing.assert_close(weight, other, rtol=1e-6, atol=1e-7)


def test_parameter_groups_that_differ() -> None:
    """At the first step every corrected average is its number, whatever the group's decays.

    g = 0.5, w = -1: u_hat = 0.5 and Adam's step is 1 in each group, so s = sigmoid(1) and
    w = -1 - (1 - sigmoid(1)) lr. A group without a gate moves by its lr, and its utility,
    though it would be the largest, does not count.
    """
    weights = [nn.Parameter(torch.tensor([-1.0])) for _ in range(4)]
    optimizer = AdaUPGD(
        [
            {"params": weights[:1], "beta_utility": 0.5},
            {"params": weights[1:2], "betas": (0.1, 0.2)},
            {"params": weights[2:3], "lr": 0.5},
            {"params": weights[3:], "gate": "none"},
        ],
        **{**OPTIONS, "lr": 1.0, "eps": 0.0},
    )
    for weight, gradient in zip(weights, (0.5, 0.5, 0.5, 5.0), strict=True):
        weight.grad = torch.tensor([gradient])
    optimizer.step()
    gate = 1 - 1 / (1 + math.exp(-1))
    expected = [-1 - gate, -1 - gate, -1 - gate / 2, -2.0]
    assert [weight.item() for weight in weights] == pytest.approx(expected, rel=1e-5)


def test_parameters_without_gradient_stay_and_closures_are_called() -> None:
    weights = parameters(numbers(0))
    before = weights[1].detach().clone()
    optimizer = AdaUPGD(weights)

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = weights[0].square().sum()
        loss.backward()
        return loss

    expected = float((numbers(0)[0] ** 2).sum())
    assert optimizer.step(closure).item() == pytest.approx(expected, rel=1e-5)
    assert torch.equal(weights[1], before)
    AdaUPGD(parameters(numbers(0))).step()  # none has a gradient


# State


def test_state_dict_holds_what_decides_the_future() -> None:
    """Also the noise of an optimizer that made its generator itself."""
    weights, others = parameters(numbers(0)), parameters(numbers(1))
    optimizer, other = AdaUPGD(weights, sigma=0.5), AdaUPGD(others, sigma=0.5)
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


# Stacked learners


def stacked(
    starts: Sequence[Tensor], width: int, seeds: Sequence[int], **options: Any
) -> tuple[Tensor, AdaUPGD]:
    rows = torch.stack(list(starts))
    group = {"params": [rows], "members": len(rows), "width": width}
    return rows, AdaUPGD([group], generator=[seeded(s) for s in seeds], **options)


@pytest.mark.parametrize("gate", ["update", "noise", "none"])
@pytest.mark.parametrize("block", [1, 128, 2**16])
def test_members_of_very_different_scale_do_not_influence_each_other(
    gate: str, block: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Taken one, two or all at a time, they make the steps that each makes alone."""
    generator = seeded(5)
    scales = [1e-12, 1.0, 1e12, 0.0, 1.0]
    starts = [torch.randn(64, generator=generator) * (s or 1.0) for s in scales]
    gradients = [[torch.randn(64, generator=generator) * s for s in scales] for _ in range(4)]
    options = {"lr": 0.01, "sigma": 0.1, "beta_utility": 0.9, "gate": gate}
    rows, optimizer = stacked(starts, 60, range(5), **options)
    lone = [stacked([start], 60, [m], **options) for m, start in enumerate(starts)]
    for step in gradients:
        with monkeypatch.context() as patch:
            patch.setattr(gated, "_BLOCK", block)
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
    options = {**OPTIONS, "lr": 0.1, "eps": 0.0}
    rows, optimizer = stacked([start], 2, [0], **options)
    rows.grad = torch.tensor([[-1.0, -0.25, -100.0, -100.0]])
    optimizer.step()  # u_hat = (1, 0.5), so that s = sigmoid(1), sigmoid(0.5); Adam's step is -1
    assert rows[0, 0].item() == pytest.approx(1 + 0.1 * 0.2689414, rel=1e-6)
    assert rows[0, 1].item() == pytest.approx(2 + 0.1 * 0.3775407, rel=1e-6)


def test_a_member_that_is_not_finite_leaves_the_others_alone() -> None:
    starts = [torch.ones(64), torch.full((64,), torch.nan), -torch.ones(64)]
    rows, optimizer = stacked(starts, 64, range(3), lr=0.1, sigma=0.1)
    others, expected = stacked([starts[0], starts[2]], 64, [0, 2], lr=0.1, sigma=0.1)
    for _ in range(3):
        for tensor, each in ((rows, optimizer), (others, expected)):
            tensor.grad = torch.ones_like(tensor)
            each.step()
    assert torch.equal(rows[[0, 2]], others)


def test_members_and_generators_in_number() -> None:
    with pytest.raises(ValueError, match="AdaUPGD needs one generator a member"):
        AdaUPGD([{"params": [torch.ones(2, 4)], "members": 2, "width": 4}], generator=[seeded()])
