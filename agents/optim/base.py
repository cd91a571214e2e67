"""How update rules compose: one base optimizer and any number of add-ons around it."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from clrl.agents.networks import Extension, HiddenLayer, Network
from clrl.agents.optim.members import Index, Members


class AddOn:
    """Something that happens around the steps of a base optimizer, or at a change of task.

    A subclass takes `Members` and its own options as keywords, and has the hooks it needs. It
    edits parameters in place; whatever it computes stays inside a member (contract: members are
    independent). `Members.gradients` has the gradients of the step, before it and after it.

    Attributes:
        needs_features: whether the hooks around a step are to be given the hidden activations of
            the batch that is learned.
        needs_changes: whether it is to be told that the task changed. A learner that is not told
            of changes has no such add-on. Where it follows from options, `hears_changes` says so
            too.
        resets_units: whether it starts weights anew, and the base's state of them; Adam then
            counts its steps by element.
        holds_still: whether some parameters are not trained under it, by intention.
    """

    needs_features = False
    needs_changes = False
    resets_units = False
    holds_still = False

    def __init__(self, members: Members) -> None:
        self.members = members

    @classmethod
    def hears_changes(cls, options: Mapping[str, Any]) -> bool:
        """Whether one with these options is to be told that the task changed."""
        return cls.needs_changes

    @classmethod
    def extension(cls, network: Network, **options: Any) -> Extension | None:
        """What one with these options adds to a network; made anew for each."""
        return None

    def before_step(self, features: Mapping[str, Tensor]) -> None:
        """Act before one step of the base optimizer; it may change gradients.

        Args:
            features: hidden layer name to activations [members, examples, features]; empty
                unless an add-on of the learners `needs_features`.
        """

    def after_step(self, features: Mapping[str, Tensor]) -> None:
        """Act after one step of the base optimizer.

        Args:
            features: see `before_step`; of the parameters before the step.
        """

    def at_change(self, members: Sequence[int]) -> None:
        """Act between the last update of a task and the first of the next, if `needs_changes`.

        Args:
            members: whose task changed.
        """

    def at_experience(self, members: Sequence[int]) -> None:
        """Act between the collection of experience and the first update on it.

        Only agents that collect, as PPO does, say when.

        Args:
            members: who have collected.
        """

    def started_anew(self, name: str, member: int, index: Index) -> None:
        """Some elements of a parameter, and the base's state of them, have been made new.

        Args:
            name: the parameter's.
            member: whose.
            index: into the parameter's shape.
        """

    def state_dict(self) -> dict[str, Any]:
        """Everything that decides the future, generators apart.

        Tensors have the member axis first; what all members share is plain values.
        """
        return {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore what `state_dict` gave."""


