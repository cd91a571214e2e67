"""The tables of optimizers and add-ons. Data only: nothing here imports torch."""

from __future__ import annotations

from clrl.registry import Entry, Table

_OPTIONS = "clrl.agents.optim.options:"

OPTIMIZERS = Table(
    "optimizer",
    [
        Entry(
            "sgd",
            "stochastic gradient descent (torch), coupled L2",
            "torch.optim:SGD",
            _OPTIONS + "SGDOptions",
        ),
        Entry(
            "rmsprop",
            "RMSprop (torch), coupled L2; what A2C is usually trained with",
            "torch.optim:RMSprop",
            _OPTIONS + "RMSpropOptions",
        ),
        Entry("adam", "Adam (torch), coupled L2", "torch.optim:Adam", _OPTIONS + "AdamOptions"),
        Entry(
            "adamw",
            "Adam with decoupled weight decay (torch)",
            "torch.optim:AdamW",
            _OPTIONS + "AdamWOptions",
        ),
        Entry(
            "upgd",
            "utility-based perturbed gradient descent (Elsayed & Mahmood 2024)",
            "clrl.agents.optim.upgd:UPGD",
            _OPTIONS + "UPGDOptions",
        ),
        Entry(
            "adaupgd",
            "UPGD with Adam's step, as for PPO (Elsayed & Mahmood 2024)",
            "clrl.agents.optim.adaupgd:AdaUPGD",
            _OPTIONS + "AdaUPGDOptions",
        ),
        Entry(
            "muon",
            "orthogonal steps of hidden weights, AdamW for the rest (Jordan et al. 2024)",
            "clrl.agents.optim.muon:Muon",
            _OPTIONS + "MuonOptions",
        ),
        Entry(
            "soap",
            "Adam in the eigenbases of gradients' correlations (Vyas et al. 2025)",
            "clrl.agents.optim.soap:SOAP",
            _OPTIONS + "SOAPOptions",
        ),
        Entry(
            "kron",
            "momentum preconditioned by learned Kronecker products (PSGD, Li 2018)",
            "clrl.agents.optim.kron:Kron",
            _OPTIONS + "KronOptions",
        ),
        Entry(
            "obgd",
            "steps bounded so as not to overshoot, for streams (Elsayed et al. 2024)",
            "clrl.agents.optim.obgd:ObGD",
            _OPTIONS + "ObGDOptions",
        ),
    ],
    group="clrl.optimizers",
)

ADDONS = Table(
    "add-on",
    [
        Entry(
            "shrink-and-perturb",
            "shrink all weights and add noise after each step (Ash & Adams 2020)",
            "clrl.agents.optim.shrink_perturb:ShrinkAndPerturb",
            _OPTIONS + "ShrinkAndPerturbOptions",
        ),
        Entry(
            "weight-clipping",
            "keep weights within a multiple of their initial bound (Elsayed et al. 2024)",
            "clrl.agents.optim.weight_clipping:WeightClipping",
            _OPTIONS + "WeightClippingOptions",
        ),
        Entry(
            "normalize-and-project",
            "give hidden layers' weights back the norm they began with (Lyle et al. 2024)",
            "clrl.agents.optim.normalize_project:NormalizeAndProject",
            _OPTIONS + "NormalizeAndProjectOptions",
        ),
        Entry(
            "hare-and-tortoise",
            "put parameters back now and then to their slow mean (Lee et al. 2024)",
            "clrl.agents.optim.hare_tortoise:HareAndTortoise",
            _OPTIONS + "HareAndTortoiseOptions",
        ),
        Entry(
            "continual-backprop",
            "re-initialise the least useful units, a few at a time (Dohare et al. 2024)",
            "clrl.agents.optim.continual_backprop:ContinualBackprop",
            _OPTIONS + "ContinualBackpropOptions",
        ),
        Entry(
            "redo",
            "re-initialise units that are dormant beside their layer's mean (Sokar et al. 2023)",
            "clrl.agents.optim.redo:ReDo",
            _OPTIONS + "ReDoOptions",
        ),
        Entry(
            "self-normalized-resets",
            "re-initialise units that are silent for longer than usual (Farias & Jozefiak 2025)",
            "clrl.agents.optim.self_normalized_resets:SelfNormalizedResets",
            _OPTIONS + "SelfNormalizedResetsOptions",
        ),
        Entry(
            "regrama",
            "re-initialise units with small gradients beside their layer's mean (ReGraMa 2025)",
            "clrl.agents.optim.regrama:ReGraMa",
            _OPTIONS + "ReGraMaOptions",
        ),
        Entry(
            "calibrated-partial-resets",
            "re-initialise every unit a little, the more so the less it learns",
            "clrl.agents.optim.partial_resets:CalibratedPartialResets",
            _OPTIONS + "CalibratedPartialResetsOptions",
        ),
        Entry(
            "head-reset",
            "re-initialise the last layer now and then (Nikishin et al. 2022)",
            "clrl.agents.optim.resets:HeadReset",
            _OPTIONS + "HeadResetOptions",
        ),
        Entry(
            "full-reset",
            "re-initialise the whole network now and then (Nikishin et al. 2022)",
            "clrl.agents.optim.resets:FullReset",
            _OPTIONS + "FullResetOptions",
        ),
        Entry(
            "plasticity-injection",
            "hold the head still and train a new one beside it (Nikishin et al. 2023)",
            "clrl.agents.optim.plasticity_injection:PlasticityInjection",
            _OPTIONS + "PlasticityInjectionOptions",
        ),
        Entry(
            "dash",
            "shrink weights that do not point down the gradient (Shin et al. 2024)",
            "clrl.agents.optim.dash:DASH",
            _OPTIONS + "DASHOptions",
        ),
        Entry(
            "fire",
            "make each weight matrix the nearest isometry (Han et al. 2026)",
            "clrl.agents.optim.fire:FIRE",
            _OPTIONS + "FIREOptions",
        ),
        Entry(
            "optimizer-reset",
            "make the optimizer's state new now and then (Asadi et al. 2023)",
            "clrl.agents.optim.optimizer_reset:OptimizerReset",
            _OPTIONS + "OptimizerResetOptions",
        ),
        Entry(
            "adam-rel",
            "count Adam's steps anew with each new objective (Ellis et al. 2024)",
            "clrl.agents.optim.optimizer_reset:AdamRel",
            _OPTIONS + "AdamRelOptions",
        ),
        Entry(
            "trac",
            "go along the base's path as far as that has paid (Muppidi et al. 2024)",
            "clrl.agents.optim.trac:TRAC",
            _OPTIONS + "TRACOptions",
        ),
    ],
    group="clrl.addons",
)
