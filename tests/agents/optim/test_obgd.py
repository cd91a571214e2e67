"""ObGD by hand: its bound, its trace, and where a trace means nothing."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from clrl.agents.optim.obgd import ObGD
from clrl.errors import UsageError
from clrl.settings.config import resolve
from clrl.settings.values import Place
from clrl.testing import check_optimizer
from clrl.training.loop import update_rule


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def stepped(gradients: list[list[Tensor]], errors: list[float], **options: Any) -> list[Tensor]:
    """Of weights that start at 0, after so many steps."""
    weights = [torch.nn.Parameter(torch.zeros_like(one)) for one in gradients[0]]
    optimizer = ObGD(weights, **options)
    for own, error in zip(gradients, errors, strict=True):
        for weight, gradient in zip(weights, own, strict=True):
            weight.grad = gradient.clone()
        optimizer.step(error=error)
    return [weight.detach() for weight in weights]


def test_by_hand() -> None:
    """|e|_1 = 1 + 2 + 5 = 8, over both tensors; M = 2 * 3 * 8 = 48 for an error of 3."""
    gradients = [torch.tensor([1.0, -2.0]), torch.tensor([[5.0]])]
    first, second = stepped([gradients], [3.0], kappa=2.0)
    torch.testing.assert_close(first, -torch.tensor([1.0, -2.0]) * 3 / 48)
    torch.testing.assert_close(second, -torch.tensor([[5.0]]) * 3 / 48)
    # The next trace is (0.5, -1, 2.5) + (0.1, 0, 0); |d| below 1 counts as 1: M = 8.2.
    more = [torch.tensor([0.1, 0.0]), torch.tensor([[0.0]])]
    first, second = stepped([gradients, more], [3.0, -0.2], kappa=2.0, trace=0.5)
    expected = -torch.tensor([1.0, -2.0]) * 3 / 48 + 0.2 * torch.tensor([0.6, -1.0]) / 8.2
    torch.testing.assert_close(first, expected)
    torch.testing.assert_close(second, -torch.tensor([[5.0]]) * 3 / 48 + 0.2 * 2.5 / 8.2)


def test_small_steps_are_those_of_gradient_descent() -> None:
    small = [[1e-3 * torch.randn(5, generator=seeded(i))] for i in range(4)]
    (own,) = stepped(small, [1.0] * 4, trace=0.0, lr=0.3)
    torch.testing.assert_close(own, -0.3 * sum(one for (one,) in small))
    held = check_optimizer(ObGD, neutral=({"kappa": 0.0}, "sgd", {"lr": 0.1}), lr=0.1, trace=0.0)
    assert "its neutral setting is the base" in held


@pytest.mark.parametrize("error", [-50.0, 0.3, 1.0, 7.0])
@pytest.mark.parametrize("kappa", [2.0, 3.0])
def test_no_step_is_longer_than_the_bound(error: float, kappa: float) -> None:
    """In sum over all numbers at most |d| / (max(|d|, 1) kappa), and so long where it binds."""
    for size in (1e-4, 1.0, 1e6):
        (own,) = stepped([[size * torch.randn(40, generator=seeded())]], [error], kappa=kappa)
        longest = abs(error) / (max(abs(error), 1.0) * kappa)
        assert float(own.abs().sum()) <= longest * 1.0001
        if size >= 1:
            assert float(own.abs().sum()) == pytest.approx(longest, rel=1e-4)


def test_temporal_differences_with_a_trace() -> None:
    """TD(lambda) of a chain of three states, against the same in plain numbers."""
    gamma, decay, kappa = 0.9, 0.8, 2.0
    weight = torch.nn.Parameter(torch.zeros(3))
    optimizer = ObGD([weight], kappa=kappa, trace=gamma * decay)
    values, traces = np.zeros(3), np.zeros(3)
    for _ in range(5):
        for state, reward in ((0, 0.0), (1, -0.5), (2, 4.0)):
            after = weight[state + 1].item() if state < 2 else 0.0
            optimizer.zero_grad()
            (-weight[state]).backward()
            optimizer.step(error=reward + gamma * after - weight[state].item())
            delta = reward + gamma * (values[state + 1] if state < 2 else 0.0) - values[state]
            traces = gamma * decay * traces + np.eye(3)[state]
            bound = kappa * max(abs(delta), 1.0) * np.abs(traces).sum()
            values = values + delta * traces / max(bound, 1.0)
            np.testing.assert_allclose(weight.detach().numpy(), values, rtol=1e-5)
        optimizer.forget()
        traces = np.zeros(3)
    assert values[2] > values[0] > 0


def config(**options: Any) -> Any:
    return resolve({"optimizer": {"name": "obgd"}, **options}, Place("run"))


def test_a_trace_of_batches_is_refused() -> None:
    stream: dict[str, Any] = {"benchmark": "slow-regression", "agent": "supervised", "steps": 64}
    assert update_rule(config(**stream)).base is ObGD
    refused = "optimizer.trace: obgd goes from one example to the next, and {} learns from batches"
    for agent, given in (
        ("supervised", {**stream, "agent": {"name": "supervised", "batch_size": 4}}),
        ("ppo", {"benchmark": "offset-cartpole", "agent": "ppo", "steps": 64}),
        ("sb3:A2C", {"benchmark": "offset-cartpole", "agent": "sb3:A2C", "steps": 64}),
    ):
        with pytest.raises(UsageError, match=refused.format(agent)):
            update_rule(config(**given))
        without = {**given, "optimizer": {"name": "obgd", "trace": 0.0}}
        assert update_rule(config(**without)).options["trace"] == 0.0
