"""TRAC: steps computed by hand, whose numbers go together, and what others do to parameters."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from gymnasium import spaces
from torch import Tensor

from clrl.agents.actions import Gaussian
from clrl.agents.networks import MLP, Network
from clrl.agents.optim.base import WithAddOns, compose
from clrl.agents.optim.elementwise import ElementwiseAdam
from clrl.agents.optim.members import Members
from clrl.agents.optim.resets import HeadReset
from clrl.agents.optim.rule import UpdateRule
from clrl.agents.optim.shrink_perturb import ShrinkAndPerturb
from clrl.agents.optim.trac import TRAC, erfi
from clrl.agents.options import MLPOptions
from clrl.agents.ppo.actor_critic import ActorCritic
from clrl.testing.learners import Problem

FIRST = 1.0058e-7  # 1e-8 times the sum of erfi(beta) / erfi(1 / sqrt(2)) over the six discounts


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def line(lr: float = 1.0, **options: Any) -> tuple[MLP, WithAddOns, TRAC]:
    """Two numbers, w x + b, with gradient descent."""
    network = MLP(1, 1, MLPOptions(widths=()), seeded())
    base = torch.optim.SGD(network.parameters(), lr)
    optimizer = compose(network, base, [lambda m: TRAC(m, **options)], seeded())
    (trac,) = optimizer.chain.addons
    assert isinstance(trac, TRAC)
    return network, optimizer, trac


def step(network: MLP, optimizer: WithAddOns, weight: float | None, bias: float | None) -> None:
    """A step whose gradients are given."""
    for own, number in ((network.linears[0].weight, weight), (network.linears[0].bias, bias)):
        own.grad = None if number is None else torch.full_like(own, number)
    optimizer.step()


def displacement(network: MLP, trac: TRAC, part: str = "weight") -> float:
    """How far a number is from its reference."""
    name = f"linears.0.{part}"
    return float(network.get_parameter(name).detach() - trac.state_dict()["reference"][name])


def start_at_zero(network: MLP) -> None:
    """So that single precision can tell displacements apart."""
    with torch.no_grad():
        for own in network.parameters():
            own.zero_()


# Steps by hand


def test_erfi_is_its_series_and_stays_finite() -> None:
    x = torch.tensor([0.0, 1 / math.sqrt(2), -1.0, 3.0, 8.0, 1e6, -math.inf], dtype=torch.float64)
    found = erfi(x)
    expected = [0.0, 0.9534383, -1.6504258, 1629.9946, 4.43245e26]
    assert found[:5].tolist() == pytest.approx(expected, rel=1e-4)
    assert found.isfinite().all() and found[5] == -found[6]


def test_the_first_step_is_the_bases_times_1e_7() -> None:
    network, optimizer, trac = line()
    start_at_zero(network)
    step(network, optimizer, 2.0, -1.0)
    assert displacement(network, trac) == pytest.approx(-2.0 * FIRST, rel=1e-4)
    assert displacement(network, trac, "bias") == pytest.approx(FIRST, rel=1e-4)
    assert trac.state_dict()["scale"].item() == pytest.approx(FIRST, rel=1e-4)


def test_the_second_step_goes_six_times_as_far_where_that_pays_and_back_where_not() -> None:
    for gradient, scale in ((1e4, 6e-8), (-1e4, -6e-8)):
        network, optimizer, trac = line()
        start_at_zero(network)
        step(network, optimizer, 1.0, 0.0)
        step(network, optimizer, gradient, 0.0)
        found = trac.state_dict()
        assert found["scale"].item() == pytest.approx(scale, rel=1e-4)
        along = -1.0058 / 1.1058  # d, which is the first step but for eps
        if scale > 0:
            assert displacement(network, trac) == pytest.approx(scale * (along - 1e4), rel=1e-3)
        else:
            assert displacement(network, trac) == 0


def test_the_second_product_is_that_of_displacement_and_gradient() -> None:
    network, optimizer, trac = line()
    start_at_zero(network)
    step(network, optimizer, 2.0, -1.0)
    step(network, optimizer, 3.0, 5.0)
    h = 1.0058 / 1.1058 * (-2.0 * 3.0 + 1.0 * 5.0)
    assert trac.state_dict()["v"][0, 0].tolist() == pytest.approx([h * h] * 6, rel=1e-3)
    assert trac.state_dict()["sigma"][0, 0].tolist() == pytest.approx([-h] * 6, rel=1e-3)


def test_without_a_gradient_nothing_moves() -> None:
    network, optimizer, trac = line()
    before = [own.detach().clone() for own in network.parameters()]
    for _ in range(3):
        step(network, optimizer, 0.0, 0.0)
    for own, old in zip(network.parameters(), before, strict=True):
        assert torch.equal(own.detach(), old)
    step(network, optimizer, 1e5, None)
    assert displacement(network, trac) != 0
    assert displacement(network, trac, "bias") == 0


def test_a_scaled_loss_is_the_same_over_adam() -> None:
    scales = []
    for factor in (1.0, 1000.0):
        network = MLP(1, 1, MLPOptions(widths=()), seeded())
        start_at_zero(network)
        base = torch.optim.Adam(network.parameters(), 0.01)
        optimizer = compose(network, base, [TRAC], seeded())
        for gradient in (1.0, 2.0, 0.5, -1.0, 3.0):
            step(network, optimizer, factor * gradient, 0.0)
        scales.append(optimizer.chain.addons[0].state_dict()["scale"].item())
    assert scales[0] == pytest.approx(scales[1], rel=1e-3)


# Whose numbers go together


def actor_critic() -> ActorCritic:
    def make(inputs: int, outputs: int, generator: torch.Generator, gain: float) -> MLP:
        return MLP(inputs, outputs, MLPOptions(widths=(4,)), generator, gain)

    return ActorCritic(3, Gaussian(spaces.Box(-1.0, 1.0, (2,))), make, False, 0.0, seeded())


@pytest.mark.parametrize("parts", ["together", "apart"])
def test_actor_and_critic_share_their_scale_or_not(parts: Any) -> None:
    network = actor_critic()
    base = torch.optim.SGD(network.parameters(), 0.1)
    optimizer = compose(network, base, [lambda m: TRAC(m, parts=parts)], seeded())
    for k in (1.0, 1.0, 2.0):  # the critic's gradient turns round
        for name, own in network.named_parameters():
            turned = k == 2.0 and name.startswith("parts.critic")
            own.grad = torch.full_like(own, -k if turned else k)
        optimizer.step()
    scale = optimizer.chain.addons[0].state_dict()["scale"]
    assert scale.shape == (1, 2 if parts == "apart" else 1)
    if parts == "apart":
        assert scale[0, 0] > 0 > scale[0, 1]
        back = [
            torch.equal(own.detach(), optimizer.chain.addons[0].state_dict()["reference"][name][0])
            for name, own in network.named_parameters()
        ]
        assert back == ["critic" in name for name, _ in network.named_parameters()]


def test_a_members_scale_is_its_own() -> None:
    rule = UpdateRule(torch.optim.SGD, {"lr": 0.1}, [(TRAC, {})])
    problem = Problem(rule, 6)
    x, y = problem.examples([0, 1], 6)
    population = problem.population([0, 1])
    population.learn(x, y)
    alone = problem.population([1])
    alone.learn(x[1:], y[1:])
    scales = [
        past["addons"][0]["scale"]
        for one in (population, alone)
        for past in one.state_dict()["optimizers"]
    ]
    assert torch.equal(scales[1], scales[2]) and not torch.equal(scales[0], scales[1])


# What others do to parameters


def learn(network: Network, optimizer: torch.optim.Optimizer, steps: int) -> None:
    for k in range(steps):
        x = torch.randn(8, 3, generator=seeded(k))
        optimizer.zero_grad()
        (network(x) - x[:, :2]).square().mean().backward()
        optimizer.step()


def test_what_starts_anew_stays_where_it_was_drawn() -> None:
    """A reset is no displacement, which a small S would make millions of times greater."""
    network = MLP(3, 2, MLPOptions(widths=(6,)), seeded())
    drawn: list[Tensor] = []

    class Watched(HeadReset):
        def operate(self, member: int) -> None:
            super().operate(member)
            drawn.append(self.members.parameters["linears.1.weight"][member].clone())

    def reset(members: Members) -> HeadReset:
        return Watched(members, every=5, times=1)

    base = ElementwiseAdam(network.parameters(), 0.01)
    optimizer = compose(network, base, [TRAC, reset], seeded(5))
    learn(network, optimizer, 8)
    trac = optimizer.chain.addons[0]
    assert torch.equal(trac.state_dict()["reference"]["linears.1.weight"][0], drawn[0])
    torch.testing.assert_close(network.linears[1].weight.detach(), drawn[0], rtol=0, atol=1e-3)


def test_noise_of_others_moves_the_reference() -> None:
    network = MLP(3, 2, MLPOptions(widths=(6,)), seeded())
    before = network.linears[0].weight.detach().clone()

    def noise(members: Members) -> ShrinkAndPerturb:
        return ShrinkAndPerturb(members, noise_scale=0.1)

    base = torch.optim.SGD(network.parameters(), 0.01)
    optimizer = compose(network, base, [TRAC, noise], seeded(5))
    learn(network, optimizer, 10)
    own = network.linears[0].weight.detach()
    trac = optimizer.chain.addons[0]
    apart = (own - trac.state_dict()["left"]["linears.0.weight"][0]).abs().max()
    assert 0 < float(apart) < 1.0  # one step's noise
    assert 0.05 < float((own - before).std()) < 1.0  # ten steps' noise, of 0.1 each
