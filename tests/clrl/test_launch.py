"""Carrying out jobs in worker processes: splitting, failures, interruptions, planning.

The workers here train with a stand-in that does as the learning rate says.
"""

from __future__ import annotations

import io
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Sequence
from pathlib import Path

import pytest
from rich.console import Console

from clrl import record
from clrl.config import resolve
from clrl.errors import UsageError
from clrl.launch.jobs import Job, share_out
from clrl.launch.local import Interrupted, Pool
from clrl.launch.plan import MARKER, check_folder, claimed, remaining
from clrl.launch.progress import Lines
from clrl.values import Place

GOOD, RAISE, DIE, MISTAKE, HANG, DIVERGE, BAD_CHECK, BROKEN_CHECK = (
    0.1, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0
)  # fmt: skip

STAND_IN = """
import os, signal, sys, time
from multiprocessing.connection import Connection
from clrl.errors import UsageError
from clrl.launch.worker import main

class StandIn:
    def check(self, config):
        lr = config.optimizer.options.lr
        if lr == 6.0:
            raise UsageError("no data")
        if lr == 7.0:
            raise ValueError("first line\\nInvalid learning rate")
        return ["slow"] if lr == 4.0 else []

    def train(self, config, seeds, recorders, progress):
        lr = config.optimizer.options.lr
        for recorder in recorders.values():
            recorder.write(1, {"pid": float(os.getpid()), "x": 1.0})
        progress(len(seeds), config.steps * len(seeds))
        if lr == 1.0:
            raise ZeroDivisionError("by zero")
        if lr == 2.0:
            os.kill(os.getpid(), signal.SIGKILL)
        if lr == 3.0:
            raise UsageError("plug-in: not like this")
        while lr == 4.0:
            progress(0, 1)
            time.sleep(0.01)
        for seed, recorder in recorders.items():
            recorder.write(config.steps, {"seed": float(seed), "threads": float(
                os.environ["OMP_NUM_THREADS"])})
        return {seed: "diverged" if lr == 5.0 and seed == 1 else "finished" for seed in seeds}

main(Connection(int(sys.argv[1])), StandIn())
"""


@pytest.fixture
def command(tmp_path: Path) -> list[str]:
    script = tmp_path / "stand_in.py"
    script.write_text(STAND_IN)
    return [sys.executable, str(script)]


def job(out: Path, lr: float = GOOD, seeds: Sequence[int] = (0, 1, 2), label: str = "b/l") -> Job:
    config = resolve({"optimizer": {"name": "sgd", "lr": lr}, "steps": 5}, Place("test"))
    return Job(label, config, {seed: out / label / f"seed-{seed}" for seed in seeds})


def states(*jobs: Job) -> list[str]:
    return [
        record.read_status(folder).get("state", "-")
        for job in jobs
        for folder in job.folders.values()
    ]


def quiet(jobs: Sequence[Job]) -> Lines:
    return Lines(jobs, Console(file=io.StringIO()))


class TestShareOut:
    def test_even_numbers_stay_whole(self, tmp_path: Path) -> None:
        jobs = [job(tmp_path, label=f"b/{i}") for i in range(4)]
        assert share_out(jobs, 2) == jobs

    def test_the_rest_is_cut_into_as_many_parts_as_workers(self, tmp_path: Path) -> None:
        jobs = [job(tmp_path, label=f"b/{i}", seeds=range(5)) for i in range(3)]
        shared = share_out(jobs, 2)
        assert shared[:2] == jobs[:2]
        assert [list(part.folders) for part in shared[2:]] == [[0, 1], [2, 3, 4]]
        assert {**shared[2].folders, **shared[3].folders} == jobs[2].folders
        assert all(part.config == jobs[2].config for part in shared[2:])

    def test_no_part_is_empty(self, tmp_path: Path) -> None:
        shared = share_out([job(tmp_path, seeds=(4, 7))], 8)
        assert [list(part.folders) for part in shared] == [[4], [7]]

    def test_nothing(self) -> None:
        assert share_out([], 3) == []


