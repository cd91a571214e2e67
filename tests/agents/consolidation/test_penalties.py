"""Penalties and importances against computations by hand."""

from __future__ import annotations

import io
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from clrl.agents.consolidation.base import Consolidation, Learners, Method
from clrl.agents.consolidation.importance import moments
from clrl.agents.consolidation.penalties import (
    EWC,
    L2,
    MemoryAwareSynapses,
    OnlineEWC,
    Penalty,
    SynapticIntelligence,
)
from clrl.agents.networks import MLP, Network
from clrl.agents.optim.rule import UpdateRule
from clrl.agents.options import MLPOptions
from clrl.agents.population import Population
from clrl.agents.supervised import classification_loss


class Logistic(Network):
    """p(y = 1) = sigmoid(w x + b), as two logits of which the first is 0: two parameters."""

    def __init__(self, weight: float, bias: float) -> None:
        super().__init__()
        self.linear = nn.Linear(1, 1)
        with torch.no_grad():
            self.linear.weight.fill_(weight)
            self.linear.bias.fill_(bias)

    def forward(self, x: Tensor) -> Tensor:
        logit = self.linear(x)
        return torch.cat([torch.zeros_like(logit), logit], dim=-1)


def score(forward: Any, x: Tensor, y: Tensor) -> Tensor:
    return nn.functional.cross_entropy(forward(x), y, reduction="none")


def learners(networks: list[Network], lr: float = 0.1) -> Learners:
    population = Population(
        networks,
        classification_loss,
        UpdateRule(torch.optim.SGD, {"lr": lr}),
        [torch.Generator().manual_seed(i) for i in range(len(networks))],
    )
    return Learners(
        list(range(len(networks))),
        population,
        [score],
        lambda forward, x: forward(x),
        lambda task: None,
        lambda x, y: None,
        4,
        2,
        2,
    )


X = torch.tensor([[1.0], [2.0], [-1.0], [0.5]])
Y = torch.tensor([1, 0, 1, 1])


def by_hand(w: float, b: float) -> tuple[list[float], list[float]]:
    """Each example's d(-log p)/dw and d/db: (p - y) x and (p - y), p = sigmoid(w x + b)."""
    over_w, over_b = [], []
    for x, y in zip(X[:, 0].tolist(), Y.tolist(), strict=True):
        residual = 1 / (1 + math.exp(-(w * x + b))) - y
        over_w.append(residual * x)
        over_b.append(residual)
    return over_w, over_b


@pytest.mark.parametrize("fisher", ["mean", "variance"])
def test_fisher_of_a_logistic_model(fisher: str) -> None:
    own = learners([Logistic(0.7, -0.3)])
    (weight, bias) = EWC(own, fisher=fisher).importance(0, (X, Y))[:2].tolist()
    of: Callable[[list[float]], float] = (
        np.var
        if fisher == "variance"
        else lambda g: np.mean(  # type: ignore[assignment]
            np.square(g)
        )
    )
    over_w, over_b = by_hand(0.7, -0.3)
    assert (weight, bias) == pytest.approx((of(over_w), of(over_b)), rel=1e-5)


def test_the_second_derivative_form_can_be_negative_and_the_squared_form_cannot() -> None:
    """Why the mean second derivative is not offered as an importance.

    Away from a minimum it is negative for many weights (a quarter here); a penalty with a negative
    weight has its greatest value, not its least, at the old parameter, and descent on the penalty
    goes away from there.
    """
    network = MLP(
        4, 3, MLPOptions(widths=(6, 6), activation="tanh"), torch.Generator().manual_seed(0)
    ).double()
    source = torch.Generator().manual_seed(1)
    x = torch.randn(32, 4, generator=source, dtype=torch.float64)
    y = torch.arange(32) % 3
    parameters = list(network.parameters())
    first = torch.autograd.grad(score(network, x, y).mean(), parameters, create_graph=True)
    second = [
        float(torch.autograd.grad(one, parameter, retain_graph=True)[0].flatten()[i])
        for gradient, parameter in zip(first, parameters, strict=True)
        for i, one in enumerate(gradient.flatten())
    ]
    assert sum(value < 0 for value in second) > len(second) / 5

    away = [1e-3]
    for _ in range(200):  # descent on F / 2 * d^2 with the most negative F
        away.append(away[-1] - 0.5 * min(second) * away[-1])
    assert away[-1] > 2 * away[0]

    found = moments(network, dict(network.named_parameters()), {}, score, (x, y))
    for values in (found.square, found.variance, found.absolute):
        assert all(bool((value >= 0).all()) for value in values.values())


