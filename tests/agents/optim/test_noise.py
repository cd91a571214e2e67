"""The fast normal noise: normal, independent, and each row its generator's own."""

from __future__ import annotations

import math

import pytest
import torch

from clrl.agents.optim.noise import normal


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_the_distribution_is_the_normal_one() -> None:
    """Kolmogorov's statistic of a million draws: above 1.95e-3 in one of a thousand samples."""
    drawn = normal(1_000_000, 1.0, [seeded()])[0].double().sort().values
    below = 0.5 * (1 + torch.erf(drawn / math.sqrt(2)))
    ranks = (torch.arange(1_000_000, dtype=torch.float64) + 0.5) / 1_000_000
    assert (below - ranks).abs().max() < 1.95e-3
    assert float((drawn.abs() > 3).double().mean()) == pytest.approx(2.7e-3, rel=0.07)
    assert float((drawn.abs() > 4).double().mean()) == pytest.approx(6.33e-5, rel=0.5)


def test_moments() -> None:
    drawn = normal(1_000_000, 1.0, [seeded(1)])[0].double()
    for power, value, spread in ((1, 0, 1), (2, 1, 2**0.5), (3, 0, 15**0.5), (4, 3, 96**0.5)):
        assert abs(float((drawn**power).mean()) - value) < 5e-3 * spread  # 5 standard errors


@pytest.mark.parametrize("apart", [1, 2, 3, 4, 64])
def test_numbers_are_independent_of_their_neighbours(apart: int) -> None:
    drawn = normal(1_000_000, 1.0, [seeded(2)])[0].double()
    one, two = drawn[:-apart], drawn[apart:]
    assert abs(float((one * two).mean())) < 5e-3
    assert abs(float(((one**2 - 1) * (two**2 - 1)).mean())) < 1e-2


@pytest.mark.parametrize("columns", [1, 2, 3, 5, 64, 1001])
def test_a_row_is_its_generators_own(columns: int) -> None:
    together, alone = [seeded(seed) for seed in range(3)], seeded(2)
    for _ in range(3):  # and goes on from where it is
        rows, row = normal(columns, 1.0, together), normal(columns, 1.0, [alone])
        assert rows.shape == (3, columns) and rows.dtype == torch.float32
        assert torch.equal(rows[2], row[0])
        assert rows.unique().numel() == rows.numel()
        assert torch.equal(together[2].get_state(), alone.get_state())


def test_the_scale_is_the_standard_deviation() -> None:
    one, other = normal(1000, 1.0, [seeded()]), normal(1000, 0.25, [seeded()])
    assert torch.equal(other, one * 0.25)
    assert (normal(10, 0.0, [seeded()]) == 0).all()
