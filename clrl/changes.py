"""The tables of changes, and of schedules: when something changes, and to what. Data only."""

from __future__ import annotations

from clrl.registry import Entry, Table

_CHANGES = "clrl.envs.changes:"
_SCHEDULES = "clrl.envs.schedules:"

CHANGES = Table(
    "change",
    [
        Entry(
            "permute-observation",
            "the order of the observation's entries; to a permutation",
            _CHANGES + "PermuteObservation",
        ),
        Entry(
            "offset-observation",
            "a constant added to each entry; to one number an entry",
            _CHANGES + "OffsetObservation",
        ),
        Entry(
            "scale-observation",
            "a factor on each entry; to one number an entry",
            _CHANGES + "ScaleObservation",
        ),
        Entry(
            "rotate-observation",
            "pairs of entries turned; to an angle (rad) a pair",
            _CHANGES + "RotateObservation",
        ),
        Entry(
            "mask-observation",
            "entries hidden behind 0; to truth values",
            _CHANGES + "MaskObservation",
        ),
        Entry(
            "noisy-observation",
            "normal noise on each entry; to standard deviations >= 0",
            _CHANGES + "NoisyObservation",
        ),
        Entry(
            "permute-actions",
            "what the actions do; to a permutation",
            _CHANGES + "PermuteActions",
        ),
        Entry(
            "delay-actions",
            "steps until an action is carried out; to a whole number",
            _CHANGES + "DelayActions",
        ),
        Entry(
            "noisy-actions",
            "random actions, or noise on them; to a probability, or a standard deviation",
            _CHANGES + "NoisyActions",
        ),
        Entry("scale-reward", "a factor on the reward; to a number", _CHANGES + "ScaleReward"),
        Entry(
            "shift-reward",
            "a constant added to every reward; to a number",
            _CHANGES + "ShiftReward",
        ),
        Entry("flip-reward", "the reward's sign; to a truth value", _CHANGES + "FlipReward"),
        Entry(
            "physics",
            "physical parameters by name; to a number each",
            _CHANGES + "Physics",
        ),
        Entry(
            "switch-task",
            "the whole environment, out of clrl.envs.Tasks; to an index",
            _CHANGES + "SwitchTask",
        ),
    ],
)

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
