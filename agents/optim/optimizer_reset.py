"""Optimizers that start anew (Asadi et al. 2023), and Adam's count alone (Ellis et al. 2024)."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from clrl.agents.optim.elementwise import ElementwiseAdam
from clrl.agents.optim.members import Members
from clrl.agents.optim.options import AdamRelOptions, OptimizerResetOptions
from clrl.agents.optim.surgery import Surgery
from clrl.errors import UsageError


class OptimizerReset(Surgery):
    """The optimizer forgets what it has seen; the parameters stay as they are.

    Asadi, Fakoor & Sabach, "Resetting the optimizer in deep RL: an empirical study" (NeurIPS 2023):
    moments and step count go back to 0 whenever the objective is another, there at each new target
    network. Here it is at changes of task, or every so many updates. Over ``adam`` and ``adamw`` it
    is Adam-MR of Ellis et al. 2024.

    Nothing of the kind happens without it: in some published comparisons every condition, the
    baseline among them, makes its optimizer anew at each change.

    Args:
        members: the learners.
        every: updates from one reset to the next; 0 for resets at changes of task.
        times: the most resets; 0 for no bound.
    """

    default_every = OptimizerResetOptions.every

    def __init__(
        self,
        members: Members,
        every: int = OptimizerResetOptions.every,
        times: int = OptimizerResetOptions.times,
    ) -> None:
        super().__init__(members, every, times)

    def operate(self, member: int) -> None:
        """Make the optimizer's state of one learner new."""
        for name in self.members.parameters:
            self.members.reset_state(name, member, (...,))


class AdamRel(Surgery):
    """Adam counts its steps from 0 again when the objective is another; its averages stay.

    Ellis et al., "Adam on local time: addressing nonstationarity in RL with relative Adam
    timesteps" (NeurIPS 2024), after a re-implementation. With t the updates since the objective
    changed, m and v going on from before::

        m_hat = m / (1 - beta_1^t),    v_hat = v / (1 - beta_2^t)

    so that where gradients become much larger the first step is lr, and not
    (1 - beta_1) / sqrt(1 - beta_2) = 3.2 times as long; where they stay as they were it is 0.32 lr.
    The objective of PPO is another one with each rollout, that of a stream with each task. The
    largest average of amsgrad is left alone.

    Args:
        members: the learners; their optimizer is ``adam`` or ``adamw``.
        every: updates from one restart of the count to the next; 0 for one with each new objective.
        times: the most restarts; 0 for no bound.

    Raises:
        UsageError: the optimizer is another one.
    """

    default_every = AdamRelOptions.every

    def __init__(
        self,
        members: Members,
        every: int = AdamRelOptions.every,
        times: int = AdamRelOptions.times,
    ) -> None:
        super().__init__(members, every, times)
        base = members.optimizer
        alone = isinstance(base, torch.optim.Adam) and "members" not in base.param_groups[0]
        if not (alone or isinstance(base, ElementwiseAdam)):
            raise UsageError(
                f"add-on adam-rel: restarts Adam's count, and the optimizer is "
                f"{type(base).__name__}; expected adam or adamw"
            )

    def operate(self, member: int) -> None:
        """Restart the count of one learner."""
        for name in self.members.parameters:
            self.members.reset_state(name, member, (...,), averages=False)

    def at_experience(self, members: Sequence[int]) -> None:
        """Restart the counts of those who have a new rollout to learn from."""
        if not self.every:
            self._operate(members)
