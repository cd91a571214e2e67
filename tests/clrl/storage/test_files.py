"""Files that are whole at every instant."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from clrl.errors import StorageError
from clrl.storage import files


class TestAtomically:
    def test_the_new_content_is_there_and_nothing_else(self, tmp_path: Path) -> None:
        path = tmp_path / "file"
        files.write_atomically(path, b"old")
        files.write_atomically(path, b"new")
        assert path.read_bytes() == b"new"
        assert list(tmp_path.iterdir()) == [path]

    @pytest.mark.parametrize("what", ["write", "fsync", "replace"])
    def test_the_old_one_stays_when_it_fails(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, what: str
    ) -> None:
        path = tmp_path / "file"
        files.write_atomically(path, b"old")

        def refuse(*_: object) -> None:
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(os, what, refuse)
        with pytest.raises(StorageError) as caught:
            files.write_atomically(path, b"new")
        monkeypatch.undo()
        assert str(caught.value) == f"{path}: No space left on device"
        assert path.read_bytes() == b"old"

    def test_a_write_that_takes_a_part_is_gone_on_with(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        write = os.write
        monkeypatch.setattr(os, "write", lambda file, content: write(file, bytes(content[:3])))
        files.write_atomically(tmp_path / "file", b"0123456789")
        assert (tmp_path / "file").read_bytes() == b"0123456789"

    def test_a_folder_that_is_gone(self, tmp_path: Path) -> None:
        with pytest.raises(StorageError, match="gone/file: No such file or directory"):
            files.write_atomically(tmp_path / "gone" / "file", b"new")


class TestAppender:
    def test_it_keeps_what_it_is_told_to(self, tmp_path: Path) -> None:
        path = tmp_path / "file"
        path.write_bytes(b"0123456789")
        appender = files.Appender(path, 4)
        assert path.read_bytes() == b"0123"
        appender.write(b"abc")
        appender.sync()
        appender.close()
        appender.close()
        assert path.read_bytes() == b"0123abc"

    def test_a_file_in_the_way_of_a_folder(self, tmp_path: Path) -> None:
        (tmp_path / "file").touch()
        with pytest.raises(StorageError, match="file/below"):
            files.make_folder(tmp_path / "file" / "below")
        with pytest.raises(StorageError, match="file/below"):
            files.Appender(tmp_path / "file" / "below")
