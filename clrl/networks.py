"""Networks: ordinary modules that declare their hidden layers once."""

from clrl.agents.networks import ELU, MLP, CReLU, HiddenLayer, Network, Sigmoid, Swish
from clrl.agents.options import MLPOptions

__all__ = [
    "ELU",
    "MLP",
    "CReLU",
    "HiddenLayer",
    "MLPOptions",
    "Network",
    "Sigmoid",
    "Swish",
]
