"""Hare and tortoise (Lee et al. 2024), over any base optimizer."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from clrl.agents.optim.base import AddOn
from clrl.agents.optim.members import Members
from clrl.agents.optim.options import HareAndTortoiseOptions


class HareAndTortoise(AddOn):
    """Put the parameters back, now and then, to a slow mean of where they have been.

    The base moves the hare. After every step of it, and at every ``every``-th::

        tortoise <- decay * tortoise + (1 - decay) * hare
        hare <- tortoise

    The tortoise begins where the hare does. The base's moments stay as they are. Source: Lee et
    al., "Slow and steady wins the race: maintaining plasticity with hare and tortoise networks"
    (ICML 2024); official code dojeon-ai/Hare-Tortoise. There the hare's numbers are handed over,
    and both names mean one tensor from then on; here they are copied. The paper tests the tortoise;
    what acts, answers and is measured here is the hare, which equals it after every reset.
    Running statistics of a BatchNorm are the hare's, and stay.

    Args:
        members: the learners.
        decay: mu; 0 for a tortoise that is the hare, so that nothing is put back; at 1 the hare
            goes back to where it began.
        every: steps of the base from one reset of the hare to the next. In the paper's supervised
            problems ten epochs.
    """

    def __init__(
        self,
        members: Members,
        decay: float = HareAndTortoiseOptions.decay,
        every: int = HareAndTortoiseOptions.every,
    ) -> None:
        super().__init__(members)
        self.decay = decay
        self.every = every
        self._steps = 0
        self._tortoise = {name: own.clone() for name, own in members.parameters.items()}

    def after_step(self, features: Mapping[str, Tensor]) -> None:
        """Move the tortoise, and put the hare back where it is time to; see the class."""
        self._steps += 1
        back = self._steps % self.every == 0
        for name, hare in self.members.parameters.items():
            tortoise = self._tortoise[name]
            tortoise.lerp_(hare, 1 - self.decay)  # where both are one, exactly so
            if back:
                hare.copy_(tortoise)

    def state_dict(self) -> dict[str, Any]:
        """The tortoise, by parameter, and the step count."""
        return {"steps": self._steps, "tortoise": dict(self._tortoise)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore what `state_dict` gave."""
        self._steps = state["steps"]
        for name, own in self._tortoise.items():
            own.copy_(state["tortoise"][name])
