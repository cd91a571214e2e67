"""SOAP and Kron, as the library computes them: by hand, and what is ours around it."""

from __future__ import annotations

import copy
import sys
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from clrl.agents.optim.kron import Kron
from clrl.agents.optim.soap import SOAP
from clrl.errors import UsageError


@pytest.fixture
def library() -> None:
    for name in ("pytorch_optimizer", "opt_einsum"):
        pytest.importorskip(name, reason=f"{name} is not installed")


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def gradients(*shape: int, steps: int = 8) -> list[Tensor]:
    return list(torch.randn(steps, *shape, generator=seeded(1)))


def moved(make: Any, given: list[Tensor], start: Tensor | None = None) -> list[Tensor]:
    """Where a weight is after each step."""
    weight = torch.nn.Parameter(torch.zeros_like(given[0]) if start is None else start.clone())
    optimizer, path = make([weight]), []
    for gradient in given:
        weight.grad = gradient.clone()
        optimizer.step()
        path.append(weight.detach().clone())
    return path


@pytest.mark.usefixtures("library")
def test_soaps_first_step_moves_nothing_and_vectors_are_adams() -> None:
    given = gradients(5)
    path = moved(lambda p: SOAP(p, lr=0.1, weight_decay=0.0), given)
    adam = moved(lambda p: torch.optim.Adam(p, lr=0.1, betas=(0.95, 0.95)), given[1:])
    assert not path[0].any()
    for own, other in zip(path[1:], adam, strict=True):
        torch.testing.assert_close(own, other, rtol=1e-4, atol=1e-6)


@pytest.mark.usefixtures("library")
def test_soap_by_hand() -> None:
    """The second step: Adam's first, in the eigenvectors of the first gradient's products."""
    first, second = gradients(4, 3, steps=2)
    start = torch.randn(4, 3, generator=seeded(2))
    path = moved(lambda p: SOAP(p, lr=0.1, weight_decay=0.5), [first, second], start)
    g = first.double().numpy()
    left, right = (np.linalg.eigh(one)[1] for one in (g @ g.T, g.T @ g))
    turned = left.T @ second.double().numpy() @ right
    step = left @ np.sign(turned) @ right.T  # m_hat / sqrt(v_hat) at the first step of Adam
    # Eigenvectors of one eigenvalue, here the single 0 of G G^T, are one: their sign cancels.
    expected = start.double().numpy() - 0.1 * step
    expected -= 0.1 * 0.5 * expected
    torch.testing.assert_close(path[1], torch.from_numpy(expected).float(), rtol=1e-3, atol=1e-4)


@pytest.mark.usefixtures("library")
def test_soap_does_not_mind_how_a_layer_is_turned() -> None:
    """As Adam does: steps of turned gradients are turned steps."""
    given = gradients(5, 4, steps=12)
    u, v = (torch.linalg.qr(torch.randn(n, n, generator=seeded(n)))[0] for n in (5, 4))
    make = lambda p: SOAP(p, lr=0.1, weight_decay=0.0, every=4)  # noqa: E731
    plain, turned = moved(make, given), moved(make, [u @ g @ v.T for g in given])
    torch.testing.assert_close(u @ plain[-1] @ v.T, turned[-1], rtol=1e-2, atol=1e-2)
    adam = [
        moved(lambda p: torch.optim.Adam(p, lr=0.1), g)[-1]
        for g in (given, [u @ g @ v.T for g in given])
    ]
    assert float((u @ adam[0] @ v.T - adam[1]).abs().max()) > 0.1


@pytest.mark.usefixtures("library")
@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_krons_steps_are_bounded_and_draw_from_their_generator_alone(momentum: float) -> None:
    given = [100 * gradient for gradient in gradients(6, 4, steps=30)]
    before = torch.get_rng_state(), np.random.get_state()[1].copy()
    paths = [
        moved(lambda p, seed=seed: Kron(p, 0.1, momentum, generator=seeded(seed)), given)
        for seed in (3, 3, 4)
    ]
    assert torch.equal(torch.get_rng_state(), before[0])
    assert (np.random.get_state()[1] == before[1]).all()
    assert torch.equal(paths[0][-1], paths[1][-1])
    assert not torch.equal(paths[0][-1], paths[2][-1])
    for a, b in zip([torch.zeros(6, 4), *paths[0]], paths[0], strict=False):
        assert float((b - a).square().mean().sqrt()) <= 0.1 * 1.1 * 1.001


@pytest.mark.usefixtures("library")
def test_kron_learns_how_long_gradients_are() -> None:
    """What multiplies all gradients is made up for, in the end."""
    lengths = []
    for scale in (1.0, 30.0):
        given = [scale * gradient for gradient in gradients(6, 4, steps=200)]
        path = moved(lambda p: Kron(p, 0.01, 0.0), given)
        lengths.append(float((path[-1] - path[-2]).norm()))
    assert lengths[0] == pytest.approx(lengths[1], rel=0.2)


@pytest.mark.usefixtures("library")
@pytest.mark.parametrize("make", [SOAP, Kron])
def test_a_state_goes_on(make: Any) -> None:
    given = gradients(6, 4, steps=20)
    weights = [torch.nn.Parameter(torch.ones(6, 4)) for _ in range(2)]
    own, other = (make([weight], lr=0.1) for weight in weights)
    for i, gradient in enumerate(given):
        if i == 11:
            weights[1].data.copy_(weights[0].data)
            other.load_state_dict(copy.deepcopy(own.state_dict()))
            other.param_groups[0]["lr"] = own.param_groups[0]["lr"] = 0.05
        for weight, optimizer in zip(weights, (own, other), strict=True):
            if i >= 11 or optimizer is own:
                weight.grad = gradient.clone()
                optimizer.step()
    assert torch.equal(*weights)


@pytest.mark.parametrize("make", [SOAP, Kron])
def test_without_the_library_it_says_what_to_do(make: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pytorch_optimizer", None)
    monkeypatch.setattr(torch.backends.opt_einsum, "is_available", lambda: True)
    name = make.__name__.lower()
    message = rf"optimizer {name}: pytorch_optimizer is missing: pip install 'clrl\[optimizers\]'"
    with pytest.raises(UsageError, match=message):
        make([torch.nn.Parameter(torch.ones(2))])


class Largest(TorchDispatchMode):
    """Numbers in the largest tensor that is made while it is open."""

    numbers = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        for one in tree_leaves(result):
            if isinstance(one, Tensor):
                self.numbers = max(self.numbers, one.numel())
        return result


@pytest.mark.usefixtures("library")
def test_krons_products_are_no_larger_than_its_factors() -> None:
    """In the order in which torch alone takes them, one would have (40 * 60)^2 numbers."""
    with Largest() as largest:
        moved(Kron, gradients(40, 60, steps=2))
    assert largest.numbers <= 2 * 60 * 60


def test_kron_without_an_order_of_products_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.backends.opt_einsum, "is_available", lambda: False)
    with pytest.raises(UsageError, match="optimizer kron: opt_einsum is missing"):
        Kron([torch.nn.Parameter(torch.ones(2))])


@pytest.mark.usefixtures("library")
def test_kron_elsewhere_is_refused() -> None:
    with pytest.raises(UsageError, match="optimizer kron: .* expected --device cpu"):
        Kron([torch.nn.Parameter(torch.ones(2, device="meta"))])
