"""What a network is: an ordinary module that declares its hidden layers once.

The declaration (`HiddenLayer`) is what unit-level update rules and unit metrics read: which
weights come into a layer of units, which module computes its activations, which weights go
out.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn


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
