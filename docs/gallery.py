"""Writes docs/gallery: a page for each method and each benchmark, with curves of our own.

    python docs/gallery.py [RUNS]

What a page says comes from the tables, docstrings and suites, so that nothing is said twice. Of
suites with many methods (``gallery-methods...``) each method's page shows its own curve, beside
that of the suite's first learner and of what it stands over.
Curves and verdicts come from the folders of suites below RUNS, as far as they are there (others
stay as they were). ``make gallery`` calls this with ``runs``; a test holds that the pages are what
this file writes. It also writes how much there is of everything into README.
"""

from __future__ import annotations

import dataclasses
import functools
import inspect
import json
import re
import sys
import textwrap
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from PIL import Image

from clrl import suites
from clrl.agents.consolidation.table import CONSOLIDATION
from clrl.agents.optim.table import ADDONS, OPTIMIZERS
from clrl.agents.penalties.table import PENALTIES
from clrl.benchmarks import BENCHMARKS
from clrl.cli import arguments
from clrl.metrics.table import METRICS
from clrl.registry import Entry
from clrl.report import drawing, page
from clrl.report.analysis import Study, studies
from clrl.report.panels import panels_of
from clrl.report.results import read
from clrl.report.verdict import of_study
from clrl.settings import suite_files
from clrl.settings.config import RunConfig

FOLDER = Path(__file__).parent / "gallery"
README = FOLDER.parents[1] / "README.md"
OUTCOMES = FOLDER / "outcomes.json"
"""What the suites gave when their folders were last at hand: suite, benchmark, verdict."""
WIDTH = 800
"""Pixels that a picture is wide."""
SECTIONS = re.compile(r"(Args|Attributes|Raises|Returns):")


def main() -> None:
    """Draw what is at hand, then write all pages."""
    FOLDER.mkdir(exist_ok=True)
    if len(sys.argv) > 1:
        draw(Path(sys.argv[1]))
    outcomes = json.loads(OUTCOMES.read_text()) if OUTCOMES.exists() else {}
    for name, text in pages(outcomes).items():
        (FOLDER / name).write_text(text, encoding="utf-8")
    README.write_text(counted(README.read_text(encoding="utf-8")), encoding="utf-8")


def counted(text: str) -> str:
    """README with how much there is, between its marks."""
    kinds: dict[str, Iterable[Entry]] = {
        "benchmarks": BENCHMARKS,
        "update rules": OPTIMIZERS,
        "add-ons": ADDONS,
        "penalties": PENALTIES,
        "methods against forgetting": CONSOLIDATION,
        "metrics of plasticity": METRICS,
    }
    counts = {what: sum(one.source == "built in" for one in kinds[what]) for what in kinds}
    counts["presets"] = len(suite_files.names())
    said = ", ".join(f"{what} ({count})" for what, count in counts.items())
    lines = textwrap.fill(
        f"In the tables are {said}; for control there are PPO and, beside it, Stable-Baselines3's "
        "algorithms.",
        100,
        break_on_hyphens=False,
    )
    return re.sub("(?s)(<!-- counts -->).*(<!-- /counts -->)", rf"\1\n{lines}\n\2", text)


def draw(runs: Path) -> None:
    """Take in the folders of the package's suites that lie below ``runs``."""
    outcomes = json.loads(OUTCOMES.read_text()) if OUTCOMES.exists() else {}
    for name in suite_files.names():
        if (runs / name / "suite.yaml").is_file():
            results = read(runs / name)
            found = studies(results)
            look = drawing.styles(page.labels(results, found))
            outcomes.setdefault(name, {})
            for study in found:
                if not all(run.over for run in results.runs if run.benchmark == study.benchmark):
                    continue
                if _is_of_methods(name):
                    outcomes[name] |= _draw_methods(name, study)
                    continue
                shown = {method.label: look[method.label] for method in study.methods}
                drawn = panels_of(study, look)
                if drawn:
                    picture = FOLDER / f"{name}-{study.benchmark}.png"
                    drawing.save(drawn[0], picture, shown, "seeds" if _is_look(name) else "bands")
                    shrink(picture)
                    outcomes[name][study.benchmark] = of_study(study)
    OUTCOMES.write_text(json.dumps(outcomes, indent=1, ensure_ascii=False) + "\n")


def _draw_methods(name: str, study: Study) -> dict[str, list[str]]:
    """A picture for each method of a suite of many; label to the sentences of its verdict."""
    loaded, said = _loaded(name), {}
    for label in _shown_alone(loaded):
        beside = _beside(loaded, label)
        methods = [next(one for one in study.methods if one.label == own) for own in beside]
        made = tuple(one for one in study.claims.comparisons if {one.better, one.than} <= {*beside})
        # Corrected for all that the suite compares, whichever of it a page is about.
        against = study.claims.against if len(methods) > 2 else None
        claims = dataclasses.replace(study.claims, comparisons=made, against=against)
        part = dataclasses.replace(study, methods=methods, claims=claims)
        look = drawing.styles(beside)
        panel = next(panel for panel in panels_of(part, look) if panel.name == "curves")
        picture = FOLDER / f"{name}-{label}.png"
        drawing.save(panel, picture, look)
        shrink(picture)
        said[label] = of_study(part)[:2]
    return said


