"""The population engine: right gradients, and members that know nothing of each other."""

from __future__ import annotations

import io
from collections.abc import Iterable, Sequence
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from clrl.agents.calling import Forward
from clrl.agents.networks import MLP, HiddenLayer, Network
from clrl.agents.optim.continual_backprop import ContinualBackprop
from clrl.agents.optim.rule import UpdateRule, mixes_members
from clrl.agents.optim.shrink_perturb import ShrinkAndPerturb
from clrl.agents.optim.upgd import UPGD
from clrl.agents.options import MLPOptions
from clrl.agents.population import Population
from clrl.agents.supervised import classification_loss, regression_loss

SGD = UpdateRule(torch.optim.SGD, {"lr": 0.05})
ACTIVATIONS = ["relu", "leaky-relu", "tanh", "crelu", "sigmoid", "elu", "swish"]
LOSSES = {"classification": classification_loss, "regression": regression_loss}


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def mlp(seed: int, inputs: int, outputs: int, **options: Any) -> MLP:
    return MLP(inputs, outputs, MLPOptions(**options), seeded(seed))


def population(
    seeds: Iterable[int],
    rule: UpdateRule = SGD,
    chunk_size: int | None = None,
    kind: str = "regression",
    inputs: int = 4,
    outputs: int = 3,
    **options: Any,
) -> Population:
    seeds = list(seeds)
    options = {"widths": (6, 5), "activation": "tanh", **options}
    return Population(
        [mlp(seed, inputs, outputs, **options) for seed in seeds],
        LOSSES[kind],
        rule,
        [seeded(1000 + seed) for seed in seeds],
        chunk_size,
    )


def examples(
    seeds: Iterable[int],
    kind: str = "regression",
    updates: int = 4,
    batch: int = 2,
    inputs: int = 4,
    outputs: int = 3,
    salt: int = 0,
) -> tuple[Tensor, Tensor]:
    """Every member's own data, decided by its seed alone."""
    xs, ys = [], []
    for seed in seeds:
        generator = seeded(10_000 + 100 * seed + salt)
        xs.append(torch.empty(updates, batch, inputs).normal_(generator=generator))
        if kind == "classification":
            ys.append(torch.randint(outputs, (updates, batch), generator=generator))
        else:
            ys.append(torch.empty(updates, batch, outputs).normal_(generator=generator))
    return torch.stack(xs), torch.stack(ys)


def used(members: Population) -> Tensor:
    """The parameters without the padding, [members, numbers]."""
    return torch.cat([value.flatten(1) for value in members.parameters().values()], dim=1)


# Gradients and steps are those of plain PyTorch


def plain(
    seed: int, kind: str, x: Tensor, y: Tensor, lr: float, **options: Any
) -> tuple[nn.Module, list[float], list[float]]:
    """A loop over one ordinary module: the module, losses and accuracies before each step."""
    options = {"widths": (6, 5), "activation": "tanh", **options}
    network = mlp(seed, x.shape[-1], 3, **options)
    optimizer = torch.optim.SGD(network.parameters(), lr)
    losses, accuracies = [], []
    for inputs, target in zip(x, y, strict=True):
        out = network(inputs)
        if kind == "classification":
            loss = nn.functional.cross_entropy(out, target)
            accuracies.append(float((out.argmax(1) == target).float().mean()))
        else:
            loss = nn.functional.mse_loss(out, target)
        losses.append(loss.item())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return network, losses, accuracies


