"""Functions of one learner that all members of a population are given, without learning."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.func import vmap
from torch.utils._pytree import tree_flatten, tree_unflatten

from clrl.agents.calling import Call, Draw, calling, means, record_drawing, training
from clrl.agents.device import CPU
from clrl.agents.even import ALIGNMENT, aligned
from clrl.agents.networks import Network
from clrl.agents.objective import network_buffers
from clrl.agents.replay import Recording, Replay


@dataclass(frozen=True)
class Snapshot:
    """All members of a population at some time.

    Attributes:
        rows: parameters, as `clrl.agents.population.Population.rows`.
        kept: what else there is of them, as ``Population.kept``.
    """

    rows: Tensor
    kept: dict[str, Tensor]

    @classmethod
    def of(cls, saved: Mapping[str, Any]) -> Snapshot:
        """From its ``vars``, that have been saved."""
        kept = {name: padded(value) for name, value in saved["kept"].items()}
        return cls(saved["rows"].clone(), kept)


def padded(value: Tensor) -> Tensor:
    """A copy of something of all members, each one's part aligned as the first one's is."""
    size = value[0].numel()
    unit = ALIGNMENT // value.element_size()
    room = value.new_zeros(len(value), -(-size // unit) * unit)
    return room[:, :size].view(value.shape).copy_(value)


class Stack(Protocol):
    """Members whose networks are to be called; see `clrl.agents.population.Population`."""

    network: Network
    device: torch.device
    rows: Tensor
    kept: dict[str, Tensor]

    @property
    def noise(self) -> list[Tensor]:
        """What networks drew in the last update."""

    def views_of(self, rows: Tensor) -> dict[str, Tensor]:
        """Rows of parameters, as views by name."""


class Compiled:
    """A function of one learner, mapped over all members.

    Args:
        stack: the members.
        function: see `clrl.agents.population.Population.compiled`.
        train: see ``training`` there.
    """

    def __init__(self, stack: Stack, function: Callable[..., Any], train: bool) -> None:
        self._stack = stack
        self._function = function
        self._train = train
        self._names = list(stack.views_of(stack.rows))
        self._buffers = list(network_buffers(stack.kept))
        self._recorded: dict[Any, tuple[Recording, Replay, Sequence[Draw]]] = {}
        self._result: Any = None

    def __call__(self, *inputs: Tensor, of: Snapshot | None = None) -> Any:
        """Apply it.

        Args:
            inputs: each [members, ...].
            of: the members at another time; as they are now unless given.

        Returns:
            What the function gives, with a leading member axis on every tensor.
        """
        stack = self._stack
        parameters = stack.views_of(stack.rows if of is None else of.rows)
        kept = stack.kept if of is None else of.kept
        buffers = [kept[name] for name in self._buffers]
        values = [*parameters.values(), *buffers, *map(aligned, inputs)]
        noise = stack.noise if self._train else []
        with torch.no_grad():
            recording = self._recording(values)[0]
            if recording.look is None or not recording.look.uneven:
                results = self._apply(values, noise)
            else:
                each = [
                    self._apply(
                        [aligned(value[i : i + 1]) for value in values],
                        [own[i : i + 1] for own in noise],
                    )
                    for i in range(len(values[0]))
                ]
                results = tuple(map(torch.cat, zip(*each, strict=True)))
        return tree_unflatten(list(results), self._result)

    def _apply(self, values: Sequence[Tensor], noise: Sequence[Tensor]) -> tuple[Tensor, ...]:
        _, replay, draws = self._recording(values)
        if draws and not noise:
            noise = [means(draws, len(values[0])).to(self._stack.device)]
        return replay(*(noise if draws else ()), *values)

    def _recording(self, values: Sequence[Tensor]) -> tuple[Recording, Replay, Sequence[Draw]]:
        """What is recorded for inputs of these shapes."""
        batch = values[len(self._names) + len(self._buffers) :]
        key = (len(values[0]), *((value.shape, value.dtype) for value in batch))
        if key not in self._recorded:
            stack = self._stack
            members = len(values[0]) if stack.device == CPU else None
            with training(stack.network) if self._train else contextlib.nullcontext():
                recording, draws = record_drawing(self._mapped, values, 0, members)
            self._recorded[key] = recording, recording.bind([]), draws
        return self._recorded[key]

    def _mapped(self, draws: list[Draw], noise: list[Tensor], *values: Tensor) -> Sequence[Tensor]:
        first = len(self._names)
        last = first + len(self._buffers)

        def one(
            parameters: dict[str, Tensor],
            buffers: dict[str, Tensor],
            noise: list[Tensor],
            *own: Any,
        ) -> Any:
            with Call(*noise) as call:
                forward, _ = calling(self._stack.network, parameters, buffers)
                results = self._function(forward, *own)
            draws[:] = call.draws
            return results

        parameters = dict(zip(self._names, values[:first], strict=True))
        buffers = dict(zip(self._buffers, values[first:last], strict=True))
        results = vmap(one)(parameters, buffers, noise, *values[last:])
        flat, self._result = tree_flatten(results)
        return flat
