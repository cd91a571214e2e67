"""The tables of schedules: when something changes, and to what. Data only."""

from __future__ import annotations

from clrl.registry import Entry, Table

_SCHEDULES = "clrl.envs.schedules:"

WHEN = Table(
    "schedule",
    [
        Entry("every-steps", "when: after every n steps", _SCHEDULES + "EverySteps"),
        Entry("every-episodes", "when: after every n episodes", _SCHEDULES + "EveryEpisodes"),
        Entry("poisson", "when: with this chance at every step", _SCHEDULES + "Poisson"),
        Entry("at-steps", "when: after the listed numbers of steps", _SCHEDULES + "AtSteps"),
        Entry("continuously", "when: at every step, for drifts", _SCHEDULES + "Continuously"),
        Entry("never", "when: never", _SCHEDULES + "Never"),
    ],
)

VALUES = Table(
    "schedule",
    [
        Entry("cycle", "to: the listed values in turn", _SCHEDULES + "Cycle"),
        Entry("choice", "to: one of the listed values, drawn anew", _SCHEDULES + "Choice"),
        Entry("uniform", "to: a number drawn uniformly", _SCHEDULES + "Uniform"),
        Entry(
            "log-uniform",
            "to: a number drawn uniformly in its logarithm",
            _SCHEDULES + "LogUniform",
        ),
        Entry("normal", "to: a normal number", _SCHEDULES + "Normal"),
        Entry("random-permutation", "to: a fresh permutation", _SCHEDULES + "RandomPermutation"),
        Entry("random-mask", "to: truth values, true with this chance", _SCHEDULES + "RandomMask"),
        Entry(
            "linear-drift", "to: a line that turns round at its bounds", _SCHEDULES + "LinearDrift"
        ),
        Entry("sinusoidal-drift", "to: a wave", _SCHEDULES + "SinusoidalDrift"),
        Entry("random-walk", "to: an Ornstein-Uhlenbeck walk", _SCHEDULES + "RandomWalk"),
    ],
)

SCHEDULES = Table("schedule", [*WHEN, *VALUES])
"""Both, as they are listed."""
