"""A network of one's own: one hidden layer, and a way past it."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from clrl.networks import HiddenLayer, Network


@dataclass(frozen=True)
class ShortcutOptions:
    """Options of `Shortcut`.

    Attributes:
        width: units of the hidden layer.
    """

    width: int = 32


class Shortcut(Network):
    """y = W_2 tanh(W_1 x + b_1) + b_2 + V x."""

    Options = ShortcutOptions
    hidden_layers = (HiddenLayer("layer_1", "inner", "tanh", "outer", function="tanh"),)

    def __init__(
        self,
        inputs: int,
        outputs: int,
        options: ShortcutOptions,
        generator: torch.Generator,
        output_gain: float = 1.0,
    ) -> None:
        super().__init__()
        self.inner, self.outer, self.past = (
            nn.Linear(*sizes, bias=bias, device="meta").to_empty(device="cpu")
            for *sizes, bias in (
                (inputs, options.width, True),
                (options.width, outputs, True),
                (inputs, outputs, False),
            )
        )
        self.tanh = nn.Tanh()
        self.initialise(generator)

    def forward(self, x: Tensor) -> Tensor:
        return self.outer(self.tanh(self.inner(x))) + self.past(x)

    def fresh(self, name: str, generator: torch.Generator) -> Tensor:
        shape = self.get_parameter(name).shape
        if name.endswith("bias"):
            return torch.zeros(shape)
        return torch.empty(shape).normal_(std=shape[1] ** -0.5, generator=generator)
