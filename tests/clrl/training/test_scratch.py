"""The scratch reference: learners that are made new with every task."""

from __future__ import annotations

import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from torch import nn

from clrl import suites
from clrl.agents.networks import MLP
from clrl.agents.options import MLPOptions, SupervisedOptions
from clrl.agents.supervised import Supervised
from clrl.cli.main import main
from clrl.envs.streams.permuted import PermutedDigits
from clrl.errors import UsageError
from clrl.seeding import derived_seed
from clrl.settings.config import RunConfig, resolve
from clrl.settings.values import Place
from clrl.storage import record
from clrl.training.loop import update_rule
from clrl.training.streams import Training

TASK = 60
RULES: dict[str, dict[str, Any]] = {
    "sgd": {"optimizer": {"name": "sgd", "momentum": 0.9}},
    "adam": {"optimizer": "adam"},
    "upgd": {"optimizer": {"name": "upgd", "sigma": 0.1}},
    "shrink-and-perturb": {"optimizer": {"name": "shrink-and-perturb", "noise_scale": 0.01}},
    "continual-backprop": {
        "optimizer": {
            "name": "continual-backprop",
            "base": "adam",
            "replacement_rate": 0.05,
            "maturity_threshold": 5,
        }
    },
    "of one's own, by the global generator": {"optimizer": f"{__name__}:Noisy"},
}


class Noisy(torch.optim.Optimizer):
    """SGD with noise from torch's global generator."""

    def __init__(self, params: Any, lr: float = 0.01) -> None:
        super().__init__(params, {"lr": lr})

    def step(self, closure: Any = None) -> None:
        with torch.no_grad():
            for group in self.param_groups:
                for p in group["params"]:
                    p.sub_(group["lr"] * (p.grad + torch.randn_like(p)))


class Nowhere:
    """A sink that keeps steps and values of one tag."""

    def __init__(self) -> None:
        self.lines: list[tuple[int, dict[str, float]]] = []

    def write(self, step: int, values: Mapping[str, float]) -> None:
        kept = {key: value for key, value in values.items() if not key.startswith("time/")}
        self.lines.append((step, kept))


def config(rule: str = "adam", **more: Any) -> RunConfig:
    raw = {
        "benchmark": {"name": "permuted-digits", "task_length": TASK},
        "agent": {"name": "supervised", "diagnose_every": 10, "reset_at_change": True},
        "network": {"name": "mlp", "widths": [12, 8]},
        "steps": 3 * TASK,
        "log_every": TASK,
        "chunk_size": 2,
        **RULES[rule],
        **more,
    }
    return resolve(raw, Place("test"))


def rows_at(settings: RunConfig, seeds: list[int], step: int) -> dict[str, torch.Tensor]:
    """The parameters of a population when it gets to a step."""
    training = Training(settings, seeds)
    steps = training.steps({seed: Nowhere() for seed in seeds})
    while training.step < step:
        next(steps)
    return {name: value.clone() for name, value in training.agent.population.parameters().items()}


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("task", [1, 2])
def test_within_a_task_it_is_a_fresh_learner_of_that_task_alone(rule: str, task: int) -> None:
    settings = config(rule)
    # Amid a task: what a change at its end would make new is not looked at.
    scratch = rows_at(settings, [3, 4], task * TASK + 50)
    for member, seed in enumerate([3, 4]):
        stream = PermutedDigits(seed, task_length=TASK)
        stream.next(task * TASK)
        x, y = (torch.from_numpy(part)[None] for part in stream.next(50))
        fresh = fresh_learner(seed, task, settings)
        fresh.learn(x, y)
        for name, value in fresh.population.parameters().items():
            assert torch.equal(scratch[name][member], value[0]), name


def fresh_learner(seed: int, task: int, settings: RunConfig) -> Supervised:
    """A learner by itself that never saw another task, from the task's initial draw."""

    def make(generator: torch.Generator) -> MLP:
        first = torch.Generator().manual_seed(derived_seed(seed, f"network/task-{task}"))
        return MLP(64, 10, MLPOptions(widths=(12, 8)), first)

    rule, options = update_rule(settings), SupervisedOptions()
    learner = Supervised([seed], "classification", make, rule, options, engine=settings.engine)
    for generator in learner.population._generators:
        generator.manual_seed(derived_seed(seed, f"update/task-{task}"))
    return learner