class TestPool:
    def test_runs_end_with_status_and_metrics(self, tmp_path: Path, command: list[str]) -> None:
        jobs = [job(tmp_path, label=f"b/{i}") for i in range(3)]
        with Pool(2, command) as pool:
            assert pool.check([*jobs, job(tmp_path, HANG)]) == ["b/l: slow"]
            assert pool.run(jobs, quiet(jobs)) == []
        assert states(*jobs) == ["finished"] * 9
        for one in jobs:
            for seed, folder in one.folders.items():
                rows = record.read_metrics(folder / "metrics.jsonl")
                assert rows[-1] == {"step": 5, "seed": seed, "threads": 1.0}
                assert record.read_status(folder)["steps"] == 5

    def test_workers_are_used_again(self, tmp_path: Path, command: list[str]) -> None:
        jobs = [job(tmp_path, label=f"b/{i}") for i in range(5)]
        with Pool(2, command) as pool:
            pool.run(jobs, quiet(jobs))
        pids = {
            record.read_metrics(folder / "metrics.jsonl")[0]["pid"]
            for one in jobs
            for folder in one.folders.values()
        }
        assert len(pids) <= 2

    def test_divergence_is_kept_apart(self, tmp_path: Path, command: list[str]) -> None:
        one = job(tmp_path, DIVERGE)
        with Pool(1, command) as pool:
            assert pool.run([one], quiet([one])) == []
        assert states(one) == ["finished", "diverged", "finished"]

    @pytest.mark.parametrize(
        ("lr", "message", "mistake", "kept"),
        [
            (RAISE, "ZeroDivisionError: by zero", False, "Traceback (most recent call last)"),
            (DIE, "the worker process died (SIGKILL)", False, "the worker process died"),
            (MISTAKE, "plug-in: not like this", True, "plug-in: not like this"),
        ],
    )
    def test_a_failing_job_leaves_the_others_alone(
        self, tmp_path: Path, command: list[str], lr: float, message: str, mistake: bool, kept: str
    ) -> None:
        bad, good = job(tmp_path, lr, label="b/bad"), job(tmp_path, label="b/good")
        jobs = [bad, good, job(tmp_path, label="b/later")]
        with Pool(1, command) as pool:
            (failure,) = pool.run(jobs, quiet(jobs))
        assert (failure.label, failure.seeds) == ("b/bad", [0, 1, 2])
        assert (failure.message, failure.mistake) == (message, mistake)
        assert states(*jobs) == ["failed"] * 3 + ["finished"] * 6
        for folder in bad.folders.values():
            assert (folder / "error.txt").read_text().startswith(kept)
            assert len(record.read_metrics(folder / "metrics.jsonl")) == 1

    @pytest.mark.parametrize(
        ("lr", "message"),
        [(BAD_CHECK, "b/l: no data"), (BROKEN_CHECK, "b/l: Invalid learning rate")],
    )
    def test_a_job_that_cannot_start_is_refused_unwritten(
        self, tmp_path: Path, command: list[str], lr: float, message: str
    ) -> None:
        with Pool(1, command) as pool, pytest.raises(UsageError) as caught:
            pool.check([job(tmp_path / "out"), job(tmp_path / "out", lr)])
        assert str(caught.value) == message
        assert not (tmp_path / "out").exists()

    def test_a_worker_that_does_not_even_start(self, tmp_path: Path) -> None:
        with Pool(1, [sys.executable, "-c", "raise SystemExit(3)"]) as pool:
            with pytest.raises(UsageError, match=r"the worker process died \(exit status 3\)"):
                pool.check([job(tmp_path)])

    @pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
    def test_a_signal_ends_everything_promptly(
        self, tmp_path: Path, command: list[str], number: int
    ) -> None:
        hanging, waiting = job(tmp_path, HANG, label="b/hang"), job(tmp_path, label="b/wait")
        before = signal.getsignal(number)

        def interrupt() -> None:
            wait_for(lambda: states(hanging) == ["running"] * 3)
            wait_for(lambda: all((f / "metrics.jsonl").exists() for f in hanging.folders.values()))
            os.kill(os.getpid(), number)

        with Pool(1, command) as pool:
            threading.Thread(target=interrupt).start()
            with pytest.raises(Interrupted):
                pool.run([hanging, waiting], quiet([hanging, waiting]))
        assert signal.getsignal(number) == before
        assert states(hanging, waiting) == ["interrupted"] * 3 + ["-"] * 3
        for folder in hanging.folders.values():
            assert all(row["x"] for row in record.read_metrics(folder / "metrics.jsonl"))

    def test_workers_end_when_their_launcher_is_killed(
        self, tmp_path: Path, command: list[str]
    ) -> None:
        launcher = subprocess.Popen(
            [sys.executable, "-c", textwrap.dedent(f"""
                import io, sys
                sys.path.insert(0, {str(Path(__file__).parent)!r})
                from pathlib import Path
                from test_launch import HANG, Pool, job, quiet
                one = job(Path({str(tmp_path)!r}), HANG, [0])
                with Pool(1, {command!r}) as pool:
                    pool.run([one], quiet([one]))
            """)]
        )  # fmt: skip
        metrics = tmp_path / "b" / "l" / "seed-0" / "metrics.jsonl"
        wait_for(lambda: bool(record.read_metrics(metrics)))
        pid = int(record.read_metrics(metrics)[0]["pid"] or 0)
        launcher.kill()
        launcher.wait()
        wait_for(lambda: not alive(pid))


