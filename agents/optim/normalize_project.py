"""Normalize and project (Lyle et al. 2024), over any base optimizer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from clrl.agents.networks import maps, norms
from clrl.agents.optim.base import AddOn
from clrl.agents.optim.members import Members
from clrl.agents.optim.options import NormalizeAndProjectOptions


class NormalizeAndProject(AddOn):
    """Give the weights of each hidden layer back the norm that they began with.

    After every ``every``-th step of the base, for the weights W and the bias b that feed a hidden
    layer::

        (W, b) <- (W, b) * |(W, b) at the start| / |(W, b)|

    Where a normalisation follows, what the network computes does not change by it, and the step
    size keeps its meaning: that is the method's other half, and the network's to have
    (``network.layer_norm``). Heads, which nothing normalises, are left free, as are the base's
    moments. Source: Lyle et al., "Normalization and effective learning rates in reinforcement
    learning" (NeurIPS 2024), after re-implementations, there being no official code. The paper's
    layers project W alone; with ``biases`` (the default) W and b are scaled together, without
    which LN(Wx + b) is not the same before and after; for a layer without bias these are one.
    Layers are found by what feeds a declared hidden layer, and not by their names, by which a
    public suite projects scales of normalisation.

    Args:
        members: the learners.
        every: steps of the base from one projection to the next.
        biases: whether a layer's bias is scaled with its weights, and counts in their norm.
        norm_decay: the share of the way that scales of normalisation go back to 1, and shifts to
            0, at every projection; 0 leaves them free.
    """

    def __init__(
        self,
        members: Members,
        every: int = NormalizeAndProjectOptions.every,
        biases: bool = NormalizeAndProjectOptions.biases,
        norm_decay: float = NormalizeAndProjectOptions.norm_decay,
    ) -> None:
        super().__init__(members)
        self.every = every
        self.norm_decay = norm_decay
        hidden = [own for own in maps(members.network) if own.hidden]
        self._layers = {own.path: own.names if biases else (own.weight,) for own in hidden}
        self._norms = norms(members.network)
        self._steps = 0
        self._start = {path: self._norm(names) for path, names in self._layers.items()}

    def _norm(self, names: Sequence[str]) -> Tensor:
        """Of some parameters together, [members]."""
        own = [self.members.parameters[name].flatten(1) for name in names]
        return sum((value * value).sum(dim=1) for value in own).sqrt()  # type: ignore[union-attr]

    def after_step(self, features: Mapping[str, Tensor]) -> None:
        """Project where it is time to; see the class."""
        self._steps += 1
        if self._steps % self.every:
            return
        parameters = self.members.parameters
        for path, names in self._layers.items():
            norm = self._norm(names)
            # What has shrunk to nothing has no direction to be scaled along.
            factor = torch.where(norm > 0, self._start[path] / norm, 1.0)
            for name in names:
                value = parameters[name]
                value.mul_(factor.view(-1, *(1 for _ in value.shape[1:])))
        for path in self._norms if self.norm_decay else ():
            for name, rest in ((f"{path}.weight", 1.0), (f"{path}.bias", 0.0)):
                if name in parameters:
                    parameters[name].mul_(1 - self.norm_decay).add_(rest * self.norm_decay)

    def state_dict(self) -> dict[str, Any]:
        """The norms at the start, [members] a layer, and the step count."""
        return {"steps": self._steps, "start": dict(self._start)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore what `state_dict` gave."""
        self._steps = state["steps"]
        for path, own in self._start.items():
            own.copy_(state["start"][path])
