"""What all of Stable-Baselines3's algorithms share as learners of ours."""

from __future__ import annotations

import abc
import contextlib
import functools
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
import torch
from gymnasium import spaces
from gymnasium.vector import VectorEnv
from numpy.typing import NDArray
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.logger import Logger
from torch import Tensor, nn

from clrl.agents.networks import ELU, Sigmoid, Swish
from clrl.agents.optim.base import compose
from clrl.agents.optim.rule import UpdateRule, make_base
from clrl.agents.options import MLPOptions, SB3Options
from clrl.agents.sb3.generators import generators, load_generators
from clrl.agents.sb3.lanes import Lanes, Watch
from clrl.agents.sb3.view import PolicyView, Stack
from clrl.errors import UsageError
from clrl.options import as_keywords
from clrl.seeding import derived_seed

Array = NDArray[Any]

_ACTIVATIONS: dict[str, Callable[[MLPOptions], Callable[[], nn.Module]]] = {
    "relu": lambda _: nn.ReLU,
    "leaky-relu": lambda options: functools.partial(nn.LeakyReLU, options.leaky_slope),
    "tanh": lambda _: nn.Tanh,
    "sigmoid": lambda _: Sigmoid,
    "elu": lambda _: ELU,
    "swish": lambda _: Swish,
}
_COUNTERS = (
    "num_timesteps",
    "_episode_num",
    "_n_updates",
    "_n_calls",
    "_current_progress_remaining",
    "exploration_rate",
)
_TRANSITION = ("observations", "next_observations", "actions", "rewards", "dones", "timeouts")
"""The arrays of a replay buffer."""


class Diverged(Exception):
    """A learner's outputs or gradients are not finite any more."""


class _Means(Logger):
    """Means of what an algorithm logs of its training, over the calls since the last look."""

    _LEFT_OUT = ("n_updates", "learning_rate", "clip_range", "clip_range_vf")

    def __init__(self) -> None:
        super().__init__(folder=None, output_formats=[])
        self.sums: dict[str, tuple[float, int]] = {}

    def record(self, key: str, value: Any, exclude: Any = None) -> None:
        """Take one value in, where it is of the training and no setting."""
        group, _, name = key.rpartition("/")
        if group == "train" and name not in self._LEFT_OUT:
            total, count = self.sums.get(name, (0.0, 0))
            self.sums[name] = (total + float(value), count + 1)

    def dump(self, step: int = 0) -> None:
        """Keep everything."""

    def take(self) -> dict[str, float]:
        """The means; starts anew."""
        means = {name: total / count for name, (total, count) in self.sums.items()}
        self.sums = {}
        return means


