"""Continual backprop: utilities worked by hand, and what a replacement does and leaves."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from clrl.agents.networks import MLP
from clrl.agents.optim.base import WithAddOns, compose
from clrl.agents.optim.continual_backprop import ContinualBackprop
from clrl.agents.optim.members import Members
from clrl.agents.optim.rule import UpdateRule
from clrl.agents.options import MLPOptions
from clrl.agents.population import Population
from clrl.agents.supervised import regression_loss


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def mlp(widths: tuple[int, ...] = (3,), inputs: int = 2, outputs: int = 2, **options: Any) -> MLP:
    settings = {"widths": widths, "init": "kaiming", **options}
    network = MLP(inputs, outputs, MLPOptions(**settings), seeded())
    with torch.no_grad():  # no bias at 0, so that a reset shows
        for layer in network.linears:
            layer.bias.fill_(0.3)
    return network


W_IN = [[1.0, 0.0], [2.0, 2.0], [0.0, -0.5]]  # mean magnitudes 0.5, 2, 0.25
W_OUT = [[1.0, -2.0, 0.1], [3.0, 0.0, -0.3]]  # mean magnitudes 2, 1, 0.2


def by_hand(**options: Any) -> tuple[MLP, ContinualBackprop]:
    """Three hidden units with known weights, a rule that replaces nothing unless told to."""
    network = mlp()
    with torch.no_grad():
        network.linears[0].weight.copy_(torch.tensor(W_IN))
        network.linears[1].weight.copy_(torch.tensor(W_OUT))
    members = Members.of_module(network, torch.optim.SGD(network.parameters(), 0.1), seeded(5))
    return network, ContinualBackprop(members, **{"replacement_rate": 0.0, **options})


def observe(rule: ContinualBackprop, *batch: list[float]) -> None:
    """One step with these activations, [examples][units]."""
    with torch.no_grad():
        rule.after_step({"layer_1": torch.tensor([list(batch)])})


def state(rule: ContinualBackprop, key: str) -> Tensor:
    return rule.state_dict()["layer_1"][key]  # type: ignore[no-any-return]


# Utility


@pytest.mark.parametrize(("outgoing", "factor"), [("mean", 1), ("sum", 2)])
def test_contribution_by_hand(outgoing: str, factor: int) -> None:
    """y = mean|h| mean_k|w_out|; eta = 0.9; mean|h| is (2, 1, 4), then (0, 1, 0).

    y = (4, 1, 0.8), u = 0.1 y; then y = (0, 1, 0), u = 0.9 u + 0.1 y.
    """
    _, rule = by_hand(utility="contribution", outgoing=outgoing, decay_rate=0.9)
    observe(rule, [1.0, 1.0, -6.0], [3.0, -1.0, 2.0])
    expected = factor * torch.tensor([0.4, 0.1, 0.08])
    torch.testing.assert_close(state(rule, "utility")[0], expected)
    observe(rule, [0.0, 1.0, 0.0])
    expected = factor * torch.tensor([0.36, 0.19, 0.072])
    torch.testing.assert_close(state(rule, "utility")[0], expected)
    assert state(rule, "age").tolist() == [[2, 2, 2]]


def test_running_mean_by_hand() -> None:
    """Signed means (2, 0, -2), then (0, 1, 0), with eta = 0.9: f = 0.09 m1 + 0.1 m2."""
    _, rule = by_hand(decay_rate=0.9)
    observe(rule, [1.0, 1.0, -6.0], [3.0, -1.0, 2.0])
    torch.testing.assert_close(state(rule, "mean")[0, 0], torch.tensor([0.2, 0.0, -0.2]))
    observe(rule, [0.0, 1.0, 0.0])
    torch.testing.assert_close(state(rule, "mean")[0, 0], torch.tensor([0.18, 0.1, -0.18]))


def test_adaptable_contribution_by_hand() -> None:
    """y = mean_k|w_out| mean|h - h_hat| / mean_j|w_in|, h_hat with the batch taken in.

    Step 1: h_hat is the batch mean (2, 0, -2); mean|h - h_hat| = (1, 1, 4).
    y = (2*1/0.5, 1*1/2, 0.2*4/0.25) = (4, 0.5, 3.2); u = 0.1 y.
    Step 2: h = (0, 1, 0); h_hat = (0.18, 0.1, -0.18) / (1 - 0.81).
    """
    _, rule = by_hand(decay_rate=0.9)
    observe(rule, [1.0, 1.0, -6.0], [3.0, -1.0, 2.0])
    first = torch.tensor([0.4, 0.05, 0.32])
    torch.testing.assert_close(state(rule, "utility")[0], first)
    observe(rule, [0.0, 1.0, 0.0])
    away = torch.tensor([0.18 / 0.19, 1 - 0.1 / 0.19, 0.18 / 0.19])
    y = torch.tensor([4.0, 0.5, 0.8]) * away
    torch.testing.assert_close(state(rule, "utility")[0], 0.9 * first + 0.1 * y)


def test_a_constant_unit_has_adaptable_contribution_zero() -> None:
    _, rule = by_hand(decay_rate=0.99)
    for _ in range(50):
        observe(rule, [5.0, 0.0, -2.0])
    assert state(rule, "utility").abs().max() < 1e-4


def test_copies_of_crelu_add_up() -> None:
    """Unit i's features are i and units + i, each with its own outgoing weights."""
    network = mlp((2,), activation="crelu", outputs=1)
    with torch.no_grad():
        network.linears[1].weight.copy_(torch.tensor([[1.0, 2.0, 3.0, 4.0]]))
    members = Members.of_module(network, torch.optim.SGD(network.parameters(), 0.1), seeded())
    rule = ContinualBackprop(members, 0.0, decay_rate=0.0, utility="contribution")
    observe(rule, [10.0, 0.0, 0.0, 1.0], [0.0, 2.0, 2.0, 0.0])
    # unit 0: 5 * 1 + 1 * 3; unit 1: 1 * 2 + 0.5 * 4
    assert state(rule, "utility").tolist() == [[8.0, 4.0]]
    assert state(rule, "mean").tolist() == [[[5.0, 1.0], [1.0, 0.5]]]


