"""The Python interface: what the command line does, with the same numbers, folders and messages."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import clrl
from clrl.cli.main import main

TINY: dict[str, Any] = {
    "benchmark": {"name": "permuted-digits", "task_length": 20},
    "network": {"name": "mlp", "widths": [4]},
    "steps": 40,
    "log_every": 20,
}
WORDS = "--benchmark permuted-digits --benchmark.task-length 20 --network.widths 4"
WORDS += " --steps 40 --log-every 20"

SUITE = """
benchmark: {name: permuted-digits, task_length: 20}
network: {name: mlp, widths: [4]}
steps: 40
log_every: 20
seeds: 0-1
learners:
  sgd: {optimizer: sgd}
  adam: {optimizer: {name: adam, lr: 1e-3}}
"""


def untimed(folder: Path) -> list[dict[str, Any]]:
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [{k: v for k, v in row.items() if not k.startswith("time/")} for row in rows]


@pytest.mark.slow
def test_run_leaves_what_the_command_line_leaves(tmp_path: Path) -> None:
    words = [*WORDS.split(), "--optimizer", "adam", "--optimizer.lr", "1e-2", "--seeds", "0-1"]
    assert main(["run", *words, "--out", str(tmp_path / "typed")]) == 0
    runs = clrl.run(
        **TINY,
        optimizer={"name": "adam", "lr": np.float64(1e-2)},
        seeds=range(2),
        out=tmp_path / "called",
        quiet=True,
    )
    assert runs.seeds == (0, 1)
    assert set(runs.states.values()) == {"finished"}
    for seed in (0, 1):
        typed, called = (
            tmp_path / one / "permuted-digits/adam" / f"seed-{seed}" for one in ("typed", "called")
        )
        assert untimed(typed) == untimed(called)
        for name in ("config.yaml",):
            assert (typed / name).read_text() == (called / name).read_text()
        # One value a line that has the tag, at the step of that line.
        own = [row["online/accuracy"] for row in untimed(typed) if "online/accuracy" in row]
        curve = runs.select(seeds=seed).curve("online/accuracy")
        assert curve.values.tolist() == [own]
        assert curve.steps.tolist() == [20, 40]


@pytest.mark.slow
def test_a_call_again_does_what_is_missing_and_gives_what_was_asked_for(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    clrl.run(**TINY, out=tmp_path, quiet=True)
    first = (tmp_path / "permuted-digits/sgd/seed-0/metrics.jsonl").stat().st_mtime_ns
    assert capsys.readouterr().err == ""
    runs = clrl.run(**TINY, seeds="1-2", out=tmp_path)
    assert "2 of 2 runs to do" in capsys.readouterr().err
    assert runs.seeds == (1, 2)
    again = clrl.run(**TINY, seeds=[0, 1, 2], out=tmp_path)
    assert "nothing to do, all 3 runs" in capsys.readouterr().err
    assert again.seeds == (0, 1, 2)
    assert (tmp_path / "permuted-digits/sgd/seed-0/metrics.jsonl").stat().st_mtime_ns == first


@pytest.mark.slow
def test_suite_is_the_command_lines(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "tiny.yaml").write_text(SUITE)
    monkeypatch.chdir(tmp_path)
    results = clrl.suite("./tiny.yaml", seeds=[0], quiet=True)
    assert results.folder == Path("runs/tiny")
    assert results.learners == ("sgd", "adam")
    assert results.seeds == (0,)
    # The command goes on where the call left off: the second seed alone is to be done.
    assert main(["suite", "./tiny.yaml"]) == 0
    assert clrl.load("runs/tiny").seeds == (0, 1)
    scratch = clrl.suite(tmp_path / "tiny.yaml", out="runs/more", with_scratch=True, quiet=True)
    assert scratch.learners == ("sgd", "sgd+scratch", "adam", "adam+scratch")


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"optimizer": "adm"}, "--optimizer adm"),
        ({"optimizer": {"name": "adam", "lr": "fast"}}, "--optimizer adam --optimizer.lr fast"),
        ({"steps": 0}, "--steps 0"),
        ({"seeds": "3-1"}, "--seeds 3-1"),
        ({"benchmark": "offset-cartpole", "agent": "supervised"}, None),
        ({"workers": 0}, "--workers 0"),
        ({"device": "cuda", "launcher": "slurm"}, "--device cuda --launcher slurm"),
    ],
)
def test_mistakes_are_the_command_lines(
    given: dict[str, Any],
    words: str | None,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    out = tmp_path / "out"
    words = words or "--benchmark offset-cartpole --agent supervised"
    assert main(["run", *words.split(), "--out", str(out)]) == 2
    typed = capsys.readouterr().err
    with pytest.raises(clrl.UsageError) as raised:
        clrl.run(**given, out=out, quiet=True)
    # What was typed is text, and is shown as such.
    told = typed.splitlines()[-1].replace("got '0'", "got 0")
    assert told == f"clrl: error: {raised.value}"
    assert not out.exists()


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({"sedes": 3}, "--sedes: unknown key"),
        ({"seeds": None}, "--seeds: expected seeds such as"),
        ({"optimizer": {"lr": "x"}}, "--optimizer.lr: expected a number >= 0, got 'x'"),
        ({"addons": {"shrink-and-perturb"}}, "expected a list"),
        ({"dry_run": True}, "--dry-run: expected on the command line"),
    ],
)
def test_mistakes_of_calls(given: dict[str, Any], expected: str, tmp_path: Path) -> None:
    with pytest.raises(clrl.UsageError, match="^[^\n]*$") as raised:
        clrl.run(**given, out=tmp_path / "out", quiet=True)
    assert expected in str(raised.value)
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_a_run_that_fails_is_told_and_the_others_are_there(tmp_path: Path) -> None:
    (tmp_path / "failing.py").write_text(
        "import torch\n"
        "class Failing(torch.optim.SGD):\n"
        "    def __init__(self, params, lr: float = 0.1):\n"
        "        super().__init__(params, lr=lr)\n"
        "        self.steps = 0\n"
        "    def step(self, closure=None):\n"
        "        self.steps += 1  # more than are tried before training begins\n"
        "        if self.steps > 50:\n"
        "            raise ArithmeticError('no such number')\n"
    )
    script = (
        "import clrl\n"
        "try:\n"
        "    clrl.run(optimizer='failing:Failing', steps=100, out='out', quiet=True)\n"
        "except clrl.RunsFailed as error:\n"
        "    print(error)\n"
        "print(*clrl.load('out').states.values())\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    told, states = done.stdout.splitlines()
    assert "no such number" in told and "error.txt" in told
    assert states == "failed"


@pytest.mark.slow
def test_a_script_without_a_guard_and_a_thread_can_train(tmp_path: Path) -> None:
    script = (
        "import sys, threading, clrl\n"
        f"tiny = {TINY!r}\n"
        "def train():\n"
        "    runs = clrl.run(**tiny, seeds=[0, 1], out='out', workers=2)\n"
        "    print(runs.curve('online/loss').shape)\n"
        "train()\n"
        "thread = threading.Thread(target=lambda: clrl.run(**tiny, seeds=[5], out='other'))\n"
        "thread.start(); thread.join()\n"
        "print(clrl.load('other').states, 'torch' in sys.modules)\n"
    )
    done = subprocess.run(
        [sys.executable, "-P", "-"],
        input=script,
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.splitlines() == [
        "(2, 2)",
        "{('permuted-digits', 'sgd', 5): 'finished'} False",
    ]
    assert "2 of 2 runs to do in out, workers: 2" in done.stderr  # plain lines: no terminal here


def test_a_control_task_brings_an_agent_that_acts(capsys: pytest.CaptureFixture[str]) -> None:
    from clrl.settings.config import default_agent

    assert default_agent("offset-cartpole") == default_agent("gymnasium") == "ppo"
    assert default_agent("permuted-digits") == "supervised"
    assert main(["run", "--benchmark", "offset-cartpole", "--help"]) == 0
    assert "--agent.num-envs" in capsys.readouterr().out


@pytest.mark.slow
def test_an_interrupted_call_goes_on_from_its_checkpoint(tmp_path: Path) -> None:
    given = TINY | {"steps": 400_000, "log_every": 200_000}
    script = (
        "import _thread, os, signal, threading, time, clrl\n"
        "from pathlib import Path\n"
        f"given = {given!r}\n"
        "def interrupt():\n"
        "    while not any(Path('out').glob('*/*/seed-0/metrics.jsonl')):\n"
        "        time.sleep(0.05)\n"
        "    time.sleep(1)\n"
        "    os.kill(os.getpid(), signal.SIGINT)\n"
        "threading.Thread(target=interrupt, daemon=True).start()\n"
        "try:\n"
        "    clrl.run(**given, out='out', quiet=True)\n"
        "except KeyboardInterrupt:\n"
        "    print(*clrl.load('out').states.values())\n"
        "    print(clrl.load_policy('out/permuted-digits/sgd/seed-0').step > 0)\n"
    )
    done = subprocess.run(
        [sys.executable, "-P", "-"],
        input=script,
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.split() == ["preempted", "True"]