def _beside(suite: suites.Suite, label: str) -> list[str]:
    """What a method is shown with: the suite's first learner, what it stands over, itself."""
    first, own = next(iter(suite.learners)), suite.learners[label]
    over = [
        one
        for one, config in suite.learners.items()
        if not _added(config) and (config.optimizer, config.network) == (own.optimizer, own.network)
    ]
    return list(dict.fromkeys([first, *over, label]))


def _shown_alone(suite: suites.Suite) -> list[str]:
    """The learners of a suite of many methods that nothing else stands over."""
    every = {label: _beside(suite, label) for label in suite.learners}
    return [one for one in every if not any(one in every[other] for other in every if other != one)]


def shrink(picture: Path) -> None:
    """Make a picture a small file: as wide as a page shows it, in few colours."""
    image = Image.open(picture).convert("RGB")
    size = (WIDTH, round(image.height * WIDTH / image.width))
    image = image.resize(size, Image.Resampling.LANCZOS)
    few = image.quantize(64, Image.Quantize.MAXCOVERAGE, dither=Image.Dither.NONE)
    few.save(picture, optimize=True)


def pages(outcomes: Mapping[str, Mapping[str, list[str]]]) -> dict[str, str]:
    """File name to text, for every page.

    Args:
        outcomes: suite to benchmark to the sentences of its verdict, for those with a figure.
    """
    made: dict[str, str] = {}
    for kind, tables in (
        ("method", (OPTIMIZERS, ADDONS, PENALTIES, CONSOLIDATION)),
        ("benchmark", (BENCHMARKS,)),
    ):
        for entry in (entry for table in tables for entry in table):
            if entry.source == "built in":
                made[f"{kind}-{entry.name}.md"] = _page(kind, entry, outcomes)
    made["README.md"] = _index(made, outcomes)
    return made


def _index(made: Mapping[str, str], outcomes: Mapping[str, Mapping[str, list[str]]]) -> str:
    lines = ["# Gallery", "", "Written by `make gallery` from tables, docstrings and suites.", ""]
    for name, benchmarks in outcomes.items():
        for benchmark, said in benchmarks.items() if not _is_of_methods(name) else ():
            lines += [f"## {name}: {benchmark}", "", *_picture(name, benchmark), ""]
            lines += [*_verdict(said), ""]
    for kind in ("method", "benchmark"):
        lines += [f"## {kind.capitalize()}s", ""]
        for file in made:
            if file.startswith(kind):
                title, _, text = made[file].partition("\n\n")
                summary = text.partition("\n\n")[0]
                lines.append(f"- [{title.removeprefix('# ')}]({file}): {summary}")
        lines.append("")
    return "\n".join(lines)


def _page(kind: str, entry: Entry, outcomes: Mapping[str, Mapping[str, list[str]]]) -> str:
    target, options = entry.load(), entry.options_type()
    lines = [f"# {entry.name}", "", entry.summary, ""]
    if target.__module__.startswith("clrl."):
        # Streams share their mechanism and its sources, which their module tells.
        whole = inspect.getdoc(target) or ""
        shared = kind == "benchmark" and ".streams." in target.__module__
        module = inspect.getdoc(inspect.getmodule(target)) if shared else ""
        texts = [whole, (module or "").partition("\n")[2]]
    else:
        texts = [f"`{entry.target.replace(':', '.')}`, as it comes with torch."]
    for text in texts:
        lines += [*_markdown(text), ""]
    lines += ["## Options", "", *_options(options, target), ""]
    used = list(_used(kind, entry.name))
    if used:
        lines += ["## In our suites", ""]
        for name, label, settings in used:
            lines.append(f"- `{name}`, as `{label}`: {settings}")
        lines.append("")
    figures = list(dict.fromkeys(_figures(kind, used, outcomes)))
    for name, label in figures:
        lines += [f"## {name}: {label}", "", *_picture(name, label), ""]
        lines += [*_verdict(outcomes[name][label]), ""]
    if kind == "benchmark" and used and not figures:
        name, label, _ = next((one for one in used if _is_look(one[0])), used[0])
        command = f"clrl suite {name} --benchmarks {label}"
        said = f"No picture yet, since it has not been run: `{command}`, then `make gallery`,"
        lines += [f"{said} makes one.", ""]
    return re.sub(r"\n{3,}", "\n\n", "\n".join(lines)).rstrip("\n") + "\n"


