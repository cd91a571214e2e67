"""Suites: tables of runs, read from YAML, planned against a folder and carried out.

Everything that can be wrong is found before anything is written.
"""

from __future__ import annotations

import functools
import hashlib
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from clrl.benchmarks import BENCHMARKS
from clrl.errors import UsageError
from clrl.launch.crew import Crew
from clrl.launch.jobs import Job, share_out
from clrl.launch.plan import MARKER, claimed, mark, remaining
from clrl.launch.progress import shown
from clrl.launch.supervisor import Failure, Supervisor
from clrl.registry import plug_ins_refused
from clrl.settings import sweep
from clrl.settings.config import (
    SETTINGS,
    Choice,
    RunConfig,
    agent_of,
    check_settings,
    choice_to_dict,
    choose,
    of_id,
    resolve,
    short_name,
    split_choice,
    to_dict,
    update_rules,
)
from clrl.settings.defaults import Defaults, Layer, of_agent, with_name
from clrl.settings.origins import Origins, origins
from clrl.settings.suite_files import TEXTS, extended, read, text_of
from clrl.settings.values import Place, counted, known_keys, mapping, parse_seeds, show, suggestion
from clrl.storage import record
from clrl.storage.checkpoint import Keeping
from clrl.storage.logs import LOGS

if TYPE_CHECKING:
    from rich.console import Console

_SHARED = ("agent", "network", *SETTINGS)
_LEARNER = ("optimizer", "addons", "penalties", "consolidation", "network", "agent")
_OF_LEARNER = (*_LEARNER, *SETTINGS, "benchmarks", "sweep", "scratch_of")
_KEYS = (*TEXTS, "extends", "benchmark", "benchmarks", *_SHARED, "seeds", "learners")
_LONGEST = 100
_LABEL = re.compile(rf"[A-Za-z0-9][A-Za-z0-9._+=,-]{{0,{_LONGEST - 1}}}")
_FORM = (
    f"expected 1 to {_LONGEST} letters, digits and any of . _ + = , - (the first a letter or digit)"
)


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
        sweeps: learner's label to the name of the sweep that it is one setting of.
        scratch_of: label of a scratch reference to the label of the learner that it is for.
        origins: learner's label to its settings, each with where it came from.
    """

    name: str
    texts: dict[str, str]
    benchmarks: dict[str, Choice]
    learners: dict[str, RunConfig]
    seeds: tuple[int, ...]
    only: dict[str, tuple[str, ...]] = field(default_factory=dict)
    sweeps: dict[str, str] = field(default_factory=dict)
    scratch_of: dict[str, str] = field(default_factory=dict)
    origins: dict[str, Origins] = field(default_factory=dict, compare=False, repr=False)

    def populations(self, out: Path, device: str = "cpu") -> list[Job]:
        """Every benchmark with every learner, as jobs that write below ``out``."""
        return [
            Job(
                label=f"{benchmark}/{learner}",
                config=replace(config, benchmark=choice),
                folders={seed: out / benchmark / learner / f"seed-{seed}" for seed in self.seeds},
                device=device,
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
            **{name: first[name] for name in SETTINGS if name in first},
            "seeds": list(self.seeds),
            "learners": {
                label: {key: learner[key] for key in _LEARNER}
                | {k: learner.get(k, []) for k in SETTINGS if learner.get(k) != first.get(k)}
                | self._more(label)
                for label, learner in plain.items()
            },
        }

    def _more(self, label: str) -> dict[str, Any]:
        """What a learner's entry says besides its configuration."""
        more: dict[str, Any] = {}
        if label in self.only:
            more["benchmarks"] = list(self.only[label])
        if label in self.sweeps:
            more["sweep"] = self.sweeps[label]
        if label in self.scratch_of:
            more["scratch_of"] = self.scratch_of[label]
        return more

    def summary(self) -> str:
        """A line that says what the suite becomes: learners, sweeps, runs."""
        populations = self.populations(Path())
        runs = len(populations) * len(self.seeds)
        parts = [counted(len(self.learners), "learner")]
        for name in dict.fromkeys(self.sweeps.values()):
            settings = sum(own == name for own in self.sweeps.values())
            parts.append(f"{counted(settings, 'setting')} in the sweep {name}")
        if self.scratch_of:
            parts.append(counted(len(self.scratch_of), "scratch reference"))
        return (
            f"{self.name}: {counted(runs, 'run')}, {counted(len(self.seeds), 'seed')} of "
            f"{counted(len(populations), 'pair')} of benchmark and learner ({', '.join(parts)})"
        )


