"""What compiled code is told of a loss."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

EngineName = Literal["auto", "replay", "compiled"]


@dataclass(frozen=True)
class LossPlan:
    """A loss that compiled code knows; of one learner's batch, on average over its examples.

    Attributes:
        kind: ``classification``: cross-entropy of (inputs, labels); ``regression``: squared error
            of (inputs, targets); ``ppo-discrete`` and ``ppo-gaussian``: that of
            `clrl.agents.ppo.loss.make_loss`, the networks' last output being the value.
        results: the names of what it gives, the loss first.
        sizes: of the categorical distributions of an action; of real numbers a 1 for each.
        clip_range: of the ratio of probabilities.
        entropy_coefficient: of the entropy bonus.
        value_coefficient: of the values' error.
        value_clip: see `clrl.agents.options.PPOOptions`.
        value_clip_range: see there.
        standardise: whether a minibatch's advantages are brought to mean 0 and deviation 1.
        spread: the name of the parameter with the logarithms of deviations.
    """

    kind: Literal["classification", "regression", "ppo-discrete", "ppo-gaussian"]
    results: tuple[str, ...]
    sizes: tuple[int, ...] = ()
    clip_range: float = 0.0
    entropy_coefficient: float = 0.0
    value_coefficient: float = 0.0
    value_clip: Literal["none", "sb3", "max"] = "none"
    value_clip_range: float = 0.0
    standardise: bool = False
    spread: str = ""