# Eligibility and accumulation


def test_eligible_units_are_older_than_the_threshold_and_fractions_add_up() -> None:
    """rho = 0.25 and three units, m = 2: nothing at ages 1 and 2, then 0.75 a step."""
    _, rule = by_hand(replacement_rate=0.25, maturity_threshold=2, utility="contribution")
    due, replaced = [], []
    for _ in range(4):
        observe(rule, [1.0, 1.0, 1.0])
        due.append(state(rule, "due").item())
        replaced.append(state(rule, "replaced").item())
    assert due == pytest.approx([0, 0, 0.75, 0.5])
    assert replaced == [0, 0, 0, 1]
    # Utilities are as the outgoing means 2, 1, 0.2: unit 2 went, and is now too young.
    assert state(rule, "age").tolist() == [[4, 4, 0]]
    observe(rule, [1.0, 1.0, 1.0])  # two eligible: 0.5 + 0.5
    assert state(rule, "due").item() == pytest.approx(0)
    assert state(rule, "replaced").item() == 2
    assert state(rule, "age").tolist() == [[5, 0, 1]]


def test_several_at_once() -> None:
    network, rule = by_hand(replacement_rate=0.7, maturity_threshold=0, utility="contribution")
    observe(rule, [1.0, 1.0, 1.0])  # 2.1 are due: units 2 and 1, of least utility
    assert state(rule, "age").tolist() == [[1, 0, 0]]
    assert state(rule, "due").item() == pytest.approx(0.1)
    assert (network.linears[1].weight[:, 1:] == 0).all()
    assert network.linears[1].weight[:, 0].tolist() == [1.0, 3.0]


def test_everything_at_once() -> None:
    _, rule = by_hand(replacement_rate=1.0, maturity_threshold=0)
    for count in (3, 6, 9):
        observe(rule, [1.0, 1.0, 1.0])
        assert state(rule, "replaced").item() == count
        assert state(rule, "age").tolist() == [[0, 0, 0]]


