"""Compiled updates and decisions: against autograd in double precision, and against themselves."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch
from gymnasium import spaces
from torch import Tensor

from clrl.agents.actions import Actions, actions_of
from clrl.agents.engine.build import library
from clrl.agents.engine.plan import LossPlan
from clrl.agents.networks import MLP
from clrl.agents.optim.continual_backprop import ContinualBackprop
from clrl.agents.optim.rule import UpdateRule
from clrl.agents.optim.shrink_perturb import ShrinkAndPerturb
from clrl.agents.optim.upgd import UPGD
from clrl.agents.options import MLPOptions, PPOOptions, SupervisedOptions
from clrl.agents.penalties.l2_init import L2Init
from clrl.agents.population import Population
from clrl.agents.ppo.actor_critic import ActorCritic
from clrl.agents.ppo.loss import make_loss, make_plan
from clrl.agents.supervised import Supervised, classification_loss, regression_loss
from clrl.errors import UsageError

pytestmark = pytest.mark.skipif(library()[0] is None, reason=f"no compiled code: {library()[1]}")

SGD = UpdateRule(torch.optim.SGD, {"lr": 0.1})
ADAM = UpdateRule(torch.optim.Adam, {"lr": 0.01})
PLANS = {
    "classification": (classification_loss, LossPlan("classification", ("loss", "accuracy"))),
    "regression": (regression_loss, LossPlan("regression", ("loss",))),
}


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def mlp(inputs: int, outputs: int, seed: int, **options: Any) -> MLP:
    return MLP(inputs, outputs, MLPOptions(**options), seeded(seed))


def supervised_batch(kind: str, lead: Sequence[int], inputs: int, outputs: int) -> list[Tensor]:
    x = torch.randn(*lead, inputs, generator=seeded(1))
    if kind == "regression":
        return [x, torch.randn(*lead, outputs, generator=seeded(2))]
    return [x, torch.randint(outputs, lead, generator=seeded(2))]


def supervised(kind: str, rule: UpdateRule, networks: Sequence[MLP], **more: Any) -> Population:
    loss, plan = PLANS[kind]
    generators = [seeded(i) for i in range(len(networks))]
    return Population(networks, loss, rule, generators, plan=plan, engine="compiled", **more)


def close(got: Tensor, expected: Tensor, bound: float = 2e-6) -> None:
    """To rounding: differences are small against the largest of the numbers."""
    scale = float(expected.abs().max()) + 0.1
    assert float((got.double() - expected.double()).abs().max()) <= bound * scale


@pytest.mark.parametrize("kind", ["classification", "regression"])
@pytest.mark.parametrize(
    ("batch", "inputs", "widths", "outputs", "activation"),
    [
        (1, 784, (300, 150), 10, "relu"),
        (2, 17, (33, 1), 3, "leaky-relu"),
        (3, 5, (7,), 2, "tanh"),
        (4, 1, (16, 15, 17), 5, "sigmoid"),
        (5, 64, (64, 64), 4, "tanh"),
        (16, 3, (513,), 2, "relu"),
        (31, 100, (2, 90), 11, "sigmoid"),
        (64, 33, (48, 49), 6, "leaky-relu"),
        (129, 8, (12, 13, 14), 1, "tanh"),
        (7, 20, (), 3, "relu"),
    ],
)
def test_gradients_are_autograds(
    kind: str, batch: int, inputs: int, widths: tuple[int, ...], outputs: int, activation: str
) -> None:
    networks = [mlp(inputs, outputs, i, widths=widths, activation=activation) for i in range(2)]
    population = supervised(kind, UpdateRule(torch.optim.SGD, {"lr": 0.0}), networks)
    given = supervised_batch(kind, (2, 1, batch), inputs, outputs)
    results = population.learn(*given)
    loss_of = PLANS[kind][0]
    for i, network in enumerate(networks):
        exact = copy.deepcopy(network).double()
        own = [
            value[i, 0].double() if value.is_floating_point() else value[i, 0] for value in given
        ]
        loss, named = loss_of(exact, *own)
        loss.backward()
        close(results["loss"][i, 0], loss.detach())
        for name, value in named.items():
            assert float(results[name][i, 0]) == pytest.approx(float(value), abs=1e-6)
        for name, view in population.gradient_views().items():
            gradient = exact.get_parameter(name).grad
            assert gradient is not None
            close(view[i], gradient)


SPACES = {
    "discrete": spaces.Discrete(3),
    "multi-discrete": spaces.MultiDiscrete([3, 2]),
    "continuous": spaces.Box(-1.0, 1.0, (2,), np.float32),
}


def acting(space: str, shared: bool, **options: Any) -> tuple[Actions, PPOOptions, list[Any]]:
    actions = actions_of(SPACES[space])

    def make(inputs: int, outputs: int, generator: torch.Generator, gain: float) -> MLP:
        return MLP(inputs, outputs, MLPOptions(widths=(24, 20), activation="tanh"), generator, gain)

    networks = [ActorCritic(6, actions, make, shared, -0.5, seeded(i)) for i in range(2)]
    return actions, PPOOptions(**options), networks


def experience(actions: Actions, lead: tuple[int, ...]) -> list[Tensor]:
    source = seeded(5)

    def normal(*more: int) -> Tensor:
        return torch.randn(*lead, *more, generator=source)

    sizes = getattr(actions, "sizes", None)
    taken = normal(actions.width)
    if sizes is not None:
        each = [torch.randint(n, (*lead, 1), generator=source) for n in sizes]
        taken = torch.cat(each, dim=-1).float()
    weights = (torch.rand(lead, generator=source) > 0.2).float()
    old = -1.2 * actions.width + 0.3 * normal()
    return [normal(6), taken, old, normal(), normal() + 0.5, normal(), weights]


@pytest.mark.parametrize("batch", [3, 32, 50])
@pytest.mark.parametrize(
    ("space", "shared", "options"),
    [
        ("discrete", False, {}),
        ("discrete", True, {"value_clip": "max", "value_clip_range": 0.3}),
        ("multi-discrete", False, {"entropy_coefficient": 0.1, "normalize_advantages": "none"}),
        ("continuous", False, {"entropy_coefficient": 0.1, "value_clip": "sb3"}),
        ("continuous", True, {"normalize_advantages": "batch", "value_coefficient": 0.3}),
    ],
)
def test_ppos_gradients_are_autograds(
    batch: int, space: str, shared: bool, options: dict[str, Any]
) -> None:
    actions, settings, networks = acting(space, shared, **options)
    loss = make_loss(actions, settings)
    population = Population(
        networks,
        loss,
        UpdateRule(torch.optim.SGD, {"lr": 0.0}),
        [seeded(0), seeded(1)],
        max_grad_norm=0.5,
        plan=make_plan(actions, settings),
        engine="compiled",
    )
    given = experience(actions, (2, 1, batch))
    results = population.learn(*given)
    for i, network in enumerate(networks):
        exact = copy.deepcopy(network).double()
        expected, named = loss(exact, *(value[i, 0].double() for value in given))
        expected.backward()
        for name, value in {"loss": expected, **named}.items():
            known = pytest.approx(float(value.detach()), rel=1e-5, abs=1e-5)
            assert float(results[name][i, 0]) == known
        gradients = {name: own.grad for name, own in exact.named_parameters()}
        norm = sum(float((own * own).sum()) for own in gradients.values() if own is not None) ** 0.5
        assert float(results["grad_norm"][i, 0]) == pytest.approx(norm, rel=1e-5)
        for name, view in population.gradient_views().items():
            own = gradients[name]
            assert own is not None
            close(view[i], own, 1e-5)
        bounded = float(population.gradients[i].double().norm())
        assert bounded == pytest.approx(min(norm, 0.5), rel=1e-5)


@pytest.mark.parametrize(
    ("base", "options"),
    [
        (torch.optim.SGD, {"lr": 0.1}),
        (torch.optim.SGD, {"lr": 0.1, "weight_decay": 0.3}),
        (torch.optim.Adam, {"lr": 0.01}),
        (torch.optim.Adam, {"lr": 0.01, "weight_decay": 0.3, "betas": (0.5, 0.7), "eps": 1e-3}),
        (torch.optim.AdamW, {"lr": 0.01, "weight_decay": 0.3}),
    ],
)
@pytest.mark.parametrize("bound", [0.0, 0.01])
def test_steps_are_torchs(base: Any, options: dict[str, Any], bound: float) -> None:
    """Each on the gradients that were there, over ten updates; in double precision."""
    network = mlp(9, 3, 0, widths=(30, 21))
    rule = UpdateRule(base, options)
    population = supervised("regression", rule, [network], max_grad_norm=bound)
    exact = population.rows[0].double().requires_grad_()
    optimizer = base([exact], **options)
    for update in range(10):
        x = torch.randn(1, 1, 8, 9, generator=seeded(update))
        population.learn(x, x[..., :3])
        exact.grad = population.gradients[0].double()
        optimizer.step()
        close(population.rows[0], exact.detach(), 1e-6)
        with torch.no_grad():
            exact.copy_(population.rows[0])


@pytest.mark.parametrize("bound", [0.0, 0.05])
@pytest.mark.parametrize("gate", ["update", "noise", "none"])
@pytest.mark.parametrize("utility_max", ["corrected", "raw"])
def test_upgds_steps_without_noise_are_its_classs(
    bound: float, gate: str, utility_max: str
) -> None:
    options = {"lr": 0.05, "sigma": 0.0, "beta_utility": 0.9, "weight_decay": 0.1}
    rule = UpdateRule(UPGD, {**options, "gate": gate, "utility_max": utility_max})
    networks = [mlp(9, 3, i, widths=(30, 21)) for i in range(2)]
    loss, plan = PLANS["classification"]
    x, y = supervised_batch("classification", (2, 25, 4), 9, 3)

    def rows(engine: Any) -> Tensor:
        generators = [seeded(0), seeded(1)]
        population = Population(
            networks, loss, rule, generators, max_grad_norm=bound, plan=plan, engine=engine
        )
        population.learn(x, y)
        return population.rows

    close(rows("compiled"), rows("replay"), 1e-5)


def test_upgds_noise_is_normal_and_its_own() -> None:
    def noise(updates: int, seed: int = 0) -> Tensor:
        """What updates add to the weights beside the gradients, in deviations."""
        moved = []
        for sigma in (0.5, 0.0):
            options = {"lr": 0.01, "sigma": sigma, "weight_decay": 0.0, "gate": "none"}
            loss, plan = PLANS["regression"]
            population = Population(
                [mlp(400, 1, 0, widths=(500,), init="lecun")], loss, UpdateRule(UPGD, options),
                [seeded(seed)], plan=plan, engine="compiled",
            )  # fmt: skip
            flat = torch.zeros(1, updates, 1, 400)  # whose gradients are the output's bias alone
            before = population.rows.clone()
            population.learn(flat, torch.zeros(1, updates, 1, 1))
            moved.append((population.rows - before)[0, :200_000] / 0.005)
        return (moved[0] - moved[1]).double()

    drawn = noise(1)
    assert float(drawn.mean()) == pytest.approx(0, abs=0.01)
    assert float(drawn.var()) == pytest.approx(1, abs=0.015)
    assert float((drawn**3).mean()) == pytest.approx(0, abs=0.04)
    assert float((drawn**4).mean()) == pytest.approx(3, abs=0.1)
    for bound, share in ((0.5, 0.6915), (1.0, 0.8413), (2.0, 0.9772), (3.0, 0.99865)):
        assert float((drawn < bound).double().mean()) == pytest.approx(share, abs=0.005)
        assert float((drawn > -bound).double().mean()) == pytest.approx(share, abs=0.005)
    assert 3.9 < float(drawn.abs().max()) < 6
    for lag in (1, 8, 16, 32, 400):
        assert abs(float((drawn[lag:] * drawn[:-lag]).mean())) < 0.012
        assert abs(float((drawn[lag:] ** 2 * drawn[:-lag] ** 2).mean() - 1)) < 0.03
    second = noise(2) - drawn
    assert float(second.var()) == pytest.approx(1, abs=0.015)
    assert abs(float((second * drawn).mean())) < 0.012
    other = noise(1, seed=1)
    assert abs(float((other * drawn).mean())) < 0.012


def test_several_updates_at_once_are_one_after_another() -> None:
    for rule in (SGD, ADAM, UpdateRule(UPGD, {"lr": 0.01, "sigma": 0.1})):
        networks = [mlp(40, 3, i, widths=(500, 40)) for i in range(2)]
        one, other = (supervised("classification", rule, networks) for _ in range(2))
        x, y = supervised_batch("classification", (2, 6, 8), 40, 3)
        whole = one.learn(x, y)
        each = [other.learn(x[:, u : u + 1], y[:, u : u + 1]) for u in range(6)]
        assert torch.equal(whole["loss"], torch.cat([part["loss"] for part in each], dim=1))
        assert torch.equal(one.rows, other.rows)
        assert torch.equal(one.gradients, other.gradients)


@pytest.mark.parametrize("batch", [1, 2, 16])
@pytest.mark.parametrize("kind", ["adam", "adam, then an add-on", "upgd"])
def test_a_member_is_itself_alone_and_goes_on_as_it_was(batch: int, kind: str) -> None:
    """Bit for bit, however members are divided; with an update rule that is not compiled, too."""
    addons = ((ShrinkAndPerturb, {"shrink": 0.9, "noise": 0.01}),) if "add-on" in kind else ()
    rule = UpdateRule(UPGD if kind == "upgd" else torch.optim.Adam, {"lr": 0.01}, addons)
    x, y = supervised_batch("classification", (5, 12, batch), 30, 4)

    def make(members: Sequence[int], chunk_size: int | None = None) -> Population:
        loss, plan = PLANS["classification"]
        networks = [mlp(30, 4, i, widths=(50, 20)) for i in members]
        generators = [seeded(i) for i in members]
        return Population(
            networks, loss, rule, generators, chunk_size, plan=plan, engine="compiled"
        )

    among = make(range(5))
    among.learn(x, y)
    for members, size in (([3], None), ([0, 3], 1), ([4, 2, 3], 2)):
        part = make(members, size)
        part.learn(x[members, :7], y[members, :7])
        resumed = make(members)
        resumed.load_state_dict(copy.deepcopy(part.state_dict()))
        resumed.learn(x[members, 7:], y[members, 7:])
        assert torch.equal(resumed.rows, among.rows[members])


@pytest.mark.parametrize("base", [torch.optim.Adam, torch.optim.AdamW])
def test_weights_that_start_anew_count_their_own_steps(base: Any) -> None:
    """As the optimizer by torch's operations has it, which other tests hold to a fresh Adam."""
    resets = (ContinualBackprop, {"replacement_rate": 0.05, "maturity_threshold": 3})
    rule = UpdateRule(base, {"lr": 0.01, "weight_decay": 0.1}, (resets,))
    x, y = supervised_batch("regression", (3, 60, 8), 10, 2)
    loss, plan = PLANS["regression"]

    def rows(engine: Any) -> Tensor:
        networks = [mlp(10, 2, i, widths=(40, 30)) for i in range(3)]
        generators = [seeded(i) for i in range(3)]
        population = Population(networks, loss, rule, generators, plan=plan, engine=engine)
        population.learn(x, y)
        (addon,) = population._chunks[0].optimizer.addons
        assert int(addon.state_dict()["layer_1"]["replaced"].min()) >= 50
        return population.rows

    close(rows("compiled"), rows("replay"), 1e-5)


