"""What a run leaves on disk."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from clrl import record
from clrl.record import Recorder, read_metrics


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
        assert {"clrl", "numpy", "torch"} <= status["versions"].keys()
        assert record.read_config(folder) == {"steps": 5}
        with Recorder(folder) as recorder:
            recorder.write(5, {"a": 1.0})
        record.end_run(folder, "finished")
        status = record.read_status(folder)
        assert (status["state"], status["steps"], status["config_hash"]) == ("finished", 5, "abc")
        assert not list(folder.glob("*.tmp"))
        assert record.run_folders(tmp_path) == [folder]

    def test_a_new_start_removes_what_was_there(self, tmp_path: Path) -> None:
        record.start_run(tmp_path, 0, {}, "abc")
        with Recorder(tmp_path) as recorder:
            recorder.write(5, {"a": 1.0})
        record.end_run(tmp_path, "failed", "Traceback\nValueError: no\n")
        assert (tmp_path / "error.txt").read_text() == "Traceback\nValueError: no\n"
        record.start_run(tmp_path, 0, {}, "def")
        names = sorted(path.name for path in tmp_path.iterdir())
        assert names == ["config.yaml", "status.json"]

    @pytest.mark.parametrize("content", ["", "[1]", '{"state": "fin'])
    def test_what_cannot_be_read_counts_as_nothing(self, tmp_path: Path, content: str) -> None:
        (tmp_path / "status.json").write_text(content)
        assert record.read_status(tmp_path) == {}

    def test_run_folders_come_by_number(self, tmp_path: Path) -> None:
        for name in ("seed-10", "seed-2", "seed-x"):
            record.start_run(tmp_path / "b" / "l" / name, 0, {}, "")
        names = [folder.name for folder in record.run_folders(tmp_path)]
        assert names == ["seed-2", "seed-10"]


def test_atomic_writing_leaves_the_old_file_when_it_fails(tmp_path: Path) -> None:
    path = tmp_path / "file"
    record.write_atomically(path, "old")
    with pytest.raises(UnicodeEncodeError):
        record.write_atomically(path, "\udc80")
    assert path.read_text() == "old"
