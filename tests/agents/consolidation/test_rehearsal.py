"""Stores, mixtures, distillation and the frames, against counts and formulas worked by hand."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from clrl.agents.consolidation.base import Batches
from clrl.agents.consolidation.distillation import LwF, distillation
from clrl.agents.consolidation.frames import Averaging, FromScratch, LowerRate
from clrl.agents.consolidation.penalties import EWC
from clrl.agents.consolidation.rehearsal import Rehearsal, Store
from clrl.agents.networks import MLP, Network
from clrl.agents.optim.rule import UpdateRule
from clrl.agents.options import MLPOptions, SupervisedOptions
from clrl.agents.supervised import Supervised
from clrl.errors import UsageError

Methods = Sequence[tuple[Any, dict[str, Any]]]
TASK, BATCH = 24, 6


def agent(methods: Methods = (), seeds: Sequence[int] = (0,), lr: float = 0.1) -> Supervised:
    def network(generator: torch.Generator) -> Network:
        return MLP(3, 4, MLPOptions(widths=(5,)), generator)

    return Supervised(
        seeds,
        "classification",
        network,
        UpdateRule(torch.optim.SGD, {"lr": lr}),
        SupervisedOptions(batch_size=BATCH),
        None,
        methods,
        4,
        4,
    )


def examples(task: int, members: int = 1, count: int = TASK) -> tuple[Tensor, Tensor]:
    """The first number of an input says which example it is, of all tasks."""
    source = torch.Generator().manual_seed(task)
    x = torch.randn(count, 3, generator=source)
    x[:, 0] = torch.arange(count) + 100.0 * task
    y = torch.randint(4, (count,), generator=source)
    return x.expand(members, -1, -1).clone(), y.expand(members, -1).clone()


class Watched(Rehearsal):
    """Keeps the batches that it has mixed."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.mixed: list[Tensor] = []

    def mix(self, batches: Batches) -> Batches:
        batches = super().mix(batches)
        self.mixed.append(batches.examples[0][..., 0])
        return batches


