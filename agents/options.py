"""Options of networks and agents; these dataclasses own the defaults. No torch here."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from clrl.options import NonNegativeFloat, PositiveInt


@dataclass(frozen=True)
class MLPOptions:
    """Options of `clrl.agents.networks.MLP`.

    Attributes:
        widths: units of each hidden layer, from input to output.
        activation: the non-linearity after each hidden layer.
        leaky_slope: slope of ``leaky-relu`` below zero.
        layer_norm: LayerNorm between each hidden linear map and its activation.
        init: how weights and biases are drawn.
    """

    widths: tuple[PositiveInt, ...] = (300, 150)
    activation: Literal["relu", "leaky-relu", "tanh", "crelu", "sigmoid", "elu", "swish"] = "relu"
    leaky_slope: NonNegativeFloat = 0.01
    layer_norm: bool = False
    init: Literal["torch", "lecun", "kaiming", "orthogonal"] = "torch"


@dataclass(frozen=True)
class SupervisedOptions:
    """Options of `clrl.agents.supervised.Supervised`.

    Attributes:
        batch_size: examples of one update; 1 is online learning.
        diagnose_every: updates between two samples of the quantities that cost extra
            (gradient norm, step plasticity); each logged value is their window mean.
    """

    batch_size: PositiveInt = 1
    diagnose_every: PositiveInt = 500
