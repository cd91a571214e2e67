"""The training loop: what is learned, what is measured, when, and for whom."""

from __future__ import annotations

import io
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from clrl.agents.networks import MLP
from clrl.agents.options import MLPOptions
from clrl.envs.streams.permuted import PermutedDigits
from clrl.envs.streams.regression import SlowRegression
from clrl.errors import UsageError
from clrl.seeding import derived_seed
from clrl.settings.config import RunConfig, resolve
from clrl.settings.values import Place
from clrl.training.dispatch import training
from clrl.training.streams import Training

Line = tuple[int, dict[str, float]]


class Lines:
    """A sink that keeps what it is given."""

    def __init__(self) -> None:
        self.lines: list[Line] = []

    def write(self, step: int, values: Mapping[str, float]) -> None:
        assert all(type(value) is float for value in values.values())
        self.lines.append((step, dict(values)))

    def of(self, key: str) -> list[tuple[int, float]]:
        return [(step, values[key]) for step, values in self.lines if key in values]

    def untimed(self) -> list[Line]:
        return [
            (step, {k: v for k, v in values.items() if not k.startswith("time/")})
            for step, values in self.lines
        ]


def config(**raw: Any) -> RunConfig:
    settings: dict[str, Any] = {
        "benchmark": {"name": "permuted-digits", "task_length": 60},
        "agent": {"name": "supervised", "diagnose_every": 10},
        "network": {"name": "mlp", "widths": [12, 8]},
        "optimizer": {"name": "sgd", "lr": 0.01},
        "steps": 150,
        "log_every": 50,
        **raw,
    }
    return resolve(settings, Place("test"))


def run(settings: RunConfig, seeds: Sequence[int]) -> tuple[dict[int, Lines], dict[int, str]]:
    sinks = {seed: Lines() for seed in seeds}
    return sinks, training(settings, seeds).run(sinks, lambda done, total: None)


def plain_loop(seed: int, steps: int) -> tuple[list[float], list[float], list[float], nn.Module]:
    """Ordinary PyTorch on the same stream from the same start: SGD, one example at a time.

    Returns the losses and hits before each update, the loss on the same example after it,
    and the trained network.
    """
    stream = PermutedDigits(seed, task_length=60)
    generator = torch.Generator().manual_seed(derived_seed(seed, "network"))
    network = MLP(64, 10, MLPOptions(widths=(12, 8)), generator)
    optimizer = torch.optim.SGD(network.parameters(), lr=0.01)
    losses, hits, after = [], [], []
    for _ in range(steps):
        x, y = (torch.from_numpy(part) for part in stream.next(1))
        logits = network(x)
        loss = nn.functional.cross_entropy(logits, y)
        losses.append(loss.item())
        hits.append(float(logits.argmax(1) == y))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        with torch.no_grad():
            after.append(nn.functional.cross_entropy(network(x), y).item())
    return losses, hits, after, network


def test_it_measures_what_a_plain_loop_does() -> None:
    """Three windows of 150, tasks of 60 and an end amid a task: 450 examples."""
    sinks, states = run(config(steps=450, log_every=150), [3, 4])
    assert states == {3: "finished", 4: "finished"}
    for seed, sink in sinks.items():
        losses, hits, after, network = plain_loop(seed, 450)
        windows = [(a, a + 150) for a in (0, 150, 300)]
        tasks = [(a, min(a + 60, 450)) for a in range(0, 450, 60)]
        for tag, parts in (("online", windows), ("task", tasks)):
            for key, numbers in (("loss", losses), ("accuracy", hits)):
                got = sink.of(f"{tag}/{key}")
                assert [step for step, _ in got] == [end for _, end in parts]
                expected = [float(np.mean(numbers[a:b])) for a, b in parts]
                assert [value for _, value in got] == pytest.approx(expected, rel=1e-4), key
        assert sink.of("task/index") == [(end, float(i)) for i, (_, end) in enumerate(tasks)]
        gains = [min(max(1 - b / max(a, 1e-8), 0), 1) for a, b in zip(losses, after, strict=True)]
        sampled = [np.mean(gains[a + 9 : b : 10]) for a, b in windows]
        plasticity = [value for _, value in sink.of("plasticity/network/step_plasticity")]
        assert plasticity == pytest.approx([float(s) for s in sampled], rel=1e-3)
        weights = torch.cat([layer.weight.flatten() for layer in network.linears]).detach()
        magnitude = sink.of("plasticity/network/weight_magnitude")[-1][1]
        assert magnitude == pytest.approx(float(weights.abs().mean()), rel=1e-5)


