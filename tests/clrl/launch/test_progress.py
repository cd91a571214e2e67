"""How far the jobs are: what is known, and how it is shown."""

from __future__ import annotations

import io
import math
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
from rich.console import Console

from clrl.launch.jobs import Job
from clrl.launch.progress import (
    Row,
    Table,
    Work,
    apart,
    duration,
    online_text,
    rows,
    seeds_text,
    shown,
    unit,
)
from clrl.settings.config import resolve
from clrl.settings.values import Place
from clrl.training.online import Online


def job(
    label: str = "b/l", seeds: Sequence[int] = (0, 1, 2), steps: int = 5, agent: str = "supervised"
) -> Job:
    config = resolve({"steps": steps, "agent": agent}, Place("test"))
    return Job(label, config, {seed: Path(label) / f"seed-{seed}" for seed in seeds})


def text(console: Console) -> str:
    written: str = console.file.getvalue()  # type: ignore[attr-defined]
    return written


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[float]]:
    now = [100.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    yield now


class TestWork:
    def test_rate_and_time_left(self, clock: list[float]) -> None:
        one = job(seeds=[0], steps=100)
        work = Work([one])
        assert (work.total, work.done, work.rate, work.left()) == (100, 0, None, None)
        work.start(one)
        clock[0] += 50.0  # loading, which tells nothing about the rest
        work.update(one, 20, None)
        assert (work.done, work.rate, work.left()) == (20, None, None)
        clock[0] += 4.0
        work.update(one, 40, None)
        # 20 in 4 seconds; 60 are left
        assert (work.done, work.rate, work.left()) == (40, 5.0, 12.0)
        work.end(one, "done")
        assert (work.done, work.rate, work.left()) == (100, None, 0.0)

    def test_what_was_done_before_does_not_count_for_the_rate(self, clock: list[float]) -> None:
        one = job(seeds=[0], steps=1000)
        work = Work([one])
        work.start(one)
        clock[0] += 1.0
        work.update(one, 900, None)  # resumed
        clock[0] += 10.0
        work.update(one, 950, None)
        assert (work.rate, work.left()) == (5.0, 10.0)

    def test_jobs_to_come_are_as_fast_as_those_most_like_them(self, clock: list[float]) -> None:
        slow, fast = job("a/slow", [0], 100), job("b/fast", [0], 100)
        more = [job("a/slow", [1], 100), job("a/other", [0], 100), job("c/new", [0], 100)]
        work = Work([slow, fast, *more])
        for one in (slow, fast):
            work.start(one)
            work.update(one, 0, None)
        clock[0] += 10.0
        work.update(slow, 10, None)  # 1 a second: 90 seconds left
        work.update(fast, 40, None)  # 4 a second: 15 seconds left
        # a/slow again: 1 a second as that learner's; a/other: as the benchmark's only learner so
        # far; c/new: as all, 50 in 20 seconds. Two side by side.
        assert work.left() == pytest.approx((90 + 15 + 100 + 100 + 100 * 20 / 50) / 2)

    def test_no_sooner_than_the_slowest(self, clock: list[float]) -> None:
        slow, fast = job("b/slow", [0], 100), job("b/fast", [0], 100)
        work = Work([slow, fast])
        for one in (slow, fast):
            work.start(one)
            work.update(one, 0, None)
        clock[0] += 1.0
        work.update(slow, 1, None)
        work.update(fast, 99, None)
        assert work.left() == pytest.approx(99.0)

    def test_a_learner_whose_seeds_are_shared_out_is_one_row(self, clock: list[float]) -> None:
        first, second = job("b/l", [0, 1, 2], 10), job("b/l", [3], 10)
        rest = job("b/m", [0], 10)
        work = Work([first, second, rest])
        for one in (first, second):
            work.start(one)
            work.update(one, 0, None)
        clock[0] += 2.0
        work.update(first, 10, ("return", 4.0))
        work.update(second, 5, ("return", 8.0))
        # (3 * 4 + 8) / 4; 5 + 2.5 a second; 20 more at 5 a second, 5 more at 2.5
        assert rows(work) == [
            Row("b/l", 4, 40, 15, ("return", 5.0), 7.5, 4.0, "running"),
            Row("b/m", 1, 10, 0, None, None, None, "waiting"),
        ]
        work.end(first, "done")
        work.end(second, "seed 3 diverged")
        assert rows(work)[0].state == "done, seed 3 diverged"
        assert rows(work)[0].done == 40

    def test_performance_that_is_not_told_again_stays(self) -> None:
        one = job()
        work = Work([one])
        work.start(one)
        work.update(one, 1, ("accuracy", 0.5))
        work.update(one, 2, None)
        assert rows(work)[0].online == ("accuracy", 0.5)

    def test_a_job_that_starts_again_starts_anew(self) -> None:
        one = job()
        work = Work([one])
        work.start(one)
        work.update(one, 9, None)
        work.end(one, "failed")
        work.start(one)
        assert (work.done, rows(work)[0].state) == (0, "running")


class Kept:
    def __init__(self) -> None:
        self.lines: list[tuple[int, dict[str, float]]] = []

    def write(self, step: int, values: dict[str, float]) -> None:
        self.lines.append((step, values))


class TestOnline:
    def test_the_mean_over_members_of_the_latest(self) -> None:
        kept = {3: Kept(), 4: Kept()}
        online = Online(kept)
        assert online.latest() is None
        online.sinks[3].write(10, {"online/return": 1.0, "x": 2.0})
        assert online.latest() == ("return", 1.0)
        online.sinks[4].write(10, {"online/return": 3.0})
        online.sinks[3].write(20, {"online/return": 5.0})
        online.sinks[3].write(30, {"task/return": 9.0})
        online.sinks[4].write(20, {"online/return": math.nan})
        assert online.latest() == ("return", 4.0)
        assert [step for step, _ in kept[3].lines] == [10, 20, 30]

    @pytest.mark.parametrize(
        ("values", "latest"),
        [
            ({"online/loss": 2.0, "online/accuracy": 0.5}, ("accuracy", 0.5)),
            ({"online/loss": 2.0}, ("loss", 2.0)),
            ({"online/episodes": 2.0}, None),
        ],
    )
    def test_which_of_them(
        self, values: dict[str, float], latest: tuple[str, float] | None
    ) -> None:
        online = Online({0: Kept()})
        online.sinks[0].write(1, values)
        assert online.latest() == latest


class TestLines:
    def test_plain_lines(self, clock: list[float]) -> None:
        first, second = job(seeds=range(4)), job(label="b/m", seeds=[7])
        console = Console(file=io.StringIO(), width=200)
        with shown([first, second], console) as progress:
            progress.start(first)
            progress.update(first, 0)
            progress.tick()
            clock[0] += 10.0
            progress.update(first, 10, ("accuracy", 0.5))
            progress.tick()
            progress.tick()
            progress.end(first, "done")
            progress.start(second)
            progress.end(second, "seed 7 diverged")
        assert text(console).splitlines() == [
            "b/l seeds 0-3: started",
            "10/25 examples, 1/s, 0:15 left; b/l accuracy 50.0%",
            "b/l seeds 0-3: done",
            "b/m seed 7: started",
            "b/m seed 7: seed 7 diverged",
        ]

    def test_one_line_an_update_however_many_learners(self, clock: list[float]) -> None:
        jobs = [job(f"b/l{i}", [0]) for i in range(6)]
        console = Console(file=io.StringIO(), width=400)
        with shown(jobs, console) as progress:
            for one in jobs:
                progress.start(one)
                progress.update(one, 1, ("return", 2.0))
            clock[0] += 10.0
            progress.tick()
        (line,) = text(console).splitlines()[6:]
        assert line.endswith(
            "; b/l0 return 2; b/l1 return 2; b/l2 return 2; b/l3 return 2 and 2 more"
        )

    @pytest.mark.parametrize(
        ("agents", "expected"),
        [
            (["supervised", "supervised"], "examples"),
            (["ppo"], "steps"),
            (["supervised", "sb3:DQN"], "steps"),
        ],
    )
    def test_agents_that_act_count_steps(self, agents: list[str], expected: str) -> None:
        assert unit([job(agent=agent) for agent in agents]) == expected

    def test_before_anything_is_known(self, clock: list[float]) -> None:
        one = job()
        console = Console(file=io.StringIO(), width=200)
        with shown([one], console) as progress:
            progress.start(one)
            clock[0] += 10.0
            progress.tick()
        assert text(console).splitlines()[1:] == [
            "0/15 examples, -/s, -:-- left",
        ]


class TestTable:
    def drawn(self, table: Table, console: Console) -> list[str]:
        console.file = io.StringIO()
        console.print(table.render())
        return [" ".join(line.replace("━", "").split()) for line in text(console).splitlines()]

    def test_what_it_shows(self, clock: list[float]) -> None:
        jobs = [job("b/adam", [0, 1], 100), job("b/sgd", [0], 100), job("b/upgd", [0], 100)]
        console = Console(file=io.StringIO(), width=120, height=30)
        table = Table(jobs, console)
        for one in jobs[:2]:
            table.start(one)
            table.update(one, 0)
        clock[0] += 10.0
        table.update(jobs[0], 100, ("return", 123.4))
        table.update(jobs[1], 50, ("return", 67.8))
        table.end(jobs[1], "done")
        assert text(console) == "b/sgd seed 0: done (0:10)\n"
        # 10/s of adam: 10 s left; upgd as the benchmark's 150 in 20 s: 13.3 s; one at a time now
        assert self.drawn(table, console) == [
            "learner seeds last window rate left",
            "b/adam 2 50% return 123 10/s 0:10",
            "b/sgd 1 100% return 67.8 done",
            "b/upgd 1 0% waiting",
            "all 4 50% 10/s 0:23",
        ]

    def test_a_low_terminal_shows_what_runs(self, clock: list[float]) -> None:
        jobs = [job(f"b/{i}", [0], 10) for i in range(20)]
        console = Console(file=io.StringIO(), width=120, height=9)  # room for four
        table = Table(jobs, console)
        for one in jobs[:12]:
            table.start(one)
            table.update(one, 5)
        for one in jobs[:10]:
            table.end(one, "done")
        drawn = self.drawn(table, console)
        assert [line.split()[0] for line in drawn[1:5]] == ["b/8", "b/9", "b/10", "b/11"]
        assert drawn[5] == "16 more, of them 8 waiting"
        assert len(drawn) <= 8

    def test_a_narrow_terminal_cuts_labels_alone(self, clock: list[float]) -> None:
        one = job("permuted-digits/continual-backprop+lr=0.001+scratch", [0, 1], 100)
        console = Console(file=io.StringIO(), width=80, height=30)
        table = Table([one], console)
        table.start(one)
        table.update(one, 0)
        clock[0] += 1.0
        table.update(one, 100, ("accuracy", 0.8123))
        first, last = self.drawn(table, console)[1:]
        assert first.startswith("cont")
        assert first.split(" 2 50%")[0].endswith("1+scratch")
        assert first.endswith(" 2 50% accuracy 81.2% 100/s 0:01")
        assert last == "all 2 50% 100/s 0:01"

    def test_labels_stay_apart_in_eighty_columns(self, clock: list[float]) -> None:
        learners = ["adam", "ppo-continual-backprop"]
        learners += [f"shrink-and-perturb+lr=0.{zeros}1+widths=64" for zeros in ("", "0", "00")]
        jobs = [
            job(f"{of}/{one}", [0, 1], 100)
            for of in ("switching-cartpole", "switching-cartpole-slow")
            for one in learners
        ]
        console = Console(file=io.StringIO(), width=80, height=40)
        table = Table(jobs, console)
        for one in jobs:
            table.start(one)
            table.update(one, 0)
        clock[0] += 1.0
        for one in jobs:
            table.update(one, 100, ("accuracy", 0.8123))
        labels = [line.split()[0] for line in self.drawn(table, console)[1:-1]]
        assert len(set(labels)) == len(jobs)

    @pytest.mark.parametrize("width", [8, 12, 20, 60])
    def test_labels_that_are_cut_stay_apart(self, width: int) -> None:
        labels = [f"b{i % 3}/learner-{i}-of-many" for i in range(30)]
        cut = apart(labels, width)
        assert len(set(cut)) == 30
        assert max(map(len, cut)) <= width

    def test_on_a_terminal(self) -> None:
        one = job()
        console = Console(file=io.StringIO(), width=100, height=20, force_terminal=True)
        with shown([one], console) as progress:
            progress.start(one)
            progress.update(one, 7, ("loss", 0.01234))
            progress.tick()
            progress.end(one, "done")
        assert "b/l seeds 0-2: done" in text(console)
        assert "loss 0.0123" in text(console)


@pytest.mark.parametrize(
    ("online", "shown_as"),
    [
        (None, ""),
        (("accuracy", 0.8123), "accuracy 81.2%"),
        (("return", -1234.5), "return -1,234"),
        (("loss", 0.000123), "loss 0.000123"),
    ],
)
def test_performance_in_words(online: tuple[str, float] | None, shown_as: str) -> None:
    assert online_text(online) == shown_as


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [(None, "-:--"), (0.4, "0:00"), (61, "1:01"), (3661.0, "1:01:01"), (360000.0, "100:00:00")],
)
def test_durations(seconds: float | None, expected: str) -> None:
    assert duration(seconds) == expected


@pytest.mark.parametrize(
    ("seeds", "expected"), [([3], "seed 3"), ([0, 1, 2], "seeds 0-2"), ([0, 2], "seeds 0,2")]
)
def test_seeds(seeds: list[int], expected: str) -> None:
    assert seeds_text(seeds) == expected
