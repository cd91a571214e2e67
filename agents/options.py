"""Options of networks and agents; these dataclasses own the defaults. No torch here."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from clrl.options import Fraction, NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt


@dataclass(frozen=True)
class MLPOptions:
    """Options of `clrl.agents.networks.MLP`.

    Attributes:
        widths: units of each hidden layer, from input to output.
        activation: the non-linearity after each hidden layer.
        leaky_slope: slope of ``leaky-relu`` below zero.
        aid_p: of ``aid``, the chance of what is above zero to be kept: 1 for ReLU. In the source
            0.99 for permuted MNIST, 0.9 for random labels, 0.99 to 0.999 in control.
        layer_norm: LayerNorm between each hidden linear map and its activation.
        batch_norm: BatchNorm in that place; it needs batches of more than one example.
        norm_place: whether the norm, if any, is ``before`` or ``after`` the activation.
        norm_parameters: whether it has a scale and a shift that are learned.
        dropout: share of each hidden layer's activations that is dropped in updates.
        init: how weights and biases are drawn.
    """

    widths: tuple[PositiveInt, ...] = (300, 150)
    activation: Literal[
        "relu",
        "leaky-relu",
        "tanh",
        "crelu",
        "sigmoid",
        "elu",
        "swish",
        "fourier-features",
        "rational",
        "smooth-leaky",
        "aid",
    ] = "relu"
    leaky_slope: NonNegativeFloat = 0.01
    aid_p: Fraction = 0.9
    layer_norm: bool = False
    batch_norm: bool = False
    norm_place: Literal["before", "after"] = "before"
    norm_parameters: bool = True
    dropout: Fraction = 0.0
    init: Literal["torch", "lecun", "kaiming", "orthogonal", "sparse"] = "torch"


@dataclass(frozen=True)
class ResidualMLPOptions:
    """Options of `clrl.agents.networks.ResidualMLP`.

    Attributes:
        width: numbers in the stream between blocks.
        blocks: how many there are.
        expansion: units of a block, in widths.
        activation: the non-linearity in blocks.
    """

    width: PositiveInt = 128
    blocks: PositiveInt = 2
    expansion: PositiveInt = 4
    activation: Literal["relu", "tanh", "elu", "swish", "rational", "smooth-leaky"] = "relu"


@dataclass(frozen=True)
class BroNetOptions:
    """Options of `clrl.agents.networks.BroNet`.

    Attributes:
        width: numbers in the stream between blocks, and units of a block.
        blocks: how many there are.
    """

    width: PositiveInt = 256
    blocks: PositiveInt = 1


@dataclass(frozen=True)
class SimbaV2Options:
    """Options of `clrl.agents.networks.SimbaV2`.

    Attributes:
        width: numbers in the stream between blocks.
        blocks: how many there are.
        expansion: units of a block, in widths.
    """

    width: PositiveInt = 128
    blocks: PositiveInt = 1
    expansion: PositiveInt = 4


@dataclass(frozen=True)
class SupervisedOptions:
    """Options of `clrl.agents.supervised.Supervised`.

    Attributes:
        batch_size: examples of one update; 1 is online learning.
        diagnose_every: updates between two samples of the quantities that cost extra
            (gradient norm, step plasticity); each logged value is their window mean.
        reset_at_change: make networks and update rule new with each task: a fresh learner for
            every task, which is told of changes.
        test_examples: held-out examples of each task on which accuracy is measured at the end of
            every task, where a stream's tasks stay testable; 0 for none.
    """

    batch_size: PositiveInt = 1
    diagnose_every: PositiveInt = 500
    reset_at_change: bool = False
    test_examples: NonNegativeInt = 1000


@dataclass(frozen=True)
class PPOOptions:
    """Options of `clrl.agents.ppo.PPO`; the defaults are Stable-Baselines3's.

    Attributes:
        num_envs: environments that one learner steps side by side.
        num_steps: steps of each between two updates.
        batch_size: transitions of one gradient step; a divisor of num_envs * num_steps.
        epochs: passes over the collected transitions.
        gamma: discount.
        gae_lambda: decay of the advantage estimate.
        clip_range: how far the probability ratio may move the objective.
        value_clip: what the value loss makes of values that have moved further than
            `value_clip_range` from those of the rollout. ``none``: nothing. ``sb3``: the error of
            the clipped value, which has no gradient there (Stable-Baselines3). ``max``: the
            larger of both values' squared errors (CleanRL, after OpenAI's baselines), which has
            a gradient where moving back makes it smaller.
        value_clip_range: how far values may move; CleanRL has `clip_range` for it.
        value_target: what values are fitted to. ``lambda``: advantage plus value, the
            lambda-return (Stable-Baselines3, CleanRL). ``reward-to-go``: the discounted rewards
            up to the end of the episode, or up to where it is cut or the rollout ends and then
            the value there (TRAC's code, Muppidi et al. 2024). Advantages are the same.
        value_coefficient: weight of the value loss, which is the mean squared error; CleanRL's
            is half of that, so that its 0.5 is 0.25 here.
        entropy_coefficient: weight of the entropy bonus.
        max_grad_norm: gradients of greater norm are scaled down to it; none where 0.
        normalize_advantages: over each ``minibatch`` (Stable-Baselines3, CleanRL), once over the
            whole rollout (``batch``: Dohare et al. 2024, TRAC), or not (``none``).
        normalize_observations: by running mean and deviation, clipped to [-10, 10].
        normalize_rewards: by the running deviation of the discounted return, clipped to
            [-10, 10]: ``sb3`` is Stable-Baselines3's VecNormalize, ``gymnasium`` Gymnasium's
            NormalizeReward, as CleanRL uses it; `clrl.agents.ppo.normalize.RewardNormalizer` says
            where they differ. ``none``: not.
        reward_scale: rewards are multiplied by it for learning.
        anneal_lr: the learning rate falls linearly to 0 over the run (CleanRL).
        bootstrap_truncated: an episode that is cut, as by a time limit, has the value of its last
            observation as its future (Stable-Baselines3). Otherwise it counts as terminated, with
            none (CleanRL; the code of Dohare et al. 2024).
        clip_actions: the environment gets continuous actions clipped to its bounds
            (Stable-Baselines3, CleanRL); otherwise as drawn (the code of Dohare et al. 2024), so
            that costs of actions grow beyond the bounds.
        target_kl: an update ends when the policy has moved 1.5 times as far; no bound unless
            given. Learners are then trained one at a time.
        shared: one network for policy and value.
        log_std: where the spread of continuous actions starts.
        reset_at_change: make networks, update rule and normalisers new when the task has
            changed: the oracle that never loses plasticity, and is told of changes. Where tasks
            end at a step of each learner's own, learners are then trained one at a time.
        test_episodes: episodes on each task so far in which the policy is tested, frozen and
            without chance in its actions, at the end of every task; 0 for none.
        test_statistics: by which statistics observations are normalised in these tests: those at
            the end of the ``task`` that is tested, so that what is measured is the networks'
            alone, or the ``present`` ones, which move with every later task.
    """

    num_envs: PositiveInt = 8
    num_steps: PositiveInt = 256
    batch_size: PositiveInt = 64
    epochs: PositiveInt = 10
    gamma: Fraction = 0.99
    gae_lambda: Fraction = 0.95
    clip_range: PositiveFloat = 0.2
    value_clip: Literal["none", "sb3", "max"] = "none"
    value_clip_range: PositiveFloat = 0.2
    value_target: Literal["lambda", "reward-to-go"] = "lambda"
    value_coefficient: NonNegativeFloat = 0.5
    entropy_coefficient: NonNegativeFloat = 0.0
    max_grad_norm: NonNegativeFloat = 0.5
    normalize_advantages: Literal["minibatch", "batch", "none"] = "minibatch"
    normalize_observations: bool = False
    normalize_rewards: Literal["none", "sb3", "gymnasium"] = "none"
    reward_scale: PositiveFloat = 1.0
    anneal_lr: bool = False
    bootstrap_truncated: bool = True
    clip_actions: bool = True
    target_kl: PositiveFloat | None = None
    shared: bool = False
    log_std: float = 0.0
    reset_at_change: bool = False
    test_episodes: NonNegativeInt = 0
    test_statistics: Literal["task", "present"] = "task"


@dataclass(frozen=True)
class SB3Options:
    """Options of every algorithm of Stable-Baselines3; its own names and defaults.

    Attributes:
        num_envs: environments that one learner steps side by side.
        gamma: discount.
    """

    num_envs: PositiveInt = 1
    gamma: Fraction = 0.99


@dataclass(frozen=True)
class SB3PPOOptions(SB3Options):
    """Options of `clrl.agents.sb3.PPO`.

    Attributes:
        num_envs: environments that one learner steps side by side.
        gamma: discount.
        n_steps: steps of each between two updates.
        batch_size: transitions of one gradient step; a divisor of num_envs * n_steps.
        n_epochs: passes over the collected transitions.
        gae_lambda: decay of the advantage estimate.
        clip_range: how far the probability ratio may move the objective.
        clip_range_vf: the same for values, around those of the rollout; none unless given.
        normalize_advantage: over each minibatch.
        ent_coef: weight of the entropy bonus.
        vf_coef: weight of the value loss.
        max_grad_norm: gradients of greater norm are scaled down to it.
        target_kl: an update ends when the policy has moved 1.5 times as far; no bound unless
            given.
    """

    n_steps: PositiveInt = 2048
    batch_size: PositiveInt = 64
    n_epochs: PositiveInt = 10
    gae_lambda: Fraction = 0.95
    clip_range: PositiveFloat = 0.2
    clip_range_vf: PositiveFloat | None = None
    normalize_advantage: bool = True
    ent_coef: NonNegativeFloat = 0.0
    vf_coef: NonNegativeFloat = 0.5
    max_grad_norm: PositiveFloat = 0.5
    target_kl: PositiveFloat | None = None


@dataclass(frozen=True)
class SB3A2COptions(SB3Options):
    """Options of `clrl.agents.sb3.A2C`.

    Attributes:
        num_envs: environments that one learner steps side by side.
        gamma: discount.
        n_steps: steps of each between two updates.
        gae_lambda: decay of the advantage estimate.
        normalize_advantage: over each rollout.
        ent_coef: weight of the entropy bonus.
        vf_coef: weight of the value loss.
        max_grad_norm: gradients of greater norm are scaled down to it.
    """

    n_steps: PositiveInt = 5
    gae_lambda: Fraction = 1.0
    normalize_advantage: bool = False
    ent_coef: NonNegativeFloat = 0.0
    vf_coef: NonNegativeFloat = 0.5
    max_grad_norm: PositiveFloat = 0.5


@dataclass(frozen=True)
class SB3DQNOptions(SB3Options):
    """Options of `clrl.agents.sb3.DQN`.

    Attributes:
        num_envs: environments that one learner steps side by side.
        gamma: discount.
        buffer_size: transitions that are kept.
        learning_starts: steps before the first update.
        batch_size: transitions of one gradient step.
        tau: share of the network in a target that is brought up to date.
        train_freq: steps of each environment between two updates.
        gradient_steps: gradient steps of one update.
        target_update_interval: steps between two updates of the target.
        exploration_fraction: share of the run in which random actions grow fewer.
        exploration_initial_eps: share of random actions at the start.
        exploration_final_eps: share of random actions after that.
        max_grad_norm: gradients of greater norm are scaled down to it.
    """

    buffer_size: PositiveInt = 1_000_000
    learning_starts: NonNegativeInt = 100
    batch_size: PositiveInt = 32
    tau: Fraction = 1.0
    train_freq: PositiveInt = 4
    gradient_steps: PositiveInt = 1
    target_update_interval: PositiveInt = 10_000
    exploration_fraction: Fraction = 0.1
    exploration_initial_eps: Fraction = 1.0
    exploration_final_eps: Fraction = 0.05
    max_grad_norm: PositiveFloat = 10.0


@dataclass(frozen=True)
class SB3SACOptions(SB3Options):
    """Options of `clrl.agents.sb3.SAC`.

    Attributes:
        num_envs: environments that one learner steps side by side.
        gamma: discount.
        buffer_size: transitions that are kept.
        learning_starts: steps before the first update, taken at random.
        batch_size: transitions of one gradient step.
        tau: share of the critics in their targets at each update.
        train_freq: steps of each environment between two updates.
        gradient_steps: gradient steps of one update.
        ent_coef: weight of the entropy; learned where ``auto``.
        target_update_interval: gradient steps between two updates of the targets.
    """

    buffer_size: PositiveInt = 1_000_000
    learning_starts: NonNegativeInt = 100
    batch_size: PositiveInt = 256
    tau: Fraction = 0.005
    train_freq: PositiveInt = 1
    gradient_steps: PositiveInt = 1
    ent_coef: NonNegativeFloat | Literal["auto"] = "auto"
    target_update_interval: PositiveInt = 1


@dataclass(frozen=True)
class SB3TD3Options(SB3Options):
    """Options of `clrl.agents.sb3.TD3`.

    Attributes:
        num_envs: environments that one learner steps side by side.
        gamma: discount.
        buffer_size: transitions that are kept.
        learning_starts: steps before the first update, taken at random.
        batch_size: transitions of one gradient step.
        tau: share of the networks in their targets at each update.
        train_freq: steps of each environment between two updates.
        gradient_steps: gradient steps of one update.
        policy_delay: gradient steps of the critics to one of the actor.
        target_policy_noise: spread of the noise on the target's actions.
        target_noise_clip: bound of that noise.
        action_noise: spread of the normal noise on actions, which lie in [-1, 1] there; none
            where 0.
    """

    buffer_size: PositiveInt = 1_000_000
    learning_starts: NonNegativeInt = 100
    batch_size: PositiveInt = 256
    tau: Fraction = 0.005
    train_freq: PositiveInt = 1
    gradient_steps: PositiveInt = 1
    policy_delay: PositiveInt = 2
    target_policy_noise: NonNegativeFloat = 0.2
    target_noise_clip: NonNegativeFloat = 0.5
    action_noise: NonNegativeFloat = 0.0