def chosen(suite: Suite, learners: Sequence[str] = (), benchmarks: Sequence[str] = ()) -> Suite:
    """A part of a suite.

    Args:
        suite: the whole.
        learners: labels, or names of sweeps for all of their settings; all unless given.
        benchmarks: labels; all unless given.

    Raises:
        UsageError: an unknown label, or nothing is left.
    """
    known = [*suite.learners, *dict.fromkeys(suite.sweeps.values())]
    for key, given, labels in (
        ("learners", learners, known),
        ("benchmarks", benchmarks, [*suite.benchmarks]),
    ):
        for label in given:
            if label not in labels:
                raise UsageError(
                    f"--{key}: {suite.name} has no {label!r}; {suggestion(label, labels)}"
                )
    places = {
        label: choice
        for label, choice in suite.benchmarks.items()
        if not benchmarks or label in benchmarks
    }
    only = {
        label: tuple(one for one in labels if one in places) for label, labels in suite.only.items()
    }
    kept = {
        label: config
        for label, config in suite.learners.items()
        if (not learners or {label, suite.sweeps.get(label)} & {*learners})
        and (label not in only or only[label])
    }
    if not kept:
        raise UsageError(
            f"--learners: none of {', '.join(learners) or 'them'} is for {', '.join(places)}"
        )
    return replace(
        suite,
        benchmarks=places,
        learners=kept,
        only={label: labels for label, labels in only.items() if label in kept},
        sweeps={label: name for label, name in suite.sweeps.items() if label in kept},
        scratch_of={
            label: of for label, of in suite.scratch_of.items() if label in kept and of in kept
        },
    )


def load(name: str, overrides: Mapping[str, Any] | None = None) -> Suite:
    """Read and check a suite.

    Args:
        name: a suite that comes with the package, or a file.
        overrides: values from the command line for ``seeds``, ``steps`` and ``metrics``.

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
        overrides: values from the command line for ``seeds``, ``steps`` and ``metrics``.

    Raises:
        UsageError: anything wrong in it.
    """
    known_keys(raw, _KEYS, place)
    raw = extended(raw, place)
    known_keys(raw, _KEYS, place)
    overrides = overrides or {}
    texts = {key: text_of(raw[key], place.at(key)) for key in TEXTS if key in raw}
    shared, forced = check_settings(raw, place), check_settings(overrides, Place())
    if "seeds" in overrides:
        seeds = parse_seeds(overrides["seeds"], Place().at("seeds"))
    else:
        seeds = parse_seeds(raw.get("seeds", 0), place.at("seeds"))
    benchmarks = _benchmarks(raw, place)
    entries = _entries(raw, (shared, forced), benchmarks, place)
    return Suite(
        name,
        texts,
        benchmarks,
        {label: entry.config for label, entry in entries.items()},
        seeds,
        {label: entry.only for label, entry in entries.items() if entry.only},
        {label: entry.sweep for label, entry in entries.items() if entry.sweep},
        {label: entry.scratch_of for label, entry in entries.items() if entry.scratch_of},
        {label: entry.origins for label, entry in entries.items()},
    )


