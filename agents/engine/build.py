"""The compiled code as a library: compiled at first use, kept in the user's cache folder."""

from __future__ import annotations

import ctypes
import functools
import hashlib
import os
import platform
import shlex
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import platformdirs
import torch

SOURCES = Path(__file__).parent / "kernels"
MAIN = "engine.cpp"
_FLAGS = (
    "-O3",
    "-fno-math-errno",
    "-fno-trapping-math",
    "-fno-exceptions",
    "-fno-rtti",
    "-fPIC",
    "-shared",
)
_LEVELS = {
    "AVX512": ("-march=x86-64-v4", "-mprefer-vector-width=512"),
    "AVX2": ("-march=x86-64-v3",),
}
"""By what torch finds the processor able to do; ``ATEN_CPU_CAPABILITY`` is respected so."""
_PATIENCE = 120  # seconds for a compiler


@functools.cache
def library() -> tuple[ctypes.CDLL | None, str]:
    """The library, if there is one; and what it is, or why there is none, in words."""
    found = ""
    for compiler in _compilers():
        # The second is made where the first cannot be written, and goes with the process.
        for place in (_cache_folder, _private_folder):
            try:
                return _loaded(compiler, place())
            except (OSError, subprocess.SubprocessError) as error:
                found = found or f"{compiler[0]}: {_first_line(error)}"
    return None, found or "no C++ compiler was found"


def _compilers() -> Iterator[tuple[str, ...]]:
    """Commands that may compile: the one that the user names, or what is there."""
    named = os.environ.get("CXX")
    if named is not None:
        if named:
            yield tuple(shlex.split(named))
        return
    for name in ("c++", "g++", "clang++"):
        if shutil.which(name):
            yield (name,)


def _cache_folder() -> Path:
    return platformdirs.user_cache_path("clrl") / "engine"


def _private_folder() -> Path:
    return Path(_made().name)


@functools.cache
def _made() -> tempfile.TemporaryDirectory[str]:
    return tempfile.TemporaryDirectory(prefix="clrl-engine-", ignore_cleanup_errors=True)


def _loaded(compiler: tuple[str, ...], folder: Path) -> tuple[ctypes.CDLL, str]:
    """Compile, unless that was done before, and load."""
    flags = (*_FLAGS, *_level())
    files = sorted(SOURCES.iterdir())
    version = subprocess.run(
        [*compiler, "--version"], capture_output=True, check=True, timeout=_PATIENCE
    ).stdout
    mark = hashlib.sha256(repr((compiler, flags)).encode() + version)
    for file in files:
        mark.update(file.read_bytes())
    path = folder / f"engine-{mark.hexdigest()[:16]}.so"
    words = f"{version.decode(errors='replace').splitlines()[0]}, {' '.join(_level()) or 'plain'}"
    if path.exists():
        try:
            return ctypes.CDLL(str(path)), words
        except OSError:
            path.unlink()  # it is broken: made anew
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder) as place:
        made = Path(place) / path.name
        command = [*compiler, *flags, "-o", str(made), str(SOURCES / MAIN), "-lm"]
        subprocess.run(command, capture_output=True, check=True, timeout=_PATIENCE)
        made.replace(path)
    return ctypes.CDLL(str(path)), words


def _level() -> tuple[str, ...]:
    if platform.machine().lower() not in ("x86_64", "amd64"):
        return ()
    return _LEVELS.get(torch.backends.cpu.get_cpu_capability(), ("-march=x86-64-v2",))


def _first_line(error: Exception) -> str:
    text = getattr(error, "stderr", None) or str(error).encode()
    lines = text.decode(errors="replace").splitlines() or [type(error).__name__]
    return next((line for line in lines if "error" in line), lines[0])
