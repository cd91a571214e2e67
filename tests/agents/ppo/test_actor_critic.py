"""Actor and critic in one network, and the declaration of their hidden layers."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from gymnasium import spaces
from torch import Tensor, nn
from torch.func import functional_call

from clrl.agents.actions import actions_of
from clrl.agents.calling import Forward
from clrl.agents.networks import MLP, Network
from clrl.agents.optim.continual_backprop import ContinualBackprop
from clrl.agents.optim.rule import UpdateRule
from clrl.agents.options import MLPOptions
from clrl.agents.population import Population
from clrl.agents.ppo.actor_critic import ActorCritic

PARTS = ("actor", "critic")
SPACES: dict[str, spaces.Space[Any]] = {
    "discrete": spaces.Discrete(4),
    "one choice": spaces.Discrete(1),
    "multi-discrete": spaces.MultiDiscrete([3, 2, 5]),
    "continuous": spaces.Box(-1.0, np.array([1.0, 2.0, 3.0], np.float32)),
}


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def network(
    space: spaces.Space[Any], shared: bool = False, seed: int = 0, **options: Any
) -> ActorCritic:
    options = {"widths": (6, 5), "activation": "tanh", "init": "orthogonal", **options}

    def make(inputs: int, outputs: int, generator: torch.Generator, gain: float) -> Network:
        return MLP(inputs, outputs, MLPOptions(**options), generator, gain)

    return ActorCritic(3, actions_of(space), make, shared, -0.5, seeded(seed))


@pytest.mark.parametrize("kind", SPACES)
@pytest.mark.parametrize("shared", [False, True])
def test_forward_gives_outputs_parameters_and_values(kind: str, shared: bool) -> None:
    space = SPACES[kind]
    actions, module = actions_of(space), network(space, shared)
    for shape in ((), (4,), (2, 3)):
        observations = torch.randn(*shape, 3, generator=seeded(1))
        outputs, parameters, values = module(observations)
        assert outputs.shape == (*shape, actions.num_outputs)
        assert parameters.shape == (actions.num_parameters,)
        assert values.shape == shape
    assert (module.spread is not None) == (kind == "continuous")
    if shared:
        both = module.parts["shared"](observations)
        assert torch.equal(outputs, both[..., :-1])
        assert torch.equal(values, both[..., -1])
    else:
        assert torch.equal(outputs, module.parts["actor"](observations))
        assert torch.equal(values, module.parts["critic"](observations)[..., 0])


def test_the_spread_starts_where_it_is_told() -> None:
    module = network(SPACES["continuous"])
    assert module.spread is not None and module.spread.tolist() == [-0.5] * 3


def test_initial_policies_are_nearly_even() -> None:
    """The actor's last layer has gain 0.01, the critic's 1."""
    module = network(SPACES["discrete"], widths=(64, 64))
    actor, critic = (module.get_parameter(f"parts.{p}.linears.2.weight") for p in PARTS)
    torch.testing.assert_close(actor @ actor.T, 1e-4 * torch.eye(4), rtol=1e-4, atol=1e-9)
    assert critic.norm().item() == pytest.approx(1.0, rel=1e-5)


def test_parameters_come_from_the_generator_alone() -> None:
    state = torch.get_rng_state()
    one, two, other = (network(SPACES["continuous"], seed=seed) for seed in (0, 0, 1))
    assert torch.equal(torch.get_rng_state(), state)
    for name, value in one.named_parameters():
        assert torch.equal(value, two.get_parameter(name))
        if name.endswith("weight"):
            assert not torch.equal(value, other.get_parameter(name))
    first = one.get_parameter("parts.actor.linears.1.weight")
    assert not torch.equal(first, one.get_parameter("parts.critic.linears.1.weight"))


@pytest.mark.parametrize("shared", [False, True])
@pytest.mark.parametrize("layer_norm", [False, True])
@pytest.mark.parametrize("activation", ["tanh", "crelu"])
def test_hidden_layers_name_what_is_there(shared: bool, layer_norm: bool, activation: str) -> None:
    """The units that a declaration names are those whose change shows in its features."""
    options = {"layer_norm": layer_norm, "activation": activation}
    module = network(SPACES["continuous"], shared, **options)
    parts = ("shared",) if shared else PARTS
    names = [f"{part}/layer_{i}" for part in parts for i in (1, 2)]
    assert [layer.name for layer in module.hidden_layers] == names
    for layer in module.hidden_layers:
        incoming = module.get_submodule(layer.incoming)
        outgoing = module.get_submodule(layer.outgoing)
        assert isinstance(incoming, nn.Linear) and isinstance(outgoing, nn.Linear)
        assert outgoing.in_features == layer.copies * incoming.out_features
        assert layer.function == activation
        assert (layer.norm != "") == layer_norm
        if layer_norm:
            norm = module.get_submodule(layer.norm)
            assert norm.weight.shape == (incoming.out_features,)
        part = layer.name.split("/")[0]
        of_layer = [layer.incoming, layer.outgoing, layer.activation, layer.norm or layer.incoming]
        assert all(module.part_of(f"{path}.weight") == part for path in of_layer)
        seen: list[Tensor] = []
        handle = module.get_submodule(layer.activation).register_forward_hook(
            lambda _m, _i, output, seen=seen: seen.append(output.detach())
        )
        observations = torch.randn(20, 3, generator=seeded(2))
        module(observations)
        weight = f"{layer.outgoing}.weight"
        changed = {weight: torch.zeros_like(module.get_parameter(weight))}
        own = {**dict(module.named_parameters()), **changed}
        functional_call(module, own, (observations,))
        handle.remove()
        assert seen[0].shape == (20, layer.copies * incoming.out_features)
        assert torch.equal(seen[0], seen[1])  # outgoing weights are read after the features


@pytest.mark.parametrize("shared", [False, True])
def test_every_parameter_belongs_to_a_part(shared: bool) -> None:
    module = network(SPACES["continuous"], shared, layer_norm=True)
    for name, _ in module.named_parameters():
        if name != "spread":
            assert module.part_of(name) == name.split(".")[1]
    assert module.part_of("spread") == ("shared" if shared else "actor")


@pytest.mark.parametrize("shared", [False, True])
@pytest.mark.parametrize("init", ["torch", "lecun", "kaiming", "orthogonal"])
def test_every_parameter_can_be_drawn_anew(shared: bool, init: str) -> None:
    """From the distribution it was drawn from: with the same generator, the same numbers."""
    module = network(SPACES["continuous"], shared, seed=3, init=init, layer_norm=True)
    generator = seeded(3)
    before = {name: value.detach().clone() for name, value in module.named_parameters()}
    for name, value in before.items():
        assert torch.equal(module.fresh(name, generator), value), name
        assert torch.equal(module.get_parameter(name), value)  # the network is not changed


def squares(
    forward: Forward, observations: Tensor, target: Tensor
) -> tuple[Tensor, dict[str, Any]]:
    outputs, parameters, values = forward(observations)
    return ((values - target) ** 2).mean() + (outputs**2).mean() + parameters.sum() ** 2, {}


@pytest.mark.parametrize("shared", [False, True])
@pytest.mark.parametrize("layer_norm", [False, True])
def test_continual_backprop_starts_units_of_every_part_anew(shared: bool, layer_norm: bool) -> None:
    options = {"replacement_rate": 1.0, "maturity_threshold": 2}
    rule = UpdateRule(torch.optim.SGD, {"lr": 0.1}, [(ContinualBackprop, options)])
    space = SPACES["continuous"]
    modules = [
        network(space, shared, seed, layer_norm=layer_norm, activation="relu") for seed in (0, 1)
    ]
    members = Population(modules, squares, rule, [seeded(7), seeded(8)], 2)
    x, y = torch.randn(2, 3, 8, 3, generator=seeded(5)), torch.randn(2, 3, 8, generator=seeded(6))
    members.learn(x[:, :2], y[:, :2])
    parameters = members.parameters()
    layers = modules[0].hidden_layers
    for layer in layers:
        assert (parameters[f"{layer.outgoing}.weight"] != 0).any(dim=1).all()
    members.learn(x[:, 2:], y[:, 2:])  # every unit is mature now, and all go
    for layer in layers:
        assert (parameters[f"{layer.incoming}.bias"] == 0).all()
        if layer.norm:
            assert (parameters[f"{layer.norm}.weight"] == 1).all()
    last = [layer for layer in layers if layer.name.endswith("layer_2")]
    assert len(last) == (1 if shared else 2)
    for layer in last:
        assert (parameters[f"{layer.outgoing}.weight"] == 0).all()
    outputs, _, values = members.compiled(lambda forward, x: forward(x))(x[:, 0])
    for value in (*outputs.unbind(0), *values.unbind(0)):
        assert torch.equal(value, value[:1].expand_as(value))  # nothing comes through


def test_features_are_those_of_actor_and_critic() -> None:
    modules = [network(SPACES["discrete"], seed=seed) for seed in (0, 1)]
    rule = UpdateRule(torch.optim.SGD, {"lr": 0.1})
    members = Population(modules, squares, rule, [seeded(0), seeded(1)])
    x = torch.randn(9, 3, generator=seeded(5))
    features = members.features(1, x)
    assert sorted(features) == [f"{part}/layer_{i}" for part in PARTS for i in (1, 2)]
    critic = modules[1].parts["critic"]
    expected = torch.tanh(critic.linears[0](x))
    torch.testing.assert_close(features["critic/layer_1"], expected.detach())