class Chain:
    """A base optimizer, and add-ons in order: before each of its steps, and after.

    Args:
        base: any optimizer.
        addons: what happens around its steps.
        features: the hidden activations of the batch just learned, by layer, kept up to
            date by whoever runs the network; empty where no add-on asks for them.
        generators: what base and add-ons draw from; their states are part of the state.
        project: what a network does to its parameters after whatever changed them, if anything.
    """

    def __init__(
        self,
        base: torch.optim.Optimizer,
        addons: Sequence[AddOn],
        features: Mapping[str, Tensor],
        generators: Sequence[torch.Generator],
        project: Callable[[], None] | None = None,
    ) -> None:
        self.base = base
        self._project = project
        self.addons = tuple(addons)
        self.features = features
        self.generators = generators

    @torch.no_grad()
    def step(self, closure: Any = None) -> Any:
        """One step of the base between the add-ons' hooks; what the closure gave, if any.

        A closure is called first, so that gradients are there for what comes before the step.
        """
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for addon in self.addons:
            addon.before_step(self.features)
        self.base.step()
        self.after_base()
        return loss

    @torch.no_grad()
    def after_base(self) -> None:
        """What follows a step of the base."""
        for addon in self.addons:
            addon.after_step(self.features)
        if self._project is not None:
            self._project()

    @torch.no_grad()
    def at_change(self, members: Sequence[int]) -> None:
        """Tell the add-ons that need to know whose task changed."""
        for addon in self.addons:
            if addon.needs_changes and members:
                addon.at_change(members)
        if self._project is not None:
            self._project()

    @torch.no_grad()
    def at_experience(self, members: Sequence[int]) -> None:
        """Tell the add-ons who have collected new experience."""
        for addon in self.addons:
            addon.at_experience(members)

    def state_dict(self) -> dict[str, Any]:
        """The states of base, add-ons and generators."""
        return {
            "base": self.base.state_dict(),
            "addons": [addon.state_dict() for addon in self.addons],
            "generators": [generator.get_state() for generator in self.generators],
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore what `state_dict` gave, for the same base and add-ons."""
        self.base.load_state_dict(copy.deepcopy(state["base"]))  # torch would share tensors
        for addon, own in zip(self.addons, state["addons"], strict=True):
            addon.load_state_dict(own)
        for generator, value in zip(self.generators, state["generators"], strict=True):
            generator.set_state(value)


class WithAddOns(torch.optim.Optimizer):
    """A `Chain` as an ordinary ``torch.optim.Optimizer``.

    It shares the base's ``param_groups`` and ``state``, so learning-rate schedules reach
    the base.

    Args:
        chain: the base and its add-ons.
    """

    def __init__(self, chain: Chain) -> None:
        super().__init__(chain.base.param_groups, chain.base.defaults)
        self.chain = chain
        self.state = chain.base.state

    def step(self, closure: Any = None) -> Any:
        """One step of the base, then each add-on."""
        return self.chain.step(closure)

    def at_change(self) -> None:
        """Tell the add-ons that need to know that the task changed."""
        self.chain.at_change([0])

    def at_experience(self) -> None:
        """Tell the add-ons that there is new experience to learn from."""
        self.chain.at_experience([0])

    def state_dict(self) -> dict[str, Any]:
        """The base's state and the add-ons'."""
        return self.chain.state_dict()

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore what `state_dict` gave, for the same base and add-ons."""
        self.chain.load_state_dict(state_dict)
        self.state = self.chain.base.state
        self.param_groups = self.chain.base.param_groups


def compose(
    network: Network,
    base: torch.optim.Optimizer,
    addons: Sequence[Callable[[Members], AddOn]],
    generator: torch.Generator,
    targets: Mapping[str, Tensor] | None = None,
) -> WithAddOns:
    """Put add-ons over the optimizer of one ordinary network.

    The activations that unit-level add-ons read are those of the network's last forward
    pass with gradients enabled.

    Args:
        network: the network that `base` trains.
        base: its optimizer.
        addons: each makes one add-on, for instance
            ``lambda members: ContinualBackprop(members, replacement_rate=1e-4)``.
        generator: source of the add-ons' randomness.
        targets: parameters of a target network, by the names of those that they follow; where an
            add-on draws a parameter anew, its target is the same.

    Returns:
        An optimizer to be used in place of `base`.
    """
    made: list[AddOn] = []
    members = Members.of_module(network, base, generator, made, targets)
    made += [make(members) for make in addons]
    if any(addon.resets_units for addon in made) and hasattr(base, "count_by_element"):
        base.count_by_element()
    features: dict[str, Tensor] = {}
    if any(addon.needs_features for addon in made):
        for layer in network.hidden_layers:

            def keep(_module: Any, _inputs: Any, output: Tensor, of: HiddenLayer = layer) -> None:
                if torch.is_grad_enabled():
                    features[of.name] = network.by_unit(of, output.detach().unsqueeze(0), 1)

            network.get_submodule(layer.activation).register_forward_hook(keep)
    return WithAddOns(Chain(base, made, features, [generator], projection(members)))


def projection(members: Members) -> Callable[[], None] | None:
    """What these learners' networks do to their parameters after updates, if anything."""
    network = members.network
    return (lambda: network.project(members.parameters)) if network.projects else None
