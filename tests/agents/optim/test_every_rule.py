"""What every update rule promises, one table for all of them."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from clrl.agents.networks import MLP
from clrl.agents.optim.adaupgd import AdaUPGD
from clrl.agents.optim.base import compose
from clrl.agents.optim.continual_backprop import ContinualBackprop
from clrl.agents.optim.rule import UpdateRule, make_base, mixes_members
from clrl.agents.optim.shrink_perturb import ShrinkAndPerturb
from clrl.agents.optim.table import ADDONS, OPTIMIZERS
from clrl.agents.optim.upgd import UPGD
from clrl.agents.options import MLPOptions
from clrl.agents.population import Population
from clrl.agents.supervised import regression_loss


def sgd(*addons: tuple[Any, dict[str, Any]], **options: Any) -> UpdateRule:
    return UpdateRule(torch.optim.SGD, {"lr": 0.05, **options}, addons)


def adam(*addons: tuple[Any, dict[str, Any]], **options: Any) -> UpdateRule:
    return UpdateRule(torch.optim.Adam, {"lr": 0.01, **options}, addons)


def upgd(**options: Any) -> UpdateRule:
    settings = {"lr": 0.1, "sigma": 0.01, "beta_utility": 0.9, "weight_decay": 1e-3}
    return UpdateRule(UPGD, {**settings, **options})


def adaupgd(**options: Any) -> UpdateRule:
    settings = {"lr": 0.01, "sigma": 0.01, "beta_utility": 0.9, "utility_max": "corrected"}
    return UpdateRule(AdaUPGD, {**settings, **options})


def sp(**options: Any) -> tuple[Any, dict[str, Any]]:
    return ShrinkAndPerturb, options


def cbp(**options: Any) -> tuple[Any, dict[str, Any]]:
    """Many replacements for its 7 + 5 units: one in five steps or so."""
    return ContinualBackprop, {"replacement_rate": 0.02, "maturity_threshold": 2, **options}


RULES = {
    "sgd": sgd(),
    "sgd, L2": sgd(weight_decay=0.01),
    "sgd, momentum": sgd(lr=0.01, momentum=0.9),
    "adam": adam(),
    "adam, L2": adam(weight_decay=0.01, betas=(0.99, 0.99)),
    "adamw": UpdateRule(torch.optim.AdamW, {"lr": 0.01, "weight_decay": 0.1}),
    "upgd": upgd(),
    "upgd, noise gated": upgd(gate="noise", lr=0.05),
    "upgd, no gate": upgd(gate="none", lr=0.05),
    "upgd, raw": upgd(utility_max="raw"),
    "upgd, factor 2": upgd(lr=0.05, lr_factor=2.0),
    "upgd, no noise": upgd(sigma=0.0),
    "adaupgd": adaupgd(),
    "adaupgd, noise gated": adaupgd(gate="noise", lr_factor=1.0),
    "adaupgd, no gate": adaupgd(gate="none", lr_factor=1.0),
    "adaupgd, raw": adaupgd(utility_max="raw"),
    "adaupgd, no noise": adaupgd(sigma=0.0, betas=(0.99, 0.99)),
    "s&p, dohare": sgd(sp(noise_scale=1e-3), weight_decay=0.01),
    "s&p, elsayed": sgd(sp(noise_scale=0.01, scale_by_lr=True), weight_decay=0.01),
    "s&p, ash": sgd(sp(noise_scale=0.01, shrink=0.95, every=10)),
    "s&p, soft": sgd(sp(noise_scale=1e-3, noise="initializer", shrink=0.999)),
    "adam s&p": adam(sp(noise_scale=1e-3)),
    "cbp": sgd(cbp()),
    "cbp, contribution, sum": sgd(cbp(utility="contribution", outgoing="sum")),
    "cbp, probabilistic": sgd(cbp(replacement="probabilistic")),
    "cbp, no transfer": sgd(cbp(transfer_bias=False)),
    "adam cbp": adam(cbp()),
    "adamw cbp": UpdateRule(torch.optim.AdamW, {"lr": 0.01, "weight_decay": 0.1}, [cbp()]),
    "adam cbp, L2": adam(cbp(), weight_decay=0.01),
    "adam cbp, no reset": adam(cbp(reset_optimizer=False)),
    "upgd cbp s&p": UpdateRule(upgd().base, upgd().options, [cbp(), sp(noise_scale=1e-3)]),
    "adaupgd cbp": UpdateRule(adaupgd().base, adaupgd().options, [cbp()]),
}
NO_NOISE = [
    *(name for name in RULES if name.startswith(("sgd", "adam", "cbp")) and "s&p" not in name),
    "adamw",
    "upgd, no noise",
    "adaupgd, no noise",
    "s&p, soft",  # draws the initialiser, parameter by parameter
]
NO_NOISE.remove("cbp, probabilistic")
every_rule = pytest.mark.parametrize("name", RULES)


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def mlp(seed: int, **options: Any) -> MLP:
    settings = {"widths": (7, 5), "activation": "tanh", "init": "kaiming", **options}
    return MLP(4, 2, MLPOptions(**settings), seeded(seed))


def examples(seeds: Iterable[int], updates: int, salt: int = 0) -> tuple[Tensor, Tensor]:
    """Each seed's own linear problem: [seeds, updates, 16, 4] and [..., 2]."""
    xs, ys = [], []
    for seed in seeds:
        truth = torch.empty(4, 2).normal_(generator=seeded(777 + seed)) / 2
        x = torch.empty(updates, 16, 4).normal_(generator=seeded(5000 + 100 * seed + salt))
        xs.append(x)
        ys.append(x @ truth)
    return torch.stack(xs), torch.stack(ys)


