"""What a penalty on the loss is."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from clrl.agents.calling import Forward
from clrl.agents.networks import Network

Memory = dict[str, Tensor]
"""What a penalty remembers of one learner from update to update."""


@dataclass(frozen=True)
class Sight:
    """What a penalty sees of one learner in one update.

    Attributes:
        parameters: name to tensor; what the gradient is taken of.
        inputs: what the network was first called with, [examples, ...] each.
        outputs: what it gave then.
        features: hidden layer name to activations [examples, features] of that call.
        forward: the network, for other inputs; in training mode.
    """

    parameters: Mapping[str, Tensor]
    inputs: tuple[Tensor, ...]
    outputs: Any
    features: Mapping[str, Tensor]
    forward: Forward


class Penalty:
    """A term of one learner's loss, whatever the agent's own loss is.

    A subclass takes the network and its options as keywords. It is code for one learner; the
    engine maps it over members, and keeps, restarts, freezes and saves each member's memory.
    Like a loss it must be pure: it is recorded once and replayed.

    Args:
        network: one of the learners' kind, for its declaration of hidden layers; its own
            parameter values mean nothing.
    """

    def __init__(self, network: Network) -> None:
        self.network = network

    def begin(self, parameters: Mapping[str, Tensor]) -> Memory:
        """What is remembered of a learner that begins with these parameters.

        Entries are tensors of fixed shape. The parameters are not to be changed, nor kept without
        a copy.
        """
        return {}

    def term(self, sight: Sight, memory: Memory) -> Tensor:
        """The term, a scalar.

        Args:
            sight: the learner as it is.
            memory: what `begin` gave, or an earlier update left; what is assigned to its entries
                (or written into them) is kept.
        """
        raise NotImplementedError
