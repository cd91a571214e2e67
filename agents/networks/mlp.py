"""Fully connected networks."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from clrl.agents.networks.activations import ACTIVATIONS
from clrl.agents.networks.base import HiddenLayer, Network
from clrl.agents.options import MLPOptions
from clrl.errors import UsageError


class MLP(Network):
    """Fully connected layers: linear (, normalisation), activation (, dropout), ..., linear.

    Args:
        input_size: length of an input vector.
        num_outputs: length of an output vector.
        options: widths, activation, normalisation, dropout and initialiser.
        generator: source of the initial parameters; nothing is drawn from elsewhere.
        output_gain: gain of the output's initialiser, where that has one.

    Initialisers, for a linear map with n inputs (weights; biases):

    - ``torch``: U(-1/sqrt(n), 1/sqrt(n)) for both, as ``torch.nn.Linear``.
    - ``lecun``: U(-sqrt(3/n), sqrt(3/n)); 0 (LeCun et al. 1998, uniform form).
    - ``kaiming``: U(-g sqrt(3/n), g sqrt(3/n)) with the activation's gain g in hidden
      layers and 1 at the output; 0 (He et al. 2015, fan-in).
    - ``orthogonal``: orthogonal with gain sqrt(2) in hidden layers and `output_gain` at the
      output; 0 (Saxe et al. 2014; gains as in Stable-Baselines3).

    Normalisation starts at scale 1, shift 0.

    Raises:
        UsageError: both kinds of normalisation at once.
    """

    def __init__(
        self,
        input_size: int,
        num_outputs: int,
        options: MLPOptions,
        generator: torch.Generator,
        output_gain: float = 1.0,
    ) -> None:
        super().__init__()
        self.options = options
        self._output_gain = output_gain
        copies = 2 if options.activation == "crelu" else 1
        sizes_in = [input_size, *(copies * width for width in options.widths)]
        sizes_out = [*options.widths, num_outputs]
        self.linears = nn.ModuleList(
            nn.Linear(fan_in, fan_out, device="meta").to_empty(device="cpu")
            for fan_in, fan_out in zip(sizes_in, sizes_out, strict=True)
        )
        if options.layer_norm and options.batch_norm:
            raise UsageError("network: expected layer_norm or batch_norm, got both")
        norm = nn.LayerNorm if options.layer_norm else nn.BatchNorm1d
        normalised = options.layer_norm or options.batch_norm
        self.norms = nn.ModuleList(norm(width) for width in options.widths if normalised)
        self.dropout = nn.Dropout(options.dropout)
        self.activations = nn.ModuleList(
            ACTIVATIONS[options.activation](options) for _ in options.widths
        )
        self.hidden_layers = tuple(
            HiddenLayer(
                name=f"layer_{i + 1}",
                incoming=f"linears.{i}",
                activation=f"activations.{i}",
                outgoing=f"linears.{i + 1}",
                norm=f"norms.{i}" if normalised else "",
                copies=copies,
                function=options.activation,
            )
            for i in range(len(options.widths))
        )
        self.initialise(generator)

    def forward(self, x: Tensor) -> Tensor:
        """Map inputs [..., input_size] to outputs [..., num_outputs]."""
        for i, activation in enumerate(self.activations):
            x = self.linears[i](x)
            if self.norms:
                x = self.norms[i](x)
            x = self.dropout(activation(x))
        return self.linears[-1](x)  # type: ignore[no-any-return]

    def fresh(self, name: str, generator: torch.Generator) -> Tensor:
        """A new draw of one parameter; see `Network.fresh`."""
        shape = self.get_parameter(name).shape
        kind, index, part = name.split(".")
        if kind == "norms":
            return torch.ones(shape) if part == "weight" else torch.zeros(shape)
        fan_in = self.get_parameter(f"linears.{index}.weight").shape[1]
        hidden = int(index) < len(self.options.widths)
        init = self.options.init
        if init == "torch":
            return _uniform(shape, 1 / math.sqrt(fan_in), generator)
        if part == "bias":
            return torch.zeros(shape)
        if init == "orthogonal":
            gain = math.sqrt(2) if hidden else self._output_gain
            return nn.init.orthogonal_(torch.empty(shape), gain, generator=generator)
        gain = self._gain() if init == "kaiming" and hidden else 1.0
        return _uniform(shape, gain * math.sqrt(3 / fan_in), generator)

    def _gain(self) -> float:
        """The activation's gain, as ``torch.nn.init.calculate_gain`` gives it."""
        activation = self.options.activation
        if activation == "leaky-relu":
            return nn.init.calculate_gain("leaky_relu", self.options.leaky_slope)
        if activation == "tanh":
            return nn.init.calculate_gain("tanh")
        if activation == "sigmoid":
            return nn.init.calculate_gain("sigmoid")
        return nn.init.calculate_gain("relu")


def _uniform(shape: Sequence[int], bound: float, generator: torch.Generator) -> Tensor:
    return torch.empty(shape).uniform_(-bound, bound, generator=generator)
