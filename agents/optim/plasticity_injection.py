"""Plasticity injection (Nikishin et al. 2023), over any base optimizer."""

from __future__ import annotations

import copy
import functools
from collections.abc import Mapping
from typing import Any, Literal

import torch
from torch import Tensor, nn

from clrl.agents.networks import Extension, HiddenLayer, Network, extensions
from clrl.agents.optim.members import Index, Members
from clrl.agents.optim.options import PlasticityInjectionOptions
from clrl.agents.optim.surgery import Surgery
from clrl.errors import UsageError


class PlasticityInjection(Surgery):
    """Once, the head is held still, and a new one beside it learns the rest.

    The head h maps features f to the network's output. From the injection on the output is::

        h(f) + (h_new(f) - h_old(f))

    with h_new and h_old one and the same new draw of the network's initialiser at first: what
    the network gives does not change, to the bit. h_new is trained from then on, under a new
    optimizer, h and h_old never; as many numbers are trained as before. What is below the head goes
    on as it was, with its optimizer's state, and gets gradients through all three.

    Nikishin et al., "Deep reinforcement learning with plasticity injection" (NeurIPS 2023), after a
    summary of the paper and two re-implementations. There it is once, around the middle of a run of
    DQN, and the head is all dense layers after the convolutions. (The re-implementations add the
    terms in another order, which keeps the output up to rounding.)

    h_new and h_old are there from the beginning, as 0, so that each learner has its moment. What a
    frozen part is given by the base, or by add-ons that are listed before this one, is taken back;
    those after it should leave it alone. The new heads are no declared layers: metrics of units and
    resets of units are h's; metrics of weights and gradients count all three. A `full-reset` takes
    an injection back. An ordinary network is extended before its optimizer is made:
    ``extend(network, [PlasticityInjection.extension(network)], 0)``.

    Args:
        members: the learners.
        after: updates before the injection; 0 for the first change of task.
        layers: how many layers from the output on are the head. Of a single one, which is linear,
            little is left but a new optimizer.
        part: ``"all"`` heads, or the ``"actor"``'s or the ``"critic"``'s alone.

    Raises:
        UsageError: there are not so many layers in a row below a head, a norm in the head has
            running statistics, or there is no such part.
    """

    default_every = PlasticityInjectionOptions.after
    holds_still = True

    def __init__(
        self,
        members: Members,
        after: int = PlasticityInjectionOptions.after,
        layers: int = PlasticityInjectionOptions.layers,
        part: Literal["all", "actor", "critic"] = PlasticityInjectionOptions.part,
    ) -> None:
        super().__init__(members, after, times=1)
        own = extensions(members.network).get(InjectedHeads.name)
        if not isinstance(own, InjectedHeads):
            raise UsageError(
                "plasticity-injection: expected a network that was extended before its optimizer "
                "was made, by clrl.networks.extend"
            )
        self._trios = [
            (name, f"{own.name}.new.{inner}", f"{own.name}.old.{inner}")
            for inner, name in own.originals.items()
        ]
        self._injected = members.buffers[f"{own.name}.injected"]
        self._before: dict[str, Tensor] = {}

    @classmethod
    def hears_changes(cls, options: Mapping[str, Any]) -> bool:
        """Whether it acts at a change of task, under these options."""
        return not options.get("after", cls.default_every)

    @classmethod
    def extension(
        cls,
        network: Network,
        layers: int = PlasticityInjectionOptions.layers,
        part: str = PlasticityInjectionOptions.part,
        **_: Any,
    ) -> InjectedHeads:
        """The new heads; see `AddOn.extension`."""
        return InjectedHeads(network, layers, part)

    def operate(self, member: int) -> None:
        """Inject into one learner."""
        for names in self._trios:
            fresh = self.members.fresh(names[0], member)
            for name in names:
                if name != names[0]:
                    self.members.parameters[name][member] = fresh
                self.members.reset_state(name, member, (...,))
        self._injected[member] = 1.0

    def before_step(self, features: Mapping[str, Tensor]) -> None:
        """Keep what is to be held still."""
        own = self.members.parameters
        self._before = {name: own[name].clone() for names in self._trios for name in names}

    def after_step(self, features: Mapping[str, Tensor]) -> None:
        """Put it back, and inject where it is time to."""
        injected = self._injected > 0
        still = injected, ~injected, torch.ones_like(injected)
        for names in self._trios:
            for name, held in zip(names, still, strict=True):
                own = self.members.parameters[name]
                where = held.view(-1, *(1 for _ in own.shape[1:]))
                own.copy_(torch.where(where, self._before[name], own))
        super().after_step(features)

    def started_anew(self, name: str, member: int, index: Index) -> None:
        """What is new is what is held; new heads that begin again are not injected any more."""
        if name in self._before:
            self._before[name][member, *index] = self.members.parameters[name][member, *index]
        if not any(self.members.parameters[new][member].any() for _, new, _ in self._trios):
            self._injected[member] = 0.0


