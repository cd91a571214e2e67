"""Networks: initialisers, activations, LayerNorm and the declaration of hidden layers."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from clrl.agents.networks import ELU, MLP, CReLU, Sigmoid, Swish
from clrl.agents.options import MLPOptions
from clrl.testing import check_network

ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "relu": F.relu,
    "leaky-relu": lambda x: F.leaky_relu(x, 0.2),
    "tanh": torch.tanh,
    "crelu": lambda x: torch.cat([F.relu(x), F.relu(-x)], dim=-1),
    "sigmoid": torch.sigmoid,
    "elu": F.elu,
    "swish": F.silu,
}
INITS = ["torch", "lecun", "kaiming", "orthogonal"]


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def mlp(
    widths: tuple[int, ...],
    activation: str = "relu",
    init: str = "torch",
    layer_norm: bool = False,
    inputs: int = 30,
    outputs: int = 10,
    seed: int = 0,
) -> MLP:
    options = MLPOptions(
        widths=widths,
        activation=activation,  # type: ignore[arg-type]
        leaky_slope=0.2,
        layer_norm=layer_norm,
        init=init,  # type: ignore[arg-type]
    )
    return MLP(inputs, outputs, options, seeded(seed))


# Initialisers


def gain(activation: str) -> float:
    """He et al. 2015 and torch.nn.init's table, written out."""
    return {"leaky-relu": math.sqrt(2 / 1.04), "tanh": 5 / 3, "sigmoid": 1.0}.get(
        activation, math.sqrt(2)
    )


def bounds(init: str, activation: str, fan_in: int, hidden: bool) -> tuple[float, float]:
    """Largest possible |weight| and |bias|."""
    if init == "torch":
        return 1 / math.sqrt(fan_in), 1 / math.sqrt(fan_in)
    factor = gain(activation) if init == "kaiming" and hidden else 1.0
    return factor * math.sqrt(3 / fan_in), 0.0


def assert_uniform(values: Tensor, bound: float) -> None:
    """Uniform on [-bound, bound]: inside, close to both ends, of the right spread."""
    if bound == 0:
        assert (values == 0).all()
        return
    assert values.abs().max() <= bound
    if values.numel() >= 500:
        assert values.max() > 0.97 * bound and values.min() < -0.97 * bound
        assert float(values.std()) == pytest.approx(bound / math.sqrt(3), rel=0.1)
        assert abs(float(values.mean())) < 0.1 * bound


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("init", ["torch", "lecun", "kaiming"])
def test_uniform_initialisers_have_their_bounds(init: str, activation: str) -> None:
    network = mlp((60, 80), activation, init, outputs=50)
    copies = 2 if activation == "crelu" else 1
    for i, fan_in in enumerate((30, 60 * copies, 80 * copies)):
        weight, bias = bounds(init, activation, fan_in, hidden=i < 2)
        assert network.linears[i].weight.shape[1] == fan_in
        assert_uniform(network.linears[i].weight.detach(), weight)
        assert_uniform(network.linears[i].bias.detach(), bias)


def test_biases_of_the_torch_initialiser_are_spread() -> None:
    network = mlp((2000,), inputs=16)
    assert_uniform(network.linears[0].bias.detach(), 0.25)


@pytest.mark.parametrize(
    ("init", "activation", "theirs"),
    [
        ("torch", "relu", lambda w, g: nn.init.kaiming_uniform_(w, math.sqrt(5), generator=g)),
        (
            "lecun",
            "relu",
            lambda w, g: nn.init.kaiming_uniform_(w, nonlinearity="linear", generator=g),
        ),
        (
            "kaiming",
            "relu",
            lambda w, g: nn.init.kaiming_uniform_(w, nonlinearity="relu", generator=g),
        ),
        (
            "kaiming",
            "tanh",
            lambda w, g: nn.init.kaiming_uniform_(w, nonlinearity="tanh", generator=g),
        ),
        ("kaiming", "leaky-relu", lambda w, g: nn.init.kaiming_uniform_(w, 0.2, generator=g)),
        ("orthogonal", "relu", lambda w, g: nn.init.orthogonal_(w, math.sqrt(2), generator=g)),
    ],
)
def test_first_weights_are_those_of_torchs_own_initialiser(
    init: str, activation: str, theirs: Callable[[Tensor, torch.Generator], Tensor]
) -> None:
    weight = mlp((60,), activation, init, seed=5).linears[0].weight
    torch.testing.assert_close(weight, theirs(torch.empty(60, 30), seeded(5)), rtol=1e-6, atol=0)


