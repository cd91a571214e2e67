"""Updates and decisions of some members by compiled code."""

from __future__ import annotations

import ctypes
import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from clrl.agents.device import CPU
from clrl.agents.engine.build import library
from clrl.agents.engine.plan import LossPlan
from clrl.agents.networks import Dense, Network
from clrl.agents.optim.base import AddOn
from clrl.agents.optim.elementwise import ElementwiseAdam
from clrl.agents.optim.members import Flat
from clrl.agents.optim.options import UPGDOptions
from clrl.agents.optim.rule import UpdateRule
from clrl.agents.optim.upgd import UPGD

_ACTIVATIONS = ("identity", "relu", "leaky-relu", "tanh", "sigmoid")
_LOSSES = ("classification", "regression", "ppo-discrete", "ppo-gaussian")
_VALUE_CLIPS = ("none", "sb3", "max")
_RULES: dict[Any, str] = {
    torch.optim.SGD: "sgd",
    torch.optim.Adam: "adam",
    torch.optim.AdamW: "adamw",
    UPGD: "upgd",
}
_GATES = ("none", "noise", "update")
_KNOWN = {
    "sgd": {"lr", "weight_decay"},
    "adam": {"lr", "betas", "eps", "weight_decay"},
    "adamw": {"lr", "betas", "eps", "weight_decay"},
    "upgd": {field.name for field in dataclasses.fields(UPGDOptions)},
}
_MOST_HIDDEN, _MOST_SPREAD, _MOST_ARRAYS = 64, 64, 16

_Pointer, _Long, _Int, _Float = ctypes.c_void_p, ctypes.c_int64, ctypes.c_int32, ctypes.c_float


class _Layer(ctypes.Structure):
    _fields_ = (
        ("weight", _Long),
        ("bias", _Long),
        ("inputs", _Int),
        ("units", _Int),
        ("activation", _Int),
        ("slope", _Float),
    )


class _Network(ctypes.Structure):
    _fields_ = (
        ("layers", _Pointer),
        ("depths", _Pointer),
        ("chains", _Int),
        ("inputs", _Int),
        ("outputs", _Int),
        ("hidden", _Int),
    )


class _Loss(ctypes.Structure):
    _fields_ = (
        ("kind", _Int),
        ("choices", _Int),
        ("sizes", _Pointer),
        ("clip_range", _Float),
        ("entropy_coefficient", _Float),
        ("value_coefficient", _Float),
        ("value_clip_range", _Float),
        ("value_clip", _Int),
        ("standardise", _Int),
        ("spread", _Long),
    )


class _Rule(ctypes.Structure):
    _fields_ = (
        ("kind", _Int),
        ("decoupled", _Int),
        ("rate", _Float),
        ("tiny", _Float),
        ("decay", _Float),
        ("first", ctypes.c_double),
        ("second", ctypes.c_double),
        ("steps", _Long),
        ("means", _Pointer),
        ("squares", _Pointer),
        ("by_element", _Pointer),
        ("parts", _Pointer * 2),
        ("rests", _Float * 2),
        ("powers", _Float * 2),
        ("gate", _Int),
        ("raw", _Int),
        ("deviation", _Float),
        ("factor", _Float),
        ("seeds", _Pointer),
    )


class _Work(ctypes.Structure):
    _fields_ = (
        ("network", _Network),
        ("loss", _Loss),
        ("rule", _Rule),
        ("members", _Long),
        ("width", _Long),
        ("used", _Long),
        ("rows", _Pointer),
        ("gradients", _Pointer),
        ("still", _Pointer),
        ("updates", _Long),
        ("batch", _Long),
        ("arrays", _Long),
        ("given", _Pointer * _MOST_ARRAYS),
        ("bytes", _Long * _MOST_ARRAYS),
        ("terms", _Long),
        ("results", _Pointer),
        ("features", _Pointer * _MOST_HIDDEN),
        ("most", _Float),
        ("norms", _Pointer),
        ("scales", _Pointer),
        ("limited", _Long),
        ("limit", _Float),
        ("memory", _Pointer),
    )


