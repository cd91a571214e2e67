"""What an add-on sees of the learners it works on, one or many alike."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from clrl.agents.networks import HiddenLayer, Network

Index = tuple[Any, ...]

Put = Callable[[Tensor, float], None]
"""Sets some elements of a tensor, the same of every tensor of a shape, to a number."""

_COUNTS = {"step": 0, "mu_product": 1}
"""What torch's optimizers count for a whole tensor, and where that begins."""


class ResetState(Protocol):
    """Makes an optimizer's state new, of some elements of one member's parameter."""

    def __call__(self, name: str, member: int, index: Index, *, averages: bool = True) -> None:
        """Make it new.

        Args:
            name: the parameter's.
            member: whose.
            index: into the parameter's shape.
            averages: whether what is kept of each element goes to 0; otherwise only its steps are
                counted from 0 again.
        """


def state_tensors(optimizer: torch.optim.Optimizer, parameter: Tensor) -> Iterator[Tensor]:
    """A parameter's optimizer state: each tensor that has an entry an element."""
    for value in optimizer.state[parameter].values():
        if isinstance(value, Tensor) and value.shape == parameter.shape:
            yield value


def start_state_anew(
    optimizer: torch.optim.Optimizer,
    parameter: Tensor,
    member: int,
    put: Put,
    *,
    averages: bool = True,
    whole: bool = False,
) -> None:
    """Make an optimizer's state of some elements that of elements that it has never stepped.

    Tensors of the parameter's shape go to 0. An optimizer that has more to do for that has a
    method ``started_anew(parameter, member, put)``.

    Args:
        optimizer: whose state.
        parameter: a tensor that it steps.
        member: of the learners that are stacked in it; 0 where there is one.
        put: sets these elements of a tensor of the parameter's shape to a number.
        averages: see `ResetState`.
        whole: whether they are all of the tensor's elements; its count of steps then is 0 again.
    """
    if averages:
        for value in state_tensors(optimizer, parameter):
            put(value, 0.0)
    started_anew = getattr(optimizer, "started_anew", None)
    if started_anew is not None:
        started_anew(parameter, member, put)
    elif whole:
        state = optimizer.state[parameter]
        for name, start in _COUNTS.items():
            if isinstance(state.get(name), Tensor):
                state[name].fill_(start)
            elif name in state:
                state[name] = start


def is_whole(index: Index) -> bool:
    """Whether an index into a parameter's shape means all of it."""
    return len(index) == 1 and index[0] is ...


class Remembers(Protocol):
    """Has something in memory of each element of a parameter."""

    def started_anew(self, name: str, member: int, index: Index) -> None:
        """Some elements of one member's parameter started anew."""


def tell(told: Sequence[Remembers], name: str, member: int, index: Index, averages: bool) -> None:
    """Say what started anew, where it was more than a count of steps."""
    for one in told if averages else ():
        one.started_anew(name, member, index)


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
            parameter, and tells the add-ons; see `ResetState`.
        buffers: what the networks keep besides, such as BatchNorm's running statistics: name to
            [members, *shape]; edited in place.
        targets: parameters of networks that follow these at their own pace, as in Q-learning: name
            of what is followed to [1, *shape]; edited in place.
    """

    parameters: Mapping[str, Tensor]
    tensors: Sequence[Tensor]
    gradients: Callable[[], Mapping[str, Tensor]]
    generators: Sequence[torch.Generator]
    network: Network
    optimizer: torch.optim.Optimizer
    reset_state: ResetState
    buffers: Mapping[str, Tensor] = field(default_factory=dict)
    targets: Mapping[str, Tensor] = field(default_factory=dict)

    @property
    def hidden_layers(self) -> tuple[HiddenLayer, ...]:
        """The network's declaration."""
        return self.network.hidden_layers

    def fresh(self, name: str, member: int) -> Tensor:
        """A new draw of a parameter by a member's generator, where the parameters are."""
        drawn = self.network.fresh(name, self.generators[member])
        return drawn.to(self.parameters[name].device)

    def start_anew(self, name: str, member: int) -> None:
        """Draw one member's parameter anew, whole, and make the optimizer's state of it new.

        What follows it as a target starts from the same numbers.
        """
        self.parameters[name][member] = drawn = self.fresh(name, member)
        if name in self.targets:
            self.targets[name][member] = drawn
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
        cls,
        network: Network,
        optimizer: torch.optim.Optimizer,
        generator: torch.Generator,
        told: Sequence[Remembers] = (),
        targets: Mapping[str, Tensor] | None = None,
    ) -> Members:
        """One ordinary network with an ordinary optimizer, as a population of one.

        Args:
            network: the network.
            optimizer: of its parameters.
            generator: what is drawn comes from it.
            told: who is told of what starts anew.
            targets: of these parameters, by their names.
        """
        parameters = dict(network.named_parameters())

        def reset_state(name: str, member: int, index: Index, *, averages: bool = True) -> None:
            def put(value: Tensor, number: float) -> None:
                value[index] = number

            start_state_anew(
                optimizer,
                parameters[name],
                member,
                put,
                averages=averages,
                whole=is_whole(index),
            )
            tell(told, name, member, index, averages)

        def gradients() -> dict[str, Tensor]:
            return {
                name: value.grad.unsqueeze(0)
                for name, value in parameters.items()
                if value.grad is not None
            }

        views = {name: value.detach().unsqueeze(0) for name, value in parameters.items()}
        buffers = {name: value.unsqueeze(0) for name, value in network.named_buffers()}
        all_of_them, own = list(views.values()), [generator]
        following = {name: p.detach().unsqueeze(0) for name, p in (targets or {}).items()}
        return cls(
            views, all_of_them, gradients, own, network, optimizer, reset_state, buffers, following
        )


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

    def start(self, name: str) -> int:
        """Where a parameter begins in a row."""
        return self._slots[name][0]

    def views(self, rows: Tensor) -> dict[str, Tensor]:
        """Every parameter of every row; see `view`."""
        return {name: self.view(rows, name) for name in self._slots}
