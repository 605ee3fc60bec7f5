"""What a method is given: settings, seeds, and how a vote is held."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TypeVar

from sttrl.config import RunConfig
from sttrl.config.own_method import settings_of
from sttrl.engine.base import KeptDelta, Policy
from sttrl.ledger.seeds import SeedSource
from sttrl.methods.ballots import ballots_with
from sttrl.objectives.registry import estimator_needs
from sttrl.objectives.rewards import reward_of_run
from sttrl.types import (
    Ballots,
    DeltaSpec,
    Election,
    Group,
    HeldVote,
    Measure,
    Objective,
    Problem,
    Request,
    Rollout,
    Row,
    RowSet,
    Sampling,
    Stat,
    Step,
    TokenStats,
    TrainGroup,
)
from sttrl.voting import VOTES, VoteConfig, elect_by, stats_needed

S = TypeVar("S")


@dataclass(frozen=True, kw_only=True)
class Tools:
    """Everything except the policy that a method may use.

    ``ballots`` extracts and judges the answers of a group. ``rows``: the training rows of a problem, whole, always the same.
    ``response_tokens``: the most tokens of a response. ``out_of_time``: whether a method should stop adapting to a problem. A method calls
    ``observe`` after every step; None: a step that is of no problem. ``training``: the rows of a training set; None: there is none.
    ``stored``: the folder of the adapter that was kept for a problem; None: there is none.
    """

    config: RunConfig
    ballots: Callable[[Problem, Group], Awaitable[Ballots]]
    rows: Callable[[Problem], Sequence[Row]]
    response_tokens: int
    out_of_time: Callable[[Problem], bool]
    seeds: SeedSource
    observe: Callable[[Problem | None, Step], object]
    training: RowSet | None = None
    stored: Callable[[Problem], KeptDelta | None] = lambda problem: None

    @property
    def sampling(self) -> Sampling:
        """The sampling settings of votes."""
        return replace(self.config.sampling_of_votes, max_tokens=self.response_tokens)

    @property
    def objective(self) -> Objective:
        """What a policy-gradient update minimises."""
        config = self.config
        return Objective(
            temperature=config.sampling.temp,
            policy_loss=config.reinforcement.policy_loss,
            loss_aggregation=config.reinforcement.loss_aggregation,
            clip_low=config.reinforcement.clip_low,
            clip_high=config.reinforcement.clip_high,
            kl_coef=config.update.kl_coef,
            max_logprob_gap=config.update.max_logprob_gap,
            ppo_epochs=config.reinforcement.ppo_epochs,
            mini_batches=config.steps_of_a_pass,
            horizon=self.response_tokens,
        )

    def own_settings(self, kind: type[S]) -> S:
        """The settings of a method of one's own (``--method_settings``), as an instance of its dataclass. Raises `UsageError`."""
        return settings_of(kind, self.config.method.method_settings)

    def vote(self, ballots: Ballots) -> Election:
        """The run's voting function."""
        return elect_by(self.config.vote.voting_function, ballots, VoteConfig.of(self.config))

    def majority(self, ballots: Ballots) -> Election:
        """The majority vote, which is recorded whatever the voting function is."""
        return VOTES["majority"](ballots, VoteConfig.of(self.config))

    def weights(self, problem: Problem | None, total_steps: int) -> DeltaSpec:
        """A LoRA adapter or full weights, with the run's optimiser settings. Each problem has its own seed; None: the run's."""
        config = self.config
        return DeltaSpec(
            kind="lora" if config.update.lora_rank else "full",
            lr={"main": config.learning_rate, "embedding": config.embedding_rate},
            total_steps=max(1, total_steps),
            **config.optimiser,
            critic_lr=config.reinforcement.critic_lr,
            seed=self.seeds(problem, "lora", 0, 1)[0] if problem is not None else config.run.seed,
        )

    async def hold(self, problem: Problem, policy: Policy, step: int) -> HeldVote:
        """Sample ``n_votes`` responses, judge them, vote, and reward each of them."""
        config, reward = self.config, reward_of_run(self.config)
        prompt_T, seeds_G = problem.prompt_of(step), self.seeds(problem, "vote", step, config.sampling.n_votes)
        asked = Request.each(prompt_T, self.sampling, seeds_G)
        if "baseline" in estimator_needs(config.reinforcement.adv_estimator):
            greedily = replace(self.sampling, temperature=0.0, top_p=1.0)
            asked += Request.each(prompt_T, greedily, self.seeds(problem, "baseline", step, 1))
        rollouts = await policy.sample(asked)
        group = Group(prompt_T=prompt_T, rollout_G=rollouts[: config.sampling.n_votes])
        greedy = rollouts[-1] if len(rollouts) > config.sampling.n_votes else None
        read = stats_needed(config.vote.voting_function, VoteConfig.of(config)) | reward.stats
        ballots = await self.weighed(problem, policy, group, read)
        election, majority = self.vote(ballots), self.majority(ballots)
        reward_G = reward.function(ballots, election, [r.seed for r in group.rollout_G])
        vote = HeldVote(group=group, ballots=ballots, election=election, majority=majority, reward_G=reward_G, greedy=greedy)
        return replace(vote, baseline=await self.earned(problem, policy, vote, greedy)) if greedy else vote

    async def weighed(self, problem: Problem, policy: Policy, group: Group, wanted: frozenset[Stat]) -> Ballots:
        """Judge a group and add token statistics. Log-probs come with the samples; the learner computes the others that are ``wanted``."""
        ballots = await self.ballots(problem, group)
        stats_G: Sequence[TokenStats] = [TokenStats()] * len(group.rollout_G)
        if wanted - {"logprob"}:
            (stats_G,) = await policy.score([TrainGroup.of(group)], self.measure(wanted - {"logprob"}))
        return replace(ballots, stats_G=tuple(replace(s, logprob_T=r.logprob_T) for s, r in zip(stats_G, group.rollout_G, strict=True)))

    def measure(self, wanted: frozenset[Stat]) -> Measure:
        """What the learner measures, at the temperature of the samples."""
        top_k, energy = self.config.confidence_vote.confidence_top_k, self.config.energy_vote.energy_temp
        return Measure(want=wanted, temperature=self.config.sampling.temp, energy_temperature=energy, top_k=top_k)

    async def earned(self, problem: Problem, policy: Policy, vote: HeldVote, greedy: Rollout) -> float:
        """The reward of the greedy response, as if it were one more sample. The vote and the samples' rewards do not change.

        The learner measures the statistics of its tokens again: the sampler scores a greedy response at temperature 1.
        """
        reward = reward_of_run(self.config)
        ballots = await ballots_with(partial(self.ballots, problem), vote, greedy)
        if reward.stats:
            (stats,) = await policy.score([TrainGroup.of(replace(vote.group, rollout_G=(greedy,)))], self.measure(reward.stats))
            ballots = replace(ballots, stats_G=(*(vote.ballots.stats_G or ()), *stats))
        in_winner = float(ballots.class_G[-1] is not None and ballots.class_G[-1] == vote.election.winner)
        election = replace(vote.election, in_winner_G=(*vote.election.in_winner_G, in_winner))
        return reward.function(ballots, election, [r.seed for r in (*vote.group.rollout_G, greedy)])[-1]
