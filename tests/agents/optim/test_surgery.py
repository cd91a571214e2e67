"""Operations at changes of task and every so many updates: heads, networks, DASH, FIRE."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from gymnasium import spaces
from torch import Tensor, nn

from clrl.agents.actions import Gaussian
from clrl.agents.networks import MLP, HiddenLayer, Network
from clrl.agents.optim.base import WithAddOns, compose
from clrl.agents.optim.dash import DASH, cosines
from clrl.agents.optim.elementwise import ElementwiseAdam
from clrl.agents.optim.fire import FIRE, isometry, polar
from clrl.agents.optim.resets import FullReset, HeadReset
from clrl.agents.optim.rule import UpdateRule
from clrl.agents.optim.surgery import Surgery
from clrl.agents.options import MLPOptions, SupervisedOptions
from clrl.agents.ppo.actor_critic import ActorCritic
from clrl.agents.supervised import Supervised
from clrl.testing.learners import Problem


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def mlp(*widths: int, **options: Any) -> MLP:
    return MLP(3, 2, MLPOptions(widths=widths, **options), seeded())


def actor_critic() -> ActorCritic:
    def make(inputs: int, outputs: int, generator: torch.Generator, gain: float) -> MLP:
        options = MLPOptions(widths=(5, 4), init="orthogonal", batch_norm=True)
        return MLP(inputs, outputs, options, generator, gain)

    space = spaces.Box(-1.0, 1.0, (2,))
    return ActorCritic(3, Gaussian(space), make, False, 0.5, seeded())


def trained(network: Network, addon: Any, steps: int = 3) -> WithAddOns:
    """With an optimizer that has seen some gradients."""
    optimizer = compose(network, ElementwiseAdam(network.parameters(), 0.01), [addon], seeded(9))
    for step in range(steps):
        learn(network, optimizer, step)
    return optimizer


def learn(network: Network, optimizer: torch.optim.Optimizer, step: int) -> None:
    outputs = network(torch.randn(8, 3, generator=seeded(step)))
    outputs = outputs if isinstance(outputs, tuple) else (outputs,)
    optimizer.zero_grad()
    sum((one - 1).square().mean() for one in outputs).backward()
    optimizer.step()


def copies(network: nn.Module) -> dict[str, Tensor]:
    return {name: value.detach().clone() for name, value in network.named_parameters()}


# When


class Counted(Surgery):
    def __init__(self, members: Any, every: int = 0, times: int = 0) -> None:
        super().__init__(members, every, times)
        self.at: list[tuple[int, int]] = []

    def operate(self, member: int) -> None:
        self.at.append((self._steps, member))


def test_it_is_every_so_many_updates_or_at_changes_and_so_many_times() -> None:
    for options, expected in (
        ({"every": 2}, [2, 4, 6]),
        ({"every": 2, "times": 2}, [2, 4]),
        ({}, [3, 6]),
        ({"times": 1}, [3]),
    ):
        network = mlp(3)
        optimizer = trained(network, lambda members, own=options: Counted(members, **own))
        optimizer.at_change()
        for step in range(3):
            learn(network, optimizer, step)
        optimizer.at_change()
        (own,) = optimizer.chain.addons
        assert isinstance(own, Counted)
        assert [step for step, _ in own.at] == expected


@pytest.mark.parametrize("addon", [HeadReset, FullReset, DASH, FIRE])
def test_learners_are_told_of_changes_only_for_what_acts_at_changes(addon: Any) -> None:
    """And then it acts, on those whose task changed alone."""
    for options, told in (({"every": 0}, True), ({"every": 50}, False)):
        rule = UpdateRule(torch.optim.SGD, {"lr": 0.01}, [(addon, options)])
        assert rule.needs_changes == told
        problem = Problem(rule, 4)
        x, y = problem.examples([0, 1], 4)
        plain, changed = (problem.population([0, 1]) for _ in range(2))
        for one in (plain, changed):
            one.learn(x[:, :3], y[:, :3])
        changed.change([1])
        for one in (plain, changed):
            one.learn(x[:, 3:], y[:, 3:])
        same = [torch.equal(*rows) for rows in zip(plain.rows, changed.rows, strict=True)]
        assert same == [True, not told]
    default = UpdateRule(torch.optim.SGD, {"lr": 0.01}, [(addon, {})])
    assert default.needs_changes == (addon in (DASH, FIRE))


def test_learners_of_streams_pass_changes_on() -> None:
    found = []
    for addons in ([], [(HeadReset, {"every": 0})]):
        learner = Supervised(
            [0],
            "regression",
            lambda generator: MLP(3, 2, MLPOptions(widths=(5,)), generator),
            UpdateRule(torch.optim.SGD, {"lr": 0.0}, addons),
            SupervisedOptions(batch_size=4),
        )
        x, y = torch.randn(1, 8, 3, generator=seeded(1)), torch.randn(1, 8, 2, generator=seeded(2))
        start = {name: value.clone() for name, value in learner.population.parameters().items()}
        learner.learn(x, y)
        learner.end_task()
        learner.learn(x, y)
        end = learner.population.parameters()
        found.append({name for name, value in end.items() if not torch.equal(value, start[name])})
    assert found == [set(), {"linears.1.weight", "linears.1.bias"}]


# Heads and whole networks


@pytest.mark.parametrize("layers", [1, 2])
def test_heads_of_actor_and_critic_start_anew_and_are_trained(layers: int) -> None:
    network = actor_critic()
    optimizer = trained(network, lambda members: HeadReset(members, 0, 0, layers))
    before = copies(network)
    buffers = {name: value.clone() for name, value in network.named_buffers()}
    optimizer.at_change()
    head = {"linears.2", "linears.1", "norms.1"} if layers == 2 else {"linears.2"}
    drawn = {f"parts.{part}.{path}" for part in ("actor", "critic") for path in head}
    for name, value in network.named_parameters():
        new = name.rpartition(".")[0] in drawn
        assert torch.equal(value, before[name]) != new, name
        assert bool(optimizer.chain.base.state[value]["exp_avg"].any()) != new, name
    for name, value in network.named_buffers():
        if name.endswith("running_mean"):
            new = name.rpartition(".")[0] in drawn
            assert bool((value == 0).all()) == new
            assert torch.equal(value, buffers[name]) != new
    actor = network.get_parameter("parts.actor.linears.2.weight").detach()
    critic = network.get_parameter("parts.critic.linears.2.weight").detach()
    assert float(actor.norm(dim=1)[0]) == pytest.approx(0.01)  # each from its own initialiser
    assert float(critic.norm()) == pytest.approx(1.0)
    before = copies(network)
    learn(network, optimizer, 7)
    for name, value in network.named_parameters():
        assert (value != before[name]).any(), name


def test_a_full_reset_leaves_nothing_of_the_past() -> None:
    """Parameters are a new draw, and learn as under a new optimizer."""
    network = actor_critic()
    optimizer = trained(network, lambda members: FullReset(members, 0))
    before = copies(network)
    optimizer.at_change()
    assert network.spread is not None and (network.spread == 0.5).all()
    for name, value in network.named_buffers():
        if not name.endswith("num_batches_tracked"):
            assert (value == float(name.endswith("var"))).all(), name
    twin = actor_critic()
    twin.load_state_dict(network.state_dict())
    for name, value in network.named_parameters():
        assert (value != before[name]).any(), name
    learn(network, optimizer, 7)
    learn(twin, torch.optim.Adam(twin.parameters(), 0.01), 7)
    for name, value in network.named_parameters():
        torch.testing.assert_close(value, twin.get_parameter(name), rtol=1e-5, atol=1e-7)


# DASH


def dash(network: Network, directions: dict[str, Tensor], shrink: float) -> None:
    """Shrink a network once, by negative gradients."""
    base = torch.optim.SGD(network.parameters(), 0.0)
    make = [lambda members: DASH(members, shrink=shrink)]
    optimizer = compose(network, base, make, seeded())
    for name, value in network.named_parameters():
        value.grad = -directions[name] if name in directions else torch.zeros_like(value)
    optimizer.step()
    optimizer.at_change()


@pytest.mark.parametrize("scale", [1e-6, 1.0, 1e6])
def test_rows_shrink_by_their_cosines_whatever_the_size_of_gradients(scale: float) -> None:
    """Along: 1; at right angles, opposite and without gradient: 0.3; at 45 degrees: sqrt(1/2)."""
    network = mlp(5, layer_norm=True)
    w = torch.tensor([[0.0, 1, 0], [0, 2, 0], [0, 3, 0], [0, 4, 0], [0, 5, 0]])
    g = torch.tensor([[0.0, 9, 0], [1, 0, 0], [0, -1, 0], [0, 0, 0], [1, 1, 0]])
    with torch.no_grad():
        network.linears[0].weight.copy_(w)
        network.linears[0].bias.copy_(torch.tensor([3.0, 4, 0, 0, 0]))
    bias = torch.tensor([1.0, 0, 0, 0, 0])  # a cosine of 0.6, of the whole vector
    dash(network, {"linears.0.weight": scale * g, "linears.0.bias": scale * bias}, 0.3)
    factors = torch.tensor([1.0, 0.3, 0.3, 0.3, math.sqrt(0.5)])
    torch.testing.assert_close(network.linears[0].weight.detach(), w * factors.unsqueeze(1))
    expected = 0.6 * torch.tensor([3.0, 4, 0, 0, 0])
    torch.testing.assert_close(network.linears[0].bias.detach(), expected)
    assert (network.norms[0].weight == 1).all()


def test_no_shrinking_is_none() -> None:
    network = mlp(5, 4)
    before = copies(network)
    directions = {name: torch.randn_like(value) for name, value in before.items()}
    dash(network, directions, 1.0)
    for name, value in network.named_parameters():
        assert torch.equal(value, before[name])


class Small(Network):
    """A convolution of two places, one of one place, and a dense layer."""

    hidden_layers = (HiddenLayer("a", "one", "act", "two"), HiddenLayer("b", "two", "act", "end"))

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two = nn.Conv2d(2, 3, (1, 2)), nn.Conv2d(3, 2, 1)
        self.end, self.act = nn.Linear(2, 2), nn.ReLU()
        self.initialise(seeded(1))

    def fresh(self, name: str, generator: torch.Generator) -> Tensor:
        return torch.randn(self.get_parameter(name).shape, generator=generator)


def test_each_kernel_of_a_convolution_shrinks_by_itself() -> None:
    """Of one place, by a sign."""
    network = Small()
    before = copies(network)
    one, two = (
        torch.randn(before[f"{name}.weight"].shape, generator=seeded(4)) for name in ("one", "two")
    )
    dash(network, {"one.weight": one, "two.weight": two}, 0.2)
    weight = before["one.weight"]
    for out in range(3):
        for inp in range(2):
            own, along = weight[out, inp].flatten(), one[out, inp].flatten()
            cosine = float(own @ along / own.norm() / along.norm())
            expected = weight[out, inp] * min(max(cosine, 0.2), 1.0)
            torch.testing.assert_close(network.one.weight[out, inp].detach(), expected)
    factors = torch.where(two * before["two.weight"] > 0, 1.0, 0.2)
    torch.testing.assert_close(network.two.weight.detach(), before["two.weight"] * factors)


def test_the_direction_is_a_running_mean() -> None:
    """Of two gradients, the last of which weighs 0.3 and the first 0.7 * 0.3."""
    network = mlp(2)
    base = torch.optim.SGD(network.parameters(), 0.0)
    optimizer = compose(network, base, [lambda members: DASH(members)], seeded())
    for gradient in (1.0, -2.0):
        for value in network.parameters():
            value.grad = torch.full_like(value, gradient)
        optimizer.step()
    (own,) = optimizer.chain.addons
    found = own.state_dict()["directions"]["linears.0.weight"]
    torch.testing.assert_close(found, torch.full_like(found, -0.7 * 0.3 + 0.6))


def test_cosines_of_nothing_are_0() -> None:
    a = torch.tensor([[1.0, 1.0], [0.0, 0.0], [1e-30, 0.0], [1.0, 0.0]])
    b = torch.tensor([[2.0, 2.0], [1.0, 0.0], [1e-30, 1e-30], [0.0, 0.0]])
    torch.testing.assert_close(cosines(a, b), torch.tensor([1.0, 0.0, math.sqrt(0.5), 0.0]))


# FIRE


def test_singular_values_by_hand() -> None:
    """(2, 0.5) are (1.0000, 0.9791) after five iterations, 1 after ten; 0.01 is slower."""
    u, v = (torch.linalg.qr(torch.randn(2, 2, generator=seeded(s)))[0] for s in (1, 2))

    def after(values: list[float], iterations: int) -> list[float]:
        found = polar((u @ torch.diag(torch.tensor(values)) @ v.T).unsqueeze(0), iterations)[0]
        return (u.T @ found @ v).diagonal().tolist()  # type: ignore[no-any-return]

    assert after([2.0, 0.5], 5) == pytest.approx([1.0, 0.9791], abs=1e-4)
    assert after([2.0, 0.5], 10) == pytest.approx([1.0, 1.0], abs=1e-6)
    small = [math.sqrt(1 - 1e-4), 0.01]
    assert after(small, 5)[1] == pytest.approx(0.0758, abs=1e-4)
    assert after(small, 10)[1] == pytest.approx(0.529, abs=1e-3)
    assert after(small, 15)[1] == pytest.approx(1.0, abs=1e-5)


@pytest.mark.parametrize("shape", [(6, 4), (4, 6), (5, 5)])
def test_a_dense_layer_becomes_the_nearest_isometry(shape: tuple[int, int]) -> None:
    weight = torch.randn(shape, generator=seeded(3))
    found = isometry(weight, 30)
    u, _, v = torch.linalg.svd(weight, full_matrices=False)
    ratio = math.sqrt(shape[0] / shape[1])
    torch.testing.assert_close(found, ratio * (u @ v), rtol=1e-4, atol=1e-5)
    gram = found.T @ found if shape[0] >= shape[1] else found @ found.T
    torch.testing.assert_close(gram, ratio**2 * torch.eye(min(shape)), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(isometry(100 * weight, 30), found)
    torch.testing.assert_close(isometry(found, 30), found, rtol=1e-4, atol=1e-5)


def test_a_convolution_is_one_place_after_another() -> None:
    weight = torch.randn(4, 3, 2, 5, generator=seeded(3))
    found = isometry(weight, 30)
    for i in range(2):
        for j in range(5):
            torch.testing.assert_close(found[:, :, i, j], isometry(weight[:, :, i, j], 30) / 10)
    assert (isometry(torch.zeros(4, 3), 10) == 0).all()


def test_weights_are_isometries_and_all_state_is_new() -> None:
    network = mlp(6, 5, layer_norm=True)
    optimizer = trained(network, lambda members: FIRE(members, iterations=30))
    before = copies(network)
    optimizer.at_change()
    for name, value in network.named_parameters():
        assert not optimizer.chain.base.state[value]["exp_avg"].any()
        expected = before[name]
        if name.startswith("linears") and name.endswith("weight"):
            expected = isometry(expected, 30)
            assert not torch.allclose(value, before[name])
        torch.testing.assert_close(value.detach(), expected)
