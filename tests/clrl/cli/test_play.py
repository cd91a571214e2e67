"""``clrl play``: what a run has learned, tried, recorded and shown."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager
from fractions import Fraction
from pathlib import Path
from typing import Any

import imageio.v2 as imageio
import imageio_ffmpeg
import pytest

import clrl
from clrl.cli.main import main
from clrl.storage import record

Here = Callable[[], AbstractContextManager[None]]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, here: Here) -> Path:
    """A run of three tasks, each tested on two episodes at the end."""
    out = tmp_path_factory.mktemp("play")
    with here():
        clrl.run(
            {"name": "offset-cartpole", "task_length": 300},
            agent={
                "name": "ppo",
                "num_envs": 4,
                "num_steps": 64,
                "batch_size": 64,
                "test_episodes": 2,
            },
            network={"name": "mlp", "widths": [8]},
            optimizer="sgd",
            steps=768,
            log_every=256,
            seeds=[4, 6],
            out=out,
            workers=1,
            quiet=True,
        )
    return out / "offset-cartpole" / "sgd" / "seed-6"


@pytest.fixture(autouse=True)
def no_display(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("DISPLAY", "WAYLAND_DISPLAY"):
        monkeypatch.delenv(name, raising=False)


def played(words: list[str], capsys: pytest.CaptureFixture[str]) -> dict[int, list[float]]:
    """Task to mean return and returns, as printed."""
    assert main(["play", *words]) == 0
    found = {}
    for line in capsys.readouterr().out.splitlines():
        match = re.fullmatch(r"task (\d+): mean return (\S+) \((.*)\)", line)
        if match:
            found[int(match[1])] = [float(match[2]), *map(float, match[3].split(", "))]
    return found


def test_gives_the_returns_of_the_runs_last_test(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    last = record.read_metrics(folder / "metrics.jsonl")[-1]
    tested = {
        int(tag.rpartition("/")[2]): value
        for tag, value in last.items()
        if tag.startswith("retention/return/")
    }
    found = played([str(folder), "--episodes", "2"], capsys)
    assert len(found) == 3
    assert {task: mean for task, (mean, *_) in found.items()} == tested
    assert all(mean == sum(each) / 2 for mean, *each in found.values())
    assert played([str(folder), "--episodes", "2", "--task", "1"], capsys) == {1: found[1]}


def test_a_gif_is_read_as_one(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "play.gif"
    words = [str(folder), "--episodes", "1", "--task", "0", "--video", str(path)]
    recorded = played(words, capsys)
    frames = imageio.mimread(path, memtest=False)
    assert frames[0].shape[:2] == (400, 600)
    assert 1 < len(frames) <= recorded[0][0] + 1  # equal ones are one in a GIF


def probed(path: Path) -> tuple[int, int, int, float]:
    """A video's frames, width, height and frames a second, as ffprobe or ffmpeg reads them."""
    if ffprobe := shutil.which("ffprobe"):
        entries = "stream=width,height,avg_frame_rate,nb_read_frames"
        words = ["-v", "error", "-count_frames", "-show_entries", entries, "-of", "json"]
        text = subprocess.run([ffprobe, *words, path], check=True, capture_output=True).stdout
        (found,) = json.loads(text)["streams"]
        rate = float(Fraction(found["avg_frame_rate"]))
        return int(found["nb_read_frames"]), found["width"], found["height"], rate
    with imageio.get_reader(path) as reader:
        about = reader.get_meta_data()
    frames = imageio_ffmpeg.count_frames_and_secs(str(path))[0]
    return frames, *about["size"], about["fps"]


def test_a_video_holds_every_step_of_the_same_episodes(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "play.mp4"
    words = [str(folder), "--episodes", "2", "--task", "0"]
    recorded = played([*words, "--video", str(path)], capsys)
    assert recorded == played(words, capsys)
    # CartPole pays 1 a step; each episode has a frame at its start besides.
    assert probed(path) == (sum(recorded[0][1:]) + 2, 600, 400, 50)


@pytest.mark.slow
def test_is_shown_where_there_is_a_display(folder: Path) -> None:
    start = "import sys; from clrl.cli.main import main; sys.exit(main())"
    words = ["play", str(folder), "--episodes", "1", "--task", "0"]
    environment = {**os.environ, "DISPLAY": ":0", "SDL_VIDEODRIVER": "dummy"}
    command = [sys.executable, "-P", "-c", start, *words]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    # A display that is not there is told in a line, and can be done without.
    environment["SDL_VIDEODRIVER"] = "x11"
    failed = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert failed.returncode == 2
    assert "offset-cartpole: cannot be shown here" in failed.stderr.splitlines()[-1]
    again = subprocess.run(
        [*command, "--no-window"], env=environment, capture_output=True, text=True
    )
    assert again.stdout == done.stdout


@pytest.mark.slow
def test_a_benchmark_without_tasks_is_tried_as_it_begins(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    small: dict[str, Any] = {"name": "ppo", "num_envs": 2, "num_steps": 32, "batch_size": 32}
    for benchmark in ("CartPole-v1", "drifting-cartpole"):
        clrl.run(benchmark, agent=small, steps=64, log_every=64, out=tmp_path, quiet=True)
        assert main(["play", str(tmp_path / benchmark / "adam/seed-0"), "--episodes", "3"]) == 0
        assert re.fullmatch(r"mean return \S+ \(\S+, \S+, \S+\)\n", capsys.readouterr().out)


def test_mistakes(
    folder: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    trained_here: None,
) -> None:
    clrl.run(steps=10, log_every=10, out=tmp_path / "stream", quiet=True)
    stream = tmp_path / "stream/permuted-digits/sgd/seed-0"
    monkeypatch.setitem(sys.modules, "imageio_ffmpeg", None)
    for words, expected in (
        ([], "expected DIR"),
        ([str(tmp_path)], "expected a run's folder, such as"),
        ([str(stream)], "permuted-digits is a stream, with nothing to play"),
        ([str(folder), "--task", "3"], "--task 3: expected one that it met, from 0 to 2"),
        ([str(folder), "--episodes", "0"], "--episodes: expected a whole number >= 1"),
        ([str(folder), "--video", "play.mp4"], "needs imageio_ffmpeg, which is not installed: pip"),
        ([str(folder), "--video", str(tmp_path / "no/play.gif")], "in a folder that is there"),
    ):
        assert main(["play", *words]) == 2
        error = capsys.readouterr().err
        assert expected in error and error.count("\n") == 1
