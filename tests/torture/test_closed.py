"""Nothing that lies in a folder or a file is executed: planted actions, by the command line."""

from __future__ import annotations

import hashlib
import io
import json
import os
import sys
from pathlib import Path
from typing import Any

import command
import pytest
import torch
import yaml

from clrl.cli.main import main
from clrl.storage import checkpoint, record

TAGS = ["!!python/object/apply:os.mkdir", "!!python/object/new:os.mkdir", "!!python/name:os.mkdir"]


def planted_yaml(target: Path, tag: str) -> str:
    """YAML that makes a folder where it is loaded without care."""
    value = f" [{target}]" if "name" not in tag else " ''"
    return f"description: {tag}{value}\n" + yaml.safe_dump(command.SMALL)


def error(capsys: pytest.CaptureFixture[str]) -> str:
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("clrl: error: ")
    return line


def test_the_planted_yaml_would_act(tmp_path: Path) -> None:
    yaml.load(planted_yaml(tmp_path / "planted", TAGS[0]), Loader=yaml.UnsafeLoader)  # noqa: S506
    assert (tmp_path / "planted").is_dir()


@pytest.mark.parametrize("tag", TAGS)
def test_in_a_suite_file(tmp_path: Path, capsys: pytest.CaptureFixture[str], tag: str) -> None:
    file = tmp_path / "bad.yaml"
    file.write_text(planted_yaml(tmp_path / "planted", tag))
    assert main(["suite", str(file), "--out", str(tmp_path / "out")]) == 2
    said = error(capsys)
    assert f"{file}: line 1: " in said
    assert "python/" in said
    assert sorted(tmp_path.iterdir()) == [file]


@pytest.mark.parametrize("tag", TAGS)
def test_in_the_suite_of_a_results_folder(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], tag: str
) -> None:
    file = tmp_path / "suite.yaml"
    file.write_text(planted_yaml(tmp_path / "planted", tag))
    assert main(["resume", str(tmp_path)]) == 2
    assert f"{file}: line 1: " in error(capsys)
    assert sorted(tmp_path.iterdir()) == [file]


@pytest.mark.parametrize("tag", TAGS)
def test_in_the_configuration_of_a_run(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], tag: str
) -> None:
    """It is read where the settings have changed, to say which."""
    out = tmp_path / "out"
    run = out / "digits" / "adam" / "seed-0"
    run.mkdir(parents=True)
    (out / "suite.yaml").write_text(yaml.safe_dump(command.SMALL))
    (run / record.CONFIG).write_text(planted_yaml(tmp_path / "planted", tag))
    (run / record.STATUS).write_text(json.dumps({"state": "finished", "config_hash": "other"}))
    before = command.snapshot(tmp_path)
    assert main(["resume", str(out)]) == 2
    assert f"{run}: this run has other settings: " in error(capsys)
    assert command.snapshot(tmp_path) == before


@pytest.mark.parametrize(
    "label", ["../x", "..", ".", "a/b", "/x", "", "~", "a\nb", "-x", "x" * 101]
)
@pytest.mark.parametrize("where", ["learners", "benchmarks"])
def test_labels_that_leave_the_folder(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], label: str, where: str
) -> None:
    (entry,) = list(command.SMALL[where].values())[:1]
    file = command.suite_file(tmp_path, **{where: {label: entry}})
    assert main(["suite", str(file), "--out", str(tmp_path / "deep" / "out")]) == 2
    assert "a label names a folder" in error(capsys)
    file.rename(tmp_path / "suite.yaml")
    assert main(["resume", str(tmp_path)]) == 2
    assert "a label names a folder" in error(capsys)
    assert list(tmp_path.iterdir()) == [tmp_path / "suite.yaml"]


@pytest.mark.parametrize("seeds", ["../0", "0,../1", [0, "../1"], "-1", "0/1", ["/0"]])
def test_seeds_that_leave_the_folder(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], seeds: Any
) -> None:
    file = command.suite_file(tmp_path, seeds=seeds)
    assert main(["suite", str(file), "--out", str(tmp_path / "deep" / "out")]) == 2
    assert "seeds: expected" in error(capsys)
    assert list(tmp_path.iterdir()) == [file]


@pytest.mark.parametrize("key", ["optimizer", "agent", "network", "benchmark"])
def test_a_plug_in_that_a_results_folder_names_is_not_imported(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, key: str
) -> None:
    """Though it lies in the current folder, where plug-ins are looked for."""
    (tmp_path / "planted_module.py").write_text("import os\nos.mkdir('planted')\nclass It: pass\n")
    monkeypatch.chdir(tmp_path)
    plug_in = {"name": "planted_module:It"}
    changes: dict[str, Any] = {key: plug_in}
    if key == "optimizer":
        changes = {"learners": {"a": {"optimizer": plug_in}}}
    elif key == "benchmark":
        changes = {"benchmarks": {"a": plug_in}}
    file = command.suite_file(tmp_path, **changes)
    file.rename(tmp_path / "suite.yaml")
    assert main(["resume", str(tmp_path)]) == 2
    assert "'planted_module:It': nothing that a results folder names is imported" in error(capsys)
    assert "planted_module" not in sys.modules
    assert not (tmp_path / "planted").exists()


class Planted:
    """Makes a folder where it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self.path),)


@pytest.mark.slow
def test_a_malicious_checkpoint_is_reported_and_left_out(tmp_path: Path) -> None:
    """With the head and the sum of a real one, in the place of both; the run begins anew."""
    out, target = tmp_path / "out", tmp_path / "planted"
    learners = {"adam": command.SMALL["learners"]["adam"]}
    words = ["suite", command.suite_file(tmp_path, learners=learners, seeds=[0], steps=1000)]
    done = command.run(*words, "--out", out)
    assert done.returncode == 0, done.stderr
    run = out / "digits" / "adam" / "seed-0"
    wanted = (run / record.METRICS).read_text()
    status = {**record.read_status(run), "state": "preempted"}
    (run / record.STATUS).write_text(json.dumps(status))
    body = io.BytesIO()
    torch.save({"loop": Planted(target), "records": {}}, body)
    content = b"clrl checkpoint 5\n" + hashlib.sha256(body.getvalue()).digest() + body.getvalue()
    for name in (checkpoint.NAME, checkpoint.PREVIOUS):
        (run / name).write_bytes(content)

    done = command.run("resume", out)
    assert done.returncode == 0, done.stderr
    assert not target.exists()
    for name in (checkpoint.NAME, checkpoint.PREVIOUS):
        assert f"{run / name}: not plain values and tensors" in done.stderr
    assert "it begins anew" in done.stderr
    assert untimed(run / record.METRICS) == untimed(wanted)

    torch.load(body.seek(0) or body, weights_only=False)
    assert target.is_dir()  # it would have


def untimed(metrics: Path | str) -> list[dict[str, Any]]:
    text = metrics.read_text() if isinstance(metrics, Path) else metrics
    rows = [json.loads(line) for line in text.splitlines()]
    return [{k: v for k, v in row.items() if not k.startswith("time/")} for row in rows]
