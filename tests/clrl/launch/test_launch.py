"""Carrying out jobs in worker processes: splitting, failures, interruptions, planning.

The workers here train with a stand-in that does as the learning rate says.
"""

from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console

from clrl.errors import StorageError, UsageError
from clrl.launch.jobs import Job, share_out
from clrl.launch.local import LocalCrew
from clrl.launch.plan import MARKER, check_folder, claimed, remaining
from clrl.launch.progress import Lines
from clrl.launch.supervisor import Interrupted, Supervisor
from clrl.settings.config import resolve
from clrl.settings.values import Place
from clrl.storage import checkpoint, record
from clrl.storage.provenance import provenance

(
    GOOD, RAISE, DIE, MISTAKE, HANG, DIVERGE, BAD_CHECK, BROKEN_CHECK, FULL, DIE_TWICE,
    RAISE_VARIOUSLY, DEAF, DIE_IN_CHECK,
) = (0.1, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0, 9.0, 10.0, 11.0, 12.0)  # fmt: skip

STAND_IN = """
import os, signal, sys, time
from multiprocessing.connection import Connection
from pathlib import Path
from clrl.machine import STOPPING
from clrl.training.attempt import Preempted
from clrl.errors import StorageError, UsageError
from clrl.launch.worker import main
from clrl.storage.record import Recorder

def stop(number, frame):
    raise Preempted

class StandIn:
    def prepare(self, config):
        pass

    def check(self, config, device):
        lr = config.optimizer.options.lr
        if lr == 6.0:
            raise UsageError("no data")
        if lr == 7.0:
            raise ValueError("first line\\nInvalid learning rate")
        deaths = Path(__file__).with_name("deaths")
        if lr == 12.0 and (not deaths.exists() or len(deaths.read_text()) < 2):
            with deaths.open("a") as file:
                file.write("x")
            os.kill(os.getpid() if deaths.read_text() == "x" else os.getppid(), signal.SIGKILL)
        return ["slow"] if lr == 4.0 else []

    def measure(self, config, seeds, device):
        return 100.0 * len(seeds)

    def train(self, config, terms, progress, remark):
        lr, seeds, attempt = config.optimizer.options.lr, list(terms.folders), 0
        for number in STOPPING:
            signal.signal(number, stop)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, STOPPING)
        if terms.resumes:
            log = terms.folders[seeds[0]] / "attempts"
            attempt = int(log.read_text()) if log.exists() else 1
            log.write_text(str(attempt + 1))
        recorders = {seed: Recorder(folder) for seed, folder in terms.folders.items()}
        for recorder in recorders.values():
            recorder.write(1, {"pid": float(os.getpid()), "x": 1.0, "attempt": float(attempt)})
        progress(len(seeds), None)
        if lr == 1.0:
            raise ZeroDivisionError("by zero")
        if lr == 2.0:
            os.kill(os.getpid(), signal.SIGKILL)
        if lr == 3.0:
            raise UsageError("plug-in: not like this")
        if lr == 8.0:
            raise StorageError("there/metrics.jsonl: No space left on device")
        if lr == 9.0 and attempt < 2:
            os.kill(os.getpid(), signal.SIGKILL)
        if lr == 10.0 and attempt < 2:
            raise ValueError(f"attempt {attempt}")
        if lr == 11.0:
            signal.pthread_sigmask(signal.SIG_BLOCK, STOPPING)
            time.sleep(60)
        while lr == 4.0:
            progress(0, None)
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


class TestSupervisor:
    def test_runs_end_with_status_and_metrics(self, tmp_path: Path, command: list[str]) -> None:
        jobs = [job(tmp_path, label=f"b/{i}") for i in range(3)]
        with Supervisor(LocalCrew(2, command)) as supervisor:
            assert supervisor.check([*jobs, job(tmp_path, HANG)]) == ["b/l: slow"]
            assert supervisor.run(jobs, quiet(jobs)) == []
        assert states(*jobs) == ["finished"] * 9
        for one in jobs:
            for seed, folder in one.folders.items():
                rows = record.read_metrics(folder / "metrics.jsonl")
                assert rows[-1] == {"step": 5, "seed": seed, "threads": 1.0}
                assert record.read_status(folder)["steps"] == 5

    def test_each_population_is_a_process(self, tmp_path: Path, command: list[str]) -> None:
        jobs = [job(tmp_path, label=f"b/{i}") for i in range(5)]
        with Supervisor(LocalCrew(2, command)) as supervisor:
            supervisor.run(jobs, quiet(jobs))
        pids = [
            {record.read_metrics(f / "metrics.jsonl")[0]["pid"] for f in one.folders.values()}
            for one in jobs
        ]
        assert [len(own) for own in pids] == [1] * 5
        assert len(set.union(*pids)) == 5

    @pytest.mark.parametrize("lr", [DIE_TWICE, RAISE_VARIOUSLY])
    def test_what_dies_goes_on_twice_at_most(
        self, tmp_path: Path, command: list[str], lr: float
    ) -> None:
        one = job(tmp_path, lr)
        with Supervisor(LocalCrew(1, command)) as supervisor:
            assert supervisor.run([one], quiet([one])) == []
        assert states(one) == ["finished"] * 3
        for folder in one.folders.values():
            assert record.read_metrics(folder / "metrics.jsonl")[0]["attempt"] == 2
            assert record.read_status(folder)["restarts"] == 2

    def test_old_checkpoints_go_before_a_run_is_begun_anew(
        self, tmp_path: Path, command: list[str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        one = job(tmp_path)
        old = [folder / checkpoint.NAME for folder in one.folders.values()]
        for path in old:
            path.parent.mkdir(parents=True)
            path.touch()

        def start(*_: object, **__: object) -> None:
            assert not any(path.exists() for path in old)
            raise StorageError("as if killed")

        monkeypatch.setattr(record, "start_run", start)
        with Supervisor(LocalCrew(1, command)) as supervisor:
            (failure,) = supervisor.run([one], quiet([one]))
        assert failure.message == "as if killed"

    def test_a_metrics_file_that_somebody_changed_stops_nobody(
        self, tmp_path: Path, command: list[str]
    ) -> None:
        one = job(tmp_path)
        one.folders[1].mkdir(parents=True)
        (one.folders[1] / record.METRICS).write_text('not JSON\n[1]\n{"step": "x"}\n')
        with Supervisor(LocalCrew(1, command)) as supervisor:
            assert supervisor.run([one], quiet([one])) == []
        assert states(one) == ["finished"] * 3

    def test_divergence_is_kept_apart(self, tmp_path: Path, command: list[str]) -> None:
        one = job(tmp_path, DIVERGE)
        with Supervisor(LocalCrew(1, command)) as supervisor:
            assert supervisor.run([one], quiet([one])) == []
        assert states(one) == ["finished", "diverged", "finished"]

    @pytest.mark.parametrize(
        ("lr", "message", "mistake", "kept"),
        [
            (RAISE, "ZeroDivisionError: by zero", False, "Traceback (most recent call last)"),
            (DIE, "the process died (SIGKILL)", False, "the process died"),
            (MISTAKE, "plug-in: not like this", True, "plug-in: not like this"),
            (FULL, "there/metrics.jsonl: No space left on device", False, "there/metrics"),
        ],
    )
    def test_a_failing_job_leaves_the_others_alone(
        self, tmp_path: Path, command: list[str], lr: float, message: str, mistake: bool, kept: str
    ) -> None:
        bad, good = job(tmp_path, lr, label="b/bad"), job(tmp_path, label="b/good")
        jobs = [bad, good, job(tmp_path, label="b/later")]
        with Supervisor(LocalCrew(1, command)) as supervisor:
            (failure,) = supervisor.run(jobs, quiet(jobs))
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
        with Supervisor(LocalCrew(1, command)) as supervisor, pytest.raises(UsageError) as caught:
            supervisor.check([job(tmp_path / "out"), job(tmp_path / "out", lr)])
        assert str(caught.value) == message
        assert not (tmp_path / "out").exists()

    def test_a_check_that_dies_is_done_again(self, tmp_path: Path, command: list[str]) -> None:
        """First the process that checks is killed, then the worker above it."""
        with Supervisor(LocalCrew(1, command)) as supervisor:
            assert supervisor.check([job(tmp_path, DIE_IN_CHECK)]) == []
        assert (tmp_path / "deaths").read_text() == "xx"

    def test_a_worker_that_does_not_even_start(self, tmp_path: Path) -> None:
        with Supervisor(LocalCrew(1, [sys.executable, "-c", "raise SystemExit(3)"])) as supervisor:
            with pytest.raises(UsageError, match=r"the process died \(exit status 3\)"):
                supervisor.check([job(tmp_path)])

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

        with Supervisor(LocalCrew(1, command)) as supervisor:
            threading.Thread(target=interrupt).start()
            with pytest.raises(Interrupted):
                supervisor.run([hanging, waiting], quiet([hanging, waiting]))
        assert signal.getsignal(number) == before
        assert states(hanging, waiting) == ["preempted"] * 3 + ["-"] * 3
        for folder in hanging.folders.values():
            assert all(row["x"] for row in record.read_metrics(folder / "metrics.jsonl"))

    def test_one_that_does_not_listen_is_ended_all_the_same(
        self, tmp_path: Path, command: list[str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("clrl.launch.supervisor._LAST_CHECKPOINT", 0.5)
        deaf = job(tmp_path, DEAF)

        def interrupt() -> None:
            wait_for(lambda: all((f / "metrics.jsonl").exists() for f in deaf.folders.values()))
            os.kill(os.getpid(), signal.SIGUSR1)

        with Supervisor(LocalCrew(1, command)) as supervisor:
            threading.Thread(target=interrupt).start()
            with pytest.raises(Interrupted) as caught:
                supervisor.run([deaf], quiet([deaf]))
        assert caught.value.signal == signal.SIGUSR1
        assert states(deaf) == ["preempted"] * 3
        pid = record.read_metrics(deaf.folders[0] / "metrics.jsonl")[0]["pid"]
        wait_for(lambda: not alive(int(pid or 0)))

    def test_workers_end_when_their_launcher_is_killed(
        self, tmp_path: Path, command: list[str]
    ) -> None:
        launcher = subprocess.Popen(
            [sys.executable, "-c", textwrap.dedent(f"""
                import io, sys
                sys.path.insert(0, {str(Path(__file__).parent)!r})
                from pathlib import Path
                from test_launch import HANG, LocalCrew, Supervisor, job, quiet
                one = job(Path({str(tmp_path)!r}), HANG, [0])
                with Supervisor(LocalCrew(1, {command!r})) as supervisor:
                    supervisor.run([one], quiet([one]))
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
        from clrl.settings.config import config_hash, to_dict

        for seed in seeds:
            folder = one.folders[seed]
            more = {"population": list(one.folders)}
            record.start_run(folder, seed, to_dict(one.config), config_hash(one.config), **more)
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

    @pytest.mark.parametrize("state", ["running", "preempted", "failed"])
    def test_what_is_not_over_is_done_again(self, tmp_path: Path, state: str) -> None:
        one = job(tmp_path)
        (tmp_path / MARKER).touch()
        self.end(one, [0, 1, 2], state)
        assert remaining([one], tmp_path) == [one]

    @pytest.mark.parametrize("state", ["finished", "diverged", "preempted", "running"])
    def test_other_settings_are_refused_and_shown(self, tmp_path: Path, state: str) -> None:
        (tmp_path / MARKER).touch()
        self.end(job(tmp_path), [1], state)
        with pytest.raises(UsageError) as caught:
            remaining([job(tmp_path, 0.5)], tmp_path)
        assert str(caught.value).startswith(
            f"{tmp_path}/b/l/seed-1: this run has other settings: optimizer.lr 0.1 -> 0.5; "
            "choose another --out"
        )

    def test_a_failed_run_may_get_other_settings(self, tmp_path: Path) -> None:
        (tmp_path / MARKER).touch()
        self.end(job(tmp_path), [1], "failed")
        assert remaining([job(tmp_path, 0.5)], tmp_path) == [job(tmp_path, 0.5)]

    def test_what_was_begun_goes_on_with_those_it_was_begun_with(self, tmp_path: Path) -> None:
        asked, begun = job(tmp_path, seeds=[1, 2, 5]), job(tmp_path, seeds=[0, 1, 2])
        (tmp_path / MARKER).touch()
        self.end(begun, [0, 1, 2], "preempted")
        assert remaining([asked], tmp_path) == [asked]  # nothing to go on from
        (begun.folders[0] / checkpoint.NAME).touch()
        again, new = remaining([asked], tmp_path)
        assert again == replace(begun, resumes=True)
        assert list(new.folders) == [5] and not new.resumes
        assert share_out([again, new], 4) == [again, new]

    @pytest.mark.parametrize("state", ["running", "preempted", "failed"])
    def test_other_conditions_are_refused_and_shown(
        self, tmp_path: Path, state: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        one = job(tmp_path)
        (tmp_path / MARKER).touch()
        with monkeypatch.context() as patch:
            before = {**provenance(), "torch": "1.0", "threads": 4, "machine": "another"}
            patch.setattr(record, "provenance", lambda device: before)
            self.end(one, [0, 1, 2], state)
        (one.folders[0] / checkpoint.PREVIOUS).touch()
        with pytest.raises(UsageError) as caught:
            remaining([one], tmp_path)
        torch = provenance()["torch"]
        assert str(caught.value).startswith(
            f"{tmp_path}/b/l/seed-0: this run was begun under other conditions: torch 1.0 -> "
            f"{torch}, threads 4 -> 1; "
        )
        (forced,) = remaining([one], tmp_path, force=True)
        assert forced.forced == (f"torch 1.0 -> {torch}", "threads 4 -> 1")
        assert forced.resumes

    def test_other_settings_can_be_forced(self, tmp_path: Path) -> None:
        (tmp_path / MARKER).touch()
        one = job(tmp_path)
        self.end(one, [0, 1], "preempted")
        (one.folders[0] / checkpoint.NAME).touch()
        self.end(one, [2], "finished")
        with pytest.raises(UsageError, match="add --force to go on all the same"):
            remaining([job(tmp_path, 0.5, [0, 1])], tmp_path)
        (forced,) = remaining([job(tmp_path, 0.5, [0, 1])], tmp_path, force=True)
        assert forced.forced == ("optimizer.lr 0.1 -> 0.5",)
        with pytest.raises(UsageError, match="this run has other settings"):
            remaining([job(tmp_path, 0.5)], tmp_path, force=True)  # seed 2 is finished

    def test_a_seed_whose_folder_was_removed_stays_with_those_it_was_begun_with(
        self, tmp_path: Path
    ) -> None:
        one = job(tmp_path)
        (tmp_path / MARKER).touch()
        self.end(one, [0, 1, 2], "preempted")
        (one.folders[0] / checkpoint.NAME).touch()
        (one.folders[1] / record.STATUS).unlink()
        assert remaining([one], tmp_path) == [replace(one, resumes=True)]

    def test_what_was_begun_anew_leaves_its_old_companions(self, tmp_path: Path) -> None:
        """Seeds 0-2 failed without a checkpoint; then 0 and 1 were begun anew, 2 not yet."""
        one, part = job(tmp_path), job(tmp_path, seeds=[0, 1])
        (tmp_path / MARKER).touch()
        self.end(one, [0, 1, 2], "failed")
        self.end(part, [0, 1], "preempted")
        (one.folders[0] / checkpoint.NAME).touch()
        assert remaining([one], tmp_path) == [
            replace(part, resumes=True),
            job(tmp_path, seeds=[2]),
        ]

    @pytest.mark.parametrize("population", [5, [], ["../../../x"], [-1, 0], [True, 0], None])
    def test_a_group_that_cannot_be_is_none(self, tmp_path: Path, population: object) -> None:
        one = job(tmp_path, seeds=[0])
        (tmp_path / MARKER).touch()
        self.end(one, [0], "preempted")
        (one.folders[0] / checkpoint.NAME).touch()
        path = one.folders[0] / record.STATUS
        status = {**record.read_status(one.folders[0]), "population": population}
        path.write_text(json.dumps(status))
        assert remaining([one], tmp_path) == [one]

    def test_provenance_that_cannot_be(self, tmp_path: Path) -> None:
        one = job(tmp_path, seeds=[0])
        (tmp_path / MARKER).touch()
        self.end(one, [0], "preempted")
        (one.folders[0] / record.STATUS).write_text('{"provenance": "mine"}')
        with pytest.raises(UsageError, match="expected a run's status"):
            remaining([one], tmp_path)

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

    def test_a_process_that_inherits_the_lock_holds_the_folder(self, tmp_path: Path) -> None:
        with claimed(tmp_path, "first") as lock:
            held = subprocess.Popen(["sleep", "60"], pass_fds=[lock])
        with pytest.raises(UsageError, match="another clrl is at work"):
            with claimed(tmp_path, "second"):
                pytest.fail("both are in")
        threading.Timer(0.3, held.kill).start()
        with claimed(tmp_path, "third"):
            assert held.wait() == -signal.SIGKILL

    def test_one_launcher_at_a_time(self, tmp_path: Path) -> None:
        out = tmp_path / "out"
        with claimed(out, "first"), pytest.raises(UsageError, match="another clrl is at work"):
            with claimed(out, "second"):
                pytest.fail("both are in")
        assert (out / MARKER).read_text() == "first"
        with claimed(out, "third"):
            check_folder(out)
        assert (out / MARKER).read_text() == "third"
