"""Launching elsewhere: a Ray cluster of two nodes on this machine, and a Slurm queue.

In place of Slurm there is submitit's local executor. What needs neither is tested everywhere.
"""

from __future__ import annotations

import io
import os
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from rich.console import Console

from clrl import suites
from clrl.cli.main import main
from clrl.errors import UsageError
from clrl.launch import ray as launcher
from clrl.launch import slurm
from clrl.launch.crew import Crew
from clrl.launch.local import LocalCrew
from clrl.launch.options import SlurmOptions
from clrl.launch.slurm import SlurmCrew
from clrl.settings.values import Place
from clrl.storage import record
from clrl.storage.checkpoint import Keeping
from clrl.storage.provenance import provenance

SMALL = """
benchmark: {name: permuted-digits, task_length: 500}
network: {name: mlp, widths: [32]}
steps: 6000
log_every: 500
seeds: 0-1
chunk_size: 2
learners:
  sgd: {optimizer: sgd}
  adam: {optimizer: adam}
  upgd: {optimizer: upgd}
"""


def carry_out(out: Path, crew: Crew[Any], text: str = SMALL) -> str:
    found = suites.from_mapping(yaml.safe_load(text), Place("small.yaml"), "small")
    console = Console(file=io.StringIO(), width=200)
    assert suites.carry_out(found, out, console, crew, Keeping(steps=500)) == []
    return console.file.getvalue()  # type: ignore[attr-defined,no-any-return]


def lines(out: Path) -> dict[str, list[dict[str, Any]]]:
    """Every run's metrics, times apart."""
    return {
        str(path.relative_to(out)): [
            {tag: value for tag, value in row.items() if not tag.startswith("time/")}
            for row in record.read_metrics(path)
        ]
        for path in sorted(out.rglob("metrics.jsonl"))
    }


class TestWithoutACluster:
    """What needs no Ray."""

    def test_another_version_is_one_line(self) -> None:
        here = dict(provenance())
        assert launcher._differences(here) == ""
        there = {**here, "clrl": "9.9", "torch": None, "machine": "node7"}
        assert launcher._differences(there) == (
            f"--launcher ray: the worker on node7 has clrl 9.9 (here {here['clrl']}), "
            f"torch none (here {here['torch']})"
        )

    def test_files_travel_by_name(self, tmp_path: Path) -> None:
        here, there = tmp_path / "here", tmp_path / "there"
        for folder in (here, there):
            folder.mkdir()
        for name in ("metrics.jsonl", "checkpoint.pt", "events.out.tfevents.2.clrl"):
            (there / name).write_text(name)
        (there / "status.json").write_text("not carried")
        (here / "events.out.tfevents.1.clrl").write_text("older")
        launcher._write(here, launcher._packed(there))
        assert sorted(path.name for path in here.iterdir()) == [
            "checkpoint.pt", "events.out.tfevents.2.clrl", "metrics.jsonl",
        ]  # fmt: skip

    @pytest.mark.parametrize("name", ["../planted", "status.json", "/tmp/planted"])
    def test_other_files_are_refused(self, tmp_path: Path, name: str) -> None:
        with pytest.raises(ValueError, match="which no run has"):
            launcher._write(tmp_path, {name: b"content"})
        assert not list(tmp_path.rglob("*"))

    @pytest.mark.parametrize("address", ["nowhere", "host:port", ":", "1.2.3.4:x"])
    def test_an_address_that_is_none(self, address: str) -> None:
        with pytest.raises(UsageError, match="--address: expected HOST:PORT"):
            launcher._reach(address)

    def test_an_address_where_nobody_is(self) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        with pytest.raises(UsageError, match=f"--address 127.0.0.1:{port}: nobody answers there"):
            launcher._reach(f"127.0.0.1:{port}")

    def test_without_ray(
        self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
    ) -> None:
        def missing(name: str) -> Any:
            raise ModuleNotFoundError(name)

        monkeypatch.setattr(launcher.importlib, "import_module", missing)
        with pytest.raises(UsageError, match=r"pip install 'clrl\[ray\]'"):
            launcher.RayCrew(None, None, tmp_path)

    def test_an_address_is_rays_alone(self, capsys: pytest.CaptureFixture[str]) -> None:
        assert main(["suite", "quickstart", "--address", "a:1"]) == 2
        assert "--address: expected with --launcher ray" in capsys.readouterr().err


@pytest.fixture
def cluster() -> Iterator[Any]:
    pytest.importorskip("ray", reason="ray is not installed")
    from ray.cluster_utils import Cluster

    head = {"num_cpus": 1, "include_dashboard": False}
    made = Cluster(initialize_head=True, head_node_args=head)
    try:
        yield made
    finally:
        made.shutdown()


