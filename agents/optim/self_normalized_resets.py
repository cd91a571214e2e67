"""Self-normalized resets (Farias & Jozefiak 2025), over any base optimizer."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor

from clrl.agents.optim.members import Members
from clrl.agents.optim.options import SelfNormalizedResetsOptions
from clrl.agents.optim.units import UnitReset, Units


class SelfNormalizedResets(UnitReset):
    """A unit starts anew when it has been silent for longer than is usual for it.

    Each unit is held against its own past alone (Farias & Jozefiak, "Self-normalized resets for
    plasticity in continual learning", ICLR 2025; official code ajozefiak/SelfNormalizedResets).
    After each update:

    1. Where a unit fires (gives more than ``above``) for any example of the batch, the updates
       since it last fired, its age A, go into its histogram if there were any, and A <- 0. Else
       A <- A + 1.
    2. Where A >= tau, the unit starts anew: new incoming weights, bias and outgoing weights 0,
       A <- 0; and A goes into the histogram.

    Every ``every`` updates tau becomes the least number a for which at most a share ``rejection``
    of the unit's histogram is a or more: P(A >= a) <= eta, the paper's rule. Where that would be
    more than tau, of which the histogram can tell nothing, tau is doubled; and histograms are
    emptied. A unit that is silent in no update has nothing in its histogram, and tau stays. (In the
    code the quantile of nothing is no number, and tau falls to its least value.)

    Where this differs from the code: ages are in updates and not in examples; thresholds are 1, 2,
    3, 4, 6, 8, 12 and so on, two to an octave, which is as exact a histogram as is kept; they
    are estimated every so many updates and not every 16 tasks, so that nobody has to be told of
    tasks; new weights come from the network's own initialiser; and of an optimizer's state the
    count of steps starts anew too, under ``adam`` and ``adamw``. Of two units of neighbouring
    layers that start anew at once, the weight between them is a new one, as in the code.

    Args:
        members: the learners; their network declares its hidden layers.
        rejection: eta, the share of a unit's own silences that are taken for its death; 0 for
            never. The paper tries 0.08 to 0.00125.
        every: updates from one estimate of thresholds to the next; by default as many as 16 tasks
            of the paper have.
        above: what a unit gives when it fires is more than this; 0 in the paper, for ReLU.
        longest: updates, the largest threshold, with which each unit begins (of those above
            the largest that is not more).
    """

    def __init__(
        self,
        members: Members,
        rejection: float = SelfNormalizedResetsOptions.rejection,
        every: int = SelfNormalizedResetsOptions.every,
        longest: int = SelfNormalizedResetsOptions.longest,
        above: float = SelfNormalizedResetsOptions.above,
    ) -> None:
        super().__init__(members)
        self.rejection = rejection
        self.every = every
        self.above = above
        numbers = {m << k for k in range(longest.bit_length()) for m in (1, 3)}
        self._steps_of = sorted(number for number in numbers if number <= longest)
        self._state = {layer.name: self._start(layer) for layer in self.layers}

    def _start(self, layer: Units) -> dict[str, Tensor]:
        size, device = layer.w_in.shape[:2], layer.w_in.device
        return {
            "age": torch.zeros(size, dtype=torch.int64, device=device),
            "threshold": torch.full(size, self._steps_of[-1], device=device),
            "histogram": torch.zeros(*size, len(self._steps_of), dtype=torch.int64, device=device),
        }

    def due(self, layer: Units, features: Mapping[str, Tensor]) -> Iterator[tuple[int, Tensor]]:
        """Take a batch in, and name the units that have been silent for too long; see the class.

        Args:
            layer: which layer's.
            features: hidden layer name to activations [members, examples, features].
        """
        if not self.rejection:
            return
        state = self._state[layer.name]
        age, threshold = state["age"], state["threshold"]
        fires = (layer.features(features) > self.above).flatten(1, 2).any(dim=1)
        self._record(state, fires & (age > 0))
        age.add_(1).masked_fill_(fires, 0)
        over = age >= threshold
        if bool(over.any()):
            self._record(state, over)
            for member, own in enumerate(over):
                yield member, own.nonzero().flatten()
        if self.steps % self.every == 0:
            self._estimate(state)

    def _places(self, ages: Tensor) -> Tensor:
        """Where ages [members, units] are in a histogram: at the last threshold that they reach."""
        thresholds = torch.tensor(self._steps_of, device=ages.device)
        return torch.searchsorted(thresholds, ages.clamp(min=1), right=True) - 1

    def _record(self, state: Mapping[str, Tensor], where: Tensor) -> None:
        places = self._places(state["age"]).unsqueeze(2)
        state["histogram"].scatter_add_(2, places, where.unsqueeze(2).to(torch.int64))

    def _estimate(self, state: Mapping[str, Tensor]) -> None:
        histogram, old = state["histogram"], state["threshold"]
        reach = histogram.flip(2).cumsum(2).flip(2)  # silences that reach each threshold
        total = reach[..., :1]
        rare = reach <= self.rejection * total
        thresholds = torch.tensor([*self._steps_of, 2 * self._steps_of[-1]], device=old.device)
        none = torch.ones_like(rare[..., :1])
        usual = thresholds[torch.cat([rare, none], dim=2).to(torch.uint8).argmax(dim=2)]
        doubled = thresholds[self._places(2 * old)]
        new = torch.where(usual > old, doubled, usual)
        old.copy_(torch.where(total[..., 0] > 0, new, old))
        histogram.zero_()

    def renew(self, layer: Units, member: int, units: Tensor) -> None:
        """Step 2."""
        super().renew(layer, member, units)
        self._state[layer.name]["age"][member, units] = 0

    def state_dict(self) -> dict[str, Any]:
        """The step count; of each hidden layer ages, thresholds and histograms."""
        return super().state_dict() | {name: dict(own) for name, own in self._state.items()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore what `state_dict` gave."""
        super().load_state_dict(state)
        for name, own in self._state.items():
            for key, value in own.items():
                value.copy_(state[name][key])