def test_a_diverged_member_stops_alone() -> None:
    networks = [mlp(6, 2, i, widths=(8,)) for i in range(3)]
    x, y = supervised_batch("regression", (3, 9, 4), 6, 2)
    sound = supervised("regression", ADAM, networks)
    sound.learn(x, y)
    x[1, 5] = torch.nan
    population = supervised("regression", ADAM, networks)
    for u in range(9):
        population.freeze_diverged(population.learn(x[:, u : u + 1], y[:, u : u + 1])["loss"])
    assert population.frozen.tolist() == [False, True, False]
    assert torch.equal(population.rows[[0, 2]], sound.rows[[0, 2]])
    before = population.rows.clone()
    results = population.learn(x[:, :1], y[:, :1])
    assert results["loss"].isfinite().all()
    assert torch.equal(population.rows[1], before[1])


@pytest.mark.parametrize(("limit", "counted"), [(0.06, [1, 2]), (0.11, [8, 7])])
def test_a_halted_member_takes_no_further_update(limit: float, counted: list[int]) -> None:
    actions, settings, networks = acting("discrete", False)
    given = experience(actions, (2, 8, 16))

    def results_of(engine: Any, limit: float) -> tuple[dict[str, Tensor], Population]:
        population = Population(
            networks, make_loss(actions, settings), ADAM, [seeded(0), seeded(1)],
            max_grad_norm=0.5, halt=("approx_kl", limit), plan=make_plan(actions, settings),
            engine=engine,
        )  # fmt: skip
        return population.learn(*given), population

    compiled, population = results_of("compiled", limit)
    replayed, other = results_of("replay", limit)
    assert compiled["counted"].sum(dim=1).tolist() == counted
    for name, value in compiled.items():
        assert torch.allclose(value, replayed[name], atol=1e-5), name
    for one, two in zip(
        population.state_dict()["optimizers"], other.state_dict()["optimizers"], strict=True
    ):
        steps = [own["base"]["state"].get(0, {"step": 0})["step"] for own in (one, two)]
        assert steps[0] == steps[1]


