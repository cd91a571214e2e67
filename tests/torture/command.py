"""The command line as a process of its own, as users have it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import yaml

from clrl.storage import record

CLRL = [sys.executable, "-P", "-c", "import sys; from clrl.cli.main import main; sys.exit(main())"]
HERE = Path(__file__).parent
SMALL: dict[str, Any] = {
    "benchmarks": {
        "digits": {"name": "permuted-digits", "task_length": 500},
    },
    "network": {"name": "mlp", "widths": [16]},
    "steps": 3000,
    "log_every": 250,
    "chunk_size": 1,
    "seeds": "0-2",
    "learners": {
        "adam": {"optimizer": {"name": "adam", "lr": 1e-3}},
        "upgd": {"optimizer": {"name": "upgd", "lr": 0.01}},
        "shrink": {"optimizer": {"name": "shrink-and-perturb", "lr": 0.01}},
    },
}
"""A suite of nine runs, seconds long."""


def suite_file(folder: Path, **changes: Any) -> Path:
    """Write `SMALL`, or something like it, as a suite file."""
    path = folder / "small.yaml"
    path.write_text(yaml.safe_dump({**SMALL, **changes}, sort_keys=False))
    return path


def start(*words: object, die_at: str = "", **options: Any) -> subprocess.Popen[str]:
    """Start ``clrl``; where ``die_at`` says so it kills itself (see ``injected``)."""
    env = {**os.environ, **options.pop("env", {})}
    if die_at:
        env |= {"CLRL_DIE_AT": die_at, "PYTHONPATH": f"{HERE / 'injected'}:{HERE}"}
    streams = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    return subprocess.Popen([*CLRL, *map(str, words)], env=env, **{**streams, **options})


def run(*words: object, **options: Any) -> subprocess.CompletedProcess[str]:
    """Carry out ``clrl`` to its end."""
    process = start(*words, **options)
    out, err = process.communicate()
    return subprocess.CompletedProcess(process.args, process.returncode, out, err)


def kill_after(seconds: float, *words: object) -> int:
    """Start ``clrl`` and kill it; its exit status."""
    process = start(*words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        process.wait(seconds)
    except subprocess.TimeoutExpired:
        process.send_signal(signal.SIGKILL)
    return process.wait()


def states(out: Path) -> dict[str, str]:
    """Run folder to the state of the run."""
    found = sorted(out.rglob(record.STATUS))
    return {
        str(path.parent.relative_to(out)): record.read_status(path.parent)["state"]
        for path in found
    }


def snapshot(folder: Path) -> dict[str, tuple[int, int, int]]:
    """Every file and folder below a folder: when it was changed, its size, its number."""
    found = {}
    for path in sorted([folder, *folder.rglob("*")]):
        info = path.stat()
        found[str(path)] = (info.st_mtime_ns, info.st_size, info.st_ino)
    return found


def wait_for(condition: Any, seconds: float = 120.0) -> None:
    """Wait until something is so.

    Raises:
        AssertionError: it does not come about.
    """
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)