@pytest.mark.parametrize("kind", LOSSES)
@pytest.mark.parametrize(
    "case",
    [
        {"widths": ()},
        {"widths": (1,), "activation": "sigmoid"},
        {"widths": (5,), "activation": "relu", "batch": 1},
        {"widths": (7, 4), "activation": "crelu", "batch": 7},
        {"widths": (7, 4), "activation": "elu", "layer_norm": True, "batch": 1},
        {"widths": (6, 3, 8), "activation": "swish", "batch": 32},
        {"widths": (6, 3), "activation": "leaky-relu", "layer_norm": True, "batch": 7},
        {"widths": (16, 16), "activation": "tanh", "batch": 32},
    ],
)
def test_training_is_that_of_separate_modules(kind: str, case: dict[str, Any]) -> None:
    options = {key: value for key, value in case.items() if key != "batch"}
    x, y = examples(range(3), kind, updates=3, batch=case.get("batch", 2))
    members = population(range(3), SGD, 3, kind, **options)
    results = members.learn(x, y)
    assert set(results) == ({"loss", "accuracy"} if kind == "classification" else {"loss"})
    for seed in range(3):
        network, losses, accuracies = plain(seed, kind, x[seed], y[seed], 0.05, **options)
        assert results["loss"][seed].tolist() == pytest.approx(losses, rel=1e-5)
        if accuracies:
            assert results["accuracy"][seed].tolist() == pytest.approx(accuracies, abs=1e-6)
        for name, value in network.named_parameters():
            torch.testing.assert_close(
                members.parameters()[name][seed], value.detach(), rtol=1e-5, atol=1e-6
            )
            assert value.grad is not None  # of the last batch, before its step
            torch.testing.assert_close(
                members.gradient_views()[name][seed], value.grad, rtol=1e-5, atol=1e-6
            )


def test_one_call_or_many_are_the_same() -> None:
    x, y = examples(range(3), updates=6)
    whole, cut = population(range(3), chunk_size=2), population(range(3), chunk_size=2)
    losses = whole.learn(x, y)["loss"]
    parts = [cut.learn(x[:, a:b], y[:, a:b])["loss"] for a, b in ((0, 1), (1, 2), (2, 6))]
    assert torch.equal(torch.cat(parts, dim=1), losses)
    assert torch.equal(whole.rows, cut.rows)


def test_another_batch_size_is_recorded_anew() -> None:
    members = population([0, 1], chunk_size=2)
    network = mlp(0, 4, 3, widths=(6, 5), activation="tanh")
    optimizer = torch.optim.SGD(network.parameters(), 0.05)
    for batch in (2, 5, 1, 2):
        x, y = examples([0, 1], updates=1, batch=batch, salt=batch)
        members.learn(x, y)
        optimizer.zero_grad()
        nn.functional.mse_loss(network(x[0, 0]), y[0, 0]).backward()
        optimizer.step()
        for name, value in network.named_parameters():
            torch.testing.assert_close(members.parameters()[name][0], value.detach())


