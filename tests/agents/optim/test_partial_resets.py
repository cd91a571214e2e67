"""Calibrated partial resets: shares worked by hand, and what they do to weights."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from clrl.agents.networks import MLP
from clrl.agents.optim.members import Members
from clrl.agents.optim.partial_resets import CalibratedPartialResets
from clrl.agents.options import MLPOptions


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def by_hand(*widths: int, **options: Any) -> tuple[MLP, CalibratedPartialResets]:
    activation = "crelu" if len(widths) == 1 else "relu"
    network = MLP(2, 2, MLPOptions(widths=widths, activation=activation), seeded())
    base = torch.optim.Adam(network.parameters(), 0.0)
    for parameter in network.parameters():
        parameter.grad = torch.ones_like(parameter)
    base.step()
    members = Members.of_module(network, base, seeded(5))
    return network, CalibratedPartialResets(members, **options)


def shares(rule: CalibratedPartialResets, utility: list[float]) -> Tensor:
    rule.state_dict()["utility"]["layer_1"].copy_(torch.tensor([utility]))
    return rule.shares(rule.layers[0])[0]


def test_shares_by_hand() -> None:
    """At u of 1 and below exactly the rate; at 1.1, 0.015 * 2 / (1 + e^1.6)."""
    _, rule = by_hand(4)
    found = shares(rule, [0.0, 1.0, 1.1, 100.0]).tolist()
    assert found[:2] == pytest.approx([0.015, 0.015], rel=1e-7)
    assert found[2] == pytest.approx(0.00504, abs=5e-6)
    assert found[3] == 0.0


def test_running_mean_by_hand() -> None:
    """Gradients of (0, 1, 3) are scores of (0, 0.75, 2.25); of equal ones p is the rate."""
    network, rule = by_hand(3)
    network.linears[0].weight.grad = torch.tensor([[0.0, 0.0], [1.0, -1.0], [3.0, 3.0]])
    with torch.no_grad():
        rule.after_step({})
    expected = [0.99, 0.99 + 0.0075, 0.99 + 0.0225]
    assert rule.state_dict()["utility"]["layer_1"][0].tolist() == pytest.approx(expected)
    for gradient in (5.0, 0.0):
        network, rule = by_hand(3)
        network.linears[0].weight.grad = torch.full((3, 2), gradient)
        with torch.no_grad():
            for _ in range(20):
                rule.after_step({})
        assert rule.shares(rule.layers[0])[0].tolist() == pytest.approx([0.015] * 3, rel=1e-4)


@pytest.mark.parametrize("widths", [(3,), (3, 4)])
def test_a_part_of_each_unit_is_new_and_the_rest_is_left(widths: tuple[int, ...]) -> None:
    """With no sharpness every share is the rate; CReLU's both copies shrink."""
    network, rule = by_hand(*widths, rate=0.25, sharpness=0.0, every=3)
    expected = {name: value.detach().clone() for name, value in network.named_parameters()}
    moments = [own["exp_avg"].clone() for own in rule.members.optimizer.state.values()]
    with torch.no_grad():
        for _ in range(2):
            rule.after_step({})
        for name, value in network.named_parameters():
            assert torch.equal(value, expected[name])
        rule.after_step({})
    generator = seeded(5)
    for i in range(len(widths)):
        fresh = network.fresh(f"linears.{i}.weight", generator)
        expected[f"linears.{i}.weight"].mul_(0.75).add_(fresh, alpha=0.25)
        expected[f"linears.{i + 1}.weight"] *= 0.75
    for name, value in network.named_parameters():
        torch.testing.assert_close(value.detach(), expected[name])
        if name.endswith("bias"):
            assert torch.equal(value, expected[name])
    for before, own in zip(moments, rule.members.optimizer.state.values(), strict=True):
        assert torch.equal(own["exp_avg"], before)
