"""Defaults that follow agent and benchmark, and what `clrl show` says of them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from clrl import suites
from clrl.agents import defaults as of_agents
from clrl.agents.optim.options import AdamOptions, RMSpropOptions, SGDOptions
from clrl.agents.optim.table import ADDONS, OPTIMIZERS
from clrl.agents.options import MLPOptions
from clrl.agents.table import AGENTS, NETWORKS
from clrl.benchmarks import BENCHMARKS
from clrl.cli.choices import read_run
from clrl.cli.main import main
from clrl.registry import Table
from clrl.settings import suite_files
from clrl.settings.config import Choice, RunConfig, options_type, resolve
from clrl.settings.values import Place, build
from clrl.tuned import resolve_run

PLACE = Place("here")
TANH = MLPOptions((64, 64), "tanh", init="orthogonal")


def run(*words: str) -> RunConfig:
    return read_run(words)[0]


@pytest.mark.parametrize(
    ("agent", "optimizer", "network"),
    [
        ("supervised", Choice("sgd", SGDOptions()), MLPOptions()),
        ("ppo", Choice("adam", AdamOptions(3e-4)), TANH),
        ("sb3:PPO", Choice("adam", AdamOptions(3e-4, eps=1e-5)), TANH),
        ("sb3:A2C", Choice("rmsprop", RMSpropOptions(7e-4, eps=1e-5)), TANH),
        ("sb3:DQN", Choice("adam", AdamOptions(1e-4)), MLPOptions((64, 64))),
        ("sb3:SAC", Choice("adam", AdamOptions(3e-4)), MLPOptions((256, 256))),
        ("sb3:TD3", Choice("adam", AdamOptions(1e-3)), MLPOptions((400, 300))),
    ],
)
def test_network_and_update_rule_go_with_the_agent(
    agent: str, optimizer: Choice, network: MLPOptions
) -> None:
    config = resolve({"agent": agent}, PLACE)
    assert (config.optimizer, config.network.options) == (optimizer, network)


def test_what_is_said_stays_and_the_rest_goes_with_the_agent() -> None:
    raw = {"agent": "ppo", "network": {"widths": [16]}, "optimizer": {"lr": 1}}
    config = resolve(raw, PLACE)
    assert config.network.options == replace(TANH, widths=(16,))
    assert config.optimizer == Choice("adam", AdamOptions(1.0))
    over = resolve({"agent": "ppo", "optimizer": "continual-backprop"}, PLACE)
    assert over.optimizer == Choice("adam", AdamOptions(3e-4))
    upgd = resolve({"agent": "ppo", "optimizer": "upgd"}, PLACE).optimizer.options
    assert upgd != build(options_type(OPTIMIZERS, "upgd", PLACE), {}, PLACE)


def test_benchmark_and_agent_follow_each_other() -> None:
    assert run("--benchmark", "permuted-digits").agent.name == "supervised"
    assert run("--benchmark", "offset-cartpole").agent.name == "ppo"
    assert run("--agent", "ppo").benchmark.name == "offset-cartpole"
    assert run().benchmark.name == "permuted-digits"


def test_a_benchmarks_own_suite_says_how_it_is_trained() -> None:
    learners = suites.load("offset-cartpole").learners
    ours = run("--benchmark", "offset-cartpole")
    adam = learners["adam"]
    assert (ours.agent, ours.network) == (adam.agent, adam.network)
    assert ours.optimizer == adam.optimizer
    assert ours.steps == RunConfig.steps
    over = run("--benchmark", "offset-cartpole", "--optimizer", "shrink-and-perturb")
    expected = learners["shrink-and-perturb"]
    assert (over.optimizer, over.addons) == (expected.optimizer, expected.addons)
    other = run("--benchmark", "offset-cartpole", "--optimizer", "adamw")
    assert other.network == adam.network
    assert other.optimizer.options.lr == 3e-4  # goes with ppo: the suite has no adamw
    assert run("--benchmark", "offset-cartpole", "--agent", "sb3:PPO").network.options == TANH


@pytest.mark.parametrize(
    "words", [["HalfCheetah-v5"], ["gymnasium", "--benchmark.id", "HalfCheetah-v4"]]
)
def test_an_environment_says_how_it_is_trained(words: list[str]) -> None:
    ours = run("--benchmark", *words, "--agent.epochs", "3")
    assert (ours.agent.name, ours.network.options.widths) == ("ppo", (256, 256))
    assert (ours.agent.options.gamma, ours.agent.options.epochs) == (0.98, 3)
    assert (ours.optimizer.name, ours.optimizer.options.lr) == ("adam", 2.0633e-5)
    other = run("--benchmark", *words, "--agent", "sb3:PPO")
    assert other.network.options == TANH
    assert run("--benchmark", "Swimmer-v5").network.options == TANH


def test_help_shows_the_defaults_that_hold(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["run", "--benchmark", "offset-cartpole", "--help"]) == 0
    printed = " ".join(capsys.readouterr().out.split())
    assert "(default: 256 256 256)" in printed
    assert "step size. (default: 0.001)" in printed
    config = run("--benchmark", "offset-cartpole", "--network.layer-norm", "true")
    assert type(config.network.options) is MLPOptions


def test_every_default_is_one_that_its_options_allow() -> None:
    tables: list[Table] = [NETWORKS, OPTIMIZERS, ADDONS]
    for name, agent in of_agents.DEFAULTS.items():
        assert name in AGENTS
        assert agent.benchmark in BENCHMARKS
        assert agent.optimizer in OPTIMIZERS
        assert agent.network in NETWORKS
        for entry, options in agent.options.items():
            (table,) = (one for one in tables if entry in one)
            build(options_type(table, entry, PLACE), options, PLACE)
    for own in of_agents.BY_ENVIRONMENT.values():
        for entry, options in own.items():
            (table,) = (one for one in [*tables, AGENTS] if entry in one)
            build(options_type(table, entry, PLACE), options, PLACE)


@pytest.mark.parametrize("name", suite_files.names())
def test_suites_that_come_along_say_themselves_what_goes_with_an_agent(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So that no change of these defaults changes their numbers."""
    before = suites.load(name).to_dict()
    plain = {
        agent: of_agents.AgentDefaults(own.benchmark, own.optimizer)
        for agent, own in of_agents.DEFAULTS.items()
    }
    monkeypatch.setattr("clrl.settings.defaults.DEFAULTS", plain)
    assert suites.load(name).to_dict() == before


