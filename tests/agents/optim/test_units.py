"""What a unit is made of, in dense layers and convolutions, and what starting it anew does."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Literal

import pytest
import torch
from torch import Tensor, nn

from clrl.agents.networks import MLP, HiddenLayer, Network
from clrl.agents.optim.base import WithAddOns, compose
from clrl.agents.optim.elementwise import ElementwiseAdam
from clrl.agents.optim.members import Members
from clrl.agents.optim.rule import UpdateRule
from clrl.agents.optim.units import UnitReset, Units
from clrl.agents.options import MLPOptions
from clrl.testing.learners import Plain, Problem


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


class Hand(Network):
    """Parameters from U(-1, 1), so that a fresh draw is told from anything that is set."""

    def __init__(self) -> None:
        super().__init__()

    def fresh(self, name: str, generator: torch.Generator) -> Tensor:
        return torch.empty(self.get_parameter(name).shape).uniform_(-1, 1, generator=generator)


class Pixels(Hand):
    """Two convolutions, flattened for a dense layer, over which two heads stand."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(2, 3, 3)
        self.second = nn.Conv2d(3, 4, 3)
        self.third = nn.Linear(4 * 2 * 2, 5)
        self.actor = nn.Linear(5, 2)
        self.critic = nn.Linear(5, 1, bias=False)
        self.acts = nn.ModuleList(nn.ReLU() for _ in range(3))
        self.hidden_layers = (
            HiddenLayer("one", "first", "acts.0", "second"),
            HiddenLayer("two", "second", "acts.1", "third"),
            HiddenLayer("three", "third", "acts.2", "actor", also_outgoing=("critic",)),
        )
        self.initialise(seeded(1))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        x = self.acts[0](self.first(x))
        x = self.acts[1](self.second(x)).flatten(-3)
        x = self.acts[2](self.third(x))
        return self.actor(x), self.critic(x)


class Chosen(UnitReset):
    """Starts units 1 and 3 of one layer anew after the fifth step."""

    layer = "two"
    units = (1, 3)

    def due(self, layer: Units, features: Mapping[str, Tensor]) -> Iterable[tuple[int, Tensor]]:
        self.seen = {name: tuple(value.shape) for name, value in features.items()}
        return (
            [(0, torch.tensor(self.units))] if layer.name == self.layer and self.steps == 5 else []
        )


def trained(addon: Any, steps: int) -> tuple[Pixels, WithAddOns]:
    network = Pixels()
    base = ElementwiseAdam(network.parameters(), 1e-3)
    optimizer = compose(network, base, [addon], seeded(2))
    for step in range(steps):
        x = torch.randn(6, 2, 6, 6, generator=seeded(step))
        actor, critic = network(x)
        optimizer.zero_grad()
        (actor.square().mean() + (critic - 1).square().mean()).backward()
        optimizer.step()
    return network, optimizer


COLUMNS = {
    "one": ("first", {"second": [1]}, (1,)),
    "two": ("second", {"third": [4, 5, 6, 7, 12, 13, 14, 15]}, (1, 3)),
    "three": ("third", {"actor": [0, 4], "critic": [0, 4]}, (0, 4)),
}


@pytest.mark.parametrize("name", COLUMNS)
def test_a_unit_starts_anew_and_nothing_else_does(name: str) -> None:
    """Rows that come in, biases, what reads them, the state of these, and no other number."""
    incoming, readers, units = COLUMNS[name]

    class Of(Chosen):
        layer = name

    Of.units = units
    still, plain = trained(Never, 5)
    network, optimizer = trained(Of, 5)
    changed = {f"{incoming}.weight": (list(units),), f"{incoming}.bias": (list(units),)}
    changed |= {f"{path}.weight": (slice(None), own) for path, own in readers.items()}
    others = dict(still.named_parameters())
    for path, parameter in network.named_parameters():
        mask = torch.zeros_like(parameter, dtype=torch.bool)
        if path in changed:
            mask[changed[path]] = True
            value = parameter.detach()[mask]
            fresh = path == f"{incoming}.weight"
            assert (value != 0).all() if fresh else (value == 0).all(), path
        assert torch.equal(parameter != others[path], mask), path
        state, expected = optimizer.state[parameter], plain.state[others[path]]
        for key in ("exp_avg", "exp_avg_sq"):
            assert (state[key][mask] == 0).all()
            assert torch.equal(state[key][~mask], expected[key][~mask])
        assert torch.equal(state["since"], 5.0 * mask)


