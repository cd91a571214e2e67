"""The population engine: learners that differ only in their seed, trained together.

Code describes one learner: an ordinary module and a loss. The engine stacks the members'
parameters along a leading axis, maps the loss over it (``vmap``), runs autograd once and
lets the optimizer step the stacked tensors. Members are independent: what happens to one
never touches another, to the last bit.

On another device than the CPU the arithmetic is the same, but its kernels were not looked at:
there a member's last bits may depend on how many are stacked. What is drawn at random is drawn
on the CPU and moved, so that it is the same everywhere.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from clrl.agents.calling import Call, Draw, calling
from clrl.agents.chunk import Chunk, Companion, by_update
from clrl.agents.compiled import Compiled, Snapshot, padded
from clrl.agents.device import CPU
from clrl.agents.engine.build import library
from clrl.agents.engine.plan import EngineName, LossPlan
from clrl.agents.engine.work import find_engine
from clrl.agents.even import Look, aligned
from clrl.agents.networks import Network, extend
from clrl.agents.objective import Loss, Objective, Tap, network_buffers
from clrl.agents.optim.members import Flat
from clrl.agents.optim.rule import UpdateRule, mixes_members
from clrl.agents.penalties.base import Penalty
from clrl.agents.replay import Recording
from clrl.errors import UsageError

_WEIGHTS = 1_200_000
"""Weights of the members in a chunk: beyond some four megabytes, wider chunks were slower."""


class Population:
    """Learners of one kind, one a seed.

    Args:
        networks: the members' networks, alike but for their parameters; copied. What methods add
            to networks is added to them.
        loss: the objective of one learner.
        rule: how parameters are updated.
        generators: one a member, for whatever its network and the update rule draw.
        chunk_size: members stepped together. None takes what suits the sizes of network and
            batches: more share the cost of each operation, fewer stay in the processor's cache.
            The results are the same.
        max_grad_norm: a member's gradient of greater norm is scaled down to it before the
            update, as `torch.nn.utils.clip_grad_norm_` does; 0 for no bound.
        halt: one of the loss's named tensors and a limit: where a batch exceeds it, a member
            takes neither that update nor those that follow in the same call of `learn`. Members
            are then stepped one at a time.
        device: where parameters live and updates are computed. Batches are to be there;
            networks and generators are on the CPU.
        penalties: make terms that are added to every learner's loss, given its network.
        plan: the loss, as compiled code knows it, if it does.
        engine: how updates are computed: ``replay``, ``compiled``, or ``auto`` for the latter where
            that can be.

    Attributes:
        network: a network of the members' kind, for its declaration; its own parameter
            values mean nothing.
        rows: the parameters, one padded row a member; see `Flat`.
        kept: what else there is of a member, its network's buffers first of all: name to
            [members, ...]; see `clrl.agents.objective.Objective.begin`.
        gradients: the gradients of the last step, in the same places.
        loss_gradients: those of the loss alone, where penalties or a companion add to them.
        frozen: which members have diverged and no longer move, [members] bool.
        apart: whether each member has an optimizer of its own, because the base optimizer
            would mix members.
        companion: what acts around every update, if anything does.
    """

    companion: Companion | None = None

    def __init__(
        self,
        networks: Sequence[Network],
        loss: Loss,
        rule: UpdateRule,
        generators: Sequence[torch.Generator],
        chunk_size: int | None = None,
        max_grad_norm: float = 0.0,
        halt: tuple[str, float] | None = None,
        device: torch.device = CPU,
        penalties: Sequence[Callable[[Network], Penalty]] = (),
        plan: LossPlan | None = None,
        engine: EngineName = "replay",
    ) -> None:
        self.device = device
        self.network = networks[0].eval()
        self._halt = halt
        self._rates = 1.0
        self._max_grad_norm = max_grad_norm
        self._rule = rule
        self._generators = list(generators)
        seeds = [generator.initial_seed() for generator in generators]
        for network, seed in zip(networks, seeds, strict=True):
            extend(network, rule.extensions(network), seed)
        self._objective = Objective(
            self.network,
            loss,
            [make(self.network) for make in penalties],
            self.network.hidden_layers if rule.needs_features else (),
        )
        for network, seed in zip(networks, seeds, strict=True):
            extend(network, self._objective.extensions(), seed)
        self._flat = Flat(self.network)
        self._chunk_size = 1 if halt else chunk_size
        self.apart = mixes_members(rule)
        self.engine, self._no_engine = (
            find_engine(self.network, self._flat, plan, rule, bool(penalties), device)
            if engine != "replay"
            else (None, "")
        )
        if engine == "compiled" and self.engine is None:
            raise UsageError(f"engine compiled: {self._no_engine}; expected engine auto or replay")
        self.rows = torch.zeros(len(networks), self._flat.padded, device=device)
        for row, network in zip(self.rows, networks, strict=True):
            for name, view in self._flat.views(row.unsqueeze(0)).items():
                view[0].copy_(network.get_parameter(name).detach())
        self.gradients = torch.zeros_like(self.rows)
        self.loss_gradients = torch.zeros_like(self.rows)
        self.kept = _stacked([self._begin(network) for network in networks], device)
        self._safe = self.snapshot()
        self.frozen = torch.zeros(len(networks), dtype=torch.bool, device=device)
        self._changed: set[int] = set()
        self._experienced = False  # since the last update
        self._chunks: list[Chunk] = []
        self._parted = False  # whether members' pasts are of different lengths
        # Shared by all chunks: computations by number of members and shapes of the batch, and
        # the names of what the loss gives.
        self._recordings: dict[Any, tuple[Recording, Sequence[Draw]]] = {}
        self._results: list[str] = []
        # Of each member, its update rule's past, as long as it is in no chunk.
        self._pasts: list[Any] = [None] * len(networks)

    def __len__(self) -> int:
        """The number of members."""
        return len(self.rows)

    @property
    def division(self) -> list[int]:
        """How many members each chunk has; nothing before the first update."""
        return [len(chunk.rows) for chunk in self._chunks]

    @property
    def looks(self) -> list[Look]:
        """What was found of the computations of updates, one for each size of a chunk."""
        found = (recording.look for recording, _ in self._recordings.values())
        return [look for look in found if look is not None]

    def evenness(self) -> str:
        """How members are kept the same alone and among others, in words."""
        if not self._chunks:
            return ""
        if self.device != CPU:
            return "not looked at"
        if self._chunks[0].engine is not None:
            return f"one after another, in compiled code ({library()[1]})"
        uneven = sorted({name for look in self.looks for name in look.uneven})
        if uneven:
            return f"one member at a time, for {', '.join(uneven)}"
        most = max(self.division)
        text = f"up to {most} stacked" if most > 1 else "one at a time"
        apart = max(look.apart for look in self.looks)
        text += f"; {apart} products one by one" if apart else ""
        return f"{text}; not compiled: {self._no_engine}" if self._no_engine else text

    def parameters(self) -> dict[str, Tensor]:
        """The parameters: name to a view [members, *shape]."""
        return self._flat.views(self.rows)

    def member(self, member: int) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """One member's parameters and its network's buffers, by name; views."""
        own = {name: value[member] for name, value in self.parameters().items()}
        return own, {k: value[member] for k, value in network_buffers(self.kept).items()}

    def module(self, member: int) -> Network:
        """A member as an ordinary network of its own: a copy, as it is now."""
        made = copy.deepcopy(self.network).to(self.device)
        parameters, buffers = self.member(member)
        with torch.no_grad():
            for name, value in parameters.items():
                made.get_parameter(name).copy_(value)
            for name, value in buffers.items():
                made.get_buffer(name).copy_(value)
        return made

    def snapshot(self) -> Snapshot:
        """All members as they are now."""
        return Snapshot(self.rows.clone(), {name: padded(own) for name, own in self.kept.items()})

    def take_member(self, state: Mapping[str, Any], member: int) -> None:
        """Take over what one member is, from another population's `state_dict`.

        It is for a population of one that is to act and not to learn.
        """
        self.rows.copy_(state["rows"][member].unsqueeze(0))
        for name, own in self.kept.items():
            own.copy_(state["kept"][name][member].unsqueeze(0))
        self.mark_safe()

    def views_of(self, rows: Tensor) -> dict[str, Tensor]:
        """Rows like the population's own [members, padded], as views [members, *shape] by name."""
        return self._flat.views(rows)

    def gradient_views(self) -> dict[str, Tensor]:
        """The gradients of the last step, before they were bounded: name to [members, *shape]."""
        if not self._max_grad_norm or not self._chunks:
            return self._flat.views(self.gradients)
        scales = torch.cat([chunk.scale for chunk in self._chunks])
        return self._flat.views(self.gradients / scales)

    @property
    def _computed(self) -> str:
        return "replay" if self.engine is None else "compiled"

    @property
    def added_to(self) -> bool:
        """Whether penalties or a companion add to the gradients of the loss."""
        return self._objective.penalised or self.companion is not None

    def loss_gradient_views(self) -> dict[str, Tensor]:
        """As `gradient_views`, of the loss alone: without what penalties and a companion add."""
        if self.added_to:
            return self._flat.views(self.loss_gradients)
        return self.gradient_views()

    def restart(
        self,
        members: Sequence[int],
        draw: Callable[[int], Network],
        seed: Callable[[int], int],
    ) -> None:
        """Make some members new: other parameters, and an update rule without a past.

        Where some are made new and some are not, members are stepped one at a time from then on,
        since each has a past of its own. A frozen member keeps its parameters.

        Args:
            members: which.
            draw: makes the new network of a member.
            seed: of a member's generator from then on, for whatever the update rule draws.
        """
        for member in members:
            self._generators[member].manual_seed(seed(member))
            if self.frozen[member]:
                continue
            row = self.rows[member].unsqueeze(0)
            network = draw(member)
            for added in (self._rule.extensions(network), self._objective.extensions()):
                extend(network, added, seed(member))
            for name, view in self._flat.views(row).items():
                view[0].copy_(network.get_parameter(name).detach())
            for name, value in self._begin(network).items():
                self.kept[name][member] = value
            self._safe.rows[member] = self.rows[member]
            for name, own in self._safe.kept.items():
                own[member] = self.kept[name][member]
        if 0 < len(set(members)) < len(self) and not self._parted:
            self._pasts = self._member_pasts()
            self._chunks = []
            self._parted = True
        for member in members:
            self._pasts[member] = None
        self._chunks = [
            self._chunk(chunk.members) if chunk.members.start in members else chunk
            for chunk in self._chunks
        ]

    def scale_rates(self, share: float) -> None:
        """Set the learning rates to a share of those that the rule was given, from now on."""
        self._rates = share
        for chunk in self._chunks:
            chunk.scale_rates(share)

    @property
    def needs_others(self) -> bool:
        """Whether a penalty is to be given other examples than those of an update."""
        return self._objective.needs_others

    def collected(self) -> None:
        """There is new experience to learn from: penalties and add-ons that go by it are told."""
        self._experienced = True
        if not self._objective.penalised:
            return
        for member in torch.nonzero(~self.frozen).flatten().tolist():
            parameters, _ = self.member(member)
            self._objective.collected(
                parameters, {name: value[member] for name, value in self.kept.items()}
            )

    def learn(self, *batches: Tensor, others: Tensor | None = None) -> dict[str, Tensor]:
        """Take one update a batch, in order.

        Args:
            batches: the loss's arguments, each [members, updates, ...].
            others: where a penalty `needs_others`, the network's inputs of other examples; the
                first of the batches unless given.

        Returns:
            ``"loss"`` and the loss's named tensors, each [members, updates, ...], computed
            before the update that follows from them. A frozen member's are computed from
            its frozen parameters. Where gradients are bounded, ``"grad_norm"`` [members,
            updates], that of the loss, before they were scaled; and where penalties or a companion
            add to them, ``"total_grad_norm"``, that of the whole. Where members can halt,
            ``"counted"`` [members, updates]: 1 up to the batch that halted a member; what follows
            is 0.
        """
        if self.needs_others:
            batches = (*batches, batches[0] if others is None else others)
        if not self._chunks:
            self._chunks = self._divide(batches)
        for chunk in self._chunks if self._changed else ():
            chunk.tell(self._changed - set(torch.nonzero(self.frozen).flatten().tolist()))
        self._changed.clear()
        for chunk in self._chunks if self._experienced else ():
            chunk.tell_of_experience(self.frozen)
        self._experienced = False
        parts = [
            chunk.learn(batches, self.frozen, self._safe, self.companion) for chunk in self._chunks
        ]
        return {key: torch.cat([part[key] for part in parts]) for key in parts[0]}

    def change(self, members: Sequence[int]) -> None:
        """Some members' task changed: before the next update, add-ons that need to know are told.

        A member that is frozen by then is left alone.
        """
        if self._rule.needs_changes:
            self._changed.update(members)

    @property
    def needs_changes(self) -> bool:
        """Whether the update rule is to be told of changes of task; see `change`."""
        return self._rule.needs_changes

    def mark_safe(self) -> None:
        """Remember the present parameters as those that a diverging member falls back to.

        A member whose parameters are not finite is frozen instead.
        """
        real = self.rows[:, : self._flat.width]
        self._freeze(real.amin(dim=1).isfinite() & real.amax(dim=1).isfinite())
        self._safe = self.snapshot()

    @property
    def safe_parameters(self) -> dict[str, Tensor]:
        """The parameters at the last `mark_safe`: name to a view [members, *shape]."""
        return self._flat.views(self._safe.rows)

    def freeze_diverged(self, losses: Tensor) -> None:
        """Freeze the members whose losses are not finite.

        A member so marked goes back to the parameters of the last `mark_safe` and keeps
        them; its siblings are what they would have been.

        Args:
            losses: what `learn` gave, [members, updates].
        """
        self._freeze(losses.isfinite().all(dim=1))

    def _freeze(self, finite: Tensor) -> None:
        new = ~finite & ~self.frozen
        if bool(new.any()):
            self.frozen |= new
            self.rows[new] = self._safe.rows[new]
            for name, own in self.kept.items():
                own[new] = self._safe.kept[name][new]

    def compiled(self, function: Callable[..., Any], training: bool = False) -> Compiled:
        """A function of one learner, applied to every member without gradients.

        Args:
            function: takes `Forward` and one member's inputs, gives a tensor, or a tuple or a dict
                of tensors; pure. It is recorded once for inputs of a shape.
            training: whether the network is called as in the last update: in training mode, with
                the random numbers drawn there. What it writes into its buffers goes nowhere.
        """
        return Compiled(self, function, training)

    @property
    def noise(self) -> list[Tensor]:
        """What networks drew in the last update: one tensor [members, n], if anything."""
        drawn = [chunk.noise for chunk in self._chunks]
        return [torch.cat(column) for column in zip(*drawn, strict=True)]

    def features(self, member: int, inputs: Tensor) -> dict[str, Tensor]:
        """One member's hidden activations.

        Args:
            member: which one.
            inputs: [examples, ...], on any device.

        Returns:
            Hidden layer name to activations [examples, features].
        """
        forward, _ = calling(self.network, *self.member(member))
        with torch.no_grad(), Tap(self.network, self.network.hidden_layers) as tap, Call():
            forward(aligned(inputs.to(self.device)))
            return dict(tap.features)

    def _begin(self, network: Network) -> dict[str, Tensor]:
        return self._objective.begin(
            dict(network.named_parameters()), dict(network.named_buffers())
        )

    def _divide(self, batches: Sequence[Tensor]) -> list[Chunk]:
        size = 1 if self._parted else min(self._chunk_size or self._suitable_size(), len(self))
        chunks = self._chunks_of(size)
        if size > 1 and self.device == CPU:
            # A computation by which members would differ from themselves alone is done alone.
            for chunk in chunks:
                chunk.compute_gradients(next(by_update(batches, chunk.members)))
            if any(look.uneven for look in self.looks):
                chunks = self._chunks_of(1)
        for chunk in chunks:
            own = self._pasts[chunk.members]
            if own[0] is not None:
                chunk.optimizer.load_member_states(own)
        self._pasts = [None] * len(self)
        return chunks

    def _chunks_of(self, size: int) -> list[Chunk]:
        count = -(-len(self) // size)
        bounds = [i * len(self) // count for i in range(count + 1)]
        return [self._chunk(slice(a, b)) for a, b in zip(bounds, bounds[1:], strict=False)]

    def _chunk(self, members: slice) -> Chunk:
        chunk = Chunk(
            members,
            self.rows[members],
            self.gradients[members],
            self.loss_gradients[members],
            list(self._generators[members]),
            self._flat,
            self.network,
            {name: value[members] for name, value in self.kept.items()},
            self._objective,
            self._rule,
            self.apart,
            self._recordings,
            self._results,
            self._max_grad_norm,
            self._halt,
            self.engine if self.companion is None else None,
        )
        chunk.scale_rates(self._rates)
        return chunk

    def _suitable_size(self) -> int:
        """Members to a chunk: as many as have room in the cache, where there is one to fit."""
        if self.apart or self.device != CPU:
            return len(self)
        return max(1, _WEIGHTS // self._flat.width)

    def state_dict(self) -> dict[str, Any]:
        """Everything that decides the members' future; plain values and tensors.

        It is a member's own, however members are divided into chunks.
        """
        return {
            "rows": self.rows,
            "kept": self.kept,
            "safe": {"rows": self._safe.rows, "kept": self._safe.kept},
            "frozen": self.frozen,
            "changed": sorted(self._changed),
            "generators": [generator.get_state() for generator in self._generators],
            "optimizers": self._member_pasts(),
            "parted": self._parted,
            "engine": self._computed,
        }

    def _member_pasts(self) -> list[Any]:
        pasts = list(self._pasts)
        for chunk in self._chunks:
            pasts[chunk.members] = chunk.optimizer.member_states()
        return pasts

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore what `state_dict` gave, for the same members, loss and rule.

        Raises:
            UsageError: updates were computed in another way until then.
        """
        if state["engine"] != self._computed:
            why = f" ({self._no_engine})" if self._no_engine else ""
            raise UsageError(
                f"engine: the run began with {state['engine']} and is here to go on with "
                f"{self._computed}{why}; expected the same, or another --out"
            )
        self.rows.copy_(state["rows"])
        for name, own in self.kept.items():
            own.copy_(state["kept"][name])
        self._safe.rows.copy_(state["safe"]["rows"])
        for name, own in self._safe.kept.items():
            own.copy_(state["safe"]["kept"][name])
        self.frozen.copy_(state["frozen"])
        self._changed = set(state["changed"])
        self._experienced = False
        for generator, saved in zip(self._generators, state["generators"], strict=True):
            generator.set_state(saved)
        self._pasts = copy.deepcopy(list(state["optimizers"]))  # they are somebody else's
        self._parted = state["parted"]
        self._chunks = []


def _stacked(each: Sequence[Mapping[str, Tensor]], device: torch.device) -> dict[str, Tensor]:
    """Tensors of some members by name, stacked: [members, ...]."""
    return {name: padded(torch.stack([one[name] for one in each]).to(device)) for name in each[0]}
