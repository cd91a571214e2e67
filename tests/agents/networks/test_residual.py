"""Residual networks, BRO's and SimbaV2's: formulas, declarations, unit vectors."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from gymnasium import spaces
from torch import Tensor
from torch.nn import functional as F

from clrl.agents.actions import Discrete
from clrl.agents.networks import BroNet, Network, ResidualMLP, SimbaV2, maps
from clrl.agents.optim.base import compose
from clrl.agents.optim.members import Members
from clrl.agents.optim.resets import HeadReset
from clrl.agents.optim.rule import UpdateRule
from clrl.agents.optim.shrink_perturb import ShrinkAndPerturb
from clrl.agents.optim.units import Units
from clrl.agents.options import BroNetOptions, ResidualMLPOptions, SimbaV2Options
from clrl.agents.ppo.actor_critic import ActorCritic
from clrl.testing import check_network
from clrl.testing.learners import Problem

NETWORKS: dict[str, tuple[type[Network], Any]] = {
    "residual-mlp": (ResidualMLP, ResidualMLPOptions(width=6, blocks=2, expansion=2)),
    "bronet": (BroNet, BroNetOptions(width=6, blocks=2)),
    "simba-v2": (SimbaV2, SimbaV2Options(width=6, blocks=2, expansion=2)),
}
each = pytest.mark.parametrize("name", NETWORKS)


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def made(name: str, seed: int = 0) -> Any:
    network, options = NETWORKS[name]
    return network(3, 2, options, seeded(seed), 1.0)  # type: ignore[call-arg]


def moved_a_little(network: Network) -> dict[str, Tensor]:
    """Its parameters, after all of them were moved, so that each of them matters."""
    with torch.no_grad():
        for value in network.parameters():
            value.add_(torch.empty_like(value).uniform_(-0.3, 0.3, generator=seeded(7)))
    return {name: value.detach() for name, value in network.named_parameters()}


@each
def test_keeps_the_contract(name: str) -> None:
    options = {key: value for key, value in vars(NETWORKS[name][1]).items() if key != "activation"}
    held = check_network(name, steps=8, **options)
    assert "members independent" in held and "hidden layers are what is declared" in held


@each
def test_learners_are_stepped_together(name: str) -> None:
    make, options = NETWORKS[name]
    problem = Problem(UpdateRule(torch.optim.SGD, {"lr": 0.01}), 1, make, options)
    population = problem.population(range(3))
    population.learn(*problem.examples(range(3), 1))
    assert population.division == [3]


# Formulas, from parameters by their names


def dense(p: dict[str, Tensor], path: str, x: Tensor) -> Tensor:
    y = x @ p[f"{path}.weight"].T
    return y + p[f"{path}.bias"] if f"{path}.bias" in p else y


def normed(p: dict[str, Tensor], path: str, x: Tensor) -> Tensor:
    return F.layer_norm(x, x.shape[-1:], p[f"{path}.weight"], p[f"{path}.bias"])


def test_a_residual_mlp_is_normed_before_each_block_and_the_head() -> None:
    network = made("residual-mlp")
    p, x = moved_a_little(network), torch.randn(5, 3, generator=seeded(1))
    h = dense(p, "stem", x)
    for i in range(2):
        inner = F.relu(dense(p, f"blocks.{i}.inner", normed(p, f"blocks.{i}.norm", h)))
        h = h + dense(p, f"blocks.{i}.outer", inner)
    expected = dense(p, "head", normed(p, "last_norm", h))
    torch.testing.assert_close(network(x), expected, rtol=1e-4, atol=1e-5)


def test_bronet_is_dense_norm_relu_and_blocks_with_two_norms() -> None:
    network = made("bronet")
    p, x = moved_a_little(network), torch.randn(5, 3, generator=seeded(1))
    h = F.relu(normed(p, "first_norm.0", dense(p, "stem", x)))
    for i in range(2):
        block = f"blocks.{i}"
        inner = F.relu(normed(p, f"{block}.norm", dense(p, f"{block}.inner", h)))
        h = h + normed(p, f"{block}.outer_norm", dense(p, f"{block}.outer", inner))
    torch.testing.assert_close(network(x), dense(p, "head", h), rtol=1e-4, atol=1e-5)


def test_simba_v2_steps_along_the_sphere() -> None:
    network = made("simba-v2")
    p, x = moved_a_little(network), torch.randn(5, 3, generator=seeded(1))

    def scaled(path: str, begins: float, unit: float, x: Tensor) -> Tensor:
        return x * p[f"{path}.scale"] * (begins / unit)

    root = math.sqrt(2 / 6)
    h = F.normalize(torch.cat([x, torch.full((5, 1), 3.0)], dim=1), dim=1)
    h = F.normalize(scaled("stem_scaler", root, root, dense(p, "stem", h)), dim=1)
    for i in range(2):
        block, begins = f"blocks.{i}", root / math.sqrt(2)
        inner = scaled(f"{block}.activation.0", begins, begins, dense(p, f"{block}.inner", h))
        new = F.normalize(dense(p, f"{block}.outer", F.relu(inner)), dim=1)
        h = F.normalize(h + scaled(f"{block}.alpha", 1 / 3, 1 / math.sqrt(6), new - h), dim=1)
    expected = dense(p, "head", dense(p, "penultimate", h) * p["head_scaler.scale"])
    torch.testing.assert_close(network(x), expected, rtol=1e-4, atol=1e-5)


# Initialisers


def test_weights_begin_as_published() -> None:
    bro = BroNet(20, 4, BroNetOptions(width=40, blocks=1), seeded(), 0.01)
    inner = bro.blocks[0].inner.weight.detach()
    torch.testing.assert_close(inner @ inner.T, 2 * torch.eye(40), rtol=0, atol=1e-5)
    head = bro.head.weight.detach()
    torch.testing.assert_close(head @ head.T, 1e-4 * torch.eye(4), rtol=0, atol=1e-8)
    simba = SimbaV2(20, 4, SimbaV2Options(width=32, blocks=1), seeded())
    alpha = simba.blocks[0].alpha
    torch.testing.assert_close(alpha(torch.ones(32)), torch.full((32,), 0.5))
    assert float(alpha.scale.detach()[0]) == pytest.approx(32**-0.5)
    scaler = simba.blocks[0].activation[0]
    torch.testing.assert_close(scaler(torch.ones(128)), torch.full((128,), 0.25 / 2))
    assert (simba.head.bias == 0).all()


# Declarations


@each
def test_units_of_a_block_start_anew_and_their_outputs_go(name: str) -> None:
    network = made(name)
    before = moved_a_little(network)
    before = {key: value.clone() for key, value in before.items()}
    base = torch.optim.SGD(network.parameters(), 0.1)
    members = Members.of_module(network, base, seeded(3))
    layer = network.hidden_layers[1]
    with torch.no_grad():
        Units(members, layer).start_anew(0, torch.tensor([2]))
    after = dict(network.named_parameters())
    assert (after["blocks.1.outer.weight"][:, 2] == 0).all()
    assert not torch.equal(after["blocks.1.inner.weight"][2], before["blocks.1.inner.weight"][2])
    changed = {key for key, value in before.items() if not torch.equal(after[key], value)}
    expected = {"blocks.1.inner.weight", "blocks.1.outer.weight"}
    if name != "simba-v2":
        expected |= {"blocks.1.inner.bias"}
    if name == "bronet":
        expected |= {"blocks.1.norm.weight", "blocks.1.norm.bias"}
    assert changed == expected


@each
def test_the_head_is_the_last_map_and_no_other(name: str) -> None:
    network = made(name)
    assert [own.path for own in maps(network) if not own.hidden] == ["head"]
    before = {key: value.detach().clone() for key, value in network.named_parameters()}
    base = torch.optim.SGD(network.parameters(), 0.0)
    optimizer = compose(network, base, [lambda m: HeadReset(m, every=0)], seeded(5))
    optimizer.at_change()
    pairs = network.named_parameters()
    changed = {n for n, own in pairs if not torch.allclose(own, before[n], rtol=1e-6)}
    assert changed == {"head.weight"}  # the bias is 0 as before


# Unit vectors


def rows_of(weights: dict[str, Tensor]) -> Tensor:
    """The lengths of all rows of all weight matrices."""
    matrices = [own for name, own in weights.items() if name.endswith(".weight")]
    return torch.cat([own.square().sum(dim=-1).sqrt().flatten() for own in matrices])


def test_rows_are_unit_vectors_after_every_step_and_features_always() -> None:
    """And moments are those of Adam, of which nobody told it."""
    noise = (ShrinkAndPerturb, {"noise_scale": 0.1})
    for addons in ([], [noise]):
        rule = UpdateRule(torch.optim.Adam, {"lr": 0.1}, addons)
        make, options = NETWORKS["simba-v2"]
        problem = Problem(rule, 3, make, options)
        population = problem.population([0, 1])
        x, y = problem.examples([0, 1], 3)
        for update in range(3):
            population.learn(x[:, update : update + 1], y[:, update : update + 1])
            lengths = rows_of(dict(population.parameters()))
            torch.testing.assert_close(lengths, torch.ones_like(lengths))
    network = made("simba-v2")
    optimizer = compose(network, torch.optim.Adam(network.parameters(), 0.1), [], seeded())
    seen: list[Tensor] = []
    network.penultimate.register_forward_hook(lambda _, given, __: seen.append(given[0]))
    for k in range(3):
        optimizer.zero_grad()
        network(torch.randn(5, 3, generator=seeded(k))).square().sum().backward()
        moment = optimizer.state.get(network.stem.weight, {}).get("exp_avg")
        expected = 0.1 * network.stem.weight.grad
        expected = expected if moment is None else 0.9 * moment + expected
        optimizer.step()
        found = optimizer.state[network.stem.weight]["exp_avg"]
        torch.testing.assert_close(found, expected)
        lengths = rows_of({name: own.detach() for name, own in network.named_parameters()})
        torch.testing.assert_close(lengths, torch.ones_like(lengths))
        torch.testing.assert_close(seen[-1].square().sum(dim=1), torch.ones(5))


def test_both_of_actor_and_critic_are_put_back_and_dead_layers_are_no_nan() -> None:
    def make(inputs: int, outputs: int, generator: torch.Generator, gain: float) -> Network:
        return SimbaV2(inputs, outputs, SimbaV2Options(width=6), generator, gain)

    network = ActorCritic(3, Discrete(spaces.Discrete(2)), make, False, 0.0, seeded())
    assert network.projects and network.heads == ("parts.actor.head", "parts.critic.head")
    with torch.no_grad():
        for own in network.parameters():
            own.mul_(3.0)
    stacked = {name: own.detach().unsqueeze(0) for name, own in network.named_parameters()}
    network.project(stacked)
    lengths = rows_of(stacked)
    torch.testing.assert_close(lengths, torch.ones_like(lengths))
    with torch.no_grad():
        network.parts["actor"].blocks[0].inner.weight.zero_()  # type: ignore[union-attr]
    outputs, _, values = network(torch.randn(4, 3, generator=seeded()))
    (outputs.sum() + values.sum()).backward()
    for own in network.parameters():
        assert own.grad is not None and own.grad.isfinite().all()