@pytest.mark.parametrize("layer_norm", [False, True])
def test_moments_are_those_of_each_example_alone(layer_norm: bool) -> None:
    network = MLP(
        4, 3, MLPOptions(widths=(5, 6), layer_norm=layer_norm), torch.Generator().manual_seed(0)
    )
    source = torch.Generator().manual_seed(1)
    x, y = torch.randn(70, 4, generator=source), torch.randint(3, (70,), generator=source)
    each: dict[str, list[Tensor]] = {}
    for i in range(70):
        network.zero_grad()
        score(network, x[i : i + 1], y[i : i + 1]).sum().backward()
        for name, parameter in network.named_parameters():
            assert parameter.grad is not None
            each.setdefault(name, []).append(parameter.grad.clone())
    found = moments(network, dict(network.named_parameters()), {}, score, (x, y))
    for name, gradients in each.items():
        stacked = torch.stack(gradients)
        for got, expected in (
            (found.mean, stacked.mean(0)),
            (found.square, (stacked**2).mean(0)),
            (found.absolute, stacked.abs().mean(0)),
            (found.variance, stacked.var(0, correction=0)),
        ):
            torch.testing.assert_close(got[name], expected, rtol=1e-4, atol=1e-7)


def with_method(make: Callable[[Learners], Method], networks: list[Network]) -> Learners:
    own = learners(networks)
    own.population.companion = Consolidation([make(own)], len(networks))
    return own


def parameters(own: Learners, member: int = 0) -> list[float]:
    return own.population.rows[member, :2].tolist()


def step(own: Learners) -> None:
    own.population.learn(X[None, None], Y[None, None])


def test_l2_adds_the_distance_to_the_gradient() -> None:
    own = with_method(lambda one: L2(one, strength=3.0), [Logistic(0.7, -0.3)])
    companion = own.population.companion
    assert isinstance(companion, Consolidation)
    step(own)
    # Before the first end of a task nothing is held: plain descent on the mean loss.
    over_w, over_b = by_hand(0.7, -0.3)
    first = [0.7 - 0.1 * np.mean(over_w), -0.3 - 0.1 * np.mean(over_b)]
    assert parameters(own) == pytest.approx(first, rel=1e-5)
    companion.end_task([0])
    step(own)  # at the centre the penalty has no gradient
    over_w, over_b = by_hand(*first)
    second = [first[0] - 0.1 * np.mean(over_w), first[1] - 0.1 * np.mean(over_b)]
    assert parameters(own) == pytest.approx(second, rel=1e-5)
    step(own)
    over_w, over_b = by_hand(*second)
    third = [
        second[i] - 0.1 * (np.mean(own_gradient) + 3.0 * (second[i] - first[i]))
        for i, own_gradient in enumerate((over_w, over_b))
    ]
    assert parameters(own) == pytest.approx(third, rel=1e-5)


