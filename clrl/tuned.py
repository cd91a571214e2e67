"""What a single run starts from where little is said: what goes with its agent and benchmark.

A benchmark for which a suite of the same name comes along is trained as it is there: the agent's
settings, the network's and the update rule's. How long a run is does not come from the suite. For
some environments that are named by their ids there are settings as well.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from clrl import suites
from clrl.agents.defaults import BY_ENVIRONMENT
from clrl.options import as_keywords
from clrl.settings import suite_files
from clrl.settings.config import (
    RunConfig,
    find,
    is_addon,
    names_in,
    of_id,
    resolve,
    split_choice,
    update_rules,
)
from clrl.settings.defaults import Defaults, Layer, of_agent, with_name
from clrl.settings.values import Place


def resolve_run(raw: Mapping[str, Any], place: Place) -> RunConfig:
    """Complete and check the configuration of a single run.

    Args:
        raw: as `clrl.settings.config.resolve` takes it.
        place: where it was written.

    Raises:
        UsageError: an unknown name or key, or a value of the wrong type.
    """
    return resolve(raw, place, defaults_for(raw, place)[1])


def defaults_for(raw: Mapping[str, Any], place: Place) -> tuple[dict[str, str], Defaults]:
    """What a single run takes where it says nothing.

    Args:
        raw: the choices of ``benchmark``, ``agent`` and ``optimizer``, as written; others are of
            no account.
        place: where they were written.

    Returns:
        The names of benchmark and agent, and the defaults.

    Raises:
        UsageError: an unknown name.
    """
    benchmark, agent = names_in(raw, place)
    layers = [of_agent(agent)]
    at = place.at("optimizer")
    name, options = split_choice(with_name(raw.get("optimizer"), layers[0].names["optimizer"]), at)
    name = find(update_rules(), name, at)
    base = ""
    if is_addon(name) and options.get("base") is not None:
        base = find(update_rules(), split_choice(options["base"], at.at("base"))[0], at.at("base"))
    found = tuned(benchmark, agent, name, base) or of_environment(raw.get("benchmark"), agent)
    names = {"benchmark": benchmark, "agent": agent}
    return names, Defaults(Layer("", {"agent": agent}), *found, *layers)


def tuned(benchmark: str, agent: str, rule: str, base: str = "") -> list[Layer]:
    """The settings of a benchmark's own suite.

    Args:
        benchmark: its name.
        agent: a suite for another agent says nothing.
        rule: the update rule, or the add-on in its place. Of several learners with it the first
            counts; where there is none, agent and network are as the first learner has them.
        base: the add-on's base; any unless given.

    Returns:
        One layer, or none.
    """
    if benchmark not in suite_files.names():
        return []
    learners = [one for one in suites.load(benchmark).learners.values() if one.agent.name == agent]
    if not learners:
        return []
    first = next((one for one in learners if _is(one, rule, base)), None)
    config = first or learners[0]
    chosen = [config.agent, config.network]
    names = {"network": config.network.name}
    if first:
        chosen += [first.optimizer, *first.addons]
        names["optimizer"] = first.optimizer.name
    options = {choice.name: as_keywords(choice.options) for choice in chosen}
    return [Layer(f"suite {benchmark}", names, options)]


def of_environment(benchmark: Any, agent: str) -> list[Layer]:
    """The settings for an environment.

    Args:
        benchmark: the choice, as written.
        agent: they are for ppo.

    Returns:
        One layer, or none.
    """
    choice = {"name": benchmark} if isinstance(benchmark, str) else dict(benchmark or {})
    given = of_id(str(choice.get("name", "")))[1] | choice
    family = str(given.get("id", "")).rpartition("-v")[0]
    if agent != "ppo" or family not in BY_ENVIRONMENT:
        return []
    return [Layer(f"environment {family}", options=BY_ENVIRONMENT[family])]


def _is(config: RunConfig, rule: str, base: str) -> bool:
    names = [config.optimizer.name, *(addon.name for addon in config.addons)]
    return names in ([rule], [base or config.optimizer.name, rule])
