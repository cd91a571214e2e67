"""Normalize and project: norms kept, functions unchanged, heads and scales left free."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from clrl.agents.networks import MLP
from clrl.agents.optim.base import WithAddOns, compose
from clrl.agents.optim.normalize_project import NormalizeAndProject
from clrl.agents.options import MLPOptions


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def made(lr: float = 0.1, **options: Any) -> tuple[MLP, WithAddOns]:
    network = MLP(4, 2, MLPOptions(widths=(8, 6), layer_norm=True), seeded())
    base = torch.optim.SGD(network.parameters(), lr)
    addon = [lambda members: NormalizeAndProject(members, **options)]
    return network, compose(network, base, addon, seeded())


def step(network: MLP, optimizer: WithAddOns) -> None:
    optimizer.zero_grad()
    x = torch.randn(16, 4, generator=seeded(1))
    network(x).square().sum().backward()
    optimizer.step()


def norm(network: MLP, layer: int, biases: bool) -> Tensor:
    names = [f"linears.{layer}.weight", *([f"linears.{layer}.bias"] if biases else [])]
    return torch.cat([network.get_parameter(name).detach().flatten() for name in names]).norm()


def test_hidden_layers_keep_the_norm_that_they_began_with() -> None:
    for biases in (True, False):
        network, optimizer = made(biases=biases)
        before = [norm(network, layer, biases) for layer in range(3)]
        for _ in range(3):
            step(network, optimizer)
        after = [norm(network, layer, biases) for layer in range(3)]
        torch.testing.assert_close(after[:2], before[:2], rtol=1e-6, atol=0)
        assert abs(after[2] / before[2] - 1) > 1e-3  # the head is free


def test_scales_of_normalisation_are_no_weights() -> None:
    network, optimizer = made()
    plain = MLP(4, 2, MLPOptions(widths=(8, 6), layer_norm=True), seeded())
    plain_base = torch.optim.SGD(plain.parameters(), 0.1)
    step(network, optimizer)
    plain(torch.randn(16, 4, generator=seeded(1))).square().sum().backward()
    plain_base.step()
    for name, value in plain.named_parameters():
        projected = name.startswith(("linears.0", "linears.1"))
        assert torch.equal(network.get_parameter(name), value) != projected, name


def test_what_a_normalised_network_computes_is_unchanged() -> None:
    """Weights and biases of hidden layers are three times and a fifth of what they were."""
    network, optimizer = made(lr=0.0)
    for own in network.norms:
        own.eps = 0.0
    x = torch.randn(16, 4, generator=seeded(2))
    with torch.no_grad():
        for layer, factor in ((0, 3.0), (1, 0.2)):
            for part in ("weight", "bias"):
                network.get_parameter(f"linears.{layer}.{part}").mul_(factor)
        before = network(x)
        weight = network.linears[0].weight.clone()
    for value in network.parameters():
        value.grad = torch.zeros_like(value)
    optimizer.step()
    torch.testing.assert_close(network.linears[0].weight, weight / 3)
    torch.testing.assert_close(network(x), before, rtol=1e-4, atol=1e-5)


def test_what_is_normalised_pulls_along_no_weight() -> None:
    """The gradient of LN(Wx) is orthogonal to W, so that a step never shortens it."""
    network, _ = made()
    with torch.no_grad():
        for layer in (0, 1):
            network.linears[layer].bias.zero_()
    (10 * network(10 * torch.randn(16, 4, generator=seeded(1)))).square().sum().backward()
    weight = network.linears[0].weight
    assert weight.grad is not None
    along = (weight * weight.grad).sum().abs() / (weight.norm() * weight.grad.norm())
    assert along < 1e-3


def test_nothing_happens_where_norms_are_what_they_were() -> None:
    network, optimizer = made(lr=0.0)
    before = [value.detach().clone() for value in network.parameters()]
    step(network, optimizer)
    assert all(map(torch.equal, before, network.parameters()))


def test_scales_and_shifts_go_back_by_a_share() -> None:
    network, optimizer = made(lr=0.0, norm_decay=0.25)
    with torch.no_grad():
        network.norms[0].weight.fill_(3.0)
        network.norms[0].bias.fill_(2.0)
    step(network, optimizer)
    assert (network.norms[0].weight == 2.5).all()
    assert (network.norms[0].bias == 1.5).all()


def test_a_layer_without_weights_stays_so() -> None:
    network, optimizer = made(lr=0.0)
    with torch.no_grad():
        for part in ("weight", "bias"):
            network.get_parameter(f"linears.0.{part}").zero_()
    step(network, optimizer)
    assert not network.linears[0].weight.any()


def test_the_start_is_remembered_and_not_the_moment_of_loading() -> None:
    one, first = made(every=2)
    for _ in range(3):
        step(one, first)
    two, second = made(every=2)
    with torch.no_grad():
        for value in two.parameters():
            value.mul_(5.0)
    third = compose(
        two,
        torch.optim.SGD(two.parameters(), 0.1),
        [lambda members: NormalizeAndProject(members, every=2)],
        seeded(),
    )
    two.load_state_dict(one.state_dict())
    third.load_state_dict(first.state_dict())
    step(one, first)
    step(two, third)
    assert all(map(torch.equal, one.parameters(), two.parameters()))
