"""Penalties that look at parameters alone, by hand."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import gymnasium as gym
import pytest
import torch
from torch import Tensor

from clrl.agents.actions import actions_of
from clrl.agents.calling import Call, draw
from clrl.agents.networks import MLP, Network
from clrl.agents.objective import Objective
from clrl.agents.options import MLPOptions
from clrl.agents.penalties.base import Penalty
from clrl.agents.penalties.l2_init import L2Init
from clrl.agents.penalties.parseval import Parseval
from clrl.agents.penalties.spectral import Spectral
from clrl.agents.penalties.wasserstein_init import WassersteinInit
from clrl.agents.ppo.actor_critic import ActorCritic


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def mlp(inputs: int = 2, outputs: int = 2, width: int = 2, **options: Any) -> MLP:
    return MLP(inputs, outputs, MLPOptions(widths=(width,), **options), seeded())


class Held:
    """A network under one penalty, without a loss.

    Args:
        network: whose parameters are what is remembered at first.
        make: the penalty.
    """

    def __init__(self, network: Network, make: Callable[..., Penalty], **options: Any) -> None:
        self.network = network
        self.parameters = {n: p.detach().clone() for n, p in network.named_parameters()}
        size = network.get_parameter(f"{network.hidden_layers[0].incoming}.weight").shape[1]
        self._x = torch.ones(3, size)
        self._objective = Objective(network, _no_loss, [make(network, **options)])
        self.kept = self._objective.begin(self.parameters, {})
        self.draws = 0

    def fill(self, number: float) -> None:
        """Set every parameter to one number, what is remembered being as it was."""
        self.parameters = {n: torch.full_like(p, number) for n, p in self.parameters.items()}

    def __call__(self, generator: torch.Generator | None = None) -> tuple[float, dict[str, Tensor]]:
        """The term and its gradients; what is remembered goes on."""
        values = {name: value.requires_grad_() for name, value in self.parameters.items()}
        with Call() as call:
            terms, *_, after = self._objective(values, self.kept, self._x)
        self.draws = sum(one.size for one in call.draws)
        if call.draws:
            assert generator is not None
            with Call(draw(call.draws, [generator])[0]):
                terms, *_, after = self._objective(values, self.kept, self._x)
        self.kept = after
        gradients = torch.autograd.grad(terms[0], list(values.values()), materialize_grads=True)
        return float(terms[0].detach()), dict(zip(values, gradients, strict=True))


def _no_loss(forward: Callable[[Tensor], Any], x: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
    forward(x)
    return torch.zeros(()), {}


def policy(**options: Any) -> ActorCritic:
    """Of two real actions, from 2 observations, with 2 units."""

    def part(inputs: int, outputs: int, generator: torch.Generator, gain: float) -> MLP:
        return MLP(inputs, outputs, MLPOptions(widths=(2,), **options), generator, gain)

    actions = actions_of(gym.spaces.Box(-1, 1, (2,)))
    return ActorCritic(2, actions, part, False, 0.5, seeded())


# The pull to where parameters were: 1, from 0.2


@pytest.mark.parametrize(
    ("form", "strength", "gradient"),
    [
        ("l2", 0.5, 0.4),  # the authors' code
        ("l2", 1.0, 0.8),  # the paper's, of half that strength
        ("l1", 0.5, 0.5),
        ("huber", 0.5, 0.4),
    ],
)
def test_forms_of_l2_init(form: str, strength: float, gradient: float) -> None:
    network = mlp(layer_norm=True)
    with torch.no_grad():
        for value in network.parameters():
            value.fill_(0.2)
    held = Held(network, L2Init, strength=strength, form=form)
    first, none = held()
    assert first == 0.0
    assert not any(value.any() for value in none.values())
    held.fill(1.0)
    for name, value in held()[1].items():
        expected = 0.0 if name.startswith("norms") else gradient
        torch.testing.assert_close(value, torch.full_like(value, expected))


def test_of_huber_far_away_it_is_l1() -> None:
    """From 0 to 3: the strength times 3 - 1/2, and a gradient of the strength, of 12 numbers."""
    network = mlp()
    with torch.no_grad():
        for value in network.parameters():
            value.zero_()
    held = Held(network, L2Init, strength=0.5, form="huber")
    held.fill(3.0)
    term, gradients = held()
    assert term == pytest.approx(0.5 * 2.5 * 12)
    assert all((value == 0.5).all() for value in gradients.values())


def test_a_length_pulls_alike_however_far() -> None:
    """12 numbers that are d away: a pull of the strength as a whole; at the start, none."""
    for d in (0.8, 80.0):
        network = mlp()
        with torch.no_grad():
            for value in network.parameters():
                value.fill_(0.2)
        held = Held(network, L2Init, strength=0.5, form="norm")
        first, none = held()
        assert first == 0.0
        assert not any(value.any() for value in none.values())
        held.fill(0.2 + d)
        term, gradients = held()
        assert term == pytest.approx(0.5 * d * 12**0.5, rel=1e-5)
        whole = torch.cat([value.flatten() for value in gradients.values()])
        assert float(whole.norm()) == pytest.approx(0.5, rel=1e-5)


def test_resampled_each_update_has_a_start_of_its_own_from_the_initialiser() -> None:
    network = mlp(layer_norm=True)
    held = Held(network, L2Init, strength=1.0, resample=True)
    assert held.kept == {}
    own, copy = seeded(5), seeded(5)
    gradients = [held(own)[1], held(own)[1]]
    for found in gradients:
        for name, value in held.parameters.items():
            wanted = torch.zeros_like(value)
            if not name.startswith("norms"):
                wanted = value.detach() - network.fresh(name, copy)
            torch.testing.assert_close(found[name], wanted)
    assert not torch.equal(gradients[0]["linears.0.weight"], gradients[1]["linears.0.weight"])
    nothing = Held(network, L2Init, strength=0.0, resample=True)
    assert nothing()[0] == 0.0
    assert nothing.draws == 0


def test_which_number_is_which_is_free_for_wasserstein() -> None:
    """(1, 2) to (3, 1) is 1 away, once sorted, and 5 as it stands."""
    for make, expected in ((WassersteinInit, 1.0), (L2Init, 5.0)):
        network = mlp()
        with torch.no_grad():
            network.linears[0].bias.copy_(torch.tensor([1.0, 2.0]))
        held = Held(network, make, strength=2.0)
        held.parameters["linears.0.bias"] = torch.tensor([3.0, 1.0])
        term, gradients = held()
        assert term == expected
        slopes = [2.0, 0.0] if make is WassersteinInit else [4.0, -2.0]
        assert gradients["linears.0.bias"].tolist() == slopes


def test_a_permutation_is_no_distance_and_any_is_the_most_l2_is() -> None:
    network = mlp(width=5)
    held = {make: Held(network, make, strength=1.0) for make in (WassersteinInit, L2Init)}
    for one in held.values():
        weight = one.parameters["linears.0.weight"]
        one.parameters["linears.0.weight"] = weight.flip(0).flip(1).clone()
    assert held[WassersteinInit]()[0] == 0.0
    assert held[L2Init]()[0] > 0.1
    for seed in range(5):
        moved = {
            name: value.detach() + torch.empty_like(value).normal_(generator=seeded(seed))
            for name, value in held[L2Init].parameters.items()
        }
        for one in held.values():
            one.parameters = {name: value.clone() for name, value in moved.items()}
        assert held[WassersteinInit]()[0] <= held[L2Init]()[0]


# Rows kept orthogonal


def test_parseval_by_hand() -> None:
    """W = diag(1, 2), rows of length 1: 9, of which the gradient is diag(0, 24)."""
    held = Held(mlp(), Parseval, strength=(2 / 64) ** 2, scale=1.0)
    for name in ("linears.0.weight", "linears.1.weight"):
        held.parameters[name] = torch.diag(torch.tensor([1.0, 2.0]))
    term, gradients = held()
    assert term == pytest.approx(9.0)
    expected = torch.diag(torch.tensor([0.0, 24.0]))
    torch.testing.assert_close(gradients.pop("linears.0.weight"), expected)
    assert not any(value.any() for value in gradients.values())


def test_orthogonal_policies_and_values_begin_without_a_pull_and_are_both_held() -> None:
    held = Held(policy(init="orthogonal"), Parseval, strength=1.0)
    assert held()[0] < 1e-8
    held.fill(1.0)
    moved = {name for name, value in held()[1].items() if value.any()}
    assert moved == {"parts.actor.linears.0.weight", "parts.critic.linears.0.weight"}


def test_more_units_than_inputs_leave_the_rest() -> None:
    """s^2 times what is over: 4 * (5 - 3), at best."""
    held = Held(mlp(3, 2, 5, init="orthogonal"), Parseval, strength=(5 / 64) ** 2)
    assert held()[0] == pytest.approx(8.0, rel=1e-5)


def test_the_order_of_rows_is_nothing_to_parseval_and_groups_are_apart() -> None:
    network = mlp(4, 2, 4)
    terms = []
    for order in ([0, 1, 2, 3], [2, 0, 3, 1]):
        held = Held(network, Parseval, strength=1.0)
        held.parameters["linears.0.weight"] = held.parameters["linears.0.weight"][order].clone()
        terms.append(held()[0])
    assert terms[0] == pytest.approx(terms[1], rel=1e-5)
    held = Held(network, Parseval, strength=1.0, group=2)
    gram = network.linears[0].weight.detach() @ network.linears[0].weight.detach().T
    apart = gram - 2 * torch.eye(4)
    expected = 16**2 * (apart[:2, :2].square().sum() + apart[2:, 2:].square().sum())
    assert held()[0] == pytest.approx(float(expected), rel=1e-5)


# Largest singular values


def test_spectral_by_hand() -> None:
    """W = diag(3, 1): (3^2 - 1)^2 = 64, and a gradient of 96 at its largest entry."""
    network = mlp()
    with torch.no_grad():
        for layer in network.linears:
            layer.bias.zero_()
            layer.weight.copy_(torch.eye(2))
        network.linears[0].weight.copy_(torch.diag(torch.tensor([3.0, 1.0])))
    term, gradients = (held := Held(network, Spectral, strength=1.0))()
    assert term == pytest.approx(64.0)
    expected = torch.tensor([[96.0, 0.0], [0.0, 0.0]])
    torch.testing.assert_close(gradients["linears.0.weight"], expected)
    assert not gradients["linears.1.weight"].any()  # orthogonal
    held.parameters["linears.1.bias"] = torch.tensor([1.0, 2.0])
    assert held()[0] == pytest.approx(64.0 + 25.0)


def test_power_iteration_finds_the_largest_singular_value() -> None:
    network = mlp(6, 3, 5)
    held = Held(network, Spectral, strength=1.0)
    weight = torch.empty(5, 6).normal_(generator=seeded(3))
    assert held.draws == 0
    with torch.no_grad():
        others = [torch.linalg.svdvals(network.linears[1].weight)[0]]
        others += [network.linears[i].bias.norm() for i in (0, 1)]
    largest = torch.linalg.svdvals(weight)[0]
    expected = (largest**2 - 1) ** 2 + (others[0] ** 2 - 1) ** 2 + others[1] ** 4 + others[2] ** 4
    held.parameters["linears.0.weight"] = weight
    first = held()[0]
    for _ in range(60):
        last = held()[0]
    assert abs(first - float(expected)) > 1e-2
    assert last == pytest.approx(float(expected), rel=1e-4)


def test_scales_go_to_1_shifts_to_0_and_a_spread_where_it_likes() -> None:
    held = Held(mlp(layer_norm=True), Spectral, strength=0.5)
    held.parameters["norms.0.weight"] = torch.tensor([3.0, 1.0])
    held.parameters["norms.0.bias"] = torch.tensor([0.0, 4.0])
    gradients = held()[1]
    assert gradients["norms.0.weight"].tolist() == [2.0, 0.0]
    assert gradients["norms.0.bias"].tolist() == [0.0, 4.0]
    of_policy = Held(policy(), Spectral, strength=1.0)()[1]
    assert not of_policy.pop("spread").any()
    assert all(value.any() for value in of_policy.values())
