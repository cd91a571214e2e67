"""Recorded functions: the same numbers as the eager ones, where they are wanted."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch
from torch import Tensor
from torch.func import functional_call, vmap

from clrl.agents.networks import MLP
from clrl.agents.options import MLPOptions
from clrl.agents.replay import record


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize("members", [1, 3])
@pytest.mark.parametrize(
    ("widths", "activation", "layer_norm"),
    [
        ((), "relu", False),
        ((5,), "relu", False),
        ((1,), "leaky-relu", False),
        ((7, 1), "tanh", True),
        ((6, 4), "crelu", False),
        ((6, 4), "swish", True),
    ],
)
def test_gradients_are_the_eager_ones_to_the_bit(
    widths: tuple[int, ...], activation: str, layer_norm: bool, members: int, batch: int
) -> None:
    options = MLPOptions(widths=widths, activation=activation, layer_norm=layer_norm)  # type: ignore[arg-type]
    network = MLP(4, 3, options, seeded())
    names = [name for name, _ in network.named_parameters()]
    generator = seeded(1)

    def function(*inputs: Tensor) -> Sequence[Tensor]:
        values = [value.detach().requires_grad_() for value in inputs[:-1]]

        def loss(parameters: dict[str, Tensor], x: Tensor) -> Tensor:
            return functional_call(network, parameters, (x,)).square().mean()

        with torch.enable_grad():
            losses = vmap(loss)(dict(zip(names, values, strict=True)), inputs[-1])
            gradients = torch.autograd.grad(losses.sum(), values)
        return [*gradients, losses.detach()]

    def numbers() -> list[Tensor]:
        shapes = [p.shape for p in network.parameters()] + [torch.Size([batch, 4])]
        return [torch.empty(members, *s).normal_(generator=generator) for s in shapes]

    first = numbers()
    places = [torch.full_like(value, torch.nan) for value in first[:-1]]
    recorded = record(function, first, len(places)).bind(places)
    for inputs in (first, numbers(), numbers()):
        eager = [value.clone() for value in function(*inputs)]
        (losses,) = recorded(*inputs)
        assert torch.equal(losses, eager[-1])
        for place, expected in zip(places, eager, strict=False):
            assert torch.equal(place, expected)


def check(
    function: object, inputs: list[Tensor], places: list[Tensor], others: list[list[Tensor]]
) -> None:
    recorded = record(function, inputs, len(places)).bind(places)  # type: ignore[arg-type]
    for values in (inputs, *others):
        expected = [value.clone() for value in function(*values)]  # type: ignore[operator]
        rest = recorded(*values)
        assert len(rest) == len(expected) - len(places)
        for got, wanted in zip([*places, *rest], expected, strict=True):
            assert torch.equal(got, wanted)


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.empty(shape).normal_(generator=seeded(seed))


def test_strided_destinations() -> None:
    """Gradients go to slices of padded rows, possibly transposed."""
    rows = torch.full((3, 40), torch.nan)
    place = rows[:, 2:14].view(3, 3, 4)
    other = rows[:, 20:32].view(3, 4, 3)
    check(
        lambda a, b: [(a * b), (a * b).transpose(1, 2), a.sum()],
        [normal(3, 3, 4), normal(3, 3, 4, seed=1)],
        [place, other],
        [[normal(3, 3, 4, seed=2), normal(3, 3, 4, seed=3)]],
    )
    untouched = torch.ones(40, dtype=torch.bool)
    untouched[2:14] = untouched[20:32] = False
    assert rows[:, untouched].isnan().all()


def test_outer_products() -> None:
    """[a, 1] x [1, b]: also where it is transposed, used twice, or no outer product."""
    a, b, c = normal(2, 5, 1), normal(2, 1, 4, seed=1), normal(2, 4, 3, seed=2)

    def function(a: Tensor, b: Tensor, c: Tensor) -> list[Tensor]:
        outer = torch.bmm(a, b)
        return [torch.bmm(a, b).transpose(1, 2), outer, torch.bmm(outer, c), outer.exp()]

    places = [torch.empty(2, 4, 5), torch.empty(2, 5, 4)]
    check(function, [a, b, c], places, [[-a, b, c + 1]])


def test_one_tensor_for_two_destinations() -> None:
    def function(a: Tensor, b: Tensor) -> list[Tensor]:
        product = a * b
        return [product, product, product + 1, product]

    places = [torch.empty(4), torch.empty(4)]
    check(function, [normal(4), normal(4, seed=1)], places, [[normal(4), normal(4)]])


def test_constants_and_inputs_as_results() -> None:
    def function(a: Tensor, b: Tensor) -> list[Tensor]:
        return [torch.zeros_like(a), b.detach(), a * 1, a.view(4) + 0]

    places = [torch.empty(4), torch.empty(4), torch.empty(4)]
    check(function, [normal(4), normal(4, seed=1)], places, [[normal(4, seed=2), normal(4)]])


def test_multiplying_by_one_still_changes_the_type() -> None:
    def function(a: Tensor) -> list[Tensor]:
        return [a * 1.0]

    (result,) = record(function, [torch.arange(3)], 0).bind([])(torch.tensor([4, 5, 6]))
    assert result.dtype == torch.float32 and result.tolist() == [4, 5, 6]


def test_an_expanded_result_is_stored_in_full() -> None:
    def function(a: Tensor) -> list[Tensor]:
        return [a.sum(dim=1, keepdim=True).expand(2, 3), a.mean()]

    check(function, [normal(2, 3)], [torch.empty(2, 3)], [[normal(2, 3, seed=1)]])


def test_one_recording_serves_several_places() -> None:
    def function(a: Tensor, b: Tensor) -> list[Tensor]:
        return [(a * b).transpose(1, 2), a + b, a.sum()]

    recording = record(function, [normal(2, 3, 4), normal(2, 3, 4)], 2)
    places = [[torch.zeros(2, 4, 3), torch.zeros(2, 3, 4)] for _ in range(2)]
    replays = [recording.bind(place) for place in places]
    inputs = [[normal(2, 3, 4, seed=2 * i), normal(2, 3, 4, seed=2 * i + 1)] for i in range(2)]
    rest = [replay(*values) for replay, values in zip(replays, inputs, strict=True)]
    for place, others, values in zip(places, rest, inputs, strict=True):
        for got, expected in zip([*place, *others], function(*values), strict=True):
            assert torch.equal(got, expected)


def test_constants_and_parts_of_results() -> None:
    """Tensors from elsewhere, results that are tuples, and operations in place."""
    constant = normal(3)

    def function(a: Tensor, b: Tensor) -> list[Tensor]:
        first, second = torch.split(a, 2, dim=1)
        top, index = (first * constant.unsqueeze(1)).max(dim=1)
        total = (second + constant.unsqueeze(1)).sum(dim=1)
        total += top
        return [total.mul_(2.0) + index, b * constant]

    inputs = [normal(3, 4), normal(3, seed=1)]
    check(function, inputs, [], [[normal(3, 4, seed=2), normal(3, seed=3)]])