@pytest.mark.parametrize(
    ("steps", "log_every", "online", "tasks", "features"),
    [
        (150, 50, [50, 100, 150], [60, 120, 150], [0, 60, 120]),
        (130, 50, [50, 100, 130], [60, 120, 130], [0, 60, 120]),  # the last window is shorter
        (120, 60, [60, 120], [60, 120], [0, 60]),  # no probe of a task that never starts
        (40, 1000, [40], [40], [0]),
        (61, 1000, [61], [60, 61], [0, 60]),
    ],
)
def test_lines_are_at_the_right_steps(
    steps: int, log_every: int, online: list[int], tasks: list[int], features: list[int]
) -> None:
    sinks, _ = run(config(steps=steps, log_every=log_every), [0])
    sink = sinks[0]
    assert [step for step, _ in sink.lines] == sorted({*online, *tasks, *features})
    for tags, expected in (
        (("online/loss", "online/accuracy", "plasticity/network/weight_change"), online),
        (("plasticity/network/grad_norm", "plasticity/network/step_plasticity"), online),
        (("task/loss", "task/accuracy", "task/index"), tasks),
        (("plasticity/network/dead_units", "plasticity/network/effective_rank/layer_2"), features),
        (("time/elapsed", "time/steps_per_second"), sorted({*online, *tasks, *features} - {0})),
    ):
        for tag in tags:
            assert [step for step, _ in sink.of(tag)] == expected, tag
    for _, values in sink.lines:
        assert all(math.isfinite(value) for value in values.values())
        for key, value in values.items():
            if key.endswith("accuracy") or key.split("/")[-1].endswith("units"):
                assert 0 <= value <= 1


def test_the_probe_is_the_task_just_begun_before_training_on_it() -> None:
    """With a step size of 0 the network is the first one throughout: its figures on a task
    are those on the stream's probe at that position."""
    sinks, _ = run(config(optimizer={"name": "sgd", "lr": 0.0}, steps=180), [0])
    generator = torch.Generator().manual_seed(derived_seed(0, "network"))
    network = MLP(64, 10, MLPOptions(widths=(12, 8)), generator)
    expected = []
    for task in range(3):
        stream = PermutedDigits(0, task_length=60)
        stream.next(60 * task)
        x = torch.from_numpy(stream.probe(2000))
        expected.append(float((torch.relu(network.linears[0](x)) == 0).double().mean()))
    got = sinks[0].of("plasticity/network/zero_activations/layer_1")
    assert [value for _, value in got] == pytest.approx(expected, abs=1e-4)
    assert len(set(expected)) == 3
    assert sinks[0].of("plasticity/network/probe_examples")[0][1] == len(x)


def test_a_larger_batch() -> None:
    """Means over examples are means over batches; lines are counted in examples."""
    agent = {"name": "supervised", "batch_size": 10, "diagnose_every": 2}
    sinks, _ = run(config(agent=agent), [0])
    assert [step for step, _ in sinks[0].of("online/loss")] == [50, 100, 150]
    stream = PermutedDigits(0, task_length=60)
    generator = torch.Generator().manual_seed(derived_seed(0, "network"))
    network = MLP(64, 10, MLPOptions(widths=(12, 8)), generator)
    optimizer = torch.optim.SGD(network.parameters(), lr=0.01)
    losses = []
    for _ in range(15):
        x, y = (torch.from_numpy(part) for part in stream.next(10))
        loss = nn.functional.cross_entropy(network(x), y)
        losses.append(loss.item())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    got = [value for _, value in sinks[0].of("online/loss")]
    assert got == pytest.approx([float(np.mean(losses[i : i + 5])) for i in (0, 5, 10)], rel=1e-4)


@pytest.mark.parametrize(
    ("raw", "named"),
    [
        ({"steps": 150, "log_every": 50}, "task_length"),
        ({"steps": 154, "log_every": 56}, "steps"),
        ({"steps": 168, "log_every": 50}, "log_every"),
    ],
)
def test_a_batch_size_that_does_not_divide(raw: dict[str, int], named: str) -> None:
    batch = 8 if named != "task_length" else 25
    benchmark = {"name": "permuted-digits", "task_length": 56 if named != "task_length" else 60}
    settings = config(agent={"name": "supervised", "batch_size": batch}, benchmark=benchmark, **raw)
    with pytest.raises(UsageError, match=rf"agent\.batch_size: .*{named}.*got {batch}"):
        Training(settings, [0])


OPTIMIZERS: dict[str, Any] = {
    "sgd": {"name": "sgd", "lr": 0.01, "momentum": 0.9},
    "adam": {"name": "adam", "lr": 1e-3},
    "adamw": {"name": "adamw", "lr": 1e-3},
    "upgd": {"name": "upgd", "lr": 0.01},
    "shrink-and-perturb": {"name": "shrink-and-perturb", "lr": 0.01},
    "continual-backprop": {
        "name": "continual-backprop",
        "base": "adam",
        "replacement_rate": 0.01,
        "maturity_threshold": 5,
    },
    "plug-in, apart": {"name": "torch.optim:Adafactor", "lr": 0.01},
}


@pytest.mark.parametrize("optimizer", OPTIMIZERS.values(), ids=OPTIMIZERS)
def test_a_seed_alone_is_that_seed_among_others(optimizer: dict[str, Any]) -> None:
    """Every number of every line but times, to the bit."""
    settings = config(optimizer=optimizer)
    together, _ = run(settings, range(4))
    alone, _ = run(settings, [2])
    assert alone[2].untimed() == together[2].untimed()
    assert together[0].untimed() != together[1].untimed()


