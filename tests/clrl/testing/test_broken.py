# ruff: noqa: E501 - the lines that are expected
"""Every check fails on what breaks a promise, with a line that says which one and where."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import broken_plugins
import pytest

from clrl.testing import (
    Broken,
    check_addon,
    check_agent,
    check_environment,
    check_metric,
    check_network,
    check_optimizer,
    check_penalty,
    check_stream,
    check_unit_reset,
)

BROKEN: list[tuple[Callable[..., Any], str, dict[str, Any], str]] = [
    (check_optimizer, "NoOptimizer", {}, "an ordinary optimizer: it is no torch.optim.Optimizer"),
    (
        check_optimizer,
        "Replaces",
        {},
        "parameters edited in place: linears.0.weight is another tensor after a step",
    ),
    (
        check_optimizer,
        "DropsGradients",
        {},
        "every parameter trained: 28 of 28 numbers of linears.0.weight do not move in updates 51 to 100",
    ),
    (
        check_optimizer,
        "LeavesTheLast",
        {},
        "every parameter trained: 1 of 28 numbers of linears.0.weight do not move in updates 51 to 100",
    ),
    (
        check_optimizer,
        "Explodes",
        {},
        "every parameter trained: linears.0.weight is not finite after 100 updates",
    ),
    (
        check_optimizer,
        "DrawsFromTorch",
        {},
        "own randomness only: moves the global generator of torch",
    ),
    (
        check_optimizer,
        "DrawsFromNumpy",
        {},
        "own randomness only: moves the global generator of numpy",
    ),
    (
        check_optimizer,
        "DrawsFromRandom",
        {},
        "own randomness only: moves the global generator of random",
    ),
    (
        check_optimizer,
        "DrawsTheSame",
        {},
        "another seed gives another result: the ordinary optimizer draws, and what it draws changes nothing",
    ),
    (
        check_optimizer,
        "MixesLate",
        {},
        "members independent: member 1 alone and in chunks of 2 differ from update 10 on",
    ),
    (
        check_optimizer,
        "ForgetsWhatItKnows",
        {},
        "state of the population comes back in a new process: going on from update 51 differs at losses",
    ),
    (
        check_optimizer,
        "Climbs",
        {},
        "lowers a regression's loss: 1.953 at first and 2.842 at last; expected below it",
    ),
    (
        check_optimizer,
        "OwnStepSize",
        {},
        "a step size of 0 holds still: linears.0.weight moves all the same",
    ),
    (
        check_addon,
        "Mixes",
        {},
        "members independent: member 1 alone and in chunks of 2 differ from update 1 on",
    ),
    (
        check_addon,
        "NeverNeutral",
        {"neutral": {"strength": 0.0}},
        "its neutral setting is the base: linears.0.weight differs from the base's since update 1",
    ),
    (
        check_unit_reset,
        "Counts",
        {},
        "names units to start anew: it is no clrl.optim.UnitReset",
    ),
    (
        check_unit_reset,
        "NamesNone",
        {"steps": 12},
        "names units to start anew: none in 12 updates; expected options under which some are, or steps",
    ),
    (
        check_unit_reset,
        "NamesOneTooMany",
        {"steps": 12},
        "names units to start anew: layer_1: it names unit 7 of 7",
    ),
    (
        check_unit_reset,
        "NamesAMask",
        {"steps": 12},
        "names units to start anew: layer_1: expected indices of units, int64 [number], got torch.bool",
    ),
    (
        check_unit_reset,
        "DrawsItsOwn",
        {"steps": 12},
        "units start anew as declared, and nothing else does: units [1] of layer_1 and [1] of layer_2: linears.0.weight [1, 0] is ",
    ),
    (
        check_unit_reset,
        "KeepsOutgoing",
        {"steps": 12},
        "units start anew as declared, and nothing else does: units [1] of layer_1 and [1] of layer_2: linears.1.weight [0, 1] is ",
    ),
    (
        check_unit_reset,
        "TouchesTheNextUnit",
        {"steps": 12},
        "units start anew as declared, and nothing else does: units [1] of layer_1 and [1] of layer_2: linears.0.weight [2, 0] is 0; expected ",
    ),
    (
        check_unit_reset,
        "KeepsMomentum",
        {"steps": 12},
        "what is new moves as under a new optimizer, and nothing else does: the next step of linears.0.weight [1, 0] is not a new optimizer's",
    ),
    (
        check_unit_reset,
        "TheLeastOfAll",
        {"steps": 12},
        "members independent: member 1 alone and in chunks of 2 differ from update 5 on",
    ),
    (
        check_unit_reset,
        "CountsAnew",
        {"steps": 12},
        "state of the population comes back in a new process: going on from update 7 differs at losses",
    ),
    (check_penalty, "ANumberEach", {}, "its term is a number: expected a scalar, got [16]"),
    (check_penalty, "Endless", {}, "its term is a number: it is "),
    (
        check_penalty,
        "RemembersMore",
        {},
        "its term is a number: UsageError: penalty RemembersMore: remembers outputs, [16, 2]; expected as it began, nothing",
    ),
    (
        check_penalty,
        "GrowsWithCalls",
        {},
        "its term is of the learner and what is remembered alone: called twice for the same, it is ",
    ),
    (check_penalty, "Rounded", {}, "its term has a gradient: it is 0 for every parameter"),
    (
        check_penalty,
        "HalfHeld",
        {},
        "its gradient is that of the term: along linears.0.weight the term's slope is ",
    ),
    (
        check_penalty,
        "Branches",
        {"steps": 12},
        "every parameter trained: RuntimeError: vmap: ",
    ),
    (
        check_penalty,
        "BeginsByChance",
        {"steps": 12},
        "own randomness only: moves the global generator of torch",
    ),
    (
        check_penalty,
        "BeginsWithOne",
        {"steps": 12},
        "state of the population comes back in a new process: going on from update 7 differs at losses",
    ),
    (
        check_penalty,
        "SharedStrength",
        {"steps": 12},
        "members independent: member 1 alone and in chunks of 2 differ from update 1 on",
    ),
    (
        check_penalty,
        "NeverNothing",
        {"steps": 12, "neutral": {"strength": 0.0}},
        "its neutral setting is the base: linears.0.weight differs from the base's since update 1",
    ),
    (
        check_network,
        "WrongPath",
        {},
        "hidden layers are what is declared: layer_1: no module 'relu', its activation",
    ),
    (
        check_network,
        "WrongWay",
        {},
        "hidden layers are what is declared: layer_1: its features do not feed past",
    ),
    (
        check_network,
        "WrongCopies",
        {},
        "hidden layers are what is declared: layer_1: tanh gives 32 features; expected 2 of each of 32 units",
    ),
    (
        check_network,
        "WiderFresh",
        {},
        "fresh draws as the first ones: inner.weight: deviation 0.406 about -0.00344 at first, 0.817 about 0.00984 anew",
    ),
    (
        check_network,
        "DrawsElsewhere",
        {},
        "own randomness only: moves the global generator of torch",
    ),
    (
        check_network,
        "AlwaysTheSame",
        {},
        "another seed gives another network: seeds 1 and 2 give the same parameters",
    ),
    (
        check_network,
        "Untrained",
        {},
        "every parameter trained: 18 of 18 numbers of past.weight do not move in updates 16 to 30",
    ),
    (
        check_network,
        "OneNumber",
        {},
        "made from sizes, options, generator and gain: [1, 6] in gives [1]; expected [1, 3]",
    ),
    (
        check_network,
        "NoNetwork",
        {},
        "made from sizes, options, generator and gain: expected a clrl.networks.Network, got NoNetwork",
    ),
    (
        check_stream,
        "OneGenerator",
        {"task_length": 20},
        "the same however it is cut: cut at 21, 41: inputs differ from the 22. on",
    ),
    (
        check_stream,
        "GlobalDraws",
        {"task_length": 20},
        "own randomness only: moves the global generator of numpy",
    ),
    (
        check_stream,
        "OneSeed",
        {"task_length": 20},
        "seeds independent: seeds 0 and 1 give the same inputs",
    ),
    (
        check_stream,
        "HighLabels",
        {"task_length": 20},
        "shapes, types and ranges as declared: labels from 1 to 2; expected [0, 2)",
    ),
    (
        check_stream,
        "Remembers",
        {"task_length": 20},
        "its state restores the future: from example 1: targets differ from the 1. on",
    ),
    (
        check_stream,
        "EarlyTask",
        {"task_length": 20},
        "the same however it is cut: cut at 20, 40: targets differ from the 29. on",
    ),
    (
        check_stream,
        "MovingProbe",
        {"task_length": 20},
        "a probe disturbs nothing and stays for a task: those at the start and the end of task 1 differ",
    ),
    (
        check_stream,
        "SharedRows",
        {"task_length": 20},
        "what is handed out is the caller's: after a change of earlier examples: inputs differ from the 1. on",
    ),
    (
        check_stream,
        "NoStream",
        {},
        "made from a seed and options: expected a clrl.envs.Stream, got NoStream",
    ),
    (
        check_environment,
        "Unseeded",
        {},
        "passes Gymnasium's checker: AssertionError: Deterministic step observations are not equivalent for the same seed and action",
    ),
    (
        check_environment,
        "MovesNumpy",
        {},
        "own randomness only: moves the global generator of numpy",
    ),
    (
        check_environment,
        "OutsideItsSpace",
        {},
        "passes Gymnasium's checker: ",
    ),
    (
        check_environment,
        "HalfAState",
        {},
        "its state comes back in a new process: saved after step 50, it differs at step 0, 0 after that",
    ),
    (check_environment, "Infinite", {}, "own randomness only: step 1: a reward of inf"),
    (
        check_environment,
        "CommonLine",
        {},
        "own randomness only: depends on a global generator, or differs each time, at 1, 1",
    ),
    (check_metric, "changes_its_input", {}, "inputs unchanged: it changes features"),
    (
        check_metric,
        "over_members",
        {},
        "what is not finite gives its member nan alone: it changes the other members' numbers",
    ),
    (check_metric, "one_number", {}, "a number a member: expected a tensor [5], got []"),
    (
        check_metric,
        "whole_numbers",
        {},
        "a number a member: expected floating-point numbers, got torch.int64",
    ),
    (check_metric, "draws", {}, "own randomness only: moves the global generator of torch"),
    (check_metric, "divides_by_zero", {}, "a number a member: member 0 is not finite"),
    (
        check_metric,
        "hides_nan",
        {},
        "what is not finite gives its member nan alone: expected nan, got -0.009796757553074811",
    ),
    (
        check_metric,
        "of_outputs",
        {},
        "asks for what is measured: UsageError: metric 'of_outputs': parameter 'outputs' is not measured; expected some of features",
    ),
    (
        check_addon,
        "Counts",
        {},
        "state of the population comes back in a new process: going on from update 51 differs at losses",
    ),
    (check_agent, "Idle", {}, "learns: its parameters are what they were"),
    (
        check_agent,
        "SharedLesson",
        {},
        "members independent: seed 1 alone and among three differ at step 200 in ",
    ),
    (
        check_agent,
        "Forgetful",
        {},
        "its state comes back in a new process: what is recorded after a checkpoint differs at seed 1",
    ),
    (check_agent, "Careless", {}, "own randomness only: moves the global generator of torch"),
    (check_metric, "by_place", {}, "members independent: member 1 alone (plain): "),
]


@pytest.mark.filterwarnings("ignore:.*The reward is an inf value")
@pytest.mark.parametrize("case", BROKEN, ids=lambda case: case[1])
def test_what_is_broken_is_named_in_one_line(
    case: tuple[Callable[..., Any], str, dict[str, Any], str],
) -> None:
    check, name, options, line = case
    with pytest.raises(Broken) as raised:
        check(getattr(broken_plugins, name), **options)
    said = str(raised.value)
    assert said.partition(": ")[2].startswith(line)
    assert said.startswith((name, f"broken_plugins:{name}"))
    assert "\n" not in said


def test_what_cannot_be_imported_elsewhere_is_told() -> None:
    class Local(broken_plugins.Base):
        pass

    with pytest.raises(Broken, match="expected it in a module that can be imported"):
        check_optimizer(Local, steps=12)
