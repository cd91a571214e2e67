"""Optimizers that start anew, and Adam's count of steps alone."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from clrl.agents.networks import MLP
from clrl.agents.optim.base import WithAddOns, compose
from clrl.agents.optim.elementwise import ElementwiseAdam, ElementwiseAdamW
from clrl.agents.optim.muon import Muon
from clrl.agents.optim.optimizer_reset import AdamRel, OptimizerReset
from clrl.agents.optim.rule import UpdateRule
from clrl.agents.options import MLPOptions
from clrl.errors import UsageError
from clrl.testing.learners import Problem

LR = 0.01


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def mlp() -> MLP:
    return MLP(3, 2, MLPOptions(widths=(4,)), seeded())


def gradients(network: nn.Module, step: int, size: float = 1.0) -> None:
    generator = seeded(step)
    for own in network.parameters():
        own.grad = size * torch.randn(own.shape, generator=generator)


def moved(network: nn.Module, optimizer: torch.optim.Optimizer, gradient: float) -> float:
    """How far every number goes by a step with the same gradient everywhere."""
    before = [own.detach().clone() for own in network.parameters()]
    for own in network.parameters():
        own.grad = torch.full_like(own, gradient)
    optimizer.step()
    pairs = zip(before, network.parameters(), strict=True)
    steps = torch.cat([(old - own.detach()).flatten() for old, own in pairs])
    assert float(steps.max() - steps.min()) < 1e-3 * float(steps.abs().max())
    return float(steps.mean())


def over(base: Any, addon: Any, network: nn.Module, **options: Any) -> WithAddOns:
    return compose(network, base, [lambda m: addon(m, **options)], seeded())  # type: ignore[arg-type]


# The whole state


@pytest.mark.parametrize(
    ("base", "plain", "options"),
    [
        (torch.optim.Adam, torch.optim.Adam, {}),
        (torch.optim.Adam, torch.optim.Adam, {"amsgrad": True}),
        (ElementwiseAdam, torch.optim.Adam, {}),
        (ElementwiseAdamW, torch.optim.AdamW, {"weight_decay": 0.1}),
        (torch.optim.SGD, torch.optim.SGD, {"momentum": 0.9}),
        (torch.optim.RMSprop, torch.optim.RMSprop, {}),
        (torch.optim.NAdam, torch.optim.NAdam, {}),
        (Muon, Muon, {}),
    ],
)
def test_after_a_reset_the_optimizer_is_a_new_one(base: Any, plain: Any, options: Any) -> None:
    network, other = mlp(), mlp()
    optimizer = over(base(network.parameters(), lr=LR, **options), OptimizerReset, network)
    for step in range(4):
        gradients(network, step)
        optimizer.step()
    before = [own.detach().clone() for own in network.parameters()]
    optimizer.at_change()
    for own, old in zip(network.parameters(), before, strict=True):
        assert torch.equal(own.detach(), old)
    other.load_state_dict(network.state_dict())
    new = plain(other.parameters(), lr=LR, **options)
    for step in range(4, 8):
        for one, rule in ((network, optimizer), (other, new)):
            gradients(one, step, 100.0)
            rule.step()
    for a, b in zip(network.parameters(), other.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("addon", [OptimizerReset, AdamRel])
def test_of_stacked_learners_only_those_whose_task_changed_start_anew(addon: Any) -> None:
    rule = UpdateRule(torch.optim.Adam, {"lr": LR}, [(addon, {})])
    assert rule.needs_changes
    problem = Problem(rule, 6)
    x, y = problem.examples([0, 1], 6)
    plain, changed = (problem.population([0, 1]) for _ in range(2))
    for one in (plain, changed):
        one.learn(x[:, :4], y[:, :4])
    changed.change([1])
    for one in (plain, changed):
        one.learn(x[:, 4:], y[:, 4:])
    assert torch.equal(plain.rows[0], changed.rows[0])
    assert not torch.equal(plain.rows[1], changed.rows[1])


def test_a_baseline_keeps_its_moments_at_changes() -> None:
    """Some published code makes every optimizer anew, the baseline's too."""
    rule = UpdateRule(torch.optim.Adam, {"lr": LR})
    problem = Problem(rule, 6)
    x, y = problem.examples([0], 6)
    plain, changed = (problem.population([0]) for _ in range(2))
    for one in (plain, changed):
        one.learn(x[:, :3], y[:, :3])
    changed.change([0])
    for one in (plain, changed):
        one.learn(x[:, 3:], y[:, 3:])
    assert torch.equal(plain.rows, changed.rows)


