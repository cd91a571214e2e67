"""What UPGD and AdaUPGD share: utilities, the gates made of them, noise, and blocks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from clrl.agents.optim.ages import ByElement, blocks_of
from clrl.agents.optim.noise import normal

# Elements updated together: few enough that the temporaries stay in the cache, enough that
# the cost of starting an operation does not count.
_BLOCK = 2**16


class UtilityGated(ByElement):
    """An optimizer whose steps are the smaller, the more useful a weight is.

    A subclass says in `move` what it makes of gradient, noise and gate. With g the
    gradient, w the weight and t the step, the utility of a weight is::

        u <- beta_utility * u + (1 - beta_utility) * (-g * w)
        s  = sigmoid(u_hat / u_max),  u_hat = u / (1 - beta_utility^t)

    with u_max the largest utility of one learner, and its gate is 1 - s. Under an add-on that
    starts weights anew, t is counted for each element, as `count_by_element` says.

    Args:
        params: parameters or parameter groups; see the subclasses.
        defaults: options of a group: ``lr``, ``lr_factor``, ``sigma``, ``beta_utility``,
            ``weight_decay``, ``gate``, ``utility_max``, and the subclass's own.
        generator: where the noise comes from; one a member for stacked parameters, None for
            the optimizer's own from seed 0.

    Attributes:
        averages: names of the running averages of a weight, each 0 at first; in ``state``.

    Raises:
        ValueError: a group's members and generators differ in number.
    """

    stacks_members = True
    averages: tuple[str, ...] = ("utility",)
    _by_element = False

    def __init__(
        self,
        params: Any,
        defaults: dict[str, Any],
        generator: torch.Generator | Sequence[torch.Generator] | None,
    ) -> None:
        super().__init__(params, defaults)
        if generator is None:
            generator = torch.Generator().manual_seed(0)
        self._generators = (
            [generator] if isinstance(generator, torch.Generator) else list(generator)
        )
        for group in self.param_groups:
            if group.get("members", 1) != len(self._generators):
                raise ValueError(f"{type(self).__name__} needs one generator a member")

    def count_by_element(self) -> None:
        """Let elements that are started anew count their steps from then on.

        It takes one more number an element. A learner none of whose elements was started anew is
        the same to the bit.
        """
        self._by_element = True

    def decays(self, group: dict[str, Any]) -> tuple[float, ...]:
        """Of the utility, and of the subclass's averages."""
        return (group["beta_utility"], *group.get("betas", ()))

    @torch.no_grad()
    def step(self, closure: Any = None) -> Any:
        """One update of every parameter that has a gradient."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        rows = [
            Rows(self, group, p)
            for group in self.param_groups
            for p in group["params"]
            if p.grad is not None
        ]
        if not rows:
            return loss
        size = max(1, _BLOCK // max(1, sum(row.weight[0].numel() for row in rows)))
        aged = set().union(*(row.ages.members for row in rows if row.ages is not None))
        others = [i for i in range(len(self._generators)) if i not in aged]
        for members in (*blocks_of(others, size), *blocks_of(sorted(aged), 1)):
            tops = [row.track_utility(members) for row in rows if row.gated]
            top = torch.stack(tops).amax(dim=0) if tops else None
            for row in rows:
                group, weight = row.group, row.weight[members]
                noise = normal(
                    weight.shape[1], group["sigma"], self._generators[members], weight.device
                )
                weight.mul_(1 - group["lr"] * group["weight_decay"])
                gate = row.gate(members, top) if row.gated and top is not None else None
                self.move(row, members, noise, gate)
        return loss

    def move(self, row: Rows, members: slice, noise: Tensor, gate: Tensor | None) -> None:
        """Take a step of some members, whose weights have decayed already.

        Args:
            row: the parameter and what belongs to it; weights and averages edited in place.
            members: which of them.
            noise: drawn for this step, [members, elements]; free to be overwritten.
            gate: 1 - s, [members, elements]; None where there is no gate. Free likewise.
        """
        raise NotImplementedError

    def state_dict(self) -> dict[str, Any]:
        """What ``torch.optim.Optimizer`` keeps, and the generators' states."""
        states = [generator.get_state() for generator in self._generators]
        return {**super().state_dict(), "generators": states}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore what `state_dict` gave."""
        state = dict(state_dict)
        for generator, value in zip(self._generators, state.pop("generators"), strict=True):
            generator.set_state(value)
        super().load_state_dict(state)


class Rows:
    """One parameter tensor as [members, elements], with its gradient and averages.

    Making it counts a step.

    Args:
        optimizer: whose parameter it is.
        group: the parameter's group.
        parameter: it has a gradient.

    Attributes:
        group: the options.
        gated: whether there is a gate.
        rate: what the gated move is multiplied by, below 0.
        step: steps including this one.
        ages: of elements that were started anew, if any were.
        weight: [members, elements], as are `gradient` and each of `averages`.
    """

    def __init__(self, optimizer: UtilityGated, group: dict[str, Any], parameter: Tensor) -> None:
        assert parameter.grad is not None
        members = group.get("members", 1)
        state = optimizer.state[parameter]
        if not state:
            state["step"] = 0
            kept = (*optimizer.averages, "since") if optimizer._by_element else optimizer.averages
            for name in kept:
                state[name] = torch.zeros_like(parameter, memory_format=torch.contiguous_format)
        state["step"] += 1
        self.group = group
        self.gated: bool = group["gate"] != "none"
        self.rate: float = -group["lr"] * group["lr_factor"]
        self.step: int = state["step"]
        self.weight = parameter.detach().view(members, -1)
        self.gradient = parameter.grad.reshape(members, -1)
        self.averages: dict[str, Tensor] = {
            name: state[name].view(members, -1) for name in optimizer.averages
        }
        self._width: int = group.get("width", parameter.numel())
        self._decays = optimizer.decays(group)
        self.ages = optimizer.ages_of(group, parameter) if "since" in state else None
        if self.ages is not None:
            self.ages.turn_to(self.step)

    def corrections(self, members: slice) -> Sequence[float] | Sequence[Tensor]:
        """1 - beta^age for each of the optimizer's decay rates.

        Numbers; or, of a member with elements that were started anew, which is to be alone,
        tensors [1, elements], to be used before the next call.
        """
        if self.ages is None or members.start not in self.ages.members:
            return [1 - beta**self.step for beta in self._decays]
        return self.ages.corrections(members)

    def track_utility(self, members: slice) -> Tensor:
        """Update the running averages; return each member's u_max here, [members, 1]."""
        beta: float = self.group["beta_utility"]
        utility = self.averages["utility"][members]
        utility.mul_(beta)
        utility.addcmul_(self.gradient[members], self.weight[members], value=beta - 1)
        correction = self.corrections(members)[0]
        if self.group["utility_max"] == "corrected" and isinstance(correction, Tensor):
            utility = utility / correction
            correction = 1.0
        top = utility[:, : self._width].amax(dim=1, keepdim=True)
        return top / correction if self.group["utility_max"] == "corrected" else top

    def gate(self, members: slice, top: Tensor) -> Tensor:
        """1 - s of these members, whose u_max is given, [members, 1]."""
        # 1 - sigmoid(u_hat / u_max) = sigmoid(-u_hat / u_max), u_hat being u / correction.
        divisor = -self.corrections(members)[0] * top
        divisor = torch.where(divisor == 0, torch.inf, divisor)
        return (self.averages["utility"][members] / divisor).sigmoid_()
