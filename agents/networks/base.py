"""What a network is: an ordinary module that declares its hidden layers once.

The declaration (`HiddenLayer`) is what unit-level update rules and unit metrics read: which
weights come into a layer of units, which module computes its activations, which weights go
out.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn


@dataclass(frozen=True)
class HiddenLayer:
    """One layer of hidden units, by the paths of the modules around it.

    Attributes:
        name: for metrics, ``"layer_1"`` being nearest to the input.
        incoming: the linear map whose row i feeds unit i; of a convolution, a unit is a channel.
        activation: the module whose output is the features.
        outgoing: the linear map whose columns read the features.
        also_outgoing: further linear maps that read them, as several heads over one trunk do.
        norm: the LayerNorm between `incoming` and `activation`; empty for none.
        norm_after: the LayerNorm of the features, a part of `activation`; empty for none.
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
    also_outgoing: tuple[str, ...] = ()
    norm_after: str = ""

    @property
    def readers(self) -> tuple[str, ...]:
        """Every linear map that reads the features."""
        return (self.outgoing, *self.also_outgoing)


@dataclass(frozen=True)
class Dense:
    """A linear map with a bias, and what follows it.

    Attributes:
        path: of the ``nn.Linear``.
        activation: its name; ``"identity"`` for none.
        slope: of ``leaky-relu`` below zero.
    """

    path: str
    activation: str = "identity"
    slope: float = 0.0


class Network(nn.Module):
    """A module with declared hidden layers and a known initialiser.

    Attributes:
        hidden_layers: the declaration, from input to output.
        projects: whether `project` is to be called after updates.
    """

    hidden_layers: tuple[HiddenLayer, ...] = ()
    projects: bool = False

    @property
    def heads(self) -> tuple[str, ...]:
        """Paths of the linear maps whose outputs are the network's.

        Unless a network says so itself, those that read a hidden layer and feed none.
        """
        incoming = {layer.incoming for layer in self.hidden_layers}
        readers = (path for layer in self.hidden_layers for path in layer.readers)
        return tuple(path for path in dict.fromkeys(readers) if path not in incoming)

    @property
    def chains(self) -> tuple[tuple[Dense, ...], ...]:
        """The whole network, if it is no more than this: dense layers one after another.

        Of several chains each reads the network's inputs, and its outputs are theirs side by side.
        Empty where a network is anything else.
        """
        return ()

    def project(self, parameters: Mapping[str, Tensor]) -> None:
        """Put parameters back to where they are to be, in place, after whatever changed them.

        Args:
            parameters: name to [members, *shape].
        """

    def fresh(self, name: str, generator: torch.Generator) -> Tensor:
        """A new draw of one parameter from the distribution it was initialised with.

        Args:
            name: the parameter's name, as in ``named_parameters``.
            generator: the source of randomness.

        Returns:
            A tensor of the parameter's shape and type; the network is not changed.
        """
        raise NotImplementedError

    def by_unit(self, layer: HiddenLayer, output: Tensor, lead: int) -> Tensor:
        """What an activation gave, as features of examples.

        Args:
            layer: whose activation.
            output: [..., features], or of a convolution [..., channels, height, width].
            lead: axes to be kept as they are, in front.

        Returns:
            [*lead, examples, features]; of a convolution each place is an example.
        """
        places = self.get_parameter(f"{layer.incoming}.weight").ndim - 2
        if places:
            output = output.movedim(-1 - places, -1)
        return output.reshape(*output.shape[:lead], -1, output.shape[-1])

    def part_of(self, name: str) -> str:
        """The part of the network that a parameter belongs to, for the tags of metrics."""
        return "network"

    def initialise(self, generator: torch.Generator) -> None:
        """Draw every parameter anew, in the order of ``named_parameters``."""
        with torch.no_grad():
            for name, parameter in self.named_parameters():
                parameter.copy_(self.fresh(name, generator))