class Never(UnitReset):
    def due(self, layer: Units, features: Mapping[str, Tensor]) -> Iterable[tuple[int, Tensor]]:
        return ()


def test_the_output_no_longer_depends_on_a_unit_that_started_anew() -> None:
    for name in COLUMNS:

        class Of(Chosen):
            layer = name

        Of.units = COLUMNS[name][2]
        network, _ = trained(Of, 5)
        x = torch.randn(3, 2, 6, 6, generator=seeded(9))
        with torch.no_grad():
            before = torch.cat(network(x), dim=1)
            weight = network.get_parameter(f"{COLUMNS[name][0]}.weight")
            weight[list(Of.units)] *= 50.0
            assert torch.equal(torch.cat(network(x), dim=1), before)


def test_features_of_a_convolution_have_an_example_for_each_place() -> None:
    _, optimizer = trained(Chosen, 1)
    (addon,) = optimizer.chain.addons
    assert isinstance(addon, Chosen)
    assert addon.seen == {"one": (1, 6 * 16, 3), "two": (1, 6 * 4, 4), "three": (1, 6, 5)}
    kept = optimizer.chain.features["two"]
    network = Pixels()  # the features are of the parameters before the step
    x = torch.randn(6, 2, 6, 6, generator=seeded(0))
    with torch.no_grad():
        maps = network.acts[1](network.second(network.acts[0](network.first(x))))
    torch.testing.assert_close(kept[0, :, 2].sum(), maps[:, 2].sum())


def hand_made() -> tuple[Pixels, dict[str, Units], torch.optim.Optimizer]:
    network = Pixels()
    optimizer = torch.optim.SGD(network.parameters(), 0.1)
    members = Members.of_module(network, optimizer, seeded(5))
    return (
        network,
        {layer.name: Units(members, layer) for layer in network.hidden_layers},
        optimizer,
    )


def test_sizes_of_weights() -> None:
    network, units, _ = hand_made()
    second, third = network.second.weight.detach().abs(), network.third.weight.detach().abs()
    heads = torch.cat([network.actor.weight, network.critic.weight]).detach().abs()
    torch.testing.assert_close(units["two"].incoming()[0], second.mean(dim=(1, 2, 3)))
    torch.testing.assert_close(units["one"].outgoing()[0, 0], second.mean(dim=(0, 2, 3)))
    by_channel = third.view(5, 4, 4)
    torch.testing.assert_close(units["two"].outgoing()[0, 0], by_channel.mean(dim=(0, 2)))
    torch.testing.assert_close(units["two"].outgoing("sum")[0, 0], by_channel.sum(dim=(0, 2)))
    torch.testing.assert_close(units["three"].outgoing()[0, 0], heads.mean(dim=0))


def test_what_reads_a_unit_is_scaled_wherever_it_is_read() -> None:
    for name, (_, readers, chosen) in COLUMNS.items():
        network, units, _ = hand_made()
        before = {path: value.detach().clone() for path, value in network.named_parameters()}
        factors = torch.ones(1, units[name].size)
        factors[0, list(chosen)] = 0.5
        with torch.no_grad():
            units[name].scale_outgoing(factors)
        for path, columns in readers.items():
            before[f"{path}.weight"][:, columns] *= 0.5
        for path, value in network.named_parameters():
            assert torch.equal(value, before[path]), path


@pytest.mark.parametrize("outgoing", ["zero", "fresh", "keep"])
def test_outgoing_weights_by_choice(outgoing: Literal["zero", "fresh", "keep"]) -> None:
    network, units, _ = hand_made()
    before = network.third.weight.detach().clone()
    with torch.no_grad():
        units["two"].start_anew(0, torch.tensor([2]), outgoing)
    own, rest = network.third.weight.detach()[:, 8:12], [*range(8), *range(12, 16)]
    assert torch.equal(network.third.weight[:, rest], before[:, rest])
    if outgoing == "zero":
        assert (own == 0).all()
    else:
        assert torch.equal(own, before[:, 8:12]) == (outgoing == "keep")
        assert (own != 0).all()


