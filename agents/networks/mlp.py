"""Fully connected networks."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from clrl.agents.networks.activations import COPIES, Rational, make_activation
from clrl.agents.networks.base import Dense, HiddenLayer, Network
from clrl.agents.networks.initialisers import orthogonal, sparse, uniform
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
    - ``sparse``: as ``torch``, but that nine in ten inputs of every output are 0, rounded up; 0
      (Elsayed et al. 2024, streaming-drl). There a layer of nine inputs or less is then all 0;
      here one input is left.

    Normalisation starts at scale 1, shift 0. Where it is placed after the activation, the features
    that metrics and resets of units see are the normalised ones.

    A layer of ``fourier-features`` has half as many units as features, so that its width is kept
    (Lewandowski et al. 2025); one of ``crelu`` has as many units as its width.

    Raises:
        UsageError: both kinds of normalisation at once, or half a unit.
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
        copies = COPIES.get(options.activation, 1)
        units = options.widths
        if options.activation == "fourier-features":
            if any(width % 2 for width in units):
                raise UsageError(
                    "network.widths: fourier-features has two features a unit; expected even widths"
                )
            units = tuple(width // 2 for width in units)
        features = [copies * number for number in units]
        sizes_in = [input_size, *features]
        sizes_out = [*units, num_outputs]
        self.linears = nn.ModuleList(
            nn.Linear(fan_in, fan_out, device="meta").to_empty(device="cpu")
            for fan_in, fan_out in zip(sizes_in, sizes_out, strict=True)
        )
        if options.layer_norm and options.batch_norm:
            raise UsageError("network: expected layer_norm or batch_norm, got both")
        normalised = options.layer_norm or options.batch_norm
        before = normalised and options.norm_place == "before"
        after = normalised and options.norm_place == "after"
        self.norms = nn.ModuleList(_norm(options, number) for number in units if before)
        self.dropout = nn.Dropout(options.dropout)
        self.activations = nn.ModuleList(
            nn.Sequential(make_activation(options), _norm(options, number))
            if after
            else make_activation(options)
            for number in features
        )
        self.hidden_layers = tuple(
            HiddenLayer(
                name=f"layer_{i + 1}",
                incoming=f"linears.{i}",
                activation=f"activations.{i}",
                outgoing=f"linears.{i + 1}",
                norm=f"norms.{i}" if before else "",
                norm_after=f"activations.{i}.1" if after else "",
                copies=copies,
                function=options.activation,
            )
            for i in range(len(options.widths))
        )
        self.initialise(generator)

    @property
    def heads(self) -> tuple[str, ...]:
        """The last linear map."""
        return (f"linears.{len(self.options.widths)}",)

    @property
    def chains(self) -> tuple[tuple[Dense, ...], ...]:
        """See `Network.chains`."""
        options = self.options
        if options.layer_norm or options.batch_norm or options.dropout:
            return ()
        if options.activation not in ("relu", "leaky-relu", "tanh", "sigmoid"):
            return ()
        hidden = (
            Dense(layer.incoming, options.activation, options.leaky_slope)
            for layer in self.hidden_layers
        )
        return ((*hidden, Dense(self.heads[0])),)

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
        path, _, part = name.rpartition(".")
        module = self.get_submodule(path)
        if isinstance(module, Rational):
            return torch.tensor(module.starts[part])
        if not isinstance(module, nn.Linear):
            return torch.ones(shape) if part == "weight" else torch.zeros(shape)
        fan_in, hidden, init = module.in_features, path not in self.heads, self.options.init
        if init == "torch":
            return uniform(shape, 1 / math.sqrt(fan_in), generator)
        if part == "bias":
            return torch.zeros(shape)
        if init == "sparse":
            return sparse(shape, _SPARSITY, generator)
        if init == "orthogonal":
            return orthogonal(shape, math.sqrt(2) if hidden else self._output_gain, generator)
        gain = self._gain() if init == "kaiming" and hidden else 1.0
        return uniform(shape, gain * math.sqrt(3 / fan_in), generator)

    def _gain(self) -> float:
        """The activation's gain, as ``torch.nn.init.calculate_gain`` gives it."""
        activation = self.options.activation
        if activation == "leaky-relu":
            return nn.init.calculate_gain("leaky_relu", self.options.leaky_slope)
        if activation == "fourier-features":
            return 1.0
        if activation == "tanh":
            return nn.init.calculate_gain("tanh")
        if activation == "sigmoid":
            return nn.init.calculate_gain("sigmoid")
        return nn.init.calculate_gain("relu")


_SPARSITY = 0.9


def _norm(options: MLPOptions, size: int) -> nn.Module:
    if options.layer_norm:
        return nn.LayerNorm(size, elementwise_affine=options.norm_parameters)
    return nn.BatchNorm1d(size, affine=options.norm_parameters)
