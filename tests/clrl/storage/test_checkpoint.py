"""Checkpoint files: whole, verified, and closed."""

from __future__ import annotations

import hashlib
import io
import os
import pickle
import random
from pathlib import Path
from typing import Any

import pytest
import torch

from clrl.errors import StorageError
from clrl.storage import checkpoint
from clrl.storage.checkpoint import Damaged

STATE: dict[str, Any] = {
    "step": 7,
    "weights": torch.arange(6.0).view(2, 3),
    "bits": {"state": 2**127 + 5, "names": ["a", None, True], "pair": (1, 0.1)},
    "bytes": torch.tensor([1, 255], dtype=torch.uint8),
}


def read(folder: Path, name: str = checkpoint.NAME) -> dict[str, Any]:
    path = folder / name
    return checkpoint.unpack(path.read_bytes(), path)


def test_what_goes_in_comes_out(tmp_path: Path) -> None:
    checkpoint.write(tmp_path, checkpoint.pack(STATE))
    state = read(tmp_path)
    assert torch.equal(state.pop("weights"), STATE["weights"])
    assert torch.equal(state.pop("bytes"), STATE["bytes"])
    assert state == {"step": 7, "bits": STATE["bits"]}


def test_the_previous_one_is_kept(tmp_path: Path) -> None:
    assert not checkpoint.exists(tmp_path)
    for step in range(3):
        checkpoint.write(tmp_path, checkpoint.pack({"step": step}))
    assert [path.name for path in checkpoint.candidates(tmp_path)] == [
        "checkpoint.pt",
        "checkpoint.previous.pt",
    ]
    assert (read(tmp_path)["step"], read(tmp_path, checkpoint.PREVIOUS)["step"]) == (2, 1)
    assert len(list(tmp_path.iterdir())) == 2
    checkpoint.remove(tmp_path)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("write", [0, 1])
def test_a_failed_write_leaves_both(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, write: int
) -> None:
    for step in range(2):
        checkpoint.write(tmp_path, checkpoint.pack({"step": step}))
    calls = []

    def full(*_: Any) -> int:
        calls.append(1)
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "write" if write else "fsync", full)
    with pytest.raises(StorageError, match="checkpoint.pt: No space left on device"):
        checkpoint.write(tmp_path, checkpoint.pack({"step": 2}))
    assert calls
    assert (read(tmp_path)["step"], read(tmp_path, checkpoint.PREVIOUS)["step"]) == (1, 0)
    assert len(list(tmp_path.iterdir())) == 2


def test_no_flipped_bit_and_no_cut_goes_unnoticed(tmp_path: Path) -> None:
    content = checkpoint.pack(STATE)
    draw = random.Random(0)
    for _ in range(200):
        damaged = bytearray(content)
        damaged[draw.randrange(len(content))] ^= 1 << draw.randrange(8)
        with pytest.raises(Damaged):
            checkpoint.unpack(bytes(damaged), tmp_path)
    for _ in range(200):
        with pytest.raises(Damaged):
            checkpoint.unpack(content[: draw.randrange(len(content))], tmp_path)


class Planted:
    """Makes a folder when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self.path),)


@pytest.mark.parametrize("way", ["torch", "pickle"])
def test_a_planted_action_does_not_run(tmp_path: Path, way: str) -> None:
    """With the right head and sum, as somebody would make it who wants it to be read."""
    body = io.BytesIO()
    planted = {"loop": Planted(tmp_path / "planted")}
    if way == "torch":
        torch.save(planted, body)
    else:
        pickle.dump(planted, body)
    head = b"clrl checkpoint 5\n"
    content = head + hashlib.sha256(body.getvalue()).digest() + body.getvalue()
    with pytest.raises(Damaged, match="not plain values and tensors") as caught:
        checkpoint.unpack(content, Path("here"))
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "planted").exists()
    body.seek(0)
    torch.load(body, weights_only=False) if way == "torch" else pickle.load(body)
    assert (tmp_path / "planted").exists()  # it would have


def test_something_else_than_a_mapping(tmp_path: Path) -> None:
    body = io.BytesIO()
    torch.save([1], body)
    content = b"clrl checkpoint 5\n" + hashlib.sha256(body.getvalue()).digest() + body.getvalue()
    with pytest.raises(Damaged, match="not a mapping"):
        checkpoint.unpack(content, tmp_path)
