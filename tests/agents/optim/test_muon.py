"""Muon: published numbers, which parameters are whose, and learners apart."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

from clrl.agents.networks import MLP
from clrl.agents.optim.muon import Muon
from clrl.agents.optim.rule import UpdateRule, make_base, mixes_members
from clrl.agents.options import MLPOptions
from clrl.testing.learners import Problem

LR = 0.02


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def stepped(gradient: Tensor, start: Tensor | None = None, **options: float) -> Tensor:
    """What is taken off a weight in one step, in step sizes."""
    start = torch.zeros_like(gradient) if start is None else start
    weight = nn.Parameter(start.clone())
    weight.grad = gradient.clone()
    Muon([weight], lr=LR, **options).step()  # type: ignore[arg-type]
    return (start - weight.detach()) / LR


def test_a_single_number_moves_by_what_five_iterations_make_of_one() -> None:
    assert float(stepped(torch.tensor([[3.0]]))) == pytest.approx(0.696, rel=0.02)


@pytest.mark.parametrize(
    ("value", "becomes"), [(0.9, 0.682), (0.5, 0.765), (0.1, 0.712), (0.01, 0.699)]
)
def test_a_singular_value_becomes_what_five_iterations_make_of_it(
    value: float, becomes: float
) -> None:
    """Of two whose squares add up to one; in half precision, in which 0.5 becomes 0.82."""
    step = stepped(torch.diag(torch.tensor([value, math.sqrt(1 - value**2)])))
    exact = value
    for _ in range(5):
        square = exact * exact
        exact = (3.4445 - 4.7750 * square + 2.0315 * square * square) * exact
    assert exact == pytest.approx(becomes, abs=1e-3)
    assert float(step[0, 0]) == pytest.approx(becomes, rel=0.1)
    assert step[0, 1] == step[1, 0] == 0


@pytest.mark.parametrize("shape", [(6, 10), (8, 8), (12, 4)])
def test_singular_values_of_a_step_are_nearly_one_and_scaled_where_tall(
    shape: tuple[int, int],
) -> None:
    gradient = torch.randn(shape, generator=seeded())
    singular = torch.linalg.svdvals(stepped(gradient)) / math.sqrt(max(1, shape[0] / shape[1]))
    assert 0.5 < singular.min() and singular.max() < 1.25
    step = stepped(10 * gradient)
    torch.testing.assert_close(step, stepped(gradient), rtol=0.05, atol=0.02)


def test_without_gradient_and_momentum_nothing_moves() -> None:
    assert torch.equal(stepped(torch.zeros(4, 3)), torch.zeros(4, 3))


def test_weights_decay_apart_from_the_gradient() -> None:
    start = torch.ones(4, 3)
    torch.testing.assert_close(
        stepped(torch.zeros(4, 3), start, weight_decay=0.5), 0.5 * start, rtol=1e-3, atol=1e-4
    )


def test_momentum_is_nesterovs() -> None:
    """Directions of the second step are those of .05 g + .95 m, m of both gradients."""
    first, second = (torch.randn(4, 6, generator=seeded(k)) for k in (1, 2))
    weight = nn.Parameter(torch.zeros(4, 6))
    optimizer = Muon([weight], lr=LR)
    weight.grad = first.clone()
    optimizer.step()
    before = weight.detach().clone()
    weight.grad = second.clone()
    optimizer.step()
    m = 0.95 * 0.05 * first + 0.05 * second
    expected = stepped((0.05 * second + 0.95 * m) * 1.0)
    torch.testing.assert_close((before - weight.detach()) / LR, expected, rtol=0.05, atol=0.03)


def test_a_kernel_is_a_matrix_of_its_outputs_and_the_rest() -> None:
    gradient = torch.randn(4, 3, 2, 2, generator=seeded())
    torch.testing.assert_close(stepped(gradient), stepped(gradient.flatten(1)).view(4, 3, 2, 2))


def test_a_kernels_state_is_its_own_and_comes_back() -> None:
    """It is kept under the kernel, in its shape, so that units of it can start anew."""
    ends = []
    for saved in (False, True):
        kernel = nn.Parameter(torch.randn(4, 3, 2, 2, generator=seeded()))
        optimizer = Muon([kernel], lr=LR)
        for step in range(4):
            kernel.grad = torch.randn(kernel.shape, generator=seeded(step))
            optimizer.step()
            if saved and step == 1:
                state = optimizer.state_dict()
                optimizer = Muon([kernel], lr=LR)
                optimizer.load_state_dict(state)
        assert optimizer.state[kernel]["momentum_buffer"].shape == kernel.shape
        ends.append(kernel.detach())
    assert torch.equal(*ends)


def test_heads_and_vectors_are_adamws_and_every_parameter_is_in_one_group() -> None:
    network, other = (MLP(5, 3, MLPOptions(widths=(6, 4)), seeded()) for _ in range(2))
    rule = UpdateRule(Muon, {"lr": LR, "weight_decay": 0.1})
    optimizer = make_base(rule, list(network.parameters()), [], network)
    grouped = [id(own) for group in optimizer.param_groups for own in group["params"]]
    assert sorted(grouped) == sorted(id(own) for own in network.parameters())
    sizes = [[tuple(own.shape) for own in group["params"]] for group in optimizer.param_groups]
    assert sizes == [[(6, 5), (4, 6)], [(6,), (4,), (3, 4), (3,)]]
    settings = {"lr": 0.1 * LR, "betas": (0.9, 0.95), "eps": 1e-10, "weight_decay": 0.1}
    adamw = torch.optim.AdamW(other.parameters(), **settings)  # type: ignore[arg-type]
    for step in range(3):
        for one, rule_of in ((network, optimizer), (other, adamw)):
            generator = seeded(step)
            for own in one.parameters():
                own.grad = torch.randn(own.shape, generator=generator)
            rule_of.step()
    for name, own in network.named_parameters():
        hidden = name in ("linears.0.weight", "linears.1.weight")
        assert torch.equal(own, other.get_parameter(name)) != hidden


def test_a_learner_is_orthogonalised_by_itself() -> None:
    """Stacked gradients of very different sizes, in one matrix, would share a norm."""
    rule = UpdateRule(Muon, {"lr": LR})
    assert mixes_members(rule)
    problem = Problem(rule, 4)
    x, y = problem.examples([0, 1], 4)
    y[0] *= 1000
    together, alone = problem.population([0, 1]), problem.population([1])
    together.learn(x, y)
    alone.learn(x[1:], y[1:])
    assert torch.equal(together.rows[1], alone.rows[0])
