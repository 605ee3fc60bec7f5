"""MEMO (NeurIPS 2022; zhangmarvin/memo): lower the entropy of a marginal distribution. MEMO is for images; this form is derived.

``answer``: the marginal is the distribution of the sampled answers. The gradient of its entropy is a policy gradient whose reward is
the log of the frequency of a sample's own class, minus the mean of these rewards. ``token``: the marginal is the mean distribution of
the next token over views of the prompt, each of which ends where the answer would begin; its entropy is differentiated exactly.
"""

from __future__ import annotations

from dataclasses import replace
from math import fsum

from sttrl.engine.base import Policy
from sttrl.methods.tools import Tools
from sttrl.objectives.rewards import memo_answer_rewards
from sttrl.types import DeltaSpec, HeldVote, Objective, Outcome, Problem, Row, Step, StopReason, TrainGroup


class Memo:
    """Entropy minimisation on one question."""

    def __init__(self, tools: Tools) -> None:
        self.tools, self.config = tools, tools.config

    def delta(self, problem: Problem | None, questions: int = 1) -> DeltaSpec:
        """A LoRA adapter or full weights."""
        return self.tools.weights(problem, self.config.method_steps * questions)

    async def adapt(self, problem: Problem, policy: Policy) -> Outcome:
        """``steps`` steps on the entropy of the chosen marginal."""
        for index in range(self.config.method_steps):
            if self.tools.out_of_time(problem):
                return Outcome(stop="time")
            stop = await (self.token_step if self.config.memo.memo_form == "token" else self.answer_step)(problem, policy, index)
            if stop:
                return Outcome(stop=stop)
        return Outcome(stop="steps")

    async def answer_step(self, problem: Problem, policy: Policy, index: int) -> StopReason | None:
        """A policy-gradient step on the entropy of the sampled answers."""
        version, vote = policy.version, await self.tools.hold(problem, policy, index)
        groups = self.answer_groups(vote)
        gap, temperature = self.config.update.max_logprob_gap, self.config.sampling.temp
        update = await policy.update(groups, Objective(kl_coef=0.0, max_logprob_gap=gap, temperature=temperature)) if groups else None
        self.tools.observe(problem, Step(index=index, version=version, vote=vote, update=update))
        if update or problem.turns > 1:  # the next turn asks something else
            return None
        return "unparsable" if vote.election.voters == 0 else "unanimous"

    def answer_groups(self, vote: HeldVote) -> tuple[TrainGroup, ...]:
        """The first samples; the advantage is the log frequency of the own class minus the mean. None of them if all rewards are equal."""
        rollout_G = vote.group.rollout_G[: self.config.sampling.n_train]
        reward_G = memo_answer_rewards(vote.ballots)[: len(rollout_G)]
        if len(set(reward_G)) == 1:
            return ()
        mean = fsum(reward_G) / len(reward_G)
        row_G = [Row.of(r, (reward - mean,) * len(r.token_T)) for reward, r in zip(reward_G, rollout_G, strict=True)]
        return TrainGroup.each(replace(vote.group, rollout_G=rollout_G), row_G)

    async def token_step(self, problem: Problem, policy: Policy, index: int) -> StopReason | None:
        """A step on the entropy of the next token, averaged over the views."""
        version = policy.version
        update = await policy.update([views_group(problem.begun_V)], Objective(loss="marginal_entropy"))
        self.tools.observe(problem, Step(index=index, version=version, vote=None, update=update))
        return None


def views_group(view_V: tuple[tuple[int, ...], ...]) -> TrainGroup:
    """The views as rows after their common prefix. Each row has one more token, the only one that carries loss."""
    shared = min(len(view) for view in view_V) - 1
    while len({view[:shared] for view in view_V}) > 1:
        shared -= 1
    assert shared > 0, "views begin alike"
    # The token after a view is a placeholder: the loss reads the distribution at its position, not its own probability.
    rows = [(*view[shared:], view[0]) for view in view_V]
    row_G = tuple(Row(token_T=row, weight_T=(*(0.0,) * (len(row) - 1), 1.0)) for row in rows)
    return TrainGroup(prefix_T=view_V[0][:shared], row_G=row_G)
