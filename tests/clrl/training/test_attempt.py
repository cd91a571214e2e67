"""Attempts at real, small training: when checkpoints are written, and what is gone on from."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from clrl.errors import StorageError, UsageError
from clrl.machine import STOPPING
from clrl.settings.config import resolve
from clrl.settings.values import Place
from clrl.storage import checkpoint, record
from clrl.storage.checkpoint import Keeping
from clrl.storage.record import METRICS, read_metrics
from clrl.training import attempt
from clrl.training.attempt import Attempt, Preempted
from clrl.training.streams import Training

CONFIG = resolve(
    {
        "benchmark": {"name": "permuted-digits", "task_length": 100},
        "network": {"name": "mlp", "widths": [8]},
        "optimizer": {"name": "upgd", "lr": 0.01},  # it draws noise and keeps utilities
        "steps": 600,
        "log_every": 50,
        "chunk_size": 2,
    },
    Place("test"),
)
SEEDS = (0, 1)
NEVER = Keeping(minutes=1e6)
Steps = Callable[[int, Any], None]


class Trained:
    """Attempts in one folder, and what they said."""

    def __init__(self, out: Path) -> None:
        self.folders = {seed: out / f"seed-{seed}" for seed in SEEDS}
        for folder in self.folders.values():
            folder.mkdir(parents=True)
        self.home = self.folders[SEEDS[0]]
        self.remarks: list[str] = []

    def attempt(
        self, keeping: Keeping = NEVER, progress: Steps = lambda *_: None, resumes: bool = True
    ) -> dict[int, str]:
        one = Attempt(CONFIG, self.folders, keeping, progress, self.remarks.append, resumes)
        self.loop = one._loop
        return one.run()

    def stopped(self, at: int, keeping: Keeping = NEVER) -> int:
        """An attempt that ends by a signal at a step; at which step its checkpoint is."""

        def progress(done: int, online: object) -> None:
            if done >= at * len(SEEDS):
                os.kill(os.getpid(), signal.SIGTERM)

        with pytest.raises(Preempted):
            self.attempt(keeping, progress)
        return self.saved()

    def saved(self, name: str = checkpoint.NAME) -> int:
        return int(checkpoint.read(self.home / name)["loop"]["step"])

    def result(self) -> Any:
        """Metrics without times, and the bits of everything that was saved."""
        rows = [
            [
                {k: v for k, v in row.items() if not k.startswith("time/")}
                for row in read_metrics(folder / METRICS)
            ]
            for folder in self.folders.values()
        ]
        return rows, bits(checkpoint.read(self.home / checkpoint.NAME)["loop"])


def bits(value: Any) -> Any:
    """Plain values for plain values and tensors, equal only where these are the same bits."""
    if isinstance(value, torch.Tensor):
        return [str(value.dtype), list(value.shape), value.contiguous().numpy().tobytes()]
    if isinstance(value, dict):
        return {key: bits(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [bits(one) for one in value]
    return repr(value)


@pytest.fixture(scope="module")
def wanted(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """What an uninterrupted run ends with."""
    one = Trained(tmp_path_factory.mktemp("whole"))
    assert one.attempt(resumes=False) == {0: "finished", 1: "finished"}
    return one.result()


@pytest.fixture
def one(tmp_path: Path) -> Trained:
    return Trained(tmp_path)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """A clock that stands still."""
    now = [1000.0]
    monkeypatch.setattr(attempt.time, "monotonic", lambda: now[0])  # type: ignore[attr-defined]
    return now


@pytest.fixture
def written(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The steps of the checkpoints that are written."""
    steps: list[int] = []
    write = checkpoint.write

    def noting(folder: Path, content: bytes) -> None:
        steps.append(checkpoint.unpack(content, folder)["loop"]["step"])
        write(folder, content)

    monkeypatch.setattr(checkpoint, "write", noting)
    return steps


