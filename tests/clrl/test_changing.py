"""A changing world of the user's own: from YAML, the command line and Python; resumed; refused."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest

import clrl
from clrl.cli.choices import read_run
from clrl.cli.main import main
from clrl.envs import Changing, EverySteps, Normal, OffsetObservation, Schedule
from clrl.errors import UsageError
from clrl.settings.config import RunConfig, config_hash, differences, resolve, to_dict
from clrl.settings.values import Place
from clrl.training.control import ControlTraining
from clrl.training.dispatch import training
from clrl.training.trials import Trials

EXAMPLE = Path(__file__).parents[1] / "plugin_example"
LINE = "clrl_example.environments:clrl_example/Line-v0"
OFFSETS = (
    "{change: offset-observation, when: {every_steps: 3e2}, to: {normal: [0, 2]}, start: unchanged}"
)
LEARNER = {
    "agent": {"name": "ppo", "num_envs": 4, "num_steps": 64, "batch_size": 64, "epochs": 2},
    "network": {"name": "mlp", "widths": [8]},
    "optimizer": {"name": "adam", "lr": 1e-3},
    "steps": 768,
    "log_every": 256,
}
STRIDES = {
    "change": "physics",
    "names": ["stride"],
    "when": {"every_steps": 150, "at_episode_end": True},
    "to": {"uniform": [0.05, 0.3]},
}
ACTIONS = {"change": "permute-actions", "when": {"poisson": 5e-3}, "to": "random-permutation"}


class Lines:
    """A sink that keeps what it is given, but for times."""

    def __init__(self) -> None:
        self.lines: list[Any] = []

    def write(self, step: int, values: dict[str, float]) -> None:
        kept = {key: value for key, value in values.items() if not key.startswith("time/")}
        self.lines.append((step, kept))


@pytest.fixture
def example(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(EXAMPLE))


def config(benchmark: Any, **agent: Any) -> RunConfig:
    learner = {**LEARNER, "agent": {**LEARNER["agent"], **agent}}  # type: ignore[dict-item]
    return resolve({**learner, "benchmark": benchmark}, Place())


def own(*changes: Any) -> dict[str, Any]:
    return {"name": "changing", "id": LINE, "changes": list(changes)}


def untimed(folder: Path) -> list[dict[str, Any]]:
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [{k: v for k, v in row.items() if not k.startswith("time/")} for row in rows]


@pytest.mark.slow
def test_yaml_command_line_and_python_give_the_shipped_benchmark(tmp_path: Path) -> None:
    how: dict[str, Any] = {"workers": 1, "quiet": True}
    schedule = Schedule(EverySteps(300), Normal(0, 2), start="unchanged")
    world = Changing("CartPole-v1", ((OffsetObservation(), schedule),), {"max_episode_steps": 400})
    clrl.run(world, **LEARNER, seeds=[2, 5], out=tmp_path / "python", **how)  # type: ignore[arg-type]

    words = ["run", "--benchmark", "changing", "--benchmark.id", "CartPole-v1"]
    words += ["--benchmark.changes", f"[{OFFSETS}]"]
    words += ["--benchmark.options", "{max_episode_steps: 400}", "--network.widths", "8"]
    words += "--agent ppo --agent.num-envs 4 --agent.num-steps 64 --agent.batch-size 64".split()
    words += "--agent.epochs 2 --optimizer adam --optimizer.lr 1e-3 --seeds 2,5".split()
    words += ["--steps", "768", "--log-every", "256", "--out", str(tmp_path / "typed")]
    assert main([*words, "--workers", "1"]) == 0

    mine = (
        "benchmark:\n"
        "  name: changing\n"
        "  id: CartPole-v1\n"
        "  options: {max_episode_steps: 400}\n"
        "  changes:\n"
        f"    - {OFFSETS}\n"
    )
    learner = (
        "agent: {name: ppo, num_envs: 4, num_steps: 64, batch_size: 64, epochs: 2}\n"
        "network: {name: mlp, widths: [8]}\n"
        "steps: 768\nlog_every: 256\nseeds: [2, 5]\n"
        "learners: {adam: {optimizer: {name: adam, lr: 1e-3}}}\n"
    )
    shipped = "benchmark: {name: offset-cartpole, task_length: 300}\n"
    for name, benchmark in (("yaml", mine), ("shipped", shipped)):
        (tmp_path / f"{name}.yaml").write_text(benchmark + learner)
        clrl.suite(tmp_path / f"{name}.yaml", tmp_path / name, **how)
    for seed in ("seed-2", "seed-5"):
        expected = untimed(tmp_path / "shipped" / "offset-cartpole" / "adam" / seed)
        assert len([row for row in expected if "task/index" in row]) == 3
        for one in ("python", "typed", "yaml"):
            assert untimed(tmp_path / one / "changing" / "adam" / seed) == expected
    kept = [
        (tmp_path / one / "changing/adam/seed-2/config.yaml").read_text()
        for one in ("python", "typed", "yaml")
    ]
    assert len(set(kept)) == 1
    clrl.run(world, **LEARNER, seeds=[2, 5], out=tmp_path / "yaml", **how)  # type: ignore[arg-type]


def test_what_is_written_differently_is_the_same_run(example: None) -> None:
    one = config(own(STRIDES, ACTIONS))
    other = config(
        own(
            {
                "change": {"name": "physics", "names": "stride"},
                "when": {"every-steps": {"n": "150", "at_episode_end": True}},
                "to": {"uniform": {"low": 0.05, "high": "3e-1"}},
                "start": "drawn",
            },
            ACTIONS,
        )
    )
    assert config_hash(one) == config_hash(other)
    assert resolve(to_dict(one), Place()) == one
    longer = config(own({**STRIDES, "when": {"every_steps": 160, "at_episode_end": True}}, ACTIONS))
    assert differences(to_dict(one), to_dict(longer)) == [
        "benchmark.changes.0.when.every-steps.n 150 -> 160"
    ]


def test_a_seed_is_the_same_alone_and_among_others(example: None) -> None:
    settings = config(own(STRIDES, ACTIONS))
    together = {seed: Lines() for seed in (4, 7, 9)}
    ControlTraining(settings, [4, 7, 9]).run(together)
    alone = Lines()
    ControlTraining(settings, [7]).run({7: alone})
    assert repr(alone.lines) == repr(together[7].lines)
    assert together[4].lines != together[7].lines
    tasks = [values["task/index"] for _, values in alone.lines if "task/index" in values]
    assert len(tasks) > 3


def test_goes_on_from_a_saved_state_to_the_bit(example: None) -> None:
    settings = config(own(STRIDES, ACTIONS))
    whole = {seed: Lines() for seed in (4, 7)}
    ControlTraining(settings, [4, 7]).run(whole)
    parts = {seed: Lines() for seed in (4, 7)}
    first = ControlTraining(settings, [4, 7])
    steps = first.steps(parts)
    next(steps), next(steps)  # noqa: B018
    saved = first.state_dict()
    second = ControlTraining(settings, [4, 7])
    second.load_state_dict(saved)
    second.run(parts)
    for seed in (4, 7):
        assert repr(parts[seed].lines) == repr(whole[seed].lines)  # nan is nan


class TestTestsOfEarlierTasks:
    def test_are_those_of_the_shipped_benchmark(self) -> None:
        change = {
            "change": "offset-observation",
            "when": {"every_steps": 300},
            "to": {"normal": [0, 2]},
            "start": "unchanged",
        }
        same = {"name": "changing", "id": "CartPole-v1", "changes": [change]}
        same["options"] = {"max_episode_steps": 400}
        found = []
        for benchmark in ({"name": "offset-cartpole", "task_length": 300}, same):
            sink = Lines()
            ControlTraining(config(benchmark, test_episodes=2), [3]).run({3: sink})
            found.append(sink.lines)
        assert found[0] == found[1]
        assert "retention/return/2" in found[0][-1][1]

    def test_are_refused_where_several_changes_meet(self, example: None) -> None:
        with pytest.raises(UsageError, match="agent.test_episodes: expected 0, .* several changes"):
            ControlTraining(config(own(STRIDES, ACTIONS), test_episodes=2), [3])


def test_several_changes_are_tried_as_they_began(example: None) -> None:
    """By the values that the first tasks of training had, not by those of the trials' seeds."""
    trials = Trials(Changing(LINE, (STRIDES, ACTIONS)), [3], 2)
    assert trials.stacked and not trials.has_tasks
    values: list[Any] = []

    def look(envs: Any) -> None:
        values.append((envs.value.tolist(), envs.env.value.tolist()))

    trials.returns(lambda o: np.zeros(len(o), np.int64), 0, None, watch=look)
    never = [{**change, "when": "never"} for change in (STRIDES, ACTIONS)]
    training: Any = ControlTraining(config(own(*never)), [3])
    next(training.steps({3: Lines()}))
    actions, strides = training.envs.value[:2], training.envs.env.value[:2]
    assert values == [(actions.tolist(), strides.tolist())] * 21


