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
from clrl.agents.optim.elementwise import ElementwiseAdam, ElementwiseAdamW
from clrl.agents.optim.members import Members
from clrl.agents.optim.rule import UpdateRule
from clrl.agents.optim.shrink_perturb import ShrinkAndPerturb
from clrl.agents.optim.units import UnitReset, Units
from clrl.agents.optim.upgd import UPGD
from clrl.agents.penalties.base import Penalty, Sight
from clrl.agents.penalties.l2_init import L2Init

__all__ = [
    "UPGD",
    "AdaUPGD",
    "AddOn",
    "ContinualBackprop",
    "ElementwiseAdam",
    "ElementwiseAdamW",
    "L2Init",
    "Members",
    "Penalty",
    "ShrinkAndPerturb",
    "Sight",
    "UnitReset",
    "Units",
    "UpdateRule",
    "WithAddOns",
    "compose",
]
