"""Members stacked and alone: operations that are taken to be even, and the look at products."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from clrl.agents import even, replay
from clrl.agents.networks import MLP
from clrl.agents.optim.rule import UpdateRule
from clrl.agents.options import MLPOptions
from clrl.agents.population import Population
from clrl.agents.supervised import regression_loss

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


# A product of matrices, or another operation, that rounds otherwise in some cases

bmm, tanh = torch.bmm, torch.tanh
Fake = Callable[..., Tensor]


def nudged(values: Tensor) -> Tensor:
    """The next number, as another order of summation may give it."""
    return torch.nextafter(values, torch.tensor(torch.inf))


def of_one_pair(left: Tensor, right: Tensor) -> Tensor:
    product = bmm(left, right)
    return nudged(product) if len(product) == 1 else product


def of_the_last_pair(left: Tensor, right: Tensor) -> Tensor:
    product = bmm(left, right)
    if len(product) > 1:
        product[-1] = nudged(product[-1])
    return product


def by_address(left: Tensor, right: Tensor) -> Tensor:
    product = bmm(left, right)
    for pair, (a, b) in enumerate(zip(left, right, strict=True)):
        if (a.data_ptr() | b.data_ptr()) % 64:
            product[pair] = nudged(product[pair])
    return product


def quick_tanh(values: Tensor) -> Tensor:
    """In place of the operation of that name."""
    result = tanh(values)
    if len(result) > 1:
        result[-1] = nudged(result[-1])
    return result


FAKES = {
    "one pair": of_one_pair,
    "the last pair": of_the_last_pair,
    "the address": by_address,
    "the last row": quick_tanh,
}


def replace(patch: pytest.MonkeyPatch, fake: Fake) -> None:
    if fake is quick_tanh:
        patch.setitem(replay._DIRECT, A.tanh.default, fake)
    else:
        patch.setattr(torch, "bmm", fake)


def population(members: Iterable[int], chunk_size: int | None) -> Population:
    """Layers whose products lie at all kinds of addresses: an output, and odd numbers of units."""
    options = MLPOptions(widths=(9, 7), activation="tanh")
    seeds = list(members)
    return Population(
        [MLP(5, 1, options, torch.Generator().manual_seed(seed)) for seed in seeds],
        regression_loss,
        UpdateRule(torch.optim.SGD, {"lr": 0.05}),
        [torch.Generator().manual_seed(seed) for seed in seeds],
        chunk_size,
    )


def trained(members: list[int], chunk_size: int | None) -> tuple[Population, list[Tensor]]:
    """A population after some updates, and all that it gave."""
    source = torch.Generator().manual_seed(0)
    x = torch.randn(5, 6, 3, 5, generator=source)[members]
    y = torch.randn(5, 6, 3, 1, generator=source)[members]
    learners = population(members, chunk_size)
    answer = learners.compiled(lambda forward, x: forward(x))
    loss = learners.learn(x, y)["loss"]
    return learners, [learners.rows, loss, answer(x[:, 0]), answer(x[:, 0, :1])]


def differ() -> bool:
    """Whether any member of five is another one alone, or in another division."""
    _, whole = trained([0, 1, 2, 3, 4], None)
    found = False
    for members, chunk_size in (
        *(([member], None) for member in range(5)),
        ([0, 1, 2, 3, 4], 1),
        ([0, 1, 2, 3, 4], 2),
        ([1, 3, 4], None),
    ):
        _, part = trained(members, chunk_size)
        pairs = zip(whole, part, strict=True)
        found |= not all(torch.equal(of_five[members], own) for of_five, own in pairs)
    return found


@pytest.mark.parametrize("fake", FAKES.values(), ids=FAKES)
def test_members_agree_whatever_the_processor_does(
    fake: Fake, monkeypatch: pytest.MonkeyPatch
) -> None:
    replace(monkeypatch, fake)
    assert not differ()


@pytest.mark.parametrize("fake", FAKES.values(), ids=FAKES)
def test_without_the_look_they_would_not(fake: Fake, monkeypatch: pytest.MonkeyPatch) -> None:
    replace(monkeypatch, fake)
    monkeypatch.setattr(even.Look, "run", lambda *_: None)
    assert differ()


def test_what_the_look_found_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    assert population([0], None).evenness() == ""
    assert trained([0], None)[0].evenness() == "one at a time"
    assert trained([0, 1, 2], None)[0].evenness() == "up to 3 stacked"
    assert trained([0, 1, 2], 2)[0].evenness() == "up to 2 stacked"
    with monkeypatch.context() as patch:
        replace(patch, of_the_last_pair)
        assert "products one by one" in trained([0, 1, 2], None)[0].evenness()
    replace(monkeypatch, quick_tanh)
    learners, _ = trained([0, 1, 2], None)
    assert learners.evenness() == "one member at a time, for quick_tanh"
    assert learners.division == [1, 1, 1]


def test_the_division_follows_from_sizes() -> None:
    """Whatever the load of the machine: no clock is asked."""
    small, large = MLPOptions(widths=(5,)), MLPOptions(widths=(2000, 200))

    def division(options: MLPOptions, members: int) -> list[int]:
        source = torch.Generator().manual_seed(0)
        learners = Population(
            [MLP(5, 1, options, source)] * members,
            regression_loss,
            UpdateRule(torch.optim.SGD, {"lr": 0.05}),
            [torch.Generator() for _ in range(members)],
        )
        learners.learn(torch.zeros(members, 1, 3, 5), torch.zeros(members, 1, 3, 1))
        return learners.division

    assert division(small, 40) == [40]
    assert division(large, 5) == [1, 2, 2]  # of 412,401 weights each


@pytest.mark.parametrize("seed", range(3))
def test_a_product_of_every_form_is_the_product(seed: int) -> None:
    source = torch.Generator().manual_seed(seed)
    left = torch.randn(4, 7, 5, generator=source)
    right = torch.randn(4, 3, 5, generator=source).transpose(1, 2)
    expected = left @ right
    torch.testing.assert_close(even.stacked(left, right), expected)
    torch.testing.assert_close(even.one_by_one(left, right), expected)
    torch.testing.assert_close(even.doubled(left[:1], right[:1]), expected[:1])
    spread = right[:, :1].expand(-1, 5, -1)  # rows that share their memory
    torch.testing.assert_close(even.one_by_one(left, spread), left @ spread)
