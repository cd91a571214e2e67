"""Hooks of add-ons: when they are called, with what, and that members stay apart."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from clrl.agents.networks import MLP
from clrl.agents.optim.base import AddOn, compose
from clrl.agents.optim.members import Members
from clrl.agents.optim.rule import UpdateRule
from clrl.agents.options import MLPOptions, SupervisedOptions
from clrl.agents.population import Population
from clrl.agents.supervised import Supervised, regression_loss

SGD = torch.optim.SGD


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def mlp(seed: int) -> MLP:
    return MLP(4, 2, MLPOptions(widths=(5,)), seeded(seed))


class Halved(AddOn):
    """Takes half of each step, and none along gradients of the last layer's bias."""

    def before_step(self, features: Mapping[str, Tensor]) -> None:
        self.members.gradients()["linears.1.bias"].zero_()
        self.start = [tensor.clone() for tensor in self.members.tensors]

    def after_step(self, features: Mapping[str, Tensor]) -> None:
        for tensor, start in zip(self.members.tensors, self.start, strict=True):
            tensor.lerp_(start, 0.5)


class NewHead(AddOn):
    """Starts the last layer anew where the task changed."""

    needs_changes = True

    def at_change(self, members: Sequence[int]) -> None:
        for member in members:
            self.members.start_anew("linears.1.weight", member)


def population(
    *addons: Any, base: Any = SGD, members: int = 3, size: int | None = None
) -> Population:
    rule = UpdateRule(base, {"lr": 0.1}, [(addon, {}) for addon in addons])
    networks = [mlp(seed) for seed in range(members)]
    return Population(networks, regression_loss, rule, [seeded(s) for s in range(members)], size)


def data(updates: int, members: int = 3) -> tuple[Tensor, Tensor]:
    x = torch.randn(members, updates, 8, 4, generator=seeded(1))
    return x, torch.randn(members, updates, 8, 2, generator=seeded(2))


def test_a_wrapper_sees_gradients_before_the_step_and_the_step_after_it() -> None:
    plain, halved = population(), population(Halved)
    before = plain.rows.clone()
    x, y = data(1)
    plain.learn(x, y)
    halved.learn(x, y)
    expected = halved.views_of((before + plain.rows) / 2)
    for name, value in halved.parameters().items():
        start = halved.views_of(before)[name]
        wanted = start if name == "linears.1.bias" else expected[name]
        torch.testing.assert_close(value, wanted)

    network = mlp(0)
    optimizer = compose(network, SGD(network.parameters(), 0.1), [Halved], seeded(0))

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = nn.functional.mse_loss(network(x[0, 0]), y[0, 0])
        loss.backward()
        return loss

    optimizer.step(closure)
    for name, parameter in network.named_parameters():
        torch.testing.assert_close(parameter.detach(), halved.parameters()[name][0])


def test_a_change_reaches_who_needs_it_before_the_next_update() -> None:
    """Of the members whose task changed alone, across a resume, and whatever the chunks."""
    x, y = data(4)
    for size in (1, 2, 3):
        still, told = population(NewHead, size=size), population(NewHead, size=size)
        for one in (still, told):
            one.learn(x[:, :2], y[:, :2])
        told.change([1])
        assert torch.equal(still.rows, told.rows)
        resumed = population(NewHead, size=3)
        resumed.load_state_dict(told.state_dict())
        for one in (still, told, resumed):
            one.learn(x[:, 2:], y[:, 2:])
        assert torch.equal(told.rows, resumed.rows)
        assert [torch.equal(a, b) for a, b in zip(still.rows, told.rows, strict=True)] == [
            True,
            False,
            True,
        ]


def test_nobody_is_told_who_does_not_ask() -> None:
    class Deaf(NewHead):
        needs_changes = False

    x, y = data(2)
    members = population(Deaf)
    members.learn(x, y)
    members.change([0, 1, 2])
    assert members.state_dict()["changed"] == []
    before = members.rows.clone()
    still = population()
    still.learn(x, y)
    assert torch.equal(before, still.rows)


def test_a_whole_parameter_starts_anew_with_its_state() -> None:
    network = mlp(0)
    base = torch.optim.Adam(network.parameters(), 0.1)
    optimizer = compose(network, base, [NewHead], seeded(3))
    network(torch.ones(1, 4)).sum().backward()
    optimizer.step()
    old = network.linears[1].weight.detach().clone()
    optimizer.at_change()
    weight = network.linears[1].weight
    assert (weight != old).all()
    assert not base.state[weight]["exp_avg"].any()
    assert base.state[network.linears[1].bias]["exp_avg"].all()


def test_supervised_learners_pass_it_on() -> None:
    told: list[list[int]] = []

    class Listener(AddOn):
        needs_changes = True

        def __init__(self, members: Members) -> None:
            super().__init__(members)

        def at_change(self, members: Sequence[int]) -> None:
            told.append(list(members))

    learner = Supervised(
        [0, 1],
        "regression",
        lambda generator: MLP(4, 2, MLPOptions(widths=(5,)), generator),
        UpdateRule(SGD, {"lr": 0.1}, [(Listener, {})]),
        SupervisedOptions(batch_size=8),
    )
    x, y = data(2, members=2)
    for _ in range(2):
        learner.learn(x.flatten(1, 2), y.flatten(1, 2))
        learner.end_task()
    assert told == [[0, 1]]