def wait_for(condition: object, seconds: float = 20.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():  # type: ignore[operator]
        assert time.monotonic() < deadline
        time.sleep(0.02)


def alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state != "Z"


class TestPlan:
    def end(self, one: Job, seeds: Sequence[int], state: str) -> None:
        from clrl.config import config_hash, to_dict

        for seed in seeds:
            folder = one.folders[seed]
            record.start_run(folder, seed, to_dict(one.config), config_hash(one.config))
            if state != "running":
                record.end_run(folder, state)  # type: ignore[arg-type]

    def test_everything_in_a_new_folder(self, tmp_path: Path) -> None:
        out = tmp_path / "a" / "new"
        assert remaining([job(out)], out) == [job(out)]
        assert not (tmp_path / "a").exists()

    @pytest.mark.parametrize("state", ["finished", "diverged"])
    def test_what_is_over_is_left_out(self, tmp_path: Path, state: str) -> None:
        one, other = job(tmp_path), job(tmp_path, label="b/other")
        (tmp_path / MARKER).touch()
        self.end(one, [0, 2], state)
        self.end(other, [0, 1, 2], state)
        (left,) = remaining([one, other], tmp_path)
        assert left.folders == {1: one.folders[1]}

    @pytest.mark.parametrize("state", ["running", "interrupted", "failed"])
    def test_what_is_not_over_is_done_again(self, tmp_path: Path, state: str) -> None:
        one = job(tmp_path)
        (tmp_path / MARKER).touch()
        self.end(one, [0, 1, 2], state)
        assert remaining([one], tmp_path) == [one]

    @pytest.mark.parametrize("state", ["finished", "diverged", "interrupted", "running"])
    def test_other_settings_are_refused_and_shown(self, tmp_path: Path, state: str) -> None:
        (tmp_path / MARKER).touch()
        self.end(job(tmp_path), [1], state)
        with pytest.raises(UsageError) as caught:
            remaining([job(tmp_path, 0.5)], tmp_path)
        assert str(caught.value) == (
            f"{tmp_path}/b/l/seed-1: this run has other settings: optimizer.lr 0.1 -> 0.5; "
            "choose another --out"
        )

    def test_a_failed_run_may_get_other_settings(self, tmp_path: Path) -> None:
        (tmp_path / MARKER).touch()
        self.end(job(tmp_path), [1], "failed")
        assert remaining([job(tmp_path, 0.5)], tmp_path) == [job(tmp_path, 0.5)]

    def test_a_file_in_the_way_of_a_run(self, tmp_path: Path) -> None:
        (tmp_path / MARKER).touch()
        (tmp_path / "b").write_text("mine")
        with pytest.raises(UsageError, match="b: expected a folder, but it is a file"):
            remaining([job(tmp_path)], tmp_path)


class TestFolder:
    def test_new_empty_and_own_ones_will_do(self, tmp_path: Path) -> None:
        check_folder(tmp_path / "new" / "deeper")
        check_folder(tmp_path)
        (tmp_path / MARKER).touch()
        (tmp_path / "anything").touch()
        check_folder(tmp_path)

    def test_files_and_strangers_will_not(self, tmp_path: Path) -> None:
        (tmp_path / "file").write_text("mine")
        for path in (tmp_path / "file", tmp_path / "file" / "below"):
            with pytest.raises(UsageError, match="expected a folder, but .*file is a file"):
                check_folder(path)
        with pytest.raises(UsageError, match="it holds 'file'"):
            check_folder(tmp_path)

    def test_a_link_to_nowhere_will_not(self, tmp_path: Path) -> None:
        (tmp_path / "link").symlink_to(tmp_path / "gone")
        with pytest.raises(UsageError, match="expected a folder"):
            check_folder(tmp_path / "link")

    def test_one_launcher_at_a_time(self, tmp_path: Path) -> None:
        out = tmp_path / "out"
        with claimed(out, "first"), pytest.raises(UsageError, match="another clrl is at work"):
            with claimed(out, "second"):
                pytest.fail("both are in")
        assert (out / MARKER).read_text() == "first"
        with claimed(out, "third"):
            check_folder(out)
        assert (out / MARKER).read_text() == "third"