def test_what_is_handed_over_keeps_the_output_of_units_that_are_constant() -> None:
    for name, readers in (("one", ["second"]), ("two", ["third"]), ("three", ["actor"])):
        network, units, _ = hand_made()
        incoming = network.get_submodule(COLUMNS[name][0])
        x = torch.randn(3, 2, 6, 6, generator=seeded(9))
        with torch.no_grad():
            incoming.weight[0] = 0.0  # so unit 0 gives 0.7 everywhere
            incoming.bias[0] = 0.7
            network.critic.weight[:, 0] = 0.0  # it has no bias to take anything over
            before = torch.cat(network(x), dim=1)
            mean = torch.full((1, units[name].size), 0.7)
            units[name].hand_over(0, torch.tensor([0]), mean)
            units[name].start_anew(0, torch.tensor([0]))
            torch.testing.assert_close(torch.cat(network(x), dim=1), before)
        assert readers == [*units[name].layer.readers][:1]


def test_gradients_are_there_for_rules_that_read_them() -> None:
    """The unit whose incoming weights have no gradient is known by it."""
    seen: list[Tensor] = []

    class Still(UnitReset):
        needs_features = False

        def due(self, layer: Units, features: Mapping[str, Tensor]) -> Iterable[tuple[int, Tensor]]:
            assert not features
            if layer.name == "three":
                seen.append(layer.incoming_gradient().abs().mean(dim=2)[0])
            return ()

    network, _ = trained(Still, 1)
    assert network.third.weight.grad is not None
    torch.testing.assert_close(seen[0], network.third.weight.grad.abs().mean(dim=1))


@pytest.mark.parametrize("stacked", [False, True])
def test_what_a_batch_norm_keeps_of_a_unit_starts_anew(stacked: bool) -> None:
    """In the engine, of the member whose unit it is."""

    class First(UnitReset):
        def due(self, layer: Units, features: Mapping[str, Tensor]) -> Iterable[tuple[int, Tensor]]:
            if self.steps < 3 or layer.name != "layer_1":
                return []
            seeds = [generator.initial_seed() for generator in self.members.generators]
            return [(seeds.index(1000), torch.tensor([2]))] if 1000 in seeds else []

    def learned(addon: Any) -> dict[str, Tensor]:
        problem = Problem(
            UpdateRule(torch.optim.SGD, {"lr": 0.01}, [(addon, {})]),
            3,
            options=MLPOptions(widths=(4, 3), batch_norm=True),
        )
        x, y = problem.examples([0, 1], 3)
        if stacked:
            population = problem.population([0, 1], 2)
            population.learn(x, y)
            return {name: value.clone() for name, value in population.kept.items()}
        plain = Plain(problem, 0)
        plain.learn(x[0], y[0])
        return {name: value.unsqueeze(0) for name, value in plain.kept.items()}

    expected = learned(Never)
    for name, fresh in (("running_mean", 0.0), ("running_var", 1.0)):
        own = expected[f"norms.0.{name}"]
        assert own[0, 2] != fresh
        own[0, 2] = fresh
    found = learned(First)
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        assert torch.equal(found[name], value), name


def test_a_norm_of_features_starts_anew_where_the_units_do() -> None:
    """Both features of a unit, in the norm after the activation."""
    options = MLPOptions(widths=(3,), activation="crelu", layer_norm=True, norm_place="after")
    network = MLP(2, 2, options, torch.Generator().manual_seed(0))
    norm = network.get_submodule("activations.0.1")
    with torch.no_grad():
        for own in norm.parameters():
            own.fill_(5.0)
    base = torch.optim.SGD(network.parameters(), 0.1)
    members = Members.of_module(network, base, torch.Generator().manual_seed(1))
    Units(members, network.hidden_layers[0]).start_anew(0, torch.tensor([1]))
    weight, bias = (own.tolist() for own in norm.parameters())
    assert weight == [5, 1, 5, 5, 1, 5] and bias == [5, 0, 5, 5, 0, 5]
    assert (network.linears[1].weight[:, [1, 4]] == 0).all()
