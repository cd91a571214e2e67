"""Plasticity injection: what the network gives, and what is trained, before and after."""

from __future__ import annotations

import copy
from typing import Any

import gymnasium as gym
import pytest
import torch
from torch import Tensor

from clrl.agents.actions import actions_of
from clrl.agents.networks import MLP, Network, ResidualMLP, extend
from clrl.agents.optim.base import WithAddOns, compose
from clrl.agents.optim.elementwise import ElementwiseAdam
from clrl.agents.optim.optimizer_reset import OptimizerReset
from clrl.agents.optim.plasticity_injection import InjectedHeads, PlasticityInjection
from clrl.agents.optim.resets import FullReset
from clrl.agents.optim.rule import UpdateRule
from clrl.agents.options import MLPOptions, ResidualMLPOptions
from clrl.agents.population import Population
from clrl.agents.ppo.actor_critic import ActorCritic
from clrl.agents.supervised import regression_loss
from clrl.errors import UsageError

HEAD = {f"linears.{i}.{kind}" for i in (1, 2) for kind in ("weight", "bias")}
BELOW = {"linears.0.weight", "linears.0.bias"}
NEW, OLD = (
    {f"injected_heads.{which}.0.{j}.{kind}" for j in (0, 2) for kind in ("weight", "bias")}
    for which in ("new", "old")
)


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def mlp(seed: int = 0, **options: Any) -> MLP:
    return MLP(
        3, 2, MLPOptions(**{"widths": (6, 5), "activation": "tanh", **options}), seeded(seed)
    )


def population(rule: UpdateRule, seeds: Any = (0, 1), **options: Any) -> Population:
    return Population(
        [mlp(seed) for seed in seeds],
        regression_loss,
        rule,
        [seeded(100 + seed) for seed in seeds],
        **options,
    )


def examples(updates: int, members: int = 2) -> tuple[Tensor, Tensor]:
    x = torch.randn(1, updates, 8, 3, generator=seeded(5)).expand(members, -1, -1, -1)
    y = torch.randn(1, updates, 8, 2, generator=seeded(6)).expand(members, -1, -1, -1)
    return x, y


def outputs(own: Population) -> Tensor:
    given: Tensor = own.compiled(lambda forward, x: forward(x))(
        torch.randn(len(own), 64, 3, generator=seeded(8))
    )
    return given


def copies(own: Population) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in own.parameters().items()}


def rule(base: Any = torch.optim.SGD, options: Any = None, *more: Any, **own: Any) -> UpdateRule:
    return UpdateRule(base, options or {"lr": 0.05}, [(PlasticityInjection, own), *more])


BASES = {
    "momentum and decay": (torch.optim.SGD, {"lr": 0.05, "momentum": 0.9, "weight_decay": 0.1}),
    "adam": (torch.optim.Adam, {"lr": 0.01}),
    "adamw": (torch.optim.AdamW, {"lr": 0.01, "weight_decay": 0.1}),
}


@pytest.mark.parametrize("base", BASES)
def test_the_head_is_held_and_the_new_one_learns(base: str) -> None:
    """Of the learner whose task changed; momentum and decay move nothing that is held."""
    own = population(rule(*BASES[base]))
    x, y = examples(9)
    own.learn(x[:, :4], y[:, :4])
    start = copies(own)
    assert not any(start[name].any() for name in NEW | OLD)
    own.change([0])
    own.learn(x[:, 4:5], y[:, 4:5])
    now = copies(own)
    for name in HEAD:
        assert torch.equal(now[name][0], start[name][0])
    start = now
    own.learn(x[:, 5:], y[:, 5:])
    for name, value in own.parameters().items():
        moved = [bool((value[m] != start[name][m]).any()) for m in (0, 1)]
        expected = [name in BELOW | NEW, name in BELOW | HEAD]
        assert moved == expected, name


