"""Hare and tortoise: the mean by hand, its two ends, and that they are two."""

from __future__ import annotations

from typing import Any

import torch

from clrl.agents.networks import MLP
from clrl.agents.optim.base import WithAddOns, compose
from clrl.agents.optim.hare_tortoise import HareAndTortoise
from clrl.agents.optim.rule import UpdateRule
from clrl.agents.options import MLPOptions
from clrl.agents.population import Population
from clrl.agents.supervised import regression_loss


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def made(**options: Any) -> tuple[MLP, WithAddOns, HareAndTortoise]:
    """A network of ones, whose steps take 1 off every parameter."""
    network = MLP(4, 2, MLPOptions(widths=(3,)), seeded())
    with torch.no_grad():
        for value in network.parameters():
            value.fill_(1.0)
    base = torch.optim.SGD(network.parameters(), 1.0)
    optimizer = compose(network, base, [lambda m: HareAndTortoise(m, **options)], seeded())
    (addon,) = optimizer.chain.addons
    assert isinstance(addon, HareAndTortoise)
    return network, optimizer, addon


def step(network: MLP, optimizer: WithAddOns) -> list[float]:
    for value in network.parameters():
        value.grad = torch.ones_like(value)
    optimizer.step()
    return [float(value.detach().flatten()[0]) for value in network.parameters()]


def test_the_hare_goes_back_to_the_mean() -> None:
    """From 1: the hare 0, the tortoise .75; the hare -1, the tortoise .3125, where both stay."""
    network, optimizer, _ = made(decay=0.75, every=2)
    assert step(network, optimizer) == [0.0] * 4
    assert step(network, optimizer) == [0.3125] * 4
    assert step(network, optimizer) == [-0.6875] * 4


def test_at_1_it_goes_back_to_where_it_began_and_at_0_nowhere() -> None:
    for decay, ends in ((1.0, [0.0, -1.0, 1.0, 0.0]), (0.0, [0.0, -1.0, -2.0, -3.0])):
        network, optimizer, _ = made(decay=decay, every=3)
        assert [step(network, optimizer)[0] for _ in range(4)] == ends


def test_after_a_reset_they_are_still_two() -> None:
    network, optimizer, addon = made(decay=0.5, every=2)
    for _ in range(2):
        step(network, optimizer)
    slow = addon.state_dict()["tortoise"]
    for name, value in network.named_parameters():
        assert slow[name].data_ptr() != value.data_ptr()
        assert (slow[name] == value).all()
    at = float(slow["linears.0.bias"][0, 0])
    with torch.no_grad():
        network.linears[0].bias.add_(7.0)
    assert float(slow["linears.0.bias"][0, 0]) == at
    step(network, optimizer)
    assert float(slow["linears.0.bias"][0, 0]) == 0.5 * at + 0.5 * (at + 7.0 - 1.0)


def test_every_step_has_gradients_of_its_own() -> None:
    """Of the same batch at a step size of 0 they are the same, and not their sum."""
    rule = UpdateRule(torch.optim.SGD, {"lr": 0.0}, [(HareAndTortoise, {"every": 2})])
    members = Population([MLP(4, 2, MLPOptions(), seeded())], regression_loss, rule, [seeded(1)])
    x, y = torch.ones(1, 1, 3, 4), torch.zeros(1, 1, 3, 2)
    gradients = []
    for _ in range(4):
        members.learn(x, y)
        gradients.append(members.gradients.clone())
    assert gradients[0].any()
    assert all(torch.equal(gradients[0], one) for one in gradients)


def test_moments_stay() -> None:
    network = MLP(4, 2, MLPOptions(widths=(3,)), seeded())
    base = torch.optim.Adam(network.parameters(), 1.0)
    optimizer = compose(network, base, [lambda m: HareAndTortoise(m, every=1)], seeded())
    for value in network.parameters():
        value.grad = torch.ones_like(value)
    optimizer.step()
    for value in network.parameters():
        torch.testing.assert_close(base.state[value]["exp_avg"], torch.full_like(value, 0.1))
