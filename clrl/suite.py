"""Suites: tables of runs, read from YAML, planned against a folder and carried out.

Everything that can be wrong is found before anything is written.
"""

from __future__ import annotations

import functools
import importlib.resources
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from clrl import record
from clrl.checkpoint import Keeping
from clrl.config import (
    SETTINGS,
    Choice,
    RunConfig,
    check_settings,
    choice_to_dict,
    choose,
    resolve,
    short_name,
    to_dict,
)
from clrl.envs.benchmarks import BENCHMARKS
from clrl.errors import UsageError
from clrl.launch.crew import Crew
from clrl.launch.jobs import Job, share_out
from clrl.launch.plan import MARKER, claimed, remaining
from clrl.launch.progress import shown
from clrl.launch.supervisor import Failure, Supervisor
from clrl.registry import plug_ins_refused
from clrl.values import Place, known_keys, mapping, parse_seeds, show, suggestion

if TYPE_CHECKING:
    from rich.console import Console

_TEXTS = ("description", "source", "duration")
_SHARED = ("agent", "network", *SETTINGS)
_LEARNER = ("optimizer", "addons", "network", "agent")
_KEYS = (*_TEXTS, "benchmark", "benchmarks", *_SHARED, "seeds", "learners")
_LABEL = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+=,-]{0,99}")


@dataclass(frozen=True)
class Suite:
    """A table of runs: every benchmark with every learner with every seed.

    Attributes:
        name: what it is called.
        texts: ``description``, ``source`` and ``duration``, as far as given.
        benchmarks: label to benchmark.
        learners: label to a configuration; its benchmark is of no account.
        seeds: the seeds of every run.
        only: learner's label to the labels of the benchmarks that it is for; all unless there.
    """

    name: str
    texts: dict[str, str]
    benchmarks: dict[str, Choice]
    learners: dict[str, RunConfig]
    seeds: tuple[int, ...]
    only: dict[str, tuple[str, ...]] = field(default_factory=dict)

    def populations(self, out: Path) -> list[Job]:
        """Every benchmark with every learner, as jobs that write below ``out``."""
        return [
            Job(
                label=f"{benchmark}/{learner}",
                config=replace(config, benchmark=choice),
                folders={seed: out / benchmark / learner / f"seed-{seed}" for seed in self.seeds},
            )
            for benchmark, choice in self.benchmarks.items()
            for learner, config in self.learners.items()
            if benchmark in self.only.get(learner, self.benchmarks)
        ]

    def to_dict(self) -> dict[str, Any]:
        """Plain data that is a suite file which gives the same runs."""
        plain = {label: to_dict(config) for label, config in self.learners.items()}
        first = next(iter(plain.values()))
        return {
            **self.texts,
            "benchmarks": {
                label: choice_to_dict(choice) for label, choice in self.benchmarks.items()
            },
            **{name: first[name] for name in SETTINGS},
            "seeds": list(self.seeds),
            "learners": {
                label: {key: learner[key] for key in _LEARNER}
                | ({"benchmarks": list(self.only[label])} if label in self.only else {})
                for label, learner in plain.items()
            },
        }


def names() -> list[str]:
    """The suites that come with the package."""
    files = importlib.resources.files("clrl.configs").iterdir()
    return sorted(file.name.removesuffix(".yaml") for file in files if file.name.endswith(".yaml"))


def read(name: str) -> tuple[str, Mapping[str, Any]]:
    """Read a suite's YAML.

    Args:
        name: a suite that comes with the package, or a file (recognised by a slash or by
            its ending, ``.yaml`` or ``.yml``).

    Returns:
        What to call it in messages, and its content.

    Raises:
        UsageError: no such suite or file, or a file that is not a YAML mapping.
    """
    if "/" in name or name.endswith((".yaml", ".yml")):
        source = name
        try:
            text = Path(name).read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
            raise UsageError(f"{name}: cannot read the suite file: {reason}") from error
    elif name in names():
        source = f"{name}.yaml"
        text = (importlib.resources.files("clrl.configs") / source).read_text(encoding="utf-8")
    else:
        raise UsageError(f"unknown suite {name!r}; {suggestion(name, names())}")
    place = Place(source)
    try:
        content = yaml.load(text, Loader=_UniqueKeyLoader)  # noqa: S506 - a SafeLoader
    except yaml.YAMLError as error:
        raise place.error(_yaml_message(error)) from error
    return source, mapping(content, place)


