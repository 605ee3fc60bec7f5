"""TTRL (arXiv 2504.16084; PRIME-RL/TTRL): test-time reinforcement learning of one policy on a whole data set.

Every epoch goes through all questions in batches, in a new order. For each question of a batch: sample, vote, reward the samples;
then one update on all of them. No question is dropped: the last batch of an epoch may be smaller.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

from sttrl.engine.base import Policy
from sttrl.methods.history import capped
from sttrl.methods.reinforce import gate_of, nothing_to_learn
from sttrl.methods.tools import Tools
from sttrl.methods.train_groups import rewards_teach, train_groups
from sttrl.types import DeltaSpec, GateReason, HeldVote, Objective, Problem, Step


class Ttrl:
    """One update per batch of votes."""

    def __init__(self, tools: Tools) -> None:
        self.tools, self.config = tools, tools.config

    def delta(self, problem: Problem | None, questions: int = 1) -> DeltaSpec:
        """A LoRA adapter or full weights, with a schedule over the whole training."""
        batches = -(-questions // self.config.ttrl_batch_size)
        return self.tools.weights(None, batches * self.config.ttrl_epochs)

    def plan(self, problems: Sequence[Problem]) -> list[list[Problem]]:
        """The batches of all epochs. In each epoch the questions are sorted by a seed, so each epoch has a different order."""
        size, steps = self.config.ttrl_batch_size, []
        for epoch in range(self.config.ttrl_epochs):
            ordered = sorted(problems, key=lambda problem: self.tools.seeds(problem, "order", epoch, 1))
            steps += [ordered[start : start + size] for start in range(0, len(ordered), size)]
        return steps

    async def step(self, index: int, problems: Sequence[Problem], policy: Policy) -> None:
        """Vote on every question of the batch, and update on those from whose vote something can be learned."""
        tools, version = self.tools, policy.version
        votes = capped(await asyncio.gather(*(tools.hold(problem, policy, index) for problem in problems)))
        gates = [self.gate(vote) for vote in votes]
        places = [i for i, (vote, gate) in enumerate(zip(votes, gates, strict=True)) if gate is None and self.teaches(vote)]
        groups = await train_groups(tools.config, policy, [votes[i] for i in places])
        tokens_at = Counter[int]()
        for group in groups:
            assert group.problem is not None, "the number of its vote"
            tokens_at[places[group.problem]] += group.n_tokens * self.config.reinforcement.ppo_epochs
        update = await policy.update(groups, self.objective(len(tokens_at))) if groups else None
        for i, (problem, vote, gate) in enumerate(zip(problems, votes, gates, strict=True)):
            own = replace(update, tokens=tokens_at[i]) if update and tokens_at[i] else None
            tools.observe(problem, Step(index=index, version=version, vote=vote, update=own, gate=gate))

    def objective(self, questions: int) -> Objective:
        """The run's objective, with at most one mini-batch for each question: the samples of a question are never split."""
        whole = self.tools.objective
        return replace(whole, mini_batches=min(whole.mini_batches, questions))

    def teaches(self, vote: HeldVote) -> bool:
        """Whether an update can follow from a vote."""
        return not nothing_to_learn(self.config, vote) and rewards_teach(self.config, vote)

    def gate(self, vote: HeldVote) -> GateReason | None:
        """The gate that does not trust a vote. None also if there is nothing to learn from the vote."""
        return None if nothing_to_learn(self.config, vote) else gate_of(self.config, vote)