def test_named_tensors_are_those_before_the_update() -> None:
    """Also where one is a parameter itself, which the update then edits in place."""

    class Level(Network):
        def __init__(self) -> None:
            super().__init__()
            self.level = nn.Parameter(torch.ones(1))

        def forward(self, x: Tensor) -> Tensor:
            return self.level

    def loss(forward: Forward, x: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        level = forward(x)
        return (level * x).sum(), {"level": level, "twice": 2 * level, "input": x}

    members = Population(
        [Level(), Level()], loss, UpdateRule(torch.optim.SGD, {"lr": 0.25}), [seeded(0), seeded(1)]
    )
    results = members.learn(torch.ones(2, 3, 1))
    assert results["twice"][0].flatten().tolist() == [2.0, 1.5, 1.0]
    assert results["level"][0].flatten().tolist() == [1.0, 0.75, 0.5]
    assert results["input"].unique().tolist() == [1.0]


def test_networks_are_copied_and_not_changed() -> None:
    networks = [mlp(seed, 4, 3, widths=(5,)) for seed in range(2)]
    before = [[p.detach().clone() for p in network.parameters()] for network in networks]
    generators = [seeded(0), seeded(1)]
    members = Population(networks, regression_loss, SGD, generators, chunk_size=2)
    members.learn(*examples(range(2)))
    for network, old in zip(networks, before, strict=True):
        for parameter, value in zip(network.parameters(), old, strict=True):
            assert torch.equal(parameter, value) and parameter.grad is None


def test_torchs_global_generator_is_left_alone() -> None:
    cbp = (ContinualBackprop, {"replacement_rate": 0.5, "maturity_threshold": 0})
    noise = (ShrinkAndPerturb, {"noise_scale": 0.1})
    state = torch.get_rng_state()
    members = population(range(2), UpdateRule(UPGD, {}, [cbp, noise]))
    members.learn(*examples(range(2)))
    assert torch.equal(torch.get_rng_state(), state)


# Members do not depend on their siblings, to the last bit

RULES = {
    "sgd": SGD,
    "upgd + shrink-and-perturb + continual-backprop": UpdateRule(
        UPGD,
        {"lr": 0.01, "sigma": 0.1, "beta_utility": 0.9},
        [
            (ShrinkAndPerturb, {"noise_scale": 0.01}),
            (ContinualBackprop, {"replacement_rate": 0.3, "maturity_threshold": 1}),
        ],
    ),
}


def outcome(members: Population, x: Tensor, y: Tensor, kind: str) -> list[Tensor]:
    results = members.learn(x, y)
    loss = members.compiled(lambda *batch: LOSSES[kind](*batch)[0])
    after = loss(x[:, -1], y[:, -1])
    return [members.rows, *results.values(), after]


def assert_independent(
    case: dict[str, Any], divisions: Sequence[tuple[int, int]], rule: UpdateRule = SGD
) -> None:
    """A member's results in populations and chunks of several sizes, and a member at a time."""
    sizes = {key: case[key] for key in ("kind", "inputs", "outputs") if key in case}
    kind = case.get("kind", "regression")
    options = {key: case[key] for key in ("widths", "activation", "layer_norm") if key in case}
    most = max(count for count, _ in divisions)
    data = {"updates": 3, "batch": case.get("batch", 2), **sizes}
    x, y = examples(range(most), **data)
    apart = outcome(population(range(most), rule, 1, **sizes, **options), x, y, kind)
    for count, chunk_size in divisions:
        members = population(range(count), rule, chunk_size, **sizes, **options)
        for got, expected in zip(outcome(members, x[:count], y[:count], kind), apart, strict=True):
            assert torch.equal(got, expected[:count]), (count, chunk_size)


@pytest.mark.parametrize(
    ("activation", "layer_norm"),
    [*((activation, False) for activation in ACTIVATIONS), ("relu", True), ("crelu", True)],
)
def test_every_activation(activation: str, layer_norm: bool) -> None:
    case = {"widths": (7, 5), "activation": activation, "layer_norm": layer_norm}
    kind = "classification" if layer_norm else "regression"
    assert_independent({**case, "kind": kind, "inputs": 9, "batch": 3}, [(3, 3)])


@pytest.mark.parametrize("rule", RULES.values(), ids=RULES)
def test_every_division(rule: UpdateRule) -> None:
    divisions = [(1, 1), (2, 2), (3, 5), (5, 2), (8, 5)]
    assert_independent({"widths": (5,)}, divisions, rule)


@pytest.mark.parametrize("batch", [1, 32])
@pytest.mark.parametrize(
    ("inputs", "widths", "outputs", "activation", "kind"),
    [
        (20, (5,), 1, "relu", "regression"),
        (33, (), 3, "relu", "classification"),
        (13, (64, 64), 4, "tanh", "regression"),
    ],
)
def test_sizes(
    inputs: int, widths: tuple[int, ...], outputs: int, activation: str, kind: str, batch: int
) -> None:
    case = {"inputs": inputs, "widths": widths, "outputs": outputs, "activation": activation}
    assert_independent({**case, "kind": kind, "batch": batch}, [(3, 3)])


@pytest.mark.parametrize("batch", [1, 7])
def test_the_digit_network(batch: int) -> None:
    case = {"inputs": 784, "widths": (300, 150), "outputs": 10, "activation": "relu"}
    assert_independent({**case, "kind": "classification", "batch": batch}, [(3, 3)], SGD)


def test_the_measured_chunk_size_changes_nothing() -> None:
    x, y = examples(range(5))
    measured, one = population(range(5)), population(range(5), chunk_size=1)
    for got, expected in zip(
        outcome(measured, x, y, "regression"), outcome(one, x, y, "regression"), strict=True
    ):
        assert torch.equal(got, expected)


@pytest.mark.slow
@pytest.mark.parametrize("layer_norm", [False, True])
@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("batch", [1, 2, 7, 32])
@pytest.mark.parametrize("kind", LOSSES)
@pytest.mark.parametrize(("inputs", "widths"), [(20, (5,)), (33, (17, 9)), (64, (64, 64))])
def test_a_sweep_of_shapes(
    inputs: int, widths: tuple[int, ...], kind: str, batch: int, activation: str, layer_norm: bool
) -> None:
    case = {"widths": widths, "activation": activation, "layer_norm": layer_norm}
    assert_independent({**case, "inputs": inputs, "kind": kind, "batch": batch}, [(5, 3), (8, 8)])


class Silu(Network):
    """A user's network: torch's SiLU rounds an array's last elements differently."""

    def __init__(self, seed: int) -> None:
        super().__init__()
        self.first, self.act, self.last = nn.Linear(3, 7), nn.SiLU(), nn.Linear(7, 2)
        self.hidden_layers = (HiddenLayer("layer_1", "first", "act", "last"),)
        self.initialise(seeded(seed))

    def fresh(self, name: str, generator: torch.Generator) -> Tensor:
        return torch.empty(self.get_parameter(name).shape).normal_(generator=generator)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.act(self.first(x)))  # type: ignore[no-any-return]


