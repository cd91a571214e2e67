"""Continual backpropagation (Dohare et al. 2024), over any base optimizer."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Literal

import torch
from torch import Tensor

from clrl.agents.optim.members import Members
from clrl.agents.optim.options import ContinualBackpropOptions
from clrl.agents.optim.units import UnitReset, Units


class ContinualBackprop(UnitReset):
    """Generate and test: the least useful mature units are started anew, a few at a time.

    After each step of the base optimizer, for each hidden layer (Dohare et al., "Loss of
    plasticity in deep continual learning", Nature 2024, Algorithm 1; official code
    shibhansh/loss-of-plasticity, where the two differ it is said below):

    1. Every unit's age grows by 1.
    2. Its running utility u takes in the batch: u <- eta u + (1 - eta) y, with y the
       *contribution* mean|h| * mean_k|w_out_k|, or the *adaptable contribution*
       mean|h - h_hat| * mean_k|w_out_k| / mean_j|w_in_j|, h_hat being the bias-corrected
       running mean of the activation.
    3. Units are ranked by u_hat = u / (1 - eta^age), so that a unit that was just replaced
       is not ranked by its start-up value.
    4. Units older than ``maturity_threshold`` are eligible. A counter gathers
       replacement_rate * (number eligible); each whole 1 in it replaces the eligible unit of
       least u_hat.
    5. Replacing draws the incoming weights anew from the initialiser, sets the incoming bias
       and the outgoing weights to 0, and age, u and the running mean to 0. A LayerNorm in
       between starts anew for that unit.

    Args:
        members: the learners; their network declares its hidden layers.
        replacement_rate: rho, the fraction of eligible units replaced a step, in [0, 1].
        maturity_threshold: m, steps during which a new unit is safe.
        decay_rate: eta, of the running averages.
        utility: which y; the paper uses the adaptable contribution in supervised problems
            and the contribution in reinforcement learning.
        outgoing: ``"mean"`` of |w_out| as in the official code, or ``"sum"`` as in the
            paper's text. Ranks are the same within a layer.
        replacement: ``"accumulate"`` as in step 4 (paper and supervised code), or
            ``"probabilistic"`` (official code for reinforcement learning): of the expected number,
            replacement_rate * (number eligible), the whole part is replaced where that is 1 or
            more, and the rest dropped; below 1 it is the probability of one replacement.
        transfer_bias: whether the removed unit's mean output, w_out * h_hat, is first added
            to the next layer's bias, as the paper says. In the official code that line does
            nothing, h_hat being set to 0 before it is used.
        reset_optimizer: whether the base's state for the replaced weights (momentum, Adam's
            m, v and count of steps) starts anew, as in the official supervised code; its code
            for reinforcement learning leaves it. Under this add-on ``adam`` and ``adamw`` count
            steps by element (`clrl.agents.optim.elementwise`). Put with `compose` over torch's
            own, which count once a tensor, the count goes on.
    """

    def __init__(
        self,
        members: Members,
        replacement_rate: float = ContinualBackpropOptions.replacement_rate,
        maturity_threshold: int = ContinualBackpropOptions.maturity_threshold,
        decay_rate: float = ContinualBackpropOptions.decay_rate,
        utility: Literal[
            "contribution", "adaptable-contribution"
        ] = ContinualBackpropOptions.utility,
        outgoing: Literal["mean", "sum"] = ContinualBackpropOptions.outgoing,
        replacement: Literal["accumulate", "probabilistic"] = ContinualBackpropOptions.replacement,
        transfer_bias: bool = ContinualBackpropOptions.transfer_bias,
        reset_optimizer: bool = ContinualBackpropOptions.reset_optimizer,
    ) -> None:
        super().__init__(members)
        self.replacement_rate = replacement_rate
        self.maturity_threshold = maturity_threshold
        self.decay_rate = decay_rate
        self.utility = utility
        self.magnitude = outgoing
        self.replacement = replacement
        self.transfer_bias = transfer_bias
        self.reset_optimizer = reset_optimizer
        self._state = {layer.name: self._start(layer) for layer in self.layers}

    def _start(self, layer: Units) -> dict[str, Tensor]:
        count, size, device = len(layer.w_in), layer.size, layer.w_in.device
        state = {
            "utility": torch.zeros(count, size),
            "age": torch.zeros(count, size),
            "power": torch.ones(count, size, dtype=torch.float64),  # decay_rate ** age
            "mean": torch.zeros(count, layer.copies, size),
            "due": torch.zeros(count, dtype=torch.float64),
            "replaced": torch.zeros(count, dtype=torch.int64),
        }
        return {name: value.to(device) for name, value in state.items()}

    def _observe(self, layer: Units, h: Tensor) -> None:
        """Steps 1 and 2 for one batch, [members, examples, copies, units]."""
        state, eta = self._state[layer.name], self.decay_rate
        state["age"] += 1
        state["power"] *= eta
        state["mean"].mul_(eta).add_(h.mean(dim=1), alpha=1 - eta)
        out = layer.outgoing(self.magnitude)
        if self.utility == "contribution":
            y = (h.abs().mean(dim=1) * out).sum(dim=1)
        else:
            y = ((h - _mean_activation(state).unsqueeze(1)).abs().mean(dim=1) * out).sum(dim=1)
            y /= layer.incoming()
        state["utility"].mul_(eta).add_(y, alpha=1 - eta)

    def due(self, layer: Units, features: Mapping[str, Tensor]) -> Iterator[tuple[int, Tensor]]:
        """Track the units' utilities, and name those to be replaced; see the class.

        Args:
            layer: which layer's.
            features: hidden layer name to activations [members, examples, features].
        """
        self._observe(layer, layer.features(features))
        state = self._state[layer.name]
        eligible = state["age"] > self.maturity_threshold
        expected = self.replacement_rate * eligible.sum(dim=1).double()
        if self.replacement == "accumulate":
            state["due"] += expected
        else:
            for member, generator in enumerate(self.members.generators):
                number = float(expected[member])
                chance = torch.tensor(min(number, 1.0), dtype=torch.float64)
                drawn = torch.bernoulli(chance, generator=generator)
                state["due"][member] = int(number) if number >= 1 else drawn
        if not bool((state["due"] >= 1).any()):
            return
        ranked = (state["utility"] / _correction(state)).masked_fill(~eligible, torch.inf)
        for member in torch.nonzero(state["due"] >= 1).flatten().tolist():
            number = min(int(state["due"][member]), int(eligible[member].sum()))
            yield member, torch.topk(ranked[member], number, largest=False).indices
            state["due"][member] -= number
            state["replaced"][member] += number

    def renew(self, layer: Units, member: int, units: Tensor) -> None:
        """Step 5."""
        state = self._state[layer.name]
        if self.transfer_bias:
            layer.hand_over(member, units, _mean_activation(state)[member])
        super().renew(layer, member, units)
        state["utility"][member, units] = 0.0
        state["age"][member, units] = 0.0
        state["power"][member, units] = 1.0
        state["mean"][member, :, units] = 0.0

    def state_dict(self) -> dict[str, Any]:
        """Per hidden layer: utility, age, mean activation, replacements due and done."""
        return {name: dict(state) for name, state in self._state.items()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore what `state_dict` gave."""
        for name, own in self._state.items():
            for key, value in state[name].items():
                own[key].copy_(value)


def _correction(state: Mapping[str, Tensor]) -> Tensor:
    """1 - eta^age, [members, units]."""
    return (1 - state["power"]).float()


def _mean_activation(state: Mapping[str, Tensor]) -> Tensor:
    """h_hat, [members, copies, units]."""
    return state["mean"] / _correction(state).unsqueeze(1)