class TestWhen:
    def test_at_the_end_alone(self, one: Trained, clock: list[float], written: list[int]) -> None:
        one.attempt()
        assert written == [600]
        assert not (one.home / checkpoint.PREVIOUS).exists()
        assert not (one.folders[1] / checkpoint.NAME).exists()

    def test_by_steps(self, one: Trained, clock: list[float], written: list[int]) -> None:
        """Safe points are 50 steps apart, so the first at which 120 have passed is the third."""
        one.attempt(Keeping(minutes=1e6, steps=120))
        assert written == [150, 300, 450, 600, 600]

    def test_by_time(self, one: Trained, clock: list[float], written: list[int]) -> None:
        """Twenty seconds a safe point, so a minute has passed at every third."""

        def progress(_: int, online: object) -> None:
            clock[0] += 20

        one.attempt(Keeping(minutes=1.0), progress)
        assert written == [150, 300, 450, 600, 600]


class TestGoingOn:
    @pytest.mark.parametrize("number", STOPPING)
    def test_after_a_signal(self, one: Trained, wanted: Any, number: int) -> None:
        before = {each: signal.getsignal(each) for each in STOPPING}

        def progress(done: int, online: object) -> None:
            if done == 2 * 250:
                os.kill(os.getpid(), number)

        with pytest.raises(Preempted):
            one.attempt(progress=progress)
        assert one.saved() == 250
        assert {each: signal.getsignal(each) for each in STOPPING} == before
        assert one.attempt() == {0: "finished", 1: "finished"}
        assert one.result() == wanted
        assert one.remarks == []

    def test_what_is_newer_than_the_checkpoint_is_cut_off(self, one: Trained, wanted: Any) -> None:
        one.stopped(200)
        for folder in one.folders.values():
            with open(folder / METRICS, "a") as file:
                file.write('{"step": 250, "x": 1}\n{"step": 3')
        one.attempt()
        assert one.result() == wanted

    def test_time_goes_on(self, one: Trained) -> None:
        one.stopped(300)
        path = one.home / checkpoint.NAME
        saved = checkpoint.read(path)
        path.write_bytes(checkpoint.pack({**saved, "elapsed": 1000.0}))
        one.attempt()
        times = [row.get("time/elapsed") for row in read_metrics(one.home / METRICS)]
        known = [value for value in times if value is not None]
        assert known == sorted(known)
        assert 1000 < known[-1] < 1100
        assert max(known[: len(known) // 2]) < 100

    def test_from_the_end(self, one: Trained, wanted: Any) -> None:
        one.attempt()
        one.attempt()
        assert one.result() == wanted

    def test_an_attempt_that_is_not_to_go_on_begins_anew(self, one: Trained, wanted: Any) -> None:
        one.stopped(300)
        first: list[int] = []
        one.attempt(progress=lambda done, _: first.append(done), resumes=False)
        assert first[0] == 2 * 50
        assert one.result() == wanted


def damage(path: Path, how: str) -> None:
    content = bytearray(path.read_bytes())
    if how == "bit":
        content[len(content) // 2] ^= 16
    path.write_bytes({"bit": content, "cut": content[:-1], "empty": b"", "text": b"no"}[how])


class TestDamage:
    @pytest.mark.parametrize("how", ["bit", "cut", "empty", "text"])
    def test_the_previous_one_is_used(self, one: Trained, wanted: Any, how: str) -> None:
        assert one.stopped(300, Keeping(minutes=1e6, steps=100)) == 300
        assert one.saved(checkpoint.PREVIOUS) == 200
        damage(one.home / checkpoint.NAME, how)
        steps: list[int] = []
        one.attempt(progress=lambda done, _: steps.append(done))
        (remark,) = one.remarks
        assert remark.startswith(f"{one.home / checkpoint.NAME}: ")
        assert remark.endswith("; the previous one is used")
        assert steps[0] == 2 * 250
        assert one.result() == wanted

    def test_both_damaged_begins_anew(self, one: Trained, wanted: Any) -> None:
        one.stopped(300, Keeping(minutes=1e6, steps=100))
        for name in (checkpoint.NAME, checkpoint.PREVIOUS):
            damage(one.home / name, "bit")
        steps: list[int] = []
        one.attempt(progress=lambda done, _: steps.append(done))
        assert [remark.partition(":")[0] for remark in one.remarks] == [
            str(one.home / checkpoint.NAME),
            str(one.home / checkpoint.PREVIOUS),
        ]
        assert one.remarks[1].endswith("; it begins anew")
        assert steps[0] == 2 * 50
        assert one.result() == wanted

    @pytest.mark.parametrize("seed", SEEDS)
    def test_metrics_that_were_changed_are_not_done_anew(self, one: Trained, seed: int) -> None:
        one.stopped(300)
        path = one.folders[seed] / METRICS
        before = path.read_bytes()
        path.write_bytes(before.replace(b'"step": 50', b'"step": 51'))
        saved = (one.home / checkpoint.NAME).read_bytes()
        with pytest.raises(UsageError) as caught:
            one.attempt()
        assert str(caught.value) == (
            f"{path}: not what it was when the checkpoint was written; put it back, or remove "
            f"{one.home} to begin anew"
        )
        assert (one.home / checkpoint.NAME).read_bytes() == saved
        assert b'"step": 51' in path.read_bytes()
        path.write_bytes(before)
        one.attempt()
        assert one.remarks == []

    def test_metrics_cut_behind_the_previous_one_go_on_from_there(
        self, one: Trained, wanted: Any
    ) -> None:
        one.stopped(300, Keeping(minutes=1e6, steps=100))
        size = checkpoint.read(one.home / checkpoint.PREVIOUS)["records"][1]["size"]
        os.truncate(one.folders[1] / METRICS, size + 3)
        steps: list[int] = []
        one.attempt(progress=lambda done, _: steps.append(done))
        assert steps[0] == 2 * 250
        assert one.result() == wanted

    def test_one_that_cannot_be_read(self, one: Trained) -> None:
        one.stopped(300)
        path = one.home / checkpoint.NAME
        path.unlink()
        path.mkdir()
        with pytest.raises(StorageError, match=f"{path}: Is a directory"):
            one.attempt()


class TestSlowSafePoints:
    """More than a second apart: the last one is kept in memory, and written at once."""

    @pytest.fixture
    def between(self, monkeypatch: pytest.MonkeyPatch) -> dict[int, Callable[[], None]]:
        """What happens in training, between the safe point at a step and the next."""
        happens: dict[int, Callable[[], None]] = {}
        learn = Training._learn_block

        def learning(loop: Training) -> None:
            happens.pop(loop.step, lambda: None)()
            learn(loop)

        monkeypatch.setattr(Training, "_learn_block", learning)
        return happens

    def slow(self, clock: list[float]) -> Steps:
        def progress(_: int, online: object) -> None:
            clock[0] += 2.0

        return progress

    def test_the_one_in_memory_is_written_at_once(
        self, one: Trained, wanted: Any, clock: list[float], between: dict[int, Any]
    ) -> None:
        between[250] = lambda: os.kill(os.getpid(), signal.SIGTERM)
        with pytest.raises(Preempted):
            one.attempt(progress=self.slow(clock))
        assert one.loop.step == 250  # the next block did not begin
        assert one.saved() == 250
        one.attempt()
        assert one.result() == wanted

    def test_a_second_signal_changes_nothing(
        self,
        one: Trained,
        wanted: Any,
        clock: list[float],
        between: dict[int, Any],
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        """One as the files are closed, as when the terminal and the launcher both send one."""
        close = record.Recorder.close

        def closing(recorder: record.Recorder) -> None:
            close(recorder)
            os.kill(os.getpid(), signal.SIGTERM)

        between[250] = lambda: os.kill(os.getpid(), signal.SIGINT)
        with monkeypatch.context() as patch:
            patch.setattr(record.Recorder, "close", closing)
            with pytest.raises(Preempted):
                one.attempt(progress=self.slow(clock))
        assert one.saved() == 250
        assert not (one.home / checkpoint.PREVIOUS).exists()
        one.attempt()
        assert one.result() == wanted

    def test_a_signal_while_it_is_packed(
        self, one: Trained, clock: list[float], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        pack, packed = checkpoint.pack, []

        def packing(state: Any) -> bytes:
            packed.append(state["loop"]["step"])
            if packed[-1] == 250:
                os.kill(os.getpid(), signal.SIGTERM)
            return pack(state)

        monkeypatch.setattr(checkpoint, "pack", packing)
        with pytest.raises(Preempted):
            one.attempt(progress=self.slow(clock))
        assert one.saved() == one.loop.step == 250

    def test_a_signal_at_the_very_end(
        self, one: Trained, wanted: Any, clock: list[float], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """As the files are closed after the last checkpoint: that one stays."""
        close = record.Recorder.close

        def closing(recorder: record.Recorder) -> None:
            close(recorder)
            os.kill(os.getpid(), signal.SIGTERM)

        monkeypatch.setattr(record.Recorder, "close", closing)
        assert one.attempt(progress=self.slow(clock)) == {0: "finished", 1: "finished"}
        assert one.result() == wanted


class TestWhatCannotBeKept:
    @pytest.mark.parametrize("state", [lambda: 0, object(), print, {1}.__iter__()])
    def test_there_are_no_checkpoints_and_it_is_said(
        self, one: Trained, wanted: Any, monkeypatch: pytest.MonkeyPatch, state: object
    ) -> None:
        kept = Training.state_dict
        with monkeypatch.context() as patch:
            patch.setattr(Training, "state_dict", lambda loop: {**kept(loop), "odd": state})
            one.attempt(Keeping(minutes=1e6, steps=100))
        (remark,) = one.remarks
        assert remark.startswith("no checkpoints, so that it starts anew when it is interrupted: ")
        assert not checkpoint.exists(one.home)
        assert len(read_metrics(one.home / METRICS)) == len(wanted[0][0])

    def test_an_environment_that_says_so(
        self, one: Trained, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def refuse(_: Training) -> Any:
            raise UsageError("CarRacing keeps a world of its own")

        monkeypatch.setattr(Training, "state_dict", refuse)
        with pytest.raises(Preempted):
            one.attempt(progress=lambda *_: os.kill(os.getpid(), signal.SIGTERM))
        assert one.remarks == [
            "no checkpoints, so that it starts anew when it is interrupted: CarRacing keeps a "
            "world of its own"
        ]


class TestDisk:
    def test_a_folder_that_is_deleted_under_way(self, one: Trained) -> None:
        def progress(done: int, online: object) -> None:
            if done == 2 * 100:
                for path in one.folders[1].iterdir():
                    path.unlink()

        with pytest.raises(StorageError, match="seed-1/metrics.jsonl: it was deleted"):
            one.attempt(progress=progress)

    def test_no_room_for_a_checkpoint(
        self, one: Trained, wanted: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Writing fails as on a full disk from step 300 on, and what was there stays."""
        write = os.write

        def full(file: int, content: bytes) -> int:
            if len(content) > 5000 and one.loop.step > 250:
                raise OSError(28, "No space left on device")
            return write(file, content)

        with monkeypatch.context() as patch:
            patch.setattr(os, "write", full)
            with pytest.raises(StorageError, match="checkpoint.pt: No space left on device"):
                one.attempt(Keeping(minutes=1e6, steps=100))
        assert one.saved() == 200
        assert not list(one.home.glob("*.tmp"))
        one.attempt()
        assert one.result() == wanted

    def test_descriptors_are_closed(self, one: Trained) -> None:
        before = len(os.listdir("/proc/self/fd"))
        one.stopped(100)
        one.attempt()
        assert len(os.listdir("/proc/self/fd")) == before
