"""Normal noise for stacked learners, at little more than half the cost of ``normal_``.

Rules that perturb every weight at every step spend most of their time drawing numbers. The
Box-Muller transform makes two independent normal numbers, r cos(a) and r sin(a), of a random
radius and a random angle. Here both are looked up in tables, by 16 and 12 random bits, so a
pair takes one 32-bit word and no logarithm or cosine. The radius's distribution function is
exact to 2^-17 and reaches 4.85 standard deviations; the variance is 1.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence

import torch
from torch import Tensor

from clrl.agents.device import CPU

_RADII = 2**16
_ANGLES = 2**12


def normal(
    columns: int,
    scale: float,
    generators: Sequence[torch.Generator],
    device: torch.device = CPU,
) -> Tensor:
    """Independent draws from N(0, scale^2), a row a generator.

    Args:
        columns: numbers a row.
        scale: the standard deviation.
        generators: one a row; each advances by the same amount whoever is beside it.
        device: where the numbers are to be. The random bits are drawn on the CPU, so that the
            numbers are the same on every device.

    Returns:
        [rows, columns] float32.
    """
    words = -(-columns // 4)
    bits = torch.empty(len(generators), words, dtype=torch.int64)
    for row, generator in zip(bits, generators, strict=True):
        row.random_(-(2**63), None, generator=generator)
    halves = bits.to(device).view(torch.int32).flatten()
    radii, directions = _tables(device)
    r = radii.index_select(0, halves & (_RADII - 1)).mul_(scale)
    pairs = directions.index_select(0, (halves >> 16) & (_ANGLES - 1)) * r
    return torch.view_as_real(pairs).view(len(generators), 4 * words)[:, :columns]


@functools.cache
def _tables(device: torch.device) -> tuple[Tensor, Tensor]:
    """Radii of mean square 2 as float32, unit vectors as complex64.

    The radii are the midpoints of equally likely bins of the Rayleigh distribution.
    """
    middle = (torch.arange(_RADII, dtype=torch.float64) + 0.5) / _RADII
    square = -2 * torch.log(middle)
    radii = (square * (2 / square.mean())).sqrt()
    angles = 2 * math.pi * (torch.arange(_ANGLES, dtype=torch.float64) + 0.5) / _ANGLES
    directions = torch.polar(torch.ones_like(angles), angles)
    return radii.float().to(device), directions.to(device, torch.complex64)
