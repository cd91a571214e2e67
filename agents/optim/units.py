"""Units of hidden layers: what they are made of, how they start anew, and rules for which do."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Literal

import torch
from torch import Tensor

from clrl.agents.networks import HiddenLayer
from clrl.agents.optim.base import AddOn
from clrl.agents.optim.members import Members


class Units:
    """The units of one declared hidden layer, of all members.

    A unit is a row of the incoming weights: of a dense layer a number, of a convolution a
    channel. Its features are read by a dense layer or a convolution, or, once flattened, by a
    dense layer with a column for each of a channel's places; or by several of them.

    Args:
        members: the learners.
        layer: which of their layers.

    Attributes:
        layer: the declaration.
        name: the layer's name.
        size: units in it.
        copies: features that a unit has.
        w_in: the incoming weights [members, units, ...].
        w_out: of each reader, the outgoing weights [members, outputs, ...].
    """

    def __init__(self, members: Members, layer: HiddenLayer) -> None:
        self.members = members
        self.layer = layer
        self.name = layer.name
        self.copies = layer.copies
        self.w_in = members.parameters[f"{layer.incoming}.weight"]
        self.size = self.w_in.shape[1]
        self.w_out = [members.parameters[f"{path}.weight"] for path in layer.readers]

    def features(self, features: Mapping[str, Tensor]) -> Tensor:
        """This layer's, of what hooks are given: [members, examples, copies, units]."""
        own = features[self.name]
        return own.view(*own.shape[:2], self.copies, -1)

    def incoming_gradient(self) -> Tensor:
        """The last step's gradient of the incoming weights, as `w_in`."""
        return self.members.gradients()[f"{self.layer.incoming}.weight"]

    def incoming(self) -> Tensor:
        """Mean size of each unit's incoming weights, [members, units]."""
        return self.w_in.abs().flatten(2).mean(dim=2)

    def outgoing(self, how: Literal["mean", "sum"] = "mean") -> Tensor:
        """Mean or summed size of the weights that read each feature, [members, copies, units]."""
        sums = [self._by_feature(w.abs().sum(dim=1).flatten(1)).sum(dim=-1) for w in self.w_out]
        total = sum(sums[1:], sums[0])
        if how == "mean":
            total = total / sum(w[0].numel() // (self.copies * self.size) for w in self.w_out)
        return total.view(len(total), self.copies, self.size)

    def _by_feature(self, value: Tensor) -> Tensor:
        """Split the last axis, of features and their places: [..., features, places]."""
        return value.view(*value.shape[:-1], self.copies * self.size, -1)

    def _features_of(self, units: Tensor) -> Tensor:
        return torch.cat([units + copy * self.size for copy in range(self.copies)])

    def _columns(self, w_out: Tensor, units: Tensor) -> Tensor:
        """Where some units' features are on a reader's second axis."""
        places = w_out.shape[2] // (self.copies * self.size)
        own = self._features_of(units)
        if places == 1:
            return own
        return (own.unsqueeze(1) * places + torch.arange(places, device=own.device)).flatten()

    def hand_over(self, member: int, units: Tensor, mean: Tensor) -> None:
        """Add what units give on average to the biases of what reads them.

        Where a convolution pads, that is their mean output away from the border.

        Args:
            member: whose.
            units: which, [number].
            mean: mean activations, [copies, units], over places too.
        """
        columns = self._features_of(units)
        for path, w_out in zip(self.layer.readers, self.w_out, strict=True):
            bias = self.members.parameters.get(f"{path}.bias")
            if bias is None:
                continue
            if w_out[0, 0].numel() == self.copies * self.size:
                weights = w_out[member][:, columns]
            else:
                flat = w_out[member].flatten(1)
                weights = self._by_feature(flat)[:, columns].sum(dim=-1)
            row = bias[member]
            row += weights @ mean.flatten()[columns]

    def start_anew(
        self,
        member: int,
        units: Tensor,
        outgoing: Literal["zero", "fresh", "keep"] = "zero",
        reset_optimizer: bool = True,
    ) -> None:
        """Make units of one member new.

        Their incoming weights are drawn anew by the network's initialiser, the incoming bias goes
        to 0, a norm's scale to 1 and shift to 0, the mean and variance that a BatchNorm keeps to 0
        and 1.

        Args:
            member: whose.
            units: which, [number].
            outgoing: what becomes of the weights that read them: 0, a new draw, or nothing.
            reset_optimizer: whether the base optimizer's state of all these elements starts anew
                too; of the outgoing weights unless they are kept.
        """
        parameters, incoming = self.members.parameters, self.layer.incoming
        self.w_in[member, units] = self.members.fresh(f"{incoming}.weight", member)[units]
        changed: list[tuple[str, tuple[Any, ...]]] = [(f"{incoming}.weight", (units,))]
        values = {f"{incoming}.bias": 0.0}
        places = {f"{incoming}.bias": units}
        for norm, own in (
            (self.layer.norm, units),
            (self.layer.norm_after, self._features_of(units)),
        ):
            if norm:
                values |= {f"{norm}.weight": 1.0, f"{norm}.bias": 0.0}
                places |= {f"{norm}.weight": own, f"{norm}.bias": own}
                self.members.forget_statistics(norm, member, (own,))
        for name, value in values.items():
            if name in parameters:
                parameters[name][member, places[name]] = value
                changed.append((name, (places[name],)))
        for path, w_out in zip(self.layer.readers, self.w_out, strict=True):
            if outgoing == "keep":
                continue
            name, columns = f"{path}.weight", self._columns(w_out, units)
            if outgoing == "zero":
                w_out[member, :, columns] = 0.0
            else:
                w_out[member, :, columns] = self.members.fresh(name, member)[:, columns]
            changed.append((name, (slice(None), columns)))
        if reset_optimizer:
            for name, index in changed:
                self.members.reset_state(name, member, index)

    def scale_outgoing(self, factors: Tensor) -> None:
        """Multiply all weights that read units, by factors [members, units]."""
        for w_out in self.w_out:
            places = w_out.shape[2] // (self.copies * self.size)
            columns = factors.repeat(1, self.copies).repeat_interleave(places, dim=1)
            w_out.mul_(columns.view(len(w_out), 1, -1, *[1] * (w_out.ndim - 3)))

    def silence(self, member: int, units: Tensor) -> None:
        """Set the weights that read units of one member to 0, and nothing else."""
        for w_out in self.w_out:
            w_out[member, :, self._columns(w_out, units)] = 0.0


class UnitReset(AddOn):
    """Starts some units anew, after steps of the base: a subclass says which, and when.

    After each step `due` is asked for each hidden layer in turn, from the input on; what it names
    has been started anew before it is asked for the next.

    Args:
        members: the learners; their network declares its hidden layers.

    Attributes:
        outgoing: see `Units.start_anew`.
        reset_optimizer: see there.
        silent: whether outgoing weights that are to be 0 are so in the end, where what reads them
            starts anew in the same step: of two such units in neighbouring layers. Else that one's
            incoming weight is as new as its others.
        layers: the hidden layers' units.
        steps: of the base so far.
    """

    needs_features = True
    resets_units = True
    outgoing: Literal["zero", "fresh", "keep"] = "zero"
    reset_optimizer = True
    silent = False

    def __init__(self, members: Members) -> None:
        super().__init__(members)
        self.layers = [Units(members, layer) for layer in members.hidden_layers]
        self.steps = 0

    def due(self, layer: Units, features: Mapping[str, Tensor]) -> Iterable[tuple[int, Tensor]]:
        """Which units are to start anew now.

        Args:
            layer: the layer that is asked for; `Units.features` and `Units.incoming_gradient`
                have what the step was taken on.
            features: see `AddOn.after_step`; empty unless `needs_features`.

        Returns:
            Members, and indices [number] of their units.
        """
        raise NotImplementedError

    def renew(self, layer: Units, member: int, units: Tensor) -> None:
        """Start units of one member anew."""
        layer.start_anew(member, units, self.outgoing, self.reset_optimizer)

    def after_step(self, features: Mapping[str, Tensor]) -> None:
        """Start anew what is due."""
        self.steps += 1
        renewed = []
        for layer in self.layers:
            for member, units in self.due(layer, features):
                if len(units):
                    self.renew(layer, member, units)
                    renewed.append((layer, member, units))
        if self.silent and self.outgoing == "zero":
            for layer, member, units in renewed:
                layer.silence(member, units)

    def state_dict(self) -> dict[str, Any]:
        """The step count."""
        return {"steps": self.steps}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore the step count."""
        self.steps = state["steps"]
