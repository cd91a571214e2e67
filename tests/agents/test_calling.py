"""Networks with state and chance: buffers, dropout and modes are a member's own."""

from __future__ import annotations

import copy
import io
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from clrl.agents.calling import Call, draw
from clrl.agents.networks import MLP, Network
from clrl.agents.optim.rule import UpdateRule
from clrl.agents.options import MLPOptions
from clrl.agents.population import Population
from clrl.agents.supervised import classification_loss
from clrl.errors import UsageError

SGD = UpdateRule(torch.optim.SGD, {"lr": 0.1})
BOTH = {"batch_norm": True, "dropout": 0.4}
BATCH, UPDATES = 8, 6


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def mlp(seed: int, **options: Any) -> MLP:
    return MLP(4, 3, MLPOptions(widths=(7, 5), **options), seeded(seed))


def population(seeds: list[int], chunk_size: int | None = None, **options: Any) -> Population:
    return Population(
        [mlp(seed, **options) for seed in seeds],
        classification_loss,
        SGD,
        [seeded(100 + seed) for seed in seeds],
        chunk_size,
    )


def examples(seeds: list[int], salt: int = 0) -> tuple[Tensor, Tensor]:
    xs, ys = [], []
    for seed in seeds:
        source = seeded(1000 * salt + seed)
        xs.append(torch.randn(UPDATES, BATCH, 4, generator=source) * (1 + seed) + seed)
        ys.append(torch.randint(3, (UPDATES, BATCH), generator=source))
    return torch.stack(xs), torch.stack(ys)


def everything(members: Population, member: int) -> list[Tensor]:
    parameters, buffers = members.member(member)
    return [*parameters.values(), *buffers.values()]


@pytest.mark.parametrize("options", [BOTH, {"batch_norm": True}, {"dropout": 0.4}])
@pytest.mark.parametrize("chunk_size", [None, 2, 1])
def test_a_member_is_itself_alone(options: dict[str, Any], chunk_size: int | None) -> None:
    seeds = [0, 1, 2, 3, 4]
    among = population(seeds, chunk_size, **options)
    results = among.learn(*examples(seeds))
    inputs = torch.randn(5, 3, 4, generator=seeded(9))
    answers = among.compiled(lambda forward, x: forward(x))(inputs)
    for member, seed in enumerate(seeds):
        alone = population([seed], **options)
        own = alone.learn(*examples([seed]))
        assert all(torch.equal(own[key][0], results[key][member]) for key in results)
        for one, other in zip(everything(alone, 0), everything(among, member), strict=True):
            assert torch.equal(one, other)
        asked = inputs[member : member + 1]
        assert torch.equal(alone.compiled(lambda forward, x: forward(x))(asked)[0], answers[member])
        for one, other in zip(
            alone.features(0, asked[0]).values(),
            among.features(member, asked[0]).values(),
            strict=True,
        ):
            assert torch.equal(one, other)


def test_running_statistics_are_a_members_own() -> None:
    members = population([0, 1, 2], **BOTH)
    members.learn(*examples([0, 1, 2]))
    mean = members.kept["norms.0.running_mean"]
    assert not torch.equal(mean[0], mean[1]) and not torch.equal(mean[1], mean[2])
    assert members.kept["norms.0.num_batches_tracked"].tolist() == [UPDATES] * 3


def test_a_saved_population_goes_on_as_it_would_have() -> None:
    seeds = [0, 1, 2, 3, 4]
    whole = population(seeds, **BOTH)
    whole.learn(*examples(seeds))
    file = io.BytesIO()
    torch.save(whole.state_dict(), file)
    file.seek(0)
    resumed = population(seeds, 2, **BOTH)
    resumed.load_state_dict(torch.load(file, weights_only=True))
    for learner in (whole, resumed):
        learner.learn(*examples(seeds, salt=1))
    for member in range(5):
        for one, other in zip(everything(whole, member), everything(resumed, member), strict=True):
            assert torch.equal(one, other)


def test_batch_normalisation_is_torchs() -> None:
    members = population([3], batch_norm=True)
    network = mlp(3, batch_norm=True).train()
    optimizer = torch.optim.SGD(network.parameters(), 0.1)
    x, y = examples([3])
    members.learn(x, y)
    for inputs, labels in zip(x[0], y[0], strict=True):
        optimizer.zero_grad()
        nn.functional.cross_entropy(network(inputs), labels).backward()
        optimizer.step()
    for name, value in network.state_dict().items():
        found = members.module(0).state_dict()[name]
        assert torch.allclose(found, value, rtol=1e-4, atol=1e-5), name
    network.eval()
    given = members.compiled(lambda forward, x: forward(x))(x[:, 0])[0]
    assert torch.allclose(given, network(x[0, 0]), rtol=1e-4, atol=1e-4)


