"""A suite's folder written by hand: known curves, a scratch reference, a sweep, a control task."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from clrl.report.export import write

Rows = list[dict[str, float | None]]
TASKS, LENGTH, EVERY = 10, 100, 10
SEEDS = (0, 1, 2, 3)

# Accuracy on the first task, and what each task takes off it.
DIGITS = {
    "steady": (0.8, 0.0),
    "fading": (0.9, 0.04),
    "fading+scratch": (0.9, 0.0),
    "adam+lr=0.1": (0.3, 0.0),
    "adam+lr=0.01": (0.7, 0.0),
    "adam+lr=0.001": (0.5, 0.0),
}
LEARNERS: dict[str, dict[str, Any]] = {
    "steady": {"optimizer": {"name": "upgd", "lr": 0.01}, "benchmarks": ["digits"]},
    "fading": {"optimizer": {"name": "adam", "lr": 0.003}, "benchmarks": ["digits"]},
    "fading+scratch": {
        "optimizer": {"name": "adam", "lr": 0.003},
        "agent": {"name": "supervised", "reset_at_change": True},
        "benchmarks": ["digits"],
        "scratch_of": "fading",
    },
    **{
        f"adam+lr={lr}": {
            "optimizer": {"name": "adam", "lr": lr},
            "benchmarks": ["digits"],
            "sweep": "adam",
        }
        for lr in (0.1, 0.01, 0.001)
    },
    "ppo": {"optimizer": {"name": "adam", "lr": 0.001}, "benchmarks": ["pole"]},
    "ppo-upgd": {"optimizer": {"name": "adaupgd", "lr": 0.001}, "benchmarks": ["pole"]},
}


def digits_rows(level: float, fall: float, seed: int) -> Rows:
    """Accuracy that falls with the tasks, and starts 0.1 lower at each; dead units that rise."""
    noise = 0.01 * np.random.default_rng(seed).standard_normal(TASKS)
    rows: Rows = [{"step": 0, "plasticity/network/dead_units": 0.0}]
    for task in range(TASKS):
        reached = level - fall * task + float(noise[task])
        windows = LENGTH // EVERY
        for window in range(1, windows + 1):
            start = 0.1 if window == 1 else 0.0
            row: dict[str, float | None] = {
                "step": task * LENGTH + window * EVERY,
                "online/accuracy": reached - start,
                "online/loss": 1 - reached,
                "plasticity/network/grad_norm": 1.0 + 0.1 * task,
                "plasticity/network/weight_magnitude": 0.1 + 0.01 * task,
                "plasticity/network/weight_magnitude/layer_1": 0.5,
            }
            if window == windows:
                row |= {"task/accuracy": reached - 0.01, "task/index": float(task)}
                row |= {
                    "plasticity/network/dead_units": fall * (task + 1) + 0.001 * seed,
                    "plasticity/network/effective_rank": 20.0 - 100 * fall * task / TASKS,
                }
            rows.append(row)
    return rows


def pole_rows(level: float, seed: int) -> Rows:
    """Returns of a control task, with windows in which no episode ended."""
    generator = np.random.default_rng(seed + 100)
    rows: Rows = []
    for window in range(1, TASKS * LENGTH // 20 + 1):
        step = window * 20
        row: dict[str, float | None] = {"step": step, "online/episodes": 2.0}
        if window % 7:
            value = level + 5 * float(generator.standard_normal())
            row |= {"online/return": value, "online/return_of_100": value}
        row |= {"plasticity/actor/dead_units": 0.1, "plasticity/critic/dead_units": 0.45}
        if step == TASKS * LENGTH:
            row |= {"plasticity/critic/dead_units/layer_1": 0.1}
            row |= {"plasticity/critic/dead_units/layer_2": 0.8}
        if step % (LENGTH * 2) == 0:
            row |= {"task/index": step / (LENGTH * 2) - 1, "task/return": level}
        rows.append(row)
    return rows


def write_run(folder: Path, rows: Rows, state: str = "finished") -> None:
    """A run's files, as a recorder leaves them."""
    folder.mkdir(parents=True)
    lines = [json.dumps(row) + "\n" for row in rows]
    (folder / "metrics.jsonl").write_text("".join(lines))
    status = {
        "seed": int(folder.name[5:]),
        "config_hash": "0123456789abcdef",
        "state": state,
        "steps": rows[-1]["step"] if rows else 0,
        "time": "2026-11-20T12:00:00+0000",
        "provenance": {
            "clrl": "0.1.0",
            "torch": "2.13.0",
            "mujoco": None,
            "commit": "c0ffee",
            "threads": 1,
            "device": "cpu",
            "python": "3.11.2",
            "machine": "here",
            "processor": "a fast one",
        },
    }
    (folder / "status.json").write_text(json.dumps(status))
    (folder / "config.yaml").write_text(f"seed: {folder.name[5:]}\nsteps: {TASKS * LENGTH}\n")


