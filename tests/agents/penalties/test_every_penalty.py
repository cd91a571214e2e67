"""Penalties on the loss: their gradients by hand, and members that know nothing of each other."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from clrl.agents.networks import MLP
from clrl.agents.optim.rule import UpdateRule
from clrl.agents.options import MLPOptions
from clrl.agents.penalties.base import Memory, Penalty, Sight
from clrl.agents.penalties.l2_init import L2Init
from clrl.agents.penalties.table import PENALTIES
from clrl.agents.population import Population
from clrl.agents.supervised import regression_loss
from clrl.testing import check_penalty


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def population(
    seeds: list[int], *penalties: Penalty, lr: float = 0.1, **options: float
) -> Population:
    made = [lambda network: L2Init(network, **options)] if options else list(penalties)
    return Population(
        [MLP(4, 3, MLPOptions(widths=(6, 5), layer_norm=True), seeded(seed)) for seed in seeds],
        regression_loss,
        UpdateRule(torch.optim.SGD, {"lr": lr}),
        [seeded(100 + seed) for seed in seeds],
        penalties=made,
    )


def examples(seeds: list[int], updates: int = 5) -> tuple[Tensor, Tensor]:
    draws = [seeded(1000 + seed) for seed in seeds]
    x = torch.stack([torch.randn(updates, 2, 4, generator=source) for source in draws])
    return x, torch.stack([torch.randn(updates, 2, 3, generator=source) for source in draws])


OPTIONS: dict[str, tuple[str, dict[str, Any]]] = {
    "l2-init": ("l2-init", {"strength": 0.3}),
    "l1-init": ("l2-init", {"strength": 0.1, "form": "l1"}),
    "huber-init": ("l2-init", {"strength": 0.3, "form": "huber"}),
    "l2-init, norm": ("l2-init", {"strength": 0.1, "form": "norm"}),
    "l2-init, resampled": ("l2-init", {"strength": 0.1, "resample": True}),
    "wasserstein-init": ("wasserstein-init", {"strength": 0.3}),
    "parseval": ("parseval", {"strength": 1e-4}),
    "parseval, diagonal": ("parseval", {"strength": 1e-4, "diagonal": True}),
    "parseval, groups": ("parseval", {"strength": 1e-4, "group": 3}),
    "spectral": ("spectral", {"strength": 0.01}),
    "infer": ("infer", {"strength": 0.03, "scale": 3.0}),
    "pfo": ("pfo", {"strength": 0.3}),
    "pfo, all layers": ("pfo", {"strength": 0.3, "layers": "all"}),
    "c-chain": ("c-chain", {"strength": 3.0}),
}
NOT_SMOOTH = {"spectral"}  # it holds singular vectors fixed
every_penalty = pytest.mark.parametrize("name", OPTIONS)


def test_the_table_covers_every_built_in_penalty() -> None:
    assert {entry.name for entry in PENALTIES if entry.source == "built in"} == {
        name for name, _ in OPTIONS.values()
    }


@every_penalty
def test_keeps_the_contract(name: str) -> None:
    penalty, options = OPTIONS[name]
    smooth = name not in NOT_SMOOTH
    neutral: dict[str, Any] = {"strength": 0.0}
    if "diagonal" in options:  # without a pull they are still there, and trained
        neutral["diagonal"] = False
    held = check_penalty(penalty, neutral=neutral, smooth=smooth, steps=12, **options)
    assert ("its gradient is that of the term" in held) == smooth
    assert "its neutral setting is the base" in held


@pytest.mark.slow
@every_penalty
def test_keeps_the_contract_in_every_division(name: str) -> None:
    penalty, options = OPTIONS[name]
    check_penalty(penalty, smooth=name not in NOT_SMOOTH, thorough=True, **options)


def test_l2_init_by_hand() -> None:
    """The authors' form: at 1, started at 0.2, a strength of 0.5 has a gradient of 0.4."""
    members = population([0], strength=0.5, lr=0.0)
    x, y = examples([0], 1)
    members.learn(x, y)
    plain = {name: value.clone() for name, value in members.gradient_views().items()}
    assert not torch.equal(members.gradients, torch.zeros_like(members.gradients))
    start = {name: value.clone() for name, value in members.parameters().items()}
    # The start in memory moved: every parameter is 0.8 away from it.
    for name, value in members.kept.items():
        value.copy_(start[name.rpartition("/")[2]] - 0.8)
    results = members.learn(x, y)
    for name, value in members.gradient_views().items():
        more = 0.0 if name.startswith("norms") else 0.4
        assert torch.allclose(value - plain[name], torch.full_like(value, more), atol=1e-6), name
    count = sum(v.numel() for name, v in start.items() if not name.startswith("norms"))
    assert torch.allclose(results["penalty"], torch.tensor(0.5 * 0.5 * 0.64 * count), rtol=1e-5)


def test_where_a_learner_starts_it_pulls_nowhere() -> None:
    without, some = population([0, 1]), population([0, 1], strength=3.0)
    x, y = examples([0, 1])
    for members in (without, some):
        members.learn(x[:, :1], y[:, :1])
    assert torch.equal(without.rows, some.rows)


def test_the_reported_loss_is_without_the_penalty() -> None:
    members, same = population([0], strength=5.0), population([0])
    x, y = examples([0], 3)
    members.learn(x, y)
    same.rows.copy_(members.rows)
    assert torch.equal(
        members.learn(x[:, :1], y[:, :1])["loss"], same.learn(x[:, :1], y[:, :1])["loss"]
    )


class Changing(Penalty):
    """Remembers the parameters before the last update, and how often it was asked."""

    def begin(self, parameters: object) -> Memory:
        assert isinstance(parameters, dict)
        return {"last": parameters["linears.0.weight"], "asked": torch.zeros(())}

    def term(self, sight: Sight, memory: Memory) -> Tensor:
        now = sight.parameters["linears.0.weight"]
        apart = ((now - memory["last"]) ** 2).sum()
        memory["last"] = now
        memory["asked"] += 1
        return apart + 0.1 * sight.features["layer_2"].mean() + 0.1 * sight.outputs.mean()


def test_what_is_remembered_is_a_members_own() -> None:
    def made(seeds: list[int]) -> Population:
        return Population(
            [MLP(4, 3, MLPOptions(widths=(6, 5)), seeded(seed)) for seed in seeds],
            regression_loss,
            UpdateRule(torch.optim.SGD, {"lr": 0.1}),
            [seeded(100 + seed) for seed in seeds],
            penalties=[Changing],
        )

    among = made([0, 1, 2])
    x, y = examples([0, 1, 2])
    among.learn(x[:, :3], y[:, :3])
    resumed = made([0, 1, 2])
    resumed.load_state_dict(among.state_dict())
    before = among.parameters()["linears.0.weight"].clone()
    for members in (among, resumed):
        members.learn(x[:, 3:4], y[:, 3:4])
    assert torch.equal(among.kept["penalty/0/last"], before)
    assert among.kept["penalty/0/asked"].tolist() == [4.0] * 3
    assert torch.equal(among.rows, resumed.rows)
    for member in range(3):
        alone = made([member])
        own = slice(member, member + 1)
        alone.learn(x[own, :4], y[own, :4])
        assert torch.equal(alone.rows[0], among.rows[member])