def _picture(name: str, label: str) -> list[str]:
    """A picture, and what it was made by."""
    loaded = _loaded(name)
    if _is_of_methods(name):
        beside = _beside(loaded, label)
        of = [loaded.learners[one] for one in beside]
        only = f" --learners {' '.join(beside)}"
    else:
        of = [config for learner, config in loaded.learners.items()
              if label in loaded.only.get(learner, (label,))]  # fmt: skip
        only = f" --benchmarks {label}" if len(loaded.benchmarks) > 1 else ""
    steps = max(config.steps for config in of)
    said = [
        f"Made by `clrl suite {name}{only}`: {len(of)} learners, {len(loaded.seeds)} seeds, "
        f"{steps:,} steps each."
    ]
    if _is_of_methods(name):
        (benchmark,) = loaded.benchmarks
        said.append(f"On {benchmark}; bands are intervals of means, marks are changes of task.")
        said.append("One setting, which was not searched for.")
    elif _is_look(name):
        said.append("Thin lines are single seeds.")
    if "duration" in loaded.texts:
        said.append(f"The suite takes {loaded.texts['duration']}.")
    return [
        f"![{label}: curves of {len(of)} learners]({name}-{label}.png)",
        "",
        " ".join(said),
    ]


def _is_look(name: str) -> bool:
    """Whether a suite is one for pictures alone: of so few seeds that bands would fill them."""
    return name.startswith("gallery-")


def _is_of_methods(name: str) -> bool:
    """Whether a suite is one for pictures of many methods, each on a page of its own."""
    return name.startswith("gallery-methods")


def _verdict(said: list[str]) -> list[str]:
    """The first sentences: what was best, and what lost its plasticity."""
    return [" ".join(said[:2])]


def _figures(
    kind: str, used: list[tuple[str, str, str]], outcomes: Mapping[str, Mapping[str, list[str]]]
) -> Iterator[tuple[str, str]]:
    """(suite, benchmark or learner) of every figure that shows what the page is about."""
    for name, label, _ in used:
        if _is_of_methods(name):
            if kind == "method" and label in outcomes.get(name, {}):
                yield name, label
            continue
        for benchmark in outcomes.get(name, {}):
            loaded = _loaded(name)
            on = loaded.only.get(label, tuple(loaded.benchmarks))
            if benchmark == label or (kind == "method" and benchmark in on):
                yield name, benchmark


def _used(kind: str, wanted: str) -> Iterator[tuple[str, str, str]]:
    """(suite, label, settings) wherever the package's suites name it."""
    for name in suite_files.names():
        loaded = _loaded(name)
        if kind == "benchmark":
            for label, choice in loaded.benchmarks.items():
                if choice.name == wanted:
                    yield name, label, _settings(choice.options)
            continue
        for label, config in loaded.learners.items():
            added = _added(config)
            rules = [config.optimizer, *added]
            about = added if added and _is_of_methods(name) else rules
            if any(choice.name == wanted for choice in about):
                said = ", ".join(f"{one.name} ({_settings(one.options)})" for one in rules)
                yield name, label, said


def _added(config: RunConfig) -> list[Any]:
    """What a learner has over its update rule."""
    return [*config.addons, *config.penalties, *config.consolidation]


@functools.cache
def _loaded(name: str) -> suites.Suite:
    return suites.load(name)


def _settings(options: Any) -> str:
    """The options that differ from their defaults."""
    found = [
        f"{field.name} {_shown(getattr(options, field.name))}"
        for field in dataclasses.fields(options)
        if getattr(options, field.name) != field.default
    ]
    return ", ".join(found) or "defaults"


def _shown(value: Any) -> str:
    if isinstance(value, tuple):
        return " ".join(map(_shown, value))
    return f"{value:g}" if isinstance(value, float) else str(value).lower()


def _options(options: type, target: Any) -> list[str]:
    """A table of options: name, default, meaning (which either side's docstring may say)."""
    fields = dataclasses.fields(options)
    if not fields:
        return ["None."]
    of_target = arguments.attribute_help(target, "Args") if inspect.isclass(target) else {}
    meaning = of_target | arguments.attribute_help(options)
    rows = ["| option | default | meaning |", "|---|---|---|"]
    for field in fields:
        default = "" if field.default is dataclasses.MISSING else f"`{_shown(field.default)}`"
        text = meaning.get(field.name, "").replace("|", "\\|")
        rows.append(f"| `{field.name}` | {default} | {text} |")
    return rows


def _markdown(text: str) -> list[str]:
    """A docstring as Markdown: literal blocks fenced; sections of arguments left to the options."""
    lines, fenced, skipped = [], False, False
    for line in text.splitlines():
        indented = line.startswith("    ")
        if SECTIONS.fullmatch(line):
            skipped = True
        elif line and not indented:
            skipped = False
        if skipped:
            continue
        if fenced and line and not indented:
            while lines[-1] == "":
                lines.pop()
            lines += ["```", ""]
            fenced = False
        if line.endswith("::") and not indented:
            lines += [line[:-1], "", "```"]
            fenced = True
        elif not (fenced and not line and lines[-1] == "```"):
            lines.append(line.removeprefix("    ") if fenced else line)
    return [*lines, "```"] if fenced else lines


if __name__ == "__main__":
    main()
