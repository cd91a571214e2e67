"""Operations on whole layers and networks, at a change of task or every so many updates."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor

from clrl.agents.optim.base import AddOn
from clrl.agents.optim.members import Members


class Surgery(AddOn):
    """Does something to a learner now and then: a subclass says what.

    Args:
        members: the learners.
        every: updates from one operation to the next; 0 for one at each change of task, of which
            learners are then told.
        times: the most operations a learner has; 0 for no bound.
    """

    default_every: ClassVar[int] = 0
    resets_units = True

    def __init__(self, members: Members, every: int, times: int) -> None:
        super().__init__(members)
        self.every = every
        self.times = times
        self.needs_changes = not every
        self._steps = 0
        self._done = torch.zeros(len(members.generators), dtype=torch.int64)

    @classmethod
    def hears_changes(cls, options: Mapping[str, Any]) -> bool:
        """Whether it acts at changes of task, under these options."""
        return not options.get("every", cls.default_every)

    def operate(self, member: int) -> None:
        """Operate on one learner, in place."""
        raise NotImplementedError

    def after_step(self, features: Mapping[str, Tensor]) -> None:
        """Operate on all where it is time to."""
        self._steps += 1
        if self.every and self._steps % self.every == 0:
            self._operate(range(len(self._done)))

    def at_change(self, members: Sequence[int]) -> None:
        """Operate on those whose task changed."""
        self._operate(members)

    def _operate(self, members: Sequence[int]) -> None:
        for member in members:
            if not self.times or self._done[member] < self.times:
                self.operate(member)
                self._done[member] += 1

    def state_dict(self) -> dict[str, Any]:
        """Updates and operations so far."""
        return {"steps": self._steps, "done": self._done}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore what `state_dict` gave."""
        self._steps = state["steps"]
        self._done.copy_(state["done"])
