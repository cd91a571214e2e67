"""Without what Linux alone has, commands and Python do the same, with the same numbers."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from clrl.settings.config import resolve
from clrl.settings.values import Place
from clrl.storage import record
from clrl.storage.checkpoint import Keeping
from clrl.training.attempt import Attempt

CLRL = [sys.executable, "-P", "-c", "import sys; from clrl.cli.main import main; sys.exit(main())"]
ORDINARY: Mapping[str, str] = dict(os.environ)
BARE: Mapping[str, str] = {
    **ORDINARY,
    "PYTHONPATH": str(Path(__file__).parent / "without"),
    "PYTHONWARNDEFAULTENCODING": "1",
}
STREAM: tuple[object, ...] = (
    "run", "--benchmark", "permuted-digits", "--benchmark.task_length", 500,
    "--optimizer", "upgd", "--network.widths", 16, "--log-every", 250, "--seeds", "0-1",
)  # fmt: skip
STEPS = 5_000
SHORT = ("run", "--benchmark", "slow-regression", "--optimizer", "adam", "--network.widths", 8,
    "--steps", 500, "--log-every", 100, "--seeds", "0-1")  # fmt: skip
LONG = 10_000_000
PROCESSES = Path("/proc")


def start(*words: object, env: Mapping[str, str] = BARE, **options: Any) -> subprocess.Popen[str]:
    command = [*CLRL, *map(str, words)]
    streams = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    return subprocess.Popen(command, env=env, text=True, **{**streams, **options})


def finish(process: subprocess.Popen[str]) -> str:
    """Wait for a command that goes well; what it printed."""
    out, err = process.communicate()
    assert process.returncode == 0, err
    return out


def numbers(out: Path) -> dict[str, list[dict[str, Any]]]:
    """Every run's metrics, less what the clock said."""
    return {
        str(path.relative_to(out)): [
            {tag: value for tag, value in row.items() if not tag.startswith("time/")}
            for row in map(json.loads, path.read_text(encoding="utf-8").splitlines())
        ]
        for path in sorted(out.rglob(record.METRICS))
    }


def wait_for_rows(out: Path, rows: int, process: subprocess.Popen[str]) -> None:
    """Wait until a run has so many lines of metrics."""
    deadline = time.monotonic() + 120
    while not any(path.read_bytes().count(b"\n") >= rows for path in out.rglob(record.METRICS)):
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.02)


def states(out: Path) -> set[str]:
    return {record.read_status(folder)["state"] for folder in record.run_folders(out)}


def running() -> dict[int, int]:
    """Every process that has not ended: its number and its parent's."""
    found = {}
    for path in PROCESSES.glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            state, parent = path.read_text().rpartition(")")[2].split()[:2]  # proc(5)
            if state not in "ZX":
                found[int(path.parent.name)] = int(parent)
    return found


def children(process: int) -> set[int]:
    return {one for one, parent in running().items() if parent == process}


@pytest.fixture(scope="module")
def ordinary(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[dict[str, Any]]]:
    """The numbers of a stream of `STEPS`, the ordinary way."""
    out = tmp_path_factory.mktemp("ordinary")
    finish(start(*STREAM, "--steps", STEPS, "--out", out, env=ORDINARY))
    return numbers(out)


def test_the_names_are_gone() -> None:
    code = (
        "import os; from clrl import machine;"
        "print(machine.FORKS, *machine.STOPPING, machine.cores() == os.cpu_count())"
    )
    words = [sys.executable, "-P", "-c", code]
    done = subprocess.run(words, env=BARE, capture_output=True, text=True, check=True)
    assert done.stdout == f"False {int(signal.SIGTERM)} {int(signal.SIGINT)} True\n"


def test_a_short_run_has_the_same_numbers(tmp_path: Path) -> None:
    finish(start(*SHORT, "--workers", 1, "--out", tmp_path / "bare"))
    folders = {seed: tmp_path / f"here/slow-regression/adam/seed-{seed}" for seed in (0, 1)}
    for folder in folders.values():
        folder.mkdir(parents=True)
    written = record.read_config(tmp_path / "bare/slow-regression/adam/seed-0")
    config = resolve(written, Place("config.yaml"))
    Attempt(config, folders, Keeping(), lambda *_: None, lambda _: None, resumes=False).run()
    found = numbers(tmp_path / "bare")
    assert [rows[-1]["step"] for rows in found.values()] == [500, 500]
    assert found == numbers(tmp_path / "here")


