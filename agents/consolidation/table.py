"""The table of methods against forgetting. Data only: nothing here imports torch."""

from __future__ import annotations

from clrl.registry import Entry, Table

_HERE = "clrl.agents.consolidation."
_OPTIONS = _HERE + "options:"

CONSOLIDATION = Table(
    "consolidation",
    [
        Entry(
            "l2",
            "L2 toward the parameters at the end of the last task",
            _HERE + "penalties:L2",
            _OPTIONS + "L2Options",
        ),
        Entry(
            "ewc",
            "elastic weight consolidation (Kirkpatrick et al. 2017)",
            _HERE + "penalties:EWC",
            _OPTIONS + "EWCOptions",
        ),
        Entry(
            "online-ewc",
            "EWC with one decaying penalty (Schwarz et al. 2018)",
            _HERE + "penalties:OnlineEWC",
            _OPTIONS + "OnlineEWCOptions",
        ),
        Entry(
            "si",
            "synaptic intelligence (Zenke et al. 2017)",
            _HERE + "penalties:SynapticIntelligence",
            _OPTIONS + "SIOptions",
        ),
        Entry(
            "mas",
            "memory aware synapses (Aljundi et al. 2018)",
            _HERE + "penalties:MemoryAwareSynapses",
            _OPTIONS + "MASOptions",
        ),
        Entry(
            "lower-rate",
            "a lower learning rate after the first task",
            _HERE + "frames:LowerRate",
            _OPTIONS + "LowerRateOptions",
        ),
        Entry(
            "lwf",
            "learning without forgetting: distil the last task's model (Li & Hoiem 2016)",
            _HERE + "distillation:LwF",
            _OPTIONS + "LwFOptions",
        ),
        Entry(
            "rehearsal",
            "stored examples of earlier tasks in every batch",
            _HERE + "rehearsal:Rehearsal",
            _OPTIONS + "RehearsalOptions",
        ),
        Entry(
            "behaviour-cloning",
            "rehearsal for PPO: earlier policy and values on stored observations (CLEAR)",
            _HERE + "rehearsal:BehaviourCloning",
            _OPTIONS + "CloningOptions",
        ),
        Entry(
            "averaging",
            "a model a task, their scores averaged",
            _HERE + "frames:Averaging",
            _OPTIONS + "AveragingOptions",
        ),
        Entry(
            "from-scratch",
            "retraining on everything so far at the end of each task: the upper line",
            _HERE + "frames:FromScratch",
            _OPTIONS + "FromScratchOptions",
        ),
    ],
    group="clrl.consolidation",
)
