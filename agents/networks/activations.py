"""Activations, as modules that treat all members of a population alike."""

from __future__ import annotations

from collections.abc import Callable
from typing import ClassVar

import torch
from torch import Tensor, nn

from clrl.agents.options import MLPOptions


class CReLU(nn.Module):
    """Concatenated ReLU (Shang et al. 2016): [relu(x), relu(-x)] along the last axis."""

    def forward(self, x: Tensor) -> Tensor:
        """Map [..., units] to [..., 2 * units]."""
        return torch.cat([torch.relu(x), torch.relu(-x)], dim=-1)


# torch's own sigmoid, ELU and SiLU kernels round the last few elements of an array
# differently from the others, so that a result depends on its place in the stack of
# members. The forms below use operations that round alike everywhere.


class Sigmoid(nn.Module):
    """The logistic function, 1 / (1 + exp(-x)), as (1 + tanh(x / 2)) / 2."""

    def forward(self, x: Tensor) -> Tensor:
        """Map any shape to the same shape, into (0, 1)."""
        return 0.5 + 0.5 * torch.tanh(0.5 * x)


class Swish(nn.Module):
    """x * sigmoid(x) (Ramachandran et al. 2017; also SiLU)."""

    def forward(self, x: Tensor) -> Tensor:
        """Map any shape to the same shape."""
        return x * (0.5 + 0.5 * torch.tanh(0.5 * x))


class ELU(nn.Module):
    """x where x > 0, else exp(x) - 1 (Clevert et al. 2016, alpha = 1)."""

    def forward(self, x: Tensor) -> Tensor:
        """Map any shape to the same shape."""
        return torch.relu(x) + torch.exp(torch.clamp(x, max=0.0)) - 1.0


class Fourier(nn.Module):
    """Deep Fourier features (Lewandowski et al. 2025): [sin(x), cos(x)] along the last axis."""

    def forward(self, x: Tensor) -> Tensor:
        """Map [..., units] to [..., 2 * units]."""
        return torch.cat([torch.sin(x), torch.cos(x)], dim=-1)


class SmoothLeaky(nn.Module):
    """A ReLU that is smooth and leaks: a x + (1 - a) x sigmoid(c x / p) (arXiv 2509.22562).

    Args:
        slope: a, far below zero.
        sharpness: c / p, of the bend; 5 / 3 in the source.
    """

    def __init__(self, slope: float = 0.1, sharpness: float = 5.0 / 3.0) -> None:
        super().__init__()
        self._slope = slope
        self._half = 0.5 * sharpness

    def forward(self, x: Tensor) -> Tensor:
        """Map any shape to the same shape."""
        logistic = 0.5 + 0.5 * torch.tanh(self._half * x)
        return x * (self._slope + (1 - self._slope) * logistic)


class AID(nn.Module):
    """Activation by interval-wise dropout (ICML 2025), on the two sides of zero.

    In training each number is kept with the chance ``p`` where it is above zero, and 1 - p where it
    is below, and else 0: of every element a ReLU, or with the chance 1 - p what a ReLU leaves out.
    In evaluation numbers are multiplied by these chances, which is what training gives on average.
    After a re-implementation.

    Args:
        p: 1 for ReLU, 0.5 for a linear map.
    """

    def __init__(self, p: float) -> None:
        super().__init__()
        self.p = p

    def forward(self, x: Tensor) -> Tensor:
        """Map any shape to the same shape."""
        if self.training:
            kept = (torch.rand_like(x) < self.p).to(x.dtype)
            return kept * torch.relu(x) - (1 - kept) * torch.relu(-x)
        return self.p * torch.relu(x) - (1 - self.p) * torch.relu(-x)


class Rational(nn.Module):
    """A quotient of polynomials that is learned (Molina et al. 2020), one for all units of a layer.

    ``(a_0 + a_1 x + ... + a_5 x^5) / (1 + |b_1 x| + ... + |b_4 x^4|)``, which has no pole (version
    A of ml-research/rational_activations). At the start it is a leaky ReLU of slope 0.01, to 0.03
    on [-3, 3]; the coefficients are a least-squares fit of ours.

    Attributes:
        numerator: a, [6].
        denominator: b, [4].
    """

    starts: ClassVar[dict[str, tuple[float, ...]]] = {
        "numerator": (0.02980387, 0.6183809, 2.322277, 3.049132, 1.483341, 0.2505518),
        "denominator": (1.141484, 4.389077, 0.8702777, 0.3465376),
    }

    def __init__(self) -> None:
        super().__init__()
        self.numerator = nn.Parameter(torch.tensor(self.starts["numerator"]))
        self.denominator = nn.Parameter(torch.tensor(self.starts["denominator"]))

    def forward(self, x: Tensor) -> Tensor:
        """Map any shape to the same shape."""
        last = len(self.numerator) - 1
        above = self.numerator[last]
        for k in range(last - 1, -1, -1):
            above = above * x + self.numerator[k]
        power, below = x, 1 + (self.denominator[0] * x).abs()
        for k in range(1, len(self.denominator)):
            power = power * x
            below = below + (self.denominator[k] * power).abs()
        return above / below


ACTIVATIONS: dict[str, Callable[[MLPOptions], nn.Module]] = {
    "relu": lambda _: nn.ReLU(),
    "leaky-relu": lambda options: nn.LeakyReLU(options.leaky_slope),
    "tanh": lambda _: nn.Tanh(),
    "crelu": lambda _: CReLU(),
    "sigmoid": lambda _: Sigmoid(),
    "elu": lambda _: ELU(),
    "swish": lambda _: Swish(),
    "fourier-features": lambda _: Fourier(),
    "rational": lambda _: Rational(),
    "smooth-leaky": lambda _: SmoothLeaky(),
    "aid": lambda options: AID(options.aid_p),
}
"""Name to what makes the module, given the options of the network."""

COPIES = {"crelu": 2, "fourier-features": 2}
"""Features of a unit, where they are several."""


def make_activation(options: MLPOptions) -> nn.Module:
    """The activation that options name."""
    return ACTIVATIONS[options.activation](options)