@pytest.mark.slow
@pytest.mark.filterwarnings("default")  # Ray's own
class TestOnACluster:
    def test_a_lost_node_costs_time_alone(self, tmp_path: Path, cluster: Any) -> None:
        node = cluster.add_node(num_cpus=1)
        cluster.wait_for_nodes()
        out = tmp_path / "ray"
        crew = launcher.RayCrew(None, cluster.address, out)
        assert crew.size == 2

        def kill() -> None:
            while len(list(out.rglob("checkpoint.pt"))) < 2:
                time.sleep(0.05)
            cluster.remove_node(node, allow_graceful=False)

        threading.Thread(target=kill, daemon=True).start()
        said = carry_out(out, crew)
        assert "is lost" in said and "goes on from its checkpoint" in said
        states = [record.read_status(folder) for folder in record.run_folders(out)]
        assert [status["state"] for status in states] == ["finished"] * 6
        assert max(status["restarts"] for status in states) >= 1
        carry_out(tmp_path / "local", LocalCrew(2))
        assert lines(out) == lines(tmp_path / "local")

    def test_files_come_back_where_nothing_is_shared(
        self, tmp_path: Path, cluster: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        out = tmp_path / "ray"
        crew = launcher.RayCrew(1, cluster.address, out)
        crew._token.close()  # so that no node sees it
        monkeypatch.setattr(crew._token, "close", lambda: None)
        seen = []

        def look() -> None:
            while not list(out.rglob("checkpoint.pt")):
                time.sleep(0.05)
            seen.append(record.read_status(record.run_folders(out)[0])["state"])

        threading.Thread(target=look, daemon=True).start()
        carry_out(out, crew)
        assert seen == ["running"]  # a checkpoint came before the end
        carry_out(tmp_path / "local", LocalCrew(2))
        assert lines(out) == lines(tmp_path / "local")
        assert "nothing to do" in carry_out(out, LocalCrew(1))

    def test_another_version_ends_before_anything_is_written(
        self, tmp_path: Path, cluster: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        out = tmp_path / "ray"
        crew = launcher.RayCrew(1, cluster.address, out)
        here = {**provenance(), "clrl": "9.9"}
        monkeypatch.setattr(launcher, "provenance", lambda: here)
        with pytest.raises(UsageError, match=r"the worker on .* has clrl .* \(here 9.9\)"):
            carry_out(out, crew)
        assert not out.exists()


class Local:
    """Makes submitit's local executor, and keeps the jobs that it is given."""

    def __init__(self) -> None:
        pytest.importorskip("submitit", reason="submitit is not installed")
        self.jobs: list[Any] = []

    def __call__(self, folder: Path) -> Any:
        import submitit

        executor = submitit.LocalExecutor(folder=folder)
        executor.update_parameters(timeout_min=60)
        submit = executor.submit

        def noted(*given: Any) -> Any:
            self.jobs.append(submit(*given))
            return self.jobs[-1]

        executor.submit = noted
        return executor

    def wait(self) -> None:
        """Wait for the processes, which submitit leaves to themselves."""
        for job in self.jobs:
            job._process.wait(60)


def wait_for_metrics(out: Path) -> None:
    """Wait until the first learner's runs have some."""
    while not record.read_metrics(out / "permuted-digits" / "sgd" / "seed-0" / "metrics.jsonl"):
        time.sleep(0.05)


@pytest.mark.slow
class TestJobs:
    def test_a_preempted_job_goes_on(self, tmp_path: Path) -> None:
        out, local = tmp_path / "slurm", Local()

        def preempt() -> None:
            wait_for_metrics(out)
            found = subprocess.check_output(["pgrep", "-P", str(local.jobs[0]._process.pid)])
            os.kill(int(found.split()[0]), signal.SIGUSR2)  # as Slurm does, to the job's step

        threading.Thread(target=preempt, daemon=True).start()
        said = carry_out(out, SlurmCrew(None, out, SlurmOptions(), local))
        local.wait()
        assert "preempted; queued again" in said
        states = [record.read_status(folder) for folder in record.run_folders(out)]
        assert [status["state"] for status in states] == ["finished"] * 6
        assert {status["restarts"] for status in states} == {0}  # by the queue, not by us
        assert len(local.jobs) == 3
        carry_out(tmp_path / "local", LocalCrew(2))
        assert lines(out) == lines(tmp_path / "local")

    def test_a_job_that_is_killed_goes_on(self, tmp_path: Path) -> None:
        out, local = tmp_path / "slurm", Local()

        def kill() -> None:
            wait_for_metrics(out)
            local.jobs[0]._process.kill()

        threading.Thread(target=kill, daemon=True).start()
        said = carry_out(out, SlurmCrew(None, out, SlurmOptions(), local))
        local.wait()
        assert "interrupted" in said
        assert len(local.jobs) == 4
        carry_out(tmp_path / "local", LocalCrew(2))
        assert lines(out) == lines(tmp_path / "local")


def test_the_script_asks_for_what_it_was_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("submitit", reason="submitit is not installed")
    (tmp_path / "srun").write_text("")  # by which submitit knows that there is Slurm
    (tmp_path / "srun").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    asked = SlurmOptions(partition="short", account="lab", time=1.5, memory=6.0)
    executor = slurm.slurm_executor(tmp_path, asked, 7)
    script = executor._make_submission_file_text("command", "id")
    settings = [line for line in script.splitlines() if line.startswith("#SBATCH")]
    for wanted in (
        "--partition=short",
        "--account=lab",
        "--time=90",
        "--mem=6144MB",
        "--cpus-per-task=1",
        "--nodes=1",
        "--ntasks-per-node=1",
        "--job-name=clrl",
        "--signal=USR2@90",
    ):
        assert f"#SBATCH {wanted}" in settings


def test_without_slurm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("submitit", reason="submitit is not installed")
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(UsageError, match="there is no Slurm on this machine"):
        SlurmCrew(None, tmp_path, SlurmOptions())


def test_options_are_read(capsys: pytest.CaptureFixture[str]) -> None:
    words = ["suite", "quickstart", "--launcher", "slurm", "--slurm.time", "0"]
    assert main(words) == 2
    assert "--slurm.time: expected" in capsys.readouterr().err
