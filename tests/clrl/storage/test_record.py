"""What a run leaves on disk."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path

import pytest

from clrl.errors import StorageError, UsageError
from clrl.storage import record
from clrl.storage.provenance import provenance
from clrl.storage.record import Recorder, Unlike, read_metrics


def events(folder: Path) -> list[tuple[int, str, float]]:
    """(step, tag, value) of an event file, read by TensorBoard's own reader."""
    from tensorboard.backend.event_processing.event_file_loader import RawEventFileLoader
    from tensorboard.compat.proto.event_pb2 import Event

    (path,) = folder.glob("events.out.tfevents.*")
    found = [Event.FromString(raw) for raw in RawEventFileLoader(str(path)).Load()]
    assert found[0].file_version == "brain.Event:2"
    assert all(event.wall_time > 1.7e9 for event in found)
    return [
        (event.step, value.tag, value.simple_value)
        for event in found[1:]
        for value in event.summary.value
    ]


def test_lines_and_events_hold_the_same(tmp_path: Path) -> None:
    with Recorder(tmp_path) as recorder:
        recorder.write(10, {"online/loss": 0.5, "online/accuracy": 0.25})
        recorder.write(20, {"online/loss": 0.125})
    lines = (tmp_path / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(line) for line in lines] == [
        {"step": 10, "online/loss": 0.5, "online/accuracy": 0.25},
        {"step": 20, "online/loss": 0.125},
    ]
    assert list(json.loads(lines[0])) == ["step", "online/loss", "online/accuracy"]
    assert events(tmp_path) == [
        (10, "online/loss", 0.5),
        (10, "online/accuracy", 0.25),
        (20, "online/loss", 0.125),
    ]


def test_every_float_is_kept_to_the_last_bit(tmp_path: Path) -> None:
    value = 0.1 + 0.2
    with Recorder(tmp_path) as recorder:
        recorder.write(1, {"x": value})
    assert read_metrics(tmp_path / "metrics.jsonl") == [{"step": 1, "x": value}]


def test_what_is_not_finite_is_null_and_no_event(tmp_path: Path) -> None:
    with Recorder(tmp_path) as recorder:
        recorder.write(1, {"a": float("nan"), "b": float("inf"), "c": 1.0})
    assert read_metrics(tmp_path / "metrics.jsonl") == [{"step": 1, "a": None, "b": None, "c": 1.0}]
    assert "NaN" not in (tmp_path / "metrics.jsonl").read_text()
    assert events(tmp_path) == [(1, "c", 1.0)]


def test_a_line_is_on_disk_when_write_returns(tmp_path: Path) -> None:
    recorder = Recorder(tmp_path)
    recorder.write(1, {"a": 1.0})
    assert read_metrics(tmp_path / "metrics.jsonl") == [{"step": 1, "a": 1.0}]
    assert events(tmp_path) == [(1, "a", 1.0)]
    recorder.close()
    recorder.close()


class TestReadMetrics:
    def test_no_file(self, tmp_path: Path) -> None:
        assert read_metrics(tmp_path / "metrics.jsonl") == []

    @pytest.mark.parametrize("tail", ['{"step": 2, "a', '{"step": 2}', '{"st\xc3'])
    def test_a_last_line_cut_off_is_left_out(self, tmp_path: Path, tail: str) -> None:
        path = tmp_path / "metrics.jsonl"
        path.write_bytes(b'{"step": 1}\n' + tail.encode("latin-1"))
        assert read_metrics(path) == [{"step": 1}]

    def test_a_broken_line_before_is_an_error(self, tmp_path: Path) -> None:
        path = tmp_path / "metrics.jsonl"
        path.write_text('{"step": 1}\n{"st\n{"step": 3}\n')
        with pytest.raises(ValueError, match="line 2 is not JSON"):
            read_metrics(path)


