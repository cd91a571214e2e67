"""Distributions against torch's own, and the declaration of actor and critic."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from gymnasium import spaces
from torch import Tensor, nn
from torch.distributions import Categorical, Normal
from torch.func import functional_call

from clrl.agents.actor_critic import ActorCritic, Discrete, Gaussian, actions_of
from clrl.agents.networks import MLP, Network
from clrl.agents.optim.continual_backprop import ContinualBackprop
from clrl.agents.optim.rule import UpdateRule
from clrl.agents.options import MLPOptions
from clrl.agents.population import Forward, Population
from clrl.errors import UsageError

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


def some_outputs(space: spaces.Space[Any], *shape: int) -> tuple[Tensor, Tensor]:
    """Outputs of a policy and its further parameters."""
    actions = actions_of(space)
    outputs = 2 * torch.randn(*shape, actions.num_outputs, generator=seeded(0))
    return outputs, torch.linspace(-1.0, 0.5, actions.num_parameters)


def parts_of(space: spaces.Space[Any], outputs: Tensor) -> list[Categorical]:
    sizes = [space.n] if isinstance(space, spaces.Discrete) else space.nvec.tolist()
    return [Categorical(logits=part) for part in torch.split(outputs, [int(n) for n in sizes], -1)]


# Distributions


@pytest.mark.parametrize("kind", ["discrete", "one choice", "multi-discrete"])
@pytest.mark.parametrize("scale", [1.0, 50.0])
def test_choices_have_torchs_log_probabilities_and_entropies(kind: str, scale: float) -> None:
    space = SPACES[kind]
    actions = actions_of(space)
    outputs, parameters = some_outputs(space, 7, 5)
    outputs = scale * outputs
    parts = parts_of(space, outputs)
    chosen = [torch.randint(part.logits.shape[-1], (7, 5), generator=seeded(1)) for part in parts]
    expected = sum(part.log_prob(one) for part, one in zip(parts, chosen, strict=True))
    taken = torch.stack(chosen, dim=-1)
    got = actions.log_prob(outputs, parameters, taken.float())
    assert got.shape == (7, 5)
    torch.testing.assert_close(got, expected, rtol=1e-5, atol=1e-5)
    expected = sum(part.entropy() for part in parts)
    torch.testing.assert_close(actions.entropy(outputs, parameters), expected, rtol=1e-5, atol=1e-5)


def test_real_numbers_have_torchs_log_densities_and_entropies() -> None:
    space = SPACES["continuous"]
    actions = actions_of(space)
    outputs, parameters = some_outputs(space, 7, 5)
    normal = Normal(outputs, parameters.exp())
    taken = 3 * torch.randn(7, 5, 3, generator=seeded(1))  # mostly out of bounds
    got = actions.log_prob(outputs, parameters, taken)
    torch.testing.assert_close(got, normal.log_prob(taken).sum(-1), rtol=1e-5, atol=1e-5)
    entropy = actions.entropy(outputs, parameters)
    assert entropy.shape == (7, 5)
    torch.testing.assert_close(entropy, normal.entropy().sum(-1), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("kind", SPACES)
def test_gradients_are_those_of_torchs_distributions(kind: str) -> None:
    space = SPACES[kind]
    actions = actions_of(space)
    outputs, parameters = (value.requires_grad_() for value in some_outputs(space, 6))
    with torch.no_grad():
        noise = torch.from_numpy(drawn(actions, 6))
        taken = actions.sample(outputs, parameters, noise)
    ours = actions.log_prob(outputs, parameters, taken) + actions.entropy(outputs, parameters)
    if isinstance(actions, Gaussian):
        normal = Normal(outputs, parameters.exp())
        theirs = (normal.log_prob(taken) + normal.entropy()).sum(-1)
        of = [outputs, parameters]
    else:
        pairs = zip(parts_of(space, outputs), taken.unbind(-1), strict=True)
        theirs = sum((part.log_prob(one) + part.entropy() for part, one in pairs), torch.zeros(6))
        of = [outputs]
    weights = torch.linspace(-1.0, 2.0, 6)
    got = torch.autograd.grad((weights * ours).sum(), of)
    expected = torch.autograd.grad((weights * theirs).sum(), of)
    for one, other in zip(got, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-5)


def drawn(actions: Any, *shape: int, seed: int = 0) -> np.ndarray[Any, Any]:
    out = np.empty((*shape, actions.noise_size), np.float32)
    actions.noise(np.random.default_rng(seed), out)
    return out


@pytest.mark.parametrize("kind", ["discrete", "one choice", "multi-discrete"])
def test_choices_are_made_as_often_as_they_are_likely(kind: str) -> None:
    space, n = SPACES[kind], 200_000
    actions = actions_of(space)
    outputs, parameters = some_outputs(space)
    noise = torch.from_numpy(drawn(actions, n))
    taken = actions.sample(outputs.expand(n, -1), parameters, noise)
    assert taken.dtype == torch.float32 and taken.shape == (n, actions.width)
    for part, chosen in zip(parts_of(space, outputs), taken.unbind(-1), strict=True):
        counts = torch.bincount(chosen.long(), minlength=len(part.probs)) / n
        bound = 5 * (part.probs * (1 - part.probs) / n).sqrt() + 1e-9
        assert ((counts - part.probs).abs() <= bound).all()


def test_several_choices_are_independent() -> None:
    space, n = spaces.MultiDiscrete([2, 3]), 200_000
    actions = actions_of(space)
    outputs, parameters = some_outputs(space)
    taken = actions.sample(outputs.expand(n, -1), parameters, torch.from_numpy(drawn(actions, n)))
    first, second = (part.probs for part in parts_of(space, outputs))
    both = torch.bincount((3 * taken[:, 0] + taken[:, 1]).long(), minlength=6).view(2, 3) / n
    torch.testing.assert_close(both, torch.outer(first, second), rtol=0, atol=5e-3)


def test_real_numbers_have_the_mean_and_spread_they_should() -> None:
    space, n = SPACES["continuous"], 200_000
    actions = actions_of(space)
    outputs, parameters = some_outputs(space)
    taken = actions.sample(outputs.expand(n, -1), parameters, torch.from_numpy(drawn(actions, n)))
    z = (taken - outputs) / parameters.exp()
    torch.testing.assert_close(z.mean(0), torch.zeros(3), rtol=0, atol=0.012)
    torch.testing.assert_close(z.T.cov(), torch.eye(3), rtol=0, atol=0.02)
    below = torch.stack([(z < edge).float().mean(0) for edge in (-2.0, -1.0, 0.0, 1.0, 2.0)])
    edges = Normal(0.0, 1.0).cdf(torch.tensor([-2.0, -1.0, 0.0, 1.0, 2.0]))
    torch.testing.assert_close(below, edges.unsqueeze(1).expand(5, 3), rtol=0, atol=6e-3)


class Extremes:
    """A generator at the ends of what one draws, 0 included."""

    def random(self, out: Any, dtype: Any) -> None:
        out[:] = np.resize([0.0, 1.0 - 2.0**-24], out.shape)


def test_noise_of_choices_is_always_finite() -> None:
    out = np.empty((3, 4), np.float32)
    with np.errstate(all="raise"):
        Discrete(spaces.Discrete(4)).noise(Extremes(), out)  # type: ignore[arg-type]
    assert np.isfinite(out).all()


@pytest.mark.parametrize("kind", SPACES)
def test_the_mode_is_the_likeliest_action(kind: str) -> None:
    space = SPACES[kind]
    actions = actions_of(space)
    outputs, parameters = some_outputs(space, 6)
    mode = actions.mode(outputs, parameters)
    assert mode.dtype == torch.float32 and mode.shape == (6, actions.width)
    best = actions.log_prob(outputs, parameters, mode)
    for seed in range(20):
        noise = torch.from_numpy(drawn(actions, 6, seed=seed))
        other = actions.sample(outputs, parameters, noise)
        assert (actions.log_prob(outputs, parameters, other) <= best + 1e-6).all()


# What environments get


def test_continuous_actions_are_clipped_to_their_bounds() -> None:
    space = spaces.Box(np.array([-1.0, -np.inf]), np.array([2.0, 0.5]), dtype=np.float64)
    given = np.array([[-3.0, -1e6], [5.0, 7.0], [0.25, 0.125]], np.float32)
    got = actions_of(space).to_environment(given)
    assert got.dtype == np.float64
    assert got.tolist() == [[-1.0, -1e6], [2.0, 0.5], [0.25, 0.125]]
    assert given[0].tolist() == [-3.0, -1e6]  # what the policy drew stays as it is


@pytest.mark.parametrize("kind", SPACES)
def test_environments_accept_what_they_get(kind: str) -> None:
    space = SPACES[kind]
    actions = actions_of(space)
    outputs, parameters = some_outputs(space, 50)
    taken = actions.sample(outputs, parameters, torch.from_numpy(drawn(actions, 50)))
    got = actions.to_environment(taken.numpy())
    assert len(got) == 50
    assert all(action in space for action in got)
    assert got.ndim == (1 if isinstance(space, spaces.Discrete) else 2)


@pytest.mark.parametrize(
    "space",
    [
        spaces.Discrete(3, start=1),
        spaces.MultiDiscrete([2, 3], start=[0, 1]),
        spaces.MultiDiscrete([[2, 3], [4, 5]]),
        spaces.MultiBinary(3),
        spaces.Box(0, 255, (3,), np.uint8),
        spaces.Box(-1.0, 1.0, (2, 2)),
        spaces.Box(-1.0, 1.0, ()),
        spaces.Dict({"a": spaces.Discrete(2)}),
    ],
    ids=str,
)
def test_other_actions_are_refused_in_one_line(space: spaces.Space[Any]) -> None:
    with pytest.raises(UsageError, match="actions: expected Discrete, ") as error:
        actions_of(space)
    assert "\n" not in str(error.value)


# The network


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


def test_divergence_is_torchs() -> None:
    """KL(old || new) against ``torch.distributions.kl_divergence``."""
    source = torch.Generator().manual_seed(0)
    old, new = torch.randn(2, 6, 5, generator=source)
    discrete = Discrete(spaces.MultiDiscrete([2, 3]))
    none = torch.zeros(0)
    expected = sum(
        torch.distributions.kl_divergence(
            torch.distributions.Categorical(logits=old[:, own]),
            torch.distributions.Categorical(logits=new[:, own]),
        )
        for own in (slice(0, 2), slice(2, 5))
    )
    torch.testing.assert_close(discrete.divergence(old, none, new, none), expected)
    gaussian = Gaussian(spaces.Box(-1, 1, (5,), np.float32))
    before, after = torch.randn(2, 5, generator=source)
    apart = torch.distributions.kl_divergence(
        torch.distributions.Normal(old, before.exp()), torch.distributions.Normal(new, after.exp())
    ).sum(-1)
    torch.testing.assert_close(gaussian.divergence(old, before, new, after), apart)
