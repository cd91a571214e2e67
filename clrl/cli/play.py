"""``clrl play``: a trained policy on the tasks that it met, tried, watched or recorded."""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from clrl.errors import UsageError
from clrl.options import NonNegativeInt, PositiveInt

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from clrl.training.policy import Policy
    from clrl.training.trials import Envs, Trials

_FPS = 30  # of environments that do not say


@dataclass(frozen=True)
class PlayArguments:
    """Try a trained policy on every task that it met, taking its likeliest actions.

    Where there is a display, it is shown in a window.

    Attributes:
        folder: a run's folder, such as runs/NAME/BENCHMARK/LEARNER/seed-0.
        video: write the episodes to a file, such as play.mp4 or play.gif, in place of a window.
        episodes: of each task.
        task: the index of a task; all that it met unless given.
        no_window: show nothing also where there is a display.
        trust: import the plug-ins that the folder names.
    """

    folder: str = field(metadata={"positional": True, "metavar": "DIR"})
    video: str | None = field(default=None, metadata={"metavar": "FILE"})
    episodes: PositiveInt = 5
    task: NonNegativeInt | None = field(default=None, metadata={"metavar": "K"})
    no_window: bool = field(default=False, metadata={"switch": True})
    trust: bool = field(default=False, metadata={"switch": True})


def play(options: PlayArguments, say: Callable[[str], None] = print) -> None:
    """Try a policy, and tell its mean return on each task.

    Args:
        options: what, on which tasks, how often.
        say: takes the lines to show.

    Raises:
        UsageError: the folder holds no run that acts, there is no such task, or what a video
            needs is not installed.
    """
    video = None if options.video is None else Path(options.video)
    imageio = None if video is None else _imageio(video)
    from clrl.training.policy import load_policy

    policy = load_policy(options.folder, options.trust)
    if policy.last_task is None:
        raise UsageError(
            f"{options.folder}: {policy.config.benchmark.name} is a stream, with nothing to play; "
            "expected a run on a control task"
        )
    shows = video is None and not options.no_window and _has_display()
    if video and not _has_display():
        os.environ.setdefault("SDL_VIDEODRIVER", "dummy")  # frames need no window
    mode = "rgb_array" if video else "human" if shows else None
    trials = _trials(policy, 1 if mode else options.episodes, mode)
    tasks = _tasks(policy, trials)
    if options.task is not None and options.task >= len(tasks):
        raise UsageError(
            f"--task {options.task}: expected one that it met, from 0 to {len(tasks) - 1}"
        )
    chosen = range(len(tasks)) if options.task is None else [options.task]
    if imageio is None:
        watch: Callable[[Envs], None] = lambda envs: None  # noqa: E731
        for task in chosen:
            _play(policy, trials, task, tasks[task], options.episodes, watch, say)
    else:
        rate = trials.envs.metadata.get("render_fps", _FPS)
        try:
            with imageio.get_writer(video, **_settings(Path(options.video or ""), rate)) as writer:
                for task in chosen:

                    def record(envs: Envs) -> None:
                        writer.append_data(_frame(envs))

                    _play(policy, trials, task, tasks[task], options.episodes, record, say)
        except OSError as error:
            raise UsageError(f"--video {video}: {error.strerror or error}") from error
        say(f"Video: {video}")
    trials.envs.close()


def _play(
    policy: Policy,
    trials: Trials,
    task: int,
    value: NDArray[Any] | None,
    episodes: int,
    watch: Callable[[Envs], None],
    say: Callable[[str], None],
) -> None:
    """Play some episodes of a task: side by side, or one after another where they are shown."""
    import numpy as np

    values = None if value is None else value[None]
    found: list[float] = []
    while len(found) < episodes:
        returns = trials.returns(policy.act, task, values, first=len(found), watch=watch)
        found += returns[0].tolist()
    each = ", ".join(f"{one:.6g}" for one in found)
    name = "mean return" if value is None else f"task {task}: mean return"
    say(f"{name} {np.mean(found):.6g} ({each})")


def _trials(policy: Policy, episodes: int, mode: str | None) -> Trials:
    from clrl.benchmarks import BENCHMARKS
    from clrl.options import as_keywords
    from clrl.training.trials import Trials

    chosen = policy.config.benchmark
    recipe = BENCHMARKS.find(chosen.name).load()(**as_keywords(chosen.options))
    trials = Trials(recipe, [policy.seed], episodes, mode)
    if mode:
        try:  # whatever the libraries of environments raise where there is no screen for them
            trials.envs.reset(seed=0)
            trials.envs.render()
        except Exception as error:
            raise UsageError(
                f"{chosen.name}: cannot be shown here: {error}; expected --no-window"
            ) from error
    return trials


def _tasks(policy: Policy, trials: Trials) -> list[NDArray[Any] | None]:
    """The values of the tasks that a run met; one None where the benchmark has no tasks."""
    if not trials.has_tasks:
        return [None]
    return list(trials.values(0, policy.last_task or 0))


def _has_display() -> bool:
    return sys.platform in ("win32", "darwin") or any(
        os.environ.get(name) for name in ("DISPLAY", "WAYLAND_DISPLAY")
    )


def _frame(envs: Envs) -> NDArray[np.uint8]:
    frames: Any = envs.render()
    if frames is None or frames[0] is None:
        raise UsageError("--video: this environment gives no frames")
    frame: NDArray[np.uint8] = frames[0]
    return frame


def _imageio(video: Path) -> Any:
    """The library that writes a video.

    Raises:
        UsageError: it is not installed, or the folder is not there.
    """
    if not video.absolute().parent.is_dir():
        raise UsageError(f"--video {video}: expected a file in a folder that is there")
    names = ["imageio.v2"] if video.suffix == ".gif" else ["imageio_ffmpeg", "imageio.v2"]
    try:
        return [importlib.import_module(name) for name in names][-1]
    except ImportError as error:
        raise UsageError(
            f"--video {video}: needs {error.name}, which is not installed: "
            "pip install 'clrl[video]'"
        ) from error


def _settings(video: Path, rate: float) -> dict[str, Any]:
    """How imageio is to write: a GIF's rate is milliseconds a frame, and it shall play on."""
    if video.suffix == ".gif":
        return {"duration": 1000 / rate, "loop": 0}
    return {"fps": rate, "macro_block_size": 2}
