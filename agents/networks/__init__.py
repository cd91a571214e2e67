"""Networks, one file a family: ordinary modules that declare their hidden layers once."""

from clrl.agents.networks.activations import (
    AID,
    ELU,
    CReLU,
    Fourier,
    Rational,
    Sigmoid,
    SmoothLeaky,
    Swish,
)
from clrl.agents.networks.base import Dense, HiddenLayer, Network
from clrl.agents.networks.extension import Extension, extend, extensions
from clrl.agents.networks.maps import Map, maps, norms
from clrl.agents.networks.mlp import MLP
from clrl.agents.networks.residual import BroNet, ResidualMLP
from clrl.agents.networks.simba import SimbaV2

__all__ = [
    "AID",
    "ELU",
    "MLP",
    "BroNet",
    "CReLU",
    "Dense",
    "Extension",
    "Fourier",
    "HiddenLayer",
    "Map",
    "Network",
    "Rational",
    "ResidualMLP",
    "Sigmoid",
    "SimbaV2",
    "SmoothLeaky",
    "Swish",
    "extend",
    "extensions",
    "maps",
    "norms",
]
