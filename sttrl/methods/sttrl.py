"""STTRL: test-time reinforcement learning on one question (derived from TTRL, arXiv 2504.16084).

Each step samples ``n_votes`` responses, elects an answer, rewards the samples that agree with it, and takes one
policy-gradient update on ``n_train`` of them, with a KL term to the base. It stops when there is nothing left to
learn. The flags choose vote, reward, gates, advantage estimator and policy loss.
"""

from __future__ import annotations

from functools import partial

from sttrl.engine.base import Policy
from sttrl.methods.ballots import elect_the_same
from sttrl.methods.reinforce import gate_of, nothing_to_learn
from sttrl.methods.tools import Tools
from sttrl.methods.train_groups import train_groups
from sttrl.types import DeltaSpec, HeldVote, Outcome, Problem, Step, StopReason, UpdateStats


class Sttrl:
    """One update after each vote, on the samples of that vote."""

    def __init__(self, tools: Tools) -> None:
        self.tools, self.config = tools, tools.config

    def delta(self, problem: Problem | None, questions: int = 1) -> DeltaSpec:
        """A LoRA adapter or full weights."""
        return self.tools.weights(problem, self.config.method_steps * questions)

    async def adapt(self, problem: Problem, policy: Policy) -> Outcome:
        """Sample, vote, reward, update; at most ``steps`` times."""
        tools, before, flips = self.tools, None, 0
        for index in range(self.config.method_steps):
            if self.tools.out_of_time(problem):
                return Outcome(stop="time")
            version = policy.version
            vote = await tools.hold(problem, policy, index)
            flips += await self.flips(problem, before, vote) if problem.turns == 1 else 0  # other turns have other answers
            before = vote
            stop = nothing_to_learn(tools.config, vote) or self.too_many(flips, index)
            gate = None if stop else gate_of(tools.config, vote)
            groups = () if stop or gate else await train_groups(tools.config, policy, [vote])
            update = await policy.update(groups, tools.objective) if groups else None
            tools.observe(problem, Step(index=index, version=version, vote=vote, update=update, gate=gate))
            stop = self.budget_spent(update) or (stop if problem.turns == 1 else None)  # the next turn asks something else
            if stop:
                return Outcome(stop=stop)
        return Outcome(stop="steps")

    async def flips(self, problem: Problem, before: HeldVote | None, vote: HeldVote) -> bool:
        """Whether the elected answer changed. False without a comparison if any number of changes is allowed."""
        if before is None or self.config.sttrl.max_flip_rate >= 1:
            return False
        return not await elect_the_same(partial(self.tools.ballots, problem), before, vote)

    def too_many(self, flips: int, pairs: int) -> StopReason | None:
        """The stop, if the elected answer changed in more than the allowed fraction of the pairs of successive votes."""
        return "flip_rate" if pairs and flips / pairs > self.config.sttrl.max_flip_rate else None

    def budget_spent(self, update: UpdateStats | None) -> StopReason | None:
        """The stop, if the KL divergence to the base is above the budget."""
        budget = self.config.sttrl.kl_budget
        spent = budget is not None and update is not None and update.kl_to_base is not None and update.kl_to_base > budget
        return "kl_budget" if spent else None