def test_rank_is_by_the_corrected_utility() -> None:
    """A young unit's u is small, its u_hat is not.

    eta = 0.9. Unit 0 is replaced at step 18; two steps of y = 1 later u = 0.19, u_hat = 1.
    Unit 1 has had y = 0.5 for 20 steps: u = 0.5 (1 - 0.9^20) = 0.439, u_hat = 0.5. So unit 1
    has to go, although unit 0 has the smaller u.
    """
    network, rule = by_hand(maturity_threshold=0, decay_rate=0.9, utility="contribution")
    for _ in range(17):
        observe(rule, [0.1, 0.5, 45.0])
    rule.replacement_rate = 0.34  # of three: one a step
    observe(rule, [0.1, 0.5, 45.0])
    assert state(rule, "age").tolist() == [[0, 18, 18]]
    rule.replacement_rate = 0.0
    with torch.no_grad():
        network.linears[1].weight.copy_(torch.tensor(W_OUT))
    observe(rule, [0.5, 0.5, 45.0])
    rule.replacement_rate = 0.34
    observe(rule, [0.5, 0.5, 45.0])
    assert state(rule, "age").tolist() == [[2, 0, 20]]
    torch.testing.assert_close(
        state(rule, "utility")[0], torch.tensor([0.19, 0.0, 9 * (1 - 0.9**20)])
    )


def test_probabilistic_replacement_below_one_is_a_chance_of_one() -> None:
    """rho = 0.1, three eligible units: 0.3 a step; five standard errors of 600 are 0.094."""
    _, rule = by_hand(
        replacement_rate=0.1, maturity_threshold=0, replacement="probabilistic", decay_rate=0.5
    )
    before, jumps = 0, []
    for _ in range(600):
        observe(rule, [1.0, 2.0, 3.0])
        jumps.append(state(rule, "replaced").item() - before)
        before += jumps[-1]
    assert set(jumps) == {0, 1}
    assert sum(jumps) / 600 == pytest.approx(0.3, abs=0.094)


@pytest.mark.parametrize(("rate", "number"), [(0.4, 1), (0.66, 1), (0.9, 2), (1.0, 3)])
def test_probabilistic_replacement_from_one_on_is_the_whole_part(rate: float, number: int) -> None:
    """int(rate * eligible), as in the official code; the rest is dropped, not drawn."""
    _, rule = by_hand(replacement_rate=rate, maturity_threshold=0, replacement="probabilistic")
    for steps in range(1, 9):
        observe(rule, [1.0, 2.0, 3.0])
        assert state(rule, "replaced").item() == number * steps
        assert state(rule, "due").item() == 0


# What a replacement does


def test_a_replaced_unit_starts_anew_and_nothing_else_changes() -> None:
    network = mlp((4, 5), inputs=20)
    members = Members.of_module(network, torch.optim.SGD(network.parameters(), 0.1), seeded(5))
    rule = ContinualBackprop(members, 0.26, 0, utility="contribution", transfer_bias=False)
    before = {name: p.detach().clone() for name, p in network.named_parameters()}
    first = torch.tensor([[[1.0, 1.0, 0.001, 1.0]]])  # 1.04 due: unit 2
    second = torch.ones(1, 1, 5)  # 1.3 due, of equal activations: the least outgoing weights
    rule.after_step({"layer_1": first, "layer_2": second})
    weakest = int(before["linears.2.weight"].abs().mean(0).argmin())
    after = {name: p.detach() for name, p in network.named_parameters()}
    bound = (6 / 20) ** 0.5  # Kaiming's, for ReLU and 20 inputs
    drawn = after["linears.0.weight"][2]
    assert not torch.isclose(drawn, before["linears.0.weight"][2]).any()
    assert 0.5 * bound < drawn.abs().max() <= bound
    expected = {name: value.clone() for name, value in before.items()}
    expected["linears.0.weight"][2] = drawn
    expected["linears.0.bias"][2] = 0
    expected["linears.1.weight"][:, 2] = 0
    expected["linears.1.weight"][weakest] = after["linears.1.weight"][weakest]
    expected["linears.1.bias"][weakest] = 0
    expected["linears.2.weight"][:, weakest] = 0
    for name, value in after.items():
        assert torch.equal(value, expected[name]), name
    # Its own new incoming weights are drawn whole, the replaced input's column included.
    assert not torch.isclose(
        after["linears.1.weight"][weakest], before["linears.1.weight"][weakest]
    ).any()
    states = rule.state_dict()["layer_1"]
    assert states["age"].tolist() == [[1, 1, 0, 1]]
    assert states["utility"][0, 2] == 0 and states["mean"][0, 0, 2] == 0
    assert (states["mean"][0, 0, [0, 1, 3]] > 0).all()


