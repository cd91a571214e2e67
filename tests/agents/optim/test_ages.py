"""UPGD and AdaUPGD where weights start anew: each element is as old as it is."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from clrl.agents.networks import MLP
from clrl.agents.optim.adaupgd import AdaUPGD
from clrl.agents.optim.base import compose
from clrl.agents.optim.members import start_state_anew
from clrl.agents.optim.optimizer_reset import OptimizerReset
from clrl.agents.optim.resets import FullReset
from clrl.agents.optim.rule import UpdateRule
from clrl.agents.optim.upgd import UPGD
from clrl.agents.options import MLPOptions
from clrl.testing.learners import Problem

SIZE = 6
NEW = [1, 4]  # elements that start anew
AT = 13  # after so many steps
BASES = pytest.mark.parametrize("base", [UPGD, AdaUPGD])
MAXIMA = pytest.mark.parametrize("utility_max", ["corrected", "raw"])


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def make(base: Any, weight: Tensor, members: int = 1, **options: Any) -> Any:
    group = {"params": [weight], "members": members, "width": SIZE} if members > 1 else weight
    own = base(
        [group],
        **{"lr": 0.05, "sigma": 0.0, "beta_utility": 0.9, "lr_factor": 1.0, **options},
        generator=[seeded(i) for i in range(members)],
    )
    own.count_by_element()
    return own


def start_anew(optimizer: Any, weight: Tensor, member: int = 0) -> None:
    def put(value: Tensor, number: float) -> None:
        value.view(-1, SIZE)[member, NEW] = number

    start_state_anew(optimizer, weight, member, put)


def by_formula(base: Any, start: Any, gradients: Any, utility_max: str) -> Any:
    """The docstrings' formulas in double precision, with an age for each element."""
    w, u, m, v, age = start.copy(), *np.zeros((4, SIZE))
    for step, g in enumerate(gradients):
        if step == AT:
            for average in (u, m, v, age):
                average[NEW] = 0.0
        age += 1
        u = 0.9 * u + 0.1 * (-g * w)
        m, v = 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * g * g
        hat = u / (1 - 0.9**age)
        largest = (hat if utility_max == "corrected" else u).max()
        adam = m / (1 - 0.9**age) / (np.sqrt(v / (1 - 0.999**age)) + 1e-5)
        w -= 0.05 * (g if base is UPGD else adam) / (1 + np.exp(hat / largest))
    return w


@BASES
@MAXIMA
def test_each_element_is_as_old_as_it_is(base: Any, utility_max: str) -> None:
    gradients = torch.randn(30, SIZE, generator=seeded(1))
    start = torch.randn(SIZE, generator=seeded(2))
    weight = torch.nn.Parameter(start.clone())
    optimizer = make(base, weight, weight_decay=0.0, utility_max=utility_max)
    for step, gradient in enumerate(gradients):
        if step == AT:
            start_anew(optimizer, weight)
        weight.grad = gradient.clone()
        optimizer.step()
    expected = by_formula(base, start.double().numpy(), gradients.double().numpy(), utility_max)
    np.testing.assert_allclose(weight.detach().numpy(), expected, rtol=1e-4, atol=1e-5)


@BASES
@MAXIMA
def test_others_beside_it_and_a_state_that_goes_on(base: Any, utility_max: str) -> None:
    """To the bit: of three stacked learners, one of which has elements that start anew."""
    gradients = torch.randn(30, 3, SIZE, generator=seeded(1))
    start = torch.randn(3, SIZE, generator=seeded(2))
    options = {"utility_max": utility_max, "sigma": 0.1}

    def run(member: int | None) -> Tensor:
        rows = torch.nn.Parameter((start if member is None else start[[member]]).clone())
        optimizer = make(base, rows, len(rows), **options)
        if member is not None:
            optimizer._generators = [seeded(member)]
        for step, gradient in enumerate(gradients):
            if step == AT and member in (None, 1):
                start_anew(optimizer, rows, 1 if member is None else 0)
            if step == AT + 3:
                state = copy.deepcopy(optimizer.state_dict())
                generators = optimizer._generators
                optimizer = make(base, rows, len(rows), **options)
                optimizer._generators = generators
                optimizer.load_state_dict(state)
            rows.grad = (gradient if member is None else gradient[[member]]).clone()
            optimizer.step()
        return rows.detach()

    together = run(None)
    for member in range(3):
        assert torch.equal(run(member)[0], together[member])


@BASES
@MAXIMA
@pytest.mark.parametrize("addon", [FullReset, OptimizerReset])
def test_after_a_reset_of_all_it_is_a_new_optimizer(
    base: Any, utility_max: str, addon: Any
) -> None:
    network = MLP(3, 2, MLPOptions(widths=(5,), activation="tanh"), seeded())
    options = {"lr": 0.05, "sigma": 0.0, "utility_max": utility_max}
    made = base(network.parameters(), **options)
    optimizer = compose(network, made, [lambda members: addon(members, every=0)], seeded(9))

    def learn(one: Any, optimizer: Any, seed: int) -> None:
        optimizer.zero_grad()
        (one(torch.randn(8, 3, generator=seeded(seed))) - 1).square().mean().backward()
        optimizer.step()

    for seed in range(AT):
        learn(network, optimizer, seed)
    optimizer.at_change()
    twin = copy.deepcopy(network)
    for seed in range(20, 24):
        learn(network, optimizer, seed)
    new = base(twin.parameters(), **options)
    for seed in range(20, 24):
        learn(twin, new, seed)
    for own, other in zip(network.parameters(), twin.parameters(), strict=True):
        torch.testing.assert_close(own, other, rtol=1e-4, atol=1e-6)


@BASES
def test_where_nothing_starts_anew_it_is_the_same_to_the_bit(base: Any) -> None:
    plain = Problem(UpdateRule(base, {"lr": 0.05}), 8)
    reset = Problem(UpdateRule(base, {"lr": 0.05}, [(FullReset, {"every": 100})]), 8)
    x, y = plain.examples([0, 1], 8)
    found = [one.population([0, 1]) for one in (plain, reset)]
    for one in found:
        one.learn(x, y)
    assert torch.equal(found[0].rows, found[1].rows)
    states = [one.state_dict()["optimizers"][0]["base"]["state"][0] for one in found]
    assert ["since" in state for state in states] == [False, True]
