"""What goes together, as far as that is seen before anything is made; loads no torch."""

from __future__ import annotations

from collections.abc import Mapping

from clrl.benchmarks import BENCHMARKS, is_control
from clrl.errors import UsageError
from clrl.settings.config import RunConfig


def check(config: RunConfig) -> None:
    """Refuse what no worker needs to be started for; the loops look again, and at the rest.

    A benchmark of one's own is not looked at, since its module would have to be loaded.

    Raises:
        UsageError: see `check_agent` and `check_batch_size`.
    """
    name = config.benchmark.name
    if BENCHMARKS.find(name).source != "built in":
        return
    acts = is_control(name)
    check_agent(config, acts)
    batch = getattr(config.agent.options, "batch_size", None)
    if not acts and batch is not None:
        check_batch_size(batch, {"steps": config.steps, "log_every": config.log_every})


def check_agent(config: RunConfig, acts: bool) -> None:
    """Refuse an agent that learns from something else.

    Args:
        config: what a run is.
        acts: whether the benchmark is a control task.

    Raises:
        UsageError: the agent acts in control tasks and this is a stream, or the other way round.
    """
    agent, name = config.agent.short_name, config.benchmark.name
    can_act = hasattr(config.agent.options, "num_envs")
    if can_act and not acts:
        raise UsageError(
            f"benchmark: {name} is a stream, and {agent} acts in control tasks; expected an agent "
            "such as supervised"
        )
    if acts and not can_act:
        raise UsageError(
            f"benchmark: {name} is a control task, and {agent} learns from streams; expected an "
            "agent such as ppo"
        )


def check_batch_size(batch: int, lengths: Mapping[str, int]) -> None:
    """Refuse batches that would lie across the end of something.

    Raises:
        UsageError: the batch size divides not all of the lengths, in examples, by name.
    """
    for name, length in lengths.items():
        if length % batch:
            raise UsageError(
                f"agent.batch_size: expected a divisor of {name} ({length}), got {batch}"
            )
