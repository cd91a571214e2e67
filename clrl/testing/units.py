"""What resets of units promise."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from clrl.agents.networks import HiddenLayer
from clrl.agents.optim.base import WithAddOns
from clrl.agents.optim.rule import UpdateRule, make_base
from clrl.agents.optim.table import ADDONS
from clrl.agents.optim.units import UnitReset, Units
from clrl.agents.options import MLPOptions
from clrl.testing.learners import SEED, Plain, Problem, seeded
from clrl.testing.promises import Broken, Check, Subject, load
from clrl.testing.rules import check_addon

_BASE: dict[str, Any] = {"lr": 0.01}  # Adam's options
_NETWORKS = (
    MLPOptions(widths=(7, 5), activation="tanh", layer_norm=True, init="kaiming"),
    MLPOptions(widths=(7, 5), activation="crelu", init="kaiming"),
)
_LOOKS = 10  # at a network, at the most

# What is expected of a number when units have started anew.
_STAYS, _FREE, _ZERO, _ONE, _DRAWN = range(5)
_WORDS = {_ZERO: "0", _ONE: "1", _DRAWN: "a draw of the network's initialiser"}


def check_unit_reset(
    reset: Subject,
    *,
    neutral: Mapping[str, Any] | None = None,
    steps: int = 100,
    learns: float = 1.0,
    thorough: bool = False,
    **options: Any,
) -> tuple[str, ...]:
    """Hold a reset of units against what every one of them promises.

    It names units that there are. A unit that starts anew has incoming weights from the network's
    initialiser, the incoming bias 0, a norm's scale 1 and shift 0, and outgoing weights as the
    class says; the state of the optimizer below, Adam, is that of a new one for all these numbers,
    if the class says so, and nothing else is touched (but the biases of what reads the
    units, to which something may be handed over). This is looked at in a network with layer
    normalisation, and in one with two features a unit. Besides, all that `check_addon` says.

    Args:
        reset: the class, or a name.
        neutral: options under which no unit starts anew.
        steps: see `check_addon`; enough that under the options given some units start anew.
        learns: see there.
        thorough: see there.
        options: the reset's own.

    Returns:
        The promises that held.

    Raises:
        Broken: the first that does not.
        UsageError: there is nothing of that name.
    """
    make, name = load(reset, ADDONS)
    check = Check(name)
    rule = UpdateRule(torch.optim.Adam, _BASE, [(make, options)])
    with check.promise("names units to start anew"):
        watched = [_Watched(Problem(rule, steps, options=network)) for network in _NETWORKS]
    looks = [look for one in watched for look in one.looks]
    with check.promise("units start anew as declared, and nothing else does"):
        for look in looks:
            look.expect_parameters()
    with check.promise("what is new moves as under a new optimizer, and nothing else does"):
        for look in looks:
            look.expect_state(rule)
    held = check_addon(
        reset,
        base="adam",
        base_options=_BASE,
        neutral=neutral,
        steps=steps,
        learns=learns,
        thorough=thorough,
        **options,
    )
    return (*check.held, *held)


@dataclass
class _Look:
    """What a reset did after one step.

    Attributes:
        reset: the reset.
        before: the parameters before it, by name.
        state: the optimizer's state before it.
        named: layers and their units that were to start anew, in order.
        drawn: what the network's initialiser gave meanwhile, by name.
        after: the parameters after it.
        state_after: the optimizer's state after it.
    """

    reset: UnitReset
    before: dict[str, Tensor]
    state: dict[str, Any]
    named: list[tuple[HiddenLayer, Tensor]] = field(default_factory=list)
    drawn: dict[str, list[Tensor]] = field(default_factory=dict)
    after: dict[str, Tensor] = field(default_factory=dict)
    state_after: dict[str, Any] = field(default_factory=dict)

    def _expected(self) -> dict[str, Tensor]:
        """What is expected of each number of each parameter."""
        found = {name: torch.full(one.shape, _STAYS) for name, one in self.before.items()}

        def expect(name: str, index: Any, what: int) -> None:
            if name in found:
                found[name][index] = what

        outgoing = {"zero": _ZERO, "fresh": _DRAWN, "keep": _STAYS}[self.reset.outgoing]
        for layer, units in self.named:
            expect(f"{layer.incoming}.weight", units, _DRAWN)
            expect(f"{layer.incoming}.bias", units, _ZERO)
            expect(f"{layer.norm}.weight", units, _ONE)
            expect(f"{layer.norm}.bias", units, _ZERO)
            expect(f"{layer.norm_after}.weight", self._columns(layer, units), _ONE)
            expect(f"{layer.norm_after}.bias", self._columns(layer, units), _ZERO)
            for path in layer.readers:
                expect(f"{path}.weight", (slice(None), self._columns(layer, units)), outgoing)
                expect(f"{path}.bias", ..., _FREE)
        if self.reset.silent and outgoing == _ZERO:
            for layer, units in self.named:
                for path in layer.readers:
                    expect(f"{path}.weight", (slice(None), self._columns(layer, units)), _ZERO)
        return found

    def _columns(self, layer: HiddenLayer, units: Tensor) -> Tensor:
        size = len(self.before[f"{layer.incoming}.weight"])
        return torch.cat([units + copy * size for copy in range(layer.copies)])

    def expect_parameters(self) -> None:
        """New numbers are what they are to be, and the others what they were.

        Raises:
            Broken: one is not.
        """
        who = " and ".join(f"{units.tolist()} of {layer.name}" for layer, units in self.named)
        for name, expected in self._expected().items():
            after, drawn = self.after[name], self.drawn.get(name, [])
            right = {
                _STAYS: after == self.before[name],
                _ZERO: after == 0,
                _ONE: after == 1,
                _DRAWN: sum((after == one for one in drawn), torch.zeros_like(after).bool()),
            }
            for what, holds in right.items():
                wrong = torch.nonzero((expected == what) & ~holds)
                if len(wrong):
                    place = tuple(wrong[0].tolist())
                    words = _WORDS.get(what, f"{float(self.before[name][place]):.4g} as before")
                    raise Broken(
                        f"units {who}: {name} {[*place]} is {float(after[place]):.4g}; "
                        f"expected {words}"
                    )

    def expect_state(self, rule: UpdateRule) -> None:
        """One more step moves new numbers as a new optimizer, and the others as it would have.

        Raises:
            Broken: one moves otherwise.
        """
        found = self._step(rule, self.state_after)
        new, old = self._step(rule, None), self._step(rule, self.state)
        for name, expected in self._expected().items():
            fresh = expected > _FREE if self.reset.reset_optimizer else expected < _STAYS
            for where, other, whose in (
                (fresh, new[name], "a new optimizer's"),
                (~fresh, old[name], "that of the optimizer as it was"),
            ):
                apart = ~torch.isclose(found[name], other, rtol=1e-5, atol=1e-7) & where
                if bool(apart.any()):
                    place = tuple(torch.nonzero(apart)[0].tolist())
                    raise Broken(f"the next step of {name} {[*place]} is not {whose}")

    def _step(self, rule: UpdateRule, state: dict[str, Any] | None) -> dict[str, Tensor]:
        values = [value.clone() for value in self.after.values()]
        base = make_base(rule, values, [seeded(0)])
        if state is not None:
            base.load_state_dict(copy.deepcopy(state))
        for number, value in enumerate(values):
            value.grad = torch.empty_like(value).normal_(generator=seeded(number))
        base.step()
        return dict(zip(self.after, values, strict=True))


class _Watched:
    """One learner that has learned a problem, and whose reset was watched.

    Args:
        problem: what is learned.

    Attributes:
        looks: at the first times that units started anew.

    Raises:
        Broken: none did, or some that are not there.
    """

    def __init__(self, problem: Problem) -> None:
        self.looks: list[_Look] = []
        self._own = Plain(problem, SEED)
        assert isinstance(self._own.optimizer, WithAddOns)
        self._base = self._own.optimizer.chain.base
        (reset,) = self._own.optimizer.chain.addons
        if not isinstance(reset, UnitReset):
            raise Broken("it is no clrl.optim.UnitReset")
        self._reset = reset
        self._fresh, self._due = self._own.network.fresh, reset.due
        self._after_step = reset.after_step
        for owner, name in ((self._own.network, "fresh"), (reset, "due"), (reset, "after_step")):
            setattr(owner, name, getattr(self, name))
        (x,), (y,) = problem.examples([SEED], problem.steps)
        self._own.learn(x, y)
        if not self.looks:
            raise Broken(
                f"none in {problem.steps} updates; expected options under which some are, or steps"
            )

    def fresh(self, name: str, generator: torch.Generator) -> Tensor:
        """In place of the network's."""
        drawn = self._fresh(name, generator)
        self._look.drawn.setdefault(name, []).append(drawn.clone())
        return drawn

    def due(self, layer: Units, features: Mapping[str, Tensor]) -> Iterator[tuple[int, Tensor]]:
        """In place of the reset's."""
        for member, units in self._due(layer, features):
            if member != 0:
                raise Broken(f"it names member {member} of 1")
            if not isinstance(units, Tensor) or units.dtype != torch.int64 or units.ndim != 1:
                kind = getattr(units, "dtype", type(units).__name__)
                raise Broken(f"{layer.name}: expected indices of units, int64 [number], got {kind}")
            for unit in units.tolist():
                if not 0 <= unit < layer.size:
                    raise Broken(f"{layer.name}: it names unit {unit} of {layer.size}")
            if len({*units.tolist()}) < len(units):
                raise Broken(f"{layer.name}: it names a unit twice, of {units.tolist()}")
            if len(units):
                self._look.named.append((layer.layer, units.clone()))
            yield member, units

    def after_step(self, features: Mapping[str, Tensor]) -> None:
        """In place of the reset's."""
        state = copy.deepcopy(self._base.state_dict())
        self._look = _Look(self._reset, self._own.parameters(), state)
        self._after_step(features)
        if self._look.named and len(self.looks) < _LOOKS:
            self._look.after = self._own.parameters()
            self._look.state_after = copy.deepcopy(self._base.state_dict())
            self.looks.append(self._look)