@pytest.mark.parametrize("activation", ["tanh", "sigmoid"])
def test_functions_are_exact_to_rounding(activation: str) -> None:
    network = mlp(1, 1, 0, widths=(1,), activation=activation)
    with torch.no_grad():
        for name, value in network.named_parameters():
            value.fill_(1.0 if name.endswith("weight") else 0.0)
    loss, plan = PLANS["regression"]
    rule = UpdateRule(torch.optim.SGD, {"lr": 0.0}, ((Listening, {}),))
    population = Population([network], loss, rule, [seeded(0)], plan=plan, engine="compiled")
    x = torch.cat([torch.linspace(-12, 12, 4001), torch.tensor([-200.0, 1e-8, 0.0, 200.0])])
    population.learn(x.view(1, 1, -1, 1), torch.zeros(1, 1, len(x), 1))
    (seen,) = Listening.seen.values()
    expected = getattr(torch, activation)(x.double())
    assert float((seen.flatten().double() - expected).abs().max()) < 2e-7


class Listening(ShrinkAndPerturb):
    """Keeps the features that it is shown."""

    needs_features = True
    seen: dict[str, Tensor] = {}

    def after_step(self, features: Any) -> None:
        Listening.seen = {name: value.clone() for name, value in features.items()}


def test_probabilities_of_great_logits() -> None:
    """Where exponentials leave what a float can hold."""
    network = mlp(1, 3, 0, widths=())
    with torch.no_grad():
        network.get_parameter("linears.0.weight").copy_(torch.tensor([[90.0], [0.0], [-300.0]]))
        network.get_parameter("linears.0.bias").zero_()
    population = supervised("classification", SGD, [network])
    x = torch.tensor([1.0, -1.0, 1.0, 0.0]).view(1, 1, 4, 1)
    y = torch.tensor([[[0, 2, 2, 1]]])
    expected = torch.tensor([0.0, 0.0, 390.0, 1.0986123]).mean()
    assert float(population.learn(x, y)["loss"]) == pytest.approx(float(expected), rel=1e-6)


