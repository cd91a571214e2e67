"""Recycling dormant units (Sokar et al. 2023), over any base optimizer."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Literal

import torch
from torch import Tensor

from clrl.agents.optim.members import Members
from clrl.agents.optim.options import ReDoOptions
from clrl.agents.optim.units import UnitReset, Units
from clrl.errors import UsageError

_LEAST = 1e-9  # is added to a layer's mean: where nothing fires at all, every score is 0


class ReDo(UnitReset):
    """Every so many updates, units that give little beside their layer's mean start anew.

    The score of unit i of a layer is (Sokar et al., "The dormant neuron phenomenon in deep
    reinforcement learning", ICML 2023; official code google/dopamine, labs/redo)::

        s_i = E|h_i| / (mean over units k of E|h_k| + 1e-9)

    with E the mean over the latest examples, and over a channel's places. Where s_i <=
    ``threshold``, the unit is dormant: it gets new incoming weights, and outgoing weights of 0. All
    is as in the official code (a weight between two units of neighbouring layers that both start
    anew ends at 0, and in a layer where nothing fires every unit is recycled), except:

    - New weights come from the network's own initialiser, with any network; a bias goes to 0.
    - The optimizer's state of all that is new starts anew, with the incoming bias and, under
      ``adam`` and ``adamw``, the count of steps; the code sets m and v of weights to 0.
    - The score is taken on the batches that are learned, and not on one of its own.

    Settings in print: the paper's DQN, threshold 0.025 (0.1 where replay ratios differ from the
    usual) every 1000 gradient steps, the default here; the code's own default, 0 every 200000.

    Args:
        members: the learners; their network declares its hidden layers.
        threshold: tau; 0 takes units that give nothing at all, a negative number none.
        every: updates from one look at the units to the next.
        examples: a look is at the latest examples, so many at least: at those of the last update,
            or of several where batches are smaller (but never beyond the last look). Each place of
            a convolution counts as one.
        score: ``"ratio-of-means"`` as above; ``"mean-of-ratios"``, the mean over examples of what
            a unit gives beside the layer's mean for that example (Juliani & Ash's code, 2024).
        outgoing: what becomes of the outgoing weights: ``"zero"``, or, not from the paper,
            ``"fresh"``, a new draw, or ``"keep"``.
        reset_optimizer: whether the base's state for what is new starts anew.
        part: whose units: of ``"all"`` parts, or of the ``"actor"`` or the ``"critic"`` alone
            where an agent has both.

    Raises:
        UsageError: actor and critic are no parts of the network.
    """

    silent = True

    def __init__(
        self,
        members: Members,
        threshold: float = ReDoOptions.threshold,
        every: int = ReDoOptions.every,
        examples: int = ReDoOptions.examples,
        score: Literal["ratio-of-means", "mean-of-ratios"] = ReDoOptions.score,
        outgoing: Literal["zero", "fresh", "keep"] = ReDoOptions.outgoing,
        reset_optimizer: bool = ReDoOptions.reset_optimizer,
        part: Literal["all", "actor", "critic"] = ReDoOptions.part,
    ) -> None:
        super().__init__(members)
        self.threshold = threshold
        self.every = every
        self.examples = examples
        self.score = score
        self.outgoing = outgoing
        self.reset_optimizer = reset_optimizer
        if part != "all":
            parts = {layer.name.split("/")[0] for layer in self.layers if "/" in layer.name}
            self.layers = [one for one in self.layers if one.name.startswith(f"{part}/")]
            if not parts & {"actor", "critic"}:
                raise UsageError(
                    f"redo: part: expected all, got {part}; the network's units are "
                    f"{' and '.join(sorted(parts)) or 'not of parts'}"
                )
        self._sums = {
            one.name: torch.zeros(one.w_in.shape[:2], device=one.w_in.device) for one in self.layers
        }
        self._batches = dict.fromkeys(self._sums, 0)

    def due(self, layer: Units, features: Mapping[str, Tensor]) -> Iterator[tuple[int, Tensor]]:
        """Take the latest examples in, and name the dormant units where it is time to look.

        Args:
            layer: which layer's.
            features: hidden layer name to activations [members, examples, features].
        """
        left = -self.steps % self.every
        if left * features[layer.name].shape[1] >= self.examples:
            return
        own, batches = self._sums[layer.name], self._batches
        size = layer.features(features).abs().mean(dim=2)  # [members, examples, units]
        if self.score == "mean-of-ratios":
            size = size / (size.mean(dim=2, keepdim=True) + _LEAST)
        own += size.mean(dim=1)
        batches[layer.name] += 1
        if left:
            return
        score = own / batches[layer.name]
        if self.score == "ratio-of-means":
            score = score / (score.mean(dim=1, keepdim=True) + _LEAST)
        for member, dormant in enumerate(score <= self.threshold):
            yield member, dormant.nonzero().flatten()
        own.zero_()
        batches[layer.name] = 0

    def state_dict(self) -> dict[str, Any]:
        """The step count, and what the latest examples gave."""
        return super().state_dict() | {"sums": dict(self._sums), "batches": dict(self._batches)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore what `state_dict` gave."""
        super().load_state_dict(state)
        for name, own in self._sums.items():
            own.copy_(state["sums"][name])
        self._batches = dict(state["batches"])
