"""What a run was made with."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
import torch

from clrl.storage import provenance as module
from clrl.storage.provenance import changes, provenance


def test_versions_are_those_that_are_imported() -> None:
    # Metadata need not name the build, such as +cu130, that the library names.
    assert provenance()["torch"] in (torch.__version__, torch.__version__.partition("+")[0])
    assert provenance()["threads"] == 1


def test_only_what_decides_is_compared() -> None:
    now = dict(provenance())
    assert changes(now, now) == []
    assert changes(now | {"machine": "another", "cores": 64}, now) == []
    before = now | {"torch": "1.0", "threads": 8, "mujoco": None}
    assert changes(before, now | {"mujoco": "4.0.0"}) == [
        f"torch 1.0 -> {now['torch']}",
        "mujoco none -> 4.0.0",
        "threads 8 -> 1",
    ]


def test_the_commit_of_a_checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", "/dev/null")
    assert module._commit(tmp_path) is None
    git = ["git", "-C", str(tmp_path), "-c", "user.name=a", "-c", "user.email=a@example.org"]
    try:
        subprocess.run([*git, "init", "-q"], check=True)
    except FileNotFoundError:
        pytest.skip("git is not installed")
    (tmp_path / "clrl").mkdir()
    (tmp_path / "clrl" / "a.py").write_text("one")
    subprocess.run([*git, "add", "."], check=True)
    subprocess.run([*git, "commit", "-qm", "first"], check=True)
    commit = module._commit(tmp_path)
    assert commit is not None and len(commit) == 40
    (tmp_path / "clrl" / "a.py").write_text("two")
    assert module._commit(tmp_path) == f"{commit}+"


def test_without_git(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / ".git").mkdir()
    monkeypatch.setenv("PATH", "")
    assert module._commit(tmp_path) is None
