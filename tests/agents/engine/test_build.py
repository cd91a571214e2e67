"""Where compiled code comes from: a compiler at first use, a cache, or nowhere."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from clrl.agents.engine import build

needs_compiler = pytest.mark.skipif(
    shutil.which("c++") is None, reason="there is no C++ compiler on this machine"
)


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A cache folder of this test's own."""
    monkeypatch.setattr(build.platformdirs, "user_cache_path", lambda name: tmp_path / name)
    monkeypatch.delenv("CXX", raising=False)
    plain = tuple("-O0" if flag == "-O3" else flag for flag in build._FLAGS)  # in less time
    monkeypatch.setattr(build, "_FLAGS", plain)
    build.library.cache_clear()
    build._made.cache_clear()
    yield tmp_path / "clrl" / "engine"
    build.library.cache_clear()
    if build._made.cache_info().currsize:
        build._made().cleanup()
    build._made.cache_clear()


def test_without_a_compiler_there_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CXX", "")
    assert build.library() == (None, "no C++ compiler was found")


def test_a_compiler_that_fails_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tool = tmp_path / "tool"
    tool.write_text("#!/bin/sh\necho 'error: not today' >&2\nexit 1\n")
    tool.chmod(0o755)
    monkeypatch.setenv("CXX", str(tool))
    assert build.library() == (None, f"{tool}: error: not today")
    monkeypatch.setenv("CXX", str(tmp_path / "nowhere"))
    build.library.cache_clear()
    found, words = build.library()
    assert found is None and words.startswith(f"{tmp_path / 'nowhere'}: ")


@needs_compiler
def test_compiled_once_and_anew_where_it_is_broken(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert build.library()[0] is not None
    (made,) = cache.iterdir()
    assert build._made.cache_info().currsize == 0, "no folder beside the cache where none is needed"
    written = made.stat().st_mtime_ns
    build.library.cache_clear()
    assert build.library()[0] is not None
    assert made.stat().st_mtime_ns == written
    other = tmp_path / "other"
    monkeypatch.setattr(build.platformdirs, "user_cache_path", lambda name: other)
    broken = other / "engine" / made.name
    broken.parent.mkdir(parents=True)
    broken.write_bytes(b"no library")
    build.library.cache_clear()
    assert build.library()[0] is not None
    assert broken.stat().st_size > 10_000


@needs_compiler
def test_a_cache_that_cannot_be_written(cache: Path) -> None:
    cache.parent.write_text("a file where a folder should be")
    found, _ = build.library()
    assert found is not None
    assert [path.suffix for path in build._private_folder().iterdir()] == [".so"]
