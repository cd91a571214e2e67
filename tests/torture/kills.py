"""Death by SIGKILL at a named point: before, during or after a call that changes a file.

`install` wraps what the file system is changed by: ``os.write``, ``os.fsync``, ``os.replace``,
``os.ftruncate`` and ``os.unlink``. A call that concerns a file below the watched folder is a
point, named ``CALL FILE PHASE``; FILE is its name without what changes from run to run.
"""

from __future__ import annotations

import os
import re
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

OnPoint = Callable[[str], None]


def install(watched: Path, on_point: OnPoint) -> None:
    """Have ``on_point`` called with the name of each point, in this process.

    Args:
        watched: points are of files below this folder.
        on_point: called at each of them; it may end the process. At ``during`` a write has
            written the half of its bytes.
    """
    root = f"{watched.resolve()}/"

    def name(target: Any) -> str:
        path = os.readlink(f"/proc/self/fd/{target}") if isinstance(target, int) else target
        path = os.path.abspath(path)
        if not f"{path}/".startswith(root):
            return ""
        short = os.path.basename(path.removesuffix(" (deleted)"))
        return "folder" if os.path.isdir(path) else re.sub(r"tfevents\.\d+", "tfevents", short)

    def wrap(call: str, which: int = 0) -> None:
        inner = getattr(os, call)

        def outer(*arguments: Any, **named: Any) -> Any:
            file = name(arguments[which])
            if not file:
                return inner(*arguments, **named)
            on_point(f"{call} {file} before")
            if call == "write" and len(arguments[1]) > 1:
                half = len(arguments[1]) // 2
                done = inner(arguments[0], arguments[1][:half])
                on_point(f"{call} {file} during")
                done += inner(arguments[0], arguments[1][half:])
            else:
                done = inner(*arguments, **named)
            on_point(f"{call} {file} after")
            return done

        setattr(os, call, outer)

    for call in ("write", "fsync", "ftruncate", "unlink"):
        wrap(call)
    wrap("replace", which=1)


def die() -> None:
    """End this process as the system would."""
    os.kill(os.getpid(), signal.SIGKILL)
