"""How one learner's network is called: its parameters, buffers, mode and random numbers.

A network is an ordinary module. In updates it is in training mode, in all else (acting, testing,
probing) in evaluation mode. Its buffers, such as BatchNorm's running statistics, are its
member's own: what a call in training mode writes into them is kept, what one in evaluation mode
writes is not. What it draws at random, such as dropout's masks, comes from its member's generator.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.overrides import TorchFunctionMode, handle_torch_function

from clrl.agents.replay import Recording, record
from clrl.errors import UsageError

Forward = Callable[..., Any]
"""A network with its parameters filled in: takes the network's inputs, gives its output."""


@dataclass(frozen=True)
class Draw:
    """Random numbers that one call asks for.

    Attributes:
        kind: ``"uniform"`` in [0, 1), ``"normal"``, or ``"source"``.
        size: how many.
        source: draws them by a generator, where that is the kind.
    """

    kind: str
    size: int
    source: Callable[[torch.Generator], Tensor] | None = None

    @property
    def mean(self) -> float:
        """What the numbers are on average."""
        return 0.5 if self.kind == "uniform" else 0.0


def drawn(like: Tensor, source: Callable[[torch.Generator], Tensor]) -> Tensor:
    """What a source draws by the learner's generator; while a `Call` is open.

    Args:
        like: has the shape of what is drawn.
        source: draws it, by a generator.
    """
    result: Tensor = handle_torch_function(drawn, (like,), like, source)
    return result


