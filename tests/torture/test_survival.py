"""Suites, by way of the command line, that are killed, asked to end, or run out of disk."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import command
import pytest
import results

from clrl.storage import record
from clrl.storage.record import METRICS


@pytest.fixture(scope="module")
def suite(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return command.suite_file(tmp_path_factory.mktemp("suite"))


@pytest.fixture(scope="module")
def whole(suite: Path) -> Path:
    """What an uninterrupted suite leaves."""
    out = suite.with_name("whole")
    done = command.run("suite", suite, "--out", out, "--workers", 2)
    assert done.returncode == 0, done.stderr
    results.check_files(out)
    assert list(command.states(out).values()) == ["finished"] * 9
    return out


def check(out: Path, whole: Path) -> None:
    """Every run is there once, as the uninterrupted suite has it."""
    assert command.states(out) == command.states(whole)
    assert results.of_runs(out) == results.of_runs(whole)
    results.check_files(out)


@pytest.mark.slow
@pytest.mark.parametrize("again", ["suite", "resume"])
def test_a_finished_suite_again_does_nothing(suite: Path, whole: Path, again: str) -> None:
    before = command.snapshot(whole)
    start = time.monotonic()
    words = ["suite", suite, "--out", whole] if again == "suite" else ["resume", whole]
    done = command.run(*words)
    print(f"{again}, with everything finished: {time.monotonic() - start:.2f} s")
    assert done.returncode == 0
    assert f"nothing to do, all 9 runs in {whole} are finished" in done.stderr
    assert command.snapshot(whole) == before


@pytest.mark.slow
@pytest.mark.parametrize("workers", [1, 2])
def test_a_launcher_that_is_killed_ten_times(
    suite: Path, whole: Path, tmp_path: Path, workers: int
) -> None:
    """At points of its own, and at random instants; what is finished is not touched again."""
    out, draw = tmp_path / "out", random.Random(workers)
    words = ["suite", suite, "--out", out, "--workers", workers, "--checkpoint-steps", 300]
    finished: dict[str, tuple[int, int, int]] = {}
    killed = 0
    while killed < 10:
        if killed % 2:
            code = command.kill_after(draw.uniform(3, 12), *words)
        else:
            code = command.run(*words, die_at=f"{draw.randint(1, 200)} {out}").returncode
        after = command.snapshot(out)
        assert {path: after[path] for path in finished} == finished
        finished = {path: after[path] for path in _finished(out)}
        if code == 0:  # it was quicker than the kill
            break
        assert code == -signal.SIGKILL
        killed += 1
    done = command.run(*words)
    assert done.returncode == 0, done.stderr
    print(f"{killed} kills")
    check(out, whole)


def _finished(out: Path) -> list[str]:
    """Files of runs that are finished, and whose companions are as well."""
    states = {folder: record.read_status(folder) for folder in record.run_folders(out)}
    found = []
    for folder, status in states.items():
        group = [folder.with_name(f"seed-{seed}") for seed in status["population"]]
        if all(states.get(one, {}).get("state") == "finished" for one in group):
            found += [str(folder / METRICS), str(folder / record.STATUS)]
    return found


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGHUP])
@pytest.mark.parametrize("to", ["launcher", "group"])
def test_an_end_that_is_asked_for(
    suite: Path, whole: Path, tmp_path: Path, number: int, to: str
) -> None:
    out = tmp_path / "out"
    words = ["suite", suite, "--out", out, "--workers", 2]
    process = command.start(*words, start_new_session=True)
    command.wait_for(lambda: any(path.stat().st_size > 800 for path in out.rglob(METRICS)))
    start = time.monotonic()
    (os.killpg if to == "group" else os.kill)(process.pid, number)
    _, said = process.communicate()
    print(f"{signal.Signals(number).name} to the {to}: ended in {time.monotonic() - start:.1f} s")
    assert process.returncode == 128 + number
    last = said.splitlines()[-1]
    how = f"{signal.Signals(number).name}: preempted"
    how = "Ctrl-C: interrupted" if number == signal.SIGINT else how
    assert last.startswith(f"clrl: error: {how}; the same command, or clrl resume")
    assert "preempted" in command.states(out).values()
    assert "running" not in command.states(out).values()
    done = command.run("resume", out, "--workers", 2)
    assert done.returncode == 0, done.stderr
    assert "from a checkpoint" in done.stderr
    check(out, whole)


@pytest.mark.slow
def test_workers_that_are_killed(suite: Path, whole: Path, tmp_path: Path) -> None:
    """The process that trains, then the one above it; the population goes on."""
    out = tmp_path / "out"
    words = ["suite", suite, "--out", out, "--workers", 1, "--checkpoint-steps", 250]
    process = command.start(*words)
    for how in ("trainer", "worker"):
        size = sum(path.stat().st_size for path in out.rglob(METRICS))
        command.wait_for(
            lambda: sum(p.stat().st_size for p in out.rglob(METRICS)) > size + 2000  # noqa: B023
        )
        (worker,) = children(process.pid)
        (trainer,) = children(worker)
        os.kill(trainer if how == "trainer" else worker, signal.SIGKILL)
        time.sleep(1)
    _, said = process.communicate()
    assert process.returncode == 0, said
    assert said.count("goes on from its checkpoint") == 2
    check(out, whole)


def children(pid: int) -> list[int]:
    """The processes that a process has started."""
    text = Path(f"/proc/{pid}/task/{pid}/children").read_text()
    return [int(word) for word in text.split()]


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of three megabytes."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=3m", "tmpfs", str(folder)]
    try:
        done = subprocess.run(mount, capture_output=True, text=True)
    except FileNotFoundError:
        pytest.skip("needs mount")
    if done.returncode:
        pytest.skip(f"needs to mount a small tmpfs: {done.stderr.strip()}")
    yield folder
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


@pytest.mark.slow
@pytest.mark.parametrize("room", [0, 12, 40, 80, 150, 300])
def test_a_disk_that_is_nearly_full(suite: Path, whole: Path, small_disk: Path, room: int) -> None:
    """So many KiB are left; it ends with a clear message, and goes on when there is room."""
    out, filler = small_disk / "out", small_disk / "filler"
    free = os.statvfs(small_disk).f_bavail * os.statvfs(small_disk).f_frsize
    filler.write_bytes(b"x" * (free - room * 1024))
    words = ["suite", suite, "--out", out, "--workers", 2, "--checkpoint-steps", 300]
    done = command.run(*words)
    assert done.returncode == 1, done.stderr
    assert "No space left on device" in done.stderr
    assert "Traceback" not in done.stderr
    print(room, done.stderr)
    for folder in record.run_folders(out) if out.exists() else []:
        record.read_metrics(folder / METRICS)
    filler.unlink()
    done = command.run(*words)
    assert done.returncode == 0, done.stderr
    check(out, whole)


@pytest.mark.slow
@pytest.mark.parametrize("what", ["run", "suite"])
def test_a_folder_that_is_deleted_under_way(suite: Path, tmp_path: Path, what: str) -> None:
    """The run whose folder it was fails with a clear message; the others end well."""
    import shutil

    out = tmp_path / "out"
    process = command.start("suite", suite, "--out", out, "--workers", 1)
    first = out / "digits" / "adam" / "seed-1"
    command.wait_for(lambda: (first / METRICS).exists() and (first / METRICS).stat().st_size > 800)
    shutil.rmtree(first if what == "run" else out)
    _, said = process.communicate()
    print(said)
    assert process.returncode == 1
    assert f"{first}" in said or f"{out}" in said
    assert "Traceback" not in said
    ended = command.states(out)
    assert [
        ended.get(f"digits/{name}/seed-{k}") for name in ("upgd", "shrink") for k in range(3)
    ] == ["finished"] * 6
    assert command.run("suite", suite, "--out", out).returncode == 0
