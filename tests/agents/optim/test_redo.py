"""ReDo: scores worked by hand, who starts anew and when, and what public code does otherwise."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from gymnasium import spaces
from torch import Tensor, nn

from clrl.agents.actions import Discrete
from clrl.agents.networks import MLP, HiddenLayer, Network
from clrl.agents.optim.base import compose
from clrl.agents.optim.members import Members
from clrl.agents.optim.redo import ReDo
from clrl.agents.optim.units import Units
from clrl.agents.options import MLPOptions
from clrl.agents.ppo.actor_critic import ActorCritic
from clrl.errors import UsageError


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def mlp(*widths: int, inputs: int = 2, **options: Any) -> MLP:
    network = MLP(inputs, 2, MLPOptions(widths=widths, **{"init": "kaiming", **options}), seeded())
    with torch.no_grad():  # no bias at 0, so that a reset shows
        for layer in network.linears:
            layer.bias.fill_(0.3)
    return network


class Seen(ReDo):
    """Remembers who started anew: step, layer, units."""

    def __init__(self, members: Members, **options: Any) -> None:
        super().__init__(members, **options)
        self.seen: list[tuple[int, str, list[int]]] = []

    def renew(self, layer: Units, member: int, units: Tensor) -> None:
        self.seen.append((self.steps, layer.name, units.tolist()))
        super().renew(layer, member, units)


def by_hand(network: Any, **options: Any) -> Seen:
    optimizer = torch.optim.SGD(network.parameters(), 0.1)
    return Seen(Members.of_module(network, optimizer, seeded(5)), **{"every": 1, **options})


def look(rule: ReDo, *layers: list[list[float]]) -> None:
    """One step with these activations of layer 1 and so on, [examples][units]."""
    with torch.no_grad():
        rule.after_step({f"layer_{i + 1}": torch.tensor([h]) for i, h in enumerate(layers)})


@pytest.mark.parametrize(
    ("threshold", "dormant"), [(-0.1, []), (0.0, [0]), (0.1, [0]), (0.8, [0, 1]), (2.3, [0, 1, 2])]
)
def test_scores_by_hand(threshold: float, dormant: list[int]) -> None:
    """Means of |h| of (0, 1, 3) are scores of (0, 0.75, 2.25)."""
    network = mlp(3)
    rule = by_hand(network, threshold=threshold)
    look(rule, [[0.0, 2.0, -1.0], [0.0, 0.0, 5.0]])
    assert rule.seen == ([(1, "layer_1", dormant)] if dormant else [])
    assert (network.linears[0].bias == 0).nonzero().flatten().tolist() == dormant


@pytest.mark.parametrize(("threshold", "recycled"), [(0.0, True), (0.025, True), (-0.1, False)])
def test_a_layer_that_is_dead_all_over_is_recycled(threshold: float, recycled: bool) -> None:
    """0/0 is no number, and what is no number is below no threshold: not so here."""
    network = mlp(3)
    rule = by_hand(network, threshold=threshold)
    look(rule, [[0.0, 0.0, 0.0]])
    assert rule.seen == ([(1, "layer_1", [0, 1, 2])] if recycled else [])
    assert network.linears[0].weight.isfinite().all()


def test_at_threshold_0_the_output_on_the_batch_stays() -> None:
    network = mlp(6, 5)
    with torch.no_grad():
        network.linears[0].bias[1:3] = -100.0
    x = torch.randn(20, 2, generator=seeded(3))
    rule = by_hand(network, threshold=0.0)
    with torch.no_grad():
        before = network(x)
        first = network.activations[0](network.linears[0](x))
        second = network.activations[1](network.linears[1](first))
        rule.after_step({"layer_1": first.unsqueeze(0), "layer_2": second.unsqueeze(0)})
        assert torch.equal(network(x), before)
        alive = network.activations[0](network.linears[0](x)).amax(dim=0)
    (layer_1, *_) = rule.seen
    assert layer_1[1:] == ("layer_1", [1, 2]) and (alive[1:3] > 0).any()


def test_what_joins_two_dormant_units_ends_at_0() -> None:
    """And their other weights do not; biases of what reads them are left alone."""
    network = mlp(3, 4)
    before = {name: value.detach().clone() for name, value in network.named_parameters()}
    rule = by_hand(network, threshold=0.0)
    look(rule, [[1.0, 0.0, 1.0]], [[1.0, 1.0, 0.0, 1.0]])
    weight = network.linears[1].weight.detach()
    assert weight[2, 1] == 0 and (weight[2, [0, 2]] != 0).all()
    assert (weight[2] != before["linears.1.weight"][2]).all()
    assert (weight[:, 1] == 0).all()
    others = [0, 1, 3]
    assert torch.equal(weight[others][:, [0, 2]], before["linears.1.weight"][others][:, [0, 2]])
    assert (network.linears[2].weight[:, 2] == 0).all()
    assert torch.equal(network.linears[2].bias, before["linears.2.bias"])
    assert network.linears[1].bias.tolist() == pytest.approx([0.3, 0.3, 0.0, 0.3])


def test_it_looks_every_so_many_updates() -> None:
    rule = by_hand(mlp(2), threshold=0.0, every=3, examples=1)
    for _ in range(7):
        look(rule, [[0.0, 1.0]])
    assert rule.seen == [(3, "layer_1", [0]), (6, "layer_1", [0])]


def test_small_batches_are_looked_at_together() -> None:
    """Of ten batches of one example, the last four: who fired in one of these is not dormant."""
    rule = by_hand(mlp(3), threshold=0.0, every=10, examples=4)
    for step in range(1, 11):
        look(rule, [[float(step < 7), float(step == 7), float(step == 10)]])
    assert rule.seen == [(10, "layer_1", [0])]
    look(rule, [[1.0, 0.0, 0.0]])
    assert not rule.state_dict()["sums"]["layer_1"].any()  # a look begins with nothing


def test_the_mean_of_ratios_is_another_score_and_finite_where_nothing_fires() -> None:
    """h of (0, 0) and (1, 3): the ratios of means are 0.5 and 1.5; of ratios, 0.25 and 0.75."""
    for score, dormant in (("ratio-of-means", []), ("mean-of-ratios", [(1, "layer_1", [0])])):
        rule = by_hand(mlp(2), threshold=0.3, score=score)
        look(rule, [[0.0, 0.0], [1.0, 3.0]])
        assert rule.seen == dormant


@pytest.mark.parametrize("init", ["torch", "kaiming", "orthogonal"])
def test_new_weights_are_as_the_networks_own(init: str) -> None:
    """Public code takes a bound of sqrt(6 / inputs) for networks born with sqrt(1 / inputs)."""
    network = mlp(400, inputs=100, init=init)
    born = network.linears[0].weight.detach().std()
    rule = by_hand(network, threshold=0.0)
    with torch.no_grad():
        network.linears[0].weight.zero_()
    look(rule, [[0.0] * 400])
    assert float(network.linears[0].weight.detach().std() / born) == pytest.approx(1.0, rel=0.05)


def test_of_actor_and_critic_one_alone() -> None:
    def make(inputs: int, outputs: int, generator: torch.Generator, gain: float) -> MLP:
        return MLP(inputs, outputs, MLPOptions(widths=(3,)), generator, gain)

    network = ActorCritic(2, Discrete(spaces.Discrete(2)), make, False, 0.0, seeded())
    features = {f"{part}/layer_1": torch.zeros(1, 4, 3) for part in ("actor", "critic")}
    for part, named in (("all", ["actor", "critic"]), ("actor", ["actor"]), ("critic", ["critic"])):
        rule = by_hand(network, part=part)
        with torch.no_grad():
            rule.after_step(features)
        assert [name for _, name, _ in rule.seen] == [f"{one}/layer_1" for one in named]
    with pytest.raises(UsageError, match="part: expected all, got critic"):
        by_hand(mlp(3), part="critic")


def test_scaling_a_layer_changes_nothing_and_scaling_a_unit_does() -> None:
    h = torch.tensor([[[0.1, 1.0, 2.0]]])
    for factor, dormant in ((torch.tensor(10.0), []), (torch.tensor([1.0, 10.0, 1.0]), [0])):
        rule = by_hand(mlp(3), threshold=0.05)
        with torch.no_grad():
            rule.after_step({"layer_1": h * factor})
        assert [units for *_, units in rule.seen] == ([dormant] if dormant else [])


class Pixels(Network):
    """A convolution, flattened for a dense layer."""

    hidden_layers = (HiddenLayer("layer_1", "inner", "act", "outer"),)

    def __init__(self) -> None:
        super().__init__()
        self.inner, self.outer, self.act = nn.Conv2d(1, 3, 2), nn.Linear(12, 2), nn.ReLU()
        self.initialise(seeded(1))

    def forward(self, x: Tensor) -> Tensor:
        return self.outer(self.act(self.inner(x)).flatten(-3))  # type: ignore[no-any-return]

    def fresh(self, name: str, generator: torch.Generator) -> Tensor:
        return torch.randn(self.get_parameter(name).shape, generator=generator)


def test_of_a_convolution_a_channel_that_fires_nowhere_is_recycled() -> None:
    """The columns that read it go to 0, those of its four places, and the output stays."""
    network = Pixels()
    with torch.no_grad():
        network.inner.bias.copy_(torch.tensor([9.0, -99.0, 9.0]))
    base = torch.optim.SGD(network.parameters(), 0.0)
    make = [lambda members: Seen(members, threshold=0.0, every=1)]
    optimizer = compose(network, base, make, seeded())
    x = torch.randn(5, 1, 3, 3, generator=seeded(2))
    before = network(x)
    before.sum().backward()
    optimizer.step()
    (rule,) = optimizer.chain.addons
    assert isinstance(rule, Seen) and rule.seen == [(1, "layer_1", [1])]
    assert torch.equal(network(x), before)
    columns = (network.outer.weight == 0).all(dim=0).nonzero().flatten().tolist()
    assert columns == [4, 5, 6, 7]