def test_nothing_that_a_folder_names_is_imported(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("changing", "gymnasium"):
        world: dict[str, Any] = {"name": name, "id": "evil_module:X-v0"}
        if name == "changing":
            world["changes"] = [{"change": "flip-reward", "when": "never", "to": {"cycle": [True]}}]
        (tmp_path / "evil_module.py").write_text("raise SystemExit('imported')\n")
        (tmp_path / "suite.yaml").write_text(
            json.dumps({"benchmarks": {"x": world}, "learners": {"a": {"optimizer": "sgd"}}})
        )
        assert main(["resume", str(tmp_path)]) == 2
        assert "nothing that a results folder names is imported" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("changes", "part"),
    [
        (["[{change: phisics}]"], "there is no when"),
        ([OFFSETS.replace("offset", "ofset")], "unknown change 'ofset-observation'; did you mean"),
        ([OFFSETS.replace("normal", "norml")], "unknown schedule 'norml'; did you mean 'normal'?"),
        ([OFFSETS.replace("every_steps", "every_step")], "did you mean 'every-steps'?"),
        ([OFFSETS.replace("}, to", ", to")], "got "),
        (["offset"], "expected a mapping with change, when and to, got 'offset'"),
        ([], "--benchmark.changes: expected a value, got nothing"),
    ],
)
def test_mistakes_of_the_command_line(
    changes: list[str], part: str, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    words = ["run", "--benchmark", "changing", "--benchmark.id", "CartPole-v1"]
    words += ["--benchmark.changes", *changes, "--out", str(tmp_path / "out")]
    assert main(words) == 2
    said = capsys.readouterr().err.splitlines()
    assert len(said) == 1 and said[0].startswith("clrl: error: ") and part in said[0]
    assert not (tmp_path / "out").exists()


def drag_of(id: str) -> list[str]:
    drag = "{change: physics, names: [grvity], when: never, to: {uniform: [5, 15]}}"
    return ["--benchmark", "changing", "--benchmark.id", id, "--benchmark.changes", drag]


@pytest.mark.parametrize(
    ("words", "part"),
    [
        (drag_of("CartPol-v1"), "Did you mean: `CartPole`?"),
        (drag_of("CartPole-v1"), "'grvity'; did you mean 'gravity'?"),
        (
            ["--benchmark", "clrl_example.environments:Line"],
            "is an environment, not a benchmark; register it",
        ),
    ],
)
def test_mistakes_that_training_finds(words: list[str], part: str, example: None) -> None:
    with pytest.raises(UsageError) as raised:
        training(read_run(words)[0], [0])
    assert part in str(raised.value) and "\n" not in str(raised.value)


def test_they_are_found_before_anything_is_written(tmp_path: Path) -> None:
    code = "import sys; from clrl.cli.main import main; sys.exit(main())"
    given = ["run", *drag_of("CartPole-v1"), "--out", str(tmp_path / "out")]
    done = subprocess.run(
        [sys.executable, "-P", "-c", code, *given], capture_output=True, text=True
    )
    assert done.returncode == 2
    (said,) = [line for line in done.stderr.splitlines() if line.startswith("clrl: error: ")]
    assert "'grvity'; did you mean 'gravity'?" in said and "Traceback" not in done.stderr
    assert not (tmp_path / "out").exists()


def test_the_list_shows_changes_and_schedules(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["list", "changes"]) == 0
    said = capsys.readouterr().out
    assert "permute-observation" in said and "physical parameters by name" in said
    assert "(names)" in said
    assert main(["list", "schedules", "--json"]) == 0
    rows = {row["name"]: row["summary"] for row in json.loads(capsys.readouterr().out)["schedules"]}
    assert rows["every-steps"].endswith("(n, at_episode_end=False)")
    assert rows["uniform"].startswith("to: ") and rows["uniform"].endswith("(low, high)")


def test_an_id_of_an_environment_that_is_gone(tmp_path: Path, trained_here: None) -> None:
    with pytest.raises(UsageError, match="Did you mean"):
        clrl.run({"name": "gymnasium", "id": "CartPol-v1"}, agent="ppo", out=tmp_path, quiet=True)
    assert "CartPole-v1" in gym.registry


@pytest.mark.parametrize(
    ("maker", "agent"),
    [
        ("environments:PermutedLine", "ppo"),
        ("environments:striding_line", "ppo"),
        ("streams:TurningLine", "supervised"),
    ],
)
def test_a_benchmark_of_ones_own_has_an_agent_that_suits_it(
    example: None, maker: str, agent: str
) -> None:
    settings = resolve({"benchmark": f"clrl_example.{maker}"}, Place("test"))
    assert settings.agent.name == agent