def test_against_plain_pytorch() -> None:
    settings = config("adam")
    scratch = rows_at(settings, [3], 2 * TASK + 50)
    stream = PermutedDigits(3, task_length=TASK)
    stream.next(2 * TASK)
    generator = torch.Generator().manual_seed(derived_seed(3, "network/task-2"))
    network = MLP(64, 10, MLPOptions(widths=(12, 8)), generator)
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-3)
    for _ in range(50):
        x, y = (torch.from_numpy(part) for part in stream.next(1))
        optimizer.zero_grad()
        nn.functional.cross_entropy(network(x), y).backward()
        optimizer.step()
    for name, value in network.named_parameters():
        torch.testing.assert_close(scratch[name][0], value.detach(), rtol=1e-4, atol=1e-5)


def test_draws_differ_from_task_to_task_and_seed_to_seed() -> None:
    found = [rows_at(config(), [3, 4], task * TASK)["linears.0.weight"] for task in (1, 2)]
    draws = [member for one in found for member in one]  # as they are when a task begins
    for i, one in enumerate(draws):
        assert all(not torch.equal(one, other) for other in draws[i + 1 :])


@pytest.mark.parametrize("rule", RULES)
def test_noise_differs_from_task_to_task(rule: str) -> None:
    """A task that is the first one again, from the same network, gives something else."""
    training = Training(config(rule), [3])
    agent = training.agent
    x, y = training.next_examples(TASK)
    results = []
    for task in (1, 2):
        agent.restart(task)
        start = torch.Generator().manual_seed(0)
        fresh = MLP(64, 10, MLPOptions(widths=(12, 8)), start)
        for name, value in agent.population.parameters().items():
            value[0].copy_(fresh.get_parameter(name).detach())
        agent.learn(x, y)
        results.append(agent.population.rows.clone())
    assert torch.equal(*results) == (rule in ("sgd", "adam"))


@pytest.mark.parametrize("rule", RULES)
def test_members_stay_independent(rule: str) -> None:
    together, alone = Nowhere(), Nowhere()
    others = {5: Nowhere(), 6: Nowhere()}
    Training(config(rule), [5, 3, 6]).run({3: together, **others})
    Training(config(rule, chunk_size=1), [3]).run({3: alone})
    assert together.lines == alone.lines


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("at", [TASK, TASK + 50])
def test_it_is_in_the_state(rule: str, at: int) -> None:
    whole, early, late = Nowhere(), Nowhere(), Nowhere()
    Training(config(rule, log_every=10), [3]).run({3: whole})
    first = Training(config(rule, log_every=10), [3])
    steps = first.steps({3: early})
    while first.step < at:
        next(steps)
    file = io.BytesIO()
    torch.save(first.state_dict(), file)
    file.seek(0)
    second = Training(config(rule, log_every=10), [3])
    second.load_state_dict(torch.load(file, weights_only=True))
    second.run({3: late})
    assert early.lines + late.lines == whole.lines


def test_a_diverged_member_stays_as_it_is() -> None:
    training = Training(config(), [3, 4])
    steps = training.steps({3: Nowhere(), 4: Nowhere()})
    next(steps)
    population = training.agent.population
    population.freeze_diverged(torch.tensor([[torch.nan], [0.0]]))
    before = population.rows.clone()
    while training.step < TASK:
        next(steps)
    assert population.frozen.tolist() == [True, False]
    assert torch.equal(population.safe_parameters["linears.0.weight"][0],
                       population._flat.views(before)["linears.0.weight"][0])  # fmt: skip