def silu(seeds: Sequence[int], chunk_size: int | None) -> Population:
    networks = [Silu(seed) for seed in seeds]
    return Population(networks, regression_loss, SGD, [seeded(seed) for seed in seeds], chunk_size)


@pytest.mark.parametrize("chunk_size", [None, 2, 5])
def test_a_users_network_with_an_uneven_kernel(chunk_size: int | None) -> None:
    # Long enough that the uneven rounding shows; in the first update alone it does not.
    x, y = examples(range(5), updates=20, batch=3, inputs=3, outputs=2)
    together = silu(range(5), chunk_size)
    results = outcome(together, x, y, "regression")
    for seed in range(5):
        own = slice(seed, seed + 1)
        alone = outcome(silu([seed], None), x[own], y[own], "regression")
        for got, expected in zip(results, alone, strict=True):
            assert torch.equal(got[seed], expected[0])


# Divergence


def diverge(
    seeds: Sequence[int], x: Tensor, y: Tensor, rule: UpdateRule, chunk_size: int
) -> tuple[Population, Tensor, list[Tensor]]:
    """Five blocks: parameters safe at 1, trouble in 3. Returns also losses and who is frozen."""
    members = population(seeds, rule, chunk_size)
    losses, safe, new = [], torch.empty(0), []
    for block in range(5):
        part = slice(4 * block, 4 * block + 4)
        losses.append(members.learn(x[:, part], y[:, part])["loss"])
        members.freeze_diverged(losses[-1])
        new.append(members.frozen.clone())
        if block == 1:
            members.mark_safe()
            safe = members.rows.clone()
    return members, safe, [torch.cat(losses, dim=1), torch.stack(new)]


@pytest.mark.parametrize("rule", RULES.values(), ids=RULES)
@pytest.mark.parametrize(("value", "chunk_size"), [(torch.nan, 4), (torch.inf, 2), (3e38, 4)])
def test_a_diverging_member_is_frozen_and_its_siblings_go_on(
    value: float, rule: UpdateRule, chunk_size: int
) -> None:
    seeds = list(range(4))
    x, y = examples(seeds, updates=20)
    y[1, 13, 0, 0] = value  # in block 3, of member 1 alone
    members, safe, (losses, new) = diverge(seeds, x, y, rule, chunk_size)
    assert members.frozen.tolist() == [False, True, False, False]
    assert new.tolist() == [[False] * 4] * 3 + [[False, True, False, False]] * 2
    assert torch.equal(members.rows[1], safe[1])
    assert not losses[1, 12:16].isfinite().all()
    assert losses[1, 16:].isfinite().all()  # of the frozen parameters
    others = [0, 2, 3]
    without, _, (other_losses, _) = diverge(others, x[others], y[others], rule, chunk_size)
    assert not without.frozen.any()
    assert torch.equal(members.rows[others], without.rows)
    assert torch.equal(losses[others], other_losses)


