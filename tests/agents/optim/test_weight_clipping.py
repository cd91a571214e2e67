"""Weight clipping: bounds by hand, and what is none of its business."""

from __future__ import annotations

import math

import gymnasium as gym
import pytest
import torch

from clrl.agents.actions import actions_of
from clrl.agents.networks import MLP, Network
from clrl.agents.optim.base import compose
from clrl.agents.optim.weight_clipping import WeightClipping
from clrl.agents.options import MLPOptions
from clrl.agents.ppo.actor_critic import ActorCritic


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def mlp(**options: object) -> MLP:
    return MLP(4, 2, MLPOptions(widths=(3,), **options), seeded())  # type: ignore[arg-type]


def clip(network: Network, fill: float | None = None, **options: object) -> None:
    """Clip once: all parameters being one number or what they are, and no step taken."""
    with torch.no_grad():
        for value in network.parameters():
            if fill is not None:
                value.fill_(fill)
            value.grad = torch.zeros_like(value)
    base = torch.optim.SGD(network.parameters(), 0.1)
    compose(network, base, [lambda m: WeightClipping(m, **options)], seeded()).step()  # type: ignore[arg-type]


def test_the_bound_is_that_of_a_layers_own_inputs() -> None:
    """Of 4 inputs, twice 1 / sqrt(4): 1, for weights and biases; of 3, 2 / sqrt(3)."""
    network = mlp(layer_norm=True)
    clip(network, fill=-9.0, bound=2.0)
    for part in ("weight", "bias"):
        assert (network.get_parameter(f"linears.0.{part}") == -1.0).all()
        heads = network.get_parameter(f"linears.1.{part}")
        torch.testing.assert_close(heads, torch.full_like(heads, -2 / math.sqrt(3)))
        assert (network.get_parameter(f"norms.0.{part}") == -9.0).all()


@pytest.mark.parametrize("shared", [True, False])
def test_a_policys_spread_is_no_weight_and_both_heads_are_heads(shared: bool) -> None:
    actions = actions_of(gym.spaces.Box(-1, 1, (3,)))

    def part(inputs: int, outputs: int, generator: torch.Generator, gain: float) -> MLP:
        return MLP(inputs, outputs, MLPOptions(widths=(9,)), generator, gain)

    network = ActorCritic(4, actions, part, shared, 0.0, seeded())
    clip(network, fill=9.0, bound=1.0, heads=False)
    for name, value in network.named_parameters():
        first = ".linears.0." in name
        assert (value == (0.5 if first else 9.0)).all(), name


def test_special_bounds() -> None:
    """0 leaves nothing; clipping twice is clipping once; initial weights lie within 1."""
    network = mlp(init="torch")
    before = [value.detach().clone() for value in network.parameters()]
    clip(network, bound=1.0)
    assert all(map(torch.equal, before, network.parameters()))
    clip(network, bound=0.3)
    once = [value.detach().clone() for value in network.parameters()]
    assert not all(map(torch.equal, before, once))
    clip(network, bound=0.3)
    assert all(map(torch.equal, once, network.parameters()))
    clip(network, bound=0.0)
    assert not any(value.any() for value in network.parameters())


def test_moments_are_left_alone() -> None:
    network = mlp()
    base = torch.optim.Adam(network.parameters(), 1.0)
    optimizer = compose(network, base, [lambda m: WeightClipping(m, bound=0.01)], seeded())
    for value in network.parameters():
        value.grad = torch.ones_like(value)
    optimizer.step()
    for value in network.parameters():
        assert (value.abs() <= 0.01).all()
        torch.testing.assert_close(base.state[value]["exp_avg"], torch.full_like(value, 0.1))
