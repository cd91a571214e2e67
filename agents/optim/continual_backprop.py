"""Continual backpropagation (Dohare et al. 2024), over any base optimizer."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import torch
from torch import Tensor

from clrl.agents.networks import HiddenLayer
from clrl.agents.optim.base import AddOn
from clrl.agents.optim.members import Members
from clrl.agents.optim.options import ContinualBackpropOptions


class ContinualBackprop(AddOn):
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
            ``"probabilistic"``: with probability replacement_rate * (number eligible) one
            unit is replaced (official code for reinforcement learning).
        transfer_bias: whether the removed unit's mean output, w_out * h_hat, is first added
            to the next layer's bias, as the paper says. In the official code that line does
            nothing, h_hat being set to 0 before it is used.
        reset_optimizer: whether the base's state for the replaced weights (momentum, Adam's
            m and v) goes to 0, as in the official supervised code; its code for
            reinforcement learning leaves it. torch's optimizers count steps once a
            tensor, not once an element, so that count is not reset.
    """

    needs_features = True

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
        self.outgoing = outgoing
        self.replacement = replacement
        self.transfer_bias = transfer_bias
        self.reset_optimizer = reset_optimizer
        self.layers = [_Units(self, layer) for layer in members.hidden_layers]

    def after_step(self, features: Mapping[str, Tensor]) -> None:
        """Track the units' utilities and replace what is due; see the class.

        Args:
            features: hidden layer name to activations [members, examples, features].
        """
        for units in self.layers:
            units.observe(features[units.layer.name])
            units.replace_due()

    def state_dict(self) -> dict[str, Any]:
        """Per hidden layer: utility, age, mean activation, replacements due and done."""
        return {units.layer.name: dict(units.state) for units in self.layers}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore what `state_dict` gave."""
        for units in self.layers:
            for key, value in state[units.layer.name].items():
                units.state[key].copy_(value)


class _Units:
    """One hidden layer of all members."""

    def __init__(self, rule: ContinualBackprop, layer: HiddenLayer) -> None:
        self.rule = rule
        self.layer = layer
        self.members = members = rule.members
        self.w_in = members.parameters[f"{layer.incoming}.weight"]
        self.w_out = members.parameters[f"{layer.outgoing}.weight"]
        count, size, _ = self.w_in.shape
        self.state = {
            "utility": torch.zeros(count, size),
            "age": torch.zeros(count, size),
            "power": torch.ones(count, size, dtype=torch.float64),  # decay_rate ** age
            "mean": torch.zeros(count, layer.copies, size),
            "due": torch.zeros(count, dtype=torch.float64),
            "replaced": torch.zeros(count, dtype=torch.int64),
        }
        self.state = {name: value.to(self.w_in.device) for name, value in self.state.items()}

    def observe(self, features: Tensor) -> None:
        """Steps 1 and 2 for one batch, [members, examples, copies * units]."""
        rule, state, eta = self.rule, self.state, self.rule.decay_rate
        h = features.view(*features.shape[:2], self.layer.copies, -1)
        state["age"] += 1
        state["power"] *= eta
        state["mean"].mul_(eta).add_(h.mean(dim=1), alpha=1 - eta)
        out = self.w_out.abs().mean(dim=1) if rule.outgoing == "mean" else self.w_out.abs().sum(1)
        out = out.view(len(out), self.layer.copies, -1)
        if rule.utility == "contribution":
            y = (h.abs().mean(dim=1) * out).sum(dim=1)
        else:
            y = ((h - self._mean_activation().unsqueeze(1)).abs().mean(dim=1) * out).sum(dim=1)
            y /= self.w_in.abs().mean(dim=2)
        state["utility"].mul_(eta).add_(y, alpha=1 - eta)

    def _correction(self) -> Tensor:
        """1 - eta^age, [members, units]."""
        return (1 - self.state["power"]).float()

    def _mean_activation(self) -> Tensor:
        """h_hat, [members, copies, units]."""
        return self.state["mean"] / self._correction().unsqueeze(1)

    def replace_due(self) -> None:
        """Steps 3 to 5."""
        state = self.state
        eligible = state["age"] > self.rule.maturity_threshold
        expected = self.rule.replacement_rate * eligible.sum(dim=1).double()
        if self.rule.replacement == "accumulate":
            state["due"] += expected
        else:
            chances = expected.clamp(max=1.0).cpu()
            for member, generator in enumerate(self.members.generators):
                state["due"][member] = torch.bernoulli(chances[member], generator=generator)
        if not bool((state["due"] >= 1).any()):
            return
        ranked = (state["utility"] / self._correction()).masked_fill(~eligible, torch.inf)
        mean = self._mean_activation()
        for member in torch.nonzero(state["due"] >= 1).flatten().tolist():
            number = min(int(state["due"][member]), int(eligible[member].sum()))
            units = torch.topk(ranked[member], number, largest=False).indices
            self._replace(member, units, mean[member])
            state["due"][member] -= number
            state["replaced"][member] += number

    def _replace(self, member: int, units: Tensor, mean: Tensor) -> None:
        """Start units of one member anew; `mean` is its h_hat, [copies, units]."""
        members, layer = self.members, self.layer
        size = self.w_in.shape[1]
        columns = torch.cat([units + copy * size for copy in range(layer.copies)])
        if self.rule.transfer_bias:
            bias = members.parameters[f"{layer.outgoing}.bias"][member]
            bias += self.w_out[member][:, columns] @ mean.flatten()[columns]
        fresh = members.fresh(f"{layer.incoming}.weight", member)
        self.w_in[member, units] = fresh[units]
        self.w_out[member, :, columns] = 0.0
        members.parameters[f"{layer.incoming}.bias"][member, units] = 0.0
        if layer.norm:
            members.parameters[f"{layer.norm}.weight"][member, units] = 1.0
            members.parameters[f"{layer.norm}.bias"][member, units] = 0.0
        self.state["utility"][member, units] = 0.0
        self.state["age"][member, units] = 0.0
        self.state["power"][member, units] = 1.0
        self.state["mean"][member, :, units] = 0.0
        if self.rule.reset_optimizer:
            self._reset_optimizer(member, units, columns)

    def _reset_optimizer(self, member: int, units: Tensor, columns: Tensor) -> None:
        for module in (self.layer.incoming, self.layer.norm):
            for part in ("weight", "bias") if module else ():
                self.members.reset_state(f"{module}.{part}", member, (units,))
        outgoing = f"{self.layer.outgoing}.weight"
        self.members.reset_state(outgoing, member, (slice(None), columns))
