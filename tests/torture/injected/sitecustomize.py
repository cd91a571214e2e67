"""Imported by every Python process that has this folder on its path: kills a launcher.

``$CLRL_DIE_AT`` is a number and a folder: the process that carries out a command dies at that
point of those that `kills` names below the folder. Its workers are left alone.
"""

import itertools
import os
import sys
from pathlib import Path

_number, _, _folder = os.environ.get("CLRL_DIE_AT", "").partition(" ")
if _folder and not any("clrl.launch.worker" in word for word in sys.orig_argv):
    import kills

    _met = itertools.count(1)

    def _at_point(point: str) -> None:
        if next(_met) == int(_number):
            kills.die()

    kills.install(Path(_folder), _at_point)
