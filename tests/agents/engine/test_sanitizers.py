"""The tests of compiled code once more, with every access and every operation watched."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.slow
def test_no_access_and_no_operation_is_out_of_bounds(tmp_path: Path) -> None:
    compiler = shutil.which("g++")
    if compiler is None:
        pytest.skip("needs g++ and its sanitizers")

    def found(name: str) -> str:
        command = [compiler, f"-print-file-name={name}"]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()

    libraries = [found("libasan.so"), found("libstdc++.so")]
    if not all(map(os.path.isabs, libraries)):
        pytest.skip("needs g++ and its sanitizers")
    environment = {
        **os.environ,
        "XDG_CACHE_HOME": str(tmp_path),
        "CXX": f"{compiler} -g -fsanitize=address,undefined -fno-sanitize-recover=undefined",
        "LD_PRELOAD": " ".join(libraries),
        "ASAN_OPTIONS": "detect_leaks=0",
    }
    tests = str(Path(__file__).with_name("test_engine.py"))
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-x", "-s", "-p", "no:cacheprovider", tests],
        env=environment,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    assert list(tmp_path.rglob("engine-*.so"))