@pytest.mark.parametrize(("batch_size", "chunk_size"), [(1, 2), (10, 1)])
def test_chunks_do_not_matter(batch_size: int, chunk_size: int) -> None:
    agent = {"name": "supervised", "diagnose_every": 2, "batch_size": batch_size}
    network = {"name": "mlp", "widths": [31, 17], "activation": "tanh", "layer_norm": True}
    results = [
        run(config(agent=agent, network=network, chunk_size=size), range(3))[0]
        for size in (chunk_size, 3)
    ]
    for seed in range(3):
        assert results[0][seed].untimed() == results[1][seed].untimed()


def test_twice_is_the_same_and_the_global_generators_are_left_alone() -> None:
    settings = config(optimizer=OPTIMIZERS["upgd"])
    torch_state, numpy_state = torch.get_rng_state(), np.random.get_state()[1].copy()  # type: ignore[index]
    one, _ = run(settings, [0, 1])
    assert torch.equal(torch.get_rng_state(), torch_state)
    assert (np.random.get_state()[1] == numpy_state).all()  # type: ignore[index]
    torch.manual_seed(5)
    two, _ = run(settings, [0, 1])
    for seed in (0, 1):
        assert one[seed].untimed() == two[seed].untimed()


@pytest.mark.parametrize("optimizer", OPTIMIZERS.values(), ids=OPTIMIZERS)
def test_state_amid_a_run_gives_the_identical_rest(optimizer: dict[str, Any]) -> None:
    """Taken at step 70: amid a window, amid a task, between two samples of a window."""
    settings = config(optimizer=optimizer)
    whole, part, rest = Lines(), Lines(), Lines()
    Training(settings, [3]).run({3: whole})
    first = Training(settings, [3])
    for step in first.steps({3: part}):
        if step == 70:
            break
    file = io.BytesIO()
    torch.save(first.state_dict(), file)
    file.seek(0)
    second = Training(settings, [3])
    second.load_state_dict(torch.load(file, weights_only=True))
    assert second.run({3: rest}) == {3: "finished"}
    assert part.untimed() + rest.untimed() == whole.untimed()


def test_slow_regression_with_a_hundred_members() -> None:
    settings = config(
        benchmark={"name": "slow-regression", "task_length": 40},
        network={"name": "mlp", "widths": [5]},
        steps=80,
        log_every=40,
        chunk_size=20,
    )
    sinks, states = run(settings, range(100))
    assert set(states.values()) == {"finished"}
    stream = SlowRegression(77, task_length=40)
    generator = torch.Generator().manual_seed(derived_seed(77, "network"))
    network = MLP(20, 1, MLPOptions(widths=(5,)), generator)
    optimizer = torch.optim.SGD(network.parameters(), lr=0.01)
    losses = []
    for _ in range(80):
        x, y = (torch.from_numpy(part) for part in stream.next(1))
        loss = nn.functional.mse_loss(network(x), y)
        losses.append(loss.item())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    got = [value for _, value in sinks[77].of("online/loss")]
    assert got == pytest.approx(
        [float(np.mean(losses[:40])), float(np.mean(losses[40:]))], rel=1e-3
    )
    assert not sinks[77].of("online/accuracy")
    assert sinks[77].of("plasticity/network/probe_examples")[0][1] == 32
    assert len({sink.of("online/loss")[0][1] for sink in sinks.values()}) == 100


def test_a_diverged_member_is_marked_and_its_siblings_go_on() -> None:
    """Seed 1's parameters become nan at step 70. It is written no more, the rest goes on."""
    settings = config()
    expected, _ = run(settings, range(3))
    sinks = {seed: Lines() for seed in range(3)}
    training = Training(settings, range(3))
    for step in training.steps(sinks):
        if step == 50:
            safe = training.agent.population.rows[1].clone()
        if step == 70:
            training.agent.population.parameters()["linears.1.weight"][1, 0, 0] = torch.nan
    assert training.run(sinks) == {0: "finished", 1: "diverged", 2: "finished"}
    for seed in (0, 2):
        assert sinks[seed].untimed() == expected[seed].untimed()
    before = [line for line in expected[1].untimed() if line[0] <= 60]
    assert sinks[1].untimed() == before
    assert torch.equal(training.agent.population.rows[1], safe)


def test_all_diverged() -> None:
    """A step size that is far too large ends every member, and then the run."""
    training = Training(config(optimizer={"name": "sgd", "lr": 1e30}), range(2))
    sinks = {seed: Lines() for seed in range(2)}
    assert training.run(sinks) == {0: "diverged", 1: "diverged"}
    assert 0 < training.step < training.config.steps
    for sink in sinks.values():
        assert [step for step, _ in sink.lines] == [0]
        assert all(math.isfinite(value) for _, values in sink.lines for value in values.values())


def test_progress_counts_examples_of_all_members() -> None:
    calls: list[tuple[int, int]] = []
    settings = config()
    training(settings, [0, 1]).run({0: Lines(), 1: Lines()}, lambda *call: calls.append(call))
    assert calls[-1] == (300, 300)
    assert [done for done, _ in calls] == sorted({done for done, _ in calls})
    assert {total for _, total in calls} == {300}
