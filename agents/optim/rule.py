"""From a rule's description to an optimizer of stacked learners, plug-ins included."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from clrl.agents.device import CPU
from clrl.agents.networks import Extension, Network, extensions
from clrl.agents.optim.base import AddOn, Chain, projection
from clrl.agents.optim.elementwise import ElementwiseAdam, ElementwiseAdamW
from clrl.agents.optim.members import Flat, Index, Members, is_whole, start_state_anew, tell
from clrl.errors import UsageError


@dataclass(frozen=True)
class UpdateRule:
    """A base optimizer and add-ons, as classes and options, not yet bound to parameters.

    Attributes:
        base: any ``torch.optim.Optimizer`` subclass.
        options: its keywords.
        addons: `AddOn` subclasses with their keywords, applied in order.
    """

    base: Callable[..., torch.optim.Optimizer]
    options: Mapping[str, Any] = field(default_factory=dict)
    addons: Sequence[tuple[Callable[..., AddOn], Mapping[str, Any]]] = ()

    @property
    def needs_features(self) -> bool:
        """Whether an add-on reads hidden activations."""
        return any(getattr(addon, "needs_features", False) for addon, _ in self.addons)

    @property
    def needs_changes(self) -> bool:
        """Whether an add-on is to be told of changes of task."""
        return any(
            addon.hears_changes(options)
            if hasattr(addon, "hears_changes")
            else getattr(addon, "needs_changes", False)
            for addon, options in self.addons
        )

    @property
    def resets_units(self) -> bool:
        """Whether an add-on starts weights anew, and the base's state of them."""
        return any(getattr(addon, "resets_units", False) for addon, _ in self.addons)

    def extensions(self, network: Network) -> list[Extension]:
        """What add-ons add to a network, made anew."""
        made = (
            addon.extension(network, **options)
            for addon, options in self.addons
            if hasattr(addon, "extension")
        )
        return [own for own in made if own is not None]


# torch's single-pass kernels for these: one sweep over memory a step instead of several.
_FUSED = (torch.optim.SGD, torch.optim.Adam, torch.optim.AdamW)

# What stands in for these where weights start anew, and the options that it has.
_BY_ELEMENT: dict[Any, Callable[..., torch.optim.Optimizer]] = {
    torch.optim.Adam: ElementwiseAdam,
    torch.optim.AdamW: ElementwiseAdamW,
}
_ITS_OPTIONS = {"lr", "betas", "eps", "weight_decay"}


def make_base(
    rule: UpdateRule,
    params: Any,
    generators: Sequence[torch.Generator],
    network: Network | None = None,
) -> torch.optim.Optimizer:
    """Build a rule's base optimizer.

    A base with the attribute ``stacks_members`` knows of members: it takes a generator for
    each, and reads ``members`` and ``width`` of its parameter groups; what its ``state_dict`` has
    besides torch's entries is lists with an entry a member. Another base whose
    constructor has a parameter ``generator`` is given its only member's. One whose constructor has
    a parameter ``heads`` is given the parameters of the network's last maps and those that methods
    add, where params are all of the network's, in order.

    torch's Adam and AdamW count their steps once a tensor. Under an add-on that starts weights
    anew they are those of `clrl.agents.optim.elementwise`, which count by element; a base with a
    method ``count_by_element`` is told to.
    """
    options = dict(rule.options)
    if rule.resets_units and rule.base in _BY_ELEMENT and options.keys() <= _ITS_OPTIONS:
        return _BY_ELEMENT[rule.base](params, **options)
    if rule.base in _FUSED and not (options.get("foreach") or options.get("fused")):
        options["fused"] = True
    elif getattr(rule.base, "stacks_members", False):
        options["generator"] = list(generators)
    elif _takes_generator(rule):
        (options["generator"],) = generators
    if network is not None and "heads" in inspect.signature(rule.base).parameters:
        names = [name for name, _ in network.named_parameters()]
        added, pairs = extensions(network), zip(names, params, strict=True)
        options["heads"] = [
            own
            for name, own in pairs
            if name.rpartition(".")[0] in network.heads or name.partition(".")[0] in added
        ]
    made = rule.base(params, **options)
    if rule.resets_units and hasattr(made, "count_by_element"):
        made.count_by_element()
    return made


def _takes_generator(rule: UpdateRule) -> bool:
    return "generator" in inspect.signature(rule.base).parameters


