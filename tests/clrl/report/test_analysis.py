"""What is compared with what, on a suite whose curves are known."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
import scipy.stats

from clrl.report.analysis import Estimate, Study, halfway, over_seeds, overall, studies
from clrl.report.results import read
from clrl.report.verdict import correlation, listed, number, of_study, remarks


def found(folder: Path) -> dict[str, Study]:
    return {study.benchmark: study for study in studies(read(folder))}


def set_state(folder: Path, state: str) -> None:
    status = json.loads((folder / "status.json").read_text())
    (folder / "status.json").write_text(json.dumps({**status, "state": state}))


def test_methods_are_learners_and_sweeps_but_not_references(suite_folder: Path) -> None:
    digits = found(suite_folder)["digits"]
    # steady 0.79, fading from 0.9 to 0.54 (mean 0.71), the best rate 0.69.
    assert [method.label for method in digits.methods] == ["steady", "fading", "adam"]
    assert list(digits.scratch) == ["fading"]
    steady = digits.methods[0].of(lambda run: run.online)
    noise = [0.01 * np.random.default_rng(seed).standard_normal(10).mean() for seed in range(4)]
    assert steady.value == pytest.approx(0.79 + np.mean(noise)) and steady.seeds == 4
    assert steady.low < steady.value < steady.high


def test_a_sweep_is_chosen_on_one_half_of_the_seeds(suite_folder: Path) -> None:
    digits = found(suite_folder)["digits"]
    (sweep,) = digits.sweeps
    assert sweep.keys == ["optimizer.lr"]
    assert sweep.settings == {f"adam+lr={lr}": [lr] for lr in (0.1, 0.01, 0.001)}
    assert sweep.best == "adam+lr=0.01"
    assert (sweep.chosen_on, sweep.reported_on) == ([0, 1], [2, 3])
    method = digits.methods[2]
    assert [run.seed for run in method.counted] == [2, 3] and method.learner == "adam+lr=0.01"
    assert method.remark == (
        "best of 3 settings (adam+lr=0.01), chosen on seeds 0, 1, reported on seeds 2, 3"
    )
    assert sweep.estimates["adam+lr=0.1"].seeds == 4


def test_a_setting_that_wins_on_the_other_half_is_not_chosen(suite_folder: Path) -> None:
    for seed in (2, 3):
        path = suite_folder / "digits" / "adam+lr=0.1" / f"seed-{seed}" / "metrics.jsonl"
        rows = [json.loads(line) for line in path.read_text().splitlines()]
        rows = [
            {**row, "online/accuracy": 1.0} if "online/accuracy" in row else row for row in rows
        ]
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert found(suite_folder)["digits"].sweeps[0].best == "adam+lr=0.01"


def test_a_setting_with_a_diverged_seed_is_not_chosen(suite_folder: Path) -> None:
    set_state(suite_folder / "digits" / "adam+lr=0.01" / "seed-1", "diverged")
    assert found(suite_folder)["digits"].sweeps[0].best == "adam+lr=0.001"


def test_a_sweep_over_a_single_seed_says_what_it_is(suite_folder: Path, suite_writer) -> None:
    for folder in suite_folder.glob("*/*/seed-[1-9]"):
        for path in folder.iterdir():
            path.unlink()
        folder.rmdir()
    suite_writer(suite_folder, seeds=[0])
    method = found(suite_folder)["digits"].methods[2]
    assert [run.seed for run in method.counted] == [0]
    assert "same single seed" in method.remark


def test_plasticity_gap_by_hand(suite_folder: Path) -> None:
    digits = found(suite_folder)["digits"]
    fading = digits.methods[1]
    middle, low, high = digits.gap(fading)  # type: ignore[misc]
    # Same seeds, same noise: fresh minus continual is 0.04 a task, exactly.
    assert middle == pytest.approx(0.04 * np.arange(10))
    assert low == pytest.approx(middle) and high == pytest.approx(middle)
    assert digits.gap(digits.methods[0]) is None


def test_loss_of_plasticity(suite_folder: Path) -> None:
    digits = found(suite_folder)["digits"]
    run = digits.methods[1].counted[0]
    assert digits.loss_of_plasticity(run) == pytest.approx(
        run.tasks[:2].mean() - run.tasks[-2:].mean()
    )
    assert digits.first(run) - digits.last(run) == pytest.approx(digits.loss_of_plasticity(run))


def test_a_diverged_run_is_in_no_mean_and_counts_as_the_worst(troubled_folder: Path) -> None:
    digits = found(troubled_folder)["digits"]
    fading = next(method for method in digits.methods if method.label == "fading")
    assert [run.seed for run in fading.counted] == [0, 2, 3] and fading.count("diverged") == 1
    scores = digits.ranking_scores(fading)
    others = [run.online for method in digits.methods for run in method.counted]
    assert len(scores) == 4 and scores[1] == min(others)
    steady = digits.methods[0]
    assert [run.seed for run in steady.counted] == [0, 1, 3] and steady.count("missing") == 1
    assert len(digits.ranking_scores(steady)) == 3  # a missing run is not a bad one


def test_a_run_still_going_counts_in_curves_alone(troubled_folder: Path) -> None:
    pole = found(troubled_folder)["pole"]
    ppo = next(method for method in pole.methods if method.label == "ppo")
    assert [run.seed for run in ppo.counted] == [0, 1, 2] and not pole.preliminary
    curves = [run.curves["online/return"] for run in ppo.runs]
    point = 2  # step 20, which all four have recorded
    assert ppo.curve("online/return")[0][point] == pytest.approx(
        np.mean([c[point] for c in curves])
    )


def test_nothing_finished_yet(suite_folder: Path) -> None:
    for folder in suite_folder.glob("digits/*/seed-*"):
        set_state(folder, "running")
    digits = found(suite_folder)["digits"]
    assert digits.preliminary and len(digits.methods[0].counted) == 4
    assert of_study(digits)[0].startswith("Preliminary")


def test_nothing_recorded_yet(suite_folder: Path) -> None:
    for folder in suite_folder.glob("digits/*/seed-*"):
        set_state(folder, "running")
        (folder / "metrics.jsonl").write_text("")
    digits = found(suite_folder)["digits"]
    assert digits.performance is None and digits.ranking is None
    assert of_study(digits) == ["Nothing was recorded yet that a comparison could be made of."]


def test_ranking_over_benchmarks(suite_folder: Path) -> None:
    assert overall(list(found(suite_folder).values())) is None  # no method is on both
    digits = found(suite_folder)["digits"]
    labels, ranking = overall([digits, digits])  # type: ignore[misc]
    assert labels == ["steady", "fading", "adam"] and ranking.rank.tolist() == [1, 2, 3]


def test_losses_rank_the_other_way(suite_folder: Path) -> None:
    for path in suite_folder.glob("digits/*/seed-*/metrics.jsonl"):
        path.write_text(path.read_text().replace("online/accuracy", "x").replace("task/acc", "y/a"))
    digits = found(suite_folder)["digits"]
    assert digits.performance is not None and digits.performance.name == "loss"
    assert [method.label for method in digits.methods] == ["steady", "fading", "adam"]
    better = digits.improvement(digits.methods[0], digits.methods[2])
    assert better.value == 1.0
    assert "lowest average online loss" in of_study(digits)[0]
    assert digits.loss_of_plasticity(digits.methods[1].counted[0]) > 0.2


def test_correlations_are_scipys(suite_folder: Path) -> None:
    digits = found(suite_folder)["digits"]
    tag = "plasticity/network/dead_units"
    one = next(c for c in digits.correlations if c.tag == tag)
    runs = [run for method in digits.methods for run in method.counted]
    x, y = [halfway(run, tag) for run in runs], [digits.last(run) for run in runs]
    assert one.pooled == pytest.approx(scipy.stats.spearmanr(x, y).statistic)
    assert one.runs == len(runs) == 10 and -1 <= one.low <= one.high < 0
    # Dead units do not differ between seeds of a method.
    assert math.isnan(one.within)


def test_over_seeds_takes_those_that_have_a_value() -> None:
    curves = np.array([[1.0, 2.0, np.nan], [3.0, np.nan, np.nan]])
    middle, low, high = over_seeds(curves)
    assert middle[:2].tolist() == [2.0, 2.0] and np.isnan(middle[2])
    assert (low[0], high[0]) == (1.0, 3.0) and np.isnan(low[1:]).all() and np.isnan(high[1:]).all()


def test_estimates() -> None:
    assert Estimate.of([math.nan, math.inf]) == Estimate()
    one = Estimate.of([0.5, math.nan], scale=100)
    assert (one.value, one.seeds) == (50.0, 1) and math.isnan(one.low)


def test_the_verdict_says_what_is_so(suite_folder: Path) -> None:
    said = of_study(found(suite_folder)["digits"])
    assert said[0].startswith("steady has the highest average online accuracy: 79.")
    assert "The seeds show it to be better than every other method." in said[0]
    # First fifth: 0.88 - 0.01, last: 0.56 - 0.01.
    assert said[1].startswith("Loss of plasticity: fading's accuracy goes from 8")
    assert "loss 3" in said[1] and "adam" not in said[1]
    assert said[2] == "No loss between the first and the last fifth is shown by steady and adam."
    assert "fading +34.0 [34.0, 34.0]" in said[3] and "No reference for steady and adam" in said[3]
    assert any("steady after 100% of changes, in" in sentence for sentence in said)
    alike = of_study(found(suite_folder)["pole"])[0]
    assert alike.startswith("ppo-upgd has the highest average online return: 12")


def test_methods_that_cannot_be_told_apart(suite_folder: Path, run_writer) -> None:
    source = suite_folder / "digits" / "steady"
    for seed in range(4):
        rows = (source / f"seed-{(seed + 1) % 4}" / "metrics.jsonl").read_text().splitlines()
        folder = suite_folder / "digits" / "twin" / f"seed-{seed}"
        run_writer(folder, [json.loads(row) for row in rows])
    said = of_study(found(suite_folder)["digits"])[0]
    assert "better than fading and adam, but not than" in said


def test_everything_wrong_is_named(troubled_folder: Path) -> None:
    assert remarks(read(troubled_folder)) == [
        "digits/steady: seed 2 not started.",
        "pole/ppo: seed 3 still going, recorded up to step 920.",
        "digits/fading: seed 1 diverged, recorded up to step 390.",
        "digits/steady seed 0: 1 damaged line in metrics.jsonl left out.",
    ]


@pytest.mark.parametrize(
    ("value", "percent", "signed", "text"),
    [
        (0.8239, True, False, "82.4"),
        (-0.0332, True, True, "−3.3"),
        (0.05, True, True, "+5.0"),
        (-0.00001, True, False, "0.0"),
        (0.0, False, False, "0"),
        (347.92, False, False, "348"),
        (12345.6, False, False, "12,346"),
        (0.01234, False, False, "0.0123"),
        (math.nan, True, False, "–"),
    ],
)
def test_numbers_as_people_write_them(value, percent, signed, text) -> None:
    assert number(value, percent, signed) == text


def test_words() -> None:
    assert correlation(-0.064) == "−0.06" and correlation(0.5) == "+0.50"
    assert listed([]) == "" and listed(["a"]) == "a" and listed(["a", "b"]) == "a and b"
    assert listed(list("abcdef")) == "a, b, c, d and 2 more"
