"""Steps that are counted for each element, for weights that start anew."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from clrl.agents.optim.members import Put

_PERIOD = 8
"""Steps between two computations of every element's power; fewer round better."""


class ByElement(torch.optim.Optimizer):
    """An optimizer of running averages, each element of which can be started anew.

    The state of a parameter has ``step``, steps so far, and ``since``, the step after which each
    element began: 0 if it always was there. A subclass says in `decays` what the averages are.
    """

    def __init__(self, params: Any, defaults: dict[str, Any]) -> None:
        super().__init__(params, defaults)
        # What follows from the state, of tensors with elements that were started anew.
        self._ages: dict[Tensor, Ages | None] = {}

    def decays(self, group: dict[str, Any]) -> tuple[float, ...]:
        """The decay rates of the averages that are corrected for their age."""
        betas: tuple[float, ...] = group["betas"]
        return betas

    def ages_of(self, group: dict[str, Any], parameter: Tensor) -> Ages | None:
        """Of a tensor some of whose elements were started anew."""
        if parameter not in self._ages:
            state = self.state[parameter]
            since = state["since"].view(group.get("members", 1), -1)
            began = torch.nonzero((since != 0).any(dim=1)).flatten().tolist()
            step = int(state["step"])
            made = Ages(since, self.decays(group), step, set(began)) if began else None
            self._ages[parameter] = made
        return self._ages[parameter]

    def started_anew(self, parameter: Tensor, member: int, put: Put) -> None:
        """Count some elements' steps from now on; their averages are the caller's to set to 0.

        Args:
            parameter: whose elements.
            member: of the stacked learners; 0 where there is one.
            put: sets these elements of a tensor of the parameter's shape to a number.
        """
        state = self.state[parameter]
        if "since" not in state:
            return
        put(state["since"], float(state["step"]))
        ages = self._ages.get(parameter)
        if ages is None:
            self._ages.pop(parameter, None)
        else:
            ages.begin(member, lambda part, number: put(part.view_as(parameter), number))

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore what ``state_dict`` gave."""
        super().load_state_dict(state_dict)
        self._ages.clear()


class Ages:
    """How old each element of a tensor is, and the corrections 1 - beta^age that follow.

    With T the last multiple of the period, t the step and s when an element began::

        1 - beta^(t - s) = (1 - beta^(t - T)) + beta^(t - T) * (1 - beta^(T - s))

    The last term is computed once a period, so that a step costs an addition. Adding what is small
    keeps the corrections of young elements exact, which 1 - beta^age in single precision is not.

    Args:
        since: the step after which each element began, [members, elements].
        betas: decay rates.
        step: steps so far.
        members: who has elements that were started anew; the others' are not looked at.

    Attributes:
        parts: of each beta, the last term's 1 - beta^(T - s), [members, elements].
        powers: of each, 1 - beta^(t - T) and beta^(t - T).
    """

    def __init__(self, since: Tensor, betas: Sequence[float], step: int, members: set[int]) -> None:
        self.since = since
        self.members = members
        self._betas = betas
        self._turn = -1
        self._step = step
        self.parts = [torch.empty_like(since) for _ in betas]
        self.powers: list[tuple[float, float]] = []
        self._newest: list[float] = []  # parts of what begins at this step
        self._spare: list[Tensor] = []  # new memory for each step would cost as much as a step

    def turn_to(self, step: int) -> None:
        """Go on to a step."""
        turn = step - step % _PERIOD
        stale = turn != self._turn
        self._turn, self._step = turn, step
        self._newest.clear()
        if stale:
            for part, log in zip(self.parts, self._logs, strict=True):
                torch.sub(self.since.new_tensor(turn), self.since, out=part)
                part.mul_(log).expm1_().neg_()
        powers = [beta ** (step - turn) if beta else 0.0 for beta in self._betas]
        self.powers = [(1 - power, power) for power in powers]

    def begin(self, member: int, put: Put) -> None:
        """Some of a member's elements begin now."""
        self.members.add(member)
        if not self._newest:
            ages = [self.since.new_tensor([self._turn - self._step]) for _ in self.parts]
            pairs = zip(ages, self._logs, strict=True)
            self._newest = [float(age.mul_(log).expm1_().neg_()) for age, log in pairs]
        for part, value in zip(self.parts, self._newest, strict=True):
            put(part, value)

    @property
    def _logs(self) -> list[float]:
        # Below 1e-5 a power of a period's length would not be finite; see `turn_to`.
        return [math.log(max(beta, 1e-5)) for beta in self._betas]

    def corrections(self, block: slice) -> list[Tensor]:
        """1 - beta^age for each beta, of some members; to be used before the next call."""
        length = len(self.since[block])
        if not self._spare or len(self._spare[0]) < length:
            self._spare = [part[block].clone() for part in self.parts]
        return [
            torch.add(self.since.new_tensor(rest), part[block], alpha=power, out=spare[:length])
            for (rest, power), part, spare in zip(self.powers, self.parts, self._spare, strict=True)
        ]


def blocks_of(members: Sequence[int], most: int) -> list[slice]:
    """Neighbours among some members, not too many together."""
    blocks: list[slice] = []
    for member in members:
        last = blocks[-1] if blocks else slice(0, -1)
        if member == last.stop and last.stop - last.start < most:
            blocks[-1] = slice(last.start, member + 1)
        else:
            blocks.append(slice(member, member + 1))
    return blocks
