"""What every stream promises, held against all kinds of them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from clrl.envs.streams.base import Stream
from clrl.envs.streams.data import Dataset
from clrl.envs.streams.permuted import InputPermuted, LabelPermuted
from clrl.envs.streams.regression import SlowRegression
from clrl.envs.streams.tasks import Months, PermutedTasks, Rotated, Split
from clrl.errors import UsageError
from clrl.testing import check_stream

TASK = 7
# 11 rows, so that passes and tasks end at different places; all 66 numbers differ.
TINY = Dataset(
    np.arange(66, dtype=np.float32).reshape(11, 6), np.arange(11, dtype=np.int64) % 5, num_classes=5
)
STREAMS: dict[str, tuple[type[Stream], dict[str, Any]]] = {
    "input-permuted": (InputPermuted, {"dataset": TINY}),
    "label-permuted": (LabelPermuted, {"dataset": TINY}),
    "flip-one": (SlowRegression, {}),
    "redraw": (SlowRegression, {"change": "redraw"}),
    "split": (Split, {"data": "digits"}),
    "permuted-tasks": (PermutedTasks, {"data": "digits"}),
    "rotated": (Rotated, {"data": "digits"}),
    "months": (Months, {"data": "digits", "base_length": TASK}),
}


@pytest.mark.parametrize("name", STREAMS)
def test_keeps_the_contract(name: str) -> None:
    stream, options = STREAMS[name]
    held = check_stream(stream, task_length=TASK, **options)
    assert held[-1].startswith(
        "held-out" if stream(0, task_length=TASK, **options).num_tasks else "its state"
    )


def test_one_seed_one_task_length() -> None:
    with pytest.raises(UsageError, match="task_length: expected an integer >= 1, got 0"):
        InputPermuted(0, TINY, task_length=0)
    with pytest.raises(UsageError, match="seed: expected an integer >= 0, got -1"):
        InputPermuted(-1, TINY, task_length=1)