class Call(TorchFunctionMode):
    """While it is open, functions of torch that draw get their numbers from a given tensor.

    These are dropout in its forms (alpha dropout apart), ``torch.rand``, ``randn``, ``rand_like``,
    ``randn_like`` and ``bernoulli``. Batch normalisation is put together from plain operations,
    since its kernels treat what is stacked as one.

    Args:
        noise: numbers for all draws in order, [n]; without it every draw gives its mean.

    Attributes:
        draws: what was asked for, in order.
    """

    def __init__(self, noise: Tensor | None = None) -> None:
        super().__init__()
        self.draws: list[Draw] = []
        self._noise = noise
        self._used = 0

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Carry out one function of torch, in a way of our own where there is one."""
        kwargs = kwargs or {}
        own = _OWN.get(func)
        return func(*args, **kwargs) if own is None else own(self, *args, **kwargs)

    def draw(
        self,
        kind: str,
        shape: Sequence[int],
        source: Callable[[torch.Generator], Tensor] | None = None,
    ) -> Tensor:
        """The next random numbers."""
        size = math.prod(shape)
        self.draws.append(Draw(kind, size, source))
        if self._noise is None:
            return torch.full(tuple(shape), self.draws[-1].mean)
        numbers = self._noise[self._used : self._used + size]
        self._used += size
        return numbers.view(tuple(shape))

    def _drawn(self, like: Tensor, source: Callable[[torch.Generator], Tensor]) -> Tensor:
        return self.draw("source", like.shape, source)

    def _dropout(
        self, x: Tensor, p: float = 0.5, training: bool = True, inplace: bool = False
    ) -> Tensor:
        return self._dropped(x, x.shape, p, training)

    def _channel_dropout(
        self, x: Tensor, p: float = 0.5, training: bool = True, inplace: bool = False
    ) -> Tensor:
        """Whole channels, of [examples, channels, ...]."""
        shape = [*x.shape[:2], *(1 for _ in x.shape[2:])]
        return self._dropped(x, shape, p, training)

    def _dropped(self, x: Tensor, shape: Sequence[int], p: float, training: bool) -> Tensor:
        if not training or p == 0:
            return x
        if p == 1:
            return x * 0.0
        kept = (self.draw("uniform", shape) >= p).to(x.dtype)
        return x * (kept * (1 / (1 - p)))

    def _rand_like(self, x: Tensor, **_: Any) -> Tensor:
        return self.draw("uniform", x.shape)

    def _randn_like(self, x: Tensor, **_: Any) -> Tensor:
        return self.draw("normal", x.shape)

    def _rand(self, *size: Any, **_: Any) -> Tensor:
        return self.draw("uniform", _flat(size))

    def _randn(self, *size: Any, **_: Any) -> Tensor:
        return self.draw("normal", _flat(size))

    def _bernoulli(self, probabilities: Tensor, *_: Any, **__: Any) -> Tensor:
        drawn = self.draw("uniform", probabilities.shape)
        return (drawn < probabilities).to(probabilities.dtype)

    def _batch_norm(
        self,
        x: Tensor,
        running_mean: Tensor | None,
        running_var: Tensor | None,
        weight: Tensor | None = None,
        bias: Tensor | None = None,
        training: bool = False,
        momentum: float = 0.1,
        eps: float = 1e-5,
    ) -> Tensor:
        """As ``torch.nn.functional.batch_norm``: over all axes of x but the second."""
        axes = [0, *range(2, x.ndim)]
        shape = [1, -1, *(1 for _ in axes[1:])]
        if training or running_mean is None or running_var is None:
            count = x.numel() // x.shape[1]
            if count < 2:
                raise UsageError(
                    "network: batch normalisation in training needs batches of more than one "
                    "example; expected a greater agent.batch_size, or another network"
                )
            mean = x.mean(axes)
            apart = x - mean.view(shape)
            variance = (apart * apart).mean(axes)
            for running, new in (
                (running_mean, mean),
                (running_var, variance * (count / (count - 1))),
            ):
                if training and running is not None:
                    running.copy_(running * (1 - momentum) + new.detach() * momentum)
        else:
            apart = x - running_mean.view(shape)
            variance = running_var
        scale = torch.rsqrt(variance + eps)
        if weight is not None:
            scale = scale * weight
        result = apart * scale.view(shape)
        return result if bias is None else result + bias.view(shape)


_OWN: dict[Any, Callable[..., Tensor]] = {
    nn.functional.dropout: Call._dropout,
    torch.dropout: Call._dropout,
    nn.functional.dropout1d: Call._channel_dropout,
    nn.functional.dropout2d: Call._channel_dropout,
    nn.functional.dropout3d: Call._channel_dropout,
    nn.functional.batch_norm: Call._batch_norm,
    torch.rand: Call._rand,
    torch.randn: Call._randn,
    torch.rand_like: Call._rand_like,
    torch.randn_like: Call._randn_like,
    torch.bernoulli: Call._bernoulli,
    drawn: Call._drawn,
}


def _flat(size: Sequence[Any]) -> list[int]:
    return list(size[0]) if size and not isinstance(size[0], int) else list(size)


def draw(draws: Sequence[Draw], generators: Sequence[torch.Generator]) -> Tensor:
    """The numbers that calls of some members ask for, each member's from its own generator.

    Returns:
        [members, n], for `Call`.
    """
    rows = means(draws, len(generators))
    for row, generator in zip(rows, generators, strict=True):
        for one, place in zip(draws, torch.split(row, [one.size for one in draws]), strict=True):
            if one.source is not None:
                place.copy_(one.source(generator).flatten())
            elif one.kind == "uniform":
                place.uniform_(generator=generator)
            else:
                place.normal_(generator=generator)
    return rows


def means(draws: Sequence[Draw], members: int) -> Tensor:
    """What `draw` gives on average."""
    sizes = [one.size for one in draws]
    n = sum(sizes)
    rows = torch.empty(members, -(-n // 16) * 16)[:, :n]  # each aligned as the first is
    for one, place in zip(
        draws, torch.split(rows, [one.size for one in draws], dim=1), strict=True
    ):
        place.fill_(one.mean)
    return rows


def record_drawing(
    function: Callable[..., Sequence[Tensor]],
    inputs: Sequence[Tensor],
    stored: int,
    members: int | None,
) -> tuple[Recording, list[Draw]]:
    """Record a function that calls networks; see `clrl.agents.replay.record`.

    Args:
        function: takes a list to fill with what is drawn (see `Call`), a list that is empty or
            has the numbers [members, n], and the inputs.
        inputs: see `record`.
        stored: see there.
        members: see there.

    Returns:
        The recording, and what is drawn. If anything is, the numbers are its first input.
    """
    draws: list[Draw] = []
    found = record(lambda *given: function(draws, [], *given), inputs, stored, members)
    if draws:
        noise = means(draws, len(inputs[0])).to(inputs[0].device)
        found = record(
            lambda noise, *given: function(draws, [noise], *given),
            [noise, *inputs],
            stored,
            members,
        )
    return found, draws


@contextlib.contextmanager
def evaluation(network: nn.Module) -> Iterator[None]:
    """Evaluation mode, for as long as it is open; then what it was."""
    before = network.training
    network.eval()
    try:
        yield
    finally:
        network.train(before)


@contextlib.contextmanager
def training(network: nn.Module) -> Iterator[None]:
    """Training mode, for as long as it is open; evaluation mode from then on."""
    network.train()
    try:
        yield
    finally:
        network.eval()


def calling(
    network: nn.Module, parameters: Mapping[str, Tensor], buffers: Mapping[str, Tensor]
) -> tuple[Forward, dict[str, Tensor]]:
    """A network with parameters and buffers of one learner filled in.

    Returns:
        The network as a function of its inputs; and a mapping that holds, after calls of it, all
        parameters and buffers by name, the buffers as the calls have left them. Those given are
        not changed.
    """
    own = {**parameters, **{name: value.clone() for name, value in buffers.items()}}

    def forward(*inputs: Any) -> Any:
        return functional_call(network, own, inputs)

    return forward, own