def test_a_member_that_never_was_safe_falls_back_to_its_start() -> None:
    x, y = examples(range(2))
    y[0] = torch.nan
    members = population(range(2))
    start = members.rows.clone()
    members.freeze_diverged(members.learn(x, y)["loss"])
    assert members.frozen.tolist() == [True, False]
    assert torch.equal(members.rows[0], start[0])
    assert not torch.equal(members.rows[1], start[1])


def test_what_happens_in_the_padding_is_of_no_account() -> None:
    """Adam without eps makes 0/0 of a padding's gradient."""
    rule = UpdateRule(torch.optim.Adam, {"lr": 0.01, "eps": 0.0})
    members = population(range(2), rule)
    x, y = examples(range(2))
    losses = members.learn(x, y)["loss"]
    members.freeze_diverged(losses)
    members.mark_safe()
    assert members.rows.isnan().any()
    assert not members.frozen.any()


@pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf])
def test_parameters_that_are_not_finite_are_not_safe(value: float) -> None:
    """However fine the losses were: the member is frozen, and goes back."""
    members = population(range(3))
    x, y = examples(range(3))
    members.learn(x, y)
    members.mark_safe()
    safe = members.rows.clone()
    losses = members.learn(x, y)["loss"]
    members.parameters()["linears.1.bias"][2, 0] = value
    members.freeze_diverged(losses)
    members.mark_safe()
    assert members.frozen.tolist() == [False, False, True]
    assert torch.equal(members.rows[2], safe[2])
    assert (members.rows[:2] != safe[:2]).any()


def test_a_population_that_is_all_frozen_still_works() -> None:
    x, y = examples(range(2))
    members = population(range(2), chunk_size=2)
    members.learn(x, y)
    members.mark_safe()
    safe = members.rows.clone()
    members.freeze_diverged(members.learn(x, y * torch.nan)["loss"])
    assert members.frozen.all()
    losses = members.learn(x, y)["loss"]
    members.freeze_diverged(losses)
    members.mark_safe()
    assert torch.equal(members.rows, safe)
    assert losses.isfinite().all()


def test_frozen_members_keep_their_parameters_when_others_are_marked_safe() -> None:
    x, y = examples(range(2))
    members = population(range(2))
    start = members.rows.clone()
    bad = y.clone()
    bad[0] = torch.nan
    members.freeze_diverged(members.learn(x, bad)["loss"])
    members.mark_safe()
    members.learn(x, y)
    safe = members.safe_parameters["linears.0.weight"]
    assert torch.equal(members.rows[0], start[0])
    assert torch.equal(safe[0], mlp(0, 4, 3, widths=(6, 5)).linears[0].weight)
    assert not torch.equal(safe[1], mlp(1, 4, 3, widths=(6, 5)).linears[0].weight)


# Networks of other kinds


def test_a_parameter_that_is_not_used_gets_no_gradient_and_stays() -> None:
    class Spare(MLP):
        def __init__(self, seed: int) -> None:
            super().__init__(4, 3, MLPOptions(widths=(5,)), seeded(seed))
            self.spare = nn.Parameter(torch.full((3, 2), float(seed)))

    x, y = examples(range(3))
    for rule in (SGD, UpdateRule(torch.optim.Adam, {"lr": 0.1})):
        members = Population(
            [Spare(seed) for seed in range(3)], regression_loss, rule, list(map(seeded, range(3)))
        )
        members.learn(x, y)
        spare = members.parameters()["spare"]
        assert torch.equal(spare, torch.arange(3.0).view(3, 1, 1).expand(3, 3, 2))
        assert (members.gradient_views()["spare"] == 0).all()