@pytest.mark.slow
def test_a_run_that_is_asked_to_end_goes_on_and_has_the_same_numbers(
    ordinary: dict[str, list[dict[str, Any]]], tmp_path: Path
) -> None:
    words: tuple[object, ...] = (*STREAM, "--steps", STEPS, "--out", tmp_path, "--workers", 1)
    rows = 0
    for number in (signal.SIGINT, signal.SIGTERM):
        process = start(*words)
        wait_for_rows(tmp_path, rows + 1, process)
        process.send_signal(number)
        _, err = process.communicate()
        assert process.returncode == 128 + number, err
        assert states(tmp_path) == {"preempted"}
        assert (tmp_path / "permuted-digits/upgd/seed-0/checkpoint.pt").is_file()
        rows = max(map(len, numbers(tmp_path).values()))
        assert rows < STEPS // 250
        words = ("resume", tmp_path, "--workers", 1)
    finish(start(*words))
    assert numbers(tmp_path) == ordinary
    assert states(tmp_path) == {"finished"}
    page = Path(finish(start("report", tmp_path)).strip())
    assert page.read_text(encoding="utf-8").startswith("<!DOCTYPE html>")


@pytest.mark.slow
def test_a_suite_has_the_same_numbers(tmp_path: Path) -> None:
    words = ("suite", "quickstart", "--steps", 1500, "--seeds", "0-1", "--out")
    finish(start(*words, tmp_path / "bare"))
    finish(start(*words, tmp_path / "o", env=ORDINARY))
    found = numbers(tmp_path / "bare")
    assert len(found) == 18
    assert found == numbers(tmp_path / "o")


@pytest.mark.slow
@pytest.mark.skipif(not PROCESSES.is_dir(), reason="needs a list of processes in /proc")
@pytest.mark.parametrize("rows", [0, 1])  # 0: while workers are loading torch
def test_workers_end_with_a_launcher_that_is_killed(rows: int, tmp_path: Path) -> None:
    words = (*STREAM, "--steps", LONG, "--out", tmp_path, "--workers", 2)
    process = start(*words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    wait_for_rows(tmp_path, rows, process)
    while len(workers := children(process.pid)) < 1 + rows:
        assert process.poll() is None
        time.sleep(0.01)
    process.kill()
    process.wait()
    deadline = time.monotonic() + 20
    while workers & running().keys():
        assert time.monotonic() < deadline, "workers run on"
        time.sleep(0.05)


@pytest.mark.slow
def test_a_second_launcher_is_kept_out(tmp_path: Path) -> None:
    words = (*STREAM, "--steps", LONG, "--out", tmp_path, "--workers", 1)
    process = start(*words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        wait_for_rows(tmp_path, 1, process)
        second = start(*words)
        _, err = second.communicate()
        assert second.returncode == 2 and "another clrl is at work in this folder" in err
    finally:
        process.kill()
        process.wait()


@pytest.mark.slow
def test_python_has_the_same_numbers(
    ordinary: dict[str, list[dict[str, Any]]], tmp_path: Path
) -> None:
    script = tmp_path / "script.py"  # without a guard
    script.write_text(
        "import clrl\n"
        "runs = clrl.run({'name': 'permuted-digits', 'task_length': 500}, optimizer='upgd',\n"
        "    network={'name': 'mlp', 'widths': [16]}, log_every=250, steps=5_000, seeds='0-1',\n"
        "    out='out', quiet=True)\n"
        "assert runs.curve('online/accuracy').shape == (2, 20)\n"
        "policy = clrl.load_policy('out/permuted-digits/upgd/seed-1')\n"
        "assert policy.step == 5_000\n"
    )
    words = [sys.executable, "-P", str(script)]
    subprocess.run(words, env=BARE, cwd=tmp_path, check=True)
    assert numbers(tmp_path / "out") == ordinary


@pytest.mark.slow
def test_a_check_of_a_plug_in_has_its_new_processes() -> None:
    code = "from clrl.testing import check_stream; check_stream('slow-regression')"
    words = [sys.executable, "-P", "-c", code]
    done = subprocess.run(words, env=BARE, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
