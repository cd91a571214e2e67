"""What an add-on sees of the learners it works on, one or many alike."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from clrl.agents.networks import HiddenLayer, Network

Index = tuple[Any, ...]

Put = Callable[[Tensor, float], None]
"""Sets some elements of a tensor, the same of every tensor of a shape, to a number."""


def state_tensors(optimizer: torch.optim.Optimizer, parameter: Tensor) -> Iterator[Tensor]:
    """A parameter's optimizer state: each tensor that has an entry an element."""
    for value in optimizer.state[parameter].values():
        if isinstance(value, Tensor) and value.shape == parameter.shape:
            yield value


def start_state_anew(
    optimizer: torch.optim.Optimizer, parameter: Tensor, member: int, put: Put
) -> None:
    """Make an optimizer's state of some elements that of elements that it has never stepped.

    Tensors of the parameter's shape go to 0. An optimizer that has more to do for that has a
    method ``started_anew(parameter, member, put)``.
    """
    for value in state_tensors(optimizer, parameter):
        put(value, 0.0)
    started_anew = getattr(optimizer, "started_anew", None)
    if started_anew is not None:
        started_anew(parameter, member, put)


@dataclass(frozen=True)
class Members:
    """Learners of one shape, stacked along a leading axis; a single one has an axis of 1.

    Attributes:
        parameters: name to a view [members, *shape]; edited in place, never replaced.
        tensors: the same numbers in as few tensors [members, ...] as there are (a
            population's lie in one), for what is done to all parameters alike.
        gradients: what gives the gradients of the last step: name to [members, *shape], in place.
        generators: each member's own source of randomness, on the CPU whatever the device.
        network: a network of the members' kind, for its declaration and initialiser; its
            own parameter values mean nothing.
        optimizer: the base optimizer.
        reset_state: makes the optimizer's state new for some elements of one member's
            parameter: takes the parameter's name, the member and an index into the shape.
        buffers: what the networks keep besides, such as BatchNorm's running statistics: name to
            [members, *shape]; edited in place.
    """

    parameters: Mapping[str, Tensor]
    tensors: Sequence[Tensor]
    gradients: Callable[[], Mapping[str, Tensor]]
    generators: Sequence[torch.Generator]
    network: Network
    optimizer: torch.optim.Optimizer
    reset_state: Callable[[str, int, Index], None]
    buffers: Mapping[str, Tensor] = field(default_factory=dict)

    @property
    def hidden_layers(self) -> tuple[HiddenLayer, ...]:
        """The network's declaration."""
        return self.network.hidden_layers

    def fresh(self, name: str, member: int) -> Tensor:
        """A new draw of a parameter by a member's generator, where the parameters are."""
        drawn = self.network.fresh(name, self.generators[member])
        return drawn.to(self.parameters[name].device)

    def start_anew(self, name: str, member: int) -> None:
        """Draw one member's parameter anew, whole, and make the optimizer's state of it new."""
        self.parameters[name][member] = self.fresh(name, member)
        self.reset_state(name, member, (...,))

    def forget_statistics(self, norm: str, member: int, index: Index = (...,)) -> None:
        """Set a norm's running statistics, if it has any, to those it began with.

        Args:
            norm: the path of the module.
            member: whose.
            index: of which units.
        """
        for part, value in (("running_mean", 0.0), ("running_var", 1.0)):
            own = self.buffers.get(f"{norm}.{part}")
            if own is not None:
                own[member, *index] = value

    @property
    def lr(self) -> float:
        """The base optimizer's current step size."""
        return float(self.optimizer.param_groups[0]["lr"])

    @classmethod
    def of_module(
        cls, network: Network, optimizer: torch.optim.Optimizer, generator: torch.Generator
    ) -> Members:
        """One ordinary network with an ordinary optimizer, as a population of one."""
        parameters = dict(network.named_parameters())

        def reset_state(name: str, member: int, index: Index) -> None:
            def put(value: Tensor, number: float) -> None:
                value[index] = number

            start_state_anew(optimizer, parameters[name], member, put)

        def gradients() -> dict[str, Tensor]:
            return {
                name: value.grad.unsqueeze(0)
                for name, value in parameters.items()
                if value.grad is not None
            }

        views = {name: value.detach().unsqueeze(0) for name, value in parameters.items()}
        buffers = {name: value.unsqueeze(0) for name, value in network.named_buffers()}
        all_of_them, own = list(views.values()), [generator]
        return cls(views, all_of_them, gradients, own, network, optimizer, reset_state, buffers)


class Flat:
    """Where each parameter of a network lies in one row of numbers.

    A population keeps the parameters of a member in one row, so that an elementwise update
    rule is a handful of operations whatever the number of layers. Rows are padded to a
    multiple of 64 numbers: every row then starts at the same place within a vector register,
    and no element's rounding depends on which row it is in.

    Args:
        network: its parameters' names and shapes fix the layout.

    Attributes:
        width: numbers a network has.
        padded: length of a row, at least `width`.
    """

    def __init__(self, network: nn.Module) -> None:
        self._slots: dict[str, tuple[int, torch.Size]] = {}
        self.width = 0
        for name, parameter in network.named_parameters():
            self._slots[name] = (self.width, parameter.shape)
            self.width += parameter.numel()
        self.padded = -(-self.width // 64) * 64

    def view(self, rows: Tensor, name: str) -> Tensor:
        """One parameter of every row: [members, padded] to a view [members, *shape]."""
        start, shape = self._slots[name]
        return rows[:, start : start + shape.numel()].view(len(rows), *shape)

    def views(self, rows: Tensor) -> dict[str, Tensor]:
        """Every parameter of every row; see `view`."""
        return {name: self.view(rows, name) for name in self._slots}
