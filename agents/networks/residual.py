"""Residual networks: what blocks give is added to a stream that runs past them."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from clrl.agents.networks.activations import make_activation
from clrl.agents.networks.base import HiddenLayer, Network
from clrl.agents.networks.initialisers import he_normal, orthogonal
from clrl.agents.options import BroNetOptions, MLPOptions, ResidualMLPOptions


def linear(inputs: int, outputs: int, bias: bool = True) -> nn.Linear:
    """A linear map whose parameters are not drawn yet."""
    made: nn.Linear = nn.Linear(inputs, outputs, bias, device="meta").to_empty(device="cpu")
    return made


class ResidualNetwork(Network):
    """A stem, blocks whose outputs are added up, and a head; a subclass says what these are.

    The hidden layers are those inside blocks, whose features one linear map reads. The stream
    between blocks is a sum of many, and declares no units.

    Args:
        input_size: length of an input vector.
        num_outputs: length of an output vector.
        options: its width and number of blocks.
        generator: source of the initial parameters.
        output_gain: gain of the head's initialiser, which is orthogonal.

    Attributes:
        heads: see `Network.heads`.
    """

    def __init__(
        self,
        input_size: int,
        num_outputs: int,
        options: Any,
        generator: torch.Generator,
        output_gain: float = 1.0,
    ) -> None:
        super().__init__()
        self._output_gain = output_gain
        self.stem = linear(input_size, options.width)
        self.first_norm = self._first_norm(options)
        self.blocks = nn.ModuleList(self._block(options) for _ in range(options.blocks))
        self.last_norm = self._last_norm(options)
        self.head = linear(options.width, num_outputs)
        self.hidden_layers = tuple(
            self._declared(f"layer_{i + 1}", f"blocks.{i}", options) for i in range(options.blocks)
        )
        self.initialise(generator)

    @property
    def heads(self) -> tuple[str, ...]:
        """The last linear map."""
        return ("head",)

    def _block(self, options: Any) -> nn.Module:
        raise NotImplementedError

    def _declared(self, name: str, path: str, options: Any) -> HiddenLayer:
        raise NotImplementedError

    def _first_norm(self, options: Any) -> nn.Module:
        return nn.Identity()

    def _last_norm(self, options: Any) -> nn.Module:
        return nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        """Map inputs [..., input_size] to outputs [..., num_outputs]."""
        x = self.first_norm(self.stem(x))
        for block in self.blocks:
            x = x + block(x)
        outputs: Tensor = self.head(self.last_norm(x))
        return outputs

    def fresh(self, name: str, generator: torch.Generator) -> Tensor:
        """A new draw of one parameter; see `Network.fresh`."""
        shape = self.get_parameter(name).shape
        module, _, part = name.rpartition(".")
        if part == "bias":
            return torch.zeros(shape)
        if isinstance(self.get_submodule(module), nn.LayerNorm):
            return torch.ones(shape)
        gain = self._output_gain if module == "head" else self._gain(module)
        return orthogonal(shape, gain, generator) if gain else he_normal(shape, generator)

    def _gain(self, module: str) -> float:
        """Of orthogonal weights; 0 for He's normal ones."""
        raise NotImplementedError


class _PreNormBlock(nn.Module):
    def __init__(self, width: int, inner: int, activation: nn.Module) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.inner = linear(width, inner)
        self.activation = activation
        self.outer = linear(inner, width)

    def forward(self, x: Tensor) -> Tensor:
        outputs: Tensor = self.outer(self.activation(self.inner(self.norm(x))))
        return outputs


class ResidualMLP(ResidualNetwork):
    """A fully connected network with residual blocks, normalised before each.

    With x the stream, of ``width`` numbers, and W, V of ``expansion`` times as many units::

        x = S input,   x <- x + V act(W LayerNorm(x)) for each block,   output = H LayerNorm(x)

    The block of SimBa (Lee et al., "SimBa: Simplicity bias for scaling up parameters in deep
    reinforcement learning", ICLR 2025), without its running statistics of observations, which
    are an agent's (``agent.normalize_observations``). S and H are orthogonal, blocks He-normal.
    """

    Options = ResidualMLPOptions

    def _block(self, options: ResidualMLPOptions) -> nn.Module:
        activation = make_activation(MLPOptions(activation=options.activation))
        return _PreNormBlock(options.width, options.expansion * options.width, activation)

    def _declared(self, name: str, path: str, options: ResidualMLPOptions) -> HiddenLayer:
        return HiddenLayer(
            name,
            f"{path}.inner",
            f"{path}.activation",
            f"{path}.outer",
            function=options.activation,
        )

    def _last_norm(self, options: ResidualMLPOptions) -> nn.Module:
        return nn.LayerNorm(options.width)

    def _gain(self, module: str) -> float:
        return 1.0 if module == "stem" else 0.0


class _BroBlock(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.inner = linear(width, width)
        self.norm = nn.LayerNorm(width)
        self.activation = nn.ReLU()
        self.outer = linear(width, width)
        self.outer_norm = nn.LayerNorm(width)

    def forward(self, x: Tensor) -> Tensor:
        outputs: Tensor = self.outer_norm(self.outer(self.activation(self.norm(self.inner(x)))))
        return outputs


class BroNet(ResidualNetwork):
    """The network of BRO: dense, LayerNorm, ReLU; then residual blocks with two norms each.

    Nauman et al., "Bigger, regularized, optimistic: scaling for compute and sample-efficient
    continuous control" (NeurIPS 2024); official code naumix/BiggerRegularizedOptimistic::

        x = relu(LN(S input)),   x <- x + LN(V relu(LN(W x))) for each block,   output = H x

    Weights are orthogonal with gain sqrt(2) and biases 0; the head's gain is the agent's (in the
    code sqrt(2) too). There the actor is 256 wide with one block, the critic 512 with two, both
    under ``adamw``, and everything starts anew at updates 15001, 50001, 250001 and so on
    (``full-reset``).
    """

    Options = BroNetOptions

    def _block(self, options: BroNetOptions) -> nn.Module:
        return _BroBlock(options.width)

    def _first_norm(self, options: BroNetOptions) -> nn.Module:
        return nn.Sequential(nn.LayerNorm(options.width), nn.ReLU())

    def _declared(self, name: str, path: str, options: BroNetOptions) -> HiddenLayer:
        return HiddenLayer(
            name,
            f"{path}.inner",
            f"{path}.activation",
            f"{path}.outer",
            norm=f"{path}.norm",
        )

    def _gain(self, module: str) -> float:
        return 2**0.5
