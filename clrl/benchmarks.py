"""The table of benchmarks: streams for supervised learners, then control tasks. Data only."""

from __future__ import annotations

from typing import Any

from clrl.options import as_keywords
from clrl.registry import Entry, Table, import_target, importable

_PERMUTED = "clrl.envs.streams.permuted:"
_REGRESSION = "clrl.envs.streams.regression:"
_TASKS = "clrl.envs.streams.tasks:"
_OPTIONS = "clrl.envs.streams.options:"
_CONTROL = "clrl.envs.control:"


def _control(name: str, summary: str, benchmark: str) -> Entry:
    """A control task: its class is what describes its options."""
    target = _CONTROL + benchmark
    return Entry(name, summary, target, target)


class _PlugIn(Entry):
    """A benchmark of the user's own."""

    def load(self) -> Any:
        """See `clrl.envs.control.plugin.benchmark_of`."""
        benchmark_of = import_target("clrl.envs.control.plugin:benchmark_of", self.name)
        return benchmark_of(super().load(), self.name)


class _Benchmarks(Table):
    """The table of benchmarks, whose plug-ins may be functions that make environments."""

    def find(self, name: str, where: str = "") -> Entry:
        """See `Table.find`."""
        entry = super().find(name, where)
        return entry if entry.source == "built in" else _PlugIn(**vars(entry))


BENCHMARKS = _Benchmarks(
    "benchmark",
    [
        Entry(
            "permuted-mnist",
            "MNIST, its pixels permuted anew every 5,000 examples",
            _PERMUTED + "PermutedMNIST",
            _OPTIONS + "PermutedMNISTOptions",
        ),
        Entry(
            "label-permuted-mnist",
            "MNIST, its labels permuted anew every 2,500 examples",
            _PERMUTED + "LabelPermutedMNIST",
            _OPTIONS + "LabelPermutedMNISTOptions",
        ),
        Entry(
            "permuted-digits",
            "scikit-learn's 8x8 digits, pixels permuted every 1,500 examples; no download",
            _PERMUTED + "PermutedDigits",
            _OPTIONS + "PermutedDigitsOptions",
        ),
        Entry(
            "label-permuted-digits",
            "scikit-learn's 8x8 digits, labels permuted every 750 examples; no download",
            _PERMUTED + "LabelPermutedDigits",
            _OPTIONS + "LabelPermutedDigitsOptions",
        ),
        Entry(
            "slow-regression",
            "slowly-changing regression on 20 bits (Dohare et al. 2024); generated",
            _REGRESSION + "SlowRegression",
            _OPTIONS + "SlowRegressionOptions",
        ),
        Entry(
            "split",
            "MNIST or digits, two classes a task; five tasks that stay testable",
            _TASKS + "Split",
            _OPTIONS + "SplitOptions",
        ),
        Entry(
            "permuted-tasks",
            "MNIST or digits in ten permutations of the pixels; tasks that stay testable",
            _TASKS + "PermutedTasks",
            _OPTIONS + "PermutedTasksOptions",
        ),
        Entry(
            "rotated",
            "MNIST or digits, turned by 30 degrees a task; six tasks that stay testable",
            _TASKS + "Rotated",
            _OPTIONS + "RotatedOptions",
        ),
        Entry(
            "months",
            "MNIST or digits whose classes and looks drift month by month, after a base",
            _TASKS + "Months",
            _OPTIONS + "MonthsOptions",
        ),
        _control(
            "offset-cartpole",
            "CartPole, observations shifted anew every 160,000 steps (TRAC, C-CHAIN)",
            "OffsetCartPole",
        ),
        _control(
            "offset-acrobot",
            "Acrobot, observations shifted anew every 160,000 steps (TRAC, C-CHAIN)",
            "OffsetAcrobot",
        ),
        _control(
            "offset-mountain-car",
            "MountainCar, observations shifted anew every 160,000 steps (TRAC, C-CHAIN)",
            "OffsetMountainCar",
        ),
        _control(
            "offset-lunar-lander",
            "LunarLander, observations shifted anew every 160,000 steps; needs box2d",
            "OffsetLunarLander",
        ),
        _control(
            "permuted-cartpole",
            "CartPole, observation entries permuted anew every 100,000 steps",
            "PermutedCartPole",
        ),
        _control(
            "permuted-half-cheetah",
            "HalfCheetah, observation entries permuted anew every million steps; needs mujoco",
            "PermutedHalfCheetah",
        ),
        _control(
            "switching-cartpole",
            "CartPole, another pole length and gravity every 100,000 steps",
            "SwitchingCartPole",
        ),
        _control(
            "drifting-cartpole",
            "CartPole, pole length and gravity drifting without pause",
            "DriftingCartPole",
        ),
        _control(
            "slippery-ant",
            "Ant, another friction every 2 million steps (Dohare et al. 2024); needs mujoco",
            "SlipperyAnt",
        ),
        _control(
            "slippery-half-cheetah",
            "HalfCheetah, another friction every 2 million steps; needs mujoco",
            "SlipperyHalfCheetah",
        ),
        _control(
            "slippery-walker2d",
            "Walker2d, another friction every 2 million steps; needs mujoco",
            "SlipperyWalker2d",
        ),
        _control(
            "gravity-ant", "Ant, another gravity every million steps; needs mujoco", "GravityAnt"
        ),
        _control(
            "gravity-half-cheetah",
            "HalfCheetah, another gravity every million steps; needs mujoco",
            "GravityHalfCheetah",
        ),
        _control(
            "actuator-ant",
            "Ant, motors of another strength every million steps; needs mujoco",
            "ActuatorAnt",
        ),
        _control(
            "actuator-half-cheetah",
            "HalfCheetah, motors of another strength every million steps; needs mujoco",
            "ActuatorHalfCheetah",
        ),
        _control(
            "classic-control-cycle",
            "CartPole, Acrobot and MountainCar in turn, every 50,000 steps",
            "ClassicControlCycle",
        ),
        _control(
            "changing", "any registered environment by its id, changing as you say", "Changing"
        ),
        _control("gymnasium", "any registered environment by its id, as it is", "Stationary"),
    ],
    group="clrl.benchmarks",
)


def is_control(name: str) -> bool:
    """Whether a name stands for a control task, by the table, or by what a plug-in is.

    Raises:
        UsageError: an unknown name, or a plug-in that can't be imported.
    """
    entry = BENCHMARKS.find(name)
    if entry.source == "built in":
        return entry.target.startswith(_CONTROL)
    make = entry.load()
    return isinstance(make, type) and issubclass(
        make, import_target("clrl.envs.control:Benchmark", name)
    )


def as_choice(benchmark: Any) -> dict[str, Any]:
    """A control task as a choice from the table: its name and options, as YAML has them.

    Raises:
        UsageError: its class, or one that it holds, is not to be found in a module.
    """
    kind = type(benchmark)
    own = (entry.name for entry in BENCHMARKS if entry.target == _CONTROL + kind.__name__)
    name = next(own, "") if kind.__module__.startswith(_CONTROL[:-1]) else ""
    if not name:
        name = importable(kind)
    plain = benchmark.to_dict() if hasattr(benchmark, "to_dict") else as_keywords(benchmark)
    return {"name": name, **plain}
