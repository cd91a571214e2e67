"""What networks promise."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from clrl.agents.networks import HiddenLayer, Network
from clrl.agents.optim.rule import UpdateRule
from clrl.agents.table import NETWORKS
from clrl.settings.values import Place, build
from clrl.testing.learners import (
    SEED,
    Problem,
    check_members,
    check_randomness,
    check_state,
    check_trained,
    seeded,
)
from clrl.testing.promises import Broken, Check, Subject, difference, load, options_of

_DRAWS = 40  # networks, and fresh parameters, whose numbers are compared


def check_network(
    network: Subject,
    *,
    inputs: int = 6,
    outputs: int = 3,
    steps: int = 30,
    thorough: bool = False,
    **options: Any,
) -> tuple[str, ...]:
    """Hold a network against what every network promises.

    It is made from (inputs, outputs, options, generator, gain of the last layer) and draws from
    that generator alone; its hidden layers are what it declares; ``fresh`` draws as the first
    parameters were drawn; every parameter is trained; a learner is the same to the bit alone, among
    others and divided otherwise, and comes back in a new process.

    Args:
        network: the class, or a name.
        inputs: numbers in an input.
        outputs: numbers in an output.
        steps: updates that are compared.
        thorough: try five learners in every division.
        options: fields of its options, which its attribute ``Options`` describes.

    Returns:
        The promises that held.

    Raises:
        Broken: the first that does not.
        UsageError: there is nothing of that name, or an option is wrong.
    """
    make, name = load(network, NETWORKS)
    chosen = build(options_of(network, NETWORKS), options, Place())
    check = Check(name)
    rule = UpdateRule(torch.optim.SGD, {"lr": 0.01})
    problem = Problem(rule, steps, make, chosen, inputs, outputs)
    with check.promise("made from sizes, options, generator and gain"):
        made = problem.make(SEED).eval()  # as it answers; an update may need more than one example
        if not isinstance(made, Network):
            raise Broken(f"expected a clrl.networks.Network, got {type(made).__name__}")
        _expect_outputs(made, problem)
    check.own_randomness(lambda: dict(problem.make(SEED).state_dict()))
    with check.promise("another seed gives another network"):
        one, two = (dict(problem.make(seed).state_dict()) for seed in (1, 2))
        if not difference(one, two):
            raise Broken("seeds 1 and 2 give the same parameters")
    _check_layers(check, made, problem)
    _check_fresh(check, problem)
    check_trained(check, problem, every=False)
    check_randomness(check, problem)
    check_members(check, problem, thorough)
    check_state(check, problem)
    return tuple(check.held)


def _expect_outputs(network: Network, problem: Problem) -> None:
    for count in (1, 5):
        x = torch.randn(count, problem.inputs, generator=seeded(count))
        y = network(x)
        if y.shape != (count, problem.outputs):
            raise Broken(f"{[*x.shape]} in gives {[*y.shape]}; expected {[count, problem.outputs]}")
        if not bool(y.isfinite().all()):
            raise Broken("an output is not finite")


def _check_layers(check: Check, network: Network, problem: Problem) -> None:
    """Hidden layers are there, of the shapes declared, and features feed what they are said to."""
    with check.promise("hidden layers are what is declared"):
        layers = network.hidden_layers
        if len({layer.name for layer in layers}) < len(layers):
            raise Broken("two layers have the same name")
        seen: dict[str, tuple[Tensor, Tensor]] = {}

        def keep(path: str) -> Callable[[Any, Any, Tensor], None]:
            def hook(_module: Any, given: Any, output: Tensor) -> None:
                seen[path] = given[0].detach(), output.detach()

            return hook

        for layer in layers:
            for role in ("incoming", "norm", "activation", "outgoing"):
                path = getattr(layer, role)
                if not path and role == "norm":
                    continue
                try:
                    network.get_submodule(path).register_forward_hook(keep(path))
                except AttributeError:
                    raise Broken(f"{layer.name}: no module {path!r}, its {role}") from None
        network(torch.randn(9, problem.inputs, generator=seeded(0)))
        for layer in layers:
            _expect_layer(network, layer, seen)


def _expect_layer(
    network: Network, layer: HiddenLayer, seen: dict[str, tuple[Tensor, Tensor]]
) -> None:
    for path in filter(None, (layer.incoming, layer.norm, layer.activation, layer.outgoing)):
        if path not in seen:
            raise Broken(f"{layer.name}: {path} takes no part in a forward pass")
    weight_in, weight_out = (
        network.get_submodule(path).weight for path in (layer.incoming, layer.outgoing)
    )
    assert isinstance(weight_in, Tensor) and isinstance(weight_out, Tensor)
    units, features = len(weight_in), seen[layer.activation][1]
    if features.shape[1] != layer.copies * units:
        raise Broken(
            f"{layer.name}: {layer.activation} gives {features.shape[1]} features; expected "
            f"{layer.copies} of each of {units} units"
        )
    before = seen[layer.norm or layer.incoming][1]
    if not torch.equal(seen[layer.activation][0], before):
        raise Broken(f"{layer.name}: {layer.norm or layer.incoming} does not feed the activation")
    read = seen[layer.outgoing][0]
    if read.numel() != features.numel() or not torch.equal(read.flatten(), features.flatten()):
        raise Broken(f"{layer.name}: its features do not feed {layer.outgoing}")
    if weight_out.shape[1] % (layer.copies * units):
        raise Broken(
            f"{layer.name}: {layer.outgoing} has {weight_out.shape[1]} columns; expected a "
            f"multiple of {layer.copies * units}"
        )


def _check_fresh(check: Check, problem: Problem) -> None:
    """A parameter that is drawn anew has the distribution that it was first drawn from."""
    with check.promise("fresh draws as the first ones"):
        networks = [problem.make(seed) for seed in range(_DRAWS)]
        network, generator = networks[0], seeded(99)
        before = {name: one.detach().clone() for name, one in network.named_parameters()}
        for name, value in before.items():
            drawn = [network.fresh(name, generator) for _ in networks]
            if drawn[0].shape != value.shape or drawn[0].dtype != value.dtype:
                raise Broken(f"{name}: expected {[*value.shape]}, got {[*drawn[0].shape]}")
            if drawn[0].requires_grad or isinstance(drawn[0], nn.Parameter):
                raise Broken(f"{name}: expected a tensor without gradient")
            first = torch.stack([one.get_parameter(name).detach() for one in networks])
            _expect_alike(name, first, torch.stack(drawn))
        if where := difference(before, dict(network.named_parameters())):
            raise Broken(f"it changes the network's {where}")
        one, two = ([network.fresh(name, seeded(3)) for name in before] for _ in range(2))
        if difference(one, two):
            raise Broken("the same generator gives other numbers")


def _expect_alike(name: str, first: Tensor, drawn: Tensor) -> None:
    """Two samples of one distribution: the largest distance of their distribution functions.

    Beyond 2.6 / sqrt(n / 2) it has a chance of about 3 in a million (Kolmogorov and Smirnov).
    """
    a, b = (np.sort(sample.flatten().double().numpy()) for sample in (first, drawn))
    points = np.concatenate([a, b])
    shares = (np.searchsorted(sample, points, side="right") / len(sample) for sample in (a, b))
    distance = float(np.abs(np.subtract(*shares)).max())
    if distance > 2.6 / math.sqrt(len(a) / 2):
        raise Broken(
            f"{name}: deviation {a.std():.3g} about {a.mean():.3g} at first, "
            f"{b.std():.3g} about {b.mean():.3g} anew"
        )
    if bool((first != first[0]).any()) and bool((drawn == drawn[0]).all()):
        raise Broken(f"{name}: every draw is the same")
