"""Where measurements go besides metrics.jsonl."""

from __future__ import annotations

import csv
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from clrl.cli.main import main
from clrl.errors import RunsFailed
from clrl.storage import record
from clrl.storage.checkpoint import Keeping
from clrl.storage.logs import CSV, Told
from clrl.storage.record import Row


class Kept:
    """A log of the test's own."""

    made: list[Kept] = []

    def __init__(self, folder: Path, rows: Sequence[Row]) -> None:
        self.folder, self.rows, self.open = folder, list(rows), True
        self.made.append(self)

    def write(self, step: int, values: Mapping[str, float]) -> None:
        self.rows.append({"step": step, **values})

    def close(self) -> None:
        self.open = False


def values_of(folder: Path) -> list[tuple[int, str, float]]:
    with open(folder / "metrics.csv", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    return [(int(row["step"]), row["metric"], float(row["value"])) for row in rows]


def recorded(folder: Path) -> list[tuple[int, str, float]]:
    found: list[tuple[int, str, float]] = []
    for row in record.read_metrics(folder / record.METRICS):
        step = int(row.pop("step") or 0)
        found += [(step, tag, value) for tag, value in row.items() if value is not None]
    return found


def test_csv_holds_what_is_recorded(tmp_path: Path) -> None:
    with record.Recorder(tmp_path) as recorder:
        log = CSV(tmp_path, [])
        told = Told(recorder, [log])
        told.write(1, {"a": 0.1, "b": math.nan})
        told.write(2, {"c": 3.0})
        log.close()
    assert values_of(tmp_path) == recorded(tmp_path) == [(1, "a", 0.1), (2, "c", 3.0)]


def test_csv_begins_with_what_was_recorded_before(tmp_path: Path) -> None:
    CSV(tmp_path, [{"step": 9, "gone": 1.0}]).close()
    log = CSV(tmp_path, [{"step": 1, "a": 0.5, "b": None}])
    log.write(2, {"a": 0.25})
    log.close()
    assert values_of(tmp_path) == [(1, "a", 0.5), (2, "a", 0.25)]


def test_a_run_that_goes_on_tells_its_log_all_of_it(tmp_path: Path) -> None:
    """In this process: an attempt that is cut off after a checkpoint, and one that goes on."""
    from clrl.settings.config import resolve
    from clrl.settings.values import Place
    from clrl.training.attempt import Attempt

    config = resolve(
        {"steps": 60, "log_every": 20, "network": {"widths": [3]},
         "benchmark": {"task_length": 20}}, Place("test"),
    )  # fmt: skip
    folders = {seed: tmp_path / f"seed-{seed}" for seed in (0, 1)}
    for seed, folder in folders.items():
        record.start_run(folder, seed, {}, "hash")

    class Cut(Exception):
        pass

    def cut(done: int, online: Any) -> None:
        if done >= 80:
            raise Cut

    def attempt(progress: Any, resumes: bool) -> Any:
        logs = ("csv", f"{__name__}:Kept")
        keeping = Keeping(steps=20)
        return Attempt(config, folders, keeping, progress, print, resumes, "cpu", logs)

    Kept.made.clear()
    with pytest.raises(Cut):
        attempt(cut, False).run()
    assert [log.open for log in Kept.made] == [False, False]
    attempt(lambda done, online: None, True).run()
    for seed, folder in folders.items():
        assert values_of(folder) == recorded(folder)
        last = next(log for log in reversed(Kept.made) if log.folder == folder)
        steps = [row["step"] for row in record.read_metrics(folder / record.METRICS)]
        assert [row["step"] for row in last.rows] == steps
        assert not last.open, seed


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("cvs", "--log: unknown log 'cvs'; did you mean 'csv'?"),
        ("no.such:Log", "'no.such:Log': cannot import 'no.such'"),
    ],
)
def test_mistakes(
    name: str,
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["run", "--log", name]) == 2
    assert message in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_from_python(tmp_path: Path) -> None:
    import clrl

    small: dict[str, Any] = {"steps": 20, "log_every": 10, "network": {"widths": [3]}}
    clrl.run(**small, out=tmp_path / "out", log=["csv"], workers=1, quiet=True)
    (folder,) = record.run_folders(tmp_path / "out")
    assert values_of(folder) == recorded(folder) != []
    with pytest.raises(RunsFailed):
        clrl.run(**small, out=tmp_path / "bad", log=["builtins:dict"], workers=1, quiet=True)