def with_scratch(suite: Suite) -> Suite:
    """A suite with a scratch reference for each of its learners, as far as it has none.

    The reference of a learner is the same learner made new with every task: network, update
    rule and normalisers. Within a task it is a fresh learner that is trained on this task
    alone, on the same examples or environment, for as long; there is nothing that it could
    forget, and so no method against that. It is labelled ``LABEL+scratch``.
    A learner that is made new with every task anyway gets none.

    Raises:
        UsageError: an agent that cannot be made new, or a label that is too long or taken.
    """
    learners: dict[str, RunConfig] = {}
    only, scratch_of = dict(suite.only), dict(suite.scratch_of)
    done = {*scratch_of, *scratch_of.values()}
    for label, config in suite.learners.items():
        learners[label] = config
        options = config.agent.options
        if label in done or getattr(options, "reset_at_change", False):
            continue
        if not hasattr(options, "reset_at_change"):
            raise UsageError(
                f"--with-scratch: learner {label}: {config.agent.name} cannot be made new with "
                "a task; expected an agent that has reset_at_change, such as supervised or ppo"
            )
        scratch = f"{label}+scratch"
        if scratch in suite.learners or not _LABEL.fullmatch(scratch):
            problem = "is there already" if scratch in suite.learners else "is too long"
            raise UsageError(f"--with-scratch: the label {scratch!r} {problem}")
        agent = replace(config.agent, options=replace(options, reset_at_change=True))
        learners[scratch] = replace(config, agent=agent, consolidation=())
        scratch_of[scratch] = label
        if label in only:
            only[scratch] = only[label]
    return replace(suite, learners=learners, only=only, scratch_of=scratch_of)


def single(
    config: RunConfig,
    seeds: Any,
    label: str | None = None,
    settings: Mapping[str, RunConfig] | None = None,
) -> Suite:
    """One learner on one benchmark as a suite, labelled by the names of what was chosen.

    Args:
        config: the configuration of every run.
        seeds: as `clrl.settings.values.parse_seeds` takes them.
        label: of the learner, in place of those names, of which it has as many as there is room
            for.
        settings: of a sweep: what each adds to the label, and its configuration.

    Raises:
        UsageError: the seeds cannot be read, or the label names no folder.
    """
    settings = settings or {"": config}
    rules = [config.optimizer, *config.addons, *config.penalties, *config.consolidation]
    names = [safe_label(choice.name) for choice in rules]
    learner = label or _joined(names, _LONGEST - max(map(len, settings)))
    learners = {learner + more: one for more, one in settings.items()}
    for full in learners:
        if not _LABEL.fullmatch(full):
            raise Place().at("label").error(f"{_FORM}, got {show(full)}")
    benchmark = benchmark_label(config.benchmark)
    return Suite(
        name=benchmark,
        texts={},
        benchmarks={benchmark: config.benchmark},
        learners=learners,
        seeds=parse_seeds(seeds, Place().at("seeds")),
        sweeps={full: learner for full in learners if full != learner},
    )


def carry_out(
    suite: Suite,
    out: Path,
    console: Console,
    crew: Crew[Any],
    keeping: Keeping,
    members: int | None = None,
    force: bool = False,
    device: str = "cpu",
    log: tuple[str, ...] = (),
) -> list[Failure]:
    """Do what is left of a suite.

    Args:
        suite: what the folder is to hold.
        out: the folder.
        console: where to say what is going on.
        crew: who trains.
        keeping: when checkpoints are written.
        members: how many seeds a population has at most; None leaves it to the workers.
        force: see `clrl.launch.plan.remaining`.
        device: what learners compute on.
        log: where measurements go besides; see `clrl.storage.logs`.

    Returns:
        What went wrong.

    Raises:
        UsageError: the folder cannot be the suite's, or a benchmark cannot be had; nothing
            was written then.
        clrl.launch.supervisor.Interrupted: the user asked for an end.
    """
    say = functools.partial(console.print, highlight=False, markup=False, soft_wrap=True)
    populations = suite.populations(out, device)
    left = remaining(populations, out, force)
    total = len(populations) * len(suite.seeds)
    runs = sum(len(job.folders) for job in left)
    if not runs:
        say(f"{suite.name}: nothing to do, all {total} runs in {out} are finished")
        return []
    workers = None if crew.elastic else crew.size
    crew.size = min(crew.size, len(share_out(left, workers, members)))
    for name in log:
        LOGS.find(name, "--log").load()
    with Supervisor(crew, keeping, log) as supervisor:
        remarks = supervisor.check(left)
        begun = sum(len(job.folders) for job in left if job.resumes)
        work = f"{runs} of {counted(total, 'run')} to do in {out}, workers: {crew.size}"
        further = f", {begun} of them from a checkpoint" if begun else ""
        for line in (f"{suite.name}: {work}{further}", *remarks):
            say(line)
        content = record.to_yaml(suite.to_dict())
        with claimed(out, content) as lock:
            if lock is not None:
                crew.hold(lock)
            # Once more, now that nobody else can be at work here.
            jobs = share_out(remaining(populations, out, force), workers, members)
            with shown(jobs, console) as progress:
                # The folder may be deleted under way; what comes next is a suite's all the same.
                return supervisor.run(jobs, progress, lambda: mark(out, content, anew=False))


