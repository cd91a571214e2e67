"""Adam by element: torch's to the bit until something starts anew, then a fresh Adam's."""

from __future__ import annotations

import io
from typing import Any

import pytest
import torch
from torch import Tensor

from clrl.agents.networks import MLP
from clrl.agents.optim.continual_backprop import ContinualBackprop
from clrl.agents.optim.elementwise import ElementwiseAdam, ElementwiseAdamW
from clrl.agents.optim.members import start_state_anew
from clrl.agents.optim.rule import UpdateRule, make_base
from clrl.agents.options import MLPOptions
from clrl.agents.population import Population
from clrl.agents.supervised import regression_loss

PAIRS = [(torch.optim.Adam, ElementwiseAdam), (torch.optim.AdamW, ElementwiseAdamW)]
CBP = (ContinualBackprop, {"replacement_rate": 0.02, "maturity_threshold": 2})


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def draws(number: int, *shape: int, seed: int = 0) -> Tensor:
    return torch.randn(number, *shape, generator=seeded(seed))


def start(optimizer: torch.optim.Optimizer, rows: Tensor, member: int, part: slice) -> None:
    def put(value: Tensor, number: float) -> None:
        value[member, part] = number

    start_state_anew(optimizer, rows, member, put)


@pytest.mark.parametrize(("theirs", "ours"), PAIRS)
@pytest.mark.parametrize("decay", [0.0, 0.1])
def test_is_torchs_to_the_bit_where_nothing_starts_anew(
    theirs: Any, ours: Any, decay: float
) -> None:
    rows = draws(1, 3, 192, seed=1)[0]
    one, two = rows.clone(), rows.clone()
    options = {"lr": 0.01, "weight_decay": decay}
    first = theirs([one], **options, fused=True)
    second = ours([{"params": [two], "members": 3}], **options)
    for gradient in draws(2000, 3, 192):
        one.grad, two.grad = gradient.clone(), gradient
        first.step()
        second.step()
    assert torch.equal(one, two)


@pytest.mark.parametrize(("theirs", "ours"), PAIRS)
@pytest.mark.parametrize("before", [1, 7, 8, 2005])
@pytest.mark.parametrize("betas", [(0.9, 0.999), (0.0, 0.9)])
def test_what_starts_anew_moves_as_a_fresh_adam_does(
    theirs: Any, ours: Any, before: int, betas: tuple[float, float]
) -> None:
    """Over constant gradients, to 1e-6; the neighbours go on as they would have."""
    options = {"lr": 1e-3, "betas": betas, "weight_decay": 0.01}
    gradient = 0.01 + draws(1, 2, 128)[0].abs()
    rows, plain = torch.zeros(2, 128), torch.zeros(2, 128)
    rows.grad = plain.grad = gradient
    stacked = ours([{"params": [rows], "members": 2}], **options)
    undisturbed = theirs([plain], **options)
    for _ in range(before):
        stacked.step()
        undisturbed.step()
    start(stacked, rows, 1, slice(0, 64))
    rows[1, :64] = 0
    new = torch.zeros(64)
    new.grad = gradient[1, :64]
    fresh = theirs([new], **options)
    for _ in range(300):
        stacked.step()
        undisturbed.step()
        fresh.step()
        torch.testing.assert_close(rows[1, :64], new, rtol=2e-6, atol=1e-9)
    torch.testing.assert_close(rows[1, 64:], plain[1, 64:], rtol=2e-6, atol=1e-9)
    torch.testing.assert_close(rows[0], plain[0], rtol=2e-6, atol=1e-9)


def test_torchs_own_adam_moves_further_which_is_what_this_is_for() -> None:
    rows = torch.zeros(1, 64)
    rows.grad = torch.ones(1, 64)
    optimizer = torch.optim.Adam([rows], 1e-3)
    for _ in range(5000):
        optimizer.step()
    start(optimizer, rows, 0, slice(0, 32))
    rows.zero_()
    optimizer.step()
    assert float(rows[0, 0] / rows[0, 63]) == pytest.approx(0.1 / 0.001**0.5, rel=0.01)


def test_a_member_whose_elements_began_is_the_same_alone_and_its_siblings_are_untouched() -> None:
    gradients = draws(60, 5, 256)

    def run(members: list[int]) -> Tensor:
        rows = draws(1, 5, 256, seed=3)[0][members].clone()
        optimizer = ElementwiseAdam([{"params": [rows], "members": len(members)}], 0.01)
        for step, gradient in enumerate(gradients):
            rows.grad = gradient[members].clone()
            optimizer.step()
            for member, when in ((1, 10), (3, 13), (1, 30)):
                if step == when and member in members:
                    start(optimizer, rows, members.index(member), slice(5, 5 + when))
        return rows

    together = run([0, 1, 2, 3, 4])
    for member in range(5):
        assert torch.equal(run([member])[0], together[member])
    pair = run([1, 3])
    assert torch.equal(pair, together[[1, 3]])


def test_state_round_trips_to_identical_steps() -> None:
    """At every step of a period: what follows from the state is computed as if never left."""
    for begun, stop in ((5, 6), (5, 8), (9, 14), (16, 17)):
        rows = draws(1, 2, 64)[0]
        one = ElementwiseAdam([{"params": [rows], "members": 2}], 0.01)
        for step, gradient in enumerate(draws(40, 2, 64, seed=4)):
            if step == stop:
                file = io.BytesIO()
                torch.save(one.state_dict(), file)
                file.seek(0)
                copied = rows.clone()
                two = ElementwiseAdam([{"params": [copied], "members": 2}], 0.01)
                two.load_state_dict(torch.load(file, weights_only=True))
            rows.grad = gradient
            one.step()
            if step >= stop:
                copied.grad = gradient
                two.step()
                assert torch.equal(rows, copied)
            if step + 1 == begun:
                start(one, rows, 1, slice(0, 20))


@pytest.mark.parametrize(("theirs", "ours"), PAIRS)
def test_stands_in_for_torchs_where_units_start_anew_and_only_there(theirs: Any, ours: Any) -> None:
    weight = torch.zeros(4, requires_grad=True)
    options = {"lr": 0.1, "betas": (0.8, 0.9), "eps": 1e-5, "weight_decay": 0.2}
    made = make_base(UpdateRule(theirs, options, [CBP]), [weight], [])
    assert type(made) is ours
    assert {key: made.param_groups[0][key] for key in options} == options
    assert type(make_base(UpdateRule(theirs, options), [weight], [])) is theirs
    kept = make_base(UpdateRule(theirs, {**options, "amsgrad": True}, [CBP]), [weight], [])
    assert type(kept) is theirs


def test_chunks_and_resume_with_replacements_are_the_same_to_the_bit() -> None:
    rule = UpdateRule(torch.optim.AdamW, {"lr": 0.01}, [CBP])

    def made(size: int) -> Population:
        networks = [MLP(4, 2, MLPOptions(widths=(7, 5)), seeded(s)) for s in range(4)]
        return Population(networks, regression_loss, rule, list(map(seeded, range(4))), size)

    x = torch.randn(4, 45, 8, 4, generator=seeded(1))
    y = torch.randn(4, 45, 8, 2, generator=seeded(2))
    whole, split = made(4), made(3)
    whole.learn(x, y)
    split.learn(x[:, :21], y[:, :21])
    resumed = made(1)
    resumed.load_state_dict(split.state_dict())
    resumed.learn(x[:, 21:], y[:, 21:])
    assert torch.equal(whole.rows, resumed.rows)
    (chunk,) = whole._chunks
    assert int(chunk.optimizer.addons[0].state_dict()["layer_1"]["replaced"].min()) >= 2