class Learner(abc.ABC):
    """One Stable-Baselines3 learner. To be made and trained inside `own_generators`.

    It has what `clrl.training.diagnostics.Diagnostics` asks of a population, being one of a
    single member.

    Gradients are looked at in the optimizer, before they are bounded: the algorithm itself is
    given no bound, and ``max_grad_norm`` is applied there by the same function of torch. What is
    measured is the gradient of the last step of each optimizer.

    Args:
        seed: everything random follows from it.
        envs: the learner's own, without autoreset.
        network: the shape of every network.
        rule: how parameters are updated; one optimizer each for actor and critic where the
            algorithm has two.
        options: of the algorithm.
        watch: see `Lanes`.

    Attributes:
        model: the Stable-Baselines3 algorithm.
        network: what it trains, targets apart.
        safe_parameters: the parameters at the last `mark_safe`: name to [1, *shape].

    Raises:
        UsageError: the algorithm cannot do with these spaces, network, options or add-ons.
    """

    algorithm: ClassVar[type[BaseAlgorithm]]
    action_spaces: ClassVar[tuple[type[spaces.Space[Any]], ...]]
    policy: ClassVar[Any] = "MlpPolicy"
    inits: ClassVar[tuple[str, ...]] = ("torch",)

    def __init__(
        self,
        seed: int,
        envs: VectorEnv[Any, Any, Any],
        network: MLPOptions,
        rule: UpdateRule,
        options: SB3Options,
        watch: Watch = lambda *_: None,
    ) -> None:
        if rule.needs_changes:
            raise UsageError(
                f"sb3:{type(self).__name__} is not told of changes of task; expected add-ons that "
                "act after so many updates, where they have an option every"
            )
        self._check_network(network)
        self._check_spaces(envs.single_observation_space, envs.single_action_space)
        self._network_options = network
        lanes = [derived_seed(seed, f"env/{i}") for i in range(options.num_envs)]
        settings = self._settings(options, envs.single_action_space)
        self._bound = settings.get("max_grad_norm", math.inf)
        if "max_grad_norm" in settings:
            settings["max_grad_norm"] = math.inf
        self.model: Any = self.algorithm(
            self.policy,
            Lanes(envs, lanes, watch),
            learning_rate=_learning_rate(rule),
            policy_kwargs=self._policy_options(network),
            seed=derived_seed(seed, "sb3") % 2**32,  # NumPy's global generator takes no more
            device="cpu",
            **settings,
        )
        self._logger = _Means()
        self.model.set_logger(self._logger)
        self.network = self._view(self._modules(), self._stacks(len(network.widths)))
        self._gradients: dict[str, Tensor] = {}
        for owner, part, names in self._owners():
            purpose = f"update/{part}" if part else "update"
            generator = torch.Generator().manual_seed(derived_seed(seed, purpose))
            owner.optimizer = self._optimizer(rule, names, generator)
        for stack in self.network.stacks:
            self.network.get_submodule(stack.output).register_forward_hook(_check_finite)
        self.mark_safe()

    def learn(self, steps: int, callback: BaseCallback) -> None:
        """Train until so many steps were taken in all, in whole steps of all environments.

        The last rollout is shorter where that is needed, and is learned from as it is.

        Raises:
            Diverged: outputs are not finite, or the norm of a gradient.
        """
        model = self.model
        collect = type(model).collect_rollouts

        def collect_some(*given: Any, **options: Any) -> Any:
            rows = -(-(steps - model.num_timesteps) // model.n_envs)
            return collect(model, *given, **{**options, **self._at_most(rows)})

        model.collect_rollouts = collect_some
        begun = model._last_obs is not None
        left = steps - model.num_timesteps
        model.learn(left, callback=callback, reset_num_timesteps=not begun)

    def state_dict(self) -> dict[str, Any]:
        """Everything that decides the learner's future, given that of its environments.

        To be asked for at the start of a rollout, inside of the `own_generators` in which it is
        trained: what Stable-Baselines3 draws from is part of the state.
        """
        model = self.model
        state = {
            "policy": dict(model.policy.state_dict()),
            "optimizers": [one.state_dict() for one in self._optimizers()],
            "counters": {name: getattr(model, name) for name in _COUNTERS if hasattr(model, name)},
            "observations": torch.from_numpy(model._last_obs.copy()),
            "starts": torch.from_numpy(model._last_episode_starts.copy()),
            "gradients": self._gradients,
            "safe_parameters": self.safe_parameters,
            "losses": {name: list(sums) for name, sums in self._logger.sums.items()},
            "generators": generators(),
            # Random actions, of the start and of epsilon-greedy policies, are drawn by the space.
            "random_actions": model.action_space.np_random.bit_generator.state,
        }
        if getattr(model, "log_ent_coef", None) is not None:
            state["entropy_coefficient"] = model.log_ent_coef.detach()
        buffer = getattr(model, "replay_buffer", None)
        if buffer is not None:
            state["replay"] = {
                "position": [buffer.pos, buffer.full],
                **{name: torch.from_numpy(_filled(buffer, name)) for name in _TRANSITION},
            }
        return state

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore what `state_dict` gave, for a learner made alike; inside `own_generators`."""
        model = self.model
        model.policy.load_state_dict(state["policy"])
        for one, saved in zip(self._optimizers(), state["optimizers"], strict=True):
            one.load_state_dict(saved)
        for name, value in state["counters"].items():
            setattr(model, name, value)
        model._last_obs = state["observations"].numpy().copy()
        model._last_episode_starts = state["starts"].numpy().copy()
        self._gradients = dict(state["gradients"])
        self.safe_parameters = dict(state["safe_parameters"])
        self._logger.sums = {
            name: (total, count) for name, (total, count) in state["losses"].items()
        }
        if "entropy_coefficient" in state:
            with torch.no_grad():
                model.log_ent_coef.copy_(state["entropy_coefficient"])
        if "replay" in state:
            buffer = model.replay_buffer
            buffer.pos, buffer.full = state["replay"]["position"]
            for name in _TRANSITION:
                _filled(buffer, name)[:] = state["replay"][name].numpy()
        load_generators(state["generators"])
        model.action_space.np_random.bit_generator.state = state["random_actions"]

    def _optimizers(self) -> list[torch.optim.Optimizer]:
        own = [owner.optimizer for owner, _, _ in self._owners()]
        of_entropy = getattr(self.model, "ent_coef_optimizer", None)
        return own if of_entropy is None else [*own, of_entropy]

    def losses(self) -> dict[str, float]:
        """Means of what the algorithm logged of its training since the last call.

        Stable-Baselines3's names, but for those that `clrl.agents.ppo.PPO` has as well:
        ``policy_loss``, and ``entropy`` in place of its negative. ``approx_kl`` is of an
        update's last epoch, and PPO's ``loss`` of its last minibatch.
        """
        means = self._logger.take()
        if "policy_gradient_loss" in means:
            means["policy_loss"] = means.pop("policy_gradient_loss")
        if "entropy_loss" in means:
            means["entropy"] = -means.pop("entropy_loss")
        return means

    def parameters(self) -> dict[str, Tensor]:
        """The parameters: name to a view [1, *shape]."""
        return {
            name: value.detach().unsqueeze(0) for name, value in self.network.named_parameters()
        }

    def gradient_views(self) -> dict[str, Tensor]:
        """The gradients of each optimizer's last step, not bounded: name to [1, *shape].

        Parameters that have not been trained yet are left out.
        """
        return {name: value.unsqueeze(0) for name, value in self._gradients.items()}

    added_to = False  # the algorithms have no penalties of ours

    loss_gradient_views = gradient_views

    def mark_safe(self) -> None:
        """Remember the present parameters, as those from which weights have changed next time."""
        self.safe_parameters = {name: value.clone() for name, value in self.parameters().items()}

    def features(self, member: int, inputs: Tensor) -> dict[str, Tensor]:
        """Hidden activations.

        Critics that take actions are given those that the actor would take, without noise.

        Args:
            member: 0.
            inputs: observations [examples, ...].

        Returns:
            Hidden layer name to activations [examples, features].
        """
        features: dict[str, Tensor] = {}
        with contextlib.ExitStack() as stack, torch.no_grad():
            for layer in self.network.hidden_layers:

                def keep(_: Any, __: Any, output: Tensor, name: str = layer.name) -> None:
                    features[name] = output

                module = self.network.get_submodule(layer.activation)
                stack.callback(module.register_forward_hook(keep).remove)
            self.network(inputs)
        return features

    def _view(self, modules: Mapping[str, nn.Module], stacks: Sequence[Stack]) -> PolicyView:
        return PolicyView(modules, stacks, self._network_options, self._forward)

    def _optimizer(
        self, rule: UpdateRule, names: Sequence[str], generator: torch.Generator
    ) -> torch.optim.Optimizer:
        """The rule on some of the modules, with a look at gradients before each step."""
        modules = {name: module for name, module in self._modules().items() if name in names}
        stacks = [one for one in self.network.stacks if one.path.partition(".")[0] in names]
        view = self._view(modules, stacks)
        for own in rule.extensions(view):
            raise UsageError(
                f"sb3:{type(self).__name__} has networks of its own, which take no {own.name}; "
                "expected an agent such as ppo"
            )
        parameters = dict(view.named_parameters())
        base = make_base(rule, list(parameters.values()), [generator], view)
        addons = [functools.partial(addon, **options) for addon, options in rule.addons]
        targets = {
            f"{name}.{key}": value
            for name, module in self._targets().items()
            if name in names
            for key, value in module.named_parameters()
        }
        optimizer = compose(view, base, addons, generator, targets)

        def before_step(*_: Any) -> None:
            for name, parameter in parameters.items():
                if parameter.grad is not None:
                    self._gradients[name] = parameter.grad.clone()
            norm = nn.utils.clip_grad_norm_(parameters.values(), self._bound)
            if not norm.isfinite():
                raise Diverged

        optimizer.register_step_pre_hook(before_step)
        return optimizer

    def _check_network(self, network: MLPOptions) -> None:
        """Refuse what Stable-Baselines3 cannot build.

        Raises:
            UsageError: there is something.
        """
        name = f"sb3:{type(self).__name__}"
        if network.activation not in _ACTIVATIONS:
            raise UsageError(
                f"network.activation: {name} has no {network.activation}; expected one of "
                f"{', '.join(_ACTIVATIONS)}"
            )
        for key, without in (("layer_norm", "false"), ("batch_norm", "false"), ("dropout", "0")):
            if getattr(network, key):
                raise UsageError(f"network.{key}: {name} has none; expected {without}")
        if network.init not in self.inits:
            raise UsageError(
                f"network.init: {name} cannot start from {network.init}; expected "
                f"{' or '.join(self.inits)}"
            )

    def _check_spaces(self, observations: spaces.Space[Any], actions: spaces.Space[Any]) -> None:
        if not isinstance(observations, spaces.Box) or len(observations.shape) != 1:
            raise UsageError(f"observations: expected a Box with one axis, got {observations}")
        fits = isinstance(actions, self.action_spaces)
        if isinstance(actions, spaces.Box):
            bounded = np.isfinite(actions.low).all() and np.isfinite(actions.high).all()
            fits = fits and len(actions.shape) == 1 and bool(bounded)
        elif isinstance(actions, spaces.Discrete | spaces.MultiDiscrete):
            fits = fits and not np.any(actions.start)
        if not fits:
            kinds = " or ".join(
                "Box with one axis and finite bounds" if kind is spaces.Box else kind.__name__
                for kind in self.action_spaces
            )
            raise UsageError(f"actions: sb3:{type(self).__name__} expected {kinds}, got {actions}")

    def _policy_options(self, network: MLPOptions) -> dict[str, Any]:
        return {
            "net_arch": list(network.widths),
            "activation_fn": _ACTIVATIONS[network.activation](network),
        }

    def _settings(self, options: Any, actions: spaces.Space[Any]) -> dict[str, Any]:
        """The options as the algorithm's constructor takes them.

        Raises:
            UsageError: they do not go together.
        """
        settings = as_keywords(options)
        del settings["num_envs"]
        return settings

    @abc.abstractmethod
    def _at_most(self, rows: int) -> dict[str, Any]:
        """What has ``collect_rollouts`` step all environments no more than so many times."""

    @abc.abstractmethod
    def _modules(self) -> dict[str, nn.Module]:
        """The trained modules, by name."""

    def _targets(self) -> dict[str, nn.Module]:
        """Modules that follow trained ones, by the names of those."""
        return {}

    @abc.abstractmethod
    def _stacks(self, depth: int) -> list[Stack]:
        """Where the hidden layers are, that many in a row."""

    @abc.abstractmethod
    def _owners(self) -> list[tuple[Any, str, list[str]]]:
        """Whatever has an optimizer: the object, which part it is of, its modules' names.

        The part is empty where there is one optimizer for all.
        """

    @abc.abstractmethod
    def _forward(self, observations: Tensor) -> None:
        """Run every stack, without drawing anything."""


def _filled(buffer: Any, name: str) -> Array:
    """The part of a replay buffer's array that holds transitions."""
    array: Array = getattr(buffer, name)
    return array if buffer.full else array[: buffer.pos]


def _check_finite(_module: Any, _inputs: Any, output: Tensor) -> None:
    if not output.isfinite().all():
        raise Diverged


def _learning_rate(rule: UpdateRule) -> float:
    """The rule's step size, which Stable-Baselines3 sets anew before every update."""
    parameter = torch.zeros(1, requires_grad=True)
    base = make_base(rule, [parameter], [torch.Generator()])
    return float(base.param_groups[0].get("lr", 0.0))