@pytest.mark.parametrize("activation", ["relu", "tanh", "crelu"])
def test_orthogonal_has_orthogonal_rows_or_columns_and_its_gains(activation: str) -> None:
    network = mlp((20, 40), activation, "orthogonal")
    for i, layer in enumerate(network.linears):
        weight = layer.weight.detach().double()
        gram = weight @ weight.T if weight.shape[0] <= weight.shape[1] else weight.T @ weight
        expected = torch.eye(len(gram), dtype=torch.float64) * (2.0 if i < 2 else 1.0)
        torch.testing.assert_close(gram, expected, rtol=0, atol=1e-5)
        assert (layer.bias == 0).all()


@pytest.mark.parametrize("init", INITS)
def test_layer_norm_starts_as_the_identity(init: str) -> None:
    network = mlp((20, 40), "relu", init, layer_norm=True)
    for norm, width in zip(network.norms, (20, 40), strict=True):
        assert torch.equal(norm.weight, torch.ones(width))
        assert torch.equal(norm.bias, torch.zeros(width))


@pytest.mark.parametrize("init", INITS)
@pytest.mark.parametrize("layer_norm", [False, True])
def test_a_fresh_parameter_is_drawn_as_the_first_one_was(init: str, layer_norm: bool) -> None:
    network = mlp((60, 80), "tanh", init, layer_norm)
    before = {name: value.detach().clone() for name, value in network.named_parameters()}
    generator = seeded(9)
    for name, value in before.items():
        drawn = network.fresh(name, generator)
        assert drawn.shape == value.shape and drawn.dtype == value.dtype
        assert not drawn.requires_grad
        if value.unique().numel() == 1:  # constant: biases of 0, LayerNorm
            assert torch.equal(drawn, value)
        else:
            assert not torch.equal(drawn, value)
            if value.numel() >= 500:
                assert float(drawn.std()) == pytest.approx(float(value.std()), rel=0.1)
            fan_in = network.get_parameter(name.replace("bias", "weight")).shape[1]
            if init != "orthogonal":
                bound = max(bounds(init, "tanh", fan_in, hidden=not name.startswith("linears.2")))
                assert 0.7 * bound < drawn.abs().max() <= bound
    for name, value in network.named_parameters():
        assert torch.equal(value, before[name])


@pytest.mark.parametrize(
    ("activation", "init", "layer_norm"),
    [
        *((activation, "kaiming", False) for activation in ACTIVATIONS),
        *(("relu", init, True) for init in INITS),
    ],
)
def test_keeps_the_contract(activation: str, init: str, layer_norm: bool) -> None:
    held = check_network(
        MLP, widths=(7, 5), activation=activation, init=init, layer_norm=layer_norm, steps=12
    )
    assert "members independent" in held and "fresh draws as the first ones" in held


@pytest.mark.parametrize(
    "options",
    [
        {"activation": "rational"},
        {"activation": "smooth-leaky"},
        {"activation": "aid"},
        {"activation": "fourier-features", "widths": (8, 6)},
        {"init": "sparse", "widths": (30, 20)},
        {"layer_norm": True, "norm_parameters": False, "activation": "leaky-relu"},
        {"layer_norm": True, "norm_place": "after", "activation": "crelu"},
        {"batch_norm": True, "norm_place": "after"},
    ],
    ids=lambda options: " ".join(map(str, options.values())),
)
def test_further_choices_keep_the_contract(options: dict[str, Any]) -> None:
    held = check_network(MLP, steps=8, **{"widths": (7, 5), **options})
    assert "members independent" in held and "fresh draws as the first ones" in held


def test_keeps_the_contract_with_dropout() -> None:
    assert "another seed gives another result" in check_network(
        MLP, widths=(7, 5), dropout=0.2, steps=12
    )


