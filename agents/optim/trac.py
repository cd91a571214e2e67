"""TRAC (Muppidi et al. 2024), over any base optimizer."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Literal

import torch
from torch import Tensor

from clrl.agents.optim.base import AddOn
from clrl.agents.optim.members import Index, Members
from clrl.agents.optim.options import TRACOptions

DISCOUNTS = (0.9, 0.99, 0.999, 0.9999, 0.99999, 0.999999)
"""Of the tuners; the method has no other setting that matters."""

_EPS = 1e-8
_FARTHEST = 9.0
"""Where erfi, 1e34 there, is held: beyond 26 it is no number."""


class TRAC(AddOn):
    """Go along the base's path as far from the start as that has paid, by a parameter-free rule.

    Muppidi, Zhang & Yang, "Fast TRAC: a parameter-free optimizer for lifelong reinforcement
    learning" (NeurIPS 2024); official code ComputationalRobotics/TRAC. With r the parameters at the
    start, g the gradient at w, u the step that the base proposes, and for each discount
    beta in 0.9, 0.99, ..., 0.999999 a tuner of its own (sigma and v, at first 1e-8 and 0)::

        d = (w - r) / (S + 1e-8),   H = <d, g>
        v <- beta^2 v + H^2,   sigma <- beta sigma - H
        S <- start * (sum over betas of erfi(sigma / (sqrt(2 v) + 1e-8)) / erfi(1 / sqrt(2)))
        w <- r + max(S, 0) (d + u)

    H and S are of one learner, over all its parameters, so that actor and critic share them; with
    ``parts="apart"`` each part of a network has its own, as where either has an optimizer of its
    own. The tuners are in double precision; in the code they are in single precision, and erfi is
    0.3 % off. S goes on from one step to the next without its max, as there.

    What else changes parameters is no step of the base. Where elements start anew, r is
    their new value from then on (`AddOn.started_anew`); what other add-ons do, such as clipping and
    noise, moves r along. (In the code either is taken for a displacement and, S being small, made
    millions of times greater.) A wrapper that is to see the base's step alone is listed first.

    The first steps are 1e-7 of the base's; the base's step size still matters: 1e-2 in the paper's
    control tasks, and 1e-3 in its ProcGen.

    Args:
        members: the learners.
        start: the scale of S, which is 10 times that at the first step.
        parts: of actor and critic; nothing else has parts.
    """

    def __init__(
        self,
        members: Members,
        start: float = TRACOptions.start,
        parts: Literal["together", "apart"] = TRACOptions.parts,
    ) -> None:
        super().__init__(members)
        self.start = start
        apart = parts == "apart"
        of = {n: members.network.part_of(n) if apart else "" for n in members.parameters}
        named = list(dict.fromkeys(of.values()))
        self._part = {name: named.index(part) for name, part in of.items()}
        size = (len(members.generators), len(named))
        self._scale = torch.zeros(size, dtype=torch.float64)  # S
        self._sigma = torch.full((*size, len(DISCOUNTS)), _EPS, dtype=torch.float64)
        self._v = torch.zeros((*size, len(DISCOUNTS)), dtype=torch.float64)
        self._reference = {name: own.clone() for name, own in members.parameters.items()}
        self._left = {name: own.clone() for name, own in members.parameters.items()}
        self._along: dict[str, Tensor] = {}  # d, of parameters with a gradient
        self._betas = torch.tensor(DISCOUNTS, dtype=torch.float64)

    def before_step(self, features: Mapping[str, Tensor]) -> None:
        """Find how far to go from the start from now on."""
        parameters = self.members.parameters
        gradients = self.members.gradients()
        reach = self._scale + _EPS
        found = []
        self._along = {}
        for name, part in self._part.items():
            own, reference, left = parameters[name], self._reference[name], self._left[name]
            reference.add_(own - left)
            left.copy_(own)
            if name in gradients:
                along = (own - reference).div_(_like(reach[:, part], own))
                self._along[name] = along
                found.append((along * gradients[name]).flatten(1).sum(dim=1))
        products = torch.zeros_like(self._scale)
        if found:  # moved together: on an accelerator each move is a wait
            for name, row in zip(self._along, torch.stack(found).cpu().double(), strict=True):
                products[:, self._part[name]] += row
        products = products.unsqueeze(2)
        self._v.mul_(self._betas.square()).add_(products.square())
        self._sigma.mul_(self._betas).sub_(products)
        ratio = self._sigma / (math.sqrt(2) * self._v.sqrt() + _EPS)
        tuned = erfi(ratio).cumsum(dim=2)[..., -1] / _ERFI_OF_ONE
        self._scale.copy_(self.start * tuned)

    def after_step(self, features: Mapping[str, Tensor]) -> None:
        """Go so far along the base's path."""
        reach = self._scale.clamp(min=0.0)
        for name, along in self._along.items():
            own, left = self.members.parameters[name], self._left[name]
            along.add_(own).sub_(left).mul_(_like(reach[:, self._part[name]], own))
            own.copy_(along.add_(self._reference[name]))
        for name, left in self._left.items():
            left.copy_(self.members.parameters[name])

    def started_anew(self, name: str, member: int, index: Index) -> None:
        """What is new is its own reference."""
        own = self.members.parameters[name]
        for kept in (self._reference[name], self._left[name]):
            kept[member, *index] = own[member, *index]

    def state_dict(self) -> dict[str, Any]:
        """The reference and where parameters were left, by name, and the tuners."""
        return {
            "reference": dict(self._reference),
            "left": dict(self._left),
            "scale": self._scale,
            "sigma": self._sigma,
            "v": self._v,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore what `state_dict` gave."""
        for kept, key in ((self._reference, "reference"), (self._left, "left")):
            for name, own in kept.items():
                own.copy_(state[key][name])
        for own, key in ((self._scale, "scale"), (self._sigma, "sigma"), (self._v, "v")):
            own.copy_(state[key])


def erfi(x: Tensor) -> Tensor:
    """The imaginary error function, of numbers in double precision, held at ±9."""
    x = x.clamp(-_FARTHEST, _FARTHEST)
    n = torch.arange(1, 201, dtype=torch.float64)
    powers = (x.square().unsqueeze(-1) / n).cumprod(dim=-1)  # x^2n / n!
    terms = (powers / (2 * n + 1)).cumsum(dim=-1)[..., -1]
    return 2 / math.sqrt(math.pi) * x * (1 + terms)


_ERFI_OF_ONE = float(erfi(torch.tensor(1 / math.sqrt(2), dtype=torch.float64)))


def _like(value: Tensor, parameter: Tensor) -> Tensor:
    """Numbers [members], to be applied to a parameter [members, ...]."""
    return value.to(parameter).view(-1, *(1 for _ in parameter.shape[1:]))
