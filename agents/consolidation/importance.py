"""How much each parameter matters: moments of one learner's gradients, an example at a time.

For a linear map the gradient of one example is an outer product, so that the sum of its squares
(or absolute values) over examples is one product of matrices. Only the few parameters outside of
linear maps need a gradient for each example.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import grad, vmap

from clrl.agents.calling import calling
from clrl.agents.consolidation.base import Examples, Score
from clrl.agents.networks import Network


@dataclass(frozen=True)
class Moments:
    """Means over examples of the gradients of a score: name to a tensor of the parameter's shape.

    Attributes:
        mean: of the gradient.
        square: of its square; never negative.
        absolute: of its absolute value; never negative.
    """

    mean: dict[str, Tensor]
    square: dict[str, Tensor]
    absolute: dict[str, Tensor]

    @property
    def variance(self) -> dict[str, Tensor]:
        """The variance of the gradient; never negative."""
        return {
            name: (square - self.mean[name] ** 2).clamp(min=0)
            for name, square in self.square.items()
        }


def moments(
    network: Network,
    parameters: Mapping[str, Tensor],
    buffers: Mapping[str, Tensor],
    score: Score,
    examples: Examples,
) -> Moments:
    """Moments of the gradients of a score with respect to each parameter.

    Args:
        network: the learner's network; its own parameter values do not matter.
        parameters: the learner's, by name.
        buffers: of its network.
        score: of one learner; the number of an example depends on no other example.
        examples: [examples, ...] each, at least one.
    """
    n = len(examples[0])
    parameters = {name: value.detach() for name, value in parameters.items()}
    found = Moments({}, {}, {})

    forward, _ = calling(network, parameters, buffers)
    with torch.enable_grad(), _Linears(network) as linears:
        total = score(forward, *examples).sum()
        deltas = torch.autograd.grad(total, linears.probes, materialize_grads=True)
    for name, x, delta in zip(linears.names, linears.inputs, deltas, strict=True):
        for moment, left, right in (
            (found.mean, delta, x),
            (found.square, delta**2, x**2),
            (found.absolute, delta.abs(), x.abs()),
        ):
            moment[f"{name}.weight"] = left.T @ right / n
            if f"{name}.bias" in parameters:
                moment[f"{name}.bias"] = left.mean(dim=0)
    others = {name: value for name, value in parameters.items() if name not in found.mean}
    if others:
        each = _of_each(network, {**parameters, **buffers}, others, score, examples)
        for name, gradients in each.items():
            found.mean[name] = gradients.mean(dim=0)
            found.square[name] = (gradients**2).mean(dim=0)
            found.absolute[name] = gradients.abs().mean(dim=0)
    return found


def _of_each(
    network: Network,
    fixed: Mapping[str, Tensor],
    some: dict[str, Tensor],
    score: Score,
    examples: Examples,
) -> dict[str, Tensor]:
    """The gradient of each example for some parameters: name to [examples, ...]."""

    def of_one(own: dict[str, Tensor], *example: Tensor) -> Tensor:
        forward, _ = calling(network, {**fixed, **own}, {})
        return score(forward, *(value.unsqueeze(0) for value in example)).sum()

    gradients: dict[str, Tensor] = vmap(
        grad(of_one), in_dims=(None, *(0 for _ in examples)), chunk_size=64
    )(some, *examples)
    return gradients


class _Linears:
    """Inputs of a network's linear maps and, added to their outputs, zeros to differentiate by.

    Only maps that are called once, on one vector an example, are kept.
    """

    def __init__(self, network: Network) -> None:
        self._modules = {
            name: module for name, module in network.named_modules() if type(module) is nn.Linear
        }
        self._calls: dict[str, list[tuple[Tensor, Tensor]]] = {}

    def __enter__(self) -> _Linears:
        def keep(name: str) -> Any:
            def hook(_module: Any, inputs: Any, output: Tensor) -> Tensor:
                probe = torch.zeros_like(output).requires_grad_()
                self._calls.setdefault(name, []).append((inputs[0].detach(), probe))
                return output + probe

            return hook

        self._handles = [
            module.register_forward_hook(keep(name)) for name, module in self._modules.items()
        ]
        return self

    def __exit__(self, *_: Any) -> None:
        for handle in self._handles:
            handle.remove()

    @property
    def _single(self) -> dict[str, tuple[Tensor, Tensor]]:
        return {
            name: calls[0]
            for name, calls in self._calls.items()
            if len(calls) == 1 and calls[0][0].ndim == 2
        }

    @property
    def names(self) -> list[str]:
        return list(self._single)

    @property
    def inputs(self) -> list[Tensor]:
        return [x for x, _ in self._single.values()]

    @property
    def probes(self) -> list[Tensor]:
        return [probe for _, probe in self._single.values()]