def test_initialise_draws_every_parameter_anew() -> None:
    one, two = mlp((20, 10), seed=3), mlp((20, 10), seed=4)
    two.initialise(seeded(3))
    for a, b in zip(one.parameters(), two.parameters(), strict=True):
        assert torch.equal(a, b)
        assert b.requires_grad


# Sparse initialisation


@pytest.mark.parametrize(
    ("inputs", "left"), [(1, 1), (4, 1), (9, 1), (11, 1), (20, 2), (100, 10), (105, 10)]
)
def test_sparse_weights_leave_a_tenth_of_each_rows_inputs_and_always_one(
    inputs: int, left: int
) -> None:
    """Published code leaves none of nine inputs or less, as CartPole has."""
    network = MLP(inputs, 3, MLPOptions(widths=(400,), init="sparse"), seeded())
    weight = network.linears[0].weight.detach()
    kept = weight != 0
    assert kept.sum(dim=1).tolist() == [left] * 400
    assert weight.abs().max() <= 1 / math.sqrt(inputs)
    assert float(weight[kept].std()) == pytest.approx(1 / math.sqrt(3 * inputs), rel=0.15)
    assert kept.any(dim=0).all()  # each row leaves others
    assert all((own.bias == 0).all() for own in network.linears)
    assert (network.linears[1].weight != 0).sum(dim=1).tolist() == [40] * 3


# Normalisation


def test_layer_norm_forgets_the_scale_of_what_feeds_it() -> None:
    for options in ({}, {"norm_parameters": False}):
        network = MLP(6, 3, MLPOptions(widths=(20,), layer_norm=True, **options), seeded())
        x = torch.randn(8, 6, generator=seeded(1))
        before = network(x)
        with torch.no_grad():
            for own in network.linears[0].parameters():
                own.mul_(7.0)
        torch.testing.assert_close(network(x), before, rtol=1e-3, atol=1e-4)


def test_a_norm_without_parameters_has_none() -> None:
    for kind in ("layer_norm", "batch_norm"):
        options = MLPOptions(widths=(5, 4), norm_parameters=False, **{kind: True})
        names = {
            name.partition(".")[0] for name, _ in MLP(3, 2, options, seeded()).named_parameters()
        }
        assert names == {"linears"}


def test_a_norm_after_the_activation_normalises_its_features() -> None:
    options = MLPOptions(widths=(12, 10), layer_norm=True, norm_place="after", activation="tanh")
    network = MLP(3, 2, options, seeded())
    x = torch.randn(6, 3, generator=seeded(1))
    h = x
    for linear in network.linears[:-1]:
        h = F.layer_norm(torch.tanh(linear(h)), h.shape[:0] + (linear.out_features,))
    torch.testing.assert_close(network(x), network.linears[-1](h), rtol=1e-5, atol=1e-6)
    assert [layer.norm_after for layer in network.hidden_layers] == [
        "activations.0.1",
        "activations.1.1",
    ]


# Activations


@pytest.mark.parametrize(
    ("module", "theirs"),
    [
        (Sigmoid(), torch.sigmoid),
        (Swish(), F.silu),
        (ELU(), F.elu),
        (CReLU(), ACTIVATIONS["crelu"]),
    ],
)
def test_own_activations_are_the_known_functions(
    module: nn.Module, theirs: Callable[[Tensor], Tensor]
) -> None:
    """Values and gradients, against torch's own in double precision."""
    x = torch.cat([torch.linspace(-30, 30, 4001), torch.tensor([0.0, -0.0, 1e-6, -1e-6])])
    x = x.requires_grad_()
    exact = x.detach().double().requires_grad_()
    y, expected = module(x), theirs(exact)
    # The forms round near 1, so that what is multiplied by x is off by up to 6e-8.
    room = 1.2e-7 * torch.cat([x, x] if y.numel() > x.numel() else [x]).abs().clamp(min=1)
    assert ((y - expected).abs() <= room).all()
    weight = torch.linspace(0.5, 1.5, y.numel()).view_as(y)
    (gradient,) = torch.autograd.grad((y * weight).sum(), x)
    (expected_gradient,) = torch.autograd.grad((expected * weight.double()).sum(), exact)
    assert ((gradient - expected_gradient).abs() <= 3e-7 * x.abs().clamp(min=1)).all()


