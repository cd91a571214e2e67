"""C-CHAIN: continual churn approximated reduction (Tang et al. 2025)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from clrl.agents.actions import Discrete
from clrl.agents.networks import Network
from clrl.agents.penalties.base import Memory, Penalty, Sight, zero
from clrl.agents.penalties.options import CChainOptions


class CChain(Penalty):
    """A coefficient times how much an update changed the policy on other examples.

    Those are a minibatch of the same rollout that is drawn apart. Between the policy p before the
    last update, held fixed, and the present one q: the mean over examples of
    ``-sum_a p(a) log(q(a) + 1e-8)`` of discrete actions, and of real ones the mean squared
    difference of their means. Values are left alone. The first two updates are without it.

    The coefficient is ``strength`` in the first ``warmup`` rollouts; after each one from then on,
    with means over at most ``window`` rollouts of their means over updates::

        max(target * mean |policy loss| / (mean of the term + 1e-8), floor)

    Source: Tang et al., "Mitigating plasticity loss in continual reinforcement learning by reducing
    churn" (ICML 2025); official code bluecontra/C-CHAIN, whose classic-control PPO the defaults are
    of. For continuous control it has strength 100, target 0.05, floor 0, warmup 50 and window 100.
    Unlike there, nothing starts over where the task changes, of which learners are not told; the
    policy loss is without the entropy bonus, as in its continuous control; and of a rollout means
    are taken, as in its classic control.

    Args:
        network: see `Penalty`.
        strength: the coefficient at first; 0 leaves the loss as it is, whatever the target.
        target: how large the term is to be beside the policy loss; 0 leaves the coefficient at
            ``strength``.
        floor: the least coefficient.
        warmup: rollouts before the coefficient goes by the target.
        window: rollouts over which means are taken.
    """

    needs_others = True
    needs_experience = True

    def __init__(
        self,
        network: Network,
        strength: float = CChainOptions.strength,
        target: float = CChainOptions.target,
        floor: float = CChainOptions.floor,
        warmup: int = CChainOptions.warmup,
        window: int = CChainOptions.window,
    ) -> None:
        super().__init__(network)
        self._strength = strength
        self._target = target
        self._floor = floor
        self._warmup = warmup
        self._window = window
        actions = getattr(network, "actions", None)
        self._sizes = actions.sizes if isinstance(actions, Discrete) else None
        names = [name for name, _ in network.named_parameters()]
        self._names = [name for name in names if network.part_of(name) != "critic"]

    def begin(self, parameters: Mapping[str, Tensor]) -> Memory:
        """The parameters before the last update, the coefficient, and sums for it."""
        device = parameters[self._names[0]].device

        def zeros(*shape: int) -> Tensor:
            return torch.zeros(shape, device=device)

        return {
            **{f"before/{name}": parameters[name] for name in self._names},
            "coefficient": zeros() + self._strength,
            "updates": zeros(),
            "rollouts": zeros(),
            "sums": zeros(3),  # of the present rollout: policy losses, terms, updates
            "losses": zeros(self._window),
            "terms": zeros(self._window),
        }

    def term(self, sight: Sight, memory: Memory) -> Tensor:
        """See the class."""
        if self._strength == 0:
            return zero(sight)
        before = {name: memory[f"before/{name}"] for name in self._names}
        old = _policy(sight.look({**sight.parameters, **before}, *sight.others).outputs).detach()
        new = _policy(sight.look(sight.parameters, *sight.others).outputs)
        begun = (memory["updates"] >= 2).to(new.dtype)
        churn = begun * self._apart(old, new)
        loss = sight.named.get("policy_loss", sight.loss)
        own = [loss.detach(), churn.detach(), torch.ones_like(churn)]
        memory["sums"] = memory["sums"] + torch.stack(own)
        memory["updates"] = memory["updates"] + 1
        for name in self._names:
            memory[f"before/{name}"] = sight.parameters[name]
        return memory["coefficient"] * churn

    def _apart(self, old: Tensor, new: Tensor) -> Tensor:
        if self._sizes is None:
            return ((new - old) * (new - old)).mean()
        each = [
            (torch.softmax(p, dim=-1) * (torch.softmax(q, dim=-1) + 1e-8).log()).sum(dim=-1).mean()
            for p, q in zip(
                torch.split(old, self._sizes, dim=-1),
                torch.split(new, self._sizes, dim=-1),
                strict=True,
            )
        ]
        return -sum(each[1:], each[0])

    def collected(self, parameters: Mapping[str, Tensor], memory: Memory) -> None:
        """Take the rollout that was learned from into the means, and find the coefficient."""
        loss, term, count = memory["sums"].tolist()
        if not count:
            return
        rollouts = int(memory["rollouts"])
        memory["losses"][rollouts % self._window] = loss / count
        memory["terms"][rollouts % self._window] = term / count
        memory["rollouts"] += 1
        memory["sums"].zero_()
        if self._target and rollouts >= self._warmup:
            seen = min(rollouts + 1, self._window)
            size = float(memory["losses"][:seen].abs().mean())
            wanted = self._target * size / (float(memory["terms"][:seen].mean()) + 1e-8)
            memory["coefficient"].fill_(max(wanted, self._floor))


def _policy(outputs: Any) -> Tensor:
    """Of what a network gives: an actor-critic's logits or means, or the whole of others."""
    policy: Tensor = outputs[0] if isinstance(outputs, tuple) else outputs
    return policy