class StackedOptimizer(Chain):
    """The update of stacked learners: one base optimizer for all, or one each.

    Args:
        rule: what to do.
        rows: parameters [members, padded]; ``rows.grad`` holds the gradients.
        flat: where each parameter lies in a row.
        network: a network of the members' kind.
        generators: one a member, for whatever the rule draws.
        apart: whether each member gets a base optimizer of its own, on parameters of their
            true shapes; for bases that would mix members (`mixes_members`).
        features: the hidden activations of the batch just learned; see `Chain`.
        buffers: what the members' networks keep besides: name to [members, *shape].
    """

    def __init__(
        self,
        rule: UpdateRule,
        rows: Tensor,
        flat: Flat,
        network: Network,
        generators: Sequence[torch.Generator],
        apart: bool,
        features: Mapping[str, Tensor],
        buffers: Mapping[str, Tensor] | None = None,
    ) -> None:
        base: torch.optim.Optimizer
        if apart:
            base = _Apart(rule, rows, flat, generators, network)
            reset_base = base.reset_state
        else:
            group = {"params": [rows], "members": len(rows), "width": flat.width}
            base = make_base(rule, [group], generators)

            def reset_base(name: str, member: int, index: Index, averages: bool) -> None:
                def put(value: Tensor, number: float) -> None:
                    flat.view(value, name)[member, *index] = number

                start_state_anew(base, rows, member, put, averages=averages)

        addons: list[AddOn] = []

        def reset_state(name: str, member: int, index: Index, *, averages: bool = True) -> None:
            reset_base(name, member, index, averages)
            tell(addons, name, member, index, averages)

        def gradients() -> Mapping[str, Tensor]:
            assert rows.grad is not None
            return flat.views(rows.grad)

        views = flat.views(rows)
        members = Members(
            views, [rows], gradients, generators, network, base, reset_state, buffers or {}
        )
        addons += [addon(members, **options) for addon, options in rule.addons]
        super().__init__(base, addons, features, generators, projection(members))
        self._rows = rows

    def member_states(self) -> list[dict[str, Any]]:
        """The state of each member: what this optimizer would have, were it that member's alone.

        Generators are left out: their owner keeps them.
        """
        base = _with_members(self.base.state_dict(), 1)
        addons = [addon.state_dict() for addon in self.addons]
        return [
            {
                "base": {
                    key: _part(value, member, self._of_elements)
                    if key in ("state", "param_groups")
                    else [value[member]]
                    for key, value in base.items()
                },
                "addons": _part(addons, member, _of_members),
            }
            for member in range(len(self._rows))
        ]

    def load_member_states(self, states: Sequence[Mapping[str, Any]]) -> None:
        """Restore what `member_states` gave, whoever was beside each member then."""
        base = {
            key: _whole([state["base"][key] for state in states], self._of_elements)
            if key in ("state", "param_groups")
            else [copy.deepcopy(own) for state in states for own in state["base"][key]]
            for key in states[0]["base"]
        }
        self.base.load_state_dict(_with_members(base, len(states)))
        own = _whole([state["addons"] for state in states], _of_members)
        for addon, state in zip(self.addons, own, strict=True):
            addon.load_state_dict(state)

    def _of_elements(self, value: Tensor) -> bool:
        """Whether a tensor of the base's state has an entry for each element of some rows."""
        return value.ndim == 2 and value.shape[1:] == self._rows.shape[1:]


def _with_members(state: dict[str, Any], count: int) -> dict[str, Any]:
    """An optimizer's state for another number of members; see `make_base`."""
    groups = state.get("param_groups", [])
    return state | {
        "param_groups": [g | {"members": count} if "members" in g else g for g in groups]
    }


def _of_members(value: Tensor) -> bool:
    return value.ndim > 0


def _part(value: Any, member: int, stacks: Callable[[Tensor], bool]) -> Any:
    """One member's part of a state; what is no stack of members is shared."""
    if isinstance(value, Tensor):
        return value[member : member + 1] if stacks(value) else value
    if isinstance(value, Mapping):
        return {key: _part(own, member, stacks) for key, own in value.items()}
    return [_part(own, member, stacks) for own in value] if isinstance(value, list) else value


def _whole(parts: Sequence[Any], stacks: Callable[[Tensor], bool]) -> Any:
    """Members' parts put together; nothing is shared with them."""
    first = parts[0]
    if isinstance(first, Tensor):
        return torch.cat(list(parts)) if stacks(first) else first.clone()
    if isinstance(first, Mapping):
        return {key: _whole([part[key] for part in parts], stacks) for key in first}
    if isinstance(first, list):
        return [_whole(column, stacks) for column in zip(*parts, strict=True)]
    assert all(part == first for part in parts), "members that are stepped together are alike"
    return first


