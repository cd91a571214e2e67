"""Operations that are taken to be even: a row's result does not depend on its place, to the bit."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from clrl.agents import even

A = torch.ops.aten
SIZES = (1, 2, 3, 5, 7, 10, 16, 17, 31, 33, 64, 65, 150)

# One argument [members, examples, units] to anything with a member axis.
EVEN: dict[str, Callable[[Tensor], Tensor]] = {
    "add": lambda x: torch.add(x, x.flip(-1), alpha=0.37),
    "sub": lambda x: torch.sub(x, x.flip(-1), alpha=0.37),
    "mul": lambda x: x * x.flip(-1),
    "div": lambda x: x / (x.flip(-1).abs() + 0.3),
    "reciprocal": lambda x: torch.reciprocal(x),
    "sqrt": lambda x: x.abs().sqrt(),
    "rsqrt": lambda x: (x.abs() + 0.1).rsqrt(),
    "exp": torch.exp,
    "expm1": torch.expm1,
    "log": lambda x: (x.abs() + 0.1).log(),
    "log1p": lambda x: x.abs().log1p(),
    "tanh": torch.tanh,
    "tanh_backward": lambda x: A.tanh_backward(x.flip(-1), torch.tanh(x)),
    "sin": torch.sin,
    "cos": torch.cos,
    "erf": torch.erf,
    "leaky_relu": lambda x: F.leaky_relu(x, 0.1),
    "leaky_relu_backward": lambda x: A.leaky_relu_backward(x.flip(-1), x, 0.1, False),
    "threshold_backward": lambda x: A.threshold_backward(x.flip(-1), x, 0),
    "hardtanh": F.hardtanh,
    "hardtanh_backward": lambda x: A.hardtanh_backward(x.flip(-1), x, -1.0, 1.0),
    "sum": lambda x: x.sum(-1),
    "mean": lambda x: x.mean((-1, -2)),
    "amax": lambda x: x.amax(-1),
    "_softmax": lambda x: torch.softmax(x, -1),
    "_softmax_backward_data": lambda x: A._softmax_backward_data(
        x.flip(-1), torch.softmax(x, -1), -1, x.dtype
    ),
    "_log_softmax": lambda x: torch.log_softmax(x, -1),
    "_log_softmax_backward_data": lambda x: A._log_softmax_backward_data(
        x.flip(-1), torch.log_softmax(x, -1), -1, x.dtype
    ),
    "native_layer_norm": lambda x: F.layer_norm(x, x.shape[-1:]),
    "bmm": lambda x: torch.bmm(x, x.flip(-1).transpose(1, 2)),
}

UNEVEN: dict[str, Callable[[Tensor], Tensor]] = {
    "sigmoid": torch.sigmoid,
    "silu": F.silu,
    "elu": F.elu,
    "softplus": F.softplus,
    "sinh": torch.sinh,
}


def rows_that_differ(operation: Callable[[Tensor], Tensor]) -> int:
    source = torch.Generator().manual_seed(0)
    differ = 0
    for units in SIZES:
        for examples in (1, 2, 3):
            x = 3 * torch.randn(24, examples, units, generator=source)
            stacked = operation(x)
            for member in range(len(x)):
                alone = operation(x[member : member + 1].clone())
                differ += not torch.equal(alone[0], stacked[member])
    return differ


@pytest.mark.parametrize("name", EVEN)
def test_operations_that_are_taken_to_be_even_are(name: str) -> None:
    assert name in even.EVEN
    assert rows_that_differ(EVEN[name]) == 0


@pytest.mark.parametrize("name", UNEVEN)
def test_the_comparison_finds_uneven_operations(name: str) -> None:
    assert name not in even.EVEN
    assert rows_that_differ(UNEVEN[name]) > 0
