"""Shrink and perturb (Ash & Adams 2020), over any base optimizer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

from torch import Tensor

from clrl.agents.networks import maps
from clrl.agents.optim.base import AddOn
from clrl.agents.optim.members import Members
from clrl.agents.optim.noise import normal
from clrl.agents.optim.options import ShrinkAndPerturbOptions


class ShrinkAndPerturb(AddOn):
    """Shrink every weight and bias a little and add noise, after steps of the base.

    After every ``every``-th step of the base optimizer::

        w <- shrink * w + noise

    or, with ``when="change"``, where the task changed, of the members whose task it is and before
    the next update. The base's moments stay as they are in every form.

    Several forms are in print; each is a setting:

    - Dohare et al. 2024 (the default): every step, noise N(0, noise_scale^2), not
      multiplied by the step size; the shrinking is the base's coupled L2
      (``weight_decay`` of SGD or Adam), so ``shrink`` is 1.
    - Elsayed & Mahmood 2024 (baseline in the UPGD paper), w <- (1 - lr * weight_decay) w
      - lr (g + xi): SGD with that ``weight_decay``, ``noise_scale`` the standard deviation
      of xi and ``scale_by_lr=True``.
    - Ash & Adams 2020: ``shrink=0.6, noise_scale=0.01`` and ``every`` the number of steps
      after which new data arrives.
    - Juliani & Ash 2024, at changes of task: ``when="change", shrink=0.5, noise_scale=0.5,
      noise="initializer"``. New heads at changes, all else kept: ``when="change", shrink=0,
      noise_scale=1, noise="initializer", part="heads"``.
    - Kumar et al. 2023 (code): every step ``shrink`` 1 - p of 1e-4 to 1e-3,
      ``noise_scale=0.01, noise="initializer"``.
    - "Soft" shrink and perturb (Juliani & Ash 2024), w <- 0.999999 w + 1e-6 w_fresh with a
      fresh draw of the initialiser: ``shrink=0.999999, noise_scale=1e-6,
      noise="initializer"``.

    Args:
        members: the learners.
        noise_scale: standard deviation of normal noise, or the factor of a fresh draw.
        noise: ``"normal"``, or ``"initializer"`` for a fresh draw of the parameter's own
            initialiser.
        scale_by_lr: whether the noise is also multiplied by the base's step size.
        shrink: factor on the weights, in [0, 1]; 1 leaves the shrinking to the base.
        every: steps of the base from one application to the next; of no account at changes.
        when: ``"step"``, or ``"change"`` to act at changes of task, of which the learner is then
            told.
        part: ``"all"`` parameters, or those of the ``"heads"``: the layers that no declared hidden
            layer follows, of policy and values both.
    """

    def __init__(
        self,
        members: Members,
        noise_scale: float = ShrinkAndPerturbOptions.noise_scale,
        noise: Literal["normal", "initializer"] = ShrinkAndPerturbOptions.noise,
        scale_by_lr: bool = ShrinkAndPerturbOptions.scale_by_lr,
        shrink: float = ShrinkAndPerturbOptions.shrink,
        every: int = ShrinkAndPerturbOptions.every,
        when: Literal["step", "change"] = ShrinkAndPerturbOptions.when,
        part: Literal["all", "heads"] = ShrinkAndPerturbOptions.part,
    ) -> None:
        super().__init__(members)
        self.noise_scale = noise_scale
        self.noise = noise
        self.scale_by_lr = scale_by_lr
        self.shrink = shrink
        self.every = every
        self.needs_changes = when == "change"
        heads = [own for own in maps(members.network) if not own.hidden]
        names = [name for own in heads for name in own.names]
        self._names = list(members.parameters) if part == "all" else names
        self._tensors = members.tensors
        if part == "heads":
            self._tensors = [members.parameters[name] for name in names]
        self._steps = 0

    @classmethod
    def hears_changes(cls, options: Mapping[str, Any]) -> bool:
        """Whether it acts at changes of task, under these options."""
        return options.get("when") == "change"

    def after_step(self, features: Mapping[str, Tensor]) -> None:
        """Shrink and perturb where it is time to; see the class."""
        if self.needs_changes:
            return
        self._steps += 1
        if self._steps % self.every == 0:
            self._apply(range(len(self.members.generators)))

    def at_change(self, members: Sequence[int]) -> None:
        """Shrink and perturb the members whose task changed."""
        self._apply(members)

    def _apply(self, members: Sequence[int]) -> None:
        scale = self.noise_scale * (self.members.lr if self.scale_by_lr else 1.0)
        everyone = len(members) == len(self.members.generators)
        where = slice(None) if everyone else list(members)
        if self.shrink != 1.0:
            for tensor in self._tensors:
                tensor[where] *= self.shrink
        if self.noise == "initializer":
            self._add_fresh(scale, members)
            return
        generators = [self.members.generators[member] for member in members]
        for tensor in self._tensors:
            noise = normal(tensor[0].numel(), scale, generators, tensor.device)
            tensor[where] += noise.view(-1, *tensor.shape[1:])

    def _add_fresh(self, scale: float, members: Sequence[int]) -> None:
        for name in self._names:
            parameter = self.members.parameters[name]
            for member in members:
                parameter[member].add_(self.members.fresh(name, member), alpha=scale)

    def state_dict(self) -> dict[str, Any]:
        """The step count."""
        return {"steps": self._steps}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore the step count."""
        self._steps = state["steps"]