def test_features_are_the_hidden_activations_of_one_member() -> None:
    members = population(range(3), widths=(6, 5), activation="relu")
    members.learn(*examples(range(3)))
    inputs = examples([9], batch=8)[0][0, 0]
    for member in range(3):
        p = {name: value[member] for name, value in members.parameters().items()}
        h1 = torch.relu(inputs @ p["linears.0.weight"].T + p["linears.0.bias"])
        h2 = torch.relu(h1 @ p["linears.1.weight"].T + p["linears.1.bias"])
        features = members.features(member, inputs)
        assert list(features) == ["layer_1", "layer_2"]
        torch.testing.assert_close(features["layer_1"], h1)
        torch.testing.assert_close(features["layer_2"], h2)
        assert not features["layer_1"].requires_grad
    assert not any(module._forward_hooks for module in members.network.modules())


# Plug-in optimizers


class SignSGD(torch.optim.Optimizer):
    """Elementwise: can be stacked."""

    def __init__(self, params: Any, lr: float = 0.01) -> None:
        super().__init__(params, {"lr": lr})

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:
        for group in self.param_groups:
            for p in group["params"]:
                p.sub_(group["lr"] * p.grad.sign())


class ClippedSGD(torch.optim.Optimizer):
    """Clips by the norm over all tensors, and so mixes whatever is stacked in them."""

    def __init__(self, params: Any, lr: float = 0.1, max_norm: float = 0.1) -> None:
        super().__init__(params, {"lr": lr, "max_norm": max_norm})

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:
        for group in self.param_groups:
            total = torch.stack([p.grad.square().sum() for p in group["params"]]).sum().sqrt()
            factor = (group["max_norm"] / total).clamp(max=1.0)
            for p in group["params"]:
                p.sub_(group["lr"] * factor * p.grad)


class NoisySGD(torch.optim.Optimizer):
    """Draws from torch's global generator."""

    def __init__(self, params: Any, lr: float = 0.1, sigma: float = 0.1) -> None:
        super().__init__(params, {"lr": lr, "sigma": sigma})

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:
        for group in self.param_groups:
            for p in group["params"]:
                p.sub_(group["lr"] * (p.grad + group["sigma"] * torch.randn_like(p)))


class GeneratorSGD(torch.optim.Optimizer):
    """Draws from a generator that it is given, as torch's functions take one."""

    def __init__(
        self, params: Any, lr: float = 0.1, generator: torch.Generator | None = None
    ) -> None:
        super().__init__(params, {"lr": lr})
        self.generator = generator

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:
        for group in self.param_groups:
            for p in group["params"]:
                noise = torch.randn(p.shape, generator=self.generator)
                p.sub_(group["lr"] * (p.grad + noise))


class MatrixNorm(torch.optim.Optimizer):
    """Cares about shapes: every matrix's rows move by the same length."""

    def __init__(self, params: Any, lr: float = 0.1) -> None:
        super().__init__(params, {"lr": lr})

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:
        for group in self.param_groups:
            for p in group["params"]:
                p.sub_(group["lr"] * p.grad / (p.grad.norm(dim=-1, keepdim=True) + 1e-8))


