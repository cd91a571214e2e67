"""ReGraMa: units known by their gradients start anew, over any base optimizer."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Literal

import torch
from torch import Tensor

from clrl.agents.optim.members import Members
from clrl.agents.optim.options import ReGraMaOptions
from clrl.agents.optim.units import UnitReset, Units

_LEAST = 1e-9  # is added to a layer's mean: where there is no gradient at all, every score is 0


class ReGraMa(UnitReset):
    """Every so many updates, units whose incoming weights have small gradients start anew.

    The score of unit i of a layer is (ReGraMa, 2025, after two re-implementations, the paper's
    own code not being known)::

        G_i = mean_j |dL/dW_ij| / (mean over units of the same + 1e-9)

    Where G_i <= ``threshold``, the unit gets new incoming weights and the incoming bias 0, with an
    optimizer's state that is as new. It is ReDo by gradients, so that it also sees units that
    always fire and do not learn, with any activation.

    There are two forms in public. In one the outgoing weights are kept, the default; in the other
    (LucMc/continual-learning) they go to 0 with their state, ``outgoing="zero"``. Threshold and
    interval are the latter's. Here new weights come from the network's own initialiser, and
    only hidden units start anew: no output, and no norm but a unit's own part of it.

    Args:
        members: the learners; their network declares its hidden layers.
        threshold: tau; 0 takes units without any gradient, a negative number none.
        every: updates from one look at the units to the next.
        updates: a look is at the mean size of gradients in so many latest updates (but never beyond
            the last look). The public codes look at one, with batches of hundreds; of one example
            most gradients may be 0.
        fraction: the most of a layer's units that start anew in one look, those with the least
            gradients; with a threshold that nothing is above, just so many.
        outgoing: what becomes of the outgoing weights: ``"keep"``, ``"zero"`` or ``"fresh"``, a
            new draw.
    """

    needs_features = False

    def __init__(
        self,
        members: Members,
        threshold: float = ReGraMaOptions.threshold,
        every: int = ReGraMaOptions.every,
        updates: int = ReGraMaOptions.updates,
        fraction: float = ReGraMaOptions.fraction,
        outgoing: Literal["keep", "zero", "fresh"] = ReGraMaOptions.outgoing,
    ) -> None:
        super().__init__(members)
        self.threshold = threshold
        self.every = every
        self.updates = updates
        self.fraction = fraction
        self.outgoing = outgoing
        self._sums = {
            one.name: torch.zeros(one.w_in.shape[:2], device=one.w_in.device) for one in self.layers
        }

    def due(self, layer: Units, features: Mapping[str, Tensor]) -> Iterator[tuple[int, Tensor]]:
        """Take the last gradients in, and name the units with the least where it is time to look.

        Args:
            layer: which layer's.
            features: not looked at.
        """
        left = -self.steps % self.every
        if left >= self.updates:
            return
        own = self._sums[layer.name]
        own += gradient_sizes(layer)
        if left:
            return
        score = own / (own.mean(dim=1, keepdim=True) + _LEAST * min(self.updates, self.every))
        most = int(self.fraction * layer.size)
        for member, sizes in enumerate(score):
            least = torch.topk(sizes, most, largest=False).indices
            yield member, least[sizes[least] <= self.threshold]
        own.zero_()

    def state_dict(self) -> dict[str, Any]:
        """The step count, and the latest gradients' sizes."""
        return super().state_dict() | {"sums": dict(self._sums)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore what `state_dict` gave."""
        super().load_state_dict(state)
        for name, own in self._sums.items():
            own.copy_(state["sums"][name])


def gradient_sizes(layer: Units) -> Tensor:
    """Mean size of the last step's gradients of each unit's incoming weights, [members, units]."""
    return layer.incoming_gradient().abs().flatten(2).mean(dim=2)
