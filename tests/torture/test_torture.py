"""A few kills of a few cases; `make torture` does many of all."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parent


def test_killed_training_ends_as_if_nothing_had_been() -> None:
    command = [sys.executable, str(HERE / "torture.py"), "--kills", "5"]
    done = subprocess.run(
        [*command, "continual-backprop", "ppo-cartpole", "sb3-sac"], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr
    lines = done.stdout.splitlines()
    assert [line.partition(":")[0] for line in lines] == [
        "continual-backprop",
        "ppo-cartpole",
        "sb3-sac",
    ]
    assert all(" 5 kills " in line for line in lines)
