"""TTFT: test-time fine-tuning on one question (derived; nearest published: DiSCTT, arXiv 2603.05357).

The policy votes once. The samples that agree with the elected answer, at most ``n_train`` of them, become the training set:
each step is one AdamW step on the mean negative log-likelihood of their tokens, prompt excluded.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from sttrl.engine.base import Policy
from sttrl.methods.reinforce import distrust
from sttrl.methods.tools import Tools
from sttrl.types import DeltaSpec, HeldVote, Objective, Outcome, Problem, Step, StopReason, TrainGroup


class Ttft:
    """Supervised steps on the samples that won the vote."""

    def __init__(self, tools: Tools) -> None:
        self.tools, self.config = tools, tools.config

    def delta(self, problem: Problem | None, questions: int = 1) -> DeltaSpec:
        """A LoRA adapter or full weights."""
        return self.tools.weights(problem, self.config.method_steps * questions)

    async def adapt(self, problem: Problem, policy: Policy) -> Outcome:
        """Sample and vote once, then fit the samples that agree."""
        version, vote = policy.version, await self.tools.hold(problem, policy, 0)
        stop, gate = self.nothing_to_fit(vote), distrust(self.config, vote.election)
        if stop or gate or not self.config.method_steps:
            self.tools.observe(problem, Step(index=0, version=version, vote=vote, update=None, gate=None if stop else gate))
            return Outcome(stop=stop or "steps")
        groups = self.agreeing(vote)
        for index in range(self.config.method_steps):
            if self.tools.out_of_time(problem):
                return Outcome(stop="time")
            update = await policy.update(groups, self.objective())
            self.tools.observe(problem, Step(index=index, version=version + index, vote=None if index else vote, update=update))
            # From the second step on the sampler's log-probs are those of older weights: there is nothing to compare.
            groups = [replace(g, row_G=tuple(replace(row, sampler_logprob_T=None) for row in g.row_G)) for g in groups]
        return Outcome(stop="steps")

    def nothing_to_fit(self, vote: HeldVote) -> StopReason | None:
        """Why a vote gives nothing to train on. Unanimous samples can still be fitted."""
        if vote.election.voters == 0:
            return "unparsable"
        return "tie" if vote.election.abstains else None

    def objective(self) -> Objective:
        """The mean negative log-likelihood, at the temperature of the samples."""
        return Objective(loss="nll", temperature=self.config.sampling.temp, max_logprob_gap=self.config.update.max_logprob_gap)

    def agreeing(self, vote: HeldVote) -> Sequence[TrainGroup]:
        """The first samples that agree with the elected answer, a group for each view."""
        agreeing = tuple(r for r, in_winner in zip(vote.group.rollout_G, vote.election.in_winner_G, strict=True) if in_winner)
        return TrainGroup.of(replace(vote.group, rollout_G=agreeing[: self.config.sampling.n_train]))