class TestStatus:
    def test_a_run_from_start_to_end(self, tmp_path: Path) -> None:
        folder = tmp_path / "b" / "l" / "seed-3"
        record.start_run(folder, 3, {"steps": 5}, "abc")
        status = record.read_status(folder)
        assert (status["state"], status["steps"], status["seed"]) == ("running", 0, 3)
        assert status["config_hash"] == "abc"
        assert status["provenance"] == dict(provenance())
        assert record.read_config(folder) == {"steps": 5}
        with Recorder(folder) as recorder:
            recorder.write(5, {"a": 1.0})
        record.end_run(folder, "finished")
        status = record.read_status(folder)
        assert (status["state"], status["steps"], status["config_hash"]) == ("finished", 5, "abc")
        assert not list(folder.glob("*.tmp"))
        assert record.run_folders(tmp_path) == [folder]

    def test_a_new_start_forgets_an_error(self, tmp_path: Path) -> None:
        record.start_run(tmp_path, 0, {}, "abc", population=[0, 1])
        with Recorder(tmp_path) as recorder:
            recorder.write(5, {"a": 1.0})
        record.end_run(tmp_path, "failed", "Traceback\nValueError: no\n")
        assert (tmp_path / "error.txt").read_text() == "Traceback\nValueError: no\n"
        assert record.read_status(tmp_path)["population"] == [0, 1]
        record.start_run(tmp_path, 0, {}, "def")
        assert not (tmp_path / "error.txt").exists()
        assert "population" not in record.read_status(tmp_path)

    @pytest.mark.parametrize("content", ["", "[1]", '{"state": "fin'])
    def test_a_damaged_status_is_no_reason_to_begin_anew(
        self, tmp_path: Path, content: str
    ) -> None:
        assert record.read_status(tmp_path) == {}
        (tmp_path / "status.json").write_text(content)
        with pytest.raises(UsageError, match="status.json: expected a run's status"):
            record.read_status(tmp_path)

    def test_run_folders_come_by_number(self, tmp_path: Path) -> None:
        for name in ("seed-10", "seed-2", "seed-x"):
            record.start_run(tmp_path / "b" / "l" / name, 0, {}, "")
        names = [folder.name for folder in record.run_folders(tmp_path)]
        assert names == ["seed-2", "seed-10"]


class TestPosition:
    """Going on where a file was at some time."""

    ROWS = ((10, {"a": 1.0, "time/elapsed": 5.0}), (20, {"a": 2.0, "time/elapsed": 9.0}))

    def written(self, folder: Path) -> Recorder:
        recorder = Recorder(folder)
        for step, values in self.ROWS:
            recorder.write(step, values)
        return recorder

    def test_what_is_newer_is_cut_off(self, tmp_path: Path) -> None:
        with self.written(tmp_path) as recorder:
            position = recorder.position()
            content = (tmp_path / "metrics.jsonl").read_bytes()
            recorder.write(30, {"a": 3.0})
        with Recorder(tmp_path, position) as recorder:
            assert (tmp_path / "metrics.jsonl").read_bytes() == content
            assert recorder.position() == position
            recorder.write(30, {"a": 4.0})
        assert [step for step, tag, _ in events(tmp_path) if tag == "a"] == [10, 20, 30]
        assert events(tmp_path)[-1] == (30, "a", 4.0)
        assert position["size"] == len(content)
        assert position["sha256"] == hashlib.sha256(content).hexdigest()

    def test_a_line_cut_off_goes_too(self, tmp_path: Path) -> None:
        with self.written(tmp_path) as recorder:
            position = recorder.position()
        with open(tmp_path / "metrics.jsonl", "ab") as file:
            file.write(b'{"step": 30, "a"')
        with Recorder(tmp_path, position) as recorder:
            recorder.write(30, {"a": 3.0})
        steps = [row["step"] for row in read_metrics(tmp_path / "metrics.jsonl")]
        assert steps == [10, 20, 30]

    def test_events_keep_their_distance_in_time(self, tmp_path: Path) -> None:
        from tensorboard.backend.event_processing.event_file_loader import EventFileLoader

        with self.written(tmp_path) as recorder:
            position = recorder.position()
        with Recorder(tmp_path, position):
            (path,) = tmp_path.glob("events.out.tfevents.*")
        times = [event.wall_time for event in EventFileLoader(str(path)).Load()]
        assert [time - times[0] for time in times] == pytest.approx([0.0, 5.0, 9.0], abs=1e-3)

    @pytest.mark.parametrize("change", [b"", b'{"step": 10}\n', None])
    def test_another_file_is_refused_and_left(self, tmp_path: Path, change: bytes | None) -> None:
        with self.written(tmp_path) as recorder:
            position = recorder.position()
        path = tmp_path / "metrics.jsonl"
        content = path.read_bytes()
        changed = content.replace(b"2.0", b"2.5") if change is None else change
        path.write_bytes(changed)
        with pytest.raises(Unlike, match="metrics.jsonl: not what it was"):
            Recorder(tmp_path, position)
        assert path.read_bytes() == changed

    def test_a_deleted_folder_is_noticed(self, tmp_path: Path) -> None:
        folder = tmp_path / "run"
        folder.mkdir()
        with Recorder(folder) as recorder:
            shutil.rmtree(folder)
            with pytest.raises(StorageError, match="metrics.jsonl: it was deleted"):
                recorder.write(1, {"a": 1.0})