def load(name: str, overrides: Mapping[str, Any] | None = None) -> Suite:
    """Read and check a suite.

    Args:
        name: a suite that comes with the package, or a file.
        overrides: values from the command line for ``seeds`` and ``steps``.

    Raises:
        UsageError: anything wrong in it.
    """
    source, raw = read(name)
    return from_mapping(raw, Place(source), Path(source).stem, overrides)


def of_folder(out: Path) -> Suite:
    """The suite whose results a folder holds.

    Nothing that the folder names is imported: a suite with a plug-in has to be named again.

    Raises:
        UsageError: it is not a suite's folder, or it names a plug-in by its module.
    """
    marker = out / MARKER
    if not marker.is_file():
        raise UsageError(f"{out}: expected a folder that clrl made; it holds no {MARKER}")
    with plug_ins_refused(
        "nothing that a results folder names is imported; give the command that made it again, "
        "with the same --out"
    ):
        return replace(load(str(marker)), name=out.name)


def from_mapping(
    raw: Mapping[str, Any],
    place: Place,
    name: str,
    overrides: Mapping[str, Any] | None = None,
) -> Suite:
    """Check a suite that was read.

    Args:
        raw: the suite file's content.
        place: where it was written.
        name: what the suite is called.
        overrides: values from the command line for ``seeds`` and ``steps``.

    Raises:
        UsageError: anything wrong in it.
    """
    known_keys(raw, _KEYS, place)
    overrides = overrides or {}
    texts = {key: _text(raw[key], place.at(key)) for key in _TEXTS if key in raw}
    shared = resolve({key: raw[key] for key in _SHARED if key in raw}, place)
    if "steps" in overrides:
        shared = replace(shared, **check_settings({"steps": overrides["steps"]}, Place()))
    if "seeds" in overrides:
        seeds = parse_seeds(overrides["seeds"], Place().at("seeds"))
    else:
        seeds = parse_seeds(raw.get("seeds", 0), place.at("seeds"))
    benchmarks = _benchmarks(raw, place)
    only = _only(raw, benchmarks, place)
    return Suite(name, texts, benchmarks, _learners(raw, shared, place), seeds, only)


def single(config: RunConfig, seeds: str) -> Suite:
    """One learner on one benchmark as a suite, labelled by the names of what was chosen.

    Args:
        config: the configuration of every run.
        seeds: as typed on the command line.

    Raises:
        UsageError: the seeds cannot be read.
    """
    rules = [config.optimizer, *config.addons]
    learner = "+".join(safe_label(choice.name) for choice in rules)
    benchmark = safe_label(config.benchmark.name)
    return Suite(
        name=benchmark,
        texts={},
        benchmarks={benchmark: config.benchmark},
        learners={learner: config},
        seeds=parse_seeds(seeds, Place().at("seeds")),
    )


def carry_out(
    suite: Suite,
    out: Path,
    console: Console,
    crew: Crew[Any],
    keeping: Keeping,
    force: bool = False,
    device: str = "cpu",
) -> list[Failure]:
    """Do what is left of a suite.

    Args:
        suite: what the folder is to hold.
        out: the folder.
        console: where to say what is going on.
        crew: who trains.
        keeping: when checkpoints are written.
        force: see `clrl.launch.plan.remaining`.
        device: what learners compute on.

    Returns:
        What went wrong.

    Raises:
        UsageError: the folder cannot be the suite's, or a benchmark cannot be had; nothing
            was written then.
        clrl.launch.supervisor.Interrupted: the user asked for an end.
    """
    say = functools.partial(console.print, highlight=False, markup=False, soft_wrap=True)
    populations = [replace(job, device=device) for job in suite.populations(out)]
    left = remaining(populations, out, force)
    total = len(populations) * len(suite.seeds)
    runs = sum(len(job.folders) for job in left)
    if not runs:
        say(f"{suite.name}: nothing to do, all {total} runs in {out} are finished")
        return []
    crew.size = min(crew.size, len(share_out(left, crew.size)))
    with Supervisor(crew, keeping) as supervisor:
        remarks = supervisor.check(left)
        begun = sum(len(job.folders) for job in left if job.resumes)
        work = f"{runs} of {total} runs to do in {out}, workers: {crew.size}"
        further = f", {begun} of them from a checkpoint" if begun else ""
        for line in (f"{suite.name}: {work}{further}", *remarks):
            say(line)
        with claimed(out, record.to_yaml(suite.to_dict())) as lock:
            crew.hold(lock)
            # Once more, now that nobody else can be at work here.
            jobs = share_out(remaining(populations, out, force), crew.size)
            with shown(jobs, console) as progress:
                return supervisor.run(jobs, progress)


