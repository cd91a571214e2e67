"""A few kills of a few cases; `make torture` does many of all."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent


@pytest.mark.parametrize(
    "cases",
    [["continual-backprop", "ppo-cartpole"], pytest.param(["sb3-sac"], marks=pytest.mark.slow)],
    ids=" ".join,
)
def test_killed_training_ends_as_if_nothing_had_been(cases: list[str]) -> None:
    command = [sys.executable, str(HERE / "torture.py"), "--kills", "3", *cases]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    lines = done.stdout.splitlines()
    assert [line.partition(":")[0] for line in lines] == cases
    assert all(" 3 kills " in line for line in lines)