def test_nothing_is_made_new_unless_asked_for() -> None:
    agent = {"name": "supervised", "diagnose_every": 10}
    trained = rows_at(config(agent=agent), [3], TASK)["linears.0.weight"][0]
    generator = torch.Generator().manual_seed(derived_seed(3, "network/task-1"))
    fresh = MLP(64, 10, MLPOptions(widths=(12, 8)), generator).linears[0].weight
    assert not torch.equal(trained, fresh)
    assert torch.equal(rows_at(config(), [3], TASK)["linears.0.weight"][0], fresh)


LEARNERS: dict[str, Any] = {
    "adam": {"optimizer": {"name": "adam", "lr": [0.1, 0.2]}},
    "ppo": {"optimizer": "adam", "agent": "ppo", "benchmarks": ["pole"]},
    "oracle": {
        "optimizer": "adam",
        "agent": {"name": "ppo", "reset_at_change": True},
        "benchmarks": ["pole"],
    },
}
BENCHMARKS = {"digits": "permuted-digits", "pole": "switching-cartpole"}


def made(learners: dict[str, Any]) -> suites.Suite:
    raw = {"benchmarks": BENCHMARKS, "seeds": "0-1", "learners": learners}
    return suites.from_mapping(raw, Place("s.yaml"), "s")


class TestSuites:
    def test_each_learner_and_setting_gets_its_reference(self) -> None:
        plain = made(LEARNERS)
        found = suites.with_scratch(plain)
        assert list(found.learners) == [
            "adam+lr=0.1", "adam+lr=0.1+scratch", "adam+lr=0.2", "adam+lr=0.2+scratch",
            "ppo", "ppo+scratch", "oracle",
        ]  # fmt: skip
        assert found.scratch_of == {
            f"{label}+scratch": label for label in ("adam+lr=0.1", "adam+lr=0.2", "ppo")
        }
        assert found.only["ppo+scratch"] == ("pole",)
        assert found.sweeps == plain.sweeps  # a reference is no setting of the sweep
        for label, config in plain.learners.items():
            assert found.learners[label] == config
        one = found.learners["ppo+scratch"]
        assert one.agent.options.reset_at_change is True
        assert one.optimizer == plain.learners["ppo"].optimizer

    def test_what_is_kept_gives_the_same_runs(self) -> None:
        found = suites.with_scratch(made(LEARNERS))
        text = record.to_yaml(found.to_dict())
        again = suites.from_mapping(yaml.safe_load(text), Place("kept"), "s")
        assert again == found
        assert suites.with_scratch(again) == found
        assert yaml.safe_load(text)["learners"]["ppo+scratch"]["scratch_of"] == "ppo"

    def test_agents_that_cannot_be_made_new(self) -> None:
        learners = {"theirs": {"optimizer": "adam", "agent": "sb3:PPO"}}
        with pytest.raises(UsageError) as caught:
            suites.with_scratch(made(learners))
        assert str(caught.value) == (
            "--with-scratch: learner theirs: sb3:PPO cannot be made new with a task; expected an "
            "agent that has reset_at_change, such as supervised or ppo"
        )

    @pytest.mark.parametrize(
        ("label", "more", "line"),
        [
            ("a", {"a+scratch": {"optimizer": "sgd"}}, "'a+scratch' is there already"),
            ("a" * 95, {}, "is too long"),
        ],
    )
    def test_labels_that_will_not_do(self, label: str, more: dict[str, Any], line: str) -> None:
        with pytest.raises(UsageError, match=line.replace("+", r"\+")):
            suites.with_scratch(made({label: {"optimizer": "sgd"}, **more}))

    def test_on_the_command_line(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        tables: list[suites.Suite] = []
        monkeypatch.setattr(suites, "carry_out", lambda table, *_: tables.append(table) or [])
        words = ["suite", "quickstart", "--seeds", "0-1", "--out", str(tmp_path / "out")]
        assert main([*words, "--with-scratch"]) == 0
        assert len(tables[0].learners) == 17
        # nine learners, each on one benchmark; one is made new with every task as it is
        assert capsys.readouterr().err == (
            "quickstart: 34 runs, 2 seeds of 17 pairs of benchmark and learner "
            "(17 learners, 8 scratch references)\n"
        )
        assert main(words) == 0
        assert tables[1].scratch_of == {}
        assert capsys.readouterr().err == ""
