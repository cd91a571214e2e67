"""Networks with statistics and chance: killed and gone on, or alone, they have the same bits."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from clrl.settings.config import resolve
from clrl.settings.values import Place
from clrl.storage import checkpoint
from clrl.storage.checkpoint import Keeping
from clrl.storage.record import METRICS, read_metrics
from clrl.testing import Broken
from clrl.testing.elsewhere import elsewhere
from clrl.testing.promises import difference
from clrl.training.attempt import Attempt

FIVE = (0, 1, 2, 3, 4)
CONFIG = resolve(
    {
        "benchmark": {"name": "permuted-digits", "task_length": 200},
        "agent": {"name": "supervised", "batch_size": 5, "diagnose_every": 10},
        "network": {"name": "mlp", "widths": [12, 8], "batch_norm": True, "dropout": 0.1},
        "optimizer": {"name": "adam", "lr": 0.01},
        "steps": 600,
        "log_every": 50,
    },
    Place("test"),
)


def attempt(out: Path, seeds: tuple[int, ...], die_at: int = 0) -> dict[int, str]:
    """Train, or go on, with a checkpoint every 100 steps; at a step the process may be killed."""
    folders = {seed: out / f"seed-{seed}" for seed in seeds}
    for folder in folders.values():
        folder.mkdir(parents=True, exist_ok=True)

    def progress(done: int, _: object) -> None:
        if die_at and done >= die_at * len(seeds):
            os.kill(os.getpid(), signal.SIGKILL)

    keeping = Keeping(minutes=1e6, steps=100)
    return Attempt(CONFIG, folders, keeping, progress, print, resumes=True).run()


def recorded(out: Path, seed: int) -> list[dict[str, Any]]:
    rows = read_metrics(out / f"seed-{seed}" / METRICS)
    return [{k: v for k, v in row.items() if not k.startswith("time/")} for row in rows]


def saved(out: Path, first: int = 0) -> dict[str, Any]:
    loop: dict[str, Any] = checkpoint.read(out / f"seed-{first}" / checkpoint.NAME)["loop"]
    return loop


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Five learners, never interrupted."""
    out = tmp_path_factory.mktemp("whole")
    assert set(attempt(out, FIVE).values()) == {"finished"}
    return out


def test_killed_and_gone_on_it_is_as_never_interrupted(whole: Path, tmp_path: Path) -> None:
    with pytest.raises(Broken, match="ended without an answer"):
        elsewhere(attempt, tmp_path, FIVE, 350)
    assert saved(tmp_path)["step"] == 300
    assert len(recorded(tmp_path, 0)) < len(recorded(whole, 0))
    assert set(attempt(tmp_path, FIVE).values()) == {"finished"}
    for seed in FIVE:
        assert recorded(tmp_path, seed) == recorded(whole, seed)
    assert not difference(saved(whole), saved(tmp_path))


def test_one_alone_is_as_among_five(whole: Path, tmp_path: Path) -> None:
    attempt(tmp_path, (2,))
    assert recorded(tmp_path, 2) == recorded(whole, 2)
    alone, among = (one["agent"]["population"] for one in (saved(tmp_path, 2), saved(whole)))
    assert torch.equal(alone["rows"][0], among["rows"][2])
    for name, own in among["kept"].items():
        assert torch.equal(alone["kept"][name][0], own[2]), name


def test_statistics_are_a_members_own(whole: Path) -> None:
    kept: dict[str, Tensor] = saved(whole)["agent"]["population"]["kept"]
    assert kept["norms.0.num_batches_tracked"].tolist() == [600 // 5] * 5
    for name, own in kept.items():
        if name.endswith(("running_mean", "running_var")):
            assert len(own.unique(dim=0)) == 5, name
