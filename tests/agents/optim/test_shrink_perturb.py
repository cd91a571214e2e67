"""Shrink and perturb in its four printed forms."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import gymnasium as gym
import pytest
import torch
from torch import Tensor

from clrl.agents.actions import actions_of
from clrl.agents.networks import MLP
from clrl.agents.optim.base import WithAddOns, compose
from clrl.agents.optim.rule import UpdateRule
from clrl.agents.optim.shrink_perturb import ShrinkAndPerturb
from clrl.agents.optim.upgd import UPGD
from clrl.agents.options import MLPOptions
from clrl.agents.population import Population
from clrl.agents.ppo.actor_critic import ActorCritic
from clrl.agents.supervised import regression_loss


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def network(**options: Any) -> MLP:
    return MLP(50, 10, MLPOptions(**{"widths": (100,), **options}), seeded())


Base = Callable[..., torch.optim.Optimizer]


def make(net: MLP, base: Base = torch.optim.SGD, seed: int = 7, **options: Any) -> WithAddOns:
    settings = {key: options.pop(key) for key in ("lr", "weight_decay") if key in options}
    optimizer = base(net.parameters(), **{"lr": 0.1, **settings})
    addon = [lambda members: ShrinkAndPerturb(members, **options)]
    return compose(net, optimizer, addon, seeded(seed))


def step(net: MLP, optimizer: WithAddOns, gradient: float | None = None) -> None:
    """One step, all gradients being one number, or some numbers of their own."""
    generator = seeded(99)
    for p in net.parameters():
        drawn = torch.empty_like(p).normal_(generator=generator)
        p.grad = drawn if gradient is None else torch.full_like(p, gradient)
    optimizer.step()


def values(net: MLP) -> Tensor:
    return torch.cat([p.detach().flatten() for p in net.parameters()])


def assert_normal(noise: Tensor, scale: float) -> None:
    """6,110 numbers: five standard errors are 0.064 of the mean, 4.5% of the spread."""
    noise = noise.double()
    assert abs(float(noise.mean())) < 0.064 * scale
    assert float(noise.std()) == pytest.approx(scale, rel=0.045)
    assert float((noise.abs() < scale).double().mean()) == pytest.approx(0.6827, abs=0.03)


def test_dohare_adds_noise_that_the_step_size_does_not_scale() -> None:
    """w <- w - lr (g + decay w) + N(0, scale^2), for weights and biases."""
    net = network()
    optimizer = make(net, lr=0.1, weight_decay=0.5, noise_scale=0.02)
    before = values(net)
    step(net, optimizer, gradient=2.0)
    noise = values(net) - (before - 0.1 * (2.0 + 0.5 * before))
    assert_normal(noise, 0.02)
    bias = net.linears[0].bias.detach()
    assert bias.unique().numel() == bias.numel()


def test_noise_differs_from_step_to_step() -> None:
    net = network()
    optimizer = make(net, lr=0.0, noise_scale=1.0)
    drawn = []
    for _ in range(2):
        before = values(net)
        step(net, optimizer)
        drawn.append(values(net) - before)
    assert abs(float((drawn[0] * drawn[1]).mean())) < 0.064


def test_elsayeds_form_is_noise_on_the_gradient() -> None:
    """w <- (1 - lr decay) w - lr (g + xi): the noise has standard deviation lr sigma."""
    net = network()
    optimizer = make(net, lr=0.1, weight_decay=0.5, noise_scale=0.4, scale_by_lr=True)
    before = values(net)
    step(net, optimizer, gradient=2.0)
    noise = values(net) - ((1 - 0.1 * 0.5) * before - 0.1 * 2.0)
    assert_normal(noise, 0.1 * 0.4)


def test_elsayeds_form_is_upgd_without_a_gate() -> None:
    """The same numbers drawn, with the other sign: two steps of (w_sp + w_upgd) / 2 are SGD's."""
    one, two, three = network(), network(), network()
    sp = make(one, lr=0.1, weight_decay=0.5, noise_scale=0.4, scale_by_lr=True)
    upgd = UPGD(
        two.parameters(), lr=0.1, sigma=0.4, weight_decay=0.5, gate="none", generator=seeded(7)
    )
    sgd = torch.optim.SGD(three.parameters(), lr=0.1, weight_decay=0.5)
    step(one, sp)
    for net, optimizer in ((two, upgd), (three, sgd)):
        step(net, optimizer)  # type: ignore[arg-type]
    middle = (values(one) + values(two)) / 2
    torch.testing.assert_close(middle, values(three), rtol=1e-5, atol=1e-6)
    assert_normal(values(two) - values(three), 0.04)


