"""What update rules promise: optimizers, and add-ons over them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from clrl.agents.optim.rule import UpdateRule, mixes_members
from clrl.agents.optim.table import ADDONS, OPTIMIZERS
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
)
from clrl.testing.promises import Broken, Check, Subject, difference, load

Addons = Sequence[tuple[Subject, Mapping[str, Any]]]

_LESSON = 250  # updates after which a loss is to have fallen


def check_optimizer(
    optimizer: Subject,
    *,
    addons: Addons = (),
    neutral: tuple[Mapping[str, Any], Subject, Mapping[str, Any]] | None = None,
    steps: int = 100,
    learns: float = 1.0,
    draws: bool = True,
    thorough: bool = False,
    **options: Any,
) -> tuple[str, ...]:
    """Hold an optimizer against what every update rule promises.

    It is an ordinary ``torch.optim.Optimizer`` that edits parameters in place; every number is
    trained (of a parameter any, with add-ons); a learner is the same to the bit alone, among others
    and divided otherwise; its state
    comes back in a new process; it draws from its own generator alone; a step size of 0 holds still
    what the optimizer moves; one learner of the engine is the ordinary module.

    Args:
        optimizer: the class, or a name.
        addons: what is done after its steps: add-ons, each with its options.
        neutral: options under which it is another optimizer, that one, and its options.
        steps: updates that are compared; what mixes learners late is found with more.
        learns: the share of its first loss that `steps` of 250 are to leave at the most.
        draws: whether what it draws, if it draws, is to be seen; not where its noise is set to 0.
        thorough: try five learners in every division.
        options: the optimizer's own.

    Returns:
        The promises that held; ``"stacked"`` or ``"a member at a time"`` says how it is trained.

    Raises:
        Broken: the first that does not.
        UsageError: there is nothing of that name.
    """
    base, name = load(optimizer, OPTIMIZERS)
    check = Check(name)
    rule = UpdateRule(base, options, [(load(one, ADDONS)[0], own) for one, own in addons])
    problem = Problem(rule, steps)
    _check_rule(check, problem, learns, draws, thorough)
    if not rule.addons:
        _check_quadratic(check, rule, learns)
        _check_step_size(check, problem)
    if neutral is not None:
        as_other, other, with_options = neutral
        same = UpdateRule(load(other, OPTIMIZERS)[0], with_options)
        own = replace(problem, rule=replace(rule, options={**options, **as_other}))
        check_neutral(check, own, replace(problem, rule=same), 1e-4)
    return tuple(check.held)


def check_addon(
    addon: Subject,
    *,
    base: Subject = "sgd",
    base_options: Mapping[str, Any] = {"lr": 0.05},  # noqa: B006 - not written to
    neutral: Mapping[str, Any] | None = None,
    steps: int = 100,
    learns: float = 1.0,
    thorough: bool = False,
    **options: Any,
) -> tuple[str, ...]:
    """Hold an add-on against what every update rule promises, over an optimizer.

    Args:
        addon: the class, or a name.
        base: the optimizer below.
        base_options: its options.
        neutral: options under which the add-on is as if it were not there, to the bit.
        steps: see `check_optimizer`.
        learns: see there.
        thorough: see there.
        options: the add-on's own.

    Returns:
        The promises that held.

    Raises:
        Broken: the first that does not.
        UsageError: there is nothing of that name.
    """
    make, name = load(addon, ADDONS)
    below, _ = load(base, OPTIMIZERS)
    check = Check(name)
    bare = UpdateRule(below, base_options)
    problem = Problem(replace(bare, addons=[(make, options)]), steps)
    _check_rule(check, problem, learns, True, thorough)
    if neutral is not None:
        rule = replace(bare, addons=[(make, {**options, **neutral})])
        own, same = (replace(problem, rule=one) for one in (rule, bare))
        check_neutral(check, own, same, 0.0)
    return tuple(check.held)


def _check_rule(check: Check, problem: Problem, learns: float, draws: bool, thorough: bool) -> None:
    _check_plain(check, problem)
    with check.promise("takes a step of stacked learners"):
        apart = mixes_members(problem.rule)
    check.held[-1] = "a member at a time" if apart else "stacked"
    if not any(getattr(addon, "holds_still", False) for addon, _ in problem.rule.addons):
        check_trained(check, problem, every=not problem.rule.addons)
    check_randomness(check, problem, draws)
    check_members(check, problem, thorough)
    check_one_member(check, problem)
    check_state(check, problem)
    _check_lesson(check, problem, learns)


def _check_plain(check: Check, problem: Problem) -> None:
    """An ordinary optimizer on an ordinary module."""
    with check.promise("an ordinary optimizer"):
        own = Plain(problem, SEED)
        if not isinstance(own.optimizer, torch.optim.Optimizer):
            raise Broken("it is no torch.optim.Optimizer")
        (x,), (y,) = problem.examples([SEED], 3)
        own.learn(x, y)
    with check.promise("parameters edited in place"):
        own = Plain(problem, SEED)
        before = {name: one.detach() for name, one in own.network.named_parameters()}  # kept
        own.learn(x, y)
        for name, one in own.network.named_parameters():
            if one.data_ptr() != before[name].data_ptr():
                raise Broken(f"{name} is another tensor after a step")


def _check_lesson(check: Check, problem: Problem, learns: float) -> None:
    """The loss falls, of the ordinary module and in the engine."""
    with check.promise("lowers a regression's loss"):
        x, y = problem.examples([SEED], _LESSON)
        of_plain = Plain(problem, SEED).learn(x[0], y[0])
        in_population = problem.population([SEED]).learn(x, y)["loss"][0]
        for losses in (of_plain, in_population):
            _expect_lower(float(losses[:5].mean()), float(losses[-20:].mean()), learns)


def _check_quadratic(check: Check, rule: UpdateRule, learns: float) -> None:
    """f(w) = sum_i c_i (w_i - t_i)^2 / 2, c from 0.1 to 1, of one tensor.

    Not around 0: there every utility -g w is negative, and UPGD's formula, which divides by the
    largest of them, protects the weights of least utility most.
    """
    with check.promise("lowers a quadratic"):
        weight = torch.nn.Parameter(torch.linspace(-1, 1, 20))
        optimizer = rule.base([weight], **rule.options)
        curvature, target = torch.linspace(0.1, 1, 20), torch.tensor([2.0, -1.0]).repeat(10)
        values: list[Tensor] = []
        for _ in range(300):
            value = (curvature * (weight - target).square()).sum() / 2
            optimizer.zero_grad()
            value.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            values.append(value.detach())
        _expect_lower(float(values[0]), float(values[-1]), learns)


def _expect_lower(first: float, last: float, learns: float) -> None:
    if not last < learns * first:
        share = "" if learns == 1.0 else f"{learns:g} of "
        raise Broken(f"{first:.4g} at first and {last:.4g} at last; expected below {share}it")


def _check_step_size(check: Check, problem: Problem) -> None:
    """A schedule of the step size reaches the optimizer: without any, nothing moves."""
    own = Plain(problem, SEED)
    if "lr" not in own.optimizer.param_groups[0]:
        return
    with check.promise("a step size of 0 holds still"):
        (x,), (y,) = problem.examples([SEED], 2)
        own.learn(x[:1], y[:1])
        for group in own.optimizer.param_groups:
            group["lr"] = 0.0
        before = own.parameters()
        own.learn(x[1:], y[1:])
        if where := difference(before, own.parameters()):
            raise Broken(f"{where} moves all the same")