class TestShow:
    def shown(self, capsys: pytest.CaptureFixture[str], *words: str) -> dict[str, list[str]]:
        assert main(["show", *words]) == 0
        lines = capsys.readouterr().out.splitlines()
        return {line.split()[0]: line.split()[1:] for line in lines}

    def test_a_run(self, capsys: pytest.CaptureFixture[str]) -> None:
        words = ["--benchmark", "offset-cartpole", "--network.widths", "3", "--seeds", "0-2"]
        rows = self.shown(capsys, "run", *words)
        assert rows["benchmark"] == ["offset-cartpole", "command", "line"]
        assert rows["agent"] == ["ppo", "benchmark", "offset-cartpole"]
        assert rows["agent.reward_scale"] == ["0.05", "suite", "offset-cartpole"]
        assert rows["network.widths"] == ["[3]", "command", "line"]
        assert rows["steps"] == ["100000", "default"]
        place = "runs/offset-cartpole/offset-cartpole/:"
        assert rows["into"] == [place, "adam;", "seeds", "0-2"]

    def test_what_goes_with_an_agent(self, capsys: pytest.CaptureFixture[str]) -> None:
        words = ["--agent", "ppo", "--benchmark", "CartPole-v1", "--optimizer.base", "adam"]
        rows = self.shown(capsys, "run", *words, "--optimizer", "continual-backprop")
        assert rows["optimizer.lr"] == ["0.0003", "agent", "ppo"]
        assert rows["optimizer.betas"] == ["[0.9,", "0.999]", "default"]
        assert rows["addons.continual-backprop"][1:] == ["command", "line"]

    def test_a_suite(self, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
        file = tmp_path / "mine.yaml"
        file.write_text(
            "benchmarks:\n  permuted-digits: {task_length: 500}\n  CartPole-v1:\n"
            "network: {widths: [16]}\nlearners:\n"
            "  adam: {optimizer: {lr: 0.5}, benchmarks: [CartPole-v1]}\n"
            "  other: {optimizer: {lr: [1, 2]}, benchmarks: [permuted-digits]}\n"
        )
        assert main(["show", str(file)]) == 0
        printed = capsys.readouterr().out
        first, rest = printed.split("learner adam, on CartPole-v1 alone:")
        adam, one, two = rest.split("learner other+")
        assert f"network.widths [16] {file}" in " ".join(first.split())
        for part, words in (
            (first, ["benchmark permuted-digits: permuted-digits", "task_length", "500"]),
            (adam, ["agent ", "ppo", "network.activation", "tanh", "optimizer.lr", "0.5"]),
            (one, ["lr=1.0", "supervised", "relu", "sgd"]),
            (two, ["lr=2.0"]),
        ):
            assert all(word in part for word in words), part

    @pytest.mark.parametrize(
        ("words", "message"),
        [
            ([], "clrl show: expected NAME|FILE|run; see clrl show --help"),
            (["quickstrt"], "unknown suite 'quickstrt'; did you mean 'quickstart'?"),
            (["run", "--agent", "pppo"], "--agent: unknown agent 'pppo'; did you mean 'ppo'?"),
        ],
    )
    def test_mistakes(
        self, words: list[str], message: str, capsys: pytest.CaptureFixture[str]
    ) -> None:
        assert main(["show", *words]) == 2
        assert capsys.readouterr().err == f"clrl: error: {message}\n"


def test_python_and_command_line_choose_alike() -> None:
    raw: dict[str, Any] = {"benchmark": "slippery-ant", "optimizer": {"name": "adam", "lr": 1}}
    words = ["--benchmark", "slippery-ant", "--optimizer", "adam", "--optimizer.lr", "1"]
    assert resolve_run(raw, Place()) == run(*words)