def test_the_current_step_size_counts() -> None:
    net = network()
    optimizer = make(net, lr=0.1, noise_scale=0.4, scale_by_lr=True)
    optimizer.param_groups[0]["lr"] = 0.01
    before = values(net)
    step(net, optimizer, gradient=0.0)
    assert_normal(values(net) - before, 0.004)


def test_ash_and_adams_every_so_many_steps() -> None:
    """w <- 0.6 w + N(0, 0.01^2) after steps 3, 6, ... and plain SGD between."""
    net = network()
    optimizer = make(net, lr=0.1, shrink=0.6, noise_scale=0.01, every=3)
    for number in range(1, 8):
        before = values(net)
        step(net, optimizer, gradient=0.5)
        after = before - 0.05
        if number % 3:
            torch.testing.assert_close(values(net), after, rtol=0, atol=1e-7)
        else:
            assert_normal(values(net) - 0.6 * after, 0.01)


def test_soft_shrink_and_perturb_mixes_in_a_fresh_draw() -> None:
    """w <- 0.9 w + 0.1 w_fresh: weights within the initialiser's bounds stay there."""
    net = network(init="kaiming")
    optimizer = make(net, lr=0.0, shrink=0.9, noise_scale=0.1, noise="initializer")
    before = {name: p.detach().clone() for name, p in net.named_parameters()}
    step(net, optimizer)
    for name, p in net.named_parameters():
        fresh = ((p.detach() - 0.9 * before[name]) / 0.1).double()
        if name.endswith("bias"):  # the initialiser's biases are 0
            assert (fresh.abs() < 1e-6).all()
            continue
        # hidden: sqrt(2) sqrt(3 / 50); output: sqrt(3 / 100)
        bound = 0.3464102 if name.startswith("linears.0") else 0.1732051
        assert 0.98 * bound < fresh.abs().max() < bound + 1e-5
        assert float(fresh.std()) == pytest.approx(bound / 3**0.5, rel=0.07)
        assert abs(float((fresh * before[name]).mean())) < 0.1 * bound**2


def test_soft_shrink_and_perturb_keeps_layer_norm_where_it_starts() -> None:
    net = network(layer_norm=True)
    optimizer = make(net, lr=0.0, shrink=0.999999, noise_scale=1e-6, noise="initializer")
    for _ in range(5):
        step(net, optimizer)
    torch.testing.assert_close(net.norms[0].weight.detach(), torch.ones(100), rtol=0, atol=1e-6)
    assert torch.equal(net.norms[0].bias.detach(), torch.zeros(100))


def test_nothing_to_do_leaves_the_base_as_it_is() -> None:
    one, two = network(), network()
    quiet = make(one, torch.optim.Adam, noise_scale=0.0)
    plain = torch.optim.Adam(two.parameters(), lr=0.1)
    for _ in range(3):
        step(one, quiet)
        step(two, plain)  # type: ignore[arg-type]
    assert torch.equal(values(one), values(two))