@pytest.mark.parametrize("activation", ["tanh", "relu", "rational"])
@pytest.mark.parametrize("layers", [1, 2])
@pytest.mark.parametrize("norm", [False, True])
def test_what_the_network_gives_is_the_same_to_the_bit(
    activation: str, layers: int, norm: bool
) -> None:
    options = MLPOptions(widths=(33, 17), activation=activation, layer_norm=norm)
    networks = [MLP(3, 2, options, seeded(seed)) for seed in (0, 1, 2)]
    plain = [copy.deepcopy(network) for network in networks]
    own = Population(
        networks, regression_loss, rule(layers=layers), [seeded(seed) for seed in (7, 8, 9)]
    )
    without = Population(
        plain, regression_loss, UpdateRule(torch.optim.SGD, {"lr": 0.05}), [seeded()] * 3
    )
    x, y = examples(4, 3)
    for one in (own, without):
        one.learn(x, y)
    assert torch.equal(outputs(own), outputs(without))
    own.change([0, 2])
    # The change is heard before an update, whose loss is that of the network as it then is.
    losses = [one.learn(x[:, :1], y[:, :1])["loss"] for one in (own, without)]
    assert torch.equal(*losses)
    assert own.kept["injected_heads.injected"].tolist() == [1.0, 0.0, 1.0]


def test_a_head_and_its_two_companions_by_hand() -> None:
    network = mlp()
    extend(network, [InjectedHeads(network, 2, "all")], 0)
    with torch.no_grad():
        for number, name in enumerate(sorted(NEW | OLD)):
            network.get_parameter(name).normal_(generator=seeded(number))
    x = torch.randn(4, 3, generator=seeded(1))
    get = network.get_parameter

    def head(path: str, first: int, last: int, f: Tensor) -> Tensor:
        f = torch.tanh(f @ get(f"{path}{first}.weight").T + get(f"{path}{first}.bias"))
        return f @ get(f"{path}{last}.weight").T + get(f"{path}{last}.bias")

    f = torch.tanh(x @ get("linears.0.weight").T + get("linears.0.bias"))
    new, old = (head(f"injected_heads.{which}.0.", 0, 2, f) for which in ("new", "old"))
    torch.testing.assert_close(network(x), head("linears.", 1, 2, f) + new - old)
    for injected, trained in ((0.0, HEAD | BELOW), (1.0, NEW | BELOW)):
        network.get_buffer("injected_heads.injected").fill_(injected)
        network.zero_grad()
        network(x).square().sum().backward()
        reached = {n for n, p in network.named_parameters() if p.grad is not None and p.grad.any()}
        assert reached == trained
        # Below, gradients come through all three terms.
        f = torch.tanh(x @ get("linears.0.weight").T + get("linears.0.bias"))
        whole = head("linears.", 1, 2, f)
        whole = whole + head("injected_heads.new.0.", 0, 2, f)
        whole = whole - head("injected_heads.old.0.", 0, 2, f)
        expected = torch.autograd.grad(whole.square().sum(), get("linears.0.weight"))[0]
        grad = get("linears.0.weight").grad
        assert grad is not None
        torch.testing.assert_close(grad, expected)


def test_gradients_of_what_is_held_do_not_count_in_a_bound() -> None:
    own = population(rule(), max_grad_norm=1e9)
    x, y = examples(2)
    own.learn(x[:, :1], y[:, :1])
    own.change([0])
    norm = own.learn(x[:, 1:], y[:, 1:])["grad_norm"][:, 0]
    gradients = own.gradient_views()
    for member, trained in ((0, NEW | BELOW), (1, HEAD | BELOW)):
        reached = {name for name, value in gradients.items() if value[member].any()}
        assert reached == trained
        squares = sum(gradients[name][member].square().sum() for name in trained)
        torch.testing.assert_close(norm[member], torch.as_tensor(squares).sqrt())


def ordinary(network: Network, *more: Any, **options: Any) -> WithAddOns:
    extend(network, [PlasticityInjection.extension(network)], 0)
    made = [lambda members: PlasticityInjection(members, **options), *more]
    return compose(network, ElementwiseAdam(network.parameters(), 0.01), made, seeded(9))