def test_replaced_weights_are_drawn_from_the_given_generator() -> None:
    drawn = []
    state_before = torch.get_rng_state()
    for seed in (5, 5, 6):
        network = mlp()
        optimizer = torch.optim.SGD(network.parameters(), 0.1)
        rule = ContinualBackprop(Members.of_module(network, optimizer, seeded(seed)), 1.0, 0)
        observe(rule, [1.0, 2.0, 3.0])
        drawn.append(network.linears[0].weight.detach())
    assert torch.equal(drawn[0], drawn[1]) and not torch.equal(drawn[0], drawn[2])
    assert torch.equal(torch.get_rng_state(), state_before)


@pytest.mark.parametrize("activation", ["tanh", "crelu"])
@pytest.mark.parametrize("transfer", [True, False])
def test_bias_transfer_keeps_the_mean_output(transfer: bool, activation: str) -> None:
    """w_out h_hat goes to the next bias, for one unit or several, of all its copies.

    With the same batch at every step h_hat is the batch mean, so the mean output over that
    batch stays what it was to the last digits; without the transfer it moves.
    """
    network = mlp((6,), inputs=3, activation=activation)
    members = Members.of_module(network, torch.optim.SGD(network.parameters(), 0.1), seeded())
    rule = ContinualBackprop(members, 0.0, 5, transfer_bias=transfer)
    x = torch.empty(50, 3).normal_(generator=seeded(1))

    def output() -> tuple[Tensor, Tensor]:
        h = network.activations[0](network.linears[0](x))
        return h.unsqueeze(0), network.linears[1](h).mean(0)

    with torch.no_grad():
        features, before = output()
        for _ in range(6):
            rule.after_step({"layer_1": features})
        torch.testing.assert_close(output()[1], before, rtol=0, atol=0)
        rule.replacement_rate = 0.5  # three of six
        rule.after_step({"layer_1": features})
        assert state(rule, "replaced").item() == 3
        moved = (output()[1] - before).abs().max()
    assert moved < 1e-5 if transfer else moved > 1e-2


def test_layer_norm_starts_anew_for_the_unit() -> None:
    network = mlp((4,), layer_norm=True)
    with torch.no_grad():
        network.norms[0].weight.fill_(3.0)
        network.norms[0].bias.fill_(2.0)
    members = Members.of_module(network, torch.optim.SGD(network.parameters(), 0.1), seeded())
    observe(ContinualBackprop(members, 0.25, 0, utility="contribution"), [1.0, 1.0, 0.0, 1.0])
    assert network.norms[0].weight.tolist() == [3, 3, 1, 3]
    assert network.norms[0].bias.tolist() == [2, 2, 0, 2]


# The optimizer's state


def train(
    network: MLP, optimizer: torch.optim.Optimizer, steps: int = 1, salt: int = 0
) -> list[Tensor]:
    losses = []
    generator = seeded(salt)
    for _ in range(steps):
        x = torch.empty(8, network.linears[0].in_features).normal_(generator=generator)
        y = torch.empty(8, network.linears[-1].out_features).normal_(generator=generator)
        optimizer.zero_grad()
        loss = nn.functional.mse_loss(network(x), y)
        loss.backward()
        optimizer.step()
        losses.append(loss.detach())
    return losses


def adam(network: MLP) -> torch.optim.Optimizer:
    return torch.optim.Adam(network.parameters(), 0.01)


