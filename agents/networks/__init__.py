"""Networks, one file a family: ordinary modules that declare their hidden layers once."""

from clrl.agents.networks.activations import ELU, CReLU, Sigmoid, Swish
from clrl.agents.networks.base import HiddenLayer, Network
from clrl.agents.networks.maps import Map, maps, norms
from clrl.agents.networks.mlp import MLP

__all__ = [
    "ELU",
    "MLP",
    "CReLU",
    "HiddenLayer",
    "Map",
    "Network",
    "Sigmoid",
    "Swish",
    "maps",
    "norms",
]
