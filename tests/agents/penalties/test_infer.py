"""InFeR: heads that a penalty adds to a network, by hand and in populations."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import pytest
import torch
from torch import Tensor

from clrl.agents.actions import actions_of
from clrl.agents.calling import Call
from clrl.agents.networks import MLP, extend, extensions, maps
from clrl.agents.objective import Objective
from clrl.agents.optim.muon import Muon
from clrl.agents.optim.rule import UpdateRule, make_base
from clrl.agents.options import MLPOptions
from clrl.agents.penalties.infer import InFeR
from clrl.agents.penalties.l2_init import L2Init
from clrl.agents.population import Population
from clrl.agents.ppo.actor_critic import ActorCritic
from clrl.agents.supervised import regression_loss
from clrl.errors import UsageError
from clrl.training.diagnostics import Diagnostics

SGD = UpdateRule(torch.optim.SGD, {"lr": 0.1})


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def mlp(seed: int = 0, **options: Any) -> MLP:
    return MLP(3, 2, MLPOptions(widths=(6, 5), activation="tanh", **options), seeded(seed))


def actor_critic(seed: int) -> ActorCritic:
    def part(inputs: int, outputs: int, generator: torch.Generator, gain: float) -> MLP:
        return MLP(inputs, outputs, MLPOptions(widths=(6, 5)), generator, gain)

    own = ActorCritic(3, actions_of(gym.spaces.Discrete(3)), part, False, 0.0, seeded(seed))
    return own


def population(
    rule: UpdateRule = SGD, *penalties: Any, seeds: Any = (0,), **net: Any
) -> Population:
    return Population(
        [mlp(seed, **net) for seed in seeds],
        regression_loss,
        rule,
        [seeded(100 + seed) for seed in seeds],
        penalties=penalties,
    )


def examples(updates: int, members: int = 1) -> tuple[Tensor, Tensor]:
    x = torch.randn(1, updates, 8, 3, generator=seeded(5)).expand(members, -1, -1, -1)
    y = torch.randn(1, updates, 8, 2, generator=seeded(6)).expand(members, -1, -1, -1)
    return x, y


def own_loss(forward: Any, x: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
    outputs, _, values = forward(x)
    return values.square().mean() + outputs.mean(), {}


def features(network: ActorCritic, part: str, x: Tensor) -> Tensor:
    for i in range(2):
        x = torch.relu(network.parts[part].linears[i](x))
    return x


def looked_at(scale: float, same: bool) -> tuple[Tensor, dict[str, Tensor], Tensor]:
    """The term of an actor-critic, its gradients, and what it should be by hand."""
    old, new = actor_critic(1), actor_critic(1 if same else 2)
    penalty = InFeR(new, strength=0.5, heads=4, scale=scale)
    extend(old, [penalty.extension()], 7)
    extend(new, [penalty.extension()], 7 if same else 8)
    objective = Objective(new, own_loss, [penalty])
    kept = objective.begin(dict(old.named_parameters()), {})
    x, values = torch.randn(9, 3, generator=seeded(3)), dict(new.named_parameters())
    with Call():
        terms, *_ = objective(values, kept, x)
    gradients = torch.autograd.grad(terms[0], list(values.values()), materialize_grads=True)
    expected = torch.zeros(())
    with torch.no_grad():
        for part in ("actor", "critic"):
            now, then = (
                features(one, part, x) @ one.get_parameter(f"infer_heads.{part}").T
                for one in (new, old)
            )
            expected += 0.5 * (now - scale * then).square().sum() / 9
    return terms[0].detach(), dict(zip(values, gradients, strict=True)), expected


def test_by_hand_for_actor_and_critic() -> None:
    term, gradients, expected = looked_at(3.0, same=False)
    torch.testing.assert_close(term, expected)
    pulled = {name for name, value in gradients.items() if value.any()}
    assert pulled == {
        "infer_heads.actor",
        "infer_heads.critic",
        *(
            f"parts.{part}.linears.{i}.{kind}"
            for part in ("actor", "critic")
            for i in (0, 1)
            for kind in ("weight", "bias")
        ),
    }  # and none of the network's own heads


def test_at_the_start_without_a_scale_there_is_none() -> None:
    term, gradients, _ = looked_at(1.0, same=True)
    assert float(term) == 0.0
    assert not any(value.any() for value in gradients.values())


def test_heads_are_trained_and_what_they_are_held_to_is_not() -> None:
    own = population(SGD, lambda net: InFeR(net, scale=2.0), L2Init, seeds=(0, 1))
    name = "infer_heads.network"
    start = own.parameters()[name].clone()
    own.learn(*examples(5, 2))
    assert (own.parameters()[name] != start).any(dim=2).all()
    assert torch.equal(own.kept[f"penalty/0/{name}"], start)
    assert start.shape == (2, 10, 5)
    assert not torch.equal(start[0], start[1])
    assert f"penalty/1/{name}" not in own.kept  # other penalties leave it alone
    assert float(start.abs().max()) <= 5**-0.5


def test_beside_it_nothing_is_drawn_otherwise() -> None:
    """Dropout's masks and the network's start are those that they are without it."""
    plain = population(dropout=0.5)
    held = population(SGD, lambda net: InFeR(net, strength=0.0), dropout=0.5)
    found = [one.learn(*examples(4))["loss"] for one in (plain, held)]
    assert torch.equal(*found)
    for name, value in plain.parameters().items():
        assert torch.equal(value, held.parameters()[name])


def test_a_restart_draws_new_heads() -> None:
    own = population(SGD, InFeR, seeds=(0, 1))
    start = own.parameters()["infer_heads.network"].clone()
    own.restart([1], lambda member: mlp(9), lambda member: 50)
    now = own.parameters()["infer_heads.network"]
    assert torch.equal(now[0], start[0])
    assert (now[1] != start[1]).any()
    assert torch.equal(own.kept["penalty/0/infer_heads.network"], now)


@pytest.mark.parametrize("base", [torch.optim.Adam, torch.optim.SGD, Muon])
def test_every_parameter_is_in_one_optimizer(base: Any) -> None:
    network = mlp()
    extend(network, [InFeR(network).extension()], 0)
    optimizer = make_base(UpdateRule(base, {"lr": 0.1}), list(network.parameters()), [], network)
    held = [id(one) for group in optimizer.param_groups for one in group["params"]]
    assert sorted(held) == sorted(id(one) for one in network.parameters())
    if base is Muon:  # and steps of heads are not made orthogonal
        hidden = {id(one) for one in optimizer.param_groups[0]["params"]}
        assert hidden == {id(network.linears[i].weight) for i in (0, 1)}


def test_layers_are_the_networks_own() -> None:
    network = mlp()
    before = maps(network), network.hidden_layers, network.heads
    extend(network, [InFeR(network).extension()], 0)
    assert (maps(network), network.hidden_layers, network.heads) == before
    assert isinstance(network, MLP)
    assert list(extensions(network)) == ["infer_heads"]


def test_metrics_of_the_network_are_without_it() -> None:
    plain, held = population(), population(SGD, InFeR)
    found = [Diagnostics(one, []).of_weights() for one in (plain, held)]
    assert found[0].keys() == found[1].keys()
    for tag, value in found[0].items():
        assert torch.equal(value, found[1][tag]), tag


def test_twice_is_once_too_often() -> None:
    with pytest.raises(UsageError, match="network: has infer_heads already"):
        population(SGD, InFeR, InFeR)