def momentum(network: MLP) -> torch.optim.Optimizer:
    return torch.optim.SGD(network.parameters(), 0.01, momentum=0.9)


def composed(
    network: MLP, base: Callable[[MLP], torch.optim.Optimizer], **options: Any
) -> tuple[WithAddOns, ContinualBackprop]:
    optimizer = compose(
        network, base(network), [lambda members: ContinualBackprop(members, **options)], seeded()
    )
    (addon,) = optimizer.chain.addons
    assert isinstance(addon, ContinualBackprop)
    return optimizer, addon


@pytest.mark.parametrize("base", [adam, momentum])
@pytest.mark.parametrize("reset", [True, False])
def test_optimizer_state_of_the_replaced_weights_goes_to_zero(
    base: Callable[[MLP], torch.optim.Optimizer], reset: bool
) -> None:
    """Rows of the incoming weight and bias, columns of the outgoing; nothing else."""
    one = mlp((6, 5), inputs=4, activation="tanh", layer_norm=True)
    two = mlp((6, 5), inputs=4, activation="tanh", layer_norm=True)
    optimizer, addon = composed(
        one, base, replacement_rate=0.2, maturity_threshold=2, reset_optimizer=reset
    )
    plain = base(two)
    train(one, optimizer, 3)
    train(two, plain, 3)  # the same steps, with nothing replaced
    ages = [addon.state_dict()[f"layer_{i}"]["age"][0] for i in (1, 2)]
    first, second = (int((age == 0).nonzero()) for age in ages)
    zeroed = {
        "linears.0.weight": (first,),
        "linears.0.bias": (first,),
        "norms.0.weight": (first,),
        "norms.0.bias": (first,),
        "linears.1.weight": (slice(None), first),
        "linears.1.bias": (second,),
        "norms.1.weight": (second,),
        "norms.1.bias": (second,),
        "linears.2.weight": (slice(None), second),
        "linears.2.bias": (),
    }
    others = dict(two.named_parameters())
    for name, parameter in one.named_parameters():
        expected = plain.state[others[name]]
        for key, value in optimizer.state[parameter].items():
            wanted = expected[key].clone()
            if reset and key != "step" and zeroed[name]:
                wanted[zeroed[name]] = 0
                if name == "linears.1.weight":
                    wanted[second] = 0
            assert torch.equal(value, wanted), (name, key)
            if key != "step":
                assert expected[key].count_nonzero() == expected[key].numel()


@pytest.mark.parametrize("base", [torch.optim.Adam, torch.optim.RMSprop])
def test_state_of_stacked_learners_is_reset_for_the_right_member(
    base: type[torch.optim.Optimizer],
) -> None:
    """Two members with ages that differ: the mature one alone is touched."""
    networks = [mlp((6,), inputs=4) for _ in range(2)]
    rule = UpdateRule(
        base,
        {"lr": 0.01},
        [(ContinualBackprop, {"replacement_rate": 0.2, "maturity_threshold": 9})],
    )
    members = Population(networks, regression_loss, rule, [seeded(0), seeded(1)], chunk_size=2)
    x = torch.empty(2, 3, 8, 4).normal_(generator=seeded(3))
    y = torch.empty(2, 3, 8, 2).normal_(generator=seeded(4))
    members.learn(x, y)
    (chunk,) = members._chunks
    (addon,) = chunk.optimizer.addons
    addon.state_dict()["layer_1"]["age"][1] = 50
    members.learn(x[:, :1], y[:, :1])
    age = addon.state_dict()["layer_1"]["age"]
    assert age[0].tolist() == [4] * 6
    unit = int((age[1] == 0).nonzero())
    (state,) = chunk.optimizer.base.state.values()
    since = state.pop("since", None)
    moments = [v for v in state.values() if isinstance(v, Tensor) and v.shape == members.rows.shape]
    assert moments
    for moment in moments:
        # Row layout: 6 x 4 weights, 6 biases, 2 x 6 weights, 2 biases.
        expected = torch.zeros(44, dtype=torch.bool)
        expected[4 * unit : 4 * unit + 4] = True
        expected[24 + unit] = True
        expected[[30 + unit, 36 + unit]] = True
        gone = moment[1, :44] == 0
        if since is not None:
            assert torch.equal(since[1, :44], 4.0 * expected) and not since[0].any()
        assert (gone | ~expected).all()
        alive = members.gradients[1, :44] != 0  # ReLU leaves some weights without gradient
        assert not (gone & alive & ~expected).any()
        assert not (moment[0, :44][members.gradients[0, :44] != 0] == 0).any()