def plan(
    suite: Suite,
    out: Path,
    crew: Crew[Any],
    members: int | None = None,
    force: bool = False,
    device: str = "cpu",
) -> list[tuple[Job, float]]:
    """What `carry_out` would do, and how long each population would take; writes nothing.

    Args:
        suite: what the folder is to hold.
        out: the folder.
        crew: who would train.
        members: see `carry_out`.
        force: see `clrl.launch.plan.remaining`.
        device: what learners compute on.

    Returns:
        The populations in their order, and hours, from a few seconds of training each. A
        population that goes on from a checkpoint counts in full.

    Raises:
        UsageError: as `carry_out` raises it.
        clrl.launch.supervisor.Interrupted: the user asked for an end.
    """
    left = remaining(suite.populations(out, device), out, force)
    jobs = share_out(left, None if crew.elastic else crew.size, members)
    with Supervisor(crew) as supervisor:
        supervisor.check(left)
        rates = supervisor.measure(jobs)
    return [(job, job.size / rate / 3600) for job, rate in zip(jobs, rates, strict=True)]


def _benchmarks(raw: Mapping[str, Any], place: Place) -> dict[str, Choice]:
    at = place.at("benchmarks")
    if "benchmark" in raw and "benchmarks" in raw:
        raise at.error("expected either benchmark or benchmarks, got both")
    if "benchmark" in raw:
        choice = _benchmark(raw["benchmark"], place.at("benchmark"))
        return {benchmark_label(choice): choice}
    return {label: _benchmark(entry, here, label) for label, entry, here in _labelled(raw, at)}


def _benchmark(raw: Any, place: Place, label: str = "") -> Choice:
    known = label in BENCHMARKS or of_id(label)[0] != label
    raw = with_name(raw, label if known else None)
    if raw is None:
        raise place.error("expected a benchmark, got nothing")
    split_choice(raw, place)  # in a suite there is none that is taken where none is named
    return choose(BENCHMARKS, raw, place, Defaults())


@dataclass(frozen=True)
class _Entry:
    config: RunConfig
    only: tuple[str, ...]
    sweep: str
    scratch_of: str
    origins: Origins