def _text(raw: Any, place: Place) -> str:
    if not isinstance(raw, str):
        raise place.error(f"expected text, got {show(raw)}")
    return raw.strip()


def _benchmarks(raw: Mapping[str, Any], place: Place) -> dict[str, Choice]:
    at = place.at("benchmarks")
    if "benchmark" in raw and "benchmarks" in raw:
        raise at.error("expected either benchmark or benchmarks, got both")
    if "benchmark" in raw:
        choice = _benchmark(raw["benchmark"], place.at("benchmark"))
        return {safe_label(choice.name): choice}
    return {label: _benchmark(entry, here) for label, entry, here in _labelled(raw, at)}


def _benchmark(raw: Any, place: Place) -> Choice:
    if raw is None:
        raise place.error("expected a benchmark, got nothing")
    return choose(BENCHMARKS, raw, place)


def _learners(raw: Mapping[str, Any], shared: RunConfig, place: Place) -> dict[str, RunConfig]:
    learners = {}
    for label, entry, at in _labelled(raw, place.at("learners")):
        known_keys(mapping(entry, at), [*_LEARNER, "benchmarks"], at)
        if entry.get("optimizer") is None:
            raise at.at("optimizer").error("expected an optimizer, got nothing")
        own = resolve({key: entry[key] for key in _LEARNER if key in entry}, at)
        given = {key: getattr(own, key) for key in ("network", "agent") if key in entry}
        learners[label] = replace(shared, optimizer=own.optimizer, addons=own.addons, **given)
    return learners


def _only(
    raw: Mapping[str, Any], benchmarks: Mapping[str, Choice], place: Place
) -> dict[str, tuple[str, ...]]:
    """The learners that are for some benchmarks alone."""
    only = {}
    for label, entry, at in _labelled(raw, place.at("learners")):
        if isinstance(entry, Mapping) and "benchmarks" in entry:
            names, here = entry["benchmarks"], at.at("benchmarks")
            labels = list(benchmarks)
            known = isinstance(names, list) and names and all(name in labels for name in names)
            if not known:
                expected = f"a list out of {', '.join(benchmarks)}"
                raise here.error(f"expected {expected}, got {show(names)}")
            only[label] = tuple(names)
    return only


def _labelled(raw: Mapping[str, Any], place: Place) -> Iterator[tuple[str, Any, Place]]:
    """The entries of a mapping from labels: (label, entry, place)."""
    entries = mapping(raw.get(place.keys[-1]), place)
    if not entries:
        raise place.error("expected at least one entry, got none")
    for label, entry in entries.items():
        if not _LABEL.fullmatch(label):
            raise place.at(label).error(
                "a label names a folder: expected letters, digits and any of . _ + = , - "
                "(the first a letter or digit)"
            )
        yield label, entry, place.at(label)


def safe_label(name: str) -> str:
    """A label for a choice that has none: its name, fit for a folder's name."""
    return re.sub(r"[^A-Za-z0-9._+=,-]", "-", short_name(name)).lstrip("._+=,-") or "unnamed"


class _UniqueKeyLoader(yaml.SafeLoader):
    """YAML's safe loader, except that a key that is there twice is a mistake."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen = set()
        for key, _ in node.value:
            if key.value in seen:
                raise yaml.constructor.ConstructorError(
                    problem=f"the key {key.value!r} is there twice", problem_mark=key.start_mark
                )
            if isinstance(key.value, str):
                seen.add(key.value)
        return super().construct_mapping(node, deep)


def _yaml_message(error: yaml.YAMLError) -> str:
    mark = getattr(error, "problem_mark", None)
    problem = getattr(error, "problem", None) or str(error)
    return f"line {mark.line + 1}: {problem}" if mark else f"not YAML: {problem}"
