"""What penalties on the loss promise."""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from clrl.agents.optim.rule import UpdateRule
from clrl.agents.penalties.table import PENALTIES
from clrl.testing.learners import (
    SEED,
    Plain,
    Problem,
    check_members,
    check_neutral,
    check_one_member,
    check_randomness,
    check_state,
    check_trained,
    seeded,
)
from clrl.testing.promises import Broken, Check, Subject, difference, load

_BEFORE = 10  # updates before a term is looked at: some are 0 where a learner starts
_DIRECTIONS = 3  # along which a parameter is moved


def check_penalty(
    penalty: Subject,
    *,
    neutral: Mapping[str, Any] | None = None,
    smooth: bool = True,
    steps: int = 100,
    thorough: bool = False,
    **options: Any,
) -> tuple[str, ...]:
    """Hold a penalty on the loss against what every one of them promises.

    Its term is a finite number, of one learner and of what is remembered of it alone; it has a
    gradient, which is that of the term (by finite differences, in double precision); nothing is
    drawn from global generators; learners under it train; recorded and replayed it is what it is
    when it is called; a learner comes back in a new process, and is the same to the bit alone,
    among others and divided otherwise.

    Args:
        penalty: the class, or a name.
        neutral: options under which there is no penalty, to the bit.
        smooth: whether the gradient is compared with differences; not of a penalty that holds a
            part of its term fixed.
        steps: updates that are compared.
        thorough: try five learners in every division.
        options: the penalty's own.

    Returns:
        The promises that held.

    Raises:
        Broken: the first that does not.
        UsageError: there is nothing of that name.
    """
    make, name = load(penalty, PENALTIES)
    check = Check(name)
    problem = Problem(UpdateRule(torch.optim.SGD, {"lr": 0.05}), steps)
    own = replace(problem, penalties=[functools.partial(make, **options)])
    _check_term(check, own, smooth)
    check_trained(check, own, every=False)
    check_randomness(check, own)
    check_one_member(check, own)
    check_state(check, own)
    check_members(check, own, thorough)
    if neutral is not None:
        nothing = [functools.partial(make, **{**options, **neutral})]
        check_neutral(check, replace(problem, penalties=nothing), problem, 0.0)
    return tuple(check.held)


class _Term:
    """A penalty's term of one learner and one batch, in double precision, as it draws each time.

    Args:
        own: the learner.
        x: inputs of the batch.
        y: its targets.
    """

    def __init__(self, own: Plain, x: Tensor, y: Tensor) -> None:
        self._own = own
        self._batch = x.double(), y.double()
        self._kept = {name: _exact(value) for name, value in own.kept.items()}
        self._generator = own.generator.get_state()
        self.names = list(own.parameters())
        self.values = [_exact(value).requires_grad_() for value in own.parameters().values()]

    def __call__(self, values: Sequence[Tensor]) -> Tensor:
        self._own.generator.set_state(self._generator)
        parameters = dict(zip(self.names, values, strict=True))
        total, loss, _ = self._own.objective(parameters, self._kept, *self._batch)
        return total - loss

    def along(self, which: int, direction: Tensor, length: float) -> float:
        """The slope where one parameter moves in a direction, from so far behind to ahead."""
        ends = []
        for step in (length, -length):
            values = [value.detach() for value in self.values]
            values[which] = values[which] + step * direction
            ends.append(float(self(values)))
        return (ends[0] - ends[1]) / (2 * length)


def _exact(value: Tensor) -> Tensor:
    return value.detach().double() if value.is_floating_point() else value


def _check_term(check: Check, problem: Problem, smooth: bool) -> None:
    (x,), (y,) = problem.examples([SEED], _BEFORE + 1)
    with check.promise("its term is a number"):
        own = Plain(problem, SEED)
        first, _, _ = own.objective(own.parameters(), own.kept, x[0], y[0])
        if first.shape:
            raise Broken(f"expected a scalar, got {[*first.shape]}")
        own.learn(x[:_BEFORE], y[:_BEFORE])
        term = _Term(own, x[-1], y[-1])
        value = term(term.values)
        size = float(value.detach())
        if not math.isfinite(size):
            raise Broken(f"it is {size} after {_BEFORE} updates")
    with check.promise("its term is of the learner and what is remembered alone"):
        again = term(term.values).detach()
        if difference(value, again):
            raise Broken(f"called twice for the same, it is {size:.6g} and {float(again):.6g}")
    with check.promise("its term has a gradient"):
        gradients = torch.autograd.grad(value, term.values, materialize_grads=True)
        for name, gradient in zip(term.names, gradients, strict=True):
            if not bool(gradient.isfinite().all()):
                raise Broken(f"that for {name} is not finite")
        if not any(bool(gradient.any()) for gradient in gradients):
            raise Broken("it is 0 for every parameter")
    if smooth:
        with check.promise("its gradient is that of the term"):
            for which, gradient in enumerate(gradients):
                _expect_slope(term, which, gradient, abs(size))


def _expect_slope(term: _Term, which: int, gradient: Tensor, size: float) -> None:
    """Moved along a direction, the term changes as its gradient says; at a kink nothing is said."""
    generator = seeded(which)
    for _ in range(_DIRECTIONS):
        direction = torch.empty_like(gradient).normal_(generator=generator)
        said = float((gradient * direction).sum())
        far, near = (term.along(which, direction, length) for length in (1e-4, 5e-5))
        room = 1e-4 * max(abs(said), abs(near)) + 1e-9 * (1 + size)
        if abs(far - near) < room / 10 and abs(near - said) > room:
            raise Broken(
                f"along {term.names[which]} the term's slope is {near:.4g}, and the gradient's "
                f"{said:.4g}"
            )
