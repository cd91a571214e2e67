"""What one learner minimises in an update: its agent's loss, and penalties on it."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from torch import Tensor

from clrl.agents.calling import calling, drawn, evaluation
from clrl.agents.networks import Extension, HiddenLayer, Network
from clrl.agents.penalties.base import Penalty, Seen, Sight
from clrl.errors import UsageError

Loss = Callable[..., tuple[Tensor, dict[str, Tensor]]]
"""One learner's loss: takes `Forward` and one batch, gives a scalar and named tensors.

It must be pure: operations on its arguments alone. It is recorded once and replayed (see
`clrl.agents.replay`), so a Python number that changes during training belongs in the batch.
"""


class Tap:
    """Collects a network's hidden activations, and inputs and outputs, while it is open.

    Of several calls it is the first that counts.

    Args:
        network: the network.
        layers: the hidden layers whose activations are wanted.

    Attributes:
        features: layer name to activations.
        preactivations: layer name to what the activation was given.
        inputs: of the network.
        outputs: of the network.
    """

    def __init__(self, network: Network, layers: Sequence[HiddenLayer]) -> None:
        self._network = network
        self._layers = layers
        self.features: dict[str, Tensor] = {}
        self.preactivations: dict[str, Tensor] = {}
        self.inputs: tuple[Tensor, ...] = ()
        self.outputs: Any = None

    def __enter__(self) -> Tap:
        """Begin to collect."""

        def keep(name: str) -> Callable[..., None]:
            def hook(_module: Any, inputs: Any, output: Tensor) -> None:
                self.features.setdefault(name, output)
                self.preactivations.setdefault(name, inputs[0])

            return hook

        self._handles = [
            self._network.get_submodule(layer.activation).register_forward_hook(keep(layer.name))
            for layer in self._layers
        ]
        self._handles.append(self._network.register_forward_hook(self._see))
        return self

    def _see(self, _module: Any, inputs: tuple[Tensor, ...], outputs: Any) -> None:
        if self.outputs is None:
            self.inputs, self.outputs = inputs, outputs

    def __exit__(self, *_: Any) -> None:
        """Leave the network as it was."""
        for handle in self._handles:
            handle.remove()


class Objective:
    """The objective of one learner.

    Args:
        network: of the learners' kind, for its structure.
        loss: the agent's.
        penalties: terms that are added.
        tapped: hidden layers whose activations are to be given.

    Attributes:
        penalised: whether there are penalties.
        needs_others: whether one of them is to be given other examples than those of an update.
    """

    def __init__(
        self,
        network: Network,
        loss: Loss,
        penalties: Sequence[Penalty] = (),
        tapped: Sequence[HiddenLayer] = (),
    ) -> None:
        self._network = network
        self._loss = loss
        self.penalised = bool(penalties)
        self.needs_others = any(penalty.needs_others for penalty in penalties)
        self._penalties = penalties
        self._tapped = tapped

    def extensions(self) -> list[Extension]:
        """What penalties add to a network, made anew."""
        made = (penalty.extension() for penalty in self._penalties)
        return [own for own in made if own is not None]

    def begin(
        self, parameters: Mapping[str, Tensor], buffers: Mapping[str, Tensor]
    ) -> dict[str, Tensor]:
        """All that is kept of a learner besides its parameters: its buffers, penalties' memories.

        Args:
            parameters: those that it begins with.
            buffers: its network's.
        """
        kept = {name: value.detach() for name, value in buffers.items()}
        for number, penalty in enumerate(self._penalties):
            own = {name: value.detach() for name, value in parameters.items()}
            kept |= {
                _place(number, name): value.detach().clone()
                for name, value in penalty.begin(own).items()
            }
        return kept

    def collected(self, parameters: Mapping[str, Tensor], kept: Mapping[str, Tensor]) -> None:
        """Tell penalties that there is new experience; what they remember is changed in place.

        Args:
            parameters: one learner's.
            kept: what is kept of it.
        """
        for number, penalty in enumerate(self._penalties):
            if type(penalty).collected is not Penalty.collected:
                memory = _memory(kept, number)
                penalty.collected(parameters, memory)
                for name, value in memory.items():
                    kept[_place(number, name)].copy_(value)

    def __call__(
        self,
        parameters: Mapping[str, Tensor],
        kept: Mapping[str, Tensor],
        *batch: Tensor,
        others: tuple[Tensor, ...] = (),
    ) -> tuple[list[Tensor], Tensor, dict[str, Tensor], list[Tensor], dict[str, Tensor]]:
        """Compute it, as two terms that are to be added.

        Args:
            parameters: the learner's.
            kept: what `begin` gave, or the last call.
            batch: the loss's arguments.
            others: the network's inputs of other examples, for penalties.

        Returns:
            The penalties' sum, if there are any; the loss; named tensors (with
            ``"penalty"`` where there is one), activations of the layers tapped, and what is kept
            from now on.
        """
        forward, own = calling(self._network, parameters, network_buffers(kept))
        layers = self._network.hidden_layers if self._penalties else self._tapped
        with Tap(self._network, layers) as tap:
            loss, named = self._loss(forward, *batch)
        terms: list[Tensor] = []
        remembered: dict[str, Tensor] = {}
        if self._penalties:
            sight = Sight(
                parameters,
                tap.inputs,
                tap.outputs,
                tap.features,
                forward,
                tap.preactivations,
                loss,
                named,
                others or tap.inputs,
                functools.partial(self._look, network_buffers(kept)),
                lambda name: drawn(parameters[name], functools.partial(self._network.fresh, name)),
            )
            term, remembered = self._add_up(sight, kept)
            terms.append(term)
            named = {**named, "penalty": term.detach()}
        after = {name: remembered.get(name, own.get(name, value)) for name, value in kept.items()}
        return terms, loss, named, [tap.features[layer.name] for layer in self._tapped], after

    def _look(
        self, buffers: Mapping[str, Tensor], parameters: Mapping[str, Tensor], *inputs: Tensor
    ) -> Seen:
        forward, _ = calling(self._network, parameters, buffers)
        with evaluation(self._network), Tap(self._network, self._network.hidden_layers) as tap:
            outputs = forward(*inputs)
        return Seen(outputs, tap.features, tap.preactivations)

    def _add_up(self, sight: Sight, kept: Mapping[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
        terms: list[Tensor] = []
        remembered: dict[str, Tensor] = {}
        for number, penalty in enumerate(self._penalties):
            ahead = _place(number, "")
            memory = _memory(kept, number)
            terms.append(penalty.term(sight, memory))
            for name, value in memory.items():
                before = kept.get(ahead + name)
                if before is None or value.shape != before.shape:
                    began = "nothing" if before is None else [*before.shape]
                    raise UsageError(
                        f"penalty {type(penalty).__name__}: remembers {name}, {[*value.shape]}; "
                        f"expected as it began, {began}"
                    )
            remembered |= {ahead + name: value.detach() for name, value in memory.items()}
        return sum(terms[1:], terms[0]), remembered


def _memory(kept: Mapping[str, Tensor], number: int) -> dict[str, Tensor]:
    """What a penalty remembers of a learner, to be written to."""
    ahead = _place(number, "")
    return {
        name.removeprefix(ahead): value.clone()
        for name, value in kept.items()
        if name.startswith(ahead)
    }


def _place(number: int, name: str) -> str:
    return f"penalty/{number}/{name}"


def network_buffers(kept: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The network's buffers among what is kept of learners."""
    return {name: value for name, value in kept.items() if "/" not in name}
