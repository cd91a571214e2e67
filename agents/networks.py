"""Networks: ordinary modules that declare their hidden layers once.

The declaration (`HiddenLayer`) is what unit-level update rules and unit metrics read: which
weights come into a layer of units, which module computes its activations, which weights go
out.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from clrl.agents.options import MLPOptions


@dataclass(frozen=True)
class HiddenLayer:
    """One layer of hidden units, by the paths of the modules around it.

    Attributes:
        name: for metrics, ``"layer_1"`` being nearest to the input.
        incoming: the linear map whose row i feeds unit i.
        activation: the module whose output is the features.
        outgoing: the linear map whose columns read the features.
        norm: the LayerNorm between `incoming` and `activation`; empty for none.
        copies: features a unit produces (2 for CReLU: feature ``c * units + i`` is copy c
            of unit i).
        function: the activation's name, such as ``"relu"``; it decides what a dead unit is.
    """

    name: str
    incoming: str
    activation: str
    outgoing: str
    norm: str = ""
    copies: int = 1
    function: str = "relu"


class Network(nn.Module):
    """A module with declared hidden layers and a known initialiser.

    Attributes:
        hidden_layers: the declaration, from input to output.
    """

    hidden_layers: tuple[HiddenLayer, ...] = ()

    def fresh(self, name: str, generator: torch.Generator) -> Tensor:
        """A new draw of one parameter from the distribution it was initialised with.

        Args:
            name: the parameter's name, as in ``named_parameters``.
            generator: the source of randomness.

        Returns:
            A tensor of the parameter's shape and type; the network is not changed.
        """
        raise NotImplementedError

    def part_of(self, name: str) -> str:
        """The part of the network that a parameter belongs to, for the tags of metrics."""
        return "network"

    def initialise(self, generator: torch.Generator) -> None:
        """Draw every parameter anew, in the order of ``named_parameters``."""
        with torch.no_grad():
            for name, parameter in self.named_parameters():
                parameter.copy_(self.fresh(name, generator))


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


_ACTIVATIONS: dict[str, Callable[[MLPOptions], nn.Module]] = {
    "relu": lambda _: nn.ReLU(),
    "leaky-relu": lambda options: nn.LeakyReLU(options.leaky_slope),
    "tanh": lambda _: nn.Tanh(),
    "crelu": lambda _: CReLU(),
    "sigmoid": lambda _: Sigmoid(),
    "elu": lambda _: ELU(),
    "swish": lambda _: Swish(),
}


class MLP(Network):
    """Fully connected layers: linear (, LayerNorm), activation, ..., linear.

    Args:
        input_size: length of an input vector.
        num_outputs: length of an output vector.
        options: widths, activation, LayerNorm and initialiser.
        generator: source of the initial parameters; nothing is drawn from elsewhere.
        output_gain: gain of the output's initialiser, where that has one.

    Initialisers, for a linear map with n inputs (weights; biases):

    - ``torch``: U(-1/sqrt(n), 1/sqrt(n)) for both, as ``torch.nn.Linear``.
    - ``lecun``: U(-sqrt(3/n), sqrt(3/n)); 0 (LeCun et al. 1998, uniform form).
    - ``kaiming``: U(-g sqrt(3/n), g sqrt(3/n)) with the activation's gain g in hidden
      layers and 1 at the output; 0 (He et al. 2015, fan-in).
    - ``orthogonal``: orthogonal with gain sqrt(2) in hidden layers and `output_gain` at the
      output; 0 (Saxe et al. 2014; gains as in Stable-Baselines3).

    LayerNorm starts at scale 1, shift 0.
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
        self.norms = nn.ModuleList(
            nn.LayerNorm(width) for width in options.widths if options.layer_norm
        )
        self.activations = nn.ModuleList(
            _ACTIVATIONS[options.activation](options) for _ in options.widths
        )
        self.hidden_layers = tuple(
            HiddenLayer(
                name=f"layer_{i + 1}",
                incoming=f"linears.{i}",
                activation=f"activations.{i}",
                outgoing=f"linears.{i + 1}",
                norm=f"norms.{i}" if options.layer_norm else "",
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
            if self.options.layer_norm:
                x = self.norms[i](x)
            x = activation(x)
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