class Engine:
    """Compiled code for learners of one kind.

    Args:
        code: the library; see `clrl.agents.engine.build.library`.
        network: of the learners' kind.
        chains: how its layers follow each other.
        flat: where its parameters lie in a row.
        plan: the loss.
        rule: how parameters are updated.

    Attributes:
        whole: whether it takes whole updates, one after another.
        steps: whether it takes an update but for what add-ons do after the base optimizer's step;
            otherwise it gives gradients, and the update rule is as without it.
        results: the names of what the loss gives.
    """

    def __init__(
        self,
        code: ctypes.CDLL,
        network: Network,
        chains: Sequence[Sequence[Dense]],
        flat: Flat,
        plan: LossPlan,
        rule: UpdateRule,
    ) -> None:
        self._code = code
        self._plan = plan
        self._rule = _RULES.get(rule.base, "")
        self.steps = set(rule.options) <= _KNOWN.get(self._rule, set()) and all(
            getattr(addon, "before_step", None) is AddOn.before_step for addon, _ in rule.addons
        )
        self.steps = self.steps and bool(self._rule)
        if self._rule == "upgd" and rule.resets_units:
            self.steps = False  # it then counts steps by element
        self.whole = self.steps and not rule.addons
        self.results = plan.results
        layers = [one for chain in chains for one in chain]
        shapes = [network.get_parameter(f"{one.path}.weight").shape for one in layers]
        self._layers = (_Layer * len(layers))(
            *(
                _Layer(
                    flat.start(f"{one.path}.weight"),
                    flat.start(f"{one.path}.bias"),
                    shape[1],
                    shape[0],
                    _ACTIVATIONS.index(one.activation),
                    one.slope,
                )
                for one, shape in zip(layers, shapes, strict=True)
            )
        )
        self._depths = (_Int * len(chains))(*map(len, chains))
        self._sizes = (_Int * max(1, len(plan.sizes)))(*plan.sizes)
        ends = [sum(map(len, chains[: i + 1])) - 1 for i in range(len(chains))]
        self._units = [shape[0] for i, shape in enumerate(shapes) if i not in ends]
        self._template = _Work(
            network=_Network(
                ctypes.addressof(self._layers),
                ctypes.addressof(self._depths),
                len(chains),
                shapes[0][1],
                sum(shapes[end][0] for end in ends),
                len(self._units),
            ),
            loss=_Loss(
                _LOSSES.index(plan.kind),
                len(plan.sizes),
                ctypes.addressof(self._sizes),
                plan.clip_range,
                plan.entropy_coefficient,
                plan.value_coefficient,
                plan.value_clip_range,
                _VALUE_CLIPS.index(plan.value_clip),
                plan.standardise,
                flat.start(plan.spread) if plan.spread else -1,
            ),
            width=flat.padded,
            used=flat.width,
            terms=len(plan.results),
            limited=-1,
        )
        self._memory: dict[int, Tensor] = {}

    def _work(self, rows: Tensor, batches: Sequence[Tensor], axes: int) -> tuple[_Work, list[Any]]:
        """What is to be done with batches that have some axes in front of the examples'."""
        work = _Work.from_buffer_copy(self._template)
        work.members, work.rows = len(rows), rows.data_ptr()
        work.batch = batches[0].shape[axes]
        work.updates = batches[0].shape[1] if axes == 2 else 1
        work.arrays = len(batches)
        kept = [batch.contiguous() for batch in batches]
        for i, batch in enumerate(kept):
            work.given[i] = batch.data_ptr()
            work.bytes[i] = batch.element_size() * batch.shape[axes + 1 :].numel()
        if work.batch not in self._memory:
            room = self._code.clrl_room(ctypes.byref(work))
            self._memory[work.batch] = torch.zeros(room)
        work.memory = self._memory[work.batch].data_ptr()
        return work, kept

    def gradients(
        self, rows: Tensor, gradients: Tensor, batch: Sequence[Tensor], features: bool
    ) -> tuple[list[Tensor], list[Tensor]]:
        """Gradients of some members, without an update.

        Args:
            rows: parameters [members, padded].
            gradients: where they go, of the same shape.
            batch: the loss's arguments, [members, examples, ...].
            features: whether hidden activations are wanted.

        Returns:
            Activations of every hidden layer [members, examples, units], where they are wanted;
            and the results [members].
        """
        work, _kept = self._work(rows, batch, 1)
        results = rows.new_empty(len(rows), len(self.results))
        still = torch.zeros(len(rows), dtype=torch.bool)
        work.gradients, work.results = gradients.data_ptr(), results.data_ptr()
        work.still = still.data_ptr()
        made = self._wanted(work, rows) if features else []
        self._code.clrl_learn(ctypes.byref(work))
        return made, list(results.unbind(1))

    def learn(
        self,
        rows: Tensor,
        gradients: Tensor,
        optimizer: torch.optim.Optimizer,
        generators: Sequence[torch.Generator],
        batches: Sequence[Tensor],
        still: Tensor,
        max_grad_norm: float,
        halt: tuple[int, float] | None,
        features: bool = False,
    ) -> tuple[Tensor, Tensor | None, Tensor, list[Tensor]]:
        """Take one update a batch, but for what add-ons do.

        Args:
            rows: parameters [members, padded], edited in place.
            gradients: where those of the last update go, bounded.
            optimizer: its options are heeded, and its state is kept up to date.
            generators: one a member, for what the update rule draws.
            batches: the loss's arguments, [members, updates, examples, ...].
            still: members that do not move, bool [members].
            max_grad_norm: see `clrl.agents.population.Population`.
            halt: the number of a result, and the limit above which a member takes no further
                updates; members are then one.
            features: whether the last update's hidden activations are wanted.

        Returns:
            Results [members, updates taken, results]; gradients' norms [members, updates taken]
            where they are bounded; by what the last ones were scaled, [members, 1]; activations
            of every hidden layer [members, examples, units], where they are wanted.
        """
        work, _kept = self._work(rows, batches, 2)
        results = rows.new_full((len(rows), work.updates, len(self.results)), torch.nan)
        norms, scales = rows.new_empty(len(rows), work.updates), rows.new_ones(len(rows), 1)
        still = still.contiguous()
        work.gradients, work.results = gradients.data_ptr(), results.data_ptr()
        work.still, work.most = still.data_ptr(), max_grad_norm
        work.norms, work.scales = norms.data_ptr(), scales.data_ptr()
        if halt is not None:
            work.limited, work.limit = halt
        (group,) = optimizer.param_groups
        work.rule.rate, work.rule.decay = float(group["lr"]), group["weight_decay"]
        work.rule.kind = 1
        made = self._wanted(work, rows) if features else []
        state: dict[str, Any] = {}
        if self._rule == "upgd":
            state, _seeds = self._upgds_state(work, group, optimizer, rows, generators)
        elif self._rule != "sgd":
            work.rule.kind = 2
            work.rule.decoupled = self._rule == "adamw"
            work.rule.first, work.rule.second = group["betas"]
            work.rule.tiny = group["eps"]
            state, _apart = self._adams_state(work.rule, optimizer, rows)
        taken: int = self._code.clrl_learn(ctypes.byref(work))
        results, norms = results[:, :taken], norms[:, :taken]
        if state:
            stopped = halt is not None and bool(results[0, -1, halt[0]] > halt[1])
            counted = 1 if isinstance(optimizer, ElementwiseAdam) else 0
            state["step"] += taken - stopped - counted
        return results, norms if max_grad_norm else None, scales, made

    def _upgds_state(
        self,
        work: _Work,
        group: Mapping[str, Any],
        optimizer: torch.optim.Optimizer,
        rows: Tensor,
        generators: Sequence[torch.Generator],
    ) -> tuple[dict[str, Any], Tensor]:
        """Say where it is; the state, and what each update's noise is drawn from."""
        state = optimizer.state[rows]
        if not state:
            state["step"] = 0
            state["utility"] = torch.zeros_like(rows)
        seeds = torch.empty(len(rows), work.updates, dtype=torch.int64)
        for own, generator in zip(seeds, generators, strict=True):
            own.random_(-(2**63), None, generator=generator)
        rule = work.rule
        rule.kind, rule.seeds = 3, seeds.data_ptr()
        rule.gate = _GATES.index(group["gate"])
        rule.raw = group["utility_max"] == "raw"
        rule.deviation, rule.factor = group["sigma"], group["lr_factor"]
        rule.first, rule.steps = group["beta_utility"], state["step"]
        rule.means = state["utility"].data_ptr()
        return state, seeds

    def _adams_state(
        self, rule: _Rule, optimizer: torch.optim.Optimizer, rows: Tensor
    ) -> tuple[dict[str, Any], Tensor]:
        """Say where it is.

        Returns:
            The state, and which members' elements have steps of their own.
        """
        apart = torch.zeros(len(rows), dtype=torch.bool)
        if isinstance(optimizer, ElementwiseAdam):
            ages = optimizer.begin_step(rows)
            state = optimizer.state[rows]
            rule.steps = int(state["step"]) - 1
            if ages is not None:
                apart[list(ages.members)] = True
                rule.by_element = apart.data_ptr()
                for i, (part, (rest, power)) in enumerate(
                    zip(ages.parts, ages.powers, strict=True)
                ):
                    rule.parts[i], rule.rests[i], rule.powers[i] = part.data_ptr(), rest, power
        else:
            state = optimizer.state[rows]
            if not state:
                state["step"] = torch.zeros((), dtype=torch.float32)
                state["exp_avg"] = torch.zeros_like(rows)
                state["exp_avg_sq"] = torch.zeros_like(rows)
            rule.steps = int(state["step"])
        rule.means = state["exp_avg"].data_ptr()
        rule.squares = state["exp_avg_sq"].data_ptr()
        return state, apart

    def _wanted(self, work: _Work, rows: Tensor) -> list[Tensor]:
        """Memory for hidden activations."""
        made = [rows.new_empty(len(rows), work.batch, units) for units in self._units]
        for i, one in enumerate(made):
            work.features[i] = one.data_ptr()
        return made

    def decide(
        self, rows: Tensor, observations: Tensor, noise: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Decide, as `clrl.agents.ppo.ppo.PPO.act` says."""
        work, _kept = self._work(rows, [observations, noise], 1)
        shape = observations.shape[:2]
        actions = rows.new_empty(*shape, len(self._plan.sizes))
        logs, values = rows.new_empty(shape), rows.new_empty(shape)
        self._code.clrl_decide(
            ctypes.byref(work), *(_Pointer(one.data_ptr()) for one in (actions, logs, values))
        )
        return actions, logs, values


def find_engine(
    network: Network,
    flat: Flat,
    plan: LossPlan | None,
    rule: UpdateRule,
    penalised: bool,
    device: torch.device,
) -> tuple[Engine | None, str]:
    """Compiled code for learners of one kind; or None, and why there is none.

    Args:
        network: of their kind.
        flat: where its parameters lie in a row.
        plan: their loss, if compiled code knows it.
        rule: how parameters are updated.
        penalised: whether anything is added to the loss.
        device: where parameters live.
    """
    chains = network.chains
    numbers = {parameter.dtype for parameter in network.parameters()}
    known = sum(2 for chain in chains for _ in chain) + bool(plan and plan.spread)
    for wrong, words in (
        (device != CPU, f"it is for the CPU, not for {device}"),
        (plan is None, "it does not know this loss"),
        (not chains, "it does not know this network"),
        (known != len(list(network.parameters())), "it does not know this network"),
        (numbers != {torch.float32}, "it is for parameters of single precision"),
        (len(network.hidden_layers) > _MOST_HIDDEN, f"it takes {_MOST_HIDDEN} hidden layers"),
        (plan and len(plan.sizes) > _MOST_SPREAD, f"it takes {_MOST_SPREAD} numbers an action"),
        (penalised, "it knows no penalties"),
    ):
        if wrong:
            return None, words
    code, words = library()
    if code is None:
        return None, words
    assert plan is not None
    if code.clrl_size() != ctypes.sizeof(_Work):
        return None, "its library is of another version"
    return Engine(code, network, chains, flat, plan, rule), words
