"""Without what Linux alone has, commands and Python do the same, with the same numbers."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from clrl.storage import record

CLRL = [sys.executable, "-P", "-c", "import sys; from clrl.cli.main import main; sys.exit(main())"]
BARE = {
    **os.environ,
    "PYTHONPATH": str(Path(__file__).parent / "without"),
    "PYTHONWARNDEFAULTENCODING": "1",
}
STREAM: tuple[object, ...] = (
    "run", "--benchmark", "permuted-digits", "--benchmark.task_length", 500,
    "--optimizer", "upgd", "--network.widths", 16, "--log-every", 250, "--seeds", "0-1",
)  # fmt: skip
STEPS = 5_000
SHORT = ("suite", "quickstart", "--steps", 1500, "--seeds", "0-1")


def start(*words: object, env: dict[str, str] = BARE, **options: Any) -> subprocess.Popen[str]:
    command = [*CLRL, *map(str, words)]
    streams = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    return subprocess.Popen(command, env=env, text=True, **{**streams, **options})


def clrl(*words: object, env: dict[str, str] = BARE) -> str:
    """Carry out a command to its end; what it printed."""
    process = start(*words, env=env)
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


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a stream and a short quickstart, the ordinary way."""
    folder = tmp_path_factory.mktemp("ordinary")
    ordinary = dict(os.environ)
    clrl(*STREAM, "--steps", STEPS, "--out", folder / "stream", env=ordinary)
    clrl(*SHORT, "--out", folder / "quickstart", env=ordinary)
    return folder


def test_the_names_are_gone() -> None:
    code = (
        "import os; from clrl import machine;"
        "print(machine.FORKS, *machine.STOPPING, machine.cores() == os.cpu_count())"
    )
    words = [sys.executable, "-P", "-c", code]
    done = subprocess.run(words, env=BARE, capture_output=True, text=True, check=True)
    assert done.stdout == f"False {int(signal.SIGTERM)} {int(signal.SIGINT)} True\n"


def test_a_run_that_is_asked_to_end_goes_on_and_has_the_same_numbers(
    folder: Path, tmp_path: Path
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
    clrl(*words)
    assert numbers(tmp_path) == numbers(folder / "stream")
    assert states(tmp_path) == {"finished"}
    page = Path(clrl("report", tmp_path).strip())
    assert page.read_text(encoding="utf-8").startswith("<!DOCTYPE html>")


def test_the_quickstart_has_the_same_numbers(folder: Path, tmp_path: Path) -> None:
    clrl(*SHORT, "--out", tmp_path)
    found = numbers(tmp_path)
    assert len(found) == 14
    assert found == numbers(folder / "quickstart")


def test_workers_end_with_a_launcher_that_is_killed(tmp_path: Path) -> None:
    words = (*STREAM, "--steps", 10_000_000, "--out", tmp_path, "--workers", 2)
    process = start(*words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    wait_for_rows(tmp_path, 1, process)
    second = start(*words)
    _, err = second.communicate()
    assert second.returncode == 2 and "another clrl is at work in this folder" in err
    process.kill()
    process.wait()
    time.sleep(0.5)
    sizes = [path.stat().st_size for path in sorted(tmp_path.rglob(record.METRICS))]
    time.sleep(0.5)
    assert [path.stat().st_size for path in sorted(tmp_path.rglob(record.METRICS))] == sizes


def test_python_has_the_same_numbers(folder: Path, tmp_path: Path) -> None:
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
    assert numbers(tmp_path / "out") == numbers(folder / "stream")
