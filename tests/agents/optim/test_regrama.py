"""ReGraMa: scores worked by hand, both forms in public, and what is no unit stays."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from clrl.agents.networks import MLP
from clrl.agents.optim.base import compose
from clrl.agents.optim.members import Members
from clrl.agents.optim.regrama import ReGraMa
from clrl.agents.optim.units import Units
from clrl.agents.options import MLPOptions


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


class Seen(ReGraMa):
    """Remembers which units started anew, by step."""

    def __init__(self, members: Members, **options: Any) -> None:
        super().__init__(members, **options)
        self.seen: dict[int, list[int]] = {}

    def renew(self, layer: Units, member: int, units: Tensor) -> None:
        self.seen[self.steps] = sorted(units.tolist())
        super().renew(layer, member, units)


def by_hand(**options: Any) -> tuple[MLP, Seen]:
    network = MLP(2, 2, MLPOptions(widths=(3,), init="kaiming"), seeded())
    optimizer = torch.optim.SGD(network.parameters(), 0.1)
    members = Members.of_module(network, optimizer, seeded(5))
    return network, Seen(members, **{"every": 1, **options})


def step(network: MLP, rule: Seen, *sizes: float) -> None:
    """One with gradients of these mean sizes, by unit."""
    rows = [[1.5 * size, -0.5 * size] for size in sizes]
    network.linears[0].weight.grad = torch.tensor(rows)
    with torch.no_grad():
        rule.after_step({})


@pytest.mark.parametrize(
    ("threshold", "named"), [(-0.1, []), (0.0, [0]), (0.1, [0]), (0.8, [0, 1]), (2.3, [0, 1, 2])]
)
def test_scores_by_hand(threshold: float, named: list[int]) -> None:
    """Mean gradients of (0, 1, 3) are scores of (0, 0.75, 2.25)."""
    network, rule = by_hand(threshold=threshold)
    step(network, rule, 0.0, 1.0, 3.0)
    assert rule.seen == ({1: named} if named else {})


def test_no_gradient_at_all_is_a_score_of_0() -> None:
    for threshold, named in ((0.0, {1: [0, 1, 2]}), (-0.1, {})):
        network, rule = by_hand(threshold=threshold)
        step(network, rule, 0.0, 0.0, 0.0)
        assert rule.seen == named
        assert network.linears[0].weight.isfinite().all()


def test_the_least_alone() -> None:
    for fraction, named in ((1.0, [0, 1, 2]), (0.67, [1, 2]), (0.34, [2]), (0.3, None)):
        network, rule = by_hand(threshold=10.0, fraction=fraction)
        step(network, rule, 3.0, 2.0, 1.0)
        assert rule.seen == ({1: named} if named else {})


def test_several_updates_are_looked_at_together() -> None:
    """Of six, the last three: unit 0 had gradients before these, unit 1 in one of them."""
    network, rule = by_hand(threshold=0.01, every=6, updates=3)
    for sizes in ([1.0, 0, 1], [1, 0, 1], [1, 0, 1], [0, 0, 1], [0, 1, 1], [0, 0, 1]):
        step(network, rule, *sizes)
    assert rule.seen == {6: [0]}


@pytest.mark.parametrize("outgoing", ["keep", "zero"])
def test_a_unit_that_nothing_reads_has_no_gradient(outgoing: str) -> None:
    """It starts anew, alone; what reads it is kept, or 0; outputs are no units."""
    network = MLP(2, 2, MLPOptions(widths=(4,), activation="tanh"), seeded())
    with torch.no_grad():
        network.linears[1].weight[:, 2] = 0.0
        network.linears[1].weight[:, 1] = 1e-6  # next to nothing
    base = torch.optim.Adam(network.parameters(), 0.0)
    addon = [lambda members: Seen(members, threshold=0.01, every=1, outgoing=outgoing)]
    optimizer = compose(network, base, addon, seeded(3))
    before = {name: value.detach().clone() for name, value in network.named_parameters()}
    x = torch.randn(30, 2, generator=seeded(4))
    (network(x) - 1).square().mean().backward()
    optimizer.step()
    (rule,) = optimizer.chain.addons
    assert isinstance(rule, Seen) and rule.seen == {1: [1, 2]}
    after = dict(network.named_parameters())
    assert torch.equal(after["linears.1.bias"], before["linears.1.bias"])
    assert (after["linears.0.bias"][1:3] == 0).all()
    for name, kept in (("linears.0.weight", [0, 3]), ("linears.0.bias", [0, 3])):
        assert torch.equal(after[name][kept], before[name][kept])
    assert (after["linears.0.weight"][1:3] != before["linears.0.weight"][1:3]).all()
    expected = before["linears.1.weight"].clone()
    if outgoing == "zero":
        expected[:, 1:3] = 0.0
    assert torch.equal(after["linears.1.weight"], expected)
    moments = base.state[network.linears[1].weight]["exp_avg"]
    assert bool(moments[:, 1:3].any()) == (outgoing == "keep")
    assert moments[:, [0, 3]].all()


def test_new_weights_are_as_the_networks_own() -> None:
    """Public code takes a bound of sqrt(6 / inputs) for networks born with sqrt(1 / inputs)."""
    network = MLP(100, 2, MLPOptions(widths=(400,), init="torch"), seeded())
    weight = network.linears[0].weight
    born = float(weight.detach().std())
    optimizer = torch.optim.SGD(network.parameters(), 0.1)
    rule = Seen(Members.of_module(network, optimizer, seeded(5)), every=1)
    weight.grad = torch.zeros_like(weight)
    with torch.no_grad():
        weight.zero_()
        rule.after_step({})
    assert float(weight.detach().std()) == pytest.approx(born, rel=0.05)