def test_merged_penalties_are_their_sum() -> None:
    """EWC keeps every task's quadratic: its gradient is the sum of theirs."""
    own = learners([Logistic(0.0, 0.0)])
    method = EWC(own, strength=2.0)
    fishers = [torch.tensor([1.0, 0.0]), torch.tensor([3.0, 4.0]), torch.tensor([0.5, 0.25])]
    centres = [torch.tensor([1.0, 5.0]), torch.tensor([-1.0, 2.0]), torch.tensor([0.25, 0.0])]
    for fisher, centre in zip(fishers, centres, strict=True):
        own.population.rows[0, :2] = centre

        def importance(member: int, examples: Any, fisher: Tensor = fisher) -> Tensor:
            return torch.nn.functional.pad(fisher, (0, own.population.rows.shape[1] - 2))

        method.importance = importance  # type: ignore[method-assign]
        method.consolidate([0], [()])
    here = torch.tensor([0.3, -0.7])
    own.population.rows[0, :2] = here
    gradients = torch.zeros_like(own.population.rows)
    method.penalise(slice(0, 1), own.population.rows, gradients)
    expected = sum(2.0 * f * (here - c) for f, c in zip(fishers, centres, strict=True))
    torch.testing.assert_close(gradients[0, :2], expected)


def test_each_weight_has_an_importance_of_its_own() -> None:
    """The penalty is sum_i F_i d_i^2, not (sum_i F_i)(sum_i d_i^2)."""
    own = learners([Logistic(0.0, 0.0)])
    method = EWC(own, strength=2.0)
    method.consolidate([0], [(X, Y)])
    fisher = method.importance(0, (X, Y))[:2]
    own.population.rows[0, :2] = torch.tensor([1.0, 2.0])
    expected = float(fisher[0] * 1.0 + fisher[1] * 4.0)
    assert method.penalty(0) == pytest.approx(expected, rel=1e-6)


def test_online_ewc_decays_and_moves_its_centre() -> None:
    own = learners([Logistic(0.7, -0.3)])
    method = OnlineEWC(own, strength=2.0, decay=0.5)
    method.consolidate([0], [(X, Y)])
    first = method.importance(0, (X, Y)).clone()
    own.population.rows[0, :2] = torch.tensor([0.1, 0.2])
    second = method.importance(0, (X, Y)).clone()
    method.consolidate([0], [(X, Y)])
    kept = method.kept()
    torch.testing.assert_close(kept["importance"][0], 0.5 * first + second)
    assert kept["centre"][0, :2].tolist() == pytest.approx([0.1, 0.2])


def test_mas_of_a_logistic_model() -> None:
    """Outputs are (0, z), z = w x + b: d z^2 / dw = 2 z x, d z^2 / db = 2 z."""
    own = learners([Logistic(0.7, -0.3)])
    found = MemoryAwareSynapses(own).importance(0, (X, Y))[:2].tolist()
    z = [0.7 * x - 0.3 for x in X[:, 0].tolist()]
    over_w = np.mean([abs(2 * one * x) for one, x in zip(z, X[:, 0].tolist(), strict=True)])
    assert found == pytest.approx([over_w, np.mean(np.abs(z)) * 2], rel=1e-5)


def test_synaptic_intelligence_adds_up_the_way() -> None:
    own = with_method(
        lambda one: SynapticIntelligence(one, strength=2.0, damping=0.1), [Logistic(0.7, -0.3)]
    )
    companion = own.population.companion
    assert isinstance(companion, Consolidation)
    where, path = [0.7, -0.3], [0.0, 0.0]
    for _ in range(3):
        gradients = [float(np.mean(own_gradient)) for own_gradient in by_hand(*where)]
        moved = [-0.1 * gradient for gradient in gradients]
        path = [p - g * m for p, g, m in zip(path, gradients, moved, strict=True)]
        where = [w + m for w, m in zip(where, moved, strict=True)]
        step(own)
    companion.end_task([0])
    (method,) = companion.methods
    expected = [
        p / ((w - start) ** 2 + 0.1) for p, w, start in zip(path, where, [0.7, -0.3], strict=True)
    ]
    assert method.kept()["importance"][0, :2].tolist() == pytest.approx(expected, rel=1e-4)
    # From here the penalty pulls, and the way is that of the loss alone.
    step(own)
    away = [w - c for w, c in zip(parameters(own), where, strict=True)]
    before = list(parameters(own))
    gradients = [float(np.mean(one)) for one in by_hand(*before)]
    first = [float(value) for value in method.kept()["path"][0, :2]]
    step(own)
    moved = [-0.1 * (g + 2.0 * f * a) for g, f, a in zip(gradients, expected, away, strict=True)]
    assert parameters(own) == pytest.approx(
        [b + m for b, m in zip(before, moved, strict=True)], rel=1e-5
    )
    grown = [p - g * m for p, g, m in zip(first, gradients, moved, strict=True)]
    assert method.kept()["path"][0, :2].tolist() == pytest.approx(grown, rel=1e-4)