@pytest.mark.parametrize(
    ("rule", "mixes"),
    [
        (SGD, False),
        (UpdateRule(torch.optim.SGD, {"lr": 0.1, "momentum": 0.9, "weight_decay": 0.1}), False),
        (UpdateRule(torch.optim.Adam, {"lr": 0.1}), False),
        (UpdateRule(torch.optim.AdamW, {"lr": 1e-5}), False),
        (UpdateRule(torch.optim.RMSprop, {"lr": 0.01}), False),
        (UpdateRule(torch.optim.Rprop, {"lr": 0.01}), False),
        (UpdateRule(UPGD, {"lr": 0.01, "beta_utility": 0.9}), False),
        (UpdateRule(SignSGD), False),
        (UpdateRule(torch.optim.Adafactor, {"lr": 0.01}), True),
        (UpdateRule(ClippedSGD), True),
        (UpdateRule(ClippedSGD, {"lr": 1e-5}), True),
        (UpdateRule(ClippedSGD, {"lr": 1e-8}), True),
        (UpdateRule(ClippedSGD, {"lr": 0.01, "max_norm": 100.0}), True),
        (UpdateRule(NoisySGD), True),
        (UpdateRule(NoisySGD, {"lr": 1e-5, "sigma": 1e-3}), True),
        (UpdateRule(GeneratorSGD), True),
        (UpdateRule(MatrixNorm), True),
    ],
)
def test_rules_that_mix_members_are_found(rule: UpdateRule, mixes: bool) -> None:
    state = torch.get_rng_state()
    assert mixes_members(rule) == mixes
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("optimizer", [SignSGD, ClippedSGD, MatrixNorm])
@pytest.mark.parametrize("chunk_size", [None, 2])
def test_a_plug_in_trains_as_it_does_on_separate_modules(
    optimizer: type[torch.optim.Optimizer], chunk_size: int | None
) -> None:
    x, y = examples(range(3), updates=6)
    members = population(range(3), UpdateRule(optimizer, {"lr": 0.02}), chunk_size)
    assert members.apart == (optimizer is not SignSGD)
    members.learn(x, y)
    for seed in range(3):
        network = mlp(seed, 4, 3, widths=(6, 5), activation="tanh")
        own = optimizer(network.parameters(), lr=0.02)  # type: ignore[call-arg]
        for inputs, target in zip(x[seed], y[seed], strict=True):
            own.zero_grad()
            nn.functional.mse_loss(network(inputs), target).backward()
            own.step()
        for name, value in network.named_parameters():
            got = members.parameters()[name][seed]
            torch.testing.assert_close(got, value.detach(), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("optimizer", [ClippedSGD, NoisySGD, MatrixNorm])
def test_a_mixing_plug_in_under_add_ons_keeps_members_apart(
    optimizer: type[torch.optim.Optimizer],
) -> None:
    cbp = {"replacement_rate": 0.3, "maturity_threshold": 1}
    rule = UpdateRule(
        optimizer,
        {"lr": 0.02},
        [(ShrinkAndPerturb, {"noise_scale": 0.01}), (ContinualBackprop, cbp)],
    )
    assert_independent({"widths": (6, 5)}, [(3, 3), (5, 2)], rule)


def test_a_plug_in_that_takes_a_generator_is_given_its_members() -> None:
    x, y = examples(range(3), updates=5)
    together = population(range(3), UpdateRule(GeneratorSGD))
    together.learn(x, y)
    alone = population([2], UpdateRule(GeneratorSGD))
    alone.learn(x[2:], y[2:])
    assert torch.equal(alone.rows[0], together.rows[2])
    assert not torch.equal(together.rows[0], together.rows[1])


def test_noise_from_the_global_generator_is_a_members_own() -> None:
    x, y = examples(range(3), updates=5)
    rule = UpdateRule(NoisySGD, {"sigma": 1.0})
    torch.manual_seed(1)
    state = torch.get_rng_state()
    together = population(range(3), rule)
    together.learn(x, y)
    assert torch.equal(torch.get_rng_state(), state)
    torch.manual_seed(2)
    alone = population([2], rule)
    alone.learn(x[2:], y[2:])
    assert torch.equal(alone.rows[0], together.rows[2])
    same = population([0, 0], rule)  # two members alike but for their generators
    other = Population(
        [mlp(0, 4, 3, widths=(6, 5), activation="tanh")] * 2,
        regression_loss,
        rule,
        [seeded(1), seeded(2)],
    )
    for members in (same, other):
        members.learn(x[[0, 0]], y[[0, 0]])
    assert torch.equal(same.rows[0], same.rows[1])
    assert not torch.equal(other.rows[0], other.rows[1])


@pytest.mark.parametrize("max_norm", [1.0, 1e4])
def test_a_clipping_rule_does_not_pass_divergence_on(max_norm: float) -> None:
    """A threshold that ordinary gradients never reach is reached by a diverging member's."""
    x, y = examples(range(3), updates=6)
    rule = UpdateRule(ClippedSGD, {"lr": 0.05, "max_norm": max_norm})
    expected = population([0, 2], rule)
    expected.learn(x[[0, 2]], y[[0, 2]])
    y[1, 2] = 1e15
    members = population(range(3), rule)
    members.learn(x, y)
    assert torch.equal(members.rows[[0, 2]], expected.rows)


# State


STATES = {
    **RULES,
    "adam": UpdateRule(torch.optim.Adam, {"lr": 0.01}),
    "momentum": UpdateRule(torch.optim.SGD, {"lr": 0.01, "momentum": 0.9}),
    "apart": UpdateRule(ClippedSGD, {}, [(ShrinkAndPerturb, {"noise_scale": 0.1})]),
    "apart, noisy": UpdateRule(NoisySGD),
}


@pytest.mark.parametrize("rule", STATES.values(), ids=STATES)
@pytest.mark.parametrize("frozen", [False, True])
def test_state_round_trips_to_an_identical_future(rule: UpdateRule, frozen: bool) -> None:
    x, y = examples(range(3), updates=6)
    members = population(range(3), rule, 2)
    members.learn(x, y)
    members.mark_safe()
    if frozen:
        bad = y.clone()
        bad[1] = torch.nan
        members.freeze_diverged(members.learn(x, bad)["loss"])
    file = io.BytesIO()
    torch.save(members.state_dict(), file)
    file.seek(0)
    other = population(range(3, 6), rule)  # other parameters, other generators
    other.load_state_dict(torch.load(file, weights_only=True))
    assert other.frozen.tolist() == [False, frozen, False]
    for salt in (1, 2):
        x, y = examples(range(3), updates=3, salt=salt)
        one, two = members.learn(x, y), other.learn(x, y)
        assert torch.equal(one["loss"], two["loss"])
        members.mark_safe()
        other.mark_safe()
    assert torch.equal(members.rows, other.rows)
    bad = torch.full_like(y, torch.nan)  # and what they fall back to is the same
    for each in (members, other):
        each.freeze_diverged(each.learn(x, bad)["loss"])
    assert torch.equal(members.rows, other.rows)


def test_state_from_before_the_first_update() -> None:
    x, y = examples(range(3))
    members, other = population(range(3)), population(range(3, 6))
    other.load_state_dict(members.state_dict())
    assert torch.equal(members.learn(x, y)["loss"], other.learn(x, y)["loss"])
    assert torch.equal(members.rows, other.rows)


def test_a_loaded_population_does_not_share_memory_with_the_saved_one() -> None:
    x, y = examples(range(2))
    rule = UpdateRule(torch.optim.SGD, {"lr": 0.01, "momentum": 0.9})
    members, other = population(range(2), rule, 2), population(range(2), rule, 2)
    members.learn(x, y)
    other.load_state_dict(members.state_dict())
    members.learn(x, y)
    expected = members.rows.clone()
    other.learn(x, y)
    assert torch.equal(members.rows, expected)
    assert torch.equal(other.rows, expected)


@pytest.mark.parametrize("new", [[0, 1, 2], [1], [0, 2]], ids=str)
def test_members_made_new_are_as_if_alone(new: list[int]) -> None:
    """Whoever else is made new, and whoever of a chunk is not."""
    rule = UpdateRule(torch.optim.Adam, {"lr": 0.05}, [(ShrinkAndPerturb, {"noise_scale": 0.1})])

    def trained(seeds: list[int]) -> Tensor:
        members = population(seeds, rule)
        members.learn(*examples(seeds))
        members.restart(
            [place for place, seed in enumerate(seeds) if seed in new],
            lambda place: mlp(50 + seeds[place], 4, 3, widths=(6, 5), activation="tanh"),
            lambda place: 70 + seeds[place],
        )
        for salt in (1, 2):
            members.learn(*examples(seeds, salt=salt))
            members = resumed(members, population(seeds, rule))
        return used(members)

    together = trained([0, 1, 2])
    for seed in range(3):
        assert torch.equal(together[seed], trained([seed])[0])


def resumed(members: Population, other: Population) -> Population:
    other.load_state_dict(members.state_dict())
    return other