def step(network: Network, optimizer: torch.optim.Optimizer, seed: int) -> None:
    optimizer.zero_grad()
    network(torch.randn(8, 3, generator=seeded(seed))).square().mean().backward()
    optimizer.step()


def test_the_optimizer_is_new_for_the_head_and_the_same_below() -> None:
    network = mlp()
    optimizer = ordinary(network)
    for seed in range(3):
        step(network, optimizer, seed)
    below = optimizer.state[network.linears[0].weight]
    kept = below["exp_avg"].clone()
    optimizer.at_change()
    assert torch.equal(below["exp_avg"], kept)
    for name in HEAD | NEW | OLD:
        assert not optimizer.state[network.get_parameter(name)]["exp_avg"].any()
    held = [id(one) for group in optimizer.param_groups for one in group["params"]]
    assert sorted(held) == sorted(id(one) for one in network.parameters())
    # The first step of a new Adam is as long as its step size, of every number.
    start = {name: network.get_parameter(name).detach().clone() for name in NEW}
    step(network, optimizer, 5)
    for name, value in start.items():
        moved = (network.get_parameter(name) - value).abs()
        torch.testing.assert_close(moved, torch.full_like(moved, 0.01), rtol=1e-3, atol=1e-5)


def test_once_and_no_more() -> None:
    network = mlp()
    optimizer = ordinary(network)
    step(network, optimizer, 0)
    optimizer.at_change()
    first = {name: network.get_parameter(name).detach().clone() for name in NEW}
    optimizer.at_change()
    for name, value in first.items():
        assert torch.equal(network.get_parameter(name), value)


def test_an_optimizer_reset_leaves_it_and_a_full_reset_takes_it_back() -> None:
    for addon, injected in ((OptimizerReset, 1.0), (FullReset, 0.0)):
        network = mlp()
        optimizer = ordinary(network, lambda members, make=addon: make(members, every=4), after=2)
        for seed in range(4):
            step(network, optimizer, seed)
        assert float(network.get_buffer("injected_heads.injected")) == injected
        step(network, optimizer, 9)
        before = {name: value.detach().clone() for name, value in network.named_parameters()}
        step(network, optimizer, 10)
        moved = {n for n, p in network.named_parameters() if not torch.equal(p, before[n])}
        assert moved == BELOW | (NEW if injected else HEAD)


def test_of_actor_and_critic() -> None:
    def part(inputs: int, outputs: int, generator: torch.Generator, gain: float) -> MLP:
        return MLP(inputs, outputs, MLPOptions(widths=(6, 5)), generator, gain)

    space = actions_of(gym.spaces.Box(-1, 1, (2,)))
    for which, found in (("critic", {"critic"}), ("all", {"actor", "critic"})):
        own = ActorCritic(3, space, part, False, 0.0, seeded())
        extend(own, [PlasticityInjection.extension(own, part=which)], 0)
        added = [n for n, _ in own.named_parameters() if n.startswith("injected_heads")]
        assert {own.part_of(name) for name in added} == found
        assert own.part_of("parts.actor.linears.0.weight") == "actor"
        assert not any(own.fresh(name, seeded()).any() for name in added)
        assert all(one.isfinite().all() for one in own(torch.ones(2, 3)))


@pytest.mark.parametrize(
    ("network", "options", "message"),
    [
        (mlp(), {"layers": 4}, "layers: expected at most 3 for this network, got 4"),
        (mlp(), {"part": "critic"}, "part: expected all, got critic"),
        (mlp(batch_norm=True), {}, "has statistics of its own; expected a head without batch norm"),
        (ResidualMLP(3, 2, ResidualMLPOptions(), seeded()), {}, "layers: expected at most 1"),
    ],
)
def test_what_has_no_meaning_is_refused(network: Network, options: Any, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        PlasticityInjection.extension(network, **options)


def test_a_network_is_extended_first() -> None:
    network = mlp()
    with pytest.raises(UsageError, match="expected a network that was extended"):
        compose(
            network, torch.optim.SGD(network.parameters(), 0.1), [PlasticityInjection], seeded()
        )
