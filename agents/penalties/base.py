"""What a penalty on the loss is."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from clrl.agents.calling import Forward
from clrl.agents.networks import Extension, Network

Memory = dict[str, Tensor]
"""What a penalty remembers of one learner from update to update."""


@dataclass(frozen=True)
class Seen:
    """What one call of a network gave.

    Attributes:
        outputs: the network's.
        features: hidden layer name to activations [examples, ...].
        preactivations: hidden layer name to what its activation was given.
    """

    outputs: Any
    features: Mapping[str, Tensor]
    preactivations: Mapping[str, Tensor]


@dataclass(frozen=True)
class Sight:
    """What a penalty sees of one learner in one update.

    Attributes:
        parameters: name to tensor; what the gradient is taken of.
        inputs: what the network was first called with, [examples, ...] each.
        outputs: what it gave then.
        features: hidden layer name to activations [examples, features] of that call.
        forward: the network, for other inputs; in training mode.
        preactivations: hidden layer name to what its activation was given in that call.
        loss: the agent's own, without penalties.
        named: what else the agent's loss gave by name, such as ``"policy_loss"``.
        others: inputs of other examples of the same experience, where the penalty `needs_others`
            and the agent has them; otherwise `inputs`.
        look: calls the network with other parameters: takes those by name, and inputs. In
            evaluation mode, so that nothing is drawn.
        fresh: a new draw of the initialiser of a parameter, given its name.
    """

    parameters: Mapping[str, Tensor]
    inputs: tuple[Tensor, ...]
    outputs: Any
    features: Mapping[str, Tensor]
    forward: Forward
    preactivations: Mapping[str, Tensor]
    loss: Tensor
    named: Mapping[str, Tensor]
    others: tuple[Tensor, ...]
    look: Callable[..., Seen]
    fresh: Callable[[str], Tensor]


def zero(sight: Sight) -> Tensor:
    """No penalty: a term that is 0, and so is its gradient."""
    return 0.0 * next(iter(sight.parameters.values())).sum()


class Penalty:
    """A term of one learner's loss, whatever the agent's own loss is.

    A subclass takes the network and its options as keywords. It is code for one learner; the
    engine maps it over members, and keeps, restarts, freezes and saves each member's memory.
    Like a loss it must be pure: it is recorded once and replayed.

    Args:
        network: one of the learners' kind, for its declaration of hidden layers; its own
            parameter values mean nothing.

    Attributes:
        needs_others: whether `Sight.others` is to be other examples than those of the update.
        needs_experience: whether it goes by what an agent collects by acting, and means nothing
            on a stream.
    """

    needs_others = False
    needs_experience = False

    def __init__(self, network: Network) -> None:
        self.network = network

    def extension(self) -> Extension | None:
        """What it adds to a network: modules that are trained too; made anew for each."""
        return None

    def begin(self, parameters: Mapping[str, Tensor]) -> Memory:
        """What is remembered of a learner that begins with these parameters.

        Entries are tensors of fixed shape. The parameters are not to be changed, nor kept without
        a copy.
        """
        return {}

    def collected(self, parameters: Mapping[str, Tensor], memory: Memory) -> None:
        """Act where an agent has collected experience, before it learns from that.

        Unlike `term` it is called as it stands and may branch on values.

        Args:
            parameters: the learner's, by which the experience was collected; not to be changed,
                nor kept without a copy.
            memory: see `term`.
        """

    def term(self, sight: Sight, memory: Memory) -> Tensor:
        """The term, a scalar.

        Args:
            sight: the learner as it is.
            memory: what `begin` gave, or an earlier update left; what is assigned to its entries
                (or written into them) is kept.
        """
        raise NotImplementedError
