"""Activations, as modules that treat all members of a population alike."""

from __future__ import annotations

from collections.abc import Callable

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


ACTIVATIONS: dict[str, Callable[[MLPOptions], nn.Module]] = {
    "relu": lambda _: nn.ReLU(),
    "leaky-relu": lambda options: nn.LeakyReLU(options.leaky_slope),
    "tanh": lambda _: nn.Tanh(),
    "crelu": lambda _: CReLU(),
    "sigmoid": lambda _: Sigmoid(),
    "elu": lambda _: ELU(),
    "swish": lambda _: Swish(),
}
"""Name to what makes the module, given the options of the network."""
