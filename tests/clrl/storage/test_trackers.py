"""Weights & Biases without a network, and MLflow's file store; each where it is installed."""

from __future__ import annotations

import json
import math
import struct
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from clrl.errors import UsageError
from clrl.storage import record, trackers

WINDOWS: list[tuple[int, dict[str, float]]] = [
    (10, {"online/loss": 0.5, "plasticity/network/dead_units": 0.25}),
    (20, {"online/loss": 0.1, "online/return": math.nan}),
    (30, {"online/loss": 0.125}),
]
CURVES = {
    "online/loss": [(10, 0.5), (20, 0.1), (30, 0.125)],
    "plasticity/network/dead_units": [(10, 0.25)],
}
"""What is in ``metrics.jsonl`` of `WINDOWS`: tag to steps and values."""


@pytest.fixture
def folders(tmp_path: Path) -> list[Path]:
    found = [tmp_path / "out" / "digits" / "adam" / f"seed-{seed}" for seed in (0, 1)]
    for seed, folder in enumerate(found):
        record.start_run(folder, seed, {"steps": 30, "optimizer": {"name": "adam"}}, "hash")
    return found


def log_all(tracker: Any, folders: list[Path]) -> None:
    """Two runs side by side, as of a population; each begun anew after its second line."""
    first = [tracker(folder, []) for folder in folders]
    for step, values in WINDOWS[:2]:
        for log in first:
            log.write(step, values)
    for log in first:
        log.close()
    rows = [
        {"step": step, **{tag: None if math.isnan(one) else one for tag, one in values.items()}}
        for step, values in WINDOWS[:2]
    ]
    again = [tracker(folder, rows) for folder in folders]
    for log in again:
        log.write(*WINDOWS[2])
        log.close()


def blocks(file: bytes) -> Iterator[bytes]:
    """The records of a ``.wandb`` file, which is a LevelDB log after seven bytes."""
    place, parts = 7, b""
    while place + 7 <= len(file):
        left = 32768 - place % 32768
        if left < 7:
            place += left
            continue
        _, size, kind = struct.unpack_from("<IHB", file, place)
        parts += file[place + 7 : place + 7 + size]
        place += 7 + size
        if kind in (1, 4):  # whole, or the last of several
            yield parts
            parts = b""


def test_wandb_offline(folders: list[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("wandb")
    from wandb.proto import wandb_internal_pb2

    monkeypatch.setenv("WANDB_MODE", "offline")
    log_all(trackers.WandB, folders)
    identifiers = set()
    for folder in folders:
        *_, path = sorted(folder.glob("wandb/*/*.wandb"), key=lambda one: one.stat().st_mtime_ns)
        curves: dict[str, list[tuple[int, float]]] = {}
        settings: dict[str, Any] = {}
        for data in blocks(path.read_bytes()):
            one = wandb_internal_pb2.Record()
            one.ParseFromString(data)
            if one.HasField("run"):
                identifiers.add(one.run.run_id)
                assert one.run.display_name == f"digits/adam/{folder.name}"
                settings |= {
                    item.key: json.loads(item.value_json) for item in one.run.config.update
                }
            if one.HasField("history"):
                items = {
                    item.key or "/".join(item.nested_key): json.loads(item.value_json)
                    for item in one.history.item
                }
                for tag in CURVES.keys() & items.keys():
                    curves.setdefault(tag, []).append((one.history.step.num, items[tag]))
                assert "online/return" not in items
        assert curves == CURVES
        assert settings["optimizer"] == {"name": "adam"}
    assert len(identifiers) == 2


def test_mlflow_in_files(
    folders: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mlflow = pytest.importorskip("mlflow")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", (tmp_path / "store").as_uri())
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    log_all(trackers.MLflow, folders)
    client = mlflow.MlflowClient()
    experiment = client.get_experiment_by_name("clrl")
    runs = client.search_runs([experiment.experiment_id])
    assert {run.info.run_name for run in runs} == {"digits/adam/seed-0", "digits/adam/seed-1"}
    assert len(runs) == 2
    for run in runs:
        assert run.data.params["optimizer.name"] == "adam"
        assert run.info.status == "FINISHED"
        curves = {
            tag: [(one.step, one.value) for one in client.get_metric_history(run.info.run_id, tag)]
            for tag in run.data.metrics
        }
        assert curves == CURVES


@pytest.mark.parametrize(("name", "make"), [("wandb", trackers.WandB), ("mlflow", trackers.MLflow)])
def test_what_is_not_installed_is_named(
    name: str, make: Any, folders: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(UsageError, match=rf"--log {name}: .*pip install 'clrl\[{name}\]'"):
        make(folders[0], [])