# The count alone


def adam_by(kind: str, network: nn.Module) -> torch.optim.Optimizer:
    makes = ElementwiseAdam if kind == "by element" else torch.optim.Adam
    return makes(network.parameters(), lr=LR)


@pytest.mark.parametrize("kind", ["by element", "torch's"])
def test_in_a_steady_state_the_first_step_is_short(kind: str) -> None:
    """m = g and v = g^2: lr * (1 / (1 - 0.9)) / sqrt(1 / (1 - 0.999)) = 0.3162 lr."""
    network = mlp()
    optimizer = over(adam_by(kind, network), AdamRel, network)
    for _ in range(3):
        moved(network, optimizer, 2.0)
    for state in optimizer.chain.base.state.values():
        state["exp_avg"].fill_(2.0)
        state["exp_avg_sq"].fill_(4.0)
    optimizer.at_change()
    # The step takes in g = 2, so that the averages stay as they are.
    assert moved(network, optimizer, 2.0) == pytest.approx(0.3162 * LR, rel=1e-3)


@pytest.mark.parametrize("kind", ["by element", "torch's"])
@pytest.mark.parametrize("restarts", [True, False])
def test_where_gradients_jump_the_first_step_is_as_long_as_the_step_size(
    kind: str, restarts: bool
) -> None:
    """Adam's own is 0.1 / sqrt(0.001) = 3.162 times as long, late in training."""
    network = mlp()
    optimizer = over(adam_by(kind, network), AdamRel, network)
    moved(network, optimizer, 1e-6)
    for state in optimizer.chain.base.state.values():
        state["step"].fill_(100_000)
    if restarts:
        optimizer.at_change()
    expected = 1.0 if restarts else 0.1 / math.sqrt(0.001)
    assert moved(network, optimizer, 1e4) == pytest.approx(expected * LR, rel=1e-3)


def test_every_parameters_count_restarts_and_averages_stay() -> None:
    network = mlp()
    base = torch.optim.Adam(network.parameters(), lr=LR, amsgrad=True)
    optimizer = over(base, AdamRel, network, every=5)
    kept: list[dict[str, Tensor]] = []
    for step in range(5):
        gradients(network, step)
        optimizer.step()
        kept = [{k: v.clone() for k, v in one.items()} for one in base.state.values()]
        assert {float(one["step"]) for one in kept} == {0.0 if step == 4 else step + 1.0}
    reference = mlp()
    other = torch.optim.Adam(reference.parameters(), lr=LR, amsgrad=True)
    for step in range(5):
        gradients(reference, step)
        other.step()
    for one, two in zip(kept, other.state.values(), strict=True):
        for name in ("exp_avg", "exp_avg_sq", "max_exp_avg_sq"):
            assert torch.equal(one[name], two[name])


def test_new_experience_is_a_new_objective() -> None:
    """A population that is told of it restarts the counts; with `every` it does not."""
    for options, restarts in (({}, True), ({"every": 1000}, False)):
        rule = UpdateRule(torch.optim.Adam, {"lr": LR}, [(AdamRel, options)])
        problem = Problem(rule, 6)
        x, y = problem.examples([0, 1], 6)
        plain, told = (problem.population([0, 1]) for _ in range(2))
        for one in (plain, told):
            one.learn(x[:, :3], y[:, :3])
        told.collected()
        for one in (plain, told):
            one.learn(x[:, 3:], y[:, 3:])
        assert torch.equal(plain.rows, told.rows) == (not restarts)


def test_it_needs_adam() -> None:
    network = mlp()
    with pytest.raises(UsageError, match="expected adam or adamw"):
        over(torch.optim.SGD(network.parameters(), lr=LR), AdamRel, network)
