"""Plug-ins of every kind, a file each: they keep their contracts, and run however named."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tomllib
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pytest

import clrl
from clrl.cli.main import main
from clrl.errors import UsageError
from clrl.settings.config import resolve
from clrl.settings.values import Place
from clrl.testing import (
    check_addon,
    check_agent,
    check_environment,
    check_metric,
    check_network,
    check_optimizer,
    check_penalty,
    check_stream,
    check_unit_reset,
)
from clrl.training.dispatch import training

PLUGINS = Path(__file__).parents[2] / "plugin_example"
LINE = "clrl_example.environments:PermutedLine"

KEPT: dict[str, Callable[[], tuple[str, ...]]] = {
    "optimizer": lambda: check_optimizer("clrl_example.rules:SignSGD", lr=1e-3, steps=20),
    "optimizer with a common norm": lambda: check_optimizer(
        "clrl_example.rules:NormScaledSGD", lr=1e-2, steps=20
    ),
    "add-on": lambda: check_addon(
        "clrl_example.addons:WeightClipping", bound=0.8, neutral={"bound": 1e9}, steps=20
    ),
    "unit reset": lambda: check_unit_reset(
        "clrl_example.resets:SmallGradients",
        threshold=0.5,
        every=5,
        neutral={"threshold": 0.0},
        steps=20,
    ),
    "penalty": lambda: check_penalty(
        "clrl_example.penalties:WassersteinInit", neutral={"strength": 0.0}, steps=20
    ),
    "network": lambda: check_network("clrl_example.networks:Shortcut", width=7),
    "stream": lambda: check_stream("clrl_example.streams:TurningLine", task_length=20),
    "environment": lambda: check_environment(LINE, task_length=30),
    "a function that makes an environment and its changes": lambda: check_environment(
        "clrl_example.environments:striding_line", task_length=60
    ),
    "an environment's class": lambda: check_environment("clrl_example.environments:Line"),
    "agent": lambda: check_agent(
        "clrl_example.agents:Reinforce", num_envs=2, num_steps=50, benchmark=LINE
    ),
    "metric": lambda: check_metric("clrl_example.metrics:mean_activity"),
}


@pytest.mark.parametrize("kind", KEPT)
def test_keeps_its_contract(kind: str) -> None:
    held = KEPT[kind]()
    assert len(held) >= 5
    if kind.startswith("optimizer"):
        assert ("stacked" in held) == ("norm" not in kind)


ON_A_STREAM: dict[str, Any] = {
    "benchmark": {"name": "clrl_example.streams:TurningLine", "task_length": 20},
    "network": {"name": "clrl_example.networks:Shortcut", "width": 4},
    "optimizer": {"name": "clrl_example.rules:SignSGD", "lr": 0.02},
    "addons": [
        {"name": "clrl_example.addons:WeightClipping", "bound": 0.5},
        {"name": "clrl_example.resets:SmallGradients", "threshold": 0.5, "every": 4},
    ],
    "penalties": [{"name": "clrl_example.penalties:WassersteinInit", "strength": 0.1}],
    "steps": 40,
    "log_every": 20,
}
IN_A_WORLD: dict[str, Any] = {
    "benchmark": {"name": LINE, "task_length": 30},
    "agent": {"name": "clrl_example.agents:Reinforce", "num_envs": 2, "num_steps": 20},
    "network": {"name": "clrl_example.networks:Shortcut", "width": 4},
    "optimizer": {"name": "clrl_example.rules:SignSGD", "lr": 0.02},
    "steps": 80,
    "log_every": 40,
}
RUNS = {"stream": ON_A_STREAM, "world": IN_A_WORLD}
METHODS = ("optimizer", "addons", "penalties")


@pytest.fixture(autouse=True)
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What pip writes when the example is installed, written by hand: a metric needs it."""
    project = tomllib.loads((PLUGINS / "pyproject.toml").read_text())["project"]
    info = tmp_path / "site" / "clrl_example-0.1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: clrl-example\nVersion: 0.1.0\n")
    points = project["entry-points"]["clrl.metrics"].items()
    lines = "".join(f"{name} = {target}\n" for name, target in points)
    (info / "entry_points.txt").write_text(f"[clrl.metrics]\n{lines}")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tmp_path / "site"), str(PLUGINS)]))
    monkeypatch.syspath_prepend(str(tmp_path / "site"))
    monkeypatch.chdir(tmp_path)


def command(*words: str) -> None:
    start = "import sys; from clrl.cli.main import main; sys.exit(main())"
    done = subprocess.run(
        [sys.executable, "-P", "-c", start, *words], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr


def words_of(settings: dict[str, Any]) -> list[str]:
    """The settings as the command line takes them."""
    words: list[str] = []
    for key, value in settings.items():
        if isinstance(value, list):
            words += [f"--{key}", *(one["name"] for one in value)]
            choices = [(f"{key}.{one['name'].partition(':')[2]}", one) for one in value]
        elif isinstance(value, dict):
            words += [f"--{key}", value["name"]]
            choices = [(key, value)]
        else:
            words += [f"--{key.replace('_', '-')}", str(value)]
            continue
        for prefix, one in choices:
            for name, option in one.items():
                if name != "name":
                    words += [f"--{prefix}.{name.replace('_', '-')}", str(option)]
    return words


def recorded(folder: Path) -> list[dict[str, Any]]:
    (metrics,) = folder.rglob("metrics.jsonl")
    lines = [json.loads(line) for line in metrics.read_text().splitlines()]
    assert "plasticity/network/mean_activity" in {key for line in lines for key in line}
    return [{k: v for k, v in one.items() if not k.startswith("time/")} for one in lines]


@pytest.mark.parametrize("name", [pytest.param("stream", marks=pytest.mark.slow), "world"])
def test_runs_from_the_command_line_from_yaml_and_from_python_alike(
    name: str, tmp_path: Path, here: Callable[[], AbstractContextManager[None]]
) -> None:
    """The first in processes of its own, which have to find the plug-in by themselves."""
    settings = RUNS[name]
    command("run", *words_of(settings), "--workers", "1", "--out", "typed")
    learners = {"mine": {key: settings[key] for key in METHODS if key in settings}}
    rest = {key: value for key, value in settings.items() if key not in learners["mine"]}
    # JSON is YAML.
    Path("mine.yaml").write_text(json.dumps({**rest, "seeds": "0", "learners": learners}))
    with here():
        assert main(["suite", "./mine.yaml", "--workers", "1", "--out", "written"]) == 0
        clrl.run(**settings, seeds=0, out="called", workers=1, quiet=True)
    typed, written, called = (recorded(tmp_path / one) for one in ("typed", "written", "called"))
    assert typed == written == called
    assert ("online/penalty" in typed[-1]) == ("penalties" in settings)


@pytest.mark.parametrize(
    ("key", "name"), [("penalties", "l2-init"), ("consolidation", "broken_plugins:ForReinforce")]
)
def test_an_agent_is_not_given_what_it_does_not_take(key: str, name: str) -> None:
    config = resolve({**IN_A_WORLD, key: [name]}, Place())
    with pytest.raises(UsageError) as raised:
        training(config, [0])
    agent = IN_A_WORLD["agent"]["name"]
    said = f"agent: {agent} takes no {key}; expected one such as ppo"
    assert str(raised.value) == said