class Plain:
    """One ordinary module, its rule as an ordinary optimizer."""

    def __init__(self, name: str, seed: int, noise_seed: int) -> None:
        rule = RULES[name]
        self.generator = seeded(noise_seed)
        self.network = mlp(seed)
        self.optimizer = make_base(rule, list(self.network.parameters()), [self.generator])
        if rule.addons:
            makers: list[Callable[[Any], Any]] = [
                lambda members, make=make, options=options: make(members, **options)
                for make, options in rule.addons
            ]
            self.optimizer = compose(self.network, self.optimizer, makers, self.generator)

    def learn(self, x: Tensor, y: Tensor) -> Tensor:
        losses = []
        for inputs, target in zip(x, y, strict=True):
            loss = nn.functional.mse_loss(self.network(inputs), target)
            self.optimizer.zero_grad()
            loss.backward()
            self.optimizer.step()
            losses.append(loss.detach())
        return torch.stack(losses)

    def values(self) -> list[Tensor]:
        return [p.detach().clone() for p in self.network.parameters()]

    def state_dict(self) -> dict[str, Any]:
        return {
            "network": self.network.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "generator": self.generator.get_state(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.network.load_state_dict(state["network"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.generator.set_state(state["generator"])


def population(name: str, seeds: Iterable[int], chunk_size: int | None = None) -> Population:
    seeds = list(seeds)
    generators = [seeded(1000 + seed) for seed in seeds]
    networks = [mlp(seed) for seed in seeds]
    return Population(networks, regression_loss, RULES[name], generators, chunk_size)


def reload(state: dict[str, Any]) -> dict[str, Any]:
    file = io.BytesIO()
    torch.save(state, file)
    file.seek(0)
    return torch.load(file, weights_only=True)  # type: ignore[no-any-return]


def test_the_table_covers_every_built_in_rule() -> None:
    tested = {rule.base for rule in RULES.values()}
    tested |= {addon for rule in RULES.values() for addon, _ in rule.addons}
    for entry in (*OPTIMIZERS, *ADDONS):
        assert entry.source != "built in" or entry.load() in tested


@every_rule
def test_changes_every_parameter(name: str) -> None:
    plain, members = Plain(name, 0, 1), population(name, [0])
    before = plain.values()
    old = {key: value.clone() for key, value in members.parameters().items()}
    x, y = examples([0], 3)
    plain.learn(x[0], y[0])
    members.learn(x, y)
    for one, two in zip(before, plain.values(), strict=True):
        assert (one != two).all()
    for key, value in members.parameters().items():
        assert (value != old[key]).all()


@every_rule
def test_lowers_a_regression_loss(name: str) -> None:
    x, y = examples([0], 250)
    on_plain = Plain(name, 0, 1).learn(x[0], y[0])
    in_population = population(name, [0]).learn(x, y)["loss"]
    for losses in (on_plain, *in_population):
        assert losses[-20:].mean() < 0.35 * losses[:5].mean()


@pytest.mark.parametrize("name", [name for name in RULES if not RULES[name].addons])
def test_lowers_a_quadratic(name: str) -> None:
    """f(w) = sum_i c_i (w_i - t_i)^2 / 2, c from 0.1 to 1.

    Not around 0: there every utility -g w is negative, and the formula, which divides by the
    largest of them, protects the weights of least utility most.
    """
    rule = RULES[name]
    weight = nn.Parameter(torch.linspace(-1, 1, 20))
    optimizer = rule.base([weight], **rule.options)
    curvature, target = torch.linspace(0.1, 1, 20), torch.tensor([2.0, -1.0]).repeat(10)
    values = []
    for _ in range(300):
        value = (curvature * (weight - target).square()).sum() / 2
        optimizer.zero_grad()
        value.backward()
        optimizer.step()
        values.append(float(value.detach()))
    assert values[-1] < 0.2 * values[0]


@every_rule
def test_a_plain_rules_state_round_trips_to_identical_steps(name: str) -> None:
    one, two = Plain(name, 0, 1), Plain(name, 5, 6)
    x, y = examples([0], 12)
    one.learn(x[0, :7], y[0, :7])
    two.load_state_dict(reload(one.state_dict()))
    losses = one.learn(x[0, 7:], y[0, 7:]), two.learn(x[0, 7:], y[0, 7:])
    assert torch.equal(*losses)
    for a, b in zip(one.values(), two.values(), strict=True):
        assert torch.equal(a, b)


@every_rule
def test_a_stacked_rules_state_round_trips_to_identical_steps(name: str) -> None:
    one, two = population(name, [0]), population(name, [5])
    x, y = examples([0], 12)
    one.learn(x[:, :7], y[:, :7])
    two.load_state_dict(reload(one.state_dict()))
    one.learn(x[:, 7:], y[:, 7:])
    two.learn(x[:, 7:], y[:, 7:])
    assert torch.equal(one.rows, two.rows)


def assert_stacked_is_separate(
    name: str, alone: Iterable[int], chunk_sizes: tuple[int, ...]
) -> None:
    seeds = range(max(alone) + 1)
    x, y = examples(seeds, 12)
    expected = {}
    for seed in alone:
        lone = population(name, [seed])
        loss = lone.learn(x[seed : seed + 1], y[seed : seed + 1])["loss"]
        expected[seed] = lone.rows[0], loss[0]
    for chunk_size in chunk_sizes:
        together = population(name, seeds, chunk_size)
        losses = together.learn(x, y)["loss"]
        for seed, (rows, loss) in expected.items():
            assert torch.equal(together.rows[seed], rows), (chunk_size, seed)
            assert torch.equal(losses[seed], loss), (chunk_size, seed)


@every_rule
def test_stacked_steps_are_separate_steps_to_the_bit(name: str) -> None:
    assert not mixes_members(RULES[name])
    assert_stacked_is_separate(name, alone=[1], chunk_sizes=(2,))


@pytest.mark.slow
@every_rule
def test_stacked_steps_are_separate_steps_in_every_division(name: str) -> None:
    assert_stacked_is_separate(name, range(5), (1, 2, 3, 5))


@pytest.mark.parametrize("name", NO_NOISE)
def test_a_population_of_one_is_the_plain_module(name: str) -> None:
    x, y = examples([0], 30)
    plain, members = Plain(name, 0, 1000), population(name, [0])
    losses = plain.learn(x[0], y[0])
    torch.testing.assert_close(members.learn(x, y)["loss"][0], losses, rtol=1e-4, atol=1e-6)
    for key, value in plain.network.named_parameters():
        got = members.parameters()[key][0]
        torch.testing.assert_close(got, value.detach(), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", [n for n in RULES if n not in NO_NOISE or RULES[n].addons])
def test_members_alike_but_for_their_generator_come_apart(name: str) -> None:
    generators = [seeded(1), seeded(2)]
    members = Population([mlp(0), mlp(0)], regression_loss, RULES[name], generators, 1)
    x, y = examples([0], 12)
    members.learn(x.expand(2, *x.shape[1:]), y.expand(2, *y.shape[1:]))
    assert (members.rows[0] != members.rows[1]).any()


@pytest.mark.parametrize("name", ["adam", "upgd, no noise", "adam cbp", "s&p, elsayed"])
def test_learning_rate_schedules_reach_the_base(name: str) -> None:
    """Without a step size nothing moves but what an add-on moves."""
    plain = Plain(name, 0, 1)
    schedule = torch.optim.lr_scheduler.LambdaLR(plain.optimizer, lambda step: float(step == 0))
    x, y = examples([0], 2)
    plain.learn(x[0, :1], y[0, :1])
    schedule.step()
    before = plain.values()
    plain.learn(x[0, 1:], y[0, 1:])
    for one, two in zip(before, plain.values(), strict=True):
        assert torch.equal(one, two)
