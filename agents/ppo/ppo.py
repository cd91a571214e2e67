"""Proximal policy optimization (Schulman et al. 2017) for a population of learners.

Three steps, each of which gives tensors: `PPO.rollout` collects experience, `gae` turns it into
advantages, `PPO.update` learns from them. The order of operations is that of
Stable-Baselines3's PPO (``ppo.py``, ``train``).
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from gymnasium import spaces
from gymnasium.vector import VectorEnv
from numpy.typing import NDArray
from torch import Tensor

from clrl.agents.actions import actions_of
from clrl.agents.calling import Forward
from clrl.agents.consolidation.base import Batches, Consolidation, Learners, Method
from clrl.agents.device import CPU
from clrl.agents.engine.plan import EngineName
from clrl.agents.networks import Network
from clrl.agents.optim.rule import UpdateRule
from clrl.agents.options import PPOOptions
from clrl.agents.penalties.base import Penalty
from clrl.agents.population import Population
from clrl.agents.ppo.actor_critic import ActorCritic, MakeNetwork
from clrl.agents.ppo.loss import make_loss, make_plan
from clrl.agents.ppo.normalize import ObservationNormalizer, RewardNormalizer
from clrl.agents.ppo.rollout import Rollout, gae, standardised
from clrl.errors import UsageError, shown
from clrl.seeding import derived_seed, numpy_generator

PROBE = 2000
"""Observations that are kept for diagnostics."""


class PPO:
    """A population of PPO learners.

    Args:
        seeds: one a member.
        observation_space: of one environment: a Box with one axis.
        action_space: of one environment.
        make_network: makes actor and critic; see `ActorCritic`.
        rule: how parameters are updated.
        options: see `PPOOptions`.
        chunk_size: see `Population`.
        consolidation: methods against forgetting, as classes with their keywords.
        device: where actions are chosen and updates computed.
        penalties: see `Population`.
        engine: see `Population`.

    Raises:
        UsageError: spaces that PPO cannot do with, or a batch size that does not divide.
    """

    def __init__(
        self,
        seeds: Sequence[int],
        observation_space: spaces.Space[Any],
        action_space: spaces.Space[Any],
        make_network: MakeNetwork,
        rule: UpdateRule,
        options: PPOOptions,
        chunk_size: int | None = None,
        consolidation: Sequence[tuple[Callable[..., Method], Mapping[str, Any]]] = (),
        device: torch.device = CPU,
        penalties: Sequence[Callable[[Network], Penalty]] = (),
        engine: EngineName = "replay",
    ) -> None:
        if not isinstance(observation_space, spaces.Box) or len(observation_space.shape) != 1:
            raise UsageError(
                f"observations: expected a Box with one axis, got {shown(observation_space)}"
            )
        size = options.num_envs * options.num_steps
        if size % options.batch_size:
            raise UsageError(
                f"agent.batch_size: expected a divisor of num_envs * num_steps ({size}), "
                f"got {options.batch_size}"
            )

        def generators(purpose: str) -> list[torch.Generator]:
            return [torch.Generator().manual_seed(derived_seed(s, purpose)) for s in seeds]

        self.options = options
        self._device = device
        self.seeds = list(seeds)
        self.actions = actions_of(action_space, options.clip_actions)
        self._make = functools.partial(
            ActorCritic,
            len(observation_space.low),
            self.actions,
            make_network,
            options.shared,
            options.log_std,
        )
        self.population = Population(
            [self._make(generator) for generator in generators("network")],
            make_loss(self.actions, options, lambda *given: self.consolidation.adjust(*given)),
            rule,
            generators("update"),
            chunk_size,
            options.max_grad_norm,
            None if options.target_kl is None else ("approx_kl", 1.5 * options.target_kl),
            device,
            penalties,
            make_plan(self.actions, options),
            engine,
        )
        methods = self._methods(consolidation)
        self.consolidation = Consolidation(methods, len(self.seeds))
        if methods:
            self.population.companion = self.consolidation
        # Each member's task at the last step, and that of its networks.
        self._tasks = np.zeros(len(self.seeds), np.int64)
        self._tasks_of_networks = self._tasks.copy()
        self._lane_tasks = np.zeros(len(self.seeds) * options.num_envs, np.int64)
        self._noise = [numpy_generator(seed, "ppo/actions") for seed in seeds]
        self._order = [numpy_generator(seed, "ppo/order") for seed in seeds]
        self._others = [numpy_generator(seed, "ppo/others") for seed in seeds]
        members, lanes = len(self.seeds), options.num_envs
        self._observations = self._rewards = None
        if options.normalize_observations:
            self._observations = ObservationNormalizer(members, len(observation_space.low))
        if options.normalize_rewards != "none":
            self._rewards = RewardNormalizer(
                members, lanes, options.gamma, options.normalize_rewards
            )
        self._act = self.population.compiled(self._decide)
        self._answer = self.population.compiled(self._likeliest)

    def _methods(
        self, consolidation: Sequence[tuple[Callable[..., Method], Mapping[str, Any]]]
    ) -> list[Method]:
        scale = (2 * self.options.value_coefficient) ** 0.5

        def policy(forward: Forward, observations: Tensor, taken: Tensor) -> Tensor:
            outputs, parameters, _ = forward(observations)
            return self.actions.log_prob(outputs, parameters, taken)

        def value(forward: Forward, observations: Tensor, _taken: Tensor) -> Tensor:
            # Of a normal distribution about the value, as wide as makes the value loss its
            # negative log-likelihood: its Fisher information is the square of this gradient.
            values: Tensor = forward(observations)[2] * scale
            return values

        def everything(forward: Forward, observations: Tensor) -> Tensor:
            outputs, parameters, values = forward(observations)
            spread = parameters.exp().expand(*outputs.shape[:-1], -1)
            return torch.cat([outputs, spread, values.unsqueeze(-1)], dim=-1)

        n = self.actions.num_outputs
        learners = Learners(
            self.seeds,
            self.population,
            [policy, value],
            everything,
            lambda task: self._restart(range(len(self.seeds))),
            lambda *batches: self.population.freeze_diverged(
                self.population.learn(*batches)["loss"]
            ),
            self.options.batch_size,
            n,
            n,
            self.actions,
        )
        return [make(learners, **keywords) for make, keywords in consolidation]

    def act(self, observations: Tensor, noise: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Decide for every environment of every member.

        Args:
            observations: [members, environments, observation size].
            noise: [members, environments, ``actions.noise_size``].

        Returns:
            Actions [members, environments, width], their log-probabilities and the values of
            the observations, [members, environments] each.
        """
        engine = self.population.engine
        if engine is not None:
            return engine.decide(self.population.rows, observations, noise)
        taken, log_probs, values = self._act(observations, noise)
        return taken, log_probs, values

    def _decide(self, forward: Forward, observations: Tensor, noise: Tensor) -> Any:
        outputs, parameters, values = forward(observations)
        taken = self.actions.sample(outputs, parameters, noise)
        return taken, self.actions.log_prob(outputs, parameters, taken), values

    def _likeliest(self, forward: Forward, observations: Tensor) -> tuple[Tensor, ...]:
        outputs, parameters, _ = forward(observations)
        return (self.actions.mode(outputs, parameters),)

    def statistics(self) -> NDArray[np.float64] | None:
        """Mean and variance by which observations are normalised at present, if they are.

        Returns:
            [members, 2, observation size], a copy.
        """
        if self._observations is None:
            return None
        moments = self._observations.moments
        return np.stack([moments.mean, moments.var], axis=1)

    def answer(
        self, observations: NDArray[Any], statistics: NDArray[np.float64] | None = None
    ) -> NDArray[Any]:
        """The likeliest actions, as for a test: nothing is learned, remembered or drawn.

        Args:
            observations: [lanes, observation size], any number of lanes for each member, those
                of a member side by side.
            statistics: what `statistics` gave at some time, to normalise by; the present ones
                unless given.

        Returns:
            Actions as the environments take them.
        """
        rows = observations.reshape(len(self.seeds), -1, observations.shape[-1])
        if self._observations is not None:
            rows = self._observations.as_now(rows, statistics)
        (taken,) = self._answer(torch.from_numpy(np.array(rows, np.float32)))
        actions: NDArray[Any] = self.actions.to_environment(taken.flatten(0, 1).numpy())
        return actions

    def draw(self, observations: NDArray[Any]) -> NDArray[Any]:
        """Actions drawn from the policy, as in training; otherwise as `answer`."""
        rows = observations.reshape(len(self.seeds), -1, observations.shape[-1])
        noise = np.empty((*rows.shape[:2], self.actions.noise_size), np.float32)
        for rng, own in zip(self._noise, noise, strict=True):
            self.actions.noise(rng, own)
        if self._observations is not None:
            rows = self._observations.as_now(rows)
        taken, _, _ = self.act(
            torch.from_numpy(np.array(rows, np.float32)), torch.from_numpy(noise)
        )
        actions: NDArray[Any] = self.actions.to_environment(taken.flatten(0, 1).numpy())
        return actions

    def take_member(self, state: Mapping[str, Any], member: int) -> None:
        """Act from now on as one member did of the learners whose `state_dict` this is.

        It is for a single learner, made alike: parameters, statistics of observations and the
        task are taken over.
        """
        self.population.take_member(state["population"], member)
        if self._observations is not None:
            saved = state["normalizers"][0]
            self._observations.load_state_dict(
                {name: values[member : member + 1] for name, values in saved.items()}
            )
        self._tasks = np.array(state["tasks"][0][member : member + 1])

    @property
    def tasks(self) -> NDArray[np.int64]:
        """Each member's task, as far as its environments have told, [members]."""
        return self._tasks.copy()

    def reset(self, observations: NDArray[Any]) -> None:
        """Begin with the environments' first observations, [lanes, observation size]."""
        self._present = self._seen(observations)
        self._latest = self._present

    def _seen(self, observations: NDArray[Any], final: bool = False) -> Tensor:
        """Observations as the networks get them, [members, environments, size].

        With `final` they are not taken into the statistics.
        """
        members = len(self.seeds)
        rows = observations.reshape(members, self.options.num_envs, -1)
        if self._observations is not None:
            rows = self._observations.as_now(rows) if final else self._observations(rows)
        copied = np.array(rows, np.float32)  # the environment may reuse its own
        return torch.from_numpy(copied).to(self._device)

    def iterate(
        self,
        envs: VectorEnv[Any, Any, Any],
        watch: Callable[..., None],
        remaining: float,
        left: int,
        over: Callable[[NDArray[np.int64]], None] = lambda tasks: None,
    ) -> dict[str, Tensor]:
        """Collect one rollout and learn from it.

        Args:
            envs: see `rollout`.
            watch: see `rollout`.
            remaining: the share of the run that is left, from 1 to 0.
            left: how many transitions of each member that is. A rollout takes no more of them,
                in whole steps of a member's environments.
            over: see `rollout`.

        Returns:
            What to record of each member, [members].
        """
        if self.options.anneal_lr:
            self.population.scale_rates(remaining)
        steps = min(self.options.num_steps, -(-left // self.options.num_envs))
        rollout = self.rollout(envs, watch, steps, over)
        self._keep(rollout)
        values = self.update(rollout)
        self.consolidation.learned(values["losses"].shape[1])
        self.population.freeze_diverged(values.pop("losses"))
        return values

    def _restart_changed(self) -> list[int]:
        """Make members new whose task has changed; which."""
        members: list[int] = np.flatnonzero(self._tasks != self._tasks_of_networks).tolist()
        self._tasks_of_networks = self._tasks.copy()
        self._restart(members)
        return members

    def _restart(self, members: Sequence[int]) -> None:
        """Make members new for their present tasks: networks, update rule and normalisers."""

        def seed(member: int, purpose: str) -> int:
            return derived_seed(self.seeds[member], f"{purpose}/task-{self._tasks[member]}")

        def fresh(member: int) -> ActorCritic:
            return self._make(torch.Generator().manual_seed(seed(member, "network")))

        self.population.restart(members, fresh, lambda member: seed(member, "update"))
        for normalizer in (self._observations, self._rewards):
            if normalizer is not None:
                normalizer.restart(members)

    def probe(self, examples: int) -> Tensor:
        """The latest observations, as the networks got them, [members, examples, size]."""
        return self._latest[:, -examples:]

    def _keep(self, rollout: Rollout) -> None:
        seen = rollout.observations.flatten(1, 2)
        self._latest = torch.cat([self._latest, seen], dim=1)[:, -PROBE:]

    def rollout(
        self,
        envs: VectorEnv[Any, Any, Any],
        watch: Callable[..., None] = lambda *_: None,
        steps: int | None = None,
        over: Callable[[NDArray[np.int64]], None] = lambda tasks: None,
    ) -> Rollout:
        """Step all environments.

        A lane whose episode has ended is reset in the same step, so that every step of a lane is
        a transition.

        Args:
            envs: lanes of all members, those of a member side by side; without autoreset.
            watch: called after each step with rewards, whether each lane's episode has ended,
                and the step's info.
            steps: how many; ``num_steps`` unless given.
            over: called at the step with which a task is over for some members, nothing having
                been learned of the next one: takes each member's task before.
        """
        options, members = self.options, len(self.seeds)
        steps, lanes = steps or options.num_steps, options.num_envs
        noise = np.empty((members, steps, lanes, self.actions.noise_size), np.float32)
        for rng, own in zip(self._noise, noise, strict=True):
            self.actions.noise(rng, own)
        drawn = torch.from_numpy(noise).to(self._device)
        rows: list[tuple[Tensor, ...]] = []
        finals: list[Tensor] = []
        rewards = np.empty((steps, members, lanes), np.float32)
        flags = np.ones((3, steps, members, lanes), np.bool_)
        noted = 0
        for step in range(steps):
            taken, log_probs, values = self.act(self._present, drawn[:, step])
            observations, reward, terminated, truncated, info = envs.step(
                self.actions.to_environment(taken.flatten(0, 1).cpu().numpy())
            )
            ended = terminated | truncated
            watch(reward, ended, info)
            if "task" in info and not np.array_equal(info["task"], self._lane_tasks):
                self._note(rows[noted:])
                noted = step
                self._enter(info["task"], over)
            rows.append((self._present, taken, log_probs, values))
            for place, flag in zip(flags[:2, step], (terminated, truncated), strict=True):
                place[:] = flag.reshape(members, lanes)
            reward = reward.reshape(members, lanes) * options.reward_scale
            if self._rewards is not None:
                reward = self._rewards(reward, flags[2, step], *flags[:2, step])
            rewards[step] = reward
            if options.reset_at_change:
                # What the networks before have done so far is not for the new ones to learn.
                flags[2, : step + 1, self._restart_changed()] = False
            if ended.any():
                cut = flags[1, step] & ~flags[0, step]
                if cut.any() and options.bootstrap_truncated:
                    finals.append(self._seen(observations, final=True))
                observations, _ = envs.reset(options={"reset_mask": ended})
            self._present = self._seen(observations)
        self._note(rows[noted:])
        observed, actions, log_probs, values = (
            torch.stack(column, 1) for column in zip(*rows, strict=True)
        )
        _, _, last_values = self.act(self._present, torch.zeros_like(drawn[:, 0]))
        terminated, truncated, valid = torch.from_numpy(flags).to(self._device).transpose(1, 2)
        if not options.bootstrap_truncated:
            terminated = terminated | truncated
        return Rollout(
            observed,
            actions,
            log_probs,
            values,
            torch.from_numpy(rewards).to(self._device).transpose(0, 1),
            terminated,
            truncated,
            valid,
            last_values,
            self._final_values(truncated & ~terminated, finals) if finals else None,
        )

    def _final_values(self, cut: Tensor, seen: Sequence[Tensor]) -> Tensor:
        """The values of the observations with which episodes were cut.

        Args:
            cut: where that was, bool [members, steps, environments].
            seen: what was seen at the end of each step with such a place, [members,
                environments, size] each.
        """
        values = torch.zeros(cut.shape, device=self._device)
        # A member's own, one after another, as many at a time as it acts in.
        lanes, counts = cut.shape[2], cut.flatten(1).sum(dim=1).tolist()
        steps = cut.any(dim=2).any(dim=0)
        of_steps = torch.stack(list(seen), 1)
        most = -(-max(counts) // lanes) * lanes
        own = of_steps.new_zeros(len(cut), most, of_steps.shape[-1])
        for member, count in enumerate(counts):
            own[member, :count] = of_steps[member][cut[member, steps]]
        noise = own.new_zeros(len(cut), lanes, self.actions.noise_size)
        parts = own.view(len(cut), -1, lanes, own.shape[-1]).unbind(1)
        found = torch.cat([self.act(part, noise)[2] for part in parts], dim=1)
        for member, count in enumerate(counts):
            values[member][cut[member]] = found[member, :count]
        return values

    def _enter(
        self, lane_tasks: NDArray[np.int64], over: Callable[[NDArray[np.int64]], None]
    ) -> None:
        """Go on in other tasks; a member's is the earliest of its environments'."""
        before, self._lane_tasks = self._tasks, lane_tasks.copy()
        self._tasks = lane_tasks.reshape(len(self.seeds), -1).min(axis=1)
        changed = np.flatnonzero(self._tasks != before).tolist()
        if changed:
            self.consolidation.end_task(changed, self._tasks)
            self.population.change(changed)
            over(before)

    def _note(self, rows: Sequence[tuple[Tensor, ...]]) -> None:
        """Let methods against forgetting note steps of the present tasks."""
        if rows and self.consolidation.examples:
            observed, taken, *_ = (torch.stack(column, 1) for column in zip(*rows, strict=True))
            tasks = self._lane_tasks.reshape(len(self.seeds), 1, -1).repeat(len(rows), axis=1)
            self.consolidation.note(
                observed.flatten(1, 2), taken.flatten(1, 2), tasks=tasks.reshape(len(tasks), -1)
            )

    def update(self, rollout: Rollout, orders: NDArray[Any] | None = None) -> dict[str, Tensor]:
        """Learn from a rollout.

        Args:
            rollout: experience.
            orders: [members, epochs, transitions], in which order transitions are taken, each
                number being ``environment * steps + step``; drawn unless given. Of a rollout that
                is shorter than ``num_steps``, those that do not fill a minibatch are left out.

        Returns:
            The means over the update's minibatches of the terms of the loss, and
            ``explained_variance``, [members] each; and ``"losses"`` [members, minibatches].
        """
        options = self.options
        self.population.collected()
        advantages, returns = gae(rollout, options.gamma, options.gae_lambda)
        if options.value_target == "reward-to-go":
            _, returns = gae(rollout, options.gamma, 1.0)
        weights = rollout.valid.to(advantages.dtype)
        flat = [
            # As SB3 has them: all steps of the first environment, then of the next.
            value.transpose(1, 2).flatten(1, 2)
            for value in (
                rollout.observations,
                rollout.actions,
                rollout.log_probs,
                rollout.values,
                advantages,
                returns,
                weights,
            )
        ]
        if options.normalize_advantages == "batch":
            flat[4] = standardised(flat[4], flat[6])
        size = flat[0].shape[1]
        if orders is None:
            orders = np.stack([self._orders(size) for _ in range(options.epochs)], axis=1)
        batch_size = min(options.batch_size, size)
        orders = orders[:, :, : size - size % batch_size]
        # All epochs at once only where that is needed: the batches take memory.
        once = options.epochs if options.target_kl is not None else 1
        results: list[dict[str, Tensor]] = []
        for epoch in range(0, options.epochs, once):
            order = orders[:, epoch : epoch + once].reshape(len(orders), -1)
            index = torch.from_numpy(np.ascontiguousarray(order)).to(self._device)
            batches = [_taken(value, index, batch_size) for value in flat]
            new = Batches(tuple(batches), torch.ones(batches[0].shape[:3]))
            extras = self.consolidation.extras(new)
            others = self._drawn(flat[0], index.shape[1], batch_size)
            results.append(self.population.learn(*batches, *extras, others=others))
        joined = {key: torch.cat([one[key] for one in results], dim=1) for key in results[0]}
        counted = joined.pop("counted", torch.ones_like(joined["loss"]))
        values = {key: value.sum(dim=1) / counted.sum(dim=1) for key, value in joined.items()}
        spread = _variance(flat[5], flat[6])
        error = _variance(flat[5] - flat[3], flat[6])
        values["explained_variance"] = torch.where(spread > 0, 1 - error / spread, torch.nan)
        return {**values, "losses": joined["loss"]}

    def state_dict(self) -> dict[str, Any]:
        """Everything that decides the learners' future, given that of their environments."""
        normalizers = [self._observations, self._rewards]
        return {
            "population": self.population.state_dict(),
            "noise": [rng.bit_generator.state for rng in self._noise],
            "order": [rng.bit_generator.state for rng in self._order],
            "others": [rng.bit_generator.state for rng in self._others],
            "normalizers": [one and one.state_dict() for one in normalizers],
            "present": self._present,
            "latest": self._latest,
            "tasks": [
                own.tolist() for own in (self._tasks, self._tasks_of_networks, self._lane_tasks)
            ],
            "consolidation": self.consolidation.state_dict(),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore what `state_dict` gave."""
        self.population.load_state_dict(state["population"])
        for rngs, saved in (
            (self._noise, state["noise"]),
            (self._order, state["order"]),
            (self._others, state["others"]),
        ):
            for rng, bits in zip(rngs, saved, strict=True):
                rng.bit_generator.state = bits
        normalizers = [self._observations, self._rewards]
        for one, saved in zip(normalizers, state["normalizers"], strict=True):
            if one is not None:
                one.load_state_dict(saved)
        self._present = state["present"].to(self._device, copy=True)
        self._latest = state["latest"].to(self._device, copy=True)
        self._tasks, self._tasks_of_networks, self._lane_tasks = map(np.array, state["tasks"])
        self.consolidation.load_state_dict(state["consolidation"])

    def _drawn(self, observations: Tensor, number: int, batch_size: int) -> Tensor | None:
        """Minibatches of other observations of a rollout, where a penalty needs them.

        Args:
            observations: [members, transitions, size].
            number: how many: every transition once, before one comes again.
            batch_size: observations in a minibatch.
        """
        if not self.population.needs_others:
            return None
        size = observations.shape[1]
        orders = [
            np.concatenate([rng.permutation(size) for _ in range(-(-number // size))])[:number]
            for rng in self._others
        ]
        return _taken(observations, torch.from_numpy(np.stack(orders)).to(self._device), batch_size)

    def _orders(self, size: int | None = None) -> NDArray[Any]:
        size = size or self.options.num_envs * self.options.num_steps
        return np.stack([rng.permutation(size) for rng in self._order])


def _taken(values: Tensor, index: Tensor, batch_size: int) -> Tensor:
    """[members, transitions, ...] -> [members, minibatches, batch, ...] in the given order."""
    starts = torch.arange(len(index), device=index.device) * values.shape[1]
    rows = values.flatten(0, 1).index_select(0, (index + starts.unsqueeze(1)).flatten())
    return rows.view(len(index), -1, batch_size, *values.shape[2:])


def _variance(values: Tensor, weights: Tensor) -> Tensor:
    count = weights.sum(dim=1)
    mean = (values * weights).sum(dim=1) / count
    apart = (values - mean.unsqueeze(1)) * weights
    return (apart * apart).sum(dim=1) / count