def write_suite(folder: Path, learners: Mapping[str, Any] = LEARNERS, **more: Any) -> None:
    """The folder's ``suite.yaml``."""
    suite = {
        "description": "A suite written by hand.",
        "source": "nowhere",
        "benchmarks": {
            "digits": {"name": "permuted-digits", "task_length": LENGTH},
            "pole": {"name": "switching-cartpole", "task_length": 2 * LENGTH},
        },
        "steps": TASKS * LENGTH,
        "log_every": EVERY,
        "seeds": list(SEEDS),
        "learners": dict(learners),
        **more,
    }
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "suite.yaml").write_text(yaml.safe_dump(suite, sort_keys=False))


@pytest.fixture
def suite_folder(tmp_path: Path) -> Path:
    """A finished suite: two benchmarks, a reference, a sweep."""
    return finished_suite(tmp_path / "suite")


@pytest.fixture(scope="session")
def finished_page(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The page about `suite_folder`, made once."""
    folder = finished_suite(tmp_path_factory.mktemp("finished") / "suite")
    return write(folder, ["html"])[0].read_text(encoding="utf-8")


def finished_suite(folder: Path) -> Path:
    """Write the finished suite."""
    write_suite(folder)
    for seed in SEEDS:
        for learner, (level, fall) in DIGITS.items():
            rows = digits_rows(level, fall, seed)
            write_run(folder / "digits" / learner / f"seed-{seed}", rows)
        for learner, level in (("ppo", 100.0), ("ppo-upgd", 120.0)):
            write_run(folder / "pole" / learner / f"seed-{seed}", pole_rows(level, seed))
    return folder


@pytest.fixture
def run_writer() -> Callable[..., None]:
    """Writes the files of one run: (folder, rows, state)."""
    return write_run


@pytest.fixture
def suite_writer() -> Callable[..., None]:
    """Writes ``suite.yaml``: (folder, learners, ...)."""
    return write_suite


@pytest.fixture
def troubled_folder(suite_folder: Path) -> Path:
    """The same with a damaged file, a diverged seed, a missing one and one still going."""
    damaged = suite_folder / "digits" / "steady" / "seed-0" / "metrics.jsonl"
    lines = damaged.read_bytes().splitlines(keepends=True)
    lines[5] = lines[5][: len(lines[5]) // 2] + b"\x00\xff" + lines[6]
    del lines[6]
    damaged.write_bytes(b"".join(lines))

    def state(folder: Path, new: str) -> None:
        status = json.loads((folder / "status.json").read_text())
        (folder / "status.json").write_text(json.dumps({**status, "state": new}))

    diverged = suite_folder / "digits" / "fading" / "seed-1"
    state(diverged, "diverged")
    metrics = diverged / "metrics.jsonl"
    metrics.write_bytes(b"".join(metrics.read_bytes().splitlines(keepends=True)[:40]))

    missing = suite_folder / "digits" / "steady" / "seed-2"
    for path in missing.iterdir():
        path.unlink()
    missing.rmdir()

    going = suite_folder / "pole" / "ppo" / "seed-3"
    state(going, "running")
    metrics = going / "metrics.jsonl"
    metrics.write_bytes(metrics.read_bytes()[:-700])
    return suite_folder