@pytest.mark.parametrize("module", [Sigmoid(), Swish(), ELU()])
def test_own_activations_stay_finite_far_out(module: nn.Module) -> None:
    x = torch.tensor([-1e30, -1e4, -100.0, 100.0, 1e4, 1e30], requires_grad=True)
    y = module(x)
    (gradient,) = torch.autograd.grad(y.sum(), x)
    assert y.isfinite().all() and gradient.isfinite().all()
    if isinstance(module, Sigmoid):
        assert y.tolist() == [0, 0, 0, 1, 1, 1]
    else:
        torch.testing.assert_close(y[3:], x[3:].detach(), rtol=1e-6, atol=0)


# Structure


@pytest.mark.parametrize("layer_norm", [False, True])
@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("widths", [(), (1,), (5,), (7, 4), (6, 3, 8)])
def test_the_output_is_linear_norm_activation_in_turn(
    widths: tuple[int, ...], activation: str, layer_norm: bool
) -> None:
    network = mlp(widths, activation, layer_norm=layer_norm, inputs=3, outputs=2)
    p = dict(network.named_parameters())
    generator = seeded(1)
    with torch.no_grad():  # away from the identity, so that LayerNorm's numbers matter
        for value in network.norms.parameters():
            value.add_(torch.empty_like(value).uniform_(-0.5, 0.5, generator=generator))
    x = h = torch.empty(4, 3).normal_(generator=generator)
    for i, width in enumerate(widths):
        h = h @ p[f"linears.{i}.weight"].T + p[f"linears.{i}.bias"]
        if layer_norm:
            h = F.layer_norm(h, (width,), p[f"norms.{i}.weight"], p[f"norms.{i}.bias"])
        h = ACTIVATIONS[activation](h)
    last = len(widths)
    expected = h @ p[f"linears.{last}.weight"].T + p[f"linears.{last}.bias"]
    torch.testing.assert_close(network(x), expected, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(network(x[0]), expected[0], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("layer_norm", [False, True])
@pytest.mark.parametrize("activation", ["relu", "tanh", "crelu"])
@pytest.mark.parametrize("widths", [(), (1,), (5,), (7, 4), (6, 3, 8)])
def test_hidden_layers_are_declared_as_they_are(
    widths: tuple[int, ...], activation: str, layer_norm: bool
) -> None:
    """What a declared activation puts out is what the declared outgoing map takes in."""
    network = mlp(widths, activation, layer_norm=layer_norm, inputs=3, outputs=2)
    layers = network.hidden_layers
    assert [layer.name for layer in layers] == [f"layer_{i + 1}" for i in range(len(widths))]
    ins: dict[str, Tensor] = {}
    outs: dict[str, Tensor] = {}
    for path, module in network.named_modules():

        def keep(_: nn.Module, x: tuple[Tensor], y: Tensor, path: str = path) -> None:
            ins[path], outs[path] = x[0], y

        module.register_forward_hook(keep)
    network(torch.ones(4, 3))
    copies = 2 if activation == "crelu" else 1
    for layer, width in zip(layers, widths, strict=True):
        assert layer.copies == copies
        assert layer.function == activation
        assert bool(layer.norm) == layer_norm
        assert outs[layer.incoming].shape == (4, width)
        before = outs[layer.norm] if layer.norm else outs[layer.incoming]
        if layer.norm:
            assert ins[layer.norm] is outs[layer.incoming]
        assert ins[layer.activation] is before
        assert ins[layer.outgoing] is outs[layer.activation]
        assert outs[layer.activation].shape == (4, copies * width)
        assert network.get_parameter(f"{layer.incoming}.weight").shape[0] == width
        assert network.get_parameter(f"{layer.outgoing}.weight").shape[1] == copies * width


def test_copies_of_a_crelu_unit_lie_a_layer_apart() -> None:
    """Feature ``c * units + i`` is copy c of unit i."""
    network = mlp((3,), "crelu", inputs=3, outputs=1)
    with torch.no_grad():
        network.linears[0].weight.copy_(torch.eye(3))
        network.linears[0].bias.zero_()
    features = network.activations[0](network.linears[0](torch.tensor([1.0, -2.0, 3.0])))
    assert features.tolist() == [1, 0, 3, 0, 2, 0]