# As a whole


def test_a_unit_killed_on_purpose_comes_back() -> None:
    network = mlp((8,), inputs=4)
    with torch.no_grad():
        network.linears[0].bias[3] = -100.0
    probe = torch.empty(200, 4).normal_(generator=seeded(9))

    def active() -> Tensor:
        return (network.activations[0](network.linears[0](probe)) > 0).float().mean(0).detach()

    assert active()[3] == 0
    # One in 5 steps from step 10 on: the dead unit is the first to go.
    optimizer, addon = composed(
        network,
        lambda net: torch.optim.SGD(net.parameters(), 0.01),
        replacement_rate=1 / 39,
        maturity_threshold=10,
    )
    train(network, optimizer, 10)
    assert active()[3] == 0
    train(network, optimizer, 5, salt=1)
    assert addon.state_dict()["layer_1"]["replaced"].item() == 1
    assert addon.state_dict()["layer_1"]["age"][0, 3] == 0
    assert network.linears[0].bias[3] == 0 and (network.linears[1].weight[:, 3] == 0).all()
    assert 0.1 < active()[3] < 0.9
    train(network, optimizer, 3, salt=2)
    assert (network.linears[1].weight[:, 3] != 0).all()  # and it learns


def test_it_works_while_training_and_reads_no_other_forward_pass() -> None:
    """Activations are those of the last pass with gradients: a look without them is no batch."""
    one, two = mlp((5,), inputs=4), mlp((5,), inputs=4)
    options: dict[str, Any] = {"replacement_rate": 0.1, "maturity_threshold": 2}
    first, rule = composed(one, adam, **options)
    second, other = composed(two, adam, **options)
    for salt in range(10):
        train(one, first, 1, salt)
        with torch.no_grad():
            two(torch.ones(3, 4))
        train(two, second, 1, salt)
    for a, b in zip(one.parameters(), two.parameters(), strict=True):
        assert torch.equal(a, b)
    assert rule.state_dict()["layer_1"]["replaced"].item() >= 2
    assert torch.equal(
        rule.state_dict()["layer_1"]["utility"], other.state_dict()["layer_1"]["utility"]
    )


def test_members_are_replaced_on_their_own() -> None:
    """A member with a dead unit of its own beside one without: each as if alone."""

    def networks() -> list[MLP]:
        made = [mlp((6,), inputs=4), mlp((6,), inputs=4), mlp((6,), inputs=4)]
        with torch.no_grad():
            made[1].linears[0].bias[2] = -100.0
            made[2].linears[0].weight.mul_(1000.0)
        return made

    settings = {"replacement_rate": 0.1, "maturity_threshold": 3, "utility": "contribution"}
    rule = UpdateRule(torch.optim.Adam, {"lr": 0.01}, [(ContinualBackprop, settings)])
    x = torch.empty(3, 12, 2, 4).normal_(generator=seeded(3))
    y = torch.empty(3, 12, 2, 2).normal_(generator=seeded(4))
    together = Population(networks(), regression_loss, rule, list(map(seeded, range(3))), 3)
    together.learn(x, y)
    replaced = []
    for m in range(3):
        alone = Population(networks()[m : m + 1], regression_loss, rule, [seeded(m)])
        alone.learn(x[m : m + 1], y[m : m + 1])
        assert torch.equal(alone.rows[0], together.rows[m])
        (addon,) = alone._chunks[0].optimizer.addons
        replaced.append(addon.state_dict()["layer_1"]["replaced"].item())
    (addon,) = together._chunks[0].optimizer.addons
    assert addon.state_dict()["layer_1"]["replaced"].tolist() == replaced
    assert min(replaced) >= 2