@pytest.mark.parametrize(
    ("options", "new", "stored"),
    [
        ({"proportion": 0.5}, 3, 3),
        ({"proportion": 0.25}, 4, 2),  # 1.5 stored, rounded to even
        ({"proportion": 0.5, "epoch": "growing"}, 6, 6),
        ({"proportion": 0.25, "epoch": "growing"}, 6, 2),
        ({"proportion": 0.8, "epoch": "growing"}, 6, 24),
        ({"proportion": 0.5, "capacity": 10}, 3, 3),
        ({"proportion": 0.0}, 6, 0),
    ],
)
def test_mixtures_have_exact_counts(options: dict[str, Any], new: int, stored: int) -> None:
    learner = agent([(Watched, options)], lr=0.0)
    (method,) = learner.consolidation.methods
    assert isinstance(method, Watched)
    for task in range(3):
        learner.learn(*examples(task))
        (batches,) = method.mixed  # [members, updates, batch]
        method.mixed.clear()
        present = (batches // 100 == task).sum(dim=-1)
        past = (batches // 100 < task).sum(dim=-1)
        if task == 0 or not stored:
            assert batches.shape == (1, 4, BATCH) and bool((present == BATCH).all())
        else:
            assert batches.shape == (1, 4, new + stored)
            assert bool((present == new).all()) and bool((past == stored).all())
            # The new ones are each batch's first, in the stream's order.
            first = torch.arange(TASK).view(4, BATCH)[:, :new] + 100.0 * task
            assert torch.equal(batches[0, :, :new], first)
        learner.end_task()
    per_update = BATCH if not stored else new + stored
    assert learner.examples_learned == 4 * BATCH + 2 * 4 * per_update


def test_a_batch_that_cannot_be_mixed_is_refused() -> None:
    with pytest.raises(UsageError, match="batch of 6, got 6 and 0"):
        agent([(Rehearsal, {"proportion": 0.05})])
    with pytest.raises(UsageError, match="batch of 6, got 0 and 6"):
        agent([(Rehearsal, {"proportion": 0.95})])


def test_a_full_store_has_everything_and_a_task_only_when_it_is_over() -> None:
    store = Store([0, 1], None)
    store.gather(*examples(0, 2))
    assert len(store) == 0
    store.close()
    store.gather(*examples(1, 2))
    assert len(store) == TASK
    store.close()
    assert sorted(store.past[0][1, :, 0].tolist()) == [*range(TASK), *range(100, 100 + TASK)]
    x, y = store.draw(4000)
    assert x.shape == (2, 4000, 3) and y.shape == (2, 4000)
    assert not torch.equal(x[0], x[1])
    counts = np.unique(x[0, :, 0], return_counts=True)[1]
    assert len(counts) == 2 * TASK and counts.min() > 40  # 83 expected of each


def test_a_reservoir_is_a_uniform_sample() -> None:
    """Of 60 examples, in pieces, each of 400 members keeps 10: each is kept by a sixth, 66.7."""
    store = Store(range(400), 10)
    for task, count in enumerate((4, 20, 1, 35)):
        x, y = examples(task, 400, count)
        for start in range(0, count, 7):
            store.gather(x[:, start : start + 7], y[:, start : start + 7])
        store.close()
    assert len(store) == 10
    kept, counts = np.unique(store.past[0][:, :, 0], return_counts=True)
    assert len(kept) == 60 and counts.sum() == 4000
    # A standard deviation is sqrt(400 / 6 * 5 / 6) = 7.5.
    assert abs(counts - 400 / 6).max() < 4.5 * 7.5
    for row in store.past[0][:, :, 0]:
        assert len(set(row.tolist())) == 10


def test_distillation_and_its_gradient() -> None:
    """T^2 KL(softmax(t / T) || softmax(s / T)) has the gradient T (softmax(s/T) - softmax(t/T))."""
    student = torch.tensor([[1.0, -2.0, 0.5]], dtype=torch.float64, requires_grad=True)
    teacher = torch.tensor([[0.3, 0.1, -1.0]], dtype=torch.float64)
    for temperature in (1.0, 2.0, 5.0):
        soft = [
            np.exp(v / temperature) / np.exp(v / temperature).sum()
            for v in (student.detach().numpy()[0], teacher.numpy()[0])
        ]
        expected = temperature**2 * float((soft[1] * np.log(soft[1] / soft[0])).sum())
        value = distillation(student, teacher, temperature, 3)
        assert value.shape == (1, 1) and value.item() == pytest.approx(expected)
        (gradient,) = torch.autograd.grad(value.sum(), student)
        assert gradient[0].tolist() == pytest.approx((temperature * (soft[0] - soft[1])).tolist())
    assert distillation(teacher, teacher, 2.0, 3).item() == pytest.approx(0.0)


def test_distillation_of_heads_is_apart() -> None:
    source = torch.Generator().manual_seed(0)
    student, teacher = torch.randn(2, 5, 4, generator=source)
    both = distillation(student, teacher, 2.0, 2)
    for head in range(2):
        own = slice(2 * head, 2 * head + 2)
        alone = distillation(student[:, own], teacher[:, own], 2.0, 2)
        torch.testing.assert_close(both[:, head : head + 1], alone)


def test_lwf_is_the_mixed_loss() -> None:
    """One update of SGD, against ordinary PyTorch with a frozen copy as the teacher."""
    learner = agent([(LwF, {"alpha": 0.3, "temperature": 2.0})])
    x, y = examples(0)
    x = x / 100
    learner.learn(x, y)
    plain = agent()
    plain.learn(x, y)  # without a teacher the loss is the cross-entropy
    torch.testing.assert_close(learner.population.rows, plain.population.rows)
    learner.end_task()

    def copy() -> Network:
        network = MLP(3, 4, MLPOptions(widths=(5,)), torch.Generator())
        for name, value in learner.population.parameters().items():
            network.get_parameter(name).data.copy_(value[0])
        return network

    teacher, student = copy(), copy()
    optimizer = torch.optim.SGD(student.parameters(), lr=0.1)
    new_x, new_y = examples(1)
    new_x = new_x / 100
    for batch_x, batch_y in zip(new_x[0].split(BATCH), new_y[0].split(BATCH), strict=True):
        logits = student(batch_x)
        with torch.no_grad():
            target = torch.log_softmax(teacher(batch_x) / 2, dim=-1)
        apart = nn.functional.kl_div(
            torch.log_softmax(logits / 2, dim=-1), target, reduction="batchmean", log_target=True
        )
        loss = 0.3 * nn.functional.cross_entropy(logits, batch_y) + 0.7 * 4 * apart
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    results = learner.learn(new_x, new_y)
    for name, value in learner.population.parameters().items():
        torch.testing.assert_close(value[0], student.get_parameter(name).data)
    # What is measured is the loss on the labels.
    with torch.no_grad():
        first = nn.functional.cross_entropy(teacher(new_x[0, :BATCH]), new_y[0, :BATCH])
    assert float(results["loss"][0, 0]) == pytest.approx(float(first), rel=1e-5)


def test_what_is_measured_of_a_mixture_is_the_new() -> None:
    learner = agent([(Rehearsal, {"proportion": 0.5, "epoch": "growing"})], lr=0.0)
    plain = agent(lr=0.0)
    for task in range(2):
        got, expected = (one.learn(*examples(task)) for one in (learner, plain))
        for key in ("loss", "accuracy"):
            torch.testing.assert_close(got[key], expected[key])
        learner.end_task()


def test_a_lower_rate_from_the_second_task_on() -> None:
    learner = agent([(LowerRate, {"factor": 0.1})])
    plain, slow = agent(), agent(lr=0.01)
    x, y = examples(0)
    for one in (learner, plain):
        one.learn(x / 100, y)
        one.end_task()
    assert torch.equal(learner.population.rows, plain.population.rows)
    slow.population.rows.copy_(plain.population.rows)
    for one in (learner, slow):
        one.learn(x / 100, y)
    torch.testing.assert_close(learner.population.rows, slow.population.rows)


def test_averaging_answers_with_the_mean_of_all_models() -> None:
    learner = agent([(Averaging, {})])
    x, y = examples(7)
    mean = torch.zeros(TASK, 4)
    for task in range(3):
        own_x, own_y = examples(task)
        before = learner.population.rows.clone()
        learner.learn(own_x / 100, own_y)
        model = learner.population.parameters()
        hidden = torch.relu(x[0] @ model["linears.0.weight"][0].T + model["linears.0.bias"][0])
        logits = hidden @ model["linears.1.weight"][0].T + model["linears.1.bias"][0]
        mean += torch.softmax(logits, dim=-1) / 3
        learner.end_task()
        assert not torch.equal(learner.population.rows, before)  # new parameters
    hits = (mean.argmax(dim=-1) == y[0]).double().mean()
    assert learner.accuracy(x, y).tolist() == [float(hits)]
    assert learner.consolidation.memory == 3 * learner.population.rows.numel() * 4


def test_from_scratch_learns_everything_so_far_at_the_end_of_a_task() -> None:
    learner = agent([(FromScratch, {"epochs": 2})], seeds=(0, 1))
    seen: list[Tensor] = []
    update = learner._update

    def watched(x: Tensor, *more: Tensor) -> dict[str, Tensor]:
        seen.append(x[..., 0])
        return update(x, *more)

    learner._update = watched  # type: ignore[method-assign]
    start = learner.population.rows.clone()
    for task in range(2):
        learner.learn(*examples(task, 2))
        if task == 0:
            assert torch.equal(learner.population.rows, start) and not seen
        seen.clear()
        learner.end_task()
        for member in range(2):
            taken = torch.cat([piece[member].flatten() for piece in seen])
            passes = taken.view(2, -1)
            everything = [100 * t + i for t in range(task + 1) for i in range(TASK)]
            for one in passes:
                assert sorted(one.tolist()) == everything
            assert not torch.equal(passes[0], passes[1])
    assert learner.examples_learned == 2 * TASK + 2 * 2 * TASK
    assert learner.consolidation.memory == 2 * TASK * (3 * 4 + 8)


def test_heads_of_other_tasks_do_not_compete() -> None:
    """With heads of two, the loss is the cross-entropy of the label's two outputs alone."""

    def network(generator: torch.Generator) -> Network:
        return MLP(3, 4, MLPOptions(widths=(5,)), generator)

    learner = Supervised(
        (0,),
        "classification",
        network,
        UpdateRule(torch.optim.SGD, {"lr": 0.1}),
        SupervisedOptions(batch_size=BATCH),
        num_outputs=4,
        head_size=2,
    )
    x, y = examples(0, count=BATCH)
    model = {name: value[0].clone() for name, value in learner.population.parameters().items()}
    hidden = torch.relu(x[0] @ model["linears.0.weight"].T + model["linears.0.bias"])
    logits = hidden @ model["linears.1.weight"].T + model["linears.1.bias"]
    losses, hits = [], []
    for row, label in zip(logits, y[0].tolist(), strict=True):
        head = row[2 * (label // 2) : 2 * (label // 2) + 2]
        losses.append(float(torch.logsumexp(head, 0) - head[label % 2]))
        hits.append(float(head.argmax() == label % 2))
    assert learner.accuracy(x, y).tolist() == pytest.approx([np.mean(hits)])
    results = learner.learn(x, y)
    assert float(results["loss"]) == pytest.approx(np.mean(losses), rel=1e-5)
    assert float(results["accuracy"]) == pytest.approx(np.mean(hits))


COMBINATIONS: dict[str, Methods] = {
    "rehearsal": [(Rehearsal, {})],
    "reservoir": [(Rehearsal, {"capacity": 10, "epoch": "growing"})],
    "lwf": [(LwF, {})],
    "rehearsal+ewc": [(Rehearsal, {}), (EWC, {"strength": 5.0})],
    "rehearsal+lwf+lower-rate": [(Rehearsal, {}), (LwF, {}), (LowerRate, {})],
    "averaging": [(Averaging, {})],
    "from-scratch": [(FromScratch, {})],
}


def train(learner: Supervised, tasks: range) -> None:
    members = len(learner.population)
    for task in tasks:
        x, y = examples(task, members)
        learner.learn(x[:, : TASK // 2] / 100, y[:, : TASK // 2])
        learner.learn(x[:, TASK // 2 :] / 100, y[:, TASK // 2 :])
        learner.end_task()


@pytest.mark.parametrize("name", COMBINATIONS)
def test_members_do_not_see_each_other(name: str) -> None:
    together = agent(COMBINATIONS[name], seeds=(3, 4, 5))
    train(together, range(3))
    x, y = examples(9, 3)
    for member, seed in enumerate((3, 4, 5)):
        alone = agent(COMBINATIONS[name], seeds=(seed,))
        train(alone, range(3))
        assert torch.equal(alone.population.rows[0], together.population.rows[member])
        mine = slice(member, member + 1)
        assert float(alone.accuracy(x[mine], y[mine])) == float(together.accuracy(x, y)[member])


@pytest.mark.parametrize("middle", [False, True])
@pytest.mark.parametrize("name", COMBINATIONS)
def test_state_is_all_there_is(name: str, middle: bool) -> None:
    one, other = (agent(COMBINATIONS[name], seeds=(3, 4)) for _ in range(2))
    train(one, range(2))
    if middle:
        one.learn(*(value[:, : TASK // 2] for value in examples(2, 2)))
    file = io.BytesIO()
    torch.save(one.state_dict(), file)
    file.seek(0)
    other.load_state_dict(torch.load(file, weights_only=True))
    for learner in (one, other):
        train(learner, range(3, 5))
    assert torch.equal(one.population.rows, other.population.rows)
    x, y = examples(9, 2)
    assert torch.equal(one.accuracy(x, y), other.accuracy(x, y))
    assert one.consolidation.memory == other.consolidation.memory
    assert one.examples_learned == other.examples_learned