def _entries(
    raw: Mapping[str, Any],
    settings: tuple[Mapping[str, Any], Mapping[str, Any]],
    benchmarks: Mapping[str, Choice],
    place: Place,
) -> dict[str, _Entry]:
    """The learners, sweeps spread out; ``settings`` are the suite's and the command line's."""
    parts = {key: (raw[key], place.at(key)) for key in ("network", "agent") if key in raw}
    for _ in _settings(parts, next(iter(benchmarks.values())), place):
        pass  # what no learner takes over is checked, too
    entries: dict[str, _Entry] = {}
    for label, entry, at in _labelled(raw, place.at("learners")):
        entry = {} if entry is None and label in update_rules() else entry
        known_keys(mapping(entry, at), _OF_LEARNER, at)
        rule = with_name(entry.get("optimizer"), label if label in update_rules() else None)
        if rule is None:
            raise at.at("optimizer").error("expected an optimizer, got nothing")
        only = _only(entry, benchmarks, at)
        given = parts | {key: (entry[key], at.at(key)) for key in _LEARNER if key in entry}
        given["optimizer"] = (rule, at.at("optimizer"))
        own = {key: given[key] for key in _LEARNER if key in given}
        first = benchmarks[only[0]] if only else next(iter(benchmarks.values()))
        shared = {**settings[0], **check_settings(entry, at), **settings[1]}
        for values, found, origin in _settings(own, first, at):
            full = label + sweep.label(values)
            if full in entries:
                raise at.error(f"the label {full!r} is there twice")
            if not _LABEL.fullmatch(full):
                raise at.error(f"the label {full!r} of a setting is longer than 100 characters")
            entries[full] = _Entry(
                replace(found, **shared),
                only,
                _label_in(entry, "sweep", at) or (label if values else ""),
                _label_in(entry, "scratch_of", at),
                origin | {key: (value, place.source) for key, value in shared.items()},
            )
    for label, one in entries.items():
        if one.scratch_of and one.scratch_of not in entries:
            at = place.at("learners", label, "scratch_of")
            raise at.error(f"expected a learner's label; {suggestion(one.scratch_of, [*entries])}")
    return entries


def _settings(
    parts: Mapping[str, sweep.Part], benchmark: Choice, place: Place
) -> Iterator[tuple[dict[str, Any], RunConfig, Origins]]:
    """All settings that a learner stands for, each complete; its agent follows the benchmark."""
    agent, at = parts.get("agent", (None, place.at("agent")))
    name = agent_of(agent, benchmark.name, at)
    defaults = Defaults(Layer("", {"agent": name}), of_agent(name))
    for values, choices in sweep.settings(parts, defaults):
        found = resolve(
            {**choices, "agent": with_name(choices.get("agent"), name)}, place, defaults
        )
        yield values, found, origins(found, choices, defaults, place.source)


def _label_in(entry: Mapping[str, Any], key: str, place: Place) -> str:
    value = entry.get(key, "")
    if key in entry and not (isinstance(value, str) and _LABEL.fullmatch(value)):
        raise place.at(key).error(f"expected a label, got {show(value)}")
    return str(value)


def _only(
    entry: Mapping[str, Any], benchmarks: Mapping[str, Choice], place: Place
) -> tuple[str, ...]:
    """The benchmarks that a learner is for; none where it is for all."""
    if "benchmarks" not in entry:
        return ()
    names, at = entry["benchmarks"], place.at("benchmarks")
    labels = list(benchmarks)
    if not (isinstance(names, list) and names and all(name in labels for name in names)):
        raise at.error(f"expected a list out of {', '.join(labels)}, got {show(names)}")
    return tuple(names)


def _labelled(raw: Mapping[str, Any], place: Place) -> Iterator[tuple[str, Any, Place]]:
    """The entries of a mapping from labels: (label, entry, place)."""
    entries = mapping(raw.get(place.keys[-1]), place)
    if not entries:
        raise place.error("expected at least one entry, got none")
    for label, entry in entries.items():
        if not _LABEL.fullmatch(label):
            raise place.at(label).error(f"a label names a folder: {_FORM}")
        yield label, entry, place.at(label)


def benchmark_label(benchmark: Choice) -> str:
    """A label for a benchmark that has none: its name; of an environment as it is, its id."""
    stationary = benchmark.name == "gymnasium"
    return safe_label(benchmark.options.id if stationary else benchmark.name)


def _joined(names: Sequence[str], room: int) -> str:
    """A label of names; the first of them, and a mark of all, where there is no room for more."""
    whole = "+".join(names)
    if len(whole) <= room:
        return whole
    more = f"+more-{hashlib.sha256(whole.encode()).hexdigest()[:6]}"
    some = whole[: max(room - len(more) + 1, 1)]  # one longer, to see whether a name ends there
    return (some.rpartition("+")[0] or some[:-1] or some) + more


def safe_label(name: str) -> str:
    """A label for a choice that has none: its name, fit for a folder's name."""
    return re.sub(r"[^A-Za-z0-9._+=,-]", "-", short_name(name)).lstrip("._+=,-") or "unnamed"
