"""What a method is given: settings, seeds, and how a vote is held."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TypeVar

from sttrl.config import RunConfig
from sttrl.config.own_method import settings_of
from sttrl.engine.base import KeptDelta, Policy
from sttrl.ledger.records import StepRecord
from sttrl.ledger.seeds import SEED_BITS, SeedSource
from sttrl.methods.ballots import earned
from sttrl.methods.history import with_past
from sttrl.methods.trees import sample
from sttrl.methods.update import objective_of, weights_of
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
    in_sample_order,
)
from sttrl.voting import VOTES, VoteConfig, elect_by, stats_needed
from sttrl.voting.rounds import is_decided, rounds

S = TypeVar("S")


@dataclass(frozen=True, kw_only=True)
class Tools:
    """Everything except the policy that a method may use.

    ``ballots`` extracts and judges the answers of a group. ``rows``: the training rows of a problem, whole, always the same.
    ``response_tokens``: the most tokens of a response. ``out_of_time``: whether a method should stop adapting to a problem. A method calls
    ``observe`` after every step; None: a step that is of no problem. ``training``: the rows of a training set; None: there is none.
    ``stored``: the folder of the adapter that was kept for a problem; None: there is none. ``past``: the records of the steps that were
    taken for a problem so far, also by earlier attempts.
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
    past: Callable[[Problem], Sequence[StepRecord]] = lambda problem: ()

    @property
    def sampling(self) -> Sampling:
        """The sampling settings of votes."""
        return replace(self.config.sampling_of_votes, max_tokens=self.response_tokens)

    @property
    def objective(self) -> Objective:
        """What a policy-gradient update minimises."""
        return objective_of(self.config, self.response_tokens)

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
        seed = self.seeds(problem, "lora", 0, 1)[0] if problem is not None else self.config.run.seed
        return weights_of(self.config, total_steps, seed)

    async def hold(self, problem: Problem, policy: Policy, step: int) -> HeldVote:
        """Sample ``n_votes`` responses, or fewer with ``votes_until``; judge them, vote, and reward each of them."""
        config, reward = self.config, reward_of_run(self.config)
        read = stats_needed(config.vote.voting_function, VoteConfig.of(config)) | reward.stats
        group, ballots, greedy = await self.drawn(problem, policy, step, read)
        election, majority = self.vote(ballots), self.majority(ballots)
        reward_G = reward.function(ballots, election, [r.seed for r in group.rollout_G])
        vote = HeldVote(group=group, ballots=ballots, election=election, majority=majority, reward_G=reward_G, greedy=greedy)
        past = [taken for taken in self.past(problem) if problem.prompt_of(taken.step) == group.prompt_T]
        vote = with_past(config, vote, past, lambda: self.seeds(problem, "guard", step, 1)[0] / (1 << SEED_BITS))
        if greedy is None:
            return vote
        stats_G = await self.stats(policy, replace(group, rollout_G=(greedy,)), reward.stats)
        return replace(vote, baseline=await earned(partial(self.ballots, problem), reward.function, vote, greedy, stats_G))

    async def drawn(self, problem: Problem, policy: Policy, step: int, read: frozenset[Stat]) -> tuple[Group, Ballots, Rollout | None]:
        """The samples of a vote, their ballots with the statistics ``read``, and a greedy response if the advantage estimator needs one.

        A sample's seed and view depend on its number only, so the samples of a vote that ends early are the first of the whole vote's.
        The greedy response is to the plain problem.
        """
        config, prompt_V = self.config, problem.prompts_of(step)
        seeds_G, until = self.seeds(problem, "vote", step, config.sampling.n_votes), config.vote.votes_until
        group, greedy = Group.begin(prompt_V), tuple[Rollout, ...]()
        ballots = Ballots(answer_G=(), class_G=(), representative_C=())
        for count in rounds(len(seeds_G), until, config.vote.votes_first):
            before = len(group.rollout_G)
            asked = Request.spread(prompt_V, self.sampling, seeds_G[before:count], before)
            if before == 0 and "baseline" in estimator_needs(config.reinforcement.adv_estimator):
                greedily = replace(self.sampling, temperature=0.0, top_p=1.0)
                asked += Request.each(prompt_V[0], greedily, self.seeds(problem, "baseline", step, 1))
            rollouts = await sample(policy, asked, config.tree, config.sampling.temp)
            group, greedy = replace(group, rollout_G=group.rollout_G + rollouts[: count - before]), greedy or rollouts[count - before :]
            ballots = await self.weighed(problem, policy, group, read, ballots.stats_G or ())
            if is_decided(self.vote(ballots), until):
                break
        return group, ballots, next(iter(greedy), None)

    async def weighed(
        self, problem: Problem, policy: Policy, group: Group, wanted: frozenset[Stat], known_G: Sequence[TokenStats] = ()
    ) -> Ballots:
        """Judge a group and add token statistics. ``known_G``: those of the first samples. The learner computes ``wanted``."""
        ballots, new_G = await self.ballots(problem, group), group.rollout_G[len(known_G) :]
        stats_G = await self.stats(policy, replace(group, rollout_G=new_G), wanted - {"logprob"})
        stats_G = [*known_G, *(replace(s, logprob_T=r.logprob_T) for s, r in zip(stats_G, new_G, strict=True))]
        return replace(ballots, stats_G=tuple(stats_G), reasoning_step_GT=tuple(r.reasoning_step_T for r in group.rollout_G))

    async def stats(self, policy: Policy, group: Group, wanted: frozenset[Stat]) -> Sequence[TokenStats]:
        """What the learner measures of the tokens of each sample, at the temperature of the samples; nothing if nothing is wanted."""
        if not wanted:
            return [TokenStats()] * len(group.rollout_G)
        top_k, energy = self.config.confidence_vote.confidence_top_k, self.config.energy_vote.energy_temp
        measure = Measure(want=wanted, temperature=self.config.sampling.temp, energy_temperature=energy, top_k=top_k)
        return in_sample_order(group, await policy.score(TrainGroup.of(group), measure))