class _Apart(torch.optim.Optimizer):
    """One optimizer a member, each on tensors of the network's own shapes.

    An optimizer that draws from torch's global generator gets a global state of its own
    around each of its steps, so that its noise is its member's.
    """

    def __init__(
        self,
        rule: UpdateRule,
        rows: Tensor,
        flat: Flat,
        generators: Sequence[torch.Generator],
        network: Network,
    ) -> None:
        assert rows.grad is not None
        self._optimizers: list[torch.optim.Optimizer] = []
        self._parameters: list[dict[str, Tensor]] = []
        for row, gradient, generator in zip(rows, rows.grad, generators, strict=True):
            parameters = {n: v[0] for n, v in flat.views(row.unsqueeze(0)).items()}
            for name, view in flat.views(gradient.unsqueeze(0)).items():
                parameters[name].grad = view[0]
            own = list(parameters.values())
            self._optimizers.append(make_base(rule, own, [generator], network))
            self._parameters.append(parameters)
        self._draws = _draws_globally(rule)
        if self._draws and rows.device != CPU:
            base = getattr(rule.base, "__name__", rule.base)
            raise UsageError(
                f"optimizer {base}: draws from torch's global generator, which is another one on "
                "each device; expected --device cpu, or an optimizer that takes a generator"
            )
        seeds = [generator.initial_seed() for generator in generators]
        self._global = [torch.Generator().manual_seed(seed).get_state() for seed in seeds]
        groups = [group for one in self._optimizers for group in one.param_groups]
        super().__init__(groups, self._optimizers[0].defaults)

    def step(self, closure: Any = None) -> Any:
        for i, optimizer in enumerate(self._optimizers):
            if not self._draws:
                optimizer.step()
                continue
            with torch.random.fork_rng(devices=[]):
                torch.set_rng_state(self._global[i])
                optimizer.step()
                self._global[i] = torch.get_rng_state()

    def reset_state(self, name: str, member: int, index: Index, averages: bool) -> None:
        def put(value: Tensor, number: float) -> None:
            value[index] = number

        optimizer, parameter = self._optimizers[member], self._parameters[member][name]
        start_state_anew(optimizer, parameter, 0, put, averages=averages, whole=is_whole(index))

    def state_dict(self) -> dict[str, Any]:
        return {
            "optimizers": [optimizer.state_dict() for optimizer in self._optimizers],
            "global": list(self._global),
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        for optimizer, state in zip(self._optimizers, state_dict["optimizers"], strict=True):
            optimizer.load_state_dict(state)
        self._global = list(state_dict["global"])
        self.param_groups = [group for one in self._optimizers for group in one.param_groups]


def mixes_members(rule: UpdateRule) -> bool:
    """Whether a base optimizer's step of one stacked tensor differs from separate steps.

    Three learners of two tensors, with gradients of very different sizes, take three steps
    stacked and three steps apart. A rule that reduces over a whole tensor (a norm, a mean)
    or cares about a tensor's shape gives other results and must be kept apart, and so must
    one that takes a single ``generator``. A base that knows of members (`make_base`) is
    compared with populations of one.

    Raises:
        UsageError: the optimizer cannot take a plain step at all.
    """
    shapes = ((8, 16), (64,))
    source = torch.Generator().manual_seed(0)
    start = torch.randn(3, 192, generator=source)
    gradients = torch.randn(3, 3, 192, generator=source)
    gradients *= torch.tensor([1.0, 100.0, 0.01]).view(3, 1)
    gradients[2, 0] *= 1e15  # beyond any threshold for clipping

    def run(members: slice, scale: float, split: bool) -> Tensor:
        rows = scale * start[members]
        parts = [rows]
        group: dict[str, Any] = {"params": parts, "members": len(rows), "width": 192}
        if split:
            parts = [rows[0, :128].view(shapes[0]), rows[0, 128:].view(shapes[1])]
            group = {"params": parts}
        seeds = range(*members.indices(3))
        optimizer = make_base(rule, [group], [torch.Generator().manual_seed(s) for s in seeds])
        for gradient in gradients[:, members]:
            pieces = gradient.reshape(-1).split([part.numel() for part in parts])
            for part, piece in zip(parts, pieces, strict=True):
                part.grad = piece.view(part.shape).clone()
            optimizer.step()
        return rows

    aware = getattr(rule.base, "stacks_members", False)
    if _takes_generator(rule) and not aware:
        return True
    # Weights near 0 show small steps; weights near 1 show what is done to weights.
    for scale in (1.0, 1e-12):
        with torch.random.fork_rng(devices=[]), torch.no_grad():
            try:
                alone = [run(slice(m, m + 1), scale, split=not aware) for m in range(3)]
            except (TypeError, ValueError, RuntimeError) as error:
                name = getattr(rule.base, "__name__", rule.base)
                raise UsageError(f"optimizer {name}: cannot take a plain step: {error}") from error
            try:
                stacked = run(slice(0, 3), scale, split=False)
            except (TypeError, ValueError, RuntimeError, IndexError):
                return True  # it works on a network's own shapes, and only on them
        if not torch.equal(stacked, torch.cat(alone)):
            return True
    return False


def _draws_globally(rule: UpdateRule) -> bool:
    """Whether a step of the base reads torch's global generator."""
    parameter = torch.ones(4, 4)
    parameter.grad = torch.ones(4, 4)
    optimizer = make_base(rule, [{"params": [parameter]}], [torch.Generator()])
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        before = torch.get_rng_state()
        for _ in range(10):  # some draw now and then
            optimizer.step()
        return not torch.equal(before, torch.get_rng_state())