def test_what_is_left_beside_a_great_logit() -> None:
    """Where one choice is all but certain, gradients are small, and not rounded away."""
    network = mlp(1, 3, 0, widths=())
    with torch.no_grad():
        network.get_parameter("linears.0.weight").copy_(torch.tensor([[0.0], [0.0], [0.0]]))
        network.get_parameter("linears.0.bias").copy_(torch.tensor([5012.0, 5000.0, 4990.0]))
    still = UpdateRule(torch.optim.SGD, {"lr": 0.0})
    population = supervised("classification", still, [network])
    results = population.learn(torch.ones(1, 1, 1, 1), torch.zeros(1, 1, 1, dtype=torch.int64))
    rest = torch.tensor([-12.0, -22.0]).double().exp()
    assert float(results["loss"]) == pytest.approx(float(torch.log1p(rest.sum())), abs=1.2e-7)
    got = population.gradient_views()["linears.0.bias"][0, 1:]
    expected = rest / (1 + rest.sum())
    assert torch.allclose(got.double(), expected, rtol=1e-5)


def test_what_it_does_not_know_is_refused_or_replayed() -> None:
    networks = [mlp(4, 2, 0, widths=(5,), layer_norm=True)]
    with pytest.raises(UsageError, match=r"^engine compiled: .* network; expected engine auto or"):
        supervised("regression", SGD, networks)
    loss, plan = PLANS["regression"]
    plain = [mlp(4, 2, 0, widths=(5,))]
    with pytest.raises(UsageError, match="knows no penalties"):
        supervised("regression", SGD, plain, penalties=[L2Init])
    population = Population(networks, loss, SGD, [seeded(0)], plan=plan, engine="auto")
    assert population.engine is None
    with pytest.raises(UsageError, match="does not know this loss"):
        Population(plain, loss, SGD, [seeded(0)], engine="compiled")


def test_a_run_does_not_change_how_it_is_computed() -> None:
    def make(engine: Any) -> Supervised:
        return Supervised(
            [0], "regression", lambda g: MLP(4, 2, MLPOptions(widths=(5,)), g), ADAM,
            SupervisedOptions(batch_size=2), engine=engine,
        )  # fmt: skip

    one = make("compiled")
    one.learn(torch.ones(1, 4, 4), torch.ones(1, 4, 2))
    with pytest.raises(UsageError, match=r"^engine: the run began with compiled .* with replay"):
        make("replay").load_state_dict(one.state_dict())