def test_dropout_is_for_updates_alone_and_scales_what_is_kept() -> None:
    x = torch.ones(400, 10)
    with Call(torch.rand(4000, generator=seeded(0))) as call:
        dropped = nn.functional.dropout(x, 0.25)
        assert torch.equal(nn.functional.dropout(x, 0.25, training=False), x)
        assert torch.equal(nn.functional.dropout(x, 0.0), x)
    assert [one.size for one in call.draws] == [4000]
    assert dropped.unique().tolist() == pytest.approx([0.0, 4 / 3])
    assert float((dropped == 0).float().mean()) == pytest.approx(0.25, abs=0.03)
    members = population([0], dropout=0.5)
    ask = members.compiled(lambda forward, x: forward(x))
    inputs = torch.randn(1, 5, 4, generator=seeded(1))
    assert torch.equal(ask(inputs), ask(inputs))
    assert torch.allclose(ask(inputs)[0], mlp(0)(inputs[0]), atol=1e-6)


def test_without_dropout_nothing_is_drawn() -> None:
    without, neutral = population([0, 1]), population([0, 1], dropout=0.0)
    for members in (without, neutral):
        members.learn(*examples([0, 1]))
    assert torch.equal(without.rows, neutral.rows)
    states = without.state_dict()["generators"]
    assert all(
        torch.equal(state, seeded(100 + seed).get_state()) for seed, state in enumerate(states)
    )


def test_the_loss_after_an_update_is_of_the_same_masks() -> None:
    members = population([0, 1], dropout=0.5)
    frozen = copy.deepcopy(members.rows)
    x, y = examples([0, 1])
    again = members.compiled(lambda *batch: classification_loss(*batch)[0], training=True)
    before = members.learn(x[:, :1], y[:, :1])["loss"][:, 0]
    members.rows.copy_(frozen)
    assert torch.allclose(again(x[:, 0], y[:, 0]), before, rtol=1e-6)


def test_a_diverged_member_keeps_its_statistics() -> None:
    members = population([0, 1], batch_norm=True)
    members.learn(*examples([0, 1]))
    members.mark_safe()
    kept = {name: value[0].clone() for name, value in members.kept.items()}
    members.freeze_diverged(torch.tensor([[torch.nan], [0.0]]))
    members.learn(*examples([0, 1], salt=1))
    assert all(torch.equal(members.kept[name][0], value) for name, value in kept.items())
    assert members.kept["norms.0.num_batches_tracked"].tolist() == [UPDATES, 2 * UPDATES]


def test_a_member_made_new_has_new_statistics() -> None:
    members = population([0, 1], batch_norm=True)
    members.learn(*examples([0, 1]))
    members.restart([0, 1], lambda member: mlp(7 + member, batch_norm=True), lambda member: 5)
    assert not members.kept["norms.0.running_mean"].any()
    assert not members.kept["norms.0.num_batches_tracked"].any()


class Noisy(Network):
    """Draws in every way that there is, and counts its calls."""

    def __init__(self, seed: int) -> None:
        super().__init__()
        self.linear = nn.Linear(4, 3)
        self.register_buffer("calls", torch.zeros(()))
        self.initialise(seeded(seed))

    def fresh(self, name: str, generator: torch.Generator) -> Tensor:
        return torch.empty(self.get_parameter(name).shape).uniform_(-1, 1, generator=generator)

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        noise = torch.randn(x.shape) + torch.randn_like(x) + torch.rand(*x.shape)
        kept = torch.bernoulli(torch.full_like(x, 0.5))
        x = nn.functional.dropout1d((x + 0.1 * noise).unsqueeze(-1), 0.5, self.training)
        result: Tensor = self.linear(x.squeeze(-1) * kept)
        return result


def test_other_draws_are_the_members_own_too() -> None:
    def made(seeds: list[int]) -> Population:
        return Population(
            [Noisy(seed) for seed in seeds],
            classification_loss,
            SGD,
            [seeded(100 + seed) for seed in seeds],
        )

    among = made([0, 1, 2])
    before = torch.get_rng_state()
    among.learn(*examples([0, 1, 2]))
    assert torch.equal(before, torch.get_rng_state())
    for member in range(3):
        alone = made([member])
        alone.learn(*examples([member]))
        assert torch.equal(alone.rows[0], among.rows[member])
    assert among.kept["calls"].tolist() == [UPDATES] * 3
    assert not torch.equal(among.rows[0], made([0]).rows[0])


def test_what_is_drawn_depends_on_the_member_alone() -> None:
    with Call() as call:
        torch.rand(3, 5)
        torch.randn(20)
    rows = draw(call.draws, [seeded(1), seeded(2)])
    assert torch.equal(rows[1], draw(call.draws, [seeded(2)])[0])
    assert bool((rows[:, :15] >= 0).all() and (rows[:, :15] < 1).all() and (rows < 0).any())


def test_batch_normalisation_of_single_examples_is_refused() -> None:
    members = population([0], batch_norm=True)
    x, y = examples([0])
    with pytest.raises(UsageError, match="batches of more than one example"):
        members.learn(x[:, :, :1], y[:, :, :1])
