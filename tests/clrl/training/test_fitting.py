"""What does not go together is refused at once: no worker is started, and no torch loaded."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from clrl.cli.main import main
from clrl.errors import UsageError
from clrl.launch.local import LocalCrew
from clrl.settings.config import Choice, resolve
from clrl.settings.values import Place
from clrl.training import fitting
from clrl.training.dispatch import training

SUPERVISED = {"name": "supervised", "batch_size": 16}
CONTROL = "benchmark: offset-cartpole is a control task, and supervised learns from streams; "
STREAM = "benchmark: permuted-digits is a stream, and PPO acts in control tasks; "
WRONG: list[tuple[dict[str, Any], str]] = [
    ({"benchmark": "offset-cartpole", "agent": "supervised"}, CONTROL),
    ({"benchmark": "permuted-digits", "agent": "sb3:PPO"}, STREAM),
    ({"agent": SUPERVISED, "steps": 40, "log_every": 16}, "a divisor of steps (40), got 16"),
    ({"agent": SUPERVISED, "steps": 32, "log_every": 40}, "a divisor of log_every (40), got 16"),
]


@pytest.mark.parametrize(("raw", "said"), WRONG)
def test_is_refused_as_the_loops_refuse_it(raw: dict[str, Any], said: str) -> None:
    config = resolve(raw, Place())
    found = []
    for check in (fitting.check, lambda config: training(config, [0])):
        with pytest.raises(UsageError) as raised:
            check(config)
        found.append(str(raised.value))
    assert said in found[0] and found[0] == found[1]


def test_what_may_go_together_is_left_to_the_loops() -> None:
    for raw in ({"benchmark": "offset-cartpole"}, {"agent": SUPERVISED, "steps": 48}):
        fitting.check(resolve({"log_every": 16, **raw}, Place()))
    # Of a benchmark of one's own nothing is known before its module is loaded.
    config = resolve({"benchmark": "offset-cartpole", "agent": "supervised"}, Place())
    own = Choice("nowhere.to_be_found:Line", config.benchmark.options)
    fitting.check(replace(config, benchmark=own))


def test_no_worker_is_started(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def start(_: LocalCrew) -> None:
        raise AssertionError("a worker was started")

    monkeypatch.setattr(LocalCrew, "start", start)
    words = ["run", "--benchmark", "offset-cartpole", "--agent", "supervised"]
    assert main([*words, "--out", str(tmp_path / "out")]) == 2
    assert capsys.readouterr().err.startswith(f"clrl: error: offset-cartpole/sgd: {CONTROL}")
    assert not (tmp_path / "out").exists()


def test_the_look_loads_no_torch() -> None:
    code = "import sys, clrl.training.fitting; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-P", "-c", code]).returncode == 0