@pytest.mark.parametrize("noise", ["normal", "initializer"])
def test_noise_comes_from_the_given_generator(noise: str) -> None:
    state = torch.get_rng_state()
    results = []
    for seed in (7, 7, 8):
        net = network()
        step(net, make(net, seed=seed, noise_scale=0.1, noise=noise))
        results.append(values(net))
    assert torch.equal(results[0], results[1])
    assert not torch.equal(results[0], results[2])
    assert torch.equal(torch.get_rng_state(), state)


def test_the_count_of_steps_is_state() -> None:
    one, two = network(), network()
    first, second = make(one, shrink=0.5, every=3), make(two, shrink=0.5, every=3)
    step(one, first)
    step(one, first)
    second.load_state_dict(first.state_dict())
    two.load_state_dict(one.state_dict())
    before = values(two)
    step(two, second, gradient=0.0)
    torch.testing.assert_close(values(two), 0.5 * before, rtol=0, atol=0.01)


def test_at_changes_members_are_mixed_with_new_ones_and_others_are_not() -> None:
    """Halves of the old and of a fresh draw (Juliani & Ash), of the member that is told."""
    options = {"when": "change", "shrink": 0.5, "noise_scale": 0.5, "noise": "initializer"}
    rule = UpdateRule(torch.optim.SGD, {"lr": 0.0}, [(ShrinkAndPerturb, options)])
    assert rule.needs_changes
    assert not UpdateRule(torch.optim.SGD, {}, [(ShrinkAndPerturb, {})]).needs_changes
    nets = [network(), network()]
    members = Population(nets, regression_loss, rule, [seeded(3), seeded(4)])
    x, y = torch.zeros(2, 1, 4, 50), torch.zeros(2, 1, 4, 10)
    members.learn(x, y)
    before = members.rows.clone()
    members.change([1])
    members.learn(x, y)
    assert torch.equal(members.rows[0], before[0])
    draws = seeded(4)
    for name, value in members.parameters().items():
        fresh = nets[1].fresh(name, draws)
        expected = 0.5 * members.views_of(before)[name][1] + 0.5 * fresh
        torch.testing.assert_close(value[1], expected)
    weight = members.parameters()["linears.0.weight"][1]
    assert float(weight.std() / _spread(50)) == pytest.approx(0.5**0.5, abs=0.05)


def _spread(inputs: int) -> float:
    """Of torch's initialiser: a uniform distribution's, up to 1 / sqrt(inputs)."""
    return float(inputs**-0.5 / 3**0.5)


def test_heads_alone_are_drawn_anew() -> None:
    """Shrunk to nothing and drawn: as the initialiser has them, and not as unit noise has."""
    net = network(init="torch")
    options = {"shrink": 0.0, "noise_scale": 1.0, "noise": "initializer", "part": "heads"}
    optimizer = make(net, lr=0.0, **options)
    before = {name: value.detach().clone() for name, value in net.named_parameters()}
    step(net, optimizer, gradient=0.0)
    for name, value in net.named_parameters():
        assert torch.equal(value, before[name]) != name.startswith("linears.1"), name
    head = net.linears[1].weight.detach()
    assert float(head.std() / _spread(100)) == pytest.approx(1.0, abs=0.05)
    assert float(head.abs().max()) <= 0.1


def test_both_heads_are_heads() -> None:
    actions = actions_of(gym.spaces.Discrete(3))

    def part(inputs: int, outputs: int, generator: torch.Generator, gain: float) -> MLP:
        return MLP(inputs, outputs, MLPOptions(widths=(9,)), generator, gain)

    net = ActorCritic(4, actions, part, False, 0.0, seeded())
    before = {name: value.detach().clone() for name, value in net.named_parameters()}
    base = torch.optim.SGD(net.parameters(), 0.0)
    optimizer = compose(net, base, [lambda m: ShrinkAndPerturb(m, part="heads")], seeded())
    for value in net.parameters():
        value.grad = torch.zeros_like(value)
    optimizer.step()
    for name, value in net.named_parameters():
        assert torch.equal(value, before[name]) == (".linears.0." in name), name