def test_synaptic_intelligence_clamps_the_running_sum() -> None:
    """A way on which the loss grew takes off what was there, down to 0 and no further."""
    (method,) = [SynapticIntelligence(learners([Logistic(0.7, -0.3)]), damping=0.5)]
    examples = (X, Y)
    path = method.kept()["path"]
    for ways, expected in (
        ([2.0, -1.0], [4.0, 0.0]),  # over (w - w_before)^2 + damping = 0.5
        ([-0.5, 1.0], [3.0, 2.0]),
        ([-2.0, 0.0], [0.0, 2.0]),
    ):
        path[0, :2] = torch.tensor(ways)
        method.consolidate([0], [examples])
        assert method.kept()["importance"][0, :2].tolist() == pytest.approx(expected)
        assert not path.any()


METHODS: dict[str, Callable[[Learners], Penalty]] = {
    "l2": L2,
    "ewc": EWC,
    "ewc-variance": lambda one: EWC(one, fisher="variance"),
    "online-ewc": lambda one: OnlineEWC(one, every=3),
    "mas": lambda one: MemoryAwareSynapses(one, every=2),
    "si": SynapticIntelligence,
}


def train(own: Learners, tasks: int) -> None:
    companion = own.population.companion
    assert isinstance(companion, Consolidation)
    members = len(own.population)
    source = torch.Generator().manual_seed(5)
    for _ in range(tasks):
        x = torch.randn(4, 8, 5, generator=source).expand(members, -1, -1, -1)
        y = torch.randint(2, (4, 8), generator=source).expand(members, -1, -1)
        done = 0
        while done < 4:
            due = companion.until_due() or 4
            part = slice(done, min(4, done + due))
            own.population.learn(x[:, part], y[:, part])
            companion.learned(
                part.stop - part.start, x[:, part].flatten(1, 2), y[:, part].flatten(1, 2)
            )
            done = part.stop
        companion.end_task(range(members))


def networks(count: int) -> list[Network]:
    return [
        MLP(5, 2, MLPOptions(widths=(7, 4)), torch.Generator().manual_seed(seed))
        for seed in range(count)
    ]


@pytest.mark.parametrize("name", METHODS)
def test_members_do_not_see_each_other(name: str) -> None:
    together = with_method(METHODS[name], networks(3))
    train(together, 3)
    for member, network in enumerate(networks(3)):
        alone = with_method(METHODS[name], [network])
        train(alone, 3)
        assert torch.equal(alone.population.rows[0], together.population.rows[member])


@pytest.mark.parametrize("name", METHODS)
def test_state_is_all_there_is(name: str) -> None:
    one, other = (with_method(METHODS[name], networks(2)) for _ in range(2))
    train(one, 2)
    assert isinstance(one.population.companion, Consolidation)
    assert isinstance(other.population.companion, Consolidation)
    file = io.BytesIO()
    torch.save([one.population.state_dict(), one.population.companion.state_dict()], file)
    file.seek(0)
    population, companion = torch.load(file, weights_only=True)
    other.population.load_state_dict(population)
    other.population.companion.load_state_dict(companion)
    for own in (one, other):
        train(own, 2)
    assert torch.equal(one.population.rows, other.population.rows)


@pytest.mark.parametrize("name", METHODS)
def test_what_it_keeps_is_counted(name: str) -> None:
    own = with_method(METHODS[name], networks(2))
    companion = own.population.companion
    assert isinstance(companion, Consolidation)
    width = own.population.rows.shape[1] * 4
    train(own, 1)
    # Centre and importance; SI has its way and where that began besides. The examples of a task
    # that is over are gone.
    assert companion.memory == {"si": 4 * width}.get(name, 2 * width)