class InjectedHeads(Extension):
    """Two more heads beside each of a network's own; at first, and where not injected, they are 0.

    They are computed in evaluation mode: what a head drops at random is its own.

    Args:
        network: whose heads; they are where it is attached.
        layers: of a head.
        part: of the network.

    Attributes:
        injected: 0 or 1, a buffer: whether the network's own head is held still, and the new one
            trained.
        originals: by name of a parameter of ``new`` and of ``old``, that of the network's.
    """

    name = "injected_heads"
    injected: Tensor

    def __init__(self, network: Network, layers: int, part: str) -> None:
        super().__init__()
        heads = [own for own in network.heads if part in ("all", _part(network, own))]
        if not heads:
            raise UsageError(f"plasticity-injection: part: expected all, got {part}")
        self.register_buffer("injected", torch.zeros(()))
        self._chains = [_chain(network, head, layers) for head in heads]
        self.new, self.old = (
            nn.ModuleList(
                nn.ModuleList(copy.deepcopy(network.get_submodule(path)) for path in chain)
                for chain in self._chains
            )
            for _ in range(2)
        )
        self.originals: dict[str, str] = {}
        for i, chain in enumerate(self._chains):
            for j, path in enumerate(chain):
                if next(network.get_submodule(path).buffers(), None) is not None:
                    raise UsageError(
                        f"plasticity-injection: {path} has statistics of its own; expected a head "
                        "without batch norm"
                    )
                for name, _ in network.get_submodule(path).named_parameters():
                    self.originals[f"{i}.{j}.{name}"] = f"{path}.{name}"
        self._parts = {name: network.part_of(own) for name, own in self.originals.items()}
        self._inputs: dict[int, Tensor] = {}

    def attach(self, network: Network) -> None:
        """Add what the new heads give to what the network's own do; see `Extension.attach`."""
        for i, chain in enumerate(self._chains):
            first, last = network.get_submodule(chain[0]), network.get_submodule(chain[-1])
            first.register_forward_pre_hook(functools.partial(self._see, i))
            for path in chain:
                for module in network.get_submodule(path).modules():
                    module.register_forward_pre_hook(self._hold)
                    module.register_forward_hook(self._let_go)
            last.register_forward_hook(functools.partial(self._add, i))

    def _see(self, i: int, _module: nn.Module, inputs: tuple[Tensor]) -> None:
        (self._inputs[i],) = inputs

    def _hold(self, module: nn.Module, _inputs: Any) -> None:
        """Before the network's own head: let no gradient reach its parameters once injected."""
        own = {name: value for name, value in module._parameters.items() if value is not None}
        module.__dict__["_held"] = own
        for name, value in own.items():
            module._parameters[name] = _through(value, 1 - self.injected)  # type: ignore[assignment]

    def _let_go(self, module: nn.Module, _inputs: Any, _output: Tensor) -> None:
        module._parameters.update(module.__dict__.pop("_held"))

    def _add(self, i: int, _module: nn.Module, _inputs: Any, output: Tensor) -> Tensor:
        features = self._inputs.pop(i)
        new, old = (
            self._given(chains[i], features, share)  # type: ignore[arg-type]
            for chains, share in ((self.new, self.injected), (self.old, 0 * self.injected))
        )
        return output + (new - old)

    def _given(self, chain: nn.ModuleList, x: Tensor, share: Tensor) -> Tensor:
        for module in chain:
            own = {name: _through(value, share) for name, value in module.named_parameters()}
            x = torch.func.functional_call(module, own, (x,))
        return x

    def train(self, mode: bool = True) -> InjectedHeads:
        """Stay in evaluation mode."""
        return super().train(False)

    def fresh(self, name: str, generator: torch.Generator) -> Tensor:
        """All 0."""
        return torch.zeros(self.get_parameter(name).shape)

    def part_of(self, name: str) -> str:
        """That of the head beside which it is."""
        return self._parts[name.partition(".")[2]]


def _through(value: Tensor, share: Tensor) -> Tensor:
    """A tensor, to the bit, of whose gradient a share goes through."""
    fixed = value.detach()
    return fixed + share * (value - fixed)


def _part(network: Network, path: str) -> str:
    return network.part_of(f"{path}.weight")


def _chain(network: Network, head: str, layers: int) -> list[str]:
    """The paths of the modules that make up a head, in order."""
    chain = [head]
    below: HiddenLayer | None
    for _ in range(layers - 1):
        below = next((own for own in network.hidden_layers if chain[0] in own.readers), None)
        if below is None:
            raise UsageError(
                f"plasticity-injection: layers: expected at most {_depth(network, head)} for this "
                f"network, got {layers}"
            )
        chain = [path for path in (below.incoming, below.norm, below.activation) if path] + chain
    return chain


def _depth(network: Network, path: str) -> int:
    """Layers in a row up to a linear map."""
    below = next((own for own in network.hidden_layers if path in own.readers), None)
    return 1 if below is None else 1 + _depth(network, below.incoming)
