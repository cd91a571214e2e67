"""Parseval's scales and shifts of hidden units."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from clrl.agents.networks import MLP, HiddenLayer, Network, extend
from clrl.agents.optim.rule import UpdateRule
from clrl.agents.options import MLPOptions
from clrl.agents.penalties.parseval import Diagonals, Parseval
from clrl.agents.population import Population
from clrl.agents.supervised import regression_loss

KINDS = ("scales", "shifts")


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def filled(network: Network) -> Network:
    extend(network, [Diagonals(network)], 0)
    with torch.no_grad():
        for i, (name, value) in enumerate(network.named_parameters()):
            if name.startswith(Diagonals.name):
                value.normal_(generator=seeded(i))
    return network


def test_by_hand() -> None:
    """Before the activation, of hidden layers alone; at first nothing is changed."""
    x = torch.randn(5, 3, generator=seeded(1))
    network = MLP(3, 2, MLPOptions(widths=(6, 4), activation="tanh"), seeded())
    before = network(x)
    extend(network, [Diagonals(network)], 0)
    assert torch.equal(network(x), before)
    network = filled(MLP(3, 2, MLPOptions(widths=(6, 4), activation="tanh"), seeded()))
    h = x
    for i, width in enumerate((6, 4)):
        own = [network.get_parameter(f"{Diagonals.name}.{kind}.{i}") for kind in KINDS]
        assert all(one.shape == (width,) for one in own)
        linear = network.linears[i]
        h = torch.tanh((h @ linear.weight.T + linear.bias) * own[0] + own[1])
    torch.testing.assert_close(network(x), network.linears[2](h))


class Convolution(Network):
    """A convolution of two channels, and a head."""

    hidden_layers = (HiddenLayer("a", "conv", "act", "end"),)

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.act, self.end = nn.Conv2d(1, 2, 2), nn.Tanh(), nn.Linear(8, 1)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.end(self.act(self.conv(x)).flatten(1))
        return out


def test_of_a_convolution_a_unit_is_a_channel() -> None:
    plain, x = Convolution(), torch.randn(3, 1, 3, 3, generator=seeded(1))
    network = filled(plain)
    scale = network.get_parameter(f"{Diagonals.name}.scales.0")
    shift = network.get_parameter(f"{Diagonals.name}.shifts.0")
    raw = nn.functional.conv2d(x, plain.conv.weight, plain.conv.bias)
    h = torch.stack([raw[:, c] * scale[c] + shift[c] for c in (0, 1)], dim=1)
    torch.testing.assert_close(network(x), plain.end(torch.tanh(h).flatten(1)))


def test_they_are_trained_and_not_pulled() -> None:
    def learned(strength: float) -> dict[str, Tensor]:
        own = Population(
            [MLP(3, 2, MLPOptions(widths=(6,), activation="tanh"), seeded())],
            regression_loss,
            UpdateRule(torch.optim.SGD, {"lr": 0.1}),
            [seeded(5)],
            penalties=[lambda network: Parseval(network, strength, diagonal=True)],
        )
        x = torch.randn(1, 1, 8, 3, generator=seeded(1))
        own.learn(x, x[..., :2])
        return {name: value.clone() for name, value in own.parameters().items()}

    without, held = learned(0.0), learned(0.1)
    for name, start in (("scales.0", 1.0), ("shifts.0", 0.0)):
        own = f"{Diagonals.name}.{name}"
        assert torch.equal(without[own], held[own])
        assert (without[own] != start).all()
    assert not torch.equal(without["linears.0.weight"], held["linears.0.weight"])
