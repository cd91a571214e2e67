"""Heads and whole networks that start anew (Nikishin et al. 2022), over any base optimizer."""

from __future__ import annotations

from clrl.agents.optim.members import Members
from clrl.agents.optim.options import FullResetOptions, HeadResetOptions
from clrl.agents.optim.surgery import Surgery


class HeadReset(Surgery):
    """The last layers start anew, with the optimizer's state of them; the rest goes on.

    Nikishin et al., "The primacy bias in deep reinforcement learning", ICML 2022; official code
    evgenii-nikishin/rl_with_resets. By default every 20000 updates, as SPR there (which has four
    resets at the most: ``times``); ``every=0`` is a new head for each task, as Juliani & Ash 2024
    try it with PPO. New weights are drawn by the network's own initialiser, and take the place of
    the old ones in the same tensors, so that the optimizer goes on with them. The last layers of
    actor and critic are both heads. As in the source, a target network (of Stable-Baselines3's DQN,
    SAC and TD3) gets the same new weights, and follows from there. What else an agent has is left
    alone: rollouts, a replay buffer, running means of observations.

    Args:
        members: the learners.
        every: updates from one reset to the next; 0 for resets at changes of task.
        times: the most resets; 0 for no bound.
        layers: how many layers from the output on are the head, norms between them included.
    """

    default_every = HeadResetOptions.every

    def __init__(
        self,
        members: Members,
        every: int = HeadResetOptions.every,
        times: int = HeadResetOptions.times,
        layers: int = HeadResetOptions.layers,
    ) -> None:
        super().__init__(members, every, times)
        declared = members.hidden_layers
        last = set(members.network.heads)
        self._modules = set(last)
        for _ in range(layers - 1):
            below = [layer for layer in declared if last & {*layer.readers}]
            last = {layer.incoming for layer in below}
            norms = {norm for layer in below for norm in (layer.norm, layer.norm_after) if norm}
            self._modules |= last | norms

    def operate(self, member: int) -> None:
        """Start the head of one learner anew."""
        _start_anew(self.members, member, self._modules)


class FullReset(Surgery):
    """The whole network starts anew, with the optimizer's state.

    Nikishin et al. 2022, as their SAC; see `HeadReset`. By default every 200000 updates;
    ``every=0`` is a new network for each task. Parameters without a layer, such as a policy's
    spread, go back to where they began, and so do running statistics of BatchNorm. What other
    add-ons remember goes on. Of Stable-Baselines3's agents the entropy coefficient of SAC goes on,
    which in the source starts anew, and updates are counted for actor and critics apart: TD3's
    actor has half as many.

    Args:
        members: the learners.
        every: updates from one reset to the next; 0 for resets at changes of task.
        times: the most resets; 0 for no bound.
    """

    default_every = FullResetOptions.every

    def __init__(
        self,
        members: Members,
        every: int = FullResetOptions.every,
        times: int = FullResetOptions.times,
    ) -> None:
        super().__init__(members, every, times)

    def operate(self, member: int) -> None:
        """Start one learner anew."""
        _start_anew(self.members, member, None)


def _start_anew(members: Members, member: int, modules: set[str] | None) -> None:
    """Parameters and running statistics of some modules, or of all."""
    for name in members.parameters:
        if modules is None or name.rpartition(".")[0] in modules:
            members.start_anew(name, member)
    for name in members.buffers:
        norm = name.rpartition(".")[0]
        if modules is None or norm in modules:
            members.forget_statistics(norm, member)
