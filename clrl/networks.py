"""Networks: ordinary modules that declare their hidden layers once."""

from clrl.agents.networks import (
    AID,
    ELU,
    MLP,
    BroNet,
    CReLU,
    Extension,
    Fourier,
    HiddenLayer,
    Network,
    Rational,
    ResidualMLP,
    Sigmoid,
    SimbaV2,
    SmoothLeaky,
    Swish,
    extend,
)
from clrl.agents.options import BroNetOptions, MLPOptions, ResidualMLPOptions, SimbaV2Options

__all__ = [
    "AID",
    "ELU",
    "MLP",
    "BroNet",
    "BroNetOptions",
    "CReLU",
    "Extension",
    "Fourier",
    "HiddenLayer",
    "MLPOptions",
    "Network",
    "Rational",
    "ResidualMLP",
    "ResidualMLPOptions",
    "Sigmoid",
    "SimbaV2",
    "SimbaV2Options",
    "SmoothLeaky",
    "Swish",
    "extend",
]
