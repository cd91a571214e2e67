"""Update rules, as ordinary optimizers of ordinary modules, and what acts beside them.

`compose` puts add-ons over any optimizer::

    from clrl.optim import ContinualBackprop, ElementwiseAdam, compose

    optimizer = compose(
        network,
        ElementwiseAdam(network.parameters()),
        [lambda members: ContinualBackprop(members, replacement_rate=1e-4)],
        generator,
    )
"""

from clrl.agents.optim.adaupgd import AdaUPGD
from clrl.agents.optim.base import AddOn, WithAddOns, compose
from clrl.agents.optim.continual_backprop import ContinualBackprop
from clrl.agents.optim.dash import DASH
from clrl.agents.optim.elementwise import ElementwiseAdam, ElementwiseAdamW
from clrl.agents.optim.fire import FIRE
from clrl.agents.optim.hare_tortoise import HareAndTortoise
from clrl.agents.optim.kron import Kron
from clrl.agents.optim.members import Members
from clrl.agents.optim.muon import Muon
from clrl.agents.optim.normalize_project import NormalizeAndProject
from clrl.agents.optim.obgd import ObGD
from clrl.agents.optim.optimizer_reset import AdamRel, OptimizerReset
from clrl.agents.optim.partial_resets import CalibratedPartialResets
from clrl.agents.optim.plasticity_injection import PlasticityInjection
from clrl.agents.optim.redo import ReDo
from clrl.agents.optim.regrama import ReGraMa
from clrl.agents.optim.resets import FullReset, HeadReset
from clrl.agents.optim.rule import UpdateRule
from clrl.agents.optim.self_normalized_resets import SelfNormalizedResets
from clrl.agents.optim.shrink_perturb import ShrinkAndPerturb
from clrl.agents.optim.soap import SOAP
from clrl.agents.optim.surgery import Surgery
from clrl.agents.optim.trac import TRAC
from clrl.agents.optim.units import UnitReset, Units
from clrl.agents.optim.upgd import UPGD
from clrl.agents.optim.weight_clipping import WeightClipping
from clrl.agents.penalties.base import Penalty, Seen, Sight
from clrl.agents.penalties.c_chain import CChain
from clrl.agents.penalties.infer import InFeR
from clrl.agents.penalties.l2_init import L2Init
from clrl.agents.penalties.parseval import Parseval
from clrl.agents.penalties.pfo import PFO
from clrl.agents.penalties.spectral import Spectral
from clrl.agents.penalties.wasserstein_init import WassersteinInit

__all__ = [
    "PFO",
    "SOAP",
    "UPGD",
    "AdaUPGD",
    "AddOn",
    "CChain",
    "ContinualBackprop",
    "ElementwiseAdam",
    "ElementwiseAdamW",
    "HareAndTortoise",
    "InFeR",
    "Kron",
    "L2Init",
    "Members",
    "Muon",
    "NormalizeAndProject",
    "ObGD",
    "Parseval",
    "Penalty",
    "PlasticityInjection",
    "ReDo",
    "CalibratedPartialResets",
    "DASH",
    "FIRE",
    "HeadReset",
    "FullReset",
    "ReGraMa",
    "AdamRel",
    "OptimizerReset",
    "TRAC",
    "SelfNormalizedResets",
    "Surgery",
    "Seen",
    "ShrinkAndPerturb",
    "Sight",
    "Spectral",
    "UnitReset",
    "Units",
    "UpdateRule",
    "WassersteinInit",
    "WeightClipping",
    "WithAddOns",
    "compose",
]
