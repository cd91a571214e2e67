"""Adam and AdamW whose steps are counted for each element, for weights that start anew."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.optim.adam import adam

from clrl.agents.optim.members import Put
from clrl.agents.optim.options import AdamOptions, AdamWOptions

_BLOCK = 1 << 16
"""Numbers that are computed in one go: what six operands of this size take fits a cache."""

_PERIOD = 8
"""Steps between two computations of every element's power; fewer round better."""


class ElementwiseAdam(torch.optim.Optimizer):
    r"""Adam (Kingma & Ba 2015), each element of which can be started anew.

    It is ``torch.optim.Adam`` (fused, coupled L2), to the bit, for a learner none of whose
    elements was started anew. Elements that were are as in an Adam that began at that moment:
    with a their steps since then, w, g, m and v the weight, its gradient and the averages::

        m <- beta_1 * m + (1 - beta_1) * g          m_hat = m / (1 - beta_1^a)
        v <- beta_2 * v + (1 - beta_2) * g^2        v_hat = v / (1 - beta_2^a)
        w <- w - lr * m_hat / (sqrt(v_hat) + eps)

    torch's own Adam has one count for a whole tensor. Where m and v of an old tensor are set to 0,
    they are then taken for averages of many steps, and the element moves up to
    (1 - beta_1) / sqrt(1 - beta_2) = 3.2 times as far at first and 6.6 times at its tenth step.

    The state of a parameter has, besides torch's entries, ``since``: the step after which each
    element began, 0 if it always was there.

    Args:
        params: parameters or parameter groups, contiguous. A group with the key ``members`` holds
            tensors that stack learners, [members, columns].
        lr: step size.
        betas: decay rates of m and v, in [0, 1).
        eps: added to the root of v_hat.
        weight_decay: coupled L2: the gradient gains ``weight_decay * w``.
    """

    decoupled: ClassVar[bool] = False

    def __init__(
        self,
        params: Any,
        lr: float = AdamOptions.lr,
        betas: tuple[float, float] = AdamOptions.betas,
        eps: float = AdamOptions.eps,
        weight_decay: float = AdamOptions.weight_decay,
    ) -> None:
        super().__init__(
            params, {"lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay}
        )
        # What follows from the state, of tensors with elements that were started anew.
        self._ages: dict[Tensor, Ages | None] = {}

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Take one step; what the closure gave, if there is one."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            together: list[list[Tensor]] = [[], [], [], [], []]
            for parameter in group["params"]:
                if parameter.grad is None:
                    continue
                rest = self._as_a_whole(group, parameter)
                together = [one + value for one, value in zip(together, rest, strict=True)]
            if together[0]:
                weights, gradients, means, squares, steps = together
                adam(
                    weights, gradients, means, squares, [], steps,
                    fused=True, amsgrad=False, maximize=False,
                    beta1=group["betas"][0], beta2=group["betas"][1], lr=group["lr"],
                    eps=group["eps"], weight_decay=group["weight_decay"],
                    decoupled_weight_decay=self.decoupled,
                )  # fmt: skip
        return loss

    def _as_a_whole(self, group: dict[str, Any], parameter: Tensor) -> list[list[Tensor]]:
        """Step what counts by element; the rest: weights, gradients, averages, step counts."""
        state = self._state(parameter)
        assert parameter.grad is not None
        values = [parameter, parameter.grad, state["exp_avg"], state["exp_avg_sq"]]
        ages = self._ages_of(group, parameter)
        if ages is None:
            return [[value] for value in (*values, state["step"])]
        rows = [value.view(len(ages.since), -1) for value in values]
        whole = [i for i in range(len(ages.since)) if i not in ages.members]
        # The kernel counts on a step of each tensor that it is given; of these there is one.
        rest = [[value[i] for i in whole] for value in rows]
        rest.append([state["step"].clone() for _ in whole])
        state["step"] += 1
        ages.turn_to(int(state["step"]))
        for block in _blocks(sorted(ages.members), max(1, _BLOCK // rows[0].shape[1])):
            corrections = ages.corrections(block)
            _step(group, self.decoupled, [value[block] for value in rows], corrections)
        return rest

    def begin_step(self, parameter: Tensor) -> Ages | None:
        """Count a step of a stack of learners that is taken elsewhere.

        Args:
            parameter: the stack, [members, columns]; its averages are the caller's to keep.

        Returns:
            How old elements are, if some were started anew.
        """
        (group,) = self.param_groups
        state = self._state(parameter)
        ages = self._ages_of(group, parameter)
        state["step"] += 1
        if ages is not None:
            ages.turn_to(int(state["step"]))
        return ages

    def _state(self, parameter: Tensor) -> dict[str, Tensor]:
        state: dict[str, Tensor] = self.state[parameter]
        if not state:
            state["step"] = torch.zeros((), dtype=torch.float32, device=parameter.device)
            for name in ("exp_avg", "exp_avg_sq", "since"):
                state[name] = torch.zeros_like(parameter)
        return state

    def _ages_of(self, group: dict[str, Any], parameter: Tensor) -> Ages | None:
        """Of a tensor some of whose elements were started anew."""
        if parameter not in self._ages:
            state = self.state[parameter]
            since = state["since"].view(group.get("members", 1), -1)
            began = torch.nonzero((since != 0).any(dim=1)).flatten().tolist()
            made = Ages(since, group["betas"], int(state["step"]), set(began)) if began else None
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
        if not state:
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


class ElementwiseAdamW(ElementwiseAdam):
    """AdamW (Loshchilov & Hutter 2019), each element of which can be started anew.

    It is to ``torch.optim.AdamW`` what `ElementwiseAdam` is to ``torch.optim.Adam``.

    Args:
        params: see `ElementwiseAdam`.
        lr: step size.
        betas: decay rates of m and v, in [0, 1).
        eps: added to the root of v_hat.
        weight_decay: decoupled: each step also takes ``lr * weight_decay * w`` off w.
    """

    decoupled: ClassVar[bool] = True

    def __init__(
        self,
        params: Any,
        lr: float = AdamWOptions.lr,
        betas: tuple[float, float] = AdamWOptions.betas,
        eps: float = AdamWOptions.eps,
        weight_decay: float = AdamWOptions.weight_decay,
    ) -> None:
        super().__init__(params, lr, betas, eps, weight_decay)


class Ages:
    """How old each element of a tensor is, and the corrections 1 - beta^age that follow.

    With T the last multiple of the period, t the step and s when an element began::

        1 - beta^(t - s) = (1 - beta^(t - T)) + beta^(t - T) * (1 - beta^(T - s))

    The last term is computed once a period, so that a step costs an addition. Adding what is small
    keeps the corrections of young elements exact, which 1 - beta^age in single precision is not.

    Args:
        since: the step after which each element began, [members, elements].
        betas: the two decay rates.
        step: steps so far.
        members: who has elements that were started anew; the others' are not looked at.

    Attributes:
        parts: of both betas, the last term's 1 - beta^(T - s), [members, elements].
        powers: of both, 1 - beta^(t - T) and beta^(t - T).
    """

    def __init__(
        self, since: Tensor, betas: tuple[float, float], step: int, members: set[int]
    ) -> None:
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
        """1 - beta^age for both betas, of some members."""
        length = len(self.since[block])
        if not self._spare or len(self._spare[0]) < length:
            self._spare = [part[block].clone() for part in self.parts]
        return [
            torch.add(self.since.new_tensor(rest), part[block], alpha=power, out=spare[:length])
            for (rest, power), part, spare in zip(self.powers, self.parts, self._spare, strict=True)
        ]


def _blocks(members: Sequence[int], most: int) -> list[slice]:
    """Neighbours among some members, not too many together."""
    blocks: list[slice] = []
    for member in members:
        last = blocks[-1] if blocks else slice(0, -1)
        if member == last.stop and last.stop - last.start < most:
            blocks[-1] = slice(last.start, member + 1)
        else:
            blocks.append(slice(member, member + 1))
    return blocks


def _step(
    group: dict[str, Any], decoupled: bool, values: list[Tensor], corrections: list[Tensor]
) -> None:
    """A step of some members: weights, gradients and averages, [members, elements] each."""
    weight, gradient, mean, square = values
    (beta_1, beta_2), decay = group["betas"], group["weight_decay"]
    if decay and decoupled:
        weight.mul_(1 - group["lr"] * decay)
    elif decay:
        gradient = gradient.add(weight, alpha=decay)
    mean.lerp_(gradient, 1 - beta_1)
    square.mul_(beta_2).addcmul_(gradient, gradient, value=1 - beta_2)
    first, second = corrections
    root = torch.div(square, second, out=second).sqrt_().add_(group["eps"])
    weight.addcdiv_(mean, root.mul_(first), value=-group["lr"])
