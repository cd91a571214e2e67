"""Networks on the unit sphere (SimbaV2, Lee et al. 2025)."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from clrl.agents.networks.base import HiddenLayer, Network
from clrl.agents.networks.initialisers import orthogonal, unit_rows
from clrl.agents.networks.residual import linear
from clrl.agents.options import SimbaV2Options

_SHIFT = 3.0


def on_sphere(x: Tensor) -> Tensor:
    """Vectors along the last axis, scaled to length 1; what is 0 stays 0."""
    return x / (x * x).sum(dim=-1, keepdim=True).clamp(min=1e-16).sqrt()


class Scaler(nn.Module):
    """A learned factor for each number: ``scale * begins / unit``.

    Args:
        size: of the vectors.
        begins: what every factor is at first.
        unit: what the parameter is at first, which decides how fast it is learned.

    Attributes:
        scale: the parameter [size].
    """

    def __init__(self, size: int, begins: float, unit: float) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.full((size,), unit))
        self.unit = unit
        self._factor = begins / unit

    def forward(self, x: Tensor) -> Tensor:
        """Scale [..., size]."""
        return x * (self.scale * self._factor)


class _Block(nn.Module):
    def __init__(self, options: SimbaV2Options) -> None:
        super().__init__()
        width, inner = options.width, options.expansion * options.width
        begins = math.sqrt(2 / width) / math.sqrt(options.expansion)
        self.inner = linear(width, inner, bias=False)
        self.activation = nn.Sequential(Scaler(inner, begins, begins), nn.ReLU())
        self.outer = linear(inner, width, bias=False)
        self.alpha = Scaler(width, 1 / (options.blocks + 1), 1 / math.sqrt(width))

    def forward(self, x: Tensor) -> Tensor:
        new = on_sphere(self.outer(self.activation(self.inner(x))))
        return on_sphere(x + self.alpha(new - x))


class SimbaV2(Network):
    """Features and weights that are unit vectors, and steps between features along the sphere.

    Lee et al., "Hyperspherical normalization for scalable deep reinforcement learning" (ICML
    2025), after the authors' and others' code. With N(x) = x / |x|, s learned factors and h the
    stream::

        h = N(s (E N([input, 3])))
        h <- N(h + alpha (N(V relu(s (W h))) - h))  for each block
        output = O (s (P h)) + bias

    Every row of a weight matrix (of one output each) is drawn orthogonal and has length 1, at the
    start and after every update, whatever the optimizer did, whose moments are left alone.
    Factors begin at sqrt(2 / width), in blocks at that over sqrt(expansion), in the head at 1;
    alpha at 1 / (blocks + 1), kept in units of 1 / sqrt(width).

    What belongs to the agent there is not part of it: running statistics of observations
    (``agent.normalize_observations``), 101 classes of returns in place of a value, scaled rewards,
    Adam at 1e-4 falling to 5e-5. In the code 1e-8 is added to ReLU's output, so that there is
    always a direction; here a vector of zeros stays one, and dead units can be told.

    In blocks there are ``expansion`` times ``width`` units, which are the hidden layers; the stream
    declares no units. In the source the actor has one block of width 128, the critic two of 512.

    Args:
        input_size: length of an input vector.
        num_outputs: length of an output vector.
        options: width, blocks and expansion.
        generator: source of the initial parameters.
        output_gain: not used: every row has length 1.
    """

    Options = SimbaV2Options
    projects = True

    def __init__(
        self,
        input_size: int,
        num_outputs: int,
        options: SimbaV2Options,
        generator: torch.Generator,
        output_gain: float = 1.0,
    ) -> None:
        super().__init__()
        width = options.width
        begins = math.sqrt(2 / width)
        self.stem = linear(input_size + 1, width, bias=False)
        self.stem_scaler = Scaler(width, begins, begins)
        self.blocks = nn.ModuleList(_Block(options) for _ in range(options.blocks))
        self.penultimate = linear(width, width, bias=False)
        self.head_scaler = Scaler(width, 1.0, 1.0)
        self.head = linear(width, num_outputs)
        self.hidden_layers = tuple(
            HiddenLayer(
                f"layer_{i + 1}",
                f"blocks.{i}.inner",
                f"blocks.{i}.activation",
                f"blocks.{i}.outer",
            )
            for i in range(options.blocks)
        )
        self.initialise(generator)

    @property
    def heads(self) -> tuple[str, ...]:
        """The last linear map."""
        return ("head",)

    def forward(self, x: Tensor) -> Tensor:
        """Map inputs [..., input_size] to outputs [..., num_outputs]."""
        x = torch.cat([x, torch.full_like(x[..., :1], _SHIFT)], dim=-1)
        x = on_sphere(self.stem_scaler(self.stem(on_sphere(x))))
        for block in self.blocks:
            x = block(x)
        outputs: Tensor = self.head(self.head_scaler(self.penultimate(x)))
        return outputs

    def fresh(self, name: str, generator: torch.Generator) -> Tensor:
        """A new draw of one parameter; see `Network.fresh`."""
        shape = self.get_parameter(name).shape
        module: Any = self.get_submodule(name.rpartition(".")[0])
        if isinstance(module, Scaler):
            return torch.full(shape, module.unit)
        if len(shape) == 1:
            return torch.zeros(shape)
        return unit_rows(orthogonal(shape, 1.0, generator))

    def project(self, parameters: Mapping[str, Tensor]) -> None:
        """Give every row of every weight matrix length 1; see `Network.project`."""
        for name, value in parameters.items():
            if name.endswith(".weight"):
                unit_rows(value)
