"""What is compared with what, on a suite whose curves are known."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
import scipy.stats

from clrl.report.analysis import Estimate, Study, halfway, over_seeds, shared, studies
from clrl.report.export import write
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
    assert np.nan_to_num(high - low).max() < 1e-12  # no more than rounding
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
    scores = digits.scores(fading)
    others = [run.online for method in digits.methods for run in method.counted]
    assert len(scores) == 4 and scores[1] == min(others)
    steady = digits.methods[0]
    assert [run.seed for run in steady.counted] == [0, 1, 3] and steady.count("missing") == 1
    assert len(digits.scores(steady)) == 3  # a missing run is not a bad one


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
    # What is half done is not compared.
    assert not digits.claims.comparisons and "show" not in " ".join(of_study(digits))


def test_nothing_recorded_yet(suite_folder: Path) -> None:
    for folder in suite_folder.glob("digits/*/seed-*"):
        set_state(folder, "running")
        (folder / "metrics.jsonl").write_text("")
    digits = found(suite_folder)["digits"]
    assert digits.performance is None and not digits.claims.comparisons
    assert of_study(digits) == ["Nothing was recorded yet that a comparison could be made of."]


def test_methods_of_all_benchmarks(suite_folder: Path) -> None:
    assert shared(list(found(suite_folder).values())) == []  # no method is on both
    digits = found(suite_folder)["digits"]
    assert shared([digits]) == [] and shared([]) == []
    assert shared([digits, digits]) == ["steady", "fading", "adam"]


def test_losses_rank_the_other_way(suite_folder: Path) -> None:
    for path in suite_folder.glob("digits/*/seed-*/metrics.jsonl"):
        path.write_text(path.read_text().replace("online/accuracy", "x").replace("task/acc", "y/a"))
    digits = found(suite_folder)["digits"]
    assert digits.performance is not None and digits.performance.name == "loss"
    assert [method.label for method in digits.methods] == ["steady", "fading", "adam"]
    steady, _, adam = (digits.scores(method) for method in digits.methods)
    assert min(steady) > max(adam)
    assert of_study(digits)[0].startswith("Mean loss over the whole run: steady 0.2")
    assert "fading 0.120 to 0.439, rose in 4 of 4 seeds" in " ".join(of_study(digits))
    assert digits.loss_of_plasticity(digits.methods[1].counted[0]) > 0.2


def test_correlations_are_within_methods(suite_folder: Path) -> None:
    # Dead units halfway are made to follow the end within each method, and to fall between them.
    for path in suite_folder.glob("digits/*/seed-*/metrics.jsonl"):
        rows = [json.loads(line) for line in path.read_text().splitlines()]
        last = float(np.mean([row["task/accuracy"] for row in rows if "task/accuracy" in row][-2:]))
        level = {"steady": 0.2, "fading": 0.8}.get(path.parts[-3], 0.5)
        for row in rows:
            if "plasticity/network/dead_units" in row:
                row["plasticity/network/dead_units"] = level + 0.1 * last
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    digits = found(suite_folder)["digits"]
    tag = "plasticity/network/dead_units"
    one = next(c for c in digits.correlations if c.tag == tag)
    runs = [run for method in digits.methods for run in method.counted]
    x, y = [halfway(run, tag) for run in runs], [digits.last(run) for run in runs]
    assert scipy.stats.spearmanr(x, y).statistic < 0.3  # over all runs
    assert one.value == pytest.approx(1.0) and one.low < 1 < one.high + 0.01
    assert one.runs == 8  # the sweep's two seeds are too few
    said = of_study(digits)[-1]
    assert said.startswith("Diagnostics halfway through a run against performance in its last")
    assert "dead units +1.00 [" in said


def test_metrics_that_are_the_same_in_all_seeds_have_no_correlation(suite_folder: Path) -> None:
    digits = found(suite_folder)["digits"]
    assert len(digits.correlations) == 4
    known = [one.tag for one in digits.correlations if math.isfinite(one.value)]
    assert known == ["plasticity/network/dead_units"]
    assert of_study(digits)[-1].count("[") == 1


def test_a_seed_that_stays_low_does_not_recover(suite_folder: Path) -> None:
    # As low before each change as after it: of its own level it would be back every time.
    path = suite_folder / "digits" / "steady" / "seed-2" / "metrics.jsonl"
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    path.write_text(
        "".join(json.dumps({k: 0.05 if k == "online/accuracy" else v for k, v in row.items()})
                + "\n" for row in rows)
    )  # fmt: skip
    digits = found(suite_folder)["digits"]
    steady = next(method for method in digits.methods if method.label == "steady")
    assert [one.share for one in digits.recovery(steady)] == [1.0, 1.0, 0.0, 1.0]
    assert math.isnan(digits.recovery(steady)[2].steps)
    assert "steady in 3 of 4 seeds (the worst after 0%)" in " ".join(of_study(digits))


def test_a_method_that_collapses_whole_does_not_recover(suite_folder: Path) -> None:
    # 0.9 at first, 0.04 less each task: back to 90% of the best so far, 0.81, after the first
    # change alone (0.86 and 0.82, less the noise), though within 5% of the task before each time.
    digits = found(suite_folder)["digits"]
    fading = next(method for method in digits.methods if method.label == "fading")
    assert max(one.share for one in digits.recovery(fading)) <= 3 / 9


def test_over_seeds_takes_those_that_have_a_value() -> None:
    curves = np.array([[1.0, 2.0, np.nan], [3.0, np.nan, np.nan], [5.0, 4.0, np.nan]])
    middle, low, high = over_seeds(curves)
    assert middle[:2].tolist() == [3.0, 3.0] and np.isnan(middle[2])
    assert low[0] < 1 and high[0] > 5 and np.isnan(low[1:]).all() and np.isnan(high[1:]).all()
    assert over_seeds(curves, 0.0, 6.0)[1][0] == 0.0 and over_seeds(curves, 0.0, 6.0)[2][0] == 6.0


def test_estimates() -> None:
    assert Estimate.of([math.nan, math.inf]) == Estimate()
    one = Estimate.of([0.5, math.nan]).scaled(100)
    assert (one.value, one.seeds) == (50.0, 1) and math.isnan(one.low)
    assert math.isfinite(Estimate.of([0.5, 0.6, 0.7]).low)
    assert math.isnan(Estimate.of([0.5, 0.6, 0.7], np.median).low)  # the mean's alone is known


def test_the_verdict_says_what_is_so(suite_folder: Path) -> None:
    said = of_study(found(suite_folder)["digits"])
    assert said[0].startswith("Mean accuracy over the whole run: steady 79.0% [7")
    assert "adam 68.9% (2 seeds)." in said[0]
    # Two methods of four seeds and one of two, and a comparison on the other benchmark.
    assert said[1].startswith("2 to 4 seeds a method cannot show that one method is better")
    # First fifth: 0.88 - 0.01, last: 0.56 - 0.01.
    assert "fading 87.0 to 55.1, fell in 4 of 4 seeds" in said[2]
    assert "steady 79.0 to 79.1, fell in 2 of 4 seeds" in said[2]
    assert "fading +34.0, above 0 in 4 of 4 seeds. No reference for steady and adam." in said[3]
    assert "steady in 4 of 4 seeds; fading in 0 of 4 seeds (the worst after " in said[4]
    pole = of_study(found(suite_folder)["pole"])
    assert pole[0].startswith("Mean return over the whole run (4 seeds a method): ppo-upgd 120 [")
    assert pole[1] == (
        "The seeds show ppo-upgd better than ppo (exact rank test, corrected for 1 comparison)."
    )


def test_two_seeds_are_not_compared_and_it_is_said_why(suite_folder: Path, suite_writer) -> None:
    for folder in suite_folder.glob("*/*/seed-[23]"):
        for path in folder.iterdir():
            path.unlink()
        folder.rmdir()
    suite_writer(suite_folder, seeds=[0, 1])
    for study in studies(read(suite_folder)):
        said = " ".join(of_study(study))
        assert "2 seeds a method cannot show" in said and "Nothing is compared" in said
        assert "seeds show" not in said and "[" not in said
        labels = [method.label for method in study.methods]
        assert labels == (["ppo", "ppo-upgd"] if study.benchmark == "pole" else labels)
    (page,) = write(suite_folder, ["html"])
    text = page.read_text()
    assert "Shown better than" not in text and "Every comparison" not in text
    assert "Rows are in the suite&#39;s order: nothing is compared." in text


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
